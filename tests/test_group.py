"""Competing subscriptions: `group=`."""

from __future__ import annotations

import threading
import time

import pytest
from reactivex import operators as ops
from reactivex.scheduler import ImmediateScheduler, ThreadPoolScheduler

from rxbus import DrainTimeoutError, Event, EventBus, Overflow, Reason, Retry
from tests.support import LIMIT, Gate, Recorder, assert_books_balance, join, run_in_thread


class TestGroup:
    """One stream, several who take from it."""

    def test_each_event_goes_to_one_member(self, bus: EventBus) -> None:
        """Both get some, nobody gets what another got; others outside of the group get all."""
        first, second, outside = Recorder(), Recorder(), Recorder()
        a = bus.subscribe("a", first, group="g", name="first")
        b = bus.subscribe("a", second, group="g", name="second")
        bus.subscribe("a", outside)
        for n in range(20):
            assert (2, 0) == (bus.deliver("a", n, timeout=LIMIT).handled, 0)
        bus.drain(LIMIT)
        assert list(range(20)) == sorted(first.payloads + second.payloads)
        assert first.payloads
        assert second.payloads
        assert list(range(20)) == outside.payloads
        counted = assert_books_balance(bus)
        assert 20 == a.statistics().handled + b.statistics().handled
        assert (20, 3, 40) == (counted.topics["a"].published, counted.topics["a"].subscribers, counted.topics["a"].handled)

    def test_a_slow_member_holds_up_nothing(self, bus: EventBus) -> None:
        """While one stands still in its handler, the other one takes the rest."""
        gate, done = Gate(), Recorder()
        bus.subscribe("a", gate, group="g")
        bus.publish("a", 0)
        gate.wait_until_entered()
        other = bus.subscribe("a", done, group="g")
        bus.publish_many("a", range(1, 50))
        assert other._strand.wait_until(lambda: len(done.events) == 49, time.monotonic() + LIMIT)
        gate.open()
        bus.drain(LIMIT)
        assert [0] == gate.seen

    def test_what_comes_in_a_row_is_shared(self, bus: EventBus) -> None:
        """`publish_many` wakes as many as there is work for."""
        meet = threading.Barrier(4)
        for n in range(4):
            bus.subscribe("a", lambda e: meet.wait(LIMIT), group="g", name=f"m{n}")
        bus.publish_many("a", range(4))
        bus.drain(LIMIT)
        assert 4 == assert_books_balance(bus).topics["a"].handled

    def test_deliver_counts_it_once(self, bus: EventBus) -> None:
        """A group settles an event once, handled or failed."""

        def handler(event: Event[int]) -> None:
            if event.payload:
                raise ValueError

        bus.subscribe("a", handler, group="g")
        bus.subscribe("a", handler, group="g")
        assert (1, 0) == (bus.deliver("a", 0, timeout=LIMIT).handled, 0)
        assert (0, 1) == (bus.deliver("a", 1, timeout=LIMIT).handled, bus.deliver("a", 1, timeout=LIMIT).failed)
        assert {"handler", "handler#2"} >= {letter.subscription for letter in bus.dead_letters}

    def test_what_a_leaving_member_had_queued_moves(self, bus: EventBus) -> None:
        """Nothing is dropped as long as somebody is left; the event in the handler may finish."""
        gate, done = Gate(), Recorder()
        leaving = bus.subscribe("a", gate, group="g", name="leaving")
        bus.publish_many("a", range(10))
        gate.wait_until_entered()
        bus.subscribe("a", done, group="g", name="staying").pause()
        leaving.dispose()
        assert (0, 1) == (leaving.statistics().dropped, leaving.statistics().pending)
        assert 9 == bus.subscriptions["staying"].statistics().pending
        bus.subscriptions["staying"].resume()
        gate.open()
        bus.drain(LIMIT)
        assert ([0], list(range(1, 10))) == (gate.seen, done.payloads)
        counted = assert_books_balance(bus)
        assert (10, 0) == (counted.topics["a"].handled, counted.topics["a"].dropped)

    def test_an_event_that_waits_for_a_retry_moves_too(self, bus: EventBus) -> None:
        """Its next attempt is the first one of another member."""
        failed, done = threading.Event(), Recorder()

        def fails(event: Event[int]) -> None:
            failed.set()
            raise ValueError

        leaving = bus.subscribe("a", fails, group="g", retry=Retry(max_attempts=3, backoff=60.0))
        bus.publish("a", 1)
        assert failed.wait(LIMIT)
        assert leaving._strand.wait_until(lambda: leaving._strand.is_suspended, time.monotonic() + LIMIT)
        bus.subscribe("a", done, group="g")
        leaving.dispose(wait=LIMIT)
        bus.drain(LIMIT)
        assert [1] == done.payloads
        assert 0 == leaving.statistics().offered
        assert_books_balance(bus)

    def test_the_last_one_drops_what_is_queued(self, bus: EventBus) -> None:
        """And the next one founds a new group, which gets no history."""
        gate, done = Gate(), Recorder()
        last = bus.subscribe("a", gate, group="g")
        bus.publish_many("a", range(5))
        gate.wait_until_entered()
        last.dispose()
        assert (5, 4, 1) == (last.statistics().offered, last.statistics().dropped, last.statistics().pending)
        bus.subscribe("a", done, group="g", capacity=3)
        bus.publish("a", 5)
        gate.open()
        bus.drain(LIMIT)
        assert [5] == done.payloads
        counted = assert_books_balance(bus)
        assert (2, 4) == (counted.topics["a"].handled, counted.topics["a"].dropped)

    def test_a_paused_member_leaves_it_to_the_others(self, bus: EventBus) -> None:
        """With all of them paused `drain` says so instead of waiting for ever."""
        done = Recorder()
        paused = bus.subscribe("a", print, group="g")
        other = bus.subscribe("a", done, group="g")
        paused.pause()
        bus.publish_many("a", range(10))
        bus.drain(LIMIT)
        assert list(range(10)) == done.payloads
        other.pause()
        bus.publish_many("a", range(3))
        assert 3 == paused.statistics().pending + other.statistics().pending
        with pytest.raises(Exception, match="is paused with 3 events"):
            bus.drain(LIMIT)
        other.resume()
        bus.drain(LIMIT)
        assert_books_balance(bus)

    def test_a_member_that_backs_off_leaves_it_to_the_others(self, bus: EventBus) -> None:
        """While one waits between two attempts, another one takes what comes."""
        done = Recorder()
        failing = threading.Event()

        def fails(event: Event[int]) -> None:
            failing.set()
            raise ValueError

        first = bus.subscribe("a", fails, group="g", retry=Retry(max_attempts=2, backoff=0.2, jitter=0))
        bus.publish("a", 0)
        assert failing.wait(LIMIT)
        other = bus.subscribe("a", done, group="g")
        bus.publish_many("a", [1, 2, 3])
        assert other._strand.wait_until(lambda: len(done.events) == 3, time.monotonic() + LIMIT)
        assert 0 == first.statistics().failed
        bus.drain(LIMIT)
        assert (1, 3) == (first.statistics().failed, other.statistics().handled)
        assert_books_balance(bus)

    def test_members_may_have_several_hands_and_pipelines(self, bus: EventBus) -> None:
        """Three hands of one and one of the other are in four events at a time."""
        meet = threading.Barrier(4)
        bus.subscribe("a", lambda e: meet.wait(LIMIT), group="g", concurrency=3)
        bus.subscribe("a", lambda p: meet.wait(LIMIT), group="g", through=ops.map(lambda e: e.payload))
        bus.publish_many("a", range(40))
        bus.drain(LIMIT)
        assert 40 == assert_books_balance(bus).topics["a"].handled

    def test_wildcards(self, bus: EventBus) -> None:
        """A group on a pattern gets the events of topics that come later too; another pattern is another group."""
        done, other = Recorder(), Recorder()
        bus.publish("t.1", "before")
        for n in range(2):
            bus.subscribe("t.*", done, group="g", name=f"m{n}")
        bus.subscribe("t.2", other, group="g")
        for n in (1, 2, 3):
            bus.publish(f"t.{n}", n)
        bus.drain(LIMIT)
        assert ([1, 2, 3], [2]) == (sorted(done.payloads), other.payloads)
        bus.forget("t.1")
        bus.publish("t.1", 4)
        bus.drain(LIMIT)
        counted = assert_books_balance(bus)
        assert (1, 1) == (counted.topics["t.1"].handled, counted.topics["t.1"].published)
        for n in range(2):
            bus.subscriptions[f"m{n}"].dispose()
        assert 2 == bus.statistics().topics["t.2"].handled

    def test_forget_ends_all_members(self, bus: EventBus) -> None:
        """After what is queued; whoever asks for the group again founds another one."""
        gate, done = Gate(), Recorder()
        members = [bus.subscribe("a", gate, group="g", name=f"m{n}") for n in range(2)]
        bus.publish_many("a", range(6))
        gate.wait_until_entered()
        bus.forget("a")
        bus.subscribe("a", done, group="g")
        bus.publish("a", "new")
        gate.open()
        bus.drain(LIMIT)
        assert all(one._strand.wait_until(lambda one=one: one.is_disposed, time.monotonic() + LIMIT) for one in members)
        assert (list(range(6)), ["new"]) == (sorted(gate.seen), done.payloads)
        assert_books_balance(bus)

    def test_a_pipeline_that_completes_takes_its_member_out(self, bus: EventBus) -> None:
        """What is queued stays with the others."""
        few, done = Recorder(), Recorder()
        one = bus.subscribe("a", few, group="g", through=ops.take(2), concurrency=2)
        bus.publish_many("a", range(2))
        bus.drain(LIMIT)
        assert one._strand.wait_until(lambda: one.is_disposed, time.monotonic() + LIMIT)
        other = bus.subscribe("a", done, group="g")
        bus.publish_many("a", range(2, 10))
        bus.drain(LIMIT)
        assert (2, 8) == (len(few.events), other.statistics().handled)

    @pytest.mark.parametrize(
        ("overflow", "dropped", "failed"), [(Overflow.DROP_OLDEST, 89, 0), (Overflow.DROP_LATEST, 89, 0), (Overflow.FAIL, 0, 89)]
    )
    def test_overflow_is_counted_in_the_name_of_a_member(self, bus: EventBus, overflow: Overflow, dropped: int, failed: int) -> None:
        """One mailbox for all: capacity 10, everybody stands still, and the books are right."""
        gate = Gate()
        one = bus.subscribe("a", gate, group="g", capacity=10, overflow=overflow, name="m")
        bus.publish("a", 0)
        gate.wait_until_entered()
        for n in range(1, 100):
            bus.publish("a", n)
        gate.open()
        bus.drain(LIMIT)
        counted = assert_books_balance(bus)
        assert (100, 11, failed, dropped) == (
            one.statistics().offered,
            one.statistics().handled,
            one.statistics().failed,
            one.statistics().dropped,
        )
        assert (11, failed, dropped) == (counted.topics["a"].handled, counted.topics["a"].failed, counted.topics["a"].dropped)
        assert failed == len(bus.dead_letters)

    def test_block_waits_for_any_member(self, bus: EventBus) -> None:
        """A publisher that found the mailbox full goes on as soon as a new member takes something."""
        gate, done = Gate(), Recorder()
        bus.subscribe("a", gate, group="g", capacity=1)
        bus.publish("a", 0)
        gate.wait_until_entered()
        bus.publish("a", 1)
        publisher = run_in_thread(bus.publish, "a", 2)
        time.sleep(0.02)
        assert publisher.is_alive()
        bus.subscribe("a", done, group="g")
        join(publisher)
        gate.open()
        bus.drain(LIMIT)
        assert [1, 2] == done.payloads

    def test_a_member_may_wait_for_the_others(self, bus: EventBus) -> None:
        """A handler delivers into its own group: another member does it; alone, it raises instead of waiting for itself."""
        answers: list[int] = []

        def handler(event: Event[str]) -> None:
            if event.payload == "outer":
                answers.append(bus.deliver("a", "inner", timeout=LIMIT).handled)

        bus.subscribe("a", handler, group="g")
        second = bus.subscribe("a", handler, group="g")
        assert 1 == bus.deliver("a", "outer", timeout=LIMIT).handled
        second.dispose()
        assert 1 == bus.deliver("a", "outer", timeout=LIMIT).failed
        assert [1] == answers

    def test_a_member_whose_scheduler_refuses(self, bus: EventBus) -> None:
        """The others take what it can't; when nobody can, the events are dead letters."""
        pool, done = ThreadPoolScheduler(1), Recorder()
        bus.subscribe("a", done, group="g", scheduler=pool, name="broken")
        pool.executor.shutdown()
        other = bus.subscribe("a", done, group="g", name="sound")
        for n in range(10):
            bus.publish("a", n)
        bus.drain(LIMIT)
        assert list(range(10)) == sorted(done.payloads)
        other.dispose()
        bus.publish("a", 10)
        bus.drain(LIMIT)
        assert [(10, Reason.UNDELIVERABLE, "broken")] == [(x.event.payload, x.reason, x.subscription) for x in bus.dead_letters]
        assert_books_balance(bus)

    def test_inline_members_take_turns(self) -> None:
        """On an immediate scheduler each event is handled before `publish` returns."""
        first, second = Recorder(), Recorder()
        with EventBus(scheduler=ImmediateScheduler()) as bus:
            bus.subscribe("a", first, group="g")
            bus.subscribe("a", second, group="g")
            for n in range(6):
                bus.publish("a", n)
                assert n + 1 == len(first.events) + len(second.events)
            assert (3, 3) == (len(first.events), len(second.events))

    def test_close_drains_and_reports_a_group(self) -> None:
        """What nobody took is reported once."""
        gate = Gate()
        bus = EventBus()
        bus.subscribe("a", gate, group="g", name="m1")
        bus.subscribe("a", gate, group="g", name="m2")
        bus.publish_many("a", range(10))
        gate.wait_until_entered()
        report = bus.close(0.1)
        assert 10 == sum(report.unhandled.values())
        assert ("m1", "m2") == report.stuck
        gate.open()

    def test_deliver_names_the_group_that_is_late(self, bus: EventBus) -> None:
        """In the error of a timeout."""
        gate = Gate()
        bus.subscribe("a", gate, group="g")
        with pytest.raises(DrainTimeoutError, match="group 'g'"):
            bus.deliver("a", 1, timeout=0.01)
        gate.open()


class TestBadInput:
    """Said at the call, before anything happened."""

    def test_members_share_one_mailbox(self, bus: EventBus) -> None:
        """So they can't ask for different ones; what isn't asked for is the group's."""
        bus.subscribe("a", print, group="g", capacity=10, overflow=Overflow.FAIL)
        with pytest.raises(ValueError, match="capacity of group 'g' on 'a' is 10, got 20"):
            bus.subscribe("a", print, group="g", capacity=20)
        with pytest.raises(ValueError, match="overflow of group 'g'"):
            bus.subscribe("a", print, group="g", overflow=Overflow.BLOCK)
        assert 10 == bus.subscribe("a", print, group="g").statistics().capacity
        assert ["print", "print#2"] == list(bus.subscriptions)

    def test_names_of_groups(self, bus: EventBus) -> None:
        """A str with something in it."""
        with pytest.raises(TypeError, match="group must be a str"):
            bus.subscribe("a", print, group=5)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="group must not be blank"):
            bus.subscribe("a", print, group=" ")

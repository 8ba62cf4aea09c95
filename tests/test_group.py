"""Competing subscriptions: `group=`."""

from __future__ import annotations

import threading
import time

import pytest
import reactivex as rx
from reactivex import operators as ops
from reactivex.scheduler import ImmediateScheduler, ThreadPoolScheduler

from rxbus import DrainTimeoutError, Event, EventBus, Overflow, Reason, Retry
from tests.stress.racing import eventually
from tests.support import LIMIT, Gate, Recorder, Unreliable, assert_books_balance, join, run_in_thread


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

    def test_what_a_broken_member_held_is_not_lost(self, bus: EventBus) -> None:
        """Its scheduler refuses while an event of it waits for a retry, and while its pipeline wants to be subscribed to."""
        scheduler, done = Unreliable(), Recorder()
        failing = threading.Event()

        def fails(event: Event[int]) -> None:
            failing.set()
            raise ValueError

        broken = bus.subscribe("a", fails, group="g", retry=Retry(3, backoff=0.05), scheduler=scheduler)
        bus.publish("a", 1)
        assert failing.wait(LIMIT)
        assert broken._strand.wait_until(lambda: broken._strand.is_suspended, time.monotonic() + LIMIT)
        scheduler.refuses = True
        bus.subscribe("a", done, group="g")
        bus.subscribe("a", done, group="g", through=ops.map(lambda e: e), scheduler=scheduler)
        bus.drain(LIMIT)
        assert [1] == done.payloads
        assert_books_balance(bus)

    def test_an_event_of_which_a_part_was_handled_does_not_move(self, bus: EventBus) -> None:
        """No value is handled twice: what is left of it is dropped with its member."""
        first, done = Recorder(), Recorder()
        handled = threading.Event()

        def handler(value: tuple[int, int]) -> None:
            first.events.append(value)
            handled.set()

        def values(event: Event[int]) -> rx.Observable[tuple[int, int]]:
            def before(value: tuple[int, int]) -> None:
                if value[1] == 1:
                    assert handled.wait(LIMIT)
                    one.pause()

            return rx.of(*((event.payload, n) for n in range(3))).pipe(ops.do_action(before))

        one = bus.subscribe("a", handler, group="g", through=ops.flat_map(values), concurrency=2)
        bus.publish("a", 7)
        assert one._strand.wait_until(lambda: one._strand.taken == 1 and one._strand.in_flight is None, time.monotonic() + LIMIT)
        bus.subscribe("a", done, group="g")
        one.dispose()
        bus.drain(LIMIT)
        assert ([(7, 0)], [], 1) == (first.events, done.events, one.statistics().dropped)
        assert_books_balance(bus)

    def test_a_member_that_is_busy_with_a_timer_is_passed_over(self, bus: EventBus) -> None:
        """An event goes to who rests, not to who stands still in what a timer emitted."""
        gate, seen = Gate(), Recorder()
        rests = bus.subscribe("a", seen, group="g")
        busy = bus.subscribe("a", gate, group="g", through=ops.debounce(0.02))
        bus.drain(LIMIT)
        for n in range(20):
            bus.publish("a", n)
            bus.drain(LIMIT)
            if busy.statistics().handled:
                break
        gate.wait_until_entered()
        before = rests.statistics().handled
        for n in range(10):
            bus.publish("a", n)
            assert eventually(lambda n=n: rests.statistics().handled == before + n + 1)
        gate.open()

    def test_letters_are_in_the_name_of_who_counted(self, bus: EventBus) -> None:
        """Though another member answers for the group by the time when the letter is written."""
        first = bus.subscribe("a", lambda e: None, group="g", capacity=1, overflow=Overflow.FAIL)
        second = bus.subscribe("a", lambda e: None, group="g")
        first.pause()
        second.pause()
        bus.publish("a", 0)
        bus.dead_letters.subscribe(lambda letter: second.resume(), scheduler=ImmediateScheduler())
        bus.publish_many("a", [1, 2, 3])
        first.resume()
        bus.drain(LIMIT)
        for one in (first, second):
            assert one.statistics().failed == len([x for x in bus.dead_letters if x.subscription == one.name])
        assert 3 == len(bus.dead_letters)

    def test_who_joins_inline_handles_outside_of_all_locks(self, bus: EventBus) -> None:
        """What is queued is handled inside `subscribe`, while other threads may do what they like with the bus."""
        free: list[bool] = []

        def handler(event: Event[int]) -> None:
            other = run_in_thread(lambda: (bus.topic("fresh"), bus.subscribe("x", print).dispose()))
            other.join(LIMIT)
            free.append(not other.is_alive())

        bus.subscribe("a", print, group="g").pause()
        bus.publish("a", 1)
        bus.subscribe("a", handler, group="g", scheduler=ImmediateScheduler())
        assert [True] == free
        bus.publish("a", 2)
        bus.subscriptions["handler"].dispose()
        bus.publish("a", 3)
        ended = bus.subscribe("a", lambda e: None, group="g", through=ops.take(1), scheduler=ImmediateScheduler(), name="once")
        assert (True, False) == (ended.is_disposed, "once" in bus.subscriptions)

    @pytest.mark.parametrize("how", ["publish", "deliver"])
    def test_a_leaving_member_lets_nobody_wait_for_himself(self, how: str) -> None:
        """A handler waits for its own group, which is all right until the other member leaves; then it gets on, soon."""
        inside, gate = threading.Event(), Gate()
        results: list[str] = []
        with EventBus(block_timeout=4 * LIMIT) as bus:

            def handler(event: Event[str]) -> None:
                if event.payload == "go":
                    if how == "publish":
                        bus.publish("a", "fills it")
                    inside.set()
                    try:
                        bus.publish("a", "x") if how == "publish" else bus.deliver("a", "x")
                        results.append("returned")
                    except Exception as error:
                        results.append(type(error).__name__)

            bus.subscribe("a", handler, group="g", capacity=1)
            other = bus.subscribe("a", gate, group="g")
            other.pause()
            bus.publish("a", "go")
            assert inside.wait(LIMIT)
            time.sleep(0.05)
            assert [] == results
            other.dispose()
            bus.drain(LIMIT)
            assert ["returned" if how == "publish" else "BusError"] == results

    def test_who_could_only_run_on_the_waiting_thread_is_passed_over(self, bus: EventBus) -> None:
        """A handler on an inline scheduler delivers to a group that has an inline member, and another one."""
        taken: list[str] = []
        bus.subscribe("u", lambda e: taken.append("inline"), group="g", scheduler=ImmediateScheduler())
        bus.subscribe("u", lambda e: taken.append("pool"), group="g")
        bus.drain(LIMIT)
        handled: list[int] = []
        bus.subscribe("a", lambda e: handled.append(bus.deliver("u", 1, timeout=LIMIT).handled), scheduler=ImmediateScheduler())
        bus.publish("a", 1)
        assert ([1], ["pool"]) == (handled, taken)

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

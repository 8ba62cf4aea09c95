"""The operators, alone and on a bus."""

from __future__ import annotations

import asyncio
import re
import threading
from typing import Any

import pytest
import reactivex as rx
from reactivex import operators as ops
from reactivex.scheduler import ImmediateScheduler
from reactivex.subject import Subject
from reactivex.testing import TestScheduler

from rxbus import DeadLetter, Event, EventBus, Overflow, Reason, Retry, current, operators
from rxbus.testing import VirtualBus, from_marbles
from tests.support import LIMIT, Gate, Recorder, assert_books_balance


def invert(n: int) -> float:
    """Fails for 0."""
    return 1 / n


class TestPayload:
    """`payload()`."""

    def test_takes_payloads_out_of_events(self) -> None:
        """Each event becomes its payload."""
        got: list[int] = []
        rx.of(Event("a", 1), Event("a", 2)).pipe(operators.payload()).subscribe(got.append)
        assert [1, 2] == got


class TestPublishTo:
    """`publish_to(topic)`."""

    def test_publishes_and_passes_on(self, bus: EventBus) -> None:
        """Each item goes out on the topic and down the pipeline; completion passes by the topic."""
        seen, got = Recorder(), []
        bus.subscribe("b", seen)
        rx.of(1, 2).pipe(operators.publish_to(bus.topic("b"))).subscribe(got.append)
        bus.publish("b", 3)
        bus.drain(LIMIT)
        assert [1, 2] == got
        assert [1, 2, 3] == seen.payloads

    def test_items_are_children(self, bus: EventBus) -> None:
        """Inside a subscription the causality is right, and the graph sees the traffic."""
        seen = Recorder()
        bus.subscribe("b", seen)
        through = rx.compose(operators.payload(), ops.map(lambda n: n + 1), operators.publish_to(bus.topic("b")))
        bus.subscribe("a", lambda _: None, through=through, name="agent")
        parent = bus.publish("a", 1)
        bus.drain(LIMIT)
        assert [(2, parent.id)] == [(e.payload, e.causation_id) for e in seen.events]
        assert "agent ╌╌▶ b" in str(bus.graph())

    def test_wants_a_topic(self) -> None:
        """Anything else is refused at the call."""
        with pytest.raises(TypeError, match="topic must be a Topic, got 'b'"):
            operators.publish_to("b")  # type: ignore[arg-type]


class TestAttempt:
    """`attempt(fn)`; with events of a bus see ``test_chaining``."""

    def test_without_a_bus_it_fails_like_map(self) -> None:
        """No bus keeps a letter, and none was asked for: the error goes down the chain."""
        got: list[float] = []
        errors: list[Exception] = []
        rx.of(1, 0, 2).pipe(operators.attempt(invert)).subscribe(got.append, errors.append)
        assert [1.0] == got
        assert [ZeroDivisionError] == [type(error) for error in errors]

    def test_letters_go_to_the_observer(self) -> None:
        """With `dead_letters=` the stream survives without a bus too."""
        got: list[float] = []
        letters: Subject[DeadLetter] = Subject()
        kept: list[DeadLetter] = []
        letters.subscribe(kept.append)
        rx.of(1, 0, 2).pipe(operators.attempt(invert, dead_letters=letters)).subscribe(got.append)
        assert [1.0, 0.5] == got
        [letter] = kept
        assert (0, Reason.FAILED, 1) == (letter.event.payload, letter.reason, letter.attempts)
        assert isinstance(letter.error, ZeroDivisionError)
        assert "ZeroDivisionError" in letter.traceback

    def test_observer_gets_the_letter_instead_of_the_bus(self, bus: EventBus) -> None:
        """The event counts as handled then: somebody took care of the failure."""
        letters: Subject[DeadLetter] = Subject()
        kept: list[DeadLetter] = []
        letters.subscribe(kept.append)
        bus.topic("a").pipe(operators.payload(), operators.attempt(invert, dead_letters=letters)).subscribe(lambda _: None)
        event = bus.publish("a", 0)
        bus.drain(LIMIT)
        assert [event] == [letter.event for letter in kept]
        assert 0 == len(bus.dead_letters)

    def test_retries_in_order_on_the_virtual_clock(self) -> None:
        """While it backs off, later events of the subscription wait; no thread sleeps."""
        clock = TestScheduler()
        bus = EventBus(scheduler=clock)
        failures = {1: 2}
        got: list[int] = []
        attempts: list[tuple[int, int]] = []

        def flaky(n: int) -> int:
            delivery = current()
            assert delivery is not None
            attempts.append((n, delivery.attempt))
            if failures.get(n, 0) > 0:
                failures[n] -= 1
                raise ValueError
            return n

        retry = Retry(3, backoff=5.0, jitter=0)
        bus.topic("a").pipe(operators.payload(), operators.attempt(flaky, retry)).subscribe(got.append)
        bus.publish_many("a", [0, 1, 2])
        clock.advance_to(4.0)
        assert [0] == got
        clock.advance_to(60.0)
        assert [0, 1, 2] == got
        assert [(0, 1), (1, 1), (1, 2), (1, 3), (2, 1)] == attempts
        assert 0 == len(bus.dead_letters)
        assert 3 == assert_books_balance(bus).subscriptions["observer@a"].handled
        bus.close()

    def test_gives_up_after_the_last_attempt(self) -> None:
        """Then its event is a dead letter, counted as failed once."""
        with EventBus() as bus:
            bus.topic("a").pipe(operators.payload(), operators.attempt(invert, Retry(3, backoff=0))).subscribe(lambda _: None)
            bus.publish("a", 0)
            bus.drain(LIMIT)
            assert [0] == [letter.event.payload for letter in bus.dead_letters]
            assert 1 == assert_books_balance(bus).subscriptions["observer@a"].failed

    def test_wants_a_function(self) -> None:
        """Bad arguments are refused at the call, by name."""
        with pytest.raises(TypeError, match="fn must be callable, got 1"):
            operators.attempt(1)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="retry must be a Retry, got 3"):
            operators.attempt(invert, 3)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="dead_letters must be an observer"):
            operators.attempt(invert, dead_letters=[])  # type: ignore[arg-type]


class TestMailbox:
    """`mailbox()`."""

    def test_what_follows_runs_elsewhere(self) -> None:
        """The source isn't held up by a slow observer behind the mailbox."""
        entered, release, done = threading.Event(), threading.Event(), threading.Event()
        got: list[int] = []

        def slow(n: int) -> None:
            entered.set()
            assert release.wait(LIMIT)
            got.append(n)
            if n == 2:
                done.set()

        rx.of(1, 2).pipe(operators.mailbox()).subscribe(slow)
        assert entered.wait(LIMIT)
        assert [] == got
        release.set()
        assert done.wait(LIMIT)
        assert [1, 2] == got

    def test_errors_and_completion_come_after_what_is_queued(self) -> None:
        """The grammar of Rx is kept."""
        got: list[object] = []
        source = rx.concat(rx.of(1, 2), rx.throw(ValueError("end")))
        source.pipe(operators.mailbox(scheduler=ImmediateScheduler())).subscribe(got.append, lambda e: got.append(str(e)))
        assert [1, 2, "end"] == got

    def test_overflow(self) -> None:
        """Under a virtual clock nothing is taken before it runs: the policy decides what survives."""
        clock = TestScheduler()
        got: list[int] = []
        rx.of(1, 2, 3, 4).pipe(operators.mailbox(2, Overflow.DROP_OLDEST, clock)).subscribe(got.append)
        clock.start()
        assert [3, 4] == got

    def test_bus_keeps_its_books(self, bus: EventBus) -> None:
        """A mailbox in a chain from a topic is in the statistics, is drained, and its failures are dead letters of the bus."""
        gate = Gate()

        def handler(event: Event[int]) -> None:
            gate(event)
            if event.payload == 2:
                raise ValueError("behind the mailbox")

        bus.topic("a").pipe(operators.mailbox()).subscribe(handler)
        bus.publish_many("a", [1, 2, 3])
        gate.wait_until_entered()
        assert "observer@a/mailbox" in bus.subscriptions
        gate.open()
        bus.drain(LIMIT)
        assert [1, 2, 3] == gate.seen
        counted = assert_books_balance(bus).subscriptions["observer@a/mailbox"]
        assert (3, 2, 1) == (counted.offered, counted.handled, counted.failed)
        [letter] = bus.dead_letters
        assert ("observer@a/mailbox", 2) == (letter.subscription, letter.event.payload)

    def test_ends_the_deadlock_of_a_combining_operator(self, bus: EventBus) -> None:
        """Behind it the lock of `merge` is free: a handler may wait for others that come through the same `merge`."""
        got = Recorder()
        bus.observe("a").pipe(ops.merge(bus.observe("b")), operators.mailbox()).subscribe(got)
        bus.publish("a", 1)
        bus.publish("b", 2)
        bus.drain(LIMIT)
        assert {1, 2} == set(got.payloads)

    @pytest.mark.parametrize("arguments", [{"capacity": 0}, {"capacity": True}, {"overflow": "block"}, {"scheduler": 1}])
    def test_bad_arguments(self, arguments: dict[str, object]) -> None:
        """They are refused at the call, by name."""
        with pytest.raises((TypeError, ValueError), match=next(iter(arguments))):
            operators.mailbox(**arguments)  # type: ignore[arg-type]


class TestAttemptWithRetry:
    """Several items, several events, and the end, while an item waits for its next attempt."""

    RETRY = Retry(2, backoff=0.01, jitter=0)

    @staticmethod
    def flaky() -> tuple[list[object], object]:
        """A function that fails once for each item, and what it was called with."""
        calls: list[object] = []

        def fn(item: object) -> object:
            calls.append(item)
            if calls.count(item) == 1:
                raise ValueError(item)
            return item

        return calls, fn

    def test_items_of_one_event_keep_their_order(self, bus: EventBus) -> None:
        """Later items of the event stand in line."""
        _, fn = self.flaky()
        got: list[object] = []
        chain = bus.topic("a").pipe(ops.flat_map(lambda e: rx.of(1, 2, 3)), operators.attempt(fn, self.RETRY))  # type: ignore[arg-type]
        chain.subscribe(got.append)
        bus.publish("a", 0)
        bus.drain(LIMIT)
        assert [1, 2, 3] == got
        assert 1 == assert_books_balance(bus).topics["a"].handled

    @pytest.mark.parametrize("raw", [True, False])
    def test_completion_waits_for_the_item(self, bus: EventBus, raw: bool) -> None:
        """`take(1)` ends the source while its only item waits; the item comes through before the end does."""
        _, fn = self.flaky()
        got: list[object] = []
        chain = rx.compose(operators.payload(), ops.take(1), operators.attempt(fn, self.RETRY))  # type: ignore[arg-type]
        if raw:
            bus.topic("a").pipe(chain).subscribe(got.append, on_completed=lambda: got.append("end"))
        else:
            bus.subscribe("a", got.append, through=chain)
        bus.publish_many("a", ["x", "y"])
        bus.drain(LIMIT)
        assert ["x", "end"][: 2 if raw else 1] == got
        assert_books_balance(bus)

    def test_events_of_two_topics_do_not_mix(self, bus: EventBus) -> None:
        """Behind `merge`, each event that is given up is a letter of its own subscription, and `fn` never overlaps with itself."""
        inside, most = 0, 0

        def fn(event: Event[int]) -> int:
            nonlocal inside, most
            inside += 1
            most = max(most, inside)
            threading.Event().wait(0.001)
            inside -= 1
            if event.payload < 0:
                raise ValueError(event.payload)
            return event.payload

        got: list[int] = []
        both = rx.merge(bus.topic("a"), bus.topic("b"))
        both.pipe(operators.attempt(fn, self.RETRY)).subscribe(got.append)
        for n in range(10):
            bus.publish("a", -1 if n == 2 else n)
            bus.publish("b", -2 if n == 3 else 100 + n)
        bus.drain(LIMIT)
        assert {("observer@a", -1), ("observer@b", -2)} == {(one.subscription, one.event.payload) for one in bus.dead_letters}
        assert 18 == len(got)
        assert 1 == most
        assert_books_balance(bus)

    def test_dispose_during_the_pause_frees_the_others(self, bus: EventBus) -> None:
        """Two subscriptions feed one chain; that one of them goes while its item waits doesn't stop the other."""
        calls: list[object] = []

        def fn(item: object) -> object:
            calls.append(item)
            if item == "lost":
                raise ValueError(item)
            return item

        joint: Subject[object] = Subject()
        got: list[object] = []
        joint.pipe(operators.attempt(fn, Retry(2, backoff=60.0))).subscribe(got.append)
        one = bus.subscribe("a", lambda e: joint.on_next(e.payload), name="one")
        bus.subscribe("b", lambda e: joint.on_next(e.payload), name="two")
        bus.publish("a", "lost")
        while not one._strand.is_suspended:
            threading.Event().wait(0.001)
        bus.publish_many("b", ["x", "y"])
        one.dispose()
        bus.drain(LIMIT)
        assert ["x", "y"] == got
        assert 1 == calls.count("lost")
        assert 1 == assert_books_balance(bus).subscriptions["one"].dropped


class TestMailboxInPipelines:
    """`mailbox()` where RxPY or a pipeline hands a scheduler upstream."""

    def test_inside_through_it_is_a_mailbox(self, bus: EventBus) -> None:
        """It runs on the bus's threads, so a full one makes the pipeline wait and loses nothing."""
        got: list[int] = []
        through = rx.compose(ops.flat_map(lambda e: rx.of(1, 2, 3, 4, 5)), operators.mailbox(capacity=2))
        bus.subscribe("a", got.append, through=through, name="agent")
        bus.publish_many("a", range(4))
        bus.drain(LIMIT)
        assert [1, 2, 3, 4, 5] * 4 == got
        assert 0 == len(bus.dead_letters)

    def test_before_delay_it_stays_on_the_pool(self, bus: EventBus) -> None:
        """`delay` hands RxPY's own timer scheduler upstream, though nobody chose it."""
        threads: set[str] = set()
        done = threading.Event()
        chain = bus.topic("a").pipe(operators.mailbox(), ops.do_action(lambda _: threads.add(threading.current_thread().name)))
        chain.pipe(ops.delay(0.001)).subscribe(lambda _: done.set())
        bus.publish("a", 1)
        assert done.wait(LIMIT)
        assert all(name.startswith("rxbus-") for name in threads), threads


class TestSelection:
    """`of_type` and `where`."""

    def test_of_type(self, bus: EventBus) -> None:
        """By the class of the payload, or a union of classes."""
        ints, both = Recorder(), Recorder()
        bus.subscribe("a", ints, through=operators.of_type(int))
        bus.topic("a").pipe(operators.of_type(int | str)).subscribe(both)
        bus.publish_many("a", [1, "a", 2.5, 3])
        bus.drain(LIMIT)
        assert [1, 3] == ints.payloads
        assert [1, "a", 3] == both.payloads

    @pytest.mark.parametrize("bad", [5, "int", list[int], None], ids=repr)
    def test_of_no_type(self, bad: Any) -> None:
        """The message names the argument."""
        with pytest.raises(TypeError, match="cls must be a class or a union of classes"):
            operators.of_type(bad)

    def test_where(self, bus: EventBus) -> None:
        """All given facts must be there and be equal; none given lets everything through."""
        found, everything = Recorder(), Recorder()
        bus.subscribe("a", found, through=operators.where(user="ada", tenant=None))
        bus.subscribe("a", everything, through=operators.where())
        for number, metadata in enumerate([{}, {"user": "ada"}, {"user": "ada", "tenant": None}, {"user": "bob", "tenant": None}]):
            bus.publish("a", number, metadata=metadata)
        bus.drain(LIMIT)
        assert [2] == found.payloads
        assert [0, 1, 2, 3] == everything.payloads


class TestMarbles:
    """Each operator as its docstring draws it, in virtual time."""

    def test_payload(self, virtual_bus: VirtualBus) -> None:
        """The payload of each event, at its time."""
        got = virtual_bus.record(virtual_bus.topic("a").pipe(operators.payload()))
        virtual_bus.feed("a", "--x--y-|")
        virtual_bus.drain()
        assert ("--x--y", ["x", "y"]) == (got.marbles(), [one.value for one in got.notifications])

    def test_of_type(self, virtual_bus: VirtualBus) -> None:
        """Others are left out."""
        got = virtual_bus.record(virtual_bus.topic("a").pipe(operators.of_type(int)))
        virtual_bus.feed("a", "--1--a--2--|", {"1": 1, "2": 2})
        virtual_bus.drain()
        assert "--1-----2" == got.marbles({"1": 1, "2": 2})

    def test_where(self, virtual_bus: VirtualBus) -> None:
        """By metadata."""
        got = virtual_bus.record(virtual_bus.topic("a").pipe(operators.where(user="ada")))
        for second, user in enumerate(["ada", "bob", "ada"]):
            virtual_bus.scheduler.schedule_relative(
                second, lambda *_, user=user: virtual_bus.publish("a", user[0], metadata={"user": user})
            )
        virtual_bus.advance(3)
        assert "a-------------------a" == got.marbles()

    def test_publish_to(self, virtual_bus: VirtualBus) -> None:
        """Down the pipeline, and on the topic; the end passes by the topic."""
        tapped = virtual_bus.record("b")
        source = from_marbles("--a--b--|")
        got = virtual_bus.record(source.pipe(operators.publish_to(virtual_bus.topic("b"))))
        virtual_bus.advance(2)
        assert ("--a--b--|", "--a--b") == (got.marbles(), tapped.marbles())
        virtual_bus.publish("b", "c")
        assert ["a", "b", "c"] == tapped.payloads

    def test_mailbox(self, virtual_bus: VirtualBus) -> None:
        """What is slow behind it holds nobody up before it; the bound drops what is too much."""
        before = virtual_bus.record("a")
        box = operators.mailbox(capacity=1, overflow=Overflow.DROP_LATEST)
        slow = operators.map_async(_a_while)
        got = virtual_bus.record(virtual_bus.topic("a").pipe(slow, box))
        virtual_bus.feed("a", "-abc-----|")
        virtual_bus.drain()
        assert ("-abc-----|", "---a-b-c") == (before.marbles(), got.marbles())

    def test_attempt(self, virtual_bus: VirtualBus) -> None:
        """A failing item is left out, or comes after another attempt."""

        def check(event: Event[str]) -> str:
            if event.payload == "b" or (event.payload == "c" and virtual_bus.scheduler.seconds() < 0.75):
                raise ValueError(event.payload)
            return event.payload

        once = virtual_bus.record(virtual_bus.topic("a").pipe(operators.attempt(check)))
        again = virtual_bus.record(virtual_bus.topic("a").pipe(operators.attempt(check, Retry(2, backoff=0.3))))
        virtual_bus.feed("a", "-a-b-c-d|")
        virtual_bus.drain()
        assert "-a-----d" == once.marbles()
        assert "-a-------(cd)" == again.marbles()  # what comes after one that is tried again waits for it
        virtual_bus.dead_letters.discard()

    def test_dedupe(self, virtual_bus: VirtualBus) -> None:
        """Within the window what was there is left out."""
        got = virtual_bus.record(virtual_bus.topic("a").pipe(operators.dedupe(key=lambda e: e.payload, window=0.4)))
        virtual_bus.feed("a", "-a-a-b-a-a|")
        virtual_bus.drain()
        assert "-a---b-a" == got.marbles()

    def test_join_by(self, virtual_bus: VirtualBus) -> None:
        """One event of each source, by correlation id, within so many seconds."""
        left, right = virtual_bus.topic("left"), virtual_bus.topic("right")
        got = virtual_bus.record(left.pipe(operators.join_by(right, key=lambda e: e.payload, within=0.5)))
        virtual_bus.feed("left", "-a-b----c|")
        virtual_bus.feed("right", "---a-----------c")
        virtual_bus.drain()
        assert [("a", "a")] == [tuple(event.payload for event in pair) for pair in got.payloads]
        assert [0.3] == [one.time for one in got.notifications]


async def _a_while(event: Event[str]) -> str:
    await asyncio.sleep(0.2)
    return event.payload


def test_every_operator_has_its_diagram() -> None:
    """In the docstring, as a literal block that ends in a bar or goes on."""
    for name in operators.__all__:
        text = getattr(operators, name).__doc__
        assert re.search(r"::\n\n +──.*\n +──", text), name

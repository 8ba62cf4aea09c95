"""Mailboxes and inlets: bounds, policies, waiting for room."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import Any

import pytest

from rxbus import DrainTimeoutError, Event, EventBus, MailboxFullError, Overflow, Reason
from tests.support import LIMIT, Gate, assert_books_balance, join, run_in_thread


def flood(bus: EventBus, overflow: Overflow, pattern: str = "a") -> Gate:
    """A gated subscription of capacity 10 that has the first of 100 events in its handler; all 100 are published."""
    gate = Gate()
    bus.subscribe(pattern, gate, capacity=10, overflow=overflow, name="gated")
    bus.publish("a", 0)
    gate.wait_until_entered()
    for n in range(1, 100):
        bus.publish("a", n)
    return gate


class TestPolicies:
    """With capacity 10, one event in the handler and 99 more, exactly the stated survivors."""

    @pytest.mark.parametrize("pattern", ["a", "*"])
    @pytest.mark.parametrize(
        ("overflow", "survivors", "dropped", "failed"),
        [
            (Overflow.DROP_OLDEST, [0, *range(90, 100)], 89, 0),
            (Overflow.DROP_LATEST, [*range(11)], 89, 0),
            (Overflow.FAIL, [*range(11)], 0, 89),
        ],
    )
    def test_survivors(self, bus: EventBus, pattern: str, overflow: Overflow, survivors: list[int], dropped: int, failed: int) -> None:
        """The policy decides who gets through, and every event is counted once."""
        gate = flood(bus, overflow, pattern)
        assert 11 == bus.subscriptions["gated"].statistics().pending
        gate.open()
        bus.drain(LIMIT)
        assert survivors == gate.seen
        counted = assert_books_balance(bus).subscriptions["gated"]
        assert (100, 11, failed, dropped) == (counted.offered, counted.handled, counted.failed, counted.dropped)
        assert failed == len(bus.dead_letters)

    def test_refusal_says_who_and_how_much(self, bus: EventBus) -> None:
        """The dead letter of a refusal has the subscription and its capacity."""
        gate = flood(bus, Overflow.FAIL)
        letter = next(iter(bus.dead_letters))
        assert (Reason.OVERFLOW, "gated", 11, 0, "") == (
            letter.reason,
            letter.subscription,
            letter.event.payload,
            letter.attempts,
            letter.traceback,
        )
        assert isinstance(letter.error, MailboxFullError)
        assert ("gated", 10) == (letter.error.subscription, letter.error.capacity)
        assert "subscription 'gated': expected room in its mailbox of 10, found 10 events" == str(letter.error)
        gate.open()


class TestBlock:
    """`Overflow.BLOCK`."""

    def test_publisher_waits_until_there_is_room(self, bus: EventBus) -> None:
        """The event that finds no room is in the mailbox already while its publisher waits."""
        gate = Gate()
        one = bus.subscribe("a", gate, capacity=2)
        bus.publish("a", 0)
        gate.wait_until_entered()
        bus.publish_many("a", [1, 2])
        publisher = run_in_thread(bus.publish, "a", 3)
        assert one._strand.wait_until(lambda: one.statistics().offered == 4, time.monotonic() + LIMIT)
        time.sleep(0.02)
        assert publisher.is_alive()
        assert 4 == one.statistics().pending
        gate.open()
        join(publisher)
        bus.drain(LIMIT)
        assert [0, 1, 2, 3] == gate.seen

    def test_neighbours_have_the_event_while_the_publisher_waits(self, bus: EventBus) -> None:
        """It entered every mailbox before anybody waits."""
        gate, got = Gate(), threading.Event()
        bus.subscribe("a", gate, capacity=1)
        bus.subscribe("a", lambda e: got.set() if e.payload == 2 else None, name="fast")
        bus.publish("a", 0)
        gate.wait_until_entered()
        bus.publish("a", 1)
        publisher = run_in_thread(bus.publish, "a", 2)
        assert got.wait(LIMIT)
        assert publisher.is_alive()
        gate.open()
        join(publisher)

    def test_dispose_wakes_the_publisher(self, bus: EventBus) -> None:
        """At once, and the events that it had published are counted as dropped."""
        gate = Gate()
        one = bus.subscribe("a", gate, capacity=1, name="full")
        bus.publish("a", 0)
        gate.wait_until_entered()
        publisher = run_in_thread(lambda: [bus.publish("a", n) for n in (1, 2, 3)])
        assert one._strand.wait_until(lambda: one.statistics().offered == 3, time.monotonic() + LIMIT)
        one.dispose()
        join(publisher)
        gate.open()
        bus.drain(LIMIT)
        counted = assert_books_balance(bus).subscriptions["full"]
        assert (3, 1, 2) == (counted.offered, counted.handled, counted.dropped)

    def test_stalled_subscription_costs_one_timeout(self) -> None:
        """After `block_timeout` further events are refused without a wait, until the subscription takes one again."""
        gate = Gate()
        with EventBus(block_timeout=0.1) as bus:
            one = bus.subscribe("a", gate, capacity=1, name="hung")
            bus.publish("a", 0)
            gate.wait_until_entered()
            bus.publish("a", 1)
            started = time.monotonic()
            bus.publish("a", 2)
            assert 0.1 <= time.monotonic() - started < LIMIT
            started = time.monotonic()
            bus.publish_many("a", range(3, 103))
            assert time.monotonic() - started < 5.0  # and not 100 timeouts
            assert 100 == one.statistics().failed
            gate.open()
            bus.drain(LIMIT)
            bus.publish("a", 200)
            bus.drain(LIMIT)
            assert [0, 1, 2, 200] == gate.seen
            assert_books_balance(bus)

    @pytest.mark.parametrize("length", [1, 2, 5])
    def test_circle_of_full_mailboxes_does_not_wait(self, length: int) -> None:
        """Whoever would close a circle, of any length, gets the outcome of FAIL at once."""
        with EventBus(block_timeout=LIMIT) as bus:

            def forward(event: Event[int], target: str) -> None:
                if event.payload:
                    for _ in range(3):
                        bus.publish(target, event.payload - 1)

            for n in range(length):
                target = f"t{(n + 1) % length}"
                bus.subscribe(f"t{n}", lambda e, target=target: forward(e, target), capacity=1, name=f"s{n}")
            started = time.monotonic()
            for n in range(length):
                bus.publish(f"t{n}", 6)
            bus.drain(LIMIT)
            assert time.monotonic() - started < LIMIT / 2
            assert_books_balance(bus)
            assert len(bus.dead_letters) > 0
            assert {Reason.OVERFLOW} == {letter.reason for letter in bus.dead_letters}


class TestGivingUp:
    """Publishers that stop waiting for room; their events stay."""

    def test_cancelled_publishers_fill_it_to_twice_its_capacity(self, bus: EventBus) -> None:
        """Then further events are refused, and nothing is left of those who waited."""
        gate = Gate()
        one = bus.subscribe("a", gate, capacity=4, name="hung")

        async def main() -> None:
            for number in range(1, 31):
                publishing = asyncio.create_task(bus.apublish("a", number))
                await asyncio.sleep(0)
                publishing.cancel()
                await asyncio.wait([publishing])

        bus.publish("a", 0)
        gate.wait_until_entered()
        asyncio.run(main())
        assert (8, 22) == (one.statistics().queued, one.statistics().failed)
        assert {Reason.OVERFLOW} == {letter.reason for letter in bus.dead_letters}
        assert ([], []) == (one._strand.mailbox._waiters, one._strand.mailbox._publishers)
        gate.open()
        bus.drain(LIMIT)
        assert list(range(9)) == gate.seen
        publisher = run_in_thread(bus.publish_many, "a", range(50))
        join(publisher)
        bus.drain(LIMIT)
        assert 59 == len(gate.seen)  # it waits again as ever
        assert_books_balance(bus)

    def test_those_whose_time_is_over(self, bus: EventBus) -> None:
        """As many may give up as there is capacity; whoever waits for room meanwhile is none of them, however many there are."""
        gate = Gate()
        one = bus.subscribe("a", gate, capacity=2, name="hung")
        bus.publish("a", 0)
        gate.wait_until_entered()
        bus.publish_many("a", [1, 2])
        with pytest.raises(DrainTimeoutError):
            bus.deliver("a", 3, timeout=0.0)
        publishers = [run_in_thread(bus.publish, "a", number) for number in range(4, 10)]
        assert one._strand.wait_until(lambda: one.statistics().queued == 9, time.monotonic() + LIMIT)
        with pytest.raises(DrainTimeoutError):
            bus.deliver("a", 10, timeout=0.0)
        assert 0 == one.statistics().failed
        assert 1 == bus.deliver("a", 11, timeout=LIMIT).failed
        gate.open()
        join(*publishers)
        bus.drain(LIMIT)
        assert list(range(11)) == sorted(gate.seen)
        assert_books_balance(bus)

    def test_waiting_long_leaves_nothing_in_line(self, bus: EventBus, monkeypatch: pytest.MonkeyPatch) -> None:
        """A coroutine that looks again from time to time stands in line once."""
        monkeypatch.setattr("rxbus.mailbox.RECHECK", 0.0)
        gate = Gate()
        one = bus.subscribe("a", gate, capacity=1, name="hung")

        async def main() -> None:
            publishing = asyncio.create_task(bus.apublish("a", 2))
            for _ in range(20):
                await asyncio.sleep(0)
            assert 1 == len(one._strand.mailbox._waiters)
            gate.open()
            await publishing

        bus.publish("a", 0)
        gate.wait_until_entered()
        bus.publish("a", 1)
        asyncio.run(main())


class TestNearlyFull:
    """Mailboxes over 80 %."""

    @pytest.mark.parametrize("pattern", ["a", "*"])
    @pytest.mark.parametrize("key", [None, lambda e: "same"], ids=["plain", "parked"])
    def test_is_seen_and_said_once(self, bus: EventBus, caplog: pytest.LogCaptureFixture, pattern: str, key: Any) -> None:
        """In the statistics while it lasts; in the log once, by name and with what will happen; not before it is over 80 %."""
        gate = Gate()
        one = bus.subscribe(pattern, gate, capacity=100, name="slow", key=key)
        bus.publish("a", 0)
        gate.wait_until_entered()
        for n in range(80):
            bus.publish("a", n)
        assert ((), "") == (bus.statistics().nearly_full, caplog.text)
        for n in range(15):
            bus.publish("a", n)
        assert (("slow",), 95) == (bus.statistics().nearly_full, one.statistics().queued)
        assert "mailboxes over 80 % full: slow" in str(bus.statistics())
        assert 1 == caplog.text.count("subscription 'slow': its mailbox of 100 is over 80 % full; when it is full, publishers wait")
        gate.open()
        bus.drain(LIMIT)
        assert () == bus.statistics().nearly_full

    def test_another_episode(self, bus: EventBus, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
        """It begins when the mailbox was half empty in between, and is said again, though not more often than each ten seconds."""
        one = bus.subscribe("a", lambda e: None, capacity=10, name="slow")
        for said in (1, 1, 2):
            one.pause()
            bus.publish_many("a", range(10))
            assert said == caplog.text.count("over 80 %")
            assert one._strand.mailbox.crowded
            one.resume()
            bus.drain(LIMIT)
            assert not one._strand.mailbox.crowded
            if said == 1 and one._strand.mailbox._said:
                monkeypatch.setattr("rxbus.mailbox.SAID_EVERY", 0.0 if one.statistics().offered == 20 else 60.0)

    def test_a_log_handler_that_raises_harms_no_publisher(self, bus: EventBus) -> None:
        """It is said after the event is in, outside of every lock."""

        class Raises(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                bus.statistics()
                raise SystemExit

        handler = Raises()
        logging.getLogger("rxbus").addHandler(handler)
        try:
            one = bus.subscribe("a", lambda e: None, capacity=5)
            one.pause()
            bus.publish_many("a", range(5))
            assert 5 == one.statistics().pending
        finally:
            logging.getLogger("rxbus").removeHandler(handler)
        one.resume()


class TestDeliverBound:
    """`deliver` in front of a full mailbox."""

    def test_timeout_bounds_the_wait_for_room(self) -> None:
        """It comes back after its own time, not after `block_timeout`, and doesn't declare the mailbox stalled."""
        gate = Gate()
        with EventBus(block_timeout=LIMIT) as bus:
            one = bus.subscribe("a", gate, capacity=1, name="full")
            bus.publish("a", 0)
            gate.wait_until_entered()
            bus.publish("a", 1)
            started = time.monotonic()
            with pytest.raises(TimeoutError):
                bus.deliver("a", 2, timeout=0.1)
            assert 0.1 <= time.monotonic() - started < LIMIT / 2
            assert not one._strand.mailbox.stalled
            gate.open()
            bus.drain(LIMIT)
            assert [0, 1, 2] == gate.seen


class TestSharedMailbox:
    """A mailbox that several topics feed."""

    def test_bound_holds_for_batches_of_two_publishers(self, bus: EventBus) -> None:
        """Two topics that push batches at once get no more than an event each beyond the bound."""
        gate = Gate()
        one = bus.subscribe("*", gate, capacity=50, name="wide")
        threads = [run_in_thread(bus.publish_many, name, range(100)) for name in ("a", "b")]
        gate.wait_until_entered()
        time.sleep(0.05)
        assert one.statistics().pending <= 50 + 2 + 1
        gate.open()
        join(*threads)
        bus.drain(LIMIT)
        assert 200 == len(gate.seen)

    def test_forgotten_and_made_again(self, bus: EventBus) -> None:
        """Events of a topic's former life are booked to none of its present counters."""
        gate = Gate()
        bus.subscribe("*", gate, capacity=2, overflow=Overflow.DROP_OLDEST, name="wide")
        bus.publish("job", "old")
        gate.wait_until_entered()
        bus.forget("job")
        bus.publish_many("job", ["new 1", "new 2", "new 3"])
        gate.open()
        bus.drain(LIMIT)
        assert ["old", "new 2", "new 3"] == gate.seen
        topic = assert_books_balance(bus).topics["job"]
        assert (3, 2, 1) == (topic.published, topic.handled, topic.dropped)
        bus.forget("job")
        bus.topic("job")
        topic = bus.statistics().topics["job"]
        assert (0, 0, 0) == (topic.published, topic.handled, topic.dropped)
        assert ("job",) == bus.graph().topics

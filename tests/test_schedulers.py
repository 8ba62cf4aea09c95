"""Strands on RxPY's schedulers."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import pytest
from reactivex import abc
from reactivex.scheduler import (
    CurrentThreadScheduler,
    EventLoopScheduler,
    ImmediateScheduler,
    NewThreadScheduler,
    ThreadPoolScheduler,
    TimeoutScheduler,
)
from reactivex.scheduler.eventloop import AsyncIOThreadSafeScheduler
from reactivex.testing import TestScheduler

from rxbus import BusError, Event, EventBus, Overflow, Reason, WorkerPool
from tests.support import LIMIT, Recorder, assert_books_balance, join, run_in_thread

SET_UPS: list[Callable[[], abc.SchedulerBase]] = [
    lambda: ThreadPoolScheduler(8),
    lambda: ThreadPoolScheduler(1),
    EventLoopScheduler,
    NewThreadScheduler,
    TimeoutScheduler,
    ImmediateScheduler,
    CurrentThreadScheduler,
    lambda: WorkerPool(2),
]


class TestSetUps:
    """`EventBus(scheduler=...)`."""

    @pytest.mark.parametrize(
        "make", SET_UPS, ids=["pool of 8", "pool of 1", "loop", "new thread", "timeout", "immediate", "current", "own"]
    )
    def test_main_job(self, make: Callable[[], abc.SchedulerBase]) -> None:
        """Order, chaining, failures and the books are the same on every scheduler."""
        with EventBus(scheduler=make()) as bus:
            seen, chained = Recorder(), Recorder()

            def research(event: Event[int]) -> int:
                if event.payload % 10 == 5:
                    raise ValueError
                return event.payload

            bus.subscribe("a", seen)
            bus.subscribe("a", research, to="b")
            bus.subscribe("b", chained)
            for n in range(100):
                bus.publish("a", n)
            bus.drain(LIMIT)
            assert list(range(100)) == seen.payloads
            assert [n for n in range(100) if n % 10 != 5] == chained.payloads
            assert 10 == assert_books_balance(bus).topics["a"].failed


class TestInline:
    """`ImmediateScheduler`."""

    def test_handled_before_publish_returns(self) -> None:
        """On the publisher's thread, chained events included."""
        with EventBus(scheduler=ImmediateScheduler()) as bus:
            threads: list[int] = []
            bus.subscribe("a", lambda e: e.payload, to="b")
            bus.subscribe("b", lambda e: threads.append(threading.get_ident()))
            bus.publish("a", 1)
            assert [threading.get_ident()] == threads

    def test_breadth_first(self) -> None:
        """What a handler publishes is delivered after the event that it handles has reached everybody."""
        with EventBus(scheduler=ImmediateScheduler()) as bus:
            order: list[tuple[str, int]] = []

            def first(event: Event[int]) -> None:
                order.append(("first", event.payload))
                if event.payload < 2:
                    bus.publish("a", event.payload + 1)

            bus.subscribe("a", first)
            bus.subscribe("a", lambda e: order.append(("second", e.payload)))
            bus.publish("a", 0)
            assert [("first", 0), ("second", 0), ("first", 1), ("second", 1), ("first", 2), ("second", 2)] == order

    def test_full_mailbox_is_let_in_up_to_twice_the_capacity(self) -> None:
        """Nobody else could make room, so waiting is no use; beyond that it is refused."""
        with EventBus(scheduler=ImmediateScheduler(), capacity=5, block_timeout=LIMIT) as bus:
            seen = Recorder()
            bus.subscribe("a", lambda e: [bus.publish("b", n) for n in range(20)], name="burst")
            bus.subscribe("b", seen, name="b")
            bus.publish("a", 1)
            assert list(range(10)) == seen.payloads
            assert 10 == assert_books_balance(bus).subscriptions["b"].failed


class TestVirtual:
    """`TestScheduler`."""

    def test_nothing_happens_before_the_clock_runs(self) -> None:
        """Then everything does, in one go."""
        clock = TestScheduler()
        bus = EventBus(scheduler=clock)
        seen = Recorder()
        bus.subscribe("a", lambda e: e.payload, to="b")
        bus.subscribe("b", seen)
        bus.publish_many("a", range(500))
        assert [] == seen.payloads
        clock.start()
        assert list(range(500)) == seen.payloads
        bus.drain(LIMIT)
        bus.close()

    def test_full_mailbox_does_not_block_the_only_thread(self) -> None:
        """A publisher outside isn't held either: nobody but it can run the clock."""
        clock = TestScheduler()
        bus = EventBus(scheduler=clock, capacity=5, block_timeout=LIMIT)
        seen = Recorder()
        bus.subscribe("a", seen, overflow=Overflow.BLOCK)
        bus.publish_many("a", range(20))
        clock.start()
        assert list(range(10)) == seen.payloads
        bus.close()


class TestRefusal:
    """A scheduler that is gone."""

    def test_raising_scheduler_makes_dead_letters(self, bus: EventBus) -> None:
        """The publisher is left in peace, and each event is one letter."""
        dead = ThreadPoolScheduler(1)
        dead.executor.shutdown()
        bus.subscribe("a", lambda _: None, scheduler=dead, name="dead")
        for n in range(3):
            bus.publish("a", n)
        bus.drain(LIMIT)
        assert [(Reason.UNDELIVERABLE, n) for n in range(3)] == [(letter.reason, letter.event.payload) for letter in bus.dead_letters]
        assert 3 == assert_books_balance(bus).subscriptions["dead"].failed

    def test_who_waits_for_delivery_is_told(self, bus: EventBus) -> None:
        """`deliver` counts it as failed."""
        dead = ThreadPoolScheduler(1)
        dead.executor.shutdown()
        bus.subscribe("a", lambda _: None, scheduler=dead)
        assert 1 == bus.deliver("a", 1, timeout=LIMIT).failed


class TestFewThreads:
    """Schedulers whose threads may all be waiting."""

    def test_waits_count_threads_and_not_targets(self) -> None:
        """One handler that delivers to three subscriptions holds one thread of four; another one may wait too."""
        pool = ThreadPoolScheduler(4)
        with EventBus(scheduler=pool) as bus:
            for n in range(3):
                bus.subscribe("many", lambda _: threading.Event().wait(0.05), name=f"slow {n}")
            bus.subscribe("few", lambda _: None, name="quick")
            counts: list[int] = []
            bus.subscribe("a", lambda _: counts.append(bus.deliver("many", 1, timeout=LIMIT).handled), name="first")
            bus.subscribe("a", lambda _: counts.append(bus.deliver("few", 1, timeout=LIMIT).handled), name="second")
            bus.publish("a", 1)
            bus.drain(LIMIT)
            assert [1, 3] == sorted(counts)
            assert 0 == len(bus.dead_letters)

    def test_last_thread_does_not_wait_for_itself(self) -> None:
        """On a single thread, a handler that fills another mailbox is refused at once, or let in; it isn't held for `block_timeout`."""
        with EventBus(scheduler=EventLoopScheduler(), capacity=2, block_timeout=LIMIT) as bus:
            seen = Recorder()
            bus.subscribe("a", lambda _: [bus.publish("b", n) for n in range(6)], name="burst")
            bus.subscribe("b", seen, name="b")
            started = time.monotonic()
            bus.publish("a", 1)
            bus.drain(LIMIT)
            assert time.monotonic() - started < LIMIT / 2
            counted = assert_books_balance(bus).subscriptions["b"]
            assert 6 == counted.handled + counted.failed
            assert list(range(counted.handled)) == seen.payloads

    def test_publisher_on_the_loop_that_serves_the_mailbox(self) -> None:
        """It is let in over the bound, up to twice the capacity, and the loop isn't blocked; `deliver` there raises."""

        async def main() -> tuple[list[object], int]:
            loop = asyncio.get_running_loop()
            bus = EventBus(scheduler=AsyncIOThreadSafeScheduler(loop), capacity=2, block_timeout=LIMIT)
            seen = Recorder()
            bus.subscribe("a", seen, name="agent")
            for n in range(6):
                bus.publish("a", n)
            with pytest.raises(BusError, match="would wait for itself"):
                bus.deliver("a", 9)
            while bus.statistics().subscriptions["agent"].pending:
                await asyncio.sleep(0.001)
            await asyncio.to_thread(bus.close)
            return seen.payloads, len(bus.dead_letters)

        started = time.monotonic()
        assert ([0, 1, 2, 3], 2) == asyncio.run(main())
        assert time.monotonic() - started < LIMIT / 2

    def test_asynchronous_schedulers_do_not_wait_for_an_inline_handler(self, bus: EventBus) -> None:
        """What an inline handler publishes to a subscription on a pool starts at once, not when the handler has ended."""
        started, ended = threading.Event(), threading.Event()

        def inline(_: Event[int]) -> None:
            bus.publish("b", 1)
            assert started.wait(LIMIT)
            ended.set()

        bus.subscribe("a", inline, scheduler=ImmediateScheduler())
        bus.subscribe("b", lambda _: started.set(), scheduler=ThreadPoolScheduler(2))
        bus.publish("a", 1)
        assert ended.is_set()


class TestLines:
    """What stands in the line of a thread that waits."""

    @pytest.mark.parametrize("how", ["publish", "deliver"])
    def test_a_circle_through_ones_own_line_is_seen(self, how: str) -> None:
        """A handler waits for P, which waits for room in I, and I could only be run by the thread that waits."""
        inline, go = ImmediateScheduler(), threading.Event()
        with EventBus(block_timeout=4 * LIMIT) as bus:

            def p(event: Event[int]) -> None:
                assert go.wait(LIMIT)
                for n in range(4):
                    bus.publish("i", n)

            def j(event: Event[int]) -> None:
                bus.publish("i", "mine")
                if how == "deliver":
                    go.set()
                    bus.deliver("p", 1, timeout=LIMIT)
                else:
                    bus.publish("p", 1)
                    go.set()
                    bus.publish_many("p", [2, 3, 4])

            bus.subscribe("p", p, capacity=1)
            bus.subscribe("i", lambda e: None, capacity=1, scheduler=inline)
            bus.subscribe("j", j, scheduler=inline)
            started = time.monotonic()
            join(run_in_thread(bus.publish, "j", 1))
            bus.drain(LIMIT)
            assert time.monotonic() - started < LIMIT / 2
            assert_books_balance(bus)

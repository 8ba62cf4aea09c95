"""Strands on RxPY's schedulers."""

from __future__ import annotations

import threading
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
from reactivex.testing import TestScheduler

from rxbus import Event, EventBus, Overflow, Reason, WorkerPool
from tests.support import LIMIT, Recorder, assert_books_balance

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

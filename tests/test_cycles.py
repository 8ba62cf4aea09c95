"""Cycles of agents, and topics that are chained both ways through operators that lock."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
import reactivex as rx
from reactivex import Observable
from reactivex import operators as ops
from reactivex.scheduler import ImmediateScheduler

from rxbus import REPLY, Event, EventBus, MailboxFullError, operators
from tests.support import LIMIT, Recorder, assert_books_balance, join, run_in_thread

HOPS = 100_000


def depth() -> int:
    """Frames on the stack of the caller."""
    frame, found = sys._getframe(), 0
    while frame.f_back is not None:
        frame, found = frame.f_back, found + 1
    return found


class TestHops:
    """A feeds B, and B feeds A."""

    @pytest.mark.parametrize("shape", ["function", "coroutine", "generator", "map_async"])
    def test_a_hundred_thousand_on_a_flat_stack(self, bus: EventBus, shape: str) -> None:
        """The last hop is handled on no more stack than the first ones, and not a thread more is needed."""
        depths: set[int] = set()
        left: list[int] = []

        def less(event: Event[int]) -> int | None:
            depths.add(depth())
            if not event.payload:
                left.append(event.hops)
                return None
            return event.payload - 1

        async def aless(event: Event[int]) -> int | None:
            return less(event)

        def each_less(event: Event[int]) -> Any:
            if (result := less(event)) is not None:
                yield result

        options: dict[str, Any] = {}
        handler: Any = {"function": less, "coroutine": aless, "generator": each_less}.get(shape)
        hops = HOPS
        if shape == "map_async":  # a task for each: slower
            handler, options, hops = (lambda result: result), {"through": operators.map_async(aless)}, HOPS // 10
        bus.subscribe("a", handler, to="b", name="a", **options)
        bus.subscribe("b", handler, to="a", name="b", **options)
        bus.publish("a", hops)
        bus.drain(6 * LIMIT)
        assert [hops] == left
        assert max(depths) - min(depths) < 20

    def test_inline(self) -> None:
        """On an `ImmediateScheduler` the outermost publish does it all, flat too."""
        depths: set[int] = set()

        def less(event: Event[int]) -> int | None:
            depths.add(depth())
            return event.payload - 1 if event.payload else None

        with EventBus(scheduler=ImmediateScheduler()) as bus:
            bus.subscribe("a", less, to="b", name="a")
            bus.subscribe("b", less, to="a", name="b")
            bus.publish("a", HOPS // 10)
            assert HOPS // 10 + 1 == sum(topic.handled for topic in bus.statistics().topics.values())
        assert max(depths) - min(depths) < 20

    def test_agents_that_ask_one_another(self, bus: EventBus) -> None:
        """Two that ask each other in turn, nested, answer; what would need the asker itself is refused."""

        async def count(event: Event[int]) -> int:
            if not event.payload:
                return 0
            other = "b" if event.topic == "a" else "a"
            return 1 + (await bus.request(other, event.payload - 1)).payload

        bus.subscribe("a", count, to=REPLY, name="a", concurrency=8)
        bus.subscribe("b", count, to=REPLY, name="b", concurrency=8)
        assert 10 == bus.request("a", 10).run().payload


def latest(source: Observable[Any], other: Observable[Any]) -> Observable[Any]:
    """`with_latest_from`."""
    return source.pipe(ops.with_latest_from(other))


def grouped(source: Observable[Any], other: Observable[Any]) -> Observable[Any]:
    """`group_by`, and the groups merged again."""
    return rx.merge(source, other).pipe(ops.group_by(lambda e: e.payload % 3), ops.flat_map(lambda group: group))


def windowed(source: Observable[Any], other: Observable[Any]) -> Observable[Any]:
    """Windows of two, merged again."""
    return rx.merge(source, other).pipe(ops.window_with_count(2), ops.merge_all())


def windowed_by_time(source: Observable[Any], other: Observable[Any]) -> Observable[Any]:
    """Windows of five milliseconds or ten items, merged again."""
    return rx.merge(source, other).pipe(ops.window_with_time_or_count(0.005, 10), ops.merge_all())


COMBINE: list[Callable[..., Any]] = [rx.merge, rx.zip, rx.combine_latest, latest, grouped, windowed, windowed_by_time]


class TestChainedBothWays:
    """What deadlocks with plain Subjects at once (each side holds the lock that the other needs) goes through here."""

    @pytest.mark.parametrize("capacity", [65_536, 4], ids=["roomy", "full"])
    @pytest.mark.parametrize("combine", COMBINE, ids=lambda combine: combine.__name__)
    def test_two_threads(self, combine: Callable[..., Any], capacity: int) -> None:
        """From two threads at once. Where the mailboxes are full, whoever would close a circle gets a dead letter, at once."""
        with EventBus(capacity=capacity, block_timeout=2.0) as bus:
            a, b, other = bus.topic("a"), bus.topic("b"), bus.topic("other")
            for source, target in ((a, b), (b, a)):
                combine(source, other).pipe(ops.map(_least), ops.filter(lambda n: n >= 0)).subscribe(target.on_next)
            recorder = Recorder()
            bus.subscribe("*", recorder, capacity=65_536)
            bus.publish("other", 5)
            began = time.monotonic()
            threads = [run_in_thread(lambda topic=topic: [topic.emit(n % 4) for n in range(200)]) for topic in (a, b)]
            join(*threads)
            bus.publish_many("other", [3, 4])
            bus.drain(LIMIT)
            assert time.monotonic() - began < LIMIT / 2
            assert all(isinstance(letter.error, MailboxFullError) for letter in bus.dead_letters)
            assert capacity == 4 or not bus.dead_letters
            published = sum(topic.published for topic in bus.statistics().topics.values())
            assert published == len(recorder.payloads) > 400
            assert_books_balance(bus)
            bus.dead_letters.discard()


def _least(found: Any) -> int:
    events = found if isinstance(found, tuple) else (found,)
    return min(event.payload for event in events) - 1

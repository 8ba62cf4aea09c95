"""`map_async`, in chains, behind topics, and in supervised pipelines."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest
import reactivex as rx
from reactivex import operators as ops
from reactivex.scheduler.eventloop import AsyncIOThreadSafeScheduler
from reactivex.subject import Subject
from reactivex.testing import TestScheduler

from rxbus import Event, EventBus, Reason, Retry, current, operators
from rxbus.testing import VirtualBus
from tests.support import LIMIT, assert_books_balance, until

word: ContextVar[str] = ContextVar("word", default="nothing")


class Model:
    """A coroutine function that answers when it is told to, and knows how many of its calls go on at once."""

    def __init__(self) -> None:
        self.gates: dict[Any, asyncio.Event] = {}
        self.begun: list[Any] = []
        self.cancelled: list[Any] = []
        self.now = self.most = 0
        self.loop: asyncio.AbstractEventLoop | None = None

    async def __call__(self, value: Any) -> str:
        value = getattr(value, "payload", value)
        self.loop = asyncio.get_running_loop()
        gate = self.gates.setdefault(value, asyncio.Event())
        self.now += 1
        self.most = max(self.most, self.now)
        self.begun.append(value)
        try:
            await gate.wait()
        except asyncio.CancelledError:
            self.cancelled.append(value)
            raise
        finally:
            self.now -= 1
        return f"{value}'"

    def answer(self, *values: Any) -> None:
        """Lets these calls end, in that order."""
        for value in values:
            until(lambda one=value: one in self.gates)
            assert self.loop is not None
            self.loop.call_soon_threadsafe(self.gates[value].set)
            time.sleep(0.002)


async def double(n: Any) -> int:
    """Answers after a moment."""
    await asyncio.sleep(0.001)
    return 2 * getattr(n, "payload", n)


class Watcher:
    """An observer that keeps what it gets."""

    def __init__(self) -> None:
        self.got: list[Any] = []
        self.error: BaseException | None = None
        self.ended = threading.Event()

    def on_next(self, value: Any) -> None:
        self.got.append(value)

    def on_error(self, error: BaseException) -> None:
        self.error = error
        self.ended.set()

    def on_completed(self) -> None:
        self.ended.set()


def watch(source: Any) -> Watcher:
    """Subscribes one."""
    watcher = Watcher()
    source.subscribe(watcher.on_next, watcher.on_error, watcher.on_completed)
    return watcher


class TestInAChain:
    """Of plain observables."""

    def test_one_at_a_time_in_order(self) -> None:
        """And then the completion."""
        watcher = watch(rx.range(20).pipe(operators.map_async(double)))
        assert watcher.ended.wait(LIMIT)
        assert (list(range(0, 40, 2)), None) == (watcher.got, watcher.error)

    @pytest.mark.parametrize(("ordered", "expected"), [(True, ["0'", "1'", "2'", "3'"]), (False, ["2'", "0'", "1'", "3'"])])
    def test_several_at_a_time(self, ordered: bool, expected: list[str]) -> None:
        """As many as `concurrency` says; in order of the items, or as they are ready."""
        model = Model()
        watcher = watch(rx.range(4).pipe(operators.map_async(model, concurrency=3, ordered=ordered)))
        until(lambda: len(model.begun) == 3)
        model.answer(2, 0, 1, 3)
        assert watcher.ended.wait(LIMIT)
        assert (expected, 3) == (watcher.got, model.most)

    def test_in_order_all_begin_in_order(self) -> None:
        """Thousands of items through eight hands."""
        watcher = watch(rx.range(2000).pipe(operators.map_async(double, concurrency=8)))
        assert watcher.ended.wait(LIMIT)
        assert list(range(0, 4000, 2)) == watcher.got

    def test_nothing_at_all(self) -> None:
        """Empty streams and failed ones pass through."""
        assert watch(rx.empty().pipe(operators.map_async(double))).ended.wait(LIMIT)
        failed = watch(rx.throw(ValueError("no")).pipe(operators.map_async(double)))
        assert failed.ended.wait(LIMIT)
        assert "no" == str(failed.error)

    def test_a_source_that_fails_later(self) -> None:
        """Its error comes after what was taken before."""
        source = rx.concat(rx.of(1, 2), rx.throw(ValueError("no")))
        watcher = watch(source.pipe(operators.map_async(double)))
        assert watcher.ended.wait(LIMIT)
        assert ([2, 4], "no") == (watcher.got, str(watcher.error))

    @pytest.mark.parametrize("raised", [ValueError("no"), SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()], ids=repr)
    def test_a_coroutine_that_raises(self, raised: BaseException) -> None:
        """Whatever it is, it is the error of the stream, in its place."""

        async def fails(n: int) -> int:
            await asyncio.sleep(0)
            if n == 2:
                raise raised
            return n

        watcher = watch(rx.range(5).pipe(operators.map_async(fails)))
        assert watcher.ended.wait(LIMIT)
        assert [0, 1] == watcher.got
        assert type(raised) is type(watcher.error)
        assert watch(rx.of(1).pipe(operators.map_async(double))).ended.wait(LIMIT)  # the loop still runs

    def test_any_function_that_returns_an_awaitable(self) -> None:
        """A lambda, too; one that doesn't is told so."""
        watcher = watch(rx.of(1).pipe(operators.map_async(lambda n: double(n))))
        assert watcher.ended.wait(LIMIT)
        assert [2] == watcher.got
        watcher = watch(rx.of(1).pipe(operators.map_async(lambda n: n)))
        assert watcher.ended.wait(LIMIT)
        assert "fn must be a coroutine function" in str(watcher.error)

    def test_disposal_cancels_what_runs(self) -> None:
        """And nothing more begins."""
        model, source, got = Model(), Subject[int](), []
        subscription = source.pipe(operators.map_async(model, concurrency=2)).subscribe(got.append)
        for n in range(4):
            source.on_next(n)
        until(lambda: len(model.begun) == 2)
        subscription.dispose()
        until(lambda: len(model.cancelled) == 2)
        assert ([0, 1], []) == (model.begun, got)

    def test_on_the_loop_that_was_subscribed_with(self) -> None:
        """RxPY's own way to say so."""

        async def main() -> None:
            loop, threads = asyncio.get_running_loop(), set()
            done = loop.create_future()

            async def where(n: int) -> int:
                await asyncio.sleep(0)
                threads.add(threading.get_ident())
                return n

            chain = rx.range(3).pipe(operators.map_async(where), ops.to_list())
            chain.subscribe(done.set_result, scheduler=AsyncIOThreadSafeScheduler(loop))
            assert [0, 1, 2] == await asyncio.wait_for(done, LIMIT)
            assert {threading.get_ident()} == threads

        asyncio.run(main())

    @pytest.mark.parametrize(
        "arguments",
        [
            {"fn": 3},
            {"fn": double, "concurrency": 0},
            {"fn": double, "concurrency": 1.5},
            {"fn": double, "ordered": 1},
        ],
    )
    def test_bad_arguments(self, arguments: dict[str, Any]) -> None:
        """Are refused at the call, by name."""
        with pytest.raises((TypeError, ValueError), match="|".join(arguments)):
            operators.map_async(**arguments)

    def test_generators(self) -> None:
        """Make no single value."""

        async def many(n: int) -> Any:
            yield n

        with pytest.raises(TypeError, match="fn must be a coroutine function, got the async"):
            operators.map_async(many)


class TestBehindATopic:
    """The bus keeps its books, and waits for it."""

    def test_drain_waits_for_it(self, bus: EventBus) -> None:
        """Coroutines in progress count; they are children of the event, and find the context of the publish."""
        seen: list[Any] = []

        async def notes(event: Event[int]) -> int:
            await asyncio.sleep(0.005)
            delivery = current()
            assert delivery is not None
            seen.append((delivery.event.payload, word.get(), threading.current_thread().name))
            return event.payload

        got: list[int] = []
        bus.topic("a").pipe(operators.map_async(notes, concurrency=4)).subscribe(got.append)
        token = word.set("hello")
        bus.publish_many("a", range(8))
        word.reset(token)
        bus.drain(LIMIT)
        assert list(range(8)) == got
        assert sorted((n, "hello", "rxbus-loop-test") for n in range(8)) == sorted(seen)
        assert 8 == bus.statistics().subscriptions["observer@a/map_async"].handled
        assert_books_balance(bus)

    def test_what_follows_doesnt_hold_the_loop(self, bus: EventBus) -> None:
        """A blocking observer behind it is called on the pool."""
        gate, ticks = threading.Event(), []

        async def tick(_: Event[int]) -> None:
            ticks.append(1)

        bus.topic("a").pipe(operators.map_async(double)).subscribe(lambda _: gate.wait(LIMIT))
        bus.subscribe("b", tick)
        bus.publish("a", 1)
        bus.deliver("b", 1, timeout=LIMIT)
        gate.set()
        bus.drain(LIMIT)
        assert [1] == ticks

    def test_a_failure_ends_the_chain(self, bus: EventBus) -> None:
        """As behind every operator: one letter, for the event that it was."""

        async def fails(event: Event[int]) -> float:
            return 1 / event.payload

        got: list[float] = []
        bus.topic("a").pipe(operators.map_async(fails)).subscribe(got.append)
        bus.publish_many("a", [1, 0])
        bus.drain(LIMIT)
        assert [1.0] == got
        assert [(0, "division by zero")] == [(letter.event.payload, str(letter.error)) for letter in bus.dead_letters]
        until(lambda: not bus.subscriptions)
        bus.dead_letters.discard()

    def test_a_failure_that_is_caught(self, bus: EventBus) -> None:
        """Is no dead letter."""

        async def fails(event: Event[int]) -> float:
            return 1 / event.payload

        got: list[float] = []
        bus.topic("a").pipe(operators.map_async(fails), ops.catch(rx.of(-1.0))).subscribe(got.append)
        bus.publish_many("a", [1, 0])
        bus.drain(LIMIT)
        assert ([1.0, -1.0], 0) == (got, len(bus.dead_letters))

    def test_a_closed_bus(self) -> None:
        """Drains it, and completes what follows."""
        with EventBus() as bus:
            watcher = watch(bus.topic("a").pipe(operators.map_async(double, concurrency=2)))
            bus.publish_many("a", range(4))
        assert watcher.ended.wait(LIMIT)
        assert ([0, 2, 4, 6], None) == (watcher.got, watcher.error)


IN_A_PIPELINE: list[Callable[..., Any]] = [operators.map_async]


class TestInThrough:
    """An event is settled when its coroutines have ended."""

    @pytest.mark.parametrize("options", [{}, {"concurrency": 2}], ids=["one", "several"])
    def test_events_are_settled_with_their_results(self, bus: EventBus, options: Any) -> None:
        """`deliver` waits for it; the handler gets results in order, on the pool."""
        recorder: list[tuple[int, str]] = []

        def handler(n: int) -> None:
            recorder.append((n, threading.current_thread().name[:10]))

        bus.subscribe("a", handler, through=operators.map_async(double), **options)
        for n in range(5):
            assert 1 == bus.deliver("a", n, timeout=LIMIT).handled
        assert [0, 2, 4, 6, 8] == [n for n, _ in recorder]
        assert not any(name.startswith("rxbus-loop") for _, name in recorder)

    def test_no_thread_is_held(self, bus: EventBus) -> None:
        """While the coroutine runs the event is suspended."""
        model = Model()
        agent = bus.subscribe("a", lambda _: None, through=operators.map_async(model))
        bus.publish_many("a", [1, 2])
        until(lambda: agent._strand.is_suspended and not agent._strand.is_running)
        model.answer(1, 2)
        bus.drain(LIMIT)
        assert 1 == model.most
        assert 2 == agent.statistics().handled

    @pytest.mark.parametrize(("ordered", "expected"), [(True, ["1'", "2'", "3'"]), (False, ["3'", "1'", "2'"])])
    def test_values_of_one_event(self, bus: EventBus, ordered: bool, expected: list[str]) -> None:
        """They run several at a time."""
        model, got = Model(), []
        split = rx.compose(ops.flat_map(lambda e: rx.of(1, 2, 3)), operators.map_async(model, concurrency=3, ordered=ordered))
        bus.subscribe("a", got.append, through=split)
        bus.publish("a", 0)
        model.answer(3, 1, 2)
        bus.drain(LIMIT)
        assert (expected, 3) == (got, model.most)
        assert_books_balance(bus)

    def test_a_failure_costs_its_event_alone(self, bus: EventBus) -> None:
        """Retried as any failing operator, with the pipeline rebuilt; then a dead letter."""
        attempts: list[tuple[int, int]] = []

        async def flaky(event: Event[int]) -> int:
            delivery = current()
            assert delivery is not None
            attempts.append((event.payload, delivery.attempt))
            await asyncio.sleep(0)
            if event.payload == 1 or (event.payload == 2 and delivery.attempt == 1):
                raise ValueError("no")
            return event.payload

        got: list[int] = []
        agent = bus.subscribe("a", got.append, through=operators.map_async(flaky), retry=Retry(2, backoff=0.001))
        bus.publish_many("a", range(4))
        bus.drain(LIMIT)
        assert [0, 2, 3] == got
        assert [(0, 1), (1, 1), (1, 2), (2, 1), (2, 2), (3, 1)] == attempts
        assert [(1, 2, Reason.FAILED)] == [(x.event.payload, x.attempts, x.reason) for x in bus.dead_letters]
        assert (4, 3, 1, 2) == ((s := agent.statistics()).offered, s.handled, s.failed, s.retried)
        bus.dead_letters.discard()

    def test_a_timers_emission(self, bus: EventBus) -> None:
        """What comes of it is a step more of the subscription."""
        got: list[int] = []
        through = rx.compose(ops.map(lambda e: e.payload), ops.debounce(0.01), operators.map_async(double))
        bus.subscribe("a", got.append, through=through)
        bus.publish_many("a", [1, 2, 3])
        until(lambda: got)
        assert [6] == got

    def test_disposal_cancels(self, bus: EventBus) -> None:
        """The event is dropped, and counted."""
        model = Model()
        agent = bus.subscribe("a", lambda _: None, through=operators.map_async(model))
        bus.publish("a", 1)
        until(lambda: model.begun and agent._strand.is_suspended)
        agent.dispose()
        until(lambda: model.cancelled)
        assert 1 == agent.statistics().dropped
        assert_books_balance(bus)

    def test_completion_waits(self, bus: EventBus) -> None:
        """A pipeline that had enough ends behind its last coroutine."""
        got: list[int] = []
        agent = bus.subscribe("a", got.append, through=rx.compose(ops.take(2), operators.map_async(double)))
        for n in range(3):
            bus.publish("a", n)
        bus.drain(LIMIT)
        until(lambda: agent.is_disposed)
        assert [0, 2] == got
        assert_books_balance(bus)


async def slowly(event: Event[str]) -> str:
    """Takes three characters of time for ``a``, one for anything else."""
    await asyncio.sleep(0.3 if event.payload == "a" else 0.1)
    return event.payload.upper()


class TestOnAVirtualClock:
    """Coroutines take virtual time on a virtual bus; elsewhere results come in when the clock moves."""

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ({}, "----AB-C"),
            ({"concurrency": 2}, "----(AB)C"),
            ({"concurrency": 2, "ordered": False}, "---BA--C"),
        ],
        ids=["one", "two in order", "two as they are ready"],
    )
    def test_marbles(self, virtual_bus: VirtualBus, options: dict[str, Any], expected: str) -> None:
        """As the docstring draws it."""
        results = virtual_bus.record(virtual_bus.topic("a").pipe(operators.map_async(slowly, **options)))
        fed = virtual_bus.feed("a", "-ab---c|")
        virtual_bus.advance(3)
        assert ("-ab---c|", expected) == (fed.marbles(), results.marbles())

    def test_in_through(self, virtual_bus: VirtualBus) -> None:
        """One event at a time, and the next one waits for it."""
        virtual_bus.subscribe("a", lambda value: value, through=operators.map_async(slowly, concurrency=2), to="b")
        results = virtual_bus.record("b")
        virtual_bus.feed("a", "-ab---c|")
        virtual_bus.drain()
        assert "----AB-C" == results.marbles()

    def test_results_wait_for_the_clock(self) -> None:
        """What follows is called by the scheduler that was subscribed with."""
        scheduler, got = TestScheduler(), []
        rx.of(1, 2).pipe(operators.map_async(double)).subscribe(got.append, scheduler=scheduler)
        deadline = time.monotonic() + LIMIT
        while len(got) < 2 and time.monotonic() < deadline:
            assert len(got) == 0 or scheduler.clock
            scheduler.advance_by(0.1)
            time.sleep(0.001)
        assert [2, 4] == got


class TestWhatGoesWrong:
    """In the middle of several values of one event, in a supervised pipeline."""

    SPLIT = staticmethod(ops.flat_map(lambda e: rx.of(1, 2, 3)))

    @pytest.mark.parametrize("retry", [None, Retry(2, backoff=0.001)], ids=["once", "retried"])
    @pytest.mark.parametrize("options", [{}, {"concurrency": 3}, {"concurrency": 3, "ordered": False}], ids=["one", "three", "as ready"])
    def test_one_of_them_fails(self, bus: EventBus, options: dict[str, Any], retry: Retry | None) -> None:
        """Each event has one outcome; what waited for a hand, or ran, is given up with it."""

        async def fails(n: int) -> int:
            await asyncio.sleep(0.002 * n)
            if n == 1:
                raise ValueError("no")
            return n

        bus.subscribe("a", print, through=rx.compose(self.SPLIT, operators.map_async(fails, **options)), retry=retry, name="agent")
        bus.publish_many("a", range(3))
        bus.drain(LIMIT)
        statistics = bus.subscriptions["agent"].statistics()
        assert (3, 3, 0) == (statistics.failed, len(bus.dead_letters), statistics.pending)
        bus.dead_letters.discard()

    @pytest.mark.parametrize("enough", [ops.first(), ops.take(1), ops.take_until(rx.timer(0.01))], ids=["first", "take", "take_until"])
    def test_what_follows_has_enough(self, bus: EventBus, enough: Any) -> None:
        """An inner chain that ends early leaves nobody waiting."""

        async def slow(n: int) -> int:
            await asyncio.sleep(0.004 * n)
            return n

        inner = ops.flat_map(lambda e: rx.of(1, 2, 3, 4).pipe(operators.map_async(slow), enough))
        agent = bus.subscribe("a", lambda _: None, through=inner)
        bus.publish_many("a", range(2))
        bus.drain(LIMIT)
        assert (2, 0) == (agent.statistics().handled, agent.statistics().pending)

    def test_an_operator_before_it_fails(self, bus: EventBus) -> None:
        """At once, though a timer's coroutine still runs: that event alone fails, and the next ones come through."""

        async def slow(batch: list[Any]) -> list[Any]:
            await asyncio.sleep(0.05)
            return batch

        def check(event: Event[Any]) -> Any:
            if event.payload == "bad":
                raise ValueError("bad")
            return event.payload

        got: list[Any] = []
        through = rx.compose(ops.map(check), ops.buffer_with_count(1), ops.delay(0.005), operators.map_async(slow))
        agent = bus.subscribe("a", got.append, through=through)
        bus.publish("a", "first")
        until(lambda: agent.statistics().handled == 1)
        time.sleep(0.02)
        bus.publish_many("a", ["bad", 1, 2])
        until(lambda: len(got) >= 2)
        assert ["bad"] == [letter.event.payload for letter in bus.dead_letters]
        assert [[1], [2]] == got[-2:]
        bus.dead_letters.discard()

    def test_generator_exit(self, bus: EventBus) -> None:
        """Is raised as everything else is."""

        async def leaves(_: Any) -> None:
            raise GeneratorExit

        bus.subscribe("a", print, through=operators.map_async(leaves))
        bus.publish("a", 1)
        bus.drain(LIMIT)
        assert [GeneratorExit] == [type(letter.error) for letter in bus.dead_letters]
        bus.dead_letters.discard()

    def test_a_hand_that_somebody_cancels(self) -> None:
        """Its item has no result, so the stream has failed; nobody is left waiting for his turn."""

        async def main() -> list[Any]:
            got: list[Any] = []
            source = Subject[int]()

            begun: list[int] = []

            async def slow(n: int) -> int:
                begun.append(n)
                await asyncio.sleep(0.01)
                return n

            loop = asyncio.get_running_loop()
            before = asyncio.all_tasks()
            source.pipe(operators.map_async(slow, concurrency=3)).subscribe(
                got.append, got.append, lambda: got.append("done"), scheduler=AsyncIOThreadSafeScheduler(loop)
            )
            for n in range(6):
                source.on_next(n)
            while len(begun) < 3:
                await asyncio.sleep(0)
            hands = [one for one in asyncio.all_tasks() - before if "_run" in one.get_coro().__qualname__]  # type: ignore[union-attr]
            assert 3 == len(hands)
            for hand in hands:
                hand.cancel()
            await asyncio.sleep(0.1)
            return got

        got = asyncio.run(main())
        assert isinstance(got[-1], asyncio.CancelledError)
        assert "done" not in got

    def test_after_the_bus_was_closed(self) -> None:
        """No loop is made for a bus that has none any more."""
        gate, bus = threading.Event(), EventBus("gone", close_timeout=0.05)
        entered = threading.Event()

        def slow(event: Event[int]) -> Event[int]:
            entered.set()
            gate.wait(LIMIT)
            return event

        bus.subscribe("a", print, through=rx.compose(ops.map(slow), operators.map_async(double)))
        bus.publish("a", 1)
        assert entered.wait(LIMIT)
        report = bus.close()
        assert report.stuck
        gate.set()
        until(lambda: bus.statistics().subscriptions["print"].pending == 0)
        assert [] == [one.name for one in threading.enumerate() if one.name == "rxbus-loop-gone"]

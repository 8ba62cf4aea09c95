"""Handlers that are coroutines: on the bus's own loop, and on the user's."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import warnings
import weakref
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from typing import Any

import pytest
from reactivex import operators as ops

from rxbus import (
    Breaker,
    BusError,
    Event,
    EventBus,
    MailboxFullError,
    Reason,
    RequestFailedError,
    Retry,
    current,
    inlet,
    mailbox,
    publishing,
    request,
)
from rxbus.loops import executor_of
from tests.support import LIMIT, Gate, Recorder, Witness, assert_books_balance, join, run_in_thread, until

word: ContextVar[str] = ContextVar("word", default="nothing")


class Busy:
    """A coroutine handler that notes how many of its calls go on at once."""

    def __init__(self, seconds: float = 0.001) -> None:
        self.seconds = seconds
        self.now = self.most = 0
        self.seen: list[Any] = []

    async def __call__(self, event: Event[Any]) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(self.seconds)
        self.now -= 1
        self.seen.append(event.payload)


class TestOrder:
    """One at a time, unless it asked for more."""

    def test_one_at_a_time_and_in_order(self, bus: EventBus) -> None:
        """The next coroutine begins when the one before has ended."""
        busy = Busy()
        bus.subscribe("a", busy)
        bus.publish_many("a", range(20))
        bus.drain(LIMIT)
        assert (1, list(range(20))) == (busy.most, busy.seen)
        assert_books_balance(bus)

    def test_several_at_a_time(self, bus: EventBus) -> None:
        """As many as `concurrency` says, on one thread."""
        busy = Busy(0.02)
        bus.subscribe("a", busy, concurrency=8)
        bus.publish_many("a", range(16))
        bus.drain(LIMIT)
        assert 8 == busy.most
        assert list(range(16)) == sorted(busy.seen)

    def test_keys_keep_their_order(self, bus: EventBus) -> None:
        """Equal keys one after the other, others meanwhile."""
        seen: list[int] = []

        async def handler(event: Event[int]) -> None:
            await asyncio.sleep(0.005 if event.payload == 0 else 0)
            seen.append(event.payload)

        bus.subscribe("a", handler, concurrency=4, key=lambda event: event.payload % 2)
        bus.publish_many("a", range(6))
        bus.drain(LIMIT)
        assert [0, 2, 4] == [n for n in seen if n % 2 == 0]
        assert [1, 3, 5] == [n for n in seen if n % 2]
        assert 1 == seen[0]

    def test_behind_a_pipeline(self, bus: EventBus) -> None:
        """In the order in which values come out of it."""
        busy = Busy()

        async def handler(value: int) -> None:
            await asyncio.sleep(0.001)
            busy.seen.append(value)

        bus.subscribe("a", handler, through=ops.flat_map(lambda event: [event.payload, -event.payload]))
        bus.publish_many("a", range(1, 6))
        bus.drain(LIMIT)
        assert [1, -1, 2, -2, 3, -3, 4, -4, 5, -5] == busy.seen

    def test_in_a_group(self, bus: EventBus) -> None:
        """Each event goes to one member, and a slow one leaves the others more."""
        slow, quick = Busy(0.02), Busy(0.001)
        bus.subscribe("a", slow, group="g")
        bus.subscribe("a", quick, group="g")
        bus.publish_many("a", range(20))
        bus.drain(LIMIT)
        assert list(range(20)) == sorted(slow.seen + quick.seen)
        assert len(quick.seen) > len(slow.seen) > 0

    def test_long_chains_on_one_loop(self, bus: EventBus) -> None:
        """A coroutine that publishes to itself makes no stack grow."""
        last: list[int] = []

        async def again(event: Event[int]) -> int | None:
            if event.payload == 3000:
                last.append(event.hops)
                return None
            return event.payload + 1

        bus.subscribe("a", again, to="a")
        bus.publish("a", 0)
        bus.drain(LIMIT)
        assert [3000] == last


class TestContext:
    """What a coroutine sees."""

    def test_causality_follows_it(self, bus: EventBus) -> None:
        """After every `await`, and into the tasks that it starts."""
        found: list[Any] = []
        children = Recorder()

        async def later() -> None:
            await asyncio.sleep(0.001)
            bus.publish("child", "task")

        async def handler(event: Event[int]) -> None:
            await asyncio.sleep(0.001)
            delivery = current()
            found.append((delivery and delivery.event, delivery and delivery.subscription.name, word.get()))
            bus.publish("child", "coroutine")
            await asyncio.create_task(later())

        bus.subscribe("child", children)
        bus.subscribe("a", handler)
        token = word.set("mine")
        event = bus.publish("a", 1)
        word.reset(token)
        bus.drain(LIMIT)
        assert [(event, "handler", "mine")] == found
        assert ["coroutine", "task"] == children.payloads
        assert {event.id} == {child.causation_id for child in children.events}

    def test_contexts_dont_mix(self, bus: EventBus) -> None:
        """What one event's coroutine sets, another's doesn't see."""
        seen: list[str] = []

        async def handler(event: Event[int]) -> None:
            seen.append(word.get())
            word.set(str(event.payload))
            await asyncio.sleep(0.001)
            seen.append(word.get())

        bus.subscribe("a", handler, concurrency=3)
        bus.publish_many("a", range(3))
        bus.drain(LIMIT)
        assert sorted(["nothing"] * 3 + ["0", "1", "2"]) == sorted(seen)

    def test_a_task_is_current(self, bus: EventBus) -> None:
        """So that `asyncio.timeout` and task groups work."""
        done: list[int] = []

        async def part(number: int) -> None:
            await asyncio.sleep(0.001)
            done.append(number)

        async def handler(event: Event[int]) -> None:
            async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as group:
                for number in range(3):
                    group.create_task(part(number))

        bus.subscribe("a", handler)
        assert 1 == bus.deliver("a", 1, timeout=LIMIT).handled
        assert [0, 1, 2] == sorted(done)


class TestFailures:
    """What a coroutine raises."""

    @pytest.mark.parametrize(
        "raised", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, StopIteration, TimeoutError]
    )
    @pytest.mark.parametrize("options", [{}, {"concurrency": 2}], ids=["one", "several"])
    def test_anything(self, bus: EventBus, raised: Any, options: Any) -> None:
        """Before or after an `await`: a dead letter each, and the loop goes on."""
        seen: list[int] = []

        async def handler(event: Event[int]) -> None:
            if event.payload == 1:
                raise raised
            await asyncio.sleep(0)
            if event.payload == 2:
                raise raised
            seen.append(event.payload)

        bus.subscribe("a", handler, **options)
        bus.publish_many("a", range(4))
        bus.drain(LIMIT)
        assert [0, 3] == sorted(seen)
        assert [(1, Reason.FAILED), (2, Reason.FAILED)] == sorted((x.event.payload, x.reason) for x in bus.dead_letters)
        assert_books_balance(bus)

    def test_retries_in_order_without_holding_the_loop(self, bus: EventBus) -> None:
        """While one backs off, other subscriptions of the loop go on."""
        attempts: list[int] = []
        other = Busy(0)

        async def twice(event: Event[int]) -> None:
            delivery = current()
            assert delivery is not None
            attempts.append(delivery.attempt)
            if delivery.attempt < 3:
                raise ValueError
            other.seen.append("done")

        bus.subscribe("a", twice, retry=Retry(3, backoff=0.02, jitter=0.0))
        bus.subscribe("b", other)
        bus.publish("a", 1)
        until(lambda: attempts)
        bus.deliver("b", 1, timeout=LIMIT)
        bus.drain(LIMIT)
        assert [1, 2, 3] == attempts
        assert [1, "done"] == other.seen

    @pytest.mark.parametrize("options", [{}, {"concurrency": 2}], ids=["one", "several"])
    def test_timeout(self, bus: EventBus, options: Any) -> None:
        """The coroutine is cancelled, each attempt has its own time, and the letter says TIMEOUT."""
        cancelled: list[int] = []

        async def slow(event: Event[int]) -> None:
            try:
                await asyncio.sleep(LIMIT)
            except asyncio.CancelledError:
                cancelled.append(event.payload)
                raise

        bus.subscribe("a", slow, timeout=0.02, retry=Retry(2, backoff=0.001), **options)
        bus.publish("a", 1)
        bus.drain(LIMIT)
        (letter,) = bus.dead_letters
        assert (Reason.TIMEOUT, 2) == (letter.reason, letter.attempts)
        assert "subscription 'slow': expected its handler to end within 0.02 s" == str(letter.error)
        assert isinstance(letter.error, TimeoutError)
        assert [1, 1] == cancelled

    def test_a_timeout_of_its_own_is_a_failure(self, bus: EventBus) -> None:
        """The handler's, not the subscription's."""

        async def handler(event: Event[int]) -> None:
            async with asyncio.timeout(0.001):
                await asyncio.sleep(LIMIT)

        bus.subscribe("a", handler, timeout=LIMIT)
        bus.publish("a", 1)
        bus.drain(LIMIT)
        assert [Reason.FAILED] == [letter.reason for letter in bus.dead_letters]

    @pytest.mark.parametrize(
        "options", [{}, {"to": "b"}, {"concurrency": 2}, {"through": ops.map(lambda e: e)}], ids=["one", "to", "several", "piped"]
    )
    def test_a_function_that_returns_a_coroutine(self, bus: EventBus, options: Any) -> None:
        """Is told so in a dead letter; the coroutine isn't left unawaited."""

        async def answer(event: Event[int]) -> int:
            return 1

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            bus.subscribe("a", lambda event: answer(event), **options)
            bus.publish("a", 1)
            bus.drain(LIMIT)
            gc.collect()
        (letter,) = bus.dead_letters
        assert (
            "subscription 'lambda': its handler made a coroutine, which nobody would await: give it an async def, and await that there"
            == str(letter.error)
        )
        assert [] == caught

    def test_breaker(self, bus: EventBus) -> None:
        """It counts coroutines as it does functions."""
        calls: list[float] = []

        async def failing(event: Event[int]) -> None:
            calls.append(time.monotonic())
            raise ValueError

        bus.subscribe("a", failing, breaker=Breaker(2, 0.05))
        bus.publish_many("a", range(3))
        bus.drain(LIMIT)
        assert calls[2] - calls[1] >= 0.04


class TestCancellation:
    """Of the task that serves a loop's handlers."""

    @pytest.mark.parametrize("sleeps", [True, False], ids=["suspended", "at once"])
    @pytest.mark.parametrize("before", [True, False], ids=["later", "first"])
    def test_a_handler_that_cancels_itself(self, bus: EventBus, sleeps: bool, before: bool) -> None:
        """It means its own event; those that come after it are handled, at once."""
        seen: list[int] = []

        async def handler(event: Event[int]) -> None:
            if before:
                await asyncio.sleep(0)
            task = asyncio.current_task()
            assert task is not None
            if event.payload % 2:
                task.cancel()
                if sleeps:
                    await asyncio.sleep(0)
            await asyncio.sleep(0) if before and not event.payload % 2 else None
            assert not task.cancelling() or event.payload % 2
            seen.append(event.payload)

        bus.subscribe("a", handler)
        bus.publish_many("a", range(10))
        bus.drain(LIMIT)
        assert (list(range(0, 10, 2)) if sleeps else list(range(10))) == seen
        assert ([(n, Reason.FAILED) for n in range(1, 10, 2)] if sleeps else []) == [(x.event.payload, x.reason) for x in bus.dead_letters]
        assert not bus._loop_thread.executor.is_hesitating
        assert_books_balance(bus)
        bus.dead_letters.discard()

    def test_a_timeout_of_the_subscription_is_no_reason_to_hesitate(self, bus: EventBus) -> None:
        """Its loop isn't taken for one that is being closed."""

        async def hangs(event: Event[int]) -> None:
            await asyncio.sleep(1000)

        bus.subscribe("a", hangs, timeout=0.01)
        bus.deliver("a", 1, timeout=LIMIT)
        assert not bus._loop_thread.executor.is_hesitating
        bus.dead_letters.discard()

    def test_a_run_that_is_cancelled_before_it_began(self) -> None:
        """It begins again, without anybody who would drain or deliver."""
        handled = threading.Event()

        async def handler(event: Event[int]) -> None:
            handled.set()

        async def main() -> None:
            async with EventBus() as bus:
                bus.subscribe("a", handler, loop=asyncio.get_running_loop())
                bus.publish("a", 1)
                await asyncio.sleep(0)  # the run was called, and made its task
                for task in asyncio.all_tasks() - {asyncio.current_task()}:
                    task.cancel()
                for _ in range(1000):
                    if handled.is_set():
                        break
                    await asyncio.sleep(0.001)
                assert handled.is_set()

        asyncio.run(main())

    def test_a_loop_that_is_closed_in_that_moment(self) -> None:
        """The first run's task was cancelled before its first step, and the loop closed: the event is a dead letter by itself."""
        with EventBus() as bus:

            async def main() -> None:
                bus.subscribe("a", Busy(), loop=asyncio.get_running_loop())
                bus.publish("a", 1)
                await asyncio.sleep(0)

            asyncio.run(main())
            until(lambda: len(bus.dead_letters))
            assert [Reason.UNDELIVERABLE] == [letter.reason for letter in bus.dead_letters]
            assert_books_balance(bus)
            bus.dead_letters.discard()


class TestResults:
    """Generators, and what `to=` does."""

    def test_each_value_of_an_async_generator_goes_out_as_it_comes(self, bus: EventBus) -> None:
        """A subscriber has the first token before the handler ends."""
        seen = Recorder()
        got = threading.Event()
        at_the_end: list[int] = []

        async def stream(event: Event[str]) -> AsyncIterator[str | None]:
            yield "first"
            while not got.is_set():
                await asyncio.sleep(0.001)
            yield None
            yield "second"
            at_the_end.append(len(seen.payloads))

        bus.subscribe("token", lambda event: (seen(event), got.set()))
        bus.subscribe("a", stream, to="token")
        event = bus.publish("a", "x")
        bus.drain(LIMIT)
        assert ["first", "second"] == seen.payloads
        assert {event.id} == {token.causation_id for token in seen.events}
        assert at_the_end[0] >= 1

    def test_a_generator(self, bus: EventBus) -> None:
        """Each value is a result; without `to` it is run to its end."""
        seen = Recorder()
        ended: list[int] = []

        def stream(event: Event[int]) -> Iterator[int]:
            yield from range(event.payload)
            ended.append(event.payload)

        bus.subscribe("b", seen)
        bus.subscribe("a", stream, to="b")
        bus.subscribe("a", stream)
        bus.subscribe("a", stream, concurrency=2, through=ops.map(lambda e: e))
        bus.publish("a", 3)
        bus.drain(LIMIT)
        assert [0, 1, 2] == seen.payloads
        assert [3, 3, 3] == ended

    def test_a_generator_that_fails_in_the_middle(self, bus: EventBus) -> None:
        """What it gave is out, and its event fails."""
        seen = Recorder()

        async def stream(event: Event[int]) -> AsyncIterator[int]:
            yield 1
            raise ValueError

        bus.subscribe("b", seen)
        bus.subscribe("a", stream, to="b")
        bus.publish("a", 3)
        bus.drain(LIMIT)
        assert [1] == seen.payloads
        assert 1 == len(bus.dead_letters)

    def test_results_wait_for_room_without_holding_the_loop(self, bus: EventBus) -> None:
        """While a result waits before a full mailbox, the loop does other things."""
        gate = threading.Event()
        others = Busy(0)

        async def answer(event: Event[int]) -> int:
            return event.payload

        bus.subscribe("b", lambda _: gate.wait(LIMIT), capacity=1)
        asking = bus.subscribe("a", answer, to="b")
        bus.subscribe("other", others)
        bus.publish_many("a", range(6))
        until(lambda: 2 <= asking.statistics().handled <= 3)
        bus.publish_many("other", range(50))
        until(lambda: len(others.seen) == 50)
        assert asking.statistics().handled < 6
        gate.set()
        bus.drain(LIMIT)
        assert 6 == bus.statistics().topics["b"].handled

    def test_a_circle_of_full_mailboxes_ends(self, bus: EventBus) -> None:
        """Two coroutines that fill each other's mailboxes: somebody is refused at once, nobody waits for ever."""

        async def twice(event: Event[int]) -> AsyncIterator[int]:
            if event.hops < 12:
                yield event.payload
                yield event.payload

        bus.subscribe("a", twice, to="b", capacity=1)
        bus.subscribe("b", twice, to="a", capacity=1)
        began = time.monotonic()
        bus.publish("a", 1)
        bus.drain(LIMIT)
        assert time.monotonic() - began < LIMIT / 2
        assert {MailboxFullError} == {type(letter.error) for letter in bus.dead_letters}
        assert_books_balance(bus)


class TestWaiting:
    """For oneself, and for the loop."""

    def test_a_coroutine_cant_wait_for_its_own_loop(self, bus: EventBus) -> None:
        """Blocking calls there raise instead of hanging."""
        errors: list[str] = []

        async def asks(event: Event[int]) -> None:
            for call in (lambda: bus.drain(LIMIT), lambda: bus.deliver("b", 1, timeout=LIMIT)):
                try:
                    call()
                except BusError as error:
                    errors.append(str(error))

        async def answers(event: Event[int]) -> None:
            pass

        bus.subscribe("b", answers)
        bus.subscribe("a", asks)
        bus.deliver("a", 1, timeout=LIMIT)
        assert 2 == len(errors)
        assert all("would wait for itself" in error for error in errors)

    @pytest.mark.parametrize("options", [{"concurrency": 2}, {"through": ops.map(lambda e: e)}], ids=["several", "piped"])
    @pytest.mark.parametrize("call", ["drain", "deliver", "request", "close", "publish", "dispose"])
    def test_lanes_of_the_calling_loop(self, call: str, options: Any) -> None:
        """Their subscription itself runs elsewhere; a blocking call on the loop of its lanes is recognised all the same."""

        async def handler(event: Event[int]) -> None:
            await asyncio.sleep(0.001)

        async def main() -> None:
            async with EventBus(block_timeout=LIMIT) as bus:
                one = bus.subscribe("a", handler, loop=asyncio.get_running_loop(), capacity=2, **options)
                if call == "publish":
                    for number in range(20):  # into the full mailbox: over its bound, then dead letters
                        bus.publish("a", number)
                    await bus.adrain(LIMIT)
                    assert 20 == bus.statistics().topics["a"].handled + len(bus.dead_letters.discard() * [None])
                    return
                bus.publish("a", 0)
                if call == "close":
                    bus.close()  # goes on elsewhere
                elif call == "dispose":
                    one.dispose(wait=LIMIT)
                else:
                    acts = {"drain": bus.drain, "deliver": lambda: bus.deliver("a", 1), "request": bus.request("a", 1).run}
                    with pytest.raises(BusError, match="wait for itself"):
                        acts[call]()

        began = time.monotonic()
        asyncio.run(main())
        assert time.monotonic() - began < LIMIT / 2

    def test_an_idle_loop_wakes_at_once(self, bus: EventBus) -> None:
        """For a publish of another thread."""
        latencies: list[float] = []

        async def handler(event: Event[float]) -> None:
            latencies.append(time.monotonic() - event.payload)

        bus.subscribe("a", handler)
        for _ in range(20):
            time.sleep(0.005)
            bus.deliver("a", time.monotonic(), timeout=LIMIT)
        assert sorted(latencies)[10] < 0.2


class TestEnd:
    """Pauses, disposal, close, and loops that go away."""

    def test_pause_and_resume(self, bus: EventBus) -> None:
        """The coroutine in progress ends, the next one waits."""
        busy = Busy(0.1)
        subscription = bus.subscribe("a", busy)
        bus.publish_many("a", range(3))
        until(lambda: busy.now)
        subscription.pause()
        until(lambda: len(busy.seen) == 1)
        time.sleep(0.03)
        assert [0] == busy.seen
        subscription.resume()
        bus.drain(LIMIT)
        assert [0, 1, 2] == busy.seen

    @pytest.mark.parametrize("options", [{}, {"concurrency": 2}], ids=["one", "several"])
    def test_dispose(self, bus: EventBus, options: Any) -> None:
        """What is queued is dropped; the one in progress may end, and `wait` joins it."""
        busy = Busy(0.05)
        subscription = bus.subscribe("a", busy, **options)
        bus.publish_many("a", range(10))
        until(lambda: busy.now)
        subscription.dispose(wait=LIMIT)
        assert 0 == busy.now
        assert 10 == len(busy.seen) + subscription.statistics().dropped
        assert_books_balance(bus)

    def test_a_coroutine_that_never_ends(self) -> None:
        """A close names it, comes back in time, and has it cancelled; no warning is left behind."""
        cancelled = threading.Event()

        async def hangs(event: Event[int]) -> None:
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                cancelled.set()
                raise

        bus = EventBus()
        subscription = bus.subscribe("a", hangs)
        bus.publish_many("a", range(3))
        until(lambda: subscription._strand.in_flight is not None)
        thread = bus._loop_thread._thread
        began = time.monotonic()
        report = bus.close(timeout=0.1)
        assert time.monotonic() - began < LIMIT / 2
        assert (("hangs",), {"hangs": 3}) == (report.stuck, dict(report.unhandled))
        assert cancelled.wait(LIMIT)
        assert thread is not None
        thread.join(LIMIT)
        assert not thread.is_alive()
        until(lambda: not subscription.statistics().pending)
        s = subscription.statistics()
        assert (3, 1, 2) == (s.offered, s.failed, s.dropped)
        gc.collect()

    def test_a_closed_bus_has_no_thread_left(self) -> None:
        """That of its loop ends too."""
        with EventBus() as bus:
            bus.subscribe("a", Busy(0))
            bus.deliver("a", 1)
            thread = bus._loop_thread._thread
        assert thread is not None
        thread.join(LIMIT)
        assert not thread.is_alive()

    def test_a_bus_that_is_let_go_of(self) -> None:
        """The thread of its loop ends, though nobody closed it."""
        bus = EventBus()
        bus.subscribe("a", Busy(0))
        bus.deliver("a", 1, timeout=LIMIT)
        thread = bus._loop_thread._thread
        gone = weakref.ref(bus)
        del bus
        until(lambda: gc.collect() is not None and gone() is None)
        assert thread is not None
        thread.join(LIMIT)
        assert not thread.is_alive()

    def test_the_users_own_loop(self) -> None:
        """Handlers run there, in the thread of the loop; two loops in two threads may share a bus."""
        seen: dict[str, set[int]] = {"one": set(), "two": set()}

        def program(name: str, bus: EventBus, ready: threading.Barrier) -> None:
            async def main() -> None:
                async def handler(event: Event[int]) -> None:
                    await asyncio.sleep(0)
                    seen[name].add(threading.get_ident())

                bus.subscribe("a", handler, loop=asyncio.get_running_loop(), name=name)
                await asyncio.to_thread(ready.wait, LIMIT)
                await asyncio.to_thread(ready.wait, LIMIT)

            asyncio.run(main())

        with EventBus() as bus:
            ready = threading.Barrier(3)
            threads = [run_in_thread(program, name, bus, ready) for name in seen]
            ready.wait(LIMIT)
            bus.publish_many("a", range(100))
            bus.drain(LIMIT)
            ready.wait(LIMIT)
            for thread in threads:
                thread.join(LIMIT)
            assert [{threads[0].ident}, {threads[1].ident}] == [seen["one"], seen["two"]]
            assert 200 == bus.statistics().topics["a"].handled

    @pytest.mark.parametrize("options", [{}, {"concurrency": 2}, {"through": ops.map(lambda e: e)}], ids=["one", "several", "piped"])
    def test_a_loop_that_is_closed_with_events_queued(self, options: Any) -> None:
        """They are dead letters, later ones too, and no publisher gets an exception; nothing was never awaited."""
        with warnings.catch_warnings(record=True) as caught, EventBus() as bus:
            warnings.simplefilter("always")

            async def main() -> None:
                async def hangs(event: Event[int]) -> None:
                    await asyncio.sleep(1000)

                bus.subscribe("a", hangs, loop=asyncio.get_running_loop(), **options)
                bus.publish_many("a", range(5))
                await asyncio.sleep(0.05)

            asyncio.run(main())
            until(lambda: len(bus.dead_letters) == 5)  # without anybody who would drain or publish
            bus.publish("a", 5)
            bus.drain(LIMIT)
            assert [0, 1, 2, 3, 4, 5] == sorted(letter.event.payload for letter in bus.dead_letters)
            assert {Reason.UNDELIVERABLE} == {letter.reason for letter in bus.dead_letters}
            assert_books_balance(bus)
            gc.collect()
        assert [] == [str(warning.message) for warning in caught]

    def test_a_loop_that_ends_before_it_began(self) -> None:
        """`asyncio.run` is over before the first event was taken: the events are dead letters for whoever drains."""
        with EventBus() as bus:

            async def main() -> None:
                bus.subscribe("a", Busy(), loop=asyncio.get_running_loop())
                bus.publish_many("a", range(3))

            asyncio.run(main())
            bus.drain(LIMIT)
            assert {Reason.UNDELIVERABLE} == {letter.reason for letter in bus.dead_letters}
            assert_books_balance(bus)

    def test_a_loop_that_is_closed_without_a_word(self) -> None:
        """In the middle of a coroutine, with more queued: `deliver`, `drain` and `close` find out and don't wait for ever."""
        loop = asyncio.new_event_loop()
        with EventBus() as bus:

            async def main() -> None:
                async def hangs(event: Event[int]) -> None:
                    await asyncio.sleep(1000)

                bus.subscribe("a", hangs, loop=asyncio.get_running_loop(), name="one")
                bus.subscribe("a", hangs, loop=asyncio.get_running_loop(), name="several", concurrency=2)
                bus.publish_many("a", range(5))
                await asyncio.sleep(0.02)

            loop.run_until_complete(main())
            loop.close()
            assert 2 == bus.deliver("a", 5, timeout=LIMIT).failed
            bus.drain(LIMIT)
            assert 12 == len(bus.dead_letters)
            assert_books_balance(bus)
            gc.collect()

    @pytest.mark.parametrize("closed", ["before", "meanwhile"])
    @pytest.mark.parametrize("queued", [1, 0], ids=["full", "room"])
    @pytest.mark.parametrize(
        ("verb", "options"),
        [
            *((verb, {}) for verb in ("publish", "apublish", "deliver", "adeliver", "request", "arequest", "result")),
            *((verb, {"concurrency": 2}) for verb in ("publish", "deliver", "request")),
            *((verb, {"group": "g"}) for verb in ("apublish", "deliver", "arequest")),
        ],
    )
    def test_who_waits_when_a_loop_is_closed_without_a_word(
        self, verb: str, queued: int, options: Any, closed: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nobody waits as long as for a handler that hangs, and no letter says that there was no room."""
        for module in (mailbox, inlet, request, publishing):
            monkeypatch.setattr(module, "RECHECK", 0.02)
        loop = asyncio.new_event_loop()
        busy = options.get("concurrency", 1)

        async def hangs(event: Event[int]) -> None:
            await asyncio.sleep(1000)

        async def acts_patiently() -> None:
            if verb == "apublish":
                await bus.apublish("a", -1)
            elif verb == "adeliver":
                assert 1 == (await bus.adeliver("a", -1, timeout=100)).failed
            else:
                with pytest.raises(RequestFailedError):
                    await bus.request("a", -1, timeout=100)

        def acts() -> None:
            if verb == "publish":
                bus.publish("a", -1)
            elif verb == "deliver":
                assert 1 == bus.deliver("a", -1, timeout=100).failed
            elif verb == "request":
                with pytest.raises(RequestFailedError):
                    bus.request("a", -1, timeout=100).run()
            elif verb == "result":
                assert 1 == bus.deliver("from", -1, timeout=100).handled
            else:
                asyncio.run(acts_patiently())

        with EventBus(block_timeout=100) as bus:
            bus.subscribe("from", lambda e: e.payload, to="a")

            async def main() -> None:
                one = bus.subscribe("a", hangs, loop=loop, capacity=1, name="one", **options)
                for number in range(busy + queued):
                    bus.publish("a", number)
                    while number < busy and (one._strand.mailbox.queue or one.statistics().pending <= number):
                        await asyncio.sleep(0.001)

            loop.run_until_complete(main())
            one = bus.subscriptions["one"]
            assert queued == len(one._strand.mailbox.queue)
            if closed == "before":
                loop.close()
            acting = run_in_thread(acts)
            if closed == "meanwhile":
                until(lambda: one._strand.mailbox._waiters if queued else one._strand.mailbox.queue)
                loop.close()
            join(acting)
            bus.drain(LIMIT)
            assert [-1, *range(busy + queued)] == sorted(letter.event.payload for letter in bus.dead_letters)
            assert {Reason.UNDELIVERABLE} == {letter.reason for letter in bus.dead_letters}
            assert_books_balance(bus)

    def test_what_a_closed_loop_stalled(self) -> None:
        """The first publisher who is refused for it finds out that the loop is gone."""
        loop = asyncio.new_event_loop()

        async def hangs(event: Event[int]) -> None:
            await asyncio.sleep(1000)

        with EventBus(block_timeout=0.0) as bus:

            async def main() -> None:
                bus.subscribe("a", hangs, loop=loop, capacity=1)
                bus.publish("a", 0)
                await asyncio.sleep(0.02)
                await asyncio.to_thread(bus.publish_many, "a", [1, 2])

            loop.run_until_complete(main())
            assert bus.subscriptions["hangs"]._strand.mailbox.stalled
            loop.close()
            bus.publish_many("a", [3, 4])
            assert {3: Reason.OVERFLOW} | dict.fromkeys([0, 1, 2, 4], Reason.UNDELIVERABLE) == {
                letter.event.payload: letter.reason for letter in bus.dead_letters
            }
            gc.collect()

    def test_a_run_that_never_began_before_its_loop_was_closed(self) -> None:
        """Its event is a dead letter, and Python doesn't complain of a coroutine that was never awaited."""
        loop = asyncio.new_event_loop()
        with warnings.catch_warnings(record=True) as caught, EventBus() as bus:
            warnings.simplefilter("always")

            async def main() -> None:
                bus.subscribe("a", Busy(), loop=loop)
                bus.publish("a", 0)

            loop.run_until_complete(main())
            assert executor_of(loop)._tasks
            loop.close()
            bus.drain(LIMIT)
            assert {Reason.UNDELIVERABLE} == {letter.reason for letter in bus.dead_letters}
            gc.collect()
        assert [] == [str(warning.message) for warning in caught]

    @pytest.mark.parametrize("options", [{}, {"concurrency": 3}, {"group": "g"}], ids=["one", "several", "group"])
    @pytest.mark.parametrize("ends", ["finalized", "closed"])
    @pytest.mark.parametrize("third", ["waited for", "in progress"])
    def test_letters_say_how_often_the_handler_was_begun(self, options: Any, ends: str, third: str) -> None:
        """With the event that it was at when its loop ended, waiting for another attempt or in the middle of one."""
        seen: list[int] = []
        loop = asyncio.new_event_loop()

        async def handler(event: Event[int]) -> None:
            delivery = current()
            assert delivery is not None
            seen.append(delivery.attempt)
            if delivery.attempt == 3 and third == "in progress":
                await asyncio.sleep(1000)
            raise ValueError

        with EventBus() as bus:

            async def main() -> None:
                pauses = Retry(5, backoff=1e-6, factor=1e4 if third == "waited for" else 1.0, max_backoff=100, jitter=0)
                bus.subscribe("a", handler, retry=pauses, loop=loop, **options)
                bus.publish("a", 0)
                while len(seen) < 3:
                    await asyncio.sleep(0)
                if not options.get("concurrency"):
                    bus.publish("a", 1)  # this one isn't begun
                await asyncio.sleep(0.001)

            loop.run_until_complete(main())
            if ends == "finalized":
                for task in asyncio.all_tasks(loop):
                    task.cancel()
                    loop.run_until_complete(asyncio.wait([task]))
                loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()
            bus.drain(LIMIT)
            attempts = {letter.event.payload: letter.attempts for letter in bus.dead_letters}
            assert [1, 2, 3] == seen
            assert {0: 3, **({} if options.get("concurrency") else {1: 0})} == attempts
            assert {Reason.UNDELIVERABLE} == {letter.reason for letter in bus.dead_letters}
            assert_books_balance(bus)

    def test_dispose_does_not_wait_for_a_closed_loop(self, bus: EventBus) -> None:
        """What was in progress there never ends."""
        loop = asyncio.new_event_loop()

        async def main() -> None:
            bus.subscribe("a", Busy(1000), loop=loop, name="busy")
            bus.publish("a", 0)
            await asyncio.sleep(0.02)

        loop.run_until_complete(main())
        loop.close()
        began = time.monotonic()
        bus.subscriptions["busy"].dispose(wait=100)
        assert time.monotonic() - began < LIMIT
        assert {Reason.UNDELIVERABLE} == {letter.reason for letter in bus.dead_letters}
        bus.dead_letters.discard()
        gc.collect()

    def test_a_run_that_was_called_when_the_loop_was_at_its_end(self) -> None:
        """It doesn't begin: its task would never be finished."""

        async def main() -> None:
            loop = asyncio.get_running_loop()
            bus = EventBus()
            bus.subscribe("a", Busy(0), loop=loop)
            bus.publish("a", 1)  # the run is called soon
            executor = executor_of(loop)
            executor._gone = True
            await asyncio.sleep(0)
            assert [Reason.UNDELIVERABLE] == [letter.reason for letter in bus.dead_letters]
            assert not executor._tasks
            bus.dead_letters.discard()
            await bus.aclose()

        asyncio.run(main())

    def test_what_was_begun_when_the_loop_is_at_its_end(self) -> None:
        """After all tasks were cancelled: it is cancelled, too, while there still is a moment for it to end in."""

        async def main() -> None:
            loop = asyncio.get_running_loop()
            bus = EventBus()
            busy = Busy(1000)
            bus.subscribe("a", busy, loop=loop)
            bus.publish("a", 1)
            while not busy.now:
                await asyncio.sleep(0)
            executor_of(loop)._refuse()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert [Reason.UNDELIVERABLE] == [letter.reason for letter in bus.dead_letters]
            bus.dead_letters.discard()
            await bus.aclose()

        asyncio.run(main())

    @pytest.mark.filterwarnings("error")
    def test_waits_end_with_a_loop_that_is_closed_without_a_word(self) -> None:
        """A result that waited for room there: nobody seems to wait for it any more, and nothing is said of the task."""
        gate = Gate()
        loop = asyncio.new_event_loop()
        with EventBus() as bus:
            bus.subscribe("b", gate, capacity=1)

            async def main() -> None:
                async def handler(event: Event[int]) -> int:
                    return 1

                bus.subscribe("a", handler, to="b", loop=asyncio.get_running_loop(), name="agent")
                bus.publish_many("a", range(4))
                while not bus.subscriptions["agent"]._strand.waiting_for:
                    await asyncio.sleep(0.001)

            loop.run_until_complete(main())
            loop.close()
            gate.open()
            bus.drain(LIMIT)
            assert () == bus.subscriptions["agent"]._strand.waiting_for
            del loop
            gc.collect()
            bus.dead_letters.discard()


class TestInstruments:
    """What instruments hear."""

    @pytest.mark.parametrize("options", [{}, {"concurrency": 2}], ids=["one", "several"])
    def test_the_same_as_of_functions(self, options: Any) -> None:
        """Each attempt, each outcome."""
        witness = Witness()

        async def handler(event: Event[int]) -> None:
            await asyncio.sleep(0)
            if event.payload:
                raise ValueError

        with EventBus(instruments=[witness]) as bus:
            bus.subscribe("a", handler, retry=Retry(2, backoff=0.001), **options)
            bus.deliver("a", 0, timeout=LIMIT)
            assert ["published", "offered", "handling", "handled"] == witness.names
            bus.publish("a", 1)
            bus.drain(LIMIT)
        expected = ["published", "offered", "handling", "failed", "retried", "handling", "failed", "dead_lettered"]
        assert expected == witness.names[4:]

"""The verbs of the bus for coroutines: they wait as the others do, and the loop goes on."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Self

import pytest
from reactivex import operators as ops
from reactivex.scheduler import ImmediateScheduler
from reactivex.scheduler.eventloop import AsyncIOScheduler

from rxbus import (
    REPLY,
    BusClosedError,
    BusError,
    CloseReport,
    DrainTimeoutError,
    Event,
    EventBus,
    MailboxSubject,
    PayloadTypeError,
    Retry,
    TopicNameError,
    current,
    operators,
)
from rxbus.waits import here
from tests.support import LIMIT, Gate, Recorder, assert_books_balance


class Ticks:
    """Counts how often the loop came round."""

    def __init__(self) -> None:
        self.count = 0
        self._task: asyncio.Task[None] | None = None

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(0.001)
            self.count += 1

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._tick())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()


class TestPublish:
    """`apublish` and `apublish_many`."""

    def test_like_publish(self) -> None:
        """The event, its metadata and the errors are the same."""

        async def main() -> None:
            async with EventBus() as bus:
                seen = Recorder()
                bus.subscribe("a", seen)
                topic = bus.topic("typed", int)
                event = await bus.apublish("a", 1, metadata={"user": "ada"})
                complete = Event("a", 2)
                assert complete is await bus.apublish(complete)
                assert [3, 4] == [e.payload for e in await bus.apublish_many("a", [3, 4])]
                assert [] == await bus.apublish_many("a", [])
                await bus.adrain(LIMIT)
                assert ([1, 2, 3, 4], "ada") == (seen.payloads, event.metadata["user"])
                with pytest.raises(PayloadTypeError):
                    await bus.apublish(topic, "text")  # type: ignore[call-overload]
                with pytest.raises(TopicNameError):
                    await bus.apublish("a..b", 1)
                with pytest.raises(TypeError):
                    await bus.apublish_many("a", "text")
            with pytest.raises(BusClosedError):
                await bus.apublish("a", 1)

        asyncio.run(main())

    @pytest.mark.parametrize("many", [False, True])
    def test_waits_for_room_without_holding_the_loop(self, many: bool) -> None:
        """The bound is kept: what is queued is never more than the capacity and one."""

        async def main() -> None:
            gate = Gate()
            most = 0
            async with EventBus() as bus, Ticks() as ticks:
                subscription = bus.subscribe("a", gate, capacity=2)
                publishing = asyncio.create_task(self._publish(bus, many))
                await asyncio.sleep(0.05)
                assert not publishing.done()
                assert ticks.count > 5
                assert subscription.statistics().queued <= 3
                gate.open()
                while not publishing.done():
                    most = max(most, subscription.statistics().queued)
                    await asyncio.sleep(0)
                await bus.adrain(LIMIT)
                assert list(range(50)) == gate.seen
                assert most <= 3
                assert_books_balance(bus)

        asyncio.run(main())

    async def _publish(self, bus: EventBus, many: bool) -> None:
        if many:
            await bus.apublish_many("a", range(50))
        else:
            for number in range(50):
                await bus.apublish("a", number)

    def test_beside_a_handler_of_the_same_loop(self) -> None:
        """It waits for a mailbox that only this loop can empty; `publish` there is let in over the bound instead."""

        async def main() -> None:
            seen: list[int] = []

            async def handler(event: Event[int]) -> None:
                await asyncio.sleep(0)
                seen.append(event.payload)

            async with EventBus() as bus:
                bus.subscribe("a", handler, capacity=3, loop=asyncio.get_running_loop())
                for number in range(30):
                    await bus.apublish("a", number)
                await bus.adrain(LIMIT)
                assert list(range(30)) == seen
                for number in range(10):
                    bus.publish("a", number)
                assert 4 == len(bus.dead_letters)
                await bus.adrain(LIMIT)
                assert [0, 1, 2, 3, 4, 5] == seen[30:]

        asyncio.run(main())

    def test_a_stalled_mailbox_costs_one_timeout(self) -> None:
        """After `block_timeout` it refuses, and the publisher goes on."""

        async def main() -> None:
            gate = Gate()
            async with EventBus(block_timeout=0.4) as bus:
                bus.subscribe("a", gate, capacity=1)
                began = time.monotonic()
                for number in range(20):
                    await bus.apublish("a", number)
                assert time.monotonic() - began < 5.0  # and not 17 timeouts
                assert 17 == len(bus.dead_letters)
                gate.open()

        asyncio.run(main())

    def test_cancellation_of_a_wait(self) -> None:
        """The event is in; whoever waited is gone, and others still are woken."""

        async def main() -> None:
            gate = Gate()
            async with EventBus() as bus:
                bus.subscribe("a", gate, capacity=1)
                bus.publish("a", 0)
                await asyncio.to_thread(gate.wait_until_entered)
                await bus.apublish("a", 1)
                waiting = [asyncio.create_task(bus.apublish("a", number)) for number in (2, 3)]
                await asyncio.sleep(0.02)
                waiting[0].cancel()
                gate.open()
                await asyncio.wait_for(waiting[1], LIMIT)
                await bus.adrain(LIMIT)
                assert [0, 1, 2, 3] == gate.seen
                assert waiting[0].cancelled()

        asyncio.run(main())

    def test_cancellation_inside_a_handler(self) -> None:
        """Nobody is left who seems to wait for somebody, so nothing later is refused for it."""

        async def main() -> None:
            gate = Gate()

            async def handler(event: Event[int]) -> None:
                for call in (bus.apublish("full", 1), bus.adeliver("full", 1), bus.request("full", 1)._wait()):
                    try:
                        async with asyncio.timeout(0.01):
                            await call
                    except TimeoutError:
                        pass

            async with EventBus() as bus:
                bus.subscribe("full", gate, capacity=3)
                bus.publish("full", 0)
                await asyncio.to_thread(gate.wait_until_entered)
                bus.publish_many("full", [1, 1, 1])
                asking = bus.subscribe("a", handler)
                receipt = await bus.adeliver("a", 1, timeout=LIMIT)
                assert 1 == receipt.handled
                assert () == asking._strand.waiting_for
                assert 0 == len(bus._requests)
                gate.open()
                await bus.adrain(LIMIT)

        asyncio.run(main())

    def test_inline_handlers_wait_as_ever(self) -> None:
        """What an `ImmediateScheduler` handles inside `apublish` is no part of the coroutine."""

        async def main() -> None:
            async with EventBus() as bus:
                bus.subscribe("a", lambda event: bus.deliver("b", event.payload, timeout=LIMIT), scheduler=ImmediateScheduler())
                bus.subscribe("b", lambda _: None)
                await bus.apublish("a", 1)
                assert 0 == here.depth
                assert here.patience is None
                await bus.adrain(LIMIT)
                assert 1 == bus.statistics().topics["b"].handled

        asyncio.run(main())


class TestDeliver:
    """`adeliver`."""

    def test_to_handlers_of_the_same_loop(self) -> None:
        """Functions and coroutines, this loop's among them."""

        async def main() -> None:
            async def handler(event: Event[int]) -> None:
                await asyncio.sleep(0.001)
                if event.payload:
                    raise ValueError

            async with EventBus() as bus:
                bus.subscribe("a", handler, loop=asyncio.get_running_loop())
                bus.subscribe("a", handler)
                bus.subscribe("a", Recorder())
                receipt = await bus.adeliver("a", 0, timeout=LIMIT)
                assert (3, 0) == (receipt.handled, receipt.failed)
                receipt = await bus.adeliver("a", 1)
                assert (1, 2) == (receipt.handled, receipt.failed)
                assert 0 == (await bus.adeliver("nobody", 1)).handled

        asyncio.run(main())

    def test_timeout(self) -> None:
        """It names who has it still."""

        async def main() -> None:
            gate = Gate()
            async with EventBus() as bus:
                bus.subscribe("a", gate, name="slow")
                with pytest.raises(DrainTimeoutError, match=r"was not settled in 0\.02 s by: slow"):
                    await bus.adeliver("a", 1, timeout=0.02)
                gate.open()

        asyncio.run(main())

    def test_to_itself(self) -> None:
        """From the only coroutine that could settle it, it raises instead of waiting for ever."""

        async def main() -> None:
            errors: list[str] = []

            async def handler(event: Event[int]) -> None:
                try:
                    await bus.adeliver("a", event.payload + 1)
                except BusError as error:
                    errors.append(str(error))

            async with EventBus() as bus:
                bus.subscribe("a", handler)
                assert 1 == (await bus.adeliver("a", 1, timeout=LIMIT)).handled
            assert 1 == len(errors)
            assert "would wait for itself" in errors[0]

        asyncio.run(main())

    def test_to_another_agent_of_its_loop(self) -> None:
        """A coroutine may wait for one that runs on the same loop."""

        async def main() -> None:
            handled: list[int] = []

            async def asks(event: Event[int]) -> None:
                handled.append((await bus.adeliver("b", event.payload, timeout=LIMIT)).handled)

            async def answers(event: Event[int]) -> None:
                await asyncio.sleep(0.001)

            async with EventBus() as bus:
                bus.subscribe("a", asks)
                bus.subscribe("b", answers)
                assert 1 == (await bus.adeliver("a", 1, timeout=LIMIT)).handled
            assert [1] == handled

        asyncio.run(main())


class TestDrainAndClose:
    """`adrain`, `aclose`, and `async with`."""

    def test_the_loops_own_handlers_are_waited_for(self) -> None:
        """While the loop goes on, they get on; chained events included."""

        async def main() -> None:
            seen: list[int] = []

            async def step(event: Event[int]) -> int | None:
                await asyncio.sleep(0.001)
                seen.append(event.payload)
                return event.payload + 1 if event.payload < 20 else None

            async with EventBus() as bus, Ticks() as ticks:
                bus.subscribe("a", step, to="a", loop=asyncio.get_running_loop())
                bus.publish("a", 0)
                await bus.adrain(LIMIT)
                assert list(range(21)) == seen
                assert ticks.count > 5
                bus.publish("a", 19)
            assert [19, 20] == seen[21:]

        asyncio.run(main())

    def test_more_at_once_than_the_loops_executor_has_threads(self) -> None:
        """Who drains and closes takes no thread that a handler may need in order to end."""
        executor = ThreadPoolExecutor(1)

        async def handler(event: Event[int]) -> None:
            await asyncio.sleep(0.02)
            await asyncio.to_thread(lambda: None)

        async def main() -> None:
            asyncio.get_running_loop().set_default_executor(executor)
            bus = EventBus()
            bus.subscribe("a", handler, loop=asyncio.get_running_loop())
            bus.publish_many("a", range(3))
            await asyncio.gather(bus.adrain(LIMIT), bus.adrain(LIMIT), bus.adrain(LIMIT))
            bus.publish("a", 4)
            assert CloseReport() == await bus.aclose(LIMIT)

        asyncio.run(main())

    def test_timeout_and_cancellation(self) -> None:
        """It names who is busy; cancelled, it leaves no thread behind that waits on."""

        async def main() -> None:
            gate = Gate()
            async with EventBus() as bus:
                bus.subscribe("a", gate, name="slow")
                bus.publish("a", 1)
                with pytest.raises(DrainTimeoutError, match="'slow'"):
                    await bus.adrain(0.02)
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(bus.adrain(), 0.02)
                gate.open()
                await bus.adrain(LIMIT)

        asyncio.run(main())

    def test_blocking_calls_on_the_loop_of_handlers(self) -> None:
        """`drain` raises there and says what to do; `close` comes back at once and finishes elsewhere."""

        async def main() -> None:
            busy: list[int] = []

            async def handler(event: Event[int]) -> None:
                await asyncio.sleep(0.01)
                busy.append(event.payload)

            bus = EventBus()
            bus.subscribe("a", handler, loop=asyncio.get_running_loop())
            bus.publish("a", 1)
            with pytest.raises(BusError, match=r"await adrain\(\)"):
                bus.drain()
            began = time.monotonic()
            bus.close()
            assert time.monotonic() - began < LIMIT
            await asyncio.sleep(0.05)
            assert [1] == busy

        asyncio.run(main())

    def test_from_a_coroutine_handler(self) -> None:
        """`aclose` comes back at once, `adrain` raises."""
        errors: list[str] = []
        closed = threading.Event()

        async def handler(event: Event[int]) -> None:
            try:
                await bus.adrain()
            except BusError as error:
                errors.append(str(error))
            await bus.aclose()
            closed.set()

        bus = EventBus()
        bus.subscribe("a", handler)
        bus.publish("a", 1)
        assert closed.wait(LIMIT)
        bus.close(LIMIT)
        assert ["drain of bus 'rxbus' from one of its handlers or instruments would wait for itself"] == errors

    def test_left_by_an_exception(self) -> None:
        """It closes without draining."""

        async def main() -> Any:
            async with EventBus() as bus:
                bus.subscribe("a", Gate()).pause()
                bus.publish("a", 1)
                raise ValueError

        with pytest.raises(ValueError), pytest.warns(RuntimeWarning, match="closed before all was handled"):  # noqa: PT011
            asyncio.run(main())


async def _five(_: object) -> int:
    return 5


def _wait_a_moment(_: object) -> int:
    time.sleep(0.05)
    return 1


CHAINS: dict[str, tuple[str, Any]] = {
    "request": ("", lambda bus: bus.request("q", 1)),
    "request, mapped": ("", lambda bus: bus.request("q", 1).pipe(ops.map(lambda e: e))),
    "request, retried": ("", lambda bus: bus.request("q", 1).pipe(ops.retry(3))),
    "topic": ("a", lambda bus: bus.topic("a").pipe(ops.first())),
    "observe": ("a", lambda bus: bus.observe("*").pipe(ops.first())),
    "dead letters": ("fails", lambda bus: bus.dead_letters.pipe(ops.first())),
    "mailbox": ("a", lambda bus: bus.topic("a").pipe(operators.mailbox(), ops.first())),
    "map_async": ("a", lambda bus: bus.topic("a").pipe(operators.map_async(_five), ops.first())),
}


async def gathered(coroutine: Any) -> Any:
    """Awaits it among others."""
    return (await asyncio.gather(coroutine, asyncio.sleep(0)))[0]


async def in_a_group(coroutine: Any) -> Any:
    """Awaits it as a task of a group; raises what it raises."""
    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(coroutine)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return task.result()


async def in_a_thread(coroutine: Any) -> Any:
    """Runs it on a loop of another thread, which has the context of this one."""
    return await asyncio.to_thread(asyncio.run, coroutine)


class TestTasksOfHandlers:
    """Tasks that were begun in the middle of an event."""

    @pytest.mark.parametrize(
        "wait",
        [partial(asyncio.wait_for, timeout=100), gathered, in_a_group, in_a_thread],
        ids=["wait_for", "gather", "group", "thread"],
    )
    @pytest.mark.parametrize("options", [{}, {"concurrency": 2}, {"group": "g"}, {"through": ops.map(lambda e: e)}])
    def test_what_a_handler_awaits_does_not_wait_for_the_handler(self, wait: Any, options: Any) -> None:
        """`adrain` raises, `aclose` returns at once and finishes elsewhere, as if the handler itself had called them."""
        found: list[Any] = []

        async def handler(event: Event[int]) -> None:
            await asyncio.sleep(0)
            for verb in (bus.adrain, bus.aclose):
                try:
                    found.append(await wait(verb(100)))
                except BusError as error:
                    found.append(str(error))

        bus = EventBus()
        bus.subscribe("a", handler, **options)
        bus.publish("a", 1)
        assert bus._closed.wait(LIMIT)
        refused, report = found
        assert "drain of bus 'rxbus' from one of its handlers or instruments would wait for itself" == refused
        assert CloseReport() == report
        assert not bus.dead_letters
        assert 1 == bus.statistics().topics["a"].handled

    @pytest.mark.parametrize("options", [{}, {"concurrency": 2}, {"group": "g"}])
    def test_one_that_outlives_its_handler_may_wait(self, options: Any) -> None:
        """Even for later events of the same subscription, and for another attempt at its own."""
        tasks: list[asyncio.Task[None]] = []
        ended = threading.Event()

        async def waits(gate: asyncio.Event) -> None:
            await gate.wait()
            await bus.adrain(LIMIT)
            ended.set()

        async def handler(event: Event[int]) -> None:
            delivery = current()
            assert delivery is not None
            if event.payload == 1:
                await asyncio.sleep(0.02)
                assert not ended.is_set()
            elif delivery.attempt == 1:
                gate = asyncio.Event()
                tasks.append(asyncio.create_task(waits(gate)))
                asyncio.get_running_loop().call_later(0.005, gate.set)
                raise ValueError
            else:
                await asyncio.sleep(0.02)
                assert not ended.is_set()

        with EventBus() as bus:
            bus.subscribe("a", handler, retry=Retry(2, backoff=1e-6), **options)
            bus.publish_many("a", [0, 1])
            assert ended.wait(LIMIT)
            assert not bus.dead_letters
            assert 2 == bus.statistics().topics["a"].handled

    def test_what_only_has_the_context_of_an_event_may_wait(self, bus: EventBus) -> None:
        """The subscriber of a subject that stands alone runs by itself: nobody who published to it awaits it."""
        subject: MailboxSubject[int] = MailboxSubject()
        drained, errors = threading.Event(), list[BaseException]()

        def drains(_: int) -> None:
            try:
                bus.drain(LIMIT)
                drained.set()
            except BaseException as error:
                errors.append(error)

        subject.subscribe(drains)

        def handler(event: Event[int]) -> None:
            subject.on_next(1)
            time.sleep(0.02)
            assert not drained.is_set()

        bus.subscribe("a", handler)
        bus.publish("a", 1)
        assert drained.wait(LIMIT), errors
        subject.dispose()


class TestAwaitedChains:
    """RxPY lets a coroutine await any observable, and hands the scheduler of its loop upstream."""

    @pytest.mark.parametrize("chain", CHAINS)
    def test_wakes_an_idle_loop(self, chain: str) -> None:
        """The last value comes on the loop that waits for it, at once, though somebody else publishes."""
        published, make = CHAINS[chain]

        async def main() -> None:
            async with EventBus() as bus:
                bus.subscribe("q", _wait_a_moment, to=REPLY)
                bus.subscribe("fails", lambda e: 1 / 0)
                if published:
                    threading.Timer(0.05, bus.publish, (published, 1)).start()
                began = time.monotonic()
                await asyncio.wait_for(_awaited(make(bus)), LIMIT)
                assert time.monotonic() - began < LIMIT / 2
                bus.dead_letters.discard()

        asyncio.run(main(), debug=True)  # in which a loop refuses calls of other threads that wouldn't wake it

    def test_of_a_subject_that_stands_alone(self) -> None:
        """It is no other."""

        async def main() -> None:
            subject = MailboxSubject[int]()
            threading.Timer(0.05, subject.on_next, (1,)).start()
            assert 1 == await asyncio.wait_for(_awaited(subject.pipe(ops.first())), LIMIT)

        asyncio.run(main(), debug=True)

    def test_the_scheduler_of_a_loop_for_a_whole_bus(self) -> None:
        """Handlers run on that loop, whoever publishes."""

        async def main() -> None:
            loop = asyncio.get_running_loop()
            threads: list[int] = []
            done = asyncio.Event()

            def handler(event: Event[int]) -> None:
                threads.append(threading.get_ident())
                if event.payload == 99:
                    done.set()

            async with EventBus(scheduler=AsyncIOScheduler(loop)) as bus:
                bus.subscribe("a", handler)
                await asyncio.to_thread(bus.publish_many, "a", range(100))
                await asyncio.wait_for(done.wait(), LIMIT)
                assert [threading.get_ident()] * 100 == threads

        asyncio.run(main(), debug=True)


async def _awaited(observable: Any) -> Any:
    return await observable

"""`async for event in bus.events(...)`."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from rxbus import BusClosedError, EventBus, Overflow, TopicNameError
from tests.support import LIMIT, assert_books_balance, join, run_in_thread


def run(main: Any) -> Any:
    """Runs a coroutine function, and fails if it doesn't end."""
    return asyncio.run(asyncio.wait_for(main(), LIMIT))


async def take(stream: Any, count: int) -> list[Any]:
    """The payloads of the next events."""
    return [(await anext(stream)).payload for _ in range(count)]


class TestStream:
    """What it gives, and when."""

    def test_from_the_call_on(self) -> None:
        """Not from before, and not only from the first time that somebody asks."""

        async def main() -> None:
            async with EventBus() as bus:
                bus.publish("user.a", 0)
                stream = bus.events("user.*")
                bus.publish_many("user.a", [1, 2])
                bus.publish("user.b", 3)
                assert [1, 2, 3] == await take(stream, 3)
                await stream.aclose()

        run(main)

    def test_wakes_for_a_publish_of_another_thread(self) -> None:
        """And keeps the order."""

        async def main() -> None:
            async with EventBus() as bus:
                stream = bus.events("a")
                thread = run_in_thread(lambda: [bus.publish("a", n) for n in range(500)])
                assert list(range(500)) == await take(stream, 500)
                join(thread)
                await stream.aclose()

        run(main)

    def test_ends_with_the_bus(self) -> None:
        """What is left is still given; then the loop ends."""

        async def main() -> list[int]:
            bus = EventBus()
            seen: list[int] = []

            async def consume() -> None:
                async for event in bus.events("a"):
                    await asyncio.sleep(0.001)
                    seen.append(event.payload)

            task = asyncio.create_task(consume())
            await asyncio.sleep(0)
            bus.publish_many("a", range(10))
            await bus.aclose()
            await task
            assert_books_balance(bus)
            return seen

        assert list(range(10)) == run(main)

    def test_ends_with_its_topic(self) -> None:
        """`forget` ends it after what is queued."""

        async def main() -> list[int]:
            async with EventBus() as bus:
                stream = bus.events("a")
                bus.publish_many("a", range(3))
                bus.forget("a")
                return [event.payload async for event in stream]

        assert [0, 1, 2] == run(main)


class TestBackPressure:
    """What nobody asks for."""

    def test_holds_publishers_back(self) -> None:
        """It stays in the mailbox; a coroutine that publishes waits for room, and so does a thread."""

        async def main() -> None:
            async with EventBus() as bus:
                stream = bus.events("a", capacity=2)
                (subscription,) = bus.subscriptions.values()
                publishing = asyncio.create_task(bus.apublish_many("a", range(10)))
                await asyncio.sleep(0.02)
                assert not publishing.done()
                assert subscription.statistics().queued <= 3
                assert list(range(10)) == await take(stream, 10)
                await publishing
                await stream.aclose()

        run(main)

    def test_drops_by_policy(self) -> None:
        """The newest are kept."""

        async def main() -> None:
            async with EventBus() as bus:
                stream = bus.events("a", capacity=2, overflow=Overflow.DROP_OLDEST)
                bus.publish_many("a", range(10))
                assert [8, 9] == await take(stream, 2)
                await stream.aclose()
                assert_books_balance(bus)

        run(main)


class TestEnd:
    """Cancellation, and letting go."""

    def test_a_cancelled_wait_loses_nothing(self) -> None:
        """The next one who asks gets what came."""

        async def main() -> None:
            async with EventBus() as bus:
                stream = bus.events("a")
                got: list[int] = []
                thread = run_in_thread(lambda: [bus.publish("a", n) for n in range(300)])
                while len(got) < 300:
                    try:
                        got.append((await asyncio.wait_for(anext(stream), 0.0002)).payload)
                    except TimeoutError:
                        pass
                join(thread)
                assert list(range(300)) == got
                await stream.aclose()
                assert_books_balance(bus)

        run(main)

    def test_closed_it_drops_what_is_left(self) -> None:
        """Counted; and it ends for whoever asks again."""

        async def main() -> None:
            async with EventBus() as bus:
                async with bus.events("a") as stream:
                    bus.publish_many("a", range(5))
                    assert [0] == await take(stream, 1)
                (one,) = bus.statistics().subscriptions.values()
                assert (5, 1, 4) == (one.offered, one.handled, one.dropped)
                await asyncio.sleep(0)
                assert [] == [event async for event in stream]
                assert {} == bus.subscriptions

        run(main)

    def test_let_go_of_it_ends(self) -> None:
        """After a `break` nobody has the stream any more, and its subscription is disposed of."""

        async def main() -> None:
            async with EventBus() as bus:
                bus.topic("a")

                async def first() -> Any:
                    async for event in bus.events("a"):
                        return event.payload
                    return None

                task = asyncio.create_task(first())
                await asyncio.sleep(0)
                bus.publish_many("a", [1, 2])
                assert 1 == await task
                del task
                for _ in range(100):
                    gc.collect()
                    await asyncio.sleep(0.001)
                    if not bus.subscriptions:
                        break
                assert {} == bus.subscriptions

        run(main)

    def test_a_cancelled_consumer(self) -> None:
        """Its task ends at once, and the bus closes without waiting for it."""

        async def main() -> None:
            async with EventBus() as bus:

                async def consume() -> None:
                    async with bus.events("a") as stream:
                        async for _ in stream:
                            pass

                task = asyncio.create_task(consume())
                await asyncio.sleep(0.01)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert {} == bus.subscriptions

        run(main)


class TestBadInput:
    """At the call."""

    def test_where_and_what(self) -> None:
        """Outside of a coroutine, with a bad pattern or bound, on a closed bus, and two who ask at once."""
        bus = EventBus()
        with pytest.raises(RuntimeError, match="there is no running event loop here"):
            bus.events("a")

        async def main() -> None:
            with pytest.raises(TopicNameError):
                bus.events("a..b")
            with pytest.raises(ValueError, match="capacity"):
                bus.events("a", capacity=0)
            stream = bus.events("a")
            first = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="somebody else waits"):
                await anext(stream)
            bus.publish("a", 1)
            assert 1 == (await first).payload
            await bus.aclose()
            with pytest.raises(BusClosedError):
                bus.events("a")

        run(main)

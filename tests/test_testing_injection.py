"""Faults on purpose."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import reactivex
from reactivex import operators as ops

from rxbus import Breaker, Event, EventBus, Reason, Retry, operators
from rxbus.testing import VirtualBus, faults
from tests.support import LIMIT, Recorder, assert_books_balance, until


@pytest.fixture(params=["threads", "virtual"])
def either(request: pytest.FixtureRequest) -> Iterator[EventBus]:
    """Both kinds of bus."""
    made = EventBus(close_timeout=2.0) if request.param == "threads" else VirtualBus()
    yield made
    made.close(drain=False)


@pytest.fixture
def virtual() -> Iterator[VirtualBus]:
    """A virtual bus."""
    made = VirtualBus()
    yield made
    made.close(drain=False)


KINDS = ["function", "coroutine", "through", "concurrency", "coroutines", "generator", "observer"]


def subscribe(bus: EventBus, kind: str, seen: list[Any], **options: Any) -> None:
    """A subscription of that kind, called ``x``, which keeps the payloads."""

    def function(event: Any) -> None:
        seen.append(event.payload)

    async def coroutine(event: Any) -> None:
        await asyncio.sleep(0)
        seen.append(event.payload)

    def generator(event: Any) -> Iterator[int]:
        seen.append(event.payload)
        yield 1

    given: dict[str, Any] = {"name": "x", **options}
    if kind == "through":
        given["through"] = ops.filter(lambda event: True)
    if kind in {"concurrency", "coroutines"}:
        given["concurrency"] = 3
    handlers: dict[str, Any] = {"coroutine": coroutine, "coroutines": coroutine, "generator": generator}
    handler = handlers.get(kind, function)
    if kind == "observer":
        handler = reactivex.Observer(function)
    bus.subscribe("a", handler, **given)


def fails(event: Any) -> None:
    """Isn't to be reached."""
    raise AssertionError("the handler was called")


class TestFail:
    """A handler that fails at the event that the test chooses."""

    @pytest.mark.parametrize("kind", KINDS)
    def test_the_nth_event(self, either: EventBus, kind: str) -> None:
        """That one alone becomes a dead letter, whatever the handler is; after the block all is as before."""
        seen: list[Any] = []
        error = ValueError("on purpose")
        subscribe(either, kind, seen)
        either.publish("a", 0)
        either.drain(LIMIT)
        with faults(either).fail("x", nth=2, error=error) as fault:
            either.publish_many("a", [1, 2, 3])
            either.drain(LIMIT)
        either.publish("a", 4)
        either.drain(LIMIT)
        assert [0, 1, 3, 4] == sorted(seen)
        assert [error] == [letter.error for letter in either.dead_letters]
        assert 1 == fault.hits
        assert [letter.event for letter in either.dead_letters] == fault.events
        assert_books_balance(either)

    @pytest.mark.parametrize("kind", KINDS)
    def test_an_attempt(self, either: EventBus, kind: str) -> None:
        """Only the first attempts fail, and the retry goes well."""
        seen: list[Any] = []
        subscribe(either, kind, seen, retry=Retry(3, backoff=0.01))
        with faults(either).fail("x", attempts=2) as fault:
            either.publish_many("a", [1, 2])
            either.drain(LIMIT)
        assert [1, 2] == sorted(seen)
        assert 0 == len(either.dead_letters)
        assert 4 == fault.hits
        assert 4 == either.statistics().subscriptions["x"].retried

    def test_every_event_trips_a_breaker(self, virtual: VirtualBus) -> None:
        """All that stands around the handler meets the fault as it would meet a real one."""
        seen: list[Any] = []
        subscribe(virtual, "function", seen, breaker=Breaker(2, pause=30))
        with faults(virtual).fail("x", error=ConnectionError):
            virtual.publish_many("a", [1, 2, 3])
            virtual.advance(10)
            assert 2 == len(virtual.dead_letters)
        virtual.drain()
        assert [3] == seen
        assert 30.0 == virtual.scheduler.clock

    def test_several_faults(self, virtual: VirtualBus) -> None:
        """Each at its event; they may be left in any order."""
        seen: list[Any] = []
        subscribe(virtual, "function", seen)
        first, second = faults(virtual).fail("x", nth=1), faults(virtual).fail("x", nth=2, error=KeyError("k"))
        with first, second:
            virtual.publish_many("a", [1, 2, 3])
            virtual.drain()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        virtual.publish_many("a", [4, 5])
        virtual.drain()
        second.__exit__(None, None, None)
        virtual.publish("a", 6)
        virtual.drain()
        assert [3, 4, 6] == seen
        assert ["RuntimeError", "KeyError", "KeyError"] == [type(letter.error).__name__ for letter in virtual.dead_letters]

    @pytest.mark.parametrize("kind", KINDS)
    def test_an_event_that_comes_again(self, either: EventBus, kind: str) -> None:
        """Replayed or published once more, it is another event to be struck at."""
        seen: list[Any] = []
        subscribe(either, kind, seen)
        with faults(either).fail("x") as fault:
            event = either.publish("a", 1)
            either.drain(LIMIT)
            either.dead_letters.replay()
            either.drain(LIMIT)
            either.publish("a", event)
            either.drain(LIMIT)
        assert [] == seen
        assert 3 == fault.hits
        assert [event] * 3 == fault.events
        assert 2 == len(either.dead_letters)

    @pytest.mark.parametrize("concurrency", [1, 3])
    @pytest.mark.parametrize(
        "through",
        [ops.delay(0.01), reactivex.compose(ops.buffer_with_time(0.01), ops.filter(bool)), operators.mailbox()],
        ids=["delay", "buffer", "mailbox"],
    )
    def test_what_timers_and_mailboxes_emit(self, either: EventBus, through: Any, concurrency: int) -> None:
        """Such values are struck at, too; each of them counts as one."""
        seen: list[Any] = []
        either.subscribe("a", seen.append, through=through, name="x", concurrency=concurrency)
        with faults(either).fail("x", nth=2) as fault:
            for n in (1, 2, 3):
                either.publish("a", n)
                if isinstance(either, VirtualBus):
                    either.advance(0.02)
                else:
                    until(lambda n=n: len(seen) + fault.hits == n)
        assert 2 == len(seen)
        assert 1 == fault.hits

    @pytest.mark.parametrize("concurrency", [1, 3])
    @pytest.mark.parametrize("through", [ops.delay(1), operators.mailbox()], ids=["delay", "mailbox"])
    def test_several_values_of_one_timer(self, virtual: VirtualBus, through: Any, concurrency: int) -> None:
        """Each is struck at."""
        virtual.subscribe("a", fails, through=through, name="x", concurrency=concurrency)
        with faults(virtual).fail("x") as fault:
            sent = virtual.publish_many("a", [1, 2, 3])
            virtual.advance(5)
        assert 3 == fault.hits
        assert list(sent) == fault.events

    def test_state_of_a_pipeline_survives(self, either: EventBus) -> None:
        """It is the handler that fails, and not an operator."""
        seen: list[Any] = []
        through = reactivex.compose(operators.payload(), ops.scan(lambda total, n: total + n, 0))
        either.subscribe("a", seen.append, through=through, name="x")
        with faults(either).fail("x", nth=2):
            either.publish_many("a", [1, 2, 3])
            either.drain(LIMIT)
        assert [1, 6] == seen


class TestDelay:
    """A handler that is slow."""

    @pytest.mark.parametrize("kind", KINDS)
    def test_takes_longer(self, virtual: VirtualBus, kind: str) -> None:
        """So much longer, at that event, in order but where several go on at a time."""
        seen: list[Any] = []
        subscribe(virtual, kind, seen)
        with faults(virtual).delay("x", 5, nth=1) as fault:
            virtual.publish_many("a", [1, 2])
            virtual.advance(4.9)
            assert ([2] if kind in {"concurrency", "coroutines"} else []) == seen
            virtual.drain()
        assert [1, 2] == sorted(seen)
        assert 5.0 == virtual.scheduler.clock
        assert 1 == fault.hits

    def test_the_same_event_twice_at_a_time(self, virtual: VirtualBus) -> None:
        """Each time it is held up once."""
        seen: list[Any] = []
        subscribe(virtual, "concurrency", seen)
        event = Event("a", 1)
        with faults(virtual).delay("x", 10) as fault:
            virtual.publish("a", event)
            virtual.publish("a", event)
            virtual.drain(60)
        assert [1, 1] == seen
        assert 2 == fault.hits
        assert 10.0 == virtual.scheduler.clock

    @pytest.mark.parametrize("concurrency", [1, 3])
    def test_what_timers_emit(self, virtual: VirtualBus, concurrency: int) -> None:
        """Such a value comes later, struck at once; the next one isn't held up by it."""
        seen: list[Any] = []

        def note(event: Any) -> None:
            seen.append((event.payload, round(virtual.scheduler.clock, 3)))

        virtual.subscribe("a", note, through=ops.delay(1), name="x", concurrency=concurrency)
        with faults(virtual).delay("x", 10, nth=1) as fault:
            virtual.publish_many("a", [1, 2])
            virtual.advance(20)
        assert [(2, 1.0), (1, 11.0)] == seen
        assert 1 == fault.hits
        seen.clear()
        with faults(virtual).hang("x"):
            virtual.publish("a", 3)
            virtual.advance(5)
            assert [] == seen
        virtual.advance(0)
        assert [(3, 25.0)] == seen

    def test_two_at_a_time(self, virtual: VirtualBus) -> None:
        """Slow handlers of two subscriptions don't add up, nor do those of one with several hands."""
        seen: list[Any] = []
        subscribe(virtual, "concurrency", seen)
        virtual.subscribe("a", lambda event: seen.append("y"), name="y")
        with faults(virtual).delay("x", 5), faults(virtual).delay("y", 8, nth=1):
            virtual.publish_many("a", [1, 2, 3])
            virtual.drain()
        assert 8.0 == virtual.scheduler.clock

    def test_and_then_fails(self, virtual: VirtualBus) -> None:
        """A pipeline's handler that was delayed may fail: that is retried, and the pipeline keeps its state."""
        seen: list[Any] = []
        through = reactivex.compose(operators.payload(), ops.scan(lambda total, n: total + n, 0))
        virtual.subscribe("a", seen.append, through=through, name="x", retry=Retry(2, backoff=1))
        with faults(virtual).delay("x", 5, nth=1), faults(virtual).fail("x", nth=2, attempts=1), faults(virtual).fail("x", nth=3):
            virtual.publish_many("a", [1, 2, 3, 4])
            virtual.drain()
        assert [1, 3, 10] == seen
        assert [7.0] == [letter.time for letter in virtual.dead_letters]

    def test_and_then_fails_itself(self, either: EventBus) -> None:
        """It is the handler that failed then, too, and the state of the pipeline isn't lost."""
        seen: list[Any] = []
        through = reactivex.compose(operators.payload(), ops.scan(lambda total, n: total + n, 0))
        either.subscribe("a", seen.append, through=through, name="x")
        with faults(either).delay("x", 0.02, nth=2) as delay, faults(either).fail("x", nth=2) as failure:
            either.publish_many("a", [1, 2, 3])
            either.drain(LIMIT)
        assert [1, 6] == seen
        assert 1 == delay.hits == failure.hits

    def test_on_real_threads(self, bus: EventBus) -> None:
        """It takes real time, and the neighbour isn't held up."""
        seen, other = Recorder(), Recorder()
        bus.subscribe("a", seen, name="x")
        bus.subscribe("a", other)
        with faults(bus).delay("x", 30) as fault:
            bus.publish("a", 1)
            fault.wait_until_hit(LIMIT)
            assert [] == seen.payloads
        bus.drain(LIMIT)  # leaving the block lets it go on
        assert [1] == seen.payloads
        assert [1] == other.payloads

    def test_runs_into_its_timeout(self, either: EventBus) -> None:
        """A coroutine that is too slow is cancelled."""

        async def handler(event: Any) -> None:
            pass

        either.subscribe("a", handler, name="x", timeout=0.05)
        with faults(either).delay("x", 30):
            either.publish("a", 1)
            either.drain(LIMIT)
        assert [Reason.TIMEOUT] == [letter.reason for letter in either.dead_letters]


class TestHang:
    """A handler that doesn't come back."""

    @pytest.mark.parametrize("kind", KINDS)
    def test_until_it_is_released(self, either: EventBus, kind: str) -> None:
        """It is counted as pending; then it goes on as if nothing had been."""
        seen: list[Any] = []
        subscribe(either, kind, seen)
        with faults(either).hang("x", nth=1) as fault:
            either.publish_many("a", [1, 2])
            fault.wait_until_hit(LIMIT)
            with pytest.raises(TimeoutError):
                either.drain(0.05)
            assert 1 not in seen
            fault.release()
            either.drain(LIMIT)
        assert [1, 2] == sorted(seen)
        assert_books_balance(either)

    def test_drain_in_vain(self, virtual: VirtualBus) -> None:
        """Under virtual time nothing is scheduled for it, and that is said."""
        subscribe(virtual, "function", [])
        with faults(virtual).hang("x"):
            virtual.publish("a", 1)
            with pytest.raises(TimeoutError, match="nothing more is scheduled, and still busy: 'x'"):
                virtual.drain()
            assert 0.0 == virtual.scheduler.clock
        virtual.drain()

    def test_the_report_of_a_close(self) -> None:
        """It names who hangs."""
        bus = EventBus(close_timeout=0.05)
        subscribe(bus, "function", [])
        with faults(bus).hang("x") as fault:
            bus.publish("a", 1)
            fault.wait_until_hit(LIMIT)
            assert ("x",) == bus.close().stuck

    def test_wait_in_vain(self, either: EventBus) -> None:
        """A fault that never strikes is told of."""
        subscribe(either, "function", [])
        with faults(either).hang("x") as fault, pytest.raises(TimeoutError, match=r"subscription 'x': expected it to strike within 0.01 s"):
            fault.wait_until_hit(0.01)

    def test_no_thread_is_left(self, bus: EventBus) -> None:
        """Those whom it held go on when the block is left, however that happens."""
        subscribe(bus, "function", [])
        entered = threading.Event()
        with pytest.raises(KeyError), faults(bus).hang("x") as fault:
            bus.publish("a", 1)
            fault.wait_until_hit(LIMIT)
            entered.set()
            raise KeyError
        bus.drain(LIMIT)
        assert entered.is_set()


class TestBadInput:
    """At the call."""

    def test_subscriptions(self, bus: EventBus) -> None:
        """A living one of this bus, by name or itself; the message says which there are."""
        subscribe(bus, "function", [])
        subscribe(other := EventBus("other"), "function", [])
        with pytest.raises(ValueError, match="got 'y'; there is 'x'"):
            faults(bus).fail("y")
        with pytest.raises(TypeError, match="subscription must be a str, got 5"):
            faults(bus).hang(5)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="subscription must not be blank"):
            faults(bus).hang("")
        with pytest.raises(ValueError, match="belongs to another bus"):
            faults(bus).delay(other.subscriptions["x"], 1)
        assert 0 == faults(bus).fail(bus.subscriptions["x"]).hits
        other.close()

    def test_arguments(self, bus: EventBus) -> None:
        """Numbers, seconds, errors and the bus itself."""
        subscribe(bus, "function", [])
        with pytest.raises(TypeError, match="bus must be an EventBus, got 5"):
            faults(5)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="nth must be at least 1, got 0"):
            faults(bus).fail("x", nth=0)
        with pytest.raises(TypeError, match="attempts must be an int"):
            faults(bus).fail("x", attempts="1")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="seconds must be finite and at least 0, got -1"):
            faults(bus).delay("x", -1)
        for wrong in ("x", int):
            with pytest.raises(TypeError, match="error must be an exception"):
                faults(bus).fail("x", error=wrong)  # type: ignore[arg-type]

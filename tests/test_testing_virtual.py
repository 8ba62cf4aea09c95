"""A bus on virtual time."""

from __future__ import annotations

import asyncio
import gc
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import reactivex
from reactivex import operators as ops
from reactivex.internal.exceptions import SequenceContainsNoElementsError
from reactivex.scheduler import CurrentThreadScheduler, ImmediateScheduler, ThreadPoolScheduler
from reactivex.testing import TestScheduler

from rxbus import (
    REPLY,
    Breaker,
    BusClosedError,
    BusError,
    CloseReport,
    DrainTimeoutError,
    Event,
    EventBus,
    NoRespondersError,
    Overflow,
    PayloadTypeError,
    Reason,
    RequestFailedError,
    RequestTimeoutError,
    Retry,
    TopicNameError,
    WorkerPool,
    current,
    operators,
)
from rxbus.testing import VirtualBus, faults, from_marbles, record
from tests.support import LIMIT, Recorder, Witness, assert_books_balance, join, run_in_thread


@pytest.fixture
def bus() -> Iterator[VirtualBus]:
    """A virtual bus; whatever the test did, it was done without a thread."""
    before = set(threading.enumerate())
    made = VirtualBus()
    yield made
    made.close(drain=False)
    assert set() == set(threading.enumerate()) - before


class Log:
    """Takes down when things happened."""

    def __init__(self, bus: VirtualBus) -> None:
        self.lines: list[tuple[Any, ...]] = []
        self._bus = bus

    def __call__(self, *what: Any) -> None:
        self.lines.append((self._bus.scheduler.clock, *what))


@pytest.fixture
def log(bus: VirtualBus) -> Log:
    """A log by the clock of the bus."""
    return Log(bus)


async def take_all(events: AsyncIterator[Event[int]], taken: list[int]) -> None:
    """Until the stream ends."""
    async for event in events:
        taken.append(event.payload)  # noqa: PERF401 - what was taken before it ends is looked at


CHAINS: dict[str, Callable[[Any], Any]] = {
    "plain": lambda request: request,
    "retried": lambda request: request.pipe(ops.retry(2)),
    "mapped": lambda request: request.pipe(ops.map(lambda e: e)),
}


def fails(event: Any) -> None:
    """Handles nothing."""
    raise ValueError("no")


class TestTime:
    """It passes when it is told to."""

    def test_nothing_happens_before_it_passes(self, bus: VirtualBus) -> None:
        """A publish only puts the event before the subscriptions; what is due now is handled when 0 seconds have passed."""
        seen = Recorder()
        bus.subscribe("a", seen)
        bus.publish("a", 1)
        assert [] == seen.payloads
        bus.advance(0)
        assert [1] == seen.payloads

    def test_the_clock_of_events(self, bus: VirtualBus) -> None:
        """It begins at 0, and an event's time is its."""
        assert 0.0 == bus.publish("a", 1).time
        bus.advance(2.5)
        assert 2.5 == bus.publish("a", 1).time
        assert 2.5 == bus.scheduler.clock
        assert timedelta(seconds=2.5) == bus.scheduler.now - VirtualBus().scheduler.now

    def test_tenths_add_up(self, bus: VirtualBus) -> None:
        """Ten times 0.1 s is a second, not nearly one."""
        for _ in range(10):
            bus.advance(0.1)
        assert 1.0 == bus.scheduler.clock

    def test_events_made_by_handlers(self, bus: VirtualBus) -> None:
        """Those of `derive` and `Event` too are of this time."""
        made: list[Event[Any]] = []
        bus.subscribe("a", lambda event: made.extend([event.derive("b", 1), Event("c", 1)]))
        bus.advance(5)
        bus.publish("a", 1)
        bus.advance(1)
        assert [5.0, 5.0] == [event.time for event in made]
        assert all(event.id.startswith("virtual-") for event in made)

    def test_a_complete_event_goes_as_it_is(self, bus: VirtualBus) -> None:
        """Its id and time are its own."""
        event = Event("a", 1, time=77.0)
        before = event.id
        assert event is bus.publish(event)
        assert (before, 77.0) == (event.id, event.time)

    def test_dead_letters(self, bus: VirtualBus) -> None:
        """Their time is this time."""
        bus.subscribe("a", fails)
        bus.advance(3)
        bus.publish("a", 1)
        bus.advance(1)
        assert [3.0] == [letter.time for letter in bus.dead_letters]

    def test_statistics(self, bus: VirtualBus) -> None:
        """Waiting and handling are measured in virtual seconds."""

        async def slow(event: Any) -> None:
            await asyncio.sleep(60)

        bus.subscribe("a", slow, name="slow")
        bus.publish_many("a", [1, 2])
        bus.drain()
        one = bus.statistics().subscriptions["slow"]
        assert 120.0 == one.handling_time
        assert 60.0 == one.waiting_time
        bus.subscribe("b", slow, name="several", concurrency=2)
        bus.publish_many("b", [1, 2, 3])
        bus.drain()
        assert 60.0 == bus.statistics().subscriptions["several"].waiting_time

    def test_instruments(self) -> None:
        """They hear of virtual seconds, and of ids that are the same in each run."""

        def run() -> list[Any]:
            witness = Witness()
            with VirtualBus(instruments=[witness]) as bus:

                async def slow(event: Any) -> None:
                    await asyncio.sleep(60)

                bus.subscribe("a", slow)
                bus.publish("a", 1)
                bus.drain()
            return [(call[0], call[1].id, call[-1]) for call in witness.of("published", "handled")]

        assert run() == run()
        assert ("handled", "virtual-1", 60.0) == run()[-1]

    @pytest.mark.parametrize(
        ("seconds", "kind"), [(-1, ValueError), (float("nan"), ValueError), (float("inf"), ValueError), ("1", TypeError), (None, TypeError)]
    )
    def test_bad_seconds(self, bus: VirtualBus, seconds: Any, kind: type[Exception]) -> None:
        """A number of seconds is expected, and time doesn't pass."""
        with pytest.raises(kind, match=r"^seconds must be"):
            bus.advance(seconds)
        assert 0.0 == bus.scheduler.clock

    def test_from_a_handler(self, bus: VirtualBus) -> None:
        """A handler can't make time pass."""
        errors: list[BaseException] = []

        def handler(event: Any) -> None:
            for call in (lambda: bus.advance(1), bus.drain, lambda: bus.run(asyncio.sleep(1))):
                with pytest.raises(BusError) as raised:
                    call()
                errors.append(raised.value)

        bus.subscribe("a", handler)
        bus.publish("a", 1)
        bus.advance(1)
        assert 3 == len(errors)
        assert 1.0 == bus.scheduler.clock

    def test_time_that_stands_still(self, bus: VirtualBus, monkeypatch: pytest.MonkeyPatch) -> None:
        """Agents that feed each other without an end are found out."""
        monkeypatch.setattr("rxbus.testing.clock.STEPS_OF_AN_INSTANT", 500)
        bus.subscribe("a", lambda event: 1, to="b")
        bus.subscribe("b", lambda event: 1, to="a")
        bus.publish("a", 1)
        with pytest.raises(BusError, match=r"time stands still at 0 s: .*agents feed each other"):
            bus.advance(1)

    @pytest.mark.parametrize("kind", ["function", "coroutine", "the same event"])
    def test_an_agent_that_feeds_itself(self, bus: VirtualBus, kind: str) -> None:
        """It is found out, too, though its events are handled many in one step."""

        async def coroutine(event: Any) -> int:
            return 1

        def same(event: Any) -> None:
            bus.publish("a", event)

        if kind == "the same event":
            subscription = bus.subscribe("a", same)
        else:
            subscription = bus.subscribe("a", (lambda event: 1) if kind == "function" else coroutine, to="a")
        bus.publish("a", 0)
        with pytest.raises(BusError, match="time stands still at 0 s"):
            bus.drain()
        assert 150_000 > subscription.statistics().offered

    def test_a_long_story_of_one_instant(self, bus: VirtualBus) -> None:
        """A hundred thousand hops that do end are no circle."""
        countdown = bus.subscribe("a", lambda event: event.payload - 1 if event.payload else None, to="a")
        bus.publish("a", 100_000)
        bus.drain()
        assert 100_001 == countdown.statistics().handled

    def test_published_by_another_thread(self, bus: VirtualBus) -> None:
        """It is handled on the thread that lets time pass."""
        threads: list[threading.Thread] = []
        bus.subscribe("a", lambda event: threads.append(threading.current_thread()))
        join(run_in_thread(bus.publish, "a", 1))
        bus.drain()
        assert [threading.current_thread()] == threads

    def test_two_threads_that_let_time_pass(self, bus: VirtualBus) -> None:
        """One does it at a time: coroutines and handlers never run on both."""
        inside: list[int] = []
        most: list[int] = []

        async def handler(event: Any) -> None:
            for _ in range(20):
                inside.append(1)
                most.append(len(inside))
                inside.pop()
                await asyncio.sleep(1)

        for topic in ("a", "b"):
            bus.subscribe(topic, handler)
        threads = [run_in_thread(bus.deliver, topic, 1) for topic in ("a", "b")]
        join(*threads)
        assert {1} == set(most)
        assert 80 == 2 * len(most)

    def test_an_interrupt(self, bus: VirtualBus, monkeypatch: pytest.MonkeyPatch) -> None:
        """Ctrl-C in the middle of a run comes out of it, and the bus goes on with the same event."""
        seen = Recorder()
        subscription = bus.subscribe("a", seen)

        def interrupted(*_: Any) -> None:
            monkeypatch.undo()
            raise KeyboardInterrupt

        monkeypatch.setattr(type(subscription), "_process", interrupted)
        bus.publish_many("a", [1, 2])
        with pytest.raises(KeyboardInterrupt):
            bus.advance(1)
        bus.drain()
        assert [1, 2] == seen.payloads
        assert_books_balance(bus)


class TestScheduler:
    """It is an RxPY scheduler."""

    def test_operators_outside_of_the_bus(self, bus: VirtualBus) -> None:
        """Whatever takes a scheduler takes its time from it."""
        recording = record(reactivex.interval(0.2).pipe(ops.take(3)), scheduler=bus.scheduler)
        bus.advance(1)
        assert "--0-1-(2|)" == recording.marbles()

    def test_its_own_verbs(self, bus: VirtualBus, log: Log) -> None:
        """RxPY's names for letting time pass work."""
        scheduler = bus.scheduler
        scheduler.schedule_absolute(scheduler.now + timedelta(seconds=2), lambda *_: log("absolute"))
        scheduler.schedule_relative(timedelta(seconds=1), lambda *_: log("relative"))
        scheduler.schedule(lambda *_: log("now"))
        cancelled = scheduler.schedule_relative(1.0, lambda *_: log("never"))
        cancelled.dispose()
        scheduler.advance_by(1)
        scheduler.advance_to(1.5)
        scheduler.start()
        scheduler.sleep(1)
        assert [(0.0, "now"), (1.0, "relative"), (2.0, "absolute")] == log.lines
        assert 3.0 == scheduler.clock
        with pytest.raises(ValueError, match="time must be at least the present"):
            scheduler.advance_to(1)

    def test_more_than_a_hundred_steps_at_one_instant(self, bus: VirtualBus) -> None:
        """The clock doesn't move by itself, as RxPY's does then."""
        seen: list[float] = []
        for _ in range(500):
            bus.scheduler.schedule(lambda *_: seen.append(bus.scheduler.clock))
        bus.scheduler.start()
        assert [0.0] * 500 == seen

    def test_in_the_past(self, bus: VirtualBus, log: Log) -> None:
        """What should have been done before is done now, after what was due now already; the clock never goes back."""
        bus.advance(5)
        bus.scheduler.schedule(lambda *_: log("now"))
        bus.scheduler.schedule_absolute(3.0, lambda *_: log("past"))
        bus.advance(1)
        assert [(5.0, "now"), (5.0, "past")] == log.lines

    def test_actions_are_nobodys_children(self, bus: VirtualBus) -> None:
        """They run in the context that scheduled them, whoever lets time pass."""
        recording = bus.record("out")

        async def slow(event: Any) -> None:
            await asyncio.sleep(5)

        bus.subscribe("slow", slow)
        bus.subscribe("a", lambda event: bus.deliver("slow", 1) and None)
        bus.publish("a", 1)
        bus.scheduler.schedule_relative(2.0, lambda *_: bus.publish("out", 1) and None)
        bus.drain()
        assert [(2.0, None)] == [(event.time, event.causation_id) for event in recording.events]

    def test_given_to_a_subscription(self, bus: VirtualBus) -> None:
        """It makes no difference."""
        seen = Recorder()
        bus.subscribe("a", seen, scheduler=bus.scheduler)
        assert 1 == bus.deliver("a", 1).handled

    def test_inline_ones(self, bus: VirtualBus, log: Log) -> None:
        """They handle an event before its publish returns, and their retries back off on the clock of the bus."""
        bus.subscribe("a", lambda event: log("try") or fails(event), retry=Retry(2, backoff=5), scheduler=ImmediateScheduler())  # type: ignore[func-returns-value]
        bus.subscribe("a", log, through=reactivex.compose(operators.payload(), ops.delay(1)), scheduler=ImmediateScheduler())
        bus.publish("a", 7)
        assert [(0.0, "try")] == log.lines
        bus.drain()
        assert [(0.0, "try"), (1.0, 7), (5.0, "try")] == log.lines

    @pytest.mark.parametrize("scheduler", [ThreadPoolScheduler(1), TestScheduler(), WorkerPool(1)])
    def test_those_with_threads_or_a_clock_of_their_own(self, bus: VirtualBus, scheduler: Any) -> None:
        """They are refused where they are given."""
        with pytest.raises(ValueError, match="scheduler must be the one of the virtual bus 'virtual'"):
            bus.subscribe("a", print, scheduler=scheduler)
        with pytest.raises(ValueError, match="scheduler must be the one"):
            bus.observe("a").subscribe(print, scheduler=scheduler)
        assert 0 == len(bus.subscriptions)


class TestOperators:
    """Pipelines take their time from the bus."""

    def test_debounce_delay_and_timeouts(self, bus: VirtualBus) -> None:
        """Each when it is due."""
        bus.subscribe("in", lambda event: event.payload, through=ops.debounce(0.25), to="debounced")
        bus.subscribe("in", lambda event: event.payload, through=ops.delay(1.0), to="delayed")
        bus.subscribe("in", lambda events: len(events), through=ops.buffer_with_time(0.5), to="counted")
        debounced, delayed = bus.record("debounced"), bus.record("delayed")
        bus.feed("in", "-a-b----c")
        bus.advance(3)
        assert [(0.55, "b"), (1.05, "c")] == [(e.time, e.payload) for e in debounced.events]
        assert "-----------a-b----c" == delayed.marbles()

    def test_retries_back_off_exactly(self, bus: VirtualBus, log: Log) -> None:
        """Without jitter: 1, 2 and 4 seconds."""
        bus.subscribe("a", lambda event: log(current().attempt) or fails(event), retry=Retry(4, backoff=1))  # type: ignore[union-attr]
        bus.publish("a", 1)
        bus.drain()
        assert [(0.0, 1), (1.0, 2), (3.0, 3), (7.0, 4)] == log.lines
        assert [7.0] == [letter.time for letter in bus.dead_letters]

    def test_attempt_backs_off_too(self, bus: VirtualBus, log: Log) -> None:
        """The operator that keeps a stream alive."""

        def work(event: Any) -> Any:
            log("try")
            raise ValueError

        bus.observe("a").pipe(operators.attempt(work, retry=Retry(3, backoff=1))).subscribe()
        bus.publish("a", 1)
        bus.advance(10)
        assert [(0.0, "try"), (1.0, "try"), (3.0, "try")] == log.lines

    def test_breaker(self, bus: VirtualBus, log: Log) -> None:
        """Its pause is virtual."""
        bus.subscribe("a", lambda event: log(event.payload) or fails(event), breaker=Breaker(2, pause=30))
        bus.publish_many("a", [1, 2, 3])
        bus.drain()
        assert [(0.0, 1), (0.0, 2), (30.0, 3)] == log.lines

    def test_dedupe_and_join_forget(self, bus: VirtualBus) -> None:
        """Their windows are virtual."""
        deduped = bus.record(bus.observe("a").pipe(operators.payload(), operators.dedupe(lambda n: n, window=1)))
        joined = bus.record(
            bus.observe("a").pipe(operators.join_by(bus.observe("b"), key=lambda event: event.payload, within=1), ops.map(lambda _: "j"))
        )
        bus.feed("a", "x-----x------x---")
        bus.feed("b", "-------x-----------------x")
        bus.advance(4)
        assert "x------------x" == deduped.marbles()
        assert "-------j" == joined.marbles()

    def test_chains_that_nobody_gave_a_scheduler(self, bus: VirtualBus) -> None:
        """Windows of dedupe and join are virtual there, too: events have the clock of their bus."""
        joined, once = list[Any](), list[Any]()
        bus.observe("left").pipe(operators.join_by(bus.topic("right"), key=lambda event: event.payload, within=1.0)).subscribe(
            joined.append
        )
        bus.observe("left").pipe(operators.payload(), operators.dedupe(lambda n: n, window=1.0)).subscribe(once.append)
        bus.publish("left", 1)
        bus.advance(0.5)
        bus.publish("right", 1)
        bus.publish("left", 2)
        bus.advance(2)
        bus.publish("right", 2)
        bus.publish("left", 2)
        bus.drain()
        assert [(1, 1), (2, 2)] == [tuple(event.payload for event in pair) for pair in joined]
        assert [1, 2, 2] == once

    def test_a_mailbox_in_the_middle_of_a_chain(self, bus: VirtualBus) -> None:
        """It is run by the bus too."""
        seen: list[Any] = []
        bus.observe("a").pipe(operators.mailbox(capacity=2), operators.payload()).subscribe(seen.append)
        bus.publish_many("a", range(10))
        bus.drain()
        assert list(range(10)) == seen

    def test_from_marbles_into_a_topic(self, bus: VirtualBus) -> None:
        """A diagram may feed a topic by the natural chain, too."""
        recording = bus.record("a")
        from_marbles("-x-y|").subscribe(bus.topic("a").on_next, scheduler=bus.scheduler)
        bus.advance(1)
        assert "-x-y" == recording.marbles()


class TestCoroutines:
    """Handlers that await."""

    def test_sleep(self, bus: VirtualBus, log: Log) -> None:
        """On the calling thread, by the virtual clock."""

        async def handler(event: Any) -> None:
            log("begins", event.payload)
            await asyncio.sleep(60)
            log("ends", event.payload)

        bus.subscribe("a", handler)
        bus.publish_many("a", [1, 2])
        bus.advance(90)
        assert [(0.0, "begins", 1), (60.0, "ends", 1), (60.0, "begins", 2)] == log.lines
        bus.drain()
        assert (120.0, "ends", 2) == log.lines[-1]

    def test_timeouts_gather_and_queues(self, bus: VirtualBus, log: Log) -> None:
        """All that asyncio has is on virtual time."""

        async def handler(event: Any) -> None:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(5):
                    await asyncio.sleep(3600)
            log("timeout")
            queue: asyncio.Queue[int] = asyncio.Queue()

            async def put() -> None:
                await asyncio.sleep(1)
                await queue.put(7)

            log("gathered", await asyncio.gather(queue.get(), put(), asyncio.sleep(2, "slept")))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.Event().wait(), 3)
            log(await asyncio.to_thread(lambda: "called"))

        bus.subscribe("a", handler)
        assert 1 == bus.deliver("a", 1).handled
        assert [(5.0, "timeout"), (7.0, "gathered", [7, None, "slept"]), (10.0, "called")] == log.lines

    def test_timers_that_were_cancelled(self, bus: VirtualBus) -> None:
        """Nobody moves on to a time at which nothing happens any more."""

        async def handler(event: Any) -> None:
            async with asyncio.timeout(3600):
                await asyncio.sleep(1)

        bus.subscribe("a", handler)
        bus.publish("a", 1)
        bus.scheduler.start()
        assert 1.0 == bus.scheduler.clock

    def test_generators_that_nobody_exhausts(self, bus: VirtualBus, log: Log) -> None:
        """They are closed on the loop, as asyncio does it."""

        async def numbers() -> AsyncIterator[int]:
            try:
                yield 1
                yield 2
            finally:
                await asyncio.sleep(3)
                log("closed")

        async def handler(event: Any) -> None:
            async for _ in numbers():
                break

        bus.subscribe("a", handler)
        bus.publish("a", 1)
        bus.advance(1)
        gc.collect()
        bus.advance(10)
        assert [(3.0, "closed")] == log.lines

    def test_timeout_of_a_subscription(self, bus: VirtualBus) -> None:
        """It cancels, in virtual time."""

        async def handler(event: Any) -> None:
            await asyncio.sleep(3600)

        bus.subscribe("a", handler, timeout=5)
        assert 1 == bus.deliver("a", 1).failed
        assert [(Reason.TIMEOUT, 5.0)] == [(letter.reason, letter.time) for letter in bus.dead_letters]

    def test_retries_and_concurrency(self, bus: VirtualBus, log: Log) -> None:
        """Several at a time, each with its own retries."""

        async def handler(event: Any) -> None:
            await asyncio.sleep(10)
            if current().attempt == 1:  # type: ignore[union-attr]
                raise ValueError
            log(event.payload)

        bus.subscribe("a", handler, retry=Retry(backoff=1), concurrency=3)
        bus.publish_many("a", [1, 2, 3])
        bus.drain()
        assert [(21.0, 1), (21.0, 2), (21.0, 3)] == log.lines

    def test_generators(self, bus: VirtualBus) -> None:
        """Each value is passed on when it comes."""

        async def handler(event: Any) -> AsyncIterator[int]:
            for number in range(3):
                await asyncio.sleep(0.2)
                yield number

        bus.subscribe("a", handler, to="b")
        recording = bus.record("b")
        bus.publish("a", 1)
        bus.drain()
        assert "--0-1-2" == recording.marbles()

    def test_back_pressure(self, bus: VirtualBus) -> None:
        """One who publishes faster than another handles waits for room; nothing is refused."""

        async def consume(event: Any) -> None:
            await asyncio.sleep(1)

        async def produce(event: Any) -> AsyncIterator[int]:
            for number in range(20):
                yield number

        bus.subscribe("b", consume, capacity=2)
        bus.subscribe("a", produce, to="b")
        bus.publish("a", 1)
        bus.drain()
        assert 20 == bus.statistics().topics["b"].handled
        assert 20.0 == bus.scheduler.clock

    def test_real_input_and_output(self, bus: VirtualBus) -> None:
        """It says what is wrong with it."""

        async def handler(event: Any) -> None:
            await asyncio.open_connection("localhost", 1)

        bus.subscribe("a", handler)
        bus.publish("a", 1)
        bus.drain()
        (letter,) = bus.dead_letters
        assert "real input and output, which can't take part in virtual time" in str(letter.error)

    def test_a_loop_on_what_would_be_another_thread(self, bus: VirtualBus, log: Log) -> None:
        """``to_thread`` calls on this very thread, where no loop seems to run meanwhile; afterwards all is as before."""

        async def inner() -> str:
            await asyncio.sleep(0)
            return f"in {asyncio.current_task() is not outer}"

        async def handler(event: Any) -> None:
            nonlocal outer
            outer = asyncio.current_task()
            log(await asyncio.to_thread(lambda: asyncio.run(inner())))
            assert outer is asyncio.current_task()
            await asyncio.sleep(1)
            log("out")

        outer: Any = None
        bus.subscribe("a", handler)
        bus.publish("a", 1)
        bus.drain()
        assert [(0.0, "in True"), (1.0, "out")] == log.lines

    def test_a_loop_can_not_be_given(self, bus: VirtualBus) -> None:
        """A real loop has a clock of its own."""

        async def handler(event: Any) -> None:
            pass

        async def main() -> None:
            bus.subscribe("a", handler, loop=asyncio.get_running_loop())

        with pytest.raises(ValueError, match="loop can't be given on the virtual bus"):
            asyncio.run(main())

    def test_plain_handlers_may_use_a_loop_of_their_own(self, bus: VirtualBus) -> None:
        """No loop is running while they run."""
        results: list[Any] = []

        async def work() -> int:
            return 5

        bus.subscribe("a", lambda event: results.append(asyncio.run(work())))
        bus.publish("a", 1)

        async def main() -> None:
            await bus.adrain()

        asyncio.run(main())
        assert [5] == results

    def test_what_is_left_at_the_end_is_cancelled(self, recwarn: pytest.WarningsRecorder, caplog: pytest.LogCaptureFixture) -> None:
        """Handlers clean up, and nobody warns of anything."""
        log: list[str] = []

        async def handler(event: Any) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                log.append("cleaned up")

        bus = VirtualBus()
        bus.subscribe("a", handler)
        bus.subscribe("a", handler, concurrency=2)
        bus.publish("a", 1)
        bus.advance(1)
        report = bus.close(5)
        assert {"handler": 1, "handler#2": 1} == dict(report.unhandled)
        assert ["cleaned up", "cleaned up"] == log
        assert [] == [str(one.message) for one in recwarn]
        assert [] == [record for record in caplog.records if record.name == "asyncio"]

    def test_run(self, bus: VirtualBus) -> None:
        """The body of a test may be a coroutine."""

        async def respond(event: Any) -> int:
            await asyncio.sleep(2)
            return event.payload * 2

        async def main() -> tuple[float, int]:
            await asyncio.sleep(1.5)
            reply = await bus.request("ask", 4)
            receipt = await bus.adeliver("ask", 5)
            assert 1 == receipt.handled
            stream = bus.events("news")
            await bus.apublish("news", 1)
            assert 1 == (await anext(stream)).payload
            await stream.aclose()
            return asyncio.get_running_loop().time(), reply.payload

        bus.subscribe("ask", respond, to=REPLY)
        assert (5.5, 8) == bus.run(main())

    def test_run_of_what_never_ends(self, bus: VirtualBus) -> None:
        """It raises when nothing is scheduled any more."""

        async def main() -> None:
            await asyncio.Event().wait()

        with pytest.raises(BusError, match="nothing more is scheduled"):
            bus.run(main())
        with pytest.raises(TypeError, match="coroutine must be a coroutine"):
            bus.run(main)  # type: ignore[arg-type]


class TestInsideAnotherLoop:
    """A notebook's, or that of a test."""

    def test_verbs(self) -> None:
        """Awaited or not, they let virtual time pass and don't block."""

        async def respond(event: Any) -> int:
            await asyncio.sleep(3600)
            return event.payload

        async def main() -> list[Any]:
            outside = asyncio.get_running_loop()
            task = asyncio.current_task()
            before = outside.time()
            async with VirtualBus() as bus:
                bus.subscribe("ask", respond, to=REPLY)
                found: list[Any] = [(await bus.request("ask", 1, timeout=4000)).payload, bus.request("ask", 2, timeout=4000).run().payload]
                found += [(await bus.adeliver("ask", 3)).handled, bus.deliver("ask", 4).handled]
                bus.publish("ask", 5)
                await bus.adrain()
                bus.publish("ask", 6)
                bus.advance(3600)
                found.append(bus.scheduler.clock)
                assert outside is asyncio.get_running_loop()
                assert task is asyncio.current_task()
            assert outside.time() - before < 60
            return found

        assert [1, 2, 1, 1, 6 * 3600.0] == asyncio.run(main())

    def test_room_is_made(self) -> None:
        """`apublish` into a full mailbox lets time pass instead of waiting for ever."""

        async def slow(event: Any) -> None:
            await asyncio.sleep(1)

        async def main() -> None:
            async with VirtualBus() as bus:
                bus.subscribe("a", slow, capacity=2)
                await bus.apublish_many("a", range(10))
                for number in range(10):
                    await bus.apublish("a", number)
                await bus.adrain()
                assert 20 == bus.statistics().topics["a"].handled
                assert 20.0 == bus.scheduler.clock

        asyncio.run(main())

    def test_streams_of_that_loop(self) -> None:
        """`adrain` lets their readers read."""

        async def main() -> list[Any]:
            async with VirtualBus() as bus:
                stream = bus.events("a")

                async def read() -> list[Any]:
                    return [(await anext(stream)).payload for _ in range(3)]

                reader = asyncio.create_task(read())
                bus.publish_many("a", [1, 2, 3])
                await bus.adrain()
                return await reader

        assert [1, 2, 3] == asyncio.run(main())

    @pytest.mark.parametrize("kind", [EventBus, VirtualBus])
    def test_the_last_of_a_stream_was_taken(self, kind: type[EventBus]) -> None:
        """When `adrain` returns, the coroutine that takes from a stream has had its turn."""

        async def main() -> None:
            async with kind("b") as bus:
                taken: list[int] = []
                events = bus.events("a")

                task = asyncio.create_task(take_all(events, taken))
                await bus.apublish_many("a", [1, 2, 3])
                await bus.adrain(LIMIT)
                assert [1, 2, 3] == taken
            await asyncio.wait_for(task, LIMIT)

        asyncio.run(main())

    @pytest.mark.parametrize("kind", [EventBus, VirtualBus])
    @pytest.mark.parametrize("way", ["close", "aclose", "async with"])
    def test_closed_with_a_stream_open(self, kind: type[EventBus], way: str) -> None:
        """What is queued is handled and taken, the stream ends, and the report is true."""

        async def main() -> None:
            bus = kind("b")
            taken: list[int] = []
            handled: list[int] = []
            events = bus.events("a")

            async def slow(event: Event[int]) -> None:
                await asyncio.sleep(0.01)
                handled.append(event.payload)

            bus.subscribe("a", slow)
            task = asyncio.create_task(take_all(events, taken))
            await bus.apublish_many("a", [1, 2, 3])
            if way == "aclose":
                assert CloseReport() == await bus.aclose()
            elif way == "close":
                bus.close()  # goes on elsewhere
            else:
                async with bus:
                    pass
            await asyncio.wait_for(task, LIMIT)
            while "closed" not in repr(bus):
                await asyncio.sleep(0.001)
            assert ([1, 2, 3], [1, 2, 3]) == (taken, handled)

        asyncio.run(main())

    def test_closed_with_a_stream_that_nobody_takes_from(self) -> None:
        """The report says how much is left; no time passes for it."""

        async def main() -> None:
            bus = VirtualBus()
            stream = bus.events("a")
            await bus.apublish_many("a", [1, 2, 3])
            report = await bus.aclose()
            assert {"events@a": 3} == dict(report.unhandled)
            assert ("closed", 0.0) == (bus._state, bus._monotonic())
            await stream.aclose()

        asyncio.run(main())

    @pytest.mark.parametrize(
        "chain", [lambda r: r, lambda r: r.pipe(ops.retry(2)), lambda r: r.pipe(ops.map(lambda e: e))], ids=["plain", "retried", "mapped"]
    )
    @pytest.mark.parametrize("way", ["run", "await", "handler", "virtual"])
    def test_requests_with_operators(self, chain: Any, way: str) -> None:
        """However the reply is waited for, time passes until it is there."""
        bus = VirtualBus()
        seen: list[int] = []

        async def double(event: Event[int]) -> int:
            await asyncio.sleep(60)
            return 2 * event.payload

        bus.subscribe("sum", double, to=REPLY)

        async def main() -> None:
            seen.append((await chain(bus.request("sum", 21, timeout=100))).payload)

        if way == "run":
            seen.append(chain(bus.request("sum", 21, timeout=100)).run().payload)
        elif way == "await":
            asyncio.run(main())
        elif way == "virtual":
            bus.run(main())
        else:
            bus.subscribe("ask", lambda e: seen.append(chain(bus.request("sum", 21, timeout=100)).run().payload))
            bus.deliver("ask", 1)
        assert ([42], 60.0) == (seen, bus._monotonic())

    def test_what_operators_take_time_for(self, bus: VirtualBus) -> None:
        """They are on virtual time, too; what several requests are combined to may be run as well."""
        bus.subscribe("sum", lambda e: 2 * e.payload, to=REPLY)
        assert 2 == bus.request("sum", 1).pipe(ops.delay(3600.0)).pipe(ops.map(lambda e: e.payload)).run()
        assert 3600.0 == bus._monotonic()
        assert 8 == reactivex.concat(bus.request("sum", 1), bus.request("sum", 4)).pipe(ops.map(lambda e: e.payload)).run()
        with pytest.raises(SequenceContainsNoElementsError):
            bus.request("sum", 1).pipe(ops.filter(lambda e: False)).run()
        with pytest.raises(BusError, match="never end"):
            bus.request("sum", 1).pipe(ops.concat(reactivex.never())).run()
        assert 2 == bus.request("sum", 1).pipe(lambda _: 2)  # no observable

    def test_a_request_with_operators_that_fails(self, bus: VirtualBus) -> None:
        """Its errors come out of `run`; each attempt takes its time."""
        bus.subscribe("sum", lambda e: None)
        with pytest.raises(RequestTimeoutError):
            bus.request("sum", 1, timeout=5).pipe(ops.retry(3)).run()
        assert 15.0 == bus._monotonic()
        with pytest.raises(NoRespondersError):
            bus.request("nobody", 1).pipe(ops.map(lambda e: e)).run()


class TestWaiting:
    """What would block lets time pass, and raises if that is in vain."""

    def test_deliver(self, bus: VirtualBus) -> None:
        """Until all have settled it."""
        bus.subscribe("a", fails, retry=Retry(2, backoff=20))
        bus.subscribe("a", lambda event: None)
        receipt = bus.deliver("a", 1)
        assert (1, 1, 0) == (receipt.handled, receipt.failed, receipt.dropped)
        assert 20.0 == bus.scheduler.clock

    def test_deliver_in_vain(self, bus: VirtualBus) -> None:
        """With a timeout, and without one."""

        async def hangs(event: Any) -> None:
            await asyncio.Event().wait()

        bus.subscribe("a", hangs)
        with pytest.raises(DrainTimeoutError, match=r"was not settled in 5.* s by: hangs"):
            bus.deliver("a", 1, timeout=5)
        assert 5.0 == bus.scheduler.clock
        with pytest.raises(DrainTimeoutError, match="nothing more is scheduled, and it is not settled by: hangs"):
            bus.deliver("a", 1)

    def test_drain_in_vain(self, bus: VirtualBus) -> None:
        """It says who is busy, and that nothing would change."""

        async def hangs(event: Any) -> None:
            await asyncio.Event().wait()

        bus.subscribe("a", hangs)
        bus.publish("a", 1)
        with pytest.raises(DrainTimeoutError, match=r"at 0 s: nothing more is scheduled, and still busy: 'hangs' \(1 left\)") as raised:
            bus.drain()
        assert {"hangs": 1} == raised.value.busy

    def test_drain_that_takes_too_long(self, bus: VirtualBus) -> None:
        """The timeout is virtual, too, and exact."""

        async def slow(event: Any) -> None:
            await asyncio.sleep(60)

        bus.subscribe("a", slow)
        bus.publish("a", 1)
        with pytest.raises(DrainTimeoutError, match=r"was not drained at 10 s: still busy: 'slow'"):
            bus.drain(10)
        assert 10.0 == bus.scheduler.clock
        bus.drain(50)
        assert 60.0 == bus.scheduler.clock

    def test_drain_beside_a_clock_that_never_stops(self, bus: VirtualBus, monkeypatch: pytest.MonkeyPatch) -> None:
        """A periodic timer doesn't make it go on for ever."""
        monkeypatch.setattr("rxbus.testing.traffic.WINDOW", 1000)

        async def hangs(event: Any) -> None:
            await asyncio.Event().wait()

        bus.subscribe("a", hangs)
        ticking = reactivex.interval(1.0, scheduler=bus.scheduler).subscribe()
        bus.publish("a", 1)
        with pytest.raises(DrainTimeoutError, match="have settled nothing: hangs"):
            bus.drain()
        ticking.dispose()

    def test_drain_of_a_paused_one(self, bus: VirtualBus) -> None:
        """As on other buses."""
        bus.subscribe("a", Recorder(), name="seen").pause()
        bus.publish("a", 1)
        with pytest.raises(BusError, match="'seen' is paused with 1 events"):
            bus.drain()

    def test_requests(self, bus: VirtualBus) -> None:
        """Answered, given up, or out of time; subscribed to, too."""

        async def respond(event: Any) -> int:
            await asyncio.sleep(event.payload)
            return 42

        bus.subscribe("ask", respond, to=REPLY)
        bus.subscribe("bad", fails)
        assert 42 == bus.request("ask", 10).run().payload
        assert 10.0 == bus.scheduler.clock
        with pytest.raises(RequestTimeoutError, match="within 7 s"):
            bus.request("ask", 60, timeout=7).run()
        assert 17.0 == bus.scheduler.clock
        with pytest.raises(RequestFailedError):
            bus.request("bad", 1).run()
        recording = bus.record(bus.request("ask", 100, timeout=1000))
        assert [42] == recording.wait_for(1, 200).payloads

    def test_inside_plain_handlers(self, bus: VirtualBus) -> None:
        """One that waits has others run meanwhile; one that would wait for itself is told so."""
        seen: list[Any] = []

        async def respond(event: Any) -> int:
            await asyncio.sleep(5)
            return event.payload + 1

        def ask(event: Any) -> None:
            reply = bus.request("ask", event.payload).run()
            seen.append((reply.payload, current().event.payload))  # type: ignore[union-attr]
            seen.append(bus.deliver("other", 1).handled)
            with pytest.raises(BusError, match="would wait for itself"):
                bus.deliver("a", 1)

        bus.subscribe("ask", respond, to=REPLY)
        bus.subscribe("other", lambda event: None)
        bus.subscribe("a", ask)
        bus.publish("a", 1)
        bus.drain()
        assert [(2, 1), 1] == seen
        assert 0 == len(bus.dead_letters)

    def test_a_feed_is_nobodys_child(self, bus: VirtualBus) -> None:
        """Whoever happens to wait while it goes on."""
        recording = bus.record("fed")

        async def slow(event: Any) -> None:
            await asyncio.sleep(5)

        bus.subscribe("slow", slow)
        bus.subscribe("a", lambda event: bus.deliver("slow", 1) and None)
        bus.feed("fed", "--x")
        bus.publish("a", 1)
        bus.drain()
        assert [None] == [event.causation_id for event in recording.events]

    def test_room_in_a_mailbox(self, bus: VirtualBus) -> None:
        """A publisher that is held back lets time pass; after ``block_timeout`` the subscription is stalled."""

        async def slow(event: Any) -> None:
            await asyncio.sleep(1)

        bus.subscribe("a", slow, capacity=2)
        for number in range(10):
            bus.publish("a", number)
        assert 7.0 == bus.scheduler.clock
        bus.drain()
        assert 10 == bus.statistics().topics["a"].handled

        async def hangs(event: Any) -> None:
            await asyncio.Event().wait()

        bus.subscribe("b", hangs, capacity=2, overflow=Overflow.BLOCK)
        before = bus.scheduler.clock
        bus.publish_many("b", range(6))
        assert before + 30.0 == bus.scheduler.clock
        assert {Reason.OVERFLOW} == {letter.reason for letter in bus.dead_letters}
        assert_books_balance(bus)

    def test_a_stalled_mailbox_recovers(self, bus: VirtualBus) -> None:
        """Once something is taken from it, publishers are let in, and held back, as before."""
        bus.subscribe("a", lambda event: None, name="x", capacity=2)
        with faults(bus).hang("x", nth=1) as fault:
            bus.publish_many("a", range(5))
            assert 30.0 == bus.scheduler.clock
            fault.release()
            bus.drain()
        refused = len(bus.dead_letters)
        assert 0 < refused < 5
        bus.publish_many("a", range(5))
        bus.drain()
        assert refused == len(bus.dead_letters)
        assert 30.0 == bus.scheduler.clock

    def test_dispose_and_join(self, bus: VirtualBus) -> None:
        """``dispose(wait=...)`` waits in virtual seconds."""

        async def slow(event: Any) -> None:
            await asyncio.sleep(5)

        subscription = bus.subscribe("a", slow)
        bus.publish("a", 1)
        bus.advance(1)
        subscription.dispose(wait=60)
        assert 5.0 == bus.scheduler.clock

    def test_wait_for(self, bus: VirtualBus) -> None:
        """A recording moves the clock, as far as it must."""
        bus.subscribe("in", lambda event: event.payload, through=ops.delay(10), to="out")
        recording = bus.record("out")
        bus.publish("in", 1)
        assert [1] == recording.wait_for(1, timeout=60).payloads
        assert 10.0 == bus.scheduler.clock
        with pytest.raises(TimeoutError, match="expected 2 items within 5 s, found 1"):
            recording.wait_for(2, timeout=5)
        assert 15.0 == bus.scheduler.clock


class TestFeed:
    """Diagrams published on a topic."""

    def test_from_now_on(self, bus: VirtualBus) -> None:
        """One character is 0.1 s; a recording of the topic shows the same diagram."""
        bus.advance(10)
        recording = record(bus.topic("a"))
        fed = bus.feed("a", "-a--b|", {"a": {"text": "hello"}})
        bus.advance(1)
        assert "-a--b|" == recording.marbles({"a": {"text": "hello"}})
        assert [10.1, 10.4] == [event.time for event in recording.events]
        assert recording.events == fed.events
        assert fed.is_completed

    def test_the_end_is_not_the_topics(self, bus: VirtualBus) -> None:
        """The topic lives on; recordings of patterns and of other topics, too."""
        recording, everything, seen = bus.record("a"), bus.record(">"), Recorder()
        bus.subscribe("a", seen)
        bus.feed("a", "x|")
        bus.drain()
        bus.publish("a", "y")
        bus.drain()
        assert ["x", "y"] == seen.payloads
        assert ["x"] == recording.payloads
        assert recording.is_completed
        assert ["x", "y"] == everything.payloads
        assert "recording@a" not in bus.subscriptions

    def test_an_error(self, bus: VirtualBus) -> None:
        """It ends recordings, the topic reports it and lives on."""
        error = ValueError("no")
        recording = bus.record("a")
        bus.feed("a", "x#", error=error)
        bus.drain()
        assert error is recording.error
        assert "x#" == recording.marbles()
        assert 1 == bus.statistics().topics["a"].failed
        assert "y" == bus.publish("a", "y").payload

    def test_drain_waits_for_all_of_it(self, bus: VirtualBus) -> None:
        """It is traffic that was announced."""
        seen = Recorder()
        bus.subscribe("a", seen)
        bus.feed("a", "-----a-----b")
        bus.drain()
        assert ["a", "b"] == seen.payloads
        assert 1.1 == bus.scheduler.clock

    @pytest.mark.parametrize("diagram", ["abc|", "abcd|", "(abcd)--e-|"])
    def test_one_that_has_to_wait_for_room(self, diagram: str) -> None:
        """What comes next waits its turn: all of it is published, in its order, and noted as it was."""
        seen: list[str] = []

        async def slow(event: Event[str]) -> None:
            await asyncio.sleep(1)
            seen.append(event.payload)

        with VirtualBus(capacity=1) as bus:
            bus.subscribe("a", slow)
            fed, heard = bus.feed("a", diagram), bus.record("a")
            bus.drain()
        items = [letter for letter in diagram if letter.isalpha()]
        assert items == seen == fed.payloads == heard.payloads
        assert fed.is_completed
        assert heard.is_completed

    def test_refused_at_the_call(self, bus: VirtualBus) -> None:
        """Bad diagrams, names and payloads; nothing is published."""
        bus.topic("typed", int)
        with pytest.raises(ValueError, match="no group is open"):
            bus.feed("a", "a)")
        with pytest.raises(TopicNameError):
            bus.feed("a..b", "a")
        with pytest.raises(PayloadTypeError):
            bus.feed("typed", "ab", {"a": 1})
        with pytest.raises(TypeError, match="values must be"):
            bus.feed("a", "a", values=5)  # type: ignore[arg-type]
        bus.drain()
        assert 0 == bus.statistics().topics["typed"].published

    def test_closed_bus(self) -> None:
        """It says so at the call; one that is closed in the middle of a feed ends it with an error."""
        bus = VirtualBus()
        fed = bus.feed("a", "a-b-c")
        bus.advance(0)
        bus.close()
        bus.advance(1)
        assert ["a"] == fed.payloads
        assert isinstance(fed.error, BusClosedError)
        with pytest.raises(BusClosedError):
            bus.feed("a", "a")
        with pytest.raises(BusClosedError):
            bus.record("a")


class TestRecord:
    """What the bus records."""

    def test_names_patterns_topics_and_observables(self, bus: VirtualBus) -> None:
        """Each with its name."""
        recordings = [bus.record("a"), bus.record("*"), bus.record(bus.topic("a")), bus.record(bus.observe("a"), "mine")]
        mapped = bus.record(bus.observe("a").pipe(operators.payload(), ops.delay(1)), "mapped")
        bus.publish("a", 1)
        bus.advance(2)
        assert ["a", "*", "a", "mine"] == [one.name for one in recordings]
        assert [[1]] * 4 == [one.payloads for one in recordings]
        assert "----------1" == mapped.marbles()

    @pytest.mark.parametrize(
        ("pattern", "kind"), [("", TopicNameError), ("a..b", TopicNameError), (5, TopicNameError), (None, TopicNameError)]
    )
    def test_bad_patterns(self, bus: VirtualBus, pattern: Any, kind: type[Exception]) -> None:
        """What the grammar of topics doesn't have."""
        with pytest.raises(kind):
            bus.record(pattern)


class TestClosing:
    """The end."""

    def test_from_a_handler(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It returns at once, and is finished as a later step, without a thread."""
        monkeypatch.setattr(threading.Thread, "start", lambda _: pytest.fail("a thread was started"))
        bus = VirtualBus()
        seen = Recorder()
        bus.subscribe("a", lambda event: bus.close() and None)
        bus.subscribe("a", seen)
        bus.publish_many("a", [1, 2])
        bus.advance(1)
        assert [1, 2] == seen.payloads
        assert "closed" in repr(bus)
        with pytest.raises(BusClosedError):
            bus.publish("a", 1)

    @pytest.mark.parametrize("way", ["close", "aclose", "async with"])
    def test_from_a_coroutine_on_virtual_time(self, way: str) -> None:
        """What it published is handled before, and it goes on afterwards, together with what it has begun."""
        bus = VirtualBus()
        handled: list[int] = []
        taken: list[int] = []

        async def slow(event: Event[int]) -> None:
            await asyncio.sleep(5)
            handled.append(event.payload)

        bus.subscribe("a", slow)

        async def main() -> str:
            task = asyncio.create_task(take_all(bus.events("a"), taken))
            await bus.apublish_many("a", [1, 2])
            if way == "close":
                assert CloseReport() == bus.close()  # goes on elsewhere
            elif way == "aclose":
                assert CloseReport() == await bus.aclose()
            else:
                async with bus:
                    pass
            if way != "close":
                assert ([1, 2], "closed") == (handled, bus._state)
            await task
            await asyncio.sleep(1)
            return "went on"

        assert "went on" == bus.run(main())
        assert ([1, 2], [1, 2], "closed") == (handled, taken, bus._state)
        assert bus._loop_thread.loop.is_closed()

    def test_from_a_coroutine_that_ends_at_once(self) -> None:
        """The close that it asked for is finished nevertheless."""
        bus = VirtualBus()
        handled: list[int] = []
        bus.subscribe("a", lambda e: handled.append(e.payload))

        async def main() -> None:
            await bus.apublish("a", 1)
            bus.close()

        bus.run(main())
        assert ([1], "closed") == (handled, bus._state)

    def test_tasks_end_in_their_order(self) -> None:
        """What a run does is the same each time, to its end."""

        def run() -> list[int]:
            bus, ended = VirtualBus("mine"), list[int]()

            async def handler(event: Any) -> None:
                try:
                    await asyncio.Event().wait()
                finally:
                    ended.append(event.payload)

            bus.subscribe("a", handler, concurrency=20)
            assert "mine-1" == bus.publish("a", 0).id
            bus.publish_many("a", range(1, 20))
            bus.advance(1)
            bus.close(0)
            return ended

        assert list(range(20)) == run()

    def test_what_pipelines_hold_comes_out(self) -> None:
        """As on other buses."""
        with VirtualBus() as bus:
            seen: list[Any] = []
            bus.subscribe("a", seen.append, through=reactivex.compose(operators.payload(), ops.buffer_with_count(10)))
            bus.publish_many("a", [1, 2])
        assert [[1, 2]] == seen

    def test_leaving_with_something_left(self) -> None:
        """It warns, after virtual seconds."""

        async def hangs(event: Any) -> None:
            await asyncio.Event().wait()

        with pytest.warns(RuntimeWarning, match="'hangs' left 1 event unhandled"), VirtualBus() as bus:
            bus.subscribe("a", hangs)
            bus.publish("a", 1)

    @pytest.mark.parametrize("obeys", [True, False])
    def test_beside_one_that_goes_round_in_a_circle(self, obeys: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        """Time passes nevertheless; it is reported as stuck, and cancelled."""
        monkeypatch.setattr("rxbus.testing.clock.STEPS_OF_AN_INSTANT", 50_000)
        bus, seen, ended = VirtualBus(), Recorder(), list[float]()
        left = 1 if obeys else 3

        async def spins(event: Any) -> None:
            nonlocal left
            while left:
                try:
                    while True:
                        await asyncio.sleep(0)
                except asyncio.CancelledError:
                    ended.append(bus.scheduler.clock)
                    left -= 1

        bus.subscribe("a", spins)
        bus.subscribe("a", seen)
        bus.publish("a", 1)
        report = bus.close(5)
        assert ("spins",) == report.stuck
        assert {"spins": 1} == report.unhandled
        assert 5.0 <= ended[0] < 6.0
        assert [1] == seen.payloads
        assert "closed" in repr(bus)
        with pytest.raises(BusClosedError):
            bus.publish("a", 1)

    def test_running_a_coroutine_afterwards(self) -> None:
        """It is refused, and the coroutine isn't left behind to be warned of."""

        async def main() -> None:
            """Is never begun."""

        bus = VirtualBus()
        bus.close()
        with pytest.raises(BusClosedError):
            bus.run(main())
        gc.collect()

    def test_never_closed(self) -> None:
        """Nobody minds."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            bus = VirtualBus()
            seen = Recorder()

            async def handler(event: Event[int]) -> None:
                await asyncio.sleep(1)
                seen(event)

            bus.subscribe("a", seen)
            bus.subscribe("a", handler)
            bus.publish("a", 1)
            bus.drain()
            bus.publish("a", 2)
            assert [1, 1] == seen.payloads
            del bus, handler
            gc.collect()

    def test_bad_arguments(self) -> None:
        """It has no threads to be told of."""
        for bad in ({"workers": 4}, {"scheduler": CurrentThreadScheduler()}):
            with pytest.raises(TypeError):
                VirtualBus(**bad)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="name must"):
            VirtualBus("")
        with pytest.raises(TypeError, match="drain must"):
            asyncio.run(VirtualBus().aclose(drain="no"))  # type: ignore[arg-type]

    def test_it_is_an_event_bus(self, bus: VirtualBus) -> None:
        """Whatever takes one takes it."""
        assert isinstance(bus, EventBus)
        bus.advance(2.5)
        assert "VirtualBus('virtual'): open, 0 topics, 0 subscriptions, at 2.5 s" == repr(bus)


def an_hour() -> tuple[list[str], float]:
    """A little of everything, for an hour; what happened when, and the time at the end."""
    bus = VirtualBus("hour", block_timeout=5)
    trace: list[str] = []

    def log(*what: Any) -> None:
        trace.append(f"{bus.scheduler.clock:.3f} {' '.join(map(str, what))}")

    async def research(event: Event[Any]) -> str:
        log("research", event.payload, event.id, current().attempt)  # type: ignore[union-attr]
        await asyncio.sleep(20)
        if event.payload % 5 == 0 and current().attempt < 3:  # type: ignore[union-attr]
            raise ConnectionError("away")
        return f"facts {event.payload}"

    async def verify(event: Event[Any]) -> str:
        await asyncio.sleep(event.payload % 7)
        return f"checked {event.payload}"

    def email(pair: tuple[Event[Any], Event[Any]]) -> str:
        log("email", *(event.payload for event in pair), pair[0].correlation_id)
        return pair[0].payload

    def unreliable(event: Event[Any]) -> None:
        log("unreliable", event.id)
        if "2" in str(event.payload):
            raise ValueError("no")

    async def never(event: Event[Any]) -> None:
        await asyncio.sleep(1e9)

    async def asks(event: Event[Any]) -> None:
        try:
            reply = await bus.request("oracle", event.payload, timeout=3)
            log("oracle said", reply.payload, reply.id)
        except RequestTimeoutError as error:
            log("oracle was silent", error.event.id)  # type: ignore[attr-defined]

    async def oracle(event: Event[Any]) -> int:
        await asyncio.sleep(event.payload % 5)
        return event.payload**2

    bus.subscribe("query", research, to="facts", retry=Retry(3, backoff=5), concurrency=4, capacity=8)
    bus.subscribe("query", verify, to="checks", key=lambda event: event.payload % 2)
    joined = bus.observe("facts").pipe(operators.join_by(bus.observe("checks"), within=120), ops.map(email))
    joined.subscribe(bus.topic("mail").on_next, scheduler=bus.scheduler)
    bus.subscribe("mail", unreliable, retry=Retry(2, backoff=1), breaker=Breaker(2, pause=60))
    bus.subscribe("query", never, timeout=4, name="never", overflow=Overflow.DROP_OLDEST, capacity=2)
    bus.subscribe("query", asks, concurrency=2)
    bus.subscribe("oracle", oracle, to=REPLY, concurrency=10)
    bus.subscribe("query", lambda event: log("debounced", event.payload), through=ops.debounce(10))
    bus.subscribe("mail", lambda event: log("deduped", event.payload), through=operators.dedupe(lambda e: e.payload[-1], window=600))
    bus.subscribe("query", lambda event: log("delayed", event.payload), through=ops.delay(300))
    for number in range(60):
        bus.publish("query", number)
        bus.advance(15 if number % 3 else 105)
    bus.advance(3600 - bus.scheduler.clock)
    trace += [f"{letter.time:.3f} {letter.subscription} {letter.reason.value} {letter.event.id}" for letter in bus.dead_letters]
    assert_books_balance(bus)
    clock = bus.scheduler.clock
    bus.close()
    return trace, clock


class TestAnHour:
    """Everything together."""

    def test_the_same_each_time(self) -> None:
        """An hour of sleeps, retries, breakers, timeouts, joins and requests makes the same trace, ids included, and no thread."""
        before = set(threading.enumerate())
        first, clock = an_hour()
        assert 3600.0 == clock
        assert set() == set(threading.enumerate()) - before
        for kind in ("research", "email", "unreliable", "oracle said", "oracle was silent", "debounced", "deduped", "delayed", "timeout"):
            assert any(kind in line for line in first), kind
        assert len(first) > 300
        again, _ = an_hour()
        assert first == again

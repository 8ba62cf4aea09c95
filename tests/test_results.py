"""Results of handlers: published as they come, waiting for room without holding a thread, observables included."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from typing import Any

import pytest
import reactivex
from reactivex import Observable
from reactivex import operators as ops
from reactivex.scheduler import EventLoopScheduler, ImmediateScheduler, ThreadPoolScheduler
from reactivex.subject import Subject
from reactivex.testing import TestScheduler

from rxbus import REPLY, Event, EventBus, MailboxFullError, Reason, Retry, current, results
from tests.support import LIMIT, Gate, Recorder, assert_books_balance, until

word: ContextVar[str] = ContextVar("word", default="nothing")


def same(event: Event[int]) -> int:
    """Returns its payload."""
    return event.payload


def two(event: Event[int]) -> Iterator[int]:
    """Yields its payload, and ten more."""
    yield event.payload
    yield event.payload + 10


def waiters(bus: EventBus) -> list[str]:
    """The subscriptions that wait for somebody, by what was entered."""
    return [one.name for one in bus.subscriptions.values() if one._strand.waiting_for]


SHAPES = [
    pytest.param(same, {}, [0, 1, 2, 3, 4, 5], id="function"),
    pytest.param(two, {}, [0, 10, 1, 11, 2, 12, 3, 13, 4, 14, 5, 15], id="generator"),
    pytest.param(same, {"concurrency": 3, "key": lambda _: 0}, [0, 1, 2, 3, 4, 5], id="lanes"),
    pytest.param(two, {"concurrency": 1, "key": lambda _: 0}, [0, 10, 1, 11, 2, 12, 3, 13, 4, 14, 5, 15], id="generator in a lane"),
    pytest.param(same, {"through": ops.map(lambda e: e)}, [0, 1, 2, 3, 4, 5], id="piped"),
    pytest.param(two, {"through": ops.map(lambda e: e)}, [0, 10, 1, 11, 2, 12, 3, 13, 4, 14, 5, 15], id="piped generator"),
    pytest.param(
        lambda value: value,
        {"through": ops.flat_map(lambda e: reactivex.of(e.payload, e.payload + 10, e.payload + 20))},
        [0, 10, 20, 1, 11, 21, 2, 12, 22, 3, 13, 23, 4, 14, 24, 5, 15, 25],
        id="several values of one event",
    ),
    pytest.param(lambda e: reactivex.of(e.payload, e.payload + 10), {}, [0, 10, 1, 11, 2, 12, 3, 13, 4, 14, 5, 15], id="observable"),
]


class TestRoom:
    """In the target's mailbox."""

    @pytest.mark.parametrize(("handler", "options", "expected"), SHAPES)
    def test_all_arrive_in_order_however_small_the_mailbox(self, handler: Any, options: Any, expected: list[int]) -> None:
        """One worker does it all: nobody holds it while waiting."""
        with EventBus(workers=1) as bus:
            recorder = Recorder()
            bus.subscribe("b", recorder, capacity=1)
            bus.subscribe("a", handler, to="b", name="agent", **options)
            bus.publish_many("a", range(6))
            bus.drain(LIMIT)
            assert expected == recorder.payloads
            assert [] == waiters(bus)
            assert_books_balance(bus)

    @pytest.mark.parametrize(("handler", "options", "expected"), SHAPES[:-1])
    def test_no_thread_is_held(self, bus: EventBus, handler: Any, options: Any, expected: list[int]) -> None:
        """While the target is full the event is suspended: it is pending, and no run is in progress."""
        gate = Gate()
        bus.subscribe("b", gate, capacity=1)
        agent = bus.subscribe("a", handler, to="b", name="agent", **options)
        bus.publish_many("a", range(6))
        gate.wait_until_entered()
        strands = [agent._strand, *(lane._strand for lane in agent._lanes)]
        until(lambda: any(strand.is_suspended for strand in [agent._strand, *(lane._strand for lane in agent._lanes)]))
        strands = [agent._strand, *(lane._strand for lane in agent._lanes)]
        until(lambda: not any(strand.is_running for strand in strands))
        assert 0 == bus._executor._waiting  # type: ignore[union-attr]
        gate.open()
        bus.drain(LIMIT)
        assert expected == gate.seen
        assert_books_balance(bus)

    def test_many_agents_wait_at_once(self) -> None:
        """A hundred of them take no thread: the pool stays as small as it was."""
        with EventBus() as bus:
            gate = Gate()
            bus.subscribe("b", gate, capacity=1)
            agents = [bus.subscribe("a", same, to="b", name=f"agent{n}") for n in range(100)]
            for number in range(3):
                bus.publish("a", number)
            until(lambda: all(agent._strand.is_suspended and not agent._strand.is_running for agent in agents))
            assert 0 == bus._executor._waiting  # type: ignore[union-attr]
            gate.open()
            bus.drain(LIMIT)
            assert 300 == len(gate.seen)
            assert [] == waiters(bus)

    def test_a_target_that_hangs_costs_one_timeout(self) -> None:
        """After it the mailbox is stalled, and refuses without anybody waiting."""
        with EventBus(block_timeout=0.05) as bus:
            gate = Gate()
            bus.subscribe("b", gate, capacity=1, name="hangs")
            agent = bus.subscribe("a", same, to="b", name="agent")
            bus.publish_many("a", range(10))
            until(lambda: agent.statistics().handled == 10)
            assert {("hangs", Reason.OVERFLOW)} == {(letter.subscription, letter.reason) for letter in bus.dead_letters}
            assert 7 == bus.dead_letters.discard()
            gate.open()
            bus.drain(LIMIT)
            assert [0, 1, 2] == gate.seen
            assert [] == waiters(bus)

    def test_a_circle_is_refused_at_once(self, bus: EventBus) -> None:
        """An agent that would wait for itself, or for one that waits for it, gets dead letters."""
        bus.subscribe("a", lambda e: e.payload - 1 if e.payload else None, to="a", capacity=1, name="self")
        bus.publish("a", 3)
        bus.drain(LIMIT)
        assert 0 == len(bus.dead_letters)  # one at a time there is room

        def fork(event: Event[int]) -> Iterator[int]:
            if event.payload:
                yield from [event.payload - 1] * 3

        bus.subscribe("c", fork, to="d", capacity=1, name="c")
        bus.subscribe("d", fork, to="c", capacity=1, name="d")
        began = time.monotonic()
        bus.publish("c", 5)
        bus.drain(LIMIT)
        assert time.monotonic() - began < LIMIT / 2
        assert bus.dead_letters
        assert all(isinstance(letter.error, MailboxFullError) for letter in bus.dead_letters)
        assert [] == waiters(bus)
        assert_books_balance(bus)
        bus.dead_letters.discard()

    def test_whoever_delivers_waits_for_the_room_too(self, bus: EventBus) -> None:
        """The event is settled when its result is within the bound of the mailbox that it went to."""
        gate = Gate()
        bus.subscribe("b", gate, capacity=1)
        bus.subscribe("a", same, to="b")
        bus.publish_many("a", [0, 1])
        gate.wait_until_entered()
        until(lambda: len(bus.topic("b")._outlets) and bus.statistics().topics["b"].published == 2)
        threading.Timer(0.03, gate.open).start()
        assert 1 == bus.deliver("a", 2, timeout=LIMIT).handled

    @pytest.mark.parametrize("scheduler", [EventLoopScheduler, lambda: ThreadPoolScheduler(1)], ids=["loop", "one thread"])
    def test_schedulers_of_one_thread(self, bus: EventBus, scheduler: Any) -> None:
        """An agent and its reader share the only thread, and the mailbox is tiny: all arrive."""
        shared = scheduler()
        recorder = Recorder()
        bus.subscribe("b", recorder, capacity=1, scheduler=shared)
        bus.subscribe("a", two, to="b", scheduler=shared)
        bus.publish_many("a", range(10))
        bus.drain(LIMIT)
        assert [n + m for n in range(10) for m in (0, 10)] == recorder.payloads
        assert 0 == len(bus.dead_letters)

    def test_virtual_time(self) -> None:
        """Nothing is let in over the bound and nothing refused: the reader runs when the clock moves."""
        scheduler = TestScheduler()
        with EventBus(scheduler=scheduler, capacity=1) as bus:
            recorder = Recorder()
            bus.subscribe("b", recorder)
            bus.subscribe("a", lambda e: e.payload, to="b", capacity=10)
            for number in range(6):
                bus.publish("a", number)
            scheduler.advance_by(1)
            assert list(range(6)) == recorder.payloads
            assert 0 == len(bus.dead_letters)

    def test_inline(self) -> None:
        """On an `ImmediateScheduler` all is done when the publish returns."""
        with EventBus(scheduler=ImmediateScheduler(), capacity=1) as bus:
            recorder = Recorder()
            bus.subscribe("b", recorder)
            bus.subscribe("a", two, to="b")
            bus.publish("a", 1)
            assert [1, 11] == recorder.payloads

    @pytest.mark.parametrize("through", [None, ops.map(lambda e: e)], ids=["plain", "piped"])
    def test_disposed_while_it_waits(self, bus: EventBus, through: Any) -> None:
        """A function had done its work, so its event was handled; a generator had not, so its event is dropped, and its code ended."""
        ended: list[int] = []
        gate = Gate()

        def endless(event: Event[int]) -> Iterator[int]:
            try:
                yield from range(1000)
            finally:
                ended.append(event.payload)

        bus.subscribe("b", gate, capacity=1)
        first = bus.subscribe("a", same, to="b", name="function", through=through)
        second = bus.subscribe("a", endless, to="b", name="generator", through=through)
        bus.publish_many("a", range(4))
        until(lambda: all(one._strand.is_suspended and not one._strand.is_running for one in (first, second)))
        queued = [one.statistics().queued for one in (first, second)]
        for one in (first, second):
            one.dispose()
        assert (0, queued[0]) == (first.statistics().pending, first.statistics().dropped)
        assert (0, queued[1] + 1) == (second.statistics().pending, second.statistics().dropped)
        assert 1 == len(ended)
        assert [] == waiters(bus)
        gate.open()
        bus.drain(LIMIT)
        assert_books_balance(bus)

    def test_disposed_in_a_group(self, bus: EventBus) -> None:
        """An event with results out is not begun anew by another member."""
        gate = Gate()
        bus.subscribe("b", gate, capacity=1)
        members = [bus.subscribe("a", same, to="b", group="g", name=f"member{n}") for n in range(2)]
        bus.publish_many("a", range(6))
        until(lambda: all(one._strand.is_suspended and not one._strand.is_running for one in members))
        members[0].dispose()
        gate.open()
        bus.drain(LIMIT)
        assert list(range(6)) == sorted(gate.seen)
        assert_books_balance(bus)

    @pytest.mark.parametrize("options", [{}, {"concurrency": 2}, {"through": ops.map(lambda e: e)}], ids=["one", "lanes", "piped"])
    def test_closed_while_it_waits(self, options: Any) -> None:
        """A close in time handles all; one without draining counts what it drops, and nobody waits any more."""
        for drain in (True, False):
            gate = Gate()
            bus = EventBus()
            bus.subscribe("b", gate, capacity=1)
            agent = bus.subscribe("a", two, to="b", **options)
            bus.publish_many("a", range(6))
            gate.wait_until_entered()
            until(lambda one=agent: any(s.is_suspended for s in (one._strand, *(lane._strand for lane in one._lanes))))
            threading.Timer(0.02, gate.open).start()
            report = bus.close(LIMIT, drain=drain)
            assert not report.unhandled or not drain
            assert [] == waiters(bus)
            gate.open()
            assert_books_balance(bus)
            if drain:
                assert 12 == len(gate.seen)

    @pytest.mark.parametrize("options", [{}, {"through": ops.map(lambda e: e)}], ids=["plain", "piped"])
    def test_a_generator_that_fails_after_a_wait(self, bus: EventBus, options: Any) -> None:
        """Another attempt begins from the start, as that of every handler."""
        recorder = Recorder()
        attempts: list[int] = []

        def flaky(value: Any) -> Iterator[int]:
            delivery = current()
            assert delivery is not None
            attempts.append(delivery.attempt)
            yield 1
            yield 2
            yield 3
            if delivery.attempt == 1:
                raise ValueError("in the middle")

        bus.subscribe("b", recorder, capacity=1)
        bus.subscribe("a", flaky, to="b", retry=Retry(2, backoff=0.001), **options)
        bus.publish("a", 0)
        bus.drain(LIMIT)
        assert [1, 2] == attempts
        assert [1, 2, 3, 1, 2, 3] == recorder.payloads
        assert_books_balance(bus)

    def test_a_generators_code_runs_in_one_context(self, bus: EventBus) -> None:
        """A context variable that it sets stays set, can be reset by its token, and arrives with what it publishes."""
        words: list[str] = []
        failures: list[BaseException] = []

        def speaks(event: Event[int]) -> Iterator[int]:
            token = word.set("hello")
            try:
                for number in range(5):
                    assert word.get() == "hello"
                    assert current().event == event  # type: ignore[union-attr]
                    yield number
                word.reset(token)
            except BaseException as error:
                failures.append(error)
                raise

        bus.subscribe("b", lambda _: words.append(word.get()), capacity=1)
        bus.subscribe("a", speaks, to="b")
        bus.publish("a", 0)
        bus.drain(LIMIT)
        assert ([], ["hello"] * 5) == (failures, words)


class TestObservables:
    """What a handler returns may be an observable."""

    @pytest.mark.parametrize("options", [{}, {"concurrency": 2}, {"through": ops.map(lambda e: e)}], ids=["one", "lanes", "piped"])
    @pytest.mark.parametrize("shape", ["function", "coroutine", "generator", "async generator"])
    def test_its_values_are_results(self, bus: EventBus, shape: str, options: Any) -> None:
        """As they come, children of the event, of whatever shape the handler is."""
        recorder = Recorder()

        def make(event: Event[int]) -> Observable[int]:
            return reactivex.timer(0.001).pipe(ops.flat_map(lambda _: reactivex.of(event.payload, event.payload + 1)))

        async def coroutine(event: Event[int]) -> Observable[int]:
            return make(event)

        def generator(event: Event[int]) -> Iterator[Observable[int]]:
            yield make(event)

        async def async_generator(event: Event[int]) -> AsyncIterator[Observable[int]]:
            yield make(event)

        handlers: dict[str, Any] = {
            "function": make,
            "coroutine": coroutine,
            "generator": generator,
            "async generator": async_generator,
        }
        parents: list[str | None] = []
        bus.subscribe("b", recorder)
        bus.subscribe("b", lambda e: parents.append(e.causation_id))
        bus.subscribe("a", handlers[shape], to="b", **options)
        sent = [bus.publish("a", number) for number in (10, 20)]
        bus.drain(LIMIT)
        assert [10, 11, 20, 21] == sorted(recorder.payloads)
        assert sorted(2 * [event.id for event in sent]) == sorted(map(str, parents))
        assert_books_balance(bus)

    def test_one_event_at_a_time(self, bus: EventBus) -> None:
        """The next event is begun when the observable of the one before has ended; no thread is held meanwhile."""
        subjects: list[Subject[int]] = []
        recorder = Recorder()

        def begin(event: Event[int]) -> Observable[int]:
            subjects.append(Subject())
            return subjects[-1]

        bus.subscribe("b", recorder)
        agent = bus.subscribe("a", begin, to="b")
        bus.publish_many("a", range(2))
        until(lambda: agent._strand.is_suspended and not agent._strand.is_running)
        assert 1 == len(subjects)
        subjects[0].on_next(5)
        subjects[0].on_completed()
        until(lambda: len(subjects) == 2)
        subjects[1].on_completed()
        bus.drain(LIMIT)
        assert [5] == recorder.payloads
        assert 2 == agent.statistics().handled

    @pytest.mark.parametrize("coroutine", [False, True])
    def test_one_that_fails(self, bus: EventBus, coroutine: bool) -> None:
        """That is a failure of the handler: retried, then a dead letter."""
        recorder = Recorder()

        def make(event: Event[int]) -> Observable[int]:
            return reactivex.concat(reactivex.of(1), reactivex.throw(ValueError("no")))

        async def amake(event: Event[int]) -> Observable[int]:
            return make(event)

        bus.subscribe("b", recorder)
        bus.subscribe("a", amake if coroutine else make, to="b", retry=Retry(2, backoff=0.001))
        bus.publish("a", 0)
        bus.drain(LIMIT)
        assert [1, 1] == recorder.payloads
        assert [("no", 2)] == [(str(letter.error), letter.attempts) for letter in bus.dead_letters]
        assert_books_balance(bus)
        bus.dead_letters.discard()

    @pytest.mark.parametrize("coroutine", [False, True])
    def test_disposal_lets_go_of_it(self, bus: EventBus, coroutine: bool) -> None:
        """Its resources are freed, and the event counted."""
        gone = threading.Event()

        def make(event: Event[int]) -> Observable[int]:
            return reactivex.never().pipe(ops.finally_action(gone.set))

        async def amake(event: Event[int]) -> Observable[int]:
            return make(event)

        agent = bus.subscribe("a", amake if coroutine else make, to="b", name="agent")
        bus.publish("a", 0)
        until(lambda: agent.statistics().pending == 1 and agent._strand.in_flight is not None)
        if coroutine:
            report = bus.close(0.05)
            assert ("agent",) == report.stuck
        else:
            until(lambda: agent._strand.is_suspended)
            agent.dispose()
            assert 1 == agent.statistics().dropped
        assert gone.wait(LIMIT)

    def test_the_same_value_types_as_results(self, bus: EventBus) -> None:
        """A request is an observable, too: its reply is what is published."""
        recorder = Recorder()
        bus.subscribe("double", lambda e: e.payload * 2, to=REPLY)
        bus.subscribe("b", recorder)
        bus.subscribe("a", lambda e: bus.request("double", e.payload), to="b")
        bus.publish_many("a", [1, 2])
        bus.drain(LIMIT)
        assert [2, 4] == recorder.payloads

    def test_full_mailboxes_hold_its_source_back(self, bus: EventBus) -> None:
        """A thread that emits waits for room, and so does a coroutine's observable."""
        for handler in (lambda e: reactivex.range(50), _arange):
            recorder = Recorder()
            reader = bus.subscribe("b", recorder, capacity=1)
            agent = bus.subscribe("a", handler, to="b")
            bus.publish("a", 0)
            bus.drain(LIMIT)
            assert list(range(50)) == recorder.payloads
            reader.dispose()
            agent.dispose()
        assert 0 == len(bus.dead_letters)

    @pytest.mark.parametrize("coroutine", [False, True])
    def test_too_much_at_once(self, bus: EventBus, coroutine: bool) -> None:
        """What can't be held back is refused when it gets too much."""

        def floods(event: Event[int]) -> Observable[int]:
            return reactivex.range(100_000)

        async def afloods(event: Event[int]) -> Observable[int]:
            return floods(event)

        bus.subscribe("a", afloods if coroutine else floods, to="b")
        bus.publish("a", 0)
        bus.drain(LIMIT)
        assert ["OverflowError"] == [type(letter.error).__name__ for letter in bus.dead_letters]
        bus.dead_letters.discard()

    @pytest.mark.parametrize("coroutine", [False, True])
    def test_an_interrupt_of_who_is_held_back(self, bus: EventBus, coroutine: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        """Ctrl-C comes out of the wait as it is, and costs the value that waited; the observable goes on."""
        source: Subject[Any] = Subject()

        class Interrupted(results.Alarm):
            def wait(self, timeout: float | None) -> bool:
                raise KeyboardInterrupt

        async def afollow(event: Event[int]) -> Observable[Any]:
            return source

        recorder, gate = Recorder(), Gate()
        bus.subscribe("b", lambda e: (gate(e), recorder(e)), capacity=1)
        bus.subscribe("a", afollow if coroutine else lambda e: source, to="b")
        bus.publish("a", 0)
        until(lambda: source.observers)
        monkeypatch.setattr(results, "AHEAD", 2)
        sent = 0
        with monkeypatch.context() as patch:
            patch.setattr(results, "Alarm", Interrupted)
            with pytest.raises(KeyboardInterrupt):
                for sent in range(100):
                    source.on_next(sent)
        gate.open()
        source.on_next("last")
        source.on_completed()
        bus.drain(LIMIT)
        assert [*range(sent), "last"] == recorder.payloads


async def _arange(event: Event[int]) -> Observable[int]:
    await asyncio.sleep(0)
    return reactivex.range(50)


class TestWhatGoesWrong:
    """While an event waits in the middle of its results."""

    @pytest.mark.parametrize("raised", [ValueError("finally"), SystemExit(1)], ids=["error", "exit"])
    @pytest.mark.parametrize("close", [False, True], ids=["dispose", "close"])
    def test_a_cleanup_that_raises(self, raised: BaseException, close: bool) -> None:
        """Costs its event: counted as failed, with a letter; whoever ends the subscription isn't told by an exception."""

        def generator(event: Event[int]) -> Iterator[int]:
            try:
                yield from range(10)
            finally:
                raise raised

        gate = Gate()
        bus = EventBus(close_timeout=0.05)
        bus.subscribe("b", gate, capacity=1)
        agent = bus.subscribe("a", generator, to="b", name="agent")
        bus.publish_many("a", range(2))
        until(lambda: agent._strand.is_suspended and not agent._strand.is_running)
        if close:
            bus.close()
        else:
            agent.dispose()
        statistics = agent.statistics()
        assert (1, 1, 0) == (statistics.failed, statistics.dropped, statistics.pending)
        assert [type(raised)] == [type(letter.error) for letter in bus.dead_letters]
        gate.open()
        bus.close()

    def test_an_observable_whose_cleanup_raises(self) -> None:
        """The same."""

        def boom() -> None:
            raise ValueError("cleanup")

        with EventBus() as bus:
            agent = bus.subscribe("a", lambda _: reactivex.never().pipe(ops.finally_action(boom)), to="b")
            bus.publish("a", 1)
            until(lambda: agent._strand.is_suspended and not agent._strand.is_running)
            agent.dispose()
            assert (1, 0) == (agent.statistics().failed, agent.statistics().pending)
            bus.dead_letters.discard()

    def test_an_earlier_value_had_failed(self, bus: EventBus) -> None:
        """Disposed while a later one waits for room: the event has failed, with its letter."""
        gate = Gate()
        bus.subscribe("b", gate, capacity=1)
        bus.publish("b", 0)
        gate.wait_until_entered()
        bus.publish("b", 0)

        def handler(value: str) -> str:
            if value == "bad":
                raise ValueError("bad")
            return value

        agent = bus.subscribe("a", handler, to="b", through=ops.flat_map(lambda e: reactivex.of("bad", "good")))
        bus.publish("a", 1)
        until(lambda: agent._strand.is_suspended and not agent._strand.is_running)
        agent.dispose()
        assert (1, ["bad"]) == (agent.statistics().failed, [str(letter.error) for letter in bus.dead_letters])
        gate.open()
        bus.dead_letters.discard()

    @pytest.mark.parametrize("make", [lambda: reactivex.throw(ValueError("no")), lambda: reactivex.timer(0.01).pipe(ops.map(invert))])
    def test_an_observable_of_a_timers_emission(self, bus: EventBus, make: Any) -> None:
        """Its failure is reported, though its event was settled."""
        bus.subscribe("a", lambda _: make(), to="b", through=ops.debounce(0.005))
        bus.publish("a", 1)
        until(lambda: len(bus.dead_letters))
        assert 1 == bus.dead_letters.discard()

    def test_a_coroutines_time_is_its_own(self, bus: EventBus) -> None:
        """A wait for room doesn't count against `timeout`; what the handler itself takes after it does."""
        gate = Gate()
        bus.subscribe("b", gate, capacity=1)
        bus.publish("b", 0)
        gate.wait_until_entered()
        bus.publish("b", 0)

        async def at_once(event: Event[str]) -> str:
            return event.payload

        async def later(event: Event[str]) -> str:
            await asyncio.sleep(0.001)
            return event.payload

        async def hangs(event: Event[str]) -> AsyncIterator[str]:
            yield event.payload
            await asyncio.sleep(1000)

        for handler in (at_once, later, hangs):
            bus.subscribe("a", handler, to="b", timeout=0.03)
        bus.publish("a", "x")
        time.sleep(0.1)
        assert 0 == len(bus.dead_letters)
        gate.open()
        bus.drain(LIMIT)
        assert [("hangs", Reason.TIMEOUT)] == [(letter.subscription, letter.reason) for letter in bus.dead_letters]
        assert ["x"] * 3 == gate.seen[2:]
        bus.dead_letters.discard()

    @pytest.mark.parametrize("scheduler", [EventLoopScheduler, lambda: ThreadPoolScheduler(1)], ids=["loop", "one thread"])
    def test_an_observable_on_a_scheduler_of_one_thread(self, scheduler: Any) -> None:
        """It waits for room, as a generator does."""
        with EventBus(scheduler=scheduler()) as bus:
            recorder = Recorder()
            bus.subscribe("b", recorder, capacity=2)
            bus.subscribe("a", lambda _: reactivex.from_(range(20)), to="b")
            bus.publish("a", 1)
            bus.drain(LIMIT)
            assert (list(range(20)), 0) == (recorder.payloads, len(bus.dead_letters))

    def test_a_circle_through_an_observable(self, bus: EventBus) -> None:
        """Is seen at once, whatever thread emits."""
        calls: list[int] = []

        def handler(event: Event[int]) -> Observable[int] | None:
            calls.append(event.payload)
            if len(calls) == 1:
                return reactivex.timer(0.005).pipe(ops.flat_map(lambda _: reactivex.of(1, 2, 3)))
            return None

        bus.subscribe("a", handler, to="a", capacity=1)
        began = time.monotonic()
        bus.publish("a", 0)
        bus.drain(LIMIT)
        assert time.monotonic() - began < LIMIT / 2
        assert all(letter.reason is Reason.OVERFLOW for letter in bus.dead_letters)
        assert 4 == len(calls) + bus.dead_letters.discard()

    def test_a_virtual_target_of_a_real_agent(self, bus: EventBus) -> None:
        """Nothing is let in over the bound: whoever moves the clock makes room."""
        scheduler = TestScheduler()
        recorder = Recorder()
        bus.subscribe("b", recorder, capacity=2, scheduler=scheduler)
        agent = bus.subscribe("a", same, to="b")
        bus.publish_many("a", range(10))
        deadline = time.monotonic() + LIMIT
        while len(recorder.payloads) < 10 and time.monotonic() < deadline:
            until(lambda: agent._strand.is_quiet() or (agent._strand.is_suspended and not agent._strand.is_running))
            scheduler.advance_by(1)
        assert (list(range(10)), 0) == (recorder.payloads, len(bus.dead_letters))

    def test_whoever_is_disposed_of_leaves_the_line(self, bus: EventBus) -> None:
        """A target that hangs keeps nobody's wait."""
        gate = Gate()
        target = bus.subscribe("b", gate, capacity=5)
        bus.publish("b", 0)
        gate.wait_until_entered()
        bus.publish_many("b", [0] * 5)
        for _ in range(5):
            agent = bus.subscribe("a", two, to="b")
            bus.publish("a", 1)
            until(lambda one=agent: one._strand.is_suspended and not one._strand.is_running)
            agent.dispose()
        assert 0 == len(target._strand.mailbox._waiters)
        gate.open()


def invert(_: Any) -> float:
    """Fails."""
    return 1 / 0


def _three(event: Event[int]) -> Iterator[int]:
    yield from [event.payload] * 3


async def _asame(event: Event[int]) -> int:
    await asyncio.sleep(0)
    return event.payload


async def _athree(event: Event[int]) -> AsyncIterator[int]:
    for _ in range(3):
        yield event.payload


class TestForgotten:
    """Results whose topic is forgotten."""

    @pytest.mark.parametrize("concurrency", [1, 3])
    @pytest.mark.parametrize("handler", [same, _three, lambda e: reactivex.of(e.payload), _asame, _athree])
    def test_a_name_outlives_its_topic(self, bus: EventBus, handler: Any, concurrency: int) -> None:
        """They go to whatever topic has that name, made anew if need be."""
        agent = bus.subscribe("a", handler, to="b", concurrency=concurrency)
        for n in range(3):
            recorder = Recorder()
            if n != 1:
                bus.subscribe("b", recorder)
            bus.publish_many("a", [n] * 4)
            bus.drain(LIMIT)
            assert {n} == set(recorder.payloads) or n == 1
            bus.forget("b")
        assert (12, 0) == (agent.statistics().handled, agent.statistics().failed)

    def test_a_topic_does_not(self, bus: EventBus) -> None:
        """Who gave a topic meant that one: it is closed."""
        bus.subscribe("a", same, to=bus.topic("b"))
        bus.forget("b")
        bus.topic("b")
        bus.publish("a", 1)
        bus.drain(LIMIT)
        assert ["BusClosedError"] == [type(letter.error).__name__ for letter in bus.dead_letters]
        bus.dead_letters.discard()

    def test_a_closed_bus_has_no_next_one(self) -> None:
        """Names outlive topics, not the bus."""
        bus, gate = EventBus(), Gate()
        bus.subscribe("a", lambda e: gate(e) or 1, to="b")
        bus.publish("a", 1)
        gate.wait_until_entered()
        bus.close(0.01, drain=False)
        gate.open()
        until(lambda: len(bus.dead_letters))
        assert ["BusClosedError"] == [type(letter.error).__name__ for letter in bus.dead_letters]

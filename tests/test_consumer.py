"""Supervised subscriptions: handlers, results, pipelines, retries."""

from __future__ import annotations

import threading
import time
from itertools import pairwise

import pytest
import reactivex as rx
from reactivex import operators as ops
from reactivex.scheduler import ImmediateScheduler
from reactivex.testing import TestScheduler

from rxbus import Event, EventBus, PayloadTypeError, Retry, current, operators
from tests.support import LIMIT, Gate, Recorder, assert_books_balance

QUICK = Retry(max_attempts=3, backoff=0.001, jitter=0)


class TestHandler:
    """What may handle events."""

    def test_function_method_partial_builtin_and_class(self, bus: EventBus) -> None:
        """Anything that can be called with one argument handles events."""
        from functools import partial

        seen: list[object] = []

        class Box:
            def __init__(self, event: Event[int]) -> None:
                seen.append(("class", event.payload))

        class Agent:
            def handle(self, event: Event[int]) -> None:
                seen.append(("method", event.payload))

            def __call__(self, event: Event[int]) -> None:
                seen.append(("call", event.payload))

        def two(kind: str, event: Event[int]) -> None:
            seen.append((kind, event.payload))

        into: list[Event[int]] = []
        for handler in (
            Box,
            Agent().handle,
            Agent(),
            partial(two, "partial"),
            into.append,
            lambda e, extra=1: seen.append(("lambda", extra)),
        ):
            bus.subscribe("a", handler)
        bus.publish("a", 1)
        bus.drain(LIMIT)
        assert {("class", 1), ("method", 1), ("call", 1), ("partial", 1), ("lambda", 1)} == set(seen)
        assert [1] == [event.payload for event in into]

    def test_observer(self, bus: EventBus) -> None:
        """An RxPY observer is a handler too, a topic for instance."""
        seen = Recorder()
        bus.subscribe("b", seen)
        bus.subscribe("a", bus.topic("b"))
        parent = bus.publish("a", 1)
        bus.drain(LIMIT)
        assert [1] == seen.payloads
        assert parent.id == seen.events[0].causation_id

    def test_names_come_from_handlers(self, bus: EventBus) -> None:
        """Without a name the handler's own serves, with a number for the second; a name is free again after dispose."""

        def audit(_: Event[int]) -> None: ...

        first = bus.subscribe("a", audit)
        second = bus.subscribe("b", audit)
        assert ["audit", "audit#2"] == [first.name, second.name]
        first.dispose()
        assert "audit" == bus.subscribe("c", audit).name
        assert "lambda" == bus.subscribe("c", lambda e: e).name


class TestResults:
    """`to=`."""

    def test_payload_becomes_a_child(self, bus: EventBus) -> None:
        """A result is published as a child of the event; `None` publishes nothing."""
        seen = Recorder()
        bus.subscribe("b", seen)
        bus.subscribe("a", lambda e: e.payload or None, to="b")
        events = bus.publish_many("a", [1, 0, 2], metadata={"user": "ada"})
        bus.drain(LIMIT)
        assert [1, 2] == seen.payloads
        assert [events[0].id, events[2].id] == [e.causation_id for e in seen.events]
        assert {"user": "ada"} == seen.events[0].metadata

    def test_event_goes_as_it_is(self, bus: EventBus) -> None:
        """A complete event of the target topic keeps its identity."""
        seen = Recorder()
        made: list[Event[int]] = []
        bus.subscribe("b", seen)

        def handler(event: Event[int]) -> Event[int]:
            made.append(event.derive("b", 2, {"extra": True}))
            return made[0]

        bus.subscribe("a", handler, to=bus.topic("b"))
        bus.publish("a", 1)
        bus.drain(LIMIT)
        assert made == seen.events
        assert made[0] is seen.events[0]

    def test_refused_result_fails_the_event(self, bus: EventBus) -> None:
        """A result of the wrong type is a failure of the handler that made it."""
        bus.topic("b", int)
        bus.subscribe("a", lambda e: "text", to="b", name="agent")
        assert 1 == bus.deliver("a", 1, timeout=LIMIT).failed
        [letter] = bus.dead_letters
        assert isinstance(letter.error, PayloadTypeError)
        assert "topic 'b' takes int, got str" == str(letter.error)

    def test_handled_event_is_reissued(self, bus: EventBus) -> None:
        """A handler that publishes the very event that it handles publishes a child of it."""
        seen = Recorder()

        def handler(event: Event[int]) -> None:
            seen(event)
            if event.hops == 0:
                bus.publish(event)

        bus.subscribe("a", handler)
        event = bus.publish("a", 1)
        bus.drain(LIMIT)
        assert [1, 1] == seen.payloads
        assert event is seen.events[0]
        assert event.id == seen.events[1].causation_id


class TestCurrent:
    """`rxbus.current()`."""

    def test_tells_what_is_being_handled(self, bus: EventBus) -> None:
        """Deep inside a handler, and in threads that copy the context; nowhere else."""
        import contextvars

        found: list[object] = []

        def deep() -> None:
            found.append(current())

        def handler(_: Event[int]) -> None:
            deep()
            thread = threading.Thread(target=contextvars.copy_context().run, args=(deep,))
            thread.start()
            thread.join()

        one = bus.subscribe("a", handler)
        event = bus.publish("a", 1)
        bus.drain(LIMIT)
        assert [(event, one, 1), (event, one, 1)] == found
        assert current() is None

    def test_context_variables_come_from_the_publisher(self, bus: EventBus) -> None:
        """Each handler runs in a copy of its publisher's context; what it sets there, nobody else sees."""
        import contextvars

        user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")
        seen: list[str] = []

        def handler(event: Event[str]) -> None:
            seen.append(user.get())
            user.set("changed by the handler")

        bus.subscribe("a", handler)
        for name in ("ada", "bob"):
            user.set(name)
            bus.publish("a", 1)
            bus.publish("a", 2)
        bus.drain(LIMIT)
        assert ["ada", "ada", "bob", "bob"] == seen
        assert "bob" == user.get()


class TestThrough:
    """A pipeline between mailbox and handler."""

    def test_handler_gets_what_the_pipeline_makes(self, bus: EventBus) -> None:
        """Filter and map; what the filter swallowed was handled."""
        seen: list[int] = []
        through = rx.compose(operators.payload(), ops.filter(lambda n: n % 2 == 0), ops.map(lambda n: n * 10))
        bus.subscribe("a", seen.append, through=through, name="agent")
        bus.publish_many("a", range(5))
        bus.drain(LIMIT)
        assert [0, 20, 40] == seen
        assert 5 == bus.statistics().subscriptions["agent"].handled

    def test_failing_handler_keeps_the_state_of_the_pipeline(self, bus: EventBus) -> None:
        """`scan` goes on counting after the handler raised."""
        seen: list[int] = []

        def handler(total: int) -> None:
            if total == 3:
                raise ValueError
            seen.append(total)

        bus.subscribe("a", handler, through=rx.compose(operators.payload(), ops.scan(lambda a, n: a + n, 0)), name="agent")
        bus.publish_many("a", [1, 2, 3])
        bus.drain(LIMIT)
        assert [1, 6] == seen
        assert [2] == [letter.event.payload for letter in bus.dead_letters]

    def test_failing_operator_loses_the_state_of_the_pipeline(self, bus: EventBus) -> None:
        """The pipeline is subscribed to anew, so `scan` begins again."""
        seen: list[int] = []

        def add(total: int, n: int) -> int:
            if n == 0:
                raise ValueError
            return total + n

        bus.subscribe("a", seen.append, through=rx.compose(operators.payload(), ops.scan(add, 0)), name="agent")
        bus.publish_many("a", [1, 2, 0, 5])
        bus.drain(LIMIT)
        assert [1, 3, 5] == seen

    def test_timers_take_their_time_from_the_strand(self) -> None:
        """Under virtual time a debounce comes due on the virtual clock, with the causality of the event that set it."""
        clock = TestScheduler()
        bus = EventBus(scheduler=clock)
        seen: list[tuple[float, str | None]] = []

        def handler(event: Event[int]) -> str:
            seen.append((clock.clock, event.id))
            return "quiet"

        late = Recorder()
        bus.subscribe("a", handler, through=ops.debounce(5.0), to="b")
        bus.subscribe("b", late)
        bus.publish("a", 1)
        event = bus.publish("a", 2)
        clock.advance_to(4.0)
        assert [] == seen
        clock.advance_to(20.0)
        assert [event.id] == [known for _, known in seen]
        assert 5.0 <= seen[0][0] <= 6.0
        assert [event.id] == [e.causation_id for e in late.events]
        assert 2 == bus.statistics().subscriptions["handler"].handled
        assert bus.close().unhandled == {}

    def test_late_failure_of_a_timer_is_reported(self, caplog: pytest.LogCaptureFixture) -> None:
        """What a timer's emission raises is logged and a dead letter, though its event was handled already."""
        clock = TestScheduler()
        bus = EventBus(scheduler=clock)
        calls: list[int] = []

        def handler(event: Event[int]) -> None:
            calls.append(event.payload)
            if event.payload == 1:
                raise ValueError("late")

        bus.subscribe("a", handler, through=ops.debounce(1.0), name="agent")
        bus.publish("a", 1)
        clock.advance_to(10.0)
        bus.publish("a", 2)
        clock.advance_to(20.0)
        assert [1, 2] == calls
        assert [1] == [letter.event.payload for letter in bus.dead_letters]
        assert "late" in caplog.text
        counted = assert_books_balance(bus).subscriptions["agent"]
        assert (2, 2, 0) == (counted.offered, counted.handled, counted.failed)
        bus.close()

    def test_what_operators_hold_comes_out_at_the_end(self, bus: EventBus) -> None:
        """When the topic completes, so does the pipeline: a buffer that isn't full is flushed."""
        seen: list[list[int]] = []
        bus.subscribe("a", seen.append, through=rx.compose(operators.payload(), ops.buffer_with_count(2)))
        bus.publish_many("a", [1, 2, 3])
        bus.close()
        assert [[1, 2], [3]] == seen

    def test_several_values_of_one_event(self, bus: EventBus) -> None:
        """One event may make many values; it is settled, and counted, once."""
        seen: list[int] = []

        def handler(n: int) -> None:
            if n % 2:
                raise ValueError(n)
            seen.append(n)

        through = ops.flat_map(lambda e: rx.from_iterable(range(e.payload)))
        bus.subscribe("a", handler, through=through, name="agent")
        receipt = bus.deliver("a", 5, timeout=LIMIT)
        assert [0, 2, 4] == seen
        assert (0, 1) == (receipt.handled, receipt.failed)
        assert 1 == len(bus.dead_letters)

    def test_emission_from_a_foreign_thread_comes_back_to_the_strand(self, bus: EventBus) -> None:
        """Whatever thread an operator emits on, the handler never overlaps with itself."""
        inside, most, done = 0, 0, threading.Event()
        calls = 0

        def handler(_: object) -> None:
            nonlocal inside, most, calls
            inside += 1
            most = max(most, inside)
            time.sleep(0.001)
            inside -= 1
            calls += 1
            if calls == 40:
                done.set()

        from reactivex.scheduler import NewThreadScheduler

        def both(source: rx.Observable[Event[int]]) -> rx.Observable[Event[int]]:
            return rx.merge(source, source.pipe(ops.observe_on(NewThreadScheduler())))

        bus.subscribe("a", handler, through=both)
        bus.publish_many("a", range(20))
        assert done.wait(LIMIT)
        assert 1 == most

    def test_start_with_is_handled_on_the_strand(self, bus: EventBus) -> None:
        """A pipeline that emits when it is subscribed to does so on the bus's threads, before the first event."""
        seen: list[tuple[object, bool]] = []
        caller = threading.get_ident()
        bus.subscribe(
            "a", lambda v: seen.append((v, threading.get_ident() == caller)), through=rx.compose(operators.payload(), ops.start_with(0))
        )
        bus.publish("a", 1)
        bus.drain(LIMIT)
        assert [(0, False), (1, False)] == seen


class TestRetry:
    """`retry=`."""

    def test_repeats_with_the_same_event_in_order(self, bus: EventBus) -> None:
        """A failing event is tried again before the next one is begun; attempts are numbered."""
        seen: list[tuple[int, int]] = []

        def handler(event: Event[int]) -> None:
            delivery = current()
            assert delivery is not None
            seen.append((event.payload, delivery.attempt))
            if event.payload == 1 and delivery.attempt < 3:
                raise ValueError

        bus.subscribe("a", handler, retry=QUICK, name="agent")
        bus.publish_many("a", [0, 1, 2])
        bus.drain(LIMIT)
        assert [(0, 1), (1, 1), (1, 2), (1, 3), (2, 1)] == seen
        counted = assert_books_balance(bus).subscriptions["agent"]
        assert (3, 0, 2) == (counted.handled, counted.failed, counted.retried)
        assert 0 == len(bus.dead_letters)

    def test_gives_up_after_the_last_attempt(self, bus: EventBus) -> None:
        """One dead letter, with the number of attempts."""

        def handler(_: Event[int]) -> None:
            raise ValueError("always")

        bus.subscribe("a", handler, retry=QUICK, name="agent")
        assert 1 == bus.deliver("a", 1, timeout=LIMIT).failed
        assert [3] == [letter.attempts for letter in bus.dead_letters]
        assert 2 == bus.statistics().subscriptions["agent"].retried

    def test_only_what_on_says(self, bus: EventBus) -> None:
        """Other errors are given up at once."""
        calls: list[int] = []

        def handler(event: Event[int]) -> None:
            calls.append(event.payload)
            raise KeyError if event.payload else ValueError

        bus.subscribe("a", handler, retry=Retry(3, backoff=0, on=KeyError))
        bus.publish_many("a", [0, 1])
        bus.drain(LIMIT)
        assert [0, 1, 1, 1] == calls

    def test_backs_off_on_the_virtual_clock_without_a_thread(self) -> None:
        """The pauses grow by the factor, in virtual seconds; nothing sleeps."""
        clock = TestScheduler()
        bus = EventBus(scheduler=clock)
        tries: list[float] = []

        def handler(_: Event[int]) -> None:
            tries.append(clock.clock)
            raise ValueError

        bus.subscribe("a", handler, retry=Retry(4, backoff=10.0, factor=2.0, max_backoff=100.0, jitter=0), name="agent")
        bus.publish("a", 1)
        clock.advance_to(5.0)
        assert 1 == bus.statistics().subscriptions["agent"].pending
        clock.advance_to(200.0)
        assert [10.0, 20.0, 40.0] == [pytest.approx(b - a, abs=0.5) for a, b in pairwise(tries)]
        assert 1 == len(bus.dead_letters)
        bus.close()

    def test_holds_no_worker_while_it_backs_off(self) -> None:
        """With a single worker, another subscription handles events during the pause."""
        with EventBus(workers=1) as bus:
            failed, seen = threading.Event(), Recorder()

            def failing(_: Event[int]) -> None:
                failed.set()
                raise ValueError

            bus.subscribe("a", failing, retry=Retry(2, backoff=0.5, jitter=0), name="failing")
            bus.subscribe("b", seen)
            bus.publish("a", 1)
            assert failed.wait(LIMIT)
            bus.deliver("b", 2, timeout=0.4)
            assert [2] == seen.payloads
            bus.drain(LIMIT)

    def test_value_of_a_pipeline_is_repeated_alone(self, bus: EventBus) -> None:
        """The handler gets the same value again; the pipeline doesn't see the event twice, and later values wait."""
        mapped: list[int] = []
        seen: list[int] = []
        failed: set[int] = set()

        def double(event: Event[int]) -> rx.Observable[int]:
            mapped.append(event.payload)
            return rx.of(event.payload, event.payload + 1)

        def handler(n: int) -> None:
            if n not in failed:
                failed.add(n)
                raise ValueError
            seen.append(n)

        bus.subscribe("a", handler, through=ops.flat_map(double), retry=QUICK, name="agent")
        bus.publish_many("a", [10, 20])
        bus.drain(LIMIT)
        assert [10, 20] == mapped
        assert [10, 11, 20, 21] == seen
        assert 2 == assert_books_balance(bus).subscriptions["agent"].handled

    def test_failed_operator_gets_the_event_again(self, bus: EventBus) -> None:
        """After an operator's failure the event is offered to the rebuilt pipeline."""
        tries: list[int] = []
        seen: list[int] = []

        def flaky(event: Event[int]) -> int:
            tries.append(event.payload)
            if len(tries) == 1:
                raise ValueError
            return event.payload

        bus.subscribe("a", seen.append, through=ops.map(flaky), retry=QUICK)
        bus.publish_many("a", [1, 2])
        bus.drain(LIMIT)
        assert [1, 1, 2] == tries
        assert [1, 2] == seen

    def test_inline_scheduler_retries_too(self) -> None:
        """With an ImmediateScheduler the second attempt comes from a pool thread, and drain waits for it."""
        with EventBus(scheduler=ImmediateScheduler()) as bus:
            tries: list[int] = []

            def flaky(event: Event[int]) -> None:
                tries.append(event.payload)
                if len(tries) == 1:
                    raise ValueError

            bus.subscribe("a", flaky, retry=QUICK)
            bus.publish("a", 1)
            bus.drain(LIMIT)
            assert [1, 1] == tries

    def test_dispose_releases_the_event_that_backs_off(self, bus: EventBus) -> None:
        """It is counted as dropped, at once."""
        failed = threading.Event()

        def failing(_: Event[int]) -> None:
            failed.set()
            raise ValueError

        one = bus.subscribe("a", failing, retry=Retry(2, backoff=30.0), name="agent")
        bus.publish_many("a", [1, 2])
        assert failed.wait(LIMIT)
        one._strand.wait_until(lambda: not one._strand.is_running, time.monotonic() + LIMIT)
        one.dispose()
        counted = assert_books_balance(bus).subscriptions["agent"]
        assert (2, 2, 0) == (counted.offered, counted.dropped, counted.pending)


class TestPause:
    """`pause` and `resume`."""

    def test_events_wait_while_paused(self, bus: EventBus) -> None:
        """Nothing is taken until `resume`; then everything is handled in order."""
        seen = Recorder()
        one = bus.subscribe("a", seen)
        one.pause()
        bus.publish_many("a", range(3))
        assert 3 == one.statistics().pending
        one.resume()
        bus.drain(LIMIT)
        assert [0, 1, 2] == seen.payloads

    def test_repr_says_how_it_is(self, bus: EventBus) -> None:
        """Paused, busy, disposed."""
        gate = Gate()
        one = bus.subscribe("a", gate, name="agent")
        assert "Subscription('agent' on 'a': 0 pending)" == repr(one)
        one.pause()
        assert "Subscription('agent' on 'a': paused)" == repr(one)
        with one:
            pass
        assert "Subscription('agent' on 'a': disposed)" == repr(one)


class TestAttempts:
    """The number of the attempt."""

    def test_is_that_of_each_value(self, bus: EventBus) -> None:
        """A value behind one that was tried again is itself tried for the first time."""
        seen: list[tuple[int, int]] = []

        def handler(value: int) -> None:
            delivery = current()
            assert delivery is not None
            seen.append((value, delivery.attempt))
            if seen.count((0, 1)) == len(seen):
                raise ValueError

        bus.subscribe("a", handler, through=ops.flat_map(lambda e: rx.of(0, 1)), retry=Retry(3, backoff=0.001))
        bus.publish("a", "x")
        bus.drain(LIMIT)
        assert [(0, 1), (0, 2), (1, 1)] == seen

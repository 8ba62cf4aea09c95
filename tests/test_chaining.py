"""The ways to chain agents, each with five events of which the second fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import reactivex as rx
from reactivex import abc
from reactivex import operators as ops
from reactivex.scheduler import ImmediateScheduler, ThreadPoolScheduler

from rxbus import Event, EventBus, operators
from tests.support import LIMIT, Recorder, assert_books_balance


def research(event: Event[int]) -> str:
    """Fails on the second event."""
    if event.payload == 2:
        raise ValueError("no result")
    return f"r{event.payload}"


def own_pool() -> None:
    """The bus's own pool."""


SCHEDULERS: dict[str, Callable[[], abc.SchedulerBase | None]] = {
    "own pool": own_pool,
    "RxPY ThreadPoolScheduler(8)": lambda: ThreadPoolScheduler(8),
    "ImmediateScheduler": ImmediateScheduler,
}


@pytest.fixture(params=SCHEDULERS.values(), ids=SCHEDULERS.keys())
def chained(request: pytest.FixtureRequest) -> Any:
    """A bus on each set-up, with a recorder on the topic `report`."""
    with EventBus(scheduler=request.param()) as bus:
        seen = Recorder()
        bus.subscribe("report", seen, name="recorder")
        yield bus, seen
        bus.drain(LIMIT)
        assert_books_balance(bus)


def publish_five(bus: EventBus) -> list[Event[int]]:
    """One to five; everything that follows from them has been handled when it returns."""
    events = [bus.publish("user.query", n, metadata={"user": "ada"}) for n in range(1, 6)]
    bus.drain(LIMIT)
    return events


def assert_children(parents: list[Event[int]], children: list[Event[Any]]) -> None:
    """Each child was caused by its parent."""
    assert [p.id for p in parents] == [c.causation_id for c in children]
    assert [p.id for p in parents] == [c.correlation_id for c in children]
    assert all(c.hops == 1 and c.metadata == {"user": "ada"} for c in children)


class TestRawChain:
    """`topic.pipe(...).subscribe(other.on_next)`."""

    def test_uncaught_failure_ends_the_chain(self, chained: tuple[EventBus, Recorder], caplog: pytest.LogCaptureFixture) -> None:
        """The event that failed is a dead letter, what is queued is dropped, and one warning says so."""
        bus, seen = chained
        bus.topic("user.query").pipe(ops.map(research)).subscribe(bus.topic("report").on_next)
        events = publish_five(bus)
        assert ["r1"] == seen.payloads
        assert_children(events[:1], seen.events)
        assert [2] == [letter.event.payload for letter in bus.dead_letters]
        [warning] = [record for record in caplog.records if record.levelname == "WARNING"]
        assert "observer@user.query" in warning.getMessage()
        counted = bus.statistics().subscriptions["observer@user.query"]
        assert (1, 1) == (counted.handled, counted.failed)
        assert counted.dropped == counted.offered - 2

    def test_catch_with_a_fallback_ends_the_chain(self, chained: tuple[EventBus, Recorder], caplog: pytest.LogCaptureFixture) -> None:
        """The natural chain: the fallback goes out in the place of the source; nobody failed, for the error was caught."""
        bus, seen = chained
        bus.topic("user.query").pipe(
            ops.filter(lambda e: e.payload > 0),
            ops.map(research),
            ops.catch(lambda error, source: rx.of(f"sorry: {error}")),
        ).subscribe(bus.topic("report").on_next)
        events = publish_five(bus)
        assert ["r1", "sorry: no result"] == seen.payloads
        assert_children(events[:2], seen.events)
        assert 0 == len(bus.dead_letters)
        assert 1 == len([record for record in caplog.records if record.levelname == "WARNING"])
        counted = bus.statistics().subscriptions["observer@user.query"]
        assert (2, 0) == (counted.handled, counted.failed)

    def test_catch_that_goes_back_to_the_source(self, chained: tuple[EventBus, Recorder]) -> None:
        """`catch(lambda error, source: source)` on a raw chain subscribes to the topic anew: what was queued is dropped."""
        bus, seen = chained
        bus.topic("user.query").pipe(ops.map(research), ops.catch(lambda _, source: source)).subscribe(bus.topic("report").on_next)
        publish_five(bus)
        bus.publish("user.query", 6)
        bus.drain(LIMIT)
        assert "r1" == seen.payloads[0]
        assert "r6" == seen.payloads[-1]

    def test_raising_observer_gets_the_next_event(self, chained: tuple[EventBus, Recorder]) -> None:
        """An observer that raises costs that event; it is logged, counted and a dead letter, and it is called again."""
        bus, seen = chained
        report = bus.topic("report")
        bus.topic("user.query").subscribe(lambda e: report.on_next(research(e)))
        publish_five(bus)
        assert ["r1", "r3", "r4", "r5"] == seen.payloads
        assert [2] == [letter.event.payload for letter in bus.dead_letters]

    def test_own_on_error_catches(self, chained: tuple[EventBus, Recorder]) -> None:
        """A chain whose subscriber takes errors has caught them: no dead letter, but the chain has ended."""
        bus, seen = chained
        errors: list[Exception] = []
        bus.topic("user.query").pipe(ops.map(research)).subscribe(bus.topic("report").on_next, errors.append)
        publish_five(bus)
        assert ["r1"] == seen.payloads
        assert ["no result"] == [str(error) for error in errors]
        assert 0 == len(bus.dead_letters)

    def test_take_ends_itself_without_a_warning(self, chained: tuple[EventBus, Recorder], caplog: pytest.LogCaptureFixture) -> None:
        """A chain that had enough is no failure."""
        bus, seen = chained
        bus.topic("user.query").pipe(ops.take(2), ops.map(lambda e: e.payload)).subscribe(bus.topic("report").on_next)
        publish_five(bus)
        assert [1, 2] == seen.payloads
        assert [] == [record for record in caplog.records if record.levelno >= 30]


class TestAttempt:
    """`operators.attempt`."""

    def test_survives_a_failing_item(self, chained: tuple[EventBus, Recorder]) -> None:
        """The failing item is left out, its event is a dead letter, and the chain goes on."""
        bus, seen = chained
        bus.topic("user.query").pipe(operators.attempt(research)).subscribe(bus.topic("report").on_next)
        events = publish_five(bus)
        assert ["r1", "r3", "r4", "r5"] == seen.payloads
        assert_children([events[0], *events[2:]], seen.events)
        [letter] = bus.dead_letters
        assert ("observer@user.query", 2, "no result") == (letter.subscription, letter.event.payload, str(letter.error))
        counted = bus.statistics().subscriptions["observer@user.query"]
        assert (5, 4, 1, 0) == (counted.offered, counted.handled, counted.failed, counted.dropped)


class TestThrough:
    """`subscribe(through=...)`."""

    def test_pipeline_is_rebuilt(self, chained: tuple[EventBus, Recorder]) -> None:
        """A failing operator costs that event; the mailbox keeps what is queued."""
        bus, seen = chained
        bus.subscribe("user.query", lambda value: value, through=ops.map(research), to="report", name="agent")
        events = publish_five(bus)
        assert ["r1", "r3", "r4", "r5"] == seen.payloads
        assert_children([events[0], *events[2:]], seen.events)
        assert [("agent", 2)] == [(letter.subscription, letter.event.payload) for letter in bus.dead_letters]
        counted = bus.statistics().subscriptions["agent"]
        assert (5, 4, 1, 0) == (counted.offered, counted.handled, counted.failed, counted.dropped)

    @pytest.mark.parametrize("again", [ops.retry(), ops.catch(lambda _, source: source)], ids=["retry", "catch source"])
    def test_resubscription_inside_reattaches(self, chained: tuple[EventBus, Recorder], again: Any) -> None:
        """`retry()` and `catch(lambda error, source: source)` swallow the failing event and lose nothing else."""
        bus, seen = chained
        bus.subscribe("user.query", lambda value: value, through=rx.compose(ops.map(research), again), to="report", name="agent")
        publish_five(bus)
        assert ["r1", "r3", "r4", "r5"] == seen.payloads
        assert 0 == len(bus.dead_letters)
        counted = bus.statistics().subscriptions["agent"]
        assert (5, 5, 0, 0) == (counted.offered, counted.handled, counted.failed, counted.dropped)

    def test_catch_with_a_fallback_ends_the_subscription(
        self, chained: tuple[EventBus, Recorder], caplog: pytest.LogCaptureFixture
    ) -> None:
        """A pipeline that completes ends its subscription; that is logged, and what is queued is dropped."""
        bus, seen = chained
        caplog.set_level("INFO", logger="rxbus")
        fallback = ops.catch(rx.of("sorry"))
        bus.subscribe("user.query", lambda value: value, through=rx.compose(ops.map(research), fallback), to="report", name="agent")
        publish_five(bus)
        assert ["r1", "sorry"] == seen.payloads
        assert "agent" not in bus.subscriptions
        assert "subscription 'agent' on 'user.query' has ended: its pipeline completed" in caplog.text
        counted = bus.statistics().subscriptions["agent"]
        assert (2, 0) == (counted.handled, counted.failed)
        assert counted.dropped == counted.offered - 2

"""Topics: Subjects that stamp, and outlive their upstreams."""

from __future__ import annotations

import pytest
import reactivex as rx
from reactivex import operators as ops
from reactivex.observable.mixins import MulticastingMixin
from reactivex.subject import Subject

from rxbus import BusClosedError, Event, EventBus, PayloadTypeError, Topic
from tests.support import LIMIT, Recorder, assert_books_balance


class TestAsSubject:
    """What a topic is to RxPY."""

    def test_overrides_no_operator(self) -> None:
        """`publish`, `join`, `retry`, `run`, `replay` and all the others are operators of every observable, of topics too."""
        operators = {name for kind in rx.Observable.__mro__ for name in vars(kind) if not name.startswith("_")}
        ours = {name for kind in (Topic, *Topic.__mro__[1:2]) for name in vars(kind) if not name.startswith("_")}
        allowed = {name for name in vars(Subject) if not name.startswith("_")} | {"lock"}
        assert [] == sorted(ours & operators - allowed)
        assert "publish" in vars(MulticastingMixin)

    def test_fluent_and_piped(self, bus: EventBus) -> None:
        """Both ways of composing."""
        got: list[int] = []
        topic = bus.topic("a")
        topic.map(lambda e: e.payload).subscribe(got.append)
        topic.pipe(ops.map(lambda e: -e.payload)).subscribe(got.append)
        topic.emit(1)
        bus.drain(LIMIT)
        assert {1, -1} == set(got)

    def test_multicasting_operators(self, bus: EventBus) -> None:
        """`share`, `publish` and `replay` work on a topic as on any observable."""
        first, second = [], []
        shared = bus.topic("a").pipe(ops.map(lambda e: e.payload), ops.share())
        shared.subscribe(first.append)
        shared.subscribe(second.append)
        bus.publish_many("a", [1, 2])
        bus.drain(LIMIT)
        assert [1, 2] == first == second
        assert 1 == bus.statistics().topics["a"].subscribers

    def test_as_context_manager_it_is_not_disposed(self, bus: EventBus) -> None:
        """`dispose` does nothing: only the bus ends a topic."""
        topic = bus.topic("a")
        topic.dispose()
        seen = Recorder()
        bus.subscribe("a", seen)
        topic.emit(1)
        bus.drain(LIMIT)
        assert [1] == seen.payloads

    def test_late_subscriber_of_an_ended_topic_is_completed(self, bus: EventBus) -> None:
        """As with any Subject."""
        topic = bus.topic("a")
        bus.close()
        ended: list[str] = []
        topic.subscribe(lambda _: None, on_completed=lambda: ended.append("completed"))
        assert ["completed"] == ended
        with pytest.raises(BusClosedError):
            topic.on_next(1)


class TestOnNext:
    """Events and bare payloads."""

    def test_takes_both(self, bus: EventBus) -> None:
        """A complete event keeps its identity, a payload gets one."""
        seen = Recorder()
        bus.subscribe("a", seen)
        event = Event("a", 1)
        bus.topic("a").on_next(event)
        bus.topic("a").on_next(2)
        bus.drain(LIMIT)
        assert [1, 2] == seen.payloads
        assert event is seen.events[0]

    def test_causality_of_the_natural_chain(self, bus: EventBus) -> None:
        """Through map, flat_map and a second hop: each payload is a child of the event that was being handled."""
        seen = Recorder()
        a, b, c = bus.topic("a"), bus.topic("b"), bus.topic("c")
        a.pipe(ops.flat_map(lambda e: rx.of(e.payload, e.payload * 10))).subscribe(b.on_next)
        b.pipe(ops.map(lambda e: e.payload + 1)).subscribe(c.on_next)
        bus.subscribe("c", seen)
        first = a.emit(1, {"user": "ada"})
        bus.drain(LIMIT)
        assert [2, 11] == seen.payloads
        assert {first.id} == {e.correlation_id for e in seen.events}
        assert [2, 2] == [e.hops for e in seen.events]
        assert all(e.metadata == {"user": "ada"} for e in seen.events)

    def test_wrong_payload_in_a_chain_is_the_chains_failure(self, bus: EventBus) -> None:
        """A typed topic refuses; the event upstream is a dead letter, and the chain goes on."""
        seen = Recorder()
        bus.topic("b", int)
        bus.subscribe("b", seen)
        bus.topic("a").pipe(ops.map(lambda e: e.payload)).subscribe(bus.topic("b").on_next)
        bus.publish_many("a", [1, "text", 3])
        bus.drain(LIMIT)
        assert [1, 3] == seen.payloads
        assert ["text"] == [letter.event.payload for letter in bus.dead_letters]
        assert isinstance(next(iter(bus.dead_letters)).error, PayloadTypeError)
        assert_books_balance(bus)

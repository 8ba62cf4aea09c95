"""Recorded traffic as lanes: recordings by their shape, or plain events."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from rxbus import Event, EventBus
from rxbus.lanes import lanes_of
from rxbus.marks import Mark


def recording(*notifications: tuple[Any, ...], name: str = "rec", started: float = 0.0) -> SimpleNamespace:
    """What has the shape of a recording."""
    made = tuple(SimpleNamespace(kind=kind, time=moment, value=value[0] if value else None) for kind, moment, *value in notifications)
    return SimpleNamespace(name=name, started=started, notifications=made)


class Broken:
    """Its `repr` and its comparison raise."""

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        raise RuntimeError("no")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no")


class TestRecordings:
    """Name, beginning and notifications."""

    def test_kinds(self) -> None:
        """Items, an error and completion become marks of these kinds, at their times."""
        (lane,) = lanes_of(recording(("next", 1.0, "a"), ("error", 2.0, ValueError("no")), name="x", started=0.5))
        assert ("x", 0.5) == (lane.name, lane.begin)
        assert [("next", 1.0, "a"), ("error", 2.0, "ValueError: no")] == [(m.kind, m.time, m.label) for m in lane.marks]
        (lane,) = lanes_of(recording(("completed", 3.0)))
        assert [Mark(3.0, kind="completed", hint="completed")] == list(lane.marks)

    def test_events_bring_their_story(self) -> None:
        """Payload, identity, story and cause come from the event, the moment from the recording."""
        parent = Event("a", "p", id="1", time=5.0)
        child = parent.derive("b", {"summary": 42})
        (lane,) = lanes_of(recording(("next", 1.0, parent), ("next", 2.0, child)))
        assert [("p", 1.0, "1", "1", None), ("summary: 42", 2.0, "1", child.id, "1")] == [
            (m.label, m.time, m.story, m.id, m.cause) for m in lane.marks
        ]
        assert "b · {'summary': 42}" in lane.marks[1].hint

    def test_events_that_were_brought_together(self) -> None:
        """A tuple of them is labelled with their payloads, however it is nested, and has their story if it is one."""
        parent = Event("a", "p", id="1")
        child, other = parent.derive("b", "c"), Event("a", "x")
        values = (parent, child), ((parent, other), 5), (1, 2), ()
        (lane,) = lanes_of(recording(*(("next", float(n), value) for n, value in enumerate(values))))
        assert [("('p', 'c')", "1"), ("(('p', 'x'), 5)", None), ("(1, 2)", None), ("()", None)] == [(m.label, m.story) for m in lane.marks]
        assert "('p', 'c')" == lane.marks[0].hint
        (lane,) = lanes_of(recording(("next", 1.0, (parent, child))), lambda pair: "+".join(pair))
        assert ["p+c"] == [m.label for m in lane.marks]

    def test_empty(self) -> None:
        """A recording of nothing is a lane without marks."""
        (lane,) = lanes_of(recording(name="quiet"))
        assert ("quiet", ()) == (lane.name, lane.marks)


class TestSequences:
    """Plain events."""

    def test_grouped_by_topic(self) -> None:
        """A lane for each topic, in the order of appearance."""
        events = [Event("b", 1, time=1.0), Event("a", 2, time=2.0), Event("b", 3, time=3.0)]
        assert [("b", ["1", "3"]), ("a", ["2"])] == [(lane.name, [m.label for m in lane.marks]) for lane in lanes_of(events)]

    def test_iterator_and_nothing(self) -> None:
        """Any iterable will do; an empty one has no lanes."""
        assert 1 == len(lanes_of(iter([Event("a", 1)])))
        assert [] == lanes_of([])


class TestLabels:
    """What is written on the marbles."""

    def test_mapping(self) -> None:
        """From label to payload, as marble strings have it; payloads that can't be hashed too, and types are kept apart."""
        stream = recording(("next", 0, 1), ("next", 1, True), ("next", 2, [7]), ("next", 3, "other"))
        (lane,) = lanes_of(stream, {"a": 1, "b": [7]})
        assert ["a", "True", "b", "other"] == [m.label for m in lane.marks]

    def test_function(self) -> None:
        """Of the payload; where it raises, the payload itself is shown."""
        (lane,) = lanes_of([Event("a", "xyz"), Event("a", 5)], lambda payload: payload.upper())
        assert ["XYZ", "5"] == [m.label for m in lane.marks]

    @pytest.mark.parametrize("values", [None, {"a": 1, "b": [2]}, str], ids=["plain", "mapping", "function"])
    def test_broken_payload(self, values: Any) -> None:
        """A payload that raises whatever is asked of it is named by its type."""
        (lane,) = lanes_of(recording(("next", 0, Broken())), values)
        assert ["<Broken>"] == [m.label for m in lane.marks]

    def test_large_payload(self) -> None:
        """Megabytes are cut."""
        (lane,) = lanes_of([Event("a", "x" * 5_000_000), Event("a", list(range(100_000)))])
        assert max(len(m.label) + len(m.hint) for m in lane.marks) < 600


class TestNoStreams:
    """What can't be drawn is refused, naming the argument and what was found."""

    @pytest.mark.parametrize("stream", [None, 5, "a-b|", b"x", {"a": 1}, object()], ids=repr)
    def test_no_stream(self, stream: Any) -> None:
        """Neither recordings nor sequences."""
        with pytest.raises(TypeError, match="streams must be recordings or sequences of Events, got "):
            lanes_of(stream)

    def test_topic_is_no_stream(self, bus: EventBus) -> None:
        """A topic has to be recorded first."""
        with pytest.raises(TypeError, match=r"got Topic\('a'\)"):
            lanes_of(bus.topic("a"))

    def test_sequence_of_something_else(self) -> None:
        """Payloads alone have no time."""
        with pytest.raises(TypeError, match="got a sequence with 5"):
            lanes_of([Event("a", 1), 5])

    @pytest.mark.parametrize("bad", [("begun", 0.0), ("next", "soon"), ("next", float("nan")), ("completed", float("inf"))])
    def test_broken_notification(self, bad: Any) -> None:
        """A recording whose notifications are none."""
        with pytest.raises(TypeError, match="notifications with kind, time and value"):
            lanes_of(recording(bad))

    @pytest.mark.parametrize("values", [5, "ab", ["a"]])
    def test_bad_values(self, values: Any) -> None:
        """Neither a mapping nor a function."""
        with pytest.raises(TypeError, match="values must be a mapping from label to payload, or a function of the payload, got "):
            lanes_of([], values)

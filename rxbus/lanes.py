"""Recorded traffic as lanes of a marble diagram.

A stream is a recording, known by its shape (``name``, ``started`` and ``notifications``, each with ``kind``, ``time`` and
``value``), or a plain sequence of events, which makes a lane for each topic in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias, cast

from .arguments import describe
from .event import Event
from .lettering import say
from .marks import Mark
from .plan import Lane

__all__ = ["Values", "lanes_of"]

Values: TypeAlias = "Mapping[str, object] | Callable[[Any], object] | None"
LABEL = 80
"""Cells of a label before there is a place to fit it into."""
HINT = 300
_NO_STREAMS = (str, bytes, Mapping)
_KINDS = ("next", "error", "completed")


def lanes_of(stream: object, values: Values = None, name: str = "streams") -> list[Lane]:
    """The lanes of one stream.

    ``values`` says what to write on the marbles: a mapping from label to payload, as marble strings have it, or a function of
    the payload. An event that repeats (replayed, or on several lanes) keeps its identity.

    Raises: `TypeError` for what is no stream, naming the argument.
    """
    label = _labels(values)
    notifications = getattr(stream, "notifications", None)
    if notifications is not None and isinstance(getattr(stream, "name", None), str):
        recording = cast("Any", stream)
        marks = [_mark(one, label, name) for one in notifications]
        begin = getattr(recording, "started", None)
        return [Lane(recording.name, tuple(marks), begin if isinstance(begin, int | float) and math.isfinite(begin) else None)]
    if isinstance(stream, Iterable) and not isinstance(stream, _NO_STREAMS) and not hasattr(cast("object", stream), "subscribe"):
        found: dict[str, list[Mark]] = {}
        for event in cast("Iterable[object]", stream):
            if not isinstance(event, Event):
                raise TypeError(f"{name} must be recordings or sequences of Events, got a sequence with {describe(event)}")
            found.setdefault(event.topic, []).append(_of_event(cast("Event[Any]", event), event.time, label))
        return [Lane(topic, tuple(marks)) for topic, marks in found.items()]
    raise TypeError(f"{name} must be recordings or sequences of Events, got {describe(cast('object', stream))}")


def _mark(notification: Any, label: Callable[[Any], str], name: str) -> Mark:
    kind, time, value = (getattr(notification, field, None) for field in ("kind", "time", "value"))
    if kind not in _KINDS or not isinstance(time, int | float) or not math.isfinite(time):
        raise TypeError(f"{name}: a recording has notifications with kind, time and value, got {describe(notification)}")
    if kind == "completed":
        return Mark(time, kind="completed", hint="completed")
    if kind == "error":
        said = f"{type(value).__name__}: {_message(value)}"
        return Mark(time, say(said, LABEL), "error", hint=say(said, HINT))
    if isinstance(value, Event):
        return _of_event(cast("Event[Any]", value), time, label)
    payload, stories = _payload(value), {event.correlation_id for event in _events(value)}
    return Mark(time, label(payload), story=stories.pop() if len(stories) == 1 else None, hint=say(payload, HINT))


def _events(value: object) -> Iterator[Event[Any]]:
    """Those in what `zip`, `combine_latest` and `join_by` make of several."""
    if isinstance(value, Event):
        yield cast("Event[Any]", value)
    elif type(value) is tuple:
        for one in cast("tuple[object, ...]", value):
            yield from _events(one)


def _payload(value: object) -> object:
    """The same with the payload of each event for the event."""
    if isinstance(value, Event):
        return cast("Event[Any]", value).payload
    if type(value) is not tuple or next(_events(cast("object", value)), None) is None:
        return cast("object", value)
    return tuple(map(_payload, cast("tuple[object, ...]", value)))


def _message(error: object) -> str:
    try:
        return say(str(error) if isinstance(error, BaseException) else error)
    except BaseException:
        return say(error)


def _of_event(event: Event[Any], time: float, label: Callable[[Any], str]) -> Mark:
    hint = f"{event.topic} · {say(event.payload, HINT)} · {event.id}"
    return Mark(time, label(event.payload), "next", event.correlation_id, event.id, event.causation_id, hint)


def _labels(values: Values) -> Callable[[Any], str]:
    """What to write on the marble of a payload; a function that raises costs the label, not the picture."""
    if values is None:
        return _plain
    if isinstance(values, Mapping):
        return _Lookup(cast("Mapping[str, object]", values))
    if not callable(values):
        raise TypeError(f"values must be a mapping from label to payload, or a function of the payload, got {describe(values)}")

    def labelled(payload: Any) -> str:
        try:
            return say(values(payload), LABEL)
        except BaseException:  # `str`, for one, of a payload that raises anything
            return _plain(payload)

    return labelled


def _plain(payload: Any) -> str:
    """A payload in a few words: of a mapping its entries."""
    if type(payload) is not dict or not 0 < len(entries := cast("dict[object, object]", payload)) <= 8:
        return say(cast("object", payload), LABEL)
    return say(", ".join(f"{say(key, 20)}: {say(value, LABEL)}" for key, value in entries.items()), LABEL)


class _Lookup:
    """Labels by payload."""

    def __init__(self, values: Mapping[str, object]) -> None:
        self._hashed: dict[tuple[type, Hashable], str] = {}
        self._others: list[tuple[object, str]] = []
        for label, payload in values.items():
            try:
                self._hashed.setdefault((type(payload), cast("Hashable", payload)), say(label, LABEL))
            except BaseException:
                self._others.append((payload, say(label, LABEL)))

    def __call__(self, payload: object) -> str:
        try:
            return self._hashed.get((type(payload), cast("Hashable", payload))) or self._plainly(payload)
        except BaseException:
            return self._plainly(payload)

    def _plainly(self, payload: object) -> str:
        try:
            return next((label for known, label in self._others if known == payload), None) or _plain(payload)
        except BaseException:
            return _plain(payload)

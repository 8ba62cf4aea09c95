"""The envelope and its causality.

An `Event` never changes after it was made, so all subscribers of a topic share one object. What is being handled right now
is a context variable (`current`): contexts are copied from publish to handler and from handler to whatever it starts, so
causality follows threads, coroutines and pipelines without anybody passing it on.
"""

from __future__ import annotations

import itertools
import os
import threading
import time as clock
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, Self, TypeAlias

from typing_extensions import TypeVar

from .arguments import describe, metadata_copy, number, text
from .pattern import check_name

if TYPE_CHECKING:
    from .subscription import Subscription

__all__ = ["Delivery", "Event", "current"]

T_co = TypeVar("T_co", covariant=True, default=Any)
U = TypeVar("U")

# An id is a random prefix of this process and a counter. The counter starts anew, with a prefix of its own, in the child
# of a fork; the generation in the upper bits says which prefix belongs to a number, so the text is made only when asked for.
_GENERATION_BITS: Final = 48
_prefixes: list[str] = []
_numbers: itertools.count[int]


def _new_generation() -> None:
    global _numbers
    _prefixes.append(os.urandom(8).hex())
    _numbers = itertools.count(len(_prefixes) - 1 << _GENERATION_BITS)


_new_generation()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_generation)


class _Source(threading.local):
    """Where code on this thread has the present and new ids from; under virtual time that isn't the process."""

    now: Callable[[], float] = staticmethod(clock.time)
    new_id: Callable[[], str] | None = None


source = _Source()


def _id_text(number: int) -> str:
    return f"{_prefixes[number >> _GENERATION_BITS]}-{number & (1 << _GENERATION_BITS) - 1:x}"


def new_id() -> str:
    """An id that is unique across processes, as those of events are."""
    return _id_text(next(_numbers)) if source.new_id is None else source.new_id()


def _new_number() -> int | str:
    return next(_numbers) if source.new_id is None else source.new_id()


class Event(Generic[T_co]):
    """One thing that happened: a payload on a topic, with where it came from. Frozen; equal and hashed by ``id``.

    ``metadata`` is copied and read-only; the payload travels by reference. Without ``id`` and ``time`` a new identity and
    the present are taken (Unix seconds). A first event's ``correlation_id`` is its own id.

    Raises: `TopicNameError`, `TypeError` or `ValueError` naming the argument.
    """

    __slots__ = ("_id", "_metadata", "_origin", "_payload", "_time", "_topic")

    _topic: str
    _payload: T_co
    _metadata: Mapping[str, Any]
    _id: int | str
    _time: float
    _origin: tuple[int | str | None, int | str | None, int] | None
    """Correlation id, causation id and hops; ``None`` for a first event, which most are."""

    def __init__(
        self,
        topic: str,
        payload: T_co,
        metadata: Mapping[str, Any] | None = None,
        *,
        id: str | None = None,
        time: float | None = None,
        correlation_id: str | None = None,
        causation_id: str | None = None,
        hops: int = 0,
    ) -> None:
        self._topic = check_name(topic)
        self._payload = payload
        self._metadata = metadata_copy(metadata)
        self._id = _new_number() if id is None else text("id", id)
        self._time = source.now() if time is None else number("time", time)
        correlation = None if correlation_id is None else text("correlation_id", correlation_id)
        causation = None if causation_id is None else text("causation_id", causation_id)
        if isinstance(hops, bool) or not isinstance(hops, int):  # pyright: ignore[reportUnnecessaryIsInstance] - untyped callers
            raise TypeError(f"hops must be an int of at least 0, got {describe(hops)}")
        if hops < 0:
            raise ValueError(f"hops must be at least 0, got {hops}")
        self._origin = (correlation, causation, hops) if correlation or causation or hops else None

    if TYPE_CHECKING:

        @property
        def topic(self) -> str:
            """The name of the topic that carries it."""
            ...

        @property
        def payload(self) -> T_co:
            """What happened; shared by reference."""
            ...

        @property
        def metadata(self) -> Mapping[str, Any]:
            """Cross-cutting facts, read-only."""
            ...

        @property
        def time(self) -> float:
            """When it was published, in Unix seconds."""
            ...
    else:
        # C getters: a third of the cost of a property written in Python
        topic = property(attrgetter("_topic"), doc="The name of the topic that carries it.")
        payload = property(attrgetter("_payload"), doc="What happened; shared by reference.")
        metadata = property(attrgetter("_metadata"), doc="Cross-cutting facts, read-only.")
        time = property(attrgetter("_time"), doc="When it was published, in Unix seconds.")

    @property
    def hops(self) -> int:
        """The length of the chain of causes behind it; 0 for a first event."""
        return self._origin[2] if self._origin is not None else 0

    @property
    def id(self) -> str:
        """Unique across processes."""
        known = self._id
        return known if isinstance(known, str) else _id_text(known)

    @property
    def correlation_id(self) -> str:
        """The id of the first event of the story."""
        known = self._origin[0] if self._origin is not None else None
        if known is None:
            return self.id
        return known if isinstance(known, str) else _id_text(known)

    @property
    def causation_id(self) -> str | None:
        """The id of the event whose handler published this one, or ``None`` for a first event."""
        known = self._origin[1] if self._origin is not None else None
        return known if known is None or isinstance(known, str) else _id_text(known)

    def derive(self, topic: str, payload: U, metadata: Mapping[str, Any] | None = None) -> Event[U]:
        """A child of this event: same story, one hop further; it inherits the metadata, and given keys win.

        Raises: `TopicNameError`, or `TypeError` for metadata that is no mapping with str keys.
        """
        return renumbered(derive(self, check_name(topic), payload, metadata_copy(metadata), source.now()))

    def __eq__(self, other: object) -> bool:
        return self.id == other.id if isinstance(other, Event) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"Event({self._topic!r}, {describe(self._payload)}, id={self.id!r})"

    def __copy__(self) -> Self:
        return self  # frozen: a copy could not differ

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (
            self._topic,
            self._payload,
            dict(self._metadata),
            self.id,
            self._time,
            None if self._origin is None or self._origin[0] is None else self.correlation_id,
            self.causation_id,
            self.hops,
        )


def _restore(
    topic: str, payload: U, metadata: dict[str, Any], id: str, time: float, correlation: str | None, causation: str | None, hops: int
) -> Event[U]:
    return Event(topic, payload, metadata, id=id, time=time, correlation_id=correlation, causation_id=causation, hops=hops)


_new = object.__new__


def originate(topic: str, payload: U, metadata: Mapping[str, Any], time: float) -> Event[U]:
    """A first event, from arguments that were checked already (`Event` itself checks)."""
    event: Event[U] = _new(Event)
    event._topic = topic
    event._payload = payload
    event._metadata = metadata
    event._id = next(_numbers)
    event._time = time
    event._origin = None
    return event


def derive(parent: Event[Any], topic: str, payload: U, metadata: Mapping[str, Any], time: float) -> Event[U]:
    """A child of ``parent``, from arguments that were checked already."""
    inherited = parent._metadata
    event: Event[U] = _new(Event)
    event._topic = topic
    event._payload = payload
    if not metadata:
        event._metadata = inherited
    elif not inherited:
        event._metadata = metadata
    else:
        event._metadata = metadata_copy({**inherited, **metadata})
    event._id = next(_numbers)
    event._time = time
    origin = parent._origin
    if origin is None:
        event._origin = (parent._id, parent._id, 1)
    else:
        event._origin = (parent._id if origin[0] is None else origin[0], parent._id, origin[2] + 1)
    return event


def renumbered(fresh: Event[U]) -> Event[U]:
    """An event that was made just now, by the ids that this thread uses."""
    if source.new_id is not None:
        fresh._id = source.new_id()
    return fresh


REPLAYED = "$replayed"
"""The metadata key that says how often an event was replayed from a dead letter."""


def replayed(event: Event[U]) -> Event[U]:
    """The same event, its identity included, marked as replayed once more."""
    return enriched(event, {REPLAYED: event._metadata.get(REPLAYED, 0) + 1})


def enriched(event: Event[U], added: Mapping[str, Any]) -> Event[U]:
    """The same event, its identity included, with more metadata."""
    again: Event[U] = _new(Event)
    again._topic = event._topic
    again._payload = event._payload
    again._metadata = metadata_copy({**event._metadata, **added})
    again._id = event._id
    again._time = event._time
    again._origin = event._origin
    return again


class Delivery(NamedTuple):
    """What a handler is working on: the event, the subscription that it came through, and the attempt, from 1."""

    event: Event[Any]
    subscription: Subscription
    attempt: int


RawDelivery: TypeAlias = "tuple[Event[Any], Subscription, int]"
"""What a `Delivery` says, in its order, as a plain tuple: a tenth of the cost for each event. Its identity is that of one attempt."""

current_delivery: ContextVar[RawDelivery | None] = ContextVar("rxbus.current", default=None)


def current() -> Delivery | None:
    """What the calling code is handling right now, or ``None`` outside of a handler. Never raises."""
    delivery = current_delivery.get()
    return None if delivery is None else Delivery(*delivery)

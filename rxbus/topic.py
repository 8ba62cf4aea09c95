"""A topic: a `MailboxSubject` of events that stamps what is published and outlives its upstreams."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import copy_context
from functools import partial
from types import UnionType
from typing import TYPE_CHECKING, Any, Generic, Protocol, Union, cast, get_args, get_origin

from reactivex import abc
from reactivex.disposable import Disposable
from typing_extensions import TypeVar

from . import event as numbering
from .arguments import NO_METADATA, describe, metadata_copy
from .display import Shown
from .errors import BusClosedError, BusError, NoRespondersError, PayloadTypeError
from .event import Event, RawDelivery, current_delivery, derive, originate
from .inlet import FollowUp, Inlet, patiently
from .intake import Fed
from .mailbox import Entry, Mailbox, Parcel, Ticket
from .outcome import Reason
from .pattern import is_wild
from .recovery import error_text
from .request import Pending
from .schedulers import Executor, check_scheduler
from .subject import MailboxSubject, offered
from .waits import begin_wait
from .workers import WorkerPool

if TYPE_CHECKING:
    from .card import Card

__all__ = ["Topic"]

T = TypeVar("T", default=Any)
_log = logging.getLogger("rxbus")
_new: Callable[[Any], Event[Any]] = object.__new__


class Naming(Protocol):
    """What finds topics by name."""

    def _topic(self, topic: Any, /) -> Topic[Any]: ...
    def _outlives(self, topic: Topic[Any], /) -> bool:
        """Whether the name of a topic that refused just then may have another one now."""
        ...


class TopicHost(Protocol):
    """What a topic needs of its bus."""

    _now: Callable[[], float]
    _executor: Executor
    _max_hops: int | None
    _hops_in_question: int
    """The number of hops from which on `_goes_too_far` must be asked."""

    def _goes_too_far(self, event: Event[Any], /) -> bool:
        """Whether the event must not be handled, because agents feed each other without an end."""
        ...

    def _admit(self, delivery: RawDelivery | None, /) -> None:
        """Raises `BusClosedError` unless the publisher, inside that delivery or none, may still publish."""
        ...

    def _observe(self, pattern: str, observer: abc.ObserverBase[Any], scheduler: abc.SchedulerBase | None, /) -> abc.DisposableBase: ...
    def _tap(self, pattern: str, observer: abc.ObserverBase[Any], name: str, /) -> abc.DisposableBase: ...


def type_name(kind: object) -> str:
    """A type or a union as a reader would write it."""
    if isinstance(kind, type):
        return kind.__name__
    return " | ".join(type_name(part) for part in get_args(kind)) or str(kind)


def check_type(value: object, name: str = "type") -> tuple[type, ...]:
    """The classes of a class or a union of classes.

    Raises: `TypeError` for anything else.
    """
    parts: tuple[Any, ...] = (value,)
    if isinstance(value, UnionType) or get_origin(value) is Union:
        parts = tuple(type(None) if part is None else part for part in get_args(value))
    if not all(isinstance(part, type) and get_origin(part) is None for part in parts):
        raise TypeError(f"{name} must be a class or a union of classes, got {describe(value)}")
    try:
        isinstance(None, parts)
    except TypeError as error:
        raise TypeError(f"{name} must be a class or a union of classes that isinstance can check, got {describe(value)}: {error}") from None
    return parts


class Topic(Shown, MailboxSubject[Event[T]], Generic[T]):
    """A named stream of events: an RxPY `Subject` whose observers run on the bus's threads, each behind a mailbox.

    Made by `EventBus.topic`. It takes events and bare payloads, so a chain may end in ``.subscribe(topic.on_next)``. An
    upstream that completes or fails never ends it; `EventBus.close` and `EventBus.forget` do.
    """

    def __init__(self, name: str, bus: TopicHost) -> None:
        super().__init__()
        self._name = name
        self._bus = bus
        self._type: Any = None
        self._classes: tuple[type, ...] | None = None
        self._plain = True
        """A bare payload needs no check, and no instrument hears of it."""
        self._upstream_errors = 0
        executor = bus._executor
        self._pool = executor if isinstance(executor, WorkerPool) else None
        self._sleepers: Sequence[object] = () if self._pool is None else self._pool._idle

    @property
    def name(self) -> str:
        """Its name."""
        return self._name

    @property
    def type(self) -> Any:
        """The type that payloads must have, or ``None`` when any will do."""
        return self._type

    def __repr__(self) -> str:
        kind = "" if self._type is None else f", {type_name(self._type)}"
        return f"Topic({self._name!r}{kind})"

    def _card(self) -> Card:
        from .card import ROWS, Card
        from .drawing import Table

        with self._guard:
            outlets = list(self._outlets.items())
        state = ("ended, " if self.is_stopped else "") + f"{self._published:,} published"
        facts = [] if self._type is None else [f"takes {type_name(self._type)}"]
        rows = [(fed.name, inlet.offered, inlet.handled, inlet.failed, inlet.dropped) for fed, inlet in outlets[:ROWS]]
        table = Table(("subscription", "offered", "handled", "failed", "dropped"), rows, (3,), len(outlets) - len(rows))
        return Card("Topic", self._name, state, facts=[*facts, *([] if outlets else ["nobody listens"])], tables=[table])

    # -- publishing

    def emit(self, payload: T | Event[T], metadata: Mapping[str, Any] | None = None) -> Event[T]:
        """Publishes a payload and returns the event that carries it; a complete event is published as it is.

        Raises: `PayloadTypeError`, `BusClosedError`, or `TypeError` for metadata that is no mapping with str keys.
        """
        return self._emit(payload, None if metadata is None else metadata_copy(metadata))

    def on_next(self, value: Event[T] | T) -> None:
        """`emit`, as an observer."""
        self._emit(value, None)

    def on_error(self, error: Exception) -> None:
        """An upstream failed: that is logged and counted, and the topic lives on."""
        with self._guard:
            self._upstream_errors += 1
        delivery = current_delivery.get()
        if delivery is not None:
            delivery[1]._mark_failed(delivery, error)
        try:
            _log.error("an upstream of topic %r failed; the topic lives on: %s", self._name, error_text(error))
        except BaseException:
            pass

    def on_completed(self) -> None:
        """An upstream completed: nothing happens, the topic lives on."""

    def fail(self, exn: Exception) -> bool:
        """`on_error`; the topic lives on."""
        self.on_error(exn)
        return True

    def dispose(self) -> None:
        """Nothing: `EventBus.forget` is what ends a topic."""

    def _emit(self, payload: T | Event[T], metadata: Mapping[str, Any] | None) -> Event[T]:
        if self._sleepers:
            self._call_early()
        parent = current_delivery.get()
        if self._plain and not isinstance(payload, Event):
            # `_stamp` and `originate`, without their calls: this is the way of nearly every event
            stamp = self._bus._now()
            if parent is None:
                event = _new(Event)
                event._topic = self._name
                event._payload = payload
                event._metadata = metadata or NO_METADATA
                event._id = next(numbering._numbers)
                event._time = stamp
                event._origin = None
            else:
                event = derive(parent[0], self._name, payload, metadata or NO_METADATA, stamp)
        else:
            event, stamp = self._stamp(cast("T | Event[T]", payload), metadata, parent)
            event = self._going_out(event)
        if event._origin is not None and event._origin[2] >= self._bus._hops_in_question and self._bus._goes_too_far(event):
            self._offer_in_vain((event, copy_context(), stamp), Reason.HOPS, self._too_far(event))
        else:
            self._offer((event, copy_context(), stamp))
        if parent is not None:
            parent[1]._feeds[self._name] = None
        return event

    async def _emit_patiently(self, payload: T | Event[T], metadata: Mapping[str, Any] | None) -> Event[T]:
        """`_emit` from a coroutine: where it would wait for room, the loop goes on."""
        return await patiently(partial(self._emit, payload, metadata))

    def _too_far(self, event: Event[Any]) -> BusError:
        return BusError(
            f"event {event.id} on topic {self._name!r}: expected a story of at most {self._bus._max_hops} hops, found {event.hops}"
        )

    def _call_early(self) -> None:
        """Wakes a worker for the first subscription, if it will need one: it takes as long to wake up as an event to be made."""
        pool = self._pool
        assert pool is not None
        try:
            for inlet in self._outlets.values():
                by_pool = inlet.strand.executor is pool
                if by_pool and not inlet.strand.scheduled:
                    pool.call_early()
                return
        except RuntimeError:
            pass  # somebody subscribed just then

    def _prepare_many(
        self, payloads: Iterable[T | Event[T]], metadata: Mapping[str, Any] | None
    ) -> tuple[list[Event[T]], list[Entry] | None]:
        """The events that will carry these, and what is to be offered to the topic, if anything; what goes too far was refused already."""
        parent = current_delivery.get()
        batch = list(payloads)
        context = copy_context()
        if parent is None and self._plain and not any(issubclass(kind, Event) for kind in set(map(type, batch))):
            now = self._bus._now()
            events = [originate(self._name, cast("T", payload), metadata or NO_METADATA, now) for payload in batch]
            return events, [(event, context, now) for event in events]
        stamped = [self._stamp(payload, metadata, parent) for payload in batch]
        stamped = [(self._going_out(event), stamp) for event, stamp in stamped]
        near: list[Entry] = []
        far: list[Entry] = []
        for event, stamp in stamped:
            (far if event.hops >= self._bus._hops_in_question and self._bus._goes_too_far(event) else near).append((event, context, stamp))
        for entry in far:
            self._offer_in_vain(entry, Reason.HOPS, self._too_far(entry[0]))
        if parent is not None:
            parent[1]._feeds[self._name] = None
        return [event for event, _ in stamped], near if near or not far else None

    def _emit_ticket(
        self, payload: T | Event[T], metadata: Mapping[str, Any] | None, latest: float | None
    ) -> tuple[Event[T], Ticket, list[Parcel]]:
        parent = current_delivery.get()
        event, stamp = self._stamp(payload, metadata, parent)
        event = self._going_out(event)
        ticket = Ticket(stamp)
        entry: Entry = (event, copy_context(), ticket)
        if event.hops >= self._bus._hops_in_question and self._bus._goes_too_far(event):
            self._offer_in_vain(entry, Reason.HOPS, self._too_far(event), ticket)
            begin_wait(())
            return event, ticket, []
        targets = self._offer_ticket(entry, ticket, latest)
        if targets is None:
            raise BusError(
                f"deliver to topic {self._name!r} from a handler that one of its subscriptions waits for, or is, would wait for itself"
            )
        if parent is not None:
            parent[1]._feeds[self._name] = None
        return event, ticket, targets

    def _emit_request(
        self, payload: Any, metadata: Mapping[str, Any], pending: Pending, *, waits: bool, latest: float | None = None
    ) -> None:
        """Publishes a request, and waits for room until then at most; raises before anything happened."""
        asker = parent = current_delivery.get()
        now = self._bus._now()
        inner = cast("Event[Any]", payload)._payload if isinstance(payload, Event) else payload
        self._check_payload(inner)
        if isinstance(payload, Event):
            parent = (cast("Event[Any]", payload), None, 0)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType] - only the event is asked for
        event = originate(self._name, inner, metadata, now) if parent is None else derive(parent[0], self._name, inner, metadata, now)
        event = self._going_out(self._made(event))
        pending.sent(event, now)
        entry: Entry = (event, copy_context(), pending)
        if event.hops >= self._bus._hops_in_question and self._bus._goes_too_far(event):
            self._offer_in_vain(entry, Reason.HOPS, self._too_far(event), pending)
            return
        left, outlets = self._offer_request(entry, pending, waits=waits)
        if asker is not None:
            asker[1]._feeds[self._name] = None
        self._announce_and_go_on((entry,), outlets, left, latest)

    def _offer_request(self, entry: Entry, pending: Pending, *, waits: bool) -> tuple[list[FollowUp], list[Fed]]:
        with self._guard:
            if self._shut:
                self._refuse()
            asked = _responders(self._outlets)
            if not asked:
                raise NoRespondersError(f"request to topic {self._name!r}: expected a subscription of that topic, found none", self._name)
            if waits and not pending.enter([Parcel(mailbox, pending) for mailbox in asked]):
                raise BusError(f"request to topic {self._name!r} from a handler that alone could make it end would wait for itself")
            pending.expect(asked)
            self._published += 1
            return offered(self._outlets.values(), entry), list(self._outlets)

    def _stamp(self, payload: T | Event[T], metadata: Mapping[str, Any] | None, parent: RawDelivery | None) -> tuple[Event[T], float]:
        """The event that will carry a payload, and the present; raises before anything happened."""
        now = self._bus._now()
        if isinstance(payload, Event):
            return self._reissue(cast("Event[T]", payload), metadata, parent, now), now
        if self._classes is not None:
            self._check_payload(payload)
        if parent is None:
            return originate(self._name, payload, metadata or NO_METADATA, now), now
        return derive(parent[0], self._name, payload, metadata or NO_METADATA, now), now

    def _made(self, event: Event[Any]) -> Event[Any]:
        """An event that was made just now, for a request."""
        return event

    def _going_out(self, event: Event[T]) -> Event[T]:
        """The event as it goes out, after all checks of what the caller gave."""
        return event

    def _reissue(self, event: Event[T], metadata: Mapping[str, Any] | None, parent: RawDelivery | None, now: float) -> Event[T]:
        self._check_payload(event._payload)
        if event._topic == self._name and (parent is None or parent[0] != event):
            if metadata is not None:
                raise TypeError("metadata can't be given with a complete Event; it has its own")
            return event
        return derive(event, self._name, event._payload, metadata or NO_METADATA, now)

    def _check_payload(self, payload: object) -> None:
        if self._classes is not None and not isinstance(payload, self._classes):
            found = type(payload)
            raise PayloadTypeError(
                f"topic {self._name!r} takes {type_name(self._type)}, got {found.__name__}", self._name, self._type, found
            )

    # -- mechanism; metadata that reaches these was checked and copied already

    def _set_type(self, kind: object) -> None:
        """Gives the topic its type, once. The lock of the bus is held."""
        classes = check_type(kind)
        if self._type is None:
            self._type, self._classes, self._plain = kind, classes, False
        elif self._type != kind:
            raise PayloadTypeError(
                f"topic {self._name!r} takes {type_name(self._type)}, asked again with {type_name(kind)}",
                self._name,
                self._type,
                kind,
            )

    def _subscribe_core(self, observer: abc.ObserverBase[Event[T]], scheduler: abc.SchedulerBase | None = None) -> abc.DisposableBase:
        check_scheduler(scheduler)
        if self.is_stopped:
            observer.on_completed()
            return Disposable()
        return self._bus._observe(self._name, observer, scheduler)

    def _seal(self) -> None:
        """From now on only handlers of the bus may publish. Who was offering when this was called has finished."""
        with self._guard:
            self._shut = True

    def _refuse(self) -> bool:
        self._bus._admit(current_delivery.get())
        if self.is_stopped:
            raise BusClosedError(f"topic {self._name!r} is closed", self._name)
        return False

    def _stop(self) -> list[Fed]:
        """Ends the topic, at one moment for all; those that it fed are told by the caller."""
        with self._guard:
            self.is_stopped = self._shut = True
            outlets, self._outlets = self._outlets, {}
        return list(outlets)

    def _finish(self, error: Exception | None) -> None:
        """Ends the topic: what is queued is still delivered, then its observers complete."""
        for fed in self._stop():
            if fed._inlet is not None:  # one of a pattern goes on with its other topics
                fed._strand.finish(error)


def _responders(outlets: Mapping[Fed, Inlet]) -> dict[Mailbox, str]:
    """The mailboxes of those who may answer a request, with their names."""
    return {inlet.mailbox: inlet.name for fed, inlet in outlets.items() if not (fed._passive or is_wild(fed.pattern))}


class Named:
    """Where results go that are sent to a name: the topic that has it, and when that was forgotten, the next one."""

    __slots__ = ("_bus", "_emit", "_emit_patiently", "_topic", "name")

    def __init__(self, name: str, bus: Naming) -> None:
        self.name = name
        self._bus = bus
        self._take(bus._topic(name))

    def _take(self, topic: Topic[Any]) -> None:
        self._topic = topic
        self._emit = topic._emit
        self._emit_patiently = topic._emit_patiently

    def renew(self) -> bool:
        """After it refused: whether another attempt makes sense, with the topic of this moment."""
        if not self._bus._outlives(self._topic):
            return False
        self._take(self._bus._topic(self.name))
        return True

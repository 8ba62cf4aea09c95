"""The verbs of those who publish and ask: `EventBus` has them from here."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from types import UnionType
from typing import Any, cast, overload

from reactivex import abc
from typing_extensions import TypeVar

from .arguments import describe, metadata_copy, optional_seconds, seconds
from .errors import BusClosedError, BusError, DrainTimeoutError, NoRespondersError
from .event import Event, RawDelivery, current_delivery
from .inlet import make_up_for, patiently, put_off
from .instrument import Panel
from .mailbox import RECHECK, Entry, Parcel, Ticket
from .outcome import Receipt
from .pattern import check_name
from .registry import Registry
from .request import Pending, Request, Requests
from .schedulers import Cancellable, Executor, SchedulerExecutor, executor_for
from .strand import Strand
from .strand_scheduler import StrandScheduler
from .topic import Topic, check_type
from .waits import end_wait, here, running_chain, waits_in_vain
from .workers import WorkerPool, waiting

T = TypeVar("T")
_log = logging.getLogger("rxbus")
_MISSING: Any = object()
_END: Any = object()
LONG_STORY = 1000
"""Hops at which a story is logged, once."""


def _not_settled(event: Event[Any], ticket: Ticket, limit: float | None) -> DrainTimeoutError:
    busy = ticket.unsettled()
    return DrainTimeoutError(f"event {event.id} of topic {event.topic!r} was not settled in {limit} s by: {', '.join(busy)}", busy)


def _waits_for_itself(topic: str) -> BusError:
    return BusError(f"deliver to topic {topic!r} from a handler has come to wait for itself: who could have handled it is gone")


def _guarded(callback: Callable[[], None]) -> None:
    """Calls it; what it raises is logged, because it may be called by somebody whose fault it isn't."""
    try:
        callback()
    except BaseException:
        _log.exception("an observer of a request raised")


class Publishing:
    """A bus as seen by whoever publishes or asks."""

    _executor: Executor
    _registry: Registry
    _topics: dict[str, Topic[Any]]
    _request_type = Request

    def __init__(self, name: str, max_hops: int | None, panel: Panel | None) -> None:
        self._name = name
        self._panel = panel
        self._now: Callable[[], float] = time.time
        self._max_hops = max_hops
        self._hops_in_question = LONG_STORY if max_hops is None else max_hops + 1
        self._long_stories: OrderedDict[str, None] = OrderedDict()
        self._requests = Requests()
        self._closing = False
        self._close_lock = threading.Lock()

    def _monotonic(self) -> float:
        """The clock by which waits are timed, in seconds."""
        return time.monotonic()

    # -- topics and publishing

    @overload
    def topic(self, name: str) -> Topic[Any]: ...
    @overload
    def topic(self, name: str, type: type[T]) -> Topic[T]: ...
    @overload
    def topic(self, name: str, type: UnionType) -> Topic[Any]: ...
    def topic(self, name: str, type: Any = None) -> Topic[Any]:
        """The topic of that name, made on first use. With a type, payloads of another type are refused.

        Raises: `TopicNameError`; `PayloadTypeError` if it has another type already; `TypeError` for what is no type.
        """
        if type is None:
            return self._topic(name)
        return self._typed_topic(name, type)

    def _typed_topic(self, name: str, kind: Any) -> Topic[Any]:
        check_type(kind)
        with self._registry.lock:
            topic = self._topic(name)
            topic._set_type(kind)
            return topic

    def _topic(self, topic: Any) -> Topic[Any]:
        """The topic that a caller named or handed over."""
        if isinstance(topic, Topic):
            found = cast("Topic[Any]", topic)
            if cast("object", found._bus) is not self:
                raise ValueError(f"topic {found.name!r} belongs to another bus than {self._name!r}")
            if found.is_stopped:
                self._admit(current_delivery.get())
                raise BusClosedError(f"topic {found.name!r} is closed", found.name)
            return found
        known = self._topics.get(topic) if isinstance(topic, str) else None
        if known is not None:
            return known
        check_name(topic)
        self._admit(current_delivery.get())
        return self._registry.topic(topic)

    @overload
    def publish(self, topic: Event[T], /) -> Event[T]: ...
    @overload
    def publish(self, topic: Topic[T], payload: T | Event[T], *, metadata: Mapping[str, Any] | None = None) -> Event[T]: ...
    @overload
    def publish(self, topic: str, payload: T, *, metadata: Mapping[str, Any] | None = None) -> Event[T]: ...
    def publish(self, topic: Any, payload: Any = _MISSING, *, metadata: Mapping[str, Any] | None = None) -> Event[Any]:
        """Puts a payload, or a complete event, before all subscriptions of the topic; returns the event that carries it.

        It never waits for handlers; it may wait for room in a full mailbox whose policy is `Overflow.BLOCK`.

        Raises, before anything happened: `TopicNameError`, `PayloadTypeError`, `BusClosedError`, or `TypeError` for metadata
        that is no mapping with str keys. Never for a subscriber's fault.
        """
        if metadata is not None:
            metadata = metadata_copy(metadata)
        if topic.__class__ is str and payload is not _MISSING:
            try:
                known = self._topics[topic]
            except KeyError:
                pass
            else:
                try:
                    return known._emit(payload, metadata)  # the usual way, kept short
                except BusClosedError:
                    if not self._was_forgotten(known):
                        raise
        if payload is _MISSING:
            if not isinstance(topic, Event):
                raise TypeError(f"publish takes a topic and a payload, or one complete Event, got {describe(topic)} alone")
            payload = cast("Event[Any]", topic)
            topic = payload._topic
        self._check_metadata(topic, [payload], metadata)
        while True:
            found = self._topic(topic)
            try:
                return found._emit(payload, metadata)
            except BusClosedError:
                if isinstance(topic, Topic) or not self._was_forgotten(found):
                    raise

    def _was_forgotten(self, topic: Topic[Any]) -> bool:
        """Whether a topic refused because it was forgotten just then; whoever named it gets the next one of that name."""
        return topic.is_stopped and self._outlives(topic)

    def _outlives(self, topic: Topic[Any]) -> bool:
        """Whether the bus goes on though that topic may have ended."""
        return not self._closing and not (topic.is_stopped and self._topics.get(topic.name) is topic)

    def _check_metadata(self, topic: Any, payloads: Iterable[Any], metadata: Mapping[str, Any] | None) -> None:
        """Before a topic is made for them: events that go as they are have metadata of their own."""
        if metadata is not None and isinstance(topic, str) and topic not in self._topics:
            delivery = current_delivery.get()
            for payload in payloads:
                if isinstance(payload, Event) and payload._topic == topic and (delivery is None or delivery[0] != payload):
                    raise TypeError("metadata can't be given with a complete Event; it has its own")

    @overload
    def publish_many(
        self, topic: Topic[T], payloads: Iterable[T | Event[T]], *, metadata: Mapping[str, Any] | None = None
    ) -> list[Event[T]]: ...
    @overload
    def publish_many(self, topic: str, payloads: Iterable[Any], *, metadata: Mapping[str, Any] | None = None) -> list[Event[Any]]: ...
    def publish_many(
        self, topic: str | Topic[Any], payloads: Iterable[Any], *, metadata: Mapping[str, Any] | None = None
    ) -> list[Event[Any]]:
        """`publish` of all, in a row and cheaper; all types are checked before the first goes out.

        Other publishers may come between. If the bus is closed in the middle, what went out before that stays.

        Raises: as `publish`, and `TypeError` for payloads that are no iterable, or a str or bytes.
        """
        batch, given = self._batch(topic, payloads, metadata)
        found = self._topic(topic)
        events, near = found._prepare_many(batch, given)
        for _ in self._chunks(topic, found, near):
            pass
        return events

    def _batch(
        self, topic: str | Topic[Any], payloads: Iterable[Any], metadata: Mapping[str, Any] | None
    ) -> tuple[list[Any], Mapping[str, Any] | None]:
        if isinstance(payloads, str | bytes) or not isinstance(payloads, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance] - untyped callers
            raise TypeError(f"payloads must be an iterable of payloads, got {describe(payloads)}")
        given = None if metadata is None else metadata_copy(metadata)
        batch = list(payloads)
        self._check_metadata(topic, batch, given)
        return batch, given

    def _chunks(self, topic: str | Topic[Any], found: Topic[Any], entries: list[Entry] | None) -> Iterator[None]:
        """Offers these step by step; where a topic that was named is forgotten meanwhile, the next one of that name gets the rest."""
        done = 0
        while entries is not None:
            try:
                for offered in found._offer_chunks(entries, done):
                    done = offered
                    yield
                return
            except BusClosedError:
                if isinstance(topic, Topic) or not self._was_forgotten(found):
                    raise
                found = self._topic(topic)

    def deliver(
        self, topic: str | Topic[Any], payload: Any, *, metadata: Mapping[str, Any] | None = None, timeout: float | None = None
    ) -> Receipt:
        """Publishes, and waits until every subscription of that moment has settled the event.

        Raises: as `publish`; `DrainTimeoutError` after ``timeout`` seconds, naming who has it still (the event stays
        published); `BusError`, before anything happened, where it would wait for itself.
        """
        limit = optional_seconds("timeout", timeout)
        latest = None if limit is None else self._monotonic() + limit
        found, event, ticket, targets = self._begin_delivery(topic, payload, metadata, latest)
        try:
            with waiting():
                settled = self._wait_for(ticket, targets, latest, found.name)
        finally:
            end_wait(targets)
        if not settled:
            raise _not_settled(event, ticket, limit)
        return ticket.receipt(event)

    def _begin_delivery(
        self, topic: str | Topic[Any], payload: Any, metadata: Mapping[str, Any] | None, latest: float | None = None
    ) -> tuple[Topic[Any], Event[Any], Ticket, list[Parcel]]:
        """Publishes with a ticket; the wait for it has been entered."""
        given = None if metadata is None else metadata_copy(metadata)
        if not isinstance(topic, Topic):
            self._check_metadata(check_name(topic), [payload], given)
        name = topic.name if isinstance(topic, Topic) else topic
        for strands in self._registry.strands_for(name):
            if all(strand.is_virtual for strand in strands):
                raise BusError(f"deliver to topic {name!r} can't move the virtual clock of its subscriptions: publish, then advance it")
            if all(strand.waits_in_vain() for strand in strands):
                raise BusError(f"deliver to topic {name!r} from here would wait for itself: nobody else could run the subscription")
        while True:
            found = self._topic(topic)
            try:
                return found, *found._emit_ticket(payload, given, latest)
            except BusClosedError:
                if isinstance(topic, Topic) or not self._was_forgotten(found):
                    raise

    def _wait_for(self, ticket: Ticket, targets: list[Parcel], latest: float | None, topic: str) -> bool:
        """Whether all have settled it in time; raises if the calling handler has come to wait for itself meanwhile."""
        inside = here.running is not None
        while True:
            left = None if latest is None else max(0.0, latest - self._monotonic())
            if ticket.wait(RECHECK if left is None else min(RECHECK, left)):
                return True
            for target in targets:
                target.look_after_loops()
            if latest is not None and self._monotonic() >= latest:
                return ticket.wait(0.0)
            if inside and waits_in_vain(targets) and not ticket.wait(0.0):
                raise _waits_for_itself(topic)

    # -- the same from a coroutine: what would wait lets the loop go on

    @overload
    async def apublish(self, topic: Event[T], /) -> Event[T]: ...
    @overload
    async def apublish(self, topic: Topic[T], payload: T | Event[T], *, metadata: Mapping[str, Any] | None = None) -> Event[T]: ...
    @overload
    async def apublish(self, topic: str, payload: T, *, metadata: Mapping[str, Any] | None = None) -> Event[T]: ...
    async def apublish(self, topic: Any, payload: Any = _MISSING, *, metadata: Mapping[str, Any] | None = None) -> Event[Any]:
        """`publish` from a coroutine: where that would wait for room in a full mailbox, the loop goes on."""
        return await patiently(partial(self.publish, topic, payload, metadata=metadata))

    @overload
    async def apublish_many(
        self, topic: Topic[T], payloads: Iterable[T | Event[T]], *, metadata: Mapping[str, Any] | None = None
    ) -> list[Event[T]]: ...
    @overload
    async def apublish_many(
        self, topic: str, payloads: Iterable[Any], *, metadata: Mapping[str, Any] | None = None
    ) -> list[Event[Any]]: ...
    async def apublish_many(
        self, topic: str | Topic[Any], payloads: Iterable[Any], *, metadata: Mapping[str, Any] | None = None
    ) -> list[Event[Any]]:
        """`publish_many` from a coroutine: where that would wait for room in a full mailbox, the loop goes on."""
        batch, given = self._batch(topic, payloads, metadata)
        found = self._topic(topic)
        events, near = found._prepare_many(batch, given)
        chunks = self._chunks(topic, found, near)
        while await patiently(partial(next, chunks, _END)) is not _END:
            pass
        return events

    async def adeliver(
        self, topic: str | Topic[Any], payload: Any, *, metadata: Mapping[str, Any] | None = None, timeout: float | None = None
    ) -> Receipt:
        """`deliver` from a coroutine: the loop goes on meanwhile, so its own handlers may be among those that settle the event."""
        limit = optional_seconds("timeout", timeout)
        with put_off() as waits:
            found, event, ticket, targets = self._begin_delivery(topic, payload, metadata)
        scope = asyncio.timeout(limit)
        try:
            async with scope:
                await make_up_for(waits)
                await self._wait_patiently(ticket, targets, found.name)
        except TimeoutError:
            if not scope.expired():
                raise
            raise _not_settled(event, ticket, limit) from None
        finally:
            end_wait(targets, patient=True)
        return ticket.receipt(event)

    async def _wait_patiently(self, ticket: Ticket, targets: list[Parcel], topic: str) -> None:
        """`_wait_for` of a coroutine."""
        while not await ticket.settled_within(RECHECK):
            for target in targets:
                target.look_after_loops()
            if here.running is not None and waits_in_vain(targets):
                raise _waits_for_itself(topic)

    # -- asking

    def request(
        self, topic: str | Topic[Any], payload: Any, *, metadata: Mapping[str, Any] | None = None, timeout: float = 30.0
    ) -> Request:
        """A question to the subscriptions of a topic; nothing is sent before `Request.run`, ``await`` or ``subscribe``.

        ``timeout`` is in seconds. Raises: `TopicNameError`, or `TypeError` or `ValueError` naming the argument.
        """
        name = self._topic(topic).name if isinstance(topic, Topic) else check_name(topic)
        return self._request_type(self, name, payload, metadata_copy(metadata), seconds("timeout", timeout))

    def reply(self, event: Event[Any], payload: Any) -> bool:
        """Answers the request that the event, or the story that it belongs to, asked.

        A payload that is an `Event`, such as the reply of somebody who was asked in turn, is passed on: the reply has its payload,
        and its metadata beside that of ``event``, whose story goes on.

        Returns False, and counts that, if nobody waits for it any more: it was answered, or its time was over.
        Raises: `BusError` if it asked nothing; `TypeError` for what is no `Event`.
        """
        if not isinstance(event, Event):  # pyright: ignore[reportUnnecessaryIsInstance] - untyped callers
            raise TypeError(f"event must be the Event that asked, got {describe(event)}")
        return self._requests.answer(event, payload)

    def _ask(self, topic: str, payload: Any, metadata: Mapping[str, Any], pending: Pending, waits: bool, latest: float | None) -> None:
        while True:
            found = self._topics.get(topic)
            if found is None:
                self._admit(current_delivery.get())
                raise NoRespondersError(f"request to topic {topic!r}: expected a subscription of that topic, found none", topic)
            strands = [strand for fed in found._strands() for strand in fed]
            if waits and strands and all(strand.is_virtual for strand in strands):
                raise BusError(
                    f"request to topic {topic!r} can't move the virtual clock of its subscriptions: subscribe to it, then advance"
                )
            if waits and strands and all(strand.waits_in_vain() for strand in strands):
                raise BusError(f"request to topic {topic!r} from here would wait for itself: nobody else could run the subscription")
            try:
                found._emit_request(payload, metadata, pending, waits=waits, latest=latest)
            except BusClosedError:
                if self._was_forgotten(found):
                    continue
                raise
            return

    def _later(self, seconds: float, callback: Callable[[], None]) -> Cancellable:
        return self._executor.later(seconds, callback)

    def _call(self, callback: Callable[[], None], scheduler: abc.SchedulerBase | None = None) -> None:
        executor = self._executor if scheduler is None else executor_for(scheduler)
        if isinstance(executor, WorkerPool):
            executor.call(callback)
            return
        guarded = callback if isinstance(scheduler, StrandScheduler) else partial(_guarded, callback)  # a strand reports failures itself

        def action(_: abc.SchedulerBase, __: object = None) -> None:
            guarded()

        try:
            cast("SchedulerExecutor", executor).scheduler.schedule(action)
        except Exception:  # its loop is closed, say: that is not the fault of whoever answers
            _log.exception("the scheduler of a request refused to tell its observer")

    # -- as the host of topics

    def _admit(self, delivery: RawDelivery | None) -> None:
        if not self._closing:
            return
        inside = (delivery is not None and self._owns(delivery[1]._host)) or self._inside_handler()
        if self._registry.closed or not inside:
            raise self._registry.closed_error()

    def _goes_too_far(self, event: Event[Any]) -> bool:
        """Whether it is beyond ``max_hops``; without that, a story that is very long is logged once."""
        if self._max_hops is not None:
            return event.hops > self._max_hops
        if event.hops == LONG_STORY:
            story = event.correlation_id
            with self._close_lock:
                known = story in self._long_stories
                self._long_stories[story] = None
                if len(self._long_stories) > LONG_STORY:
                    self._long_stories.popitem(last=False)
            if not known:
                try:
                    _log.warning(
                        "story %s has come to %d hops on topic %r: agents may feed each other in a circle", story, event.hops, event.topic
                    )
                except BaseException:
                    pass  # a log handler that raises is not the publisher's fault
        return False

    def _owns(self, host: object) -> bool:
        """Whether a host of subscriptions is this bus, or something that stands in the middle of its chains."""
        return host is self or getattr(host, "_bus", None) is self

    def _inside_handler(self) -> bool:
        """Whether a handler or an instrument of this bus calls the calling code."""
        if self._panel is not None and self._panel.is_calling_here:
            return True
        return any(isinstance(one, Strand) and self._owns(getattr(one.consumer, "_host", None)) for one in running_chain())

    def _may_be_awaited_by_handler(self) -> bool:
        """`_inside_handler`, or the calling code is a task, or a thread with its context, of an event that is still in progress."""
        if self._inside_handler():
            return True
        delivery = current_delivery.get()
        if delivery is None or here.running is not None:
            return False  # what runs here by itself is awaited by nobody, wherever its context is from
        return self._owns(delivery[1]._host) and delivery[1]._is_at(delivery)

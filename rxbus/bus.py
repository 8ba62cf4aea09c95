"""The bus: the verbs over a registry of topics and subscriptions."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import partial
from types import MappingProxyType, TracebackType, UnionType
from typing import TYPE_CHECKING, Any, Self, cast, overload

from reactivex import Observable, abc
from reactivex.scheduler import ImmediateScheduler, TimeoutScheduler
from typing_extensions import TypeVar

from . import shutdown
from .arguments import describe, metadata_copy, optional_seconds, positive_int, seconds, text
from .concurrency import ConcurrentSubscription
from .consumer import HandlerSubscription, Pipeline, PipelineSubscription
from .dead_letters import DeadLetters
from .display import Shown
from .errors import BusClosedError, BusError, DrainTimeoutError, NoRespondersError
from .event import Event, RawDelivery, current_delivery
from .event_stream import EventStream, StreamSubscription, channel_here
from .fuse import Fuse
from .graph import BusGraph
from .group import Group
from .handler import as_handler, as_key
from .host import Place
from .inlet import ANY_NUMBER, make_up_for, patiently, put_off
from .instrument import Instrument, check_instruments
from .loops import LoopExecutor, LoopThread, check_loop, executor_of
from .mailbox import DEFAULT_BLOCK_TIMEOUT, DEFAULT_CAPACITY, RECHECK, Mailbox, Overflow, Parcel, Ticket
from .observed import topic_for
from .observer import Observed, ObserverSubscription, TapSubscription
from .outcome import CloseReport, DeadLetter, Receipt
from .pattern import check_name, check_pattern
from .recovery import Breaker, Retry, check_breaker, check_retry
from .registry import Membership, Registry
from .request import REPLY, Answers, Pending, Request, Requests
from .schedulers import Cancellable, Executor, SchedulerExecutor, check_scheduler, executor_for
from .statistics import BusStatistics
from .strand import Strand
from .subject import check_overflow, let_go
from .subscription import Subscription
from .topic import Topic, check_type
from .waits import end_wait, here, running_chain, waits_in_vain
from .workers import DEFAULT_MAX_WORKERS, WorkerPool, elsewhere, waiting

if TYPE_CHECKING:
    from .card import Card

__all__ = ["EventBus"]

T = TypeVar("T")
H = TypeVar("H")
_log = logging.getLogger("rxbus")
_MISSING: Any = object()
SLICE_OF_DRAIN = 0.25
"""Seconds."""
DRAWN = 80
"""Topics and subscriptions that a bus draws when it shows itself."""
LONG_STORY = 1000
"""Hops at which a story is logged, once."""


def _not_settled(event: Event[Any], ticket: Ticket, limit: float | None) -> DrainTimeoutError:
    busy = ticket.unsettled()
    return DrainTimeoutError(f"event {event.id} of topic {event.topic!r} was not settled in {limit} s by: {', '.join(busy)}", busy)


def _waits_for_itself(topic: str) -> BusError:
    return BusError(f"deliver to topic {topic!r} from a handler has come to wait for itself: who could have handled it is gone")


class _Options:
    """The checked arguments of `EventBus.subscribe`; nothing has happened yet."""

    def __init__(
        self,
        bus: EventBus,
        pattern: Any,
        through: Any,
        to: Any,
        name: Any,
        group: Any,
        capacity: Any,
        overflow: Any,
        concurrency: Any,
        key: Any,
        retry: Any,
        breaker: Any,
        timeout: Any,
        loop: Any,
        scheduler: Any,
    ) -> None:
        self.pattern = bus._pattern(pattern)
        if through is not None and not callable(through):
            raise TypeError(f"through must be an RxPY operator, or reactivex.compose(...) of several, got {describe(through)}")
        self.through = cast("Callable[[Observable[Event[Any]]], Observable[Any]] | None", through)
        self.to: Any = None if to is None else bus._target(to)
        self.name = None if name is None else text("name", name)
        self.mailbox = bus._mailbox_maker(capacity, overflow)
        self.membership = None if group is None else Membership(text("group", group), self.pattern, self.mailbox, capacity, overflow)
        self.concurrency = positive_int("concurrency", concurrency)
        self.key = None if key is None else as_key(key)
        if self.key is not None and self.membership is not None:
            raise ValueError("key and group can't both be given: the members of a group take whatever comes next, so no order would hold")
        self.retry = check_retry(retry)
        self.breaker = check_breaker(breaker)
        self.timeout = optional_seconds("timeout", timeout)
        self.loop = None if loop is None else check_loop(loop)
        chosen = check_scheduler(scheduler)
        self.executor = bus._executor if chosen is None else bus._executor_for(chosen)


class EventBus(Shown):
    """Named topics on which agents react to events, each on threads of the bus and behind a mailbox of its own.

    ``workers`` bounds the threads that run handlers; or ``scheduler`` is what runs them: any RxPY scheduler, or a `WorkerPool`
    shared with other buses. ``capacity`` (events) and ``overflow`` are the defaults of every mailbox; times are in seconds. What
    goes beyond ``max_hops`` from the first event of its story becomes a dead letter. ``instruments`` watch what happens.

    A context manager, plain and ``async``: leaving it drains and closes; left by an exception it closes without draining.

    Raises: `TypeError` or `ValueError` naming the argument.
    """

    _is_virtual = False
    _request_type = Request

    def __init__(
        self,
        name: str = "rxbus",
        *,
        workers: int | None = None,
        scheduler: abc.SchedulerBase | None = None,
        capacity: int = DEFAULT_CAPACITY,
        overflow: Overflow = Overflow.BLOCK,
        block_timeout: float = DEFAULT_BLOCK_TIMEOUT,
        close_timeout: float = 30.0,
        max_hops: int | None = None,
        instruments: Iterable[Instrument] = (),
        dead_letter_capacity: int = 10_000,
    ) -> None:
        self._name = text("name", name)
        if workers is not None and scheduler is not None:
            raise ValueError("workers and scheduler can't both be given: a scheduler brings its own threads")
        bound = DEFAULT_MAX_WORKERS if workers is None else positive_int("workers", workers)
        given = check_scheduler(scheduler)
        self._capacity = positive_int("capacity", capacity)
        self._overflow = check_overflow(overflow)
        self._block_timeout = seconds("block_timeout", block_timeout)
        self._close_timeout = seconds("close_timeout", close_timeout)
        self._max_hops = None if max_hops is None else positive_int("max_hops", max_hops)
        self._hops_in_question = LONG_STORY if self._max_hops is None else self._max_hops + 1
        self._long_stories: OrderedDict[str, None] = OrderedDict()
        kept = positive_int("dead_letter_capacity", dead_letter_capacity)
        self._panel = check_instruments(instruments)
        self._loop_thread = LoopThread(self._name)
        weakref.finalize(self, self._loop_thread.close).atexit = False  # let go of without a close: its thread ends too
        self._own_pool = WorkerPool(bound) if given is None else None
        self._executor: Executor = executor_for(given or cast("WorkerPool", self._own_pool))
        self._registry = Registry(self._name, self)
        self._topics = self._registry.topics
        self._now: Callable[[], float] = time.time
        self._dead_letters = DeadLetters(self, kept, self._executor, self._registry.resend)
        self._requests = Requests()
        self._closing = False
        self._close_lock = threading.Lock()
        self._closer = threading.RLock()
        """Held by whoever does the closing."""
        self._closed = threading.Event()
        self._report = CloseReport()
        shutdown.open_buses.add(self)
        if self._panel is not None:
            self._panel.attached(self)

    @property
    def name(self) -> str:
        """Its name."""
        return self._name

    def __repr__(self) -> str:
        return f"EventBus({self._name!r}): {self._state}, {len(self._topics)} topics, {len(self._registry.living)} subscriptions"

    @property
    def _state(self) -> str:
        return "closed" if self._closed.is_set() else "closing" if self._closing else "open"

    def _card(self) -> Card:
        from .card import Card

        graph, books = self.graph(), self.statistics()
        card = Card("EventBus", self._name, self._state, facts=books.facts(), tables=books.tables())
        nodes = len(graph.topics) + len(graph.subscriptions)
        if not nodes:
            return card._replace(facts=["no topics and no subscriptions yet"])
        if nodes > DRAWN:
            many = f"{len(graph.topics):,} topics and {len(graph.subscriptions):,} subscriptions: bus.graph() draws them"
            return card._replace(facts=[*card.facts, many])
        return card._replace(picture=lambda: graph._chart(styled=False, titled=False), sketch=graph._sketch)

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
            if found._bus is not self:
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

    def _new_topic(self, name: str) -> Topic[Any]:
        return topic_for(name, self)

    def _executor_for(self, scheduler: abc.SchedulerBase) -> Executor:
        """Who runs what was given a scheduler of its own."""
        return executor_for(scheduler)

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
        return topic.is_stopped and not self._closing and self._topics.get(topic.name) is not topic

    def _check_metadata(self, topic: Any, payloads: Iterable[Any], metadata: Mapping[str, Any] | None) -> None:
        """Before a topic is made for them: events that go as they are have metadata of their own."""
        if metadata is not None and isinstance(topic, str) and topic not in self._topics:
            delivery = current_delivery.get()
            for payload in payloads:
                if isinstance(payload, Event) and payload._topic == topic and (delivery is None or delivery[0] != payload):
                    raise TypeError("metadata can't be given with a complete Event; it has its own")

    def publish_many(
        self, topic: str | Topic[Any], payloads: Iterable[Any], *, metadata: Mapping[str, Any] | None = None
    ) -> list[Event[Any]]:
        """`publish` of all, in a row and cheaper; all types are checked before the first goes out.

        Other publishers may come between. If the bus is closed in the middle, what went out before that stays.

        Raises: as `publish`, and `TypeError` for payloads that are no iterable, or a str or bytes.
        """
        batch, given = self._batch(topic, payloads, metadata)
        return self._topic(topic)._emit_many(batch, given)

    def _batch(
        self, topic: str | Topic[Any], payloads: Iterable[Any], metadata: Mapping[str, Any] | None
    ) -> tuple[list[Any], Mapping[str, Any] | None]:
        if isinstance(payloads, str | bytes) or not isinstance(payloads, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance] - untyped callers
            raise TypeError(f"payloads must be an iterable of payloads, got {describe(payloads)}")
        given = None if metadata is None else metadata_copy(metadata)
        batch = list(payloads)
        self._check_metadata(topic, batch, given)
        return batch, given

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
            if latest is not None and self._monotonic() >= latest:
                return False
            for target in targets:
                target.look_after_loops()
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

    async def apublish_many(
        self, topic: str | Topic[Any], payloads: Iterable[Any], *, metadata: Mapping[str, Any] | None = None
    ) -> list[Event[Any]]:
        """`publish_many` from a coroutine: where that would wait for room in a full mailbox, the loop goes on."""
        batch, given = self._batch(topic, payloads, metadata)
        return await self._topic(topic)._emit_many_patiently(batch, given)

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

        Returns False, and counts that, if nobody waits for it any more: it was answered, or its time was over.
        Raises: `BusError` if it asked nothing; `TypeError` for what is no `Event`.
        """
        if not isinstance(event, Event):  # pyright: ignore[reportUnnecessaryIsInstance] - untyped callers
            raise TypeError(f"event must be the Event that asked, got {describe(event)}")
        return self._requests.answer(event, payload)

    def _ask(self, topic: str, payload: Any, metadata: Mapping[str, Any], pending: Pending, waits: bool, latest: float | None) -> None:
        found = self._topics.get(topic)
        if found is None:
            self._admit(current_delivery.get())
            raise NoRespondersError(f"request to topic {topic!r}: expected a subscription of that topic, found none", topic)
        strands = [strand for fed in found._strands() for strand in fed]
        if waits and strands and all(strand.is_virtual for strand in strands):
            raise BusError(f"request to topic {topic!r} can't move the virtual clock of its subscriptions: subscribe to it, then advance")
        if waits and strands and all(strand.waits_in_vain() for strand in strands):
            raise BusError(f"request to topic {topic!r} from here would wait for itself: nobody else could run the subscription")
        found._emit_request(payload, metadata, pending, waits=waits, latest=latest)

    def _later(self, seconds: float, callback: Callable[[], None]) -> Cancellable:
        return self._executor.later(seconds, callback)

    def _call(self, callback: Callable[[], None]) -> None:
        executor = self._executor
        if isinstance(executor, WorkerPool):
            executor.call(callback)
            return

        def action(_: abc.SchedulerBase, __: object = None) -> None:
            callback()

        cast("SchedulerExecutor", executor).scheduler.schedule(action)

    # -- consuming

    def observe(
        self,
        pattern: str | Topic[Any],
        *,
        capacity: int | None = None,
        overflow: Overflow | None = None,
        name: str | None = None,
        scheduler: abc.SchedulerBase | None = None,
    ) -> Observable[Event[Any]]:
        """What the matching topics carry from each `subscribe` on, as an RxPY observable to compose with.

        Raises: `TopicNameError`, `TypeError` or `ValueError` naming the argument.
        """
        selected = self._pattern(pattern)
        mailbox = self._mailbox_maker(capacity, overflow)
        chosen = check_scheduler(scheduler)
        base = None if name is None else text("name", name)

        def subscribe(observer: abc.ObserverBase[Event[Any]], given: abc.SchedulerBase | None = None) -> abc.DisposableBase:
            return self._observe(selected, observer, given, mailbox, base, chosen)

        return Observed(subscribe, self, selected)

    def _observe(
        self,
        pattern: str,
        observer: abc.ObserverBase[Any],
        scheduler: abc.SchedulerBase | None,
        mailbox: Callable[[], Mailbox] | None = None,
        base: str | None = None,
        chosen: abc.SchedulerBase | None = None,
        kind: type[ObserverSubscription] = ObserverSubscription,
    ) -> abc.DisposableBase:
        given = check_scheduler(scheduler)
        if isinstance(given, TimeoutScheduler):
            given = None  # RxPY's own default, which some operators hand upstream though nobody chose it
        wanted = chosen or given
        executor = self._executor if wanted is None else self._executor_for(wanted)
        box = (mailbox or self._mailbox_maker(None, None))()
        self._refuse_when_closing()

        def make(name: str, _: Group | None) -> Subscription:
            return kind(Place(name, pattern, self, box, executor), observer)

        subscription = self._registry.attach(make, None, base or f"observer@{pattern}")
        if self._panel is not None:
            self._panel.subscribed(subscription)
        return subscription

    def _tap(self, pattern: str, observer: abc.ObserverBase[Any], name: str) -> abc.DisposableBase:
        """Has an observer look on: it gets each event before the publish of it returns, and all of them."""
        mailbox = partial(Mailbox, ANY_NUMBER, Overflow.BLOCK, self._block_timeout)
        return self._observe(pattern, observer, None, mailbox, name, ImmediateScheduler.singleton(), TapSubscription)

    def events(self, pattern: str | Topic[Any], *, capacity: int | None = None, overflow: Overflow | None = None) -> EventStream:
        """``async for event in bus.events("user.*")``: what the matching topics carry from this call on, taken as it is asked for.

        What isn't asked for yet waits in the mailbox, under its overflow policy; `drain` waits for it too.

        Raises: `TopicNameError`, `BusClosedError`, `RuntimeError` outside of a coroutine, or `TypeError` or `ValueError`.
        """
        selected = self._pattern(pattern)
        box = self._mailbox_maker(capacity, overflow)()
        channel = channel_here()
        self._refuse_when_closing()

        def make(name: str, _: Group | None) -> Subscription:
            return StreamSubscription(Place(name, selected, self, box, executor_of(channel.loop)), channel)

        subscription = self._registry.attach(make, None, f"events@{selected}")
        if self._panel is not None:
            self._panel.subscribed(subscription)
        return EventStream(channel)

    def subscribe(
        self,
        pattern: str | Topic[Any],
        handler: Callable[[Any], object] | abc.ObserverBase[Any],
        *,
        through: Callable[[Observable[Event[Any]]], Observable[Any]] | None = None,
        to: str | Topic[Any] | None = None,
        name: str | None = None,
        group: str | None = None,
        capacity: int | None = None,
        overflow: Overflow | None = None,
        concurrency: int = 1,
        key: Callable[[Any], Hashable] | None = None,
        retry: Retry | None = None,
        breaker: Breaker | None = None,
        timeout: float | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
        scheduler: abc.SchedulerBase | None = None,
    ) -> Subscription:
        """Has a handler called with each event of the matching topics, one at a time, supervised: it survives its failures.

        ``through`` is an RxPY operator between mailbox and handler; ``to`` is the topic where results are published, except
        ``None``; ``name`` is the handler's own unless told. ``concurrency`` is how many calls of the handler may go on at a
        time; those with equal ``key(value)`` keep their order. Subscriptions of one ``group`` on one pattern compete: each event
        goes to one of them. Coroutine functions run on the bus's own event loop, or on ``loop``; ``timeout`` is how many seconds an
        attempt of theirs may take before it is cancelled.

        Raises: `TopicNameError`, `HandlerError`, `BusClosedError`, or `TypeError` or `ValueError` naming the argument.
        """
        options = _Options(
            self, pattern, through, to, name, group, capacity, overflow, concurrency, key, retry, breaker, timeout, loop, scheduler
        )
        return self._subscribe(options, handler)

    def on(
        self,
        pattern: str | Topic[Any],
        *,
        through: Callable[[Observable[Event[Any]]], Observable[Any]] | None = None,
        to: str | Topic[Any] | None = None,
        name: str | None = None,
        group: str | None = None,
        capacity: int | None = None,
        overflow: Overflow | None = None,
        concurrency: int = 1,
        key: Callable[[Any], Hashable] | None = None,
        retry: Retry | None = None,
        breaker: Breaker | None = None,
        timeout: float | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
        scheduler: abc.SchedulerBase | None = None,
    ) -> Callable[[H], H]:
        """`subscribe` as a decorator; the function stays as it is."""
        options = _Options(
            self, pattern, through, to, name, group, capacity, overflow, concurrency, key, retry, breaker, timeout, loop, scheduler
        )

        def register(handler: H) -> H:
            self._subscribe(options, cast("Callable[[Any], object]", handler))
            return handler

        return register

    def _subscribe(self, options: _Options, handler: Callable[[Any], object] | abc.ObserverBase[Any]) -> Subscription:
        known = as_handler(handler)
        for argument, value in (("timeout", options.timeout), ("loop", options.loop)):
            if value is not None and not known.is_awaited:
                raise TypeError(f"{argument} is for coroutine handlers, got the {known.shape.value} {describe(handler)}")
        self._refuse_when_closing()
        loop = self._loop_for(options) if known.is_awaited else None
        # user code, so not under the lock of the registry
        pipeline = None if options.through is None else Pipeline(options.through)

        def make(name: str, group: Group | None) -> Subscription:
            sink = None if options.to is None else Answers(self._requests) if options.to is REPLY else self._topic(options.to)
            mailbox = options.mailbox() if group is None else group.mailbox
            several = options.concurrency > 1 or options.key is not None or (loop is not None and pipeline is not None)
            executor = options.executor if several or loop is None else loop
            place = Place(name, options.pattern, self, mailbox, executor, group)
            made: Subscription
            if several:
                made = ConcurrentSubscription(
                    place, known, pipeline, concurrency=options.concurrency, key=options.key, to=sink, retry=options.retry,
                    loop=loop, timeout=options.timeout,
                )  # fmt: skip
            elif pipeline is None:
                made = HandlerSubscription(place, known, to=sink, retry=options.retry)
                made._timeout = options.timeout
            else:
                made = PipelineSubscription(place, known, pipeline, to=sink, retry=options.retry)
            made._fuse = None if options.breaker is None else Fuse(made, options.breaker)
            return made

        subscription = self._registry.attach(make, options.name, known.name, options.membership)
        if isinstance(subscription, PipelineSubscription):
            subscription._start()
        if self._panel is not None:
            self._panel.subscribed(subscription)
        return subscription

    def _loop_for(self, options: _Options) -> LoopExecutor:
        return self._loop_thread.executor if options.loop is None else executor_of(options.loop)

    def _pattern(self, pattern: object) -> str:
        return self._topic(pattern).name if isinstance(pattern, Topic) else check_pattern(pattern)

    def _target(self, to: object) -> Any:
        if to is REPLY:
            return to
        return self._topic(to) if isinstance(to, Topic) else check_name(to, "to")

    def _mailbox_maker(self, capacity: int | None, overflow: Overflow | None) -> Callable[[], Mailbox]:
        size = self._capacity if capacity is None else positive_int("capacity", capacity)
        policy = self._overflow if overflow is None else check_overflow(overflow)
        return partial(Mailbox, size, policy, self._block_timeout)

    # -- what there is

    @property
    def topics(self) -> Mapping[str, Topic[Any]]:
        """The topics by name, live and read-only."""
        return MappingProxyType(self._topics)

    @property
    def subscriptions(self) -> Mapping[str, Subscription]:
        """The living subscriptions by name, live and read-only."""
        return MappingProxyType(self._registry.living)

    @property
    def dead_letters(self) -> DeadLetters:
        """The events that could not be handled."""
        return self._dead_letters

    def statistics(self) -> BusStatistics:
        """A snapshot of all counters."""
        pool = self._executor
        workers = pool.statistics() if isinstance(pool, WorkerPool) else None
        return self._registry.statistics(workers, self._dead_letters._made_by_reason(), self._requests.late)

    def graph(self) -> BusGraph:
        """A snapshot of who feeds whom."""
        return self._registry.graph()

    def forget(self, name: str | Topic[Any]) -> None:
        """Completes a topic and drops it with its own subscriptions, after what they have queued; unknown names are no error.

        Raises: `TopicNameError`.
        """
        if not isinstance(name, Topic):
            self._registry.forget(check_name(name, "name"))
        elif not name.is_stopped:
            self._registry.forget(self._topic(name).name)

    # -- the end

    def drain(self, timeout: float | None = None) -> None:
        """Waits until nothing is queued or being handled, chained events included; timers of pipelines don't count.

        Raises: `DrainTimeoutError` after ``timeout`` seconds, naming who is busy; `BusError` where it would never end: from a
        handler of this bus, on an event loop that runs some of them, or with events of a paused subscription.
        """
        limit = optional_seconds("timeout", timeout)
        self._check_may_drain()
        if self._serves_this_loop():
            raise BusError(f"drain of bus {self._name!r} on the event loop of its handlers would wait for itself: await adrain()")
        self._drain(self._everybody, None if limit is None else self._monotonic() + limit)

    def _monotonic(self) -> float:
        """The clock by which waits are timed, in seconds."""
        return time.monotonic()

    def _drain(self, subscriptions: shutdown.Subscriptions, deadline: float | None, *, strict: bool = True) -> None:
        """Waits until these have nothing to do."""
        shutdown.drain(self._name, subscriptions, deadline, strict=strict)

    async def adrain(self, timeout: float | None = None) -> None:
        """`drain` from a coroutine: the loop goes on meanwhile.

        Raises: as `drain`.
        """
        limit = optional_seconds("timeout", timeout)
        self._check_may_drain()
        deadline = None if limit is None else time.monotonic() + limit
        while True:
            # in slices, so that no thread goes on waiting for long after this was cancelled
            until = time.monotonic() + SLICE_OF_DRAIN
            last = deadline is not None and deadline <= until
            try:
                return await elsewhere(partial(shutdown.drain, self._name, self._everybody, deadline if last else until))
            except DrainTimeoutError:
                if last:
                    raise

    def _check_may_drain(self) -> None:
        if self._inside_handler():
            raise BusError(f"drain of bus {self._name!r} from one of its handlers or instruments would wait for itself")

    def _serves_this_loop(self) -> bool:
        """Whether handlers of this bus run on the event loop that runs the calling code."""
        if asyncio._get_running_loop() is None:  # pyright: ignore[reportAttributeAccessIssue,reportUnknownMemberType] - None instead of an error
            return False
        executors = (executor for one in self._everybody() for executor in one._strand.executors())
        return any(isinstance(executor, LoopExecutor) and executor.is_here() for executor in executors)

    def close(self, timeout: float | None = None, *, drain: bool = True) -> CloseReport:
        """Refuses publishers from now on, has everything handled that was published, and completes all topics.

        It takes ``timeout`` seconds at most (``close_timeout`` unless told) and reports what could not be finished. With
        ``drain=False`` what is queued is dropped. Called from a handler, or on an event loop that runs some of them, it returns an
        empty report at once and finishes elsewhere. Idempotent: a second call waits for the first one's report.

        Raises: `TypeError` or `ValueError` for a timeout that is no number of seconds.
        """
        limit = self._close_timeout if timeout is None else seconds("timeout", timeout)
        deadline = self._monotonic() + limit
        with self._close_lock:
            first, self._closing = not self._closing, True
        inside = self._inside_handler() or self._serves_this_loop()
        if not inside:
            self._finish_closing(deadline, drain)
        elif first:
            self._registry.seal()
            self._elsewhere(partial(self._finish_closing, deadline, drain))
        if self._closed.is_set() or inside:
            return self._report
        return shutdown.report(self._everybody())

    def _elsewhere(self, finish: Callable[[], None]) -> None:
        """Has a close finished that was asked for from a handler."""
        threading.Thread(target=finish, name="rxbus-close", daemon=True).start()

    async def aclose(self, timeout: float | None = None, *, drain: bool = True) -> CloseReport:
        """`close` from a coroutine: the loop goes on meanwhile.

        Raises: as `close`.
        """
        if self._inside_handler():
            return self.close(timeout, drain=drain)
        return await elsewhere(partial(self.close, timeout, drain=drain))

    def _finish_closing(self, deadline: float, drain: bool) -> None:
        """Closes, or waits until somebody else has; if Ctrl-C kept that one from it, the next one who comes does it."""
        closer = self._closer
        try:
            with waiting():
                mine = closer.acquire(timeout=max(0.0, deadline - self._monotonic()))
            if mine and not self._closed.is_set():
                self._registry.seal()
                shutdown.Closing(self, self._registry, self._dead_letters, self._everybody, self._closed_with).run(deadline, drain)
        finally:
            let_go(closer)

    def _closed_with(self, report: CloseReport) -> None:
        """The end of a close."""
        self._report = report
        if self._own_pool is not None:
            self._own_pool.close()
        self._loop_thread.close()
        self._requests.close(self._registry.closed_error())
        shutdown.open_buses.discard(self)
        if self._panel is not None:
            self._panel.closed(report)
        self._closed.set()

    def _orphan(self) -> None:
        """In the child of a fork: it refuses everything, and a close has nothing to do."""
        self._closing = True
        self._close_lock = threading.Lock()
        self._closer = threading.RLock()
        self._closed = threading.Event()
        self._closed.set()
        self._registry.orphan()
        self._loop_thread.orphan()
        self._dead_letters._orphan()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._warn(self.close(drain=kind is None))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._warn(await self.aclose(drain=kind is None))

    def _warn(self, report: CloseReport) -> None:
        if report.stuck or report.unhandled:
            warnings.warn(f"bus {self._name!r} was closed before all was handled: {report}", RuntimeWarning, stacklevel=3)

    # -- as the host of topics and subscriptions

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

    def _refuse_when_closing(self) -> None:
        if self._closing:
            raise self._registry.closed_error()

    def _add_letter(self, letter: DeadLetter) -> None:
        self._requests.note(letter)
        self._dead_letters._add(letter)
        if self._panel is not None:
            self._panel.dead_lettered(letter)

    def _detach(self, subscription: Subscription) -> None:
        self._registry.detach(subscription)

    def _retire(self, subscription: Subscription) -> None:
        if self._registry.retire(subscription) and self._panel is not None:
            self._panel.disposed(subscription)

    def _adopt(self, subscription: Subscription, base: str) -> bool:
        adopted = self._registry.adopt(subscription, base)
        if adopted and self._panel is not None:
            self._panel.subscribed(subscription)
        return adopted

    def _everybody(self) -> list[Subscription]:
        """All who consume, the observers of the dead letters included."""
        return [*self._registry.subscriptions(), *self._dead_letters._subscriptions()]

    def _inside_handler(self) -> bool:
        """Whether a handler or an instrument of this bus calls the calling code."""
        if self._panel is not None and self._panel.is_calling_here:
            return True
        return any(isinstance(one, Strand) and self._owns(getattr(one.consumer, "_host", None)) for one in running_chain())

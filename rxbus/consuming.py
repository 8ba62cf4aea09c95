"""The verbs of those who consume: `EventBus` has them from here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, TypeVar, cast, overload

from reactivex import Observable, abc
from reactivex.scheduler import ImmediateScheduler, TimeoutScheduler

from .arguments import describe, optional_seconds, positive_int, text
from .concurrency import ConcurrentSubscription
from .consumer import HandlerSubscription, Pipeline, PipelineSubscription
from .dead_letters import DeadLetters
from .event import Event
from .event_stream import EventStream, StreamSubscription, channel_here
from .fuse import Fuse
from .group import Group
from .handler import as_handler, as_key
from .host import Place
from .inlet import ANY_NUMBER
from .loops import LoopExecutor, LoopThread, check_loop, executor_of
from .mailbox import Mailbox, Overflow
from .observed import topic_for
from .observer import Observed, ObserverSubscription, TapSubscription
from .outcome import DeadLetter
from .pattern import check_name, check_pattern
from .publishing import Publishing
from .recovery import Breaker, Retry, check_breaker, check_retry
from .registry import Membership
from .request import REPLY, Answers
from .schedulers import Executor, check_scheduler, executor_for
from .subject import check_overflow
from .subscription import Subscription
from .topic import Named, Topic

T = TypeVar("T")
H = TypeVar("H")


class Options:
    """The checked arguments of `EventBus.subscribe`; nothing has happened yet."""

    def __init__(
        self,
        bus: Consuming,
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


class Consuming(Publishing):
    """A bus as seen by whoever consumes, too."""

    _capacity: int
    _overflow: Overflow
    _block_timeout: float
    _loop_thread: LoopThread
    _dead_letters: DeadLetters
    _is_virtual = False

    def _executor_for(self, scheduler: abc.SchedulerBase) -> Executor:
        """Who runs what was given a scheduler of its own."""
        return executor_for(scheduler)

    def _refuse_when_closing(self) -> None:
        if self._closing:
            raise self._registry.closed_error()

    @overload
    def observe(
        self,
        pattern: Topic[T],
        *,
        capacity: int | None = None,
        overflow: Overflow | None = None,
        name: str | None = None,
        scheduler: abc.SchedulerBase | None = None,
    ) -> Observable[Event[T]]: ...
    @overload
    def observe(
        self,
        pattern: str,
        *,
        capacity: int | None = None,
        overflow: Overflow | None = None,
        name: str | None = None,
        scheduler: abc.SchedulerBase | None = None,
    ) -> Observable[Event[Any]]: ...
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

    @overload
    def events(self, pattern: Topic[T], *, capacity: int | None = None, overflow: Overflow | None = None) -> EventStream[T]: ...
    @overload
    def events(self, pattern: str, *, capacity: int | None = None, overflow: Overflow | None = None) -> EventStream[Any]: ...
    def events(self, pattern: str | Topic[Any], *, capacity: int | None = None, overflow: Overflow | None = None) -> EventStream[Any]:
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
        stream: EventStream[Any] = EventStream(channel)
        return stream

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
        options = Options(
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
        options = Options(
            self, pattern, through, to, name, group, capacity, overflow, concurrency, key, retry, breaker, timeout, loop, scheduler
        )

        def register(handler: H) -> H:
            self._subscribe(options, cast("Callable[[Any], object]", handler))
            return handler

        return register

    def _subscribe(self, options: Options, handler: Callable[[Any], object] | abc.ObserverBase[Any]) -> Subscription:
        known = as_handler(handler)
        for argument, value in (("timeout", options.timeout), ("loop", options.loop)):
            if value is not None and not known.is_awaited:
                raise TypeError(f"{argument} is for coroutine handlers, got the {known.shape.value} {describe(handler)}")
        self._refuse_when_closing()
        loop = self._loop_for(options) if known.is_awaited else None
        # user code, so not under the lock of the registry
        pipeline = None if options.through is None else Pipeline(options.through)

        def make(name: str, group: Group | None) -> Subscription:
            sink = None if options.to is None else self._sink(options.to)
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

    def _sink(self, to: Any) -> Topic[Any] | Named | Answers:
        if to is REPLY:
            return Answers(self._requests)
        return self._topic(to) if isinstance(to, Topic) else Named(to, self)

    def _loop_for(self, options: Options) -> LoopExecutor:
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

    # -- as the host of topics and subscriptions

    def _new_topic(self, name: str) -> Topic[Any]:
        return topic_for(name, self)

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

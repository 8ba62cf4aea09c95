"""Operators that pipe with RxPY's own: ``from rxbus import operators``."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar, cast

from reactivex import Observable, abc
from reactivex import operators as ops
from reactivex.disposable import CompositeDisposable
from reactivex.scheduler import TimeoutScheduler

from .arguments import describe, plain_function
from .boxes import Box
from .event import Event, current_delivery
from .joining import dedupe, join_by
from .mailbox import DEFAULT_CAPACITY, Overflow
from .mapping import map_async
from .outcome import DeadLetter, Reason
from .recovery import Retry, check_retry, traceback_text, without_frames
from .step import Step
from .strand_scheduler import StrandScheduler
from .subject import MailboxSubject
from .topic import Topic, check_type
from .workers import waiting

__all__ = ["attempt", "dedupe", "join_by", "mailbox", "map_async", "of_type", "payload", "publish_to", "where"]

T = TypeVar("T")
U = TypeVar("U")

BRIEFLY = 0.001
"""Seconds between two looks whether `attempt` is free."""


def _payload_of(event: Event[T]) -> T:
    return event.payload


def payload() -> Callable[[Observable[Event[T]]], Observable[T]]:
    """The payload of each event.

    ::

        ──E(1)──E(2)──|
        ──1─────2─────|
    """
    return ops.map(_payload_of)


def of_type(cls: type[U]) -> Callable[[Observable[Event[Any]]], Observable[Event[U]]]:
    """The events whose payload is of that class, or union of classes.

    ::

        ──E(1)──E("a")──E(2)──|
        ──E(1)──────────E(2)──|     of_type(int)

    Raises: `TypeError` for what is no class.
    """
    classes = check_type(cls, "cls")

    def fits(event: Event[Any]) -> bool:
        return isinstance(event.payload, classes)

    return cast("Callable[[Observable[Event[Any]]], Observable[Event[U]]]", ops.filter(fits))


def where(**metadata: Any) -> Callable[[Observable[Event[T]]], Observable[Event[T]]]:
    """The events whose metadata has all these keys, with equal values.

    ::

        ──E(user=ada)──E(user=bob)──E(user=ada)──|
        ──E(user=ada)───────────────E(user=ada)──|     where(user="ada")

    Raises: `TypeError` for a coroutine function, which is no value of any metadata.
    """
    for key, value in metadata.items():
        if callable(value):
            plain_function(key, value, "; where compares values")
    wanted = tuple(metadata.items())

    def fits(event: Event[T]) -> bool:
        return all(key in event.metadata and event.metadata[key] == value for key, value in wanted)

    return ops.filter(fits)


def publish_to(topic: Topic[T]) -> Callable[[Observable[T]], Observable[T]]:
    """Publishes each item on a topic and passes it through. Errors and completion pass by the topic.

    ::

        ──a──b──|
        ──a──b──|     and on the topic: ──a──b──

    Raises: `TypeError` for what is no topic.
    """
    if not isinstance(topic, Topic):  # pyright: ignore[reportUnnecessaryIsInstance] - untyped callers
        raise TypeError(f"topic must be a Topic, got {describe(topic)}")
    return ops.do_action(topic.on_next)


def mailbox(
    capacity: int = DEFAULT_CAPACITY, overflow: Overflow = Overflow.BLOCK, scheduler: abc.SchedulerBase | None = None
) -> Callable[[Observable[T]], Observable[T]]:
    """What comes after it runs on a scheduler of its own behind a bounded mailbox: what ``observe_on`` should have been.

    ``capacity`` is in items; ``scheduler`` is the one of the subscription, or a shared pool, unless told. An observer behind
    it that raises gets the next item all the same; `EventBus.drain` waits for it too.

    ::

        ──123──────────|
        ──1───2───3────|     with an observer that takes its time

    Raises: `TypeError` or `ValueError` naming the argument.
    """
    MailboxSubject[Any](capacity=capacity, overflow=overflow, scheduler=scheduler)  # checks the arguments at this call

    def operator(source: Observable[T]) -> Observable[T]:
        def subscribe(observer: abc.ObserverBase[T], given: abc.SchedulerBase | None = None) -> abc.DisposableBase:
            # what some operators hand upstream, and the strand of a pipeline, which a mailbox is to relieve, nobody chose
            chosen = None if isinstance(given, TimeoutScheduler | StrandScheduler) else given
            box = Box[T](capacity=capacity, overflow=overflow, scheduler=scheduler or chosen)
            inside = box.subscribe(observer)
            outside = source.subscribe(box.on_next, box.on_error, box.on_completed, scheduler=given)
            return CompositeDisposable(outside, inside)

        return Observable(subscribe)

    return operator


def attempt(
    fn: Callable[[T], U], retry: Retry | None = None, dead_letters: abc.ObserverBase[DeadLetter] | None = None
) -> Callable[[Observable[T]], Observable[U]]:
    """A map whose failures leave the stream alive.

    A failing item is left out. Its event becomes a dead letter of the bus that carries it, or the letter goes to the observer
    given. While ``retry`` backs off, the subscription waits without holding a thread, in order.

    ::

        ──1──2──3──|
        ──a─────c──|     with fn(2) raising

    Raises: `TypeError` naming the argument.
    """
    if not callable(fn):
        raise TypeError(f"fn must be callable, got {describe(fn)}")
    plain_function("fn", fn, "; for those there is map_async")
    check_retry(retry)
    if dead_letters is not None and not callable(getattr(dead_letters, "on_next", None)):
        raise TypeError(f"dead_letters must be an observer, got {describe(dead_letters)}")

    def operator(source: Observable[T]) -> Observable[U]:
        def subscribe(observer: abc.ObserverBase[U], scheduler: abc.SchedulerBase | None = None) -> abc.DisposableBase:
            one = _Attempt(fn, dead_letters, observer) if retry is None else _RetryingAttempt(fn, dead_letters, observer, retry)
            return source.subscribe(one.on_next, one.on_error, one.on_completed, scheduler=scheduler)

        return Observable(subscribe)

    return operator


class _Attempt(Generic[T, U]):
    """The observer of `attempt` without a retry."""

    def __init__(self, fn: Callable[[T], U], letters: abc.ObserverBase[DeadLetter] | None, observer: abc.ObserverBase[U]) -> None:
        self._fn = fn
        self._letters = letters
        self._observer = observer

    def on_next(self, value: T) -> None:
        try:
            result = self._fn(value)
        except BaseException as error:
            self._give_up(value, error, 1)
        else:
            self._observer.on_next(result)

    def on_error(self, error: Exception) -> None:
        self._observer.on_error(error)

    def on_completed(self) -> None:
        self._observer.on_completed()

    def _give_up(self, value: Any, error: BaseException, attempts: int) -> None:
        delivery = current_delivery.get()
        if self._letters is None:
            if delivery is not None:
                delivery[1]._mark_failed(delivery, error)
            elif isinstance(error, Exception):
                self._observer.on_error(error)  # no bus to keep a letter: as `map` would
            else:
                raise error
            return
        trace = traceback_text(error)
        carrier = Event("attempt", value) if delivery is None else delivery[0]
        event = cast("Event[Any]", value) if isinstance(value, Event) else carrier
        name = "attempt" if delivery is None else delivery[1].name
        letter = DeadLetter(
            event, name, Reason.FAILED, without_frames(error), trace, attempts, carrier.time if delivery is None else delivery[1]._now()
        )
        self._letters.on_next(letter)


class _RetryingAttempt(_Attempt[T, U]):
    """The observer of `attempt` with a retry.

    It works at one event at a time. While an item of that event waits for its next attempt, other items of it stand in line;
    items of other events, which come here from other subscriptions, and the end of the source wait until it is done.
    ``_lock`` guards who is at work and never is held while ``fn`` or anything downstream runs.
    """

    def __init__(
        self, fn: Callable[[T], U], letters: abc.ObserverBase[DeadLetter] | None, observer: abc.ObserverBase[U], retry: Retry
    ) -> None:
        super().__init__(fn, letters, observer)
        self._retry = retry
        self._lock = threading.Lock()
        self._at_work: object = None
        self._putting_off = False
        self._line: deque[T] = deque()
        self._end: Callable[[], None] | None = None

    def on_next(self, value: T) -> None:
        delivery = current_delivery.get()
        me: object = threading.current_thread() if delivery is None else delivery
        with self._lock:
            if self._at_work is me and self._putting_off:
                self._line.append(value)
                return
            if self._at_work is None:
                self._at_work = me
            mine = self._at_work is me
        if mine:
            self._work(value, 1)
        elif not self._put_off(BRIEFLY, partial(self._come_back, value), 1):
            while self._at_work is not None:
                with waiting():
                    time.sleep(BRIEFLY)
            self.on_next(value)

    def _come_back(self, value: T, _: Event[Any]) -> None:
        self.on_next(value)

    def on_error(self, error: Exception) -> None:
        self._finish(partial(self._observer.on_error, error))

    def on_completed(self) -> None:
        self._finish(self._observer.on_completed)

    def _finish(self, end: Callable[[], None]) -> None:
        with self._lock:
            busy = self._putting_off or bool(self._line)
            if busy:
                self._end = end
        if not busy:
            end()

    def _work(self, value: T, number: int) -> None:
        """Tries an item, then those that stand in line behind it, until one has to wait."""
        try:
            self._try(value, number)
            while self._line and not self._putting_off:
                self._try(self._line.popleft(), 1)
        finally:
            if not self._putting_off:
                self._done()

    def _done(self) -> None:
        """This event's items are through, or will not be; whoever waits may come."""
        with self._lock:
            self._at_work, self._putting_off = None, False
            self._line.clear()
            end, self._end = self._end, None
        if end is not None:
            end()

    def _try(self, value: T, number: int) -> None:
        while True:
            try:
                result = self._fn(value)
            except BaseException as error:
                if not self._retry.allows(error, number):
                    self._give_up(value, error, number)
                    return
                delivery = current_delivery.get()
                pause = self._retry.delay(number, exactly=delivery is not None and delivery[1]._host._is_virtual)
                number += 1
                self._putting_off = True
                if self._put_off(pause, partial(self._again, value, number), number, error):
                    return
                self._putting_off = False
            else:
                self._observer.on_next(result)
                return
            with waiting():
                time.sleep(pause)  # no subscription carries this item: only the calling thread keeps its place in the order

    def _put_off(self, pause: float, call: Callable[[Event[Any]], None], number: int, error: BaseException | None = None) -> bool:
        delivery = current_delivery.get()
        return delivery is not None and delivery[1]._defer(delivery, Step(call, number, pause, error, self._done))

    def _again(self, value: T, number: int, _: Event[Any]) -> None:
        self._putting_off = False
        # the delivery is another one with each attempt
        self._at_work = current_delivery.get()
        self._work(value, number)

"""The supervised way to consume: a handler, with or without a pipeline between its mailbox and itself.

The mailbox stands outside the pipeline. When an operator fails, that event is lost to it (or retried), the pipeline is
subscribed to anew, and the mailbox keeps what is queued. A handler that fails does not reach the operators at all.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from types import CoroutineType
from typing import Any, cast

import reactivex
from reactivex import Observable, abc
from reactivex.disposable import Disposable

from .arguments import Shape, describe, plain_function, takes_one
from .errors import HandlerError
from .event import Event, RawDelivery, current_delivery
from .handler import Handler
from .host import Place
from .mailbox import Entry
from .recovery import Retry
from .request import Answers
from .results import Results
from .step import Pause, Step
from .subscription import UNFINISHED, Subscription, refuse_unfinished
from .topic import Named, Topic

_log = logging.getLogger("rxbus")


class HandlerSubscription(Subscription):
    """A handler that takes events straight from the mailbox."""

    __slots__ = ("_call", "_to")

    def __init__(
        self,
        place: Place,
        handler: Handler,
        *,
        to: Topic[Any] | Named | Answers | None = None,
        retry: Retry | None = None,
    ) -> None:
        super().__init__(place, retry=retry)
        self._call = handler.call
        self._to = to
        self._target = None if to is None else to.name
        self._handle = self._uniform(handler.shape)

    def _uniform(self, shape: Shape) -> Callable[[Any], Any]:
        """One call for one value, a coroutine function or not, that publishes what comes of it."""
        results = Results(self, self._call, self._to, takes_none=isinstance(self._to, Answers))
        if shape is Shape.GENERATOR:
            return results.of_generator
        if shape is Shape.ASYNC_GENERATOR:
            return results.of_async_generator
        if self._to is None:
            return self._call
        return results.of_coroutine if shape is Shape.COROUTINE else results.of_function


class _Head(Observable[Event[Any]]):
    """Where a pipeline begins: what subscribes here is fed by the strand. Only the strand's run emits."""

    def __init__(self) -> None:
        super().__init__()
        self._observers: list[abc.ObserverBase[Event[Any]]] = []

    def _subscribe_core(self, observer: abc.ObserverBase[Event[Any]], scheduler: abc.SchedulerBase | None = None) -> abc.DisposableBase:
        self._observers = [*self._observers, observer]
        return Disposable(partial(self._remove, observer))

    def _remove(self, observer: abc.ObserverBase[Event[Any]]) -> None:
        self._observers = [o for o in self._observers if o is not observer]

    def emit(self, event: Event[Any]) -> None:
        """Feeds every observer of this moment."""
        for observer in self._observers:
            observer.on_next(event)

    def complete(self) -> None:
        """Completes every observer of this moment."""
        for observer in self._observers:
            observer.on_completed()


class Pipeline:
    """What a user's operators make of a head; composed once, subscribed to as often as it fails."""

    def __init__(self, through: Callable[[Observable[Event[Any]]], Observable[Any]]) -> None:
        if callable(through):
            plain_function("through", through)
        try:
            takes_one("through", through, "the source")
        except TypeError as error:
            raise TypeError(f"through must be an RxPY operator, or reactivex.compose(...) of several: {error}") from None
        self.head = _Head()
        composed: Any = through(self.head)
        if not isinstance(composed, reactivex.abc.ObservableBase):
            raise TypeError(f"through must be an RxPY operator, which returns an observable; it returned {describe(composed)}")
        self.composed = cast("abc.ObservableBase[Any]", composed)


class PipelineSubscription(HandlerSubscription):
    """A handler behind a pipeline of RxPY operators.

    All of it happens in the strand's run, one step at a time: an event, a timer's emission, another attempt. What a
    pipeline emits on a thread of its own is brought back to the strand first. The pipeline is subscribed to in a context
    in which nothing is being handled: what its timers emit is caused by the events that set them, not by whoever happened to
    subscribe or to fail.
    """

    __slots__ = (
        "_again",
        "_attempting",
        "_broken",
        "_clean",
        "_connected",
        "_connecting",
        "_connection",
        "_ending",
        "_feeding",
        "_flushed",
        "_number",
        "_pipeline",
        "_publishing",
        "_rest",
        "_undone",
        "_value_error",
        "_wait",
    )

    def __init__(
        self,
        place: Place,
        handler: Handler,
        pipeline: Pipeline,
        *,
        to: Topic[Any] | Named | Answers | None = None,
        retry: Retry | None = None,
    ) -> None:
        super().__init__(place, handler, to=to, retry=retry)
        self._publishing = self._handle
        self._handle = self._feed
        self._pipeline = pipeline
        self._clean = copy_context()
        self._clean.run(current_delivery.set, None)
        self._connection: abc.DisposableBase | None = None
        self._connected = False
        self._connecting = False
        self._ending = False
        self._feeding = False
        self._flushed = 0
        """The number of the connection that was flushed last."""
        self._number = 0
        """Of connections so far."""
        self._broken: BaseException | None = None
        self._undone: list[Any] = []
        self._again: BaseException | None = None
        """Why the value that failed last gets another attempt."""
        self._value_error: BaseException | None = None
        self._attempting = False
        """The handler has a value of the event in progress."""
        self._wait: Pause | None = None
        """What that value waits for before it goes on."""
        self._rest: tuple[Callable[[], object], Callable[[], object] | None] | None = None
        """How it goes on, and what to call if it doesn't."""

    # -- connecting

    def _start(self) -> None:
        """Has the strand subscribe to the pipeline before it takes the first event."""
        self._strand.enqueue(self._clean.copy(), self._connect_first)

    def _connect_first(self) -> None:
        if not self._connected:
            self._connect()

    def _connect(self) -> None:
        """Subscribes to the pipeline, in place of an older subscription; an error that it ends in at once is in `_broken`."""
        self._disconnect()
        self._connected = self._connecting = True
        try:
            step = partial(self._strand.step, self._subscribe)
            self._clean.copy().run(step)
        except BaseException as error:
            self._broken = error
        finally:
            self._connecting = False
        if self._broken is not None:
            self._connected = False

    def _subscribe(self) -> None:
        self._number += 1
        completed = partial(self._on_completed, self._number)
        self._connection = self._pipeline.composed.subscribe(self._on_value, self._on_error, completed, scheduler=self._strand.scheduler)

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.dispose()
            except BaseException as error:
                self._report_late(current_delivery.get(), error)  # a `finally_action` of the user's

    # -- one event

    def _process(self, entry: Entry, started: float, call: Callable[[Any], object] | None = None, attempt: int = 1) -> float:
        ended = super()._process(entry, started, call, attempt)
        if self._ending and not self._strand.is_suspended:
            self._complete()
        return ended

    def _feed(self, event: Event[Any]) -> None:
        """Offers an event to the pipeline; raises what an operator failed with."""
        self._rest = None
        self._bracket(self._emit, event)

    def _emit(self, event: Event[Any]) -> None:
        if not self._connected:
            self._connect()
        if self._broken is None:
            self._pipeline.head.emit(event)

    def _defer(self, delivery: RawDelivery, step: Step) -> bool:
        step.call = partial(self._bracket, step.call)
        return super()._defer(delivery, step)

    def _bracket(self, call: Callable[[Any], object], event: Event[Any]) -> None:
        """Calls something that may make the pipeline emit, as part of the event in progress."""
        self._broken = None
        self._feeding = True
        try:
            self._strand.step(partial(call, event))
        except BaseException as error:
            self._broken = error  # an operator that lets errors through
        finally:
            self._feeding = False
        broken, self._broken = self._broken, None
        if broken is not None:
            self._undone, self._value_error, self._again = [], None, None
            if self._wait is not None and (left := self._next_attempt(1).cancel()) is not None:
                self._report_late(current_delivery.get(), left)
            self._rest = None
            if not self._strand.is_closed:
                self._reconnect()
            raise broken
        if self._undone:
            self._later = [self._next_attempt(1), *self._later]
        else:
            self._book_value_error()

    def _reconnect(self) -> None:
        """Subscribes anew after a failure; if that fails at once too, the next event tries again."""
        self._connect()
        self._broken = None

    def _on_value(self, value: Any) -> None:
        if value.__class__ is CoroutineType:
            value.close()
            raise HandlerError(f"subscription {self._name!r}: a function of its pipeline made a coroutine: use operators.map_async", value)
        if not self._strand.running_here():
            self._strand.enqueue(copy_context(), partial(self._on_value, value))
        elif not self._feeding or self._connecting:
            self._handle_late(value)
        elif self._undone:
            self._undone.append(value)  # an earlier value of this event waits for its next attempt
        elif self._attempt(value, 1):
            self._undone.append(value)

    def _handle_late(self, value: Any) -> None:
        """A timer's emission: its events were settled, so a failure can only be reported."""
        try:
            self._publishing(value)
        except BaseException as error:
            self._report_late(current_delivery.get(), error)

    def _attempt(self, value: Any, attempt: int) -> bool:
        """Hands one value to the handler, or goes on with it; whether it needs another attempt, or has to wait."""
        rest, self._rest = self._rest, None
        self._attempting = True
        try:
            result = self._publishing(value) if rest is None else rest[0]()
            if result is not None and result.__class__ in UNFINISHED:
                refuse_unfinished(self._name, result)
        except BaseException as error:
            if self._retry is not None and not self._strand.is_closed and self._retry.allows(error, attempt):
                self._again = error
                return True
            if self._value_error is None:
                self._value_error = error
        finally:
            self._attempting = False
        return self._wait is not None

    def _in_progress(self) -> Subscription | None:
        return self if self._attempting else None

    def _go_on_after(self, wait: Pause, call: Callable[[], object], cancelled: Callable[[], object] | None = None) -> None:
        """The values that the event made after this one wait too."""
        self._wait, self._rest = wait, (call, cancelled)

    def _next_attempt(self, attempt: int) -> Step:
        wait, self._wait = self._wait, None
        if wait is not None:
            assert self._rest is not None
            cancelled = self._rest[1] or (self._forget_rest if len(self._undone) > 1 else None)
            return Step(partial(self._go_on, attempt), attempt, 0.0, None, cancelled, wait=wait, is_kept=True)
        assert self._retry is not None
        error, self._again = self._again, None
        return Step(partial(self._go_on, attempt + 1), attempt + 1, self._pause_after(self._retry, attempt), error)

    def _go_on(self, attempt: int, event: Event[Any]) -> None:
        """The next attempt at the value that failed, then the values that the event made after it."""
        while self._undone:
            if self._attempt(self._undone[0], attempt):
                self._later = [self._next_attempt(attempt), *self._later]
                return
            del self._undone[0]
            if attempt > 1 and self._undone:
                attempt = 1  # the next value is tried for the first time, and whoever asks is told so
                self._delivery = delivery = (event, self, attempt)
                current_delivery.set(delivery)
        self._book_value_error()

    def _cancel_held(self, held: Step) -> None:
        held.failure, self._value_error = held.failure or self._value_error, None
        super()._cancel_held(held)

    def _forget_rest(self) -> None:
        self._undone, self._rest = [], None

    def _book_value_error(self) -> None:
        if self._value_error is not None:
            self._failure, self._value_error = self._failure or self._value_error, None

    # -- the end of the pipeline

    def _flush(self) -> None:
        """Has what its operators hold come out now; the next event begins with a new pipeline."""
        self._strand.enqueue(self._clean.copy(), self._complete_head)

    def _complete_head(self) -> None:
        self._flushed = self._number
        try:
            self._pipeline.head.complete()
        except BaseException as raised:
            self._report_late(current_delivery.get(), raised)
        finally:
            self._connected = False

    def _terminate(self, error: Exception | None) -> None:
        self._clean.copy().run(self._strand.step, self._complete_head)
        self._end()

    def _on_error(self, error: Exception) -> None:
        if not self._strand.running_here():
            self._strand.enqueue(copy_context(), partial(self._on_error, error))
        elif self._feeding or self._connecting:
            self._broken = error
        else:
            self._report_late(current_delivery.get(), error)
            self._connected = False  # the next event connects again; at once could mean for ever (`timeout`)

    def _on_completed(self, number: int) -> None:
        if number == self._flushed:
            return  # it was told to, perhaps a while ago; the subscription goes on
        if not self._strand.running_here() or self._strand.in_flight is None:
            self._strand.enqueue(copy_context(), self._complete)
        else:
            self._ending = True  # the event that completed it is settled first

    def _complete(self) -> None:
        self._ending = True
        self._end()

    def _log_end(self, dropped: int) -> None:
        if self._ending:
            _log.info(
                "subscription %r on %r has ended: its pipeline completed; %d queued events were dropped",
                self._name, self._pattern, dropped,
            )  # fmt: skip
        else:
            super()._log_end(dropped)

    def _end(self) -> bool:
        ended = super()._end()
        if self._strand.running_here():
            self._disconnect()  # otherwise an event may just be on its way through; `_closed` comes after it
        return ended

    def _closed(self) -> None:
        self._disconnect()
        super()._closed()

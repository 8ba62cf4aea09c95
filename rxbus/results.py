"""What becomes of a handler's results: they are published one after the other.

A result is in its target's mailboxes at once. If one of those is over its bound then, the event in progress is suspended until there
is room, and goes on from there (with the next value of a generator, or with its end): no thread is held meanwhile. An observable
is subscribed to, and the event suspended until it ends; its values are published on whatever thread emits them.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing, suppress
from contextvars import Context, copy_context
from functools import partial
from types import CoroutineType
from typing import Any, Protocol, cast

from reactivex import Observable, abc

from .event import current_delivery
from .inlet import Vigil, Wait, give_up
from .schedulers import Cancellable
from .subscription import Pause, Subscription, refuse_coroutine
from .waits import here, running_chain
from .workers import WorkerPool, waiting

AHEAD = 1024
"""Values of an observable that a coroutine handler returned, and that were not published yet, at most."""
_END: Any = object()


class Sink(Protocol):
    """Where results go."""

    def _emit(self, payload: Any, metadata: None, /) -> object: ...
    async def _emit_patiently(self, payload: Any, metadata: None, /) -> object: ...


class Results:
    """Calls a handler of any shape, and publishes what comes of it, for a subscription."""

    __slots__ = ("_call", "_emit", "_last_class", "_owner", "_rooms", "_sink", "_strand", "_takes_none")

    def __init__(self, owner: Subscription, call: Callable[[Any], Any], sink: Sink | None, *, takes_none: bool) -> None:
        self._owner = owner
        self._call = call
        self._sink = sink
        self._takes_none = takes_none
        """A reply may be ``None``; elsewhere that is no result."""
        self._emit = None if sink is None else sink._emit
        direct = type(owner)._in_progress is Subscription._in_progress and isinstance(owner._strand.executor, WorkerPool)
        self._strand = owner._strand if direct else None
        """The owner's, if only its run calls this, and on a worker pool: that is the usual case, which has a short way."""
        self._rooms: list[Wait] = []
        self._last_class: type = type(None)
        """Of the result that was no observable most recently: to ask costs more than all the rest."""

    # -- plain functions and generators

    def of_function(self, value: Any) -> None:
        """Publishes what the function returns."""
        result = self._call(value)
        if result.__class__ is CoroutineType:
            refuse_coroutine(self._owner._name, result)
        if result is None and not self._takes_none:
            return
        strand = self._strand
        if strand is None or self._is_observable(result):
            one = self._owner._in_progress()
            wait = self._publish(result, one)
            if wait is not None:
                assert one is not None
                # published and waiting for room, it has done its work; an observable has not
                one._go_on_after(wait, wait.ended, wait.cancel if isinstance(wait, Following) else None)
            return
        assert self._emit is not None
        strand.put_off = rooms = self._rooms
        try:
            self._emit(result, None)
        except BaseException:
            give_up(rooms)
            raise
        finally:
            strand.put_off = None
        if rooms:
            vigil = Vigil(rooms, strand.executor, [strand])
            self._owner._go_on_after(vigil, vigil.ended)

    def _is_observable(self, result: Any) -> bool:
        if result.__class__ is self._last_class:
            return False
        if isinstance(result, Observable):
            return True
        self._last_class = result.__class__
        return False

    def of_generator(self, value: Any) -> None:
        """Publishes each value as it comes. Its code runs in one context of its own, however often it has to wait."""
        self._take(self._call(value), copy_context())

    def _take(self, results: Generator[Any, Any, Any], context: Context) -> None:
        """Publishes the next values, until there are no more or the event has to wait."""
        one = self._owner._in_progress()
        context.run(current_delivery.set, current_delivery.get())  # each step of an event has another one
        try:
            while True:
                result = context.run(next, results, _END)
                if result is _END:
                    return
                wait = context.run(self._publish, result, one)
                if wait is not None:
                    break
        except BaseException:
            context.run(results.close)
            raise
        assert one is not None
        one._go_on_after(wait, partial(self._take_after, wait, results, context), partial(context.run, results.close))

    def _take_after(self, wait: Ending, results: Generator[Any, Any, Any], context: Context) -> None:
        try:
            wait.ended()
        except BaseException:
            context.run(results.close)
            raise
        self._take(results, context)

    def _publish(self, result: Any, one: Subscription | None) -> Ending | None:
        """Publishes one result; what the event has to wait for before it goes on, if it is in progress and has to."""
        sink = self._sink
        if sink is None or (result is None and not self._takes_none):
            return None
        if self._is_observable(result):
            following = Following(self._emit_each)
            following.subscribe(cast("Observable[Any]", result))
            return None if one is None or following.is_done() else following
        if one is None or one._strand.executor.inline:
            sink._emit(result, None)
            return None
        rooms = here.patience = here.rooms
        try:
            sink._emit(result, None)
        except BaseException:
            give_up(rooms)
            raise
        finally:
            here.patience = None
        return Vigil(rooms, one._strand.executor, running_chain()) if rooms else None

    def _emit_each(self, value: Any) -> None:
        if value is not None or self._takes_none:
            assert self._sink is not None
            self._sink._emit(value, None)

    # -- coroutine functions and asynchronous generators

    async def of_coroutine(self, value: Any) -> None:
        """Publishes what the coroutine returns."""
        await self._publish_patiently(await self._call(value))

    async def of_async_generator(self, value: Any) -> None:
        """Publishes each value as it comes."""
        async with aclosing(self._call(value)) as results:
            async for result in results:
                await self._publish_patiently(result)

    async def _publish_patiently(self, result: Any) -> None:
        sink = self._sink
        if sink is None or (result is None and not self._takes_none):
            return
        if isinstance(result, Observable):
            async with aclosing(_values_of(cast("Observable[Any]", result))) as values:
                async for value in values:
                    await self._publish_patiently(value)
        else:
            await sink._emit_patiently(result, None)


class Ending(Pause, Protocol):
    """A pause that says how it ended."""

    def ended(self) -> None:
        """It is over; raises what it ended with, if that was an error."""


class Following(abc.ObserverBase[Any]):
    """Publishes what an observable emits, in the context in which it was made. ``_lock`` guards who says that it has ended."""

    def __init__(self, publish: Callable[[Any], None]) -> None:
        self._publish = publish
        self._context = copy_context()
        self._lock = threading.Lock()
        self._done = False
        self._error: BaseException | None = None
        self._resume: Callable[[], None] | None = None
        self._subscription: abc.DisposableBase | None = None

    def subscribe(self, source: Observable[Any]) -> None:
        """Begins; what it emits at once is published at once."""
        self._subscription = source.subscribe(self.on_next, self.on_error, self.on_completed)
        if self._done:
            self._subscription.dispose()

    def is_done(self) -> bool:
        """Whether it has ended already; raises what it ended with."""
        if self._done:
            self.ended()
        return self._done

    def __call__(self, resume: Callable[[], None]) -> Cancellable:
        """Has that called when it has ended."""
        with self._lock:
            self._resume = resume
            done = self._done
        if done:
            resume()
        return self

    def cancel(self) -> None:
        """Lets go of the observable."""
        if self._subscription is not None:
            self._subscription.dispose()

    def ended(self) -> None:
        """Raises what it ended with."""
        if self._error is not None:
            raise self._error

    def on_next(self, value: Any) -> None:
        """Publishes one value; if that is refused, it has ended with that error."""
        if self._done:
            return
        try:
            self._context.copy().run(self._publish, value)
        except BaseException as error:
            self._end(error)

    def on_error(self, error: Exception) -> None:
        """It has failed."""
        self._end(error)

    def on_completed(self) -> None:
        """It has ended."""
        self._end(None)

    def _end(self, error: BaseException | None) -> None:
        with self._lock:
            if self._done:
                return
            self._done, self._error = True, error
            resume = self._resume
        self.cancel()
        if resume is not None:
            resume()


async def _values_of(source: Observable[Any]) -> AsyncGenerator[Any, None]:
    """What an observable emits, one by one; it is let go of when nobody asks any more.

    Other threads that are too far ahead wait. What emits so much on the loop itself can't wait, so that is an error.
    """
    loop = asyncio.get_running_loop()
    values: deque[tuple[str, Any]] = deque()
    changed, taken = asyncio.Event(), threading.Condition()
    over = False

    def put(kind: str, value: Any) -> None:
        with taken:
            ahead = len(values) >= AHEAD and not over
        if ahead and asyncio._get_running_loop() is loop:  # pyright: ignore[reportAttributeAccessIssue,reportUnknownMemberType,reportUnknownVariableType] - None instead of an error
            kind, value = "error", OverflowError(f"an observable that a handler returned emitted over {AHEAD} values at once on its loop")
        elif ahead:
            with waiting(), taken:
                taken.wait_for(lambda: len(values) < AHEAD or over)
        values.append((kind, value))
        with suppress(RuntimeError):  # the loop is closed: nobody asks any more
            loop.call_soon_threadsafe(changed.set)

    subscription = source.subscribe(partial(put, "next"), partial(put, "error"), partial(put, "end", None))
    try:
        while True:
            while not values:
                changed.clear()
                await changed.wait()
            with taken:
                kind, value = values.popleft()
                taken.notify_all()
            if kind == "error":
                raise value
            if kind == "end":
                return
            yield value
    finally:
        subscription.dispose()
        with taken:
            over = True
            taken.notify_all()

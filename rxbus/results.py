"""What becomes of a handler's results: they are published one after the other.

A result is in its target's mailboxes at once. If one of those is over its bound then, the event in progress is suspended until there
is room, and goes on from there (with the next value of a generator, or with its end): no thread is held meanwhile. An observable
is subscribed to, and its values are published by the event's own run, too; while there are none the event is suspended.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing, suppress
from contextvars import Context, copy_context
from functools import partial
from typing import Any, Protocol, cast

from reactivex import Observable, abc

from .alarm import Alarm
from .errors import BusClosedError
from .event import RawDelivery, current_delivery
from .inlet import Vigil, Wait, give_up
from .mailbox import DEFAULT_CAPACITY
from .schedulers import Cancellable
from .step import Pause
from .subscription import UNFINISHED, Subscription, refuse_unfinished
from .topic import Named
from .waits import here, running_chain
from .workers import WorkerPool, waiting

AHEAD = DEFAULT_CAPACITY
"""Values of an observable that weren't published yet, at most; then its thread waits, if it may."""
_END: Any = object()
_NOT_YET: Any = object()


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
        if result is None and not self._takes_none:
            return
        strand = self._strand
        if strand is None or self._is_observable(result):
            self._go_on([_One(result, copy_context())])
            return
        assert self._emit is not None
        strand.put_off = rooms = self._rooms
        try:
            self._emit(result, None)
        except BusClosedError:
            if not self._renew():
                raise
            self._send(result)
        except BaseException:
            give_up(rooms)
            raise
        finally:
            strand.put_off = None
        if rooms:
            # published and waiting for room, it has done its work
            self._owner._go_on_after(Vigil(rooms, strand.executor, [strand]), _nothing)

    def of_generator(self, value: Any) -> None:
        """Publishes each value as it comes. Its code runs in one context of its own, however often it has to wait."""
        self._go_on([_Yielded(self._call(value), copy_context())])

    def _is_observable(self, result: Any) -> bool:
        """Whether its values are the results; raises for what is no result at all."""
        if result.__class__ is self._last_class:
            return False
        if isinstance(result, Observable):
            return True
        if result.__class__ in UNFINISHED:
            refuse_unfinished(self._owner._name, result)
        self._last_class = result.__class__
        return False

    def _go_on(self, sources: list[Source]) -> None:
        """Publishes what the last source has, and when that has ended what the one before it has, until the event has to wait."""
        one = self._owner._in_progress()
        delivery = current_delivery.get()
        wait: Pause | None = None
        try:
            for source in sources:
                source.context.run(current_delivery.set, delivery)  # each step of an event has another one
            while sources and wait is None:
                source = sources[-1]
                result = source.take()
                if result is _END:
                    sources.pop()
                elif result is _NOT_YET:
                    assert isinstance(source, Following)
                    wait = source
                elif self._sink is not None and self._is_observable(result):
                    wait = self._subscribe(result, sources, one, delivery)
                else:
                    wait = source.context.run(self._publish, result, one)
        except BaseException:
            _close(sources)
            raise
        if wait is not None:
            assert one is not None
            if len(sources) == 1 and sources[0].is_over:
                one._go_on_after(wait, _nothing)
            else:
                one._go_on_after(wait, partial(self._go_on, sources), partial(_close, sources))

    def _subscribe(self, result: Any, sources: list[Source], one: Subscription | None, delivery: RawDelivery | None) -> Pause | None:
        source = cast("Observable[Any]", result)
        context = sources[-1].context.copy()
        if one is None:
            # a timer's emission belongs to no event in progress: whatever thread emits a value publishes it
            report = partial(self._owner._report_late, delivery)
            source.subscribe(lambda value: context.copy().run(self._emit_late, value), report)
            return None
        following = Following(context, one)
        sources.append(following)
        # what it publishes while it is subscribed to, a request for one, waits as results do
        return _yielding(one, partial(following.subscribe, source))

    def _emit_late(self, value: Any) -> None:
        if value is not None or self._takes_none:
            self._send(value)

    def _publish(self, result: Any, one: Subscription | None) -> Pause | None:
        """Publishes one result; what the event has to wait for before it goes on, if it is in progress and has to."""
        if self._emit is None or (result is None and not self._takes_none):
            return None
        if one is None:
            self._send(result)
            return None
        try:
            return _yielding(one, partial(self._emit, result, None))
        except BusClosedError:
            if not self._renew():
                raise
        return _yielding(one, partial(self._send, result))

    def _send(self, result: Any) -> None:
        """Publishes one result, whatever becomes of the topics of that name meanwhile."""
        while True:
            assert self._emit is not None
            try:
                self._emit(result, None)
                return
            except BusClosedError:
                if not self._renew():
                    raise

    def _renew(self) -> bool:
        """The topic refused, and nothing happened: whether there may be another one of its name."""
        sink = self._sink
        if not isinstance(sink, Named) or not sink.renew():
            return False
        self._emit = sink._emit
        return True

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
        if result.__class__ in UNFINISHED:
            refuse_unfinished(self._owner._name, result)
        if isinstance(result, Observable):
            async with aclosing(_values_of(cast("Observable[Any]", result))) as values:
                async for value in values:
                    await self._publish_patiently(value)
            return
        one = self._owner._in_progress()
        clock = None if one is None else one._clock
        if clock is not None:
            clock.stop()  # it is the handler's time that is limited
        try:
            while True:
                try:
                    await sink._emit_patiently(result, None)
                    return
                except BusClosedError:
                    if not self._renew():
                        raise
        finally:
            if clock is not None:
                clock.go_on()


def _yielding(one: Subscription, publish: Callable[[], object]) -> Pause | None:
    """Publishes something for the event in progress; the wait for room, if there is one, is given, and holds no thread."""
    executor = one._strand.executor
    if executor.inline:
        publish()
        return None
    rooms = here.patience = here.rooms
    try:
        publish()
    except BaseException:
        give_up(rooms)
        raise
    finally:
        here.patience = None
    return Vigil(rooms, executor, running_chain()) if rooms else None


def _nothing() -> None:
    pass


def _close(sources: list[Source]) -> None:
    """Closes all of them; raises what the first one raised that did."""
    first: BaseException | None = None
    while sources:
        try:
            sources.pop().close()
        except BaseException as error:
            first = first or error
    if first is not None:
        raise first


class Source(Protocol):
    """Where results come from, one by one."""

    context: Context

    @property
    def is_over(self) -> bool:
        """Whether it is known that nothing more comes."""
        ...

    def take(self) -> Any:
        """The next result, or that there will be none, or that there is none yet. Raises what the handler raised."""
        ...

    def close(self) -> None:
        """Nobody takes anything any more."""


class _One:
    """A single result."""

    def __init__(self, result: Any, context: Context) -> None:
        self.context = context
        self.is_over = False
        self._result = result

    def take(self) -> Any:
        result, self._result, self.is_over = self._result, _END, True
        return result

    def close(self) -> None:
        pass


class _Yielded:
    """What a generator yields."""

    is_over = False

    def __init__(self, results: Generator[Any, Any, Any], context: Context) -> None:
        self.context = context
        self._results = results

    def take(self) -> Any:
        return self.context.run(next, self._results, _END)

    def close(self) -> None:
        self.context.run(self._results.close)


class _Line:
    """Threads that wait until there is room; each has an alarm of its own, so that Ctrl-C ends its wait and nobody else's.

    Whoever waits is in line before it looks, and whoever makes room does that before looking who is in line: one of them sees the
    other.
    """

    __slots__ = ("_alarms",)

    def __init__(self) -> None:
        self._alarms: deque[Alarm] = deque()

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Waits until that is so."""
        while not condition():
            alarm = Alarm()
            self._alarms.append(alarm)
            if not condition():
                alarm.wait(None)

    def move(self) -> None:
        """Has all of them look again."""
        while self._alarms:
            with suppress(IndexError):  # somebody else was faster
                self._alarms.popleft().ring()


class Following(abc.ObserverBase[Any]):
    """What an observable emits, on any thread, kept until the event's run takes it; the `Pause` of the event while there is nothing.

    ``_lock`` guards what is kept and who is told of it. When too much is kept, the thread that emits waits. That of the event's
    own run would wait for itself, so what emits so much while it is subscribed to has failed.
    """

    is_over = False

    def __init__(self, context: Context, one: Subscription) -> None:
        self.context = context
        self._strand = one._strand
        self._lock = threading.RLock()
        self._line = _Line()
        self._values: deque[Any] = deque()
        self._done = False
        self._error: BaseException | None = None
        self._resume: Callable[[], None] | None = None
        self._subscription: abc.DisposableBase | None = None

    def subscribe(self, source: Observable[Any]) -> None:
        """Begins."""
        self._subscription = source.subscribe(self.on_next, self.on_error, self.on_completed)
        if self._done:
            self._subscription.dispose()

    def take(self) -> Any:
        """The next value; raises what the observable failed with."""
        with self._lock:
            value = self._values.popleft() if self._values else _END if self._done else _NOT_YET
        if value is not _END:
            self._line.move()
            return value
        if self._error is not None:
            raise self._error
        return _END

    def close(self) -> None:
        """Lets go of the observable."""
        with self._lock:
            self._done = True
            self._resume = None
        self._line.move()
        if self._subscription is not None:
            self._subscription.dispose()

    def __call__(self, resume: Callable[[], None]) -> Cancellable:
        """Has that called when there is a value, or the end."""
        with self._lock:
            there = self._done or bool(self._values)
            self._resume = None if there else resume
        if there:
            resume()
        return self

    def cancel(self) -> None:
        """Nobody waits for it any more; to let go of it is the business of whoever has it among his sources."""
        with self._lock:
            self._resume = None

    def on_next(self, value: Any) -> None:
        """Keeps a value."""
        if len(self._values) >= AHEAD:
            if self._strand.running_here():
                self._end(_too_much("its own run"))
                return
            with waiting():
                self._line.wait_until(lambda: len(self._values) < AHEAD or self._done)
        with self._lock:
            if self._done:
                return
            self._values.append(value)
            resume, self._resume = self._resume, None
        if resume is not None:
            resume()

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
            resume, self._resume = self._resume, None
        if resume is not None:
            resume()


def _too_much(where: str) -> OverflowError:
    return OverflowError(f"an observable that a handler returned emitted over {AHEAD} values at once on {where}, which can't wait")


async def _values_of(source: Observable[Any]) -> AsyncGenerator[Any, None]:
    """What an observable emits, one by one; it is let go of when nobody asks any more.

    Other threads that are too far ahead wait. What emits so much on the loop itself can't wait, so that is an error.
    """
    loop = asyncio.get_running_loop()
    values: deque[tuple[str, Any]] = deque()
    changed, line = asyncio.Event(), _Line()
    over = False

    def put(kind: str, value: Any) -> None:
        ahead = len(values) >= AHEAD and not over
        if ahead and asyncio._get_running_loop() is loop:  # pyright: ignore[reportAttributeAccessIssue,reportUnknownMemberType,reportUnknownVariableType] - None instead of an error
            kind, value = "error", _too_much("its loop")
        elif ahead:
            with waiting():
                line.wait_until(lambda: len(values) < AHEAD or over)
        values.append((kind, value))
        with suppress(RuntimeError):  # the loop is closed: nobody asks any more
            loop.call_soon_threadsafe(changed.set)

    subscription = source.subscribe(partial(put, "next"), partial(put, "error"), partial(put, "end", None))
    try:
        while True:
            while not values:
                changed.clear()
                await changed.wait()
            kind, value = values.popleft()
            line.move()
            if kind == "error":
                raise value
            if kind == "end":
                return
            yield value
    finally:
        subscription.dispose()
        over = True
        line.move()

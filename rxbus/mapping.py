"""`map_async`: an operator whose function is a coroutine function.

Inside the pipeline of a supervised subscription the event in progress is suspended until the coroutines that it led to have ended,
and their results come out in the subscription's own steps; so an event is settled, fails and is retried as behind a plain `map`.
Anywhere else, in a chain that somebody composed by himself, there are two mailboxes: items wait in the first until one of
``concurrency`` hands on an event loop is free, and results in the second, from which what follows is called, one at a time.

Coroutines run on the loop of the bus that carries the event; without a bus, on that of the `AsyncIOScheduler` that was subscribed
with, or on one that all such chains of the process share.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from functools import partial
from typing import Any, TypeVar

from reactivex import Observable, abc
from reactivex import operators as ops
from reactivex.disposable import CompositeDisposable, Disposable
from reactivex.scheduler import TimeoutScheduler
from reactivex.scheduler.eventloop import AsyncIOScheduler

from .arguments import Shape, describe, flag, positive_int, shape_of
from .boxes import Box, bus_of
from .concurrency import ConcurrentSubscription
from .consumer import Pipeline
from .event import Event, RawDelivery, current_delivery
from .handler import Handler
from .host import Place
from .inlet import give_up, patiently, put_off
from .loops import LoopExecutor, LoopThread, default_loop, executor_of
from .mailbox import DEFAULT_BLOCK_TIMEOUT, DEFAULT_CAPACITY, Mailbox, Overflow
from .schedulers import Cancellable
from .step import Step
from .strand_scheduler import StrandScheduler
from .workers import default_pool

T = TypeVar("T")
U = TypeVar("U")

_endings = itertools.count(1)
"""Numbers calls in the order in which they end."""


def map_async(fn: Callable[[T], Awaitable[U]], concurrency: int = 1, ordered: bool = True) -> Callable[[Observable[T]], Observable[U]]:
    """What a coroutine function makes of each item; up to ``concurrency`` of them run at a time.

    Results come in the order of the items, or, with ``ordered=False``, as they are ready. A coroutine that raises is an error of
    the stream, as with `map`; disposal cancels those that run. In ``through=`` events still come one at a time, so there
    ``concurrency`` is for the values that one event was turned into.

    ::

        ──1──2──3────────|
        ────1'──2'──3'───|     map_async(fn)
        ────────1'2'3'───|     map_async(fn, concurrency=3), with fn(1) slower than the others

    Raises: `TypeError` or `ValueError` naming the argument.
    """
    if not callable(fn):
        raise TypeError(f"fn must be a coroutine function, got {describe(fn)}")
    shape = shape_of(fn)
    if shape in (Shape.GENERATOR, Shape.ASYNC_GENERATOR):
        raise TypeError(f"fn must be a coroutine function, got the {shape.value} {describe(fn)}")
    hands = positive_int("concurrency", concurrency)
    flag("ordered", ordered)

    def operator(source: Observable[T]) -> Observable[U]:
        def subscribe(observer: abc.ObserverBase[U], scheduler: abc.SchedulerBase | None = None) -> abc.DisposableBase:
            if isinstance(scheduler, StrandScheduler):
                inside = _InPipeline(fn, hands, ordered, observer, scheduler)
                outside = source.subscribe(inside.on_next, inside.on_error, inside.on_completed, scheduler=scheduler)
                return CompositeDisposable(outside, Disposable(inside.dispose))
            return _in_chain(source, _Hands(fn, ordered), hands, observer, scheduler)

        return Observable(subscribe)

    return operator


class _Failed:
    """In place of a result: what the coroutine raised."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


async def _outcome_of(fn: Callable[[Any], Awaitable[Any]], value: Any) -> Any:
    """What comes of one item. A task must not be left by a `SystemExit`: it would end the loop."""
    try:
        awaitable = fn(value)
        if not inspect.isawaitable(awaitable):
            raise TypeError(f"fn must be a coroutine function, got {describe(fn)}, which returned {describe(awaitable)}")
        return await awaitable
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        return _Failed(error)


def _tell(observer: abc.ObserverBase[Any], outcome: Any) -> None:
    if isinstance(outcome, _Failed):
        observer.on_error(outcome.error)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - a handler may raise anything
    else:
        observer.on_next(outcome)


def _loop_for(delivery: RawDelivery | None, scheduler: abc.SchedulerBase | None = None) -> LoopExecutor:
    thread: LoopThread | None = getattr(bus_of(delivery), "_loop_thread", None)
    if thread is not None:
        return thread.executor
    loop = getattr(scheduler, "_loop", None) if isinstance(scheduler, AsyncIOScheduler) else None
    return default_loop() if loop is None else executor_of(loop)


# -- in the pipeline of a supervised subscription


class _Call:
    """One coroutine, run as a task of a loop from any thread; the `Pause` of the event that it belongs to.

    ``_lock`` guards who says that it has ended.
    """

    def __init__(self, run: Callable[[], Any], executor: LoopExecutor, ended: Callable[[_Call], None]) -> None:
        self._run = run
        self._loop = executor.loop
        self._ended = ended
        self._context: Context = copy_context()
        self._lock = threading.Lock()
        self._task: asyncio.Task[Any] | None = None
        self._cancelled = False
        self._resume: Callable[[], None] | None = None
        self.outcome: Any = None
        self.done = False
        self.ended_at = 0
        self.is_late = False
        """No event waits for it."""

    def begin(self) -> None:
        """Has it run."""
        try:
            self._loop.call_soon_threadsafe(self._start, context=self._context)
        except RuntimeError as error:
            self._finish(_Failed(error))  # the loop is closed

    def _start(self) -> None:
        if self._cancelled:
            return  # `_cancel` ends it
        self._task = self._loop.create_task(self._run())
        self._task.add_done_callback(self._take)

    def _take(self, task: asyncio.Task[Any]) -> None:
        self._finish(_Failed(asyncio.CancelledError()) if task.cancelled() else task.result())

    def _finish(self, outcome: Any) -> None:
        with self._lock:
            if self.done:
                return
            self.outcome, self.ended_at, self.done = outcome, next(_endings), True
            resume, self._resume = self._resume, None
        self._ended(self)
        if resume is not None:
            resume()

    def __call__(self, resume: Callable[[], None]) -> Cancellable:
        """Has that called when it has ended."""
        with self._lock:
            done = self.done
            if not done:
                self._resume = resume
        if done:
            resume()
        return self

    def cancel(self) -> None:
        """Nobody wants its result; it ends soon, whether or not it had begun."""
        self._cancelled = True
        try:
            self._loop.call_soon_threadsafe(self._cancel)
        except RuntimeError:
            self._finish(_Failed(asyncio.CancelledError()))  # the loop is closed

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
        else:
            self._finish(_Failed(asyncio.CancelledError()))


class _InPipeline:
    """The operator in a supervised pipeline. ``_lock`` guards how many coroutines run, and which wait for a free hand.

    Each value leaves a step with its event. A step waits for the value's own call, or, where order doesn't matter, for any
    that nobody has taken yet: there are as many steps as calls.
    """

    def __init__(
        self, fn: Callable[[Any], Awaitable[Any]], hands: int, ordered: bool, observer: abc.ObserverBase[Any], scheduler: StrandScheduler
    ) -> None:
        self._fn = fn
        self._free = hands
        self._ordered = ordered
        self._observer = observer
        self._strand = scheduler.strand
        self._lock = threading.Lock()
        self._line: deque[_Call] = deque()
        self._calls: dict[_Call, None] = {}
        """Those whose results nobody has taken."""
        self._end: Callable[[], None] | None = None
        self._resume: Callable[[], None] | None = None
        """Goes on with the event that waits for any of them."""
        self._disposed = False

    def on_next(self, value: Any) -> None:
        delivery = current_delivery.get()
        call = _Call(partial(_outcome_of, self._fn, value), _loop_for(delivery), self._ended)
        with self._lock:
            if self._disposed:
                return
            self._calls[call] = None
            self._line.append(call)
        self._begin()
        if delivery is not None:
            wait, take = (call, partial(self._take, call)) if self._ordered else (_AnyOf(self), self._take_any)
            if delivery[1]._defer(delivery, Step(_ignoring(take), delivery[2], 0.0, None, wait=wait)):
                return
        # a timer's emission belongs to no event in progress: what comes of it is one more step of the subscription
        call.is_late = True
        call(partial(self._strand.enqueue, copy_context(), partial(self._take, call)))

    def _begin(self) -> None:
        while True:
            with self._lock:
                if not self._free or not self._line:
                    return
                self._free -= 1
                call = self._line.popleft()
            call.begin()

    def _ended(self, call: _Call) -> None:
        with self._lock:
            self._free += 1
            resume, self._resume = self._resume, None
        self._begin()
        if resume is not None:
            resume()

    def when_any_is_done(self, resume: Callable[[], None] | None) -> None:
        """Has that called when there is a result that nobody has taken; with ``None``, nobody wants to know any more."""
        with self._lock:
            done = self._disposed or any(call.done and not call.is_late for call in self._calls)
            self._resume = None if done else resume
        if done and resume is not None:
            resume()

    def _take_any(self) -> None:
        with self._lock:
            done = next((call for call in sorted(self._calls, key=_when) if call.done and not call.is_late), None)
        if done is not None:
            self._take(done)

    def _take(self, call: _Call) -> None:
        with self._lock:
            if self._calls.pop(call, self) is self:
                return  # disposed of
            end = None if self._calls else self._end
        _tell(self._observer, call.outcome)
        if end is not None:
            end()

    def on_error(self, error: Exception) -> None:
        # at once, as every operator passes it on: what still runs belongs to a pipeline that is no more
        self._observer.on_error(error)

    def on_completed(self) -> None:
        with self._lock:
            if self._calls:
                self._end = self._observer.on_completed
                return
        self._observer.on_completed()

    def dispose(self) -> None:
        """Cancels what runs, and what waits for a hand; events that wait for any of that go on."""
        with self._lock:
            self._disposed = True
            calls = list(self._calls)
            self._calls.clear()
            self._line.clear()
            resume, self._resume = self._resume, None
        for call in calls:
            call.cancel()
        if resume is not None:
            resume()


def _when(call: _Call) -> int:
    return call.ended_at


class _AnyOf:
    """The `Pause` of an event that goes on with whatever result is ready."""

    def __init__(self, owner: _InPipeline) -> None:
        self._owner = owner

    def __call__(self, resume: Callable[[], None]) -> Cancellable:
        """Has that called when one is."""
        self._owner.when_any_is_done(resume)
        return self

    def cancel(self) -> None:
        """Nobody wants it."""
        self._owner.when_any_is_done(None)
        self._owner.dispose()


def _ignoring(act: Callable[[], None]) -> Callable[[Event[Any]], None]:
    def step(_: Event[Any]) -> None:
        act()

    return step


# -- in a chain


class _Hands:
    """What the hands of one subscription to a chain do. All of it happens on their loop, but for `dispose`."""

    def __init__(self, fn: Callable[[Any], Awaitable[Any]], ordered: bool) -> None:
        self._fn = fn
        self._ordered = ordered
        self._numbers = itertools.count()
        self._turn = 0
        """The number of the item whose result comes next."""
        self._turns: dict[int, asyncio.Future[None]] = {}
        self._passed: set[int] = set()
        """Those behind it that are through already."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._disposed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self.onward: Callable[[Any], None] = _drop

    def number(self, value: Any) -> tuple[int, Any]:
        """The item with its number; called for one after the other."""
        return next(self._numbers), value

    async def handle(self, numbered: tuple[int, Any]) -> None:
        """Hands the result of one item on, when it is its turn."""
        number, value = numbered
        try:
            outcome = await self._outcome(value)
            if self._ordered and number != self._turn and not self._disposed:
                turn = self._turns[number] = asyncio.get_running_loop().create_future()
                await turn
            if not self._disposed:
                await patiently(partial(self.onward, outcome))
        except asyncio.CancelledError as error:
            if not self._disposed:  # somebody cancelled the hand itself: there won't be a result, so the stream has failed
                with put_off() as waits:
                    self.onward(_Failed(error))
                give_up(waits)
            raise
        finally:
            if self._ordered:
                self._turns.pop(number, None)
                self._passed.add(number)
                while self._turn in self._passed:
                    self._passed.remove(self._turn)
                    self._turn += 1
                self._call_up(self._turn)

    def _call_up(self, number: int) -> None:
        turn = self._turns.get(number)
        if turn is not None and not turn.done():
            turn.set_result(None)

    async def _outcome(self, value: Any) -> Any:
        self._loop = asyncio.get_running_loop()
        if self._disposed:
            return None
        task = self._loop.create_task(_outcome_of(self._fn, value))
        self._tasks.add(task)
        try:
            await asyncio.wait([task])
        finally:
            self._tasks.discard(task)
            task.cancel()  # if it isn't done, whoever waited for it was cancelled
        return _Failed(asyncio.CancelledError()) if task.cancelled() else task.result()

    def dispose(self) -> None:
        """Cancels what runs."""
        self._disposed = True
        if self._loop is not None:
            try:
                self._loop.call_soon_threadsafe(self._cancel)
            except RuntimeError:
                pass  # the loop is closed

    def _cancel(self) -> None:
        for task in self._tasks:
            task.cancel()
        for number in list(self._turns):
            self._call_up(number)


def _drop(_: Any) -> None:
    pass


class _AsyncBox(Box[Any]):
    """The first mailbox, and the hands behind it. Its subscription is made with the first item, when it is known whose that is."""

    def __init__(self, hands: _Hands, concurrency: int, onward: Box[Any], scheduler: abc.SchedulerBase | None) -> None:
        super().__init__(scheduler=None if isinstance(scheduler, AsyncIOScheduler) else scheduler)
        self._hands = hands
        self._concurrency = concurrency
        self._onward = onward
        self._scheduler = scheduler
        self._begun = False

    def on_next(self, value: Any) -> None:
        if not self._begun and not self.is_stopped:
            self._begun = True
            self._begin()
        super().on_next(value)

    def _begin(self) -> None:
        mailbox = Mailbox(DEFAULT_CAPACITY, Overflow.BLOCK, DEFAULT_BLOCK_TIMEOUT)
        delivery = current_delivery.get()
        carrier = getattr(bus_of(delivery), "_executor", None)
        place = Place("map_async", "subject", self, mailbox, self._executor or carrier or default_pool())
        handler = Handler(self._hands.handle, Shape.COROUTINE, "map_async")
        subscription = ConcurrentSubscription(
            place, handler, Pipeline(ops.map(self._hands.number)),
            concurrency=self._concurrency, loop=_loop_for(delivery, self._scheduler),
        )  # fmt: skip
        subscription._boxed = True
        self._attach(subscription, subscription._intake.attach("subject"))
        subscription._start()

    def _kind(self) -> str:
        return "map_async"

    def on_error(self, error: Exception) -> None:
        super().on_error(error)
        self._end_onward()

    def on_completed(self) -> None:
        super().on_completed()
        self._end_onward()

    def _retire(self, subscription: Any) -> None:
        super()._retire(subscription)
        if self.is_stopped and not self.is_disposed:
            self._begun = False
            self._end_onward()

    def _end_onward(self) -> None:
        """The source has ended, and so has the last call."""
        if self._begun:
            return
        if self.exception is None:
            self._onward.on_completed()
        else:
            self._onward.on_error(self.exception)


def _in_chain(
    source: Observable[Any], hands: _Hands, concurrency: int, observer: abc.ObserverBase[Any], scheduler: abc.SchedulerBase | None
) -> abc.DisposableBase:
    chosen = None if isinstance(scheduler, TimeoutScheduler) else scheduler
    second = Box[Any](scheduler=chosen)
    first = _AsyncBox(hands, concurrency, second, chosen)
    hands.onward = second.on_next
    inside = second.subscribe(partial(_tell, observer), observer.on_error, observer.on_completed)
    outside = source.subscribe(first.on_next, first.on_error, first.on_completed, scheduler=scheduler)
    return CompositeDisposable(outside, Disposable(hands.dispose), Disposable(first.dispose), inside)

"""Any RxPY scheduler as the executor of strands.

Some schedulers run an action inside `schedule` (immediate, current thread). So that handlers that publish never recurse, what
a thread submits while it is already inside such a call waits in that thread's own line and is run by the outermost call, one
event a turn. Only its own thread touches a line.

Subjects that stand alone are *nested* instead, as RxPY's are: what one publishes to another is delivered before that returns.
Only a strand that is running already, or a chain that has become very long, goes to the line; so there is no recursion either.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any, Protocol, TypeAlias, cast

from reactivex import abc
from reactivex.scheduler import (
    CurrentThreadScheduler,
    EventLoopScheduler,
    NewThreadScheduler,
    ThreadPoolScheduler,
    TimeoutScheduler,
    VirtualTimeScheduler,
)
from reactivex.scheduler.eventloop import AsyncIOScheduler, AsyncIOThreadSafeScheduler

from .arguments import describe
from .timers import timers
from .workers import WorkerPool, default_pool

# the schedulers whose `schedule` comes back before the action runs (a thread pool's is a NewThreadScheduler)
_ELSEWHERE = (
    AsyncIOScheduler,
    AsyncIOThreadSafeScheduler,
    EventLoopScheduler,
    NewThreadScheduler,
    TimeoutScheduler,
    VirtualTimeScheduler,
    WorkerPool,
)
MAX_DEPTH = 30
"""Deliveries of subjects nested in one another on one stack."""


class Cancellable(Protocol):
    """A timer that can be given up."""

    def cancel(self) -> None:
        """Forgets the callback."""


class Schedulable(Protocol):
    """What an executor runs."""

    @property
    def is_running(self) -> bool:
        """Whether a run is in progress."""
        ...

    def run(self) -> None:
        """Does what there is to do, without raising."""

    def recover(self) -> None:
        """Its run on this thread was broken off by Ctrl-C."""

    def forget_schedule(self) -> None:
        """The submission was lost; the next wake must submit again."""

    def undeliverable(self, error: Exception) -> None:
        """The scheduler refused."""


PassTime: TypeAlias = Callable[[Callable[[], bool], float | None], bool]
"""Passes the time until the condition holds, or until that moment at most; whether it holds."""


class Executor(Protocol):
    """Runs strands, and has a clock."""

    @property
    def now(self) -> datetime:
        """The present, virtual under a virtual clock."""
        ...

    @property
    def inline(self) -> bool:
        """Whether it may run something inside `submit`."""
        ...

    def monotonic(self) -> float:
        """The clock, in seconds, by which waits for what it runs are timed."""
        ...

    @property
    def pass_time(self) -> PassTime | None:
        """How one who waits for what it runs passes the time until that holds, or until that moment; ``None``: he blocks."""
        ...

    def submit(self, runnable: Any, /) -> None:
        """Has it run."""

    def requeue(self, runnable: Any, /) -> None:
        """`submit` at the end of its own run."""

    def later(self, seconds: float, callback: Callable[[], None], /) -> Cancellable:
        """Calls back in that many seconds; the callback must be short."""
        ...


class _Line(threading.local):
    def __init__(self) -> None:
        self.waiting: deque[tuple[SchedulerExecutor, Schedulable]] = deque()
        self.draining = False
        self.stack: list[Schedulable] = []


_line = _Line()


def inside_scheduler() -> bool:
    """Whether this thread is inside a `schedule` call of rxbus, so that what it runs now runs inline."""
    return _line.draining


def standing_in_line() -> list[Schedulable]:
    """What can't run before the calling thread goes on."""
    return [runnable for _, runnable in _line.waiting]


def inside_trampoline() -> bool:
    """Whether RxPY runs something on this thread's trampoline, so that what is scheduled there now runs afterwards."""
    return not CurrentThreadScheduler.singleton().schedule_required()


class _Cancel:
    __slots__ = ("_disposable",)

    def __init__(self, disposable: abc.DisposableBase) -> None:
        self._disposable = disposable

    def cancel(self) -> None:
        self._disposable.dispose()


class SchedulerExecutor:
    """Runs strands on the RxPY scheduler that it was given."""

    def __init__(self, scheduler: abc.SchedulerBase, *, nested: bool = False) -> None:
        self.scheduler = _for_all_threads(scheduler)
        self._nested = nested
        self.virtual = isinstance(scheduler, VirtualTimeScheduler)
        """Time moves, and anything runs, only when a test says so."""
        self.inline = not isinstance(scheduler, _ELSEWHERE)
        """It may run actions inside `schedule`; so does every scheduler that isn't known not to."""
        self.threads = _threads_of(scheduler)
        """How many it has, where that is known."""

    def monotonic(self) -> float:
        """The clock by which waits for what it runs are timed."""
        return time.monotonic()

    @property
    def pass_time(self) -> PassTime | None:
        """``None``: who waits for what it runs blocks."""
        return None

    def runs_on_this_thread(self) -> bool:
        """Whether the calling thread is the only one that could run an action."""
        scheduler: Any = self.scheduler
        if isinstance(scheduler, EventLoopScheduler):
            return getattr(scheduler, "_thread", None) is threading.current_thread()
        if isinstance(scheduler, AsyncIOScheduler):
            try:
                return getattr(scheduler, "_loop", None) is asyncio.get_running_loop()
            except RuntimeError:
                return False
        return False

    @property
    def now(self) -> datetime:
        """The scheduler's clock."""
        return self.scheduler.now

    def submit(self, runnable: Schedulable) -> None:
        """Has it run by the scheduler; inline ones run it before this returns, unless this is called by what they run."""
        line = _line
        if not self.inline or (line.draining and self._nested and len(line.stack) < MAX_DEPTH and not runnable.is_running):
            self._schedule(runnable)
        else:
            self._stand_in_line(runnable)

    def requeue(self, runnable: Schedulable) -> None:
        """`submit` at the end of a run: it waits for its turn."""
        if self.inline:
            self._stand_in_line(runnable)
        else:
            self._schedule(runnable)

    def _stand_in_line(self, runnable: Schedulable) -> None:
        line = _line
        line.waiting.append((self, runnable))
        if line.draining:
            return
        line.draining = True
        try:
            while line.waiting:
                executor, following = line.waiting.popleft()
                executor._schedule(following)
        except BaseException:
            # Ctrl-C: no run is in progress any more, and what stands in line must not count as scheduled
            while line.stack:
                line.stack.pop().recover()
            while line.waiting:
                line.waiting.popleft()[1].forget_schedule()
            raise
        finally:
            line.draining = False

    def _schedule(self, runnable: Schedulable) -> None:
        def action(_: abc.SchedulerBase, __: object = None) -> None:
            runnable.run()

        stack = _line.stack
        if self.inline:
            stack.append(runnable)
        try:
            self.scheduler.schedule(action)
        except Exception as error:
            runnable.undeliverable(error)
        except BaseException:
            runnable.forget_schedule()
            if stack and stack[-1] is runnable:
                stack.pop().recover()
            raise
        if self.inline:
            stack.pop()

    def later(self, seconds: float, callback: Callable[[], None]) -> Cancellable:
        """Calls back in that many seconds, of virtual time under a virtual clock."""
        if not self.virtual:
            # not on the scheduler: a thread pool's would sleep in one of its threads for each timer; and not on the timers'
            # thread, because an inline scheduler would run user code there
            return timers.after(seconds, partial(default_pool().call, callback))

        def action(_: abc.SchedulerBase, __: object = None) -> None:
            callback()

        return _Cancel(self.scheduler.schedule_relative(seconds, action))


def _for_all_threads(scheduler: abc.SchedulerBase) -> abc.SchedulerBase:
    """One whose `schedule` any thread may call: `AsyncIOScheduler`, which RxPY itself hands upstream where a chain is awaited, is only
    for its loop's own thread, and called by another one it doesn't wake the loop."""
    if isinstance(scheduler, AsyncIOScheduler) and not isinstance(scheduler, AsyncIOThreadSafeScheduler):
        return AsyncIOThreadSafeScheduler(cast("asyncio.AbstractEventLoop", cast("Any", scheduler)._loop))
    return scheduler


def _threads_of(scheduler: abc.SchedulerBase) -> int | None:
    if isinstance(scheduler, EventLoopScheduler):
        return 1
    if isinstance(scheduler, ThreadPoolScheduler):
        return cast("int", getattr(scheduler.executor, "_max_workers", None))
    return None


def executor_for(scheduler: abc.SchedulerBase, *, nested: bool = False) -> Executor:
    """The executor of a scheduler; a `WorkerPool` is its own, and some bring theirs along."""
    if isinstance(scheduler, WorkerPool):
        return scheduler
    own: Executor | None = getattr(scheduler, "_executor_of_rxbus", None)
    return own or SchedulerExecutor(scheduler, nested=nested)


def check_scheduler(value: object) -> abc.SchedulerBase | None:
    """The value if it is a scheduler or ``None``.

    Raises: `TypeError` otherwise.
    """
    if value is None or isinstance(value, abc.SchedulerBase):
        return value
    raise TypeError(f"scheduler must be an RxPY scheduler or a WorkerPool, got {describe(value)}")

"""Event loops as executors of strands, and the loop of a bus, on a thread of its own.

An executor belongs to one loop; all subscriptions that use the loop share it. Strands are submitted from any thread. When a loop
is about to be closed, asyncio finalizes its asynchronous generators: one of them is ours, so that what is queued behind that
loop is refused, and counted, at that moment instead of waiting for ever.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, Protocol, cast

from reactivex.scheduler.eventloop import AsyncIOThreadSafeScheduler

from .arguments import describe
from .errors import BusClosedError
from .schedulers import Schedulable, SchedulerExecutor

PATIENCE = 0.05
"""Seconds for which a loop whose tasks were cancelled is given no new work: it is being closed, most likely."""


class Servable(Schedulable, Protocol):
    """What is run on a loop."""

    def abandon(self) -> None:
        """The loop is closed, and a run in progress will never end."""


class LoopExecutor(SchedulerExecutor):
    """Runs strands on an event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(AsyncIOThreadSafeScheduler(loop))
        self.loop = loop
        self.threads = 1
        self._tasks: set[asyncio.Task[None]] = set()
        """The runs in progress: a loop itself holds its tasks but weakly."""
        self._served: weakref.WeakSet[Servable] = weakref.WeakSet()
        self._gone = False
        """The loop finalizes what it has: it will not run anything more, though it still takes it."""
        self._buried = False
        """It is closed, and nothing waits for it any more."""
        self._hesitates_until = 0.0
        self._watch: AsyncGenerator[None, None] | None = None

    def is_here(self) -> bool:
        """Whether the calling code runs on the loop."""
        return asyncio._get_running_loop() is self.loop  # pyright: ignore[reportAttributeAccessIssue,reportUnknownMemberType,reportUnknownVariableType] - None instead of an error, and fast

    def runs_on_this_thread(self) -> bool:
        """Whether the calling thread is the only one that could run an action."""
        return self.is_here()

    def serve(self, runnable: Servable) -> None:
        """Will be told when the loop goes away."""
        with _lock:
            self._served.add(runnable)

    def _schedule(self, runnable: Schedulable) -> None:
        try:
            if self.is_gone:
                raise RuntimeError("its event loop was closed")
            if self.is_here():
                self.loop.call_soon(runnable.run)
            else:
                self.loop.call_soon_threadsafe(runnable.run)
        except RuntimeError as error:
            runnable.undeliverable(error)  # it is closed
        except BaseException:
            runnable.forget_schedule()
            raise

    def hesitate(self) -> None:
        """One of its tasks was cancelled from outside: no run begins for a moment, in which the loop may be closed."""
        self._hesitates_until = self.loop.time() + PATIENCE

    @property
    def is_hesitating(self) -> bool:
        """Whether that was so since a run last began."""
        return self._hesitates_until > 0.0

    def begins_later(self, runnable: Schedulable) -> bool:
        """Whether it is such a moment; then the run begins after it."""
        if not self._hesitates_until:
            return False
        left = self._hesitates_until - self.loop.time()
        if left <= 0:
            self._hesitates_until = 0.0
            return False
        self.loop.call_later(left, runnable.run)
        return True

    @property
    def is_gone(self) -> bool:
        """Whether the loop is at its end: a task that begins now would never be finished."""
        return self._gone or getattr(self.loop, "_asyncgens_shutdown_called", False)

    def start(self, run: Coroutine[Any, Any, None], ended: Callable[[], None]) -> None:
        """Makes a task of a run; called on the loop."""
        task = self.loop.create_task(run)
        self._tasks.add(task)
        task.add_done_callback(partial(self._let_go, ended))
        if self._watch is None:
            self._watch = self._until_closed()
            with suppress(StopIteration):
                self._watch.__anext__().send(None)  # as far as its yield, at once: now the loop knows of it

    def _let_go(self, ended: Callable[[], None], task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        ended()

    async def _until_closed(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self._watch = None
            self._refuse()

    def _refuse(self) -> None:
        """The loop is about to be closed: nothing that waits for it will be run."""
        self._gone = True  # first: what comes from now on is refused where it comes
        with _lock:
            served = list(self._served)
        error = RuntimeError("its event loop was closed")
        closed = self.loop.is_closed()
        for runnable in served:
            if closed:
                runnable.abandon()
            runnable.undeliverable(error)
        for task in list(self._tasks):
            if closed:
                setattr(task, "_log_destroy_pending", False)  # what it handled was refused; asyncio needn't tell of it
                run = cast("Coroutine[Any, Any, None]", task.get_coro())
                if inspect.getcoroutinestate(run) == inspect.CORO_CREATED:
                    run.close()  # nor that it never began
            else:
                task.cancel()  # begun after all tasks of the loop were cancelled; a moment is left for them to end in
        if closed:
            self._tasks.clear()

    def check(self) -> None:
        """Refuses what waits for the loop if that was closed without a word."""
        if not self.loop.is_closed():
            return
        with _lock:
            if self._buried:
                return  # several may find it out at once, and only one takes back what was in progress
            self._buried = True
        self._refuse()


_executors: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopExecutor] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def _begin_anew() -> None:
    global _lock, _default
    _lock = threading.Lock()
    _default = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


def executor_of(loop: asyncio.AbstractEventLoop) -> LoopExecutor:
    """The one executor of that loop; some bring theirs along."""
    own: LoopExecutor | None = getattr(loop, "_executor_of_rxbus", None)
    if own is not None:
        return own
    with _lock:
        found = _executors.get(loop)
        if found is None:
            for known in list(filter(lambda one: one.is_closed(), _executors)):
                del _executors[known]  # an executor keeps its loop alive
            found = _executors[loop] = LoopExecutor(loop)
        return found


def check_loop(value: object) -> asyncio.AbstractEventLoop:
    """The value if it is an event loop that is running.

    Raises: `TypeError` or `ValueError` otherwise.
    """
    if not isinstance(value, asyncio.AbstractEventLoop):
        raise TypeError(f"loop must be an asyncio event loop, got {describe(value)}")
    if value.is_closed() or not value.is_running():
        state = "closed" if value.is_closed() else "not running"
        raise ValueError(f"loop must be a running event loop, got one that is {state}: {describe(value)}")
    return value


class LoopThread:
    """An event loop on a thread of its own, both made when they are first needed."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._guard = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    @property
    def executor(self) -> LoopExecutor:
        """The executor of the loop.

        Raises: `BusClosedError` after `close`.
        """
        with self._guard:
            if self._closed:
                raise BusClosedError(f"bus {self._name!r} is closed, and with it its event loop", self._name)
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._serve, args=(self._loop,), name=f"rxbus-loop-{self._name}", daemon=True)
                self._thread.start()
            return executor_of(self._loop)

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            _finish(loop)

    def close(self) -> None:
        """Cancels what still runs on the loop, and ends the thread; doesn't wait for either."""
        with self._guard:
            self._closed = True
            loop, self._loop = self._loop, None
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(loop.stop)

    def orphan(self) -> None:
        """In the child of a fork: there is no such thread."""
        self._guard = threading.Lock()
        self._loop = self._thread = None


def _finish(loop: asyncio.AbstractEventLoop) -> None:
    """What `asyncio.run` does at its end; a task that doesn't let itself be cancelled is left alone after a second."""
    try:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks, timeout=1.0))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        asyncio.set_event_loop(None)
        loop.close()


_default: LoopThread | None = None
"""Of coroutines in chains that no bus carries."""


def default_loop() -> LoopExecutor:
    """The executor of the loop that such chains share, made when it is first needed."""
    global _default
    with _lock:
        if _default is None:
            _default = LoopThread("default")
        thread = _default
    return thread.executor

"""The threads that run user code.

A pool serves one queue of *ready* runnables (strands, mostly). Invariants:

- ``_ready`` and the idle stack are touched by single atomic operations. A submitter appends, then looks for an idle worker;
  a worker puts itself on the idle stack, then looks at the queue again. One of the two always sees the other, so nothing
  that is ready waits for a worker that sleeps.
- A worker may be called *early*, before what it is called for is submitted. One submission, which takes it out of ``_early``, may
  then count on it: the worker takes itself out before it looks at the queue, so it looks after that submission.
- The idle stack is last in, first out: the worker that went to sleep last is woken first, warm, and the others time out.
- ``_lock`` guards the number of workers and of those that wait; nobody runs user code, logs, starts a thread or waits under
  it. A worker enters itself again when it begins, so a start that was interrupted neither loses nor invents one.

The pool grows when work is ready and not taken. A watcher looks every millisecond while the queue isn't empty. If the process
leaves its processor idle meanwhile, the workers are blocked in their handlers: as many are added as runnables stood there at the
last look already, in strides, and one at least. Otherwise the workers compute under the interpreter's lock, where more threads
help nobody, unless not one runnable was taken in several looks (added one by one, doubling).
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from contextvars import copy_context
from datetime import timedelta
from functools import partial
from typing import Any, Protocol, TypeVar

from reactivex import abc, typing
from reactivex.disposable import CompositeDisposable, Disposable, SingleAssignmentDisposable
from reactivex.scheduler.periodicscheduler import PeriodicScheduler

from .arguments import positive_int
from .statistics import PoolStatistics
from .timers import Timer, timers

__all__ = ["WorkerPool"]

DEFAULT_MAX_WORKERS = 1024
LOOK_EVERY = 0.001
"""Seconds between two looks at the queue."""
STRIDE = 16
"""Workers that one look may add at least, if so many runnables are overdue; with more workers, twice as many as there are."""
LOOK_AT_BOUND = 0.05
"""Seconds between two looks, at most, while all workers of a full pool are blocked."""
IDLE_SECONDS = 5.0
"""Seconds that a worker sleeps before it leaves the pool."""
BUSY_PROCESS = 0.7
"""The share of one processor from which on workers count as computing and not as blocked."""

_S = TypeVar("_S")
_log = logging.getLogger("rxbus")
_here = threading.local()


class Runnable(Protocol):
    """What a pool runs: `run` must come back without raising."""

    def run(self) -> None:
        """Does what there is to do."""


class _Worker:
    __slots__ = ("began", "taken", "wake")

    def __init__(self) -> None:
        self.began = False
        self.taken = 0
        self.wake = threading.Lock()
        self.wake.acquire()

    def call(self) -> None:
        """Wakes it; it was taken off the idle stack by the caller."""
        _release(self.wake)  # a late wake of an earlier call that is still unspent will do


def _not_begun(workers: Iterable[_Worker]) -> list[_Worker]:
    return [worker for worker in workers if not worker.began]


class _Task:
    __slots__ = ("_function",)

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function

    def run(self) -> None:
        try:
            self._function()
        except BaseException:
            _log.exception("an action scheduled on a worker pool raised")


class WorkerPool(PeriodicScheduler):
    """A pool of daemon threads, and an RxPY scheduler, that several buses may share.

    ``max_workers`` is the bound, 1,024 unless told; threads are started as they are needed and leave when idle. A worker that
    waits inside an rxbus call doesn't count against the bound. Timers take no worker.

    Raises: `TypeError` or `ValueError` for a bound that is no whole number of at least 1.
    """

    inline = False
    """It never runs anything inside `submit`."""

    def __init__(self, max_workers: int = DEFAULT_MAX_WORKERS) -> None:
        super().__init__()
        self._max = positive_int("max_workers", max_workers)
        self._closed = False
        self._begin()
        _pools.add(self)

    def _begin(self) -> None:
        """Nothing is ready, and there are no threads."""
        self._ready: deque[Runnable] = deque()
        self._idle: list[_Worker] = []
        self._early: list[_Worker] = []
        self._lock = threading.Lock()
        self._workers: set[_Worker] = set()
        self._departed = 0
        self._waiting = 0
        self._at_bound = False
        self._saturations = 0
        self._beyond = False
        """There may be more workers than the bound, standing in for waiting ones."""
        self._watched = False
        self._watcher: threading.Lock | None = None

    @property
    def max_workers(self) -> int:
        """The bound."""
        return self._max

    @property
    def workers(self) -> int:
        """The threads that the pool has right now."""
        return len(self._workers)

    def statistics(self) -> PoolStatistics:
        """A snapshot."""
        return PoolStatistics(len(self._workers), self._max, self._saturations)

    def __repr__(self) -> str:
        return f"WorkerPool(max_workers={self._max}): {self.workers} workers, {len(self._ready)} ready"

    def submit(self, runnable: Runnable) -> None:
        """Has the runnable run once, as soon as a worker is free."""
        self._ready.append(runnable)
        self._call_somebody()

    def _call_somebody(self) -> None:
        """Something is ready: wakes an idle worker, or sees to it that one comes."""
        if self._idle:
            try:
                worker = self._idle.pop()
            except IndexError:
                pass
            else:
                worker.call()
                return
        if self._early:
            try:
                worker = self._early.pop()
            except IndexError:
                pass
            else:
                worker.call()  # it was; but if Ctrl-C came just before, it wasn't
                return
        if not self._watched:
            self._watch()

    def call_early(self) -> None:
        """Something is about to be submitted: wakes an idle worker now, so that it wakes up while the submission is being made."""
        if not self._early:
            try:
                worker = self._idle.pop()
            except IndexError:
                return
            self._early.append(worker)
            worker.call()

    def requeue(self, runnable: Runnable) -> None:
        """`submit` by the worker that just ran it: it looks at the queue next, so nobody needs to be woken."""
        if getattr(_here, "pool", None) is self:
            self._ready.append(runnable)
        else:
            self.submit(runnable)  # it moved to this pool while it ran on another

    def call(self, function: Callable[[], object]) -> None:
        """Has the function called once by a worker; what it raises is logged."""
        self.submit(_Task(function))

    def later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Calls back in that many seconds from the timers' thread; the callback must be short."""
        return timers.after(seconds, callback)

    def monotonic(self) -> float:
        """The clock by which waits for what it runs are timed."""
        return time.monotonic()

    @property
    def pass_time(self) -> None:
        """Who waits for what it runs blocks."""

    def close(self) -> None:
        """Lets the workers leave once the queue is empty; what is submitted later still runs."""
        self._closed = True
        while self._idle:
            try:
                self._idle.pop().call()
            except IndexError:
                break
        with self._lock:
            watcher = self._watcher
        if watcher is not None:
            _release(watcher)

    # -- workers

    def _work(self, worker: _Worker) -> None:
        with self._lock:
            worker.began = True
            self._workers.add(worker)
        _here.pool = self
        ready = self._ready
        while True:
            try:
                runnable = ready.popleft()
            except IndexError:
                if self._park(worker):
                    continue
                return
            worker.taken += 1
            try:
                runnable.run()
            except BaseException:
                _log.exception("a worker survived an error in rxbus itself")
            del runnable  # a sleeping worker keeps nothing alive
            if self._beyond and self._leave_if_beyond(worker):
                return

    def _leave_if_beyond(self, worker: _Worker) -> bool:
        """Workers that stood in for waiting ones leave when there are more than the bound allows."""
        with self._lock:
            surplus = len(self._workers) - self._max - self._waiting
            self._beyond = surplus > 1 or self._waiting > 0
            if surplus <= 0:
                return False
            self._workers.discard(worker)
            self._departed += worker.taken
        if self._ready:
            self._call_somebody()  # what it requeued itself, perhaps, while all others sleep
        return True

    def _park(self, worker: _Worker) -> bool:
        """Sleeps until there is something to do; False when the worker should leave."""
        self._idle.append(worker)
        if not self._ready and worker.wake.acquire(timeout=0.0 if self._closed else IDLE_SECONDS):
            return self._looks(worker)
        try:
            self._idle.remove(worker)
        except ValueError:
            # somebody took it off the stack and is about to wake it; if Ctrl-C came between the two, nobody is
            worker.wake.acquire(timeout=1.0)
            return self._looks(worker)
        if self._ready:
            return True
        with self._lock:
            self._workers.discard(worker)
            self._departed += worker.taken
        if self._ready:
            # submitted after this worker left the idle stack, perhaps with nobody else awake
            self._call_somebody()
        return False

    def _looks(self, worker: _Worker) -> bool:
        """It is awake and will look at the queue: from now on nobody may rely on that it hasn't yet."""
        if self._early:
            try:
                self._early.remove(worker)
            except ValueError:
                pass
        return True

    def _add_workers(self, wanted: int) -> None:
        """Starts up to that many workers, within the bound."""
        with self._lock:
            present = len(self._workers)
            room = self._max + self._waiting - present
            full = room < wanted and not self._at_bound
            self._at_bound |= full
            self._saturations += full
            added = [_Worker() for _ in range(min(wanted, room))]
            self._workers.update(added)
            self._beyond |= present + len(added) > self._max
        try:
            for number, worker in enumerate(added, present + 1):
                threading.Thread(target=self._work, args=(worker,), name=f"rxbus-{number}", daemon=True).start()
        except BaseException:
            with self._lock:
                self._workers.difference_update(_not_begun(added))
            raise
        if full:
            _log.warning("a worker pool has reached its bound of %d workers; what is ready waits for one", self._max)

    # -- the watcher

    def _watch(self) -> None:
        """Sees to it that there are workers, and somebody who adds more; never raises but for Ctrl-C."""
        self._watched = True
        try:
            if not self._workers:
                self._add_workers(1)
            self._wake_watcher()
        except Exception:
            self._watched = False  # no thread could be started: the next submission tries again
            try:
                _log.exception("a worker pool could not start a thread")
            except Exception:
                pass
        except BaseException:
            self._watched = False
            raise

    def _wake_watcher(self) -> None:
        with self._lock:
            wake = self._watcher
            if wake is None:
                wake = self._watcher = threading.Lock()
                fresh = True
            else:
                fresh = False
        if fresh:
            try:
                threading.Thread(target=self._look, args=(wake,), name="rxbus-watcher", daemon=True).start()
            except BaseException:
                self._watcher = None  # if it began all the same, it ends when it is next idle
                raise
            return
        _release(wake)

    def _look(self, wake: threading.Lock) -> None:
        wake.acquire()
        while True:
            self._look_while_ready()
            self._at_bound = False
            self._watched = False
            if self._ready:
                self._watched = True
                continue
            if not wake.acquire(timeout=0.0 if self._closed else IDLE_SECONDS):
                with self._lock:
                    if self._watcher is not wake:
                        return
                    if not self._watched:
                        self._watcher = None
                        return

    def _taken(self) -> int:
        with self._lock:
            return self._departed + sum(worker.taken for worker in self._workers)

    def _look_while_ready(self) -> None:
        growth, still = 1, 0
        seen = 0
        taken = self._taken()
        wall, cpu = time.perf_counter(), time.process_time()
        pause = LOOK_EVERY
        while self._ready:
            time.sleep(pause)
            before, taken = taken, self._taken()
            overdue = min(seen - taken, len(self._ready))
            seen = taken + len(self._ready)
            now, used = time.perf_counter(), time.process_time()
            busy = used - cpu >= BUSY_PROCESS * (now - wall)
            wall, cpu = now, used
            still = still + 1 if taken == before else 0
            # at the bound nothing can be done but to wait for a worker, and that wakes nobody
            pause = min(2 * pause, LOOK_AT_BOUND) if still > 10 and self._at_bound else LOOK_EVERY
            if self._idle or not self._ready:
                growth = 1
            elif overdue <= 0:
                growth = 1
                if not busy:
                    self._grow(1)  # nothing waits for long, but something always does while the processor has nothing to do
            elif not busy:
                # not all at once: a machine that stands still for a moment leaves the processor idle, too
                self._grow(min(overdue, max(STRIDE, 2 * len(self._workers))))
            elif still > 2:
                self._grow(min(growth, overdue))
                growth *= 2

    def _grow(self, wanted: int) -> None:
        try:
            self._add_workers(wanted)
        except Exception:
            time.sleep(0.1)  # no more threads for now

    # -- the RxPY scheduler

    def schedule(self, action: abc.ScheduledAction[_S], state: _S | None = None) -> abc.DisposableBase:
        """Has the action run on a worker."""
        inner = SingleAssignmentDisposable()

        def run() -> None:
            if not inner.is_disposed:
                inner.disposable = self.invoke_action(action, state)

        self.call(run)
        return inner

    def schedule_relative(
        self, duetime: typing.RelativeTime, action: abc.ScheduledAction[_S], state: _S | None = None
    ) -> abc.DisposableBase:
        """Has the action run on a worker after that time; no worker waits for it."""
        wait = self.to_seconds(duetime)
        if wait <= 0:
            return self.schedule(action, state)
        inner = SingleAssignmentDisposable()

        def due() -> None:
            if not inner.is_disposed:
                inner.disposable = self.schedule(action, state)

        return CompositeDisposable(inner, Disposable(self.later(wait, due).cancel))

    def schedule_absolute(
        self, duetime: typing.AbsoluteTime, action: abc.ScheduledAction[_S], state: _S | None = None
    ) -> abc.DisposableBase:
        """Has the action run on a worker at that time (UTC)."""
        wait: timedelta = self.to_datetime(duetime) - self.now
        return self.schedule_relative(wait, action, state)


def _release(wake: threading.Lock) -> None:
    try:
        wake.release()
    except RuntimeError:
        pass  # it is awake already


@contextmanager
def waiting() -> Generator[None, Any, None]:
    """Around a wait inside an rxbus call: the worker that waits, if it is one, doesn't count against its pool's bound."""
    pool: WorkerPool | None = getattr(_here, "pool", None)
    if pool is None:
        yield
        return
    with pool._lock:
        pool._waiting += 1
    try:
        if pool._ready and not pool._watched:
            pool._watch()
        yield
    finally:
        with pool._lock:
            pool._waiting -= 1


_default: WorkerPool | None = None
_default_lock = threading.Lock()
_pools: weakref.WeakSet[WorkerPool] = weakref.WeakSet()


def _begin_anew() -> None:
    """In the child of a fork, which has none of the threads, and perhaps a lock that one of them held."""
    global _default_lock
    _default_lock = threading.Lock()
    for pool in list(_pools):
        pool._begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


def default_pool() -> WorkerPool:
    """The pool of subjects and operators that stand outside any bus."""
    global _default
    with _default_lock:
        if _default is None:
            _default = WorkerPool()
        return _default


async def elsewhere(call: Callable[[], _S]) -> _S:
    """Makes a call that waits, for a coroutine, on a worker of the default pool; the worker goes on with it when that is cancelled.

    The loop's own executor has few threads, and handlers may need them in order to end.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[_S] = loop.create_future()

    def tell(act: Callable[[Any], None], value: Any) -> None:
        if not result.done():
            act(value)

    def work() -> None:
        try:
            told = partial(tell, result.set_result, call())
        except BaseException as error:
            told = partial(tell, result.set_exception, error)
        try:
            loop.call_soon_threadsafe(told)
        except RuntimeError:
            pass  # the loop is closed: nobody waits any more

    default_pool().call(partial(copy_context().run, work))
    return await result

"""One thread that waits for all timers of the process: 10,000 pending timers are 10,000 heap entries, not threads.

Callbacks run on that thread and must be short: they wake a strand or submit to a pool, they never run user code. ``_lock``
guards the heap. It is entered by itself: Ctrl-C can come out of the ``__enter__`` of a condition, which is written in Python, with
the lock held, and then no timer would ever be set again. A cancelled timer lets go of its callback at once, and of its place when
it comes due or when half of the heap is cancelled.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import math
import os
import threading
import time
from collections.abc import Callable

LONGEST = 3600.0
"""Seconds of one wait; no lock can wait for what a caller may ask for."""
_log = logging.getLogger("rxbus")


class Timer:
    """A callback that has yet to come due; `cancel` is idempotent."""

    __slots__ = ("_owner", "callback")

    def __init__(self, owner: Timers, callback: Callable[[], None]) -> None:
        self._owner = owner
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Forgets the callback; one that already began to run goes on."""
        if self.callback is not None:
            self.callback = None
            self._owner.cancelled += 1


class Timers:
    """A heap of timers and the daemon thread that serves it, started with the first one."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """No timers and no thread; also in the child of a fork."""
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._asleep_until = -math.inf
        """When the thread looks again by itself, at the latest (monotonic seconds); in the past while it is awake."""
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._thread: threading.Thread | None = None
        self.cancelled = 0
        """About how many entries of the heap are; those that came due meanwhile count too."""

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Calls back once, on the timers' thread, in that many seconds or as soon after as the interpreter lets it."""
        timer = Timer(self, callback)
        with self._lock:
            if self.cancelled > 64 and self.cancelled > len(self._heap) // 2:
                self._heap = list(filter(lambda entry: entry[2].callback is not None, self._heap))
                heapq.heapify(self._heap)
                self.cancelled = 0
            heapq.heappush(self._heap, (time.monotonic() + seconds, next(self._order), timer))
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="rxbus-timers", daemon=True)
                try:
                    self._thread.start()
                except BaseException:
                    self._thread = None  # if it was Ctrl-C and it runs nevertheless, it ends when it sees this
                    timer.callback = None  # the caller is told that there is no timer
                    raise
            elif self._heap[0][0] < self._asleep_until:
                self._changed.notify()  # also for a timer whose own call was interrupted before this
        return timer

    def _next(self) -> Timer | None:
        with self._lock:
            while True:
                if self._thread is not threading.current_thread():
                    return None
                due = self._heap[0][0] if self._heap else math.inf
                wait = due - time.monotonic()
                if wait <= 0:
                    return heapq.heappop(self._heap)[2]
                self._asleep_until = due
                self._changed.wait(min(wait, LONGEST))
                self._asleep_until = -math.inf

    def _serve(self) -> None:
        while (timer := self._next()) is not None:
            callback = timer.callback
            if callback is not None:
                try:
                    callback()
                except Exception:
                    _log.exception("a timer's callback raised")
            del timer, callback  # nothing of the past is kept alive while waiting


timers = Timers()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=timers.begin)

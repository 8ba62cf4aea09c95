"""One thread that waits for all timers of the process: 10,000 pending timers are 10,000 heap entries, not threads.

Callbacks run on that thread and must be short: they wake a strand or submit to a pool, they never run user code. The
condition's lock guards the heap. A cancelled timer lets go of its callback at once, and of its place when it comes due or when
half of the heap is cancelled.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable

LONGEST = 3600.0
"""Seconds of one wait; the condition can't wait for what a caller may ask for."""
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
        self._changed = threading.Condition(threading.Lock())
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._thread: threading.Thread | None = None
        self.cancelled = 0
        """About how many entries of the heap are; those that came due meanwhile count too."""

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Calls back once, on the timers' thread, in that many seconds or as soon after as the interpreter lets it."""
        timer = Timer(self, callback)
        with self._changed:
            if self.cancelled > 64 and self.cancelled > len(self._heap) // 2:
                self._heap = [entry for entry in self._heap if entry[2].callback is not None]
                heapq.heapify(self._heap)
                self.cancelled = 0
            heapq.heappush(self._heap, (time.monotonic() + seconds, next(self._order), timer))
            if self._thread is None:
                thread = threading.Thread(target=self._serve, name="rxbus-timers", daemon=True)
                try:
                    thread.start()
                except BaseException:
                    timer.callback = None  # the caller is told that there is no timer
                    raise
                self._thread = thread
            elif self._heap[0][2] is timer:
                self._changed.notify()
        return timer

    def _next(self) -> Timer:
        with self._changed:
            while True:
                wait = self._heap[0][0] - time.monotonic() if self._heap else None
                if wait is not None and wait <= 0:
                    return heapq.heappop(self._heap)[2]
                self._changed.wait(None if wait is None else min(wait, LONGEST))

    def _serve(self) -> None:
        while True:
            callback = self._next().callback
            if callback is not None:
                try:
                    callback()
                except Exception:
                    _log.exception("a timer's callback raised")
            del callback  # nothing of the past is kept alive while waiting


timers = Timers()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=timers.begin)

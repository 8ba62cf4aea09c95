"""One order of what several threads do, out of the many that may happen.

The condition's lock guards which points were passed and who waits; it is held for a few instructions only.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from ..arguments import describe, seconds, text
from ..errors import BusError
from ..event import source
from ..workers import waiting

PATIENCE = 5.0
"""Seconds that a wait in a test takes at most, unless told."""


class InterleavingError(BusError, TimeoutError):
    """The order can't be kept: somebody came to a point, and those before it were not reached in time."""


class Interleaving:
    """Named points that are passed in the stated order, whichever threads come to them first.

    ::

        order = Interleaving("read", "overtake", "write")

    Whoever calls ``order.reach("write")`` waits there until the points before it were passed. Each point is passed once. After
    ``timeout`` seconds everybody who waits gets an `InterleavingError` that says who waited where, and for what, so nothing hangs.
    As a context manager it makes sure in the end that all points were passed.

    Raises: `TypeError` or `ValueError` for points that are no different names, or a timeout that is no number of seconds.
    """

    def __init__(self, *points: str, timeout: float = PATIENCE) -> None:
        if not points:
            raise ValueError("points must be at least one name, got none")
        self._points = tuple(text("points", point) for point in points)
        if len(set(points)) != len(points):
            raise ValueError(f"points must have different names, got {describe(points)}")
        self._timeout = seconds("timeout", timeout)
        self._changed = threading.Condition()
        self._passed = 0
        self._waiting: dict[str, str] = {}
        """From the point to the thread or task that waits there."""
        self._wakers: list[Callable[[], None]] = []
        self._failure: str | None = None

    @property
    def passed(self) -> tuple[str, ...]:
        """The points that were passed, in their order."""
        return self._points[: self._passed]

    def reach(self, point: str) -> None:
        """Passes the point, after those before it; until then the calling thread waits.

        Raises: `ValueError` for an unknown point or one that was passed already; `InterleavingError` when it takes too long, or at
        once under virtual time, where nobody else can run meanwhile (a coroutine may `areach`).
        """
        number = self._number(point)
        deadline = time.monotonic() + self._timeout
        with self._changed, waiting():
            self._arrive(number, threading.current_thread().name)
            try:
                self._wait_for(point, number, deadline)
            finally:
                self._waiting.pop(point, None)
            self._pass(number)

    def _wait_for(self, point: str, number: int, deadline: float) -> None:
        """Until those before it were passed. The lock is held."""
        while self._passed < number and self._failure is None:
            left = deadline - time.monotonic()
            if source.new_id is not None:
                self._fail(point, "under virtual time nobody can reach it meanwhile")
            elif left > 0:
                self._changed.wait(left)
            else:
                self._fail(point, f"nobody reached it within {self._timeout:g} s")

    async def areach(self, point: str) -> None:
        """`reach` from a coroutine: the loop goes on meanwhile, and its clock counts."""
        number = self._number(point)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        task = asyncio.current_task()
        with self._changed:
            self._arrive(number, "a coroutine" if task is None else task.get_name())
        try:
            while self._passed < number and self._failure is None:
                turn = loop.create_future()
                with self._changed:
                    self._wakers.append(_waker(loop, turn))
                    ready = self._passed >= number or self._failure is not None
                if not ready:
                    await asyncio.wait([turn], timeout=max(0.0, deadline - loop.time()))
                    if not turn.done() and loop.time() >= deadline:
                        with self._changed:
                            if self._passed < number and self._failure is None:
                                self._fail(point, f"nobody reached it within {self._timeout:g} s")
        finally:
            with self._changed:
                self._waiting.pop(point, None)
        with self._changed:
            self._pass(number)

    def _number(self, point: str) -> int:
        name = text("point", point)
        if name not in self._points:
            raise ValueError(f"point must be one of {', '.join(map(repr, self._points))}, got {name!r}")
        return self._points.index(name)

    def _arrive(self, number: int, who: str) -> None:
        point = self._points[number]
        if number < self._passed:
            raise ValueError(f"point {point!r} was passed already")
        if point in self._waiting:
            raise ValueError(f"point {point!r}: {self._waiting[point]} waits there already")
        self._waiting[point] = who

    def _fail(self, point: str, why: str) -> None:
        missing = self._points[self._passed]
        waiters = ", ".join(f"{who} at {where!r}" for where, who in self._waiting.items())
        passed = ", ".join(map(repr, self.passed)) or "none"
        self._failure = f"point {point!r} waited for {missing!r}: {why}; passed so far: {passed}; waiting: {waiters}"
        self._notify()

    def _pass(self, number: int) -> None:
        if self._failure is not None and self._passed < number:
            raise InterleavingError(self._failure)
        self._passed = number + 1
        self._notify()

    def _notify(self) -> None:
        self._changed.notify_all()
        wakers, self._wakers = self._wakers, []
        for wake in wakers:
            wake()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None and self._passed < len(self._points):
            missing = ", ".join(map(repr, self._points[self._passed :]))
            raise AssertionError(self._failure or f"the interleaving came to its end without having reached {missing}")


def _waker(loop: asyncio.AbstractEventLoop, turn: asyncio.Future[None]) -> Callable[[], None]:
    def end() -> None:
        if not turn.done():
            turn.set_result(None)

    def wake() -> None:
        try:
            loop.call_soon_threadsafe(end)
        except RuntimeError:
            pass  # its loop is closed

    return wake

"""Virtual time: a clock that moves when it is told to, and what is scheduled on it.

Everything that happens is one *step* of the scheduler: a run of a strand, a timer, a callback of the event loop. Steps of one
instant come in the order in which they were scheduled, so the same program makes the same steps each time. Whoever advances runs
the steps on his own thread; a step that waits for something runs other steps meanwhile, one inside the other.

Time is counted in whole microseconds, so nothing is lost by adding up. ``_lock`` guards the heap, which other threads may add to;
it is not held while a step is made. ``_turn`` is held by the one thread that makes steps; another that wants to waits for it.
"""

from __future__ import annotations

import heapq
import itertools
import math
import threading
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from contextvars import copy_context
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Protocol, TypeVar

from reactivex import abc, typing
from reactivex.disposable import Disposable, SingleAssignmentDisposable
from reactivex.internal.constants import UTC_ZERO
from reactivex.scheduler import VirtualTimeScheduler

from ..arguments import describe, number
from ..errors import BusError
from ..event import source
from ..schedulers import Cancellable, PassTime, Schedulable, SchedulerExecutor

_S = TypeVar("_S")
PER_SECOND = 1_000_000
STEPS_OF_AN_INSTANT = 500_000
"""More of them without time passing are a circle without an end."""
IMPATIENCE = 0.01
"""The part of them that is waited for once time has stood still, until the end of a close."""
DEEP = 1_000
"""Hops from which on an event is likely to be one of a circle."""
WEIGHT = 4
"""Steps that such an event counts as. One step may handle many events, so steps alone would find a circle out far too late."""
_AT_ONCE = timedelta(microseconds=1)


class StandsStill(BusError):
    """Too much happened without time passing."""


class Step:
    """Something that is done at its time, unless it is cancelled before."""

    __slots__ = ("_act",)

    def __init__(self, act: Callable[[], object]) -> None:
        self._act: Callable[[], object] | None = act

    @property
    def is_cancelled(self) -> bool:
        """Whether it won't be made, or was made."""
        return self._act is None

    def cancel(self) -> None:
        """It won't be made."""
        self._act = None

    def make(self) -> None:
        """Does it."""
        act, self._act = self._act, None
        if act is not None:
            act()


class Surroundings(Protocol):
    """What must be put aside on the calling thread while steps are made there."""

    def entered(self) -> AbstractContextManager[None]:
        """Puts them aside for as long as its block takes."""
        ...


class VirtualScheduler(VirtualTimeScheduler):
    """An RxPY scheduler whose time passes only when somebody advances it; it begins at 0.

    What RxPY's own virtual schedulers do differs in two points that matter here: the clock never moves by itself, however much
    happens at one instant, and advancing by nothing runs what is due now.
    """

    def __init__(self, name: str = "virtual") -> None:
        super().__init__()
        self._name = name
        self._micros = 0
        self._steps: list[tuple[int, int, Step]] = []
        self._turn = threading.RLock()
        self._order = itertools.count()
        self._ids = itertools.count(1)
        self._of_instant = 0
        """Steps since the clock moved, and events, by their weights."""
        self.patience = 1.0
        """The part of `STEPS_OF_AN_INSTANT` for which it waits until the clock moves."""
        self.made = 0
        """Steps so far."""
        self.surroundings: Surroundings | None = None
        self._executor_of_rxbus = VirtualExecutor(self)

    # -- the clock

    @property
    def clock(self) -> float:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride] - a property there, too
        """Seconds since the beginning."""
        return self._micros / PER_SECOND

    @property
    def now(self) -> datetime:
        """The clock as a datetime, from the epoch on."""
        return UTC_ZERO + timedelta(microseconds=self._micros)

    def seconds(self) -> float:
        """The clock."""
        return self._micros / PER_SECOND

    def new_id(self) -> str:
        """An id for an event, the same in each run."""
        return f"{self._name}-{next(self._ids):x}"

    # -- scheduling

    def at(self, micros: float, act: Callable[[], object]) -> Step:
        """Has something done at that time, in microseconds, now at the earliest."""
        step = Step(act)
        due = max(self._micros, round(micros))
        with self._lock:
            heapq.heappush(self._steps, (due, next(self._order), step))
        return step

    def after(self, seconds: float, act: Callable[[], object]) -> Step:
        """Has something done in so many seconds; if they are infinite, never."""
        if seconds == math.inf:
            return Step(act)
        return self.at(self._micros + seconds * PER_SECOND, act)

    def schedule(self, action: abc.ScheduledAction[_S], state: _S | None = None) -> abc.DisposableBase:
        """Has the action run at this instant, after what is scheduled for it already."""
        return self._schedule(self._micros, action, state)

    def schedule_relative(
        self, duetime: typing.RelativeTime, action: abc.ScheduledAction[_S], state: _S | None = None
    ) -> abc.DisposableBase:
        """Has the action run after that time."""
        wait = duetime / _AT_ONCE if isinstance(duetime, timedelta) else duetime * PER_SECOND
        return self._schedule(self._micros + wait, action, state)

    def schedule_absolute(
        self, duetime: typing.AbsoluteTime, action: abc.ScheduledAction[_S], state: _S | None = None
    ) -> abc.DisposableBase:
        """Has the action run at that time."""
        return self._schedule(self._absolute(duetime), action, state)

    @staticmethod
    def _absolute(duetime: typing.AbsoluteTime) -> float:
        return (duetime - UTC_ZERO) / _AT_ONCE if isinstance(duetime, datetime) else duetime * PER_SECOND

    def _schedule(self, micros: float, action: abc.ScheduledAction[_S], state: _S | None) -> abc.DisposableBase:
        inner = SingleAssignmentDisposable()
        context = copy_context()  # not that of whoever happens to let time pass

        def act() -> None:
            inner.disposable = context.run(self.invoke_action, action, state)

        return Disposable(partial(_dispose, self.at(micros, act), inner))

    # -- passing time

    def run_until(self, holds: Callable[[], bool], deadline: float | None) -> bool:
        """Makes steps until the condition holds, or the clock shows the deadline (seconds); whether it holds.

        With a deadline time passes up to it even if nothing is scheduled; without one it ends when nothing is.
        """
        limit = None if deadline is None else max(self._micros, round(deadline * PER_SECOND))
        with self.passing():
            while not holds():
                step = self._next(limit)
                if step is None:
                    if limit is not None:
                        self._move_to(limit)
                    return holds()
                self.made += 1
                step.make()
        return True

    def _next(self, limit: int | None) -> Step | None:
        """The next step, for which the clock was moved on; ``None`` if there is none up to the limit."""
        with self._lock:
            self._drop_cancelled()
            if not self._steps or (limit is not None and self._steps[0][0] > limit):
                return None
            due, order, step = heapq.heappop(self._steps)
        if due > self._micros:
            self._move_to(due)
        else:
            self._of_instant += 1
            if self._of_instant > STEPS_OF_AN_INSTANT * self.patience:
                self._of_instant = 0
                with self._lock:
                    heapq.heappush(self._steps, (due, order, step))  # it wasn't made: who asks again goes on with it
                raise StandsStill(
                    f"time stands still at {self.seconds():g} s: very much has happened at that instant, and there is no end, "
                    "because agents feed each other, or somebody else goes round in a circle"
                )
        return step

    def _drop_cancelled(self) -> None:
        """Those that would come next. The lock is held."""
        while self._steps and self._steps[0][2].is_cancelled:
            heapq.heappop(self._steps)

    def give_up(self, deadline: float) -> None:
        """Time stood still, and passes to the deadline (seconds) nevertheless; from now on that is found out sooner."""
        self.patience = IMPATIENCE
        self._move_to(round(deadline * PER_SECOND))

    def count(self, weight: int) -> None:
        """Something happened that may be part of a circle."""
        self._of_instant += weight

    def _move_to(self, micros: int) -> None:
        if micros > self._micros:
            self._micros = micros
            self._of_instant = 0

    def due(self) -> bool:
        """Whether anything is scheduled, for whenever."""
        with self._lock:
            return any(not step.is_cancelled for _, _, step in self._steps)

    @contextmanager
    def passing(self) -> Generator[None, None, None]:
        """Steps may be made inside: ids and the present are virtual, and the surroundings are put aside."""
        before = source.now, source.new_id
        with self._turn:
            source.now, source.new_id = self.seconds, self.new_id
            try:
                if self.surroundings is None:
                    yield
                else:
                    with self.surroundings.entered():
                        yield
            finally:
                source.now, source.new_id = before

    # -- RxPY's names for it

    def start(self) -> Any:
        """Runs all that is scheduled."""
        self.run_until(lambda: False, None)

    def stop(self) -> None:
        """Nothing: it runs only as far as it is told to."""

    def advance_to(self, time: typing.AbsoluteTime) -> None:
        """Lets time pass up to that moment.

        Raises: `ValueError` if it is past.
        """
        wanted = self._absolute(time)
        if wanted < self._micros:
            raise ValueError(f"time must be at least the present, {self.seconds():g} s, got {describe(time)}")
        self.run_until(lambda: False, wanted / PER_SECOND)

    def advance_by(self, time: typing.RelativeTime) -> None:
        """Lets so much time pass."""
        wait = time / timedelta(seconds=1) if isinstance(time, timedelta) else number("time", time)
        self.run_until(lambda: False, self.seconds() + wait)

    def sleep(self, time: typing.RelativeTime) -> None:
        """Moves the clock on without running anything; what was due meanwhile is late."""
        wait = time / timedelta(seconds=1) if isinstance(time, timedelta) else number("time", time)
        self._move_to(round(self._micros + wait * PER_SECOND))


def _dispose(step: Step, inner: abc.DisposableBase) -> None:
    step.cancel()
    inner.dispose()


def _run(runnable: Schedulable) -> None:
    try:
        runnable.run()
    except BaseException:
        runnable.recover()  # Ctrl-C: what was taken is handled by the next run
        raise


class VirtualExecutor(SchedulerExecutor):
    """Runs strands on virtual time, which whoever waits for them moves on; or at once, on an inline scheduler, with that clock."""

    def __init__(self, time: VirtualScheduler, scheduler: abc.SchedulerBase | None = None) -> None:
        super().__init__(scheduler or time)
        self._time = time
        self.virtual = False  # that would mean: only a test can move its clock

    @property
    def now(self) -> datetime:
        """The virtual clock."""
        return self._time.now

    def monotonic(self) -> float:
        """The virtual clock."""
        return self._time.seconds()

    @property
    def pass_time(self) -> PassTime:
        """Makes steps."""
        return self._time.run_until

    def _schedule(self, runnable: Schedulable) -> None:
        if self.inline:
            super()._schedule(runnable)
        else:
            self._time.after(0, partial(_run, runnable))

    def later(self, seconds: float, callback: Callable[[], None]) -> Cancellable:
        """Calls back in so many virtual seconds."""
        return self._time.after(seconds, callback)

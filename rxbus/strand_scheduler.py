"""A strand as an RxPY scheduler, for the operators of a pipeline: `debounce`, `buffer_with_time` and `delay` take their time from it."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context, copy_context
from datetime import datetime
from functools import partial
from typing import Protocol, TypeVar

from reactivex import abc, typing
from reactivex.disposable import CompositeDisposable, Disposable, SingleAssignmentDisposable
from reactivex.scheduler.periodicscheduler import PeriodicScheduler

from .schedulers import Executor

_S = TypeVar("_S")


class Enqueuer(Protocol):
    """The part of a strand that is needed here."""

    executor: Executor

    def enqueue(self, context: Context, action: Callable[[], object], /) -> None:
        """Has the action run as one serial step, or as part of the step that schedules it."""
        ...

    def running_here(self) -> bool:
        """Whether the calling code is called by its run."""
        ...


class StrandScheduler(PeriodicScheduler):
    """A strand as an RxPY scheduler: what a pipeline schedules on it runs as one serial step of its subscription."""

    def __init__(self, strand: Enqueuer) -> None:
        super().__init__()
        self.strand = strand

    @property
    def now(self) -> datetime:
        """The clock of the strand's executor, virtual under a virtual one."""
        return self.strand.executor.now

    def schedule(self, action: abc.ScheduledAction[_S], state: _S | None = None) -> abc.DisposableBase:
        """Has the action run after what the strand is doing now."""
        inner = SingleAssignmentDisposable()
        self.strand.enqueue(copy_context(), partial(self._invoke, inner, action, state))
        return inner

    def _invoke(self, inner: SingleAssignmentDisposable, action: abc.ScheduledAction[_S], state: _S | None) -> None:
        if not inner.is_disposed:
            inner.disposable = self.invoke_action(action, state)

    def schedule_relative(
        self, duetime: typing.RelativeTime, action: abc.ScheduledAction[_S], state: _S | None = None
    ) -> abc.DisposableBase:
        """Has the action run as a step of the strand after that time."""
        wait = self.to_seconds(duetime)
        if wait <= 0:
            return self.schedule(action, state)
        inner = SingleAssignmentDisposable()
        context = copy_context()

        def due() -> None:
            self.strand.enqueue(context, partial(self._invoke, inner, action, state))

        return CompositeDisposable(inner, Disposable(self.strand.executor.later(wait, due).cancel))

    def schedule_absolute(
        self, duetime: typing.AbsoluteTime, action: abc.ScheduledAction[_S], state: _S | None = None
    ) -> abc.DisposableBase:
        """Has the action run as a step of the strand at that time (UTC, or of the virtual clock)."""
        return self.schedule_relative(self.to_datetime(duetime) - self.now, action, state)

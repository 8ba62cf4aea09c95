"""How an event in progress goes on: with which call, after which pause, within which time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from .mailbox import Entry
from .outcome import Reason
from .schedulers import Cancellable


class Pause(Protocol):
    """What an event waits for."""

    def __call__(self, resume: Callable[[], None], /) -> Cancellable:
        """Begins; has that called once, from any thread, when it is over."""
        ...

    def cancel(self) -> None:
        """Nobody waits any more, or ever will."""


class Step:
    """How an event goes on after a pause: what to call with it, as which attempt."""

    __slots__ = ("attempt", "call", "cancelled", "delay", "entry", "error", "failure", "is_attempt", "is_kept", "rest", "wait")

    def __init__(
        self,
        call: Callable[[Any], object],
        attempt: int,
        delay: float,
        error: BaseException | None,
        cancelled: Callable[[], object] | None = None,
        *,
        wait: Pause | None = None,
        is_kept: bool = False,
    ) -> None:
        self.wait = wait
        """What has to happen before, instead of a delay."""
        self.is_kept = is_kept
        """Its event has had effects, so nobody else may begin with it anew; if there is nothing to be cancelled, it is as good as done."""
        self.error = error
        """Why there has to be another attempt, until that is told."""
        self.is_attempt = error is not None
        """False if it only waits for its turn."""
        self.cancelled = cancelled
        """Called when the step will not be made."""
        self.call = call
        self.attempt = attempt
        self.delay = delay
        self.entry: Entry | None = None
        self.failure: BaseException | None = None
        """What the event will be failed with even if the step goes well."""
        self.rest: Sequence[Step] = ()
        """The steps that come after it."""

    @property
    def begun(self) -> int:
        """How often the handler was begun with the event so far."""
        return self.attempt - self.is_attempt

    def cancel(self) -> BaseException | None:
        """It will not be made, and those after it neither; what cleaning up raised, if it did: that is user code, too."""
        first: BaseException | None = None
        for step in (self, *self.rest):
            for act in (None if step.wait is None else step.wait.cancel, step.cancelled):
                try:
                    if act is not None:
                        act()
                except BaseException as error:
                    first = first or error
        return first


class Overtime(TimeoutError):
    """A handler was cancelled because it took longer than its subscription allows."""


class Clock:
    """What the time of one attempt is limited by; it stands still while results wait for room."""

    __slots__ = ("_left", "_scope", "_stands", "limit")

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._left = limit
        """Seconds, as of when it began or was stopped."""
        self._stands = False
        self._scope: asyncio.Timeout | None = None

    def begin(self) -> asyncio.Timeout:
        """The first step has been made; if that ended in a wait for room, the clock stands still already."""
        self._scope = asyncio.timeout(None if self._stands else self._left)
        return self._scope

    def stop(self) -> None:
        """It stands still from now on."""
        self._stands = True
        scope = self._scope
        if scope is not None and not scope.expired() and (when := scope.when()) is not None:
            self._left = max(0.0, when - asyncio.get_running_loop().time())
            scope.reschedule(None)

    def go_on(self) -> None:
        """It runs again."""
        self._stands = False
        scope = self._scope
        if scope is not None and not scope.expired():
            scope.reschedule(asyncio.get_running_loop().time() + self._left)


def reason_of(error: BaseException) -> Reason:
    """Why an event was given up whose last attempt raised that."""
    return Reason.TIMEOUT if isinstance(error, Overtime) else Reason.FAILED

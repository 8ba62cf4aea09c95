"""Helpers of the tests."""

from __future__ import annotations

import threading
import time
from typing import Any

from reactivex.scheduler import NewThreadScheduler

from rxbus import BusStatistics, EventBus, Instrument
from rxbus.instrument import HOOKS

LIMIT = 10.0
"""Seconds after which a wait is a failure."""


class Gate:
    """A handler that stands still in each event until it is opened."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self._open = threading.Event()
        self.seen: list[Any] = []

    def __call__(self, event: Any) -> None:
        self.entered.set()
        assert self._open.wait(LIMIT)
        self.seen.append(event.payload)

    def wait_until_entered(self) -> None:
        """Until the first event is in the handler."""
        assert self.entered.wait(LIMIT)

    def open(self) -> None:
        """Lets this and all later events through."""
        self._open.set()


class Recorder:
    """A handler that keeps the payloads that it got."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def __call__(self, event: Any) -> None:
        self.events.append(event)

    @property
    def payloads(self) -> list[Any]:
        """In the order of arrival."""
        return [event.payload for event in self.events]


class Witness(Instrument):
    """Keeps what the hooks were called with: the hook's name, then its arguments."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def of(self, *hooks: str) -> list[tuple[Any, ...]]:
        """The calls of these hooks."""
        return [call for call in self.calls if call[0] in hooks]

    @property
    def names(self) -> list[str]:
        """The hooks in the order of their calls, but for those of the life of bus and subscriptions."""
        return [call[0] for call in self.calls if call[0] not in {"attached", "publishing", "subscribed", "disposed", "closed"}]


def _noting(hook: str) -> Any:
    def note(self: Witness, *arguments: Any) -> None:
        self.calls.append((hook, *arguments))

    return note


for _hook in HOOKS:
    setattr(Witness, _hook, _noting(_hook))


class Unreliable(NewThreadScheduler):
    """A scheduler that refuses while it is told to."""

    refuses = False

    def schedule(self, action: Any, state: Any = None) -> Any:
        """Starts a thread, or raises."""
        if self.refuses:
            raise RuntimeError("no threads just now")
        return super().schedule(action, state)


def run_in_thread(function: Any, *arguments: Any) -> threading.Thread:
    """Starts a daemon thread."""
    thread = threading.Thread(target=function, args=arguments, daemon=True)
    thread.start()
    return thread


def until(condition: Any) -> None:
    """Waits until it holds."""
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def join(*threads: threading.Thread) -> None:
    """Joins, and fails if one doesn't end."""
    for thread in threads:
        thread.join(LIMIT)
        assert not thread.is_alive(), f"{thread.name} did not end"


def assert_books_balance(bus: EventBus) -> BusStatistics:
    """G4 at a quiet moment: every subscription, and the topics' sums."""
    statistics = bus.statistics()
    for one in statistics.subscriptions.values():
        assert one.offered == one.handled + one.failed + one.dropped + one.pending, one
    return statistics

"""What every contender needs: the list that it enters, the size of its work, and the count of what was handled.

It is a module of its own because ``python -m tests.bench.contenders`` runs that module as ``__main__``: a list that lived there
would exist twice as soon as another module imported it by its name.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

Figures = dict[str, float]
CONTENDERS: dict[str, Callable[[], Figures]] = {}
SUBSCRIBERS = 8
EVENTS = 80_000
CHAINED = 24_000
PATIENCE = 300


def contender(function: Callable[[], Figures]) -> Callable[[], Figures]:
    """Enters a function under its name."""
    CONTENDERS[function.__name__] = function
    return function


class Count:
    """Counts the calls of one handler, and says when the expected number was reached."""

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.calls = 0
        self.done = threading.Event()

    def __call__(self, _: Any) -> None:
        self.calls += 1
        if self.calls == self.expected:
            self.done.set()


def wait_for(*counts: Count) -> None:
    """Until all have counted what they expect."""
    for count in counts:
        if not count.done.wait(PATIENCE):
            raise TimeoutError(f"{count.calls} of {count.expected} events were handled")


def rate(events: int, started: float) -> Figures:
    """Events a second since then."""
    return {"rate": events / (time.perf_counter() - started)}

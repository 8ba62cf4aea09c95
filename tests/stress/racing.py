"""What the race tests share: rounds with a time limit, threads that start together, pauses that open windows, and the books."""

from __future__ import annotations

import faulthandler
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Self

import pytest

from rxbus import EventBus, Subscription

LIMIT = 20.0
"""Seconds that one round may take."""


def rounds(long: int, share: int = 100) -> Any:
    """Has a test run twice: unmarked with a hundredth of the rounds, and in the long run with all of them."""
    return pytest.mark.parametrize(
        "rounds",
        [pytest.param(max(1, long // share), id="ordinary"), pytest.param(long, id="long", marks=pytest.mark.stress)],
    )


def doze() -> None:
    """Sleeps 20 microseconds, without the interpreter's lock."""
    time.sleep(20e-6)


def spin() -> None:
    """Computes for 20 microseconds."""
    until = time.perf_counter() + 20e-6
    while time.perf_counter() < until:
        pass


def slowed(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with a pause of random length before and after it, for what must be right however slow it is."""

    def slow(*args: Any, **options: Any) -> Any:
        time.sleep(random.random() * 100e-6)
        result = function(*args, **options)
        time.sleep(random.random() * 100e-6)
        return result

    return slow


def play(rounds: int, one_round: Callable[[int], object], limit: float = LIMIT) -> None:
    """Runs the rounds one after the other; the first that raises, or takes longer than ``limit`` seconds, fails the test."""
    state: dict[str, Any] = {"round": 0, "since": time.monotonic(), "error": None}
    done = threading.Event()

    def all_rounds() -> None:
        try:
            for number in range(rounds):
                state["round"], state["since"] = number, time.monotonic()
                one_round(number)
        except BaseException as error:
            state["error"] = error
        finally:
            done.set()

    threading.Thread(target=all_rounds, name="rounds", daemon=True).start()
    while not done.wait(0.2):
        if time.monotonic() - state["since"] > limit:
            faulthandler.dump_traceback(file=sys.__stderr__)
            pytest.fail(f"round {state['round']} hangs: it has taken more than {limit} s")
    if state["error"] is not None:
        state["error"].add_note(f"in round {state['round']} of {rounds}")
        raise state["error"]


class Racers:
    """Threads that start together; joining them raises what one of them raised."""

    def __init__(self, *functions: Callable[[], object]) -> None:
        self._barrier = threading.Barrier(len(functions))
        self._errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(f,), daemon=True) for f in functions]
        for thread in self._threads:
            thread.start()

    def _run(self, function: Callable[[], object]) -> None:
        try:
            self._barrier.wait()
            function()
        except BaseException as error:
            self._errors.append(error)

    def join(self, limit: float = LIMIT) -> None:
        """Waits for all of them."""
        until = time.monotonic() + limit
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        if self._errors:
            raise self._errors[0]
        stuck = [t for t in self._threads if t.is_alive()]
        if stuck:
            faulthandler.dump_traceback(file=sys.__stderr__)
            raise AssertionError(f"{len(stuck)} of {len(self._threads)} racing threads hang")


def race(*functions: Callable[[], object], limit: float = LIMIT) -> None:
    """Runs the functions in threads that start together, to their end."""
    Racers(*functions).join(limit)


def eventually(condition: Callable[[], object], limit: float = 4.0) -> bool:
    """Whether the condition holds within that many seconds; it only looks, so it can't repair what was lost."""
    until = time.monotonic() + limit
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(100e-6)
    return True


class Overlap:
    """Says whether a handler was ever entered while it was running."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.found = 0
        self.calls = 0

    def __enter__(self) -> Self:
        if not self._lock.acquire(blocking=False):
            self.found += 1
            self._lock.acquire()
        self.calls += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def depth() -> int:
    """The number of frames on the calling thread's stack."""
    count, frame = 0, sys._getframe()
    while frame is not None:
        count, frame = count + 1, frame.f_back
    return count


def balance(subscription: Any) -> tuple[int, int, int]:
    """Of a subscription or its statistics: offered, what is accounted for, and pending."""
    s = subscription.statistics() if isinstance(subscription, Subscription) else subscription
    return s.offered, s.handled + s.failed + s.dropped + s.pending, s.pending


def check_books(bus: EventBus, *, topics: bool = True) -> None:
    """At a quiet moment: every subscription, past ones included, accounts for what it was offered; failures have their letters."""
    snapshot = bus.statistics()
    letters = Counter(letter.subscription for letter in bus.dead_letters)
    for s in snapshot.subscriptions.values():
        offered, accounted, pending = balance(s)
        assert (offered, 0) == (accounted, pending), s
        assert s.failed == letters[s.name], (s, letters[s.name])
    if topics:
        for outcome in ("handled", "failed", "dropped"):
            by_subscription = sum(getattr(s, outcome) for s in snapshot.subscriptions.values())
            by_topic = sum(getattr(t, outcome) for t in snapshot.topics.values())
            assert by_subscription == by_topic, (outcome, str(snapshot))


def slice_of(part: list[Any], whole: list[Any]) -> bool:
    """Whether the part occurs in the whole without gaps; the items of the whole are distinct."""
    if not part:
        return True
    start = whole.index(part[0])
    return whole[start : start + len(part)] == part


def chunks(count: int, publishers: int) -> Iterable[range]:
    """The numbers below ``count * publishers``, one range for each publisher."""
    return [range(p * count, (p + 1) * count) for p in range(publishers)]

"""Waiting until all is handled, and the end of a bus.

Quiescence is decided by two passes over all subscriptions. In the first each is waited for until it is quiet, and the number
of events offered to it, as it was before the look that found it quiet, is noted. If in the second pass every one is still
quiet with the same number, none was offered anything between its two looks, so all were quiet at the moment between the
passes, chained events included. Otherwise the passes begin again.
"""

from __future__ import annotations

import atexit
import os
import sys
import time
import weakref
from collections.abc import Callable, Iterable
from functools import partial
from types import MappingProxyType
from typing import Any, Protocol

from .consumer import PipelineSubscription
from .dead_letters import DeadLetters
from .errors import BusError, DrainTimeoutError
from .intake import Fed
from .observer import ObserverSubscription
from .outcome import CloseReport
from .registry import Registry
from .subscription import Subscription
from .topic import Topic

GRACE = 0.25
"""Seconds that the end of a close takes at most beyond its timeout, to tell idle observers of it."""

GRACE_AT_EXIT = 5.0
"""Seconds that a process which just ends gives to what is queued on all its buses."""

Subscriptions = Callable[[], Iterable[Subscription]]


def offered(subscription: Subscription) -> int:
    """The number of events that it was offered so far."""
    return subscription._intake.arrived()


def left(subscriptions: Iterable[Subscription]) -> dict[str, int]:
    """Who still has events, and how many."""
    found: dict[str, int] = {}
    for s in subscriptions:
        if s._strand.pending:
            found[s.name] = found.get(s.name, 0) + s._strand.pending
    return found


def drain(bus: str, subscriptions: Subscriptions, deadline: float | None, *, strict: bool = True) -> None:
    """Waits until nothing is queued or being handled.

    Raises: `DrainTimeoutError` at the deadline (monotonic seconds); if ``strict``, `BusError` for a subscription that will
    never get on by itself; otherwise such a one is passed over.
    """
    while True:
        first: dict[Subscription, int] = {}
        for subscription in subscriptions():
            count = _wait_for(subscription, deadline, strict=strict)
            if count is None:
                busy = left(subscriptions()) or {subscription.name: 0}
                names = ", ".join(f"{name!r} ({count} left)" for name, count in busy.items())
                raise DrainTimeoutError(f"bus {bus!r} was not drained in time; still busy: {names}", busy)
            first[subscription] = count
        second = {s: offered(s) if _is_done(s, strict=strict) else -1 for s in subscriptions()}
        if all(second.get(s, count) == count for s, count in first.items()) and all(s in first for s in second):
            return
        if deadline is not None and time.monotonic() > deadline:
            raise DrainTimeoutError(f"bus {bus!r} was not drained in time: events keep coming", left(subscriptions()))


def _is_done(subscription: Subscription, *, strict: bool) -> bool:
    strand = subscription._strand
    return strand.is_quiet() or (strand.is_idle_for_ever() and (not strict or not strand.pending))


def _wait_for(subscription: Subscription, deadline: float | None, *, strict: bool) -> int | None:
    """Waits until it has nothing to do; the events that it had been offered by then, or ``None`` at the deadline."""
    strand = subscription._strand
    if strand.is_closed:
        subscription.dispose()  # an interrupt may have come into the middle of another call of it
    while True:
        count = offered(subscription)
        if _is_done(subscription, strict=strict):
            return count
        if strict and strand.is_idle_for_ever() and strand.pending:
            raise BusError(_why_idle(subscription))
        if not strand.scheduled and strand.has_work():
            strand.wake()  # an interrupt came between its last event and its submission
        if strand.crew is not None:
            strand.crew.kick()
        if not strand.wait_until(partial(_rests, subscription), deadline):
            return None


def _rests(subscription: Subscription) -> bool:
    """Whether it has nothing to do, or can't do it by itself; a loop of its that was closed without a word is found here."""
    strand = subscription._strand
    strand.look_after_loops()
    return strand.is_quiet() or strand.is_idle_for_ever()


def _why_idle(subscription: Subscription) -> str:
    name, pending = subscription.name, subscription._strand.pending
    if subscription._strand.is_paused:
        return f"subscription {name!r} is paused with {pending} events: drain would wait for ever"
    return f"subscription {name!r} has {pending} events on a virtual clock, which drain can't move: advance it first"


def report(subscriptions: Iterable[Subscription]) -> CloseReport:
    """What could not be finished, by name."""
    present = list(subscriptions)
    stuck = tuple(s.name for s in present if s._strand.is_stuck)
    return CloseReport(stuck, MappingProxyType(left(present)))


class Open(Protocol):
    """A bus that isn't closed."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    def _everybody(self) -> list[Subscription]: ...
    def _orphan(self) -> None: ...


open_buses: weakref.WeakSet[Open] = weakref.WeakSet()


def _at_exit() -> None:
    """The interpreter ends and nobody closed these: what is queued is handled, for a while, and what is left is said."""
    deadline = time.monotonic() + GRACE_AT_EXIT
    for bus in list(open_buses):
        if not left(bus._everybody()):
            continue
        try:
            drain(bus.name, bus._everybody, deadline, strict=False)
        except DrainTimeoutError:
            pass
        unhandled = left(bus._everybody())
        if unhandled and sys.stderr is not None:
            names = ", ".join(f"{count} of {name!r}" for name, count in unhandled.items())
            print(f"rxbus: bus {bus.name!r} was not closed; events not handled when the process ended: {names}", file=sys.stderr)  # noqa: T201


def _in_child() -> None:
    for bus in list(open_buses):
        bus._orphan()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


class Closable(Protocol):
    """What a close needs of its bus."""

    def _monotonic(self) -> float:
        """The clock by which it waits, in seconds."""
        ...

    def _drain(self, subscriptions: Subscriptions, deadline: float | None, *, strict: bool = True) -> None:
        """Waits until these have nothing to do."""


class Closing:
    """One close: seal the topics, drain, end them, and count what is left."""

    def __init__(
        self, bus: Closable, registry: Registry, dead_letters: DeadLetters, everybody: Subscriptions, done: Callable[[CloseReport], None]
    ) -> None:
        self._bus = bus
        self._registry = registry
        self._dead_letters = dead_letters
        self._everybody = everybody
        self._done = done

    def run(self, deadline: float, drain: bool) -> None:
        """All of it; it takes until the deadline (by the monotonic clock of the bus) and a moment of grace at most."""
        letters: list[Subscription] = []
        try:
            if drain:
                self._drain(deadline)
                self._flush(deadline)
            self._registry.closed = True
            ended: dict[Fed, None] = {fed: None for topic in self._topics() for fed in topic._stop()}
            letters = self._dead_letters._subscriptions()
            if drain:
                for fed in (*ended, *self._registry.subscriptions()):
                    if not fed._boxed:  # those end when what feeds them does
                        fed._strand.finish(None)
                self._dead_letters._complete()
                # completion takes a moment, even if the time is over for those who are stuck
                self._drain(max(deadline, self._bus._monotonic() + GRACE), letters)
        finally:
            self._registry.closed = True
            found = CloseReport()
            try:
                found = self._end_everybody(letters)
            finally:
                self._done(found)

    def _topics(self) -> list[Topic[Any]]:
        with self._registry.lock:
            return list(self._registry.topics.values())

    def _drain(self, deadline: float, besides: Iterable[Subscription] = ()) -> None:
        try:
            self._bus._drain(lambda: [*self._everybody(), *besides], deadline, strict=False)
        except DrainTimeoutError:
            pass  # the report says what is left

    def _flush(self, deadline: float) -> None:
        """What operators still hold comes out, and is handled, while handlers may still publish; what feeds others goes first."""
        for generation in _generations(self._registry.subscriptions()):
            if any(isinstance(s, PipelineSubscription | ObserverSubscription) for s in generation):
                for subscription in generation:
                    subscription._flush()
                self._drain(max(deadline, self._bus._monotonic() + GRACE))

    def _end_everybody(self, letters: Iterable[Subscription]) -> CloseReport:
        for topic in self._topics():
            topic._stop()
        present = list(dict.fromkeys([*self._everybody(), *letters]))
        for subscription in present:
            subscription._strand.pause()  # so that what is reported is what is dropped
        found = report(present)
        for subscription in present:
            subscription.dispose()
        self._dead_letters._complete()
        return found


def _generations(subscriptions: list[Subscription]) -> Iterable[list[Subscription]]:
    """Subscriptions in an order in which each comes after those that feed it; those that feed each other come last, together."""
    readers: dict[str, list[Subscription]] = {}
    for subscription in subscriptions:
        for topic, _ in subscription._intake.by_topic():
            readers.setdefault(topic, []).append(subscription)
    fed_by = {s: {r for t in {*s._feeds, *filter(None, [s._target])} for r in readers.get(t, ()) if r is not s} for s in subscriptions}
    feeders = dict.fromkeys(subscriptions, 0)
    for ones in fed_by.values():
        for one in ones:
            feeders[one] += 1
    ready = [s for s in subscriptions if not feeders[s]]
    while ready:
        yield ready
        for subscription in ready:
            del feeders[subscription]
        following: list[Subscription] = []
        for subscription in ready:
            for fed in fed_by[subscription]:
                if fed in feeders:
                    feeders[fed] -= 1
                    if not feeders[fed]:
                        following.append(fed)
        ready = following
    if feeders:
        yield list(feeders)

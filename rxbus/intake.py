"""The inlets of one subscription: one for a name, one for each topic of a pattern.

A topic may be forgotten, and another of the same name be made, while events of the first are queued. Each has an inlet of its
own, and an entry knows which one it came through, so their books stay apart. Inlets of forgotten topics are folded into one when
they have settled everything, so that names made per request don't pile up. The strand's lock guards the changes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, Protocol, cast

from .inlet import Front, Inlet, SharedInlet
from .mailbox import Entry
from .pattern import is_wild


class Intake(Protocol):
    """The inlets of one subscription, or of one group."""

    @property
    def inlet(self) -> Inlet | None:
        """The only one that there will ever be, if that is so."""
        ...

    def attach(self, topic: str, /) -> Inlet:
        """The inlet through which that topic is going to feed the mailbox."""
        ...

    def forget(self, topic: str, /) -> None:
        """That topic feeds it no more."""

    def fold(self) -> None:
        """Folds the inlets of topics that are done for."""

    def inlets(self) -> list[Inlet]:
        """All of them: the books."""
        ...

    def by_topic(self) -> Iterable[tuple[str, Inlet]]:
        """Those of topics, with their names."""
        ...

    def offered(self, pending: int, /) -> int:
        """How many events were put before it, of which so many are pending."""
        ...

    def arrived(self) -> int:
        """How many events came in so far: a number that never falls."""
        ...

    def book(self, entry: Entry, outcome: str, /) -> None:
        """Counts what became of an entry; called by the run, or under the strand's lock."""


class Fed(Protocol):
    """Whom topics feed: a subscription or a group."""

    @property
    def name(self) -> str:
        """Of the subscription or the group."""
        ...

    @property
    def pattern(self) -> str:
        """What it consumes."""
        ...

    @property
    def _strand(self) -> Front: ...
    @property
    def _intake(self) -> Intake: ...
    @property
    def _inlet(self) -> Inlet | None: ...
    @property
    def _boxed(self) -> bool: ...
    @property
    def _passive(self) -> bool: ...


def intake_for(pattern: str, front: Front, name: str, kind: type[Inlet] | None = None) -> SingleIntake | PatternIntake:
    """The intake of what consumes that name or pattern; ``kind`` is the class of its inlets, if not the usual one."""
    if is_wild(pattern):
        return PatternIntake(front, name, kind or SharedInlet)
    return SingleIntake(front, name, pattern, kind or Inlet)


class SingleIntake:
    """Of a subscription to one topic."""

    __slots__ = ("inlet", "name")

    def __init__(self, front: Front, subscription: str, topic: str, kind: type[Inlet] = Inlet) -> None:
        self.inlet = kind(front, subscription)
        self.name = topic

    def attach(self, topic: str) -> Inlet:
        """The inlet through which that topic is going to feed the mailbox."""
        return self.inlet

    def forget(self, topic: str) -> None:
        """That topic feeds it no more; the subscription ends with it."""

    def fold(self) -> None:
        """There is nothing to fold."""

    def inlets(self) -> list[Inlet]:
        """All of them."""
        return [self.inlet]

    def by_topic(self) -> Iterable[tuple[str, Inlet]]:
        """Those of topics, with their names."""
        return [(self.name, self.inlet)]

    def offered(self, pending: int) -> int:
        """How many events were put before it."""
        return self.inlet.offered

    def arrived(self) -> int:
        """How many events came in so far."""
        return self.inlet.offered

    def book(self, entry: Entry, outcome: str) -> None:
        """Counts what became of an entry."""
        self.inlet.book(outcome)


class PatternIntake:
    """Of a subscription, or a group, to a pattern."""

    __slots__ = ("_by_topic", "_former", "_front", "_kind", "_rest", "_subscription")

    inlet = None
    """There is no single one."""

    def __init__(self, front: Front, subscription: str, kind: type[Inlet] = SharedInlet) -> None:
        self._front = front
        self._kind = kind
        self._subscription = subscription
        self._by_topic: dict[str, Inlet] = {}
        self._former: deque[Inlet] = deque()
        self._rest: Inlet | None = None

    def attach(self, topic: str) -> Inlet:
        """The inlet through which that topic is going to feed the mailbox; called under the lock of the registry."""
        with self._front.lock:
            inlet = self._by_topic.get(topic)
            if inlet is None:
                inlet = self._by_topic[topic] = self._kind(self._front, self._subscription)
            return inlet

    def forget(self, topic: str) -> None:
        """That topic feeds it no more."""
        with self._front.lock:
            inlet = self._by_topic.pop(topic, None)
            if inlet is not None:
                inlet.source = None
                self._former.append(inlet)
                self._fold(2)  # more than come in, so they never pile up

    def fold(self) -> None:
        """Folds the inlets of forgotten topics into one, as far as they are done."""
        if self._former:
            with self._front.lock:
                self._fold(len(self._former))

    def _fold(self, count: int) -> None:
        for _ in range(min(count, len(self._former))):
            inlet = self._former.popleft()
            if inlet.outstanding():
                self._former.append(inlet)
            elif self._rest is None:
                self._rest = inlet
            else:
                self._rest.take_over(inlet)

    def inlets(self) -> list[Inlet]:
        """All of them."""
        return [*list(self._by_topic.values()), *self._former, *([] if self._rest is None else [self._rest])]

    def by_topic(self) -> Iterable[tuple[str, Inlet]]:
        """Those of topics, with their names."""
        return list(self._by_topic.items())

    def offered(self, pending: int) -> int:
        """How many events were put before it."""
        return self.arrived()

    def arrived(self) -> int:
        """How many events came in so far."""
        return sum(inlet.offered for inlet in self.inlets())

    def book(self, entry: Entry, outcome: str) -> None:
        """Counts what became of an entry; called by the run, or under the lock."""
        through: Inlet = cast("Any", entry)[3]
        through.book(outcome)

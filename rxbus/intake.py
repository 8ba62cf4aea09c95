"""The inlets of one subscription: one for a name, one for each topic of a pattern.

A topic may be forgotten, and another of the same name be made, while events of the first are queued. Each has an inlet of its
own, so that their books stay apart: the newer one knows the older one until that has settled everything. Inlets of forgotten
topics that are done are folded into one, so that names made per request don't pile up. The strand's lock guards the changes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Protocol

from .inlet import Front, Inlet, SharedInlet
from .mailbox import Entry
from .pattern import is_wild

REST = ""
"""The key of the inlet that stands for all topics that were forgotten; no topic has this name."""


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
    """Of a subscription to a pattern."""

    __slots__ = ("_by_topic", "_gone", "_kind", "_strand", "_subscription")

    inlet = None
    """There is no single one."""

    def __init__(self, front: Front, subscription: str, kind: type[Inlet] = SharedInlet) -> None:
        self._strand = front
        self._kind = kind
        self._subscription = subscription
        self._by_topic: dict[str, Inlet] = {}
        self._gone: deque[str] = deque()

    def attach(self, topic: str) -> Inlet:
        """The inlet through which that topic is going to feed the mailbox; called under the lock of the registry."""
        with self._strand.lock:
            former = self._by_topic.get(topic)
            if former is not None and former.source is not None:
                return former
            inlet = self._kind(self._strand, self._subscription)
            inlet.previous = former  # before the run can see it
            self._by_topic[topic] = inlet
            return inlet

    def forget(self, topic: str) -> None:
        """That topic feeds it no more."""
        with self._strand.lock:
            self._by_topic[topic].source = None
            self._gone.append(topic)
        self.fold()

    def fold(self) -> None:
        """Folds the inlets of forgotten topics into one, the oldest first, as far as they are done."""
        with self._strand.lock:
            while self._gone:
                inlet = self._by_topic.get(self._gone[0])
                if inlet is not None and inlet.source is None:
                    if any(one.outstanding() for one in _chain(inlet)):
                        return
                    rest = self._by_topic.setdefault(REST, self._kind(self._strand, self._subscription))
                    for one in _chain(inlet):
                        rest.take_over(one)
                    del self._by_topic[self._gone[0]]
                self._gone.popleft()

    def inlets(self) -> list[Inlet]:
        """All of them."""
        return [one for inlet in list(self._by_topic.values()) for one in _chain(inlet)]

    def by_topic(self) -> Iterable[tuple[str, Inlet]]:
        """Those of topics, with their names."""
        return [(name, inlet) for name, inlet in list(self._by_topic.items()) if name]

    def offered(self, pending: int) -> int:
        """How many events were put before it."""
        return self.arrived()

    def arrived(self) -> int:
        """How many events came in so far."""
        return sum(inlet.offered for inlet in self.inlets())

    def book(self, entry: Entry, outcome: str) -> None:
        """Counts what became of an entry; called by the run, or under the strand's lock."""
        self._of(entry).book(outcome)

    def _of(self, entry: Entry) -> Inlet:
        inlet = self._by_topic[entry[0]._topic]
        if inlet.previous is None:
            return inlet
        # events are taken in the order in which they came, so those of a former topic of this name come first; an entry that is
        # dropped from the queue is behind the one in flight
        in_flight = self._strand.in_flight
        ahead = 1 if in_flight is not None and in_flight is not entry and in_flight[0]._topic == entry[0]._topic else 0
        for one in reversed(list(_chain(inlet))):
            if one.outstanding() > ahead:
                return one
            ahead -= min(ahead, one.outstanding())
        return inlet


def _chain(inlet: Inlet | None) -> Iterator[Inlet]:
    while inlet is not None:
        yield inlet
        inlet = inlet.previous

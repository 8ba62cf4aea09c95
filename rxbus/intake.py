"""The inlets of one subscription: one for a name, one for each topic of a pattern.

A topic may be forgotten, and another of the same name be made, while events of the first are queued. Each has an inlet of its
own, so that their books stay apart: the newer one knows the older one until that has settled everything. Inlets of forgotten
topics that are done are folded into one, so that names made per request don't pile up. The strand's lock guards the changes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from .inlet import Inlet, SharedInlet
from .mailbox import Entry
from .strand import Strand

REST = ""
"""The key of the inlet that stands for all topics that were forgotten; no topic has this name."""


class SingleIntake:
    """Of a subscription to one topic."""

    __slots__ = ("inlet", "name")

    def __init__(self, strand: Strand, subscription: str, topic: str) -> None:
        self.inlet = Inlet(strand, subscription)
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

    def of(self, entry: Entry) -> Inlet:
        """The inlet that an entry came through."""
        return self.inlet


class PatternIntake:
    """Of a subscription to a pattern."""

    __slots__ = ("_by_topic", "_gone", "_strand", "_subscription")

    inlet = None
    """There is no single one."""

    def __init__(self, strand: Strand, subscription: str) -> None:
        self._strand = strand
        self._subscription = subscription
        self._by_topic: dict[str, Inlet] = {}
        self._gone: deque[str] = deque()

    def attach(self, topic: str) -> Inlet:
        """The inlet through which that topic is going to feed the mailbox; called under the lock of the registry."""
        with self._strand.lock:
            former = self._by_topic.get(topic)
            if former is not None and former.source is not None:
                return former
            inlet = SharedInlet(self._strand, self._subscription)
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
                    rest = self._by_topic.setdefault(REST, SharedInlet(self._strand, self._subscription))
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

    def of(self, entry: Entry) -> Inlet:
        """The inlet that an entry came through; called by the run, or under the strand's lock."""
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

"""Snapshots of the bookkeeping: frozen records that keep nothing alive but the last error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import TYPE_CHECKING

from .arguments import describe, visible
from .display import Shown
from .outcome import Reason

if TYPE_CHECKING:
    from .card import Card
    from .drawing import Table

__all__ = ["BusStatistics", "SubscriptionStatistics", "TopicStatistics"]


@dataclass(frozen=True, slots=True, repr=False)
class SubscriptionStatistics(Shown):
    """The counters of one subscription. At a quiet moment ``offered == handled + failed + dropped + pending``."""

    name: str
    pattern: str
    offered: int
    """Events that topics put before it."""
    handled: int
    """Events that went through without raising; one that a filter swallowed was handled."""
    failed: int
    """Events that were given up or refused; each made one dead letter."""
    dropped: int
    """Events that a drop policy, `dispose` or `close` released."""
    retried: int
    """Attempts beyond the first."""
    pending: int
    """Events queued, being handled, or waiting for a retry."""
    queued: int
    """Of these, how many take room in its mailbox."""
    capacity: int
    """How many events its mailbox holds."""
    handling_time: float
    """Seconds spent in handlers, in sum."""
    waiting_time: float
    """Seconds from publish to handler, in sum."""
    last_error: BaseException | None
    """The last error that it reported, without its frames."""

    def __repr__(self) -> str:
        return f"SubscriptionStatistics({', '.join(f'{one.name}={describe(getattr(self, one.name))}' for one in fields(self))})"

    @property
    def nearly_full(self) -> bool:
        """Whether more than 80 % of its mailbox are taken."""
        return self.queued > 0.8 * self.capacity

    def _card(self) -> Card:
        from .card import Card

        return Card("SubscriptionStatistics", self.name, self._state, facts=self.facts(), tables=[subscription_table([self])])

    @property
    def _state(self) -> str:
        return f"{self.pending:,} pending" if self.pending else "nothing pending"

    def facts(self) -> list[str]:
        """What else there is to say in a line each: where it listens, how long it takes, what it last failed with."""
        from .lettering import duration, say

        done = self.handled + self.failed
        facts = [f"on {self.pattern}"]
        if done and self.handling_time > 0:
            facts.append(
                f"{duration(self.handling_time / done)} in the handler and {duration(self.waiting_time / done)} in the mailbox on average"
            )
        if self.last_error is not None:
            facts.append(f"last error: {say(self.last_error)}")
        return facts


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """The threads that run the handlers of a bus."""

    workers: int
    """Those that there are now."""
    max_workers: int
    """The bound."""
    saturations: int
    """How often something ready had to wait because all of them were busy and the bound was reached; an episode counts once."""


@dataclass(frozen=True, slots=True)
class TopicStatistics(Shown):
    """The counters of one topic; the outcomes are sums over its subscriptions, past ones included."""

    name: str
    published: int
    subscribers: int
    handled: int
    failed: int
    """Deliveries that were given up or refused, and errors that an upstream reported to the topic."""
    dropped: int

    def _card(self) -> Card:
        from .card import Card

        return Card("TopicStatistics", self.name, tables=[topic_table([self])])


@dataclass(frozen=True, slots=True, repr=False)
class BusStatistics(Shown):
    """A snapshot of a bus, by name."""

    name: str
    topics: Mapping[str, TopicStatistics]
    subscriptions: Mapping[str, SubscriptionStatistics]
    pool: PoolStatistics | None = None
    """``None`` when a scheduler of the user's runs the handlers."""
    dead_letters: Mapping[Reason, int] = field(default_factory=lambda: MappingProxyType({}))
    """How many were made since the bus was, by reason; those that were discarded, replayed or evicted included."""
    late_replies: int = 0
    """Replies to requests that nobody waited for any more."""

    def __repr__(self) -> str:
        letters = sum(self.dead_letters.values())
        parts = f"{len(self.topics)} topics, {len(self.subscriptions)} subscriptions, {letters} dead letters"
        return f"BusStatistics({describe(self.name)}: {parts})"

    @property
    def nearly_full(self) -> tuple[str, ...]:
        """The subscriptions whose mailbox is more than 80 % full, by name."""
        return tuple(name for name, one in self.subscriptions.items() if one.nearly_full)

    def __str__(self) -> str:
        from .drawing import text_table

        full = f"\n\nmailboxes over 80 % full: {', '.join(map(visible, self.nearly_full))}" if self.nearly_full else ""
        tables = topic_table(list(self.topics.values())), subscription_table(list(self.subscriptions.values()))
        return f"{text_table(tables[0])}\n\n{text_table(tables[1])}{full}"

    def _card(self) -> Card:
        from .card import Card

        return Card("BusStatistics", self.name, facts=self.facts(), tables=self.tables())

    def facts(self) -> list[str]:
        """What else there is to say, in a line each."""
        from .lettering import count

        facts: list[str] = []
        if self.dead_letters:
            reasons = ", ".join(f"{number:,} {reason.value}" for reason, number in self.dead_letters.items())
            facts.append(f"{count(sum(self.dead_letters.values()), 'dead letter')}: {reasons}")
        if self.nearly_full:
            facts.append(f"mailboxes over 80 % full: {', '.join(self.nearly_full)}")
        if self.pool is not None:
            facts.append(f"{count(self.pool.workers, 'worker')} of at most {self.pool.max_workers:,}")
        return facts

    def tables(self) -> list[Table]:
        """The books of topics and of subscriptions, as many as one wants to see at once."""
        from .card import ROWS

        return [topic_table(list(self.topics.values()), ROWS), subscription_table(list(self.subscriptions.values()), ROWS)]


def topic_table(topics: Sequence[TopicStatistics], most: int | None = None) -> Table:
    """The books of topics."""
    from .drawing import Table

    rows = [(t.name, t.published, t.subscribers, t.handled, t.failed, t.dropped) for t in topics[:most]]
    return Table(("topic", "published", "subscribers", "handled", "failed", "dropped"), rows, (4,), len(topics) - len(rows))


def subscription_table(subscriptions: Sequence[SubscriptionStatistics], most: int | None = None) -> Table:
    """The books of subscriptions."""
    from .drawing import Table

    rows = [(s.name, s.offered, s.handled, s.failed, s.dropped, s.pending, s.retried) for s in subscriptions[:most]]
    head = ("subscription", "offered", "handled", "failed", "dropped", "pending", "retried")
    return Table(head, rows, (3,), len(subscriptions) - len(rows))

"""Snapshots of the bookkeeping: frozen records that keep nothing alive but the last error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from .arguments import visible
from .outcome import Reason

__all__ = ["BusStatistics", "SubscriptionStatistics", "TopicStatistics"]


@dataclass(frozen=True, slots=True)
class SubscriptionStatistics:
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

    @property
    def nearly_full(self) -> bool:
        """Whether more than 80 % of its mailbox are taken."""
        return self.queued > 0.8 * self.capacity


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
class TopicStatistics:
    """The counters of one topic; the outcomes are sums over its subscriptions, past ones included."""

    name: str
    published: int
    subscribers: int
    handled: int
    failed: int
    """Deliveries that were given up or refused, and errors that an upstream reported to the topic."""
    dropped: int


@dataclass(frozen=True, slots=True)
class BusStatistics:
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

    @property
    def nearly_full(self) -> tuple[str, ...]:
        """The subscriptions whose mailbox is more than 80 % full, by name."""
        return tuple(name for name, one in self.subscriptions.items() if one.nearly_full)

    def __str__(self) -> str:
        topics: list[tuple[str, ...]] = [("topic", "published", "subscribers", "handled", "failed", "dropped")]
        topics += [(t.name, *map(str, (t.published, t.subscribers, t.handled, t.failed, t.dropped))) for t in self.topics.values()]
        subscriptions: list[tuple[str, ...]] = [("subscription", "offered", "handled", "failed", "dropped", "pending", "retried")]
        subscriptions += [
            (s.name, *map(str, (s.offered, s.handled, s.failed, s.dropped, s.pending, s.retried))) for s in self.subscriptions.values()
        ]
        full = f"\n\nmailboxes over 80 % full: {', '.join(map(visible, self.nearly_full))}" if self.nearly_full else ""
        return f"{_table(topics)}\n\n{_table(subscriptions)}{full}"


def _table(rows: list[tuple[str, ...]]) -> str:
    rows = [tuple(visible(cell) for cell in row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) if first else cell.rjust(width) for first, cell, width in zip(flags, row, widths, strict=True))
        for row, flags in ((row, [True] + [False] * (len(row) - 1)) for row in rows)
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)

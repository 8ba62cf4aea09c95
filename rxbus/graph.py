"""Who feeds whom: topics and subscriptions as nodes; as text, as Mermaid and as a picture.

Two graphs are equal when the same is connected: what has gone along the edges, and the books of the nodes, are shown but not
compared.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from .arguments import visible
from .display import bundle
from .pattern import is_wild
from .statistics import BusStatistics, SubscriptionStatistics, TopicStatistics

if TYPE_CHECKING:
    from .chart import Link, Node, Note
    from .drawing import Markup

__all__ = ["BusGraph"]

LINES, WIDEST = 200, 400
"""Of the text in a notebook, and cells of a line of it; what is beyond is counted."""


@dataclass(frozen=True, slots=True)
class Edge:
    """From a topic to a subscription that consumes it, or from a subscription to a topic that it feeds."""

    source: str
    target: str
    declared: bool
    """True if the program says so (``subscribe``, ``to=``), false if it was seen in traffic only."""
    events: int | None = field(default=None, compare=False)
    """How many events went along it, where that is counted."""


@dataclass(frozen=True, slots=True)
class BusGraph:
    """A snapshot of the topology of a bus; `str` gives text, `mermaid` a flow chart, `svg` a picture, which a notebook shows."""

    name: str
    topics: tuple[str, ...]
    subscriptions: tuple[str, ...]
    consumes: tuple[Edge, ...]
    """From topics to subscriptions."""
    feeds: tuple[Edge, ...]
    """From subscriptions to topics."""
    statistics: BusStatistics | None = field(default=None, compare=False, repr=False)
    """The books of that moment."""
    groups: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), compare=False, repr=False)
    """From the name of a subscription to that of its group."""

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        readers: dict[str, list[str]] = {}
        for edge in self.consumes:
            readers.setdefault(edge.source, []).append(edge.target)
        outs: dict[str, list[str]] = {}
        for edge in self.feeds:
            outs.setdefault(edge.source, []).append(f"{'──▶' if edge.declared else '╌╌▶'} {edge.target}")
        yield visible(self.name)
        for topic in self.topics:
            yield visible(f"  {topic}")
            found = readers.get(topic, [])
            for number, reader in enumerate(found, 1):
                yield visible(f"    {'└─' if number == len(found) else '├─'} {' '.join([reader, *outs.get(reader, [])])}")
        for name in sorted(set(self.subscriptions) - {edge.target for edge in self.consumes}):
            yield visible("  " + " ".join([f"{name} (no topic yet)", *outs.get(name, [])]))

    def _sketch(self) -> str:
        """The text, cut to what somebody reads."""
        from .lettering import cut

        shown = [cut(line, WIDEST) for line in islice(self._lines(), LINES + 1)]
        if len(shown) <= LINES:
            return "\n".join(shown)
        more = 1 + len(self.topics) + len(self.consumes) + len(set(self.subscriptions) - {edge.target for edge in self.consumes}) - LINES
        return "\n".join([*shown[:LINES], f"… and {more:,} more lines"])

    @property
    def mermaid(self) -> str:
        """A Mermaid flow chart, solid lines as declared, dotted ones as seen in traffic."""
        topics = {name: f"t{n}" for n, name in enumerate(self.topics)}
        subscriptions = {name: f"s{n}" for n, name in enumerate(self.subscriptions)}
        lines = ["flowchart LR"]
        lines += [f'    {key}(["{_escape(name)}"])' for name, key in topics.items()]
        lines += [f'    {key}["{_escape(name)}"]' for name, key in subscriptions.items()]
        lines += [f"    {topics[e.source]} --> {subscriptions[e.target]}" for e in self.consumes]
        lines += [f"    {subscriptions[e.source]} {'-->' if e.declared else '-.->'} {topics[e.target]}" for e in self.feeds]
        return "\n".join(lines)

    # -- the picture

    @property
    def svg(self) -> str:
        """A picture, as an SVG file or for a page; it needs no script, and suits light and dark pages."""
        return self._chart()

    def _chart(self, *, styled: bool = True, titled: bool = True) -> Markup:
        from .chart import chart
        from .outline import outline

        return chart(self.name, self._summary(), *outline(self._nodes(), self._links()), styled=styled, titled=titled)

    def _repr_mimebundle_(self, include: Collection[str] | None = None, exclude: Collection[str] | None = None) -> dict[str, str]:
        from .drawing import html, inline

        return bundle(self._sketch, lambda: html(inline(self._chart(styled=False))), include, exclude)

    def _summary(self) -> str:
        from .lettering import count

        parts = (
            [count(len(self.topics), "topic"), count(len(self.subscriptions), "subscription")] if self.topics or self.subscriptions else []
        )
        books = self.statistics
        if books is not None and parts:
            parts.append(f"{sum(topic.published for topic in books.topics.values()):,} published")
            failed = sum(topic.failed for topic in books.topics.values())
            parts += [f"{failed:,} failed"] if failed else []
        return " · ".join(parts) or "no topics and no subscriptions yet"

    def _nodes(self) -> list[Node]:
        from .chart import Node

        books = self.statistics or BusStatistics(self.name, {}, {})
        nodes = [_topic_node(name, books.topics.get(name)) for name in self.topics]
        for name in self.subscriptions:
            one = books.subscriptions.get(name)
            pattern = one.pattern if one is not None and is_wild(one.pattern) else ""
            where = [pattern] if pattern else []
            where += [f"in group {self.groups[name]}"] if name in self.groups else []
            notes = () if one is None else _subscription_notes(one)
            hint = " · ".join([name, *([f"on {one.pattern}"] if one is not None else []), *where[1:], *(note.text for note in notes)])
            nodes.append(Node(name, False, notes, " · ".join(where), hint, pattern))
        return nodes

    def _links(self) -> list[Link]:
        from .chart import Link

        topics = {name: n for n, name in enumerate(self.topics)}
        subscriptions = {name: n for n, name in enumerate(self.subscriptions, len(topics))}
        links = [Link(topics[e.source], subscriptions[e.target], not e.declared, e.events) for e in self.consumes]
        return links + [Link(subscriptions[e.source], topics[e.target], not e.declared, e.events) for e in self.feeds]


def _topic_node(name: str, books: TopicStatistics | None) -> Node:
    from .chart import Node, Note

    if books is None:
        return Node(name, True)
    # what a subscription of it failed is told there, in the colour of warnings
    return Node(
        name, True, (Note(f"{books.published:,} published"),), hint=f"{name} · {books.published:,} published · {books.failed:,} failed"
    )


def _subscription_notes(books: SubscriptionStatistics) -> tuple[Note, ...]:
    from .chart import Note

    counts = ((books.handled, "handled"), (books.pending, "pending"), (books.dropped, "dropped"), (books.retried, "retried"))
    notes = [Note(f"{number:,} {what}") for number, what in counts if number or what == "handled"]
    return (*notes, *([Note(f"{books.failed:,} failed", True)] if books.failed else []))


def _escape(text: str) -> str:
    # Mermaid reads entities by number, so nothing that a name contains can end its quotes or become markup
    return re.sub(r"[^\w .*>-]|>", lambda match: f"#{ord(match.group())};", text)


class Row(NamedTuple):
    """A subscription, as the graph takes it."""

    name: str
    pattern: str
    sources: Mapping[str, int | None]
    """The topics that feed it, each with how many events it did."""
    target: str | None
    """The topic of ``to=``."""
    seen: Iterable[str]
    """The topics that it was seen to feed."""
    group: str | None = None


def build_graph(name: str, topics: Iterable[str], subscriptions: Iterable[Row], statistics: BusStatistics | None = None) -> BusGraph:
    """The graph of topics and of subscriptions."""
    names = dict.fromkeys(topics)
    consumes: list[Edge] = []
    feeds: list[tuple[str, str, bool]] = []
    nodes: list[str] = []
    groups: dict[str, str] = {}
    for subscription, pattern, sources, target, seen, group in subscriptions:
        nodes.append(subscription)
        consumed = sources if is_wild(pattern) else {pattern: sources.get(pattern)}
        names.update(dict.fromkeys(consumed))
        consumes += [Edge(source, subscription, True, events) for source, events in consumed.items()]
        if target is not None:
            feeds.append((subscription, target, True))
        feeds += [(subscription, topic, False) for topic in seen if topic != target]
        if group is not None:
            groups[subscription] = group
    names.update(dict.fromkeys(target for _, target, _ in feeds))
    feeders = Counter(target for _, target, _ in feeds)
    published = {} if statistics is None else {one.name: one.published for one in statistics.topics.values()}
    # nobody counts what one subscription publishes on one topic; the topic's total tells it if nobody else feeds it, or nothing came
    edges = tuple(Edge(*feed, published.get(feed[1]) if feeders[feed[1]] == 1 or not published.get(feed[1]) else None) for feed in feeds)
    return BusGraph(name, tuple(names), tuple(nodes), tuple(consumes), edges, statistics, MappingProxyType(groups))

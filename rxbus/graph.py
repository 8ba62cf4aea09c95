"""Who feeds whom: topics and subscriptions as nodes, as text and as Mermaid."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from .arguments import visible
from .pattern import is_wild

__all__ = ["BusGraph"]


@dataclass(frozen=True, slots=True)
class Edge:
    """From a topic to a subscription that consumes it, or from a subscription to a topic that it feeds."""

    source: str
    target: str
    declared: bool
    """True if the program says so (``subscribe``, ``to=``), false if it was seen in traffic only."""


@dataclass(frozen=True, slots=True)
class BusGraph:
    """A snapshot of the topology of a bus; `str` gives text, `mermaid` a flow chart."""

    name: str
    topics: tuple[str, ...]
    subscriptions: tuple[str, ...]
    consumes: tuple[Edge, ...]
    """From topics to subscriptions."""
    feeds: tuple[Edge, ...]
    """From subscriptions to topics."""

    def __str__(self) -> str:
        lines = [self.name]
        for topic in self.topics:
            readers = [edge.target for edge in self.consumes if edge.source == topic]
            lines.append(f"  {topic}")
            for number, reader in enumerate(readers, 1):
                outs = self._outs(reader)
                lines.append(f"    {'└─' if number == len(readers) else '├─'} {' '.join([reader, *outs])}")
        silent = sorted(set(self.subscriptions) - {edge.target for edge in self.consumes})
        lines += ["  " + " ".join([f"{name} (no topic yet)", *self._outs(name)]) for name in silent]
        return "\n".join(visible(line) for line in lines)

    def _outs(self, subscription: str) -> list[str]:
        return [f"{'──▶' if e.declared else '╌╌▶'} {e.target}" for e in self.feeds if e.source == subscription]

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


def _escape(text: str) -> str:
    # Mermaid reads entities by number, so nothing that a name contains can end its quotes or become markup
    return re.sub(r"[^\w .*>-]|>", lambda match: f"#{ord(match.group())};", text)


def build_graph(
    name: str,
    topics: Iterable[str],
    subscriptions: Iterable[tuple[str, str, Iterable[str], str | None, Iterable[str]]],
) -> BusGraph:
    """The graph of topics and of subscriptions given as (name, pattern, topics consumed, topic of ``to=``, topics fed)."""
    names = dict.fromkeys(topics)
    consumes: list[Edge] = []
    feeds: list[Edge] = []
    nodes: list[str] = []
    for subscription, pattern, sources, target, seen in subscriptions:
        nodes.append(subscription)
        consumed = list(sources) if is_wild(pattern) else [pattern]
        names.update(dict.fromkeys(consumed))
        consumes += [Edge(source, subscription, True) for source in consumed]
        if target is not None:
            feeds.append(Edge(subscription, target, True))
        feeds += [Edge(subscription, topic, False) for topic in seen if topic != target]
    names.update(dict.fromkeys(edge.target for edge in feeds))
    return BusGraph(name, tuple(names), tuple(nodes), tuple(consumes), tuple(feeds))

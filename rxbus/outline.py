"""What of a large graph is drawn: enough to be read, with a count or a name for what is not.

Boxes beyond `MOST` are left out, whole neighbourhoods at a time. A subscription that many topics feed gets one arrow, from a
box that stands for them. When arrows to topics would cross too much of the picture, the topics are named in the boxes of the
subscriptions instead: those that were only seen first, then all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .chart import Link, Node, Note
from .lettering import count
from .ordering import extent

__all__ = ["Outline", "outline"]

MOST = 600
"""Boxes of a picture."""
MANY = 12
"""Topics that feed a subscription beyond which they are drawn as one."""
COLUMNS, BENDS = 40, 500
"""A picture that is wider, or whose edges cross more columns than that, can't be followed."""
NAMED = 20
"""Topics that are named to who points at a box."""


class Outline(NamedTuple):
    """What is drawn."""

    nodes: list[Node]
    links: list[Link]
    remarks: list[str]
    """What is not."""


def outline(nodes: Sequence[Node], links: Sequence[Link]) -> Outline:
    """What is drawn of a graph whose links lead from topics to subscriptions and from subscriptions to topics."""
    drawn, arrows = _gathered(nodes, links)
    remarks: list[str] = []
    if len(drawn) > MOST:
        kept = _neighbourhoods(drawn, arrows, len(nodes))
        topics = sum(node.is_topic for node in nodes) - sum(drawn[n].is_topic and n < len(nodes) for n in kept)
        others = sum(not node.is_topic for node in nodes) - sum(not drawn[n].is_topic for n in kept)
        places = {n: place for place, n in enumerate(kept)}
        drawn = [drawn[n] for n in kept]
        arrows = [a._replace(source=places[a.source], target=places[a.target]) for a in arrows if a.source in places and a.target in places]
        left = [count(topics, "topic")] if topics else []
        left += [count(others, "subscription")] if others else []
        remarks.append(f"… and {' and '.join(left)} more")
    for named in ([], [a for a in arrows if a.dashed and drawn[a.target].is_topic], [a for a in arrows if drawn[a.target].is_topic]):
        out = set(named)
        rest = [arrow for arrow in arrows if arrow not in out]
        soft = {n for n, arrow in enumerate(rest) if arrow.dashed}
        columns, bends = extent(len(drawn), [(a.source, a.target) for a in rest], soft)
        if columns <= COLUMNS and bends <= BENDS:
            break
    if named:
        drawn = _with_names(drawn, named)
        remarks.append("topics that a subscription feeds are named in its box, to keep the picture legible")
    return Outline(drawn, rest, remarks)


def _gathered(nodes: Sequence[Node], links: Sequence[Link]) -> tuple[list[Node], list[Link]]:
    """With one box for all the topics that feed a subscription when they are many, shared by those that get the same."""
    sources: dict[int, dict[int, None]] = {}
    events: dict[int, list[int | None]] = {}
    for link in links:
        if not nodes[link.target].is_topic:
            sources.setdefault(link.target, {})[link.source] = None
            events.setdefault(link.target, []).append(link.events)
    many = {target: found for target, found in sources.items() if len(found) > MANY}
    drawn, added = list(nodes), list[Link]()
    stands: dict[tuple[str, frozenset[int]], int] = {}
    for target, found in many.items():
        pattern = nodes[target].pattern
        key = pattern, frozenset(found)
        if key not in stands:
            stands[key] = len(drawn)
            said = count(len(found), "topic")
            drawn.append(Node(pattern or said, True, (Note(said),) if pattern else (), hint=_named(said, [nodes[n].name for n in found])))
        known = [number for number in events[target] if number is not None]
        added.append(Link(stands[key], target, events=sum(known) if len(known) == len(events[target]) else None))
    return drawn, [link for link in links if link.target not in many] + added


def _neighbourhoods(nodes: Sequence[Node], links: Sequence[Link], single: int) -> list[int]:
    """As many boxes as are drawn, by number: those that stand for many (those from
    ``single`` on), then topics with those that they feed, then others."""
    readers: list[list[int]] = [[] for _ in nodes]
    for link in links:
        if nodes[link.source].is_topic:
            readers[link.source].append(link.target)
    kept: dict[int, None] = {}
    for n in (*range(single, len(nodes)), *range(single)):
        if nodes[n].is_topic:
            kept |= dict.fromkeys([n, *readers[n]])
        if len(kept) >= MOST:
            break
    return sorted(list(dict.fromkeys([*kept, *range(len(nodes))]))[:MOST])


def _with_names(nodes: Sequence[Node], links: Iterable[Link]) -> list[Node]:
    """With a note in each box of where the links lead that aren't drawn."""
    solid: dict[int, list[str]] = {}
    dashed: dict[int, list[str]] = {}
    for link in links:
        (dashed if link.dashed else solid).setdefault(link.source, []).append(nodes[link.target].name)
    changed = list(nodes)
    for kind, targets in (("──▶", solid), ("╌╌▶", dashed)):
        for n, names in targets.items():
            more = f" +{len(names) - 1:,}" if len(names) > 1 else ""
            hint = _named(f"{changed[n].hint or changed[n].name} · {kind}", names)
            changed[n] = changed[n]._replace(notes=(*changed[n].notes, Note(f"{kind} {names[0]}{more}")), hint=hint)
    return changed


def _named(what: str, names: Sequence[str]) -> str:
    more = f" … and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return f"{what} {', '.join(names[:NAMED])}{more}"

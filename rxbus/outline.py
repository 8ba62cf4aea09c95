"""What of a large graph is drawn: enough to be read, with a count or a name for what is not.

Boxes beyond `MOST` are left out, whole neighbourhoods at a time, so that no topic looks as if nobody read it. A subscription that
many topics feed gets one arrow, from a box that stands for them; of these only topics that something else is connected with are
drawn besides, with a note of the box. When arrows to topics would cross too much of the picture, the topics are named in the boxes of the
subscriptions instead: those that were only seen first, then all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
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
    drawn, arrows, single = _gathered(nodes, links)
    remarks: list[str] = []
    if len(single) + len(drawn) - len(nodes) > MOST:
        kept = _neighbourhoods(drawn, arrows, [*range(len(nodes), len(drawn)), *single])
        gone = [nodes[n].is_topic for n in single if n not in kept]
        left = [count(sum(gone), "topic")] if any(gone) else []
        left += [count(len(gone) - sum(gone), "subscription")] if not all(gone) else []
        remarks.append(f"… and {' and '.join(left)} more")
    else:
        kept = {*single, *range(len(nodes), len(drawn))}
    drawn, arrows = _only(drawn, arrows, kept)
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


def _gathered(nodes: Sequence[Node], links: Sequence[Link]) -> tuple[list[Node], list[Link], list[int]]:
    """With one box for all the topics that feed a subscription when they are many, shared by those that get the same; and the
    numbers of what is drawn besides, topics that have arrows of their own among them, which say what box they are in too."""
    sources: dict[int, dict[int, None]] = {}
    events: dict[int, list[int | None]] = {}
    for link in links:
        if not nodes[link.target].is_topic:
            sources.setdefault(link.target, {})[link.source] = None
            events.setdefault(link.target, []).append(link.events)
    many = {target: found for target, found in sources.items() if len(found) > MANY}
    drawn, added = list(nodes), list[Link]()
    stands: dict[tuple[str, frozenset[int]], int] = {}
    inside: dict[int, list[str]] = {}
    for target, found in many.items():
        pattern = nodes[target].pattern
        key = pattern, frozenset(found)
        if key not in stands:
            stands[key] = len(drawn)
            said = count(len(found), "topic")
            drawn.append(Node(pattern or said, True, (Note(said),) if pattern else (), hint=_named(said, [nodes[n].name for n in found])))
            for n in found:
                inside.setdefault(n, []).append(pattern or said)
        known = [number for number in events[target] if number is not None]
        added.append(Link(stands[key], target, events=sum(known) if len(known) == len(events[target]) else None))
    arrows = [link for link in links if link.target not in many] + added
    linked = {n for arrow in arrows for n in arrow[:2]}
    for n, boxes in inside.items():
        if n in linked:
            more = f" +{len(boxes) - 1:,}" if len(boxes) > 1 else ""
            drawn[n] = _noted(drawn[n], f"in {boxes[0]}{more}")
    return drawn, arrows, [n for n in range(len(nodes)) if n in linked or n not in inside]


def _neighbourhoods(nodes: Sequence[Node], links: Sequence[Link], order: Sequence[int]) -> set[int]:
    """As many boxes as are drawn: topics, in this order, each with all who read it or not at all, then subscriptions without a
    topic. Only of a topic that alone has more readers than that some are left out."""
    readers: dict[int, list[int]] = {}
    for link in links:
        if nodes[link.source].is_topic:
            readers.setdefault(link.source, []).append(link.target)
    reading = {reader for found in readers.values() for reader in found}
    kept: dict[int, None] = {}
    for n in sorted(order, key=lambda n: not nodes[n].is_topic):
        wanted = [one for one in (n, *readers.get(n, ())) if one not in kept]
        if n not in reading and (not kept or len(kept) + len(wanted) <= MOST):
            kept |= dict.fromkeys(wanted[:MOST])
    return set(kept)


def _only(nodes: Sequence[Node], links: Sequence[Link], kept: Collection[int]) -> tuple[list[Node], list[Link]]:
    """These boxes and the links between them; a box with links to others says so."""
    drawn = list(nodes)
    drawn = _with_names(drawn, [a for a in links if a.source in kept and a.target not in kept and nodes[a.target].is_topic])
    readers = Counter(a.source for a in links if a.source in kept and a.target not in kept and not nodes[a.target].is_topic)
    sources = Counter(a.target for a in links if a.target in kept and a.source not in kept)
    for n, number in readers.items():
        drawn[n] = _noted(drawn[n], f"{count(number, 'subscription')} more")
    for n, number in sources.items():
        drawn[n] = _noted(drawn[n], f"fed by {number:,} more" if drawn[n].is_topic else f"{count(number, 'topic')} more")
    places = {n: place for place, n in enumerate(sorted(kept))}
    arrows = [a._replace(source=places[a.source], target=places[a.target]) for a in links if a.source in places and a.target in places]
    return [drawn[n] for n in places], arrows


def _noted(node: Node, said: str) -> Node:
    return node._replace(notes=(*node.notes, Note(said)), hint=f"{node.hint or node.name} · {said}")


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

"""A chart of named boxes and the arrows between them: the picture of a topology.

Topics are pills, subscriptions are boxes; what a program declared is a solid arrow, what was only seen a dashed one; an arrow
is as wide as its traffic has digits. What went wrong is told by a word and a sign besides its colour.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from .drawing import Markup, element, group, number, paint, picture, text
from .layered import Box, Route, layout
from .lettering import ELLIPSIS, fit, pixels

__all__ = ["Link", "Node", "Note", "chart"]

MARGIN = 20.0
HEAD = 64.0
"""Pixels above the boxes: the title and what is said below it."""
FOOT = 34.0
WIDEST = 230.0
"""Pixels of the text in a box."""
CROWD = 60
"""So many boxes are too many for boxes of two lines."""
NAME, SMALL = 13.0, 11.0
ARROW = 7.0


class Note(NamedTuple):
    """Something said about a box in small letters."""

    text: str
    warn: bool = False


class Node(NamedTuple):
    """A box and what is in it."""

    name: str
    is_topic: bool
    notes: tuple[Note, ...] = ()
    first: str = ""
    """What comes before the notes: a pattern."""
    hint: str = ""
    """Everything that is known, for who points at it."""
    pattern: str = ""
    """The wildcard pattern of a subscription."""


class Link(NamedTuple):
    """An arrow between two boxes, by their numbers."""

    source: int
    target: int
    dashed: bool = False
    events: int | None = None
    """How many went along it, if that is known."""


def chart(
    title: str,
    subtitle: str,
    nodes: Sequence[Node],
    links: Sequence[Link],
    remarks: Sequence[str] = (),
    *,
    styled: bool = True,
    titled: bool = True,
) -> Markup:
    """The picture, as SVG; remarks stand below it."""
    top, left = (HEAD, MARGIN) if titled else (14.0, 1.0)
    small = len(nodes) > CROWD
    boxes = [_box(node, small) for node in nodes]
    dashed = {n for n, link in enumerate(links) if link.dashed}
    plan = layout(boxes, [(link.source, link.target) for link in links], gap=8.0 if small else 14.0, soft=dashed)
    shown = fit(title, 640, 15, bold=True)
    head = [
        text(MARGIN, 28, shown, font_size=15, font_weight=600),
        text(MARGIN, 47, fit(subtitle, 900, 12), font_size=12, opacity=0.72),
    ]
    if not titled:
        head = []
    said = max((pixels(remark, 12) for remark in remarks), default=0.0)
    width = max(plan.width, pixels(shown, 15, bold=True), min(pixels(subtitle, 12), 900), said, 290 if nodes else 0) + 2 * MARGIN
    if not nodes:
        return picture(width, top, title, head, styled=styled)
    arrows = [_arrow(link, route) for link, route in zip(links, plan.routes, strict=True)]
    drawn = [
        _node(node, box, place, small)
        for node, box, place in zip(nodes, boxes, plan.places, strict=True)
    ]  # fmt: skip
    body = [
        group(arrows, fill="none", **paint(stroke="ink")),
        group(drawn, font_size=NAME),
    ]
    moved = group(body, transform=f"translate({number(left)} {number(top)})")
    foot = top + plan.height + FOOT + 20 * len(remarks)
    below = [text(left, foot - 20 * n, remark, font_size=12) for n, remark in enumerate(reversed(remarks), 1)]
    return picture(width, foot + 18, title, [*head, moved, *below, _legend(left, foot, links)], styled=styled)


# -- boxes


def _box(node: Node, small: bool) -> Box:
    name = min(pixels(node.name, NAME, bold=node.is_topic), WIDEST)
    lines = _lines(node, small)
    if small:
        return Box(name + sum(8 + min(pixels(line, SMALL), WIDEST) for line in lines) + 26, 24)
    return Box(max([name, *(min(pixels(line, SMALL), WIDEST) for line in lines)]) + 34, 26 + 15 * len(lines) if lines else 28)


def _lines(node: Node, small: bool) -> list[str]:
    """What the small letters say, as it would be without colour."""
    notes = " · ".join(f"▲ {note.text}" if note.warn else note.text for note in node.notes)
    if small:
        return [part for part in (" · ".join(filter(None, (node.first, notes))),) if part]
    return [part for part in (node.first, notes) if part]


def _node(node: Node, box: Box, place: tuple[float, float, float], small: bool) -> Markup:
    x, y, width = place
    warned = any(note.warn for note in node.notes)
    colour = "warn" if warned else "topic" if node.is_topic else "ink"
    frame = element(
        "rect",
        {
            "x": x,
            "y": y,
            "width": width,
            "height": box.height,
            "rx": min(box.height / 2, 21) if node.is_topic else 4,
            "fill_opacity": 0.12 if node.is_topic else 0.05,
            "stroke_width": 1.6 if warned else 1.2,
            "stroke_opacity": None if warned or node.is_topic else 0.55,
            **paint(fill="topic" if node.is_topic else colour, stroke=colour),
        },
    )
    left = x + (13 if small else 17)
    weight = 600 if node.is_topic else None
    name = fit(node.name, WIDEST, NAME, bold=node.is_topic)
    hint = element("title", None, node.hint or node.name)
    if small:
        used = pixels(name, NAME, bold=node.is_topic)
        after = _notes(left + used + 8, y + 16, node, True, width - used - 34)
        return group([hint, frame, text(left, y + 16.5, name, font_weight=weight), *after])
    return group([hint, frame, text(left, y + 18.5, name, font_weight=weight), *_notes(left, y + 34, node, False, width - 34)])


def _notes(x: float, y: float, node: Node, small: bool, room: float) -> list[Markup]:
    rows: list[tuple[Note, ...]] = [(Note(node.first),), node.notes] if node.first and not small else []
    if not rows:
        rows = [(*((Note(node.first),) if node.first else ()), *node.notes)]
    drawn: list[Markup] = []
    for notes in rows:
        if notes:
            drawn.append(element("text", {"x": x, "y": y, "font_size": SMALL}, *_spans(notes, max(room, 40) + 4)))
            y += 15
    return drawn


def _spans(notes: Sequence[Note], room: float) -> list[Markup]:
    spans: list[Markup] = []
    for n, note in enumerate(notes):
        said = f"▲ {note.text}" if note.warn else note.text
        shown = fit(said, room, SMALL)
        room -= pixels(f"{shown} · ", SMALL)
        if n:
            spans.append(element("tspan", {"fill_opacity": 0.72}, Markup(" · ")))
        look = {**paint(fill="warn"), "font_weight": 600} if note.warn else {"fill_opacity": 0.72}
        spans.append(element("tspan", look, shown))
        if shown.endswith(ELLIPSIS) and shown != said:
            break
    return spans


# -- arrows


def _arrow(link: Link, route: Route) -> Markup:
    x, y = route.points[-1]
    events = link.events
    wide = 1.2 if not events else min(1.2 + 0.55 * math.log10(1 + events), 4.5)
    tip = ARROW + wide
    shaft = (_around if route.backward else _along)([*route.points[:-1], (x - tip + 1, y)])
    line = element("path", {"d": shaft, "stroke_width": round(wide, 2), "stroke_dasharray": "5 4" if link.dashed else None})
    half = number(tip * 0.5)
    head = element(
        "path",
        {"d": f"M{number(x)} {number(y)}l{number(-tip)} -{half}v{number(tip * 0.5 * 2)}z", "stroke": "none", "fill": "currentColor"},
    )
    return group([line, head], opacity=0.32 if events == 0 else 0.6)


def _along(points: Sequence[tuple[float, float]]) -> str:
    """Straight within columns, a curve from one to the next: level at both ends."""
    path = [f"M{number(points[0][0])} {number(points[0][1])}"]
    for n, ((x, y), (to_x, to_y)) in enumerate(pairwise(points)):
        if n % 2 or abs(y - to_y) < 0.5:
            path.append(f"L{number(to_x)} {number(to_y)}")
        else:
            bend = (to_x - x) * 0.5
            path.append(f"C{number(x + bend)} {number(y)} {number(to_x - bend)} {number(to_y)} {number(to_x)} {number(to_y)}")
    return "".join(path)


def _around(points: Sequence[tuple[float, float]]) -> str:
    """Straight, with round corners."""
    path = [f"M{number(points[0][0])} {number(points[0][1])}"]
    for (ax, ay), (bx, by), (cx, cy) in zip(points, points[1:], points[2:], strict=False):
        before, after = math.hypot(bx - ax, by - ay), math.hypot(cx - bx, cy - by)
        radius = min(9.0, before / 2, after / 2)
        if radius < 0.5:
            path.append(f"L{number(bx)} {number(by)}")
            continue
        near = (bx - (bx - ax) / before * radius, by - (by - ay) / before * radius)
        far = (bx + (cx - bx) / after * radius, by + (cy - by) / after * radius)
        path.append(f"L{number(near[0])} {number(near[1])}Q{number(bx)} {number(by)} {number(far[0])} {number(far[1])}")
    return "".join(path) + f"L{number(points[-1][0])} {number(points[-1][1])}"


def _legend(x: float, y: float, links: Sequence[Link]) -> Markup:
    """What the shapes mean; lines only where there are any."""
    drawn: list[Markup] = []
    for name, shape in (
        (
            "topic",
            element(
                "rect",
                {"x": x, "y": y - 9, "width": 20, "height": 11, "rx": 5.5, "fill_opacity": 0.12, **paint(fill="topic", stroke="topic")},
            ),
        ),
        (
            "subscription",
            element("rect", {"x": x + 71, "y": y - 9, "width": 20, "height": 11, "rx": 2, "fill_opacity": 0.05, **paint(stroke="ink")}),
        ),
        ("seen in traffic" if any(link.dashed for link in links) else "", _dash(x + 188, y - 3.5)),
    ):
        if name:
            drawn += [shape, text({"topic": x + 26, "subscription": x + 97}.get(name, x + 216), y, name)]
    return group(drawn, font_size=SMALL, opacity=0.72)


def _dash(x: float, y: float) -> Markup:
    return element("path", {"d": f"M{number(x)} {number(y)}h22", "fill": "none", "stroke_dasharray": "5 4", **paint(stroke="ink")})

"""A marble diagram: what happened on several lanes over one axis of time, with lines from causes to effects.

It knows nothing of events: lanes have marks, and marks have a time, a label, a story (its colour), an id and a cause.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from .display import bundle
from .drawing import RIMMED, STORIES, Markup, element, group, html, inline, number, paint, picture, text
from .lettering import clean, count, duration, fit, pixels
from .marks import LABEL, ROOMY, ROW, Item, Mark
from .plan import MARGIN, Lane, Placed, Plan, said
from .strip import strip
from .timescale import Tick

__all__ = ["Diagram", "Lane"]

WIDTH = 920.0
NARROWEST = 360.0
MOST = 60
"""Lanes that are drawn; what is beyond is counted."""
TICKS = 84.0
"""Pixels between marked moments, at least."""
AXIS = 10.5
"""The size of the letters below."""


@dataclass(frozen=True, slots=True, repr=False)
class Diagram:
    """A marble diagram; `svg` is its picture, `str` its text, and a notebook shows it."""

    lanes: tuple[Lane, ...]
    title: str = ""
    width: float = WIDTH
    """Pixels."""

    @property
    def svg(self) -> str:
        """The picture, as a file or for a page."""
        return self._draw()

    def plan(self) -> Plan:
        """Where everything is."""
        return Plan(self.lanes[:MOST], self.width, 62.0 if self.title else 40.0)

    @property
    def summary(self) -> str:
        """What there is, in numbers."""
        marks = [mark for lane in self.lanes for mark in lane.shown]
        stories = {mark.story for mark in marks if mark.story is not None}
        parts = [count(len(self.lanes), "stream"), count(len(marks), "event")]
        parts += [count(len(stories), "story", "stories")] if stories else []
        span = self._span()
        return " · ".join([*parts, *([duration(span)] if span > 0 else [])])

    def _rest(self) -> list[str]:
        """What is said of the lanes that aren't drawn."""
        return [f"… and {count(len(self.lanes) - MOST, 'more stream')}"] if len(self.lanes) > MOST else []

    def _span(self) -> float:
        times = [mark.time for lane in self.lanes for mark in lane.marks]
        return max(times) - min(times) if times else 0.0

    def _draw(self, *, styled: bool = True) -> Markup:
        plan = self.plan()
        colours = _Colours(self.lanes[:MOST])
        head: list[Markup] = []
        if self.title:
            head.append(text(MARGIN, 28, fit(self.title, self.width - 2 * MARGIN, 15, bold=True), font_size=15, font_weight=600))
        head.append(text(MARGIN, 47 if self.title else 26, self.summary, font_size=12, opacity=0.72))
        body = [
            _axis(plan),
            group([_link(*link, colours) for link in plan.links], fill="none"),
            *(_lane(one, plan, colours) for one in plan.lanes),
        ]
        name = self.title or f"marble diagram: {self.summary}"
        rest = [text(MARGIN, plan.bottom + 52, said, font_size=12, opacity=0.72) for said in self._rest()]
        return picture(self.width, plan.bottom + 40 + 20 * len(rest), name, [*head, *body, *rest], styled=styled)

    def __repr__(self) -> str:
        return f"Diagram({self.summary})"

    def __str__(self) -> str:
        return "\n".join([*([clean(self.title)] if self.title else []), self.summary, strip(self.lanes[:MOST]), *self._rest()])

    def _repr_mimebundle_(self, include: Collection[str] | None = None, exclude: Collection[str] | None = None) -> dict[str, str]:
        return bundle(self.__str__, lambda: html(inline(self._draw(styled=False))), include, exclude)


class _Colours:
    """A colour for each story, in the order in which they began; when they run out, marbles become rings."""

    def __init__(self, lanes: Sequence[Lane]) -> None:
        marks = sorted((mark for lane in lanes for mark in lane.shown if mark.story is not None), key=lambda mark: mark.time)
        self._numbers = {story: n for n, story in enumerate(dict.fromkeys(mark.story for mark in marks))}
        self._none = "s5" if marks else "topic"

    def of(self, marks: Sequence[Mark]) -> tuple[str, bool]:
        """The colour of what belongs to one story, or the page's own; whether it is drawn as a ring."""
        stories = {mark.story for mark in marks}
        story = stories.pop() if len(stories) == 1 else None
        if story is None:  # of none, or of several
            return self._none, False
        number = self._numbers.get(story, 0)
        return f"s{number % (STORIES - 1)}", number // (STORIES - 1) % 2 == 1


# -- what is drawn


def _axis(plan: Plan) -> Markup:
    """Time, below; faint lines through all lanes, and what was cut out."""
    y, top = plan.bottom + 4, plan.lanes[0].y - plan.lanes[0].radius - 8 if plan.lanes else plan.bottom
    ticks = plan.scale.ticks(TICKS) if plan.span > 0 else []
    grid = [element("path", {"d": f"M{number(tick.x)} {number(top)}V{number(y)}"}) for tick in ticks]
    idle = [Tick(one.x, f"{duration(one.seconds)} idle") for one in plan.scale.breaks]
    rows = ((y + 16, _apart(ticks, plan.width)), (y + 30, _apart(idle, plan.width)))
    names = [text(x, line, said, text_anchor="middle") for line, row in rows for x, said in row]
    return group([group(grid, opacity=0.13, **paint(stroke="ink")), group(names, font_size=AXIS, opacity=0.72)])


def _apart(labels: Sequence[Tick], width: float) -> list[Tick]:
    """Those labels of a row for which there is room, from left to right; one at the edge is moved into the picture."""
    kept: list[Tick] = []
    end = 0.0
    for x, label in labels:
        half = pixels(label, AXIS) / 2
        x = max(min(x, width - half - 2), half + 2)
        if x - half >= end:
            kept.append(Tick(x, label))
            end = x + half + AXIS / 2
    return kept


def _lane(one: Placed, plan: Plan, colours: _Colours) -> Markup:
    y, lane = one.y, one.lane
    name = [
        element("title", None, lane.name),
        text(MARGIN, y + 1, fit(lane.name, plan.names, 13, bold=True), font_weight=600),
        text(MARGIN, y + 15, said(lane), font_size=10.5, opacity=0.72),
    ]
    marbles = [_marble(item, one, colours) for item in one.items]
    if one.end is not None:
        marbles.append(_ending(one.end, y))
    labels = [_flag(item, one) for item in one.labels]
    return group([group(name), _line(one, plan, colours), *labels, *marbles])


def _line(one: Placed, plan: Plan, colours: _Colours) -> Markup:
    """The lane itself: with a gap where time was cut out, to its end or on into the future."""
    y, stop = one.y, one.end.x if one.end is not None else plan.right + 24
    gaps = [(item.x - one.radius, item.x + one.radius) for item in one.items if not item.is_pill and _is_hollow(item.marks, colours)]
    slashes: list[str] = []
    for cut_out in plan.scale.breaks:
        if one.begin < cut_out.x < stop:
            gaps.append((cut_out.x - 4, cut_out.x + 4))
            slashes += [f"M{number(cut_out.x + dx - 3)} {number(y + 6)}l6 -12" for dx in (-4, 4)]
    bounds = [one.begin - 10, *(x for gap in sorted(gaps) for x in gap), stop]
    pieces = [f"M{number(a)} {number(y)}H{number(b)}" for a, b in zip(bounds[::2], bounds[1::2], strict=True) if b > a]
    head = [] if one.end is not None else [f"M{number(stop - 6)} {number(y - 4)}l6 4l-6 4"]
    return element(
        "path", {"d": "".join([*pieces, *slashes, *head]), "fill": "none", "stroke_width": 1.3, "opacity": 0.6, **paint(stroke="ink")}
    )


def _is_hollow(marks: Sequence[Mark], colours: _Colours) -> bool:
    return marks[0].kind == "failed" or colours.of(marks)[1]


def _marble(item: Item, one: Placed, colours: _Colours) -> Markup:
    colour, ring = colours.of(item.marks)
    failed = sum(mark.kind == "failed" for mark in item.marks)
    if item.is_pill:
        return _pill(item, one.y, colour, failed)
    mark = item.marks[0]
    hint = element("title", None, mark.hint or mark.label)
    look = paint(fill="none" if ring or failed else colour, stroke="warn" if failed else colour)
    parts = [hint, element("circle", {"cx": item.x, "cy": one.y, "r": one.radius, "stroke_width": 1.8, **look})]
    if ring or failed:  # what is behind a ring is hidden by a pale disc of its own
        parts.insert(
            1,
            element(
                "circle", {"cx": item.x, "cy": one.y, "r": one.radius, "fill_opacity": 0.16, **paint(fill="warn" if failed else colour)}
            ),
        )
    if failed:
        half = one.radius * 0.42
        side = number(2 * half)
        cross = f"M{number(item.x - half)} {number(one.y - half)}l{side} {side}m0 -{side}l-{side} {side}"
        parts.append(element("path", {"d": cross, "stroke_width": 1.8, **paint(fill="none", stroke="warn")}))
    elif one.radius == ROOMY and mark.label:
        inside = paint(fill="ink" if ring else "on")
        parts.append(text(item.x, one.y + 4, mark.label, font_size=12, font_weight=600, text_anchor="middle", **inside))
    return group(parts)


def _pill(item: Item, y: float, colour: str, failed: int) -> Markup:
    first, last = item.marks[0], item.marks[-1]
    hint = f"{count(len(item.marks), 'event')} in {duration(last.time - first.time)}: from {first.label} to {last.label}"
    frame = {"x": item.left, "y": y - 9, "width": item.right - item.left, "height": 18, "rx": 9, "stroke_width": 1.4}
    parts = [
        element("title", None, hint + (f"; {failed:,} failed" if failed else "")),
        element("rect", {**frame, **paint(fill=colour, stroke="warn" if failed else colour)}),
        text(item.x, y + 4, item.text, font_size=LABEL, font_weight=600, text_anchor="middle", **paint(fill="on")),
    ]
    return group(parts)


def _flag(item: Item, one: Placed) -> Markup:
    label = item.label
    assert label is not None
    warned = item.marks[0].kind in ("failed", "error")
    base = one.y - one.radius - 6 - label.row * ROW
    letters = text(label.x, base, label.text, **{"class": RIMMED}, font_size=LABEL, **(paint(fill="warn") if warned else {}))
    if not label.row:
        return letters
    pole = element(
        "path",
        {
            "d": f"M{number(item.x)} {number(one.y - one.radius)}V{number(base - 8)}",
            "stroke_width": 1,
            "opacity": 0.35,
            **paint(stroke="ink"),
        },
    )
    return group([pole, letters])


def _ending(item: Item, y: float) -> Markup:
    mark = item.marks[0]
    x = number(item.x)
    if mark.kind == "completed":
        shape = element("path", {"d": f"M{x} {number(y - 11)}v22", "stroke_width": 2.4, **paint(stroke="ink")})
    else:
        shape = element(
            "path", {"d": f"M{number(item.x - 7)} {number(y - 7)}l14 14m0 -14l-14 14", "stroke_width": 2.4, **paint(stroke="warn")}
        )
    return group([element("title", None, mark.hint or mark.label or mark.kind), shape])


def _link(source_lane: Placed, source: Item, lane: Placed, item: Item, times: int, colours: _Colours) -> Markup:
    """A line from a cause to its effect: straight up and down where labels are, a curve in between."""
    colour, _ = colours.of(item.marks if item.marks[0].kind in ("next", "failed") else source.marks)
    a, b = number(source.x), number(item.x)
    if source_lane is lane:
        y = lane.y + lane.radius + 2
        path = f"M{a} {number(y)}C{a} {number(y + 16)} {b} {number(y + 16)} {b} {number(y)}"
    else:
        down = lane.y > source_lane.y
        upper, lower = (source_lane, lane) if down else (lane, source_lane)
        start, end = upper.y + upper.radius + 1, lower.y - lower.radius - 1
        bend = max(min(lower.y - lower.above, end), start + 8)
        middle = number((start + bend) / 2)  # of the stretch between the lane and the labels of the next
        top, low = (a, b) if down else (b, a)
        path = f"M{top} {number(start)}C{top} {middle} {low} {middle} {low} {number(bend)}V{number(end)}"
    wide = min(1.4 + 0.6 * math.log10(times), 4.0)
    return element("path", {"d": path, "stroke_width": wide, "opacity": 0.6, **paint(stroke=colour)})

"""Where everything of a marble diagram stands: its lanes, the marbles on them, and the lines between."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from .lettering import count, pixels
from .marks import LABEL, ROOMY, ROW, Item, Mark, flags, items, radius_for
from .timescale import Scale, scale_of

__all__ = ["Lane", "Placed", "Plan"]

MARGIN = 20.0
NAMES = 190.0
"""Pixels of the widest name of a lane."""


@dataclass(frozen=True, slots=True)
class Lane:
    """A stream: its name, and its marks."""

    name: str
    marks: tuple[Mark, ...] = ()
    begin: float | None = None
    """When it was begun to look at; seconds, on the clock of all lanes."""

    @property
    def shown(self) -> list[Mark]:
        """The items, in order of time; those of one moment in the order given."""
        return sorted((mark for mark in self.marks if mark.kind in ("next", "failed")), key=lambda mark: mark.time)

    @property
    def last(self) -> Mark | None:
        """What ended it."""
        return next((mark for mark in self.marks if mark.kind in ("error", "completed")), None)


class Placed:
    """A lane with everything in its place."""

    def __init__(self, lane: Lane, scale: Scale, begin: float) -> None:
        self.lane = lane
        self.y = 0.0
        marks = lane.shown
        self.radius = radius_for(mark.label for mark in marks)
        self.begin = scale.x(lane.begin if lane.begin is not None else begin)
        self.items = items([(mark, scale.x(mark.time)) for mark in marks], self.radius)
        self.end: Item | None = None
        if lane.last is not None:
            x = max([scale.x(lane.last.time), *(item.right + 6 for item in self.items)])
            self.end = Item([lane.last], x, x - 6, x + 6)

    def put_labels(self, end: float) -> None:
        """After it is known where lines come down; none goes beyond ``end``."""
        last = [self.end] if self.end is not None and self.end.marks[0].kind == "error" else []
        if self.radius == ROOMY:
            flags(last, end)
        else:
            flags([*self.items, *last], end)

    @property
    def labels(self) -> list[Item]:
        """Those with a flag."""
        return [item for item in (*self.items, *([self.end] if self.end is not None else [])) if item.label is not None]

    @property
    def above(self) -> float:
        """Pixels that the flags need above the lane."""
        rows = max((item.label.row + 1 for item in self.labels if item.label is not None), default=0)
        return self.radius + 4 + rows * ROW


class Plan:
    """Where everything of a diagram is, in pixels."""

    def __init__(self, lanes: Sequence[Lane], width: float, top: float) -> None:
        widths = [max(pixels(lane.name, 13, bold=True), pixels(said(lane), 10.5)) for lane in lanes]
        self.width = width
        self.names = min(max(widths, default=0.0), NAMES, width / 3)
        self.left = MARGIN + self.names + 22
        self.right = width - MARGIN - max(34.0, _overhang(lanes, width))
        times = [mark.time for lane in lanes for mark in lane.marks]
        begins = [lane.begin for lane in lanes if lane.begin is not None]
        self.begin = begin = min(times + begins, default=0.0)
        self.scale = scale_of([*times, *(one for one in begins if times)], begin, self.left + 10, self.right - self.left - 10)
        self.span = max(times, default=begin) - begin
        self.lanes = [Placed(lane, self.scale, begin) for lane in lanes]
        self.links = self._links()
        y = top
        for one in self.lanes:
            one.put_labels(width - MARGIN + 8)
            one.y = y + max(one.above, 22.0)
            y = one.y + max(one.radius, 14.0) + (26 if self.links else 14)  # room for curves
        self.bottom = y

    def _links(self) -> list[tuple[Placed, Item, Placed, Item, int]]:
        """From cause to effect, each pair of items once, with how many times."""
        where = {mark.id: (lane, item) for lane in self.lanes for item in lane.items for mark in item.marks if mark.id is not None}
        found: Counter[tuple[int, int]] = Counter()
        ends: dict[tuple[int, int], tuple[Placed, Item, Placed, Item]] = {}
        for lane in self.lanes:
            for item in (*lane.items, *([lane.end] if lane.end is not None else [])):
                for mark in item.marks:
                    source = where.get(mark.cause) if mark.cause is not None else None
                    if source is not None and source[1] is not item:
                        item.has_line = True
                        found[id(source[1]), id(item)] += 1
                        ends[id(source[1]), id(item)] = (*source, lane, item)
        return [(*ends[key], times) for key, times in found.items()]


def said(lane: Lane) -> str:
    """What stands below its name."""
    return count(len(lane.shown), "event")


def _overhang(lanes: Sequence[Lane], width: float) -> float:
    """Pixels right of the last moment for labels that begin there."""
    marks = [mark for lane in lanes for mark in lane.marks if mark.kind != "completed"]
    first, last = min((mark.time for mark in marks), default=0.0), max((mark.time for mark in marks), default=0.0)
    late = [mark for mark in marks if mark.time > last - (last - first) * 0.08]
    return min(max((pixels(mark.label, LABEL) for mark in late[-50:]), default=0.0) + 10, 150.0, width / 5)

"""Where the marbles of one lane and their labels go.

Marbles that would cover each other become one pill with their number. Labels stand above the lane like flags, each beginning
at its own marble: one that has no room beside the next goes a row higher, and its pole passes left of what begins later. A
label that has no room in any row is cut, and left out if nothing readable would remain; no two ever touch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from .lettering import fit, pixels

__all__ = ["Item", "Label", "Mark", "flags", "items"]

RADIUS = 7.0
ROOMY = 12.0
"""The radius of a marble with its label inside."""
BIN = 58.0
"""Pixels of the widest pill."""
ROWS = 4
ROW = 15.0
LABEL = 11.5
"""The size of the letters."""
WIDEST = 220.0
LEAST = 26.0
"""Pixels of a label below which it isn't worth reading."""
APART = 7.0


@dataclass(frozen=True, slots=True)
class Mark:
    """One thing that happened on a lane."""

    time: float
    """Seconds, on the clock of all lanes."""
    label: str = ""
    kind: str = "next"
    """``"next"``; ``"failed"``, one that went wrong without ending the lane; ``"error"`` and ``"completed"``, which do."""
    story: str | None = None
    """What has the same story has the same colour."""
    id: str | None = None
    cause: str | None = None
    """The id of what brought it about."""
    hint: str = ""
    """Everything that is known, for who points at it."""


@dataclass(slots=True)
class Label:
    """A text above the lane: its left side, its width, its row (from the lane up)."""

    text: str
    x: float
    width: float
    row: int


@dataclass(slots=True)
class Item:
    """A marble, or a pill of several."""

    marks: list[Mark]
    x: float
    """Of a marble its middle; a pill reaches from ``left`` to ``right``."""
    left: float
    right: float
    label: Label | None = None
    has_line: bool = field(default=False)
    """A line from a cause comes down to it, which labels should not stand in."""

    @property
    def is_pill(self) -> bool:
        """It stands for several."""
        return len(self.marks) > 1

    @property
    def text(self) -> str:
        """What a pill says."""
        number = len(self.marks)
        return f"×{number:,}" if number < 10_000 else f"×{number / 1000:,.0f}k"


def items(marks: Sequence[tuple[Mark, float]], radius: float) -> list[Item]:
    """The marbles of marks at these places, which are in order; those that would cover each other in pills."""
    runs: list[list[tuple[Mark, float]]] = []
    for mark, x in marks:
        if runs and x - runs[-1][-1][1] < radius:
            runs[-1].append((mark, x))
        else:
            runs.append([(mark, x)])
    found: list[Item] = []
    for run in runs:
        bins: dict[int, list[tuple[Mark, float]]] = {}
        for mark, x in run:
            bins.setdefault(int((x - run[0][1]) / BIN), []).append((mark, x))
        last = run[0][1] - radius
        for number, members in bins.items():
            item = _item(members, radius)
            if len(bins) > 1:  # side by side; only a bin's own stretch is filled
                start = run[0][1] - radius + number * BIN
                item.left, item.right = max(last, start), max(start + BIN - 1, last + 1)
                if number == max(bins):
                    item.right = max(min(item.right, members[-1][1] + radius), item.left + _width(item))
                last = item.right + 1
                item.x = (item.left + item.right) / 2
            found.append(item)
    return _apart(found, radius)


def _item(members: Sequence[tuple[Mark, float]], radius: float) -> Item:
    first, last = members[0][1], members[-1][1]
    item = Item([mark for mark, _ in members], (first + last) / 2, first - radius, last + radius)
    if item.is_pill:
        half = max((item.right - item.left) / 2, _width(item) / 2)
        item.left, item.right = item.x - half, item.x + half
    return item


def _width(item: Item) -> float:
    return max(pixels(item.text, LABEL) + 10, 2 * RADIUS)


def _apart(found: list[Item], radius: float) -> list[Item]:
    """Pills swallow what they would cover."""
    kept: list[Item] = []
    for item in found:
        while kept and item.left < kept[-1].right - 0.5 and (item.is_pill or kept[-1].is_pill):
            before = kept.pop()
            merged = Item([*before.marks, *item.marks], 0.0, before.left, max(before.right, item.right))
            merged.right = max(merged.right, merged.left + _width(merged))
            merged.x = (merged.left + merged.right) / 2
            item = merged
        kept.append(item)
    return kept


def flags(found: Sequence[Item], end: float) -> None:
    """Gives the marbles their labels, from right to left, none beyond ``end``."""
    rows: list[list[tuple[float, float]]] = [[] for _ in range(ROWS)]
    poles: list[tuple[float, int]] = []
    lines = [item.x for item in found if item.has_line]
    singles = [item for item in found if not item.is_pill and item.marks[0].label]
    spacing = (end - singles[0].x) / len(singles) if singles else 0.0
    widest = min(WIDEST, max(44.0, spacing * (ROWS - 0.5)))
    for item in reversed(singles):
        text = item.marks[0].label
        wanted = min(pixels(text, LABEL), widest)
        x = item.x + 4
        free = [_free(x, row, rows[row], poles, lines, end) for row in range(ROWS)]
        row = next((n for n, room in enumerate(free) if room >= wanted), None)
        if row is None:  # lines may be crossed rather than letters lost
            free = [_free(x, row, rows[row], poles, (), end) for row in range(ROWS)]
            row = next((n for n, room in enumerate(free) if room >= wanted), max(range(ROWS), key=lambda n: (free[n], -n)))
        if free[row] < min(wanted, LEAST):
            continue
        room = min(wanted, free[row])
        shown = fit(text, room, LABEL)
        item.label = Label(shown, x, min(pixels(shown, LABEL), room), row)
        rows[row].append((x, x + item.label.width))
        if row:
            poles.append((item.x, row))


def _free(
    x: float, row: int, taken: Iterable[tuple[float, float]], poles: Iterable[tuple[float, int]], lines: Iterable[float], end: float
) -> float:
    """How many pixels are free in a row from x on."""
    limits = [left for left, _ in taken if left >= x - 4]
    limits += [pole for pole, top in poles if pole >= x and top > row]
    limits += [line for line in lines if line > x]
    return min([*(limit - APART for limit in limits), end]) - x


def radius_for(labels: Iterable[str]) -> float:
    """Of the marbles of a lane: roomy when all labels fit inside."""
    texts = list(labels)
    inside = any(texts) and all(pixels(text, 12) <= 2 * ROOMY - 6 for text in texts)
    return ROOMY if inside else RADIUS

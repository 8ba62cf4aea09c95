"""A marble diagram in plain text: a strip of characters for each lane, and a key to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .lettering import cells, clean, cut, duration, pad
from .marks import Mark
from .plan import Lane, Placed, Plan

__all__ = ["strip"]

WIDTH = 100
"""Cells."""
TICKS = 110.0
KEYS = "abcdefghijklmnopqrstuvwxyz"


def strip(lanes: Sequence[Lane]) -> str:
    """Lanes of characters: a letter or the label for each item, a digit for several, ``#`` for ten or more."""
    names = [cut(clean(lane.name), 32) for lane in lanes]
    left = max(map(cells, names), default=0) + 2
    width = max(WIDTH - left, 20)
    plan = Plan(lanes, 960.0, 0.0)
    first, last = plan.left, plan.right
    marks = sorted(((mark, n) for n, lane in enumerate(lanes) for mark in lane.shown), key=lambda one: one[0].time)
    keyed = len(marks) <= len(KEYS) and any(cells(mark.label) != 1 for mark, _ in marks)
    letters = {id(mark): KEYS[n] for n, (mark, _) in enumerate(marks)} if keyed else {}
    lines: list[str] = []

    def column(x: float) -> int:
        return round((x - first) / (last - first) * (width - 3))

    for name, one in zip(names, plan.lanes, strict=True):
        row = _row(one, plan, width, letters, column)
        lines.append(f"{pad(name, left)}{row}")
    if plan.span > 0:
        axis = [" "] * (width + 12)
        for tick in plan.scale.ticks(TICKS):
            at = column(tick.x)
            if all(c == " " for c in axis[max(at - 1, 0) : at + len(tick.label) + 1]):
                axis[at : at + len(tick.label)] = tick.label
        lines.append(" " * left + "".join(axis).rstrip())
    for mark, n in marks if keyed else ():
        lines.append(
            f"  {letters[id(mark)]}  {pad(duration(mark.time - plan.begin), 8, right=True)}  {names[n]}: {cut(clean(mark.label), 60)}"
        )
    lines += [
        f"  X  {name}: {cut(clean(end.label), 60)}"
        for name, lane in zip(names, lanes, strict=True)
        if (end := lane.last) and end.kind == "error"
    ]
    return "\n".join(lines)


def _row(one: Placed, plan: Plan, width: int, letters: dict[int, str], at: Callable[[float], int]) -> str:
    row = ["─"] * width
    row[: max(at(one.begin), 0)] = " " * max(at(one.begin), 0)
    for cut_out in plan.scale.breaks:
        row[at(cut_out.x)] = "≈"
    held: dict[int, list[Mark]] = {}
    for mark in one.lane.shown:
        held.setdefault(at(plan.scale.x(mark.time)), []).append(mark)
    for place, marks in held.items():
        row[place] = _sign(marks, letters)
    end = one.lane.last
    if end is None:
        return "".join([*row[:-1], "▶"])
    place = max([at(plan.scale.x(end.time)), *(place + 1 for place in held)])
    return "".join([*row[: min(place, width - 1)], "X" if end.kind == "error" else "|"])


def _sign(marks: Sequence[Mark], letters: dict[int, str]) -> str:
    """One character for what happened at one place."""
    first, number = marks[0], len(marks)
    if number > 1:
        return str(number) if number < 10 else "#"
    if id(first) in letters:
        return letters[id(first)]
    return "×" if first.kind == "failed" else first.label if cells(first.label) == 1 else "o"

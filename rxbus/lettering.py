"""Text in pictures and tables: made safe to show, measured, and cut to a width.

Widths come in two units. A cell is a column of a terminal: East Asian wide characters take two, combining ones none. Pixels
are an estimate, on the safe side, for the sans-serif fonts that browsers have. Text is cut between clusters only (a letter
with its accents, an emoji with its modifiers), so that no half of a character is left.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from .arguments import escaped, visible

__all__ = ["cells", "clean", "count", "cut", "duration", "excerpt", "fit", "pad", "pixels", "say"]

ELLIPSIS = "…"
LONGEST = 4000
"""Characters of a text that are looked at: nothing shows more."""
_JOINERS = "\u200c\u200d"
_NARROW = frozenset("fijlrtI.,:;'|!()[]{}`/\\ ·…")
_BROAD = frozenset("mwMWOQGD@%&—▶")
_HUGE = (
    ("\ufdfd", "\ufdfd", 7.5),
    ("\ufd50", "\ufdff", 2.5),
    ("\U00012000", "\U0001254f", 4.7),
    ("\u2e3a", "\u2e3b", 3.0),
    ("\u0bf0", "\u0bfa", 2.6),
)
"""From, to, and how wide, in sizes of the font: whole phrases in one character, cuneiform, long dashes, Tamil signs."""


def clean(text: str) -> str:
    """The text on one line, spaces collapsed, with an escape for whatever acts instead of showing (controls, bidirectional
    overrides, halves of surrogate pairs) or would pile up; joiners stay inside words and emoji, where scripts need them."""
    line = " ".join((text if len(text) <= LONGEST else text[:LONGEST] + ELLIPSIS).split())
    shown = visible(line, _JOINERS)
    if line[:1] in _JOINERS and line:
        shown = escaped(line[0]) + shown[1:]
    if line[-1:] in _JOINERS and line[1:]:
        shown = shown[:-1] + escaped(line[-1])
    return shown


def _is_tied(before: str, char: str) -> bool:
    """Whether a character belongs to the cluster before it."""
    if before[-1] == "\u200d" or char in _JOINERS or unicodedata.category(char)[0] == "M" or "\U0001f3fb" <= char <= "\U0001f3ff":
        return True
    return len(before) == 1 and _is_flag(before) and _is_flag(char)


def _is_flag(char: str) -> bool:
    return "\U0001f1e6" <= char <= "\U0001f1ff"


def clusters(text: str) -> Iterator[str]:
    """The text in pieces that must not be cut."""
    cluster = ""
    for char in text:
        if cluster and not char.isascii() and _is_tied(cluster, char):
            cluster += char
        else:
            if cluster:
                yield cluster
            cluster = char
    if cluster:
        yield cluster


def _huge(char: str) -> float:
    return next((wide for first, last, wide in _HUGE if first <= char <= last), 0.0)


def _cells(cluster: str) -> int:
    first = cluster[0]
    if first.isascii():
        return 1
    if wide := _huge(first):  # a terminal squeezes them, or lets them stick out; a page doesn't
        return math.ceil(wide / 0.6)
    if _is_flag(first) or "\ufe0f" in cluster or unicodedata.east_asian_width(first) in "WF":
        return 2
    return 0 if unicodedata.category(first) in ("Mn", "Me", "Cf") else 1


def cells(text: str) -> int:
    """How many columns of a terminal it takes."""
    return len(text) if text.isascii() else sum(map(_cells, clusters(text)))


def cut(text: str, width: int) -> str:
    """The text in at most so many cells, with an ellipsis if something is missing."""
    if (len(text) if text.isascii() else cells(text)) <= width:
        return text
    return _cut(text, width - 1, _cells)


def pad(text: str, width: int, *, right: bool = False) -> str:
    """The text filled up with spaces to so many cells."""
    space = " " * (width - cells(text))
    return space + text if right else text + space


def _pixels(cluster: str) -> float:
    first = cluster[0]
    if first.isascii():
        return 0.36 if first in _NARROW else 0.94 if first in _BROAD else 0.7 if first.isupper() else 0.58
    if wide := _huge(first):
        return wide
    width = _cells(cluster)
    return 1.3 if width == 2 and "\U0001f000" <= first else 1.05 * width if width == 2 else 0.72 * width


def pixels(text: str, size: float, *, bold: bool = False) -> float:
    """How wide it will be, roughly and not less, in a font of that size."""
    return sum(map(_pixels, clusters(clean(text)))) * size * (1.08 if bold else 1.0)


def fit(text: str, width: float, size: float, *, bold: bool = False) -> str:
    """The text in at most so many pixels, with an ellipsis if something is missing; made clean, for that may take more of them."""
    text = clean(text)
    room = width / (size * (1.08 if bold else 1.0)) + 1e-6  # what was measured fits, however it is rounded
    if sum(map(_pixels, clusters(text))) <= room:
        return text
    return _cut(text, room - _pixels(ELLIPSIS), _pixels)


def _cut(text: str, room: float, measure: Any) -> str:
    """As many clusters as there is room for, and the ellipsis, which nobody asked the room for when there is none at all."""
    if room < 0:
        return ""
    kept: list[str] = []
    for cluster in clusters(text):
        room -= measure(cluster)
        if room < 0:
            break
        kept.append(cluster)
    return "".join(kept).rstrip(" " + _JOINERS) + ELLIPSIS


def say(value: object, width: int | None = None) -> str:
    """A value in one line, cut to so many cells: a text as it is, anything else by its ``repr``, even when that raises."""
    try:
        text = value[: LONGEST + 1] if type(value) is str else repr(value)
        shown = clean(text)
    except BaseException:
        shown = f"<{type(value).__name__}>"
    return shown if width is None else cut(shown, width)


def excerpt(value: object, width: int) -> str:
    """`say`, with how long the whole is if something is missing."""
    try:
        length = len(value if type(value) is str else repr(value))
    except BaseException:
        length = 0
    shown = say(value, width)
    return f"{shown} ({length:,} characters)" if shown.endswith(ELLIPSIS) and length > len(shown) else shown


def count(number: int, noun: str = "", many: str = "") -> str:
    """A number with separators, and what it counts: ``1 event``, ``12,000 events``."""
    return f"{number:,} {noun if number == 1 else many or noun + 's'}" if noun else f"{number:,}"


_UNITS = ((86_400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))


def duration(seconds: float) -> str:
    """A time in its own unit, to three figures: ``250 µs``, ``1.5 s``, ``2 h 5 min``; beyond a million days ``1.16e+295 d``."""
    if seconds < 0:
        return f"−{duration(-seconds)}"
    if seconds >= 8.64e10:
        return f"{seconds / 86_400:.3g} d"
    seconds = float(f"{seconds:.3g}") if seconds < 60 else float(round(seconds))
    for (size, unit), (_, finer) in pairwise(_UNITS):
        if seconds >= size:
            if size < 60:
                return f"{seconds / size:.3g} {unit}"
            whole, rest = divmod(seconds, size)
            part = int(rest / {"d": 3600, "h": 60, "min": 1}[unit])
            return f"{whole:,.0f} {unit} {part} {finer}" if part else f"{whole:,.0f} {unit}"
    return f"{seconds * 1e6:.3g} µs" if seconds else "0"

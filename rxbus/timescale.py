"""A time axis: where a moment stands, and which moments are marked.

Long stretches in which nothing happened are cut out when what happened would have no room beside them (a burst of 10 ms, then
an hour of silence). Such a break is drawn as one and says how long it is; on both sides of it a second is equally wide.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

from .lettering import duration

__all__ = ["Break", "Scale", "Tick", "scale_of"]

BREAK = 64.0
"""Pixels of a break."""
MOST_BREAKS = 6
BROKEN = 0.5
"""A share of the width: all breaks together take no more, and are narrower then."""
LEAST_SHARE = 0.06
"""A share of the width: what happened shall have at least that, or idle stretches are cut out."""
SHORTEST = 1e-9
"""Seconds that can be told apart."""
_STEPS = (
    *(base * 10.0**power for power in range(-9, 1) for base in (1, 2, 5)),
    10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400,
    *(86_400 * base * 10.0**power for power in range(6) for base in (2, 5, 10)),
)  # fmt: skip


class Tick(NamedTuple):
    """A marked moment."""

    x: float
    label: str


class Break(NamedTuple):
    """A stretch that was cut out."""

    x: float
    """Where its middle stands."""
    seconds: float


class _Segment(NamedTuple):
    """A stretch that is shown."""

    begin: float
    end: float
    x: float
    width: float


class Scale:
    """From seconds to pixels."""

    def __init__(self, segments: list[_Segment], per_second: float) -> None:
        self._segments = segments
        self._begins = [one.begin for one in segments]
        self._per_second = per_second

    def x(self, time: float) -> float:
        """Where a moment stands."""
        one = self._segments[max(0, bisect_right(self._begins, time) - 1)]
        return one.x + min(max(time - one.begin, 0.0) * self._per_second, one.width)

    @property
    def breaks(self) -> list[Break]:
        """What was cut out."""
        return [Break((one.x + one.width + other.x) / 2, other.begin - one.end) for one, other in pairwise(self._segments)]

    def ticks(self, apart: float) -> list[Tick]:
        """The moments that are marked, at least so many pixels apart; after a break they count from its end."""
        step = next((s for s in _STEPS if s * self._per_second >= apart), _STEPS[-1])
        ticks: list[Tick] = []
        for n, one in enumerate(self._segments):
            ticks.append(Tick(one.x, duration(one.begin - self._begins[0]) if n else "0"))
            more = int((one.end - one.begin) / step + 1e-9) if self._per_second else 0
            for k in range(1, min(more, 1000) + 1):
                x = one.x + k * step * self._per_second
                if x <= one.x + one.width + 0.5:
                    ticks.append(Tick(x, ("+" if n else "") + duration(k * step)))
        return ticks


def scale_of(times: Iterable[float], begin: float, left: float, width: float) -> Scale:
    """The scale on which these moments, from ``begin`` on, fill so many pixels."""
    moments = sorted({begin, *(time for time in times if time > begin)})
    cuts = _cuts(moments)
    bounds = [moments[0], *(time for a, b in cuts for time in (a, b)), moments[-1]]
    stretches = list(zip(bounds[::2], bounds[1::2], strict=True))
    shown = sum(b - a for a, b in stretches)
    wide = min(BREAK, width * BROKEN / len(cuts)) if cuts else 0.0
    room = width - wide * len(cuts)
    per_second = room / shown if shown > SHORTEST else 0.0
    segments: list[_Segment] = []
    x = left
    for a, b in stretches:
        segments.append(_Segment(a, b, x, (b - a) * per_second))
        x += (b - a) * per_second + wide
    return Scale(segments, per_second)


def _cuts(moments: list[float]) -> list[tuple[float, float]]:
    """The idle stretches to be cut out: so many of the longest that each is much longer than all that is left."""
    span = moments[-1] - moments[0]
    gaps = sorted(((b - a, a, b) for a, b in pairwise(moments)), reverse=True)
    rest, chosen = span, 0
    cuts: list[tuple[float, float]] = []
    for length, a, b in gaps[:MOST_BREAKS]:
        rest -= length
        insort(cuts, (a, b))
        much = rest > max(SHORTEST, span * 1e-12) and rest < span * LEAST_SHARE and length > 3 * rest
        if much and _is_lively(moments, cuts):
            chosen = len(cuts)
    return sorted((a, b) for _, a, b in gaps[:chosen])


def _is_lively(moments: list[float], cuts: list[tuple[float, float]]) -> bool:
    """Whether at least every other stretch between these cuts is one, and not a single moment: else what is cut out is the rhythm."""
    bounds = [moments[0], *(time for cut in cuts for time in cut), moments[-1]]
    lively = sum(b > a for a, b in zip(bounds[::2], bounds[1::2], strict=True))
    return 2 * lively > len(cuts)

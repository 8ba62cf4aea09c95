"""Where the edges run that close circles: right of one box down, back below everything that they pass, and up to the other."""

from __future__ import annotations

from typing import NamedTuple

from .ordering import Node

__all__ = ["TRACK", "Route", "Tracks"]

TRACK = 12.0
"""Pixels between edges that run back beside each other."""


class Route(NamedTuple):
    """How an edge runs: from the right side of one box to the left side of the other."""

    points: tuple[tuple[float, float], ...]
    """Forward, pairs of points with a straight line between them, to be joined by curves; backward, the corners."""
    backward: bool
    """It closes a circle, and runs back below."""


class Tracks:
    """Where the edges run that close circles: right of one box down, back below everything that they pass, and up to the other."""

    def __init__(self, nodes: list[Node], edges: list[tuple[int, int]], gap: float) -> None:
        self._nodes = nodes
        unique = sorted(dict.fromkeys(edges), key=lambda e: (nodes[e[0]].layer - nodes[e[1]].layer, -nodes[e[0]].y))
        self._down: dict[int, list[tuple[int, int]]] = {}
        self._up: dict[int, list[tuple[int, int]]] = {}
        self._depth: dict[tuple[int, int], float] = {}
        bottoms: dict[int, float] = {}
        for node in nodes:
            bottoms[node.layer] = max(bottoms.get(node.layer, 0.0), node.y + node.height / 2 + gap - TRACK)
        for edge in unique:
            first, last = nodes[edge[1]].layer, nodes[edge[0]].layer
            depth = max(bottoms[n] for n in range(first, last + 1)) + TRACK
            bottoms |= dict.fromkeys(range(first, last + 1), depth)
            self._depth[edge] = depth
            self._down.setdefault(last, []).append(edge)
            self._up.setdefault(first, []).append(edge)
        self.bottom = max(self._depth.values(), default=0.0)

    def after(self, layer: int) -> float:
        """How much room the lines that run down need right of a column."""
        return TRACK * (len(self._down[layer]) + 0.5) if layer in self._down else 0.0

    def before(self, layer: int) -> float:
        """How much room the lines that run up need left of a column, arrow heads included."""
        return TRACK * (len(self._up[layer]) + 0.5) if layer in self._up else 0.0

    def route(self, edge: tuple[int, int], lefts: list[float], widths: list[float]) -> Route:
        """The corners of such an edge."""
        source, target = self._nodes[edge[0]], self._nodes[edge[1]]
        right, left = lefts[source.layer] + widths[source.layer], lefts[target.layer]
        down = right + TRACK * (self._down[source.layer].index(edge) + 1)
        up = left - TRACK * (self._up[target.layer].index(edge) + 1.5)
        low = self._depth[edge]
        return Route(((right, source.y), (down, source.y), (down, low), (up, low), (up, target.y), (left, target.y)), True)

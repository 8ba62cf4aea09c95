"""The layout of a directed graph in columns, from left to right: where boxes stand and how edges run.

After Sugiyama, each step a function: edges that close a circle are set aside; every box gets a column to the right of all
that lead to it, as near to them as it goes; an edge across several columns gets a bend in each that it crosses; boxes and
bends are ordered within their columns so that few edges cross; then they are moved up and down towards their neighbours,
bends first, so that long edges are straight. Boxes never overlap, because the last step moves them under that condition
(isotonic regression). An edge that closes a circle runs back below the columns that it passes. Parts that have nothing
to do with each other are laid out on their own, and packed.

Everything is decided by the order of the input: the same graph makes the same picture.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

__all__ = ["Box", "Layout", "Route", "layout"]

ROUNDS = 12
"""Of ordering, and of moving; a round goes forth and back."""
STARTS = 24
"""Nodes that are tried as the first one of a circle."""
TRACK = 12.0
"""Pixels between edges that run back beside each other."""


class Box(NamedTuple):
    """A node: its size in pixels."""

    width: float
    height: float


class Route(NamedTuple):
    """How an edge runs: from the right side of one box to the left side of the other."""

    points: tuple[tuple[float, float], ...]
    """Forward, pairs of points with a straight line between them, to be joined by curves; backward, the corners."""
    backward: bool
    """It closes a circle, and runs back below."""


@dataclass(slots=True)
class Layout:
    """Where everything is, in pixels from the upper left corner."""

    places: list[tuple[float, float, float]]
    """Of each box: its left side, its upper side, and the width of its column, which it may fill."""
    routes: list[Route]
    """Of each edge."""
    width: float
    height: float


@dataclass(slots=True)
class _Node:
    """A box, or the bend of an edge in a column (then ``box`` is -1)."""

    box: int
    layer: int
    height: float
    before: list[int] = field(default_factory=list[int])
    after: list[int] = field(default_factory=list[int])
    y: float = 0.0
    """Of the middle."""
    rank: int = 0


def layout(
    boxes: Sequence[Box], edges: Sequence[tuple[int, int]], *, gap: float = 16.0, between: float = 64.0, wide: float = 1200.0
) -> Layout:
    """Places the boxes; ``gap`` is between them in a column, ``between`` from column to column, and parts that have nothing to
    do with each other are packed side by side up to a width of ``wide``."""
    parts = _parts(len(boxes), edges)
    inner: list[list[int]] = [[] for _ in parts]
    part_of = {box: n for n, part in enumerate(parts) for box in part}
    for n, (source, _) in enumerate(edges):
        inner[part_of[source]].append(n)
    done: list[Layout] = []
    for part, numbers in zip(parts, inner, strict=True):
        local = {box: n for n, box in enumerate(part)}
        done.append(_lay_out([boxes[n] for n in part], [(local[edges[n][0]], local[edges[n][1]]) for n in numbers], gap, between))
    corners, width, height = _pack([(one.width, one.height) for one in done], wide, 2 * gap)
    whole = Layout([(0.0, 0.0, 0.0)] * len(boxes), [Route((), False)] * len(edges), width, height)
    for part, numbers, one, (dx, dy) in zip(parts, inner, done, corners, strict=True):
        for box, (x, y, full) in zip(part, one.places, strict=True):
            whole.places[box] = (x + dx, y + dy, full)
        for n, route in zip(numbers, one.routes, strict=True):
            whole.routes[n] = Route(tuple((x + dx, y + dy) for x, y in route.points), route.backward)
    return whole


def _parts(count: int, edges: Iterable[tuple[int, int]]) -> list[list[int]]:
    """The boxes, by which of them are connected."""
    leader = list(range(count))

    def find(n: int) -> int:
        while leader[n] != n:
            leader[n] = leader[leader[n]]
            n = leader[n]
        return n

    for a, b in edges:
        one, other = sorted((find(a), find(b)))
        leader[other] = one
    parts: dict[int, list[int]] = {}
    for n in range(count):
        parts.setdefault(find(n), []).append(n)
    return list(parts.values())


def _lay_out(boxes: Sequence[Box], edges: Sequence[tuple[int, int]], gap: float, between: float) -> Layout:
    back = _closing(len(boxes), edges)
    forward = [edge for n, edge in enumerate(edges) if n not in back]
    layers = _layers(len(boxes), forward)
    nodes = [_Node(n, layers[n], box.height) for n, box in enumerate(boxes)]
    chains = {edge: _chain(nodes, edge) for edge in dict.fromkeys(forward)}
    columns = _order(nodes)
    _move(nodes, columns, gap)
    top = min(node.y - node.height / 2 for node in nodes)
    for node in nodes:
        node.y -= top
    widths = [max((boxes[nodes[n].box].width for n in column if nodes[n].box >= 0), default=0.0) for column in columns]
    tracks = _Tracks(nodes, [edges[n] for n in sorted(back)], gap)
    lefts: list[float] = [tracks.before(0)]
    for n, width in enumerate(widths):
        steepest = max((abs(nodes[a].y - nodes[b].y) for a in columns[n] for b in nodes[a].after), default=0.0)
        lefts.append(lefts[-1] + width + between + min(steepest * 0.12, 2 * between) + tracks.after(n) + tracks.before(n + 1))
    places = [(lefts[node.layer], node.y - node.height / 2, widths[node.layer]) for node in nodes[: len(boxes)]]
    routes: list[Route] = []
    for n, edge in enumerate(edges):
        if n in back:
            routes.append(tracks.route(edge, lefts, widths))
            continue
        chain = [nodes[one] for one in (edge[0], *chains[edge], edge[1])]
        points = [(lefts[one.layer] + side * widths[one.layer], one.y) for one in chain for side in (0, 1)]
        routes.append(Route(tuple(points[1:-1]), False))
    last = len(widths) - 1
    return Layout(
        places, routes, lefts[last] + widths[last] + tracks.after(last), max([node.y + node.height / 2 for node in nodes] + [tracks.bottom])
    )


# -- columns


def _closing(count: int, edges: Sequence[tuple[int, int]]) -> set[int]:
    """The edges, by number, that lead back to where one came from; without them there is no circle."""
    out: list[list[tuple[int, int]]] = [[] for _ in range(count)]
    entered = [0] * count
    for n, (a, b) in enumerate(edges):
        out[a].append((n, b))
        entered[b] += 1
    order = sorted(range(count), key=lambda n: (entered[n] > 0, entered[n] - len(out[n])))
    found = _search(order, out)
    for start in order[1:STARTS]:
        if not found:
            break
        other = _search([start, *order], out)
        found = other if len(other) < len(found) else found
    return found


def _search(starts: Iterable[int], out: Sequence[Sequence[tuple[int, int]]]) -> set[int]:
    """Depth first from these nodes: the edges that lead back to a node on the way."""
    closing: set[int] = set()
    state = [0] * len(out)  # 1: on the way, 2: done
    for start in starts:
        if state[start]:
            continue
        state[start] = 1
        way = [(start, iter(out[start]))]
        while way:
            here, rest = way[-1]
            for n, there in rest:
                if state[there] == 1:
                    closing.add(n)
                elif not state[there]:
                    state[there] = 1
                    way.append((there, iter(out[there])))
                    break
            else:
                state[here] = 2
                way.pop()
    return closing


def _layers(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """The column of each box: the longest way to it, then moved to where its edges are short."""
    before: list[list[int]] = [[] for _ in range(count)]
    after: list[list[int]] = [[] for _ in range(count)]
    missing = [0] * count
    for a, b in edges:
        after[a].append(b)
        before[b].append(a)
        missing[b] += 1
    order = [n for n in range(count) if not missing[n]]
    for n in order:  # grows as it goes
        for m in after[n]:
            missing[m] -= 1
            if not missing[m]:
                order.append(m)
    layer = [0] * count
    for n in order:
        layer[n] = max((layer[m] + 1 for m in before[n]), default=0)
    for n in reversed(order):
        if len(after[n]) > len(before[n]):
            layer[n] = min(layer[m] for m in after[n]) - 1
    return layer


def _chain(nodes: list[_Node], edge: tuple[int, int]) -> list[int]:
    """Adds the bends of an edge, one for each column that it crosses, and links what follows each other."""
    a, b = edge
    bends = list(range(len(nodes), len(nodes) + nodes[b].layer - nodes[a].layer - 1))
    nodes += [_Node(-1, nodes[a].layer + n, 4.0) for n in range(1, len(bends) + 1)]
    for one, other in pairwise([a, *bends, b]):
        nodes[one].after.append(other)
        nodes[other].before.append(one)
    return bends


# -- the order within columns


def _order(nodes: list[_Node]) -> list[list[int]]:
    """The columns from top to bottom, in the best order that was found."""
    columns: list[list[int]] = [[] for _ in range(max(node.layer for node in nodes) + 1)]
    for n in _walk(nodes):
        columns[nodes[n].layer].append(n)
    _rank(nodes, columns)
    best, fewest = [list(column) for column in columns], _crossings(nodes, columns)
    for turn in range(2 * ROUNDS):
        if not fewest:
            break
        forth = turn % 2 == 0
        for column in columns if forth else reversed(columns):
            keys = {n: _centre(nodes, nodes[n].before if forth else nodes[n].after, nodes[n].rank, median=turn % 4 > 1) for n in column}
            column.sort(key=keys.__getitem__)
            for rank, n in enumerate(column):
                nodes[n].rank = rank
        _swap(nodes, columns)
        found = _crossings(nodes, columns)
        if found < fewest:
            best, fewest = [list(column) for column in columns], found
    _rank(nodes, best)
    return best


def _walk(nodes: list[_Node]) -> list[int]:
    """All nodes, each near to those that it is linked with: depth first, from the left."""
    seen: dict[int, None] = {}
    for start in sorted(range(len(nodes)), key=lambda n: nodes[n].layer):
        todo = [start]
        while todo:
            n = todo.pop()
            if n not in seen:
                seen[n] = None
                todo += reversed(nodes[n].after)
    return list(seen)


def _rank(nodes: list[_Node], columns: list[list[int]]) -> None:
    for column in columns:
        for rank, n in enumerate(column):
            nodes[n].rank = rank


def _centre(nodes: list[_Node], linked: list[int], own: int, *, median: bool) -> float:
    if not linked:
        return own
    ranks = sorted(nodes[n].rank for n in linked)
    if median:
        return (ranks[(len(ranks) - 1) // 2] + ranks[len(ranks) // 2]) / 2
    return sum(ranks) / len(ranks)


def _crossings(nodes: list[_Node], columns: list[list[int]]) -> int:
    """How many pairs of edges cross."""
    crossed = 0
    for column in columns[:-1]:
        ends: list[int] = []
        for n in column:
            ranks = sorted(nodes[m].rank for m in nodes[n].after)
            crossed += sum(len(ends) - bisect_left(ends, rank + 1) for rank in ranks)
            for rank in ranks:
                insort(ends, rank)
    return crossed


def _swap(nodes: list[_Node], columns: list[list[int]]) -> None:
    """Exchanges neighbours where that leaves fewer crossings."""
    for column in columns:
        for n in range(len(column) - 1):
            upper, lower = nodes[column[n]], nodes[column[n + 1]]
            gain = 0
            for one, other in ((upper.before, lower.before), (upper.after, lower.after)):
                if len(one) * len(other) <= 400:  # a fan of hundreds doesn't hinge on one exchange
                    for a in one:
                        for b in other:
                            gain += (nodes[a].rank > nodes[b].rank) - (nodes[a].rank < nodes[b].rank)
            if gain > 0:
                column[n], column[n + 1] = column[n + 1], column[n]
                upper.rank, lower.rank = lower.rank, upper.rank


# -- up and down


def _move(nodes: list[_Node], columns: list[list[int]], gap: float) -> None:
    """Gives every node its place: near its neighbours, in order, and apart."""
    for column in columns:
        y = 0.0
        for n in column:
            nodes[n].y = y + nodes[n].height / 2
            y += nodes[n].height + gap
        for n in column:
            nodes[n].y -= y / 2
    for turn in range(2 * ROUNDS + 1):
        last = turn == 2 * ROUNDS
        for column in columns if turn % 2 == 0 else reversed(columns):
            wanted: list[tuple[float, float]] = []
            for n in column:
                node = nodes[n]
                near = (
                    [*node.before, *node.after]
                    if last or not (node.before and node.after)
                    else node.before
                    if turn % 2 == 0
                    else node.after
                )
                pulls = [(nodes[m].y, _pull(node, nodes[m])) for m in near]
                weight = sum(pull for _, pull in pulls)
                wanted.append((sum(y * pull for y, pull in pulls) / weight, weight) if pulls else (node.y, 0.1))
            _settle(nodes, column, wanted, gap)


def _pull(one: _Node, other: _Node) -> float:
    """How much it matters that they are level."""
    return (1.0, 3.0, 9.0)[(one.box < 0) + (other.box < 0)]


def _settle(nodes: list[_Node], column: list[int], wanted: list[tuple[float, float]], gap: float) -> None:
    """Moves the nodes of a column as near as possible to where they want to be (least squares) without touching each other.

    What is left of each wish, once all that stands above it is subtracted, must not fall from one node to the next: neighbours
    whose wishes do are merged into one block, which gets their weighted mean.
    """
    blocks: list[tuple[float, float, int]] = []
    offsets: list[float] = []
    offset, above = 0.0, None
    for n, (y, weight) in zip(column, wanted, strict=True):
        node = nodes[n]
        if above is not None:
            offset += (above.height + node.height) / 2 + (gap if node.box >= 0 or above.box >= 0 else gap / 2)
        offsets.append(offset)
        above = node
        mean, total, size = y - offset, weight, 1
        while blocks and blocks[-1][0] > mean:
            other, more, count = blocks.pop()
            mean, total, size = (mean * total + other * more) / (total + more), total + more, size + count
        blocks.append((mean, total, size))
    n = 0
    for mean, _, size in blocks:
        for _ in range(size):
            nodes[column[n]].y = mean + offsets[n]
            n += 1


# -- back


class _Tracks:
    """Where the edges run that close circles: right of one box down, back below everything that they pass, and up to the other."""

    def __init__(self, nodes: list[_Node], edges: list[tuple[int, int]], gap: float) -> None:
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


# -- parts


def _pack(sizes: Sequence[tuple[float, float]], wide: float, gap: float) -> tuple[list[tuple[float, float]], float, float]:
    """Upper left corners for rectangles, and the size of it all: large ones first, each as high up as it goes, then as far left."""
    area = sum((width + gap) * (height + gap) for width, height in sizes)
    across = max([min(wide, (1.6 * area) ** 0.5), *(width for width, _ in sizes)], default=0.0) + gap
    corners = [(0.0, 0.0)] * len(sizes)
    skyline: list[tuple[float, float]] = [(0.0, 0.0)]  # from this x on, this y is free
    for n in sorted(range(len(sizes)), key=lambda n: -sizes[n][1]):
        width, height = sizes[n][0] + gap, sizes[n][1] + gap
        y, x = min((max(_under(skyline, x, width)), x) for x, _ in skyline if x + width <= across + 0.01)
        corners[n] = (x, y)
        end = next(reversed([level for start, level in skyline if start <= x + width]))
        skyline = [one for one in skyline if one[0] < x or one[0] >= x + width] + [(x, y + height)]
        if all(start != x + width for start, _ in skyline) and x + width < across:
            skyline.append((x + width, end))
        skyline.sort()
    right = max((x + width for (x, _), (width, _) in zip(corners, sizes, strict=True)), default=0.0)
    bottom = max((y + height for (_, y), (_, height) in zip(corners, sizes, strict=True)), default=0.0)
    return corners, right, bottom


def _under(skyline: list[tuple[float, float]], x: float, width: float) -> Iterable[float]:
    """The levels of the skyline between x and x + width."""
    for n, (start, level) in enumerate(skyline):
        end = skyline[n + 1][0] if n + 1 < len(skyline) else float("inf")
        if start < x + width and end > x:
            yield level

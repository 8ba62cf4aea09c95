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

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .ordering import Node, bend, closing, columns_of, order, rounds_for
from .packing import pack
from .packing import parts as parts_of
from .tracks import Route, Tracks

__all__ = ["Box", "Layout", "Route", "layout"]

ROUNDS = 12
"""Of moving; each goes forth and back."""


class Box(NamedTuple):
    """A node: its size in pixels."""

    width: float
    height: float


@dataclass(slots=True)
class Layout:
    """Where everything is, in pixels from the upper left corner."""

    places: list[tuple[float, float, float]]
    """Of each box: its left side, its upper side, and the width of its column, which it may fill."""
    routes: list[Route]
    """Of each edge."""
    width: float
    height: float


def layout(
    boxes: Sequence[Box],
    edges: Sequence[tuple[int, int]],
    *,
    gap: float = 16.0,
    between: float = 64.0,
    wide: float = 1200.0,
    soft: Collection[int] = (),
) -> Layout:
    """Places the boxes; ``gap`` is between them in a column, ``between`` from column to column, and parts that have nothing to
    do with each other are packed side by side up to a width of ``wide``. Where a circle is opened, ``soft`` edges (by number)
    give way."""
    parts = parts_of(len(boxes), edges)
    inner: list[list[int]] = [[] for _ in parts]
    part_of = {box: n for n, part in enumerate(parts) for box in part}
    for n, (source, _) in enumerate(edges):
        inner[part_of[source]].append(n)
    done: list[Layout] = []
    for part, numbers in zip(parts, inner, strict=True):
        local = {box: n for n, box in enumerate(part)}
        inside = [(local[edges[n][0]], local[edges[n][1]]) for n in numbers]
        gives_way = {m for m, n in enumerate(numbers) if n in soft}
        done.append(_lay_out([boxes[n] for n in part], inside, gap, between, gives_way))
    corners, width, height = pack([(one.width, one.height) for one in done], wide, 2 * gap)
    whole = Layout([(0.0, 0.0, 0.0)] * len(boxes), [Route((), False)] * len(edges), width, height)
    for part, numbers, one, (dx, dy) in zip(parts, inner, done, corners, strict=True):
        for box, (x, y, full) in zip(part, one.places, strict=True):
            whole.places[box] = (x + dx, y + dy, full)
        for n, route in zip(numbers, one.routes, strict=True):
            whole.routes[n] = Route(tuple((x + dx, y + dy) for x, y in route.points), route.backward)
    return whole


def _lay_out(boxes: Sequence[Box], edges: Sequence[tuple[int, int]], gap: float, between: float, soft: Collection[int]) -> Layout:
    back = closing(len(boxes), edges, soft)
    forward = [edge for n, edge in enumerate(edges) if n not in back]
    layers = columns_of(len(boxes), forward)
    nodes = [Node(n, layers[n], box.height) for n, box in enumerate(boxes)]
    chains = {edge: bend(nodes, edge) for edge in dict.fromkeys(forward)}
    columns = order(nodes)
    _move(nodes, columns, gap)
    top = min(node.y - node.height / 2 for node in nodes)
    for node in nodes:
        node.y -= top
    widths = [max((boxes[nodes[n].box].width for n in column if nodes[n].box >= 0), default=0.0) for column in columns]
    tracks = Tracks(nodes, [edges[n] for n in sorted(back)], gap)
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


# -- up and down


def _move(nodes: list[Node], columns: list[list[int]], gap: float) -> None:
    """Gives every node its place: near its neighbours, in order, and apart."""
    for column in columns:
        y = 0.0
        for n in column:
            nodes[n].y = y + nodes[n].height / 2
            y += nodes[n].height + gap
        for n in column:
            nodes[n].y -= y / 2
    turns = 2 * rounds_for(nodes, ROUNDS)
    for turn in range(turns + 1):
        last = turn == turns
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


def _pull(one: Node, other: Node) -> float:
    """How much it matters that they are level."""
    return (1.0, 3.0, 9.0)[(one.box < 0) + (other.box < 0)]


def _settle(nodes: list[Node], column: list[int], wanted: list[tuple[float, float]], gap: float) -> None:
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

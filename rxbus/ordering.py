"""The columns of a layered graph, and the order within them.

Edges that close a circle are set aside (`closing`); every box gets a column to the right of all that lead to it, as near to
them as it goes (`columns_of`); an edge across several columns gets a bend in each that it crosses (`bend`); boxes and bends
are ordered so that few edges cross (`order`): by the centre of their neighbours, forth and back, and by exchanging neighbours.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

__all__ = ["Node", "bend", "closing", "columns_of", "extent", "order"]

ROUNDS = 12
"""Each goes forth and back."""
WORK = 40_000
"""Nodes and edges that are looked at, all rounds together: a larger graph gets fewer."""
SEARCHED = 400_000
"""Steps that are spent on soft edges, one by one."""
STARTS = 24
"""Nodes that are tried as the first one of a circle."""


@dataclass(slots=True)
class Node:
    """A box, or the bend of an edge in a column (then ``box`` is -1)."""

    box: int
    layer: int
    height: float
    before: list[int] = field(default_factory=list[int])
    after: list[int] = field(default_factory=list[int])
    y: float = 0.0
    """Of the middle."""
    rank: int = 0


def closing(count: int, edges: Sequence[tuple[int, int]], soft: Collection[int] = ()) -> set[int]:
    """The edges, by number, that lead back to where one came from; without them there is no circle.

    Soft ones give way: they are looked at when it is known where the others lead.
    """
    if not soft or len(soft) * len(edges) > SEARCHED:
        return _closing(count, edges)
    hard = [n for n in range(len(edges)) if n not in soft]
    found = {hard[n] for n in _closing(count, [edges[n] for n in hard])}
    out: list[list[int]] = [[] for _ in range(count)]
    for n in hard:
        if n not in found:
            out[edges[n][0]].append(edges[n][1])
    for n in sorted(soft):
        a, b = edges[n]
        if _leads_to(b, a, out):
            found.add(n)
        else:
            out[a].append(b)
    return found


def _leads_to(start: int, end: int, out: Sequence[Sequence[int]]) -> bool:
    seen, stack = {start}, [start]
    while stack:
        here = stack.pop()
        if here == end:
            return True
        for there in out[here]:
            if there not in seen:
                seen.add(there)
                stack.append(there)
    return False


def _closing(count: int, edges: Sequence[tuple[int, int]]) -> set[int]:
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


def columns_of(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
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


def extent(count: int, edges: Sequence[tuple[int, int]], soft: Collection[int] = ()) -> tuple[int, int]:
    """How many columns a graph takes, and how many bends."""
    back = closing(count, edges, soft)
    forward = dict.fromkeys(edge for n, edge in enumerate(edges) if n not in back)
    layer = columns_of(count, list(forward))
    return max(layer, default=-1) + 1, sum(layer[b] - layer[a] - 1 for a, b in forward)


def rounds_for(nodes: Collection[Node], most: int) -> int:
    """How many rounds a graph of that size gets."""
    return max(2, min(most, WORK // (len(nodes) + sum(len(node.after) for node in nodes) + 1)))


def bend(nodes: list[Node], edge: tuple[int, int]) -> list[int]:
    """Adds the bends of an edge, one for each column that it crosses, and links what follows each other."""
    a, b = edge
    bends = list(range(len(nodes), len(nodes) + nodes[b].layer - nodes[a].layer - 1))
    nodes += [Node(-1, nodes[a].layer + n, 4.0) for n in range(1, len(bends) + 1)]
    for one, other in pairwise([a, *bends, b]):
        nodes[one].after.append(other)
        nodes[other].before.append(one)
    return bends


def order(nodes: list[Node]) -> list[list[int]]:
    """The columns from top to bottom, in the best order that was found."""
    columns: list[list[int]] = [[] for _ in range(max(node.layer for node in nodes) + 1)]
    for n in _walk(nodes):
        columns[nodes[n].layer].append(n)
    _rank(nodes, columns)
    best, fewest = [list(column) for column in columns], _crossings(nodes, columns)
    for turn in range(2 * rounds_for(nodes, ROUNDS)):
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


def _walk(nodes: list[Node]) -> list[int]:
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


def _rank(nodes: list[Node], columns: list[list[int]]) -> None:
    for column in columns:
        for rank, n in enumerate(column):
            nodes[n].rank = rank


def _centre(nodes: list[Node], linked: list[int], own: int, *, median: bool) -> float:
    if not linked:
        return own
    ranks = sorted(nodes[n].rank for n in linked)
    if median:
        return (ranks[(len(ranks) - 1) // 2] + ranks[len(ranks) // 2]) / 2
    return sum(ranks) / len(ranks)


def _crossings(nodes: list[Node], columns: list[list[int]]) -> int:
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


def _swap(nodes: list[Node], columns: list[list[int]]) -> None:
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

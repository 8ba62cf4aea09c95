"""The layout of a graph in columns: nothing overlaps, every edge is there, few cross."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rxbus.layered import Box, Layout, layout
from rxbus.ordering import closing, columns_of
from rxbus.packing import pack, parts


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[Box], list[tuple[int, int]]]:
    count = draw(st.integers(1, 14))
    boxes = [Box(draw(st.floats(20, 200)), draw(st.floats(10, 60))) for _ in range(count)]
    node = st.integers(0, count - 1)
    return boxes, draw(st.lists(st.tuples(node, node), max_size=24))


def rectangles(boxes: list[Box], plan: Layout) -> list[tuple[float, float, float, float]]:
    """Left, top, right, bottom, with the column's whole width."""
    return [(x, y, x + width, y + box.height) for box, (x, y, width) in zip(boxes, plan.places, strict=True)]


def overlapping(ones: list[tuple[float, float, float, float]]) -> list[tuple[int, int]]:
    return [
        (n, m)
        for n, (left, top, right, bottom) in enumerate(ones)
        for m, other in enumerate(ones[:n])
        if left < other[2] - 0.01 and other[0] < right - 0.01 and top < other[3] - 0.01 and other[1] < bottom - 0.01
    ]


def crossings(plan: Layout) -> int:
    """How many pairs of straight edges between two columns change sides."""
    ends = [(route.points[0][1], route.points[-1][1]) for route in plan.routes]
    return sum((a - c) * (b - d) < -0.01 for n, (a, b) in enumerate(ends) for c, d in ends[:n])


class TestAnyGraph:
    """What holds for every graph, with circles, loops and doubles."""

    @given(graphs())
    @settings(deadline=None)
    def test_boxes_stand_apart(self, graph: tuple[list[Box], list[tuple[int, int]]]) -> None:
        """No two overlap, and all are within the picture."""
        boxes, edges = graph
        plan = layout(boxes, edges)
        ones = rectangles(boxes, plan)
        assert [] == overlapping(ones)
        assert [] == [one for one in ones if min(one) < -0.01 or one[2] > plan.width + 0.01 or one[3] > plan.height + 0.01]

    @given(graphs())
    @settings(deadline=None)
    def test_edges_lead_from_side_to_side(self, graph: tuple[list[Box], list[tuple[int, int]]]) -> None:
        """Each begins in the middle of the right side of one box and ends in that of the left side of the other."""
        boxes, edges = graph
        plan = layout(boxes, edges)
        ones = rectangles(boxes, plan)
        for (a, b), route in zip(edges, plan.routes, strict=True):
            assert pytest.approx((ones[a][2], (ones[a][1] + ones[a][3]) / 2)) == route.points[0]
            assert pytest.approx((ones[b][0], (ones[b][1] + ones[b][3]) / 2)) == route.points[-1]

    @given(graphs())
    @settings(deadline=None)
    def test_edges_pass_no_box(self, graph: tuple[list[Box], list[tuple[int, int]]]) -> None:
        """Where an edge crosses a column it keeps clear of the boxes there; one that runs back does so everywhere."""
        boxes, edges = graph
        plan = layout(boxes, edges)
        ones = rectangles(boxes, plan)
        for route in plan.routes:
            pieces = list(zip(route.points, route.points[1:], strict=False))
            for (ax, ay), (bx, by) in pieces if route.backward else pieces[1::2]:
                left, right, top, bottom = min(ax, bx), max(ax, bx), min(ay, by), max(ay, by)
                hit = [one for one in ones if one[0] < right - 0.1 and left < one[2] - 0.1 and one[1] < bottom + 0.1 and top < one[3] - 0.1]
                assert [] == hit

    @given(graphs())
    @settings(deadline=None)
    def test_forward_is_to_the_right(self, graph: tuple[list[Box], list[tuple[int, int]]]) -> None:
        """Edges run from left to right, but for those that close a circle."""
        boxes, edges = graph
        plan = layout(boxes, edges)
        for route in plan.routes:
            assert route.backward == (route.points[0][0] >= route.points[-1][0])

    @given(graphs())
    @settings(deadline=None)
    def test_same_graph_same_picture(self, graph: tuple[list[Box], list[tuple[int, int]]]) -> None:
        """Nothing depends on chance."""
        assert layout(*graph) == layout(*graph)


class TestShapes:
    """What a reader expects of plain cases."""

    BOX = Box(80, 40)

    def test_nothing(self) -> None:
        """No boxes take no room."""
        plan = layout([], [])
        assert ([], [], 0.0, 0.0) == (plan.places, plan.routes, plan.width, plan.height)

    def test_chain_is_level(self) -> None:
        """One after the other, at one height."""
        plan = layout([self.BOX] * 4, [(0, 1), (1, 2), (2, 3)])
        assert 1 == len({y for _, y, _ in plan.places})
        assert sorted(plan.places) == plan.places

    def test_fan_is_symmetrical(self) -> None:
        """The source stands at the middle of its readers."""
        plan = layout([self.BOX] * 6, [(0, n) for n in range(1, 6)])
        assert pytest.approx(plan.places[3][1]) == plan.places[0][1]

    def test_long_edge_is_straight(self) -> None:
        """Across the columns of a chain it runs at one height."""
        plan = layout([self.BOX] * 5, [(0, 1), (1, 2), (2, 3), (3, 4), (0, 4)])
        heights = [y for _, y in plan.routes[4].points[1:-1]]
        assert max(heights) - min(heights) < 3.0

    def test_no_needless_crossings(self) -> None:
        """Two columns linked in reverse order are put in order."""
        plan = layout([self.BOX] * 12, [(n, 11 - n) for n in range(6)] + [(n, 10 - n) for n in range(5)])
        assert 0 == crossings(plan)

    def test_few_crossings(self) -> None:
        """Thirty tangles of two columns come out with half the crossings of the order in which they were given."""
        chance, crossed = random.Random(7), 0
        for _ in range(30):
            edges = [(a, 8 + b) for a in range(8) for b in range(8) if chance.random() < 0.28]
            chance.shuffle(edges)
            crossed += crossings(layout([self.BOX] * 16, edges))
        assert crossed < 800

    def test_circle(self) -> None:
        """The way there is forward, the way back runs below everything between."""
        plan = layout([self.BOX] * 4, [(0, 1), (1, 2), (2, 3), (3, 0)])
        assert [False, False, False, True] == [route.backward for route in plan.routes]
        lowest = max(y for _, y in plan.routes[3].points)
        assert lowest > max(y + 40 for _, y, _ in plan.places)

    def test_ways_back_run_beside_each_other(self) -> None:
        """Two that pass below the same columns do so at different heights, and up and down at different places."""
        plan = layout([self.BOX] * 3, [(0, 1), (1, 2), (2, 1), (1, 0)])
        one, other = (route.points for route in plan.routes if route.backward)
        assert one[2][1] != other[2][1]
        assert one[3][0] != other[3][0]

    def test_soft_edges_give_way(self) -> None:
        """A circle is opened where it was only seen, wherever it is entered; soft edges that close none lead to the right."""
        edges = [(2, 0), (0, 1), (1, 2), (1, 3)]
        for soft in ({0}, {1}, {2}):
            found = layout([Box(60, 30)] * 4, edges, soft=soft)
            assert soft == {n for n, route in enumerate(found.routes) if route.backward}
        assert not layout([Box(60, 30)] * 4, edges, soft={0, 3}).routes[3].backward

    def test_best_start_of_a_circle(self) -> None:
        """Of the edges that could be turned round, few are."""
        ring = [(n, (n + 1) % 8) for n in range(8)]
        assert 1 == len(closing(8, [*ring, (0, 2), (0, 3), (4, 6)]))

    def test_columns_are_as_near_as_can_be(self) -> None:
        """A source of something far to the right stands beside it, not at the left edge."""
        assert [0, 1, 2, 3, 2] == columns_of(5, [(0, 1), (1, 2), (2, 3), (4, 3)])

    def test_parts_are_packed(self) -> None:
        """Pairs that have nothing to do with each other fill a page instead of a tower."""
        plan = layout([self.BOX] * 60, [(n, n + 1) for n in range(0, 60, 2)])
        assert 0.7 < plan.width / plan.height < 4.0


class TestPacking:
    """Rectangles on a page."""

    @given(st.lists(st.tuples(st.floats(1, 500), st.floats(1, 300)), max_size=25))
    @settings(deadline=None)
    def test_apart_and_inside(self, sizes: list[tuple[float, float]]) -> None:
        """No two overlap, and the size of it all is that of the furthest."""
        corners, width, height = pack(sizes, 1000, 10)
        ones = [(x, y, x + w, y + h) for (x, y), (w, h) in zip(corners, sizes, strict=True)]
        assert [] == overlapping(ones)
        assert (max((one[2] for one in ones), default=0.0), max((one[3] for one in ones), default=0.0)) == (width, height)

    def test_parts(self) -> None:
        """Boxes belong together by edges in either direction."""
        assert [[0, 2, 4], [1], [3, 5]] == parts(6, [(4, 2), (0, 2), (5, 3), (1, 1)])


class TestSpeed:
    """A large bus is drawn while one looks."""

    def test_two_hundred_topics(self) -> None:
        """500 boxes in one piece, 450 edges, in under a second."""
        edges = [(n % 200, 200 + n) for n in range(300)] + [(200 + n, (n * 7 + 1) % 200) for n in range(0, 300, 2)]
        began = time.perf_counter()
        plan = layout([Box(120, 24)] * 500, edges)
        assert time.perf_counter() - began < 5.0  # under one, alone on its machine
        assert [] == overlapping(rectangles([Box(120, 24)] * 500, plan))

"""A marble diagram: moments where they belong, everything legible, nothing lost."""

from __future__ import annotations

import re
import time
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rxbus import drawing
from rxbus.diagram import Diagram
from rxbus.drawing import RIMMED
from rxbus.lettering import pixels
from rxbus.marks import RADIUS, ROOMY, Item, Mark
from rxbus.plan import Lane, Plan
from rxbus.timescale import scale_of

SVG = "{http://www.w3.org/2000/svg}"
ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=30)


@st.composite
def diagrams(draw: st.DrawFn) -> Diagram:
    lanes: list[Lane] = []
    ids = st.sampled_from([f"e{n}" for n in range(12)])
    for n in range(draw(st.integers(1, 4))):
        marks = [
            Mark(draw(st.floats(0, 100)), draw(ANY_TEXT), draw(st.sampled_from(["next", "next", "failed"])), draw(ids), f"{n}.{k}", None)
            for k in range(draw(st.integers(0, 12)))
        ]
        known = [mark.id for lane in lanes for mark in lane.marks]
        if known:
            marks = [Mark(m.time, m.label, m.kind, m.story, m.id, draw(st.sampled_from([None, *known])), m.hint) for m in marks]
        end = draw(st.sampled_from([None, "error", "completed"]))
        lanes.append(Lane(draw(ANY_TEXT), (*marks, *([Mark(100.5, draw(ANY_TEXT), end)] if end else []))))
    return Diagram(tuple(lanes), draw(ANY_TEXT))


def dots(*times: float, label: str = "") -> tuple[Mark, ...]:
    return tuple(Mark(moment, label or f"at {moment:g}") for moment in times)


def plan_of(*lanes: Lane) -> Plan:
    return Diagram(lanes).plan()


def texts(svg: str) -> list[str]:
    return [node.text or "" for node in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def label_boxes(plan: Plan) -> list[tuple[float, float, float, float]]:
    return [
        (label.x, lane.y - label.row * 15, label.x + label.width, lane.y - label.row * 15 + 12)
        for lane in plan.lanes
        for item in lane.labels
        if (label := item.label) is not None
    ]


def axis_labels(svg: str) -> list[tuple[float, float, float]]:
    """Left, right and height of the labels of the axis: the middle ones that have the size of none but them."""
    found: list[tuple[float, float, float]] = []
    for names in ElementTree.fromstring(svg).iter(f"{SVG}g"):
        if names.get("font-size") == "10.5" and names.get("opacity") == "0.72":
            for node in names.iter(f"{SVG}text"):
                half, x = pixels(node.text or "", 10.5) / 2, float(node.get("x") or 0)
                found.append((x - half + 0.1, x + half - 0.1, float(node.get("y") or 0)))
    return found


class TestAnyDiagram:
    """What holds whatever happened."""

    @given(diagrams())
    @settings(deadline=None)
    def test_is_well_formed(self, diagram: Diagram) -> None:
        """Any names and payloads make a picture that can be read, and the same one each time."""
        ElementTree.fromstring(diagram.svg)
        assert diagram.svg == diagram.svg
        assert set(diagram._repr_mimebundle_()) == {"text/plain", "text/html"}

    @given(diagrams())
    @settings(deadline=None)
    def test_nothing_is_lost(self, diagram: Diagram) -> None:
        """Every mark is in exactly one marble or pill of its lane, in order."""
        for lane, placed in zip(diagram.lanes, diagram.plan().lanes, strict=True):
            assert lane.shown == [mark for item in placed.items for mark in item.marks]

    @given(diagrams())
    @settings(deadline=None)
    def test_labels_never_touch(self, diagram: Diagram) -> None:
        """No two labels overlap, and none sticks out."""
        plan = diagram.plan()
        boxes = label_boxes(plan)
        touching = [
            (one, other)
            for n, one in enumerate(boxes)
            for other in boxes[:n]
            if one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
        ]
        assert [] == touching
        assert [] == [box for box in boxes if box[2] > diagram.width]

    @given(diagrams())
    @settings(deadline=None)
    def test_poles_pass_no_label(self, diagram: Diagram) -> None:
        """The line from a marble up to its label goes through no other label."""
        for lane in diagram.plan().lanes:
            flags = [(item.x, item.label) for item in lane.labels if item.label is not None]
            assert [] == [
                (x, flag.text) for x, flag in flags for _, other in flags if other.row < flag.row and other.x < x < other.x + other.width
            ]

    @given(diagrams(), st.integers(360, 1400), st.lists(st.floats(0, 1e9), max_size=40))
    @settings(deadline=None)
    def test_axis_labels_never_touch(self, diagram: Diagram, width: int, moments: list[float]) -> None:
        """Of the labels of the time axis none overlaps another or sticks out, at any width and span."""
        more = Lane("more", tuple(Mark(moment, "x") for moment in moments))
        found = axis_labels(Diagram((*diagram.lanes, more), diagram.title, float(width)).svg)
        touching = [
            (one, other)
            for n, one in enumerate(found)
            for other in found[:n]
            if one[2] == other[2] and one[0] < other[1] and other[0] < one[1]
        ]
        assert [] == touching
        assert [] == [one for one in found if one[0] < 0 or one[1] > width]

    @given(st.lists(st.floats(0, 1e6), min_size=1, max_size=40), st.integers(360, 1200))
    @settings(deadline=None)
    def test_marbles_stay_inside(self, moments: list[float], width: int) -> None:
        """Marbles, pills and ends are in the picture, however narrow it is."""
        marks = tuple(Mark(moment, "a label of some length") for moment in moments)
        plan = Diagram((Lane("a topic.of.some.length", (*marks, Mark(max(moments), kind="completed"))),), width=float(width)).plan()
        placed = [*plan.lanes[0].items, plan.lanes[0].end]
        assert [] == [item for item in placed if item is not None and not 0 < item.left < item.right <= width]

    @given(diagrams())
    @settings(deadline=None)
    def test_pills_cover_nothing(self, diagram: Diagram) -> None:
        """Marbles may overlap a little, but can be told apart; pills touch nothing."""
        for lane in diagram.plan().lanes:
            for one, other in pairwise(lane.items):
                if one.is_pill or other.is_pill:
                    assert other.left >= one.right - 0.51
                else:
                    assert other.x - one.x >= lane.radius - 0.01

    @given(diagrams())
    @settings(deadline=None)
    def test_lanes_stand_apart(self, diagram: Diagram) -> None:
        """Labels of one lane don't reach into the one above."""
        for upper, lower in pairwise(diagram.plan().lanes):
            assert lower.y - lower.above >= upper.y + upper.radius


class TestScale:
    """Moments on the axis."""

    @given(st.lists(st.floats(0, 1e6), min_size=1, max_size=30), st.floats(0, 10))
    def test_later_is_never_to_the_left(self, times: list[float], begin: float) -> None:
        """Order is kept, and everything is within the width."""
        scale = scale_of(times, begin, 50, 700)
        places = [scale.x(moment) for moment in sorted(times)]
        assert sorted(places) == places
        assert 50 <= min(places)
        assert max(places) <= 750.01

    @given(st.lists(st.floats(0, 1e4), min_size=2, max_size=30))
    def test_a_second_is_equally_wide(self, times: list[float]) -> None:
        """On both sides of what was cut out."""
        scale = scale_of(times, 0.0, 0, 700)
        moments = sorted({0.0, *times})
        gaps = {one.seconds for one in scale.breaks}
        for one, other in pairwise(moments):
            if other - one not in gaps:
                assert pytest.approx((other - one) * scale._per_second, abs=0.01) == scale.x(other) - scale.x(one)

    def test_regular_events_have_no_break(self) -> None:
        """Nothing is cut out of what is evenly spread."""
        assert [] == scale_of([float(n) for n in range(10)], 0.0, 0, 700).breaks

    def test_burst_and_silence(self) -> None:
        """An hour of silence after 10 ms is cut out, said to be an hour, and the burst has room."""
        scale = scale_of([n * 1e-5 for n in range(1000)] + [3600.0], 0.0, 0, 700)
        assert [3600.0] == [round(one.seconds, 1) for one in scale.breaks]
        assert scale.x(0.00999) > 500

    def test_rhythm_is_kept(self) -> None:
        """A burst before what comes at regular intervals is no reason to cut the intervals out."""
        assert [] == scale_of([*(n * 1e-6 for n in range(20)), 0.25, 0.5, 0.75, 1.0], 0.0, 0, 700).breaks

    def test_several_bursts(self) -> None:
        """Each silence between them is cut out."""
        times = [hour * 3600 + n * 0.001 for hour in range(4) for n in range(10)]
        assert 3 == len(scale_of(times, 0.0, 0, 700).breaks)

    @pytest.mark.parametrize("span", [1e-6, 2.5e-5, 0.01, 0.3, 7.0, 90.0, 5000.0, 90_000.0, 1e7])
    def test_ticks(self, span: float) -> None:
        """From microseconds to months there are a few, apart, the first at nought."""
        ticks = scale_of([span], 0.0, 0, 900).ticks(84)
        assert "0" == ticks[0].label
        assert 3 <= len(ticks) <= 12
        assert min(b.x - a.x for a, b in pairwise(ticks)) >= 83.9

    def test_ticks_after_a_break(self) -> None:
        """The first says when it is, the others how much later."""
        times = [n * 1e-3 for n in range(11)] + [3600 + n * 1e-3 for n in range(11)]
        labels = [tick.label for tick in scale_of(times, 0.0, 0, 900).ticks(84)]
        assert ["0", "1 h"] == [label for label in labels if not label.endswith("ms")]
        assert [] != [label for label in labels if label.startswith("+")]


class TestMarbles:
    """What is drawn for what happened."""

    def test_short_labels_go_inside(self) -> None:
        """As everybody knows marbles; a lane with longer ones has flags."""
        plan = plan_of(Lane("a", dots(0, 1, label="x")), Lane("b", dots(0, 1)))
        assert [ROOMY, RADIUS] == [lane.radius for lane in plan.lanes]
        assert [0, 2] == [len(lane.labels) for lane in plan.lanes]

    def test_labels_stay_legible_where_lines_cross(self) -> None:
        """They stand above all lines, with a rim in the colour of the page, which a theme says; without a style sheet there is none."""
        svg = Diagram((Lane("a", (Mark(0, "the cause", id="1"),)), Lane("b", (Mark(1, "an effect", cause="1"),)))).svg
        root = ElementTree.fromstring(svg)
        flags = [node for node in root.iter() if node.text in ("the cause", "an effect") and node.tag.endswith("text")]
        assert [(RIMMED, None)] * 2 == [(node.get("class"), node.get("stroke")) for node in flags]
        assert svg.index(">the cause</text>") > svg.index('<g fill="none"><path')
        assert re.search(r"\.h\{paint-order:stroke;[^}]*stroke:[^}]*var\(--rxbus-paper\)", svg)
        for theme in (drawing._LIGHT, drawing._DARK):
            assert f"--rxbus-paper:{theme['paper']}" in svg

    def test_dense_ones_are_counted(self) -> None:
        """What would cover each other is a pill with the number."""
        svg = Diagram((Lane("a", dots(*(n * 1e-6 for n in range(17)), 0.25, 0.5, 0.75, 1.0)),)).svg
        assert "×17" in texts(svg)

    def test_completion_and_error(self) -> None:
        """They stand at the end, behind everything else, the error with its text."""
        done = Lane("a", (*dots(1.0), Mark(1.0, kind="completed")))
        failed = Lane("b", (*dots(1.0), Mark(1.0, "ValueError: no", "error")))
        plan = plan_of(done, failed)
        for lane in plan.lanes:
            assert isinstance(lane.end, Item)
            assert lane.end.left >= lane.items[-1].right
        assert "ValueError: no" in texts(Diagram((done, failed)).svg)

    def test_causes(self) -> None:
        """A line for each effect whose cause is shown, none for others, one for many between the same two."""
        cause = Mark(0.0, "cause", id="c")
        effects = (Mark(1.0, "one", cause="c"), Mark(2.0, "two", cause="c"), Mark(3.0, "three", cause="unknown"))
        plan = plan_of(Lane("a", (cause,)), Lane("b", effects))
        assert [("cause", "one"), ("cause", "two")] == [(s.marks[0].label, t.marks[0].label) for _, s, _, t, _ in plan.links]
        crowd = plan_of(Lane("a", (cause,)), Lane("b", tuple(Mark(1 + n * 1e-6, "x", cause="c") for n in range(9)) + dots(1.5, 2.0)))
        assert [9] == [times for *_, times in crowd.links]

    def test_causes_within_a_pill(self) -> None:
        """What caused each other and stands in one pill has no line."""
        marks = (Mark(0.0, id="c"), Mark(1e-6, cause="c"), Mark(0.5), Mark(1.0))
        assert [] == plan_of(Lane("a", marks)).links

    def test_causes_upward_and_along(self) -> None:
        """An effect may stand above its cause, or on the same lane."""
        lanes = (Lane("a", (Mark(1.0, "up", cause="c"),)), Lane("b", (Mark(0.0, "cause", id="c"), Mark(2.0, "along", cause="c"))))
        assert 2 == len(plan_of(*lanes).links)
        ElementTree.fromstring(Diagram(lanes).svg)

    def test_stories_keep_their_colour(self) -> None:
        """The same on every lane, and when more comes; different ones differ."""

        def fills(*lanes: Lane) -> dict[str, set[str]]:
            found: dict[str, set[str]] = {}
            for node in ElementTree.fromstring(Diagram(lanes).svg).iter(f"{SVG}g"):
                circle = node.find(f"{SVG}circle")
                if circle is not None:
                    found.setdefault((node.findtext(f"{SVG}title") or "")[0], set()).add(circle.attrib["fill"])
            return found

        one = Lane("a", (Mark(0, "p long", story="p"), Mark(5, "q long", story="q")))
        two = Lane("b", (Mark(7, "p long", story="p"), Mark(9, "q long", story="q")))
        short, long = fills(one), fills(one, two)
        assert short == long
        assert [1, 1] == [len(colours) for colours in long.values()]
        assert long["p"] != long["q"]

    def test_many_stories_become_rings(self) -> None:
        """When the colours are used up, marbles are drawn hollow."""
        svg = Diagram((Lane("a", tuple(Mark(n, f"long {n}", story=str(n)) for n in range(8))),)).svg
        assert 'fill="none"' in "".join(re.findall(r"<circle[^>]*>", svg))

    def test_failed_is_told_without_colour(self) -> None:
        """By a cross, and by its text."""
        plain, failed = (Diagram((Lane("a", (Mark(0, "it broke", kind),)),)).svg for kind in ("next", "failed"))
        assert "m0 -" in failed
        assert "m0 -" not in plain

    def test_every_label_is_there_for_who_points_at_it(self) -> None:
        """What was cut or left out is in the title of its marble."""
        svg = Diagram((Lane("a", (Mark(0, "short", hint="all that is known"),)),)).svg
        assert "all that is known" in [node.text for node in ElementTree.fromstring(svg).iter(f"{SVG}title")]


class TestEdgeCases:
    """Nothing, one, and very many."""

    def test_nothing_recorded(self) -> None:
        """A lane without marks is drawn, and said to have none."""
        svg = Diagram((Lane("quiet"),)).svg
        assert {"1 stream · 0 events", "quiet", "0 events"} == set(texts(svg))

    def test_one_moment(self) -> None:
        """One event has a place, and an axis would say nothing."""
        plan = plan_of(Lane("a", dots(5.0), begin=5.0))
        assert plan.left <= plan.lanes[0].items[0].x <= plan.right

    def test_all_at_once(self) -> None:
        """Everything at the same moment is one pill."""
        assert [50] == [len(item.marks) for item in plan_of(Lane("a", dots(*[1.0] * 50))).lanes[0].items]

    def test_repr(self) -> None:
        """One line, whatever is in it."""
        assert "Diagram(1 stream · 2 events · 1 s)" == repr(Diagram((Lane("a", dots(1, 2)),)))

    def test_out_of_order(self) -> None:
        """Marks are put in the order of time."""
        assert ["at 1", "at 2"] == [mark.label for mark in Lane("a", dots(2, 1)).shown]

    def test_ten_thousand(self) -> None:
        """They are drawn at once, in a few pills that can be read."""
        began = time.perf_counter()
        svg = Diagram((Lane("many", dots(*(n * 0.007 for n in range(10_000)))),)).svg
        assert time.perf_counter() - began < 5.0  # a tenth of a second, alone on its machine
        assert len(svg) < 20_000
        assert 10_000 == sum(int(found.replace(",", "")) for found in re.findall(r">×([\d,]+)<", svg))

    def test_names_in_any_script(self) -> None:
        """Lanes are called what they are called."""
        names = ["用户.查询", "مستخدم", "प्रश्न", "χρήστης", "😀"]
        assert set(names) <= set(texts(Diagram(tuple(Lane(name, dots(0)) for name in names)).svg))


class TestNarrowAndMany:
    """What has little room."""

    def test_bursts_in_a_narrow_picture(self) -> None:
        """Breaks share the room with what happened: seven bursts are seven pills, inside."""
        marks = dots(*(burst * 4000.0 + n * 1e-3 for burst in range(7) for n in range(10)))
        for width in (360.0, 500.0, 920.0):
            diagram = Diagram((Lane("topic.of.some.length", marks),), width=width)
            plan = diagram.plan()
            assert max(item.right for item in plan.lanes[0].items) <= width
            assert 3 <= len(axis_labels(diagram.svg))
            if width == 920.0:
                assert (6, 7) == (len(plan.scale.breaks), len(plan.lanes[0].items))

    def test_neighbouring_breaks(self) -> None:
        """Two silences with one moment between them don't write over each other."""
        diagram = Diagram((Lane("a", dots(0, 0.001, 50_000, 100_000, 100_000.001)),))
        assert len(diagram.plan().scale.breaks) > 1
        assert [] != [said for said in texts(diagram.svg) if said.endswith(" idle")]
        rights = sorted((x, right) for x, right, y in axis_labels(diagram.svg) if y == max(label[2] for label in axis_labels(diagram.svg)))
        assert all(one[1] <= other[0] for one, other in pairwise(rights))

    def test_many_lanes(self) -> None:
        """Sixty are drawn, the rest is counted, in the picture and in the text."""
        lanes = tuple(Lane(f"t{n}", dots(float(n % 7))) for n in range(10_000))
        diagram = Diagram(lanes)
        for said in (texts(diagram.svg), str(diagram).splitlines()):
            assert "… and 9,940 more streams" in said
            assert any("10,000 streams" in line for line in said)
            assert any(line.split()[:1] == ["t59"] for line in said)
            assert not any(line.split()[:1] == ["t60"] for line in said)
        assert len(diagram.svg) < 200_000
        assert "more stream" not in Diagram(lanes[:60]).svg


class TestText:
    """The form for a terminal."""

    def test_short_labels(self) -> None:
        """Labels of one character stand on the lane, then how it ended; time runs below."""
        lanes = (
            Lane("a", (*dots(0, 1, label="x"), Mark(2.0, kind="completed"))),
            Lane("用户", (*dots(1.5, label="y"), Mark(2.0, "boom", "error"))),
        )
        _, first, second, axis, error = str(Diagram(lanes)).splitlines()
        assert re.fullmatch(r"a +x─+x─+\|", first)
        assert re.fullmatch(r"用户 +─+y─+X", second)
        assert "0" == axis.split()[0]
        assert "  X  用户: boom" == error

    def test_long_labels_have_a_key(self) -> None:
        """A letter on the lane, and what it stands for below."""
        text = str(Diagram((Lane("a", dots(0, 1)),), "title"))
        assert "title" == text.splitlines()[0]
        assert ["  a         0  a: at 0", "  b       1 s  a: at 1"] == text.splitlines()[-2:]

    def test_key_counts_from_the_beginning(self) -> None:
        """From that of the axis, which is when the recording began."""
        assert "  b       3 s  a: at 3" == str(Diagram((Lane("a", dots(2, 3), begin=0.0),))).splitlines()[-1]

    def test_many_are_counted(self) -> None:
        """A digit for a few at one place, a hash for ten and more, a wave for what was cut out."""
        text = str(Diagram((Lane("a", dots(*([0.0] * 3), *([1.0] * 30), 2.0, label="x")), Lane("b", dots(1.5)))))
        assert re.search(r"a +3─+#─+x", text)
        assert "≈" in str(Diagram((Lane("a", dots(*(n * 1e-5 for n in range(100)), 3600.0)),)))

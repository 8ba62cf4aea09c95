"""Who feeds whom, as text and as Mermaid, whatever the nodes are called."""

from __future__ import annotations

import dataclasses
import math
import random
import re
import time
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rxbus import REPLY, BusGraph, EventBus
from rxbus.graph import Edge
from rxbus.lettering import clean
from rxbus.testing import VirtualBus

from .support import LIMIT

HOSTILE = [
    'x"] --> t0["y',
    "x<script>alert(1)</script>",
    "x\n    t0 --> s0",
    "x\rforged",
    "x\u2028forged",
    "x\x85forged",
    "x; click s0 href 'https://example.org'",
    "x `code` **bold**",
    "x#quot;",
    "x&quot;&lt;",
    "%%{init: {}}%%",
    "end",
    "subgraph",
    "a|b{c}(d)[e]/f\\g",
    "observer@user.*",
    "observer@user.>",
    "用户 😀",
    "\x1b[31mred",
    "x\x00y",
]

NODE = re.compile(
    r'    (?P<key>[ts]\d+)(?P<open>\(\[|\[)"(?P<label>[^"\[\](){}<>`&;%|\\/\n]*(?:#\d+;[^"\[\](){}<>`&;%|\\/\n]*)*)"(?P<close>\]\)|\])'
)
EDGE = re.compile(r"    (?P<source>[ts]\d+) (?P<line>-->|-\.->) (?P<target>[ts]\d+)")


def parse(mermaid: str) -> tuple[dict[str, str], list[tuple[str, str, str]]]:
    """The labels by key and the edges of a flow chart; every line is one or the other, nothing else."""
    head, *lines = re.split(r"\r\n|[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]", mermaid)
    assert "flowchart LR" == head
    labels: dict[str, str] = {}
    edges: list[tuple[str, str, str]] = []
    for line in lines:
        node, edge = NODE.fullmatch(line), EDGE.fullmatch(line)
        assert node or edge, line
        if node:
            assert (("([", "])") if node["key"].startswith("t") else ("[", "]")) == (node["open"], node["close"])
            assert node["key"] not in labels
            labels[node["key"]] = re.sub(r"#(\d+);", lambda m: chr(int(m[1])), node["label"])
        elif edge:
            edges.append((edge["source"], edge["line"], edge["target"]))
    return labels, edges


def drawn(mermaid: str) -> set[tuple[str, str, str]]:
    """The edges between the names of their ends."""
    labels, edges = parse(mermaid)
    return {(labels[source], line, labels[target]) for source, line, target in edges}


def handler(event: Any) -> None:
    """Does nothing."""


class TestTopology:
    """What a bus tells about itself."""

    def test_empty_bus(self) -> None:
        """A bus without topics is its name, and an empty chart."""
        with EventBus("quiet") as bus:
            graph = bus.graph()
        assert BusGraph("quiet", (), (), (), ()) == graph
        assert "quiet" == str(graph)
        assert "flowchart LR" == graph.mermaid

    def test_the_main_job(self) -> None:
        """Three readers of a query, one of which feeds a fourth: as declared."""
        with EventBus("agents") as bus:
            bus.subscribe("user.query", handler, name="audit")
            bus.subscribe("user.query", handler, name="notify")
            bus.subscribe("user.query", handler, name="research", to="research.complete")
            bus.subscribe("research.complete", handler, name="email")
            graph = bus.graph()
        assert ("user.query", "research.complete") == graph.topics
        assert ("audit", "notify", "research", "email") == graph.subscriptions
        assert (
            Edge("user.query", "audit", True),
            Edge("user.query", "notify", True),
            Edge("user.query", "research", True),
            Edge("research.complete", "email", True),
        ) == graph.consumes
        assert (Edge("research", "research.complete", True),) == graph.feeds
        assert [
            "agents",
            "  user.query",
            "    ├─ audit",
            "    ├─ notify",
            "    └─ research ──▶ research.complete",
            "  research.complete",
            "    └─ email",
        ] == str(graph).splitlines()
        assert {
            ("user.query", "-->", "audit"),
            ("user.query", "-->", "notify"),
            ("user.query", "-->", "research"),
            ("research", "-->", "research.complete"),
            ("research.complete", "-->", "email"),
        } == drawn(graph.mermaid)

    def test_what_was_seen_is_dashed(self) -> None:
        """An edge that no program declared appears once it carried an event, and as a dotted line."""
        with EventBus() as bus:
            bus.subscribe("a", lambda _: bus.publish("b", 1), name="agent")
            assert () == bus.graph().feeds
            bus.deliver("a", 1, timeout=10)
            graph = bus.graph()
        assert (Edge("agent", "b", False),) == graph.feeds
        assert "    └─ agent ╌╌▶ b" in str(graph).splitlines()
        assert {("a", "-->", "agent"), ("agent", "-.->", "b")} == drawn(graph.mermaid)

    @pytest.mark.parametrize("kind", [EventBus, VirtualBus])
    def test_who_asks_whom_is_seen(self, kind: type[EventBus]) -> None:
        """A request is traffic, too, however it is sent."""
        with kind() as bus:
            bus.subscribe("stock", lambda _: 1, to=REPLY, name="quote")
            bus.subscribe("order", lambda _: bus.request("stock", 1).run().payload, name="runs")
            bus.subscribe("order", lambda _: bus.request("stock", 1), to="price", name="returns")
            bus.deliver("order", 1, timeout=10)
            bus.drain(10)
            seen = {(edge.source, edge.target) for edge in bus.graph().feeds}
        assert {("runs", "stock"), ("returns", "stock"), ("returns", "price")} == seen

    def test_declared_edge_that_was_seen_stays_solid(self) -> None:
        """Traffic along a declared edge adds none, and doesn't make it weaker."""
        with EventBus() as bus:
            bus.subscribe("a", lambda e: e.payload, name="agent", to="b")
            bus.deliver("a", 1, timeout=10)
            bus.deliver("a", 2, timeout=10)
            graph = bus.graph()
        assert (Edge("agent", "b", True),) == graph.feeds

    def test_pattern_consumes_the_topics_that_there_are(self) -> None:
        """A pattern has an edge from each topic that it selects now, and from no other."""
        with EventBus() as bus:
            bus.topic("user.query")
            bus.subscribe("user.*", handler, name="watcher")
            bus.topic("user.login")
            bus.topic("system.log")
            graph = bus.graph()
        assert {("user.query", "watcher"), ("user.login", "watcher")} == {(e.source, e.target) for e in graph.consumes}
        assert {("user.query", "-->", "watcher"), ("user.login", "-->", "watcher")} == drawn(graph.mermaid)

    def test_pattern_without_topics(self) -> None:
        """A subscription that no topic feeds yet is shown all the same."""
        with EventBus("b") as bus:
            bus.subscribe("user.*", handler, name="watcher")
            graph = bus.graph()
        assert ["b", "  watcher (no topic yet)"] == str(graph).splitlines()
        assert {"s0": "watcher"} == parse(graph.mermaid)[0]

    def test_pattern_without_topics_shows_where_it_leads(self) -> None:
        """What a subscription declares to feed is in the text even while nothing feeds it."""
        with EventBus("b") as bus:
            bus.subscribe("user.*", handler, name="watcher", to="report")
            graph = bus.graph()
        assert {("watcher", "-->", "report")} == drawn(graph.mermaid)
        line = next(line for line in str(graph).splitlines() if "watcher" in line)
        assert "──▶ report" in line

    def test_topic_without_readers(self) -> None:
        """A topic that nobody consumes is shown."""
        with EventBus("b") as bus:
            bus.topic("a")
            graph = bus.graph()
        assert ["b", "  a"] == str(graph).splitlines()
        assert ({"t0": "a"}, []) == parse(graph.mermaid)

    def test_circle(self) -> None:
        """A subscription that feeds its own topic has an edge each way."""
        with EventBus() as bus:
            bus.subscribe("a", handler, name="loop", to="a")
            graph = bus.graph()
        assert {("a", "-->", "loop"), ("loop", "-->", "a")} == drawn(graph.mermaid)
        assert "    └─ loop ──▶ a" in str(graph).splitlines()

    def test_disposed_and_forgotten_are_gone(self) -> None:
        """The graph shows what lives."""
        with EventBus() as bus:
            bus.subscribe("a", handler, name="gone").dispose()
            bus.subscribe("a", handler, name="here")
            bus.topic("b")
            bus.forget("b")
            graph = bus.graph()
        assert (("a",), ("here",)) == (graph.topics, graph.subscriptions)

    def test_same_name_for_a_topic_and_a_subscription(self) -> None:
        """A topic and a subscription of one name are two nodes."""
        with EventBus() as bus:
            bus.subscribe("a", handler, name="a", to="a")
            labels, edges = parse(bus.graph().mermaid)
        assert {"t0": "a", "s0": "a"} == labels
        assert {("t0", "-->", "s0"), ("s0", "-->", "t0")} == set(edges)

    def test_snapshot(self) -> None:
        """A graph stays what it was when the bus changes, and can't be changed itself."""
        with EventBus() as bus:
            bus.topic("a")
            graph: Any = bus.graph()
            bus.subscribe("a", handler, to="b")
        assert (("a",), (), ()) == (graph.topics, graph.subscriptions, graph.feeds)
        with pytest.raises(dataclasses.FrozenInstanceError):
            graph.topics = ()

    def test_works_on_a_closed_bus(self) -> None:
        """A bus tells about its topics after the end too."""
        with EventBus("b") as bus:
            bus.topic("a")
        assert "b\n  a" == str(bus.graph())


class TestHostileNames:
    """A name is text, in every drawing."""

    @pytest.mark.parametrize("name", HOSTILE, ids=ascii)
    def test_mermaid_shows_the_name_and_nothing_else(self, name: str) -> None:
        """No name of a subscription ends its quotes, begins a line or becomes markup; decoded, it is the name."""
        with EventBus(name) as bus:
            bus.topic("a")
            bus.subscribe("a", handler, name=name, to="b")
            labels, edges = parse(bus.graph().mermaid)
        assert {"t0": "a", "t1": "b", "s0": name} == labels
        assert [("t0", "-->", "s0"), ("s0", "-->", "t1")] == edges

    @pytest.mark.parametrize("name", HOSTILE, ids=ascii)
    def test_text_has_one_line_a_node(self, name: str) -> None:
        """No name forges a line of the text: the bus, two topics, one reader, and the reader in search of a topic."""
        with EventBus(name) as bus:
            bus.topic("a")
            bus.subscribe("a", handler, name=name, to="b")
            bus.subscribe("x.*", handler, name=f"{name} too")
            lines = str(bus.graph()).splitlines()
        assert 5 == len(lines)
        assert ("  a", "  b") == (lines[1], lines[3])
        assert lines[2].startswith("    └─ ")
        assert lines[4].endswith(" (no topic yet)")

    @pytest.mark.parametrize("name", ["x\x1b[31mred", "x\x1b]0;title\x07", "x\x08\x08y", "x\x00y"], ids=ascii)
    def test_text_has_no_control_characters(self, name: str) -> None:
        """A name that a terminal would take for a command is shown, not obeyed."""
        with EventBus("b") as bus:
            bus.subscribe("a", handler, name=name)
            text = str(bus.graph())
        assert [] == re.findall(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)

    @pytest.mark.parametrize("name", ["χρήστης.ερώτηση", "用户.查询", "प्रयोक्ता.प्रश्न", "مستخدم.استعلام"])
    def test_topics_in_any_script(self, name: str) -> None:
        """A topic is shown under its name, in letters of any script."""
        with EventBus("b") as bus:
            bus.subscribe(name, handler, name="reader")
            graph = bus.graph()
        assert f"  {name}" in str(graph).splitlines()
        assert {(name, "-->", "reader")} == drawn(graph.mermaid)


SVG = "{http://www.w3.org/2000/svg}"
ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()), min_size=1, max_size=20)


def hints(svg: str) -> list[str]:
    """What is said of each box to who points at it."""
    return [
        node.findtext(f"{SVG}title") or "" for node in ElementTree.fromstring(svg).iter(f"{SVG}g") if node.find(f"{SVG}title") is not None
    ]


def texts(svg: str) -> list[str]:
    """The lines of text, a line with parts in one piece."""
    return ["".join(node.itertext()) for node in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def arrows(svg: str) -> int:
    """How many arrow heads there are."""
    return len([node for node in ElementTree.fromstring(svg).iter(f"{SVG}path") if node.get("stroke") == "none"])


@st.composite
def graphs(draw: st.DrawFn) -> BusGraph:
    topics = draw(st.lists(ANY_TEXT, max_size=6, unique=True))
    subscriptions = draw(st.lists(ANY_TEXT, max_size=6, unique=True))
    consumes, feeds = [], []
    if topics and subscriptions:
        topic, subscription, events = st.sampled_from(topics), st.sampled_from(subscriptions), st.none() | st.integers(0, 10**7)
        consumes = draw(st.lists(st.builds(Edge, topic, subscription, st.just(True), events), max_size=8))
        feeds = draw(st.lists(st.builds(Edge, subscription, topic, st.booleans(), events), max_size=8))
    return BusGraph(draw(ANY_TEXT), tuple(topics), tuple(subscriptions), tuple(consumes), tuple(feeds))


class TestPicture:
    """The graph draws itself."""

    @given(graphs())
    @settings(deadline=None)
    def test_everything_is_drawn(self, graph: BusGraph) -> None:
        """Whatever the nodes are called, each is there once, with an arrow for each edge, in the same way each time."""
        svg = graph.svg
        assert sorted(clean(name) for name in (*graph.topics, *graph.subscriptions)) == sorted(hints(svg))
        assert len(graph.consumes) + len(graph.feeds) == arrows(svg)
        assert svg == graph.svg

    @pytest.mark.parametrize("name", HOSTILE, ids=ascii)
    def test_hostile_names(self, name: str) -> None:
        """A name is text, whatever is in it."""
        with EventBus(name) as bus:
            bus.subscribe("a", handler, name=name, to="b")
            svg = bus.graph().svg
        assert {"svg", "title", "style", "text", "tspan", "g", "rect", "path"} >= {
            node.tag.removeprefix(SVG) for node in ElementTree.fromstring(svg).iter()
        }
        assert clean(name) == ElementTree.fromstring(svg).findtext(f"{SVG}title")

    def test_counts(self) -> None:
        """What was published, handled, failed, and what a group and a pattern are, stands with the node."""

        def fail(event: Any) -> None:
            raise ValueError("no")

        with EventBus("b") as bus:
            bus.subscribe("a", fail, name="agent")
            bus.subscribe("a", handler, name="member", group="team")
            bus.subscribe("*", handler, name="watcher", to="out")
            bus.publish("a", 1)
            bus.publish("a", 2)
            bus.drain(LIMIT)
            svg = bus.graph().svg
        assert {"2 published", "0 handled · ▲ 2 failed", "in group team", "*"} <= set(texts(svg))
        assert "2 topics · 3 subscriptions · 2 published · 2 failed" in texts(svg)

    def test_seen_edges_are_dashed(self) -> None:
        """Declared ones are not."""
        with EventBus() as bus:
            bus.subscribe("a", lambda _: bus.publish("b", 1), name="agent")
            assert "stroke-dasharray" not in bus.graph().svg
            bus.deliver("a", 1, timeout=LIMIT)
            svg = bus.graph().svg
        assert 2 == svg.count("stroke-dasharray")  # the arrow, and the legend
        assert "seen in traffic" in texts(svg)

    def test_traffic_makes_edges_wide(self) -> None:
        """By its number of digits."""

        def width(events: int | None) -> float:
            svg = BusGraph("b", ("a",), ("s",), (Edge("a", "s", True, events),), ()).svg
            return max(float(found) for found in re.findall(r'<path d="[^"]*" stroke-width="([\d.]+)"', svg))

        assert width(None) == width(0) < width(10) < width(1000) < width(10**5)
        assert width(10**9) < 5

    def test_empty(self) -> None:
        """A bus without topics is a small picture that says so."""
        svg = BusGraph("quiet", (), (), (), ()).svg
        assert ["quiet", "no topics and no subscriptions yet"] == texts(svg)

    def test_large(self) -> None:
        """200 topics with 300 subscriptions are drawn in under a second."""
        subscriptions = tuple(f"agent {n}" for n in range(300))
        consumes = tuple(Edge(f"t.{n % 200}", name, True, n) for n, name in enumerate(subscriptions))
        feeds = tuple(Edge(name, f"t.{n * 7 % 200}", n % 2 == 0) for n, name in enumerate(subscriptions) if n % 5 == 0)
        graph = BusGraph("large", tuple(f"t.{n}" for n in range(200)), subscriptions, consumes, feeds)
        began = time.perf_counter()
        svg = graph.svg
        assert time.perf_counter() - began < 5.0  # a tenth of a second, alone on its machine
        assert 500 == len(hints(svg))
        assert 360 == arrows(svg)

    def test_same_name_for_a_topic_and_a_subscription(self) -> None:
        """Two boxes, and arrows between them."""
        with EventBus() as bus:
            bus.subscribe("a", handler, name="a", to="a")
            svg = bus.graph().svg
        assert (2, 2) == (len(hints(svg)), arrows(svg))


class TestBooks:
    """What a graph knows beyond its topology."""

    def test_traffic_of_edges(self) -> None:
        """From a topic what the subscription was offered; to a topic what was published there, where that tells."""
        with EventBus() as bus:
            bus.subscribe("a", lambda e: e.payload, name="one", to="x")
            bus.subscribe("b", lambda e: e.payload, name="two", to="y")
            bus.subscribe("b", lambda e: e.payload, name="three", to="y")
            bus.subscribe(">", handler, name="all")
            for _ in range(3):
                bus.publish("a", 1)
            bus.publish("b", 1)
            bus.drain(LIMIT)
            graph = bus.graph()
        assert {
            ("a", "one"): 3,
            ("b", "two"): 1,
            ("b", "three"): 1,
            ("a", "all"): 3,
            ("b", "all"): 1,
            ("x", "all"): 3,
            ("y", "all"): 2,
        } == {(e.source, e.target): e.events for e in graph.consumes}
        assert {("one", "x"): 3, ("two", "y"): None, ("three", "y"): None} == {(e.source, e.target): e.events for e in graph.feeds}
        assert graph.statistics is not None
        assert 3 == graph.statistics.topics["a"].published

    def test_members_share_a_count(self) -> None:
        """What a topic fed to a group isn't known of one member."""
        with EventBus() as bus:
            bus.subscribe("a", handler, name="m", group="team")
            bus.deliver("a", 1, timeout=LIMIT)
            graph = bus.graph()
        assert [None] == [edge.events for edge in graph.consumes]
        assert {"m": "team"} == dict(graph.groups)

    def test_equal_by_topology(self) -> None:
        """Traffic makes no difference, a subscription does; equal ones have one hash."""
        with EventBus("b") as bus:
            bus.subscribe("a", handler, name="reader")
            before = bus.graph()
            bus.deliver("a", 1, timeout=LIMIT)
            after = bus.graph()
            bus.subscribe("a", handler, name="another")
            assert (before, hash(before)) == (after, hash(after))
            assert before != bus.graph()


def timed(graph: BusGraph) -> str:
    """The picture, which has to be there soon."""
    began = time.perf_counter()
    svg = graph.svg
    assert time.perf_counter() - began < 5.0  # a tenth of a second, alone on its machine
    return svg


def size(svg: str) -> tuple[float, float]:
    """Width and height."""
    box = ElementTree.fromstring(svg).get("viewBox") or ""
    return float(box.split()[2]), float(box.split()[3])


def tangle(topics: int, subscriptions: int, reads: int, feeds: int, *, declared: bool = False) -> BusGraph:
    """Every subscription reads and feeds topics without any order."""
    chance = random.Random(5)
    ones, others = tuple(f"t{n}" for n in range(topics)), tuple(f"s{n}" for n in range(subscriptions))
    consumes = tuple(Edge(topic, name, True) for name in others for topic in chance.sample(ones, reads))
    return BusGraph(
        "b", ones, others, consumes, tuple(Edge(name, topic, declared) for name in others for topic in chance.sample(ones, feeds))
    )


class TestCrowds:
    """Large graphs: what is drawn can be read, what isn't is counted or named."""

    def test_wildcards_on_many_topics(self) -> None:
        """All the topics of a pattern are one box, with one arrow to each who reads it, and those that something else is connected
        with are drawn besides and say so; the data and Mermaid have every edge."""
        with EventBus() as bus:
            for n in range(200):
                bus.topic(f"t{n}.x")
            for n in range(20):
                bus.subscribe("*.x", handler, to=f"t{n * 10}.x", name=f"agent{n}")
            graph = bus.graph()
        svg = timed(graph)
        assert (41, 40) == (len(hints(svg)), arrows(svg))
        assert 20 == sum(said.endswith("in *.x") for said in texts(svg))
        assert ["200 topics"] == [line for line in texts(svg) if "200 topics" in line and "subscriptions" not in line]
        assert max(size(svg)) < 3000
        assert 4000 == len(graph.consumes) == graph.mermaid.count(" --> ") - 20

    @pytest.mark.parametrize("extra", [0, 250])
    def test_no_topic_without_its_readers(self, extra: int) -> None:
        """Where not everything is drawn, a topic is there with all who read it or not at all; boxes name what else they feed."""
        topics, ones = tuple(f"t{n}" for n in range(400)), tuple(f"s{n}" for n in range(400))
        consumes = [Edge(*pair, True) for pair in zip(topics, ones, strict=True)]
        consumes += [Edge(f"t{n}", f"extra{n}", True) for n in range(extra)]
        feeds = tuple(Edge(f"s{n}", f"t{n // 2 + 200}", True) for n in range(400))
        svg = timed(BusGraph("b", topics, (*ones, *(f"extra{n}" for n in range(extra))), tuple(consumes), feeds))
        drawn = {said.split(" · ")[0] for said in hints(svg)}
        assert 590 < len(drawn) <= 600
        assert [] == [edge for edge in consumes if edge.source in drawn and edge.target not in drawn]
        assert [] == [edge for edge in consumes if edge.source not in drawn and edge.target in drawn]
        left = sum(name not in drawn for name in topics), sum(name not in drawn for name in (*ones, *(f"extra{n}" for n in range(extra))))
        assert f"… and {left[0]} topics and {left[1]} subscriptions more" in texts(svg)
        assert sum("──▶ t" in said for said in texts(svg)) >= sum(edge.source in drawn and edge.target not in drawn for edge in feeds) > 0

    def test_a_topic_with_more_readers_than_are_drawn(self) -> None:
        """It says how many there are besides."""
        ones = tuple(f"s{n}" for n in range(1000))
        svg = timed(BusGraph("b", ("t",), ones, tuple(Edge("t", one, True) for one in ones), ()))
        assert (600, 599) == (len(hints(svg)), arrows(svg))
        assert {"401 subscriptions more", "… and 401 subscriptions more"} <= set(texts(svg))

    def test_few_topics_are_drawn_one_by_one(self) -> None:
        """Twelve topics of a pattern have an arrow each; thirteen have one, which is as wide as all their events."""
        for many, drawn in ((12, 12), (13, 1)):
            names = tuple(f"t{n}" for n in range(many))
            svg = BusGraph("b", names, ("s",), tuple(Edge(name, "s", True, 10) for name in names), ()).svg
            assert drawn == arrows(svg)
        assert f'stroke-width="{1.2 + 0.55 * math.log10(131):.2f}"' in svg

    @pytest.mark.parametrize(("feeds", "declared"), [(5, False), (5, True), (40, False)], ids=str)
    def test_tangles_are_named(self, feeds: int, declared: bool) -> None:
        """Arrows that nobody could follow are names in the boxes of those that they come from."""
        graph = tangle(200, 200, 1, feeds, declared=declared)
        svg = timed(graph)
        assert (400, 200) == (len(hints(svg)), arrows(svg))
        line = "──▶" if declared else "╌╌▶"
        first = next(edge.target for edge in graph.feeds if edge.source == "s0")
        assert 200 == sum(f"{line} t" in said and f"+{feeds - 1}" in said for said in texts(svg))
        assert any(said.startswith("s0 · ") and f"{line} {first}," in said for said in hints(svg))
        assert "topics that a subscription feeds are named in its box, to keep the picture legible" in texts(svg)
        assert max(size(svg)) < 6000

    def test_declared_arrows_stay(self) -> None:
        """Where what was only seen is the tangle, what the program says is drawn."""
        graph = tangle(100, 100, 1, 6)
        ordered = tuple(Edge(f"s{n}", f"t{n + 100}", True) for n in range(100))
        graph = dataclasses.replace(graph, topics=tuple(f"t{n}" for n in range(200)), feeds=(*ordered, *graph.feeds))
        assert 200 == arrows(timed(graph))

    def test_long_chain_is_folded(self) -> None:
        """A hundred agents in a row fill a page instead of a mile."""
        names = tuple(f"t{n}" for n in range(101))
        agents = tuple(f"s{n}" for n in range(100))
        graph = BusGraph(
            "b",
            names,
            agents,
            tuple(Edge(f"t{n}", f"s{n}", True) for n in range(100)),
            tuple(Edge(f"s{n}", f"t{n + 1}", True) for n in range(100)),
        )
        svg = timed(graph)
        assert size(svg)[0] < 1500
        assert "──▶ t1" in texts(svg)

    def test_ten_thousand(self) -> None:
        """Some are drawn with those that they feed, the rest is counted; so in the text of a notebook, while ``str`` has all."""
        topics, ones = tuple(f"t{n}" for n in range(10_000)), tuple(f"s{n}" for n in range(10_000))
        graph = BusGraph("b", topics, ones, tuple(Edge(*pair, True) for pair in zip(topics, ones, strict=True)), ())
        svg = timed(graph)
        assert (600, 300) == (len(hints(svg)), arrows(svg))
        assert "… and 9,700 topics and 9,700 subscriptions more" in texts(svg)
        began = time.perf_counter()
        shown, whole = graph._repr_mimebundle_(), str(graph)
        assert time.perf_counter() - began < 5.0  # a third of a second, alone on its machine
        assert 1_000_000 > len(shown["text/html"])
        lines = shown["text/plain"].splitlines()
        assert (201, "… and 19,801 more lines") == (len(lines), lines[-1])
        assert lines[:200] == whole.splitlines()[:200]
        assert 20_001 == len(whole.splitlines())

    def test_long_lines_of_text(self) -> None:
        """A subscription that was seen to feed thousands of topics has a line that ends."""
        topics = tuple(f"t{n}" for n in range(5000))
        graph = BusGraph("b", topics[:1], ("s",), (Edge("t0", "s", True),), tuple(Edge("s", topic, False) for topic in topics))
        shown = graph._repr_mimebundle_(include={"text/plain"})["text/plain"]
        assert (3, True) == (len(shown.splitlines()), len(shown) < 1000)

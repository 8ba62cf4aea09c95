"""Who feeds whom, as text and as Mermaid, whatever the nodes are called."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from rxbus import BusGraph, EventBus
from rxbus.graph import Edge

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

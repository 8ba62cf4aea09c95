"""The pictures of the main job that the README shows: ``python -m tests.pictures`` draws them into ``notebooks/``.

What is drawn is what happened in a real run. Only the moments are nominal, so that the same picture comes out every time.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from rxbus import EventBus, __main__
from rxbus.diagram import Diagram
from rxbus.marks import Mark
from rxbus.plan import Lane

from .support import LIMIT, Witness

FOLDER = Path(__file__).parent.parent / "notebooks"
GRAPH, MARBLES = FOLDER / "main-job.svg", FOLDER / "main-job-marbles.svg"
MOMENTS = {
    "user.query": (0.0, 0.1),
    "audit": (0.2, 0.4),
    "notify": (0.01, 0.11),
    "research": (0.04, 0.14),
    "research.complete": (0.045,),
    "email": (0.075,),
}
"""Nominal seconds of what happened, lane by lane."""


def run_main_job() -> tuple[str, Witness]:
    """Runs it; the picture of its topology, and what happened."""
    witness = Witness()
    with pytest.MonkeyPatch.context() as patch, EventBus("main job", instruments=[witness]) as bus:
        patch.setattr(__main__, "show", lambda line: None)
        __main__.connect(bus, __main__.Timeline())
        for query in __main__.QUERIES:
            bus.publish("user.query", query, metadata=__main__.USER)
        bus.drain(LIMIT)
        return bus.graph().svg, witness


def marbles(witness: Witness) -> str:
    """What happened, with nominal moments: a lane for each topic and for each agent."""
    published = [call[1] for call in witness.of("published")]
    stories = {event.id: f"story {n}" for n, event in enumerate(event for event in published if not event.hops)}
    lanes: list[Lane] = []
    for name, moments in MOMENTS.items():
        marks: list[Mark] = []
        for event in published:
            if event.topic == name:  # what an agent published comes from its own marble
                cause = None if event.causation_id is None else f"research of {event.causation_id}"
                marks.append(Mark(moments[len(marks)], _words(event.payload), "next", stories[event.correlation_id], event.id, cause))
        for hook, event, subscription, what, *_ in witness.of("handled", "failed"):
            if subscription.name == name:
                moment, story = moments[len(marks)], stories[event.correlation_id]
                said, kind = (str(what), "failed") if hook == "failed" else ("", "next")
                marks.append(Mark(moment, said, kind, story, f"{name} of {event.id}", event.id))
        lanes.append(Lane(name, tuple(marks), 0.0))
    return Diagram(tuple(lanes), "The main job: what was published, and when each agent had handled it (nominal times)").svg


def _words(payload: object) -> str:
    return str(payload["summary"]) if isinstance(payload, dict) else str(payload)


if __name__ == "__main__":
    graph, seen = run_main_job()
    GRAPH.write_text(graph + "\n", encoding="utf-8")
    MARBLES.write_text(marbles(seen) + "\n", encoding="utf-8")

"""The main job: ``python -m rxbus ["a first query"]``.

Three agents react to each query independently; one of them publishes what a fourth reacts to. The auditor is slow and delays
nobody, the researcher fails once and harms nobody.
"""

from __future__ import annotations

import io
import itertools
import logging
import os
import sys
import threading
import time

from rxbus import DeadLetter, Event, EventBus, current

QUERIES = ["What is the company revenue?", "Who are our ten largest customers?"]
USER = {"user_id": "user-123", "session_id": "sess-456"}


def visible(text: object) -> str:
    """The text on one line: whatever a terminal would act upon is shown as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def show(line: str) -> None:
    """Prints a line in one piece: agents on several threads print at once."""
    print(f"{line}\n", end="", flush=True)


class Timeline:
    """What the agents said, with when, on which thread, and about which event."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._rows: list[tuple[str, str, str, str, str]] = []

    def say(self, line: str) -> None:
        """Prints the line of whoever is handling an event right now, and takes it down."""
        show(line)
        delivery = current()
        if delivery is not None:
            event = delivery.event
            elapsed = f"{(time.perf_counter() - self._began) * 1000:.0f} ms"
            thread = threading.current_thread().name
            self._rows.append((elapsed, thread, delivery.subscription.name, event.id, event.causation_id or "-"))

    def __str__(self) -> str:
        rows = [("after", "thread", "agent", "event", "caused by"), *self._rows]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def connect(bus: EventBus, timeline: Timeline) -> None:
    """Puts the agents on the bus."""
    calls = itertools.count(1)

    @bus.on("user.query", name="audit")
    def audit(event: Event[str]) -> None:
        time.sleep(0.2)
        timeline.say(f"[AUDIT] User {event.metadata['user_id']} asked: {visible(event.payload)}")

    @bus.on("user.query", name="notify")
    def notify(event: Event[str]) -> None:
        timeline.say(f"[NOTIFY] Processing query from session {event.metadata['session_id']}")

    @bus.on("user.query", name="research", to="research.complete")
    def research(event: Event[str]) -> dict[str, str]:
        if next(calls) == 2:
            raise ConnectionError("the search index did not answer")
        timeline.say(f"[RESEARCH] Looking into: {visible(event.payload)}")
        return {"summary": f"Research result for: {event.payload}", "original_query": event.payload}

    @bus.on("research.complete", name="email")
    def email(event: Event[dict[str, str]]) -> None:
        timeline.say(f"[EMAIL] Sending summary: {visible(event.payload['summary'])}")

    def report(letter: DeadLetter) -> None:
        show(f"[ERROR] {letter.subscription} failed on {letter.event.topic}: {visible(letter.error)}")

    bus.dead_letters.subscribe(report)


def main(arguments: list[str]) -> int:
    """Runs the scenario; the arguments, if any, are the first query."""
    if arguments in (["-h"], ["--help"]):
        print("usage: python -m rxbus [query ...]\n\nFour agents react to queries on one bus, and to one another.")
        return 0
    query = " ".join(arguments)
    out: object = sys.stdout
    if isinstance(out, io.TextIOWrapper):
        out.reconfigure(errors="backslashreplace")  # a narrow terminal is no error
    logging.getLogger("rxbus").addHandler(logging.NullHandler())  # `report` prints what would be logged
    queries = [query, *QUERIES[1:]] if query else QUERIES

    timeline = Timeline()
    with EventBus("main job") as bus:
        connect(bus, timeline)
        for query in queries:
            bus.publish("user.query", query, metadata=USER)
        bus.drain()

        print(f"\nTimeline\n{timeline}")
        print("\nDead letters")
        for letter in bus.dead_letters:
            print(f"{letter.subscription} gave up {visible(repr(letter.event.payload))} of {letter.event.topic} ({letter.event.id})")
            print(f"  {letter.reason.value} after {letter.attempts} attempt: {visible(repr(letter.error))}")
        print(f"\nTopology\n{bus.graph()}")
        print(f"\nStatistics\n{bus.statistics()}")
    return 0


if __name__ == "__main__":
    try:
        code = main(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read this has read enough; what else is flushed at the end goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)

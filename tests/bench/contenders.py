"""What is measured: each contender handles a given number of events and says how long that took.

A contender sets up, then takes the time from the first publish to the last event handled; the caller checks the count. They
are run in processes of their own: ``python -m tests.bench.contenders NAME EVENTS`` prints the seconds.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import reactivex
from reactivex import operators as ops
from reactivex.scheduler import ThreadPoolScheduler
from reactivex.subject import Subject

from rxbus import Event, EventBus

Contender = Callable[[int], tuple[float, int]]
CONTENDERS: dict[str, Contender] = {}
SUBSCRIBERS = 8


def contender(name: str) -> Callable[[Contender], Contender]:
    """Enters a function under a name."""

    def enter(function: Contender) -> Contender:
        CONTENDERS[name] = function
        return function

    return enter


class Count:
    """Counts the calls of one handler, and says when the expected number was reached."""

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.calls = 0
        self.done = threading.Event()

    def __call__(self, _: Any) -> None:
        self.calls += 1
        if self.calls == self.expected:
            self.done.set()


def finish(counts: list[Count], started: float) -> tuple[float, int]:
    """Waits for all; the seconds, and the events counted."""
    for count in counts:
        if not count.done.wait(300):
            raise TimeoutError(f"{count.calls} of {count.expected} events were handled")
    return time.perf_counter() - started, sum(count.calls for count in counts)


@contender("hop")
def simple_queue_hop(events: int) -> tuple[float, int]:
    """The practical limit: one thread puts, another is in a blocking get from the start."""
    queue: SimpleQueue[int | None] = SimpleQueue()
    count = Count(events)

    def consume() -> None:
        while (item := queue.get()) is not None:
            count(item)

    consumer = threading.Thread(target=consume, daemon=True)
    consumer.start()
    started = time.perf_counter()
    for n in range(events):
        queue.put(n)
    taken = finish([count], started)
    queue.put(None)
    consumer.join()
    return taken


@contender("rxbus one")
def rxbus_one(events: int) -> tuple[float, int]:
    """One subscriber on the default pool."""
    return _rxbus(events, 1)


@contender("rxbus eight")
def rxbus_eight(events: int) -> tuple[float, int]:
    """Eight subscribers on the default pool; events are deliveries."""
    return _rxbus(events, SUBSCRIBERS)


def _rxbus(events: int, subscribers: int) -> tuple[float, int]:
    publishes = events // subscribers
    counts = [Count(publishes) for _ in range(subscribers)]
    with EventBus(capacity=max(publishes, 65_536)) as bus:
        for count in counts:
            bus.subscribe("work", count)
        started = time.perf_counter()
        for n in range(publishes):
            bus.publish("work", n)
        return finish(counts, started)


@contender("rxbus chain")
def rxbus_chain(events: int) -> tuple[float, int]:
    """Three topics, each feeding the next."""
    count = Count(events)
    with EventBus(capacity=max(events, 65_536)) as bus:

        def forward(event: Event[int]) -> int:
            return event.payload

        bus.subscribe("a", forward, to="b")
        bus.subscribe("b", forward, to="c")
        bus.subscribe("c", count)
        started = time.perf_counter()
        for n in range(events):
            bus.publish("a", n)
        return finish([count], started)


@contender("rxpy one")
def rxpy_one(events: int) -> tuple[float, int]:
    """Plain RxPY: a Subject, one observer on a thread pool."""
    return _rxpy(events, 1)


@contender("rxpy eight")
def rxpy_eight(events: int) -> tuple[float, int]:
    """Plain RxPY: a Subject, eight observers on a thread pool; events are deliveries."""
    return _rxpy(events, SUBSCRIBERS)


def _rxpy(events: int, subscribers: int) -> tuple[float, int]:
    publishes = events // subscribers
    counts = [Count(publishes) for _ in range(subscribers)]
    scheduler = ThreadPoolScheduler(8)
    subject: Subject[int] = Subject()
    for count in counts:
        subject.pipe(ops.observe_on(scheduler)).subscribe(count)
    started = time.perf_counter()
    for n in range(publishes):
        subject.on_next(n)
    return finish(counts, started)


@contender("rxpy chain")
def rxpy_chain(events: int) -> tuple[float, int]:
    """Plain RxPY: three Subjects, each feeding the next on a thread pool."""
    count = Count(events)
    scheduler = ThreadPoolScheduler(8)
    a, b, c = Subject[int](), Subject[int](), Subject[int]()

    def forward(value: int) -> int:
        return value

    a.pipe(ops.observe_on(scheduler), ops.map(forward)).subscribe(b.on_next)
    b.pipe(ops.observe_on(scheduler), ops.map(forward)).subscribe(c.on_next)
    c.pipe(ops.observe_on(scheduler)).subscribe(count)
    started = time.perf_counter()
    for n in range(events):
        a.on_next(n)
    return finish([count], started)


BURST = 100


def _publish_cost(bus: EventBus, rounds: int) -> float:
    """The best seconds of one publish, over bursts too short for the interpreter to switch threads in."""
    best = float("inf")
    for _ in range(rounds):
        started = time.perf_counter()
        for n in range(BURST):
            bus.publish("work", n)
        best = min(best, (time.perf_counter() - started) / BURST)
        time.sleep(0.002)  # the fast subscriber catches up
    return best


@contender("rxbus neighbour")
def rxbus_neighbour(events: int) -> tuple[float, int]:
    """Publish cost with a neighbour that sleeps 1 ms an event, as a ratio to none at all; alternating in one process."""
    ratios: list[float] = []
    rounds = max(1, events // BURST // 10)
    for _ in range(5):
        with EventBus() as bus:
            bus.subscribe("work", lambda _: None)
            alone = _publish_cost(bus, rounds)
            slow = bus.subscribe("work", lambda _: time.sleep(0.001), name="slow")
            beside = _publish_cost(bus, rounds)
            slow.dispose()
        ratios.append(beside / alone)
    return sorted(ratios)[2], events


def main() -> None:
    """Warms up with a tenth, then measures."""
    name, events = sys.argv[1], int(sys.argv[2])
    run = CONTENDERS[name]
    run(max(SUBSCRIBERS, events // 10 // SUBSCRIBERS * SUBSCRIBERS))
    seconds, handled = run(events)
    print(json.dumps({"seconds": seconds, "handled": handled, "reactivex": reactivex.__version__}))


if __name__ == "__main__":
    main()

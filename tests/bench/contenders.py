"""What is measured: each contender does a piece of work and returns its figures, by name.

They are run in processes of their own: ``python -m tests.bench.contenders NAME`` warms up, measures, and prints the figures as
JSON. Whatever handles events counts them, and a contender that handled too few is an error.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from reactivex import operators as ops
from reactivex.scheduler import ThreadPoolScheduler
from reactivex.subject import Subject

from rxbus import Event, EventBus, Instrument
from rxbus.instruments import LoggingInstrument, Metrics, OpenTelemetryInstrument
from tests.bench import peers
from tests.bench.registry import CHAINED, CONTENDERS, EVENTS, PATIENCE, SUBSCRIBERS, Count, Figures, contender, rate, wait_for


def percentile(values: list[float], share: float) -> float:
    """The value below which that share of all lies."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# -- throughput: B1, B2, B3


@contender
def hop() -> Figures:
    """The practical limit: one thread puts, another is in a blocking get from the start."""
    queue: SimpleQueue[int | None] = SimpleQueue()
    count = Count(EVENTS)

    def consume() -> None:
        while (item := queue.get()) is not None:
            count(item)

    threading.Thread(target=consume, daemon=True).start()
    started = time.perf_counter()
    for n in range(EVENTS):
        queue.put(n)
    wait_for(count)
    figures = rate(EVENTS, started)
    queue.put(None)
    return figures


@contender
def rxbus_one() -> Figures:
    """One subscriber on the default pool."""
    return _rxbus(1)


@contender
def asyncio_hop() -> Figures:
    """One coroutine puts into an `asyncio.Queue`, another gets; the producer lets the loop go round every 256 items."""
    count = Count(EVENTS)

    async def main() -> Figures:
        queue: asyncio.Queue[int] = asyncio.Queue()

        async def consume() -> None:
            while True:
                count(await queue.get())

        consumer = asyncio.create_task(consume())
        started = time.perf_counter()
        for n in range(EVENTS):
            queue.put_nowait(n)
            if n % 256 == 0:
                await asyncio.sleep(0)
        while not count.done.is_set():
            await asyncio.sleep(0)
        figures = rate(EVENTS, started)
        consumer.cancel()
        return figures

    return asyncio.run(main())


@contender
def rxbus_coroutine() -> Figures:
    """One subscriber, a coroutine function on the bus's own loop."""
    count = Count(EVENTS)

    async def handler(event: Event[int]) -> None:
        count(event)

    with EventBus(capacity=EVENTS) as bus:
        bus.subscribe("work", handler)
        started = time.perf_counter()
        for n in range(EVENTS):
            bus.publish("work", n)
        wait_for(count)
        return rate(EVENTS, started)


@contender
def rxbus_eight() -> Figures:
    """Eight subscribers on the default pool; the rate is of deliveries."""
    return _rxbus(SUBSCRIBERS)


def _rxbus(subscribers: int) -> Figures:
    counts = [Count(EVENTS // subscribers) for _ in range(subscribers)]
    with EventBus(capacity=EVENTS) as bus:
        for count in counts:
            bus.subscribe("work", count)
        started = time.perf_counter()
        for n in range(EVENTS // subscribers):
            bus.publish("work", n)
        wait_for(*counts)
        return rate(EVENTS, started)


@contender
def rxpy_one() -> Figures:
    """Plain RxPY: a Subject, one observer on a thread pool."""
    return _rxpy(1)


@contender
def rxpy_eight() -> Figures:
    """Plain RxPY: a Subject, eight observers on a thread pool; the rate is of deliveries."""
    return _rxpy(SUBSCRIBERS)


def _rxpy(subscribers: int) -> Figures:
    counts = [Count(EVENTS // subscribers) for _ in range(subscribers)]
    scheduler = ThreadPoolScheduler(8)
    subject: Subject[int] = Subject()
    for count in counts:
        subject.pipe(ops.observe_on(scheduler)).subscribe(count)
    started = time.perf_counter()
    for n in range(EVENTS // subscribers):
        subject.on_next(n)
    wait_for(*counts)
    return rate(EVENTS, started)


@contender
def rxbus_chain() -> Figures:
    """Three topics, each feeding the next."""
    count = Count(CHAINED)

    def forward(event: Event[int]) -> int:
        return event.payload

    with EventBus() as bus:
        bus.subscribe("a", forward, to="b", name="a")
        bus.subscribe("b", forward, to="c", name="b")
        bus.subscribe("c", count)
        started = time.perf_counter()
        for n in range(CHAINED):
            bus.publish("a", n)
        wait_for(count)
        return rate(CHAINED, started)


@contender
def rxpy_chain() -> Figures:
    """Plain RxPY: three Subjects, each feeding the next on a thread pool."""
    count = Count(CHAINED)
    scheduler = ThreadPoolScheduler(8)
    a, b, c = Subject[int](), Subject[int](), Subject[int]()

    def forward(value: int) -> int:
        return value

    a.pipe(ops.observe_on(scheduler), ops.map(forward)).subscribe(b.on_next)
    b.pipe(ops.observe_on(scheduler), ops.map(forward)).subscribe(c.on_next)
    c.pipe(ops.observe_on(scheduler)).subscribe(count)
    started = time.perf_counter()
    for n in range(CHAINED):
        a.on_next(n)
    wait_for(count)
    return rate(CHAINED, started)


# -- latency: B4, B10


def _latencies(publish: Callable[[Callable[[], None]], None], times: int) -> Figures:
    """From the call to the handler, one at a time."""
    entered = threading.Event()
    at = 0.0

    def handle() -> None:
        nonlocal at
        at = time.perf_counter()
        entered.set()

    latencies: list[float] = []
    for _ in range(times):
        entered.clear()
        started = time.perf_counter()
        publish(handle)
        if not entered.wait(PATIENCE):
            raise TimeoutError("an event was not handled")
        latencies.append(at - started)
        time.sleep(0.0002)  # everybody goes to sleep again
    return {"p50": percentile(latencies, 0.5), "p99": percentile(latencies, 0.99)}


@contender
def rxbus_latency() -> Figures:
    """One event at a time."""
    with EventBus() as bus:
        bus.subscribe("work", lambda event: event.payload())
        return _latencies(lambda handle: bus.publish("work", handle), 5_000)


@contender
def executor_latency() -> Figures:
    """A bare submit at a time."""
    with ThreadPoolExecutor(8) as executor:
        return _latencies(executor.submit, 5_000)


@contender
def rxbus_sleepers() -> Figures:
    """A fast subscriber's latency while a hundred others fall asleep in their handlers, and then while they sleep."""
    wake = threading.Event()
    with EventBus() as bus:
        for n in range(100):
            bus.subscribe("sleep", lambda _: wake.wait(PATIENCE), name=f"sleeper {n}")
        bus.subscribe("work", lambda event: event.payload())
        bus.publish("work", lambda: None)
        bus.drain(PATIENCE)
        bus.publish("sleep", 0)
        falling = _latencies(lambda handle: bus.publish("work", handle), 100)
        asleep = _latencies(lambda handle: bus.publish("work", handle), 2_000)
        wake.set()
    return {"falling": falling["p99"], "asleep": asleep["p99"]}


# -- the cost of a publish: B5, B8, B12

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


@contender
def rxbus_neighbour() -> Figures:
    """With a neighbour that sleeps 1 ms an event, as a ratio to none at all; alternating."""
    ratios: list[float] = []
    for _ in range(7):
        with EventBus() as bus:
            bus.subscribe("work", lambda _: None)
            alone = _publish_cost(bus, 40)
            slow = bus.subscribe("work", lambda _: time.sleep(0.001), name="slow")
            beside = _publish_cost(bus, 40)
            slow.dispose()
        ratios.append(beside / alone)
    return {"ratio": percentile(ratios, 0.5)}


@contender
def rxbus_wildcards() -> Figures:
    """With 1,000 patterns that don't match, as a ratio of rates to none at all; alternating."""
    ratios: list[float] = []
    for _ in range(7):
        with EventBus() as bus:
            bus.subscribe("work", lambda _: None)
            without = _publish_cost(bus, 40)
            for n in range(1000):
                bus.subscribe(f"other.{n}.*", lambda _: None)
            ratios.append(without / _publish_cost(bus, 40))
    return {"ratio": percentile(ratios, 0.5)}


@contender
def rxbus_many() -> Figures:
    """`publish_many` of 1,000 as a ratio of rates to one by one; alternating."""
    ratios: list[float] = []
    with EventBus() as bus:
        count = Count(2 * 20 * 1000)
        bus.subscribe("work", count)
        for _ in range(20):
            started = time.perf_counter()
            for n in range(1000):
                bus.publish("work", n)
            one_by_one = time.perf_counter() - started
            bus.drain(PATIENCE)
            started = time.perf_counter()
            bus.publish_many("work", range(1000))
            ratios.append(one_by_one / (time.perf_counter() - started))
            bus.drain(PATIENCE)
        wait_for(count)
    return {"ratio": percentile(ratios, 0.5)}


@contender
def rxbus_instruments() -> Figures:
    """The microseconds that each instrument adds to an event from publish to the end of its handler; alternating."""
    logger = logging.getLogger("tests.bench")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(logging.NullHandler())
    kinds: dict[str, Callable[[], list[Instrument]]] = {
        "none": list,
        "that do nothing": lambda: [Instrument()],
        "Metrics": lambda: [Metrics()],
        "LoggingInstrument": lambda: [LoggingInstrument(logger)],
        "OpenTelemetry, no SDK": lambda: [OpenTelemetryInstrument()],
    }
    times: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(5):
        for name, make in kinds.items():
            times[name].append(_instrumented(make(), 10_000))
    base = percentile(times.pop("none"), 0.5)
    return {"none": base, **{name: percentile(found, 0.5) - base for name, found in times.items()}}


def _instrumented(instruments: list[Instrument], events: int) -> float:
    """Microseconds of each event."""
    with EventBus(instruments=instruments, capacity=events) as bus:
        count = Count(events)
        bus.subscribe("work", count)
        started = time.perf_counter()
        for n in range(events):
            bus.publish("work", n)
        wait_for(count)
        return (time.perf_counter() - started) / events * 1e6


# -- memory: B6, B7


@contender
def rxbus_queued() -> Figures:
    """The bytes of one queued event, and the growth of the process while a million go through a bounded mailbox."""
    events = 100_000
    with EventBus(capacity=events) as bus:
        paused = bus.subscribe("work", lambda _: None)
        paused.pause()
        bus.publish("work", 0)
        gc.collect()
        tracemalloc.start()
        for _ in range(events - 1):
            bus.publish("work", None)  # the payload is the user's
        queued = tracemalloc.get_traced_memory()[0] / (events - 1)
        tracemalloc.stop()
        paused.dispose()
    count = Count(1_000_000)
    with EventBus(capacity=1_000) as bus:
        bus.subscribe("work", count)
        bus.publish_many("work", range(10_000))
        before = resident()
        for n in range(990_000):
            bus.publish("work", n)
        wait_for(count)
        return {"bytes": queued, "growth": float(resident() - before)}


@contender
def rxbus_topics() -> Figures:
    """Ten thousand topics with a subscriber each: bytes a topic, and the rate when each event finds its mailbox dry."""
    topics, rounds = 10_000, 5
    names = [f"topic.{n}" for n in range(topics)]
    with EventBus() as bus:
        count = Count(topics * rounds)
        bus.subscribe(names[0], count)
        gc.collect()
        tracemalloc.start()
        for name in names[1:]:
            bus.subscribe(name, count)
        size = tracemalloc.get_traced_memory()[0] / (topics - 1)
        tracemalloc.stop()
        started = time.perf_counter()
        for _ in range(rounds):
            for name in names:
                bus.publish(name, 0)
        wait_for(count)
        return {"bytes": size, **rate(topics * rounds, started)}


# -- linear cost: B11


def _dispose(subscribers: int) -> float:
    with EventBus() as bus:
        made = [bus.subscribe("work", lambda _: None, name=f"s{n}") for n in range(subscribers)]
        started = time.perf_counter()
        for subscription in made:
            subscription.dispose()
        return (time.perf_counter() - started) / subscribers


def _drain(backlog: int) -> float:
    with EventBus(capacity=backlog) as bus:
        count = Count(backlog)
        one = bus.subscribe("work", count)
        one.pause()
        bus.publish_many("work", range(backlog))
        started = time.perf_counter()
        one.resume()
        bus.drain(PATIENCE)
        wait_for(count)
        return (time.perf_counter() - started) / backlog


def _release(backlog: int) -> float:
    with EventBus(capacity=backlog) as bus:
        one = bus.subscribe("work", lambda _: None)
        one.pause()
        bus.publish_many("work", range(backlog))
        started = time.perf_counter()
        one.dispose()
        seconds = time.perf_counter() - started
        if one.statistics().dropped != backlog:
            raise RuntimeError(f"{one.statistics().dropped} of {backlog} events were released")
        return seconds / backlog


def _topics(topics: int) -> float:
    count = Count(topics)
    with EventBus() as bus:
        started = time.perf_counter()
        for n in range(topics):
            bus.subscribe(f"topic.{n}", count)
        for n in range(topics):
            bus.publish(f"topic.{n}", n)
        wait_for(count)
        for n in range(topics):
            bus.forget(f"topic.{n}")
        return (time.perf_counter() - started) / topics


def _patterns(patterns: int) -> float:
    count = Count(2 * patterns)
    with EventBus() as bus:
        started = time.perf_counter()
        made = [bus.subscribe(f"*.{n}.>", count) for n in range(patterns)]
        for n in range(patterns):
            bus.publish(f"topic.{n}.a", n)
            bus.publish(f"topic.{n}.a.b", n)
        wait_for(count)
        for one in made:
            one.dispose()
        return (time.perf_counter() - started) / patterns


@contender
def rxbus_linear() -> Figures:
    """The cost of one among many, as ratios to the cost of one among a tenth of as many."""
    works: tuple[tuple[str, Callable[[int], float], int], ...] = (
        ("dispose", _dispose, 16_000),
        ("release", _release, 100_000),
        ("drain", _drain, 800_000),
        ("topics", _topics, 10_000),
        ("patterns", _patterns, 10_000),
    )
    figures: Figures = {}
    for name, work, size in works:
        gc.collect()
        small = sorted(work(size // 10) for _ in range(5))[2]  # so short that one alone says little
        gc.collect()
        figures[name] = work(size) / small
    return figures


def main() -> None:
    """Warms up by a short round of everything that the interpreter has to learn, then measures."""
    run = CONTENDERS[sys.argv[1]]
    with EventBus() as bus:
        count = Count(2_000)
        bus.subscribe("warm", count)
        bus.publish_many("warm", range(1_000))
        for n in range(1_000):
            bus.publish("warm", n)
        wait_for(count)
    if run.__name__.startswith(("rxpy", "hop")) or run.__module__ == peers.__name__:
        run()
    print(json.dumps(run()))


if __name__ == "__main__":
    main()

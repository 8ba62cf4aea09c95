"""The statistics of a bus as OpenMetrics text, and histograms of how long things take.

Counters and gauges are read from `EventBus.statistics` when they are asked for, so the two can't disagree; only the histograms
are filled by hooks. Each has a lock of its own, because a subscription may handle several events at a time; ``_lock`` guards the
tables.
"""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..arguments import describe, number
from ..event import Event
from ..instrument import Instrument
from ..registry import PAST_KEPT
from ..statistics import BusStatistics
from ..subscription import Subscription

BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds in seconds: from a function call to an agent that thinks."""
Labels = Mapping[str, str]


class _Histogram:
    __slots__ = ("_bounds", "_counts", "_lock", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._lock = threading.Lock()

    def observe(self, value: float) -> None:
        with self._lock:
            self._counts[bisect_left(self._bounds, value)] += 1
            self._sum += value

    def unlock(self) -> None:
        self._lock = threading.Lock()

    def snapshot(self) -> tuple[list[int], float]:
        with self._lock:
            return list(self._counts), self._sum


class _Latencies:
    """Of one subscription."""

    __slots__ = ("age", "duration")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.duration = _Histogram(bounds)
        self.age = _Histogram(bounds)


class _Family:
    """One metric: a name, what it means, and its samples."""

    def __init__(self, name: str, kind: str, meaning: str, unit: str = "") -> None:
        self._name = name
        self._kind = kind
        self._lines = [f"# TYPE {name} {kind}", *([f"# UNIT {name} {unit}"] if unit else []), f"# HELP {name} {meaning}"]

    def add(self, labels: Labels, value: float) -> None:
        suffix = "_total" if self._kind == "counter" else ""
        self._lines.append(f"{self._name}{suffix}{_label_text(labels)} {_number_text(value)}")

    def add_histogram(self, labels: Labels, histogram: _Histogram, bounds: Sequence[float]) -> None:
        counts, total = histogram.snapshot()
        below = 0
        for bound, count in zip([*map(_number_text, map(float, bounds)), "+Inf"], counts, strict=True):
            below += count
            self._lines.append(f"{self._name}_bucket{_label_text({**labels, 'le': bound})} {below}")
        self._lines.append(f"{self._name}_count{_label_text(labels)} {below}")
        self._lines.append(f"{self._name}_sum{_label_text(labels)} {_number_text(total)}")

    def text(self) -> str:
        return "\n".join(self._lines)


class Metrics(Instrument):
    """Counters, gauges and latency histograms of the buses that it is attached to; `openmetrics` is what a scraper reads.

    Metrics of a topic have the label ``topic``; those of a subscription ``topic`` (the name or pattern that it consumes) and
    ``subscription``; with several buses, ``bus`` besides. As in the statistics, the last 1,000 disposed subscriptions stay.
    ``buckets`` are the upper bounds of the histograms, in seconds.

    Raises: `TypeError` or `ValueError` naming the argument.
    """

    def __init__(self, buckets: Sequence[float] = BUCKETS) -> None:
        if isinstance(buckets, str) or not isinstance(buckets, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance] - untyped callers
            raise TypeError(f"buckets must be numbers of seconds, got {describe(buckets)}")
        bounds = tuple(number("buckets", bound) for bound in buckets)
        if not bounds or any(low >= high for low, high in itertools.pairwise(bounds)):
            raise ValueError(f"buckets must be increasing numbers of seconds, got {describe(buckets)}")
        self._bounds = bounds
        self._lock = threading.Lock()
        self._buses: list[Any] = []
        self._present: dict[Subscription, _Latencies] = {}
        self._past: dict[int, OrderedDict[str, _Latencies]] = {}
        """By the id of the bus and the name, those of disposed subscriptions, as many as the statistics keep."""
        _all.add(self)

    # -- hooks

    def attached(self, bus: Any) -> None:
        """Reads the statistics of this bus too, from now on."""
        with self._lock:
            self._buses.append(bus)

    def handling(self, event: Event[Any], subscription: Subscription, attempt: int) -> None:
        """Notes how old the event is at its first attempt."""
        if attempt == 1:
            now: float = _bus_of(subscription)._now()
            self._of(subscription).age.observe(max(0.0, now - event.time))

    def handled(self, event: Event[Any], subscription: Subscription, seconds: float) -> None:
        """Notes how long it took."""
        self._of(subscription).duration.observe(seconds)

    def disposed(self, subscription: Subscription) -> None:
        """Keeps its histograms, not the subscription."""
        with self._lock:
            latencies = self._present.pop(subscription, None) or _Latencies(self._bounds)
            past = self._past.setdefault(id(_bus_of(subscription)), OrderedDict())
            past.pop(subscription.name, None)
            past[subscription.name] = latencies
            if len(past) > PAST_KEPT:
                past.popitem(last=False)

    def _of(self, subscription: Subscription) -> _Latencies:
        found = self._present.get(subscription)
        if found is None:
            with self._lock:
                found = self._present.setdefault(subscription, _Latencies(self._bounds))
        return found

    # -- what a scraper reads

    def openmetrics(self) -> str:
        """Everything as OpenMetrics 1.0 text, to be served as ``application/openmetrics-text; version=1.0.0; charset=utf-8``."""
        with self._lock:
            buses = list(self._buses)
        page = _Page(self._bounds)
        for bus, labels in zip(buses, _bus_labels(buses), strict=True):
            statistics: BusStatistics = bus.statistics()
            page.add_bus(labels, statistics, len(bus.dead_letters), bus.dead_letters.evicted)
            for name, latencies in self._latencies_of(bus, statistics).items():
                page.add_latencies({**labels, "topic": statistics.subscriptions[name].pattern, "subscription": name}, latencies)
        return page.text()

    def _latencies_of(self, bus: Any, statistics: BusStatistics) -> dict[str, _Latencies]:
        """By name, in the order of the statistics; as there, a living subscription wins over a past one of its name."""
        living: list[Subscription] = bus._registry.subscriptions()
        with self._lock:
            found = dict(self._past.get(id(bus), {}))
            for one in living:
                found.pop(one.name, None)
            found.update({one.name: self._present[one] for one in filter(self._present.__contains__, living)})
        return {name: found[name] for name in statistics.subscriptions if name in found}

    def _begin_anew(self) -> None:
        """In the child of a fork, where nobody holds the locks any more."""
        self._lock = threading.Lock()
        for latencies in (*self._present.values(), *(one for past in self._past.values() for one in past.values())):
            latencies.age.unlock()
            latencies.duration.unlock()


_all: weakref.WeakSet[Metrics] = weakref.WeakSet()


def _begin_anew() -> None:
    for metrics in list(_all):
        metrics._begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


def _bus_of(subscription: Subscription) -> Any:
    host: Any = subscription._host
    return getattr(host, "_bus", None) or host


def _bus_labels(buses: Sequence[Any]) -> list[dict[str, str]]:
    """No label for a single bus; for several, their names, with a number where two have one name."""
    if len(buses) == 1:
        return [{}]
    names: dict[str, None] = {}
    for bus in buses:
        number, name = 2, bus.name
        while name in names:
            name, number = f"{bus.name}#{number}", number + 1
        names[name] = None
    return [{"bus": name} for name in names]


class _Page:
    """All metrics, in the order in which they are shown."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        counter, gauge, histogram = "counter", "gauge", "histogram"
        self._families = {
            name: _Family(f"rxbus_{name}", kind, meaning, unit)
            for name, kind, meaning, unit in (
                ("events_published", counter, "Events that publishers put on the topic.", ""),
                ("topic_subscribers", gauge, "Subscriptions of the topic.", ""),
                ("topic_handled", counter, "Deliveries from the topic that were handled.", ""),
                ("topic_failed", counter, "Deliveries from the topic that were given up or refused, and errors of its upstreams.", ""),
                ("topic_dropped", counter, "Deliveries from the topic that were dropped.", ""),
                ("events_offered", counter, "Events put before the subscription.", ""),
                ("events_handled", counter, "Events that the subscription handled.", ""),
                ("handler_failures", counter, "Events that the subscription gave up or refused.", ""),
                ("events_dropped", counter, "Events that an overflow policy or the end of the subscription released.", ""),
                ("events_retried", counter, "Attempts beyond the first.", ""),
                ("events_pending", gauge, "Events queued, being handled, or waiting for another attempt.", ""),
                ("queue_depth", gauge, "Events that take room in the mailbox.", ""),
                ("queue_capacity", gauge, "Events that the mailbox holds.", ""),
                ("handling_seconds", counter, "Time spent in the handler, failed attempts included.", "seconds"),
                ("waiting_seconds", counter, "Time from publish to handler.", "seconds"),
                ("handler_duration_seconds", histogram, "Time that the last attempt of a handled event took.", "seconds"),
                ("event_age_seconds", histogram, "Age of the event when its first attempt began.", "seconds"),
                ("dead_letters", counter, "Dead letters made, by reason.", ""),
                ("dead_letters_held", gauge, "Dead letters that the bus holds.", ""),
                ("dead_letters_evicted", counter, "Dead letters that left because there was no room.", ""),
                ("late_replies", counter, "Replies to requests that nobody waited for any more.", ""),
                ("workers", gauge, "Threads that run handlers.", ""),
                ("workers_bound", gauge, "The most threads that there may be.", ""),
                ("pool_saturations", counter, "Times that something had to wait because all threads were busy.", ""),
            )
        }

    def add_bus(self, labels: Labels, statistics: BusStatistics, held: int, evicted: int) -> None:
        add = self._add
        for topic in statistics.topics.values():
            where = {**labels, "topic": topic.name}
            add("events_published", where, topic.published)
            add("topic_subscribers", where, topic.subscribers)
            add("topic_handled", where, topic.handled)
            add("topic_failed", where, topic.failed)
            add("topic_dropped", where, topic.dropped)
        for one in statistics.subscriptions.values():
            where = {**labels, "topic": one.pattern, "subscription": one.name}
            add("events_offered", where, one.offered)
            add("events_handled", where, one.handled)
            add("handler_failures", where, one.failed)
            add("events_dropped", where, one.dropped)
            add("events_retried", where, one.retried)
            add("events_pending", where, one.pending)
            add("queue_depth", where, one.queued)
            add("queue_capacity", where, one.capacity)
            add("handling_seconds", where, one.handling_time)
            add("waiting_seconds", where, one.waiting_time)
        for reason, count in statistics.dead_letters.items():
            add("dead_letters", {**labels, "reason": reason.value}, count)
        add("dead_letters_held", labels, held)
        add("dead_letters_evicted", labels, evicted)
        add("late_replies", labels, statistics.late_replies)
        if statistics.pool is not None:
            add("workers", labels, statistics.pool.workers)
            add("workers_bound", labels, statistics.pool.max_workers)
            add("pool_saturations", labels, statistics.pool.saturations)

    def add_latencies(self, labels: Labels, latencies: _Latencies) -> None:
        self._families["handler_duration_seconds"].add_histogram(labels, latencies.duration, self._bounds)
        self._families["event_age_seconds"].add_histogram(labels, latencies.age, self._bounds)

    def _add(self, name: str, labels: Labels, value: float) -> None:
        self._families[name].add(labels, value)

    def text(self) -> str:
        return "\n".join([*(family.text() for family in self._families.values()), "# EOF\n"])


def _label_text(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    value = value.encode("utf-8", "backslashreplace").decode()  # half a surrogate pair is no text
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number_text(value: float) -> str:
    return repr(value)

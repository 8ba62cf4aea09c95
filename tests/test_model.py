"""A bus beside a model of it: whatever is done to both, in any order, they agree.

The model is a list per subscription and a few numbers; it knows nothing of threads, mailboxes or strands. Everything runs on a
virtual clock, so what hypothesis finds can be repeated.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from reactivex.testing import TestScheduler

from rxbus import Breaker, BusClosedError, Event, EventBus, Overflow, Reason, Retry

TOPICS = ("a.x", "a.y", "b")
PATTERNS = (*TOPICS, "a.*", ">")
BACKOFF = 1.5
PAUSE = 4.0


def matches(pattern: str, topic: str) -> bool:
    """Whether one of the few patterns covers one of the few topics."""
    return pattern in {topic, ">"} or (pattern == "a.*" and topic.startswith("a."))


@dataclass
class Twin:
    """What a subscription should be like."""

    pattern: str
    capacity: int
    overflow: Overflow
    attempts: int
    failures: int | None
    queue: deque[tuple[str, int]] = field(default_factory=deque)
    handled: list[int] = field(default_factory=list)
    letters: list[tuple[str, int, Reason, int]] = field(default_factory=list)
    fails: int = 0
    """So many of the attempts to come fail."""
    paused: bool = False
    ending: bool = False
    """Its topic is gone; it ends with its queue."""
    gone: bool = False
    held: tuple[tuple[str, int], int, float] | None = None
    """An event, the number of its next attempt, and when that is due."""
    broken_until: float = 0.0
    row: int = 0
    offered: int = 0
    failed: int = 0
    dropped: int = 0
    retried: int = 0

    @property
    def pending(self) -> int:
        return len(self.queue) + (self.held is not None)

    def offer(self, topic: str, payload: int) -> None:
        """One more event."""
        self.offered += 1
        room = 2 * self.capacity if self.overflow is Overflow.BLOCK else self.capacity
        if len(self.queue) < room:
            self.queue.append((topic, payload))
        elif self.overflow is Overflow.DROP_OLDEST:
            self.queue.popleft()
            self.queue.append((topic, payload))
            self.dropped += 1
        elif self.overflow is Overflow.DROP_LATEST:
            self.dropped += 1
        else:
            self.failed += 1
            self.letters.append((topic, payload, Reason.OVERFLOW, 0))

    def run(self, now: float, until: float) -> None:
        """Handles what it can between the two times."""
        while not (self.paused or self.gone):
            now = max(now, self.broken_until if self.held is None else self.held[2])
            if now > until or (self.held is None and not self.queue):
                break
            event, attempt = (self.queue.popleft(), 1) if self.held is None else self.held[:2]
            self.held = None
            self._try(event, attempt, now)
        if self.ending and not self.pending and not self.paused and self.broken_until <= until:
            self.gone = True

    def _try(self, event: tuple[str, int], attempt: int, now: float) -> None:
        if not self.fails:
            self.row = 0
            self.handled.append(event[1])
            return
        self.fails -= 1
        if attempt < self.attempts:
            self.retried += 1
            self.held = event, attempt + 1, now + BACKOFF
            return
        self.failed += 1
        self.letters.append((*event, Reason.FAILED, attempt))
        self.row += 1
        if self.failures is not None and self.row >= self.failures:
            self.broken_until = now + PAUSE

    def end(self) -> None:
        """It is disposed of."""
        if not self.gone:
            self.gone = True
            self.dropped += self.pending
            self.queue.clear()
            self.held = None


class Handler:
    """Fails as often as it is told to."""

    def __init__(self) -> None:
        self.fails = 0
        self.seen: list[int] = []

    def __call__(self, event: Event[int]) -> None:
        if self.fails:
            self.fails -= 1
            raise ValueError(event.payload)
        self.seen.append(event.payload)


class Bus(RuleBasedStateMachine):
    """The bus and its model, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = TestScheduler()
        self.bus = EventBus("model", scheduler=self.clock)
        self.now = 0.0
        self.closed = False
        self.twins: dict[str, Twin] = {}
        self.handlers: dict[str, Handler] = {}
        self.subscriptions: dict[str, Any] = {}
        self.topics: set[str] = set()
        self.published: dict[str, int] = {}
        self.payload = 0

    def pick(self, number: int) -> str:
        return sorted(self.twins)[number % len(self.twins)]

    # -- what may be done

    @initialize(pattern=st.sampled_from(PATTERNS), overflow=st.sampled_from(Overflow), retried=st.booleans(), broken=st.booleans())
    def begin(self, pattern: str, overflow: Overflow, retried: bool, broken: bool) -> None:
        """Two subscriptions from the start, one of which has everything."""
        self.subscribe("a.x", 2, Overflow.BLOCK, 2, 2)
        self.subscribe(pattern, 1, overflow, 2 if retried else 1, 2 if broken else None)

    @precondition(lambda self: not self.closed and len(self.twins) < 6)
    @rule(
        pattern=st.sampled_from(PATTERNS),
        capacity=st.integers(1, 3),
        overflow=st.sampled_from(Overflow),
        attempts=st.integers(1, 3),
        failures=st.none() | st.integers(1, 2),
    )
    def subscribe(self, pattern: str, capacity: int, overflow: Overflow, attempts: int, failures: int | None) -> None:
        name = f"s{len(self.twins)}"
        self.handlers[name] = handler = Handler()
        retry = None if attempts == 1 else Retry(attempts, backoff=BACKOFF, factor=1.0, jitter=0.0)
        self.subscriptions[name] = self.bus.subscribe(
            pattern,
            handler,
            name=name,
            capacity=capacity,
            overflow=overflow,
            retry=retry,
            breaker=None if failures is None else Breaker(failures, PAUSE),
        )
        self.twins[name] = Twin(pattern, capacity, overflow, attempts, failures)
        if pattern in TOPICS:
            self._make(pattern)

    @precondition(lambda self: self.payload > 5)
    @rule(number=st.integers(0, 5))
    def dispose(self, number: int) -> None:
        name = self.pick(number)
        self.subscriptions[name].dispose()
        self.twins[name].end()

    @precondition(lambda self: not self.closed)
    @rule(topic=st.sampled_from(TOPICS))
    def publish(self, topic: str) -> None:
        self.payload += 1
        self.bus.publish(topic, self.payload)
        self._model_publish(topic, self.payload)

    @precondition(lambda self: not self.closed)
    @rule(topic=st.sampled_from(TOPICS), count=st.integers(0, 6))
    def publish_many(self, topic: str, count: int) -> None:
        payloads = range(self.payload + 1, self.payload + 1 + count)
        self.payload += count
        self.bus.publish_many(topic, payloads)
        self._make(topic)
        for payload in payloads:
            self._model_publish(topic, payload)

    @precondition(lambda self: self.twins)
    @rule(number=st.integers(0, 5), times=st.integers(1, 4))
    def fail_the_next(self, number: int, times: int) -> None:
        name = self.pick(number)
        self.handlers[name].fails = self.twins[name].fails = times

    @precondition(lambda self: not self.closed)
    @rule(number=st.integers(0, 5), outcomes=st.lists(st.integers(0, 2), min_size=1, max_size=4), seconds=st.sampled_from([1, 2, 5]))
    def events_of_which_some_fail(self, number: int, outcomes: list[int], seconds: int) -> None:
        """One after the other, each with so many failing attempts at the beginning."""
        name = self.pick(number)
        topic = next(topic for topic in TOPICS if matches(self.twins[name].pattern, topic))
        for fails in outcomes:
            self.fail_the_next(number, fails)
            self.publish(topic)
            self.advance(seconds)

    @precondition(lambda self: self.twins)
    @rule(number=st.integers(0, 5))
    def pause(self, number: int) -> None:
        name = self.pick(number)
        self.subscriptions[name].pause()
        self.twins[name].paused = True

    @precondition(lambda self: self.twins)
    @rule(number=st.integers(0, 5))
    def resume(self, number: int) -> None:
        name = self.pick(number)
        self.subscriptions[name].resume()
        self.twins[name].paused = False

    @rule(seconds=st.sampled_from([1, 2, 5]))
    def advance(self, seconds: int) -> None:
        self.clock.advance_by(seconds)
        for twin in self.twins.values():
            twin.run(self.now, self.now + seconds)
        self.now += seconds

    @rule(number=st.none() | st.integers(0, 3))
    def replay(self, number: int | None) -> None:
        held = list(self.bus.dead_letters)
        chosen = held if number is None else held[number : number + 1]
        expected = 0
        for letter in chosen:
            twin = self.twins[letter.subscription]
            topic, payload = letter.event.topic, letter.event.payload
            can = not (self.closed or twin.gone or twin.ending) and topic in self.topics
            if can:
                expected += 1
                twin.letters.remove((topic, payload, letter.reason, letter.attempts))
                twin.offer(topic, payload)
        if chosen or number is None:
            assert expected == self.bus.dead_letters.replay(*([] if number is None else chosen))

    @precondition(lambda self: not self.closed)
    @rule(topic=st.sampled_from(TOPICS))
    def forget(self, topic: str) -> None:
        self.bus.forget(topic)
        if topic in self.topics:
            self.topics.remove(topic)
            del self.published[topic]
            for twin in self.twins.values():
                twin.ending |= twin.pattern == topic

    @precondition(lambda self: not self.closed and self.payload > 30)
    @rule(drain=st.booleans())
    def close(self, drain: bool) -> None:
        report = self.bus.close(drain=drain)
        left = {name: twin.pending for name, twin in self.twins.items() if twin.pending and not twin.gone}
        assert left == dict(report.unhandled)
        assert () == report.stuck
        self.closed = True
        for twin in self.twins.values():
            twin.end()

    @precondition(lambda self: self.closed)
    @rule(topic=st.sampled_from(TOPICS))
    def is_closed(self, topic: str) -> None:
        with pytest.raises(BusClosedError):
            self.bus.publish(topic, 0)
        with pytest.raises(BusClosedError):
            self.bus.subscribe(topic, Handler())
        assert {} == self.bus.subscriptions

    # -- what must be true all the time

    @invariant()
    def agree(self) -> None:
        statistics = self.bus.statistics()
        letters: dict[str, list[tuple[str, int, Reason, int]]] = {name: [] for name in self.twins}
        for letter in self.bus.dead_letters:
            letters[letter.subscription].append((letter.event.topic, letter.event.payload, letter.reason, letter.attempts))
        for name, twin in self.twins.items():
            one = statistics.subscriptions[name]
            assert twin.handled == self.handlers[name].seen, name
            assert sorted(map(str, twin.letters)) == sorted(map(str, letters[name])), name
            assert (twin.offered, len(twin.handled), twin.failed, twin.dropped, twin.retried, twin.pending) == (
                one.offered, one.handled, one.failed, one.dropped, one.retried, one.pending,
            ), (name, twin, one)  # fmt: skip
            assert one.offered == one.handled + one.failed + one.dropped + one.pending
            assert twin.gone == self.subscriptions[name].is_disposed, name
        if not self.closed:
            assert self.published == {name: topic.published for name, topic in statistics.topics.items()}

    def teardown(self) -> None:
        self.bus.close(drain=False)

    # -- the model of a publish

    def _make(self, topic: str) -> None:
        if topic not in self.topics:
            self.topics.add(topic)
            self.published[topic] = 0

    def _model_publish(self, topic: str, payload: int) -> None:
        self._make(topic)
        self.published[topic] += 1
        for twin in self.twins.values():
            if matches(twin.pattern, topic) and not (twin.gone or twin.ending):
                twin.offer(topic, payload)


TestModel = Bus.TestCase
TestModel.settings = settings(
    max_examples=300, stateful_step_count=50, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow]
)


@pytest.mark.stress
class TestModelForLong(Bus.TestCase):
    """The same for longer."""

    settings = settings(max_examples=3_000, stateful_step_count=80, deadline=None, suppress_health_check=list(HealthCheck))

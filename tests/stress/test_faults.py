"""Faults injected everywhere at once, on real threads: whatever breaks, each event has exactly one outcome with each subscription."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from functools import partial

import pytest
from reactivex import operators as ops
from reactivex.scheduler import ImmediateScheduler

from rxbus import Breaker, BusClosedError, EventBus, Instrument, Overflow, Reason, Retry, operators

from .racing import LIMIT, check_books, doze, play, race, rounds, spin


class Unspeakable(Exception):
    """An error that can't even be named."""

    def __str__(self):
        raise RuntimeError

    __repr__ = __str__


def endless():
    """Raises a real RecursionError."""
    return endless()


FAULTS = (
    lambda: ValueError("plain"),
    lambda: SystemExit(3),
    KeyboardInterrupt,
    GeneratorExit,
    MemoryError,
    Unspeakable,
    lambda: StopIteration(1),
    lambda: BaseExceptionGroup("several", [ValueError(1), SystemExit(2)]),
)


class Ledger(Instrument):
    """Counts, for each event and subscription, how often it was offered and how often something became of it."""

    def __init__(self):
        self._lock = threading.Lock()
        self.open = Counter()
        self.wrong = []

    def _add(self, event, subscription, number):
        name = subscription.name.split()[0]  # what one member of a group was offered another may take
        with self._lock:
            self.open[event.id, name] += number

    def offered(self, event, subscription):
        self._add(event, subscription, 1)

    def handled(self, event, subscription, seconds):
        self._add(event, subscription, -1)

    def dropped(self, event, subscription, reason):
        self._add(event, subscription, -1)

    def failed(self, event, subscription, error, attempt):
        self._add(event, subscription, -1)

    def retried(self, event, subscription, delay):
        self._add(event, subscription, 1)

    def check(self):
        """Everything that was offered was settled, once."""
        assert {} == {key: count for key, count in self.open.items() if count}


class Flaky(Instrument):
    """Raises now and then, in every hook that lies on an event's way."""

    def published(self, event):
        self._maybe()

    def offered(self, event, subscription):
        self._maybe()

    def handling(self, event, subscription, attempt):
        self._maybe()

    def handled(self, event, subscription, seconds):
        self._maybe()

    def failed(self, event, subscription, error, attempt):
        self._maybe()

    def dead_lettered(self, letter):
        self._maybe()

    def _maybe(self):
        if random.random() < 0.1:
            raise random.choice((ValueError, SystemExit, GeneratorExit))


def faulty(share):
    """A handler that raises something in that share of its calls, and dozes or computes in others."""

    def handler(value):
        chance = random.random()
        if chance < share:
            if chance < share / 50:
                endless()
            raise random.choice(FAULTS)()
        if chance < 0.6:
            (doze if chance < 0.5 else spin)()
        return chance

    return handler


def subscribe_all(bus):
    """One of each kind, each of which fails in its own way."""
    quick = Retry(3, backoff=0.0002, jitter=1.0, on=BaseException)
    bus.subscribe("a.*", faulty(0.2), name="plain")
    bus.subscribe("a.x", faulty(0.3), name="retried", retry=quick, to="result")
    bus.subscribe("a.x", faulty(0.2), name="piped", through=ops.map(faulty(0.2)), retry=quick)
    bus.subscribe("a.*", faulty(0.1), name="attempted", through=operators.attempt(faulty(0.3), retry=quick))
    bus.subscribe("a.x", faulty(0.3), name="crowd", concurrency=3, retry=quick)
    bus.subscribe("a.*", faulty(0.3), name="keyed", concurrency=3, key=lambda e: e.payload % 5)
    bus.subscribe("a.x", faulty(0.5), name="broken", breaker=Breaker(2, 0.001))
    bus.subscribe("a.x", faulty(0.1), name="small", capacity=2, overflow=random.choice(list(Overflow)))
    for number in range(3):
        bus.subscribe("a.*", faulty(0.2), name=f"member {number}", group="g", retry=quick)
    bus.subscribe("result", faulty(0.2), name="results")


def publish_some(bus, numbers):
    try:
        for number in numbers:
            bus.publish("a.x" if number % 3 else "a.y", number)
            if number % 7 == 0:
                bus.publish_many("a.x", [number] * 3)
    except BusClosedError:
        pass


def meddle(bus, kinds):
    """Pauses, resumes, disposes, replays and discards at random."""
    try:
        for _ in range(15):
            kind = random.choice(kinds)
            present = list(bus.subscriptions.values())
            if kind == "replay":
                bus.dead_letters.replay(*list(bus.dead_letters)[:5])
            elif kind == "discard":
                bus.dead_letters.discard(*list(bus.dead_letters)[:2])
            elif kind == "forget":
                bus.forget("a.y")
            elif present and kind == "dispose":
                random.choice(present).dispose()
            elif present:
                one = random.choice(present)
                one.pause()
                doze()
                one.resume()
            time.sleep(random.random() * 0.001)
    except BusClosedError:
        pass


def resume_all(bus):
    for one in list(bus.subscriptions.values()):
        one.resume()


class TestFaults:
    """The books after a storm."""

    @pytest.mark.parametrize("kinds", [("pause",), ("pause", "replay"), ("pause", "replay", "dispose", "discard", "forget")], ids=", ".join)
    @rounds(300)
    def test_every_event_has_one_outcome(self, rounds, kinds):
        """Handlers, operators and instruments that raise anything, while others pause, replay, dispose and forget."""

        def one_round(number):
            ledger = Ledger()
            with EventBus(capacity=50, instruments=[Flaky(), ledger]) as bus:
                subscribe_all(bus)
                race(
                    *(partial(publish_some, bus, range(start, start + 20)) for start in (0, 100, 200)),
                    partial(meddle, bus, kinds),
                    partial(meddle, bus, kinds),
                )
                resume_all(bus)
                bus.drain(LIMIT)
                ledger.check()
                if "discard" not in kinds and "replay" not in kinds:
                    check_books(bus)
                for s in bus.statistics().subscriptions.values():
                    assert s.offered == s.handled + s.failed + s.dropped + s.pending, s
                    assert 0 == s.pending, s

        play(rounds, one_round)

    @pytest.mark.parametrize("drain", [True, False])
    @rounds(300)
    def test_and_so_after_a_close_in_the_middle(self, rounds, drain):
        """Nothing that was offered is without an outcome once the bus is closed and the last handler has returned."""

        def one_round(number):
            ledger = Ledger()
            bus = EventBus(capacity=20, instruments=[ledger], scheduler=ImmediateScheduler() if number % 5 == 4 else None)
            subscribe_all(bus)
            everybody = list(bus.subscriptions.values())
            race(
                *(partial(publish_some, bus, range(start, start + 20)) for start in range(0, 800, 100)),
                partial(meddle, bus, ("pause", "replay", "dispose")),
                lambda: (time.sleep(random.random() * 0.01), bus.close(LIMIT, drain=drain)),
            )
            for one in everybody:
                one.dispose(wait=LIMIT)
            ledger.check()
            check_outcomes(bus)

        play(rounds, one_round)


def check_outcomes(bus):
    """The counters alone: letters may have been replayed."""
    for s in bus.statistics().subscriptions.values():
        assert (s.offered, 0) == (s.handled + s.failed + s.dropped, s.pending), s


class TestReplay:
    """Letters that several threads replay."""

    @rounds(300)
    def test_no_letter_is_sent_twice(self, rounds):
        """However many replay at once: each failure is followed by at most one replay, and what is sent is what was counted."""

        def one_round(number):
            seen, sent = [], []
            with EventBus() as bus:
                handler = bus.subscribe("t", lambda e: (seen.append(e.payload), 1 / 0), name="fails")
                bus.publish_many("t", range(20))
                race(*(lambda: [sent.append(bus.dead_letters.replay(*list(bus.dead_letters))) for _ in range(5)] for _ in range(4)))
                bus.drain(LIMIT)
                assert 20 + sum(sent) == len(seen) == handler.statistics().failed
                assert 20 == len(bus.dead_letters)
                assert Counter(range(20)) == Counter(letter.event.payload for letter in bus.dead_letters)
                for letter in bus.dead_letters:
                    assert Counter(seen)[letter.event.payload] == 1 + letter.event.metadata.get("$replayed", 0)

        play(rounds, one_round)

    @rounds(300)
    def test_against_dispose_and_forget(self, rounds):
        """A letter is replayed and settled, or it is still there: none is lost on the way."""

        def one_round(number):
            with EventBus() as bus:
                calls = Counter()

                def fails_first(event):
                    calls[event.payload] += 1
                    if calls[event.payload] == 1:
                        raise ValueError

                one = bus.subscribe("t", fails_first, name="one")
                bus.publish_many("t", range(20))
                bus.drain(LIMIT)
                sent = []
                race(
                    *(lambda: sent.append(bus.dead_letters.replay()) for _ in range(2)),
                    one.dispose if number % 2 else lambda: bus.forget("t"),
                )
                bus.drain(LIMIT)
                s = bus.statistics().subscriptions["one"]
                assert 20 == sum(sent) + len(bus.dead_letters)
                assert sum(sent) == s.handled + s.dropped

        play(rounds, one_round)


class TestBreaker:
    """A breaker under load."""

    @pytest.mark.parametrize("options", [{}, {"concurrency": 3}], ids=["one at a time", "three"])
    @rounds(300)
    def test_nothing_is_lost_and_it_always_goes_on(self, rounds, options):
        """Publishers at full speed, a handler that fails at random: all is settled in the end, whatever was broken off when."""

        def one_round(number):
            with EventBus() as bus:
                one = bus.subscribe("t", faulty(0.5), breaker=Breaker(random.choice((1, 2, 3)), random.choice((0.0, 0.0005))), **options)
                race(*(partial(lambda r: [bus.publish("t", p) for p in r], range(15)) for _ in range(3)))
                bus.drain(LIMIT)
                s = one.statistics()
                assert 45 == s.handled + s.failed
                check_books(bus)

        play(rounds, one_round)


class TestHops:
    """Agents that feed each other in circles."""

    @rounds(300)
    def test_every_story_ends_once(self, rounds):
        """At load, with two circles that cross: each story ends in letters that say so, none goes beyond the bound."""

        def one_round(number):
            bound = 12
            with EventBus(max_hops=bound) as bus:
                longest = []
                bus.subscribe("a", lambda e: longest.append(e.hops) or e.payload, to="b", name="there")
                bus.subscribe("b", lambda e: longest.append(e.hops) or e.payload, to="a", name="back", concurrency=2)
                race(*(partial(lambda r: [bus.publish("a", p) for p in r], range(n, n + 10)) for n in (0, 10, 20, 30)))
                bus.drain(LIMIT)
                assert bound == max(longest)
                letters = list(bus.dead_letters)
                assert {Reason.HOPS} == {letter.reason for letter in letters}
                assert Counter(range(40)) == Counter(letter.event.payload for letter in letters)
                assert {bound + 1} == {letter.event.hops for letter in letters}
                assert all(f"at most {bound} hops, found {bound + 1}" in str(letter.error) for letter in letters)
                check_books(bus)

        play(rounds, one_round)

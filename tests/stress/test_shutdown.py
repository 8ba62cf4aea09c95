"""Drain and close are never early, never late, and never hang."""

from __future__ import annotations

import random
import threading
import time
from functools import partial

import pytest
from reactivex import operators as ops
from reactivex.scheduler import ThreadPoolScheduler

from rxbus import BusClosedError, EventBus, Overflow, Retry, operators, shutdown
from rxbus.strand import Strand

from .racing import Racers, check_books, chunks, doze, play, race, rounds, slowed, spin


class TestDrain:
    """Drain returns when the whole chain is done."""

    @pytest.mark.parametrize("born", ["sink first", "source first"])
    @pytest.mark.parametrize("link", ["publish", "to", "raw", "mailbox", "retry", "wildcard"])
    @rounds(3000)
    def test_a_chain_is_complete_when_drain_returns(self, rounds, born, link):
        """When publishers have finished and drain returned, every event has reached the end of a chain of three topics."""

        def one_round(number):
            with EventBus() as bus:
                ends, flaky = [], set()

                def forward(target, event):
                    if number % 3 == 0:
                        spin()
                    if link == "retry" and event.payload % 4 == 0 and (target, event.payload) not in flaky:
                        flaky.add((target, event.payload))
                        raise ValueError(event.payload)
                    bus.publish(target, event.payload)

                def step(source, target):
                    topic = bus.topic(source)
                    if link == "to":
                        bus.subscribe(source, lambda e: e.payload, to=target, name=source)
                    elif link == "raw":
                        topic.pipe(ops.map(lambda e: e.payload)).subscribe(bus.topic(target).on_next)
                    elif link == "mailbox":
                        topic.pipe(operators.mailbox(), ops.map(lambda e: e.payload)).subscribe(bus.topic(target).on_next)
                    else:
                        retry = Retry(2, backoff=0.0) if link == "retry" else None
                        bus.subscribe(source + ".>" if link == "wildcard" else source, partial(forward, target), retry=retry, name=source)

                def sink():
                    bus.subscribe("c.x" if link == "wildcard" else "c", lambda e: ends.append(e.payload), name="sink")

                dot = ".x" if link == "wildcard" else ""
                steps = [partial(step, "a", "b" + dot), partial(step, "b", "c" + dot), sink]
                for make in reversed(steps) if born == "sink first" else steps:
                    make()
                count = number % 3 + 1
                race(*(partial(lambda r: [bus.publish("a" + dot, p) for p in r], r) for r in chunks(count, 3)))
                bus.drain()
                assert 3 * count == len(ends)
                check_books(bus, topics=False)

        play(rounds, one_round)

    @pytest.mark.parametrize("scheduler", ["pool", "two workers"])
    @rounds(10_000)
    def test_one_event_through_a_long_chain(self, rounds, scheduler):
        """Drain, called at any moment while one event runs through ten topics against the order of their making, is not early."""
        state = {}

        def one_round(number):
            if number % 500 == 0:
                if state:
                    state["bus"].close()
                bus = state["bus"] = EventBus(workers=None if scheduler == "pool" else 2)
                ends = state["ends"] = []
                bus.subscribe("t10", lambda e: ends.append(e.payload))
                for i in reversed(range(10)):
                    bus.subscribe(f"t{i}", partial(lambda target, e: bus.publish(target, e.payload), f"t{i + 1}"), name=f"s{i}")
            bus, ends = state["bus"], state["ends"]
            before = len(ends)
            bus.publish("t0", number)
            bus.drain()
            assert before + 1 == len(ends)

        play(rounds, one_round)
        state["bus"].close()

    @rounds(20_000)
    def test_slow_looks_at_a_slow_chain(self, rounds, monkeypatch):
        """However long drain's looks at a subscription take, and whatever happens between two of them, it is not early."""
        for owner, name in ((shutdown, "offered"), (Strand, "is_quiet")):
            monkeypatch.setattr(owner, name, slowed(getattr(owner, name)))
        bus, ends = EventBus(), []

        def forward(target, event):
            time.sleep(random.random() * 1e-3)
            bus.publish(target, event.payload)

        def end(event):
            time.sleep(2e-3)
            ends.append(event.payload)

        # against the flow, so that what is looked at first is fed by what is looked at later
        bus.subscribe("c", end, name="c")
        bus.subscribe("b", partial(forward, "c"), name="b")
        bus.subscribe("a", partial(forward, "b"), name="a")

        def one_round(number):
            before = len(ends)
            bus.publish("a", number)
            bus.drain()
            assert before + 1 == len(ends)

        play(rounds, one_round)
        bus.close()

    @rounds(2000)
    def test_drain_while_events_keep_coming(self, rounds, monkeypatch):
        """A drain amid publishers returns or runs out of time; it never takes a busy subscription for a paused one."""
        monkeypatch.setattr(Strand, "wait_until", slowed(Strand.wait_until))
        bus = EventBus()
        for name in ("a", "b", "c"):
            bus.subscribe("t", lambda e: spin(), name=name)

        def publisher():
            for n in range(10):
                bus.publish("t", n)
                doze()

        def drainer():
            for _ in range(5):
                bus.drain(5)

        play(rounds, lambda number: race(publisher, drainer, drainer))
        bus.close()

    @rounds(500)
    def test_drain_with_subscriptions_that_come_and_go(self, rounds):
        """Drain from several threads, amid subscriptions made and disposed of by handlers, returns, and all is done then."""

        def one_round(number):
            with EventBus() as bus:
                ends = []

                def handler(event):
                    with bus.subscribe("b", lambda e: spin()):
                        bus.publish("b", event.payload)

                bus.subscribe("b", lambda e: ends.append(e.payload), name="sink")
                bus.subscribe("a", handler, name="handler")
                race(*(partial(lambda r: [bus.publish("a", p) for p in r], r) for r in chunks(10, 2)))
                race(bus.drain, bus.drain, bus.drain)
                assert 20 == len(ends)
                check_books(bus, topics=False)

        play(rounds, one_round)


class TestClose:
    """Close against everything."""

    @rounds(500)
    def test_several_closes_at_once(self, rounds):
        """All closes that race return the same report, after everything accepted was handled."""

        def one_round(number):
            bus = EventBus()
            seen, accepted, reports = [], [], []
            bus.subscribe("t", lambda e: (seen.append(e.payload), spin()))

            def publisher(numbers):
                for payload in numbers:
                    try:
                        bus.publish("t", payload)
                    except BusClosedError:
                        return
                    accepted.append(payload)

            race(*(partial(publisher, r) for r in chunks(50, 5)), *[lambda: reports.append((bus.close(), len(seen)))] * 3)
            assert sorted(accepted) == sorted(seen)
            assert [(reports[0][0], len(seen))] * 3 == reports
            assert {} == dict(reports[0][0].unhandled)

        play(rounds, one_round)

    @rounds(500)
    def test_topics_complete_after_the_last_event(self, rounds):
        """Raw observers are completed by a close, once, after every accepted event."""

        def one_round(number):
            bus = EventBus()
            logs, accepted = [[], []], []
            bus.topic("t").subscribe(lambda e: (logs[0].append(e.payload), spin()), on_completed=lambda: logs[0].append("end"))
            bus.observe("*").subscribe(lambda e: logs[1].append(e.payload), on_completed=lambda: logs[1].append("end"))

            def publisher(numbers):
                for payload in numbers:
                    try:
                        bus.publish("t", payload)
                    except BusClosedError:
                        return
                    accepted.append(payload)

            racers = Racers(*(partial(publisher, r) for r in chunks(50, 4)))
            doze()
            bus.close()
            racers.join()
            for log in logs:
                assert "end" == log[-1]
                assert sorted(accepted) == sorted(log[:-1])

        play(rounds, one_round)

    @rounds(200)
    def test_a_paused_subscription_costs_only_its_own(self, rounds):
        """A draining close with a paused subscription that has events still handles everything of the others."""

        def one_round(number):
            bus = EventBus()
            seen = []
            paused = bus.subscribe("t", lambda e: None, name="paused")
            bus.subscribe("t", lambda e: (seen.append(e.payload), doze()), name="slow")
            paused.pause()
            for payload in range(50):
                bus.publish("t", payload)
            report = bus.close(10)
            assert {"paused": 50} == dict(report.unhandled)
            assert list(range(50)) == seen

        play(rounds, one_round)

    @rounds(100)
    def test_a_hanging_handler_is_reported(self, rounds):
        """A close returns at its time-out, names who hangs and what it left, and has handled everything else."""

        def one_round(number):
            release = threading.Event()
            bus = EventBus()
            seen = []
            bus.subscribe("t", lambda e: release.wait(15), name="hangs")
            bus.subscribe("t", lambda e: (seen.append(e.payload), doze()), name="slow")
            race(*(partial(lambda r: [bus.publish("t", p) for p in r], r) for r in chunks(10, 3)))
            began = time.monotonic()
            report = bus.close(0.2)
            took = time.monotonic() - began
            release.set()
            assert took < 5
            assert ("hangs",) == report.stuck
            assert {"hangs": 30} == dict(report.unhandled)
            assert 30 == len(seen)

        play(rounds, one_round)

    @rounds(500)
    def test_close_wakes_publishers_that_wait(self, rounds):
        """Publishers that wait for room when a bus is closed return at once, their events handled or counted."""

        def one_round(number):
            drain = number % 2 == 0
            bus = EventBus(capacity=2, block_timeout=60)
            entered, release = threading.Event(), threading.Event()
            accepted = []

            def handler(event):
                entered.set()
                release.wait(15)

            one = bus.subscribe("t", handler, name="one")

            def publisher(numbers):
                for payload in numbers:
                    try:
                        bus.publish("t", payload)
                    except BusClosedError:
                        return
                    accepted.append(payload)

            racers = Racers(*(partial(publisher, r) for r in chunks(5, 4)))
            assert entered.wait(5)
            if drain:
                release.set()
            bus.close(10, drain=drain)
            racers.join(5)
            release.set()
            one.dispose(wait=5)
            assert len(accepted) == one.statistics().offered
            check_books(bus)

        play(rounds, one_round)


class TestBlock:
    """Publishers that wait for room."""

    @pytest.mark.parametrize("pattern", ["t", "*"])
    @rounds(500)
    def test_room_wakes_them(self, rounds, pattern):
        """Many publishers against a mailbox of one all get through, nothing is refused, and the bound holds."""

        def one_round(number):
            with EventBus(capacity=1, block_timeout=60) as bus:
                depths = []
                one = bus.subscribe(pattern, lambda e: (depths.append(one.statistics().pending), spin()), name="one")
                race(*(partial(lambda r: [bus.publish("t", p) for p in r], r) for r in chunks(25, 6)), limit=15)
                bus.drain()
                assert 150 == one.statistics().handled
                assert max(depths) <= 1 + 6 + 1
                check_books(bus)

        play(rounds, one_round)

    @rounds(1000)
    def test_dispose_wakes_them(self, rounds):
        """Publishers that wait for room in a mailbox return when its subscription is disposed of."""

        def one_round(number):
            with EventBus(capacity=1, block_timeout=60) as bus:
                release = threading.Event()
                one = bus.subscribe("t", lambda e: release.wait(15), name="one")
                racers = Racers(*(partial(lambda r: [bus.publish("t", p) for p in r], r) for r in chunks(2, 4)))
                for _ in range(number % 9):
                    doze()
                one.dispose()
                racers.join(5)
                release.set()
                one.dispose(wait=5)
                bus.drain()
                check_books(bus)

        play(rounds, one_round)

    @rounds(300)
    def test_forget_lets_them_through(self, rounds):
        """Publishers that wait when a topic is forgotten get through as its queue is handled."""

        def one_round(number):
            with EventBus(capacity=1, block_timeout=60) as bus:
                seen, accepted = [], []
                bus.subscribe("t", lambda e: (seen.append(e.payload), spin()), name="one")
                topic = bus.topic("t")

                def publisher(numbers):
                    for payload in numbers:
                        try:
                            topic.emit(payload)
                        except BusClosedError:
                            return
                        accepted.append(payload)

                racers = Racers(*(partial(publisher, r) for r in chunks(10, 4)))
                for _ in range(number % 9):
                    doze()
                bus.forget("t")
                racers.join(5)
                bus.drain()
                assert sorted(accepted) == sorted(seen)

        play(rounds, one_round)

    @rounds(100)
    def test_a_scheduler_that_refuses_wakes_them(self, rounds):
        """Publishers that wait for room when the subscription's scheduler is shut down return, and everything has its letter."""

        def one_round(number):
            rxpy = ThreadPoolScheduler(1)
            with EventBus(capacity=1, block_timeout=6) as bus:
                entered, release = threading.Event(), threading.Event()
                one = bus.subscribe("t", lambda e: (entered.set(), release.wait(15)), scheduler=rxpy, name="one")
                racers = Racers(*(partial(lambda r: [bus.publish("t", p) for p in r], r) for r in chunks(2, 3)))
                assert entered.wait(5)
                doze()
                rxpy.executor.shutdown(wait=False)
                release.set()
                racers.join(5)
                bus.drain(5)
                assert 6 == one.statistics().offered
                check_books(bus)

        play(rounds, one_round, limit=8)

    @rounds(100)
    def test_a_hung_subscriber_costs_one_timeout(self, rounds):
        """Once a subscription counts as stalled it refuses without waiting, and takes events again as soon as it works again."""

        def one_round(number):
            with EventBus(capacity=1, block_timeout=0.05) as bus:
                release, entered = threading.Event(), threading.Event()
                one = bus.subscribe("t", lambda e: (entered.set(), release.wait(15)), overflow=Overflow.BLOCK, name="one")
                bus.publish("t", 0)
                assert entered.wait(5)
                began = time.monotonic()
                race(*(partial(lambda r: [bus.publish("t", p) for p in r], r) for r in chunks(20, 4)), limit=10)
                assert time.monotonic() - began < 2.0
                release.set()
                bus.drain()
                failed = one.statistics().failed
                assert failed > 0
                bus.publish("t", 1)
                bus.drain()
                assert failed == one.statistics().failed
                check_books(bus)

        play(rounds, one_round)

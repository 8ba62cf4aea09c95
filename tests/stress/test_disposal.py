"""Dispose, pause and resume under fire."""

from __future__ import annotations

import threading
import time
from functools import partial

import pytest
from reactivex import operators as ops
from reactivex.internal.exceptions import DisposedException
from reactivex.scheduler import ThreadPoolScheduler

from rxbus import EventBus, MailboxSubject

from .racing import check_books, chunks, doze, eventually, play, race, rounds, spin


def publish_all(bus, numbers, topic="t"):
    for payload in numbers:
        bus.publish(topic, payload)


class TestDispose:
    """After dispose nothing is taken any more."""

    @pytest.mark.parametrize("pattern", ["t", "*"])
    @pytest.mark.parametrize("threads", ["pool", "rxpy pool"])
    @rounds(2000)
    def test_nothing_is_taken_afterwards(self, rounds, pattern, threads):
        """Once dispose has returned at most the event already handed over is still handled, and the queue is counted as dropped."""
        rxpy = ThreadPoolScheduler(4)

        def one_round(number):
            with EventBus(scheduler=rxpy if threads == "rxpy pool" else None) as bus:
                log, after = [], []
                one = bus.subscribe(pattern, lambda e: (log.append(e.payload), spin()), name="one")

                def dispose():
                    for _ in range(number % 7):
                        doze()
                    one.dispose()
                    after.append((len(log), one.statistics()))

                race(dispose, *(partial(publish_all, bus, r) for r in chunks(30, 2)))
                bus.drain()
                one.dispose(wait=5)
                taken, at_once = after[0]
                final = one.statistics()
                assert len(log) - taken <= 1
                assert at_once.offered == final.offered
                assert at_once.dropped == final.dropped
                assert at_once.pending <= 1
                assert (len(log), 0) == (final.handled, final.pending)

        try:
            play(rounds, one_round)
        finally:
            rxpy.executor.shutdown()

    @rounds(1000)
    def test_wait_joins_the_last_one(self, rounds):
        """`dispose(wait=)` returns after the handler has, and nothing runs later."""

        def one_round(number):
            with EventBus() as bus:
                inside, log = [], []

                def handler(event):
                    inside.append(1)
                    doze()
                    spin()
                    log.append(event.payload)
                    inside.pop()

                one = bus.subscribe("t", handler)
                after = []

                def dispose():
                    for _ in range(number % 7):
                        doze()
                    one.dispose(wait=5)
                    after.append((len(inside), len(log)))

                race(dispose, dispose, *(partial(publish_all, bus, r) for r in chunks(30, 2)))
                bus.drain()
                assert [(0, len(log))] * 2 == after

        play(rounds, one_round)

    @rounds(500)
    def test_timers_fire_into_nothing(self, rounds):
        """What a pipeline's timers still hold when it is disposed of is never handled after `dispose(wait=)`."""

        def one_round(number):
            with EventBus() as bus:
                seen = []
                one = bus.subscribe("t", seen.append, through=ops.delay(0.0003))
                publish_all(bus, range(20))
                for _ in range(number % 7):
                    doze()
                one.dispose(wait=5)
                count = len(seen)
                time.sleep(0.001)
                assert count == len(seen)

        play(rounds, one_round)

    @rounds(500)
    def test_a_subject_and_its_disposal(self, rounds):
        """Disposing of a `MailboxSubject` under fire makes publishers raise RxPY's error and leaves no observer at work."""

        def one_round(number):
            subject, seen = MailboxSubject(), []
            subject.subscribe(lambda n: (seen.append(n), spin()))

            def publisher(numbers):
                for n in numbers:
                    try:
                        subject.on_next(n)
                    except DisposedException:
                        return

            race(*(partial(publisher, r) for r in chunks(50, 3)), lambda: (doze(), subject.dispose()))
            assert [] == subject.observers
            doze()
            count = len(seen)
            time.sleep(0.0005)
            assert len(seen) - count <= 1

        play(rounds, one_round)


class TestPause:
    """Pause holds, resume loses nothing."""

    @rounds(1000)
    def test_pause_and_resume_lose_nothing(self, rounds):
        """However often it is paused and resumed, all is handled in order once it is left running."""

        def one_round(number):
            with EventBus() as bus:
                seen, everything = [], []
                one = bus.subscribe("t", lambda e: seen.append(e.payload), name="one")
                bus.subscribe("t", lambda e: everything.append(e.payload), name="all")
                done = threading.Event()

                def toggle():
                    while not done.is_set():
                        one.pause()
                        count = len(seen)
                        doze()
                        assert len(seen) - count <= 1
                        one.resume()

                def publishers():
                    race(*(partial(publish_all, bus, r) for r in chunks(40, 2)))
                    done.set()

                race(toggle, publishers)
                assert eventually(lambda: len(seen) == 80), f"{len(seen)} of 80"
                bus.drain()
                assert everything == seen
                check_books(bus)

        play(rounds, one_round)

    @rounds(500)
    def test_pause_against_dispose_and_close(self, rounds):
        """Pauses that race with the end leave full books."""

        def one_round(number):
            bus = EventBus()
            one = bus.subscribe("t", lambda e: spin(), name="one")
            race(partial(publish_all, bus, range(40)), one.pause, one.resume, one.dispose if number % 2 else one.pause)
            one.resume()
            bus.close()
            one.dispose(wait=5)
            check_books(bus)

        play(rounds, one_round)

    @rounds(100)
    def test_a_paused_one_without_events_holds_up_no_drain(self, rounds):
        """Drain passes by a paused subscription that has no event, with a pipeline or over a forgotten topic too."""

        def one_round(number):
            with EventBus() as bus:
                bus.topic("a")
                wild = bus.subscribe("*", lambda e: None, name="wild")
                wild.pause()
                bus.forget("a")
                piped = bus.subscribe("b", lambda e: None, through=ops.map(lambda e: e), name="piped")
                piped.pause()
                bus.drain(5)

        play(rounds, one_round)

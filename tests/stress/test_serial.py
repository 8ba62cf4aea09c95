"""A subscription handles one thing at a time, timers included, on any scheduler."""

from __future__ import annotations

import threading
from functools import partial

import pytest
import reactivex as rx
from reactivex import operators as ops
from reactivex.scheduler import ImmediateScheduler, ThreadPoolScheduler

from rxbus import EventBus, MailboxSubject, Retry, operators

from .racing import Overlap, chunks, doze, eventually, play, race, rounds, spin


def publish_all(bus, topic, numbers):
    for payload in numbers:
        bus.publish(topic, payload)
        if payload % 16 == 0:
            doze()


class TestNoOverlap:
    """A handler never overlaps with itself."""

    @pytest.mark.parametrize("threads", ["pool", "one worker", "rxpy pool", "immediate"])
    @rounds(800)
    def test_plain_handlers(self, rounds, threads):
        """With several publishers a handler is entered once at a time, for exact, wildcard and raw subscriptions."""
        rxpy = ThreadPoolScheduler(8)
        scheduler = {"rxpy pool": rxpy, "immediate": ImmediateScheduler()}.get(threads)

        def one_round(number):
            with EventBus(workers=1 if threads == "one worker" else None, scheduler=scheduler) as bus:
                overlaps = [Overlap(), Overlap(), Overlap()]

                def handler(overlap, event):
                    with overlap:
                        spin() if event.payload % 4 else doze()

                bus.subscribe("t", partial(handler, overlaps[0]))
                bus.subscribe("*", partial(handler, overlaps[1]))
                bus.topic("t").subscribe(partial(handler, overlaps[2]))
                race(*(partial(publish_all, bus, "t", r) for r in chunks(20, 4)))
                bus.drain()
            assert [(80, 0)] * 3 == [(o.calls, o.found) for o in overlaps]

        try:
            play(rounds, one_round)
        finally:
            rxpy.executor.shutdown()

    @pytest.mark.parametrize("pool", ["pool", "rxpy pool"])
    @pytest.mark.parametrize(
        "through",
        [
            pytest.param(lambda: ops.delay(0.0002), id="delay"),
            pytest.param(lambda: rx.compose(ops.buffer_with_time(0.0003), ops.flat_map(rx.from_iterable)), id="buffer_with_time"),
            pytest.param(lambda: ops.merge(rx.timer(0.0001, 0.0002).pipe(ops.take(20), ops.ignore_elements())), id="merged timer"),
        ],
    )
    @rounds(500)
    def test_with_timers(self, rounds, through, pool):
        """Timers in the pipeline and the mailbox take turns, the operators on both sides of a timer too, and nothing is missing."""
        rxpy = ThreadPoolScheduler(8)

        def one_round(number):
            with EventBus(scheduler=rxpy if pool == "rxpy pool" else None) as bus:
                overlap, seen = Overlap(), []

                def operator(value):
                    with overlap:
                        spin()

                def handler(event):
                    with overlap:
                        seen.append(event.payload)
                        spin()

                bus.subscribe("t", handler, through=rx.compose(ops.do_action(operator), through(), ops.do_action(operator)))
                race(*(partial(publish_all, bus, "t", r) for r in chunks(20, 3)))
                assert eventually(lambda: len(seen) >= 60), f"{len(seen)} of 60"
            assert 0 == overlap.found
            assert list(range(60)) == sorted(seen)

        try:
            play(rounds, one_round)
        finally:
            rxpy.executor.shutdown()

    @rounds(500)
    def test_with_debounce(self, rounds):
        """A debounce emits on the strand: never two at a time, and the last event always comes out."""

        def one_round(number):
            with EventBus() as bus:
                overlap, seen = Overlap(), []

                def handler(event):
                    with overlap:
                        seen.append(event.payload)
                        doze()

                bus.subscribe("t", handler, through=ops.debounce(0.0001))
                race(*(partial(publish_all, bus, "t", r) for r in chunks(20, 3)))
                bus.publish("t", "last")
                assert eventually(lambda: "last" in seen)
            assert 0 == overlap.found

        play(rounds, one_round)

    @rounds(500)
    def test_emissions_of_other_threads(self, rounds):
        """What a pipeline takes in from a plain subject on other threads is brought back to the strand."""

        def one_round(number):
            with EventBus() as bus:
                overlap, seen, side = Overlap(), [], rx.Subject()
                threads, outside = set(), set()

                def handler(value):
                    threads.add(threading.current_thread())
                    with overlap:
                        seen.append(value)
                        spin()

                def emitter():
                    outside.add(threading.current_thread())
                    for n in range(100, 130):
                        side.on_next(n)

                bus.subscribe("t", handler, through=rx.compose(ops.map(lambda e: e.payload), ops.merge(side)))
                assert eventually(lambda: side.observers)
                race(partial(publish_all, bus, "t", range(30)), emitter)
                assert eventually(lambda: len(seen) == 60), f"{len(seen)} of 60"
            assert 0 == overlap.found
            assert not threads & outside
            assert list(range(30)) == [n for n in seen if n < 100]
            assert list(range(100, 130)) == [n for n in seen if n >= 100]

        play(rounds, one_round)

    @rounds(500)
    def test_with_retries(self, rounds):
        """Another attempt is one more serial step, and the order stands."""

        def one_round(number):
            with EventBus() as bus:
                overlap, seen, failed = Overlap(), [], set()

                def handler(event):
                    with overlap:
                        if event.payload % 5 == 0 and event.payload not in failed:
                            failed.add(event.payload)
                            raise ValueError(event.payload)
                        seen.append(event.payload)
                        spin()

                bus.subscribe("t", handler, retry=Retry(max_attempts=2, backoff=0.0))
                everything = []
                bus.subscribe("t", lambda e: everything.append(e.payload), name="all")
                race(*(partial(publish_all, bus, "t", r) for r in chunks(20, 3)))
                bus.drain()
            assert 0 == overlap.found
            assert everything == seen

        play(rounds, one_round)

    @rounds(300)
    def test_behind_a_mailbox_operator(self, rounds):
        """What stands behind `operators.mailbox` runs one at a time too, and loses nothing."""

        def one_round(number):
            with EventBus() as bus:
                overlap, seen = Overlap(), []

                def observer(event):
                    with overlap:
                        seen.append(event.payload)
                        spin()

                bus.topic("t").pipe(operators.mailbox(capacity=8)).subscribe(observer)
                race(*(partial(publish_all, bus, "t", r) for r in chunks(20, 3)))
                assert eventually(lambda: len(seen) == 60), f"{len(seen)} of 60"
            assert 0 == overlap.found

        play(rounds, one_round)


class TestGrammar:
    """The Rx grammar holds for raw observers."""

    @rounds(1000)
    def test_completion_comes_last_and_once(self, rounds):
        """`on_completed` racing with several publishers comes once, after all `on_next`, and never while one runs."""

        def one_round(number):
            subject = MailboxSubject()
            overlap, log, ended = Overlap(), [], threading.Event()

            def on_next(value):
                with overlap:
                    log.append(value)
                    spin()

            def on_completed():
                with overlap:
                    log.append("end")
                ended.set()

            subject.subscribe(on_next, on_completed=on_completed)
            race(*(partial(list, map(subject.on_next, r)) for r in chunks(15, 3)), subject.on_completed, subject.on_completed)
            assert ended.wait(5)
            assert 0 == overlap.found
            assert 1 == log.count("end")
            assert "end" == log[-1]

        play(rounds, one_round)


class TestPipelineState:
    """A pipeline has one life as long as nothing in it fails."""

    @rounds(10_000)
    def test_publishing_during_subscribe_keeps_the_state(self, rounds):
        """Events that arrive while `subscribe(through=)` is returning go through the same pipeline as all later ones."""

        def one_round(number):
            with EventBus() as bus:
                counts = []
                done = threading.Event()

                def publisher():
                    for payload in range(300):
                        bus.publish("t", payload)
                        if done.is_set():
                            return

                def subscriber():
                    bus.subscribe("t", counts.append, through=ops.scan(lambda count, _: count + 1, 0))
                    done.set()

                race(publisher, subscriber)
                bus.drain()
            assert list(range(1, len(counts) + 1)) == counts

        play(rounds, one_round)

    @rounds(2000)
    def test_dispose_during_subscribe_leaves_nothing_connected(self, rounds):
        """A disposal that races with the first connection lets go of what the pipeline subscribed to."""

        def one_round(number):
            with EventBus() as bus:
                side = rx.Subject()
                one = bus.subscribe("t", lambda e: None, through=ops.merge(side))
                for _ in range(number % 3):
                    spin()
                one.dispose(wait=5)
                assert eventually(lambda: not side.observers, 0.5), "the pipeline of a disposed subscription is still connected"

        play(rounds, one_round)

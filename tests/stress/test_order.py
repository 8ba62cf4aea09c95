"""One order for all subscribers, and what late ones see."""

from __future__ import annotations

import threading
from functools import partial

import pytest
from reactivex import operators as ops
from reactivex.scheduler import ThreadPoolScheduler

from rxbus import EventBus, MailboxSubject, Retry

from .racing import chunks, doze, play, race, rounds, slice_of, spin


class TestOneOrder:
    """Subscribers of one topic agree."""

    @rounds(2000)
    def test_all_subscribers_see_one_order(self, rounds):
        """Exact, wildcard and raw subscribers see all events of several publishers in one and the same order."""

        def one_round(number):
            with EventBus() as bus:
                seen = [[] for _ in range(4)]
                bus.subscribe("t", lambda e: (seen[0].append(e.payload), spin()))
                bus.subscribe("t", lambda e: seen[1].append(e.payload), name="fast")
                bus.subscribe(">", lambda e: (seen[2].append(e.payload), e.payload % 16 or doze()))
                bus.topic("t").subscribe(lambda e: seen[3].append(e.payload))
                race(*(partial(list, map(partial(bus.publish, "t"), r)) for r in chunks(30, 4)))
                bus.drain()
            assert list(range(120)) == sorted(seen[0])
            assert [seen[0]] * 3 == seen[1:]

        play(rounds, one_round)

    @rounds(1000)
    def test_batches_and_single_events_have_one_order(self, rounds):
        """`publish_many` racing with `publish` gives one order to all, in which each publisher's own order stands."""

        def one_round(number):
            with EventBus() as bus:
                seen = [[], [], []]
                for one in seen:
                    bus.subscribe("t", lambda e, one=one: one.append(e.payload), name=str(id(one)))
                many, single = range(300), range(1000, 1060)
                race(
                    lambda: bus.publish_many("t", many),
                    lambda: [bus.publish("t", p) for p in single],
                    lambda: bus.publish_many("t", range(2000, 2300)),
                )
                bus.drain()
            assert [seen[0]] * 2 == seen[1:]
            assert list(many) == [p for p in seen[0] if p < 1000]
            assert list(single) == [p for p in seen[0] if 1000 <= p < 2000]
            assert 660 == len(seen[0])

        play(rounds, one_round)

    @rounds(1000)
    def test_wildcards_keep_the_order_of_each_topic(self, rounds):
        """Two wildcard subscribers over several topics agree on the order within each topic."""

        def one_round(number):
            with EventBus() as bus:
                seen = [[], []]
                for one in seen:
                    bus.subscribe("a.*", lambda e, one=one: one.append((e.topic, e.payload)), name=str(id(one)))
                race(*(partial(lambda r: [bus.publish(f"a.{p % 3}", p) for p in r], r) for r in chunks(30, 3)))
                bus.drain()
            for topic in ("a.0", "a.1", "a.2"):
                first, second = ([p for t, p in one if t == topic] for one in seen)
                assert 30 == len(first)
                assert first == second

        play(rounds, one_round)

    @rounds(500)
    def test_a_subject_alone_has_one_order(self, rounds):
        """The observers of a `MailboxSubject`, on the shared pool and on RxPY's, see one order and each item once."""
        pool = ThreadPoolScheduler(4)

        def one_round(number):
            subject = MailboxSubject()
            seen = [[], [], []]
            ended = threading.Semaphore(0)
            for one, scheduler in zip(seen, (None, pool, None), strict=True):
                subject.subscribe(on_next=one.append, on_completed=ended.release, scheduler=scheduler)
            race(*(partial(list, map(subject.on_next, r)) for r in chunks(30, 3)))
            subject.on_completed()
            assert all(ended.acquire(timeout=5) for _ in seen)
            assert list(range(90)) == sorted(seen[0])
            assert [seen[0]] * 2 == seen[1:]

        try:
            play(rounds, one_round)
        finally:
            pool.executor.shutdown()


class TestLateSubscribers:
    """What is seen begins at the subscribe."""

    @pytest.mark.parametrize("kind", ["exact", "wildcard", "raw", "through"])
    @rounds(1500)
    def test_late_ones_see_exactly_what_came_after(self, rounds, kind):
        """Nothing whose publish had returned before `subscribe` was called is seen, all whose publish began after it returned is."""

        def one_round(number):
            with EventBus() as bus:
                progress = {"began": -1, "returned": -1}
                everything, late, marks = [], [], {}
                bus.subscribe("t.x", lambda e: everything.append(e.payload))
                stop = threading.Event()

                def publisher():
                    for payload in range(400):
                        progress["began"] = payload
                        bus.publish("t.x", payload)
                        progress["returned"] = payload
                        if stop.is_set() and payload > progress.get("end", 400):
                            return

                def subscriber():
                    for _ in range(number % 7):
                        doze()
                    marks["before"] = progress["returned"]
                    if kind == "raw":
                        bus.topic("t.x").subscribe(lambda e: late.append(e.payload))
                    else:
                        through = ops.map(lambda e: e) if kind == "through" else None
                        bus.subscribe(
                            "t.*" if kind == "wildcard" else "t.x", lambda e: late.append(e.payload), name="late", through=through
                        )
                    marks["after"] = progress["began"]
                    progress["end"] = marks["after"] + 20
                    stop.set()

                race(publisher, subscriber)
                bus.drain()
            assert all(p > marks["before"] for p in late)
            assert set(range(marks["after"] + 1, progress["began"] + 1)) <= set(late)
            assert everything[len(everything) - len(late) :] == late

        play(rounds, one_round)

    @rounds(1500)
    def test_wildcards_catch_topics_that_are_being_made(self, rounds):
        """A wildcard subscription that races with the first publish on new topics misses none that began after it returned."""

        def one_round(number):
            with EventBus() as bus:
                progress = {"returned": -1, "began": -1}
                late, marks = [], {}

                def publisher():
                    for payload in range(60):
                        progress["began"] = payload
                        bus.publish(f"t.{payload}", payload)
                        progress["returned"] = payload

                def subscriber():
                    for _ in range(number % 5):
                        doze()
                    marks["before"] = progress["returned"]
                    bus.subscribe("t.*", lambda e: late.append(e.payload))
                    marks["after"] = progress["began"]

                race(publisher, subscriber)
                bus.drain()
            assert len(late) == len(set(late))
            assert all(p > marks["before"] for p in late)
            assert set(range(marks["after"] + 1, 60)) <= set(late)

        play(rounds, one_round)

    @rounds(500)
    def test_late_ones_see_a_slice_without_gaps(self, rounds):
        """Subscriptions that come and go each see a piece of the one order without a gap."""

        def one_round(number):
            with EventBus() as bus:
                everything, pieces = [], []
                bus.subscribe("t", lambda e: everything.append(e.payload), name="all")
                done = threading.Event()

                def publisher(numbers):
                    for payload in numbers:
                        bus.publish("t", payload)
                        if payload % 8 == 0:
                            doze()

                def churn():
                    while not done.is_set():
                        piece = []
                        pieces.append(piece)
                        with bus.subscribe("t", lambda e, piece=piece: (piece.append(e.payload), spin()), name=f"s{len(pieces)}"):
                            doze()

                def publishers():
                    race(*(partial(publisher, r) for r in chunks(60, 2)))
                    done.set()

                race(publishers, churn)
                bus.drain()
            assert 120 == len(everything)
            assert all(slice_of(piece, everything) for piece in pieces)

        play(rounds, one_round)


class TestRetries:
    """Order through pauses."""

    @rounds(2000)
    def test_nothing_overtakes_an_event_that_backs_off(self, rounds):
        """Its pause may be over at any moment of the run that began it; still the next event comes after its last attempt."""

        def one_round(number):
            with EventBus() as bus:
                seen = []

                def handler(event):
                    seen.append(event.payload)
                    if seen.count(event.payload) < 3:
                        raise ValueError

                one = bus.subscribe("t", handler, retry=Retry(3, backoff=0.00005, jitter=0.9))
                for n in range(20):
                    bus.publish("t", n)
                bus.drain()
                assert sorted(seen) == seen
                assert 20 == one.statistics().handled

        play(rounds, one_round)

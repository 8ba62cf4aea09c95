"""Offered is handled, failed, dropped and pending, for everybody and always."""

from __future__ import annotations

import threading
from functools import partial

import pytest
from reactivex import operators as ops
from reactivex.scheduler import ImmediateScheduler, ThreadPoolScheduler

from rxbus import EventBus, Overflow, Reason, Retry, WorkerPool

from .racing import balance, check_books, chunks, doze, play, race, rounds, spin


def failing(event):
    """A handler of which every third event fails."""
    spin()
    if event.payload % 3 == 0:
        raise ValueError(event.payload)


def publish_all(bus, numbers, topics=("a.x", "a.y", "a.z")):
    for payload in numbers:
        bus.publish(topics[payload % len(topics)], payload)


class TestBooks:
    """The counters under fire."""

    @pytest.mark.parametrize("threads", ["pool", "two workers", "rxpy pool", "immediate"])
    @rounds(500)
    def test_all_policies_at_once(self, rounds, threads):
        """Small mailboxes of all four policies, exact and wildcard, with failing handlers, account for every event."""
        rxpy = ThreadPoolScheduler(8)
        scheduler = {"rxpy pool": rxpy, "immediate": ImmediateScheduler()}.get(threads)

        def one_round(number):
            with EventBus(capacity=3, workers=2 if threads == "two workers" else None, scheduler=scheduler) as bus:
                for policy in Overflow:
                    for pattern in ("a.x", "a.*", ">"):
                        bus.subscribe(pattern, failing, overflow=policy, name=f"{pattern} {policy.value}")
                race(*(partial(publish_all, bus, r) for r in chunks(30, 3)))
                bus.drain()
                check_books(bus)
                statistics = bus.statistics()
                assert 90 == sum(t.published for t in statistics.topics.values())
                for name, s in statistics.subscriptions.items():
                    assert (30 if "a.x" in name else 90) == s.offered
                    if "block" in name:
                        assert (s.offered, 0) == (s.handled + s.failed, s.dropped)
                    if "fail" in name:
                        assert 0 == s.dropped
                for topic in statistics.topics.values():
                    takers = 12 if topic.name == "a.x" else 8
                    assert 30 * takers == topic.handled + topic.failed + topic.dropped

        try:
            play(rounds, one_round)
        finally:
            rxpy.executor.shutdown()

    @rounds(600)
    def test_disposals_in_mid_stream(self, rounds):
        """Subscriptions of all policies that are disposed of under fire close their books, and the topics' sums keep them."""

        def one_round(number):
            with EventBus(capacity=4) as bus:
                ones = [
                    bus.subscribe(pattern, failing, overflow=policy, name=f"{pattern} {policy.value}")
                    for policy in Overflow
                    for pattern in ("a.x", "a.*")
                ]

                def dispose():
                    for one in ones[number % 2 :: 2]:
                        doze()
                        one.dispose()

                race(dispose, *(partial(publish_all, bus, r) for r in chunks(40, 3)))
                bus.drain()
                check_books(bus)

        play(rounds, one_round)

    @rounds(2000)
    def test_dispose_of_a_long_queue_while_the_handler_ends(self, rounds):
        """The books that stay of a disposed subscription are complete, even if its handler returns while the queue is being dropped."""

        def one_round(number):
            with EventBus() as bus:
                go = threading.Event()
                one = bus.subscribe("t", lambda e: go.wait(5), name="one")
                bus.publish_many("t", range(200))
                race(go.set, one.dispose)
                bus.drain()
                past = bus.statistics().subscriptions["one"]
                assert (200, 200, 0) == balance(past)
                assert one.statistics() == past
                topic = bus.statistics().topics["t"]
                assert 200 == topic.handled + topic.dropped

        play(rounds, one_round)

    @rounds(2000)
    def test_two_disposals_at_once(self, rounds):
        """However many dispose of a subscription at once, each that returned left an empty mailbox and full books."""

        def one_round(number):
            with EventBus() as bus:
                one = bus.subscribe("t", lambda e: None, name="one")
                one.pause()
                bus.publish_many("t", range(200))
                after = []

                def dispose():
                    one.dispose()
                    after.append(balance(one))

                race(dispose, dispose, dispose)
                assert [(200, 200, 0)] * 3 == after
                assert (200, 200, 0) == balance(bus.statistics().subscriptions["one"])
                assert 200 == bus.statistics().topics["t"].dropped

        play(rounds, one_round)

    @rounds(1000)
    def test_dispose_against_close(self, rounds):
        """A dispose that races with a close, draining or not, leaves full books."""

        def one_round(number):
            bus = EventBus()
            ones = [bus.subscribe(p, failing, name=f"{p}{i}") for p in ("a.x", "a.*") for i in range(2)]
            publish_all(bus, range(150))
            race(lambda: bus.close(drain=number % 2 == 0), ones[0].dispose, ones[2].dispose)
            for one in ones:
                one.dispose(wait=5)
            check_books(bus)

        play(rounds, one_round)

    @rounds(1000)
    def test_disposals_from_inside(self, rounds):
        """Handlers that dispose of themselves and of each other close their books."""

        def one_round(number):
            with EventBus() as bus:
                ones = []

                def handler(index, event):
                    spin()
                    if event.payload % 7 == index:
                        ones[index].dispose()
                    if event.payload % 11 == index:
                        ones[(index + 1) % 3].dispose()

                ones.extend(bus.subscribe("a.*", partial(handler, i), name=str(i)) for i in range(3))
                race(*(partial(publish_all, bus, r) for r in chunks(30, 2)))
                bus.drain()
                check_books(bus)

        play(rounds, one_round)

    @rounds(500)
    def test_pipelines_that_fail_or_complete(self, rounds):
        """Failing operators, failing handlers behind them, and pipelines that complete in mid-stream account for every event."""

        def fails(event):
            if event.payload % 4 == 0:
                raise KeyError(event.payload)
            return event

        def one_round(number):
            with EventBus() as bus:
                bus.subscribe("a.x", failing, through=ops.map(fails), name="map")
                bus.subscribe("a.*", failing, through=ops.take(17), name="take")
                bus.subscribe("a.*", failing, through=ops.filter(lambda e: e.payload % 2), name="filter")
                bus.topic("a.x").pipe(ops.map(fails)).subscribe(lambda e: None, lambda e: None)
                race(*(partial(publish_all, bus, r) for r in chunks(30, 3)))
                bus.drain()
                snapshot = bus.statistics().subscriptions
                for name in ("map", "take", "filter"):
                    offered, accounted, pending = balance(snapshot[name])
                    assert (offered, 0) == (accounted, pending), name
                letters = [letter.subscription for letter in bus.dead_letters]
                assert snapshot["map"].failed == letters.count("map")
                assert snapshot["take"].failed == letters.count("take")
                assert 17 == snapshot["take"].handled + snapshot["take"].failed

        play(rounds, one_round)

    @rounds(400)
    def test_a_pool_shared_by_two_buses(self, rounds):
        """Two buses on one `WorkerPool` keep separate books, and one's end leaves the other at work."""

        def one_round(number):
            pool = WorkerPool(4)
            first, second = EventBus("first", scheduler=pool, capacity=4), EventBus("second", scheduler=pool, capacity=4)
            first.subscribe("a.*", lambda e: second.publish("b", e.payload), name="bridge")
            seen = []
            second.subscribe("b", lambda e: (seen.append(e.payload), failing(e)), name="end")
            race(*(partial(publish_all, first, r) for r in chunks(20, 3)))
            first.close()
            check_books(first)
            second.publish("b", 1000)
            second.close()
            check_books(second)
            assert [*range(60), 1000] == sorted(seen)
            pool.close()

        play(rounds, one_round)

    @rounds(300)
    def test_letters_of_every_kind(self, rounds):
        """What was refused by a full mailbox has a letter with OVERFLOW and no attempt, what failed one with its attempts."""

        def one_round(number):
            with EventBus() as bus:
                one = bus.subscribe("a.x", failing, capacity=2, overflow=Overflow.FAIL, retry=Retry(2, backoff=0.0), name="one")
                race(*(partial(publish_all, bus, r, ("a.x",)) for r in chunks(30, 3)))
                bus.drain()
                check_books(bus)
                for letter in bus.dead_letters:
                    assert (0 if letter.reason is Reason.OVERFLOW else 2) == letter.attempts
                assert 90 == one.statistics().offered

        play(rounds, one_round)


class TestRetryAgainstDispose:
    """A subscription in its backoff can be disposed of."""

    @rounds(2000)
    def test_nothing_is_left_behind(self, rounds):
        """Retries without a pause racing with a dispose settle each event exactly once."""

        def one_round(number):
            with EventBus() as bus:
                one = bus.subscribe("a.x", failing, retry=Retry(max_attempts=3, backoff=0.0), name="one")

                def dispose():
                    for _ in range(number % 11):
                        doze()
                    one.dispose()

                race(dispose, partial(publish_all, bus, range(0, 90, 3), ("a.x",)))
                one.dispose(wait=5)
                bus.drain()
                assert one.statistics() == bus.statistics().subscriptions["one"]
                check_books(bus)

        play(rounds, one_round)

    @rounds(1000)
    def test_deliver_gets_its_receipt(self, rounds):
        """A deliver whose only subscription is disposed of amid its attempts gets a receipt that counts it once, as dropped or failed."""

        def one_round(number):
            with EventBus() as bus:
                one = bus.subscribe("a.x", failing, retry=Retry(max_attempts=1000, backoff=0.0), name="one")
                receipts = []

                def dispose():
                    for _ in range(number % 7):
                        doze()
                    one.dispose()

                race(dispose, lambda: receipts.append(bus.deliver("a.x", 3, timeout=10)))
                receipt = receipts[0]
                assert 0 == receipt.handled
                assert one.statistics().offered == receipt.failed + receipt.dropped
                check_books(bus)

        play(rounds, one_round)

"""Several events at a time, keys and groups, as races."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter, defaultdict
from functools import partial

import pytest
import reactivex as rx
from reactivex import operators as ops

from rxbus import Breaker, EventBus, Overflow, Retry
from rxbus.strand import Strand
from tests.support import Unreliable

from .racing import Racers, balance, check_books, chunks, doze, play, race, rounds, spin


class Inside:
    """Counts who is inside, at most, and for each key."""

    def __init__(self):
        self._lock = threading.Lock()
        self._inside = defaultdict(int)
        self.most = defaultdict(int)

    def __call__(self, key, work):
        with self._lock:
            for one in (None, key):
                self._inside[one] += 1
                self.most[one] = max(self.most[one], self._inside[one])
        work()
        with self._lock:
            for one in (None, key):
                self._inside[one] -= 1


def publish_all(bus, topic, numbers):
    for n in numbers:
        bus.publish(topic, n)
        if n % 7 == 0:
            doze()


class TestCrews:
    """`concurrency=` and `key=`."""

    @pytest.mark.parametrize("workers", [1, 3, None])
    @pytest.mark.parametrize("pattern", ["t", "*"])
    @rounds(300)
    def test_bound_and_order(self, rounds, pattern, workers):
        """Never more than three inside; within a key one at a time and in the order of the topic, whoever publishes."""

        def one_round(number):
            inside, by_key, order = Inside(), defaultdict(list), []

            def handler(event):
                def work():
                    by_key[event.payload % 5].append(event.id)
                    spin() if event.payload % 3 else doze()

                inside(event.payload % 5, work)

            with EventBus(workers=workers) as bus:
                bus.subscribe(pattern, handler, concurrency=3, key=lambda e: e.payload % 5)
                bus.subscribe(pattern, lambda e: order.append((e.payload % 5, e.id)), name="order")
                race(*(partial(publish_all, bus, "t", r) for r in chunks(20, 4)))
                bus.drain()
                check_books(bus)
            assert inside.most.pop(None) <= 3
            assert {1} == set(inside.most.values())
            for key, ids in by_key.items():
                assert [i for k, i in order if k == key] == ids

        play(rounds, one_round)

    @pytest.mark.parametrize("through", [None, "twice", "fails"])
    @rounds(300)
    def test_books(self, rounds, through):
        """Failing handlers, operators and keys, retries, a small mailbox, pauses and a dispose: everything is accounted for."""
        operators = {
            None: None,
            "twice": ops.flat_map(lambda e: rx.of(e, e)),
            "fails": ops.do_action(lambda e: 1 // (e.payload % 11)),
        }

        def one_round(number):
            policy = list(Overflow)[number % 4]

            def handler(event):
                doze()
                if event.payload % 4 == 1 and random.random() < 0.7:
                    raise ValueError(event.payload)

            def key(event):
                return 1 // (event.payload % 13) + event.payload % 3

            with EventBus(capacity=5, overflow=policy) as bus:
                subscriptions = [
                    bus.subscribe("*", handler, through=operators[through], concurrency=3, key=key, retry=Retry(2, backoff=0.0001)),
                    bus.subscribe("t", handler, through=operators[through], concurrency=2),
                ]

                def fiddle():
                    for one in subscriptions:
                        one.pause()
                        doze()
                        one.resume()
                    if number % 3 == 0:
                        subscriptions[0].dispose()

                race(*(partial(publish_all, bus, "t", r) for r in chunks(25, 3)), fiddle)
                bus.drain()
                check_books(bus)
                assert 75 == subscriptions[1].statistics().offered
                assert number % 3 == 0 or 75 == subscriptions[0].statistics().offered
                for one in subscriptions:
                    assert one._strand.mailbox.limit == 5

        play(rounds, one_round)

    @rounds(200)
    def test_block_with_parked_events(self, rounds):
        """Publishers that wait for room among parked events are all let in; nobody is left in line."""

        def one_round(number):
            with EventBus(capacity=2, block_timeout=10) as bus:
                seen = []
                bus.subscribe("t", lambda e: (doze(), seen.append(e.payload)), concurrency=3, key=lambda e: e.payload % 2)
                race(*(partial(publish_all, bus, "t", r) for r in chunks(15, 4)))
                bus.drain()
                assert list(range(60)) == sorted(seen)
                check_books(bus)

        play(rounds, one_round)

    @rounds(500)
    def test_dispose_waits(self, rounds):
        """When `dispose(wait=)` returned, no handler begins any more and everything is booked."""

        def one_round(number):
            with EventBus() as bus:
                last = [0.0]

                def handler(event):
                    last[0] = time.perf_counter()

                one = bus.subscribe("t", handler, concurrency=2)
                racers = Racers(partial(publish_all, bus, "t", range(15)))
                time.sleep(random.random() * 0.0006)
                one.dispose(wait=5)
                returned = time.perf_counter()
                assert 0 == one.statistics().pending
                racers.join()
                assert last[0] <= returned
                check_books(bus)

        play(rounds, one_round)

    @pytest.mark.parametrize("key", [None, lambda v: v % 4], ids=["no key", "key"])
    @rounds(300)
    def test_a_scheduler_that_refuses_now_and_then(self, rounds, key):
        """Whatever it refuses, strand or lane, is a dead letter; nothing hangs, and the books are right."""

        def one_round(number):
            with EventBus() as bus:
                scheduler = Unreliable()
                through = ops.flat_map(lambda e: rx.from_(range(4)))
                bus.subscribe("t", lambda v: None, through=through, concurrency=2, key=key, scheduler=scheduler)

                def refuse():
                    for _ in range(20):
                        scheduler.refuses = random.random() < 0.3
                        doze()
                    scheduler.refuses = False

                race(*(partial(publish_all, bus, "t", range(10)) for _ in range(2)), refuse)
                bus.drain(10)
                check_books(bus)

        play(rounds, one_round)

    @pytest.mark.parametrize("group", [None, "g"], ids=["alone", "group"])
    @pytest.mark.parametrize("concurrency", [2, 4, 8])
    @pytest.mark.parametrize("coroutine", [False, True], ids=["function", "coroutine"])
    @rounds(1000)
    def test_a_breaker_begins_one_pause_and_makes_one_trial(self, rounds, coroutine, concurrency, group, monkeypatch):
        """However many fail at once: no pause begins in another, and all failures but those under way when it broke were trials."""
        after, pauses, pending = Strand.after, [], Counter()

        def counted(strand, seconds, act):
            def end():
                pending[strand] -= 1
                act()

            pending[strand] += 1
            pauses.append(pending[strand])
            after(strand, seconds, end)

        monkeypatch.setattr(Strand, "after", counted)

        def fails(event):
            doze()
            raise ValueError

        async def afails(event):
            await asyncio.sleep(0)
            raise ValueError

        def one_round(number):
            pauses.clear()
            with EventBus() as bus:
                handler = afails if coroutine else fails
                one = bus.subscribe("t", handler, breaker=Breaker(failures=3, pause=0.0005), concurrency=concurrency, group=group)
                publish_all(bus, "t", range(20))
                bus.drain(10)
                assert {1} == set(pauses)
                assert 0 <= one.statistics().failed - len(pauses) <= 2 + concurrency - 1
                check_books(bus)

        play(rounds, one_round)

    @rounds(200)
    def test_pipelines_that_complete(self, rounds):
        """What `take` let through is handled, the rest is dropped, and the subscription ends."""

        def one_round(number):
            with EventBus() as bus:
                seen = []
                one = bus.subscribe("t", lambda e: (doze(), seen.append(e.payload)), through=ops.take(7), concurrency=3)
                race(*(partial(publish_all, bus, "t", r) for r in chunks(10, 2)))
                bus.drain()
                assert 7 == len(seen)
                assert one.is_disposed
                check_books(bus)

        play(rounds, one_round)


class TestGroups:
    """`group=`."""

    @pytest.mark.parametrize("pattern", ["t", "*"])
    @rounds(300)
    def test_members_come_and_go(self, rounds, pattern):
        """While members pause, join and leave, every event is handled exactly once; in the end the books are right."""

        def one_round(number):
            with EventBus() as bus:
                seen = []

                def handler(event):
                    spin() if event.payload % 3 else doze()
                    seen.append(event.payload)

                def join(name, **options):
                    return bus.subscribe(pattern, handler, group="g", name=name, **options)

                stays = join("stays", concurrency=1 + number % 2)

                def come_and_go(who):
                    for n in range(4):
                        one = join(f"{who} {n}", concurrency=1 + (n + who) % 2)
                        doze()
                        if n % 2:
                            one.pause()
                        doze()
                        one.dispose()

                def pauses():
                    for _ in range(4):
                        stays.pause()
                        doze()
                        stays.resume()
                        doze()

                race(*(partial(publish_all, bus, "t", r) for r in chunks(25, 3)), partial(come_and_go, 0), partial(come_and_go, 1), pauses)
                bus.drain()
                assert list(range(75)) == sorted(seen)
                check_books(bus)
                assert 75 == sum(s.handled for s in bus.statistics().subscriptions.values())

        play(rounds, one_round)

    @pytest.mark.parametrize("overflow", list(Overflow))
    @rounds(200)
    def test_books_of_all_members(self, rounds, overflow):
        """Everybody may leave at any moment: what was offered to the group is accounted for by its members."""

        def one_round(number):
            with EventBus(capacity=3, overflow=overflow) as bus:

                def handler(event):
                    doze()
                    if event.payload % 5 == 0:
                        raise ValueError

                members = [bus.subscribe("t", handler, group="g", retry=Retry(2, backoff=0.0001)) for _ in range(3)]
                group = members[0]._group

                def leave():
                    for one in members:
                        doze()
                        one.dispose()

                race(*(partial(publish_all, bus, "t", r) for r in chunks(15, 2)), leave)
                bus.drain()
                check_books(bus)
                arrived = group._intake.arrived()
                assert arrived == sum(balance(s)[0] for s in bus.statistics().subscriptions.values())

        play(rounds, one_round)

    @rounds(2000)
    def test_nobody_rests_while_something_is_queued(self, rounds):
        """Events that come just as a member goes to rest are taken without another event's help, by whoever can."""
        bus = EventBus()
        seen = []
        members = [bus.subscribe("t", lambda e: seen.append(e.payload), group="g", name=f"m{n}") for n in range(3)]

        def one_round(number):
            before = len(seen)

            def pause(one):
                one.pause()
                doze()
                one.resume()

            racers = Racers(
                partial(publish_all, bus, "t", range(3)), partial(publish_all, bus, "t", range(3)), partial(pause, members[number % 3])
            )
            racers.join()
            deadline = 3.0
            while len(seen) < before + 6 and deadline > 0:
                doze()
                deadline -= 0.0001
            assert before + 6 == len(seen)

        play(rounds, one_round)
        bus.close()

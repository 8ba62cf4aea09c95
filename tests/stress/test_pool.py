"""Nothing that was submitted waits for a worker that sleeps."""

from __future__ import annotations

import threading
import time
from functools import partial

import pytest
import reactivex as rx

from rxbus import EventBus, MailboxSubject, Overflow, WorkerPool, operators, workers

from .racing import Racers, doze, eventually, play, race, rounds, spin


class TestSubmissions:
    """Submissions are never lost. These tests only look: `drain` would repair a lost one."""

    @pytest.mark.parametrize("bound", [1, 2, None])
    @rounds(200)
    def test_sparse_events_on_many_topics(self, rounds, bound):
        """Events that each find their mailbox dry and the workers falling asleep are all handled without further help."""
        pool = WorkerPool(bound or 1024)
        bus = EventBus(scheduler=pool)
        seen = [0] * 40

        def handler(index, event):
            seen[index] += 1

        for index in range(40):
            bus.subscribe(f"t{index}", partial(handler, index), name=f"s{index}")

        def one_round(number):
            before = sum(seen)

            def publisher(start):
                for index in range(start, start + 40, 3):
                    bus.publish(f"t{index % 40}", number)
                    if index % 4 == 0:
                        doze()
                    elif index % 4 == 1:
                        spin()

            race(*(partial(publisher, s) for s in range(3)))
            published = sum(len(range(s, s + 40, 3)) for s in range(3))
            assert eventually(lambda: sum(seen) == before + published, 3.0), f"{sum(seen) - before} of {published}"

        play(rounds, one_round)
        bus.close()
        pool.close()

    @pytest.mark.parametrize("bound", [1, 3])
    @rounds(400)
    def test_workers_called_early(self, rounds, bound):
        """Whether the submission that a worker was called for comes soon, late or never, and whoever submits besides: nothing waits."""
        pool = WorkerPool(bound)
        done = set()

        class Task:
            def __init__(self, number):
                self.number = number

            def run(self):
                done.add(self.number)

        def one_round(number):
            wanted = {(number, who, n) for who in range(2) for n in range(10)}

            def submitter(who):
                for n in range(10):
                    if (n + who) % 3:
                        pool.call_early()
                    if n % 4 == 0:
                        doze()
                    elif n % 4 == 1:
                        time.sleep(0.0003)
                    pool.submit(Task((number, who, n)))
                    if n % 2:
                        doze()
                pool.call_early()

            race(partial(submitter, 0), partial(submitter, 1))
            assert eventually(lambda: done >= wanted, 3.0), wanted - done

        play(rounds, one_round)
        pool.close()

    @pytest.mark.parametrize("bound", [1, 3])
    @rounds(200)
    def test_workers_that_leave(self, rounds, bound, monkeypatch):
        """Submissions that race with workers and the watcher timing out are not lost."""
        monkeypatch.setattr(workers, "IDLE_SECONDS", 0.0003)
        pool = WorkerPool(bound)
        done = [0]

        class Task:
            def run(self):
                done[0] += 1

        def one_round(number):
            before = done[0]
            for n in range(20):
                pool.submit(Task())
                time.sleep(0.0002 + (n + number) % 7 * 40e-6)
            if bound == 1:
                assert eventually(lambda: done[0] == before + 20, 3.0), f"{done[0] - before} of 20"
            else:
                assert eventually(lambda: done[0] >= before + 19, 3.0)  # several workers may lose a count, not a submission

        play(rounds, one_round)
        pool.close()

    @rounds(3000)
    def test_one_subject_run_dry_again_and_again(self, rounds):
        """An item that arrives just as a run ends is handled by that run or by the next, without another item's help."""
        subject, seen = MailboxSubject(), []
        subject.subscribe(seen.append)

        def one_round(number):
            before = len(seen)
            subject.on_next(number)
            for _ in range(number % 5):
                spin()
            subject.on_next(number)
            assert eventually(lambda: len(seen) == before + 2, 3.0), f"{len(seen) - before} of 2"

        play(rounds, one_round)

    @rounds(20_000)
    def test_a_newer_event_takes_the_place_of_an_older_one(self, rounds):
        """Under DROP_OLDEST the newest event is handled without another's help, however the strand takes the older ones meanwhile."""
        bus = EventBus()
        seen = []
        bus.subscribe("t", lambda e: (seen.append(e.payload), spin()), capacity=1, overflow=Overflow.DROP_OLDEST)

        def one_round(number):
            for n in range(20):
                bus.publish("t", (number, n))
            assert eventually(lambda: seen and seen[-1] == (number, 19), 3.0), f"the last one seen is {seen[-1:]}"
            seen.clear()

        play(rounds, one_round)
        bus.close()

    @rounds(1000)
    def test_a_box_that_moves_to_the_pool_of_a_bus(self, rounds):
        """A mailbox operator that is at work when the first event of a bus comes through loses nothing on its way to the bus's pool."""

        def one_round(number):
            bus = EventBus(workers=2)
            seen, side = [], rx.Subject()
            bus.subscribe("t", lambda e: None, name="warm")
            rx.merge(side, bus.topic("t")).pipe(operators.mailbox()).subscribe(lambda e: (seen.append(e), spin()))

            def side_publisher():
                for n in range(30):
                    side.on_next(n)

            def publisher():
                for _ in range(number % 9):
                    doze()
                bus.publish("t", 0)

            race(side_publisher, publisher)
            found = eventually(lambda: len(seen) == 31, 2.0)
            bus.close(1)
            assert found, f"{len(seen)} of 31 before the close"

        play(rounds, one_round)


class TestBound:
    """The bound of a pool and those who wait."""

    @rounds(100)
    def test_waiting_workers_dont_count(self, rounds):
        """With one worker, handlers that deliver to further topics, three deep, come to their end."""

        def one_round(number):
            with EventBus(workers=1) as bus:
                ends = []
                bus.subscribe("a", lambda e: bus.deliver("b", e.payload, timeout=8), name="a")
                bus.subscribe("b", lambda e: bus.deliver("c", e.payload, timeout=8), name="b")
                bus.subscribe("c", lambda e: ends.append(e.payload), name="c")
                race(*(partial(lambda s: [bus.publish("a", s) for _ in range(3)], s) for s in range(2)))
                assert eventually(lambda: len(ends) == 6)
                bus.drain(5)
                assert [] == list(bus.dead_letters)

        play(rounds, one_round)

    @rounds(100)
    def test_one_worker_and_full_mailboxes(self, rounds):
        """With one worker, a handler that waits for room in another's mailbox doesn't keep the other from making it."""

        def one_round(number):
            with EventBus(workers=1, capacity=1, block_timeout=30) as bus:
                ends = []
                bus.subscribe("a", lambda e: [bus.publish("b", n) for n in range(5)], name="a")
                bus.subscribe("b", lambda e: ends.append(e.payload), name="b")
                racers = Racers(*[lambda: [bus.publish("a", n) for n in range(3)]] * 2)
                racers.join(8)
                assert eventually(lambda: len(ends) == 30), f"{len(ends)} of 30"
                assert [] == list(bus.dead_letters)

        play(rounds, one_round)

    @rounds(100)
    def test_blocked_workers_are_replaced_within_the_bound(self, rounds):
        """A pool never has more workers than its bound, and reaches it when all of them block."""

        def one_round(number):
            pool = WorkerPool(3)
            release = threading.Event()
            inside = []
            for _ in range(6):
                pool.call(lambda: (inside.append(1), release.wait(10)))
            assert eventually(lambda: len(inside) == 3)
            doze()
            assert (3, 3) == (pool.workers, len(inside))
            release.set()
            assert eventually(lambda: len(inside) == 6)
            assert pool.workers <= 3
            pool.close()

        play(rounds, one_round)

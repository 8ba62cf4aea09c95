"""A publish either raised and was seen by nobody, or was offered to every subscription of that moment."""

from __future__ import annotations

import threading
from functools import partial

import pytest

from rxbus import BusClosedError, EventBus

from .racing import Racers, check_books, chunks, doze, play, race, rounds, spin


def publish_until_closed(bus, topic, numbers, accepted, refused):
    """Publishes until the bus refuses, and notes which is which."""
    for payload in numbers:
        try:
            bus.publish(topic, payload)
        except BusClosedError:
            refused.append(payload)
            if len(refused) > 20:
                return
        else:
            accepted.append(payload)


class TestPublishAgainstClose:
    """Eight publishers, and a close."""

    @rounds(1500)
    def test_draining_close_handles_exactly_what_was_accepted(self, rounds):
        """After a draining close each subscription has handled every accepted event and no refused one."""

        def one_round(number):
            bus = EventBus()
            accepted, refused, seen = [], [], [[], [], []]
            bus.subscribe("t", lambda e: (seen[0].append(e.payload), spin()))
            bus.subscribe(">", lambda e: seen[1].append(e.payload))
            bus.topic("t").subscribe(lambda e: seen[2].append(e.payload))
            racers = Racers(*(partial(publish_until_closed, bus, "t", r, accepted, refused) for r in chunks(400, 8)))
            for _ in range(number % 9):
                doze()
            report = bus.close()
            racers.join()
            assert {} == dict(report.unhandled)
            assert [sorted(accepted)] * 3 == [sorted(one) for one in seen]
            check_books(bus)

        play(rounds, one_round)

    @rounds(1500)
    def test_handlers_may_publish_while_drained(self, rounds):
        """Handlers that publish on further topics are never refused while accepted events are being drained."""

        def one_round(number):
            bus = EventBus()
            accepted, refused, ends = [], [], []
            bus.subscribe("c", lambda e: ends.append(e.payload))
            bus.subscribe("b", lambda e: e.payload, to="c", name="b")
            bus.subscribe("a", lambda e: bus.publish("b", e.payload), name="a")
            racers = Racers(*(partial(publish_until_closed, bus, "a", r, accepted, refused) for r in chunks(60, 8)))
            for _ in range(number % 9):
                doze()
            report = bus.close()
            racers.join()
            assert {} == dict(report.unhandled)
            assert [] == [str(letter.error) for letter in bus.dead_letters]
            assert sorted(accepted) == sorted(ends)

        play(rounds, one_round)

    @rounds(1500)
    def test_close_without_drain_counts_everything(self, rounds):
        """After a close that doesn't drain, handled and dropped are what was accepted, for every subscription."""

        def one_round(number):
            bus = EventBus()
            accepted, refused = [], []
            subscriptions = [bus.subscribe("t", lambda e: spin(), name=f"s{i}") for i in range(3)]
            subscriptions.append(bus.subscribe("*", lambda e: doze(), name="wild"))
            racers = Racers(*(partial(publish_until_closed, bus, "t", r, accepted, refused) for r in chunks(100, 8)))
            for _ in range(number % 9):
                doze()
            bus.close(drain=False)
            racers.join()
            for one in subscriptions:
                one.dispose(wait=5)
                assert len(accepted) == one.statistics().offered
            check_books(bus)

        play(rounds, one_round)

    @rounds(1500)
    def test_the_report_misses_nothing_that_was_dropped(self, rounds):
        """What a close that doesn't drain has dropped was reported, by name."""

        def one_round(number):
            bus = EventBus()
            subscription = bus.subscribe("t", lambda e: doze(), name="slow")
            racers = Racers(*(partial(publish_until_closed, bus, "t", r, [], []) for r in chunks(100, 4)))
            for _ in range(number % 9):
                doze()
            report = bus.close(drain=False)
            racers.join()
            subscription.dispose(wait=5)
            assert subscription.statistics().dropped <= report.unhandled.get("slow", 0)

        play(rounds, one_round)

    @rounds(500)
    def test_batches_are_accepted_as_a_prefix(self, rounds):
        """Of a `publish_many` that races with a close all subscriptions see one and the same beginning, all of it if it returned."""

        def one_round(number):
            bus = EventBus()
            seen = [[], []]
            returned = []
            for one in seen:
                bus.subscribe("t", lambda e, one=one: one.append(e.payload), name=str(id(one)))

            def publisher():
                try:
                    bus.publish_many("t", range(600))
                    returned.append(True)
                except BusClosedError:
                    pass

            racers = Racers(publisher)
            for _ in range(number % 9):
                doze()
            bus.close()
            racers.join()
            assert seen[0] == seen[1] == list(range(len(seen[0])))
            assert not returned or len(seen[0]) == 600

        play(rounds, one_round)


class TestPublishAgainstComings:
    """Publish races with subscribe and dispose."""

    @rounds(1000)
    def test_every_subscription_of_the_moment_gets_it(self, rounds):
        """While others come and go, those who stay get every event, and the books of those who went are closed."""

        def one_round(number):
            with EventBus() as bus:
                stayed = [[], []]
                bus.subscribe("t", lambda e: stayed[0].append(e.payload), name="exact")
                bus.subscribe("*", lambda e: stayed[1].append(e.payload), name="wild")
                done = threading.Event()

                def churn(kind):
                    count = 0
                    while not done.is_set():
                        count += 1
                        one = bus.subscribe("t" if kind % 2 else ">", lambda e: spin(), name=f"{kind}.{count}")
                        doze()
                        one.dispose()

                def publishers():
                    race(*(partial(lambda r: [bus.publish("t", p) for p in r], r) for r in chunks(40, 3)))
                    done.set()

                race(publishers, partial(churn, 1), partial(churn, 2))
                bus.drain()
                assert list(range(120)) == sorted(stayed[0])
                assert stayed[0] == stayed[1]
                check_books(bus)

        play(rounds, one_round)

    @pytest.mark.parametrize("pattern", ["t", ">"])
    @rounds(1500)
    def test_dispose_never_loses_the_count(self, rounds, pattern):
        """An event is offered to a subscription under disposal entirely or not at all: handled and dropped are all it was offered."""

        def one_round(number):
            with EventBus() as bus:
                handled = []
                one = bus.subscribe(pattern, lambda e: (handled.append(e.payload), spin()), name="one")

                def dispose():
                    for _ in range(number % 9):
                        doze()
                    one.dispose()

                race(dispose, *(partial(lambda r: [bus.publish("t", p) for p in r], r) for r in chunks(40, 3)))
                one.dispose(wait=5)
                bus.drain()
                statistics = one.statistics()
                assert len(handled) == statistics.handled
                assert statistics.offered == statistics.handled + statistics.dropped
                assert statistics == bus.statistics().subscriptions["one"]
                check_books(bus)

        play(rounds, one_round)

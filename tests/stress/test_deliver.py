"""Receipts tell the truth."""

from __future__ import annotations

from functools import partial

from rxbus import EventBus, Overflow

from .racing import check_books, doze, play, race, rounds, spin


class TestDeliver:
    """Several threads deliver at once."""

    @rounds(600)
    def test_receipts_are_right(self, rounds):
        """Each of several threads gets the receipt of its own event: who handled it, and who failed."""

        def one_round(number):
            with EventBus() as bus:

                def fails(event):
                    spin()
                    if event.payload % 3 == 0:
                        raise ValueError(event.payload)

                bus.subscribe("t", fails, name="a")
                bus.subscribe("*", fails, name="b")
                bus.subscribe("t", lambda e: doze(), name="c")

                def delivers(numbers):
                    for n in numbers:
                        receipt = bus.deliver("t", n, timeout=10)
                        assert n == receipt.event.payload
                        assert ((1, 2, 0) if n % 3 == 0 else (3, 0, 0)) == (receipt.handled, receipt.failed, receipt.dropped)

                race(*(partial(delivers, range(s, s + 8)) for s in range(4)))
                check_books(bus)

        play(rounds, one_round)

    @rounds(600)
    def test_receipts_while_others_come_and_go(self, rounds):
        """Subscriptions that are disposed of settle what they had, so that no deliver waits for them, and all policies settle theirs."""

        def one_round(number):
            with EventBus() as bus:
                bus.subscribe("t", lambda e: spin(), name="stays")
                for policy in (Overflow.DROP_LATEST, Overflow.DROP_OLDEST, Overflow.FAIL):
                    bus.subscribe("t", lambda e: doze(), capacity=1, overflow=policy, name=policy.value)

                def churn():
                    for n in range(10):
                        one = bus.subscribe("*", lambda e: doze(), name=f"c{n}")
                        doze()
                        one.dispose()

                def delivers():
                    for n in range(8):
                        r = bus.deliver("t", n, timeout=10)
                        assert r.handled >= 1
                        assert r.handled + r.failed + r.dropped in (4, 5)

                race(churn, delivers, delivers, delivers, lambda: [bus.publish("t", n) for n in range(20)])
                bus.drain()
                check_books(bus)

        play(rounds, one_round)

    @rounds(400)
    def test_deliver_against_close(self, rounds):
        """A deliver that races with a close, draining or not, either raises or gets its receipt."""

        def one_round(number):
            bus = EventBus()
            ones = [bus.subscribe("t", lambda e: spin(), name="a"), bus.subscribe("*", lambda e: doze(), name="b")]
            outcomes = []

            def delivers():
                for n in range(20):
                    try:
                        outcomes.append(bus.deliver("t", n, timeout=10))
                    except RuntimeError:
                        return

            race(delivers, delivers, lambda: (doze(), bus.close(drain=number % 2 == 0)))
            assert all(2 == r.handled + r.dropped for r in outcomes)
            for one in ones:
                one.dispose(wait=5)
            check_books(bus)

        play(rounds, one_round)

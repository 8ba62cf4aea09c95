"""A slow, hanging or raising subscriber delays and breaks nobody else."""

from __future__ import annotations

import threading
from functools import partial

import pytest
import reactivex as rx
from reactivex import operators as ops

from rxbus import EventBus, Overflow

from .racing import check_books, chunks, doze, eventually, play, race, rounds, spin

RAISED = (SystemExit, KeyboardInterrupt, GeneratorExit, ValueError, StopIteration, MemoryError)


class TestIsolation:
    """Neighbours don't matter."""

    @rounds(300)
    def test_hanging_subscribers_delay_nobody(self, rounds):
        """With 20 subscribers asleep in their handlers a healthy one on default settings gets everything at once."""

        def one_round(number):
            release = threading.Event()
            with EventBus() as bus:
                seen = []
                for i in range(20):
                    bus.subscribe(("t", "*")[i % 2], lambda e: release.wait(15), name=f"hangs{i}")
                bus.subscribe("t", lambda e: seen.append(e.payload), name="healthy")
                race(*(partial(lambda r: [bus.publish("t", p) for p in r], r) for r in chunks(20, 3)))
                healthy = eventually(lambda: len(seen) == 60)
                release.set()
                bus.drain()
                assert healthy, f"{len(seen)} of 60"
                check_books(bus)

        play(rounds, one_round)

    @pytest.mark.parametrize("workers", [None, 2])
    @rounds(500)
    def test_whatever_a_handler_raises(self, rounds, workers):
        """Handlers, raw observers and operators that raise anything at all harm neither workers nor neighbours."""

        def raises(event):
            raise RAISED[event.payload % len(RAISED)](event.payload)

        def one_round(number):
            with EventBus(workers=workers) as bus:
                seen = []
                bus.subscribe("t", raises, name="handler")
                bus.subscribe("*", raises, name="wild")
                bus.subscribe("t", lambda e: None, through=ops.do_action(raises), name="operator")
                raw = bus.topic("t").subscribe(raises)
                bus.subscribe("t", lambda e: (seen.append(e.payload), spin()), name="healthy")
                race(*(partial(lambda r: [bus.publish("t", p) for p in r], r) for r in chunks(20, 3)))
                bus.drain()
                assert list(range(60)) == sorted(seen)
                for name in ("handler", "wild", "operator"):
                    assert 60 == bus.statistics().subscriptions[name].failed
                raw.dispose()
                bus.drain()
                check_books(bus)

        play(rounds, one_round)

    @rounds(500)
    def test_full_mailboxes_of_others(self, rounds):
        """Hanging subscribers with full mailboxes that drop or refuse never hold back a publisher."""

        def one_round(number):
            release = threading.Event()
            with EventBus() as bus:
                seen = []
                for policy in (Overflow.DROP_LATEST, Overflow.DROP_OLDEST, Overflow.FAIL):
                    bus.subscribe("t", lambda e: release.wait(15), capacity=2, overflow=policy, name=policy.value)
                bus.subscribe("t", lambda e: seen.append(e.payload), name="healthy")
                race(*(partial(lambda r: [bus.publish("t", p) for p in r], r) for r in chunks(20, 3)), limit=5)
                healthy = eventually(lambda: len(seen) == 60)
                release.set()
                bus.drain()
                assert healthy, f"{len(seen)} of 60"
                check_books(bus)

        play(rounds, one_round)


class TestUpstreams:
    """Topics outlive what feeds them."""

    @rounds(500)
    def test_upstreams_that_end_end_no_topic(self, rounds):
        """Upstreams that complete or fail on several threads leave a topic open for everybody else, and errors are counted."""

        def one_round(number):
            with EventBus() as bus:
                seen = []
                topic = bus.topic("t")
                bus.subscribe("t", lambda e: seen.append(e.payload))

                def completing():
                    for n in range(10):
                        rx.of(n).subscribe(topic)

                def failing():
                    for n in range(10, 20):
                        rx.of(n).pipe(ops.concat(rx.throw(ValueError(n)))).subscribe(topic)

                def plain():
                    for n in range(20, 60):
                        bus.publish("t", n)
                        doze()

                race(completing, failing, plain)
                bus.publish("t", 60)
                bus.drain()
                assert list(range(61)) == sorted(seen)
                assert 10 == bus.statistics().topics["t"].failed

        play(rounds, one_round)

    @rounds(300)
    def test_an_operator_on_a_chain_ends_the_chain_alone(self, rounds):
        """A raw chain between two topics that fails or completes leaves both topics and their subscribers at work."""

        def fails_at_ten(event):
            if event.payload == 10:
                raise ValueError(event.payload)
            return event.payload

        def one_round(number):
            with EventBus() as bus:
                seen_a, seen_b = [], []
                bus.subscribe("a", lambda e: seen_a.append(e.payload))
                bus.subscribe("b", lambda e: seen_b.append(e.payload))
                bus.topic("a").pipe(ops.map(fails_at_ten)).subscribe(bus.topic("b"))
                bus.topic("a").pipe(ops.take(3), ops.map(lambda e: -1)).subscribe(bus.topic("b"))
                race(*(partial(lambda r: [bus.publish("a", p) for p in r], r) for r in chunks(20, 2)))
                bus.drain()
                bus.publish("b", "still open")
                bus.drain()
                assert list(range(40)) == sorted(seen_a)
                assert "still open" == seen_b[-1]
                assert 3 == seen_b.count(-1)

        play(rounds, one_round)

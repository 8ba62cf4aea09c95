"""What handlers may do: everything, without deadlock and without recursion."""

from __future__ import annotations

import threading
import time
from functools import partial

import pytest
import reactivex as rx
from reactivex import operators as ops
from reactivex.scheduler import CurrentThreadScheduler, ImmediateScheduler, ThreadPoolScheduler

from rxbus import BusClosedError, BusError, EventBus, MailboxFullError, Overflow, Reason, operators

from .racing import Racers, check_books, depth, doze, eventually, play, race, rounds, spin


class TestCycles:
    """Topics that feed each other."""

    @pytest.mark.parametrize("scheduler", [None, ImmediateScheduler(), CurrentThreadScheduler()], ids=["pool", "immediate", "trampoline"])
    @rounds(30)
    def test_twenty_thousand_hops_on_a_flat_stack(self, rounds, scheduler):
        """A to B and back for 20,000 hops needs no more stack at the end than at the beginning."""

        def one_round(number):
            with EventBus(scheduler=scheduler) as bus:
                depths = []

                def forward(target, event):
                    depths.append(depth())
                    if event.payload:
                        bus.publish(target, event.payload - 1)

                bus.subscribe("a", partial(forward, "b"))
                bus.subscribe("b", partial(forward, "a"))
                bus.publish("a", 20_000)
                bus.drain()
            assert 20_001 == len(depths)
            assert max(depths) <= min(depths[:100]) + 10

        play(rounds, one_round, limit=60)

    @pytest.mark.parametrize("scheduler", [None, ImmediateScheduler()], ids=["pool", "immediate"])
    @pytest.mark.parametrize("combine", [rx.merge, rx.zip, rx.combine_latest], ids=["merge", "zip", "combine_latest"])
    @rounds(500)
    def test_topics_chained_both_ways(self, rounds, combine, scheduler):
        """Two topics that feed each other through an operator that locks never deadlock, with several publishers at once."""

        def one_round(number):
            with EventBus(scheduler=scheduler) as bus:
                a, b, c = bus.topic("a"), bus.topic("b"), bus.topic("c")

                def less(found):
                    events = found if isinstance(found, tuple) else (found,)
                    doze()
                    return min(e.payload for e in events) - 1

                for source, target in ((a, b), (b, a)):
                    combine(source, c).pipe(ops.map(less), ops.filter(lambda n: n > 0)).subscribe(target.on_next)
                race(*(partial(lambda t: [t.emit(3) for _ in range(5)], t) for t in (a, b, c, a, b)), limit=10)
                bus.drain(10)
                report = bus.close()
                assert ((), {}) == (report.stuck, dict(report.unhandled))

        play(rounds, one_round)

    @pytest.mark.parametrize("scheduler", [None, ImmediateScheduler(), ThreadPoolScheduler(8)], ids=["pool", "immediate", "rxpy pool"])
    @rounds(300)
    def test_anything_from_inside(self, rounds, scheduler):
        """Handlers that publish, subscribe, dispose and forget at random from several threads never deadlock."""

        def one_round(number):
            bus = EventBus(scheduler=scheduler, capacity=8, overflow=Overflow.DROP_OLDEST)
            made = []

            def handler(event):
                n = event.payload
                if n <= 0:
                    return
                spin()
                if n % 5 == 0 and len(made) < 200:
                    made.append(bus.subscribe(("t.a", "t.*", ">")[n % 3], handler))
                if n % 7 == 0 and made:
                    made[n % len(made)].dispose()
                if n % 11 == 0:
                    bus.forget("t.c")
                bus.publish(("t.a", "t.b", "t.c")[n % 3], n - 1)

            made.extend(bus.subscribe(pattern, handler) for pattern in ("t.a", "t.b", "t.*"))
            race(*(partial(lambda t: [bus.publish(t, 6) for _ in range(4)], t) for t in ("t.a", "t.b", "t.c")), limit=10)
            bus.drain(10)
            report = bus.close(10)
            assert ((), {}) == (report.stuck, dict(report.unhandled))

        play(rounds, one_round)


class TestNoLockAroundUserCode:
    """User code never runs under a lock of rxbus."""

    @rounds(100)
    def test_what_makes_a_pipeline_may_wait_for_other_threads(self, rounds):
        """While the operator given as `through` is being applied, other threads can subscribe, publish and make topics."""

        def one_round(number):
            with EventBus() as bus:
                bus.subscribe("t", lambda e: None, name="before")

                def through(source):
                    others = Racers(
                        lambda: bus.subscribe("t", lambda e: None, name="other").dispose(),
                        lambda: bus.publish("new", 1),
                        bus.statistics,
                    )
                    others.join(3)
                    return source

                bus.subscribe("t", lambda e: None, through=through)

        play(rounds, one_round)

    @rounds(200)
    def test_handlers_may_wait_for_other_threads(self, rounds):
        """While a handler waits, other threads can publish to its topic, subscribe to it, dispose of it and close the bus."""

        def one_round(number):
            bus = EventBus()

            def handler(event):
                others = Racers(
                    lambda: bus.publish("t", 0) if event.payload else None,
                    lambda: bus.subscribe("t", lambda e: None, name="other").dispose(),
                    bus.statistics,
                    bus.graph,
                    one.dispose,
                )
                others.join(5)
                ended.set()

            ended = threading.Event()
            one = bus.subscribe("t", handler, name="one")
            bus.publish("t", 1)
            assert ended.wait(8)
            bus.close()

        play(rounds, one_round)


class TestWaitingForOneself:
    """What could never end raises."""

    @rounds(100)
    def test_drain_from_inside_raises(self, rounds):
        """`drain` from a handler, from behind a mailbox operator and from an observer of the dead letters raises and doesn't wait."""

        def one_round(number):
            with EventBus() as bus:
                outcomes = {}

                def drains(where, *_):
                    try:
                        bus.drain(3)
                        outcomes[where] = "returned"
                    except BusError as error:
                        outcomes[where] = type(error)

                def fails(event):
                    raise ValueError(event.payload)

                bus.subscribe("t", partial(drains, "handler"), name="drains")
                bus.topic("t").pipe(operators.mailbox()).subscribe(partial(drains, "mailbox"))
                bus.dead_letters.subscribe(partial(drains, "letters"))
                bus.subscribe("t", fails, name="fails")
                bus.publish("t", 1)
                assert eventually(lambda: len(outcomes) == 3)
                assert {BusError} == set(outcomes.values()), outcomes

        play(rounds, one_round)

    @pytest.mark.parametrize("where", ["handler", "raw", "mailbox", "letters"])
    @rounds(200)
    def test_close_from_inside_returns_at_once(self, rounds, where):
        """`close` from whatever the bus runs returns at once, and the bus closes with everything handled."""

        def one_round(number):
            bus = EventBus(close_timeout=8)
            took, seen = [], []

            def closes(*_):
                began = time.monotonic()
                bus.close()
                took.append(time.monotonic() - began)

            def handler(event):
                seen.append(event.payload)
                if where == "letters":
                    raise ValueError(event.payload)
                if where == "handler" and event.payload == 5:
                    closes()

            bus.subscribe("t", handler)
            if where == "raw":
                bus.topic("t").subscribe(lambda e: closes() if e.payload == 5 else None)
            elif where == "mailbox":
                bus.topic("t").pipe(operators.mailbox()).subscribe(lambda e: closes() if e.payload == 5 else None)
            elif where == "letters":
                bus.dead_letters.subscribe(lambda letter: closes() if letter.event.payload == 5 else None)
            accepted = []

            def publisher():
                for payload in range(40):
                    try:
                        bus.publish("t", payload)
                    except BusClosedError:
                        return
                    accepted.append(payload)

            race(publisher)
            assert eventually(lambda: took)
            report = bus.close()
            assert took[0] < 2.0
            assert ((), {}) == (report.stuck, dict(report.unhandled))
            assert accepted == seen

        play(rounds, one_round)

    @rounds(300)
    def test_handlers_that_deliver_to_each_other(self, rounds):
        """Handlers of two topics that deliver to each other at once: one gets a `BusError`, none waits for ever."""

        def one_round(number):
            with EventBus() as bus:

                def handler(target, event):
                    if event.payload:
                        bus.deliver(target, event.payload - 1)

                bus.subscribe("a", partial(handler, "b"), name="a")
                bus.subscribe("b", partial(handler, "a"), name="b")
                race(*(partial(bus.deliver, t, 3, timeout=5) for t in ("a", "b", "a", "b")), limit=10)
                bus.drain(5)
                assert all(isinstance(letter.error, BusError) for letter in bus.dead_letters)
                check_books(bus)

        play(rounds, one_round)


class TestFullCircles:
    """Circles of full mailboxes under BLOCK end with dead letters, long before the time-out."""

    def check(self, bus, began):
        """The circle ended promptly, and what it cost are dead letters with the right error."""
        bus.drain(10)
        assert time.monotonic() - began < 5.0
        assert {Reason.OVERFLOW} >= {letter.reason for letter in bus.dead_letters}
        assert all(isinstance(letter.error, MailboxFullError) for letter in bus.dead_letters)
        check_books(bus)

    @pytest.mark.parametrize("members", [2, 3])
    @rounds(500)
    def test_handlers_that_fill_each_other(self, rounds, members):
        """Handlers that each publish several events into the next full mailbox of their circle end promptly."""

        def one_round(number):
            with EventBus(capacity=1, block_timeout=30) as bus:
                began = time.monotonic()

                def handler(index, event):
                    spin()
                    if event.payload:
                        for _ in range(3):
                            bus.publish(f"t{(index + 1) % members}", event.payload - 1)

                for index in range(members):
                    bus.subscribe(f"t{index}", partial(handler, index), name=f"s{index}")
                race(*(partial(lambda i: [bus.publish(f"t{i}", 3) for _ in range(3)], i) for i in range(members)), limit=10)
                self.check(bus, began)

        play(rounds, one_round)

    @rounds(500)
    def test_a_circle_is_found_for_certain(self, rounds):
        """When each handler insists on more than the other's mailbox holds, somebody is refused at once."""

        def one_round(number):
            with EventBus(capacity=1, block_timeout=30) as bus:
                began = time.monotonic()
                both = threading.Barrier(2)

                def handler(target, event):
                    if event.payload == "start":
                        both.wait(5)
                        for n in range(4):
                            bus.publish(target, n)

                bus.subscribe("a", partial(handler, "b"), name="a")
                bus.subscribe("b", partial(handler, "a"), name="b")
                bus.publish("a", "start")
                bus.publish("b", "start")
                self.check(bus, began)
                assert len(bus.dead_letters) >= 1

        play(rounds, one_round)

    @pytest.mark.parametrize("pattern", ["t", "*"])
    @rounds(500)
    def test_a_handler_and_its_own_full_mailbox(self, rounds, pattern):
        """A handler that publishes into its own full mailbox is refused at once, while others publish there too."""

        def one_round(number):
            with EventBus(capacity=1, block_timeout=30) as bus:
                began = time.monotonic()

                def handler(event):
                    if event.payload:
                        for _ in range(3):
                            bus.publish("t", 0)

                bus.subscribe(pattern, handler, name="self")
                race(*(partial(lambda r: [bus.publish("t", 1) for _ in r], range(5)) for _ in range(3)), limit=10)
                self.check(bus, began)

        play(rounds, one_round)

    @rounds(200)
    def test_a_circle_through_raw_chains(self, rounds):
        """Raw chains from A to B and from B to A with full mailboxes end promptly as well."""

        def one_round(number):
            with EventBus(capacity=1, block_timeout=30) as bus:
                began = time.monotonic()
                a, b = bus.topic("a"), bus.topic("b")
                for source, target in ((a, b), (b, a)):
                    source.pipe(ops.filter(lambda e: e.payload > 0), ops.flat_map(lambda e: rx.of(*[e.payload - 1] * 3))).subscribe(
                        target.on_next
                    )
                race(*(partial(lambda t: [t.emit(3) for _ in range(3)], t) for t in (a, b)), limit=10)
                bus.drain(10)
                assert time.monotonic() - began < 5.0
                assert all(isinstance(letter.error, MailboxFullError) for letter in bus.dead_letters)

        play(rounds, one_round)

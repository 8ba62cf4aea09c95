"""Several events of one subscription at a time: `concurrency=` and `key=`."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterable
from typing import Any

import pytest
import reactivex as rx
from reactivex import operators as ops
from reactivex.scheduler import HistoricalScheduler, ImmediateScheduler, ThreadPoolScheduler

from rxbus import Breaker, Event, EventBus, Overflow, Reason, Retry, current, operators
from tests.support import LIMIT, Recorder, Unreliable, assert_books_balance, join, run_in_thread


class Hands:
    """A handler that stands still in each event until that one is let go; knows who is inside, and who was, at most."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._free: set[Any] = set()
        self._all_free = False
        self.inside: list[Any] = []
        self.most = 0
        self.seen: list[Any] = []

    def __call__(self, given: Any) -> None:
        value = given.payload if isinstance(given, Event) else given
        with self._changed:
            self.inside.append(value)
            self.most = max(self.most, len(self.inside))
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: self._all_free or value in self._free, LIMIT)
            self.inside.remove(value)
            self.seen.append(value)

    def wait_for(self, values: Iterable[Any]) -> None:
        """Until exactly these are inside."""
        with self._changed:
            assert self._changed.wait_for(lambda: sorted(self.inside) == sorted(values), LIMIT), self.inside

    def let_go(self, *values: Any) -> None:
        """Lets these end, and all that come later if none is named."""
        with self._changed:
            self._free |= set(values)
            self._all_free |= not values
            self._changed.notify_all()


class TestConcurrency:
    """`concurrency=n`."""

    def test_so_many_at_a_time_and_no_more(self, bus: EventBus) -> None:
        """Three of ten are inside; each that ends makes room for the next."""
        hands = Hands()
        one = bus.subscribe("a", hands, concurrency=3)
        bus.publish_many("a", range(10))
        hands.wait_for([0, 1, 2])
        assert 10 == one.statistics().pending
        hands.let_go(1)
        hands.wait_for([0, 2, 3])
        hands.let_go()
        bus.drain(LIMIT)
        assert (3, list(range(10))) == (hands.most, sorted(hands.seen))
        counted = assert_books_balance(bus).subscriptions[one.name]
        assert (10, 10, 0) == (counted.offered, counted.handled, counted.pending)

    def test_current_knows_the_subscription_in_every_call(self, bus: EventBus) -> None:
        """Each call has its own event, and the subscription is the one that the user holds."""
        found: list[tuple[bool, bool]] = []

        def handler(event: Event[int]) -> None:
            delivery = current()
            assert delivery is not None
            found.append((delivery.event is event, delivery.subscription is one))

        one = bus.subscribe("a", handler, concurrency=4)
        bus.publish_many("a", range(50))
        bus.drain(LIMIT)
        assert [(True, True)] * 50 == found

    def test_results_are_children_of_their_own_event(self, bus: EventBus) -> None:
        """What runs side by side keeps its causes apart."""
        hands, results = Hands(), Recorder()
        bus.subscribe("b", results)

        def handler(event: Event[int]) -> int:
            hands(event)
            return -event.payload

        bus.subscribe("a", handler, to="b", concurrency=4)
        events = bus.publish_many("a", range(4))
        hands.wait_for(range(4))
        hands.let_go()
        bus.drain(LIMIT)
        assert {-e.payload: e.id for e in events} == {e.payload: e.causation_id for e in results.events}

    def test_a_failure_costs_its_own_event(self, bus: EventBus) -> None:
        """One letter each, with the name of the subscription; the others are handled."""

        def handler(event: Event[int]) -> None:
            if event.payload % 3 == 0:
                raise ValueError(event.payload)

        one = bus.subscribe("a", handler, concurrency=3)
        bus.publish_many("a", range(30))
        bus.drain(LIMIT)
        counted = assert_books_balance(bus).subscriptions[one.name]
        assert (20, 10) == (counted.handled, counted.failed)
        assert [(n, one.name, 1) for n in range(0, 30, 3)] == sorted(
            (letter.event.payload, letter.subscription, letter.attempts) for letter in bus.dead_letters
        )
        assert isinstance(counted.last_error, ValueError)

    def test_a_retry_holds_its_place_and_no_thread(self, bus: EventBus) -> None:
        """While one backs off, the others go on; the attempt number is right."""
        attempts: list[int] = []
        done = Recorder()

        def handler(event: Event[str]) -> None:
            delivery = current()
            assert delivery is not None
            if event.payload == "bad":
                attempts.append(delivery.attempt)
                if delivery.attempt < 3:
                    raise ValueError
            done(event)

        one = bus.subscribe("a", handler, concurrency=2, retry=Retry(max_attempts=3, backoff=0.05))
        bus.publish_many("a", ["bad", *"abcdef"])
        bus.drain(LIMIT)
        assert [1, 2, 3] == attempts
        assert "bad" == done.payloads[-1]
        assert (7, 0, 2) == (one.statistics().handled, one.statistics().failed, one.statistics().retried)

    def test_the_pipeline_stays_serial(self, bus: EventBus) -> None:
        """`scan` sees every event in order, while the handler runs several at a time."""
        hands = Hands()
        through = rx.compose(operators.payload(), ops.scan(lambda total, n: total + n, 0))
        bus.subscribe("a", hands, through=through, concurrency=3)
        bus.publish_many("a", [1, 2, 3, 4])
        hands.wait_for([1, 3, 6])
        hands.let_go()
        bus.drain(LIMIT)
        assert [1, 3, 6, 10] == sorted(hands.seen)

    def test_an_event_is_settled_when_all_its_calls_have_ended(self, bus: EventBus) -> None:
        """One event makes four calls, two at a time; one of them fails: one event failed, one letter."""
        calls: list[int] = []

        def handler(value: int) -> None:
            calls.append(value)
            if value == 2:
                raise ValueError(value)

        bus.subscribe("a", handler, through=ops.flat_map(lambda e: rx.of(1, 2, 3, 4)), concurrency=2)
        receipt = bus.deliver("a", "x", timeout=LIMIT)
        assert (0, 1) == (receipt.handled, receipt.failed)
        assert [1, 2, 3, 4] == sorted(calls)
        assert 1 == len(bus.dead_letters)
        bus.drain(LIMIT)
        assert_books_balance(bus)

    def test_a_failing_operator_costs_its_event_and_not_the_calls(self, bus: EventBus) -> None:
        """The pipeline is rebuilt; what was handed over goes on."""
        done = Recorder()
        one = bus.subscribe("a", lambda v: done.events.append(v), through=ops.map(lambda e: 1 // e.payload), concurrency=2)
        bus.publish_many("a", [1, 0, 1, 0])
        bus.drain(LIMIT)
        assert [1, 1] == done.events
        assert (2, 2) == (one.statistics().handled, one.statistics().failed)

    def test_what_a_filter_swallows_was_handled(self, bus: EventBus) -> None:
        """An event without a call is settled at once."""
        done = Recorder()
        one = bus.subscribe("a", done, through=ops.filter(lambda e: e.payload > 1), concurrency=2)
        bus.publish_many("a", range(4))
        bus.drain(LIMIT)
        assert ([2, 3], 4) == (sorted(done.payloads), one.statistics().handled)

    def test_a_pipeline_that_completes_lets_its_calls_end(self, bus: EventBus) -> None:
        """`take` ends the subscription, but what it let through is handled; the rest is dropped."""
        hands = Hands()
        one = bus.subscribe("a", hands, through=rx.compose(operators.payload(), ops.take(3)), concurrency=2)
        bus.publish_many("a", range(8))
        hands.wait_for([0, 1])
        hands.let_go()
        bus.drain(LIMIT)
        assert [0, 1, 2] == sorted(hands.seen)
        counted = assert_books_balance(bus).subscriptions[one.name]
        assert (True, 3, 5) == (one.is_disposed, counted.handled, counted.dropped)

    def test_timers_of_the_pipeline(self, bus: EventBus) -> None:
        """What a timer emits is handled too; a failure of it is reported without being counted."""
        seen: list[int] = []

        def handler(value: int) -> None:
            seen.append(value)
            if value == 2:
                raise ValueError(value)

        through = rx.compose(operators.payload(), ops.delay(0.01))
        one = bus.subscribe("a", handler, through=through, concurrency=2)
        bus.publish_many("a", [1, 2])
        bus.drain(LIMIT)
        assert one._strand.wait_until(lambda: len(bus.dead_letters) == 1, time.monotonic() + LIMIT)
        assert [1, 2] == sorted(seen)
        assert (2, 0) == (one.statistics().handled, one.statistics().failed)

    def test_dispose_waits_for_all_hands(self, bus: EventBus) -> None:
        """What is queued is dropped at once; the calls in progress end, and are counted."""
        hands = Hands()
        one = bus.subscribe("a", hands, concurrency=2)
        bus.publish_many("a", range(5))
        hands.wait_for([0, 1])
        one.dispose(wait=0.01)
        assert (5, 3, 2) == (one.statistics().offered, one.statistics().dropped, one.statistics().pending)
        assert 2 == bus.statistics().subscriptions[one.name].pending
        hands.let_go()
        one.dispose(wait=LIMIT)
        bus.drain(LIMIT)
        counted = assert_books_balance(bus).subscriptions[one.name]
        assert (2, 3, 0) == (counted.handled, counted.dropped, counted.pending)

    def test_dispose_from_inside(self, bus: EventBus) -> None:
        """It doesn't wait for itself."""
        ended = threading.Event()

        def handler(event: Event[int]) -> None:
            one.dispose(wait=LIMIT)
            ended.set()

        one = bus.subscribe("a", handler, concurrency=2)
        started = time.monotonic()
        bus.publish("a", 1)
        assert ended.wait(LIMIT)
        assert time.monotonic() - started < LIMIT / 2

    def test_pause_and_resume(self, bus: EventBus) -> None:
        """Calls in progress end; nothing new begins before `resume`."""
        hands = Hands()
        one = bus.subscribe("a", hands, concurrency=2, key=lambda e: e.payload % 2)
        bus.publish_many("a", range(6))
        hands.wait_for([0, 1])
        one.pause()
        hands.let_go()
        assert one._strand.wait_until(lambda: len(hands.seen) == 2, time.monotonic() + LIMIT)
        time.sleep(0.02)
        assert ([], 4) == (hands.inside, one.statistics().pending)
        one.resume()
        bus.drain(LIMIT)
        assert 6 == one.statistics().handled

    def test_close_reports_hands_that_are_stuck(self) -> None:
        """Two handlers don't return: the subscription is stuck, with what it left."""
        hands = Hands()
        bus = EventBus()
        bus.subscribe("a", hands, concurrency=2, name="hands")
        bus.publish_many("a", range(5))
        hands.wait_for([0, 1])
        report = bus.close(0.1)
        assert (("hands",), {"hands": 5}) == (report.stuck, dict(report.unhandled))
        hands.let_go()

    @pytest.mark.parametrize("kind", ["immediate", "rxpy pool", "one worker"])
    def test_on_any_scheduler(self, kind: str) -> None:
        """Everything is handled, with as many threads as there are."""
        pool = ThreadPoolScheduler(4)
        scheduler = {"immediate": ImmediateScheduler(), "rxpy pool": pool}.get(kind)
        done = Recorder()
        with EventBus(scheduler=scheduler, workers=1 if scheduler is None else None) as bus:
            bus.subscribe("a", done, concurrency=3, key=lambda e: e.payload % 2)
            for n in range(50):
                bus.publish("a", n)
            bus.drain(LIMIT)
        pool.executor.shutdown()
        assert list(range(50)) == sorted(done.payloads)
        assert list(range(0, 50, 2)) == [n for n in done.payloads if n % 2 == 0]

    def test_under_virtual_time(self) -> None:
        """Nothing happens before the clock is moved, then all does."""
        clock = HistoricalScheduler()
        done = Recorder()
        with EventBus(scheduler=clock) as bus:
            bus.subscribe("a", done, concurrency=3)
            bus.publish_many("a", range(5))
            assert [] == done.payloads
            clock.advance_by(1.0)
            assert list(range(5)) == sorted(done.payloads)

    def test_a_scheduler_that_refuses(self) -> None:
        """Its events are dead letters; nothing hangs."""
        pool = ThreadPoolScheduler(2)
        with EventBus(scheduler=pool) as bus:
            bus.subscribe("a", lambda e: None, concurrency=2)
            bus.publish("a", 1)
            bus.drain(LIMIT)
            pool.executor.shutdown()
            bus.publish("a", 2)
            bus.drain(LIMIT)
            assert [(2, Reason.UNDELIVERABLE)] == [(letter.event.payload, letter.reason) for letter in bus.dead_letters]
            assert_books_balance(bus)


class TestRefusals:
    """A scheduler that refuses for a moment costs what was to be run then, and no more."""

    def test_a_key_is_free_again(self, bus: EventBus) -> None:
        """Values of a key whose call was refused are handled later."""
        scheduler, hands = Unreliable(), Hands()
        through = ops.flat_map(lambda e: rx.of(*[f"{e.payload}{key}" for key in "xyz"]))
        bus.subscribe("a", hands, through=through, concurrency=2, key=lambda v: v[1], scheduler=scheduler)
        bus.publish("a", "1")
        hands.wait_for(["1x", "1y"])
        scheduler.refuses = True
        bus.publish("a", "2")
        scheduler.refuses = False
        hands.let_go()
        bus.drain(LIMIT)
        bus.publish("a", "3")
        bus.drain(LIMIT)
        assert ["1x", "1y", "3x", "3y", "3z"] == sorted(hands.seen)
        assert {("1", Reason.UNDELIVERABLE), ("2", Reason.UNDELIVERABLE)} == {(x.event.payload, x.reason) for x in bus.dead_letters}
        assert 2 == len(bus.dead_letters)
        assert_books_balance(bus)

    @pytest.mark.parametrize("options", [{}, {"concurrency": 2}, {"key": lambda e: 1}], ids=["one", "two", "key"])
    def test_letters_say_how_often_the_handler_was_begun(self, bus: EventBus, options: Any) -> None:
        """Before the scheduler refused to run another attempt."""
        scheduler, seen = Unreliable(), Recorder()

        def handler(event: Event[int]) -> None:
            seen(event)
            scheduler.refuses = len(seen.payloads) == 2
            raise ValueError

        bus.subscribe("a", handler, retry=Retry(5, backoff=0.02, factor=1.0, jitter=0), scheduler=scheduler, **options)
        bus.publish("a", 1)
        bus.drain(LIMIT)
        scheduler.refuses = False
        assert [(Reason.UNDELIVERABLE, 2)] == [(letter.reason, letter.attempts) for letter in bus.dead_letters]
        assert [1, 1] == seen.payloads
        assert_books_balance(bus)

    def test_the_next_event_has_its_own_books(self, bus: EventBus) -> None:
        """What was refused while it waited for an operator's retry isn't mixed up with what comes after it."""
        scheduler, done = Unreliable(), Recorder()

        def operator(event: Event[int]) -> Event[int]:
            if event.payload == 1:
                raise ValueError
            return event

        one = bus.subscribe("a", done, through=ops.map(operator), concurrency=2, retry=Retry(backoff=0.05, jitter=0), scheduler=scheduler)
        bus.publish("a", 1)
        assert one._strand.wait_until(lambda: one._strand.is_suspended, time.monotonic() + LIMIT)
        scheduler.refuses = True
        assert one._strand.wait_until(lambda: len(bus.dead_letters) == 1, time.monotonic() + LIMIT)
        scheduler.refuses = False
        assert 1 == bus.deliver("a", 2, timeout=LIMIT).handled
        assert ([2], 1) == (done.payloads, one.statistics().failed)

    @pytest.mark.parametrize("concurrency", [1, 2])
    def test_a_scheduler_that_refuses_for_good(self, bus: EventBus, concurrency: int) -> None:
        """The calls that waited behind the one in hand are refused one after the other; one event, one letter."""
        pool, hands = ThreadPoolScheduler(4), Hands()
        through = ops.flat_map(lambda e: rx.of(*range(50)))
        one = bus.subscribe("a", hands, through=through, concurrency=concurrency, key=lambda v: v, scheduler=pool)
        bus.publish("a", "x")
        hands.wait_for(range(concurrency))
        pool.executor.shutdown(wait=False)
        time.sleep(0.02)  # longer than a run may take, so that the next call would need another one
        hands.let_go()
        bus.drain(LIMIT)
        assert (0, 1, 0) == (one.statistics().handled, one.statistics().failed, one.statistics().pending)
        assert [Reason.UNDELIVERABLE] == [letter.reason for letter in bus.dead_letters]

    def test_two_disposes_at_once_book_once(self, bus: EventBus) -> None:
        """The second comes back when all is booked, or `drain` waits for it: past counters are final."""
        booking, go_on = threading.Event(), threading.Event()

        class Slow(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                booking.set()
                assert go_on.wait(LIMIT)

        def handler(value: int) -> None:
            raise KeyError if value == 0 else ValueError

        retry = Retry(9, backoff=30, on=ValueError)
        one = bus.subscribe("a", handler, through=ops.flat_map(lambda e: rx.of(0, 1)), concurrency=2, retry=retry, name="one")
        bus.publish("a", 1)
        assert one._strand.wait_until(lambda: one.statistics().retried == 1, time.monotonic() + LIMIT)
        slow = Slow(logging.ERROR)
        logging.getLogger("rxbus").addHandler(slow)
        try:
            first = run_in_thread(one.dispose)
            assert booking.wait(LIMIT)
            second = run_in_thread(one.dispose)
            time.sleep(0.02)
            go_on.set()
            join(first, second)
        finally:
            logging.getLogger("rxbus").removeHandler(slow)
        bus.drain(LIMIT)
        found = bus.statistics()
        assert (1, 0, 1) == (found.subscriptions["one"].failed, found.subscriptions["one"].pending, found.topics["a"].failed)


class TestKeys:
    """`key=`."""

    def test_order_within_a_key_parallel_between_keys(self, bus: EventBus) -> None:
        """One busy key doesn't hold up another, however many of its events come first."""
        hands = Hands()
        bus.subscribe("a", hands, concurrency=3, key=lambda e: e.payload[0])
        bus.publish_many("a", ["a1", "a2", "a3", "a4", "b1", "b2", "c1", "d1"])
        hands.wait_for(["a1", "b1", "c1"])
        hands.let_go("c1")
        hands.wait_for(["a1", "b1", "d1"])
        hands.let_go("a1")
        hands.wait_for(["a2", "b1", "d1"])
        hands.let_go()
        bus.drain(LIMIT)
        for key in "abcd":
            mine = [v for v in hands.seen if v[0] == key]
            assert sorted(mine) == mine

    def test_the_key_is_of_what_the_handler_takes(self, bus: EventBus) -> None:
        """Behind a pipeline that is the value, not the event."""
        keys: list[Any] = []

        def key(value: str) -> str:
            keys.append(value)
            return value

        bus.subscribe("a", lambda v: None, through=operators.payload(), concurrency=2, key=key)
        bus.publish_many("a", [*"xyz"])
        bus.drain(LIMIT)
        assert ["x", "y", "z"] == keys

    @pytest.mark.parametrize("key", [lambda e: 1 // e.payload, lambda e: 1 if e.payload else []], ids=["raises", "not hashable"])
    def test_a_key_that_fails_costs_its_event(self, bus: EventBus, key: Any) -> None:
        """That event is a dead letter, without another attempt; the subscription lives."""
        done = Recorder()
        one = bus.subscribe("a", done, concurrency=2, key=key, retry=Retry(max_attempts=3, backoff=0.0))
        bus.publish_many("a", [1, 0, 1, 0, 1])
        bus.drain(LIMIT)
        assert [1, 1, 1] == done.payloads
        counted = assert_books_balance(bus).subscriptions[one.name]
        assert (3, 2, 0) == (counted.handled, counted.failed, counted.retried)
        assert [0, 0] == [letter.event.payload for letter in bus.dead_letters]

    def test_a_key_stays_in_order_through_a_retry(self, bus: EventBus) -> None:
        """Later events of its key wait for it, those of others don't."""
        done = Recorder()

        def handler(event: Event[str]) -> None:
            delivery = current()
            assert delivery is not None
            if event.payload == "a1" and delivery.attempt < 3:
                raise ValueError
            done(event)

        bus.subscribe("a", handler, concurrency=2, key=lambda e: e.payload[0], retry=Retry(max_attempts=3, backoff=0.03))
        bus.publish_many("a", ["a1", "a2", "b1", "b2"])
        bus.drain(LIMIT)
        assert ["b1", "b2", "a1", "a2"] == done.payloads

    @pytest.mark.parametrize("pattern", ["a", "*"])
    @pytest.mark.parametrize(
        ("overflow", "survivors", "dropped", "failed"),
        [
            (Overflow.DROP_OLDEST, [0, *range(90, 100)], 89, 0),
            (Overflow.DROP_LATEST, [*range(11)], 89, 0),
            (Overflow.FAIL, [*range(11)], 0, 89),
        ],
    )
    def test_parked_events_take_room(
        self, bus: EventBus, pattern: str, overflow: Overflow, survivors: list[int], dropped: int, failed: int
    ) -> None:
        """All events have one key, so one is inside and the others are parked: exactly the survivors of a serial subscription."""
        hands = Hands()
        one = bus.subscribe(pattern, hands, capacity=10, overflow=overflow, concurrency=4, key=lambda e: "same")
        bus.publish("a", 0)
        hands.wait_for([0])
        for n in range(1, 100):
            bus.publish("a", n)
            assert one._strand.wait_until(lambda: not one._strand.mailbox.queue and not one._strand.is_running, time.monotonic() + LIMIT)
        assert (11, 10) == (one.statistics().pending, one.statistics().queued)
        hands.let_go()
        bus.drain(LIMIT)
        assert survivors == hands.seen
        counted = assert_books_balance(bus).subscriptions[one.name]
        assert (100, 11, failed, dropped) == (counted.offered, counted.handled, counted.failed, counted.dropped)

    @pytest.mark.parametrize("through", [ops.flat_map(lambda e: rx.of(0, 1)), ops.delay(0.001)], ids=["two values", "timer"])
    def test_the_bound_holds_whatever_the_pipeline_makes_of_an_event(self, bus: EventBus, through: Any) -> None:
        """Events of several values, and values that a timer emitted, can't always be taken back: then it is the new event that goes."""
        hands = Hands()
        one = bus.subscribe("a", hands, through=through, capacity=5, overflow=Overflow.DROP_OLDEST, concurrency=2, key=lambda v: 0)
        for n in range(500):
            bus.publish("a", n)
            if n % 50 == 0:
                time.sleep(0.005)
        assert one._strand.wait_until(lambda: not one._strand.is_running, time.monotonic() + LIMIT)
        assert one.statistics().queued <= 2 * (5 + 2)
        one.dispose()
        hands.let_go()
        bus.drain(LIMIT)
        assert 500 == assert_books_balance(bus).subscriptions[one.name].offered

    def test_block_waits_for_parked_events(self, bus: EventBus) -> None:
        """A publisher that found the mailbox full of parked events is woken when one of them begins."""
        hands = Hands()
        one = bus.subscribe("a", hands, capacity=2, concurrency=4, key=lambda e: "same")
        bus.publish("a", 0)
        hands.wait_for([0])
        bus.publish_many("a", [1, 2])
        publisher = run_in_thread(bus.publish, "a", 3)
        assert one._strand.wait_until(lambda: one.statistics().offered == 4, time.monotonic() + LIMIT)
        time.sleep(0.02)
        assert publisher.is_alive()
        hands.let_go(0)
        join(publisher)
        hands.let_go()
        bus.drain(LIMIT)
        assert [0, 1, 2, 3] == hands.seen

    @pytest.mark.parametrize("who", ["the key function", "another thread"])
    def test_dispose_while_the_key_is_asked_for(self, bus: EventBus, who: str) -> None:
        """The event on its way to a hand is dropped and counted; nothing waits for it."""
        asked, go_on = threading.Event(), threading.Event()

        def key(event: Event[int]) -> int:
            if event.payload == 1:
                asked.set()
                if who == "the key function":
                    one.dispose()
                else:
                    assert go_on.wait(LIMIT)
            return 0

        one = bus.subscribe("a", lambda e: None, concurrency=2, key=key)
        bus.publish("a", 0)
        bus.drain(LIMIT)
        bus.publish("a", 1)
        assert asked.wait(LIMIT)
        if who != "the key function":
            one.dispose()
            go_on.set()
        bus.drain(LIMIT)
        counted = assert_books_balance(bus).subscriptions[one.name]
        assert (2, 1, 1, 0) == (counted.offered, counted.handled, counted.dropped, counted.pending)

    @pytest.mark.parametrize("options", [{"concurrency": 2}, {"group": "g"}], ids=["hands", "members"])
    def test_outcomes_belong_to_the_topic_that_carried_the_event(self, bus: EventBus, options: dict[str, Any]) -> None:
        """A topic is forgotten and made anew while an event of it is in hand; settling out of order mixes nothing up."""
        hands = Hands()

        def handler(event: Event[str]) -> None:
            hands(event)
            if event.payload == "new":
                raise ValueError

        for _ in range(2):
            bus.subscribe("a.*", handler, **options)
        bus.publish("a.b", "old")
        hands.wait_for(["old"] * (1 if "group" in options else 2))
        bus.forget("a.b")
        hands.let_go("new")
        bus.publish("a.b", "new")
        expected = 1 if "group" in options else 2
        assert bus.subscriptions["handler"]._strand.wait_until(lambda: len(bus.dead_letters) == expected, time.monotonic() + LIMIT)
        hands.let_go()
        bus.drain(LIMIT)
        topic = assert_books_balance(bus).topics["a.b"]
        assert (1, 0, expected) == (topic.published, topic.handled, topic.failed)

    def test_keys_are_forgotten(self, bus: EventBus) -> None:
        """A million users don't stay in memory."""
        one = bus.subscribe("a", lambda e: None, concurrency=2, key=lambda e: e.payload)
        bus.publish_many("a", range(2_000))
        bus.drain(LIMIT)
        crew: Any = one._strand.crew
        assert len(crew._lines) < 50
        assert 0 == len(crew._parked)

    def test_dispose_drops_what_is_parked(self, bus: EventBus) -> None:
        """Parked events are counted as dropped, the one in the handler may finish."""
        hands = Hands()
        one = bus.subscribe("a", hands, concurrency=2, key=lambda e: "same")
        bus.publish_many("a", range(5))
        hands.wait_for([0])
        assert one._strand.wait_until(lambda: not one._strand.mailbox.queue, time.monotonic() + LIMIT)
        one.dispose()
        assert (4, 1) == (one.statistics().dropped, one.statistics().pending)
        hands.let_go()
        bus.drain(LIMIT)
        assert [0] == hands.seen
        assert_books_balance(bus)


class TestWaits:
    """A subscription with several hands waits only if all of them do."""

    def test_one_hand_may_wait_for_another(self, bus: EventBus) -> None:
        """A handler delivers to its own subscription: the second hand does it."""
        answers: list[int] = []

        def handler(event: Event[str]) -> None:
            if event.payload == "outer":
                answers.append(bus.deliver("a", "inner", timeout=LIMIT).handled)

        bus.subscribe("a", handler, concurrency=2)
        assert 1 == bus.deliver("a", "outer", timeout=LIMIT).handled
        assert [1] == answers

    def test_the_last_hand_may_not(self, bus: EventBus) -> None:
        """When all the others wait for the subscription already, it would be for ever: it raises at once."""
        both = threading.Barrier(2)
        results: list[str] = []

        def handler(event: Event[str]) -> None:
            if event.payload == "outer":
                both.wait(LIMIT)
                try:
                    bus.deliver("a", "inner", timeout=LIMIT)
                    results.append("delivered")
                except Exception as error:
                    results.append(type(error).__name__)

        bus.subscribe("a", handler, concurrency=2)
        started = time.monotonic()
        bus.publish_many("a", ["outer", "outer"])
        bus.drain(LIMIT)
        assert ["BusError", "delivered"] == sorted(results)
        assert time.monotonic() - started < LIMIT / 2

    @pytest.mark.parametrize("options", [{"concurrency": 2}, {"group": "g"}], ids=["hands", "members"])
    def test_who_has_the_event_in_hand_may_not_wait_for_the_waiter(self, bus: EventBus, options: dict[str, Any]) -> None:
        """A delivers to C, and the hand that has that event delivers back: another hand of C wouldn't help A."""
        results: list[str] = []

        def a(event: Event[str]) -> None:
            if event.payload == "go":
                results.append(f"a: {bus.deliver('c', 1, timeout=LIMIT).handled}")

        def c(event: Event[int]) -> None:
            try:
                bus.deliver("a", "back", timeout=LIMIT)
            except Exception as error:
                results.append(f"c: {type(error).__name__}")

        bus.subscribe("a", a)
        for _ in range(2 if "group" in options else 1):
            bus.subscribe("c", c, **options)
        started = time.monotonic()
        bus.publish("a", "go")
        bus.drain(LIMIT)
        assert ["c: BusError", "a: 1"] == results
        assert time.monotonic() - started < LIMIT / 2

    @pytest.mark.parametrize("threads", ["two threads", "inline"])
    def test_hands_without_a_thread_are_none(self, threads: str) -> None:
        """Circles of full mailboxes are found though more hands were asked for than could run."""
        pool = ThreadPoolScheduler(2)
        go = threading.Event()
        with EventBus(block_timeout=4 * LIMIT) as bus:

            def a(event: Event[int]) -> None:
                if event.payload < 100:
                    assert go.wait(LIMIT)
                    bus.publish("b", event.payload)

            def b(event: Event[int]) -> None:
                assert go.wait(LIMIT)
                for _ in range(3):
                    bus.publish("a", 100)

            scheduler = pool if threads == "two threads" else ImmediateScheduler()
            one = bus.subscribe("a", a, concurrency=3, scheduler=scheduler, capacity=2)
            bus.subscribe("b", b, capacity=1)
            bus.publish_many("b", [0, 1])
            one.pause()
            bus.publish_many("a", [0, 1])
            resumed = run_in_thread(one.resume)
            time.sleep(0.05)
            go.set()
            bus.drain(LIMIT)
            join(resumed)
            assert {Reason.OVERFLOW} >= {letter.reason for letter in bus.dead_letters}
            assert_books_balance(bus)
        pool.executor.shutdown()

    def test_with_keys_it_is_one(self, bus: EventBus) -> None:
        """The inner event could have the key that is busy, so waiting for oneself raises even with a hand free."""

        def handler(event: Event[str]) -> None:
            bus.deliver("a", "inner", timeout=LIMIT)

        bus.subscribe("a", handler, concurrency=2, key=lambda e: "same")
        assert 1 == bus.deliver("a", "outer", timeout=LIMIT).failed


class TestBadInput:
    """Said at the call."""

    @pytest.mark.parametrize("concurrency", [0, -1])
    def test_too_few(self, bus: EventBus, concurrency: int) -> None:
        """At least one at a time."""
        with pytest.raises(ValueError, match="concurrency must be at least 1"):
            bus.subscribe("a", print, concurrency=concurrency)
        assert {} == dict(bus.topics)

    @pytest.mark.parametrize("concurrency", [1.0, "2", None, True])
    def test_no_number(self, bus: EventBus, concurrency: Any) -> None:
        """A whole number."""
        with pytest.raises(TypeError, match="concurrency must be an int"):
            bus.on("a", concurrency=concurrency)

    def test_keys_that_are_no_functions(self, bus: EventBus) -> None:
        """A plain function of one value."""

        async def later(event: object) -> int:
            return 1

        for key in ("user", 5, later, lambda: 1, lambda a, b: 1):
            with pytest.raises(TypeError, match="key must"):
                bus.subscribe("a", print, concurrency=2, key=key)  # type: ignore[arg-type]

    def test_key_and_group(self, bus: EventBus) -> None:
        """No order would hold."""
        with pytest.raises(ValueError, match="key and group"):
            bus.subscribe("a", print, group="g", key=lambda e: 1)


class TestTrial:
    """A breaker's trial, of an event that makes several calls."""

    @pytest.mark.parametrize("concurrency", [1, 2])
    def test_all_calls_of_the_trial_are_made(self, bus: EventBus, concurrency: int) -> None:
        """Otherwise it would never be known what came of it."""
        got: list[int] = []

        async def handler(value: Any) -> None:
            if value == "bad":
                raise ValueError("bad")
            await asyncio.sleep(0.001)
            got.append(value)

        split = ops.flat_map(lambda e: rx.of(*e.payload))
        bus.subscribe("a", handler, through=split, concurrency=concurrency, breaker=Breaker(failures=1, pause=0.01))
        bus.publish_many("a", [["bad"], [1, 2, 3, 4, 5], [6]])
        bus.drain(LIMIT)
        assert [1, 2, 3, 4, 5, 6] == sorted(got)
        assert 1 == bus.dead_letters.discard()

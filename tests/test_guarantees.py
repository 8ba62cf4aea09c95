"""What users may rely on, each stated once and plainly; the races are under ``tests/stress``."""

from __future__ import annotations

import sys
import threading
import time

import pytest
import reactivex as rx
from reactivex import operators as ops
from reactivex.scheduler import ImmediateScheduler

from rxbus import BusClosedError, Event, EventBus, MailboxFullError, Overflow, Reason
from tests.support import LIMIT, Gate, Recorder, assert_books_balance, join, run_in_thread


class TestOrder:
    """G1."""

    def test_all_subscribers_see_one_order(self, bus: EventBus) -> None:
        """Four threads publish; three subscribers, one of them of a pattern, get the same sequence."""
        recorders = [Recorder() for _ in range(3)]
        for recorder, pattern in zip(recorders, ["a.b", "a.b", "a.*"], strict=True):
            bus.subscribe(pattern, recorder)
        join(*[run_in_thread(lambda k=k: [bus.publish("a.b", (k, n)) for n in range(200)]) for k in range(4)])
        bus.drain(LIMIT)
        assert 800 == len(recorders[0].payloads)
        assert recorders[0].payloads == recorders[1].payloads == recorders[2].payloads
        for k in range(4):
            assert list(range(200)) == [n for thread, n in recorders[0].payloads if thread == k]


class TestAcceptance:
    """G2."""

    def test_publish_returns_only_after_every_mailbox_has_it(self, bus: EventBus) -> None:
        """All subscriptions of the moment were offered the event when `publish` returns."""
        gates = [Gate() for _ in range(3)]
        for gate in gates:
            bus.subscribe("a", gate)
        bus.publish("a", 1)
        assert [1, 1, 1] == [s.offered for s in bus.statistics().subscriptions.values()]
        for gate in gates:
            gate.open()

    def test_refused_publish_changes_nothing(self, bus: EventBus) -> None:
        """On a closed bus `publish` raises and nobody was offered anything."""
        seen = Recorder()
        bus.subscribe("a", seen)
        bus.close()
        with pytest.raises(BusClosedError, match="bus 'test' is closed"):
            bus.publish("a", 1)
        assert [] == seen.events
        assert 0 == bus.statistics().topics["a"].published


class TestSerial:
    """G3."""

    def test_handler_never_overlaps_with_itself(self, bus: EventBus) -> None:
        """However many threads publish, one event is in the handler."""
        inside, most = 0, 0

        def handler(_: Event[int]) -> None:
            nonlocal inside, most
            inside += 1
            most = max(most, inside)
            time.sleep(20e-6)
            inside -= 1

        bus.subscribe("a", handler)
        join(*[run_in_thread(lambda: [bus.publish("a", n) for n in range(100)]) for _ in range(4)])
        bus.drain(LIMIT)
        assert 1 == most

    def test_with_concurrency_a_key_is_still_serial_and_in_order(self, bus: EventBus) -> None:
        """Four at a time, but never two of one key, and each key in the order of the topic."""
        inside: dict[int, int] = dict.fromkeys(range(5), 0)
        overlaps, order, together = [], Recorder(), []

        def handler(event: Event[int]) -> None:
            key = event.payload % 5
            inside[key] += 1
            overlaps.append(inside[key] > 1)
            together.append(sum(inside.values()))
            time.sleep(0.0002)
            order(event)
            inside[key] -= 1

        bus.subscribe("a", handler, concurrency=4, key=lambda e: e.payload % 5)
        bus.publish_many("a", range(200))
        bus.drain(LIMIT)
        assert (200, 0) == (len(overlaps), sum(overlaps))
        assert 2 <= max(together) <= 4
        for key in range(5):
            assert list(range(key, 200, 5)) == [n for n in order.payloads if n % 5 == key]

    def test_timer_of_a_pipeline_is_one_more_serial_step(self, bus: EventBus) -> None:
        """While a handler stands still, a timer that came due waits for it."""
        order: list[str] = []
        release = threading.Event()
        flushed = threading.Event()

        def handler(value: object) -> None:
            if isinstance(value, list):
                order.append("timer")
                flushed.set()
            else:
                order.append("enters")
                assert release.wait(LIMIT)
                order.append("leaves")

        def both(source: rx.Observable[Event[int]]) -> rx.Observable[object]:
            return rx.merge(source, source.pipe(ops.delay(0.01), ops.map(lambda e: [e])))

        bus.subscribe("a", handler, through=both)
        bus.publish("a", 1)
        time.sleep(0.05)  # the timer is overdue while the handler stands
        assert ["enters"] == order
        release.set()
        assert flushed.wait(LIMIT)
        assert ["enters", "leaves", "timer"] == order


class TestBookkeeping:
    """G4."""

    @pytest.mark.parametrize("overflow", list(Overflow))
    def test_offered_is_the_sum_of_all_outcomes(self, bus: EventBus, overflow: Overflow) -> None:
        """Under each policy, with failures, drops and refusals, nothing is lost uncounted; each failure is one letter."""

        def handler(event: Event[int]) -> None:
            if event.payload % 3 == 0:
                raise ValueError(event.payload)

        one = bus.subscribe("a", handler, capacity=5, overflow=overflow)
        for n in range(200):
            bus.publish("a", n)
        bus.drain(LIMIT)
        counted = assert_books_balance(bus).subscriptions["handler"]
        assert 200 == counted.offered
        assert 0 == counted.pending
        assert counted.failed == len(bus.dead_letters)
        one.dispose()
        assert counted.offered == assert_books_balance(bus).subscriptions["handler"].offered

    def test_dispose_and_close_count_what_they_release(self, bus: EventBus) -> None:
        """What was queued is dropped, and makes no dead letter."""
        gate = Gate()
        one = bus.subscribe("a", gate)
        bus.publish_many("a", range(10))
        gate.wait_until_entered()
        one.dispose()
        counted = bus.statistics().subscriptions[one.name]
        assert (10, 9, 1) == (counted.offered, counted.dropped, counted.pending)
        gate.open()
        bus.drain(LIMIT)
        counted = bus.statistics().subscriptions[one.name]
        assert (10, 1, 9, 0) == (counted.offered, counted.handled, counted.dropped, counted.pending)
        assert 0 == len(bus.dead_letters)


class TestIsolation:
    """G5."""

    def test_hung_subscriber_delays_nobody(self, bus: EventBus) -> None:
        """One handler stands still for ever; its neighbour handles everything."""
        gate, seen = Gate(), Recorder()
        bus.subscribe("a", gate)
        fast = bus.subscribe("a", seen)
        bus.publish_many("a", range(100))
        gate.wait_until_entered()
        assert fast._strand.wait_until(lambda: len(seen.events) == 100, time.monotonic() + LIMIT)
        gate.open()

    def test_a_hundred_asleep_delay_nobody(self, bus: EventBus) -> None:
        """On default settings: while a hundred handlers stand still, another one gets every event, and then they end."""
        wake, fast = threading.Event(), Recorder()
        for n in range(100):
            bus.subscribe("sleep", lambda e: wake.wait(LIMIT), name=f"sleeper {n}")
        one = bus.subscribe("work", fast)
        bus.publish("sleep", 0)
        for n in range(50):
            assert 1 == bus.deliver("work", n, timeout=LIMIT).handled
        assert 100 == sum(s.pending for s in bus.statistics().subscriptions.values())
        assert (list(range(50)), 0) == (fast.payloads, one.statistics().pending)
        wake.set()
        bus.drain(LIMIT)
        assert 100 == bus.statistics().topics["sleep"].handled

    @pytest.mark.parametrize("raised", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, MemoryError, RecursionError])
    def test_handler_may_raise_anything(self, bus: EventBus, raised: type[BaseException]) -> None:
        """It costs that event and nothing else, for itself and for its neighbours."""
        seen, mine = Recorder(), Recorder()

        def handler(event: Event[int]) -> None:
            if event.payload == 1:
                raise raised("on purpose")
            mine(event)

        bus.subscribe("a", handler)
        bus.subscribe("a", seen)
        for n in range(3):
            bus.publish("a", n)
        bus.drain(LIMIT)
        assert [0, 1, 2] == seen.payloads
        assert [0, 2] == mine.payloads
        [letter] = bus.dead_letters
        assert (Reason.FAILED, "handler", 1, 1) == (letter.reason, letter.subscription, letter.event.payload, letter.attempts)
        assert isinstance(letter.error, raised)
        assert "on purpose" in letter.traceback

    def test_error_that_cannot_be_printed(self, bus: EventBus) -> None:
        """An exception whose `str` and `repr` raise is recorded like any other."""

        class Hostile(Exception):
            def __str__(self) -> str:
                raise RuntimeError("no text")

            __repr__ = __str__

        def handler(_: Event[int]) -> None:
            raise Hostile

        bus.subscribe("a", handler)
        assert 1 == bus.deliver("a", 1, timeout=LIMIT).failed
        assert 1 == bus.deliver("a", 2, timeout=LIMIT).failed


class TestNoUserCodeUnderALock:
    """G6."""

    def test_everything_may_be_done_from_inside_a_handler(self, bus: EventBus) -> None:
        """Publish, subscribe, observe, dispose, statistics, graph, forget and close, from inside."""
        late, chained = Recorder(), Recorder()
        bus.subscribe("b", chained)

        @bus.on("a")
        def handler(event: Event[int]) -> None:
            bus.publish("b", 1)
            bus.subscribe("c", late)
            bus.publish("c", 2)
            bus.observe("c").subscribe(lambda _: None).dispose()
            bus.statistics()
            bus.graph()
            bus.forget("d")
            bus.subscriptions["handler"].dispose()
            bus.close()

        bus.publish("a", 0)
        report = bus.close(LIMIT)
        assert ((), {}) == (report.stuck, dict(report.unhandled))
        assert [1] == chained.payloads
        assert [2] == late.payloads

    @pytest.mark.parametrize("inline", [False, True])
    def test_a_circle_does_not_recurse(self, inline: bool) -> None:
        """Two topics feed each other for 5,000 hops, far beyond the recursion limit, at constant stack depth."""
        depths: set[int] = set()

        def bounce(event: Event[int]) -> int | None:
            frame, depth = sys._getframe(), 0
            while frame is not None:
                frame, depth = frame.f_back, depth + 1
            depths.add(depth)
            return event.payload - 1 if event.payload else None

        with EventBus(scheduler=ImmediateScheduler() if inline else None) as bus:
            bus.subscribe("a", bounce, to="b", name="a")
            bus.subscribe("b", bounce, to="a", name="b")
            bus.publish("a", 5_000)
            bus.drain(LIMIT)
            assert 5_001 == sum(t.published for t in bus.statistics().topics.values())
        assert max(depths) - min(depths) < 20

    @pytest.mark.parametrize("combine", [rx.merge, rx.zip, rx.combine_latest])
    def test_topics_chained_both_ways_do_not_deadlock(self, bus: EventBus, combine: object) -> None:
        """What deadlocks with plain Subjects at once (each side holds the lock that the other needs) goes through here."""
        a, b, other = bus.topic("a"), bus.topic("b"), bus.topic("other")
        for source, target in ((a, b), (b, a)):
            joined = combine(source, other)  # type: ignore[operator]
            joined.pipe(ops.filter(lambda _: False)).subscribe(target.on_next)
        join(*[run_in_thread(lambda t=t: [t.emit(n) for n in range(300)]) for t in (a, b, other)])
        bus.drain(LIMIT)
        assert_books_balance(bus)


class TestLateSubscribers:
    """G7."""

    def test_no_history_and_no_gap(self, bus: EventBus) -> None:
        """A subscriber sees nothing from before, and everything from after."""
        bus.publish("a", "before")
        seen = Recorder()
        bus.subscribe("a", seen)
        bus.publish("a", "after")
        bus.drain(LIMIT)
        assert ["after"] == seen.payloads

    def test_pattern_reaches_topics_that_come_later(self, bus: EventBus) -> None:
        """A topic that is made after the subscription of a pattern feeds it from its first event on."""
        seen = Recorder()
        bus.subscribe("user.*", seen)
        bus.publish("user.login", 1)
        bus.publish("user.logout", 2)
        bus.publish("order.made", 3)
        bus.drain(LIMIT)
        assert {1, 2} == set(seen.payloads)


class TestDispose:
    """G8."""

    def test_nothing_is_taken_after_dispose(self, bus: EventBus) -> None:
        """The event in the handler finishes; what was queued is never handled."""
        gate = Gate()
        one = bus.subscribe("a", gate)
        bus.publish_many("a", range(5))
        gate.wait_until_entered()
        one.dispose()
        gate.open()
        one.dispose(wait=LIMIT)
        assert [0] == gate.seen
        assert one.is_disposed

    def test_dispose_joins_for_so_long(self, bus: EventBus) -> None:
        """`dispose(wait=)` comes back when the handler has ended, or when its time is over."""
        gate = Gate()
        one = bus.subscribe("a", gate)
        bus.publish("a", 1)
        gate.wait_until_entered()
        started = time.monotonic()
        one.dispose(wait=0.05)
        assert 0.05 <= time.monotonic() - started < LIMIT
        assert [] == gate.seen
        opener = threading.Timer(0.02, gate.open)
        opener.start()
        one.dispose(wait=LIMIT)
        assert [1] == gate.seen

    def test_from_inside_its_own_handler(self, bus: EventBus) -> None:
        """A handler ends its own subscription; waiting for itself would be a deadlock, so it doesn't wait."""
        seen = Recorder()

        def once(event: Event[int]) -> None:
            seen(event)
            bus.subscriptions["once"].dispose(wait=LIMIT)

        bus.subscribe("a", once)
        bus.publish_many("a", range(3))
        bus.drain(LIMIT)
        assert [0] == seen.payloads
        counted = assert_books_balance(bus).subscriptions["once"]
        assert (3, 1, 2) == (counted.offered, counted.handled, counted.dropped)


class TestPublishersPeace:
    """G9."""

    def test_publish_never_raises_for_a_subscriber(self, bus: EventBus) -> None:
        """A failing handler, a full mailbox and a dead scheduler are no business of the publisher."""
        from concurrent.futures import ThreadPoolExecutor

        from reactivex.scheduler import ThreadPoolScheduler

        dead = ThreadPoolScheduler(1)
        assert isinstance(dead.executor, ThreadPoolExecutor)
        dead.executor.shutdown()
        gate = Gate()

        def failing(_: Event[int]) -> None:
            raise SystemExit

        bus.subscribe("a", failing)
        bus.subscribe("a", gate, capacity=1, overflow=Overflow.FAIL, name="full")
        bus.subscribe("a", gate, scheduler=dead, name="dead")
        bus.publish("a", 0)
        gate.wait_until_entered()
        bus.publish_many("a", [1, 2])
        gate.open()
        bus.drain(LIMIT)
        statistics = assert_books_balance(bus)
        assert 3 == statistics.subscriptions["dead"].failed
        assert {Reason.UNDELIVERABLE} == {letter.reason for letter in bus.dead_letters if letter.subscription == "dead"}
        [refused] = [letter for letter in bus.dead_letters if letter.subscription == "full"]
        assert (Reason.OVERFLOW, 2, 0) == (refused.reason, refused.event.payload, refused.attempts)
        assert isinstance(refused.error, MailboxFullError)


class TestBounded:
    """G10."""

    def test_every_default_has_a_bound(self, bus: EventBus) -> None:
        """Mailboxes and the dead letters of a bus made without a word are bounded."""
        one = bus.subscribe("a", lambda _: None)
        assert 65_536 == one.statistics().capacity
        assert 10_000 == bus.dead_letters._capacity

    def test_dead_letters_leave_with_a_count(self) -> None:
        """The oldest letters go when there is no room, and that is counted."""

        def failing(_: Event[int]) -> None:
            raise ValueError

        with EventBus(dead_letter_capacity=3) as bus:
            bus.subscribe("a", failing)
            bus.publish_many("a", range(5))
            bus.drain(LIMIT)
            assert [2, 3, 4] == [letter.event.payload for letter in bus.dead_letters]
            assert 2 == bus.dead_letters.evicted


class TestTopicsLiveOn:
    """G11."""

    def test_upstream_that_completes(self, bus: EventBus) -> None:
        """A source that completes into a topic ends nothing."""
        seen = Recorder()
        bus.subscribe("a", seen)
        rx.of(1, 2).subscribe(bus.topic("a"))
        bus.publish("a", 3)
        bus.drain(LIMIT)
        assert [1, 2, 3] == seen.payloads

    def test_upstream_that_fails(self, bus: EventBus, caplog: pytest.LogCaptureFixture) -> None:
        """A source that fails into a topic is logged and counted, and ends nothing."""
        seen = Recorder()
        bus.subscribe("a", seen)
        rx.concat(rx.of(1), rx.throw(ValueError("upstream"))).subscribe(bus.topic("a"))
        bus.publish("a", 2)
        bus.drain(LIMIT)
        assert [1, 2] == seen.payloads
        assert 1 == bus.statistics().topics["a"].failed
        assert "an upstream of topic 'a' failed; the topic lives on: ValueError: upstream" in caplog.text

    def test_failing_chain_between_two_topics(self, bus: EventBus) -> None:
        """`a.pipe(...).subscribe(b)`: the event is a dead letter of `a`, the failure counts for `b` too, and both live on."""
        seen = Recorder()
        bus.subscribe("b", seen)
        a, b = bus.topic("a"), bus.topic("b")
        a.pipe(ops.map(lambda e: 10 // e.payload)).subscribe(b)
        a.emit(0)
        bus.drain(LIMIT)
        assert [0] == [letter.event.payload for letter in bus.dead_letters]
        statistics = assert_books_balance(bus)
        assert (1, 1) == (statistics.topics["a"].failed, statistics.topics["b"].failed)
        b.emit("alive")
        bus.drain(LIMIT)
        assert ["alive"] == seen.payloads


class TestShutdown:
    """G12."""

    def test_drained_handlers_may_still_publish(self, bus: EventBus) -> None:
        """`close` handles what is queued, chained events included, while outsiders are refused."""
        gate, seen = Gate(), Recorder()
        refused = threading.Event()

        def chain(event: Event[int]) -> int:
            gate(event)
            return event.payload

        bus.subscribe("a", chain, to="b")
        bus.subscribe("b", seen)
        bus.publish_many("a", range(3))
        gate.wait_until_entered()
        closer = run_in_thread(bus.close)
        while not bus._closing:
            time.sleep(0.001)
        with pytest.raises(BusClosedError):
            bus.publish("a", 99)
        refused.set()
        gate.open()
        join(closer)
        assert [0, 1, 2] == seen.payloads

    def test_topics_complete_at_the_end(self, bus: EventBus) -> None:
        """A raw observer sees the completion, after everything else."""
        seen: list[object] = []
        bus.topic("a").subscribe(lambda e: seen.append(e.payload), on_completed=lambda: seen.append("completed"))
        bus.observe(">").subscribe(lambda _: None, on_completed=lambda: seen.append("pattern completed"))
        bus.publish("a", 1)
        bus.close()
        assert [1, "completed", "pattern completed"] == sorted(seen, key=[1, "completed", "pattern completed"].index)

    def test_report_names_what_is_stuck(self, bus: EventBus) -> None:
        """A handler that doesn't return in time is named, with the events that it leaves."""
        gate = Gate()
        bus.subscribe("a", gate, name="stuck")
        bus.publish_many("a", range(4))
        gate.wait_until_entered()
        started = time.monotonic()
        report = bus.close(0.1)
        assert time.monotonic() - started < LIMIT / 2
        assert ("stuck",) == report.stuck
        assert {"stuck": 4} == dict(report.unhandled)
        assert "'stuck' left 4 events unhandled; 'stuck' is stuck in its handler" == str(report)
        gate.open()

    def test_close_is_idempotent(self, bus: EventBus) -> None:
        """The second close gives the first one's report."""
        assert bus.close() is bus.close()


class TestImmutability:
    """G13."""

    def test_an_event_never_changes(self, bus: EventBus) -> None:
        """Neither its fields nor its metadata; and the mapping that was given may change without harm."""
        metadata = {"user": "ada"}
        event = bus.publish("a", [1], metadata=metadata)
        metadata["user"] = "bob"
        assert {"user": "ada"} == event.metadata
        with pytest.raises(AttributeError):
            event.payload = 2  # type: ignore[misc]
        with pytest.raises(TypeError):
            event.metadata["user"] = "bob"  # type: ignore[index]
        with pytest.raises(AttributeError):
            event.extra = 1  # type: ignore[attr-defined]

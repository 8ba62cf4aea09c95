"""Recordings."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import reactivex
from reactivex import operators as ops
from reactivex.scheduler import ImmediateScheduler, VirtualTimeScheduler
from reactivex.subject import Subject
from reactivex.testing import TestScheduler

from rxbus import REPLY, BusClosedError, BusError, EventBus, MailboxSubject, RequestFailedError
from rxbus.marbles import Notification
from rxbus.recording import Recording, record
from rxbus.testing import VirtualBus, from_marbles
from tests.support import LIMIT, Gate, join, run_in_thread


class TestWhatIsRecorded:
    """Topics, patterns and anything else."""

    def test_a_topic_before_publish_returns(self, bus: EventBus) -> None:
        """Nobody has to wait for a recording of what he published himself."""
        recording = record(bus.topic("a"))
        events = [bus.publish("a", n) for n in range(3)]
        assert events == recording.events
        assert [0, 1, 2] == recording.payloads
        assert "a" == recording.name
        assert 3 == len(recording)

    def test_a_pattern(self, bus: EventBus) -> None:
        """What `observe` gives is recorded in the same way."""
        recording = record(bus.observe("user.*"))
        bus.publish("user.a", 1)
        bus.publish("other", 2)
        bus.publish("user.b", 3)
        assert [1, 3] == recording.payloads
        assert "user.*" == recording.name

    def test_nothing_is_lost_however_many_publish(self, bus: EventBus) -> None:
        """More than a mailbox holds, from several threads, all in the order of the topic."""
        small = EventBus("small", capacity=2, close_timeout=2.0)
        with small:
            recording, other = record(small.topic("a")), record(small.topic("a"))
            threads = [run_in_thread(lambda: [small.publish("a", n) for n in range(2000)]) for _ in range(4)]
            join(*threads)
            recording.wait_for(8000, LIMIT)
            other.wait_for(8000, LIMIT)
        assert recording.events == other.events
        assert 8000 == len(recording)

    def test_nothing_is_lost_inside_a_handler(self) -> None:
        """However small mailboxes are, and though it can be recorded only when the handler has returned."""
        with EventBus(capacity=2, scheduler=ImmediateScheduler()) as small:
            small.subscribe("in", lambda event: small.publish_many("out", range(100)) and None)
            recording = record(small.topic("out"))
            small.publish("in", 1)
            assert list(range(100)) == recording.payloads
            assert 0 == len(small.dead_letters)

    def test_any_observable(self) -> None:
        """With its end; items are their own payloads."""
        recording = record(reactivex.of(1, 2), "numbers")
        recording.wait_for(2, LIMIT)
        assert [1, 2] == recording.payloads
        assert [] == recording.events
        assert recording.is_completed
        assert ["next", "next", "completed"] == [one.kind for one in recording.notifications]

    def test_an_error(self) -> None:
        """It is kept, and the recording has ended."""
        error = ValueError("no")
        subject = Subject[int]()
        recording = record(subject)
        subject.on_next(1)
        subject.on_error(error)
        assert error is recording.error
        assert not recording.is_completed
        assert "subject" == recording.name

    def test_a_subject_with_mailboxes(self) -> None:
        """It is subscribed to like any observable."""
        subject = MailboxSubject[int]()
        recording = record(subject)
        subject.on_next(1)
        assert [1] == recording.wait_for(1, LIMIT).payloads

    def test_the_end_of_the_bus_completes_it(self) -> None:
        """Its topic completes then."""
        with EventBus() as bus:
            recording = record(bus.topic("a"))
            bus.publish("a", 1)
        assert [1] == recording.payloads
        assert recording.is_completed

    def test_times(self, bus: EventBus) -> None:
        """Unix seconds on a bus with real threads."""
        before = time.time()
        recording = record(bus.topic("a"))
        bus.publish("a", 1)
        times = [before, recording.started, recording.notifications[0].time, time.time()]
        assert sorted(times) == times

    def test_a_scheduler_is_used_and_gives_the_time(self) -> None:
        """Its clock is the recording's, and its operators' too."""
        scheduler = TestScheduler()
        recording = record(reactivex.timer(3.0), scheduler=scheduler)
        scheduler.start()
        assert [Notification("next", 3.0, 0), Notification("completed", 3.0)] == list(recording.notifications)

    def test_notifications_are_frozen(self) -> None:
        """Nobody changes what was said."""
        with pytest.raises(AttributeError):
            Notification("next", 0.0, 1).time = 5.0  # type: ignore[misc]


class TestDisturbance:
    """A recording changes nothing for others."""

    def test_it_answers_no_requests(self, bus: EventBus) -> None:
        """Who records a topic is nobody who could answer there: a request fails at once when the others have given up."""

        def fails(event: Any) -> None:
            raise ValueError("no")

        recording = record(bus.topic("ask"))
        bus.subscribe("ask", fails, to=REPLY)
        with pytest.raises(RequestFailedError):
            bus.request("ask", 1, timeout=LIMIT).run()
        assert 1 == len(recording)

    def test_dispose(self, bus: EventBus) -> None:
        """Nothing more is recorded, what was stays, and the bus has one subscription less."""
        with record(bus.topic("a")) as recording:
            bus.publish("a", 1)
            assert 1 == len(bus.subscriptions)
        bus.publish("a", 2)
        assert [1] == recording.payloads
        assert 0 == len(bus.subscriptions)
        recording.dispose()

    def test_drain_does_not_wait_for_it(self, bus: EventBus) -> None:
        """It never has anything to do."""
        record(bus.topic("a"))
        bus.publish("a", 1)
        bus.drain(LIMIT)
        assert 1 == bus.statistics().subscriptions["recording@a"].handled


class TestWaitFor:
    """Until so many items are there."""

    def test_waits_for_another_thread(self, bus: EventBus) -> None:
        """It comes back when they are there."""
        gate = Gate()
        bus.subscribe("in", lambda event: gate(event) or event.payload, to="out")
        recording = record(bus.topic("out"))
        bus.publish("in", 5)
        gate.wait_until_entered()
        waiter: list[Recording] = []
        thread = run_in_thread(lambda: waiter.append(recording.wait_for(1, LIMIT)))
        gate.open()
        join(thread)
        assert [recording] == waiter
        assert [5] == recording.payloads

    def test_says_what_came_instead(self, bus: EventBus) -> None:
        """The number, the items and the name."""
        recording = record(bus.topic("a"))
        bus.publish("a", "x")
        with pytest.raises(TimeoutError, match=r"^recording of 'a': expected 2 items within 0.01 s, found 1: \['x'\]$"):
            recording.wait_for(2, 0.01)

    def test_an_end_ends_the_wait(self) -> None:
        """Whatever the timeout: what can't come is not waited for, and the error is the cause."""
        error = KeyError("no")
        with pytest.raises(TimeoutError, match="found 0, then its completion"):
            record(reactivex.empty()).wait_for(1, 1e6)
        with pytest.raises(TimeoutError, match="then KeyError") as raised:
            record(reactivex.throw(error)).wait_for(1, 1e6)
        assert error is raised.value.__cause__

    def test_dispose_ends_the_wait(self) -> None:
        """From another thread."""
        recording = record(reactivex.never())
        timer = threading.Timer(0.02, recording.dispose)
        timer.start()
        with pytest.raises(TimeoutError, match="then it was disposed of"):
            recording.wait_for(1, 1e6)
        timer.join(LIMIT)

    def test_a_virtual_clock_that_only_a_test_moves(self) -> None:
        """Waiting for it would be for ever, so it raises."""
        recording = record(reactivex.timer(1.0), scheduler=VirtualTimeScheduler())
        with pytest.raises(BusError, match="can't move the virtual clock"):
            recording.wait_for(1)

    @pytest.mark.parametrize(("n", "timeout", "kind"), [(0, 1, ValueError), (-1, 1, ValueError), (1.0, 1, TypeError), (True, 1, TypeError)])
    def test_bad_numbers(self, n: Any, timeout: Any, kind: type[Exception]) -> None:
        """A whole number of at least 1 is expected."""
        with pytest.raises(kind, match=r"^n must be"):
            record(reactivex.never()).wait_for(n, timeout)

    @pytest.mark.parametrize(("timeout", "kind"), [(-1, ValueError), (float("nan"), ValueError), ("1", TypeError)])
    def test_bad_timeouts(self, timeout: Any, kind: type[Exception]) -> None:
        """Seconds are expected."""
        with pytest.raises(kind, match=r"^timeout must be"):
            record(reactivex.never()).wait_for(1, timeout)


class TestMarbles:
    """As a diagram."""

    def test_readable(self) -> None:
        """``str`` and ``repr`` show what there is."""
        recording = record(reactivex.of("x", "long"), "a")
        assert "a  (xa|)  (a = 'long')" == str(recording)
        assert "Recording('a': 2 items, completed)" == repr(recording)
        assert "Recording('never': 0 items)" == repr(record(reactivex.never(), "never"))
        assert "Recording('bad': 0 items, failed)" == repr(record(reactivex.throw(ValueError()), "bad"))

    def test_expect_marbles(self) -> None:
        """It says nothing, or shows both."""
        recording = record(reactivex.of("x", "y"), "a")
        recording.expect_marbles("  (xy|)")
        with pytest.raises(AssertionError) as raised:
            recording.expect_marbles("(xz|)")
        assert [
            "recording of 'a' differs",
            "expected  (xz|)",
            "found     (xy|)",
            "            ^ at 0.2 s",
        ] == str(raised.value).splitlines()

    def test_commas_in_groups(self) -> None:
        """They may stand in what is expected."""
        with VirtualBus() as bus:
            fed = bus.feed("a", "(a,b)-c|")
            bus.drain()
        fed.expect_marbles("(a,b) -c|")
        assert "(ab)-c|" == fed.marbles()
        with pytest.raises(ValueError, match="a comma outside of a group"):
            fed.expect_marbles("(ab)-,c|")

    @pytest.mark.parametrize("diagram", ["", "----", "-a--", "(a)b", "(a,b) c--", "--|", "#"])
    def test_what_was_fed(self, diagram: str) -> None:
        """A diagram is what is expected of its own recording, that of silence too, and so is what was drawn."""
        with VirtualBus() as bus:
            seen = bus.record("a")
            fed = bus.feed("a", diagram)
            told = record(from_marbles(diagram, scheduler=bus.scheduler), scheduler=bus.scheduler)
            bus.drain()
            bus.advance(1)
            for one in (seen, fed, told):
                one.expect_marbles(diagram)
                one.expect_marbles(one.marbles())
                with pytest.raises(AssertionError, match="expected  a-b"):
                    one.expect_marbles("a-b")

    def test_no_diagram(self) -> None:
        """Text is expected."""
        with pytest.raises(TypeError, match="diagram must be a str, got 5"):
            record(reactivex.never()).expect_marbles(5)  # type: ignore[arg-type]

    def test_a_long_silence(self) -> None:
        """The text of a recording stays short; its diagram doesn't."""
        with VirtualBus() as bus, bus.record("a") as recording:
            bus.publish("a", 1)
            bus.advance(86_400)
            bus.publish("a", 2)
        assert 1100 > len(str(recording))
        assert str(recording).startswith("a  1---")
        assert "-…" in str(recording)
        assert 864_001 == len(recording.marbles())

    def test_values(self) -> None:
        """Payloads by their characters."""
        assert "(q|)" == record(reactivex.of([1])).marbles({"q": [1]})


class TestBadInput:
    """At the call."""

    @pytest.mark.parametrize("observable", [None, "a", 5, print])
    def test_no_observable(self, observable: Any) -> None:
        """An RxPY observable is expected."""
        with pytest.raises(TypeError, match="observable must be an RxPY observable"):
            record(observable)

    @pytest.mark.parametrize(("name", "kind"), [("", ValueError), (5, TypeError)])
    def test_bad_names(self, name: Any, kind: type[Exception]) -> None:
        """A name with something in it is expected."""
        with pytest.raises(kind, match="name must"):
            record(reactivex.never(), name)

    def test_bad_scheduler(self) -> None:
        """An RxPY scheduler is expected."""
        with pytest.raises(TypeError, match="scheduler must be"):
            record(reactivex.never(), scheduler=5)  # type: ignore[arg-type]

    def test_closed_bus(self) -> None:
        """Its topics carry nothing more."""
        bus = EventBus()
        topic = bus.topic("a")
        bus.close()
        with pytest.raises(BusClosedError):
            record(topic)
        with pytest.raises(BusClosedError):
            record(bus.observe("a"))

    def test_forgotten_topic(self, bus: EventBus) -> None:
        """It carries nothing more, though there may be another of that name."""
        topic = bus.topic("a")
        bus.forget("a")
        bus.topic("a")
        with pytest.raises(BusClosedError, match="topic 'a' is closed"):
            record(topic)

    def test_pipelines_of_a_bus_run_as_ever(self, bus: EventBus) -> None:
        """What isn't a topic or a pattern alone is subscribed to, on the pool."""
        recording = record(bus.observe("a").pipe(ops.map(lambda event: event.payload + 1)))
        bus.publish("a", 1)
        assert [2] == recording.wait_for(1, LIMIT).payloads

"""The end of a bus: what operators hold, who is told, what is reported."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time

import pytest
import reactivex as rx
from reactivex import operators as ops

from rxbus import BusClosedError, Event, EventBus, operators
from tests.support import LIMIT, Gate, Recorder, assert_books_balance, join, run_in_thread


class TestHeldValues:
    """What operators hold when the bus closes."""

    def test_chain_of_pipelines(self, bus: EventBus) -> None:
        """What the first lets go feeds the second, which lets it go in turn, whichever was subscribed first."""
        seen = Recorder()
        pairs = rx.compose(operators.payload(), ops.buffer_with_count(2))
        bus.subscribe("c", seen)
        bus.subscribe("b", lambda value: value, through=pairs, to="c", name="second")
        bus.subscribe("a", lambda value: value, through=pairs, to="b", name="first")
        bus.publish("a", 1)
        report = bus.close()
        assert [[[1]]] == seen.payloads
        assert {} == dict(report.unhandled)
        assert_books_balance(bus)

    def test_raw_chain_into_a_topic(self, bus: EventBus) -> None:
        """A raw chain completes while its topic is still open to it."""
        seen = Recorder()
        bus.subscribe("b", seen)
        bus.topic("a").pipe(operators.payload(), ops.buffer_with_count(2)).subscribe(bus.topic("b").on_next)
        bus.publish_many("a", [1, 2, 3])
        bus.close()
        assert [[1, 2], [3]] == seen.payloads
        assert 0 == len(bus.dead_letters)

    def test_behind_a_mailbox_in_the_middle(self, bus: EventBus) -> None:
        """A mailbox in a chain ends after what feeds it, not before."""
        got: list[list[int]] = []
        chain = bus.topic("a").pipe(operators.payload(), ops.buffer_with_count(2), operators.mailbox())
        chain.subscribe(got.append)
        bus.publish_many("a", [1, 2, 3])
        bus.close()
        assert [[1, 2], [3]] == got

    def test_pipeline_goes_on_after_it_was_flushed(self, bus: EventBus) -> None:
        """A completion that comes a moment after the flush doesn't end the subscription before its neighbour's values reach it."""
        seen: list[object] = []
        bus.subscribe("b", seen.append, through=rx.compose(operators.payload(), operators.mailbox()), name="second")
        bus.subscribe("a", lambda v: v, through=rx.compose(operators.payload(), ops.buffer_with_count(2)), to="b", name="first")
        bus.publish("b", "early")
        bus.publish("a", 1)
        bus.close()
        assert ["early", [1]] == seen

    def test_one_stuck_handler_costs_only_its_own(self, bus: EventBus) -> None:
        """Though the time is over for the stuck one, the others' values come out."""
        gate, seen = Gate(), Recorder()
        bus.subscribe("stuck", gate, name="stuck")
        bus.subscribe("b", seen)
        bus.subscribe("a", sum, through=rx.compose(operators.payload(), ops.buffer_with_count(5)), to="b", name="sums")
        bus.publish("stuck", 1)
        gate.wait_until_entered()
        bus.publish_many("a", [1, 2])
        report = bus.close(0.5)
        assert [3] == seen.payloads
        assert (("stuck",), {"stuck": 1}) == (report.stuck, dict(report.unhandled))
        gate.open()


class TestRefusal:
    """Publishers outside."""

    def test_a_handler_that_never_returns(self, bus: EventBus) -> None:
        """A close is back soon after its timeout, and names it with the length of its queue; others finish."""
        gate, seen = Gate(), Recorder()
        bus.subscribe("a", gate, name="never")
        bus.subscribe("a", seen)
        bus.publish_many("a", range(100))
        gate.wait_until_entered()
        began = time.monotonic()
        report = bus.close(timeout=1)
        assert time.monotonic() - began < LIMIT / 2  # half a second more than it was given, on an idle machine
        assert (("never",), {"never": 100}) == (report.stuck, dict(report.unhandled))
        assert "'never' left 100 events unhandled; 'never' is stuck in its handler" == str(report)
        assert list(range(100)) == seen.payloads
        gate.open()

    def test_from_a_handler_it_refuses_at_once(self, bus: EventBus) -> None:
        """When `close` has returned inside a handler, a publisher outside is refused already."""
        closed, refused, done = threading.Event(), threading.Event(), threading.Event()

        @bus.on("a")
        def handler(_: Event[int]) -> None:
            bus.close()
            closed.set()
            assert done.wait(LIMIT)

        def outside() -> None:
            assert closed.wait(LIMIT)
            with pytest.raises(BusClosedError):
                bus.publish("a", 2)
            refused.set()
            done.set()

        thread = run_in_thread(outside)
        bus.publish("a", 1)
        assert refused.wait(LIMIT)
        join(thread)


class TestReport:
    """What is left."""

    def test_observers_of_dead_letters_are_waited_for_and_named(self, bus: EventBus) -> None:
        """One that stands still is in the report like any other."""
        entered, release = threading.Event(), threading.Event()

        def failing(_: Event[int]) -> None:
            raise ValueError

        def stuck(_: object) -> None:
            entered.set()
            assert release.wait(LIMIT)

        bus.subscribe("a", failing)
        bus.dead_letters.subscribe(stuck)
        bus.publish_many("a", [1, 2])
        assert entered.wait(LIMIT)
        report = bus.close(0.1)
        assert 1 == len(report.stuck)
        assert [2] == list(report.unhandled.values())
        release.set()

    def test_same_name_twice_adds_up(self, bus: EventBus) -> None:
        """One that was disposed of in its handler, and a new one of that name."""
        first, second = Gate(), Gate()
        one = bus.subscribe("a", first, name="agent")
        bus.publish("a", 1)
        first.wait_until_entered()
        one.dispose()
        bus.subscribe("a", second, name="agent")
        bus.publish_many("a", [2, 3])
        second.wait_until_entered()
        assert {"agent": 3} == dict(bus.close(0.05).unhandled)
        first.open()
        second.open()

    def test_raising_user_code_leaves_no_half_closed_bus(self, bus: EventBus, caplog: pytest.LogCaptureFixture) -> None:
        """A `finally_action` of a pipeline that raises is reported; the close goes to its end."""

        def boom() -> None:
            raise RuntimeError("finally boom")

        bus.subscribe("a", lambda _: None, through=ops.finally_action(boom), name="boom")
        other = bus.subscribe("b", lambda _: None)
        bus.publish("a", 1)
        bus.drain(LIMIT)
        bus.close(drain=False)
        assert "finally boom" in caplog.text
        assert other.is_disposed
        assert repr(bus).startswith("EventBus('test'): closed")

    def test_paused_in_mid_drain(self, bus: EventBus) -> None:
        """A handler that pauses itself while the bus drains costs its own events and nobody's completion."""
        gate = Gate()
        ended: list[str] = []

        def handler(event: Event[int]) -> None:
            gate(event)
            bus.subscriptions["agent"].pause()

        bus.subscribe("a", handler, name="agent")
        bus.topic("b").subscribe(lambda _: None, on_completed=lambda: ended.append("completed"))
        bus.publish_many("a", [1, 2])
        gate.wait_until_entered()
        threading.Timer(0.05, gate.open).start()
        started = time.monotonic()
        report = bus.close(1.0)
        assert time.monotonic() - started < LIMIT
        assert {"agent": 1} == dict(report.unhandled)
        assert ["completed"] == ended

    def test_second_close_tells_the_present_state(self, bus: EventBus) -> None:
        """While the first is at work, a second one that may not wait so long says what is left."""
        gate = Gate()
        bus.subscribe("a", gate, name="agent")
        bus.publish("a", 1)
        gate.wait_until_entered()
        first = run_in_thread(bus.close, 1.0)
        while not bus._closing:
            time.sleep(0.001)
        assert {"agent": 1} == dict(bus.close(0.05).unhandled)
        gate.open()
        join(first)
        assert {} == dict(bus.close().unhandled)


def run_program(text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A program of its own, to its end."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(text), *arguments], capture_output=True, text=True, timeout=60, check=False
    )


class TestProcessEnd:
    """A program that just ends."""

    PROGRAM = """
        import sys, time
        from rxbus import EventBus, shutdown
        seconds, shutdown.GRACE_AT_EXIT = float(sys.argv[1]), float(sys.argv[2])

        def slow(event):
            time.sleep(seconds)

        def last(event):
            if event.payload == 29:
                print("the last one was handled")

        bus = EventBus("open")
        bus.subscribe("a", slow, to="b", name="slow")
        bus.subscribe("a", lambda e: e.payload, to="b", name="fast")
        bus.subscribe("b", last)
        bus.publish_many("a", range(30))
    """

    def test_what_is_queued_is_handled(self) -> None:
        """Chained events included, without a word."""
        ended = run_program(self.PROGRAM, "0.001", "5")
        assert (0, "the last one was handled\n", "") == (ended.returncode, ended.stdout, ended.stderr)

    def test_what_is_not_is_said(self) -> None:
        """By bus and subscription, after the time of grace; the interpreter doesn't hang."""
        ended = run_program(self.PROGRAM, "3", "0.2")
        assert (0, "the last one was handled\n") == (ended.returncode, ended.stdout)
        assert "rxbus: bus 'open' was not closed; events not handled when the process ended: 30 of 'slow'\n" == ended.stderr

    def test_a_closed_bus_is_silent(self) -> None:
        """Whatever it had left was reported by the close."""
        ended = run_program(self.PROGRAM + "\n        bus.close(0, drain=False)\n", "0", "0.2")
        assert (0, "") == (ended.returncode, ended.stderr)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
class TestFork:
    """The child of a fork."""

    def test_the_inherited_bus_refuses_and_others_work(self) -> None:
        """While the parent's threads publish and handle, so that locks are held at the moment of the fork; nothing hangs."""
        ended = run_program("""
            import os, threading, time, warnings
            from rxbus import BusClosedError, EventBus, WorkerPool
            warnings.simplefilter("ignore")
            pool = WorkerPool(4)
            bus = EventBus("parent", capacity=100, scheduler=pool)
            bus.subscribe("a", lambda e: time.sleep(0.0001))
            bus.subscribe("*", lambda e: None, name="wide")
            stop = threading.Event()

            def publish():
                while not stop.is_set():
                    bus.publish("a", 1)

            threads = [threading.Thread(target=publish, daemon=True) for _ in range(3)]
            for thread in threads:
                thread.start()

            def child():
                refused = 0
                for call in (lambda: bus.publish("a", 1), lambda: bus.subscribe("b", print), lambda: bus.topic("new"),
                             lambda: bus.publish("new", 1), lambda: bus.deliver("a", 1), lambda: bus.topic("a").emit(1)):
                    try:
                        call()
                    except BusClosedError as error:
                        assert "made before a fork" in str(error), error
                        refused += 1
                assert refused == 6, refused
                bus.drain(1)
                assert str(bus.close()) == "everything was handled"
                bus.statistics()
                assert len(bus.dead_letters) == 0
                for scheduler in (None, pool):
                    with EventBus("child", scheduler=scheduler) as own:
                        seen = []
                        own.subscribe("x", seen.append)
                        assert own.deliver("x", 1, timeout=10).handled == 1
                    assert len(seen) == 1

            for number in range(30):
                pid = os.fork()
                if pid == 0:
                    code = 1
                    try:
                        child()
                        code = 0
                    except BaseException as error:
                        print(number, repr(error), flush=True)
                    finally:
                        os._exit(code)
                assert os.waitpid(pid, 0)[1] == 0, number
            stop.set()
            for thread in threads:
                thread.join(10)
            assert str(bus.close()) == "everything was handled"
        """)
        assert (0, "", "") == (ended.returncode, ended.stdout, "\n".join(x for x in ended.stderr.splitlines() if "over 80 %" not in x))

"""The worker pool and the timers."""

from __future__ import annotations

import logging
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
import reactivex as rx

from rxbus import EventBus, WorkerPool
from rxbus.timers import Timers
from tests.support import LIMIT, Gate, Recorder


def wait_for(condition: object) -> None:
    """Until it holds, within the limit."""
    deadline = time.monotonic() + LIMIT
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.001)


class TestGrowth:
    """Workers come when handlers block, and go when they are idle."""

    def test_grows_while_handlers_block(self, bus: EventBus) -> None:
        """Twenty handlers that stand still don't keep a twenty-first from running."""
        gates = [Gate() for _ in range(20)]
        for gate in gates:
            bus.subscribe("a", gate)
        seen = Recorder()
        bus.subscribe("b", seen)
        bus.publish("a", 1)
        for gate in gates:
            gate.wait_until_entered()
        bus.deliver("b", 2, timeout=LIMIT)
        assert [2] == seen.payloads
        for gate in gates:
            gate.open()

    def test_stays_small_while_handlers_are_quick(self) -> None:
        """A thousand topics with quick handlers need few threads."""
        pool = WorkerPool()
        with EventBus(scheduler=pool) as bus:
            for n in range(1000):
                bus.subscribe(f"t{n}", lambda _: None)
            for n in range(1000):
                bus.publish(f"t{n}", n)
            bus.drain(LIMIT)
            assert pool.workers < 20

    def test_bound_is_kept_logged_and_counted(self, caplog: pytest.LogCaptureFixture) -> None:
        """No more threads than `max_workers`; that the bound was reached is said, once, and counted in the statistics."""
        gates = [Gate() for _ in range(5)]
        pool = WorkerPool(max_workers=3)
        with EventBus(scheduler=pool) as bus:
            for gate in gates:
                bus.subscribe("a", gate)
            bus.publish("a", 1)
            wait_for(lambda: sum(gate.entered.is_set() for gate in gates) == 3)
            wait_for(lambda: "reached its bound of 3 workers" in caplog.text)
            time.sleep(0.02)
            assert 3 == pool.workers
            assert 1 == caplog.text.count("reached its bound")
            found = bus.statistics().pool
            assert found is not None
            assert (3, 3, 1) == (found.workers, found.max_workers, found.saturations)
            for gate in gates:
                gate.open()
        assert all(gate.seen == [1] for gate in gates)

    def test_a_worker_that_was_called_early_for_nothing_misleads_nobody(self) -> None:
        """It looked, found nothing and rests again; later on, when it is blocked, what is submitted gets a worker of its own."""
        pool = WorkerPool(4)
        gates = [threading.Barrier(3), threading.Barrier(3)]
        for gate in gates:
            for _ in range(2):
                pool.call(lambda gate=gate: gate.wait(LIMIT))
            if gate is gates[0]:
                gate.wait(LIMIT)
                wait_for(lambda: len(pool._idle) == 2)
                pool.call_early()
                wait_for(lambda: len(pool._idle) == 2)
        ran = threading.Event()
        wait_for(lambda: not pool._ready)
        pool.call(ran.set)
        assert ran.wait(LIMIT)
        gates[1].wait(LIMIT)
        pool.close()

    def test_idle_workers_leave(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A pool with nothing to do has no thread after a while, and works again when there is something."""
        monkeypatch.setattr("rxbus.workers.IDLE_SECONDS", 0.05)
        pool = WorkerPool()
        ran = threading.Event()
        pool.schedule(lambda *_: ran.set())
        assert ran.wait(LIMIT)
        wait_for(lambda: pool.workers == 0)
        again = threading.Event()
        pool.schedule(lambda *_: again.set())
        assert again.wait(LIMIT)

    def test_wait_in_an_rxbus_call_does_not_count(self) -> None:
        """Workers of a pool of two wait inside `deliver`, nested; unrelated events are handled all the same."""
        with EventBus(workers=2) as bus:
            for n in range(4):
                bus.subscribe(f"t{n}", lambda _, n=n: bus.deliver(f"t{n + 1}", 0, timeout=LIMIT), name=f"s{n}")
            bus.subscribe("t4", lambda _: None, name="s4")
            receipt = bus.deliver("t0", 0, timeout=LIMIT)
            assert (1, 0) == (receipt.handled, receipt.failed)
            assert 0 == len(bus.dead_letters)


class TestAsScheduler:
    """A pool is an RxPY scheduler."""

    def test_runs_actions_on_its_threads(self) -> None:
        """At once, after a time, at a time; a disposed one never."""
        pool = WorkerPool(2)
        order: list[str] = []
        done = threading.Event()
        pool.schedule(lambda *_: order.append(threading.current_thread().name))
        cancelled = pool.schedule_relative(0.02, lambda *_: order.append("cancelled"))
        cancelled.dispose()
        pool.schedule_relative(timedelta(seconds=0.03), lambda *_: order.append("relative"))
        pool.schedule_absolute(datetime.now(UTC) + timedelta(seconds=0.06), lambda *_: done.set())
        assert done.wait(LIMIT)
        assert order[0].startswith("rxbus-")
        assert ["relative"] == order[1:]

    def test_drives_rxpy_operators(self) -> None:
        """An interval on the pool."""
        assert 2 == rx.interval(0.005, scheduler=WorkerPool(2)).pipe(rx.operators.take(3)).run()

    def test_survives_a_raising_action(self, caplog: pytest.LogCaptureFixture) -> None:
        """It is logged, and the worker goes on."""
        pool = WorkerPool(1)
        done = threading.Event()

        def bad(*_: object) -> None:
            raise SystemExit("out")

        pool.schedule(bad)
        pool.schedule(lambda *_: done.set())
        assert done.wait(LIMIT)
        assert "an action scheduled on a worker pool raised" in caplog.text


class TestTimers:
    """One thread for all timers."""

    def test_come_due_in_order(self) -> None:
        """Whatever the order in which they were set."""
        timers = Timers()
        order: list[int] = []
        done = threading.Event()
        for n in (3, 1, 2):
            timers.after(n / 100, lambda n=n: order.append(n))
        timers.after(0.05, done.set)
        assert done.wait(LIMIT)
        assert [1, 2, 3] == order

    def test_ten_thousand_cost_one_thread(self) -> None:
        """And cancelled ones cost nothing when they come due."""
        timers = Timers()
        before = threading.active_count()
        calls: list[int] = []
        for _ in range(10_000):
            timers.after(0.1, lambda: calls.append(1)).cancel()
        done = threading.Event()
        timers.after(0.1, done.set)
        assert threading.active_count() <= before + 1
        assert done.wait(LIMIT)
        assert [] == calls

    def test_raising_callback_is_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        """The others come due all the same."""
        timers = Timers()
        done = threading.Event()

        def bad() -> None:
            raise ValueError

        with caplog.at_level(logging.ERROR):
            timers.after(0.0, bad)
            timers.after(0.01, done.set)
            assert done.wait(LIMIT)
        assert "a timer's callback raised" in caplog.text

    def test_cancelled_ones_leave_the_heap(self) -> None:
        """A debounce under load cancels a timer for each event; they don't pile up until they come due."""
        timers = Timers()
        for _ in range(10_000):
            timers.after(3600.0, lambda: None).cancel()
        assert len(timers._heap) < 1_000

    def test_enormous_pauses_do_no_harm(self) -> None:
        """A timer that will never come due in practice doesn't keep the others from doing so."""
        timers = Timers()
        done = threading.Event()
        timers.after(1e10, lambda: None)
        timers.after(0.01, done.set)
        assert done.wait(LIMIT)

    def test_an_interrupt_leaves_them_usable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Ctrl-C inside a condition's Python code must not keep the lock, and a timer that nobody was told of wakes the thread late."""
        timers = Timers()
        rang = threading.Event()
        timers.after(0.0, rang.set)
        assert rang.wait(LIMIT)
        wait_for(lambda: timers._asleep_until > time.monotonic())

        def enter(condition: threading.Condition) -> None:
            condition.acquire()
            raise KeyboardInterrupt

        def notify(condition: threading.Condition) -> None:
            raise KeyboardInterrupt

        rang.clear()
        with monkeypatch.context() as patch:
            patch.setattr(threading.Condition, "__enter__", enter)
            patch.setattr(threading.Condition, "notify", notify)
            with pytest.raises(KeyboardInterrupt):
                timers.after(0.01, lambda: None)
        timers.after(0.02, rang.set)
        assert rang.wait(LIMIT)

    def test_an_interrupted_start_is_made_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The first thread runs, perhaps; it goes away, and there is one thread for all."""
        timers = Timers()
        start, started = threading.Thread.start, list[threading.Thread]()

        def interrupted(thread: threading.Thread) -> None:
            start(thread)
            started.append(thread)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", interrupted)
            with pytest.raises(KeyboardInterrupt):
                timers.after(0.0, lambda: None)
        rang = threading.Event()
        timers.after(0.0, rang.set)
        assert rang.wait(LIMIT)
        started[0].join(LIMIT)
        assert not started[0].is_alive()


class TestNoMoreThreads:
    """A system that starts no more threads."""

    def test_pool_recovers(self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        """`publish` doesn't raise; what is queued is handled once threads can be started again."""
        start = threading.Thread.start

        def refuse(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with EventBus() as bus:
            seen = Recorder()
            bus.subscribe("a", seen)
            monkeypatch.setattr(threading.Thread, "start", refuse)
            bus.publish("a", 1)
            assert "a worker pool could not start a thread" in caplog.text
            monkeypatch.setattr(threading.Thread, "start", start)
            bus.drain(LIMIT)
            bus.publish("a", 2)
            bus.drain(LIMIT)
            assert [1, 2] == seen.payloads

    def test_timers_recover(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The caller is told that there is no timer, and the next one works."""
        timers = Timers()
        start = threading.Thread.start
        failing = iter([True])

        def refuse(thread: threading.Thread) -> None:
            if next(failing, False):
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", refuse)
        calls: list[int] = []
        with pytest.raises(RuntimeError, match="can't start new thread"):
            timers.after(0.0, lambda: calls.append(1))
        done = threading.Event()
        timers.after(0.01, done.set)
        assert done.wait(LIMIT)
        assert [] == calls

    def test_bound_is_said_outside_of_the_lock(self) -> None:
        """A log handler that uses the bus while the pool says that it is full doesn't deadlock with it."""
        said = threading.Event()

        class Uses(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                if "reached its bound" in record.getMessage():
                    bus.statistics()
                    pool.schedule(lambda *_: None)
                    said.set()

        pool = WorkerPool(1)
        handler = Uses()
        logging.getLogger("rxbus").addHandler(handler)
        try:
            with EventBus(scheduler=pool) as bus:
                gates = [Gate() for _ in range(3)]
                for gate in gates:
                    bus.subscribe("a", gate)
                bus.publish("a", 1)
                assert said.wait(LIMIT)
                for gate in gates:
                    gate.open()
        finally:
            logging.getLogger("rxbus").removeHandler(handler)

"""Strands: claims, gates, actions."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

import pytest

from rxbus.mailbox import Entry, Mailbox, Overflow
from rxbus.outcome import Reason
from rxbus.strand import BATCH, Strand
from rxbus.waits import begin_wait, end_wait, here, running_chain
from tests.support import LIMIT


class Line:
    """An executor that keeps what was submitted until it is told to run it."""

    inline = False
    pass_time = None

    def __init__(self) -> None:
        self.waiting: list[Strand] = []
        self.timers: list[tuple[float, Any]] = []

    def monotonic(self) -> float:
        return time.monotonic()

    def submit(self, strand: Strand) -> None:
        self.waiting.append(strand)

    requeue = submit

    def later(self, seconds: float, callback: Any) -> Any:
        self.timers.append((seconds, callback))
        return threading.Timer(0, callback)  # never started: only its `cancel` is used

    def run(self) -> int:
        """Runs all, and what they submit; how many runs that were."""
        runs = 0
        while self.waiting:
            self.waiting.pop(0).run()
            runs += 1
        return runs


class Consumer:
    """Takes down what it is told."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.strand: Strand | None = None
        self.do: Any = lambda value: None

    def _now(self) -> float:
        return time.time()

    @property
    def _entrance(self) -> Callable[[Entry, float], float]:
        return self._process

    def _process(self, entry: Entry, started: float) -> float:
        self.log.append(entry[0])
        self.do(entry[0])
        assert self.strand is not None
        if not self.strand.is_suspended:
            self.strand.in_flight = None
        return time.time()

    def _proceed(self, held: Any, started: float) -> float:
        self.log.append(("again", held[0]))
        self.do(("again", held[0]))
        assert self.strand is not None
        if not self.strand.is_suspended:
            self.strand.in_flight = None
        return time.time()

    def _held_entry(self, held: Any) -> Entry:
        return held

    def _terminate(self, error: Exception | None) -> None:
        self.log.append(("end", error))

    def _refuse(self, entry: Entry, reason: Reason, error: Exception, attempts: int = 0) -> None:
        self.log.append(("refused", entry[0], reason, attempts))

    def _release(self, entry: Entry, reason: str) -> None:
        self.log.append(("released", entry[0]))

    def _broken_off(self, entry: Entry) -> Any:
        raise NotImplementedError

    def _begun(self, held: Any) -> int:
        return 1

    def _keeps_held(self, held: Any) -> bool:
        return False

    def _cancel_held(self, held: Any) -> None:
        self.log.append(("cancelled", held[0]))

    def _end(self) -> None:
        self.log.append("ended")

    def _action_failed(self, error: BaseException) -> None:
        self.log.append(("action failed", error))

    def _count(self, entry: Entry, outcome: str) -> None:
        self.log.append(("count", entry[0], outcome))

    def _closed(self) -> None:
        self.log.append("closed")


def entry(value: Any) -> Entry:
    """An entry of a mailbox."""
    return (value, copy_context(), time.time())


@pytest.fixture
def parts() -> tuple[Strand, Line, Consumer]:
    """A strand with its executor and its consumer."""
    line, consumer = Line(), Consumer()
    strand = Strand(Mailbox(1000, Overflow.BLOCK, 1.0), line, consumer)
    consumer.strand = strand
    return strand, line, consumer


class TestRun:
    """Submissions and runs."""

    def test_one_submission_for_many_events(self, parts: tuple[Strand, Line, Consumer]) -> None:
        """A strand that was submitted isn't submitted again before it ran."""
        strand, line, consumer = parts
        for n in range(3):
            strand.mailbox.queue.append(entry(n))
            strand.wake()
        assert 1 == len(line.waiting)
        line.run()
        assert [0, 1, 2] == consumer.log
        assert strand.is_quiet()

    def test_batches_give_others_a_turn(self, parts: tuple[Strand, Line, Consumer]) -> None:
        """After a batch the strand stands in line again."""
        strand, line, consumer = parts
        strand.mailbox.queue.extend(entry(n) for n in range(2 * BATCH + 1))
        strand.wake()
        assert line.run() >= 3
        assert list(range(2 * BATCH + 1)) == consumer.log

    def test_slow_handlers_give_others_a_turn(self, parts: tuple[Strand, Line, Consumer]) -> None:
        """A run ends after its slice of time, at the next event."""
        strand, line, consumer = parts
        consumer.do = lambda _: time.sleep(0.005)
        strand.mailbox.queue.extend(entry(n) for n in range(3))
        strand.wake()
        assert 3 == line.run()

    def test_second_run_goes_away(self, parts: tuple[Strand, Line, Consumer]) -> None:
        """While one run is in progress another one does nothing: the handler is not entered again."""
        strand, line, consumer = parts
        inside: list[int] = []

        def again(value: int) -> None:
            assert [] == inside
            inside.append(value)
            strand.run()  # somebody submitted twice
            inside.remove(value)

        consumer.do = again
        strand.mailbox.queue.extend(entry(n) for n in range(2))
        strand.wake()
        line.run()
        assert [0, 1] == consumer.log

    def test_knows_whose_run_it_is(self, parts: tuple[Strand, Line, Consumer]) -> None:
        """Inside, the strand is the running one; outside there is none."""
        strand, line, consumer = parts
        found: list[Any] = []
        consumer.do = lambda _: found.append((running_chain(), strand.running_here()))
        strand.mailbox.queue.append(entry(1))
        strand.wake()
        line.run()
        assert [([strand], True)] == found
        assert [] == running_chain()
        assert not strand.running_here()


class TestRefused:
    """A scheduler that refuses."""

    def test_publishers_that_wait_for_room_are_woken(self, parts: tuple[Strand, Line, Consumer]) -> None:
        """The mailbox is empty then, and nobody else would tell them."""
        strand, _, consumer = parts
        waiter = threading.Lock()
        waiter.acquire()
        strand.mailbox.queue.append(entry(1))
        strand.mailbox._waiters.append(waiter)
        strand.undeliverable(RuntimeError("no threads"))
        assert ("refused", 1, Reason.UNDELIVERABLE, 0) in consumer.log
        assert waiter.acquire(blocking=False)


class TestGates:
    """Paused, suspended, closed."""

    def test_paused_takes_nothing(self, parts: tuple[Strand, Line, Consumer]) -> None:
        """Until it is told to go on."""
        strand, line, consumer = parts
        strand.pause()
        strand.mailbox.queue.append(entry(1))
        strand.wake()
        line.run()
        assert [] == consumer.log
        assert not strand.is_quiet()
        strand.unpause()
        line.run()
        assert [1] == consumer.log

    def test_a_pause_that_is_over_at_once(self, parts: tuple[Strand, Line, Consumer]) -> None:
        """Even before the run that began it looks again: nothing overtakes the event that it was for."""
        strand, line, consumer = parts
        first = entry(1)

        def twice(value: Any) -> None:
            if value == 1 or (value == ("again", 1) and consumer.log.count(value) < 2):
                strand.suspend(first, 0.0)
                line.timers.pop()[1]()

        consumer.do = twice
        strand.mailbox.queue.extend([first, entry(2)])
        strand.wake()
        line.run()
        assert [1, ("again", 1), ("again", 1), 2] == consumer.log

    def test_suspended_goes_on_with_what_it_holds(self, parts: tuple[Strand, Line, Consumer]) -> None:
        """After the timer, before anything else."""
        strand, line, consumer = parts
        first = entry(1)
        consumer.do = lambda value: strand.suspend(first, 5.0) if value == 1 else None
        strand.mailbox.queue.extend([first, entry(2)])
        strand.wake()
        line.run()
        assert [1] == consumer.log
        assert not strand.is_quiet()
        [(seconds, resume)] = line.timers
        assert 5.0 == seconds
        resume()
        line.run()
        assert [1, ("again", 1), 2] == consumer.log
        assert strand.is_quiet()

    def test_closed_releases_everything_once(self, parts: tuple[Strand, Line, Consumer]) -> None:
        """What is held and what is queued; a second close does nothing."""
        strand, line, consumer = parts
        first = entry(1)
        consumer.do = lambda value: strand.suspend(first, 5.0)
        strand.mailbox.queue.extend([first, entry(2)])
        strand.wake()
        line.run()
        consumer.log.clear()
        assert strand.close()
        assert not strand.close()
        assert [("count", 1, "dropped"), ("count", 2, "dropped"), ("cancelled", 1), "closed"] == consumer.log  # nobody follows them
        assert strand.is_quiet()

    def test_finish_comes_after_what_is_queued(self, parts: tuple[Strand, Line, Consumer]) -> None:
        """The end is the last thing that the consumer is told."""
        strand, line, consumer = parts
        strand.mailbox.queue.append(entry(1))
        error = ValueError()
        strand.finish(error)
        line.run()
        assert [1, ("end", error)] == consumer.log


class TestActions:
    """The strand as a scheduler."""

    def test_actions_are_steps(self, parts: tuple[Strand, Line, Consumer]) -> None:
        """One that is scheduled from outside runs between two events; what it schedules for now is part of it."""
        strand, line, consumer = parts
        strand.mailbox.queue.append(entry(1))

        def action(*_: Any) -> None:
            consumer.log.append("action")
            strand.scheduler.schedule(lambda *_: consumer.log.append("inner"))
            consumer.log.append("action ends")

        strand.scheduler.schedule(action)
        line.run()
        assert ["action", "action ends", "inner", 1] == consumer.log

    def test_disposed_actions_do_not_run(self, parts: tuple[Strand, Line, Consumer]) -> None:
        """Neither those for now nor those for later."""
        strand, line, consumer = parts
        strand.scheduler.schedule(lambda *_: consumer.log.append("now")).dispose()
        strand.scheduler.schedule_relative(1.0, lambda *_: consumer.log.append("later")).dispose()
        for _, callback in line.timers:
            callback()
        line.run()
        assert [] == consumer.log

    def test_raising_action_is_reported(self, parts: tuple[Strand, Line, Consumer]) -> None:
        """And the strand goes on."""
        strand, line, consumer = parts
        error = SystemExit()

        def bad(*_: Any) -> None:
            raise error

        strand.scheduler.schedule(bad)
        strand.mailbox.queue.append(entry(1))
        line.run()
        assert [("action failed", error), 1] == consumer.log


class TestWaits:
    """Who waits for whom."""

    def test_circles_are_refused(self) -> None:
        """A waits for B, B for C: C may not wait for A; after A's wait has ended it may."""
        strands = []
        for _ in range(3):
            consumer = Consumer()
            line = Line()
            strand = consumer.strand = Strand(Mailbox(10, Overflow.BLOCK, 1.0), line, consumer)
            strands.append((strand, line, consumer))
        (a, line_a, on_a), (b, line_b, on_b), (c, line_c, on_c) = strands
        answers: list[bool] = []

        def in_c(_: Any) -> None:
            answers.append(begin_wait([a.mailbox]))
            answers.append(begin_wait([c.mailbox]))
            end_in_a.set()
            assert ended.wait(LIMIT)
            answers.append(begin_wait([a.mailbox]))

        end_in_a, ended, entered = threading.Event(), threading.Event(), threading.Event()

        def in_a(_: Any) -> None:
            answers.append(begin_wait([b.mailbox]))
            entered.set()
            assert end_in_a.wait(LIMIT)
            end_wait([b.mailbox])
            ended.set()

        def in_b(_: Any) -> None:
            answers.append(begin_wait([c.mailbox]))

        on_a.do, on_b.do, on_c.do = in_a, in_b, in_c
        for strand, _, _ in strands:
            strand.mailbox.queue.append(entry(1))
            strand.wake()
        first = threading.Thread(target=line_a.run)
        first.start()
        assert entered.wait(LIMIT)
        line_b.run()
        line_c.run()
        first.join(LIMIT)
        assert [True, True, False, False, True] == answers
        here.depth = 0  # b and c wait on, on this very thread

    def test_outside_of_a_handler_there_are_no_circles(self, parts: tuple[Strand, Line, Consumer]) -> None:
        """Nobody waits for a caller that is no strand."""
        strand, _, _ = parts
        assert begin_wait([strand.mailbox])
        end_wait([strand.mailbox])
        assert () == strand.waiting_for

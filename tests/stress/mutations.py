"""Breaks the core on purpose, one critical step at a time, and checks that the race tests notice.

``python -m tests.stress.mutations [name ...]`` copies the package and its tests to a temporary directory, sees the named tests
pass there, and applies one mutation after the other (all, or those named). A mutation is *caught* when one of its tests fails:
in an ordinary run, or else in the long run of the race tests, as far as that comes within `LIMIT`. It has *survived* when none
does; then a test is too weak, or the step isn't critical. Prints a table; the exit code is 1 unless all were caught.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 60.0
"""Seconds for the tests of one mutation."""
SANITY_LIMIT = 300.0
"""Seconds for all named tests on the unbroken copy."""


@dataclass(frozen=True)
class Mutation:
    """One critical step, broken: the snippet occurs exactly once in the file, and a copy with the replacement must fail a test."""

    name: str
    file: str
    snippet: str
    replacement: str
    tests: tuple[str, ...]
    hangs: bool = False
    """Whether a test that doesn't come to its end within the limit is what is expected."""


STRAND = "rxbus/strand.py"
INLET = "rxbus/inlet.py"
SUBJECT = "rxbus/subject.py"
SUBSCRIPTION = "rxbus/subscription.py"
WORKERS = "rxbus/workers.py"
CONSUMER = "rxbus/consumer.py"
SHUTDOWN = "rxbus/shutdown.py"
MAILBOX = "rxbus/mailbox.py"
TOPIC = "rxbus/topic.py"
REGISTRY = "rxbus/registry.py"
WAITS = "rxbus/waits.py"
CREW = "rxbus/crew.py"
GROUP = "rxbus/group.py"
ASYNC_STRAND = "rxbus/async_strand.py"
LOOPS = "rxbus/loops.py"
REQUEST = "rxbus/request.py"
RESULTS = "rxbus/results.py"
MAPPING = "rxbus/mapping.py"

ACCEPTANCE = "tests/stress/test_acceptance.py"
BOOKS = "tests/stress/test_books.py"
CREWS = "tests/stress/test_crews.py"
DELIVER = "tests/stress/test_deliver.py"
DISPOSAL = "tests/stress/test_disposal.py"
RACES = "tests/stress/test_loops.py"
COROUTINES = "tests/test_async_strand.py"
FORGET = "tests/stress/test_forget.py"
ORDER = "tests/stress/test_order.py"
POOL = "tests/stress/test_pool.py"
REENTRANCY = "tests/stress/test_reentrancy.py"
SERIAL = "tests/stress/test_serial.py"
SHUTDOWNS = "tests/stress/test_shutdown.py"
WINDOWS = "tests/stress/test_windows.py"

MUTATIONS = (
    Mutation(
        "a worker called early doesn't say that it has looked",
        WORKERS,
        "                self._early.remove(worker)\n",
        "                self._early.count(worker)\n",
        ("tests/test_workers.py::TestGrowth::test_a_worker_that_was_called_early_for_nothing_misleads_nobody",),
    ),
    # -- crews and groups
    Mutation(
        "the next event overtakes one that backs off",
        STRAND,
        "                if self._held:\n                    continue",
        "                if False:\n                    continue",
        (
            "tests/test_strand.py::TestGates::test_a_pause_that_is_over_at_once",
            f"{ORDER}::TestRetries::test_nothing_overtakes_an_event_that_backs_off",
        ),
    ),
    Mutation(
        "a call is handed over after the close",
        CREW,
        "            if self._strand.is_closed:\n                work.dropped = True\n                return\n",
        "",
        ("tests/test_crew.py::TestKeys::test_dispose_while_the_key_is_asked_for",),
        hangs=True,
    ),
    Mutation(
        "a key is free while its call goes on",
        CREW,
        "                if line is not None:\n                    line.busy = True\n",
        "",
        (f"{CREWS}::TestCrews::test_bound_and_order",),
    ),
    Mutation(
        "parked calls take no room",
        CREW,
        "        self._strand.mailbox.limit -= 1\n",
        "",
        ("tests/test_crew.py::TestKeys::test_parked_events_take_room",),
    ),
    Mutation(
        "quiet while a hand is at work",
        CREW,
        "            self.calls -= 1  # after the books: until then it isn't quiet\n            rest = not self.calls\n",
        "            rest = not self.calls\n",
        (f"{CREWS}::TestCrews::test_books",),
        hangs=True,
    ),
    Mutation(
        "room among parked calls wakes nobody",
        CREW,
        "            if mailbox.watched:\n                mailbox.taken()\n",
        "",
        ("tests/test_crew.py::TestKeys::test_block_waits_for_parked_events",),
    ),
    Mutation(
        "a member rests without another look",
        GROUP,
        "                if self.mailbox.queue:\n                    return True\n                self._resting",
        "                self._resting",
        (f"{WINDOWS}::TestGroups::test_no_event_waits_for_another",),
    ),
    Mutation(
        "a member that can't work wakes nobody in its place",
        GROUP,
        "            elif self.mailbox.queue:\n                following = self._next()\n",
        "",
        (f"{WINDOWS}::TestGroups::test_no_event_waits_for_another",),
    ),
    Mutation(
        "a busy member stays in the line of those who rest",
        GROUP,
        "            self._resting.pop(strand, None)\n",
        "",
        ("tests/test_group.py::TestGroup::test_a_member_that_is_busy_with_a_timer_is_passed_over",),
    ),
    Mutation(
        "what a leaving member had goes to nobody",
        GROUP,
        "            if not last:\n                self.mailbox.queue.appendleft(entry)\n",
        "",
        (f"{CREWS}::TestGroups::test_members_come_and_go",),
    ),
    Mutation(
        "any free hand will do for an event that is in another one",
        MAILBOX,
        "        return (holders, True) if holders else (self._mailbox.servers, False)\n",
        "        return self._mailbox.servers, False\n",
        ("tests/test_crew.py::TestWaits::test_who_has_the_event_in_hand_may_not_wait_for_the_waiter",),
        hangs=True,
    ),
    # -- the run of a strand
    Mutation(
        "strand takes the flag down after it looked",
        STRAND,
        """\
        if self._wants_more():
            self.scheduled = True
            self.executor.requeue(self)
""",
        """\
        self.scheduled = True
        if self._wants_more():
            self.executor.requeue(self)
        else:
            self.scheduled = False
""",
        (f"{WINDOWS}::TestStrand::test_no_item_waits_for_another",),
    ),
    Mutation(
        "flag down before the token is back",
        STRAND,
        """\
        self._token.append(None)
        self.scheduled = False
        if self.released:
""",
        """\
        self.scheduled = False
        self._token.append(None)
        if self.released:
""",
        (f"{WINDOWS}::TestStrand::test_no_item_waits_for_another",),
    ),
    Mutation(
        "run without the token",
        STRAND,
        "            return  # a run is in progress; it looks again when it ends",
        "            pass",
        (f"{WINDOWS}::TestStrand::test_a_submission_too_many_is_harmless",),
    ),
    Mutation(
        "context of the publisher not copied for each delivery",
        STRAND,
        "entry[1].copy().run(process, entry, started)",
        "entry[1].run(process, entry, started)",
        (f"{ORDER}::TestOneOrder::test_all_subscribers_see_one_order",),
    ),
    Mutation(
        "quiet without a look at the token",
        STRAND,
        "        if busy or not self._token:\n",
        "        if busy:\n",
        (f"{WINDOWS}::TestStrand::test_an_event_on_its_way_to_the_handler_is_not_overlooked",),
    ),
    Mutation(
        "quiet while it refuses",
        STRAND,
        " or self._refusing\n",
        "\n",
        (f"{WINDOWS}::TestStrand::test_a_refusal_that_goes_on_is_not_overlooked",),
    ),
    Mutation(
        "retry that does not suspend",
        STRAND,
        "        self._shut(SUSPENDED)\n",
        "",
        ("tests/test_strand.py::TestGates::test_suspended_goes_on_with_what_it_holds",),
    ),
    Mutation(
        "suspended without a look whether it was closed meanwhile",
        STRAND,
        "        if CLOSED in self._gates:\n            timer.cancel()\n            with self.lock:\n",
        "        if False:\n            timer.cancel()\n            with self.lock:\n",
        (f"{BOOKS}::TestRetryAgainstDispose::test_nothing_is_left_behind",),
    ),
    Mutation(
        "close without the lock",
        STRAND,
        "        with self.lock:  # all of it",
        "        if True:  # all of it",
        (f"{BOOKS}::TestBooks::test_two_disposals_at_once",),
    ),
    Mutation(
        "released before the queue is counted",
        STRAND,
        "                dropped = self._drop(self._take_all())\n                self._terminal = None\n",
        """\
                self.released = True
                dropped = self._drop(self._take_all())
                self._terminal = None
""",
        (f"{BOOKS}::TestBooks::test_dispose_of_a_long_queue_while_the_handler_ends",),
    ),
    Mutation(
        "close wakes nobody who waits for room",
        STRAND,
        "            self.mailbox.wake_waiters()\n            self._release(dropped)\n        finally:\n",
        "            self._release(dropped)\n        finally:\n",
        (
            "tests/test_mailbox.py::TestBlock::test_dispose_wakes_the_publisher",
            f"{SHUTDOWNS}::TestBlock::test_dispose_wakes_them",
            f"{SHUTDOWNS}::TestClose::test_close_wakes_publishers_that_wait",
        ),
    ),
    Mutation(
        "a scheduler that refuses wakes nobody who waits for room",
        STRAND,
        "        self.mailbox.wake_waiters()\n        if self._terminal",
        "        if self._terminal",
        ("tests/test_strand.py::TestRefused", f"{SHUTDOWNS}::TestBlock::test_a_scheduler_that_refuses_wakes_them"),
    ),
    Mutation(
        "interrupted entry does not go back",
        STRAND,
        "            self.mailbox.queue.appendleft(entry)\n",
        "            pass\n",
        ("tests/stress/test_interrupt.py",),
    ),
    Mutation(
        "timers run off the strand",
        "rxbus/strand_scheduler.py",
        "self.strand.enqueue(context, partial(self._invoke, inner, action, state))",
        "self._invoke(inner, action, state)",
        (f"{SERIAL}::TestNoOverlap::test_with_timers",),
    ),
    # -- waits
    Mutation(
        "circles of waits are let in",
        WAITS,
        "        if not _gets_on(wanted, chain):\n            return False\n",
        "",
        (
            "tests/test_strand.py::TestWaits::test_circles_are_refused",
            f"{REENTRANCY}::TestFullCircles::test_a_circle_is_found_for_certain",
        ),
    ),
    Mutation(
        "room wakes nobody",
        MAILBOX,
        "            self.forsaken = False\n            self.wake_waiters()\n",
        "            self.forsaken = False\n",
        (
            "tests/test_mailbox.py::TestBlock::test_publisher_waits_until_there_is_room",
            f"{SHUTDOWNS}::TestBlock::test_room_wakes_them",
        ),
    ),
    Mutation(
        "waits for room without another look",
        MAILBOX,
        "                self.add_waiter(waiter)\n                if len(self.queue) <= self.limit:\n                    break\n",
        "                self.add_waiter(waiter)\n",
        (f"{WINDOWS}::TestRoom::test_nobody_is_left_in_line",),
    ),
    Mutation(
        "who gave up waiting for room still counts as waiting",
        MAILBOX,
        "            self._publishers.pop()\n",
        "            pass\n",
        ("tests/test_mailbox.py::TestGivingUp",),
    ),
    Mutation(
        "who hasn't come to wait yet counts as having given up",
        MAILBOX,
        "        self._publishers.append(None)\n",
        "",
        ("tests/test_mailbox.py::TestGivingUp", f"{WINDOWS}::TestRoom::test_who_waits_is_not_taken_for_who_gave_up"),
    ),
    Mutation(
        "whoever finds out that a loop was closed takes back what was in progress",
        LOOPS,
        """\
        with _lock:
            if self._buried:
                return  # several may find it out at once, and only one takes back what was in progress
            self._buried = True
""",
        """\
        if self._buried:
            return
        self._buried = True
""",
        (f"{WINDOWS}::TestLoops::test_several_find_out_that_a_loop_was_closed",),
    ),
    Mutation(
        "ticket counts without its lock",
        MAILBOX,
        "        with self._lock:\n            if self._open.pop(",
        "        if True:\n            if self._open.pop(",
        (f"{WINDOWS}::TestTickets::test_a_receipt_counts_everybody",),
    ),
    # -- offers
    Mutation(
        "publisher reads the flag before it appends",
        SUBJECT,
        """\
                        try:
                            queue.append(entry)
                        finally:
                            inlet.offered += 1  # as in `Inlet.let_in`
                        strand = inlet.strand
                        act: FollowUp | None = None if strand.scheduled else strand.wake
""",
        """\
                        strand = inlet.strand
                        act: FollowUp | None = None if strand.scheduled else strand.wake
                        try:
                            queue.append(entry)
                        finally:
                            inlet.offered += 1  # as in `Inlet.let_in`
""",
        (f"{WINDOWS}::TestStrand::test_no_item_waits_for_another",),
    ),
    Mutation(
        "DROP_OLDEST does not wake",
        INLET,
        "        if release is None:\n            return None if strand.scheduled else strand.wake\n",
        "        if release is None:\n            return None\n",
        (f"{POOL}::TestSubmissions::test_a_newer_event_takes_the_place_of_an_older_one",),
    ),
    Mutation(
        "several topics offer to one mailbox at once",
        INLET,
        "        with self.strand.lock:\n            return super().offer(entry if len(entry) > 3 else self._mark(entry))\n",
        "        return super().offer(entry if len(entry) > 3 else self._mark(entry))\n",
        (f"{WINDOWS}::TestOffers::test_the_bound_holds_for_several_topics",),
    ),
    Mutation(
        "refused without being counted",
        INLET,
        '            clerk = self.turned_away("failed")\n        capacity',
        "            clerk = self.strand.consumer\n        capacity",
        (f"{BOOKS}::TestBooks::test_letters_of_every_kind",),
    ),
    Mutation(
        "appends outside the lock of the topic",
        SUBJECT,
        "        guard = self._guard\n        try:\n",
        "        guard = threading.RLock()\n        try:\n",
        (f"{ORDER}::TestOneOrder::test_all_subscribers_see_one_order",),
    ),
    Mutation(
        "attaches without the lock of the topic",
        SUBJECT,
        "        with self._guard:\n            self.check_disposed()\n            if self.is_stopped:\n                return False\n",
        "        if True:\n            self.check_disposed()\n            if self.is_stopped:\n                return False\n",
        (f"{WINDOWS}::TestOffers::test_subscriptions_come_and_go_amid_offers",),
    ),
    Mutation(
        "detaches without the lock of the topic",
        SUBJECT,
        "        with self._guard:\n            self._outlets.pop(fed, None)\n",
        "        self._outlets.pop(fed, None)\n",
        (f"{WINDOWS}::TestOffers::test_subscriptions_come_and_go_amid_offers",),
    ),
    Mutation(
        "delivers before the ticket expects it",
        SUBJECT,
        """\
            ticket.expect(expected)
            self._published += 1
            left = offered(self._outlets.values(), entry)
""",
        """\
            self._published += 1
            left = offered(self._outlets.values(), entry)
            ticket.expect(expected)
""",
        (f"{WINDOWS}::TestTickets::test_a_receipt_counts_everybody",),
        hangs=True,
    ),
    Mutation(
        "sealed amid an offer",
        TOPIC,
        "        with self._guard:\n            self._shut = True\n",
        "        self._shut = True\n",
        (f"{WINDOWS}::TestOffers::test_a_close_amid_an_offer",),
    ),
    Mutation(
        "a forgotten topic ends for one after the other",
        TOPIC,
        "        with self._guard:\n            self.is_stopped = self._shut = True\n",
        "        if True:\n            self.is_stopped = self._shut = True\n",
        (f"{FORGET}::TestForget::test_wildcards_agree_on_what_was_accepted",),
    ),
    Mutation(
        "a pattern is attached without the lock of the registry",
        REGISTRY,
        "        with self.lock:\n            if self.sealed:\n",
        "        if True:\n            if self.sealed:\n",
        (
            f"{WINDOWS}::TestForced::test_a_pattern_comes_while_a_topic_is_made",
            f"{WINDOWS}::TestOffers::test_a_pattern_and_a_topic_that_are_made_at_once",
        ),
    ),
    # -- the books
    Mutation(
        "closed before it is detached",
        SUBSCRIPTION,
        """\
        self._host._detach(self)  # first: from here on no inlet feeds the strand
        dropped = self._strand.close()
""",
        """\
        dropped = self._strand.close()
        self._host._detach(self)
""",
        (f"{ACCEPTANCE}::TestPublishAgainstComings::test_dispose_never_loses_the_count",),
    ),
    Mutation(
        "failures counted as drops",
        SUBSCRIPTION,
        'self._count(entry, "failed")',
        'self._count(entry, "dropped")',
        (f"{BOOKS}::TestBooks::test_letters_of_every_kind",),
    ),
    Mutation(
        "ticket settled before the failure is booked",
        SUBSCRIPTION,
        "        self._fail(entry, reason or reason_of(error), error, attempts)\n        with self._strand.lock:\n",
        """\
        self._tell(entry, "failed")
        self._fail(entry, reason or reason_of(error), error, attempts)
        with self._strand.lock:
""",
        (f"{WINDOWS}::TestTickets::test_what_a_receipt_says_is_booked",),
    ),
    Mutation(
        "nobody knows what is being handled",
        SUBSCRIPTION,
        "(event, self, attempt)\n            current_delivery.set(delivery)\n",
        "(event, self, attempt)\n",
        ("tests/test_consumer.py::TestCurrent::test_tells_what_is_being_handled",),
    ),
    # -- failures, and who is told
    Mutation(
        "instruments hear of an event after those who wait for it",
        SUBSCRIPTION,
        """\
        if panel is not None and outcome == "handled" and (event := self._event_of(entry)) is not None:
            panel.handled(event, self, seconds)
        follower.settle(self._strand.mailbox, outcome)
""",
        """\
        follower.settle(self._strand.mailbox, outcome)
        if panel is not None and outcome == "handled" and (event := self._event_of(entry)) is not None:
            panel.handled(event, self, seconds)
""",
        ("tests/test_instrument.py::TestOrder::test_deliver_comes_back_after_the_hooks",),
    ),
    Mutation(
        "an instrument's exit is let through",
        "rxbus/instrument.py",
        "                    except BaseException as error:\n                        self._report(instrument, hook, error)\n",
        "                    except Exception as error:\n                        self._report(instrument, hook, error)\n",
        ("tests/test_instrument.py::TestHarmless::test_one_that_raises",),
    ),
    Mutation(
        "a letter may be replayed by two",
        "rxbus/dead_letters.py",
        "            letter = self._held.pop(number, None)  # claimed: whoever else wants it comes too late\n",
        "            letter = self._held.get(number)\n        with self._guard:\n            self._held.pop(number, None)\n",
        ("tests/stress/test_faults.py::TestReplay",),
    ),
    Mutation(
        "stories are one hop longer than allowed",
        "rxbus/publishing.py",
        "            return event.hops > self._max_hops\n",
        "            return event.hops > self._max_hops + 1\n",
        ("tests/stress/test_faults.py::TestHops",),
    ),
    Mutation(
        "a breaker counts failures that weren't in a row",
        "rxbus/fuse.py",
        "            self._row = self._row + 1 if handled == self._handled else 1\n",
        "            self._row = self._row + 1\n",
        ("tests/test_recovery.py::TestBreaker",),
    ),
    # -- pipelines
    Mutation(
        "a failing handler fails its pipeline",
        CONSUMER,
        "            if self._value_error is None:\n                self._value_error = error\n",
        "            raise\n",
        ("tests/test_consumer.py::TestThrough::test_failing_handler_keeps_the_state_of_the_pipeline",),
    ),
    Mutation(
        "a failed pipeline is not connected again",
        CONSUMER,
        "                self._reconnect()\n",
        "                pass\n",
        (
            "tests/test_chaining.py::TestThrough::test_pipeline_is_rebuilt",
            f"{BOOKS}::TestBooks::test_pipelines_that_fail_or_complete",
        ),
    ),
    Mutation(
        "what another thread emits is not brought back to the strand",
        CONSUMER,
        "            self._strand.enqueue(copy_context(), partial(self._on_value, value))\n",
        "            self._handle_late(value)\n",
        (f"{SERIAL}::TestNoOverlap::test_emissions_of_other_threads",),
    ),
    # -- drain
    Mutation(
        "drain looks once only",
        SHUTDOWN,
        "        if all(second.get(s, count) == count",
        "        if True or all(second.get(s, count) == count",
        (
            f"{WINDOWS}::TestDrain::test_whatever_happens_between_two_looks",
            f"{SHUTDOWNS}::TestDrain::test_a_chain_is_complete_when_drain_returns",
        ),
    ),
    Mutation(
        "drain counts after it looked",
        SHUTDOWN,
        "        if _is_done(subscription, strict=strict):\n            return count\n",
        "        if _is_done(subscription, strict=strict):\n            return offered(subscription)\n",
        (f"{WINDOWS}::TestDrain::test_whatever_happens_between_two_looks", f"{SHUTDOWNS}::TestDrain::test_slow_looks_at_a_slow_chain"),
    ),
    # -- the pool
    Mutation(
        "worker goes idle without another look",
        WORKERS,
        "        if not self._ready and worker.wake.acquire(",
        "        if worker.wake.acquire(",
        (f"{WINDOWS}::TestPool::test_submissions_while_a_worker_falls_asleep",),
    ),
    Mutation(
        "a worker that stood in leaves its work behind",
        WORKERS,
        "            self._call_somebody()  # what it requeued itself",
        "            pass  # what it requeued itself",
        (f"{WINDOWS}::TestPool::test_a_worker_that_stood_in_leaves_no_work_behind",),
    ),
    Mutation(
        "watcher goes idle without another look",
        WORKERS,
        "            self._watched = False\n            if self._ready:\n                self._watched = True\n                continue\n",
        "            self._watched = False\n",
        (
            f"{WINDOWS}::TestForced::test_a_submission_comes_while_the_watcher_goes_idle",
            f"{WINDOWS}::TestPool::test_submissions_while_the_watcher_falls_asleep",
        ),
    ),
    Mutation(
        "requeue from another pool wakes nobody",
        WORKERS,
        "            self.submit(runnable)  # it moved to this pool while it ran on another",
        "            self._ready.append(runnable)",
        (f"{WINDOWS}::TestPool::test_a_box_that_moves_while_it_is_at_work",),
    ),
    Mutation(
        "a worker that waits counts against the bound",
        WORKERS,
        "            room = self._max + self._waiting - present\n",
        "            room = self._max - present\n",
        (f"{POOL}::TestBound::test_waiting_workers_dont_count",),
    ),
    # -- coroutines, requests, results
    Mutation(
        "a run that is cancelled before it began keeps the token",
        ASYNC_STRAND,
        "        if not begun:\n",
        "        if False:\n",
        (f"{COROUTINES}::TestCancellation::test_a_run_that_is_cancelled_before_it_began",),
    ),
    Mutation(
        "a handler's own cancellation hits the next event",
        ASYNC_STRAND,
        "    for _ in range(min(count, task.cancelling())):\n        task.uncancel()\n",
        "    return\n",
        (f"{COROUTINES}::TestCancellation::test_a_handler_that_cancels_itself",),
    ),
    Mutation(
        "a run begins on a loop that is at its end",
        ASYNC_STRAND,
        "        if executor.is_gone:\n",
        "        if False:\n",
        (f"{COROUTINES}::TestEnd::test_a_run_that_was_called_when_the_loop_was_at_its_end",),
    ),
    Mutation(
        "what was begun on a loop that ends is left to it",
        LOOPS,
        "                task.cancel()  # begun after all tasks of the loop were cancelled; a moment is left for them to end in\n",
        "                pass\n",
        (f"{COROUTINES}::TestEnd::test_what_was_begun_when_the_loop_is_at_its_end",),
    ),
    Mutation(
        "a loop that is closed doesn't tell those who wait for it",
        LOOPS,
        "            self._watch = None\n            self._refuse()\n",
        "            self._watch = None\n",
        (f"{COROUTINES}::TestEnd::test_a_loop_that_is_closed_with_events_queued",),
        hangs=True,
    ),
    Mutation(
        "a request is resolved by whoever comes",
        REQUEST,
        "        if not self.forget(pending):\n            return False\n",
        "        self.forget(pending)\n",
        (f"{RACES}::TestRequests::test_replies_race_with_timeouts",),
    ),
    Mutation(
        "a request doesn't count who may still answer under its lock",
        REQUEST,
        "            if self._asked.pop(mailbox, None) is None or self._asked:\n                return\n",
        "            self._asked.pop(mailbox, None)\n",
        ("tests/test_request.py::TestErrors::test_one_of_two_gave_up",),
    ),
    Mutation(
        "a vigil doesn't look again once it is in line",
        INLET,
        "            mailbox.add_waiter(self)\n            if not mailbox.is_over_full():\n                return False\n        virtual",
        "            mailbox.add_waiter(self)\n            return True\n        virtual",
        (f"{RACES}::TestResults::test_nothing_is_lost_however_small_the_mailbox", f"{RACES}::TestResults::test_while_somebody_waits"),
        hangs=True,
    ),
    Mutation(
        "a vigil that is over leaves its wait entered",
        INLET,
        "        _end_waits(gone, patient=True, waiting=self._chain)\n        if stalled is not None:\n",
        "        if stalled is not None:\n",
        ("tests/test_results.py::TestRoom",),
    ),
    Mutation(
        "whoever wakes the line serves those who get in again",
        MAILBOX,
        "        for _ in range(len(waiters)):",
        "        while waiters:",
        (f"{RACES}::TestResults::test_two_that_fill_each_other",),
        hangs=True,
    ),
    Mutation(
        "an event with results out goes to another member",
        SUBSCRIPTION,
        "        return held.is_kept\n",
        "        return False\n",
        ("tests/test_results.py::TestRoom::test_disposed_in_a_group", "tests/test_results.py::TestRoom::test_disposed_while_it_waits"),
    ),
    Mutation(
        "results of several hands come as they are ready",
        MAPPING,
        "            if self._ordered and number != self._turn and not self._disposed:\n",
        "            if False:\n",
        ("tests/test_mapping.py::TestInAChain", f"{RACES}::TestMapAsync::test_each_item_once"),
    ),
)


@dataclass(frozen=True)
class Verdict:
    """What became of one mutation, and through which test."""

    caught: bool
    by: str


class Copy:
    """The package and its tests in a directory of their own."""

    def __init__(self, directory: Path) -> None:
        # two copies, so that somebody may go on working at the original
        self.root, self.unbroken = root, unbroken = directory / "broken", directory / "unbroken"
        ignored = shutil.ignore_patterns("__pycache__")
        for part in ("rxbus", "tests"):
            shutil.copytree(ROOT / part, unbroken / part, ignore=ignored)
        shutil.copy(ROOT / "pyproject.toml", unbroken)
        shutil.copytree(unbroken, root)
        # the path wins over an editable install; no bytecode, because a mutation may leave size and time of a file as they are
        self._environment = os.environ | {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
        found = self._python("-c", "import rxbus; print(rxbus.__file__)").stdout.strip()
        assert Path(found).resolve() == (root / "rxbus" / "__init__.py").resolve(), f"expected the copy in {root}, found {found!r}"

    def mutate(self, mutation: Mutation) -> None:
        """Applies a mutation."""
        (self.root / mutation.file).write_text(mutated(mutation, self.unbroken), encoding="utf-8")

    def restore(self, mutation: Mutation) -> None:
        """Takes it back."""
        shutil.copy(self.unbroken / mutation.file, self.root / mutation.file)

    def run(self, tests: Iterable[str], limit: float, *, long: bool) -> tuple[int | None, str]:
        """The exit code of pytest, ``None`` at the limit (seconds), and what it said."""
        marker = "stress" if long else "not stress"
        try:
            ended = self._python("-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", marker, *tests, limit=limit)
        except subprocess.TimeoutExpired:
            return None, ""
        return ended.returncode, ended.stdout

    def _python(self, *arguments: str, limit: float | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.root, env=self._environment, timeout=limit, check=False, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip


def mutated(mutation: Mutation, root: Path = ROOT) -> str:
    """The text of its file with the mutation.

    Raises: `LookupError` unless its snippet occurs exactly once.
    """
    source = (root / mutation.file).read_text(encoding="utf-8")
    count = source.count(mutation.snippet)
    if count != 1:
        raise LookupError(f"mutation {mutation.name!r}: expected its snippet once in {mutation.file}, found it {count} times")
    return source.replace(mutation.snippet, mutation.replacement)


def try_out(copy: Copy, mutation: Mutation) -> Verdict:
    """Runs the tests of a mutation, first the ordinary ones, then the long ones."""
    began = time.monotonic()
    try:
        copy.mutate(mutation)
        for long in (False, True):
            code, said = copy.run(mutation.tests, LIMIT - (time.monotonic() - began), long=long)
            if code == 1:
                failed = re.search(r"^(?:FAILED|ERROR) \S+::(\S.*?)(?: - |$)", said, re.MULTILINE)
                return Verdict(True, failed.group(1) if failed else "?")
            if code is None:
                # the long run is too long for the limit, so there a hang isn't told from good health
                return Verdict(mutation.hangs and not long, "no end")
            if code not in (0, 5):  # 5: these tests have no long run
                return Verdict(False, f"pytest ended with {code}: {said[-1000:]}")
        return Verdict(False, "all passed")
    except LookupError as error:
        return Verdict(False, str(error))
    finally:
        copy.restore(mutation)


def main(names: list[str]) -> int:
    """Tries the mutations of these names, or all; the exit code."""
    unknown = set(names) - {m.name for m in MUTATIONS}
    if unknown:
        print(f"no such mutations: {', '.join(sorted(unknown))}")
        return 2
    chosen = [m for m in MUTATIONS if not names or m.name in names]
    survived = 0
    with tempfile.TemporaryDirectory(prefix="rxbus-mutations-") as directory:
        copy = Copy(Path(directory))
        tests = sorted({test for m in chosen for test in m.tests})
        code, said = copy.run(tests, SANITY_LIMIT, long=False)
        if code != 0:
            print(f"the unbroken copy fails its tests ({code}):\n{said[-3000:]}")
            return 1
        width = max(len(m.name) for m in chosen)
        for m in chosen:
            began = time.monotonic()
            verdict = try_out(copy, m)
            survived += not verdict.caught
            state = "caught" if verdict.caught else "SURVIVED"
            print(f"{m.name:{width}}  {m.file:25}  {state:8}  {time.monotonic() - began:5.1f} s  {verdict.by}", flush=True)
    print(f"{len(chosen) - survived} of {len(chosen)} mutations were caught")
    return 1 if survived else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

"""Where one topic feeds one mailbox: it offers, applies the overflow policy, and counts.

`offer` is called under the lock of the topic, so one inlet has one caller at a time. A mailbox that several topics feed has
an inlet for each, and those take the strand's lock besides. What an offer leaves to do (wake a strand, report a refusal,
wait for room) comes back as a follow-up and is done after the lock was released, waking before waiting.

What is in the mailbox is counted, and what is turned away is counted twice, as offered and by its outcome, even if Ctrl-C comes into
the middle: the interpreter looks for signals when a call returns, so an append is counted in a ``finally``, and between the two
counts there is no call.

Guarded by the topic's lock: ``offered``. By the strand's: ``failed``, ``dropped``. Written by the strand's run alone: ``handled``.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Protocol, TypeAlias, TypeVar, cast

from .errors import MailboxFullError
from .mailbox import RECHECK, Entry, Mailbox, Overflow
from .outcome import Reason
from .schedulers import Cancellable, Executor, SchedulerExecutor
from .strand import Strand
from .waits import Crew, Waiter, begin_wait, end_wait, here, waits_in_vain
from .workers import waiting

ANY_NUMBER = 1 << 30
OVERFLOW = "overflow"
"""Why an event was dropped: there was no room."""
_log = logging.getLogger("rxbus")
_WHAT_NEXT = {
    Overflow.BLOCK: "when it is full, publishers wait",
    Overflow.DROP_OLDEST: "when it is full, the oldest events are dropped",
    Overflow.DROP_LATEST: "when it is full, new events are dropped",
    Overflow.FAIL: "when it is full, new events become dead letters",
}

T = TypeVar("T")
FollowUp: TypeAlias = Callable[[], "Wait | None"]


class Clerk(Protocol):
    """Who keeps the books of a mailbox."""

    def _refuse(self, entry: Entry, reason: Reason, error: Exception, /) -> None: ...
    def _release(self, entry: Entry, reason: str, /) -> None: ...
    def _count(self, entry: Entry, outcome: str, /) -> None: ...


class Front(Protocol):
    """What an inlet sees of those whom it feeds: a strand, or a group of strands with one mailbox."""

    @property
    def mailbox(self) -> Mailbox:
        """Where events wait."""
        ...

    @property
    def lock(self) -> AbstractContextManager[object]:
        """What guards the books."""
        ...

    @property
    def executor(self) -> Executor | None:
        """Who runs it, if that is one."""
        ...

    @property
    def scheduled(self) -> bool:
        """Whether somebody is going to look at the mailbox anyhow."""
        ...

    @property
    def consumer(self) -> Clerk:
        """Who keeps the books."""
        ...

    @property
    def crew(self) -> Crew | None:
        """Those who have taken events and wait for a hand."""
        ...

    def wake(self) -> None:
        """Sees to it that what came in is taken."""

    def waits_in_vain(self) -> bool:
        """Whether waiting for it would keep from running the only thread that could run it: the calling one."""
        ...

    def strands(self) -> list[Strand]:
        """Who may take from the mailbox."""
        ...

    def finish(self, error: Exception | None, /) -> None:
        """The source ended: after what is queued the consumer is told so."""


class Inlet:
    """The only feed of a mailbox."""

    __slots__ = ("direct", "dropped", "failed", "handled", "mailbox", "name", "offered", "queue", "source", "strand")

    def __init__(self, strand: Front, name: str, *, direct: bool = True) -> None:
        self.direct = direct
        """Its topic is the only one that feeds the mailbox, so under the topic's lock it may do by itself what `offer` begins with."""
        self.strand = strand
        self.name = name
        """Of the subscription, for messages."""
        self.mailbox = strand.mailbox
        self.queue: deque[Entry] = strand.mailbox.queue
        self.source: object = None
        """The topic that feeds it now."""
        self.offered = 0
        self.handled = 0
        self.failed = 0
        self.dropped = 0

    def offer(self, entry: Entry) -> FollowUp | None:
        """Puts the entry before the subscription; returns what is left to do once the topic's lock is released."""
        mailbox = self.mailbox
        if len(self.queue) < mailbox.mark:
            self.let_in(entry)
            strand = self.strand
            return None if strand.scheduled else strand.wake
        return self._beyond_mark(entry) if len(self.queue) < mailbox.limit else self._overflow(entry)

    def let_in(self, entry: Entry) -> None:
        """Appends and counts: both or neither, whenever Ctrl-C comes."""
        queue = self.queue
        try:
            queue.append(entry)
        finally:
            # after the append: `drain` reads the count before it looks whether the mailbox is quiet
            self.offered += 1

    def _beyond_mark(self, entry: Entry) -> FollowUp | None:
        """There is room, but not much."""
        say = self.mailbox.crowd()
        self.let_in(entry)
        if say:
            return partial(_all_of, (self.strand.wake, self._say_crowded))
        return None if self.strand.scheduled else self.strand.wake

    def _say_crowded(self) -> None:
        try:
            _log.warning(
                "subscription %r: its mailbox of %d is over 80 %% full; %s",
                self.name,
                self.mailbox.capacity,
                _WHAT_NEXT[self.mailbox.overflow],
            )
        except BaseException:
            pass  # a log handler that raises is not the publisher's fault

    def refuse(self, entry: Entry, reason: Reason, error: Exception) -> FollowUp:
        """Puts the entry before the subscription only to count it as failed; the follow-up makes the dead letter."""
        with self.strand.lock:
            clerk = self.turned_away("failed")
        return partial(clerk._refuse, entry, reason, error)

    def room(self) -> int:
        """How many entries `offer_many` may be given; under a policy that never waits, any number."""
        if self.mailbox.overflow is not Overflow.BLOCK:
            return ANY_NUMBER
        return self.mailbox.limit - len(self.queue)

    def offer_many(self, entries: list[Entry]) -> FollowUp | None:
        """`offer` of some in a row."""
        queue, count = self.queue, len(entries)
        if len(queue) + count <= self.mailbox.mark:
            try:
                queue.extend(entries)
            finally:
                self.offered += count
            strand = self.strand
            return None if strand.scheduled or not entries else strand.wake
        left = [act for entry in entries if (act := self.offer(entry)) is not None]
        return partial(_all_of, left) if left else None

    def book(self, outcome: str) -> None:
        """Counts what became of one entry."""
        if outcome == "handled":
            self.handled += 1
        elif outcome == "failed":
            self.failed += 1
        else:
            self.dropped += 1

    def clerk(self) -> Clerk:
        """Who answers, now, for what is queued. The strand's lock is held."""
        return self.strand.consumer

    def turned_away(self, outcome: str) -> Clerk:
        """Counts one entry that doesn't get in, and what became of it, and says in whose name. The strand's lock is held."""
        clerk = self.strand.consumer
        if outcome == "failed":
            self.failed += 1
        else:
            self.dropped += 1
        self.offered += 1
        return clerk

    def outstanding(self) -> int:
        """How many of the events that came through it are not settled yet."""
        return self.offered - self.handled - self.failed - self.dropped

    def take_over(self, other: Inlet) -> None:
        """Adds the counts of an inlet that is done for."""
        self.offered += other.offered
        self.handled += other.handled
        self.failed += other.failed
        self.dropped += other.dropped

    def _overflow(self, entry: Entry) -> FollowUp | None:
        strand, mailbox = self.strand, self.mailbox
        policy = mailbox.overflow
        if policy is Overflow.BLOCK and not mailbox.stalled:
            if strand.waits_in_vain():
                if len(self.queue) < mailbox.limit + mailbox.capacity:
                    self.let_in(entry)
                    return strand.wake
            elif mailbox.may_wait() and begin_wait((mailbox,)):
                mailbox.begin_waiting()
                self.let_in(entry)
                return partial(_wake_then_wait, strand)
        elif policy is Overflow.DROP_OLDEST:
            return self._drop_oldest(entry)
        elif policy is Overflow.DROP_LATEST:
            return self._drop_arriving(entry)
        return self._refuse(entry)

    def _drop_arriving(self, entry: Entry) -> FollowUp | None:
        with self.strand.lock:
            clerk = self.turned_away("dropped")
        return None if isinstance(entry[2], float) else partial(clerk._release, entry, OVERFLOW)

    def _drop_oldest(self, entry: Entry) -> FollowUp | None:
        strand = self.strand
        oldest = None if strand.crew is None else strand.crew.take_oldest()
        if oldest is None:
            try:
                oldest = self.queue.popleft()
            except IndexError:
                # the strand was faster; or all that waits is in the middle of its way, and can't be taken back
                if len(self.queue) >= self.mailbox.limit:
                    return self._drop_arriving(entry)
        self.let_in(entry)
        release = None
        if oldest is not None:
            with strand.lock:
                clerk = self.clerk()
                clerk._count(oldest, "dropped")
            release = None if isinstance(oldest[2], float) else partial(clerk._release, oldest, OVERFLOW)
        # between the two the mailbox was empty, perhaps, and the run ended: the one that just came in must wake it
        if release is None:
            return None if strand.scheduled else strand.wake
        return partial(_all_of, (release, strand.wake))

    def _refuse(self, entry: Entry) -> FollowUp:
        with self.strand.lock:
            clerk = self.turned_away("failed")
        capacity = self.mailbox.capacity
        found = len(self.queue) + capacity - self.mailbox.limit
        error = MailboxFullError(
            f"subscription {self.name!r}: expected room in its mailbox of {capacity}, found {found} events",
            self.name,
            capacity,
        )
        refuse = partial(clerk._refuse, entry, Reason.OVERFLOW, error)
        # stalled, nobody waits who would find out that the loop of its handler is gone
        return partial(_all_of, (self.mailbox.look_after_loops, refuse)) if self.mailbox.needs_loops else refuse


class SharedInlet(Inlet):
    """One of several feeds of a mailbox."""

    __slots__ = ()

    def __init__(self, strand: Front, name: str) -> None:
        super().__init__(strand, name, direct=False)

    def _mark(self, entry: Entry) -> Entry:
        """The entry with the inlet that it came through, so that it is booked there whatever its topic's name means by then."""
        return cast("Entry", (*entry, self))

    def room(self) -> int:
        """`Inlet.room`; but what is there now, another topic may take before the offer, so under BLOCK it is one."""
        return min(1, super().room()) if self.mailbox.overflow is Overflow.BLOCK else ANY_NUMBER

    def offer_many(self, entries: list[Entry]) -> FollowUp | None:
        """`Inlet.offer_many`, one topic at a time."""
        with self.strand.lock:
            return super().offer_many([self._mark(entry) for entry in entries])

    def refuse(self, entry: Entry, reason: Reason, error: Exception) -> FollowUp:
        """`Inlet.refuse`, one topic at a time."""
        with self.strand.lock:
            return super().refuse(entry, reason, error)

    def offer(self, entry: Entry) -> FollowUp | None:
        """`Inlet.offer`, one topic at a time."""
        with self.strand.lock:
            return super().offer(entry if len(entry) > 3 else self._mark(entry))


def _all_of(acts: Iterable[FollowUp]) -> Wait | None:
    rooms = [room for act in acts if (wait := act()) is not None for room in wait.rooms]
    return Wait(rooms) if rooms else None


def _wake_then_wait(strand: Front) -> Wait:
    strand.wake()
    return Wait([strand.mailbox])


class Wait:
    """For room in one mailbox after the other."""

    __slots__ = ("rooms",)

    def __init__(self, rooms: list[Mailbox]) -> None:
        self.rooms = rooms

    def __call__(self, latest: float | None) -> None:
        """Waits, until that monotonic time at most."""
        left = deque(self.rooms)
        try:
            while left:
                mailbox = left[0]
                inside = partial(waits_in_vain, (mailbox,)) if here.running is not None else None
                mailbox.wait_for_room(latest, inside)
                _end_waits((left.popleft(),))
        finally:
            while left:  # Ctrl-C
                _end_waits((left.popleft(),))

    async def patiently(self) -> None:
        """Waits without holding the loop that it is called on."""
        left = deque(self.rooms)
        try:
            while left:
                mailbox = left[0]
                inside = partial(waits_in_vain, (mailbox,)) if here.running is not None else None
                await mailbox.wait_for_room_patiently(inside)
                _end_waits((left.popleft(),), patient=True)
        finally:
            _end_waits(left, patient=True)


def _end_waits(rooms: Iterable[Mailbox], *, patient: bool = False, waiting: Sequence[Waiter] | None = None) -> None:
    """Takes back what was entered for these when their publisher was going to wait: with them, and with who waits for whom."""
    for mailbox in rooms:
        mailbox.end_waiting()
    end_wait(rooms, patient=patient, waiting=waiting)


class Vigil:
    """The wait of a suspended event for room in one mailbox after the other; no thread is held.

    It stands in line as a waiter of the mailbox that it waits for, and looks again when it is released or a timer comes due.
    ``_lock`` guards its state; it is released before anything else is called.
    """

    __slots__ = ("_chain", "_executor", "_in_line", "_left", "_lock", "_resume", "_since", "_timer")

    def __init__(self, waits: list[Wait], executor: Executor, chain: list[Waiter]) -> None:
        self._left = deque(room for wait in waits for room in wait.rooms)
        self._executor = executor
        self._chain = chain
        """Who waits; that was entered for each room."""
        self._lock = threading.Lock()
        self._in_line = False
        self._since = self._now()
        """When the wait for the mailbox in front began."""
        self._timer: Cancellable | None = None
        self._resume: Callable[[], None] | None = None
        waits.clear()

    def __call__(self, resume: Callable[[], None]) -> Cancellable:
        """Begins; calls that when there is room, or no hope of it in time."""
        self._resume = resume
        self._look()
        return self

    def cancel(self) -> None:
        """It waits no more."""
        with self._lock:
            timer, self._timer, self._resume = self._timer, None, None
            gone = list(self._left)
            self._left.clear()
        for mailbox in gone[:1]:
            mailbox.leave_line(self)
        if timer is not None:
            timer.cancel()
        _end_waits(gone, patient=True, waiting=self._chain)

    def release(self) -> None:
        """Somebody took something from the mailbox."""
        with self._lock:
            self._in_line = False
        self._look()

    def _now(self) -> float:
        executor = self._executor
        virtual = isinstance(executor, SchedulerExecutor) and executor.virtual
        return executor.now.timestamp() if virtual else executor.monotonic()

    def _look(self) -> None:
        """Goes on as far as it can."""
        for mailbox in list(self._left)[:1]:
            mailbox.look_after_loops()  # without the lock: it may release this one
        gone: list[Mailbox] = []
        with self._lock:
            stalled = self._leave(gone)
            resume = None
            if not self._left:
                resume, self._resume = self._resume, None
                timer, self._timer = self._timer, None
                if timer is not None:
                    timer.cancel()
        _end_waits(gone, patient=True, waiting=self._chain)
        if stalled is not None:
            stalled.wake_waiters()  # one timeout is enough for all of them
        if resume is not None:
            resume()

    def _leave(self, gone: list[Mailbox]) -> Mailbox | None:
        """Notes those for which nobody needs to wait any more; the one among them that stalled just now, if one did. The lock is held."""
        stalled = None
        while self._left:
            mailbox = self._left[0]
            left = self._since + mailbox.block_timeout - self._now()
            if mailbox.is_over_full() and not mailbox.stalled and left > 0 and self._waits_on(mailbox, left):
                break
            if mailbox.is_over_full() and left <= 0 and not mailbox.stalled:
                mailbox.stalled, stalled = True, mailbox
            gone.append(self._left.popleft())
            if self._in_line:
                mailbox.leave_line(self)
            self._since, self._in_line = self._now(), False
        return stalled

    def _waits_on(self, mailbox: Mailbox, left: float) -> bool:
        """Stands in line, with a timer, unless there is room now or it would wait in vain. The lock is held."""
        if waits_in_vain((mailbox,), self._chain):
            return False
        if not self._in_line:
            # as in `Mailbox.wait_for_room`: in line, then `watched`, then one more look
            self._in_line = True
            mailbox.add_waiter(self)
            if not mailbox.is_over_full():
                return False
        virtual = isinstance(self._executor, SchedulerExecutor) and self._executor.virtual
        pause = left if virtual else min(left, RECHECK)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._executor.later(pause, self._look)
        return True


def give_up(waits: list[Wait]) -> None:
    """Ends waits that were put off and will not be made."""
    for wait in waits:
        _end_waits(wait.rooms, patient=True)
    waits.clear()


def follow_up(left_to_do: Iterable[FollowUp], latest: float | None = None) -> None:
    """Does what the offers of one publish left to do: first everything that is quick, then the waits for room."""
    wait = _all_of(left_to_do)
    if wait is not None:
        wait_as_worker(wait, latest)


def wait_as_worker(wait: Wait, latest: float | None) -> None:
    """Waits, or puts that off to the coroutine that publishes; a worker that waits doesn't count against the bound of its pool."""
    if here.patience is not None:
        here.patience.append(wait)
        return
    running = here.running
    if running is not None and running.put_off is not None:
        _become_patient(wait, running.put_off)
        return
    with waiting():
        wait(latest)


def _become_patient(wait: Wait, put_off: list[Wait]) -> None:
    """A wait that was entered as one that holds its thread will hold none."""
    for mailbox in wait.rooms:
        end_wait((mailbox,))  # each was entered by itself
    here.patience = put_off
    rooms: list[Mailbox] = []
    try:
        for mailbox in wait.rooms:
            if begin_wait((mailbox,)):
                rooms.append(mailbox)
            else:
                mailbox.end_waiting()
    finally:
        here.patience = None
    if rooms:
        put_off.append(Wait(rooms))


@contextmanager
def put_off() -> Generator[list[Wait], None, None]:
    """What is published inside doesn't wait for room; the waits are given, for `make_up_for`."""
    waits: list[Wait] = []
    outer, here.patience = here.patience, waits
    try:
        yield waits
    finally:
        here.patience = outer


async def make_up_for(waits: list[Wait]) -> None:
    """Makes waits that were put off; when it is cancelled, those that were not made end too."""
    left = deque(waits)
    try:
        while left:
            await left.popleft().patiently()
    finally:
        give_up(list(left))


async def patiently(publish: Callable[[], T]) -> T:
    """Publishes, and waits for room without holding the loop; the rest is as if it had waited there."""
    with put_off() as waits:
        result = publish()
    await make_up_for(waits)
    return result

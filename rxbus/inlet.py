"""Where one topic feeds one mailbox: it offers, applies the overflow policy, and counts.

`offer` is called under the lock of the topic, so one inlet has one caller at a time. A mailbox that several topics feed has
an inlet for each, and those take the strand's lock besides. What an offer leaves to do (wake a strand, report a refusal,
wait for room) comes back as a follow-up and is done after the lock was released, waking before waiting.

Guarded by the topic's lock: ``offered``. By the strand's: ``failed``, ``dropped``. Written by the strand's run alone: ``handled``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeAlias

from .errors import MailboxFullError
from .mailbox import Entry, Overflow, Ticket
from .outcome import Reason
from .strand import Strand
from .waits import begin_wait, end_wait
from .workers import waiting

ANY_NUMBER = 1 << 30

Wait: TypeAlias = "Callable[[float | None], None]"
"""Waits, until that monotonic time at most."""
FollowUp: TypeAlias = Callable[[], "Wait | None"]


class Inlet:
    """The only feed of a mailbox."""

    __slots__ = ("_capacity", "_queue", "dropped", "failed", "handled", "name", "offered", "previous", "source", "strand")

    def __init__(self, strand: Strand, name: str) -> None:
        self.strand = strand
        self.name = name
        """Of the subscription, for messages."""
        self._queue: deque[Entry] = strand.mailbox.queue
        self._capacity = strand.mailbox.capacity
        self.source: object = None
        """The topic that feeds it now."""
        self.previous: Inlet | None = None
        """That of a forgotten topic of the same name, while it has events to settle."""
        self.offered = 0
        self.handled = 0
        self.failed = 0
        self.dropped = 0

    def offer(self, entry: Entry) -> FollowUp | None:
        """Puts the entry before the subscription; returns what is left to do once the topic's lock is released."""
        if len(self._queue) < self._capacity:
            self._queue.append(entry)
            # after the append: `drain` reads the count before it looks whether the mailbox is quiet
            self.offered += 1
            strand = self.strand
            return None if strand.scheduled else strand.wake
        after = self._overflow(entry)
        self.offered += 1
        return after

    def room(self) -> int:
        """How many entries `offer_many` may be given; under a policy that never waits, any number."""
        if self.strand.mailbox.overflow is not Overflow.BLOCK:
            return ANY_NUMBER
        return self._capacity - len(self._queue)

    def offer_many(self, entries: list[Entry]) -> FollowUp | None:
        """`offer` of some in a row."""
        if len(self._queue) + len(entries) <= self._capacity:
            self._queue.extend(entries)
            self.offered += len(entries)
            strand = self.strand
            return None if strand.scheduled or not entries else strand.wake
        left = [act for entry in entries if (act := self.offer(entry)) is not None]
        return partial(_all_of, left) if left else None

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
        strand, mailbox = self.strand, self.strand.mailbox
        policy = mailbox.overflow
        if policy is Overflow.BLOCK and not mailbox.stalled:
            if strand.waits_in_vain():
                if len(self._queue) < 2 * self._capacity:
                    self._queue.append(entry)
                    return strand.wake
            elif begin_wait((strand,)):
                self._queue.append(entry)
                return partial(_wake_then_wait, strand)
        elif policy is Overflow.DROP_OLDEST:
            return self._drop_oldest(entry)
        elif policy is Overflow.DROP_LATEST:
            with strand.lock:
                self.dropped += 1
            return self._release(entry)
        return self._refuse(entry)

    def _drop_oldest(self, entry: Entry) -> FollowUp | None:
        strand = self.strand
        try:
            oldest = self._queue.popleft()
        except IndexError:
            oldest = None  # the strand was faster
        self._queue.append(entry)
        release = None
        if oldest is not None:
            with strand.lock:
                strand.consumer._count(oldest, "dropped")
            release = self._release(oldest)
        # between the two the mailbox was empty, perhaps, and the run ended: the one that just came in must wake it
        if release is None:
            return None if strand.scheduled else strand.wake
        return partial(_all_of, (release, strand.wake))

    def _release(self, entry: Entry) -> FollowUp | None:
        return partial(self.strand.consumer._release, entry) if isinstance(entry[2], Ticket) else None

    def _refuse(self, entry: Entry) -> FollowUp:
        with self.strand.lock:
            self.failed += 1
        error = MailboxFullError(
            f"subscription {self.name!r}: expected room in its mailbox of {self._capacity}, found {len(self._queue)} events",
            self.name,
            self._capacity,
        )
        return partial(self.strand.consumer._refuse, entry, Reason.OVERFLOW, error)


class SharedInlet(Inlet):
    """One of several feeds of a mailbox."""

    __slots__ = ()

    def room(self) -> int:
        """`Inlet.room`; but what is there now, another topic may take before the offer, so under BLOCK it is one."""
        return min(1, super().room()) if self.strand.mailbox.overflow is Overflow.BLOCK else ANY_NUMBER

    def offer_many(self, entries: list[Entry]) -> FollowUp | None:
        """`Inlet.offer_many`, one topic at a time."""
        with self.strand.lock:
            return super().offer_many(entries)

    def offer(self, entry: Entry) -> FollowUp | None:
        """`Inlet.offer`, one topic at a time."""
        with self.strand.lock:
            return super().offer(entry)


def _all_of(acts: Iterable[FollowUp]) -> Wait | None:
    waits = [wait for act in acts if (wait := act()) is not None]
    return partial(_wait_for_all, waits) if waits else None


def _wait_for_all(waits: list[Wait], latest: float | None) -> None:
    for wait in waits:
        wait(latest)


def _wake_then_wait(strand: Strand) -> Wait:
    strand.wake()
    return partial(_wait_for_room, strand)


def _wait_for_room(strand: Strand, latest: float | None) -> None:
    try:
        strand.mailbox.wait_for_room(latest)
    finally:
        end_wait((strand,))


def follow_up(left_to_do: Iterable[FollowUp], latest: float | None = None) -> None:
    """Does what the offers of one publish left to do: first everything that is quick, then the waits for room."""
    wait = _all_of(left_to_do)
    if wait is not None:
        with waiting():
            wait(latest)

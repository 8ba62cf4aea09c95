"""Competing subscriptions: several strands that take from one mailbox.

Topics feed the group's mailbox as they feed a subscription's, so what a group has queued belongs to all its members; nothing
needs to be moved when one leaves. ``lock`` guards who is a member and who rests. A publisher appends first and looks for a
resting member second; a member that found nothing looks at the queue once more under the lock before it rests. So one of the
two sees the other. A member that was woken and can't work (paused, waiting between two attempts) wakes another in its place.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

from .inlet import Clerk, Inlet, SharedInlet
from .intake import Intake, intake_for
from .mailbox import Entry, Mailbox
from .outcome import Reason
from .schedulers import Cancellable, Executor
from .strand import Consumer, Strand


class Group:
    """One mailbox, and the strands that compete for what it holds. Topics see it as one subscription."""

    executor = None
    scheduled = False
    crew = None
    _boxed = False
    _passive = False

    def __init__(self, name: str, pattern: str, mailbox: Mailbox) -> None:
        self.name = name
        self.pattern = pattern
        self.mailbox = mailbox
        self.lock = threading.RLock()
        self.members: dict[MemberStrand, None] = {}
        self.staying = 0
        """Members whose counters are not past yet."""
        self._last: MemberStrand
        """Who left last."""
        self._resting: OrderedDict[MemberStrand, None] = OrderedDict()
        """Those who have nothing to do, who rests longest first."""
        self._intake: Intake = intake_for(pattern, self, f"group {name!r}", GroupInlet)
        self._inlet: Inlet | None = self._intake.inlet

    @property
    def _strand(self) -> Group:
        return self

    @property
    def consumer(self) -> Group:
        """Who keeps the books: the group, in the name of its steward."""
        return self

    # -- members

    def join(self, strand: MemberStrand) -> None:
        """One more takes part; it is to be woken."""
        with self.lock:
            self.members[strand] = None
            self.staying += 1

    def leave(self, strand: MemberStrand) -> None:
        """It takes part no more. The last one leaves when no topic feeds the group any more."""
        with self.lock:
            if strand in self.members:
                del self.members[strand]
                self._last = strand
                self.mailbox.servers = tuple(server for server in self.mailbox.servers if server is not strand)

    def steward(self) -> MemberStrand:
        """In whose name the group answers for what is queued: the first who could take it."""
        present = list(self.members) or [self._last]
        return next((strand for strand in present if not strand.is_paused), present[0])

    def strands(self) -> list[Strand]:
        """The members."""
        return list(self.members)

    def waits_in_vain(self) -> bool:
        """Whether no member could get on while the calling thread waits."""
        return all(strand.waits_in_vain() for strand in self.strands())

    def finish(self, error: Exception | None) -> None:
        """The source ended: after what is queued each member is told so."""
        for strand in self.strands():
            strand.finish(error)

    # -- whose turn it is

    def wake(self) -> None:
        """Has a resting member look at the mailbox; if nobody rests, somebody is going to look anyhow."""
        with self.lock:
            strand = self._next()
        if strand is not None:
            strand.wake()

    def _next(self) -> MemberStrand | None:
        behind: list[MemberStrand] = []
        found = None
        while self._resting and found is None:
            strand, _ = self._resting.popitem(last=False)
            if strand not in self.members or not strand.is_open:
                continue
            if strand.is_inline and strand.waits_in_vain():
                behind.append(strand)  # it would stand in the line of this very thread, which may be going to wait
            else:
                found = strand
        if found is None and behind:
            found = behind.pop(0)
        for strand in reversed(behind):
            self._resting[strand] = None
            self._resting.move_to_end(strand, last=False)
        if found is not None:
            return found
        # if nobody can be run at all, somebody has to find that out, and to refuse what is queued
        return next(iter(self.members)) if self.members and all(strand.broken for strand in self.members) else None

    def begins(self, strand: MemberStrand) -> int:
        """A member begins to run, for whatever reason, so it doesn't rest; how much is queued."""
        with self.lock:
            self._resting.pop(strand, None)
            return len(self.mailbox.queue)

    def looks_again(self, strand: MemberStrand) -> bool:
        """At the end of a member's run: whether there is more for it to do. Otherwise it rests, or another gets its turn."""
        following = None
        with self.lock:
            if strand.scheduled or strand.is_running:
                return False  # it runs again already, and looks again when that has ended
            if strand.is_open and strand in self.members:
                if self.mailbox.queue:
                    return True
                self._resting[strand] = None
            elif self.mailbox.queue:
                following = self._next()
        if following is not None:
            following.wake()
        return False

    # -- the books of what got in and was taken by nobody, kept in the name of a member

    def _refuse(self, entry: Entry, reason: Reason, error: Exception) -> None:
        self.steward().consumer._refuse(entry, reason, error)

    def _release(self, entry: Entry, reason: str) -> None:
        self.steward().consumer._release(entry, reason)

    def _count(self, entry: Entry, outcome: str) -> None:
        self.steward().consumer._count(entry, outcome)


class GroupInlet(SharedInlet):
    """Where a topic feeds a group."""

    __slots__ = ()

    def turned_away(self, outcome: str) -> Clerk:
        """Counts it for the steward too, who answers for it."""
        steward = self._steward()
        books, clerk = steward.books, steward.consumer
        if outcome == "failed":
            books.failed += 1
            self.failed += 1
        else:
            books.dropped += 1
            self.dropped += 1
        self.offered += 1
        return clerk

    def clerk(self) -> Clerk:
        """The steward of this moment."""
        return self._steward().consumer

    def _steward(self) -> MemberStrand:
        front = self.strand
        assert isinstance(front, Group)
        return front.steward()


class MemberStrand(Strand):
    """The strand of a member."""

    __slots__ = ("books", "broken", "group")

    def __init__(self, group: Group, executor: Executor, consumer: Consumer) -> None:
        super().__init__(group.mailbox, executor, consumer)
        self.group = group
        self.books = Inlet(self, group.name)
        """What became of the events that it took."""
        self.broken = False
        """Its executor refused."""

    @property
    def is_open(self) -> bool:
        """Whether it may take something."""
        return not self._gates and not self.broken

    @property
    def pending(self) -> int:
        """Events in progress, and for the steward those that are queued."""
        mine = self in self.group.members and self.group.steward() is self
        return self.taken + (len(self.mailbox.queue) if mine else 0)

    @property
    def queued(self) -> int:
        """For the steward, what takes room in the group's mailbox."""
        return super().queued if self in self.group.members and self.group.steward() is self else 0

    def run(self) -> None:
        """`Strand.run`; where there is work for several, another one is woken first."""
        queued = self.group.begins(self)
        if queued > 1 or (queued and self._actions):
            self.group.wake()
        super().run()

    def _wants_more(self) -> bool:
        return super()._wants_more() or self.group.looks_again(self)

    def undeliverable(self, error: Exception) -> None:
        """The executor refused: others take what is queued; if nobody can, it is refused."""
        self.broken = True
        with self.lock, self.group.lock:
            last = self._is_last()
            if not last:
                self.mailbox.queue.extendleft(reversed([entry for entry, _ in self._take_taken(error)]))
        if last:
            super().undeliverable(error)
            return
        self._cancel_taken()
        self._book_rest_of_crew()
        if self._actions:
            self._actions.clear()
        self.scheduled = False
        if self._terminal is not None:
            self._terminal = None
            self.consumer._end()
        self.group.wake()
        self._notify()

    def suspend_until(self, held: Any, arrange: Callable[[Callable[[], None]], Cancellable]) -> None:
        """`Strand.suspend_until`; closed meanwhile, it leaves the event to the others."""
        super().suspend_until(held, arrange)
        if self.is_closed and self.mailbox.queue:
            self.group.wake()

    def close(self) -> int | None:
        """`Strand.close`; what the group has queued goes to the others, if there are any."""
        dropped = super().close()
        if self.mailbox.queue:
            self.group.wake()
        return dropped

    def _take_all(self) -> Iterable[Entry]:
        with self.group.lock:  # whoever leaves last comes after this, and drops what is queued
            last = self._is_last()
            if not last:
                self.mailbox.queue.extendleft(reversed([entry for entry, _ in self._take_taken()]))
        if last:
            yield from super()._take_all()

    def give_back(self, entry: Entry) -> bool:
        """The others take it, if there are any."""
        with self.group.lock:
            last = self._is_last()
            if not last:
                self.mailbox.queue.appendleft(entry)
        if not last:
            self.group.wake()
        return not last

    def _take_queue(self) -> Iterable[Entry]:
        return super()._take_queue() if self._is_last() else ()

    def _is_last(self) -> bool:
        """Whether nobody else could take what is queued: all have left, this one included, or nobody can be run."""
        members = list(self.group.members)
        return not members or (self in members and all(strand.broken for strand in members))


class MemberIntake:
    """The books of a member: what it took. The inlets are the group's."""

    __slots__ = ("_group", "_strand")

    inlet = None

    def __init__(self, group: Group, strand: MemberStrand) -> None:
        self._group = group
        self._strand = strand

    def attach(self, topic: str) -> Inlet:
        """The group's."""
        return self._group._intake.attach(topic)

    def forget(self, topic: str) -> None:
        """That is the group's business."""

    def fold(self) -> None:
        """That of the group."""
        self._group._intake.fold()

    def inlets(self) -> list[Inlet]:
        """What it took."""
        return [self._strand.books]

    def by_topic(self) -> Iterable[tuple[str, Inlet]]:
        """Those of the group."""
        return self._group._intake.by_topic()

    def offered(self, pending: int) -> int:
        """How many events were its own: an event is nobody's until a member takes it."""
        books = self._strand.books
        return books.handled + books.failed + books.dropped + pending

    def arrived(self) -> int:
        """How many events came in so far, for all members."""
        return self._group._intake.arrived()

    def book(self, entry: Entry, outcome: str) -> None:
        """Counts what became of an entry, for the member and for the topic."""
        self._strand.books.book(outcome)
        with self._group.lock:
            self._group._intake.book(entry, outcome)

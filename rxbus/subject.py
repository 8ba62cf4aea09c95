"""A `Subject` with a mailbox for each observer.

The subject's ``_guard`` is held to check that it is open, to take the list of observers and to append to their mailboxes, and
never while user code runs or anybody waits. Because one publish holds it for all its appends, all mailboxes get all items
in one order; because attaching takes it too, an observer sees what is published after `subscribe` returned and nothing from
before it was called. (RxPY's own ``lock`` of each observable can't serve: `merge_all`, `with_latest_from` and others call
downstream while they hold the lock of their source.)
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextvars import copy_context
from typing import Any, TypeVar

from reactivex import abc
from reactivex.disposable import Disposable
from reactivex.subject import Subject

from .arguments import describe, positive_int, seconds
from .host import Place
from .inlet import FollowUp, Inlet, follow_up, wait_as_worker
from .intake import Fed
from .mailbox import DEFAULT_BLOCK_TIMEOUT, DEFAULT_CAPACITY, Entry, Mailbox, Overflow, Parcel, Ticket, noted
from .observer import ObserverSubscription
from .outcome import DeadLetter, Reason
from .request import Pending
from .schedulers import Executor, check_scheduler, executor_for, inside_scheduler
from .strand import Strand
from .subscription import Subscription
from .waits import begin_wait, end_wait
from .workers import default_pool

__all__ = ["MailboxSubject"]

T = TypeVar("T")

_NOTHING: list[FollowUp] = []
CHUNK = 256
"""Items that `offer_many` appends before it lets other publishers in."""


def check_overflow(value: object) -> Overflow:
    """The value if it is an `Overflow`.

    Raises: `TypeError` otherwise.
    """
    if isinstance(value, Overflow):
        return value
    raise TypeError(f"overflow must be an Overflow such as Overflow.DROP_OLDEST, got {describe(value)}")


def _subscriptions_of(outlets: Iterable[Fed]) -> list[Subscription]:
    return [fed for fed in outlets if isinstance(fed, Subscription)]


def offered(inlets: Iterable[Inlet], entry: Entry) -> list[FollowUp]:
    """What is left to do after an entry was offered to these; a lock is held.

    It is a function because of CPython 3.12 and 3.13: there the jump from a condition back to the top of its loop isn't covered by the
    ``try`` or ``with`` around it, and Ctrl-C that comes just then would leave with the lock held. Under a lock no loop ends in a condition.
    """
    return [act for inlet in inlets if (act := inlet.offer(entry)) is not None]


def _offered_many(inlets: Iterable[Inlet], entries: list[Entry]) -> list[FollowUp]:
    return [act for inlet in inlets if (act := inlet.offer_many(entries)) is not None]


def let_go(guard: Any) -> None:
    """Releases a lock if the calling thread got as far as to have it."""
    if guard._is_owned():
        guard.release()


class MailboxSubject(Subject[T]):
    """A `Subject` whose observers each have a bounded mailbox and run on a scheduler, one item at a time.

    ``scheduler`` is any RxPY scheduler or `WorkerPool` (a shared pool unless told); ``scheduler=`` of `subscribe` wins for
    that observer. ``capacity`` is in items, ``block_timeout`` in seconds. Errors, completion, disposal and late subscription
    are as RxPY has them, after what is queued. Two things differ from a `Subject`, with an ``ImmediateScheduler`` too: items
    published while one is delivered keep their order for everybody, and an observer that raises harms nobody (it is logged).

    Raises: `TypeError` or `ValueError` naming the argument.
    """

    def __init__(
        self,
        *,
        scheduler: abc.SchedulerBase | None = None,
        capacity: int = DEFAULT_CAPACITY,
        overflow: Overflow = Overflow.BLOCK,
        block_timeout: float = DEFAULT_BLOCK_TIMEOUT,
    ) -> None:
        self._guard = threading.RLock()
        super().__init__()
        self._outlets: dict[Fed, Inlet] = {}
        checked = check_scheduler(scheduler)
        self._executor: Executor | None = None if checked is None else executor_for(checked, nested=True)
        self._capacity = positive_int("capacity", capacity)
        self._overflow = check_overflow(overflow)
        self._block_timeout = seconds("block_timeout", block_timeout)
        self._published: int = 0
        self._shut = False
        """Ended, or not open to everybody: a publisher must ask `_refuse`."""

    @property
    def observers(self) -> list[abc.ObserverBase[T]]:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride] - a list attribute in RxPY
        """The observers, in the order of their subscription."""
        with self._guard:
            outlets = list(self._outlets)
        return [s._observer for s in outlets if isinstance(s, ObserverSubscription)]

    @observers.setter
    def observers(self, value: list[abc.ObserverBase[T]]) -> None:  # pyright: ignore[reportIncompatibleVariableOverride] - RxPY assigns an empty list
        pass

    # -- as an observable

    def _subscribe_core(self, observer: abc.ObserverBase[T], scheduler: abc.SchedulerBase | None = None) -> abc.DisposableBase:
        given = check_scheduler(scheduler)
        executor = self._executor if given is None else executor_for(given, nested=True)
        mailbox = Mailbox(self._capacity, self._overflow, self._block_timeout)
        place = Place("observer", "subject", self, mailbox, executor or default_pool())
        subscription = ObserverSubscription(place, observer, envelopes=False)
        with self._guard:
            attached = self._attach(subscription, subscription._intake.attach("subject"))
            error = self.exception
        if attached:
            return subscription
        if error is not None:
            observer.on_error(error)
        else:
            observer.on_completed()
        return Disposable()

    # -- as an observer

    def on_next(self, value: T) -> None:
        """Puts the value before every observer of this moment; ignored after the end.

        Raises: `DisposedException` after `dispose`.
        """
        self._offer((value, copy_context(), self._now()))

    def on_error(self, error: Exception) -> None:
        """Ends the sequence: every observer is told after what it has queued.

        Raises: `DisposedException` after `dispose`.
        """
        self._finish(error)

    def on_completed(self) -> None:
        """Ends the sequence: every observer is told after what it has queued.

        Raises: `DisposedException` after `dispose`.
        """
        self._finish(None)

    def fail(self, exn: Exception) -> bool:
        """`on_error`, unless the sequence has ended; whether it had not."""
        if self.is_stopped:
            return False
        self._finish(exn)
        return True

    def dispose(self) -> None:
        """Unsubscribes all observers; what they had queued is dropped.

        Called by an observer that runs inline, it lets the item that is going round reach the others, as a `Subject` does.
        """
        with self._guard:
            self.is_disposed = self.is_stopped = self._shut = True
            self.exception = None
            outlets, self._outlets = self._outlets, {}
        inline = inside_scheduler()
        for subscription in _subscriptions_of(outlets):
            if inline and subscription._strand.is_inline:
                subscription._strand.finish_silently()
            else:
                subscription.dispose()

    # -- mechanism

    def _attach(self, fed: Fed, inlet: Inlet) -> bool:
        """Adds an outlet; False after the end."""
        with self._guard:
            self.check_disposed()
            if self.is_stopped:
                return False
            self._outlets[fed] = inlet
            inlet.source = self
            return True

    def _detach(self, fed: Fed) -> None:
        with self._guard:
            self._outlets.pop(fed, None)

    def _refuse(self) -> bool:
        """Whether to ignore an item, now that the subject is shut; raises if it must not be ignored. The lock is held."""
        self.check_disposed()
        return True

    def _offer(self, entry: Entry) -> None:
        left: list[FollowUp] = _NOTHING
        guard = self._guard
        try:
            guard.acquire()  # `with` costs twice as much; Ctrl-C may come right after this call, hence within the `try`
            if not self._shut or not self._refuse():
                self._published += 1
                for inlet in self._outlets.values():
                    queue = inlet.queue
                    if inlet.direct and len(queue) < inlet.mailbox.mark:
                        # `Inlet.offer`, without its call: this is the way of nearly every event
                        try:
                            queue.append(entry)
                        finally:
                            inlet.offered += 1  # as in `Inlet.let_in`
                        strand = inlet.strand
                        act: FollowUp | None = None if strand.scheduled else strand.wake
                    else:
                        act = inlet.offer(entry)
                    if act is not None:
                        if left is _NOTHING:
                            left = [act]
                        else:
                            left.append(act)
                    act = None  # a loop that ended in its `if` would jump back unguarded: see `offered`
        except BaseException:
            let_go(guard)
            raise
        guard.release()
        if left:
            if len(left) == 1:
                wait = left[0]()  # `follow_up`, without its call
                if wait is not None:
                    wait_as_worker(wait, None)
            else:
                follow_up(left)

    def _offer_watched(self, entry: Entry) -> None:
        """`_offer`, told to instruments."""
        told = noted(entry)
        with self._guard:
            if self._shut and self._refuse():
                return
            self._published += 1
            left = offered(self._outlets.values(), told)
            outlets = list(self._outlets)
        self._announce_and_go_on((told,), outlets, left)

    def _offer_to(self, fed: Fed, entry: Entry) -> bool:
        """`_offer` to one alone; False, and nothing happened, if it isn't fed from here (any more)."""
        with self._guard:
            inlet = self._outlets.get(fed)
            if inlet is None or self.is_stopped:
                return False
            act = inlet.offer(entry)
        self._announce_and_go_on((entry,), (fed,), [] if act is None else [act], anew=False)
        return True

    def _offer_in_vain(self, entry: Entry, reason: Reason, error: Exception, ticket: Ticket | Pending | None = None) -> None:
        """`_offer` of what must not be handled: a dead letter for every observer of this moment."""
        with self._guard:
            if self._shut and self._refuse():
                return
            self._published += 1
            if ticket is not None:
                ticket.expect({inlet.mailbox: inlet.name for inlet in self._outlets.values()})
            left: list[FollowUp] = [inlet.refuse(entry, reason, error) for inlet in self._outlets.values()]
            outlets = list(self._outlets)
        self._announce_and_go_on((entry,), outlets, left)

    def _offer_ticket(self, entry: Entry, ticket: Ticket, latest: float | None) -> list[Parcel] | None:
        """`_offer` for somebody who will wait until all have settled it; ``None``, and nothing done, if he'd wait for himself."""
        with self._guard:
            if self._shut:
                self._refuse()
            expected = {inlet.mailbox: inlet.name for inlet in self._outlets.values()}
            targets = [Parcel(mailbox, ticket) for mailbox in expected]
            if not begin_wait(targets):
                return None
            ticket.expect(expected)
            self._published += 1
            left = offered(self._outlets.values(), entry)
            outlets = list(self._outlets)
        try:
            self._announce_and_go_on((entry,), outlets, left, latest)
        except BaseException:
            end_wait(targets)  # Ctrl-C: the caller will not come to it
            raise
        return targets

    def _offer_chunks(self, entries: list[Entry], start: int = 0) -> Iterator[int]:
        """`_offer` of all from that one on, in a row but for waits: other publishers may come between two chunks.

        Step by step: each chunk tells how many have gone out, and whoever waits for room in a way of his own does so after each.
        """
        while True:
            with self._guard:
                if self._shut and self._refuse():
                    return
                outlets, inlets = list(self._outlets), list(self._outlets.values())
                # as many as have room everywhere: then no mailbox gets more beyond its bound than one event
                room = max(1, min((inlet.room() for inlet in inlets), default=CHUNK))
                chunk = entries[start : start + min(CHUNK, room)]
                start += len(chunk)
                self._published += len(chunk)
                left = _offered_many(inlets, chunk)
            self._announce_and_go_on(chunk, outlets, left)
            yield start
            if start >= len(entries):
                return

    def _announce_and_go_on(
        self, entries: Iterable[Entry], outlets: Iterable[Fed], left: list[FollowUp], latest: float | None = None, *, anew: bool = True
    ) -> None:
        try:
            self._announce(entries, outlets, anew=anew)
        finally:
            follow_up(left, latest)

    def _announce(self, entries: Iterable[Entry], outlets: Iterable[Fed], *, anew: bool = True) -> None:
        """These are in the mailboxes of those, whom nobody has woken yet. Nobody wants to know."""

    def _finish(self, error: Exception | None) -> None:
        with self._guard:
            self.check_disposed()
            if self.is_stopped:
                return
            self.is_stopped = self._shut = True
            self.exception = error
            outlets, self._outlets = self._outlets, {}
        for fed in outlets:
            fed._strand.finish(error)

    def _strands(self) -> list[list[Strand]]:
        """For each outlet, those who take from its mailbox."""
        with self._guard:
            return [fed._strand.strands() for fed in self._outlets]

    def _subscriptions(self) -> list[Subscription]:
        with self._guard:
            return _subscriptions_of(self._outlets)

    # -- as the host of its subscriptions, when no bus is

    _panel = None
    """Instruments watch a bus."""

    @property
    def _is_virtual(self) -> bool:
        return False

    def _now(self) -> float:
        return time.time()

    def _add_letter(self, letter: DeadLetter) -> None:
        """Without a bus a failure is logged, no more."""

    def _retire(self, subscription: Subscription) -> None:
        """Nobody keeps the books of a subject that stands alone."""

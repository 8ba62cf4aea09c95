"""Who runs on this thread, and who waits for whom.

A handler may wait inside an rxbus call: for room in a mailbox, or for an event to settle. Under ``_lock`` each wait is entered
before it begins, and refused if it could never end. Every new wait is checked against all older ones, so no circle ever forms.

What is waited for is room in a mailbox, or one delivered event. A mailbox gets on when one of those who take from it does, an event
that somebody has in hand when that one does. One who runs a single handler gets on when all that the handler waits for gets on;
one who runs several at a time, when one of them does (all of them, where the order of keys could make an event wait for a
particular one). What could get on when a wait began may be gone later (a member leaves its group), so those who wait in a
handler look again from time to time.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from .schedulers import Executor, SchedulerExecutor, standing_in_line


class Awaited(Protocol):
    """What is waited for."""

    def needs(self) -> tuple[Sequence[Waiter], bool]:
        """On whom it depends, and whether it needs all of them; one will do otherwise."""
        ...


class Crew(Protocol):
    """Those who run the handlers of one waiter that handles several events at a time."""

    @property
    def executor(self) -> Executor:
        """What runs them; it may be another one than the waiter's."""
        ...

    @property
    def members(self) -> Sequence[Waiter]:
        """Those that there are."""
        ...

    @property
    def has_spare(self) -> bool:
        """Whether one more could be added."""
        ...

    @property
    def is_ordered(self) -> bool:
        """Whether an event may have to wait for a particular one of them."""
        ...

    @property
    def open(self) -> int:
        """Events that left the waiter's own hands and aren't settled."""
        ...

    @property
    def calls(self) -> int:
        """Handler calls that haven't ended, or wait for one of them."""
        ...

    @property
    def is_running(self) -> bool:
        """Whether one of them is in a handler."""
        ...

    def holders(self, follower: object) -> list[Waiter]:
        """Those who have in hand what that one follows."""
        ...

    def try_one(self) -> bool:
        """Has one waiting call made, and those of the same event, though the waiter is held back; False if none waits."""
        ...

    def kick(self) -> None:
        """Has go on what waits for nothing any more."""

    def take_oldest(self) -> Any:
        """The entry that waits longest for one of them, taken back; ``None`` if none can be."""
        ...

    def take_waiting(self, error: Exception | None) -> Iterable[tuple[Any, int]]:
        """All entries that wait for one of them, taken back, because of an error or of the end; each with how often the handler
        was begun with it. The waiter's lock is held.
        """
        ...

    def book_rest(self) -> None:
        """After `take_waiting`, without the lock: books those that had begun already."""


class Waiter:
    """What may run handlers, and take part in waits."""

    __slots__ = ("crew", "executor", "outer", "put_off", "waiting_for")

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self.outer: Waiter | None = None
        """Who was running on the thread when this run began inside it."""
        self.waiting_for: tuple[Awaited, ...] = ()
        self.crew: Crew | None = None
        self.put_off: list[Any] | None = None
        """Where its run puts the waits that will be made without a thread, while a result is being published."""

    def executors(self) -> tuple[Executor, ...]:
        """All of those that it needs to get on: its own, and that of its crew."""
        return (self.executor,) if self.crew is None else (self.executor, self.crew.executor)

    def loops(self) -> list[Any]:
        """The executors among them that are event loops: one may be closed without a word."""
        return [one for one in self.executors() if hasattr(one, "check")]

    def look_after_loops(self) -> None:
        """Finds out whether one of those was; then what waits for it is refused."""
        for loop in self.loops():
            loop.check()

    def holders(self, follower: object) -> list[Waiter]:
        """Who of it and its crew has in hand what that one follows."""
        return [] if self.crew is None else self.crew.holders(follower)


class Rooms(list[Any]):
    """Waits for room that an event in progress will make when its handler has returned: no thread is held by them."""


class _Here(threading.local):
    def __init__(self) -> None:
        self.rooms = Rooms()
        """For the handler that publishes a result on this thread; empty otherwise."""

    running: Waiter | None = None
    depth = 0
    """Waits that this thread is in, nested."""
    patience: list[Any] | None = None
    """Where waits for room are put off to, by a coroutine that will await them; what it offers to its own loop may wait too."""


here = _Here()
_lock = threading.Lock()
_threads: dict[int, int] = {}
"""By the id of a scheduler, how many of its threads wait inside a handler."""


def _begin_anew() -> None:
    """In the child of a fork: who waited there isn't here."""
    global _lock
    _lock = threading.Lock()
    _threads.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


def running_chain() -> list[Waiter]:
    """Whose runs call the calling code, on this very thread, the innermost first."""
    chain: list[Waiter] = []
    waiter = here.running
    while waiter is not None:
        chain.append(waiter)
        waiter = waiter.outer
    return chain


def _held_up() -> list[Waiter]:
    """Who can't get on while the calling thread waits: whose runs call it, and who stands in its line."""
    chain = running_chain()
    if chain:
        chain += [one for one in standing_in_line() if isinstance(one, Waiter)]
    return chain


def begin_wait(targets: Iterable[Awaited]) -> bool:
    """Enters that the calling handler is going to wait for these; False, and nothing entered, if that could never end, or if
    it would leave a scheduler that has to run one of them without a thread.

    Outside of a handler it is always true: nobody waits for a caller that runs nothing.
    """
    if here.running is None:
        return True
    chain = _held_up()
    wanted = tuple(targets)
    with _lock:
        if here.patience is None and any(map(_needs_this_thread, wanted)):
            return False
        if not _gets_on(wanted, chain):
            return False
        for waiter in chain:
            waiter.waiting_for += wanted
        if here.patience is None:
            here.depth += 1
            if here.depth == 1:
                _count_thread(1)
    return True


def _needs_this_thread(target: Awaited) -> bool:
    """Whether nobody it depends on could run any more if this thread waited."""
    needed, _ = target.needs()
    return bool(needed) and all(any(map(_is_last_thread_of, one.executors())) for one in needed)


def waits_in_vain(targets: Iterable[Awaited], waiting: Sequence[Waiter] | None = None) -> bool:
    """Whether the wait that the calling handler is in, or that those are in, can't end any more."""
    chain = _held_up() if waiting is None else waiting
    with _lock:
        return bool(chain) and not _gets_on(tuple(targets), chain)


def _without(targets: Iterable[Awaited], gone: Iterable[Awaited]) -> tuple[Awaited, ...]:
    """The first without one of each of the others."""
    left = list(targets)
    for target in gone:
        if target in left:
            left.remove(target)
    return tuple(left)


def end_wait(targets: Iterable[Awaited], *, patient: bool = False, waiting: Sequence[Waiter] | None = None) -> None:
    """Takes back what `begin_wait` entered, for the calling handler or for those; patient ones kept no thread from anything."""
    chain = _held_up() if waiting is None else waiting
    if not chain:
        return
    gone = list(targets)
    with _lock:
        for waiter in chain:
            waiter.waiting_for = _without(waiter.waiting_for, gone)
        if not patient:
            here.depth -= 1
            if here.depth == 0:
                _count_thread(-1)


def let_go(waiter: Waiter) -> None:
    """It will never go on with what it waits for."""
    with _lock:
        waiter.waiting_for = ()


def _gets_on(wanted: Iterable[Awaited], stuck: Iterable[Waiter]) -> bool:
    """Whether all these would get on if those who are stuck did nothing more. The lock is held.

    First all who matter are collected; then those who get on are found, beginning with who waits for nothing, until no more
    are found. What is left waits, in the end, for somebody who is stuck.
    """
    unknown: dict[Waiter, None] = {}
    stack = [one for target in wanted for one in target.needs()[0]]
    while stack:
        waiter = stack.pop()
        if waiter not in unknown:
            unknown[waiter] = None
            stack.extend(one for target in waiter.waiting_for for one in target.needs()[0])
            if waiter.crew is not None:
                stack.extend(waiter.crew.members)
    for waiter in stuck:
        unknown.pop(waiter, None)
    free: set[Waiter] = set()
    while found := [waiter for waiter in unknown if _is_free(waiter, free)]:
        for waiter in found:
            free.add(waiter)
            del unknown[waiter]
    return all(_is_served(target, free) for target in wanted)


def _is_served(target: Awaited, free: set[Waiter]) -> bool:
    needed, every = target.needs()
    return not needed or (all if every else any)(one in free for one in needed)


def _is_free(waiter: Waiter, free: set[Waiter]) -> bool:
    if not all(_is_served(target, free) for target in waiter.waiting_for):
        return False
    crew = waiter.crew
    if crew is None:
        return True
    if crew.is_ordered:
        return all(member in free for member in crew.members)
    return crew.has_spare or any(member in free for member in crew.members)


def _is_last_thread_of(executor: Executor) -> bool:
    """Whether the calling handler runs on the last thread of that scheduler that doesn't wait yet. The lock is held."""
    running = here.running
    if not isinstance(executor, SchedulerExecutor) or executor.threads is None or here.depth or running is None:
        return False
    if getattr(running.executor, "scheduler", None) is not executor.scheduler:
        return False
    return _threads.get(id(executor.scheduler), 0) + 1 >= executor.threads


def _count_thread(change: int) -> None:
    """Books waits of the calling handler's thread with its scheduler. The lock is held."""
    running = here.running
    scheduler = None if running is None else getattr(running.executor, "scheduler", None)
    if scheduler is not None:
        count = _threads.get(id(scheduler), 0) + change
        if count > 0:
            _threads[id(scheduler)] = count
        else:
            _threads.pop(id(scheduler), None)

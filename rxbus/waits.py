"""Who runs on this thread, and who waits for whom.

A handler may wait inside an rxbus call: for room in a mailbox, or for an event to settle. Under ``_lock`` each wait is entered
before it begins, and refused if it would close a circle. Every new edge is checked against all older ones, so none ever forms.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from .schedulers import Executor, SchedulerExecutor


class Waiter:
    """What may run handlers, and be waited for."""

    __slots__ = ("executor", "outer", "waiting_for")

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self.outer: Waiter | None = None
        """Who was running on the thread when this run began inside it."""
        self.waiting_for: tuple[Waiter, ...] = ()


class _Here(threading.local):
    running: Waiter | None = None
    depth = 0
    """Waits that this thread is in, nested."""


here = _Here()
_lock = threading.Lock()
_threads: dict[int, int] = {}
"""By the id of a scheduler, how many of its threads wait inside a handler."""


def running_chain() -> list[Waiter]:
    """Whose runs call the calling code, on this very thread, the innermost first."""
    chain: list[Waiter] = []
    waiter = here.running
    while waiter is not None:
        chain.append(waiter)
        waiter = waiter.outer
    return chain


def begin_wait(targets: Iterable[Waiter]) -> bool:
    """Enters that the calling handler is going to wait for these; False, and nothing entered, if that closes a circle, or if
    it would leave a scheduler that has to run one of them without a thread.

    Outside of a handler it is always true: nobody waits for a caller that runs nothing.
    """
    if here.running is None:
        return True
    chain = running_chain()
    wanted = tuple(targets)
    with _lock:
        if any(_is_last_thread_of(target.executor) for target in wanted):
            return False
        seen: set[Waiter] = set()
        stack = list(wanted)
        while stack:
            waiter = stack.pop()
            if waiter in chain:
                return False
            if waiter not in seen:
                seen.add(waiter)
                stack.extend(waiter.waiting_for)
        for waiter in chain:
            waiter.waiting_for += wanted
        here.depth += 1
        if here.depth == 1:
            _count_thread(1)
    return True


def end_wait(targets: Iterable[Waiter]) -> None:
    """Takes back what `begin_wait` entered."""
    chain = running_chain()
    if not chain:
        return
    gone = list(targets)
    with _lock:
        for waiter in chain:
            left = list(waiter.waiting_for)
            for target in gone:
                if target in left:
                    left.remove(target)
            waiter.waiting_for = tuple(left)
        here.depth -= 1
        if here.depth == 0:
            _count_thread(-1)


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

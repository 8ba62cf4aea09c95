"""A bounded queue in front of one consumer, and what happens when it is full.

Any number of publishers append, one strand takes. The queue itself is a deque, whose single operations are atomic; the
policies that need more than one (look, then append) run under a lock of the caller: the topic's, or the strand's where
several topics feed one mailbox. Waiting for room holds no lock.

Under `Overflow.BLOCK` a mailbox may hold its capacity, and one event more for each publisher that waits. Whoever gives up the wait
(is cancelled, or has no more time) leaves his event there. When there are as many of those as the capacity, beyond it, nobody else is
let in to wait: the event is refused. So publishers that come and give up, one after the other, fill it up to twice its capacity.
"""

from __future__ import annotations

import asyncio
import enum
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import Context
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from .alarm import Alarm
from .event import Event
from .outcome import Receipt

if TYPE_CHECKING:
    from .schedulers import Executor
    from .waits import Waiter

__all__ = ["Overflow"]

DEFAULT_CAPACITY = 65_536
DEFAULT_BLOCK_TIMEOUT = 30.0
CROWDED = 0.8
"""The share of its capacity beyond which a mailbox is said to be nearly full."""
RELAXED = 0.5
"""The share of its capacity at which that is over."""
RECHECK = 0.2
"""Seconds after which one who waits in a handler looks again whether that can still end."""
SAID_EVERY = 10.0
"""Seconds between two warnings of one mailbox; a small one may be filled by every event."""


class Overflow(enum.Enum):
    """What a full mailbox does with one event more."""

    BLOCK = "block"
    """It enters, and the publisher waits until there is room again; after ``block_timeout`` the subscription is stalled."""
    DROP_OLDEST = "drop_oldest"
    """It enters, and the event that waited longest is dropped."""
    DROP_LATEST = "drop_latest"
    """It is dropped."""
    FAIL = "fail"
    """It is refused and becomes a dead letter with `MailboxFullError`."""


class Ticket:
    """Follows one delivered event through all its subscriptions. ``_lock`` guards the counts."""

    __slots__ = ("_callback", "_counts", "_done", "_lock", "_open", "stamp")

    def __init__(self, stamp: float) -> None:
        self.stamp = stamp
        self._lock = threading.Lock()
        self._done = Alarm()
        self._callback: Callable[[], None] | None = None
        self._open: dict[Mailbox, str] = {}
        self._counts = {"handled": 0, "failed": 0, "dropped": 0}

    def expect(self, targets: dict[Mailbox, str]) -> None:
        """The mailboxes that will get the event, with their names; called before the first of them has it."""
        self._open = targets
        if not targets:
            self._done.ring()

    def settle(self, mailbox: Mailbox, outcome: str) -> None:
        """Counts one subscription's outcome; the last one ends the wait."""
        with self._lock:
            if self._open.pop(mailbox, None) is None:
                return
            self._counts[outcome] += 1
            if self._open:
                return
            callback = self._callback
        self._done.ring()
        if callback is not None:
            callback()

    async def settled_within(self, timeout: float) -> bool:
        """`wait` of a coroutine."""
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        with self._lock:
            if not self._open:
                return True
            self._callback = Awakening(loop, done).release
        await asyncio.wait([done], timeout=timeout)
        return not self._open

    def wait(self, timeout: float | None) -> bool:
        """Whether all had settled within that many seconds; one thread waits, and once that was so it waits no more."""
        return self._done.wait(timeout)

    def unsettled(self) -> dict[str, int]:
        """The names of the subscriptions that still have it."""
        with self._lock:
            return dict.fromkeys(self._open.values(), 1)

    def receipt(self, event: Event[Any]) -> Receipt:
        """What became of it so far."""
        with self._lock:
            return Receipt(event, **self._counts)


class Follower(Protocol):
    """What follows an entry, and knows when it was offered."""

    stamp: float

    def settle(self, mailbox: Mailbox, outcome: str, /) -> None:
        """What became of it, with whom."""
        ...


Entry: TypeAlias = tuple[Any, Context, float | Follower]
"""The value, the context of its publisher, and when it was offered (or what follows it, which knows)."""


class Noted:
    """Follows an entry so that instruments are told what becomes of it; when it was offered is all that it knows."""

    __slots__ = ("stamp",)

    def __init__(self, stamp: float) -> None:
        self.stamp = stamp

    def settle(self, mailbox: Mailbox, outcome: str) -> None:
        """Nobody waits for it."""


def noted(entry: Entry) -> Entry:
    """The entry with a follower, if it has none: subscriptions tell of those only."""
    return (entry[0], entry[1], Noted(entry[2])) if isinstance(entry[2], float) else entry


class Parcel:
    """One delivered event in front of one mailbox, as something to wait for."""

    __slots__ = ("_mailbox", "_ticket")

    def __init__(self, mailbox: Mailbox, ticket: Follower) -> None:
        self._mailbox = mailbox
        self._ticket = ticket

    def needs(self) -> tuple[Sequence[Waiter], bool]:
        """Who has it in hand; as long as nobody has, one of those who take from the mailbox."""
        holders = [one for server in self._mailbox.servers for one in server.holders(self._ticket)]
        return (holders, True) if holders else (self._mailbox.servers, False)

    def look_after_loops(self) -> None:
        """`Mailbox.look_after_loops`."""
        self._mailbox.look_after_loops()

    @property
    def needs_loops(self) -> bool:
        """Whether event loops run some of those who take from the mailbox."""
        return self._mailbox.needs_loops


class _Waiter(Protocol):
    """Who waits for room: a lock, or what wakes a coroutine."""

    def release(self) -> None:
        """Ends the wait."""


class Awakening:
    """Ends the wait of a coroutine, from any thread."""

    __slots__ = ("_future", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> None:
        self._loop = loop
        self._future = future

    def release(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._end)
        except RuntimeError:
            pass  # its loop is closed: nobody waits any more

    def _end(self) -> None:
        if not self._future.done():
            self._future.set_result(None)


class Mailbox:
    """The queue, its bound, and the publishers that wait for room."""

    __slots__ = (
        "_publishers",
        "_said",
        "_waiters",
        "block_timeout",
        "capacity",
        "crowded",
        "forsaken",
        "limit",
        "mark",
        "overflow",
        "queue",
        "servers",
        "stalled",
        "watched",
    )

    def __init__(self, capacity: int, overflow: Overflow, block_timeout: float) -> None:
        self.queue: deque[Entry] = deque()
        self.capacity = capacity
        self.limit = capacity
        """How many the queue itself may hold now: less than ``capacity`` while some were taken and still wait."""
        self.mark = int(capacity * CROWDED)
        """Up to this many an entry is let in without a closer look; never more than ``limit``."""
        self.crowded = False
        """It has been beyond 80 % since it was last half empty."""
        self._said = 0.0
        self.servers: tuple[Waiter, ...] = ()
        """Who takes from it."""
        self.overflow = overflow
        self.block_timeout = block_timeout
        self.stalled = False
        self.watched = False
        """Whether a take must be told to `taken`: somebody waits for room, or the mailbox counts as stalled or as crowded."""
        self.forsaken = False
        """Somebody stopped waiting for room, and since then there was none."""
        self._waiters: list[_Waiter] = []
        self._publishers: list[None] | None = None
        """One item for each publisher that waits for room, in line already or not yet; appending and popping are atomic."""

    def needs(self) -> tuple[Sequence[Waiter], bool]:
        """Who makes room: one of those who take from it."""
        return self.servers, False

    @property
    def needs_loops(self) -> bool:
        """Whether event loops run some of those who take from it."""
        return any(server.loops() for server in self.servers)

    def look_after_loops(self) -> None:
        """Finds out whether the event loop of one of those who take from it was closed without a word: then nobody waits for it."""
        for server in self.servers:
            server.look_after_loops()

    def taken(self) -> None:
        """After a take: the mailbox isn't stalled any more, and if it has room, all waiting publishers are woken."""
        self.stalled = False
        queued = len(self.queue) + self.capacity - self.limit
        if self.crowded and queued <= self.capacity * RELAXED:
            self.crowded = False
            if self.mark:
                self.mark = int(self.capacity * CROWDED)
        if queued <= self.capacity:
            self.forsaken = False
            self.wake_waiters()

    def parks(self) -> None:
        """Its strand may take entries that still wait: every offer has to look at ``limit``."""
        self.mark = 0

    def crowd(self) -> bool:
        """An entry comes in beyond the mark; whether that should be said. One caller at a time."""
        if self.crowded or len(self.queue) + self.capacity - self.limit < self.capacity * CROWDED:
            return False
        self.crowded = self.watched = True
        if self.mark:
            self.mark = self.capacity
        now = time.monotonic()
        if self._said and now - self._said < SAID_EVERY:
            return False
        self._said = now
        return True

    def wake_waiters(self) -> None:
        """Lets every waiting publisher look again."""
        # `watched` first: a publisher that stands in line after this sets it again, then looks at the queue once more
        self.watched = self.stalled or self.crowded
        waiters = self._waiters
        for _ in range(len(waiters)):  # not those who get in line again meanwhile, or just now
            try:
                waiter = waiters.pop(0)  # a list: most mailboxes never have one in line, and an empty deque is ten times as large
            except IndexError:
                return
            waiter.release()

    def may_wait(self) -> bool:
        """Whether one more may come in beyond the bound, whose publisher then waits. One caller at a time, until `begin_waiting`."""
        if not self.forsaken:
            return True
        # those first: who leaves meanwhile found room, so the queue is shorter then, too
        waiting = len(self._publishers or ())
        return len(self.queue) - self.limit - waiting < self.capacity

    def begin_waiting(self) -> None:
        """One came in beyond the bound, and its publisher is going to wait."""
        if self._publishers is None:
            self._publishers = []  # only now: most mailboxes never have any
        self._publishers.append(None)

    def end_waiting(self) -> None:
        """That publisher waits no more, whether there is room or not."""
        if self.is_over_full():
            self.forsaken = self.watched = True
        if self._publishers:
            self._publishers.pop()

    def add_waiter(self, waiter: _Waiter) -> None:
        """In line for room; whoever is has to look once more whether there is some."""
        self._waiters.append(waiter)
        self.watched = True

    def leave_line(self, waiter: _Waiter) -> None:
        """It doesn't wait any more."""
        with suppress(ValueError):
            self._waiters.remove(waiter)

    def wait_for_room(self, latest: float | None = None, in_vain: Callable[[], bool] | None = None) -> bool:
        """Waits until the queue is back within its bound; False, and stalled, if that took longer than ``block_timeout``.

        ``latest`` is when the caller gives up anyhow, in monotonic seconds; then the mailbox isn't stalled, nor if the caller
        finds, from time to time, that it waits ``in_vain``.
        """
        for server in self.servers:
            if server.executor.pass_time is not None:
                return self._pass_time(server.executor, latest)
        waiter = threading.Lock()
        deadline = time.monotonic() + self.block_timeout
        if latest is not None and latest < deadline:
            deadline = latest
        else:
            latest = None
        try:
            while len(self.queue) > self.limit:
                self.look_after_loops()
                waiter.acquire(blocking=False)
                # in line first, then `watched`, then one more look: the taker does it the other way round (take, then look at
                # `watched`), so one of the two sees the other
                self.add_waiter(waiter)
                if len(self.queue) <= self.limit:
                    break
                if self.stalled or not self._acquire(waiter, deadline, in_vain):
                    self.look_after_loops()
                    if len(self.queue) <= self.limit:
                        break
                    if latest is not None or time.monotonic() < deadline:
                        return False
                    self.stalled = True
                    self.wake_waiters()  # one timeout is enough for all of them
                    return False
            return True
        finally:
            self.leave_line(waiter)

    def _pass_time(self, executor: Executor, latest: float | None) -> bool:
        """`wait_for_room` under virtual time, which whoever waits moves on."""
        assert executor.pass_time is not None
        deadline = executor.monotonic() + self.block_timeout
        given_up = latest is not None and latest < deadline
        if self.stalled or executor.pass_time(lambda: not self.is_over_full(), latest if given_up else deadline):
            return not self.is_over_full()
        if not given_up:
            self.stalled = True
            self.wake_waiters()  # as in `wait_for_room`; from here on every take is told to `taken`
        return False

    def is_over_full(self) -> bool:
        """Whether it holds more than its bound."""
        return len(self.queue) > self.limit

    async def wait_for_room_patiently(self, in_vain: Callable[[], bool] | None = None) -> bool:
        """`wait_for_room` of a coroutine, which holds up nothing but itself."""
        loop = asyncio.get_running_loop()
        for server in self.servers:
            if server.executor.pass_time is not None and not hasattr(loop, "_executor_of_rxbus"):
                return self._pass_time(server.executor, None)  # time would stand still while this loop waited
        deadline = loop.time() + self.block_timeout
        while self.is_over_full():
            self.look_after_loops()
            woken = loop.create_future()
            waiter = Awakening(loop, woken)
            try:
                self.add_waiter(waiter)  # as in `wait_for_room`: in line, then `watched`, then one more look
                if not self.is_over_full():
                    break
                left = deadline - loop.time()
                if self.stalled or left <= 0:
                    self.stalled = True
                    self.wake_waiters()
                    return False
                await asyncio.wait([woken], timeout=min(left, RECHECK))
            finally:
                self.leave_line(waiter)  # cancelled, too
            if in_vain is not None and in_vain():
                return False
        return True

    def _acquire(self, waiter: threading.Lock, deadline: float, in_vain: Callable[[], bool] | None) -> bool:
        """Whether it was woken by the deadline; with somebody who looks whether it waits in vain, that may end it too.

        Only then, and where an event loop has to make the room, it looks from time to time.
        """
        looks = in_vain is not None or self.needs_loops
        while True:
            left = max(0.0, deadline - time.monotonic())
            if not looks or left <= RECHECK:
                return waiter.acquire(timeout=left)
            if waiter.acquire(timeout=RECHECK):
                return True
            self.look_after_loops()
            if self.stalled or (in_vain is not None and in_vain()):
                return False

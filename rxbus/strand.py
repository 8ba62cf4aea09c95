"""A strand runs one mailbox: one event at a time, on whatever thread its executor lends it.

State, and why it suffices:

- ``_token`` holds one item unless a run is in progress. Taking it is one atomic operation, so there is one run at a time
  however often the strand was submitted; a submission that finds it taken goes away.
- ``scheduled`` keeps publishers from submitting a strand that was submitted already. It is set before a submission, and
  cleared at the end of a run *after* the token was put back and *before* the strand looks once more whether work is left.
  A publisher appends first and reads ``scheduled`` second. So either it sees the flag down and submits, or the run that
  takes the flag down looks after the append and sees the event. A submission too many is harmless, one too few impossible.
- ``_gates`` says why nothing may run now: *paused* by its user, *suspended* between two attempts at one event, *full* when
  its crew has no hand free, *broken* while its breaker is open, *ending* when only its crew still has something to do, *closed*.
  ``lock`` guards changes of it (a new frozenset each time, so that the run reads it without a lock) and the counts of
  failed and dropped events in the strand's inlets; it is held for a few instructions, never while user code runs.
- What a suspended strand will go on with lies in ``_held``, from which either the next run or `close` takes it, atomically.

"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import Context
from functools import partial
from itertools import chain, repeat
from typing import Any, Protocol

from .alarm import Alarm
from .mailbox import Entry, Mailbox
from .outcome import Reason
from .schedulers import Cancellable, Executor, SchedulerExecutor, inside_scheduler, inside_trampoline
from .strand_scheduler import StrandScheduler
from .timers import timers
from .waits import Rooms, Waiter, here, running_chain
from .workers import waiting

BATCH = 256
"""Events in one run at most, so that strands take turns."""
SLICE = 0.002
"""Seconds after which a run ends at the next event, so that slow handlers take turns too."""

PAUSED = "paused"
SUSPENDED = "suspended"
FULL = "full"
BROKEN = "broken"
ENDING = "ending"
CLOSED = "closed"
DISPOSED = "disposed"
"""Why an event was dropped: who had it has ended."""
_OPEN: frozenset[str] = frozenset()
_HOLDS_BACK = frozenset({PAUSED, BROKEN, CLOSED})
_NOTHING_HELD: list[Any] = []
"""Nobody puts anything into it. Strands that share it are one object less each for the garbage collector to visit."""


class Consumer(Protocol):
    """What a strand feeds. None may raise. `_refuse`, `_release` and `_closed` are called by
    any thread, the others by the strand's run alone."""

    def _now(self) -> float:
        """The present in Unix seconds, or virtual ones."""
        ...

    @property
    def _entrance(self) -> Callable[[Entry, float], float]:
        """What handles one entry, in its context, from that time on, and returns the time at which it ended."""
        ...

    def _proceed(self, held: Any, started: float, /) -> float:
        """Goes on with what `Strand.suspend` was given."""
        ...

    async def _process_coroutine(self, entry: Entry, started: float, /) -> float:
        """What `_entrance` does, on an event loop; in the task's context."""
        ...

    async def _proceed_coroutine(self, held: Any, started: float, /) -> float:
        """`_proceed`, on an event loop."""
        ...

    def _terminate(self, error: Exception | None, /) -> None:
        """The source ended and the mailbox is empty."""
        ...

    def _end(self) -> object:
        """Nothing more will come."""
        ...

    def _refuse(self, entry: Entry, reason: Reason, error: Exception, attempts: int = 0, /) -> None:
        """The entry, counted as failed, will not be handled; that often it was begun with."""
        ...

    def _release(self, entry: Entry, reason: str, /) -> None:
        """The entry, counted as dropped, will not be handled."""
        ...

    def _broken_off(self, entry: Entry, /) -> Any:
        """What a suspension would hold of an entry in progress."""
        ...

    def _held_entry(self, held: Any, /) -> Entry:
        """The entry that a suspension holds."""
        ...

    def _begun(self, held: Any, /) -> int:
        """How often what a suspension holds was begun with."""
        ...

    def _keeps_held(self, held: Any, /) -> bool:
        """Whether nobody else may begin with what a suspension holds; then it is settled when it is cancelled."""
        ...

    def _cancel_held(self, held: Any, /) -> None:
        """What a suspension holds will not go on."""

    def _action_failed(self, error: BaseException, /) -> None:
        """An action that was scheduled on the strand raised."""
        ...

    def _count(self, entry: Entry, outcome: str, /) -> None:
        """Counts a failed or dropped entry; the strand's lock is held."""
        ...

    def _closed(self) -> None:
        """The strand is closed, and its last run has ended; called once or more."""
        ...


class Strand(Waiter):
    """The serial run of one mailbox."""

    __slots__ = (
        "__weakref__",
        "_actions",
        "_gates",
        "_held",
        "_inner",
        "_refusing",
        "_scheduler",
        "_taken_back",
        "_terminal",
        "_timer",
        "_token",
        "_watchers",
        "consumer",
        "in_flight",
        "lock",
        "mailbox",
        "outer_error",
        "released",
        "scheduled",
    )

    def __init__(self, mailbox: Mailbox, executor: Executor, consumer: Consumer) -> None:
        super().__init__(executor)
        self.mailbox = mailbox
        mailbox.servers = (*mailbox.servers, self)
        self.consumer = consumer
        self.lock = threading.RLock()
        self.scheduled = False
        self.in_flight: Entry | None = None
        """The entry that was taken and is not settled yet."""
        self.released = False
        """Closed, and what was queued has been counted as dropped."""
        self.outer_error: BaseException | None = None
        """What the caller of an inline run is just handling."""
        self._token: list[None] = [None]
        self._gates = _OPEN
        self._held: list[Any] = _NOTHING_HELD
        self._taken_back: Any = None
        """What was held, until its cancelling is told."""
        self._actions: deque[tuple[Context, Callable[[], object]]] | None = None
        self._inner: deque[tuple[Context, Callable[[], object]]] | None = None
        self._terminal: tuple[Exception | None, bool] | None = None
        """What the source ended with, and whether the consumer is told."""
        self._refusing = 0
        """Calls that are just telling what became of events that were refused or dropped."""
        self._timer: Cancellable | None = None
        self._watchers: list[Alarm] | None = None
        self._scheduler: StrandScheduler | None = None

    # -- being submitted

    def wake(self) -> None:
        """Submits the strand, unless a submission is on its way."""
        if self.scheduled:
            return
        self.scheduled = True
        try:
            self.executor.submit(self)
        except BaseException:
            self.scheduled = False  # Ctrl-C: the next wake submits again
            raise

    def forget_schedule(self) -> None:
        """The executor lost the submission."""
        self.scheduled = False

    def undeliverable(self, error: Exception) -> None:
        """The executor refused: what waits in the mailbox is refused too, and counted."""
        self.scheduled = False
        if self._actions:
            self._actions.clear()
        with self.lock:
            self._refusing += 1  # it isn't quiet before the last letter is written
        try:
            with self.lock:
                taken = list(self._take_taken(error))
            self._cancel_taken()
            for entry, begun in chain(
                taken, zip(self._take_queue(), repeat(0))
            ):  # a crew may put one more into it while this one is refused
                with self.lock:
                    self.consumer._count(entry, "failed")
                self.consumer._refuse(entry, Reason.UNDELIVERABLE, error, begun)
            self._book_rest_of_crew()
        finally:
            with self.lock:
                self._refusing -= 1
        self.mailbox.stalled = False
        self.mailbox.wake_waiters()
        if self._terminal is not None:
            self._terminal = None
            self.consumer._end()
        self.retire()
        self._notify()

    def recover(self) -> None:
        """After Ctrl-C came out of a run on the calling thread: what was taken and not settled goes back, to be handled again."""
        entry, self.in_flight = self.in_flight, None
        if entry is not None and not self._held:
            self.mailbox.queue.appendleft(entry)
        if here.running is self:
            here.running = self.outer
        self.outer_error = None
        self.outer = None
        self._inner = None
        if not self._token:
            self._token.append(None)
        self.scheduled = False

    def has_work(self) -> bool:
        """Whether a run would find something to do."""
        if self._gates:
            return False
        return bool(self.mailbox.queue or self._held or self._actions or self._terminal)

    def _wants_more(self) -> bool:
        """At the end of a run: whether there should be another."""
        return not self._gates and bool(self.mailbox.queue or self._held or self._actions or self._terminal)

    def strands(self) -> list[Strand]:
        """Who may take from the mailbox: this one."""
        return [self]

    def is_quiet(self) -> bool:
        """Whether nothing is queued, in progress, or waiting for another attempt."""
        if CLOSED in self._gates:
            return self.released and not self._refusing and bool(self._token) and (self.crew is None or not self.crew.calls)
        # the token last: a run takes from the queue while it has the token, so what left the queue unseen shows there
        busy = self.mailbox.queue or self.in_flight is not None or self._actions or self._terminal or self._refusing
        if busy or not self._token:
            return False
        return self.crew is None or not self.crew.calls

    def is_idle_for_ever(self) -> bool:
        """Whether it won't run by itself: paused by its user, or on a clock that only a test moves."""
        return not self.is_busy and (self.is_paused or self.is_virtual)

    @property
    def pending(self) -> int:
        """Events queued or in progress."""
        return len(self.mailbox.queue) + self.taken

    @property
    def taken(self) -> int:
        """Events in progress."""
        return (self.in_flight is not None) + (0 if self.crew is None else self.crew.open)

    @property
    def queued(self) -> int:
        """Events that take room in the mailbox."""
        mailbox = self.mailbox
        return len(mailbox.queue) + mailbox.capacity - mailbox.limit

    @property
    def is_virtual(self) -> bool:
        """Whether only a test's virtual clock can make it run."""
        return isinstance(self.executor, SchedulerExecutor) and self.executor.virtual

    @property
    def is_inline(self) -> bool:
        """Whether its runs may happen inside a publish."""
        return isinstance(self.executor, SchedulerExecutor) and self.executor.inline

    def waits_in_vain(self) -> bool:
        """Whether waiting for it would keep from running the only thread that could run it: the calling one."""
        return any(map(_runs_only_here, self.executors()))

    @property
    def is_running(self) -> bool:
        """Whether a run is in progress."""
        return not self._token

    @property
    def is_busy(self) -> bool:
        """Whether a run or a handler is in progress."""
        crew = self.crew
        if not self._token or crew is None:
            return not self._token
        return bool(crew.calls) if CLOSED in self._gates else crew.is_running  # closed, what only waited was taken back

    @property
    def is_stuck(self) -> bool:
        """Whether an event is in a handler that hasn't returned."""
        return (not self._token and self.in_flight is not None) or (self.crew is not None and self.crew.is_running)

    def handles_here(self) -> bool:
        """Whether the calling code is called by this strand's run, or by one of its crew's."""
        chain = running_chain()
        return self in chain or (self.crew is not None and any(member in chain for member in self.crew.members))

    def holders(self, follower: object) -> list[Waiter]:
        """It, or those of its crew, if they have in hand what that one follows."""
        entry = self.in_flight
        if entry is None or entry[2] is not follower:
            return super().holders(follower)
        return [self, *super().holders(follower)]

    def running_here(self) -> bool:
        """Whether the calling code is called by this strand's run."""
        waiter = here.running
        while waiter is not None and waiter is not self:
            waiter = waiter.outer
        return waiter is self

    # -- the run

    def run(self) -> None:
        """Handles what is there, up to a batch; called by the executor."""
        try:
            self._token.pop()
        except IndexError:
            return  # a run is in progress; it looks again when it ends
        self.outer = here.running
        here.running = self
        limit, patience = BATCH, None
        if self.executor.inline:
            patience, here.patience = here.patience, None  # what it handles is nobody's coroutine
            self.outer_error = sys.exc_info()[1]
            if inside_scheduler():
                limit = 1
        try:
            self._batch(limit)
        finally:
            if patience is not None:
                here.patience = patience
            self.outer_error = None
            here.running = self.outer
            self.outer = None
            self._end_run()

    def _end_run(self) -> None:
        self._token.append(None)
        self.scheduled = False
        if self.released:
            self.retire()
        if self._watchers:
            self._notify()
        if self._wants_more():
            self.scheduled = True
            self.executor.requeue(self)

    def retire(self) -> None:
        """Tells the consumer that no run will handle anything any more, if that is so; perhaps more than once.

        A run in progress does this when it ends. One that begins later finds the gate closed and does nothing.
        """
        if self.released and self._token and not (self._refusing or (self.crew is not None and self.crew.calls)):
            self.consumer._closed()

    def _batch(self, limit: int) -> None:
        mailbox = self.mailbox
        queue = mailbox.queue
        process = self.consumer._entrance
        started = self.consumer._now()
        stop = started + SLICE
        for _ in range(limit):
            if self._gates or self._held or self._actions:
                started = self._special(started)
                if self._gates:
                    return
                if self._held:
                    continue  # its pause was over only just now: nothing may overtake it
            if not queue:
                break  # an exception would cost as much as the event
            try:
                entry = queue.popleft()
            except IndexError:
                break  # dropped, or taken by another member, just then
            self.in_flight = entry
            if mailbox.watched:
                mailbox.taken()
            started = entry[1].copy().run(process, entry, started)
            if started > stop:
                return
        if self._terminal is not None and not (mailbox.queue or self._actions or self._gates or self._held):
            self._terminate()

    def _special(self, started: float) -> float:
        """Goes on with what was suspended, or runs one scheduled action."""
        if self._gates:
            return started
        if self._held:
            try:
                held = self._held.pop()
            except IndexError:
                return started  # closed meanwhile
            return self.consumer._held_entry(held)[1].copy().run(self.consumer._proceed, held, started)
        actions = self._actions
        if actions:
            context, action = actions.popleft()
            context.run(self._act, action)
            return self.consumer._now()
        return started

    def _act(self, action: Callable[[], object]) -> None:
        try:
            self.step(action)
        except BaseException as error:
            self.consumer._action_failed(error)

    def step(self, action: Callable[[], object]) -> None:
        """Runs an action and all that it schedules for now, and what that schedules: one step. Called by the run alone.

        Many operators subscribe to what they make on the scheduler that they were given (`flat_map` to ``of(...)``, `retry` to
        its source). Were that a later step, an event could come between, or be settled before its own values are handled.
        """
        outer, self._inner = self._inner, deque()
        try:
            action()
            while self._inner:
                context, following = self._inner.popleft()
                context.run(following)
        finally:
            self._inner = outer

    def _terminate(self) -> None:
        terminal, self._terminal = self._terminal, None
        if terminal is not None:
            error, told = terminal
            if told:
                self.consumer._terminate(error)
            else:
                self.consumer._end()

    # -- gates

    def _shut(self, gate: str) -> bool:
        with self.lock:
            before = self._gates
            self._gates = before | {gate}
            return gate not in before

    def _unshut(self, gate: str) -> None:
        with self.lock:
            self._gates -= {gate}
        self.wake()

    def fill(self) -> None:
        """Its crew has no hand free: nothing more is taken until `clear`."""
        self._shut(FULL)

    def unfill(self) -> None:
        """What its crew had was taken back; the lock is held."""
        self._gates -= {FULL}

    def clear(self) -> None:
        """Its crew has a hand free: the worker that calls this, which has nothing else to do, goes on with it."""
        with self.lock:
            if FULL not in self._gates:
                return
            self._gates -= {FULL}
        if not self.scheduled:
            self.scheduled = True
            self.executor.requeue(self)

    def stop_taking(self) -> None:
        """Takes nothing more, though it isn't closed: its crew still handles what it has."""
        self._shut(ENDING)

    def break_off(self) -> None:
        """Takes nothing more until `mend`."""
        self._shut(BROKEN)

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        """Has something short done in so many seconds, of its executor's time if that has any, unless it is closed by then."""
        try:
            timer = self.executor.later(seconds, act)
        except Exception:
            timer = timers.after(seconds, act)
        with self.lock:
            self._timer = timer
        if CLOSED in self._gates:
            timer.cancel()

    def mend(self) -> None:
        """After `break_off` it may go on; it is to be woken."""
        with self.lock:
            self._gates -= {BROKEN}

    def pause(self) -> None:
        """Takes nothing more until `unpause`."""
        self._shut(PAUSED)

    def unpause(self) -> None:
        """Goes on."""
        self._unshut(PAUSED)

    @property
    def is_paused(self) -> bool:
        """Whether its user paused it."""
        return PAUSED in self._gates

    @property
    def is_broken_off(self) -> bool:
        """Whether nothing but its breaker holds it back."""
        return self._gates & _HOLDS_BACK == frozenset({BROKEN})

    @property
    def holds_back(self) -> bool:
        """Whether what waits for a hand has to wait on: paused, broken off, or closed."""
        return not self._gates.isdisjoint(_HOLDS_BACK)

    @property
    def is_suspended(self) -> bool:
        """Whether it waits between two steps of one event."""
        return SUSPENDED in self._gates

    @property
    def is_closed(self) -> bool:
        """Whether it was closed."""
        return CLOSED in self._gates

    def suspend(self, held: Any, delay: float) -> None:
        """Called by the run: nothing more is handled until the delay is over, then the consumer proceeds with ``held``."""
        self.suspend_until(held, partial(self.executor.later, delay))

    def suspend_until(self, held: Any, arrange: Callable[[Callable[[], None]], Cancellable]) -> None:
        """`suspend`, until what ``arrange`` is given is called."""
        self._shut(SUSPENDED)
        self._held = [held]  # nothing was: it is the run that calls this
        try:
            self._timer = timer = arrange(partial(self._unshut, SUSPENDED))
        except Exception as error:
            with self.lock:
                self._gates -= {SUSPENDED}
            self.undeliverable(error)
            return
        if CLOSED in self._gates:
            timer.cancel()
            with self.lock:
                dropped = self._drop(self._take_all())  # closed while this event was in the handler
            self._release(dropped)

    def _drop(self, entries: Iterable[Entry]) -> list[Entry]:
        """Counts them as dropped; they are to be released without the lock, which is held now."""
        dropped: list[Entry] = []
        for entry in entries:
            self.consumer._count(entry, "dropped")
            dropped.append(entry)
        return dropped

    def _cancel_taken(self) -> None:
        """Tells whoever waited for what was held that it will not go on: user code, perhaps, so not under the lock."""
        held, self._taken_back = self._taken_back, None
        if held is not None:
            self.consumer._cancel_held(held)

    def _release(self, dropped: list[Entry]) -> None:
        self._cancel_taken()
        for entry in dropped:
            if not isinstance(entry[2], float):
                self.consumer._release(entry, DISPOSED)
        self._book_rest_of_crew()

    def _book_rest_of_crew(self) -> None:
        if self.crew is not None:
            self.crew.book_rest()

    def give_back(self, entry: Entry) -> bool:
        """Closed, it has an entry left with which nothing was done; whether somebody else is going to take it."""
        return False

    def drop_queue(self) -> int:
        """Drops what is queued, and keeps open for what is held; no inlet may feed it any more."""
        with self.lock:
            dropped = self._drop(self._take_queue())
        self._release(dropped)
        self.mailbox.wake_waiters()
        return len(dropped)

    def _take_all(self) -> Iterable[Entry]:
        for entry, _ in self._take_taken():
            yield entry
        yield from self._take_queue()

    def _take_taken(self, error: Exception | None = None) -> Iterable[tuple[Entry, int]]:
        """What was taken from the mailbox and isn't in a handler, with how often it was begun with; because of an error, or of the end."""
        while self._held:
            try:
                held = self._held.pop()
            except IndexError:
                break
            self._taken_back = held
            self._gates -= {SUSPENDED}  # nobody waits for the end of that pause any more
            if self._timer is not None:
                self._timer.cancel()
            if not self.consumer._keeps_held(held):
                self.in_flight = None
                yield self.consumer._held_entry(held), self.consumer._begun(held)
        if self.crew is not None:
            yield from self.crew.take_waiting(error)

    def _take_queue(self) -> Iterable[Entry]:
        queue = self.mailbox.queue
        while queue:
            try:
                yield queue.popleft()
            except IndexError:
                break

    def close(self) -> int | None:
        """Takes nothing more, ever; what is queued is counted as dropped. No inlet may feed it any more.

        Returns how many were dropped, or ``None`` if it was closed already.
        """
        telling = False
        try:
            with self.lock:  # all of it, so that whoever comes second comes back when it is done
                if self.released:
                    return None
                self._shut(CLOSED)  # after Ctrl-C in the middle of this it is so already, and the rest is still to be done
                timer, self._timer = self._timer, None
                if timer is not None:
                    timer.cancel()
                dropped = self._drop(self._take_all())
                self._terminal = None
                actions = self._actions
                if actions is not None:
                    actions.clear()
                # last: either the run in progress sees it when it ends, or it has ended, which the caller sees
                self.released = True
                self._refusing += 1  # its end isn't told before that of these
                telling = True
            self.mailbox.stalled = False
            self.mailbox.wake_waiters()
            self._release(dropped)
        finally:
            if telling:
                with self.lock:
                    self._refusing -= 1
        self.retire()
        self._notify()
        return len(dropped)

    def finish(self, error: Exception | None) -> None:
        """The source ended: after what is queued the consumer is told so."""
        self._finish(error, told=True)

    def finish_silently(self) -> None:
        """After what is queued the consumer ends without a word."""
        self._finish(None, told=False)

    def _finish(self, error: Exception | None, *, told: bool) -> None:
        self._terminal = (error, told)
        if CLOSED in self._gates:
            self._terminal = None
        elif FULL in self._gates and self.crew is None and not self.mailbox.queue:
            self._terminal = None  # a stream of which nobody asks anything: nothing will open its gate
            self.consumer._end()
        else:
            self.wake()

    # -- actions, for the scheduler that pipelines see

    def enqueue(self, context: Context, action: Callable[[], object]) -> None:
        """Has the action run as one serial step of the strand, or as part of the step that schedules it."""
        inner = self._inner
        if inner is not None and self.running_here():
            inner.append((context, action))
            return
        actions = self._actions
        if actions is None:
            with self.lock:
                if self._actions is None:
                    self._actions = deque()
                actions = self._actions
        if CLOSED not in self._gates:
            actions.append((context, action))
            self.wake()

    @property
    def scheduler(self) -> StrandScheduler:
        """The strand as an RxPY scheduler."""
        if self._scheduler is None:
            self._scheduler = StrandScheduler(self)
        return self._scheduler

    # -- waiting for it

    def watch(self, changed: Alarm) -> None:
        """Has the alarm ring at the end of each run, until `unwatch`."""
        with self.lock:
            self._watchers = [*(self._watchers or ()), changed]

    def unwatch(self, changed: Alarm) -> None:
        """Ends `watch`."""
        with self.lock:
            self._watchers = list(filter(lambda watcher: watcher is not changed, self._watchers or ())) or None

    def _notify(self) -> None:
        for changed in self._watchers or ():
            changed.ring()

    def wait_until(self, condition: Callable[[], bool], deadline: float | None) -> bool:
        """Waits until the condition holds at the end of a run; False at the deadline (of its executor's monotonic clock)."""
        if condition():
            return True
        if self.executor.pass_time is not None:
            return self.executor.pass_time(condition, deadline)
        changed = Alarm()
        self.watch(changed)
        try:
            with waiting():
                while not condition():
                    # every end of a run rings; a look each 50 ms besides makes a lost submission harmless
                    remaining = 0.05 if deadline is None else min(0.05, deadline - time.monotonic())
                    if remaining <= 0:
                        return False
                    if not changed.wait(remaining) and self.has_work() and not self.is_running:
                        self.executor.submit(self)
            return True
        finally:
            self.unwatch(changed)


def _runs_only_here(executor: Executor) -> bool:
    """Whether nothing that it has to run is run while the calling code waits."""
    if not isinstance(executor, SchedulerExecutor):
        return False
    if executor.virtual:
        # an event that is suspended keeps no clock from moving
        return not (isinstance(here.patience, Rooms) or (here.running is not None and here.running.put_off is not None))
    if executor.inline and (inside_scheduler() or inside_trampoline()):
        return True
    if isinstance(executor.scheduler, StrandScheduler):
        return executor.scheduler.strand.running_here()
    return here.patience is None and executor.runs_on_this_thread()

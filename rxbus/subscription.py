"""A subscription: one mailbox, one strand, and the books of what became of each event.

`Subscription` is the part that all kinds share; what it does with an event is `_handle`, which a kind overrides. An event is
settled exactly once (`_process`, `_settled`, `_refuse` or `_release`): handled, failed (with one dead letter) or dropped.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from types import AsyncGeneratorType, CoroutineType, GeneratorType, TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self, cast

from reactivex import abc

from .arguments import optional_seconds
from .async_strand import AsyncMemberStrand, AsyncStrand, drive
from .display import Shown
from .errors import HandlerError
from .event import Event, RawDelivery, current_delivery
from .fuse import Fuse
from .group import MemberIntake, MemberStrand
from .host import Place
from .inlet import Inlet
from .intake import Intake, intake_for
from .loops import LoopExecutor
from .mailbox import Entry
from .outcome import DeadLetter, Reason
from .recovery import Retry, error_text, traceback_text, without_frames
from .statistics import SubscriptionStatistics, subscription_table
from .step import Clock, Overtime, Pause, Step, reason_of
from .strand import DISPOSED, Strand
from .waits import here

if TYPE_CHECKING:
    from .card import Card

__all__ = ["Subscription"]

_log = logging.getLogger("rxbus")


UNFINISHED = {
    CoroutineType: "a coroutine, which nobody would await: give it an async def, and await that there",
    GeneratorType: "a generator, which nobody would run: give it a generator function, and yield from that there",
    AsyncGeneratorType: "an async generator, which nobody would run: give it an async generator function, and yield its values there",
}
"""What is no result yet, by its class."""


def refuse_unfinished(name: str, result: Any) -> NoReturn:
    """Raises for what a handler made that is no result yet, and would never become one."""
    kind = result.__class__
    if kind is CoroutineType:
        result.close()  # or Python complains, too
    raise HandlerError(f"subscription {name!r}: its handler made {UNFINISHED[kind]}", result)


class Subscription(Shown, abc.DisposableBase):
    """What consumes the events of a topic or pattern: a disposable, and a context manager that disposes of itself."""

    __slots__ = (
        "__weakref__",
        "_boxed",
        "_clock",
        "_delivery",
        "_envelopes",
        "_failure",
        "_feeds",
        "_fuse",
        "_group",
        "_handle",
        "_handling",
        "_host",
        "_inlet",
        "_intake",
        "_last_error",
        "_later",
        "_name",
        "_pattern",
        "_retired",
        "_retried",
        "_retry",
        "_strand",
        "_target",
        "_time",
        "_timeout",
        "_waiting",
    )

    _handle: Callable[[Any], object]
    _passive = False
    """It only looks on: it can't be one who answers a request."""

    def __init__(self, place: Place, *, envelopes: bool = True, retry: Retry | None = None) -> None:
        name, pattern, host, mailbox, executor, group = place
        self._name = name
        self._pattern = pattern
        self._host = host
        self._time = host._now
        """Looked up once: each event is timed."""
        self._group = group
        on_loop = isinstance(executor, LoopExecutor)
        if group is None:
            self._strand = (AsyncStrand if on_loop else Strand)(mailbox, executor, self)
            self._intake: Intake = intake_for(pattern, self._strand, name)
        else:
            self._strand = (AsyncMemberStrand if on_loop else MemberStrand)(group, executor, self)
            self._intake = MemberIntake(group, self._strand)
        self._inlet: Inlet | None = self._intake.inlet
        """The only one, if there is only one: most have."""
        self._envelopes = envelopes
        self._boxed = False
        """It is a mailbox in the middle of a chain from a topic: what it carries on is the event that the chain got."""
        self._retry = retry
        self._fuse: Fuse | None = None
        self._delivery: RawDelivery | None = None
        self._failure: BaseException | None = None
        self._later: Sequence[Step] = ()
        self._handling = 0.0
        self._waiting = 0.0
        self._retried = 0
        self._last_error: BaseException | None = None
        self._retired = False
        self._clock: Clock | None = None
        """Of the attempt in progress, if its time is limited."""
        self._timeout: float | None = None
        """Seconds that an attempt of its handler, a coroutine, may take."""
        self._target: str | None = None
        """The name of the topic where its results are published."""
        self._feeds: dict[str, None] = {}
        """The names of the topics where its handlers were seen to publish."""

    # -- what its user sees

    @property
    def name(self) -> str:
        """Unique among the living subscriptions of its bus."""
        return self._name

    @property
    def pattern(self) -> str:
        """The name or pattern of the topics that it consumes."""
        return self._pattern

    @property
    def is_disposed(self) -> bool:
        """Whether it takes nothing more."""
        return self._strand.is_closed

    def __repr__(self) -> str:
        return f"Subscription({self._name!r} on {self._pattern!r}: {self._state})"

    @property
    def _state(self) -> str:
        return "disposed" if self.is_disposed else "paused" if self._strand.is_paused else f"{self._strand.pending} pending"

    def _card(self) -> Card:
        from .card import Card

        books = self.statistics()
        return Card("Subscription", self._name, self._state, facts=books.facts(), tables=[subscription_table([books])])

    def pause(self) -> None:
        """Takes nothing more from the mailbox until `resume`; events queue meanwhile, under its overflow policy."""
        self._strand.pause()

    def resume(self) -> None:
        """Goes on after `pause`; without one it does nothing."""
        self._strand.unpause()

    def dispose(self, wait: float | None = None) -> None:
        """Ends it: what is queued is dropped and counted; the event in its handler may finish.

        ``wait`` is how many seconds to wait for that one at most; from inside its own handler, or on the event loop that runs
        it, there is nothing to wait for.
        Idempotent.

        Raises: `TypeError` or `ValueError` for a wait that is no number of seconds.
        """
        limit = optional_seconds("wait", wait)
        strand = self._strand
        self._end()
        strand.retire()
        if limit is not None and not strand.handles_here() and (strand.executor.pass_time is not None or not strand.waits_in_vain()):
            strand.wait_until(self._rests, strand.executor.monotonic() + limit)

    def _rests(self) -> bool:
        """Whether nothing is in progress; a loop of its that was closed without a word is found here."""
        self._strand.look_after_loops()
        return not self._strand.is_busy

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.dispose()

    def statistics(self) -> SubscriptionStatistics:
        """A snapshot of its counters."""
        self._intake.fold()
        inlets = self._intake.inlets()
        pending = self._strand.pending
        return SubscriptionStatistics(
            name=self._name,
            pattern=self._pattern,
            offered=self._intake.offered(pending),
            handled=sum(i.handled for i in inlets),
            failed=sum(i.failed for i in inlets),
            dropped=sum(i.dropped for i in inlets),
            retried=self._retried + sum(lane._retried for lane in self._lanes),
            pending=pending,
            queued=self._strand.queued,
            capacity=self._strand.mailbox.capacity,
            handling_time=self._handling + sum(lane._handling for lane in self._lanes),
            waiting_time=self._waiting + sum(lane._waiting for lane in self._lanes),
            last_error=self._last_error,
        )

    @property
    def _lanes(self) -> Sequence[Subscription]:
        """Those that handle in its name, several at a time."""
        return ()

    # -- one event, called by the strand

    def _now(self) -> float:
        return self._host._now()

    def _pause_after(self, retry: Retry, attempt: int) -> float:
        return retry.delay(attempt, exactly=self._host._is_virtual)

    @property
    def _entrance(self) -> Callable[[Entry, float], float]:
        """What the strand calls with each entry."""
        return self._process if self._host._panel is None else self._process_observed

    def _process_observed(self, entry: Entry, started: float, call: Callable[[Any], object] | None = None, attempt: int = 1) -> float:
        """`_process`, after the instruments were told that it begins."""
        panel, event = self._host._panel, self._event_of(entry)
        if panel is not None and event is not None:
            panel.handling(event, self, attempt)
            started = self._time()
        return self._process(entry, started, call, attempt)

    @property
    def _speaker(self) -> Subscription:
        """Under which subscription's name it handles."""
        return self

    def _proceed(self, held: Step, started: float) -> float:
        assert held.entry is not None
        self._failure, self._later = held.failure, held.rest
        process = self._process_observed if held.is_attempt else self._process
        return process(held.entry, started, held.call, held.attempt)

    def _held_entry(self, held: Step) -> Entry:
        assert held.entry is not None
        return held.entry

    def _process(self, entry: Entry, started: float, call: Callable[[Any], object] | None = None, attempt: int = 1) -> float:
        """Calls, and books what came of it; returns when it ended."""
        event = entry[0]
        if self._envelopes:
            self._delivery = delivery = (event, self, attempt)
            current_delivery.set(delivery)
        elif self._boxed and (upstream := current_delivery.get()) is not None:
            self._delivery = delivery = (upstream[0], self._speaker, attempt)
            current_delivery.set(delivery)
        try:
            result = (call or self._handle)(event)
            if result is not None and result.__class__ in UNFINISHED:
                refuse_unfinished(self._speaker._name, result)
        except BaseException as error:
            return self._failed(entry, started, error, attempt)
        if self._later or self._failure is not None:
            return self._unfinished(entry, started, attempt)
        inlet = self._inlet
        if inlet is not None:
            inlet.handled += 1
        else:
            self._intake.book(entry, "handled")
        # `_settled`, without its call: this is the way of nearly every event
        ended = self._time()
        self._delivery = None
        self._handling += ended - started
        self._strand.in_flight = None
        stamp: Any = entry[2]
        if stamp.__class__ is not float:
            stamp = self._tell(entry, "handled", ended - started)
        if started > stamp:
            self._waiting += started - stamp
        return ended

    async def _process_coroutine(self, entry: Entry, started: float, call: Callable[[Any], Any] | None = None, attempt: int = 1) -> float:
        """`_process` of a handler that is a coroutine function, in a context of the event's own."""
        context, strand = entry[1].copy(), self._strand
        strand.outer, here.running = here.running, strand
        try:
            begun = context.run(self._begin_coroutine, entry, started, call or self._handle, attempt)
        finally:
            here.running, strand.outer = strand.outer, None
        if not isinstance(begun, tuple):
            return begun
        coroutine, yielded = begun
        try:
            rest = drive(coroutine, yielded, context, strand)
            result = await (rest if self._clock is None else self._within(self._clock, rest))
            if result is not None and result.__class__ in UNFINISHED:
                refuse_unfinished(self._speaker._name, result)
        except BaseException as error:
            if isinstance(strand.executor, LoopExecutor) and not strand.executor.is_here():
                raise  # the task is destroyed; its loop was closed, and the event refused, before
            return context.run(self._coroutine_failed, entry, started, error, attempt)
        self._hesitate_if_cancelled()  # the handler swallowed it
        return context.run(self._succeeded, entry, started, attempt)

    def _begin_coroutine(
        self, entry: Entry, started: float, call: Callable[[Any], Any], attempt: int
    ) -> float | tuple[Coroutine[Any, Any, Any], Any]:
        """The coroutine and what it yielded first; or the time at which it ended, if it never had to wait."""
        try:
            coroutine = self._open(entry, call, attempt)
            try:
                return coroutine, coroutine.send(None)
            except StopIteration as stop:
                if stop.value is not None and stop.value.__class__ in UNFINISHED:
                    refuse_unfinished(self._speaker._name, stop.value)
        except BaseException as error:
            return self._failed(entry, started, error, attempt)
        return self._succeeded(entry, started, attempt)

    def _coroutine_failed(self, entry: Entry, started: float, error: BaseException, attempt: int) -> float:
        # before others are woken, or something new would begin on it
        if self._hesitate_if_cancelled() and isinstance(error, asyncio.CancelledError):
            return self._give_up(entry, started, error, attempt, Reason.UNDELIVERABLE)  # there is no use in trying again
        return self._failed(entry, started, error, attempt)

    def _hesitate_if_cancelled(self) -> bool:
        """Whether the task was cancelled from outside, because its loop is being closed, perhaps."""
        task, executor = asyncio.current_task(), self._strand.executor
        if task is None or not task.cancelling() or not isinstance(executor, LoopExecutor):
            return False
        executor.hesitate()
        return True

    async def _proceed_coroutine(self, held: Step, started: float) -> float:
        assert held.entry is not None
        self._failure, self._later = held.failure, held.rest
        return await self._process_coroutine(held.entry, started, held.call, held.attempt)

    def _open(self, entry: Entry, call: Callable[[Any], Any], attempt: int) -> Coroutine[Any, Any, Any]:
        """The coroutine that handles an event; nothing of it has run yet."""
        event, upstream = entry[0], current_delivery.get()
        carried = event if self._envelopes else None if upstream is None else upstream[0]
        self._delivery = delivery = None if carried is None else (carried, self._speaker, attempt)
        current_delivery.set(delivery)
        self._clock = None if self._timeout is None else Clock(self._timeout)
        panel = self._host._panel
        if panel is not None:
            panel.handling(event, self, attempt)
        return call(event)

    async def _within(self, clock: Clock, rest: Awaitable[Any]) -> Any:
        scope = clock.begin()
        try:
            async with scope:
                return await rest
        except TimeoutError as error:
            if not scope.expired():
                raise  # the handler's own
            raise Overtime(f"subscription {self._speaker.name!r}: expected its handler to end within {clock.limit:g} s") from error

    def _succeeded(self, entry: Entry, started: float, attempt: int) -> float:
        if self._later or self._failure is not None:
            return self._unfinished(entry, started, attempt)
        self._intake.book(entry, "handled")
        return self._settled(entry, started, "handled")

    def _unfinished(self, entry: Entry, started: float, attempt: int) -> float:
        """The call returned, but something in it asked for another step, or reported a failure."""
        steps, self._later = self._later, ()
        failure, self._failure = self._failure, None
        if steps:
            later, *later.rest = steps
            later.failure = failure
            return self._put_off(entry, started, later)
        assert failure is not None
        return self._give_up(entry, started, failure, attempt)

    def _failed(self, entry: Entry, started: float, error: BaseException, attempt: int) -> float:
        """The call raised: all of it is done again, or what it left to do is done and the event fails."""
        retry = self._retry
        if retry is not None and not self._strand.is_closed and retry.allows(error, attempt):
            steps, self._failure, self._later = self._later, None, ()
            for step in steps:
                if (left := step.cancel()) is not None:
                    _log_failure(self._name, self._event_of(entry), Reason.FAILED, left, attempt)
            return self._put_off(entry, started, Step(self._handle, attempt + 1, self._pause_after(retry, attempt), error))
        if self._later:
            self._failure = self._failure or error
            return self._unfinished(entry, started, attempt)
        self._failure = None
        return self._give_up(entry, started, error, attempt)

    def _put_off(self, entry: Entry, started: float, later: Step) -> float:
        later.entry = entry
        self._delivery = None
        self._retried += later.error is not None
        ended = self._time()
        self._handling += ended - started
        if later.error is not None:
            self._note_retry(entry, later)
            self._last_error = without_frames(later.error)  # after instruments have seen where it came from
            later.error = None
        if later.wait is None:
            self._strand.suspend(later, later.delay)
        else:
            self._strand.suspend_until(later, later.wait)
        return ended

    def _give_up(self, entry: Entry, started: float, error: BaseException, attempts: int, reason: Reason | None = None) -> float:
        self._fail(entry, reason or reason_of(error), error, attempts)
        with self._strand.lock:
            self._count(entry, "failed")
        if self._fuse is not None:
            self._fuse.failed()
        return self._settled(entry, started, "failed")

    @property
    def _successes(self) -> int:
        """How many events it has handled so far."""
        return sum(inlet.handled for inlet in self._intake.inlets())

    def _settled(self, entry: Entry, started: float, outcome: str) -> float:
        """After the outcome was counted: closes the books of this entry."""
        ended = self._time()
        self._delivery = None
        self._handling += ended - started
        self._strand.in_flight = None
        self._waiting += max(0.0, started - self._tell(entry, outcome, ended - started))
        return ended

    def _tell(self, entry: Entry, outcome: str, seconds: float = 0.0) -> float:
        """Tells who follows this event, if anybody does, after the instruments; returns when it was offered."""
        follower = entry[2]
        if isinstance(follower, int | float):
            return follower
        panel = self._host._panel
        if panel is not None and outcome == "handled" and (event := self._event_of(entry)) is not None:
            panel.handled(event, self, seconds)
        follower.settle(self._strand.mailbox, outcome)
        return follower.stamp

    def _note_retry(self, entry: Entry, later: Step) -> None:
        """Tells instruments of a failed attempt, after which there will be another."""
        panel = self._host._panel
        event = self._event_of(entry)
        if panel is not None and event is not None and later.error is not None:
            panel.failed(event, self, later.error, later.attempt - 1)
            panel.retried(event, self, later.delay)

    def _fail(self, entry: Entry, reason: Reason, error: BaseException, attempts: int) -> None:
        """The event is given up: instruments are told, and it becomes a dead letter."""
        panel, event = self._host._panel, self._event_of(entry)
        if panel is not None and event is not None:
            panel.failed(event, self, error, attempts)
        self._report(event, reason, error, attempts)

    def _event_of(self, entry: Entry) -> Event[Any] | None:
        """The event that an entry is, or, behind a mailbox in the middle of a chain, the one that it came from."""
        value = entry[0]
        if isinstance(value, Event):
            return cast("Event[Any]", value)
        delivery = entry[1].get(current_delivery)
        return None if delivery is None else delivery[0]

    # -- what else the strand calls

    def _broken_off(self, entry: Entry) -> Step:
        attempt = 1 if self._delivery is None else self._delivery[2]
        self._delivery, self._later, self._failure = None, (), None
        step = Step(self._handle, attempt, 0.0, None)
        step.entry = entry
        return step

    def _begun(self, held: Step) -> int:
        return held.begun

    def _keeps_held(self, held: Step) -> bool:
        return held.is_kept

    def _cancel_held(self, held: Step) -> None:
        error = held.cancel()
        entry = self._held_entry(held)
        if not held.is_kept:
            if error is not None:
                _log_failure(self._name, self._event_of(entry), Reason.FAILED, error, held.attempt)
            return
        outcome = "handled" if held.cancelled is None and not held.rest else "dropped"
        failure = held.failure or error
        if failure is not None:
            self._give_up(entry, self._host._now(), failure, held.attempt)
            return
        with self._strand.lock:
            self._intake.book(entry, outcome)
        if outcome == "dropped":
            self._note_drop(entry, DISPOSED)
        self._settled(entry, self._host._now(), outcome)

    def _count(self, entry: Entry, outcome: str) -> None:
        """Counts a failed or dropped entry; the strand's lock is held."""
        self._intake.book(entry, outcome)

    def _refuse(self, entry: Entry, reason: Reason, error: Exception, attempts: int = 0) -> None:
        """Makes the dead letter of an entry that was counted as failed without having been handled to its end."""
        self._fail(entry, reason, error, attempts)
        self._tell(entry, "failed")

    def _release(self, entry: Entry, reason: str) -> None:
        """Lets go of an entry that was counted as dropped."""
        self._note_drop(entry, reason)
        self._tell(entry, "dropped")

    def _note_drop(self, entry: Entry, reason: str) -> None:
        panel, event = self._host._panel, self._event_of(entry)
        if panel is not None and event is not None:
            panel.dropped(event, self, reason)

    def _action_failed(self, error: BaseException) -> None:
        """Reports what a timer's emission raised: it belongs to no event in progress."""
        delivery = current_delivery.get()
        self._report_late(delivery, error)

    def _terminate(self, error: Exception | None) -> None:
        """The topic ended, and everything before that was handled."""
        self._end()

    # -- failures

    def _mark_failed(self, delivery: RawDelivery, error: BaseException) -> None:
        """Code in the middle of the event reports its failure without raising it; the first report of an event counts."""
        if delivery is not self._delivery or not self._strand.running_here():
            self._report_late(delivery, error)
        elif self._failure is None:
            self._failure = error

    def _defer(self, delivery: RawDelivery, step: Step) -> bool:
        """Has the event in progress go on with that step after a pause; False if the delivery isn't in progress here any more."""
        if delivery is not self._delivery or not self._strand.running_here():
            return False
        self._later = [*self._later, step]
        return True

    def _is_at(self, delivery: RawDelivery) -> bool:
        """Whether that very one is in progress."""
        return any(one._delivery is delivery for one in (self, *self._lanes))

    def _in_progress(self) -> Subscription | None:
        """Who may be told, by the calling code, how the event in progress goes on; ``None`` if there is none."""
        return self

    def _go_on_after(self, wait: Pause, call: Callable[[], object], cancelled: Callable[[], object] | None = None) -> None:
        """Has the event in progress, some results of which are published, go on with that call after a wait."""
        attempt = 1 if self._delivery is None else self._delivery[2]
        step = Step(lambda _: call(), attempt, 0.0, None, cancelled, wait=wait, is_kept=True)
        self._later = [*self._later, step]

    def _report_late(self, delivery: RawDelivery | None, error: BaseException) -> None:
        """Reports a failure after its event was settled: a dead letter more, but nothing to count."""
        self._report(None if delivery is None else delivery[0], Reason.FAILED, error, 1)

    def _report(self, event: Any, reason: Reason, error: BaseException, attempts: int) -> None:
        if not isinstance(event, Event):
            delivery = current_delivery.get()  # what stands behind a mailbox in the middle of a chain
            event = event if delivery is None else delivery[0]
        trace = traceback_text(error) if error.__traceback__ is not None else ""
        _log_failure(self._name, event, reason, error, attempts)
        self._last_error = without_frames(error)
        if isinstance(event, Event):
            self._host._add_letter(DeadLetter(cast("Event[Any]", event), self._name, reason, error, trace, attempts, self._now()))

    # -- the end

    def _flush(self) -> None:
        """Has what operators hold come out; there are none here."""

    def _end(self) -> bool:
        """Detaches and closes; whether it was this call that did it."""
        self._host._detach(self)  # first: from here on no inlet feeds the strand
        dropped = self._strand.close()
        if dropped is None:
            return False
        self._say_end(dropped)
        return True

    def _say_end(self, dropped: int) -> None:
        try:
            self._log_end(dropped)
        except BaseException:
            pass  # a log handler that raises is no reason to be half closed

    def _log_end(self, dropped: int) -> None:
        """Says what the end cost."""
        if dropped:
            _log.info("subscription %r on %r has ended; %d queued events were dropped", self._name, self._pattern, dropped)

    def _closed(self) -> None:
        """The last run has ended."""
        if not self._retired:
            self._host._retire(self)
            self._retired = True  # after that, or Ctrl-C could come between


def _log_failure(name: str, event: Any, reason: Reason, error: BaseException, attempts: int) -> None:
    """One line; a log handler that raises must not cost the subscription its life."""
    try:
        if isinstance(event, Event):
            _log.error(
                "subscription %r gave up event %s of topic %r (%s, attempts: %d): %s",
                name, event.id, event._topic, reason.value, attempts, error_text(error),
            )  # fmt: skip
        else:
            _log.error("subscription %r failed (%s): %s", name, reason.value, error_text(error))
    except BaseException:
        pass

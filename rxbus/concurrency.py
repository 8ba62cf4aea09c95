"""The subscription that handles several events at a time: `PipelineSubscription` with a crew behind it.

What comes out of the pipeline isn't handled by the strand's run but handed over to a `CrewOfLanes`. An event is settled when the
pipeline is done with it and every call that it led to has ended; that may be on any lane's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from reactivex import Observable

from .consumer import Pipeline, PipelineSubscription
from .crew import CrewOfLanes, Lane, Work
from .event import Event, RawDelivery, current_delivery
from .handler import Handler
from .host import Place
from .loops import LoopExecutor
from .mailbox import Entry
from .outcome import Reason
from .recovery import Retry
from .request import Answers
from .step import Step
from .strand import DISPOSED, Strand
from .subscription import Subscription
from .topic import Named, Topic
from .waits import here


def _as_it_is(source: Observable[Event[Any]]) -> Observable[Event[Any]]:
    return source


class ConcurrentSubscription(PipelineSubscription):
    """A handler that runs several at a time, behind a pipeline that doesn't."""

    __slots__ = ("_crew", "_last", "_said", "_work")

    def __init__(
        self,
        place: Place,
        handler: Handler,
        pipeline: Pipeline | None,
        *,
        concurrency: int,
        key: Callable[[Any], Hashable] | None = None,
        to: Topic[Any] | Named | Answers | None = None,
        retry: Retry | None = None,
        loop: LoopExecutor | None = None,
        timeout: float | None = None,
    ) -> None:
        super().__init__(place, handler, pipeline or Pipeline(_as_it_is), to=to, retry=retry)
        self._timeout = timeout
        self._crew = CrewOfLanes(self, concurrency, self._publishing, key, loop)
        self._strand.crew = self._crew
        self._publishing = self._hand_over
        self._work: Work | None = None
        self._said = False
        self._last: Callable[[], object] | None = None
        """What to do when the last call has ended."""

    # -- one event

    def _process(self, entry: Entry, started: float, call: Callable[[Any], object] | None = None, attempt: int = 1) -> float:
        event = entry[0]
        delivery: RawDelivery | None = (event, self, attempt)
        if self._boxed:
            upstream = current_delivery.get()
            delivery = None if upstream is None else (upstream[0], self, attempt)
        self._delivery = delivery
        current_delivery.set(delivery)
        if self._work is None or call is None:  # with a call, it goes on with what it had begun
            self._work = Work(entry, delivery)
        try:
            (call or self._handle)(event)
        except BaseException as error:
            ended = self._failed(entry, started, error, attempt)
        else:
            if self._later or self._failure is not None:
                ended = self._unfinished(entry, started, attempt)
            else:
                ended = self._settled(entry, started, "handled")
        if self._ending and not self._strand.is_suspended:
            self._complete()
        return ended

    def _hand_over(self, value: Any) -> None:
        work = self._work if self._feeding and not self._connecting else None
        if work is None:  # a timer's emission
            work = Work(None, current_delivery.get())
            work.fed = True
        self._crew.hand_over(work, value)

    def _attempt(self, value: Any, attempt: int) -> bool:
        """Hands one value to the crew; a key function that raises fails the event, without another attempt."""
        try:
            self._hand_over(value)
        except BaseException as error:
            if self._value_error is None:
                self._value_error = error
        return False

    def _give_up(self, entry: Entry, started: float, error: BaseException, attempts: int, reason: Reason | None = None) -> float:
        assert self._work is not None
        self._work.fail(error, attempts, reason or Reason.FAILED)
        return self._settled(entry, started, "failed")

    def _settled(self, entry: Entry, started: float, outcome: str) -> float:
        """The pipeline is done with it; its calls go on."""
        ended = self._host._now()
        self._delivery = None
        self._handling += ended - started
        stamp: Any = entry[2]
        self._waiting += max(0.0, started - (stamp if isinstance(stamp, float) else stamp.stamp))
        work, self._work = self._work, None
        assert work is not None
        work.seconds += ended - started
        if self._fuse is not None and self._fuse.on_trial:
            self._crew.trial = work
            self._strand.break_off()  # nothing else before it is known what comes of this one
        self._crew.fed(work)
        self._strand.in_flight = None
        return ended

    def _book(self, work: Work, *, opened: bool = False) -> None:
        """All that the event led to has ended. Without its lock: a letter may be made."""
        trial = self._crew.trial is work
        if trial:
            self._crew.trial = None
        entry = work.entry
        if entry is None:
            if work.error is not None:
                self._report_late(work.delivery, work.error)
            if trial:
                self._decide(work.error is not None)
            return
        outcome = "failed" if work.error is not None else "dropped" if work.dropped else "handled"
        if outcome == "dropped" and not work.begun and self._strand.give_back(entry):
            with self._strand.lock:
                self._crew.open -= opened
            return
        if work.error is not None:
            self._fail(entry, work.reason, work.error, work.attempts)
        with self._strand.lock:
            self._intake.book(entry, outcome)
            if opened:
                self._crew.open -= 1
        if trial or outcome == "failed":
            self._decide(outcome == "failed", trial=trial)
        if outcome == "dropped":
            self._note_drop(entry, DISPOSED)
        self._tell(entry, outcome, work.seconds)

    def _decide(self, failed: bool, *, trial: bool = True) -> None:
        """Tells the breaker, if there is one."""
        fuse = self._fuse
        if fuse is None:
            return
        if failed:
            fuse.failed(trial=trial)
        else:
            fuse.handled()

    # -- code in the middle of an event

    def _mark_failed(self, delivery: RawDelivery, error: BaseException) -> None:
        lane = self._lane_here()
        if lane is not None:
            lane._mark_failed(delivery, error)
        else:
            super()._mark_failed(delivery, error)

    def _defer(self, delivery: RawDelivery, step: Step) -> bool:
        lane = self._lane_here()
        return lane._defer(delivery, step) if lane is not None else super()._defer(delivery, step)

    def _in_progress(self) -> Subscription | None:
        return self._lane_here()

    def _lane_here(self) -> Lane | None:
        running = here.running
        consumer = running.consumer if isinstance(running, Strand) else None
        return consumer if isinstance(consumer, Lane) and consumer._owner is self else None

    # -- what its user sees

    def resume(self) -> None:
        """Goes on after `pause`."""
        super().resume()
        self._crew.kick()

    @property
    def _lanes(self) -> Sequence[Subscription]:
        return self._crew.lanes

    # -- the end

    def _complete(self) -> None:
        self._ending = True
        if not self._said:
            self._host._detach(self)
            self._strand.stop_taking()
            self._say_end(self._strand.drop_queue())
            self._said = True
            self._when_at_rest(super()._complete)

    def _say_end(self, dropped: int) -> None:
        if not self._said:
            super()._say_end(dropped)

    def _terminate(self, error: Exception | None) -> None:
        self._clean.copy().run(self._strand.step, self._complete_head)
        self._when_at_rest(self._end)

    def _when_at_rest(self, act: Callable[[], object]) -> None:
        with self._strand.lock:
            if self._crew.calls:
                self._last = act
                return
        act()

    def _at_rest(self) -> None:
        """The last call has ended."""
        with self._strand.lock:
            if self._crew.calls:
                return
            act, self._last = self._last, None
        if act is not None:
            act()
        self._strand.retire()

    def _end(self) -> bool:
        ended = super()._end()
        self._crew.dispose()
        return ended

"""Several events of one subscription at a time: its strand hands the handler's calls to a crew of lanes.

The strand stays what it is: one serial run that takes from the mailbox and feeds the pipeline. What comes out is one `Call`
each, which a free lane takes; a lane is a serial subscription of its own, so retries and their pauses work there as everywhere.
The strand takes nothing more while no lane is free. With a key, a call whose key is busy *parks* until the one before it has
ended; parked calls count against the mailbox's capacity, so that the bound holds. A free lane takes the oldest call there is.

Everything here is guarded by the lock of the strand; no user code runs under it. The keys' dictionary compares keys, which is
user code: only the strand's run touches it, and lanes leave what they are done with in ``_done``.
"""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any

from .event import RawDelivery
from .host import Place
from .inlet import ANY_NUMBER
from .loops import LoopExecutor
from .mailbox import Entry, Mailbox, Overflow
from .outcome import DeadLetter, Reason
from .schedulers import Executor, SchedulerExecutor
from .step import Step, reason_of
from .strand import Strand
from .subscription import Subscription
from .waits import Waiter

if TYPE_CHECKING:
    from .concurrency import ConcurrentSubscription


class Line:
    """The calls of one key: one is under way, the others are parked."""

    __slots__ = ("busy", "key", "parked")

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.busy = False
        self.parked: deque[Call] = deque()


class Work:
    """One event that the pipeline has or had, with the calls that it led to. Without an entry: what a timer emitted."""

    __slots__ = ("attempts", "begun", "calls", "delivery", "dropped", "entry", "error", "fed", "reason", "seconds", "tried")

    def __init__(self, entry: Entry | None, delivery: RawDelivery | None) -> None:
        self.entry = entry
        self.delivery = delivery
        self.calls = 0
        """Those that haven't ended."""
        self.fed = False
        """The pipeline is done with it."""
        self.error: BaseException | None = None
        self.reason = Reason.FAILED
        self.attempts = 1
        self.dropped = False
        """A call of it was taken back, or came too late."""
        self.begun = False
        """A call of it has ended."""
        self.tried = 0
        """How often the handler was begun with what was taken back of it."""
        self.seconds = 0.0
        """Spent in the pipeline and in the last attempts of its calls."""

    def fail(self, error: BaseException, attempts: int, reason: Reason = Reason.FAILED) -> None:
        """Notes a failure; the first one counts."""
        if self.error is None:
            self.error, self.attempts, self.reason = error, attempts, reason


class Call:
    """One call of the handler; follows the lane's entry."""

    __slots__ = ("_crew", "context", "lane", "line", "number", "stamp", "value", "work")

    def __init__(self, crew: CrewOfLanes, work: Work, value: Any, line: Line | None) -> None:
        self._crew = crew
        self.work = work
        self.value = value
        self.line = line
        self.context: Context = copy_context()
        self.stamp = crew._now()
        self.number = next(crew.numbers)
        self.lane: Lane | None = None

    def __lt__(self, other: Call) -> bool:
        return self.number < other.number

    def settle(self, mailbox: Mailbox, outcome: str) -> None:
        """It has ended, in its lane."""
        self._crew.ended(self, outcome)


class Lane(Subscription):
    """One hand of the crew: handles one call at a time, with its retries, in the name of its subscription."""

    __slots__ = ("_owner",)

    def __init__(self, crew: CrewOfLanes, owner: Subscription, call: Callable[[Any], object], executor: Executor) -> None:
        mailbox = Mailbox(ANY_NUMBER, Overflow.FAIL, 0.0)
        super().__init__(Place(owner.name, "lane", crew, mailbox, executor), envelopes=False, retry=owner._retry)
        self._owner = owner
        self._boxed = True
        self._handle = call
        self._timeout = owner._timeout

    @property
    def _speaker(self) -> Subscription:
        return self._owner

    def _failed(self, entry: Entry, started: float, error: BaseException, attempt: int) -> float:
        if _call_of(entry).work.entry is None and not self._later:
            # what a timer emitted: its events were settled, so it can only be reported
            return self._give_up(entry, started, error, attempt)
        ended = super()._failed(entry, started, error, attempt)
        self._owner._last_error = self._last_error or self._owner._last_error
        return ended

    def _give_up(self, entry: Entry, started: float, error: BaseException, attempts: int, reason: Reason | None = None) -> float:
        _call_of(entry).work.fail(error, attempts, reason or reason_of(error))
        return self._settled(entry, started, "failed")

    def _refuse(self, entry: Entry, reason: Reason, error: Exception, attempts: int = 0) -> None:
        _call_of(entry).work.fail(error, attempts, reason)
        self._tell(entry, "failed")

    def _tell(self, entry: Entry, outcome: str, seconds: float = 0.0) -> float:
        _call_of(entry).work.seconds += seconds  # before the end of the call is told, and with it, perhaps, that of the event
        return super()._tell(entry, outcome, seconds)

    def _note_retry(self, entry: Entry, later: Step) -> None:
        told = _call_of(entry).work.entry
        if told is not None:
            self._owner._note_retry(told, later)

    def _proceed(self, held: Step, started: float) -> float:
        self._note_attempt(held)
        return super()._proceed(held, started)

    async def _proceed_coroutine(self, held: Step, started: float) -> float:
        assert held.entry is not None
        held.entry[1].run(self._note_attempt, held)  # the attempt's context is a copy of this one
        return await super()._proceed_coroutine(held, started)

    def _note_attempt(self, held: Step) -> None:
        panel, told = self._owner._host._panel, None if held.entry is None else _call_of(held.entry).work.entry
        if panel is not None and told is not None and held.is_attempt and (event := self._event_of(told)) is not None:
            panel.handling(event, self._owner, held.attempt)

    def _report(self, event: Any, reason: Reason, error: BaseException, attempts: int) -> None:
        self._owner._report(event, reason, error, attempts)


def _call_of(entry: Entry) -> Call:
    call = entry[2]
    assert isinstance(call, Call)
    return call


class CrewOfLanes:
    """Up to ``size`` lanes and the calls that wait for one."""

    def __init__(
        self,
        owner: ConcurrentSubscription,
        size: int,
        call: Callable[[Any], object],
        key: Callable[[Any], Hashable] | None,
        loop: LoopExecutor | None = None,
    ) -> None:
        self._owner = owner
        self._strand: Strand = owner._strand
        executor = self._strand.executor
        self.executor: Executor = loop or executor
        threads = executor.threads if isinstance(executor, SchedulerExecutor) else None
        # lanes that have no thread to run on would only seem to be able to; coroutines need none
        inline = self._strand.is_inline and loop is None
        self._size = 1 if inline else size if threads is None or loop is not None else min(size, threads)
        self._call = call
        self._key = key
        self._now = owner._host._now
        self._is_virtual = owner._host._is_virtual
        self._bus = owner._host
        """Whose handlers its lanes are, when it comes to waiting for oneself."""
        if key is not None:
            self._strand.mailbox.parks()
        self.numbers = itertools.count()
        self.lanes: list[Lane] = []
        self._idle: list[Lane] = []
        self._ready: list[Call] = []
        """A heap of calls that only wait for a lane."""
        self._parked: OrderedDict[int, Call] = OrderedDict()
        self._lines: dict[Hashable, Line] = {}
        self._done: deque[Line] = deque()
        self._unbooked: list[Work] = []
        """Events whose last calls were taken back, after others of theirs had ended; they still count among ``calls``."""
        self.trial: Work | None = None
        """The event whose outcome decides whether the breaker stays open."""
        self.open = 0
        self.calls = 0

    # -- as waits see it

    @property
    def members(self) -> Sequence[Strand]:
        """The lanes' strands."""
        return [lane._strand for lane in self.lanes]

    @property
    def has_spare(self) -> bool:
        """Whether there may be a lane more."""
        return len(self.lanes) < self._size

    @property
    def is_ordered(self) -> bool:
        """Whether an event may have to wait for a particular lane."""
        return self._key is not None

    @property
    def is_running(self) -> bool:
        """Whether one of them is in a handler."""
        return any(lane._strand.is_running and lane._strand.in_flight is not None for lane in self.lanes)

    def holders(self, follower: object) -> list[Waiter]:
        """The lanes that have a call in hand of the event which that one follows."""
        found: list[Waiter] = []
        for lane in self.lanes:
            entry = lane._strand.in_flight
            work = None if entry is None else _call_of(entry).work
            if work is not None and work.entry is not None and work.entry[2] is follower:
                found.append(lane._strand)
        return found

    # -- the strand's run

    def hand_over(self, work: Work, value: Any) -> None:
        """Has the handler called with that value, now or when a lane is free. Raises what the key function raises."""
        line = None if self._key is None else self._line(self._key(value))
        call = Call(self, work, value, line)
        with self._strand.lock:
            if self._strand.is_closed:
                work.dropped = True
                return
            work.calls += 1
            self.calls += 1
            if line is not None and line.busy:
                line.parked.append(call)
                self._park(call)
            else:
                if line is not None:
                    line.busy = True
                heapq.heappush(self._ready, call)
            started = self._assign()
        for lane in started:
            lane._strand.wake()

    def _line(self, key: Hashable) -> Line:
        lines = self._lines
        while self._done:
            done = self._done.popleft()
            if not done.busy:
                lines.pop(done.key, None)
        line = lines.get(key)
        if line is None:
            line = lines[key] = Line(key)
        return line

    def fed(self, work: Work) -> None:
        """The pipeline is done with the event."""
        with self._strand.lock:
            work.fed = True
            if work.calls:
                self.open += 1
                return
        self._owner._book(work)

    # -- lanes

    def _assign(self) -> list[Lane]:
        """Gives waiting calls to free lanes; those lanes are to be woken. The lock is held."""
        started: list[Lane] = []
        while self._ready and (self._idle or len(self.lanes) < self._size):
            if not self._strand.holds_back:
                started.append(self._start(heapq.heappop(self._ready)))
                continue
            call = self._next_on_trial()
            if call is None:
                break
            started.append(self._start(call))
        if not self._idle and len(self.lanes) == self._size:
            self._strand.fill()
        return started

    def _next_on_trial(self) -> Call | None:
        """While the breaker is open only what belongs to the event on trial begins: that has to come to its end. Out of the heap."""
        if self.trial is None or not self._strand.is_broken_off:
            return None
        call = min((call for call in self._ready if call.work is self.trial), default=None)
        if call is not None:
            self._ready.remove(call)
            heapq.heapify(self._ready)
        return call

    def _start(self, call: Call) -> Lane:
        lane = self._idle.pop() if self._idle else self._new_lane()
        call.lane = lane
        lane._strand.mailbox.queue.append((call.value, call.context, call))
        return lane

    def try_one(self) -> bool:
        """Has one waiting call made though the strand is held back; False if none waits."""
        with self._strand.lock:
            if not self._ready or self._strand.is_closed:
                return False
            self.trial = self._ready[0].work
            started = [self._start(heapq.heappop(self._ready)), *self._assign()]
        for lane in started:
            lane._strand.wake()
        return True

    def _new_lane(self) -> Lane:
        lane = Lane(self, self._owner, self._call, self.executor)
        self.lanes.append(lane)
        return lane

    def ended(self, call: Call, outcome: str) -> None:
        """A lane is done with its call."""
        work, line, lane = call.work, call.line, call.lane
        with self._strand.lock:
            work.calls -= 1
            work.dropped |= outcome == "dropped"
            work.begun |= outcome != "dropped"
            last = work.fed and not work.calls
        if last:
            self._owner._book(work, opened=work.entry is not None)  # first: it may say that nothing more begins for now
        with self._strand.lock:
            if line is not None:
                self._next_of(line)
            if lane is not None and not lane.is_disposed:
                self._idle.append(lane)
            started = self._assign()
            free = bool(self._idle)
            self.calls -= 1  # after the books: until then it isn't quiet
            rest = not self.calls
        for other in started:
            if other is not lane:  # that one looks at its mailbox next
                other._strand.wake()
        if free:
            self._strand.clear()
        if rest:
            self._owner._at_rest()
        if self._strand._watchers:
            self._strand._notify()

    def _next_of(self, line: Line) -> None:
        if line.parked:
            following = line.parked.popleft()
            self._unpark(following)
            heapq.heappush(self._ready, following)
        else:
            line.busy = False
            self._done.append(line)

    def kick(self) -> None:
        """After a pause, or when Ctrl-C may have come between: what waits may go on."""
        with self._strand.lock:
            started = self._assign()
        for lane in (*started, *self.lanes):
            if lane._strand.has_work():
                lane._strand.wake()

    def dispose(self) -> None:
        """Ends all lanes; calls in progress may finish. The lock is not held."""
        for lane in self.lanes:
            lane.dispose()

    def book_rest(self) -> None:
        """Books the events whose last calls were taken back after others had ended. The lock is not held."""
        for lane in self.lanes:
            lane._strand._cancel_taken()
        while self._unbooked:
            work = self._unbooked.pop()
            self._owner._book(work, opened=work.entry is not None)
            with self._strand.lock:
                self.calls -= 1
        if not self.calls:
            self._owner._at_rest()

    # -- parked calls

    def _park(self, call: Call) -> None:
        self._parked[call.number] = call
        self._strand.mailbox.limit -= 1

    def _unpark(self, call: Call) -> None:
        if self._parked.pop(call.number, None) is not None:
            mailbox = self._strand.mailbox
            mailbox.limit += 1
            if mailbox.watched:
                mailbox.taken()

    def take_oldest(self) -> Entry | None:
        """The parked event that waits longest, taken back; ``None`` if there is none that can be."""
        with self._strand.lock:
            calls = self._oldest()
            return None if calls is None else self._take_back_all(calls)

    def _oldest(self) -> list[Call] | None:
        """All calls of that event. The lock is held."""
        for call in self._parked.values():
            work = call.work
            if work.entry is None or not work.fed or work.begun or work.error is not None:
                continue
            calls = [call] if work.calls == 1 else [other for other in self._parked.values() if other.work is work]
            if len(calls) == work.calls:
                return calls
        return None

    def _take_back_all(self, calls: list[Call]) -> Entry | None:
        entry = None
        for call in calls:
            assert call.line is not None
            call.line.parked.remove(call)
            entry = self._take_back(call, whole=True)
        return entry

    def _take_back(self, call: Call, error: Exception | None = None, *, whole: bool = False) -> Entry | None:
        """Gives up a call that no lane has begun with; its entry, if that is as it was. The lock is held."""
        self._unpark(call)
        self.calls -= 1
        work = call.work
        work.calls -= 1
        if whole and work.calls:
            return None  # the others come next
        if work.calls or not work.fed or work.begun:
            if error is not None:
                work.fail(error, work.tried, Reason.UNDELIVERABLE)
            work.dropped = True
            if work.fed and not work.calls:
                self.calls += 1  # until it is booked
                self._unbooked.append(work)
            return None
        self.open -= work.entry is not None
        return work.entry

    def take_waiting(self, error: Exception | None) -> Iterable[tuple[Entry, int]]:
        """All events that wait for a lane, or in one for another attempt, taken back. The lock is held."""
        given: list[Call] = []
        for strand in self.members:
            for held, begun in strand._take_taken():  # it waits for another attempt
                call = _call_of(held)
                call.work.tried = max(call.work.tried, begun)
                given.append(call)
            given += map(_call_of, strand._take_queue())  # its lane has not begun with it
        waiting = sorted([*given, *self._ready, *self._parked.values()])
        self._ready.clear()
        self._idle += [call.lane for call in given if call.lane is not None]
        if self._idle:
            self._strand.unfill()
        for call in waiting:
            line = call.line
            if line is not None:
                line.parked.clear()
                if call.number not in self._parked:  # it was the one under way
                    line.busy = False
                    self._done.append(line)
            entry = self._take_back(call, error)
            if entry is not None:
                yield entry, call.work.tried

    # -- as the host of its lanes

    _panel = None
    """Their subscription tells instruments what is to be told."""

    def _add_letter(self, letter: DeadLetter) -> None:
        """Lanes make none."""

    def _detach(self, subscription: Subscription) -> None:
        """No topic feeds a lane."""

    def _retire(self, subscription: Subscription) -> None:
        """Nobody keeps the books of a lane."""

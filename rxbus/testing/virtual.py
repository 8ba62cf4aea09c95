"""A bus on virtual time, without threads.

It is the whole bus, not a model of it: the same topics, mailboxes, strands, retries, breakers and requests. What differs is who
runs them (the thread that lets time pass) and what their clock is. See `clock` for how steps are made, and `loop` for coroutines.

A plain function that waits inside its handler (`deliver`, `Request.run`, a publish into a full mailbox) has others run meanwhile, on
top of its own stack. So it goes on only when those that began inside it have come to their end or wait themselves for something
else than time; where threads would have gone on in another order, a deadline is met later than it would be with them.

Two things are not on virtual time by themselves. RxPY's own timed operators (``ops.delay``, ``ops.debounce``) in a chain that test
code composes with ``observe(...).pipe(...)`` have RxPY's real clock, unless they are given ``scheduler=bus.scheduler``, there or at
``subscribe``; with ``through=`` and `VirtualBus.record` they are given it. And an `Event` that test code makes outside of handlers,
with ``Event(...)`` or ``event.derive(...)``, has the real time and an id at random: such an event knows no bus.
"""

from __future__ import annotations

import asyncio
import math
import weakref
from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import partial
from typing import Any, TypeVar, cast

from reactivex import Observable, abc
from reactivex.scheduler import TimeoutScheduler, VirtualTimeScheduler
from reactivex.scheduler.eventloop import AsyncIOScheduler

from .. import shutdown
from ..arguments import describe, flag
from ..arguments import seconds as checked
from ..arguments import text as _text
from ..bus import EventBus
from ..errors import BusError, DrainTimeoutError
from ..instrument import Instrument
from ..loops import LoopExecutor
from ..mailbox import DEFAULT_BLOCK_TIMEOUT, DEFAULT_CAPACITY, Overflow, Parcel, Ticket
from ..marbles import parse
from ..observer import Observed, TapSubscription
from ..outcome import CloseReport, Receipt
from ..pattern import is_wild
from ..recording import Recording, record
from ..schedulers import Executor, executor_for
from ..subscription import Subscription
from ..topic import Topic
from .clock import StandsStill, VirtualExecutor, VirtualScheduler
from .feed import Feed
from .loop import VirtualLoopThread
from .traffic import ObservedVirtualTopic, VirtualRequest, VirtualTopic, Watched

T = TypeVar("T")
ROUNDS = 100
"""Turns that `adrain` gives to the loop outside, whose coroutines may have to take what waits in a stream."""


def _never() -> bool:
    return False


def _finally(act: Callable[[], object], then: Callable[[], object]) -> None:
    try:
        act()
    finally:
        then()


class VirtualBus(EventBus):
    """An `EventBus` on virtual time, without threads: an hour passes in no time, and in the same way each time.

    Time begins at 0 and passes in `advance`, and in what would wait on other buses: `drain`, `deliver`, `Request.run`,
    `Recording.wait_for`, a publish into a full mailbox. Those never block; what can't progress raises. ``Event.time``, retries
    (without jitter), breakers, ``debounce``, timeouts and ``asyncio.sleep`` in coroutine handlers all have this one clock; all
    seconds are virtual. `close` and `drain` may be called from a coroutine of another loop, too.
    """

    _is_virtual = True
    _request_type = VirtualRequest
    _loop_thread: VirtualLoopThread

    def __init__(
        self,
        name: str = "virtual",
        *,
        capacity: int = DEFAULT_CAPACITY,
        overflow: Overflow = Overflow.BLOCK,
        block_timeout: float = DEFAULT_BLOCK_TIMEOUT,
        close_timeout: float = 30.0,
        max_hops: int | None = None,
        instruments: Iterable[Instrument] = (),
        dead_letter_capacity: int = 10_000,
    ) -> None:
        self._time = VirtualScheduler(_text("name", name))
        super().__init__(
            name, scheduler=self._time, capacity=capacity, overflow=overflow, block_timeout=block_timeout, close_timeout=close_timeout,
            max_hops=max_hops, instruments=instruments, dead_letter_capacity=dead_letter_capacity,
        )  # fmt: skip
        self._now = self._time.seconds
        self._loop_thread = VirtualLoopThread(self._name, self._time)
        self._finishing: asyncio.Task[None] | None = None
        """A close that a coroutine outside asked for, and didn't wait for."""
        self._feeds = 0
        """Publishes of feeds that are still to come."""
        self._taps: dict[str, weakref.WeakSet[TapSubscription]] = {}
        """By topic, the recordings that the end of a feed ends."""
        shutdown.open_buses.discard(self)  # what is left of it when the process ends is nobody's

    def __repr__(self) -> str:
        return f"{super().__repr__()}, at {self._monotonic():g} s"

    # -- time

    @property
    def scheduler(self) -> VirtualScheduler:
        """The virtual time scheduler: for operators outside of the bus, and for its ``clock`` and ``now``."""
        return self._time

    def advance(self, seconds: float) -> None:
        """Lets that much time pass, and all happen that is due meanwhile; 0 is for what is due now.

        Raises: `TypeError` or `ValueError` for what is no number of seconds; `BusError` from a handler, or when time stands
        still because agents feed each other without an end.
        """
        wait = checked("seconds", seconds)
        if self._inside_handler() or self._on_loop():
            raise BusError(f"advance of bus {self._name!r} from one of its handlers: a handler can't make time pass, only wait for it")
        self._time.run_until(_never, self._monotonic() + wait)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine on virtual time, and returns its result: the body of a test that awaits.

        Raises: `BusError` from a handler, or when nothing is scheduled any more that could make it end; `BusClosedError`.
        """
        if not asyncio.iscoroutine(coroutine):
            raise TypeError(f"coroutine must be a coroutine, such as main(), got {describe(coroutine)}")
        if self._loop_thread.loop.is_closed():
            coroutine.close()
            raise self._registry.closed_error()
        if self._inside_handler() or self._on_loop():
            coroutine.close()
            raise BusError(f"run on bus {self._name!r} from one of its handlers: await the coroutine there")
        with self._loop_thread.in_use():
            try:
                return self._loop_thread.loop.run_until_complete(coroutine)
            finally:
                if self._closing and not self._closed.is_set():
                    self.close()  # was asked for in the coroutine, which has ended before that could be finished

    def _monotonic(self) -> float:
        return self._time.seconds()

    def _on_loop(self) -> bool:
        return self._loop_thread.runs_here()

    # -- diagrams in and out

    def feed(
        self, topic: str | Topic[Any], text: str, values: Mapping[str, Any] | None = None, *, error: Exception | None = None
    ) -> Recording:
        """Has the diagram published on a topic, from now on; one character is 0.1 s.

        ``values`` maps characters to payloads; others are themselves. ``|`` ends recordings of that very topic, and not
        the topic. So does ``#``, with ``error``: the topic reports a failed upstream, and lives on.
        Returns a recording of what was published. `drain` waits for all of it.

        Raises: `TopicNameError`, `PayloadTypeError`, `BusClosedError`, `TypeError`; `ValueError` that shows where the diagram is
        wrong.
        """
        said = parse(text, values, error)
        self._refuse_when_closing()
        found = self._topic(topic)
        for one in said:
            if one.kind == "next":
                found._check_payload(one.payload)
        fed = Feed(self, found, Recording(found.name, self._now, self._time.run_until))
        self._feeds += len(said)
        for one in said:
            self._time.after(one.time, partial(fed.take, one))
        return fed.recording

    def record(self, pattern: str | Topic[Any] | Observable[Any], name: str | None = None) -> Recording:
        """Records what the matching topics carry from now on; or any observable, whose operators then are on virtual time.

        Raises: `TopicNameError`, `BusClosedError`, or `TypeError` or `ValueError` naming the argument.
        """
        given: Any = pattern
        if isinstance(given, Observed):
            return record(cast("Observable[Any]", given), name)
        if isinstance(given, Observable) and not isinstance(given, Topic):
            return record(cast("Observable[Any]", given), name, scheduler=self._time)
        return record(self.observe(cast("str | Topic[Any]", given)), name)

    def _tap(self, pattern: str, observer: abc.ObserverBase[Any], name: str) -> abc.DisposableBase:
        tap = super()._tap(pattern, observer, name)
        if isinstance(tap, TapSubscription) and not is_wild(pattern):
            self._taps.setdefault(pattern, weakref.WeakSet()).add(tap)
        return tap

    # -- waiting is letting time pass

    def _wait_for(self, ticket: Ticket, targets: list[Parcel], latest: float | None, topic: str) -> bool:
        holds: Callable[[], bool] = lambda: not ticket.unsettled()  # noqa: E731 - one that may be watched
        settled = self._time.run_until(holds if latest is not None else Watched(holds, self._everybody, self._time), latest)
        if not settled and latest is None:
            busy = ticket.unsettled()
            names = ", ".join(busy)
            message = f"deliver to topic {topic!r}: at {self._monotonic():g} s nothing more is scheduled, and it is not settled by: {names}"
            raise DrainTimeoutError(message, busy)
        return settled

    async def _wait_patiently(self, ticket: Ticket, targets: list[Parcel], topic: str) -> None:
        while not await ticket.settled_within(math.inf):
            pass

    async def adeliver(
        self, topic: str | Topic[Any], payload: Any, *, metadata: Mapping[str, Any] | None = None, timeout: float | None = None
    ) -> Receipt:
        """`deliver` from a coroutine."""
        if self._on_loop():
            return await super().adeliver(topic, payload, metadata=metadata, timeout=timeout)
        return self.deliver(topic, payload, metadata=metadata, timeout=timeout)

    def _drain(self, subscriptions: shutdown.Subscriptions, deadline: float | None, *, strict: bool = True) -> None:
        if not strict:  # a close: no time makes a loop outside take anything
            everybody = subscriptions
            subscriptions = lambda: [one for one in everybody() if not self._is_elsewhere(one)]  # noqa: E731 - one that may be replaced
        holds = self._drained(subscriptions, strict)
        if deadline is None:
            holds = Watched(holds, subscriptions, self._time)
        try:
            if self._time.run_until(holds, deadline):
                return
        except StandsStill:
            if strict or deadline is None:
                raise
            self._time.give_up(deadline)  # a close: whoever goes round in a circle is one who isn't done in time
        busy = shutdown.left(subscriptions())
        names = ", ".join(f"{name!r} ({count} left)" for name, count in busy.items())
        why = "" if self._time.due() else "nothing more is scheduled, and "
        raise DrainTimeoutError(f"bus {self._name!r} was not drained at {self._monotonic():g} s: {why}still busy: {names}", busy)

    def _drained(self, subscriptions: shutdown.Subscriptions, strict: bool) -> Callable[[], bool]:
        """The condition that all of these rest; it is asked after each step, so it looks first at the one that was busy last."""
        busy: list[Subscription] = []

        def holds() -> bool:
            if (strict and self._feeds) or (busy and not self._rests(busy[0], strict)):
                return False
            busy[:] = [one for one in subscriptions() if not self._rests(one, strict)][:1]
            return not busy

        return holds

    def _rests(self, subscription: Subscription, strict: bool) -> bool:
        strand = subscription._strand
        if strict and strand.is_idle_for_ever() and strand.pending:
            raise BusError(shutdown._why_idle(subscription))
        if shutdown._is_done(subscription, strict=strict):
            return True
        if not strand.scheduled and strand.has_work():
            strand.wake()  # an interrupt came between its last event and its submission
        return False

    async def adrain(self, timeout: float | None = None) -> None:
        """`drain` from a coroutine; one of another loop waits for what the coroutines of that loop take from streams, too."""
        limit = None if timeout is None else checked("timeout", timeout)
        self._check_may_drain()
        deadline = None if limit is None else self._monotonic() + limit
        await self._give_turns(deadline, strict=True)
        self._drain(self._everybody, deadline)
        await asyncio.sleep(0)  # whoever took the last event from a stream has been told of it, and not got on yet

    async def _give_turns(self, deadline: float | None, *, strict: bool) -> None:
        """Lets the loop outside, if that is where this runs, take what waits in its streams; that takes no virtual time."""
        if self._on_loop():
            return
        for _ in range(ROUNDS):
            outside = [subscription for subscription in self._everybody() if self._is_elsewhere(subscription)]
            if not outside:
                return
            try:
                self._drain(self._ours, deadline, strict=strict)
            except DrainTimeoutError:
                return  # whoever asked for this looks again, and says so
            if all(self._rests(subscription, False) for subscription in outside) and not shutdown.left(self._ours()):
                return
            await asyncio.sleep(0)

    def _ours(self) -> list[Subscription]:
        """All but those that only a loop outside could run."""
        return [subscription for subscription in self._everybody() if not self._is_elsewhere(subscription)]

    def _is_elsewhere(self, subscription: Subscription) -> bool:
        executor = subscription._strand.executor
        return isinstance(executor, LoopExecutor) and executor.pass_time is None

    def _elsewhere(self, finish: Callable[[], None]) -> None:
        if self._inside_handler() or self._on_loop():
            self._time.after(0, finish)
        else:
            self._finishing = asyncio.get_running_loop().create_task(self._finish_soon(finish))

    async def _finish_soon(self, finish: Callable[[], None]) -> None:
        await self._give_turns(self._monotonic() + self._close_timeout, strict=False)
        finish()

    async def aclose(self, timeout: float | None = None, *, drain: bool = True) -> CloseReport:
        """`close` from a coroutine."""
        flag("drain", drain)
        if self._inside_handler():
            return self.close(timeout, drain=drain)
        limit = self._close_timeout if timeout is None else checked("timeout", timeout)
        deadline = self._monotonic() + limit
        with self._close_lock:
            self._closing = True
        finish = partial(self._finish_closing, deadline, drain)
        if self._on_loop():
            ended = asyncio.get_running_loop().create_future()
            # as a step of its own: it waits on top of the stack, and the coroutine that asked for it must not
            self._time.after(0, partial(_finally, finish, partial(ended.set_result, None)))
            await ended
        else:
            if drain:
                await self._give_turns(deadline, strict=False)
            finish()
            await asyncio.sleep(0)  # streams end
        return self._report if self._closed.is_set() else shutdown.report(self._everybody())

    def _finish_closing(self, deadline: float, drain: bool) -> None:
        with self._time.passing():
            try:
                super()._finish_closing(deadline, drain)
            finally:
                self._time.patience = 1.0

    # -- what must be its own

    def _executor_for(self, scheduler: abc.SchedulerBase) -> Executor:
        executor = executor_for(scheduler)
        if executor.pass_time is not None:
            return executor
        if executor.inline:
            return VirtualExecutor(self._time, scheduler)
        raise ValueError(
            f"scheduler must be the one of the virtual bus {self._name!r}, or one that runs everything at once, got {describe(scheduler)}: "
            "others have threads or a clock of their own"
        )

    def _is_foreign(self, scheduler: abc.SchedulerBase | None) -> bool:
        """Whether a scheduler has threads of its own, or a loop outside: what runs there doesn't wait for virtual time."""
        if scheduler is None or isinstance(scheduler, TimeoutScheduler):
            return False
        if isinstance(scheduler, AsyncIOScheduler):
            return getattr(scheduler, "_loop", None) is not self._loop_thread.loop
        executor = executor_for(scheduler)
        return executor.pass_time is None and not executor.inline and not isinstance(scheduler, VirtualTimeScheduler)

    def _new_topic(self, name: str) -> Topic[Any]:
        return (VirtualTopic if self._panel is None else ObservedVirtualTopic)(name, self)

    def _loop_for(self, options: Any) -> LoopExecutor:
        if options.loop is not None:
            raise ValueError(f"loop can't be given on the virtual bus {self._name!r}: its coroutine handlers are on virtual time")
        return super()._loop_for(options)

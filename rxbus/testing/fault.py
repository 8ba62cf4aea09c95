"""Faults on purpose: a subscription's handler fails, is slow, or hangs, at the event that the test chooses.

A fault stands between a subscription and its handler, for as long as its ``with`` block lasts. So everything around the handler,
retries, breakers, dead letters, timeouts, meets it as it would meet the real thing. On real threads a slow or hung handler holds
its thread, as it would; under virtual time, where there are none, its strand is suspended instead.

``_guard`` guards which subscriptions have faults, the ``_lock`` of a harness the numbering of events, that of a fault who hangs in it;
none is held while a handler runs.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple, Self, cast

from ..arguments import positive_int, seconds
from ..bus import EventBus
from ..concurrency import ConcurrentSubscription
from ..consumer import PipelineSubscription
from ..crew import Call
from ..event import Event, RawDelivery, current_delivery
from ..loops import LoopExecutor
from ..step import Step
from ..strand import SUSPENDED, Strand
from ..subscription import Subscription
from ..waits import here
from .interleaving import PATIENCE


class Moment(NamedTuple):
    """One call of a handler."""

    event: Event[Any] | None
    """What is handled; ``None`` for what a timer in a pipeline emitted, if nobody can say of which event it came."""
    delivery: RawDelivery | None
    attempt: int
    token: object
    """The same at all calls that one delivery of an event leads to: if it comes again, replayed perhaps, it is another."""
    is_late: bool
    """No event is in progress: a timer, or a mailbox in the middle of a pipeline, emitted it."""


class _Met:
    """An event that a fault has met."""

    __slots__ = ("done", "number", "token")

    def __init__(self, number: int, token: object) -> None:
        self.number = number
        self.token = token  # held, so that no other has its identity
        self.done: set[int] = set()
        """The attempts at which the fault struck."""


class Fault:
    """Something that goes wrong in a subscription's handler while its ``with`` block lasts. Made by `faults`."""

    def __init__(self, bus: EventBus, subscription: Subscription, nth: object, attempts: object) -> None:
        self._bus = bus
        self._subscription = subscription
        self._nth = None if nth is None else positive_int("nth", nth)
        self._attempts = None if attempts is None else positive_int("attempts", attempts)
        self._events: list[Event[Any]] = []
        self._hits = 0
        self._hit = threading.Event()
        self._met: dict[int, _Met] = {}
        """The events since it began, by the identities of their tokens."""
        self._active = False

    @property
    def events(self) -> list[Event[Any]]:
        """Those that it hit, once for each attempt. What a timer in a pipeline emits may be the value of none."""
        return list(self._events)

    @property
    def hits(self) -> int:
        """How often it struck."""
        return self._hits

    def wait_until_hit(self, timeout: float = PATIENCE) -> Self:
        """Waits until it has struck; under virtual time it moves the clock on instead.

        Raises: `TimeoutError` after ``timeout`` seconds.
        """
        limit = seconds("timeout", timeout)
        executor = self._bus._executor
        if executor.pass_time is not None:
            executor.pass_time(self._hit.is_set, executor.monotonic() + limit)
        else:
            self._hit.wait(limit)
        if not self._hit.is_set():
            raise TimeoutError(f"fault in subscription {self._subscription.name!r}: expected it to strike within {limit:g} s, it didn't")
        return self

    def __enter__(self) -> Self:
        if self._active:
            raise RuntimeError(f"a fault of subscription {self._subscription.name!r} was entered twice")
        self._active = True
        self._met.clear()
        _add(self._subscription, self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        _remove(self._subscription, self)
        self._active = False
        self.release()

    def release(self) -> None:
        """Lets go on whom it holds up, if it holds up anybody."""

    def _applies(self, moment: Moment) -> bool:
        """Whether it strikes at that attempt at that event; the lock of the harness is held."""
        met = self._met.get(id(moment.token))
        if met is None:
            met = self._met[id(moment.token)] = _Met(len(self._met) + 1, moment.token)
        chosen = self._nth is None or met.number == self._nth
        return chosen and (self._attempts is None or moment.attempt <= self._attempts) and moment.attempt not in met.done

    def _strikes(self, moment: Moment) -> None:
        self._hits += 1
        self._met[id(moment.token)].done.add(moment.attempt)
        if moment.event is not None:
            self._events.append(moment.event)
        self._hit.set()

    def _act(self, moment: Moment, again: Callable[[Any], object]) -> bool:
        """Does it to a plain function; whether the call was put off, and is made ``again`` later."""
        raise NotImplementedError

    async def _act_patiently(self) -> None:
        """Does it to a coroutine."""
        raise NotImplementedError


class Failure(Fault):
    """The handler raises."""

    def __init__(
        self, bus: EventBus, subscription: Subscription, nth: object, attempts: object, error: BaseException | type[BaseException]
    ) -> None:
        super().__init__(bus, subscription, nth, attempts)
        self._error = error

    def _act(self, moment: Moment, again: Callable[[Any], object]) -> bool:
        raise self._error

    async def _act_patiently(self) -> None:
        raise self._error


class Pause(Fault):
    """It holds the handler up, for a while or until it is released."""

    def __init__(self, bus: EventBus, subscription: Subscription, nth: object, attempts: object, pause: float) -> None:
        super().__init__(bus, subscription, nth, attempts)
        self._pause = pause
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._held: list[Callable[[], None]] = []

    def __enter__(self) -> Self:
        self._over.clear()
        return super().__enter__()

    def release(self) -> None:
        """Lets go on whom it holds up; nobody is held up by it any more."""
        self._over.set()
        with self._lock:
            held, self._held = self._held, []
        for let_go in held:
            let_go()

    def _hold(self, let_go: Callable[[], None]) -> bool:
        with self._lock:
            if self._over.is_set():
                return False
            self._held.append(let_go)
            return True

    def _act(self, moment: Moment, again: Callable[[Any], object]) -> bool:
        strand = here.running
        if self._over.is_set():
            return False
        if self._bus._executor.pass_time is None or not isinstance(strand, Strand):
            self._over.wait(None if self._pause == math.inf else self._pause)
            return False
        if moment.is_late:
            self._put_off(strand, partial(strand.enqueue, copy_context(), partial(again, None)))
            return True
        handling: Any = strand.consumer if moment.delivery is None else moment.delivery[1]
        put_off: bool = handling._defer(moment.delivery, Step(again, moment.attempt, self._pause, None))
        if put_off:
            self._hold(partial(_go_on, strand))
        return put_off

    def _put_off(self, strand: Strand, go_on: Callable[[], None]) -> None:
        """Goes on when the pause is over or it is released, whatever comes first; the strand does other things meanwhile."""
        left = [go_on]

        def once() -> None:
            timer.cancel()
            if left:
                left.pop()()

        timer = strand.executor.later(self._pause, once)
        self._hold(once)

    async def _act_patiently(self) -> None:
        loop = asyncio.get_running_loop()
        over = loop.create_future()
        if self._hold(partial(_tell, loop, over)):
            await asyncio.wait([over], timeout=None if self._pause == math.inf else self._pause)


def _go_on(strand: Strand) -> None:
    with strand.lock:
        timer = strand._timer
        suspended = strand.is_suspended
    if suspended:
        if timer is not None:
            timer.cancel()
        strand._unshut(SUSPENDED)


def _tell(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> None:
    def end() -> None:
        if not future.done():
            future.set_result(None)

    try:
        loop.call_soon_threadsafe(end)
    except RuntimeError:
        pass  # the loop is closed: nobody waits any more


class _Harness:
    """What stands between one subscription and its handler while there are faults."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription
        self._lock = threading.Lock()
        self.faults: list[Fault] = []
        self.original: Callable[[Any], Any] = _handler_of(subscription)
        self.wrapped: Callable[[Any], Any] = self._call_coroutine if _is_awaited(subscription) else self._call

    def _due(self, value: Any) -> tuple[Moment, list[Fault]]:
        """What is called, and the faults that strike now."""
        moment = _moment(value)
        with self._lock:
            return moment, list(filter(lambda fault: fault._applies(moment), self.faults))

    def _call(self, value: Any) -> Any:
        return self._meet(value, *self._due(value))

    def _meet(self, value: Any, moment: Moment, due: list[Fault]) -> Any:
        for number, fault in enumerate(due, 1):
            fault._strikes(moment)
            if fault._act(moment, self._again(value, moment, due[number:])):
                return None
        return self.original(value)

    def _again(self, value: Any, moment: Moment, rest: list[Fault]) -> Callable[[Any], object]:
        """How a call that was put off is made: faults that have struck at this attempt don't do so again."""
        subscription = self._subscription
        if moment.is_late:
            return lambda _: self._meet_late(value, moment, rest)
        if moment.delivery is None:
            return lambda _: self._meet(value, moment, rest)
        if isinstance(subscription, PipelineSubscription) and not isinstance(subscription, ConcurrentSubscription):
            return lambda _: subscription._on_value(value)
        return self._call

    def _meet_late(self, value: Any, moment: Moment, rest: list[Fault]) -> None:
        try:
            self._meet(value, moment, rest)
        except BaseException as error:
            self._subscription._report_late(moment.delivery, error)

    async def _call_coroutine(self, value: Any) -> Any:
        moment, due = self._due(value)
        for fault in due:
            fault._strikes(moment)
            await fault._act_patiently()
        return await self.original(value)


def _moment(value: Any) -> Moment:
    delivery, strand = current_delivery.get(), here.running
    entry = strand.in_flight if isinstance(strand, Strand) else None
    is_late = entry is None and isinstance(strand, Strand)
    call: Any = None if entry is None else entry[2]
    if isinstance(call, Call):
        entry = call.work.entry  # in a lane: that of the event which led to this call, if any
    token = entry or (call if isinstance(call, Call) else object() if is_late else delivery or object())
    event = None if delivery is None else delivery[0]
    if entry is None and isinstance(value, Event):
        event = cast("Event[Any]", value)  # a timer emits more than what set it
    return Moment(event, delivery, 1 if delivery is None else delivery[2], token, is_late)


_harnesses: dict[Subscription, _Harness] = {}
"""Those of all subscriptions that have faults."""
_guard = threading.Lock()


def _add(subscription: Subscription, fault: Fault) -> None:
    """One fault more."""
    with _guard:
        harness = _harnesses.get(subscription)
        if harness is None:
            harness = _harnesses[subscription] = _Harness(subscription)
            _replace(subscription, harness.wrapped)
        harness.faults = [*harness.faults, fault]


def _remove(subscription: Subscription, fault: Fault) -> None:
    """One fault less; after the last everything is as it was."""
    with _guard:
        harness = _harnesses[subscription]
        harness.faults = list(filter(lambda one: one is not fault, harness.faults))
        if not harness.faults:
            _replace(subscription, harness.original)
            del _harnesses[subscription]


def _handler_of(subscription: Subscription) -> Callable[[Any], Any]:
    if isinstance(subscription, ConcurrentSubscription):
        return subscription._crew._call
    return subscription._publishing if isinstance(subscription, PipelineSubscription) else subscription._handle


def _replace(subscription: Subscription, handler: Callable[[Any], Any]) -> None:
    if isinstance(subscription, ConcurrentSubscription):
        subscription._crew._call = handler
        for lane in subscription._crew.lanes:
            lane._handle = handler
    elif isinstance(subscription, PipelineSubscription):
        subscription._publishing = handler
    else:
        subscription._handle = handler


def _is_awaited(subscription: Subscription) -> bool:
    crew = subscription._crew if isinstance(subscription, ConcurrentSubscription) else None
    return isinstance(subscription._strand.executor if crew is None else crew.executor, LoopExecutor)

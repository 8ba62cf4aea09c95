"""What is its own on a bus of virtual time: its topics, its requests, and how a wait without an end is found out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any, cast

from reactivex import Observable, abc
from reactivex.disposable import Disposable
from reactivex.internal.exceptions import SequenceContainsNoElementsError

from .. import shutdown
from ..errors import BusError, DrainTimeoutError
from ..event import Event, RawDelivery
from ..inlet import make_up_for, put_off
from ..mailbox import Awakening
from ..observed import ObservedTopic
from ..request import Pending, Request
from ..topic import Topic
from ..waits import here
from .clock import DEEP, WEIGHT, VirtualScheduler

if TYPE_CHECKING:
    from .virtual import VirtualBus

WINDOW = 100_000
"""Steps in which something must have been settled, or `drain` without a timeout gives up."""


class VirtualTopic(Topic[Any]):
    """A topic whose events have the ids of virtual time, the same in each run."""

    def __init__(self, name: str, bus: Any) -> None:
        super().__init__(name, bus)
        self._time: VirtualScheduler = bus._time
        self._plain = False

    def _stamp(self, payload: Any, metadata: Mapping[str, Any] | None, parent: RawDelivery | None) -> tuple[Event[Any], float]:
        event, stamp = super()._stamp(payload, metadata, parent)
        if event is not payload:
            return self._made(event), stamp
        if parent is not None:
            self._time.count(WEIGHT if event.hops > DEEP else 1)  # passed on as it is, it comes round with as many hops as before
        return event, stamp

    def _made(self, event: Event[Any]) -> Event[Any]:
        event._id = self._time.new_id()
        if event.hops > DEEP:
            self._time.count(WEIGHT)
        return event


class ObservedVirtualTopic(VirtualTopic, ObservedTopic[Any]):
    """With instruments."""


class VirtualRequest(Request):
    """A request whose asker lets time pass instead of waiting."""

    _bus: VirtualBus

    def pipe(self, *operators: Any) -> Any:
        """The request followed by operators; `run` and ``await`` of that let time pass, too."""
        return _chained(super().pipe(*operators), self._bus)

    def run(self) -> Event[Any]:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride] - as that of its class
        """Sends it, and lets time pass until there is a reply."""
        time = self._bus._time
        ended: list[bool] = []
        with time.passing():
            pending = Pending(self._bus._requests, lambda: ended.append(True))
        try:
            with time.passing():
                self._send(pending, waits=True)
            time.run_until(lambda: bool(ended), None)
        finally:
            self._let_go(pending, patient=here.patience is not None)
        if pending.reply is None and pending.error is None:
            raise BusError(f"request to topic {self._topic!r}: nothing more is scheduled, so nobody will answer")
        return pending.result()

    def _subscribe_core(self, observer: abc.ObserverBase[Event[Any]], scheduler: abc.SchedulerBase | None = None) -> abc.DisposableBase:
        if not self._bus._is_foreign(scheduler):
            return super()._subscribe_core(observer, scheduler)
        # whoever combines it with others and runs that in RxPY's way blocks until it has ended: time has to pass now
        try:
            reply = self.run()
        except Exception as error:
            observer.on_error(error)
        else:
            observer.on_next(reply)
            observer.on_completed()
        return Disposable()

    def __await__(self) -> Generator[Any, None, Event[Any]]:
        return self._wait().__await__()

    async def _wait(self) -> Event[Any]:
        if not self._bus._on_loop():
            return self.run()
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        pending = Pending(self._bus._requests, Awakening(loop, done).release)
        try:
            with put_off() as waits:
                self._send(pending, waits=True)
            await make_up_for(waits)
            await done
        finally:
            self._let_go(pending, patient=True)
        return pending.result()


class VirtualChain(Observable[Any]):
    """A request followed by operators."""

    def __init__(self, source: Observable[Any], bus: VirtualBus) -> None:
        super().__init__()
        self._source = source
        self._bus = bus

    def _subscribe_core(self, observer: abc.ObserverBase[Any], scheduler: abc.SchedulerBase | None = None) -> abc.DisposableBase:
        return self._source.subscribe(observer, scheduler=scheduler)

    def pipe(self, *operators: Any) -> Any:
        """As that of `VirtualRequest`."""
        return _chained(super().pipe(*operators), self._bus)

    def run(self, scheduler: abc.SchedulerBase | None = None) -> Any:
        """Subscribes, on virtual time unless told, and lets time pass until it has ended; the last value.

        Raises: what it failed with; RxPY's ``SequenceContainsNoElementsError``; `BusError` if nothing could make it end.
        """
        time = self._bus._time
        last: list[Any] = []
        ended: list[Exception | None] = []

        def on_next(value: Any) -> None:
            last[:] = [value]

        with time.passing():
            subscription = self._source.subscribe(on_next, ended.append, lambda: ended.append(None), scheduler=scheduler or time)
            try:
                if not time.run_until(lambda: bool(ended), None):
                    raise BusError(f"run on bus {self._bus.name!r}: nothing more is scheduled, so it will never end")
            finally:
                subscription.dispose()
        if ended[0] is not None:
            raise ended[0]
        if not last:
            raise SequenceContainsNoElementsError
        return last[0]

    def __await__(self) -> Generator[Any, None, Any]:
        if self._bus._on_loop():
            return super().__await__()
        return self._run().__await__()

    async def _run(self) -> Any:
        return self.run()


def _chained(made: Any, bus: VirtualBus) -> Any:
    """What operators made, which needs no observable to be."""
    return VirtualChain(cast("Observable[Any]", made), bus) if isinstance(made, Observable) else made


class Watched:
    """A condition, and whether anything is settled while somebody waits for it."""

    def __init__(self, holds: Callable[[], bool], subscriptions: shutdown.Subscriptions, time: VirtualScheduler) -> None:
        self._holds = holds
        self._subscriptions = subscriptions
        self._time = time
        self._looked = time.made
        self._seen = self._state()

    def _state(self) -> tuple[int, int]:
        present = list(self._subscriptions())
        return sum(map(shutdown.offered, present)), sum(one._strand.pending for one in present)

    def __call__(self) -> bool:
        """Whether it holds; raises if nothing was settled for long."""
        if self._holds():
            return True
        if self._time.made - self._looked > WINDOW:
            seen, self._seen = self._seen, self._state()
            self._looked = self._time.made
            if seen == self._seen:
                busy = shutdown.left(self._subscriptions())
                message = f"{WINDOW} steps of virtual time, up to {self._time.seconds():g} s, have settled nothing: {', '.join(busy)}"
                raise DrainTimeoutError(message, busy)
        return False

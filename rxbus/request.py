"""Request and reply: one event asks, and whoever answers first is heard.

A request is an ordinary event with a token in its metadata. Metadata is inherited, so an agent further down the story may answer
as well as the one that was asked. What comes for a token that nobody waits for any more is a late reply, and counted. A pending
request follows its event through the mailboxes of those who were asked, so it knows when all of them have given up.

The lock of `Requests` guards its table. A pending request is resolved by whoever takes it out of the table, hence once.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any, Protocol, cast

from reactivex import Observable, abc
from reactivex.disposable import Disposable
from reactivex.scheduler import TimeoutScheduler

from .alarm import Alarm
from .errors import BusClosedError, BusError, RequestFailedError, RequestTimeoutError
from .event import Event, current_delivery, derive, new_id, renumbered
from .inlet import make_up_for, put_off
from .mailbox import RECHECK, Awakening, Mailbox, Parcel
from .outcome import DeadLetter
from .schedulers import Cancellable, check_scheduler
from .waits import Waiter, begin_wait, end_wait, here, waits_in_vain
from .workers import waiting

__all__ = ["REPLY", "Request"]

TOKEN = "$request"
"""The metadata key of the token."""
ANSWERS = "$reply"
"""The topic that replies name; nobody subscribes to it."""


class _Reply:
    """``to=REPLY``: the handler's result, whatever it is, answers the request that it handles; an `Event` as `EventBus.reply` says."""

    def __repr__(self) -> str:
        return "REPLY"


REPLY: Any = _Reply()


class Asked:
    """Those who may answer, as something to wait for: one of them will do."""

    __slots__ = ("_parcels",)

    def __init__(self, parcels: list[Parcel]) -> None:
        self._parcels = parcels

    def needs(self) -> tuple[Sequence[Waiter], bool]:
        """Any of those on whom one of the mailboxes depends."""
        return [waiter for parcel in self._parcels for waiter in parcel.needs()[0]], False

    @property
    def needs_loops(self) -> bool:
        """Whether one of them may need an event loop."""
        return any(parcel.needs_loops for parcel in self._parcels)

    def look_after_loops(self) -> None:
        """Finds out whether one of those was closed without a word."""
        for parcel in self._parcels:
            parcel.look_after_loops()


class Pending:
    """One request that waits for its reply. ``_lock`` guards who may still answer."""

    __slots__ = ("_asked", "_lock", "_owner", "clock", "done", "error", "event", "letter", "reply", "stamp", "timer", "token", "wait")

    def __init__(self, owner: Requests, done: Callable[[], None]) -> None:
        self.token = new_id()
        self.stamp = 0.0
        self.event: Event[Any] | None = None
        self.reply: Event[Any] | None = None
        self.error: BaseException | None = None
        self.letter: DeadLetter | None = None
        """The last one of those who gave it up."""
        self.clock: Callable[[], Cancellable] | None = None
        """Sets the timer that ends it."""
        self.timer: Cancellable | None = None
        self.wait: tuple[Asked, ...] = ()
        """What its asker waits for, as far as that was entered."""
        self.done = done
        self._owner = owner
        self._lock = threading.Lock()
        self._asked: dict[Mailbox, str] = {}

    def sent(self, event: Event[Any], stamp: float) -> None:
        """That is the event that asks: its time runs from now on."""
        self.event, self.stamp = event, stamp
        if self.clock is not None and self.timer is None:  # its topic may have been forgotten just then, and the next one asked
            self.timer = self.clock()

    def expect(self, asked: dict[Mailbox, str]) -> None:
        """Those who may answer, with their names; called before the first of them has the event."""
        self._asked = asked

    def enter(self, parcels: list[Parcel]) -> bool:
        """Enters that the asker waits; False if it could only be answered by the asker."""
        wait = (Asked(parcels),)
        if not begin_wait(wait):
            return False
        self.wait = wait
        return True

    def settle(self, mailbox: Mailbox, outcome: str) -> None:
        """One who got the event is done with it; if nobody is left who could answer, the request has failed."""
        if outcome == "handled":
            return  # the answer may come later, from elsewhere
        with self._lock:
            if self._asked.pop(mailbox, None) is None or self._asked:
                return
        self._owner.gave_up(self)

    def result(self) -> Event[Any]:
        """The reply; raises what it failed with."""
        if self.error is not None:
            raise self.error
        assert self.reply is not None
        return self.reply


class RequestHost(Protocol):
    """What requests need of their bus."""

    _requests: Requests

    def _ask(self, topic: str, payload: Any, metadata: Mapping[str, Any], pending: Pending, waits: bool, latest: float | None, /) -> None:
        """Publishes it, and waits for room until then at most (monotonic seconds); raises before anything happened."""
        ...

    def _monotonic(self) -> float:
        """The clock by which waits are timed, in seconds."""
        ...

    def _later(self, seconds: float, callback: Callable[[], None], /) -> Cancellable: ...
    def _call(self, callback: Callable[[], None], scheduler: abc.SchedulerBase | None, /) -> None:
        """Has user code run on that scheduler, or where handlers run."""
        ...


class Requests:
    """The requests of one bus that wait for a reply."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._table: dict[str, Pending] = {}
        self.late = 0
        """Replies that nobody waited for any more."""

    def __len__(self) -> int:
        return len(self._table)

    def begin(self, pending: Pending) -> None:
        """It waits from now on."""
        with self._lock:
            self._table[pending.token] = pending

    def forget(self, pending: Pending) -> bool:
        """It waits no more; whether it did."""
        with self._lock:
            found = self._table.pop(pending.token, None) is not None
        if pending.timer is not None:
            pending.timer.cancel()
        return found

    def answer(self, event: Event[Any], payload: Any) -> bool:
        """Answers the request that the event, or its story, asked; False, and counted, if nobody waits for that any more.

        The reply is a child of that event, whatever the answer is; of an answer that is an event it has payload and metadata.

        Raises: `BusError` if it asked nothing.
        """
        token = event.metadata.get(TOKEN)
        if not isinstance(token, str):
            raise BusError(f"event {event.id} of topic {event.topic!r} asked nothing: expected a request, or an event of its story")
        pending = self._table.get(token)
        metadata: Mapping[str, Any] = {}
        if isinstance(payload, Event):
            answer = cast("Event[Any]", payload)
            payload, metadata = answer.payload, {**answer.metadata, TOKEN: token}  # of what was asked on the way it has another one
        reply = renumbered(derive(event, ANSWERS, payload, metadata, event.time if pending is None else pending.stamp))
        if pending is not None and self._resolve(pending, reply, None):
            return True
        with self._lock:
            self.late += 1
        return False

    def gave_up(self, pending: Pending) -> None:
        """Nobody is left who could answer."""
        event, letter = pending.event, pending.letter
        assert event is not None
        by = "those who were asked" if letter is None else f"subscription {letter.subscription!r}"
        error = RequestFailedError(f"request {event.id} to topic {event.topic!r} was given up by {by}", event.topic, event, letter)
        if letter is not None:
            error.__cause__ = letter.error
        self._resolve(pending, None, error)

    def timed_out(self, pending: Pending, seconds: float) -> None:
        """Its time is over."""
        assert pending.event is not None
        topic, event = pending.event.topic, pending.event
        message = f"request {event.id} to topic {topic!r}: expected a reply within {seconds:g} s, found none"
        self._resolve(pending, None, RequestTimeoutError(message, topic, event, seconds))

    def close(self, error: BusClosedError) -> None:
        """The bus is closed: nobody will answer."""
        for pending in list(self._table.values()):
            self._resolve(pending, None, error)

    def note(self, letter: DeadLetter) -> None:
        """Keeps why a request failed, for whoever waits for it."""
        token = letter.event.metadata.get(TOKEN)
        pending = self._table.get(token) if isinstance(token, str) else None
        if pending is not None and pending.event == letter.event:
            pending.letter = letter

    def _resolve(self, pending: Pending, reply: Event[Any] | None, error: BaseException | None) -> bool:
        if not self.forget(pending):
            return False
        pending.reply, pending.error = reply, error
        pending.done()
        return True


class Request(Observable[Event[Any]]):
    """A question to a topic: one reply `Event`, as a cold observable.

    Nothing is sent until `run`, ``await`` or `subscribe`; each of them sends anew, so RxPY's ``retry`` works, and errors arrive
    there: `RequestTimeoutError`, `NoRespondersError`, `RequestFailedError`, `BusClosedError`.
    """

    def __init__(self, bus: RequestHost, topic: str, payload: Any, metadata: Mapping[str, Any], timeout: float) -> None:
        super().__init__()
        self._bus = bus
        self._topic = topic
        self._payload = payload
        self._metadata = metadata
        self._timeout = timeout

    def __repr__(self) -> str:
        return f"Request({self._topic!r}, timeout={self._timeout:g})"

    def run(self) -> Event[Any]:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride] - a bus has its scheduler
        """Sends it, and waits for the reply.

        Raises: the errors of the request; `BusError` where it could only be answered by the calling handler.
        """
        alarm = Alarm()
        pending = Pending(self._bus._requests, alarm.ring)
        try:
            self._send(pending, waits=True)
            looks = here.running is not None or any(asked.needs_loops for asked in pending.wait)
            with waiting():
                while not alarm.wait(RECHECK if looks else None):
                    for asked in pending.wait:
                        asked.look_after_loops()
                    if waits_in_vain(pending.wait) and not alarm.wait(0.0):
                        raise BusError(f"request to topic {self._topic!r} has come to wait for itself: who could have answered is gone")
        finally:
            self._let_go(pending, patient=here.patience is not None)
        return pending.result()

    def __await__(self) -> Generator[Any, None, Event[Any]]:
        return self._wait().__await__()

    async def _wait(self) -> Event[Any]:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        pending = Pending(self._bus._requests, Awakening(loop, done).release)
        try:
            with put_off() as waits:
                self._send(pending, waits=True)
            with suppress(TimeoutError):  # then it is over in a moment, and says so itself
                async with asyncio.timeout(self._timeout):
                    await make_up_for(waits)
            while not done.done():
                await asyncio.wait([done], timeout=RECHECK)
                for asked in pending.wait:
                    asked.look_after_loops()
                if here.running is not None and waits_in_vain(pending.wait) and not done.done():
                    raise BusError(f"request to topic {self._topic!r} has come to wait for itself: who could have answered is gone")
        finally:
            self._let_go(pending, patient=True)
        return pending.result()

    def _subscribe_core(self, observer: abc.ObserverBase[Event[Any]], scheduler: abc.SchedulerBase | None = None) -> abc.DisposableBase:
        given = check_scheduler(scheduler)
        chosen = None if isinstance(given, TimeoutScheduler) else given  # that one some operators hand upstream; nobody chose it
        requests = self._bus._requests
        pending = Pending(requests, lambda: self._bus._call(partial(asker.run, tell), chosen))
        asker = copy_context()  # whose story goes on with the reply

        def tell() -> None:
            if pending.error is not None:
                observer.on_error(pending.error)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - all of them are Exceptions
            elif pending.reply is not None:
                observer.on_next(pending.reply)
                observer.on_completed()

        try:
            self._send(pending, waits=False)
            return Disposable(partial(_forget, requests, pending))
        except Exception as error:
            requests.forget(pending)
            observer.on_error(error)
            return Disposable()
        except BaseException:  # Ctrl-C: nobody would ever be told
            requests.forget(pending)
            raise

    def _send(self, pending: Pending, *, waits: bool) -> None:
        """Asks; whatever comes out of this, and whenever, the caller has to let go of the pending request in the end."""
        requests = self._bus._requests
        pending.clock = partial(self._bus._later, self._timeout, partial(requests.timed_out, pending, self._timeout))
        latest = self._bus._monotonic() + self._timeout
        requests.begin(pending)
        self._bus._ask(self._topic, self._payload, {**self._metadata, TOKEN: pending.token}, pending, waits, latest)

    def _let_go(self, pending: Pending, *, patient: bool) -> None:
        """Nobody waits for it any more."""
        self._bus._requests.forget(pending)
        if pending.wait:
            end_wait(pending.wait, patient=patient)


def _forget(requests: Requests, pending: Pending) -> None:
    requests.forget(pending)


class Answers:
    """Where results go with ``to=REPLY``; an event that asked nothing is handled, and its result is nobody's."""

    name = None
    takes_none = True

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    def _emit(self, payload: Any, metadata: None) -> None:
        delivery = current_delivery.get()
        if delivery is not None and TOKEN in delivery[0].metadata:
            self._requests.answer(delivery[0], payload)

    async def _emit_patiently(self, payload: Any, metadata: None) -> None:
        self._emit(payload, metadata)

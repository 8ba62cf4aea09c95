"""A recording: all that an observable says, with the time of each, to look at afterwards.

A topic, and what `EventBus.observe` gives, is recorded in the publisher's own thread, before `publish` returns: there is no
mailbox that could be full, so nothing is lost, and nobody has to wait for the recording. Anything else is simply subscribed to.
A recording keeps all of it until it is let go of, without a bound: it is made for tests and notebooks.

``_lock`` guards the notifications and those who wait for them; it is never held while anybody else's code runs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from types import TracebackType
from typing import Any, Self

from reactivex import Observable, abc
from reactivex.observer import Observer
from reactivex.scheduler import VirtualTimeScheduler

from .alarm import Alarm
from .arguments import describe, positive_int, seconds, text
from .errors import BusError
from .event import Event
from .marbles import Kind, Marbles, Notification, difference, draw, normal
from .observer import Observed
from .schedulers import PassTime, check_scheduler, executor_for
from .topic import Topic
from .workers import waiting

PATIENCE = 5.0
"""Seconds for which `Recording.wait_for` waits, unless told."""
WIDTH_OF_TEXT = 1_000
"""Characters of the diagram in the text of a recording; `Recording.marbles` has all, of a month's silence too."""


class Recording:
    """What an observable said so far. Made by `record`; a context manager that ends with its block.

    It is thread-safe, and keeps everything: unbounded.
    """

    def __init__(self, name: str, now: Callable[[], float], pass_time: PassTime | None = None, *, is_virtual: bool = False) -> None:
        self._name = name
        self._now = now
        self._pass_time = pass_time
        self._is_virtual = is_virtual
        self._started = now()
        self._lock = threading.Lock()
        self._said: list[Notification] = []
        self._items = 0
        self._ended = False
        self._waiting: list[Alarm] = []
        self._source: abc.DisposableBase | None = None

    # -- what was said

    @property
    def name(self) -> str:
        """What is recorded: a topic, a pattern, or what the caller called it."""
        return self._name

    @property
    def started(self) -> float:
        """When it began, in seconds of the clock used: Unix, or virtual."""
        return self._started

    @property
    def notifications(self) -> tuple[Notification, ...]:
        """All, in their order."""
        with self._lock:
            return tuple(self._said)

    @property
    def events(self) -> list[Event[Any]]:
        """The events among the items."""
        items: list[Any] = [one.value for one in self.notifications if one.kind == "next"]
        return [item for item in items if isinstance(item, Event)]

    @property
    def payloads(self) -> list[Any]:
        """Of each item: the payload of an event, anything else as it is."""
        return [one.payload for one in self.notifications if one.kind == "next"]

    @property
    def error(self) -> Exception | None:
        """What the observable failed with."""
        return next((one.value for one in self.notifications if one.kind == "error"), None)

    @property
    def is_completed(self) -> bool:
        """Whether the observable completed."""
        return any(one.kind == "completed" for one in self.notifications)

    def __len__(self) -> int:
        return self._items

    def __repr__(self) -> str:
        state = ", completed" if self.is_completed else ", failed" if self.error is not None else ", ended" if self._ended else ""
        return f"Recording({self._name!r}: {self._items} items{state})"

    def _repr_mimebundle_(self, include: Collection[str] | None = None, exclude: Collection[str] | None = None) -> dict[str, str]:
        from .diagram import Diagram
        from .lanes import lanes_of

        return Diagram(tuple(lanes_of(self)))._repr_mimebundle_(include, exclude)

    def __str__(self) -> str:
        drawn = draw(self.notifications, self._started, width=WIDTH_OF_TEXT)
        legend = ", ".join(f"{character} = {describe(value)}" for character, value in drawn.legend.items())
        return f"{self._name}  {drawn}" + (f"  ({legend})" if legend else "")

    def marbles(self, values: Any = None) -> Marbles:
        """The diagram, one character for 0.1 s, up to what was said last.

        ``values`` maps characters to payloads. Of other payloads one that is shown as one character is that character; the rest
        get letters, in order, which the diagram's ``legend`` explains.

        Raises: `TypeError` or `ValueError` for values that map no single characters.
        """
        return draw(self.notifications, self._started, values)

    def expect_marbles(self, diagram: str, values: Any = None) -> None:
        """`marbles`, compared by what they mean: blanks, commas in groups and silence at the end mean nothing, ``(a)b`` is ``a--b``.

        Raises: `AssertionError` that shows both diagrams, one under the other; `ValueError` that shows where the diagram is wrong.
        """
        wanted = normal(diagram)
        found = self.marbles(values)
        if found != wanted:
            raise AssertionError("\n".join([f"recording of {self._name!r} differs", *difference(wanted, found)]))

    # -- waiting

    def wait_for(self, n: int, timeout: float = PATIENCE) -> Self:
        """Waits until ``n`` items are there; under virtual time it moves the clock on instead.

        Raises: `TimeoutError` after ``timeout`` seconds, or as soon as no more can come; it says what came instead. `BusError`
        for a virtual clock that only a test can move.
        """
        wanted, limit = positive_int("n", n), seconds("timeout", timeout)
        if self._pass_time is not None:
            self._pass_time(lambda: self._has(wanted), self._now() + limit)
        elif self._is_virtual and not self._has(wanted):
            raise BusError(f"recording of {self._name!r} can't move the virtual clock of its scheduler: advance that, then look")
        else:
            self._block(wanted, limit)
        if self._items < wanted:
            raise self._in_vain(wanted, limit)
        return self

    def _has(self, wanted: int) -> bool:
        return self._items >= wanted or self._ended

    def _block(self, wanted: int, limit: float) -> None:
        alarm = Alarm()
        deadline = time.monotonic() + limit
        with self._lock:
            self._waiting.append(alarm)
        try:
            with waiting():
                while not self._has(wanted) and alarm.wait(deadline - time.monotonic()):
                    pass
        finally:
            with self._lock:
                self._waiting.remove(alarm)

    def _in_vain(self, wanted: int, limit: float) -> TimeoutError:
        found, error = self.payloads, self.error
        end = ", then its completion" if self.is_completed else f", then {describe(error)}" if error is not None else ""
        if self._ended and not end:
            end = ", then it was disposed of"
        shown = f": {describe(found)}" if found else ""
        items = "item" if wanted == 1 else "items"
        failure = TimeoutError(f"recording of {self._name!r}: expected {wanted} {items} within {limit:g} s, found {len(found)}{shown}{end}")
        failure.__cause__ = error
        return failure

    # -- recording

    def _add(self, kind: Kind, value: Any = None) -> None:
        with self._lock:
            if self._ended:
                return
            self._said.append(Notification(kind, self._now(), value))
            if kind == "next":
                self._items += 1
            else:
                self._ended = True
            for alarm in self._waiting:
                alarm.ring()

    def _observer(self) -> abc.ObserverBase[Any]:
        return Observer(lambda value: self._add("next", value), lambda error: self._add("error", error), lambda: self._add("completed"))

    def _follow(self, subscribe: Callable[[abc.ObserverBase[Any]], abc.DisposableBase]) -> Self:
        source = subscribe(self._observer())
        with self._lock:
            self._source = source
        return self

    def dispose(self) -> None:
        """Ends it; what was said stays. Idempotent."""
        with self._lock:
            source, self._source = self._source, None
            self._ended = True
            for alarm in self._waiting:
                alarm.ring()
        if source is not None:
            source.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.dispose()


def record(observable: Observable[Any], name: str | None = None, *, scheduler: abc.SchedulerBase | None = None) -> Recording:
    """Subscribes, and keeps all that the observable says from now on.

    ``name`` is that of the topic or pattern unless told. ``scheduler`` is handed to the subscription, and its clock is used: for
    operators such as ``debounce`` under virtual time. Topics and `EventBus.observe` have the clock of their bus.

    Raises: `TypeError` for what is no RxPY observable; `BusClosedError`.
    """
    if not isinstance(observable, Observable):  # pyright: ignore[reportUnnecessaryIsInstance] - untyped callers
        hint = ": record(bus.observe(...)) records a topic by its name" if isinstance(observable, str) else ""
        raise TypeError(f"observable must be an RxPY observable, got {describe(observable)}{hint}")
    given = check_scheduler(scheduler)
    called = None if name is None else text("name", name)
    source: Any = observable
    if given is None and isinstance(observable, Topic | Observed):
        bus: Any = getattr(source, "_bus" if isinstance(source, Topic) else "bus")
        pattern: str = bus._pattern(source if isinstance(source, Topic) else source.pattern)
        bus._refuse_when_closing()
        recording = Recording(called or pattern, bus._now, bus._executor.pass_time)
        return recording._follow(lambda observer: bus._tap(pattern, observer, f"recording@{pattern}"))
    recording = _recording_by(given, called or _name_of(source))
    return recording._follow(lambda observer: source.subscribe(observer, scheduler=given))


def _name_of(observable: Any) -> str:
    if isinstance(observable, Topic):
        return observable.name
    return observable.pattern if isinstance(observable, Observed) else type(observable).__name__.lower()


def _recording_by(scheduler: abc.SchedulerBase | None, name: str) -> Recording:
    """An empty one, by the clock of that scheduler."""
    if scheduler is None:
        return Recording(name, time.time)
    executor = executor_for(scheduler)
    is_virtual = isinstance(scheduler, VirtualTimeScheduler)
    now = executor.monotonic if executor.pass_time is not None else lambda: scheduler.now.timestamp()
    return Recording(name, now, executor.pass_time, is_virtual=is_virtual)

"""What remembers keys: leaving out what came before, and bringing together what belongs together.

`dedupe` keeps the 65,536 newest keys at most (`Memory`), `join_by` as many items that wait (`_Waiting`), so neither grows without
limit. A join has several sources, which come on several threads. Its lock guards what waits; what is complete goes out behind it,
in order, by whoever is sending already, and in the context of the event that completed it, so nobody downstream is called under a
lock and causes stay right.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from contextvars import Context, copy_context
from typing import Any, Generic, TypeVar

from reactivex import Observable, abc
from reactivex.disposable import CompositeDisposable
from reactivex.scheduler import TimeoutScheduler

from .arguments import describe, optional_seconds, plain_function, takes_one
from .event import Event, current_delivery
from .event import source as origin

T = TypeVar("T")
V = TypeVar("V")
KEYS_KEPT = 65_536
ITEMS_KEPT = 65_536


class Memory(Generic[V]):
    """Keys with a value each; forgets what is older than ``within`` seconds, and the oldest when there are too many."""

    def __init__(self, within: float | None, now: Callable[[], float]) -> None:
        self._within = within
        self._now = now
        self._table: OrderedDict[Hashable, tuple[float, V]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._table)

    def get(self, key: Hashable) -> V | None:
        """Its value, if it is remembered."""
        self._forget()
        found = self._table.get(key)
        return None if found is None else found[1]

    def put(self, key: Hashable, value: V) -> None:
        """Remembers a new key from now on."""
        self._table[key] = (self._now(), value)
        if len(self._table) > KEYS_KEPT:
            self._table.popitem(last=False)

    def _forget(self) -> None:
        if self._within is not None:
            oldest = self._now() - self._within
            while self._table and next(iter(self._table.values()))[0] <= oldest:
                self._table.popitem(last=False)


def _clock(scheduler: abc.SchedulerBase | None) -> Callable[[], float]:
    if scheduler is None or isinstance(scheduler, TimeoutScheduler):  # that one some operators hand upstream; nobody chose it
        return _now
    return lambda: scheduler.now.timestamp()


def _now() -> float:
    """The present by the clock of the bus whose event is being handled, which may be virtual."""
    delivery = current_delivery.get()
    return origin.now() if delivery is None else delivery[1]._now()


def _check_key(key: object) -> None:
    if key is not None:
        if not callable(key):
            raise TypeError(f"key must be a function of an item, got {describe(key)}")
        plain_function("key", key)
        takes_one("key", key, "the item")


def _id_of(item: Any) -> Hashable:
    if not isinstance(item, Event):
        raise TypeError(f"dedupe takes events, unless it is told a key; got {describe(item)}")
    return item.id


def _story_of(item: Any) -> Hashable:
    if not isinstance(item, Event):
        raise TypeError(f"join_by takes events, unless it is told a key; got {describe(item)}")
    return item.correlation_id


def dedupe(key: Callable[[T], Hashable] | None = None, window: float | None = None) -> Callable[[Observable[T]], Observable[T]]:
    """Leaves out items whose key was there before: the event's id, unless told.

    A key is remembered for ``window`` seconds, and the newest 65,536 are in any case no more.

    ::

        ──1──2──1──2──3──|
        ──1──2────────3──|     dedupe(lambda n: n)

    Raises: `TypeError` or `ValueError` naming the argument.
    """
    _check_key(key)
    limit = optional_seconds("window", window)
    key_of: Callable[[Any], Hashable] = key or _id_of

    def operator(source: Observable[T]) -> Observable[T]:
        def subscribe(observer: abc.ObserverBase[T], scheduler: abc.SchedulerBase | None = None) -> abc.DisposableBase:
            known: Memory[bool] = Memory(limit, _clock(scheduler))

            def on_next(item: T) -> None:
                try:
                    found = key_of(item)
                    new = known.get(found) is None
                    if new:
                        known.put(found, True)
                except Exception as error:
                    observer.on_error(error)
                    return
                if new:
                    observer.on_next(item)

            return source.subscribe(on_next, observer.on_error, observer.on_completed, scheduler=scheduler)

        return Observable(subscribe)

    return operator


def join_by(
    *sources: Observable[Any], key: Callable[[Any], Hashable] | None = None, within: float | None = None
) -> Callable[[Observable[Any]], Observable[tuple[Any, ...]]]:
    """Brings together one item of each source with the same key: the events' correlation id, unless told.

    It emits a tuple, the item of the observable that it is piped to first, then those of ``sources`` in their order. Of several
    items of one source with one key the first is taken first. An item that has waited for ``within`` seconds is forgotten, and of
    more than 65,536 that wait, whatever their keys, the oldest. It completes when all sources have, and fails with the first one
    that does.

    ::

        ──a1─────b1────────────|
        ─────b2──────────a2────|
        ─────────(b1,b2)─(a1,a2)──|     join_by(other, key=letter)

    Raises: `TypeError` or `ValueError` naming the argument.
    """
    if not sources:
        raise TypeError("join_by takes at least one other source")
    for source in sources:
        if not isinstance(source, Observable):  # pyright: ignore[reportUnnecessaryIsInstance] - untyped callers
            raise TypeError(f"sources must be RxPY observables, got {describe(source)}")
    _check_key(key)
    limit = optional_seconds("within", within)

    def operator(first: Observable[Any]) -> Observable[tuple[Any, ...]]:
        def subscribe(observer: abc.ObserverBase[tuple[Any, ...]], scheduler: abc.SchedulerBase | None = None) -> abc.DisposableBase:
            join = _Join(key or _story_of, _Waiting(len(sources) + 1, limit, _clock(scheduler)), observer)
            group = CompositeDisposable()
            for number, source in enumerate((first, *sources)):
                group.add(source.subscribe(join.taker(number), join.on_error, join.ender(number), scheduler=scheduler))
            return group

        return Observable(subscribe)

    return operator


class _Waiting:
    """The items that wait for others: a line for each key and source, and all of them by age, so that it is known which to forget."""

    def __init__(self, count: int, within: float | None, now: Callable[[], float]) -> None:
        self.count = count
        """Of the sources."""
        self._within = within
        self._now = now
        self._lines: dict[Hashable, list[deque[tuple[int, Any]]]] = {}
        self._numbers = itertools.count()
        self._by_age: OrderedDict[int, tuple[float, Hashable, int]] = OrderedDict()
        """By number: when it came, its key, and its source; in a line, too, the oldest is the first."""

    def add(self, source: int, key: Hashable, item: Any) -> tuple[Any, ...] | None:
        """One more item; the tuple that it completes, if it does."""
        now = 0.0 if self._within is None else self._now()
        self._forget(now)
        lines = self._lines.get(key)
        if lines is None:
            lines = self._lines[key] = [deque() for _ in range(self.count)]
        number = next(self._numbers)
        lines[source].append((number, item))
        self._by_age[number] = (now, key, source)
        if not all(lines):
            if len(self._by_age) > ITEMS_KEPT:
                self._forget_oldest()
            return None
        taken = [line.popleft() for line in lines]
        for old, _ in taken:
            del self._by_age[old]
        if not any(lines):
            del self._lines[key]
        return tuple(item for _, item in taken)

    def _forget(self, now: float) -> None:
        """What is too old."""
        if self._within is not None:
            while self._by_age and next(iter(self._by_age.values()))[0] <= now - self._within:
                self._forget_oldest()

    def _forget_oldest(self) -> None:
        _, (_, key, source) = self._by_age.popitem(last=False)
        lines = self._lines[key]
        lines[source].popleft()
        if not any(lines):
            del self._lines[key]


class _Join:
    """The state of one subscription of `join_by`."""

    def __init__(self, key: Callable[[Any], Hashable], waiting: _Waiting, observer: abc.ObserverBase[tuple[Any, ...]]) -> None:
        self._key = key
        self._waiting = waiting
        self._observer = observer
        self._lock = threading.Lock()
        self._open = set(range(waiting.count))
        self._out: deque[tuple[Context, Callable[[], None]]] = deque()
        self._sending = False

    def taker(self, number: int) -> Callable[[Any], None]:
        """What takes the items of one source."""

        def take(item: Any) -> None:
            try:
                found = self._key(item)
                hash(found)
            except Exception as error:
                self.on_error(error)
                return
            with self._lock:
                complete = self._waiting.add(number, found, item)
                if complete is not None:
                    self._out.append((copy_context(), lambda: self._observer.on_next(complete)))
            self._send()

        return take

    def ender(self, number: int) -> Callable[[], None]:
        """What is told that one source has completed."""

        def end() -> None:
            with self._lock:
                self._open.discard(number)
                over = not self._open
                if over:
                    self._out.append((copy_context(), self._observer.on_completed))
            self._send()

        return end

    def on_error(self, error: Exception) -> None:
        """One source failed, or the key did."""
        with self._lock:
            self._out.append((copy_context(), lambda: self._observer.on_error(error)))
        self._send()

    def _send(self) -> None:
        """Has what is complete go out, unless somebody is at it: that one sees it too."""
        while True:
            with self._lock:
                if self._sending or not self._out:
                    return
                self._sending = True
                context, act = self._out.popleft()
            try:
                context.run(act)
            finally:
                with self._lock:
                    self._sending = False

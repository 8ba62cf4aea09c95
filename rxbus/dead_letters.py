"""The events that could not be handled: a bounded collection, and an observable of the new ones.

The lock guards the collection; it is re-entrant, because what leaves may have a destructor that looks in again. Observers run
behind mailboxes of their own, like everybody else's; one of them that fails is logged and makes no letter, so there is no loop.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from reactivex import Observable, abc

from .arguments import describe
from .display import Shown
from .event import Event, replayed
from .outcome import DeadLetter, Reason
from .schedulers import Executor
from .subject import MailboxSubject
from .subscription import Subscription

if TYPE_CHECKING:
    from .card import Card

__all__ = ["DeadLetters"]


def _check(letters: Iterable[object], verb: str) -> None:
    for letter in letters:
        if not isinstance(letter, DeadLetter):
            raise TypeError(f"{verb} takes dead letters, got {describe(letter)}")


class _Feed(MailboxSubject[DeadLetter]):
    _bus: Any

    def __init__(self, bus: object, executor: Executor) -> None:
        super().__init__()
        self._executor = executor
        self._bus = bus
        """Whose handlers its observers are, when it comes to waiting for oneself."""

    @property
    def _is_virtual(self) -> bool:
        return self._bus._is_virtual

    def _now(self) -> float:
        return self._bus._now()


class DeadLetters(Shown, Observable[DeadLetter]):
    """The dead letters of a bus: iterate over those it holds, subscribe to those to come.

    It holds a bounded number; the oldest leave, and `evicted` counts them.
    """

    def __init__(self, bus: object, capacity: int, executor: Executor, resend: Callable[[str, Event[Any]], bool]) -> None:
        super().__init__()
        self._capacity = capacity
        self._resend = resend
        self._guard = threading.RLock()
        self._held: dict[int, DeadLetter] = {}
        self._numbers = itertools.count()
        self._evicted = 0
        self._made: Counter[Reason] = Counter()
        self._feed = _Feed(bus, executor)

    @property
    def evicted(self) -> int:
        """How many left because there was no room."""
        return self._evicted

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[DeadLetter]:
        with self._guard:
            return iter(list(self._held.values()))

    def __repr__(self) -> str:
        return f"DeadLetters({len(self)} held, {self._evicted} evicted)"

    def _card(self) -> Card:
        from .card import ROWS, Card
        from .drawing import Table
        from .lettering import count, say

        letters = list(self)
        rows = [
            (one.subscription, one.event.topic, say(one.event.payload, 40), one.reason.value, say(one.error, 60), one.attempts)
            for one in reversed(letters[-ROWS:])
        ]
        table = Table(("subscription", "topic", "payload", "reason", "error", "attempts"), rows, more=len(letters) - len(rows))
        gone = f", {self._evicted:,} evicted" if self._evicted else ""
        return Card("DeadLetters", "", f"{count(len(letters), 'letter')} held{gone}, the newest first", bool(letters), tables=[table])

    def discard(self, *letters: DeadLetter) -> int:
        """Forgets these letters, or all of them when none is given; returns how many of them were held.

        Raises: `TypeError` for what is no `DeadLetter`.
        """
        _check(letters, "discard")
        with self._guard:
            gone = self._numbers_of(letters)
            for number in gone:
                del self._held[number]
            return len(gone)

    def replay(self, *letters: DeadLetter) -> int:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride] - not RxPY's
        """Puts the events of these letters, or of all when none is given, before the subscription that failed, and before it alone.

        The event is the same, with ``"$replayed"`` in its metadata: how often it was. Returns how many were sent; their letters
        are no longer held. A letter that isn't held, or whose subscription or topic is gone, stays as it is. It may wait for
        room in a full mailbox.

        Raises: `TypeError` for what is no `DeadLetter`.
        """
        _check(letters, "replay")
        with self._guard:
            chosen = self._numbers_of(letters)
        return sum(self._replay_one(number) for number in chosen)

    def _numbers_of(self, letters: Iterable[DeadLetter]) -> list[int]:
        """Of those among the held ones, or of all if none is named. The lock is held."""
        wanted = {id(letter) for letter in letters}
        return [number for number, letter in self._held.items() if not wanted or id(letter) in wanted]

    def _replay_one(self, number: int) -> bool:
        with self._guard:
            letter = self._held.pop(number, None)  # claimed: whoever else wants it comes too late
        if letter is None:
            return False
        sent = False
        try:
            sent = self._resend(letter.subscription, replayed(letter.event))
        finally:
            if not sent:
                with self._guard:
                    self._held[number] = letter
                    self._held = dict(sorted(self._held.items()))
        return sent

    def _add(self, letter: DeadLetter) -> None:
        with self._guard:
            self._held[next(self._numbers)] = letter
            self._made[letter.reason] += 1
            if len(self._held) > self._capacity:
                del self._held[next(iter(self._held))]
                self._evicted += 1
        if not self._feed.is_stopped:
            self._feed.on_next(letter)

    def _subscribe_core(self, observer: abc.ObserverBase[DeadLetter], scheduler: abc.SchedulerBase | None = None) -> abc.DisposableBase:
        return self._feed._subscribe_core(observer, scheduler)

    def _orphan(self) -> None:
        """In the child of a fork: nobody observes it, and nobody holds its lock."""
        self._guard = threading.RLock()
        self._feed = _Feed(self._feed._bus, cast("Executor", self._feed._executor))

    def _made_by_reason(self) -> Mapping[Reason, int]:
        with self._guard:
            return MappingProxyType(dict(self._made))

    def _complete(self) -> None:
        self._feed.on_completed()

    def _subscriptions(self) -> list[Subscription]:
        return self._feed._subscriptions()

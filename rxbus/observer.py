"""Raw RxPY observers as subscriptions."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from reactivex import Observable, abc

from .host import Place
from .mailbox import Entry
from .outcome import Reason
from .recovery import error_text
from .subscription import Subscription

_log = logging.getLogger("rxbus")


T = TypeVar("T")


class Observed(Observable[T]):
    """What a bus gives for a pattern to compose with; it knows the pattern and the bus."""

    def __init__(self, subscribe: Callable[..., abc.DisposableBase], bus: object, pattern: str) -> None:
        super().__init__(subscribe)
        self.bus = bus
        self.pattern = pattern


class ObserverSubscription(Subscription):
    """A raw RxPY observer behind a mailbox: the head of a chain that somebody composed with `pipe`.

    An observer that raises gets the next event all the same. A chain that ends itself while it handles an event (an operator
    failed, or ``take`` had enough) ends the subscription; what is queued is dropped.
    """

    __slots__ = ("_ending", "_observer")

    def __init__(self, place: Place, observer: abc.ObserverBase[Any], *, envelopes: bool = True) -> None:
        super().__init__(place, envelopes=envelopes)
        self._observer = observer
        self._ending = False
        """It ends once the event in progress is settled."""
        self._handle = observer.on_next

    def _process(self, entry: Entry, started: float, call: Callable[[Any], object] | None = None, attempt: int = 1) -> float:
        ended = super()._process(entry, started, call, attempt)
        if self._ending and not self._strand.is_suspended:
            super()._end()
        return ended

    def _end(self) -> bool:
        if self._later and self._strand.running_here() and not self._strand.is_closed:
            # the chain had enough, but behind it something waits for another attempt at this event
            self._ending = True
            self._host._detach(self)
            self._say_end(self._strand.drop_queue())
            return False
        return super()._end()

    def _flush(self) -> None:
        """Completes the chain: its end is the only way to have what its operators hold come out."""
        if not self._boxed:
            self._strand.finish(None)

    def _terminate(self, error: Exception | None) -> None:
        try:
            if error is None:
                self._observer.on_completed()
            else:
                self._observer.on_error(error)
        except BaseException as raised:
            self._report(None, Reason.FAILED, raised, 1)
        self._end()

    def _log_end(self, dropped: int) -> None:
        # a failing operator disposes of its chain while its exception is being handled: that tells a failure from a `take`
        error = sys.exc_info()[1]
        inside = self._strand.in_flight is not None and self._strand.running_here()
        if inside and error is not None and error is not self._strand.outer_error:
            _log.warning(
                "subscription %r on %r has ended with its chain; %d queued events were dropped: %s",
                self._name, self._pattern, dropped, error_text(error),
            )  # fmt: skip
        else:
            super()._log_end(dropped)


class TapSubscription(ObserverSubscription):
    """An observer that only looks on: it is nobody who could answer a request."""

    __slots__ = ()

    _passive = True

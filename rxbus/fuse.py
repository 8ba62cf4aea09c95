"""The breaker at work: what `Breaker` asks for, in one subscription."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from .recovery import Breaker

if TYPE_CHECKING:
    from .subscription import Subscription

_log = logging.getLogger("rxbus")


class Fuse:
    """The breaker of one subscription: counts failures in a row, and breaks the strand off when there were too many.

    Handled events aren't counted here but looked up when one fails, so they cost nothing. ``_lock`` guards the counting.
    """

    __slots__ = ("_breaker", "_handled", "_lock", "_row", "_subscription", "on_trial")

    def __init__(self, subscription: Subscription, breaker: Breaker) -> None:
        self._subscription = subscription
        self._breaker = breaker
        self._lock = threading.Lock()
        self._row = 0
        self._handled = 0
        self.on_trial = False
        """The pause is over, and what comes of the next event isn't known yet."""

    def failed(self) -> None:
        """An event has failed."""
        strand = self._subscription._strand
        with self._lock:
            handled = self._subscription._successes
            self._row = self._row + 1 if handled == self._handled else 1
            self._handled = handled
            self.on_trial = False
            breaks = self._row >= self._breaker.failures
        if breaks:
            strand.break_off()
            strand.after(self._breaker.pause, self._try_again)
            self._say()
        else:
            self._go_on()  # a trial beside others that went well

    def handled(self) -> None:
        """The trial went well."""
        self.on_trial = False
        self._go_on()

    def _try_again(self) -> None:
        strand = self._subscription._strand
        self.on_trial = True
        if strand.crew is None or not strand.crew.try_one():
            strand.mend()

    def _go_on(self) -> None:
        strand = self._subscription._strand
        strand.mend()
        if strand.crew is not None:
            strand.crew.kick()

    def _say(self) -> None:
        try:
            _log.warning(
                "subscription %r: %d events in a row have failed; nothing is handled for %g s",
                self._subscription._name, self._row, self._breaker.pause,
            )  # fmt: skip
        except BaseException:
            pass

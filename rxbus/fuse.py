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

    Handled events aren't counted here but looked up when one fails, so they cost nothing. ``_lock`` guards the counting and the
    gate of the strand: that is shut exactly from the failure that was one too many to the end of the pause, and while an event is
    on trial. Where several events are under way, some began before the pause; what becomes of those decides nothing any more.
    """

    __slots__ = ("_breaker", "_handled", "_lock", "_pausing", "_row", "_subscription", "on_trial")

    def __init__(self, subscription: Subscription, breaker: Breaker) -> None:
        self._subscription = subscription
        self._breaker = breaker
        self._lock = threading.Lock()
        self._row = 0
        self._handled = 0
        self._pausing = False
        self.on_trial = False
        """The pause is over, and what comes of the next event isn't known yet."""

    def failed(self, *, trial: bool | None = None) -> None:
        """An event has failed: the one on trial, or one beside it, perhaps; ``None`` where there are never two at a time."""
        strand = self._subscription._strand
        with self._lock:
            if self._pausing or (self.on_trial and trial is False):
                return
            handled = self._subscription._successes
            self._row = self._row + 1 if handled == self._handled else 1
            self._handled = handled
            self.on_trial = False
            if not trial and self._row < self._breaker.failures:
                return
            self._pausing = True
            strand.break_off()
        strand.after(self._breaker.pause, self._try_again)
        self._say()

    def handled(self) -> None:
        """The trial went well."""
        strand = self._subscription._strand
        with self._lock:
            if self._pausing:
                return
            self.on_trial = False
            strand.mend()
        strand.wake()
        if strand.crew is not None:
            strand.crew.kick()

    def _try_again(self) -> None:
        strand = self._subscription._strand
        with self._lock:
            self._pausing, self.on_trial = False, True
        if strand.crew is None or not strand.crew.try_one():
            strand.mend()
            strand.wake()

    def _say(self) -> None:
        try:
            _log.warning(
                "subscription %r: %d events in a row have failed; nothing is handled for %g s",
                self._subscription._name, self._row, self._breaker.pause,
            )  # fmt: skip
        except BaseException:
            pass

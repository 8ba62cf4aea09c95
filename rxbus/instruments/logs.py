"""What became of each event, as one line of the standard library's `logging`."""

from __future__ import annotations

import logging
import threading
from typing import Any

from ..arguments import describe, visible
from ..event import Event
from ..instrument import Instrument
from ..outcome import CloseReport, DeadLetter
from ..recovery import error_text
from ..subscription import Subscription


class _Here(threading.local):
    error: BaseException | None = None
    """Why the attempt that is just being reported failed."""


class LoggingInstrument(Instrument):
    """Writes one line for each outcome of an event in a subscription: handled, retried, dropped, dead-lettered.

    A line reads ``handled topic=user.query subscription=audit event=... seconds=0.0012``; the same facts are attributes of
    the log record (``outcome``, ``topic``, ``subscription``, ``event_id``, ``correlation_id`` and so on), so that a structured
    formatter needs no parsing. Handled is INFO, retried and dropped are WARNING, dead-lettered is ERROR; what a bus could not
    finish when it was closed is one more WARNING. ``logger`` is ``rxbus.events`` unless told.

    Raises: `TypeError` for what is no logger.
    """

    def __init__(self, logger: logging.Logger | None = None) -> None:
        if logger is not None and not isinstance(logger, logging.Logger):  # pyright: ignore[reportUnnecessaryIsInstance] - untyped callers
            raise TypeError(f"logger must be a logging.Logger, got {describe(logger)}")
        self._logger = logger if logger is not None else logging.getLogger("rxbus.events")
        self._here = _Here()

    def handled(self, event: Event[Any], subscription: Subscription, seconds: float) -> None:
        """One line, INFO."""
        if self._logger.isEnabledFor(logging.INFO):
            self._event(logging.INFO, "handled", event, subscription.name, seconds=round(seconds, 6))

    def failed(self, event: Event[Any], subscription: Subscription, error: BaseException, attempt: int) -> None:
        """No line of its own: `retried` or `dead_lettered` comes next, on this thread."""
        self._here.error = error

    def retried(self, event: Event[Any], subscription: Subscription, delay: float) -> None:
        """One line, WARNING, with the error of the attempt that failed."""
        error, self._here.error = self._here.error, None
        told = "" if error is None else error_text(error)
        self._event(logging.WARNING, "retried", event, subscription.name, delay=round(delay, 6), error=told)

    def dropped(self, event: Event[Any], subscription: Subscription, reason: str) -> None:
        """One line, WARNING."""
        self._event(logging.WARNING, "dropped", event, subscription.name, reason=reason)

    def dead_lettered(self, letter: DeadLetter) -> None:
        """One line, ERROR."""
        self._here.error = None
        facts = {"reason": letter.reason.value, "attempts": letter.attempts, "error": error_text(letter.error)}
        self._event(logging.ERROR, "dead_lettered", letter.event, letter.subscription, **facts)

    def closed(self, report: CloseReport) -> None:
        """One line, WARNING, if something could not be finished."""
        if report.stuck or report.unhandled:
            self._write(logging.WARNING, "closed", report=str(report))

    def _event(self, level: int, outcome: str, event: Event[Any], subscription: str, **facts: Any) -> None:
        about = {"topic": event.topic, "subscription": subscription, "event_id": event.id, "correlation_id": event.correlation_id}
        self._write(level, outcome, **about, **facts)

    def _write(self, level: int, outcome: str, **facts: Any) -> None:
        if self._logger.isEnabledFor(level):
            line = " ".join([outcome, *(f"{name}={_quoted(value)}" for name, value in facts.items())])
            self._logger.log(level, "%s", line, extra={"outcome": outcome, **facts})


def _quoted(value: object) -> str:
    text = visible(str(value))
    if text and not any(c in text for c in ' "='):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

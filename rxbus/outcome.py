"""What can become of an event, as records: the dead letter and its reasons, the receipt, the report of a close."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from .arguments import describe
from .display import Shown
from .event import Event

if TYPE_CHECKING:
    from .card import Card

__all__ = ["CloseReport", "DeadLetter", "Reason", "Receipt"]


class Reason(enum.Enum):
    """Why an event became a dead letter."""

    FAILED = "failed"
    """The handler, an operator, or the observer of a raw chain raised, and no attempt is left."""
    TIMEOUT = "timeout"
    """The handler, a coroutine, took longer than its ``timeout``, and was cancelled."""
    OVERFLOW = "overflow"
    """The mailbox had no room."""
    HOPS = "hops"
    """Its story is longer than ``max_hops``: agents feed each other in a circle, perhaps."""
    UNDELIVERABLE = "undeliverable"
    """The scheduler or the event loop that should have run the subscription refused, or is gone."""
    MALFORMED = "malformed"
    """It arrived from elsewhere, and could not be read."""
    TOO_LARGE = "too_large"
    """It is too large to be sent elsewhere."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class DeadLetter(Shown):
    """One event that one subscription could not handle."""

    event: Event[Any]
    subscription: str
    """The name of the subscription."""
    reason: Reason
    error: BaseException
    """What was raised, without its frames: they would keep everything alive that the handler had at hand."""
    traceback: str
    """The traceback as text; empty when nothing was raised in a handler."""
    attempts: int
    """How often it was tried; 0 when it never reached a handler."""
    time: float
    """When it was given up, in Unix seconds."""

    def __repr__(self) -> str:
        # the traceback is for who prints it; everything else may be what made the handler fail
        event, name, error = describe(self.event, 300), describe(self.subscription), describe(self.error, 200)
        return f"DeadLetter({event}, subscription={name}, reason={self.reason.name}, error={error}, attempts={self.attempts})"

    def _card(self) -> Card:
        from .card import Card
        from .lettering import count, excerpt, say

        tried = f"{self.reason.value} after {count(self.attempts, 'attempt')}" if self.attempts else self.reason.value
        facts = [f"error: {say(self.error)}", f"event: {excerpt(self.event.payload, 160)} of {self.event.topic} ({self.event.id})"]
        return Card("DeadLetter of", self.subscription, tried, True, facts, preformatted=self.traceback.rstrip())


@dataclass(frozen=True, slots=True)
class Receipt(Shown):
    """What became of one delivered event, in subscriptions."""

    event: Event[Any]
    handled: int
    failed: int
    dropped: int

    def _card(self) -> Card:
        from .card import Card
        from .lettering import excerpt

        state = f"{self.handled:,} handled, {self.failed:,} failed, {self.dropped:,} dropped"
        return Card("Receipt", self.event.topic, state, bool(self.failed), [f"event: {excerpt(self.event.payload, 160)} ({self.event.id})"])


@dataclass(frozen=True, slots=True)
class CloseReport(Shown):
    """What a close could not finish in time."""

    stuck: tuple[str, ...] = ()
    """The names of the subscriptions whose handler had not returned."""
    unhandled: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """From the name of a subscription to the number of events that it left, the one in its handler included."""

    def __str__(self) -> str:
        if not self.stuck and not self.unhandled:
            return "everything was handled"
        parts = [f"{name!r} left {count} {'event' if count == 1 else 'events'} unhandled" for name, count in self.unhandled.items()]
        parts += [f"{name!r} is stuck in its handler" for name in self.stuck]
        return "; ".join(parts)

    def _card(self) -> Card:
        from .card import Card
        from .drawing import Table

        rows = [(name, number, "stuck in its handler" if name in self.stuck else "") for name, number in self.unhandled.items()]
        rows += [(name, 0, "stuck in its handler") for name in self.stuck if name not in self.unhandled]
        alarm = bool(self.stuck or self.unhandled)
        state = "not everything was handled" if alarm else str(self)
        return Card("CloseReport", "", state, alarm, tables=[Table(("subscription", "unhandled", ""), rows, (1,))])

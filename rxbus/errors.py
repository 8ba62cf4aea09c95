"""Everything that rxbus raises, by who is at fault; it imports nothing from rxbus.

One root, `BusError`. Each class is also the built-in that a reader expects, so ``except ValueError`` works, and keeps what
it knows as attributes. A message says where, what was expected and what was found.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = [
    "BusClosedError",
    "BusError",
    "DrainTimeoutError",
    "HandlerError",
    "MailboxFullError",
    "MissingExtraError",
    "NoRespondersError",
    "PayloadTypeError",
    "RequestFailedError",
    "RequestTimeoutError",
    "TopicNameError",
]


class BusError(Exception):
    """The root of all that rxbus raises."""


class TopicNameError(BusError, ValueError):
    """A name or pattern that the grammar of topics doesn't have.

    Attributes: ``name``, what was given; ``token``, the part that is wrong, or ``None`` when it is the whole.
    """

    def __init__(self, message: str, name: object, token: str | None = None) -> None:
        super().__init__(message)
        self.name = name
        self.token = token


class HandlerError(BusError, TypeError):
    """Something that can't handle an event: not callable, or not callable with one argument.

    Attribute: ``handler``, what was given.
    """

    def __init__(self, message: str, handler: object) -> None:
        super().__init__(message)
        self.handler = handler


class PayloadTypeError(BusError, TypeError):
    """A payload, or a second type, that a typed topic doesn't take.

    Attributes: ``topic``, its name; ``expected``, the type that it takes; ``found``, the type that came.
    """

    def __init__(self, message: str, topic: str, expected: object, found: object) -> None:
        super().__init__(message)
        self.topic = topic
        self.expected = expected
        self.found = found


class BusClosedError(BusError, RuntimeError):
    """The bus, or the topic, is closed and takes nothing more; nothing happened.

    Attribute: ``name``, of the bus or the topic.
    """

    def __init__(self, message: str, name: str) -> None:
        super().__init__(message)
        self.name = name


class MailboxFullError(BusError):
    """A mailbox had no room; it is the error of a dead letter with reason OVERFLOW, never raised to a publisher.

    Attributes: ``subscription``, its name; ``capacity``, in events.
    """

    def __init__(self, message: str, subscription: str, capacity: int) -> None:
        super().__init__(message)
        self.subscription = subscription
        self.capacity = capacity


class DrainTimeoutError(BusError, TimeoutError):
    """`drain` or `deliver` ran out of time.

    Attribute: ``busy``, a mapping from the name of each subscription still at work to the events that it has left.
    """

    def __init__(self, message: str, busy: Mapping[str, int]) -> None:
        super().__init__(message)
        self.busy = dict(busy)


class NoRespondersError(BusError):
    """A request to a topic that nobody consumes, or wildcard subscriptions only; nothing happened.

    Attribute: ``topic``, its name.
    """

    def __init__(self, message: str, topic: str) -> None:
        super().__init__(message)
        self.topic = topic


class RequestFailedError(BusError):
    """Everybody who could have answered a request has given it up, or dropped it; the cause is the error of the last one.

    Attributes: ``topic``, its name; ``event``, the request; ``letter``, the dead letter of the last one, or ``None``.
    """

    def __init__(self, message: str, topic: str, event: object, letter: object) -> None:
        super().__init__(message)
        self.topic = topic
        self.event = event
        self.letter = letter


class RequestTimeoutError(BusError, TimeoutError):
    """No reply came in time.

    Attributes: ``topic``, its name; ``event``, the request; ``timeout``, in seconds.
    """

    def __init__(self, message: str, topic: str, event: object, timeout: float) -> None:
        super().__init__(message)
        self.topic = topic
        self.event = event
        self.timeout = timeout


class MissingExtraError(BusError, ImportError):
    """A part of rxbus needs a package that isn't installed; the message says how to install it.

    Attribute: ``extra``, the name of the extra that brings it.
    """

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs a package that isn't installed: pip install 'rxbus[{extra}]'")
        self.extra = extra

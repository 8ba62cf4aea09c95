"""How a test asks for faults: ``faults(bus).fail("research", nth=2)``. What they do is in `fault`."""

from __future__ import annotations

import math
from typing import Any

from ..arguments import describe, text
from ..arguments import seconds as checked
from ..bus import EventBus
from ..subscription import Subscription
from .fault import Failure, Fault, Pause


class Faults:
    """Makes faults for the subscriptions of one bus."""

    def __init__(self, bus: EventBus) -> None:
        if not isinstance(bus, EventBus):  # pyright: ignore[reportUnnecessaryIsInstance] - untyped callers
            raise TypeError(f"bus must be an EventBus, got {describe(bus)}")
        self._bus = bus

    def fail(
        self,
        subscription: str | Subscription,
        *,
        nth: int | None = None,
        error: BaseException | type[BaseException] | None = None,
        attempts: int | None = None,
    ) -> Fault:
        """Has the handler fail with ``error`` at the ``nth`` event from now on, or at every one.

        It fails at all attempts, or at the first so many. Raises: `TypeError` or `ValueError` naming the argument.
        """
        found = self._find(subscription)
        failure: Any = RuntimeError(f"a fault of subscription {found.name!r}, on purpose") if error is None else error
        if not isinstance(failure, BaseException) and not (isinstance(failure, type) and issubclass(failure, BaseException)):
            raise TypeError(f"error must be an exception, got {describe(error)}")
        return Failure(self._bus, found, nth, attempts, failure)

    def delay(self, subscription: str | Subscription, seconds: float, *, nth: int | None = None, attempts: int | None = None) -> Fault:
        """Has the handler take so many seconds longer at the ``nth`` event from now on, or at every one.

        Raises: `TypeError` or `ValueError` naming the argument.
        """
        return Pause(self._bus, self._find(subscription), nth, attempts, checked("seconds", seconds))

    def hang(self, subscription: str | Subscription, *, nth: int | None = None, attempts: int | None = None) -> Fault:
        """Has the handler hang at the ``nth`` event from now on, or at every one, until `Fault.release` or the end of the block.

        Raises: `TypeError` or `ValueError` naming the argument.
        """
        return Pause(self._bus, self._find(subscription), nth, attempts, math.inf)

    def _find(self, subscription: object) -> Subscription:
        if isinstance(subscription, Subscription):
            if subscription._host is not self._bus:
                raise ValueError(f"subscription {subscription.name!r} belongs to another bus than {self._bus.name!r}")
            return subscription
        name = text("subscription", subscription)
        found = self._bus.subscriptions.get(name)
        if found is None:
            known = ", ".join(map(repr, self._bus.subscriptions)) or "none"
            raise ValueError(f"subscription must be a living one of bus {self._bus.name!r}, got {name!r}; there is {known}")
        return found


def faults(bus: EventBus) -> Faults:
    """Faults on purpose: ``with faults(bus).fail("research", nth=2, error=ValueError("no")): ...``.

    Raises: `TypeError` for what is no bus.
    """
    return Faults(bus)

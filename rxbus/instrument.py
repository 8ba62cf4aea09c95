"""What may watch a bus: hooks that do nothing, and the panel that calls those which somebody overrode.

A bus without instruments has no panel at all, and nothing on its way asks for one more than once a batch. With one, a hook is
called on the thread where the thing happens, never under a lock. `Panel` makes one function for each hook, which calls the
instruments that have something to say there; a hook that nobody overrode costs one empty call.
"""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from .arguments import describe

if TYPE_CHECKING:
    from .event import Event
    from .outcome import CloseReport, DeadLetter
    from .subscription import Subscription

__all__ = ["Instrument"]

_log = logging.getLogger("rxbus")


class Instrument:
    """Hooks that a bus calls when something happens; each does nothing unless overridden.

    They are called on the thread where it happens and should be quick: publishers and handlers wait for them. One that raises is
    logged, the first time, and harms nothing. When `EventBus.drain` returns, the hooks of all that was handled have been called.
    Different threads tell of one event without waiting for one another: a busy subscription may be at `handling` while the
    publisher is at `published`, or a subscription's first events may be told before `subscribed`. Inside a hook the bus behaves
    as inside a handler: `EventBus.close` returns at once, and `EventBus.drain` raises.
    """

    def attached(self, bus: Any) -> None:
        """It watches this bus, which is being made, from now on."""

    def publishing(self, event: Event[Any]) -> Mapping[str, Any] | None:
        """The event passed all checks and is about to go out; what is returned is added to its metadata."""

    def published(self, event: Event[Any]) -> None:
        """The event is in the mailboxes of its topic's subscriptions, or was refused by them."""

    def offered(self, event: Event[Any], subscription: Subscription) -> None:
        """The event was put before that subscription (of a group: the one that answers for what it has queued)."""

    def handling(self, event: Event[Any], subscription: Subscription, attempt: int) -> None:
        """An attempt, from 1, begins; called in the context of the handler."""

    def handled(self, event: Event[Any], subscription: Subscription, seconds: float) -> None:
        """The event went through without raising; the last attempt took that long."""

    def failed(self, event: Event[Any], subscription: Subscription, error: BaseException, attempt: int) -> None:
        """An attempt failed, or the event was refused (attempt 0); `retried` or `dead_lettered` follows."""

    def retried(self, event: Event[Any], subscription: Subscription, delay: float) -> None:
        """There will be another attempt, in so many seconds."""

    def dropped(self, event: Event[Any], subscription: Subscription, reason: str) -> None:
        """It was released without having been handled: ``"overflow"`` (a drop policy) or ``"disposed"`` (the subscription ended)."""

    def dead_lettered(self, letter: DeadLetter) -> None:
        """A subscription gave an event up."""

    def subscribed(self, subscription: Subscription) -> None:
        """It takes events."""

    def disposed(self, subscription: Subscription) -> None:
        """It has ended, and so has the last event that it had (but for what a publisher is just being refused)."""

    def closed(self, report: CloseReport) -> None:
        """The bus is closed."""


HOOKS = tuple(name for name in vars(Instrument) if not name.startswith("_"))
_BY_PUBLISHERS = frozenset({"publishing", "published", "offered"})
"""Called by whoever publishes: Ctrl-C there is the program's, and nobody's fault."""


def check_instruments(value: object) -> Panel | None:
    """The panel of these instruments; ``None`` if there are none.

    Raises: `TypeError` for what is no iterable of objects with the hooks of an `Instrument`.
    """
    if isinstance(value, Instrument | str | bytes) or not isinstance(value, Iterable):
        raise TypeError(f"instruments must be an iterable of Instruments, such as [Metrics()], got {describe(value)}")
    instruments = list(cast("Iterable[object]", value))
    for instrument in instruments:
        _check_shape(instrument)
    return Panel(instruments) if instruments else None


def _check_shape(instrument: object) -> None:
    if isinstance(instrument, type):
        raise TypeError(f"instruments must hold Instruments, not classes of them: got {describe(instrument)}")
    for hook in HOOKS:
        method: Any = getattr(instrument, hook, None)
        if not callable(method):
            raise TypeError(f"instruments must hold Instruments, got {describe(instrument)}, which has no {hook}()")
        if inspect.iscoroutinefunction(method) or inspect.isgeneratorfunction(method) or inspect.isasyncgenfunction(method):
            raise TypeError(f"instruments: {hook}() of {describe(instrument)} must be a plain function")
        expected = inspect.signature(getattr(Instrument, hook))
        arguments = list(expected.parameters)[1:]
        try:
            inspect.signature(method).bind(*arguments)
        except TypeError as error:
            takes = f"{hook}({', '.join(arguments)})"
            raise TypeError(f"instruments: {describe(instrument)} must take {takes}: {error}") from None
        except ValueError:
            pass  # built in: it doesn't say what it takes


def _checked(given: Mapping[str, Any] | None) -> dict[str, Any]:
    added = dict(given or {})
    if not all(isinstance(key, str) for key in cast("dict[object, Any]", added)):
        raise TypeError(f"what publishing() returns must have str keys, got {describe(added)}")
    return added


def _nothing(*_: Any) -> None:
    """Nobody wants to know."""


class _Here(threading.local):
    depth = 0


class Panel:
    """The instruments of one bus, as one function for each hook."""

    def __init__(self, instruments: list[Any]) -> None:
        self._here = _Here()
        self._reported: set[int] = set()
        """Ids of the instruments that have raised; the panel keeps them alive."""
        self._instruments = instruments
        self.attached = self._call("attached")
        self.published = self._call("published")
        self.offered = self._call("offered")
        self.handling = self._call("handling")
        self.handled = self._call("handled")
        self.failed = self._call("failed")
        self.retried = self._call("retried")
        self.dropped = self._call("dropped")
        self.dead_lettered = self._call("dead_lettered")
        self.subscribed = self._call("subscribed")
        self.disposed = self._call("disposed")
        self.closed = self._call("closed")
        self._publishing = self._overridden("publishing")

    @property
    def is_calling_here(self) -> bool:
        """Whether an instrument is at work on the calling thread."""
        return self._here.depth > 0

    def publishing(self, event: Any) -> dict[str, Any]:
        """What the instruments add to the metadata of an event that is about to go out."""
        found: dict[str, Any] = {}
        here = self._here
        here.depth += 1
        try:
            for instrument, method in self._publishing:
                try:
                    found.update(_checked(method(event)))
                except KeyboardInterrupt:
                    raise
                except BaseException as error:
                    self._report(instrument, "publishing", error)
        finally:
            here.depth -= 1
        return found

    def _overridden(self, hook: str) -> list[tuple[Any, Callable[..., Any]]]:
        unused = vars(Instrument)[hook]
        methods = [(one, getattr(one, hook)) for one in self._instruments]
        return [(one, method) for one, method in methods if getattr(method, "__func__", None) is not unused]

    def _call(self, hook: str) -> Callable[..., None]:
        methods = self._overridden(hook)
        if not methods:
            return _nothing
        lets_through = KeyboardInterrupt if hook in _BY_PUBLISHERS else ()

        here = self._here

        def call(*arguments: Any) -> None:
            here.depth += 1
            try:
                for instrument, method in methods:
                    try:
                        method(*arguments)
                    except lets_through:
                        raise
                    except BaseException as error:
                        self._report(instrument, hook, error)
            finally:
                here.depth -= 1

        return call

    def _report(self, instrument: object, hook: str, error: BaseException) -> None:
        if id(instrument) in self._reported:
            return
        self._reported.add(id(instrument))
        try:
            name = type(instrument).__name__
            _log.error("instrument %s failed in %s() and is passed over; more of its errors are not logged", name, hook, exc_info=error)
        except BaseException:
            pass  # a log handler that raises

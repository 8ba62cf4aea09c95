"""Mailboxes in the middle of a chain."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from .event import RawDelivery, current_delivery
from .instrument import Panel
from .intake import Fed
from .mailbox import Entry
from .outcome import DeadLetter
from .subject import MailboxSubject
from .subscription import Subscription

T = TypeVar("T")


def bus_of(delivery: RawDelivery | None) -> Any:
    """The bus that carries an event, also behind other mailboxes; ``None`` without one."""
    host: Any = None if delivery is None else delivery[1]._host
    while (behind := getattr(host, "_bus", None)) is not None:
        host = behind
    return host


class Box(MailboxSubject[T]):
    """A mailbox in the middle of a chain; the bus whose event comes through first keeps its books."""

    _bus: Any = None

    @property
    def _panel(self) -> Panel | None:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride] - a subject that stands alone has none
        return None if self._bus is None else self._bus._panel

    @property
    def _is_virtual(self) -> bool:
        return self._bus is not None and self._bus._is_virtual

    def _now(self) -> float:
        return super()._now() if self._bus is None else self._bus._now()

    def on_next(self, value: T) -> None:
        """As that of every subject; with the first item it is known which bus carries the chain, if one does."""
        if self._bus is None:
            self._look_for_bus()
        super().on_next(value)

    def _offer(self, entry: Entry) -> None:
        if self._panel is None:
            super()._offer(entry)
        else:
            self._offer_watched(entry)

    def _announce(self, entries: Iterable[Entry], outlets: Iterable[Fed], *, anew: bool = True) -> None:
        panel = self._panel
        for entry in entries:
            for fed in outlets:
                event = fed._event_of(entry) if isinstance(fed, Subscription) else None
                if panel is not None and event is not None:
                    panel.offered(event, fed)

    def _look_for_bus(self) -> None:
        delivery = current_delivery.get()
        bus = bus_of(delivery)
        adopt = getattr(bus, "_adopt", None)
        if delivery is None or adopt is None:
            return
        self._bus = bus
        for subscription in self._subscriptions():
            subscription._boxed = True
            subscription._pattern = delivery[1].pattern
            strand = subscription._strand
            strand.mailbox.block_timeout = getattr(bus, "_block_timeout", strand.mailbox.block_timeout)
            if self._executor is None:
                strand.executor = getattr(bus, "_executor", strand.executor)
            if not adopt(subscription, f"{delivery[1].name}/{self._kind()}"):
                subscription.dispose()  # the bus has been closed

    def _kind(self) -> str:
        """What it is called after, behind the name of what feeds it."""
        return "mailbox"

    def _add_letter(self, letter: DeadLetter) -> None:
        if self._bus is not None:
            self._bus._add_letter(letter)

    def _detach(self, fed: Any) -> None:
        super()._detach(fed)
        if self._bus is not None:
            self._bus._detach(fed)

    def _retire(self, subscription: Any) -> None:
        if self._bus is not None:
            self._bus._retire(subscription)

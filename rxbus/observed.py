"""A topic of a bus with instruments: it says what was published, and to whom it was offered.

It says so after the topic's lock was released and before any subscription is woken, so an idle subscription begins with an event
after that was said, and no instrument runs under a lock. Each entry has a follower, even if nobody waits for it: subscriptions
tell a follower what became of its event, and that is where instruments hear of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol, cast

from typing_extensions import TypeVar

from .event import Event, enriched
from .group import Group
from .instrument import Panel
from .intake import Fed
from .mailbox import Entry, Ticket, noted
from .outcome import Reason
from .request import Pending
from .topic import Topic, TopicHost

T = TypeVar("T", default=Any)


class ObservedHost(TopicHost, Protocol):
    """A bus with instruments."""

    _panel: Panel | None


class ObservedTopic(Topic[T]):
    """A `Topic` whose traffic instruments hear of."""

    def __init__(self, name: str, bus: ObservedHost) -> None:
        super().__init__(name, bus)
        assert bus._panel is not None
        self._instruments = bus._panel
        self._plain = False

    def _going_out(self, event: Event[T]) -> Event[T]:
        if self._shut:
            with self._guard:
                self._refuse()  # now, before anybody is told that it goes out
        added = self._instruments.publishing(event)
        return enriched(event, added) if added else event

    def _announce(self, entries: Iterable[Entry], outlets: Iterable[Fed], *, anew: bool = True) -> None:
        panel = self._instruments
        for entry in entries:
            event = entry[0]
            if anew:
                panel.published(event)
            for fed in outlets:
                panel.offered(event, fed.steward().consumer if isinstance(fed, Group) else fed)

    def _offer(self, entry: Entry) -> None:
        self._offer_watched(entry)

    def _offer_to(self, fed: Fed, entry: Entry) -> bool:
        return super()._offer_to(fed, noted(entry))

    def _offer_in_vain(self, entry: Entry, reason: Reason, error: Exception, ticket: Ticket | Pending | None = None) -> None:
        super()._offer_in_vain(noted(entry), reason, error, ticket)

    def _offer_chunks(self, entries: list[Entry], start: int = 0) -> Iterator[int]:
        return super()._offer_chunks([noted(entry) for entry in entries], start)


def topic_for(name: str, host: TopicHost) -> Topic[Any]:
    """The topic of that name, for a bus with instruments or without."""
    observed = getattr(host, "_panel", None) is not None
    # not `Topic[Any](...)`: that would leave its mark in the instance
    return ObservedTopic(name, cast("ObservedHost", host)) if observed else Topic(name, host)

"""Where a subscription stands, and whom it belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from .group import Group
from .instrument import Panel
from .mailbox import Mailbox
from .outcome import DeadLetter
from .schedulers import Executor

if TYPE_CHECKING:
    from .subscription import Subscription


class Host(Protocol):
    """Who a subscription belongs to: it is told of letters and of the end."""

    @property
    def _panel(self) -> Panel | None:
        """The instruments that watch it."""
        ...

    def _now(self) -> float:
        """The present in Unix seconds, or virtual ones."""
        ...

    @property
    def _is_virtual(self) -> bool:
        """Whether its time is virtual, so that nothing is left to chance."""
        ...

    def _add_letter(self, letter: DeadLetter, /) -> None: ...

    def _detach(self, subscription: Subscription, /) -> None:
        """Takes its inlets out of all topics; when this returned, nothing offers to it any more."""
        ...

    def _retire(self, subscription: Subscription, /) -> None:
        """It is disposed of, and its last event has ended."""
        ...


class Place(NamedTuple):
    """Where a subscription stands: what it is called, what it consumes, whom it belongs to, where its events wait, who runs it,
    and with whom it shares them."""

    name: str
    pattern: str
    host: Host
    mailbox: Mailbox
    executor: Executor
    group: Group | None = None

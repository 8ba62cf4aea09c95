"""A diagram that is published on a topic: one publisher, who says one thing after the other.

A publish may have to wait for room. What is due meanwhile runs inside that wait, and what the diagram shows next may be among it;
that stands in line until the publish has come back, as it would with a publisher on a thread.
"""

from __future__ import annotations

from collections import deque
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from ..errors import BusClosedError
from ..marbles import Notification
from ..recording import Recording
from ..topic import Topic
from .sources import tell

if TYPE_CHECKING:
    from .virtual import VirtualBus


class Feed:
    """One diagram on its way to a topic."""

    def __init__(self, bus: VirtualBus, topic: Topic[Any], recording: Recording) -> None:
        self._bus = bus
        self._topic = topic
        self.recording = recording
        """What was published."""
        self._context = copy_context()
        self._due: deque[Notification] = deque()
        self._saying = False

    def take(self, one: Notification) -> None:
        """Its time has come."""
        self._due.append(one)
        if self._saying:
            return
        self._saying = True
        try:
            while self._due:
                self._say(self._due.popleft())
        finally:
            self._saying = False

    def _say(self, one: Notification) -> None:
        bus, fed = self._bus, self.recording
        bus._feeds -= 1
        if fed.error is not None:
            return
        if one.kind == "next":
            try:
                event = self._context.run(bus.publish, self._topic, one.value)
            except BusClosedError as error:
                fed._add("error", error)  # closed meanwhile: the rest of the diagram is nobody's
            else:
                fed._add("next", event)
            return
        if one.kind == "error":
            self._topic.on_error(one.value)
        fed._add(one.kind, one.value)
        for tap in bus._taps.pop(self._topic.name, ()):
            tell(one, tap._observer)
            tap.dispose()

"""``async for event in bus.events(pattern)``: a subscription whose events are taken one by one, when they are asked for.

The strand of the subscription runs on the loop that the stream was made on. Its gate is shut (as that of a crew without a free
hand) unless somebody asks, so what nobody asked for stays in the mailbox, under its overflow policy: that is the back-pressure.
Everything here happens on that loop, but for the end, which may be told from any thread.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Generic, Self, TypeVar

from .arguments import Shape
from .consumer import HandlerSubscription
from .event import Event
from .handler import Handler
from .host import Place

T = TypeVar("T")
_END: Any = object()


class _Channel:
    """Between the subscription and its stream, which it doesn't keep alive."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.subscription: HandlerSubscription | None = None
        self.asking: asyncio.Future[Any] | None = None
        self.returned: deque[Event[Any]] = deque()
        """Given to somebody who was cancelled at that very moment."""
        self.ended = False

    async def give(self, event: Event[Any]) -> None:
        """The handler: somebody has asked, and gets this one."""
        asking, self.asking = self.asking, None
        strand = None if self.subscription is None else self.subscription._strand
        if strand is not None and (strand.mailbox.queue or strand._terminal is None):  # behind the last one comes the end
            strand.fill()
        if asking is None or asking.done():
            self.returned.append(event)
        else:
            asking.set_result(event)

    def end(self) -> None:
        """Nothing more will come."""
        try:
            self.loop.call_soon_threadsafe(self._end)
        except RuntimeError:
            self.ended = True  # the loop is closed: nobody asks any more

    def _end(self) -> None:
        self.ended = True
        if self.asking is not None and not self.asking.done():
            self.asking.set_result(_END)

    def dispose_soon(self) -> None:
        """The stream is gone. Not now: this is called by the garbage collector, whatever is going on."""
        subscription = self.subscription
        if subscription is not None:
            try:
                self.loop.call_soon_threadsafe(subscription.dispose)
            except RuntimeError:
                pass


class StreamSubscription(HandlerSubscription):
    """The subscription behind a stream."""

    __slots__ = ("_channel",)

    def __init__(self, place: Place, channel: _Channel) -> None:
        super().__init__(place, Handler(channel.give, Shape.COROUTINE, place.name))
        self._channel = channel
        channel.subscription = self
        self._strand.fill()

    def _closed(self) -> None:
        super()._closed()
        self._channel.end()


class EventStream(AsyncIterator[Event[T]], Generic[T]):
    """The events of a subscription, as they are asked for; it ends with the bus, its topic, `aclose`, or when it is let go of.

    One coroutine at a time asks, on the loop that it was made on. An asynchronous context manager, too, which closes it.
    """

    def __init__(self, channel: _Channel) -> None:
        self._channel = channel
        weakref.finalize(self, channel.dispose_soon).atexit = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event[T]:
        channel = self._channel
        if channel.returned:
            return channel.returned.popleft()
        if channel.ended:
            raise StopAsyncIteration
        if channel.asking is not None and not channel.asking.done():
            raise RuntimeError("somebody else waits for the next event of this stream already")
        assert channel.subscription is not None
        asking = channel.asking = channel.loop.create_future()
        channel.subscription._strand.clear()
        try:
            event = await asking
        except asyncio.CancelledError:
            if asking.done() and not asking.cancelled() and asking.result() is not _END:
                channel.returned.append(asking.result())  # it was given at that very moment
            channel.subscription._strand.fill()
            raise
        if event is _END:
            raise StopAsyncIteration
        return event

    async def aclose(self) -> None:
        """Ends the subscription; what nobody asked for is dropped, and counted."""
        if self._channel.subscription is not None:
            self._channel.subscription.dispose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def channel_here() -> _Channel:
    """A channel on the running loop.

    Raises: `RuntimeError` outside of one.
    """
    try:
        return _Channel(asyncio.get_running_loop())
    except RuntimeError:
        raise RuntimeError("events() is for coroutines: there is no running event loop here") from None

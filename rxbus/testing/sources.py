"""Marble diagrams as observables."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from reactivex import Observable, abc
from reactivex.disposable import SerialDisposable
from reactivex.scheduler import TimeoutScheduler

from ..marbles import Notification, parse
from ..schedulers import check_scheduler


def from_marbles(
    text: str, values: Mapping[str, Any] | None = None, *, error: Exception | None = None, scheduler: abc.SchedulerBase | None = None
) -> Observable[Any]:
    """What a diagram shows, from each `subscribe` on; one character is 0.1 s.

    ``-``: time passes; ``|``: completion; ``#``: ``error``; ``(ab)``: several items at one instant; blanks take no time. ``values``
    maps characters to items; others are themselves. It takes its time from ``scheduler``, or that of the subscription.

    Raises: `TypeError`; `ValueError` that shows where the diagram is wrong.
    """
    said = parse(text, values, error)
    chosen = check_scheduler(scheduler)

    def subscribe(observer: abc.ObserverBase[Any], given: abc.SchedulerBase | None = None) -> abc.DisposableBase:
        clock = chosen or given or TimeoutScheduler.singleton()
        left, started, following = deque(said), clock.now, SerialDisposable()

        def go_on() -> None:
            if left:
                following.disposable = clock.schedule_absolute(started + timedelta(seconds=left[0].time), say)

        def say(_: abc.SchedulerBase, __: object = None) -> None:
            tell(left.popleft(), observer)
            go_on()

        go_on()
        return following

    return Observable(subscribe)


def tell(one: Notification, observer: abc.ObserverBase[Any]) -> None:
    """Says it to an observer."""
    if one.kind == "next":
        observer.on_next(one.value)
    elif one.kind == "error":
        observer.on_error(one.value)
    else:
        observer.on_completed()

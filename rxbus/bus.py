"""The bus: what it is made of, what it shows, and how it ends; its verbs are in `publishing` and `consuming`."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from reactivex import abc

from . import shutdown
from .arguments import flag, optional_seconds, positive_int, seconds, text
from .consuming import Consuming
from .dead_letters import DeadLetters
from .display import Shown
from .errors import BusError, DrainTimeoutError
from .graph import BusGraph
from .instrument import Instrument, check_instruments
from .loops import LoopExecutor, LoopThread
from .mailbox import DEFAULT_BLOCK_TIMEOUT, DEFAULT_CAPACITY, Overflow
from .outcome import CloseReport
from .pattern import check_name
from .registry import Registry
from .schedulers import Executor, check_scheduler, executor_for
from .statistics import BusStatistics
from .subject import check_overflow, let_go
from .subscription import Subscription
from .topic import Topic
from .workers import DEFAULT_MAX_WORKERS, WorkerPool, elsewhere, waiting

if TYPE_CHECKING:
    from .card import Card

__all__ = ["EventBus"]

_log = logging.getLogger("rxbus")
SLICE_OF_DRAIN = 0.25
"""Seconds."""
DRAWN = 80
"""Topics and subscriptions that a bus draws when it shows itself."""


class EventBus(Consuming, Shown):
    """Named topics on which agents react to events, each on threads of the bus and behind a mailbox of its own.

    ``workers`` bounds the threads that run handlers; or ``scheduler`` is what runs them: any RxPY scheduler, or a `WorkerPool`
    shared with other buses. ``capacity`` (events) and ``overflow`` are the defaults of every mailbox; times are in seconds. What
    goes beyond ``max_hops`` from the first event of its story becomes a dead letter. ``instruments`` watch what happens.

    A context manager, plain and ``async``: leaving it drains and closes; left by an exception it closes without draining.

    Raises: `TypeError` or `ValueError` naming the argument.
    """

    def __init__(
        self,
        name: str = "rxbus",
        *,
        workers: int | None = None,
        scheduler: abc.SchedulerBase | None = None,
        capacity: int = DEFAULT_CAPACITY,
        overflow: Overflow = Overflow.BLOCK,
        block_timeout: float = DEFAULT_BLOCK_TIMEOUT,
        close_timeout: float = 30.0,
        max_hops: int | None = None,
        instruments: Iterable[Instrument] = (),
        dead_letter_capacity: int = 10_000,
    ) -> None:
        hops = None if max_hops is None else positive_int("max_hops", max_hops)
        super().__init__(text("name", name), hops, check_instruments(instruments))
        if workers is not None and scheduler is not None:
            raise ValueError("workers and scheduler can't both be given: a scheduler brings its own threads")
        bound = DEFAULT_MAX_WORKERS if workers is None else positive_int("workers", workers)
        given = check_scheduler(scheduler)
        self._capacity = positive_int("capacity", capacity)
        self._overflow = check_overflow(overflow)
        self._block_timeout = seconds("block_timeout", block_timeout)
        self._close_timeout = seconds("close_timeout", close_timeout)
        kept = positive_int("dead_letter_capacity", dead_letter_capacity)
        self._loop_thread = LoopThread(self._name)
        weakref.finalize(self, self._loop_thread.close).atexit = False  # let go of without a close: its thread ends too
        self._own_pool = WorkerPool(bound) if given is None else None
        self._executor: Executor = executor_for(given or cast("WorkerPool", self._own_pool))
        self._registry = Registry(self._name, self)
        self._topics = self._registry.topics
        self._dead_letters = DeadLetters(self, kept, self._executor, self._registry.resend)
        self._closer = threading.RLock()
        """Held by whoever does the closing."""
        self._closed = threading.Event()
        self._report = CloseReport()
        shutdown.open_buses.add(self)
        if self._panel is not None:
            self._panel.attached(self)

    @property
    def name(self) -> str:
        """Its name."""
        return self._name

    def __repr__(self) -> str:
        what = f"{type(self).__name__}({self._name!r})"
        return f"{what}: {self._state}, {len(self._topics)} topics, {len(self._registry.living)} subscriptions"

    @property
    def _state(self) -> str:
        return "closed" if self._closed.is_set() else "closing" if self._closing else "open"

    def _card(self) -> Card:
        from .card import Card

        graph, books = self.graph(), self.statistics()
        card = Card(type(self).__name__, self._name, self._state, facts=books.facts(), tables=books.tables())
        nodes = len(graph.topics) + len(graph.subscriptions)
        if not nodes:
            return card._replace(facts=["no topics and no subscriptions yet"])
        if nodes > DRAWN:
            many = f"{len(graph.topics):,} topics and {len(graph.subscriptions):,} subscriptions: bus.graph() draws them"
            return card._replace(facts=[*card.facts, many])
        return card._replace(picture=lambda: graph._chart(styled=False, titled=False), sketch=graph._sketch)

    # -- what there is

    @property
    def topics(self) -> Mapping[str, Topic[Any]]:
        """The topics by name, live and read-only."""
        return MappingProxyType(self._topics)

    @property
    def subscriptions(self) -> Mapping[str, Subscription]:
        """The living subscriptions by name, live and read-only."""
        return MappingProxyType(self._registry.living)

    @property
    def dead_letters(self) -> DeadLetters:
        """The events that could not be handled."""
        return self._dead_letters

    def statistics(self) -> BusStatistics:
        """A snapshot of all counters."""
        pool = self._executor
        workers = pool.statistics() if isinstance(pool, WorkerPool) else None
        return self._registry.statistics(workers, self._dead_letters._made_by_reason(), self._requests.late)

    def graph(self) -> BusGraph:
        """A snapshot of who feeds whom."""
        return self._registry.graph()

    def forget(self, name: str | Topic[Any]) -> None:
        """Completes a topic and drops it with its own subscriptions, after what they have queued; unknown names are no error.

        Raises: `TopicNameError`.
        """
        if not isinstance(name, Topic):
            self._registry.forget(check_name(name, "name"))
        elif not name.is_stopped:
            self._registry.forget(self._topic(name).name)

    # -- the end

    def drain(self, timeout: float | None = None) -> None:
        """Waits until nothing is queued or being handled, chained events included; timers of pipelines don't count.

        Raises: `DrainTimeoutError` after ``timeout`` seconds, naming who is busy; `BusError` where it would never end: from a
        handler of this bus or a task that it began, on an event loop that runs some of them, or with events of a paused subscription.
        """
        limit = optional_seconds("timeout", timeout)
        self._check_may_drain()
        if self._serves_this_loop():
            raise BusError(f"drain of bus {self._name!r} on the event loop of its handlers would wait for itself: await adrain()")
        self._drain(self._everybody, None if limit is None else self._monotonic() + limit)

    def _drain(self, subscriptions: shutdown.Subscriptions, deadline: float | None, *, strict: bool = True) -> None:
        """Waits until these have nothing to do."""
        shutdown.drain(self._name, subscriptions, deadline, strict=strict)

    async def adrain(self, timeout: float | None = None) -> None:
        """`drain` from a coroutine: the loop goes on meanwhile.

        Raises: as `drain`.
        """
        limit = optional_seconds("timeout", timeout)
        self._check_may_drain()
        deadline = None if limit is None else time.monotonic() + limit
        while True:
            # in slices, so that no thread goes on waiting for long after this was cancelled
            until = time.monotonic() + SLICE_OF_DRAIN
            last = deadline is not None and deadline <= until
            try:
                return await elsewhere(partial(shutdown.drain, self._name, self._everybody, deadline if last else until))
            except DrainTimeoutError:
                if last:
                    raise

    def _check_may_drain(self) -> None:
        if self._may_be_awaited_by_handler():
            raise BusError(f"drain of bus {self._name!r} from one of its handlers or instruments would wait for itself")

    def _serves_this_loop(self) -> bool:
        """Whether handlers of this bus run on the event loop that runs the calling code."""
        if asyncio._get_running_loop() is None:  # pyright: ignore[reportAttributeAccessIssue,reportUnknownMemberType] - None instead of an error
            return False
        executors = (executor for one in self._everybody() for executor in one._strand.executors())
        return any(isinstance(executor, LoopExecutor) and executor.is_here() for executor in executors)

    def close(self, timeout: float | None = None, *, drain: bool = True) -> CloseReport:
        """Refuses publishers from now on, has everything handled that was published, and completes all topics.

        It takes ``timeout`` seconds at most (``close_timeout`` unless told) and reports what could not be finished. With
        ``drain=False`` what is queued is dropped. Called from a handler or a task that it began, or on an event loop that runs some of
        them, it returns an empty report at once and finishes elsewhere. Idempotent: a second call waits for the first one's report.

        Raises: `TypeError` or `ValueError` naming the argument.
        """
        flag("drain", drain)
        limit = self._close_timeout if timeout is None else seconds("timeout", timeout)
        deadline = self._monotonic() + limit
        with self._close_lock:
            first, self._closing = not self._closing, True
        inside = self._may_be_awaited_by_handler() or self._serves_this_loop()
        if not inside:
            self._finish_closing(deadline, drain)
        elif first:
            self._registry.seal()
            self._elsewhere(partial(self._finish_closing, deadline, drain))
        if self._closed.is_set() or inside:
            return self._report
        return shutdown.report(self._everybody())

    def _elsewhere(self, finish: Callable[[], None]) -> None:
        """Has a close finished that was asked for from a handler."""
        threading.Thread(target=finish, name="rxbus-close", daemon=True).start()

    async def aclose(self, timeout: float | None = None, *, drain: bool = True) -> CloseReport:
        """`close` from a coroutine: the loop goes on meanwhile.

        Raises: as `close`.
        """
        if self._may_be_awaited_by_handler():
            return self.close(timeout, drain=drain)
        return await elsewhere(partial(self.close, timeout, drain=drain))

    def _finish_closing(self, deadline: float, drain: bool) -> None:
        """Closes, or waits until somebody else has; if Ctrl-C kept that one from it, the next one who comes does it."""
        closer = self._closer
        try:
            with waiting():
                mine = closer.acquire(timeout=max(0.0, deadline - self._monotonic()))
            if mine and not self._closed.is_set():
                self._registry.seal()
                shutdown.Closing(self, self._registry, self._dead_letters, self._everybody, self._closed_with).run(deadline, drain)
        finally:
            let_go(closer)

    def _closed_with(self, report: CloseReport) -> None:
        """The end of a close."""
        self._report = report
        if self._own_pool is not None:
            self._own_pool.close()
        self._loop_thread.close()
        self._requests.close(self._registry.closed_error())
        shutdown.open_buses.discard(self)
        if self._panel is not None:
            self._panel.closed(report)
        self._closed.set()

    def _orphan(self) -> None:
        """In the child of a fork: it refuses everything, and a close has nothing to do."""
        self._closing = True
        self._close_lock = threading.Lock()
        self._closer = threading.RLock()
        self._closed = threading.Event()
        self._closed.set()
        self._registry.orphan()
        self._loop_thread.orphan()
        self._dead_letters._orphan()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._warn(self.close(drain=kind is None))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._warn(await self.aclose(drain=kind is None))

    def _warn(self, report: CloseReport) -> None:
        if report.stuck or report.unhandled:
            warnings.warn(f"bus {self._name!r} was closed before all was handled: {report}", RuntimeWarning, stacklevel=3)

    def _everybody(self) -> list[Subscription]:
        """All who consume, the observers of the dead letters included."""
        return [*self._registry.subscriptions(), *self._dead_letters._subscriptions()]

"""Other libraries at the same work: one subscriber, eight subscribers, and a chain of three.

Each is used as its documentation has it, by the fastest way that this shows, and is imported by the contender that needs it: they
are an extra. What they do for an event differs, and so do the figures: a library is to be compared within its group, and with
its note in mind.
"""

# No `from __future__ import annotations` here: autogen-core and llama-index-workflows look at the annotations of handlers to know
# the events that they take, and these classes are local to the contenders.

import asyncio
import importlib.metadata
import importlib.util
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from reactivex.scheduler import ImmediateScheduler

from rxbus import Event, EventBus
from tests.bench.registry import CHAINED, EVENTS, PATIENCE, SUBSCRIBERS, Count, Figures, contender, rate, wait_for

Group = Literal["synchronous", "threads", "event loop"]
MANY_EVENTS = 800_000
"""Deliveries for those that would be done with `EVENTS` before the clock has anything to measure."""
MANY_CHAINED = 240_000
FEW_EVENTS = 4_000
"""Deliveries for those that take a good part of a millisecond for each."""
FEW_CHAINED = 1_000
BATCH = 25
"""Events at a time for those that refuse more than a few dozen, or grow slower with each that waits."""


@dataclass(frozen=True)
class Peer:
    """A library to be measured beside rxbus: its name, what is imported, where it runs handlers, and what it doesn't give."""

    name: str
    package: str
    group: Group
    note: str

    @property
    def version(self) -> str:
        """The installed one; `importlib.metadata.PackageNotFoundError` if there is none."""
        return importlib.metadata.version(self.name)

    @property
    def contenders(self) -> tuple[str, str, str]:
        """The names of what measures it: one subscriber, eight subscribers, a chain of three."""
        stem = self.name.replace("-", "_")
        return f"{stem}_one", f"{stem}_eight", f"{stem}_chain"


PEERS = (
    Peer(
        "blinker",
        "blinker",
        "synchronous",
        "a failing handler's exception goes to the publisher and handlers not yet called miss the event; a slow one delays the "
        "publisher and all others; two publishing threads are in a handler at once",
    ),
    Peer(
        "psygnal",
        "psygnal",
        "synchronous",
        "a failing handler's exception goes to the publisher and handlers not yet called miss the event; a slow one delays the "
        "publisher and all others; by emit_fast, as measured here, two publishing threads are in a handler at once",
    ),
    Peer(
        "pypubsub",
        "pubsub",
        "synchronous",
        "a failing handler's exception goes to the publisher and handlers not yet called miss the event, unless an exception handler "
        "is set; a slow one delays the publisher and all others; two publishing threads are in a handler at once",
    ),
    Peer(
        "pyee",
        "pyee",
        "threads",
        "a handler is called on several threads at once and out of order; the queue has no bound; a slow handler fills the pool and "
        "delays all others, while a failing one harms nobody",
    ),
    Peer(
        "aioreactive",
        "aioreactive",
        "event loop",
        "a failing handler's exception goes to the publisher and handlers not yet called miss the event; a slow one delays the "
        "publisher and all others; two publishing tasks are in a handler at once",
    ),
    Peer(
        "bubus",
        "bubus",
        "event loop",
        "order is kept; the queue takes 50 events and then publishing raises, or has no bound if the history has none; a slow handler "
        "delays all others, while a failing one harms nobody",
    ),
    Peer(
        "autogen-core",
        "autogen_core",
        "event loop",
        "a handler that awaits is in many events at once and finishes them out of order; the queue has no bound; a handler that awaits "
        "long or fails harms nobody",
    ),
    Peer(
        "llama-index-workflows",
        "workflows",
        "event loop",
        "a step that fails ends the whole run; one that awaits is in four events at once and finishes them out of order, unless "
        "num_workers is 1; the queue has no bound, and each event costs more the more of them wait",
    ),
)


def installed() -> list[Peer]:
    """Those that can be imported, without importing them."""
    return [peer for peer in PEERS if importlib.util.find_spec(peer.package) is not None]


# -- how they count: a handler must have the signature that its library asks for, and no call more than the others


class NamedCount(Count):
    """A `Count` that gets the payload by name."""

    def __call__(self, value: Any) -> None:
        self.calls += 1
        if self.calls == self.expected:
            self.done.set()


class SenderCount(Count):
    """A `Count` that gets the sender, and the payload by name."""

    def __call__(self, sender: Any, value: Any) -> None:  # type: ignore[override]
        self.calls += 1
        if self.calls == self.expected:
            self.done.set()


class SharedCount(Count):
    """A `Count` that several threads call at once."""

    def __init__(self, expected: int) -> None:
        super().__init__(expected)
        self._numbers = itertools.count(1)

    def __call__(self, _: Any) -> None:
        self.calls = number = next(self._numbers)  # one step, which no other thread comes between
        if number == self.expected:
            self.done.set()


class LoopCount:
    """Counts the calls of one handler on an event loop, and lets a coroutine wait for the expected number."""

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.calls = 0
        self.done = asyncio.Event()

    def add(self) -> None:
        """One call more."""
        self.calls += 1
        if self.calls == self.expected:
            self.done.set()

    async def wait(self) -> None:
        """Until it has counted what it expects, and no more."""
        try:
            await asyncio.wait_for(self.done.wait(), PATIENCE)
        except TimeoutError:
            pass
        if self.calls != self.expected:
            raise RuntimeError(f"{self.calls} of {self.expected} events were handled")


async def wait_on_loop(counts: list[LoopCount]) -> None:
    """Until all have counted what they expect."""
    for count in counts:
        await count.wait()


# -- synchronous: handlers run inside the publisher's call


@contender
def rxbus_inline_one() -> Figures:
    """One subscriber, handled before `publish` returns."""
    return _rxbus_inline(1)


@contender
def rxbus_inline_eight() -> Figures:
    """Eight subscribers, handled before `publish` returns; the rate is of deliveries."""
    return _rxbus_inline(SUBSCRIBERS)


def _rxbus_inline(subscribers: int) -> Figures:
    events = EVENTS // subscribers
    counts = [Count(events) for _ in range(subscribers)]
    with EventBus(scheduler=ImmediateScheduler()) as bus:
        for count in counts:
            bus.subscribe("work", count)
        started = time.perf_counter()
        for n in range(events):
            bus.publish("work", n)
        wait_for(*counts)
        return rate(EVENTS, started)


@contender
def rxbus_inline_chain() -> Figures:
    """Three topics, each feeding the next, all before `publish` returns."""
    count = Count(CHAINED)

    def forward(event: Event[int]) -> int:
        return event.payload

    with EventBus(scheduler=ImmediateScheduler()) as bus:
        bus.subscribe("a", forward, to="b", name="a")
        bus.subscribe("b", forward, to="c", name="b")
        bus.subscribe("c", count)
        started = time.perf_counter()
        for n in range(CHAINED):
            bus.publish("a", n)
        wait_for(count)
        return rate(CHAINED, started)


@contender
def rxbus_coroutines_one() -> Figures:
    """One subscriber, a coroutine function on the bus's own loop."""
    return _rxbus_coroutines(1)


@contender
def rxbus_coroutines_eight() -> Figures:
    """Eight subscribers on one loop; the rate is of deliveries."""
    return _rxbus_coroutines(SUBSCRIBERS)


def _rxbus_coroutines(subscribers: int) -> Figures:
    events = EVENTS // subscribers
    counts = [Count(events) for _ in range(subscribers)]
    with EventBus(capacity=2 * events) as bus:
        for count in counts:

            async def handler(event: Event[int], count: Count = count) -> None:
                count(event)

            bus.subscribe("work", handler)
        started = time.perf_counter()
        for n in range(events):
            bus.publish("work", n)
        wait_for(*counts)
        return rate(EVENTS, started)


@contender
def rxbus_coroutines_chain() -> Figures:
    """Three topics, each feeding the next through a coroutine function."""
    count = Count(CHAINED)

    async def forward(event: Event[int]) -> int:
        return event.payload

    async def end(event: Event[int]) -> None:
        count(event)

    with EventBus(capacity=2 * CHAINED) as bus:
        bus.subscribe("a", forward, to="b", name="a")
        bus.subscribe("b", forward, to="c", name="b")
        bus.subscribe("c", end)
        started = time.perf_counter()
        for n in range(CHAINED):
            bus.publish("a", n)
        wait_for(count)
        return rate(CHAINED, started)


@contender
def blinker_one() -> Figures:
    """A signal with one receiver."""
    return _blinker(1)


@contender
def blinker_eight() -> Figures:
    """A signal with eight receivers; the rate is of deliveries."""
    return _blinker(SUBSCRIBERS)


def _blinker(subscribers: int) -> Figures:
    from blinker import Signal

    events = EVENTS // subscribers
    counts = [SenderCount(events) for _ in range(subscribers)]
    signal = Signal()
    for count in counts:
        signal.connect(count)
    started = time.perf_counter()
    for n in range(events):
        signal.send(None, value=n)
    wait_for(*counts)
    return rate(EVENTS, started)


@contender
def blinker_chain() -> Figures:
    """Three signals; the receivers of the first two send on."""
    from blinker import Signal

    count = SenderCount(CHAINED)
    a, b, c = Signal(), Signal(), Signal()

    def to_b(sender: Any, value: int) -> None:
        b.send(sender, value=value)

    def to_c(sender: Any, value: int) -> None:
        c.send(sender, value=value)

    a.connect(to_b)
    b.connect(to_c)
    c.connect(count)
    started = time.perf_counter()
    for n in range(CHAINED):
        a.send(None, value=n)
    wait_for(count)
    return rate(CHAINED, started)


@contender
def psygnal_one() -> Figures:
    """A signal with one callback, sent by `emit_fast`, which takes no lock."""
    return _psygnal(1)


@contender
def psygnal_eight() -> Figures:
    """A signal with eight callbacks, sent by `emit_fast`; the rate is of deliveries."""
    return _psygnal(SUBSCRIBERS)


def _psygnal(subscribers: int) -> Figures:
    from psygnal import SignalInstance

    events = MANY_EVENTS // subscribers
    counts = [Count(events) for _ in range(subscribers)]
    signal = SignalInstance((int,))
    for count in counts:
        signal.connect(count)
    started = time.perf_counter()
    for n in range(events):
        signal.emit_fast(n)
    wait_for(*counts)
    return rate(MANY_EVENTS, started)


@contender
def psygnal_chain() -> Figures:
    """Three signals; the callbacks of the first two send on by `emit_fast`."""
    from psygnal import SignalInstance

    count = Count(MANY_CHAINED)
    a, b, c = SignalInstance((int,)), SignalInstance((int,)), SignalInstance((int,))

    def to_b(value: int) -> None:
        b.emit_fast(value)

    def to_c(value: int) -> None:
        c.emit_fast(value)

    a.connect(to_b)
    b.connect(to_c)
    c.connect(count)
    started = time.perf_counter()
    for n in range(MANY_CHAINED):
        a.emit_fast(n)
    wait_for(count)
    return rate(MANY_CHAINED, started)


@contender
def pypubsub_one() -> Figures:
    """A topic with one listener."""
    return _pypubsub(1)


@contender
def pypubsub_eight() -> Figures:
    """A topic with eight listeners; the rate is of deliveries."""
    return _pypubsub(SUBSCRIBERS)


def _pypubsub(subscribers: int) -> Figures:
    from pubsub.pub import Publisher

    events = EVENTS // subscribers
    counts = [NamedCount(events) for _ in range(subscribers)]
    publisher = Publisher()
    for count in counts:
        publisher.subscribe(count, "work")
    started = time.perf_counter()
    for n in range(events):
        publisher.sendMessage("work", value=n)
    wait_for(*counts)
    return rate(EVENTS, started)


@contender
def pypubsub_chain() -> Figures:
    """Three topics; the listeners of the first two send on."""
    from pubsub.pub import Publisher

    count = NamedCount(CHAINED)
    publisher = Publisher()

    def to_b(value: int) -> None:
        publisher.sendMessage("b", value=value)

    def to_c(value: int) -> None:
        publisher.sendMessage("c", value=value)

    publisher.subscribe(to_b, "a")
    publisher.subscribe(to_c, "b")
    publisher.subscribe(count, "c")
    started = time.perf_counter()
    for n in range(CHAINED):
        publisher.sendMessage("a", value=n)
    wait_for(count)
    return rate(CHAINED, started)


# -- threads: handlers run on a pool


@contender
def pyee_one() -> Figures:
    """An executor emitter with one listener, on its default pool."""
    return _pyee(1)


@contender
def pyee_eight() -> Figures:
    """An executor emitter with eight listeners, on its default pool; the rate is of deliveries."""
    return _pyee(SUBSCRIBERS)


def _pyee(subscribers: int) -> Figures:
    from pyee.executor import ExecutorEventEmitter

    events = EVENTS // subscribers
    counts = [SharedCount(events) for _ in range(subscribers)]
    with ExecutorEventEmitter() as emitter:
        for count in counts:
            emitter.on("work", count)
        started = time.perf_counter()
        for n in range(events):
            emitter.emit("work", n)
        wait_for(*counts)
        return rate(EVENTS, started)


@contender
def pyee_chain() -> Figures:
    """Three events of an executor emitter; the listeners of the first two emit the next."""
    from pyee.executor import ExecutorEventEmitter

    count = SharedCount(CHAINED)
    with ExecutorEventEmitter() as emitter:

        def to_b(value: int) -> None:
            emitter.emit("b", value)

        def to_c(value: int) -> None:
            emitter.emit("c", value)

        emitter.on("a", to_b)
        emitter.on("b", to_c)
        emitter.on("c", count)
        started = time.perf_counter()
        for n in range(CHAINED):
            emitter.emit("a", n)
        wait_for(count)
        return rate(CHAINED, started)


# -- event loop: handlers are coroutines, or run on the one thread of a loop


@contender
def aioreactive_one() -> Figures:
    """A subject with one observer."""
    return asyncio.run(_aioreactive(1))


@contender
def aioreactive_eight() -> Figures:
    """A subject with eight observers; the rate is of deliveries."""
    return asyncio.run(_aioreactive(SUBSCRIBERS))


async def _aioreactive(subscribers: int) -> Figures:
    from aioreactive import AsyncSubject

    events = MANY_EVENTS // subscribers
    counts = [LoopCount(events) for _ in range(subscribers)]
    subject: AsyncSubject[int] = AsyncSubject()
    for count in counts:
        await subject.subscribe_async(_observer(count))
    started = time.perf_counter()
    for n in range(events):
        await subject.asend(n)
    await wait_on_loop(counts)
    return rate(MANY_EVENTS, started)


@contender
def aioreactive_chain() -> Figures:
    """Three subjects, each feeding the next."""
    return asyncio.run(_aioreactive_chain())


async def _aioreactive_chain() -> Figures:
    from aioreactive import AsyncSubject

    count = LoopCount(MANY_CHAINED)
    a, b, c = AsyncSubject[int](), AsyncSubject[int](), AsyncSubject[int]()

    async def to_b(value: int) -> None:
        await b.asend(value)

    async def to_c(value: int) -> None:
        await c.asend(value)

    await a.subscribe_async(to_b)
    await b.subscribe_async(to_c)
    await c.subscribe_async(_observer(count))
    started = time.perf_counter()
    for n in range(MANY_CHAINED):
        await a.asend(n)
    await count.wait()
    return rate(MANY_CHAINED, started)


def _observer(count: LoopCount) -> Any:
    """An observer that counts: a class of its own costs less than aioreactive's around a function."""
    from aioreactive import AsyncObserver

    class Observer(AsyncObserver[int]):
        async def asend(self, value: int) -> None:
            count.calls += 1  # as `add` does, without its call
            if count.calls == count.expected:
                count.done.set()

        async def athrow(self, error: Exception) -> None:
            raise error

        async def aclose(self) -> None:
            pass

    return Observer()


@contender
def bubus_one() -> Figures:
    """A bus with one handler."""
    return asyncio.run(_bubus(1))


@contender
def bubus_eight() -> Figures:
    """A bus with eight handlers; the rate is of deliveries."""
    return asyncio.run(_bubus(SUBSCRIBERS))


async def _bubus(subscribers: int) -> Figures:
    import bubus

    class Work(bubus.BaseEvent[None]):
        number: int

    def handler(count: LoopCount, name: str) -> Callable[[Work], None]:
        def handle(_: Work) -> None:
            count.add()

        handle.__name__ = name  # two of one name are warned of
        return handle

    events = FEW_EVENTS // subscribers
    counts = [LoopCount(events) for _ in range(subscribers)]
    # it goes through its history at each event: with the default of 50 it is about five times slower
    bus = bubus.EventBus(max_history_size=1)
    for k, count in enumerate(counts):
        bus.on(Work, handler(count, f"handle_{k}"))
    started = time.perf_counter()
    for first in range(0, events, BATCH):
        for n in range(first, first + BATCH):
            bus.dispatch(Work(number=n))
        await bus.wait_until_idle()
    await wait_on_loop(counts)
    figures = rate(FEW_EVENTS, started)
    await bus.stop(clear=True)
    return figures


@contender
def bubus_chain() -> Figures:
    """Three event types; the handlers of the first two dispatch the next."""
    return asyncio.run(_bubus_chain())


async def _bubus_chain() -> Figures:
    import bubus

    class A(bubus.BaseEvent[None]):
        number: int

    class B(bubus.BaseEvent[None]):
        number: int

    class C(bubus.BaseEvent[None]):
        number: int

    count = LoopCount(FEW_CHAINED)
    bus = bubus.EventBus(max_history_size=1)

    def to_b(event: A) -> None:
        bus.dispatch(B(number=event.number))

    def to_c(event: B) -> None:
        bus.dispatch(C(number=event.number))

    def handle(_: C) -> None:
        count.add()

    bus.on(A, to_b)
    bus.on(B, to_c)
    bus.on(C, handle)
    started = time.perf_counter()
    for first in range(0, FEW_CHAINED, BATCH):
        for n in range(first, first + BATCH):
            bus.dispatch(A(number=n))
        await bus.wait_until_idle()
    await count.wait()
    figures = rate(FEW_CHAINED, started)
    await bus.stop(clear=True)
    return figures


@contender
def autogen_core_one() -> Figures:
    """A runtime with one agent subscribed to the topic's type."""
    return asyncio.run(_autogen_core(1))


@contender
def autogen_core_eight() -> Figures:
    """A runtime with eight agents subscribed to the topic's type; the rate is of deliveries."""
    return asyncio.run(_autogen_core(SUBSCRIBERS))


async def _autogen_core(subscribers: int) -> Figures:
    from autogen_core import MessageContext, RoutedAgent, SingleThreadedAgentRuntime, TopicId, TypeSubscription, event
    from opentelemetry.trace import NoOpTracerProvider

    @dataclass
    class Work:
        number: int

    class Worker(RoutedAgent):
        def __init__(self, count: LoopCount) -> None:
            super().__init__("counts")
            self._count = count

        @event
        async def on_work(self, message: Work, ctx: MessageContext) -> None:
            self._count.add()

    events = FEW_EVENTS // subscribers
    counts = [LoopCount(events) for _ in range(subscribers)]
    runtime = SingleThreadedAgentRuntime(tracer_provider=NoOpTracerProvider())
    for k, count in enumerate(counts):
        await Worker.register(runtime, f"worker_{k}", partial(Worker, count))
        await runtime.add_subscription(TypeSubscription("work", f"worker_{k}"))
    runtime.start()
    topic = TopicId("work", "default")
    started = time.perf_counter()
    for n in range(events):
        await runtime.publish_message(Work(n), topic)
    await wait_on_loop(counts)
    figures = rate(FEW_EVENTS, started)
    await runtime.stop_when_idle()
    return figures


@contender
def autogen_core_chain() -> Figures:
    """Three topic types; the agents of the first two publish on the next."""
    return asyncio.run(_autogen_core_chain())


async def _autogen_core_chain() -> Figures:
    from autogen_core import MessageContext, RoutedAgent, SingleThreadedAgentRuntime, TopicId, TypeSubscription, event
    from opentelemetry.trace import NoOpTracerProvider

    @dataclass
    class Work:
        number: int

    class Forwarder(RoutedAgent):
        def __init__(self, to: str) -> None:
            super().__init__("publishes on")
            self._to = TopicId(to, "default")

        @event
        async def on_work(self, message: Work, ctx: MessageContext) -> None:
            await self.publish_message(message, self._to)

    class Worker(RoutedAgent):
        @event
        async def on_work(self, message: Work, ctx: MessageContext) -> None:
            count.add()

    count = LoopCount(FEW_CHAINED)
    runtime = SingleThreadedAgentRuntime(tracer_provider=NoOpTracerProvider())
    await Forwarder.register(runtime, "to_b", lambda: Forwarder("b"))
    await Forwarder.register(runtime, "to_c", lambda: Forwarder("c"))
    await Worker.register(runtime, "worker", lambda: Worker("counts"))
    for topic, agent in (("a", "to_b"), ("b", "to_c"), ("c", "worker")):
        await runtime.add_subscription(TypeSubscription(topic, agent))
    runtime.start()
    start = TopicId("a", "default")
    started = time.perf_counter()
    for n in range(FEW_CHAINED):
        await runtime.publish_message(Work(n), start)
    await count.wait()
    figures = rate(FEW_CHAINED, started)
    await runtime.stop_when_idle()
    return figures


@contender
def llama_index_workflows_one() -> Figures:
    """A run in which one step gets all events."""
    return asyncio.run(_llama_index_workflows(1))


@contender
def llama_index_workflows_eight() -> Figures:
    """A run in which eight steps get all events; the rate is of deliveries."""
    return asyncio.run(_llama_index_workflows(SUBSCRIBERS))


async def _llama_index_workflows(subscribers: int) -> Figures:
    from workflows import Context, Workflow, step
    from workflows.events import Event, StartEvent, StopEvent

    class Work(Event):
        number: int

    events = FEW_EVENTS // subscribers
    counts = [LoopCount(events) for _ in range(subscribers)]
    batch = LoopCount(0)

    class Flow(Workflow):
        @step
        async def feed(self, ctx: Context, ev: StartEvent) -> Work | StopEvent:
            nonlocal batch
            for first in range(0, events, BATCH):
                batch = LoopCount(BATCH * subscribers)
                for n in range(first, first + BATCH):
                    ctx.send_event(Work(number=n))
                await batch.wait()
            return StopEvent()

    def add_step(count: LoopCount, name: str) -> None:
        async def handle(ev: Work) -> None:
            count.add()
            batch.add()

        handle.__name__ = name  # a step is known by its name
        step(workflow=Flow)(handle)

    for k, count in enumerate(counts):
        add_step(count, f"work_{k}")
    flow = Flow(timeout=PATIENCE)
    started = time.perf_counter()
    await flow.run()
    await wait_on_loop(counts)
    return rate(FEW_EVENTS, started)


@contender
def llama_index_workflows_chain() -> Figures:
    """A run in which three steps make of each event the next one's."""
    return asyncio.run(_llama_index_workflows_chain())


async def _llama_index_workflows_chain() -> Figures:
    from workflows import Context, Workflow, step
    from workflows.events import Event, StartEvent, StopEvent

    class A(Event):
        number: int

    class B(Event):
        number: int

    class C(Event):
        number: int

    count = LoopCount(FEW_CHAINED)
    batch = LoopCount(0)

    class Flow(Workflow):
        @step
        async def feed(self, ctx: Context, ev: StartEvent) -> A | None:
            nonlocal batch
            for first in range(0, FEW_CHAINED, BATCH):
                batch = LoopCount(BATCH)
                for n in range(first, first + BATCH):
                    ctx.send_event(A(number=n))
                await batch.wait()
            return None

        @step
        async def to_b(self, ev: A) -> B:
            return B(number=ev.number)

        @step
        async def to_c(self, ev: B) -> C:
            return C(number=ev.number)

        @step
        async def work(self, ev: C) -> StopEvent | None:
            count.add()
            batch.add()
            return StopEvent() if count.calls == FEW_CHAINED else None

    flow = Flow(timeout=PATIENCE)
    started = time.perf_counter()
    await flow.run()
    await count.wait()
    return rate(FEW_CHAINED, started)

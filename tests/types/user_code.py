"""What type checkers infer in user code; checked by pyright in strict mode, never run."""

from dataclasses import dataclass
from typing import Any, assert_type

import reactivex
from reactivex import Observable
from reactivex import operators as ops

import rxbus
from rxbus import (
    REPLY,
    BusStatistics,
    CloseReport,
    DeadLetter,
    Delivery,
    Event,
    EventBus,
    MailboxSubject,
    Receipt,
    Request,
    Subscription,
    Topic,
    operators,
)
from rxbus.testing import (
    Fault,
    Interleaving,
    Marbles,
    Notification,
    Recording,
    VirtualBus,
    assert_no_dead_letters,
    faults,
    from_marbles,
    record,
)


@dataclass(frozen=True)
class Query:
    text: str


@dataclass(frozen=True)
class Report:
    body: str


bus = EventBus()
queries = bus.topic("user.query", Query)
reports = bus.topic("report", Report)
assert_type(queries, Topic[Query])
assert_type(bus.topic("anything"), Topic[Any])
assert_type(queries.name, str)

# events
event = queries.emit(Query("a"))
assert_type(event, Event[Query])
assert_type(event.payload, Query)
assert_type(event.payload.text, str)
assert_type(event.causation_id, str | None)
assert_type(event.derive("report", Report("b")), Event[Report])
assert_type(Event("user.query", Query("a")), Event[Query])
assert_type(bus.publish(queries, Query("a")), Event[Query])
assert_type(bus.publish("user.query", Query("a")), Event[Query])
assert_type(bus.publish(event), Event[Query])
assert_type(bus.deliver(queries, Query("a")), Receipt)

# pipelines
assert_type(queries.pipe(ops.map(lambda e: e.payload.text)), Observable[str])
assert_type(queries.pipe(ops.filter(lambda e: e.hops == 0)), Observable[Event[Query]])
assert_type(queries.pipe(ops.map(lambda e: e.payload)), Observable[Query])
assert_type(queries.pipe(operators.payload()), Observable[Query])
assert_type(queries.pipe(operators.payload(), ops.map(lambda q: len(q.text))), Observable[int])
assert_type(queries.pipe(operators.mailbox(capacity=10)), Observable[Event[Query]])


def look_up(query: Event[Query]) -> Report:
    return Report(query.payload.text)


assert_type(queries.pipe(operators.attempt(look_up)), Observable[Report])
assert_type(queries.pipe(operators.attempt(look_up), operators.publish_to(reports)), Observable[Report])
queries.pipe(ops.filter(lambda e: e.hops == 0), ops.map(look_up), ops.catch(lambda _, source: source)).subscribe(reports.on_next)
assert_type(bus.observe("user.*"), Observable[Event[Any]])
assert_type(bus.observe(queries, capacity=8), Observable[Event[Query]])
assert_type(bus.publish_many(queries, [Query("a"), event]), list[Event[Query]])
assert_type(bus.publish_many("user.query", [Query("a")]), list[Event[Any]])


async def ask_model(query: Event[Query]) -> Report:
    return Report(query.payload.text)


assert_type(queries.pipe(operators.map_async(ask_model, concurrency=8)), Observable[Report])
assert_type(queries.pipe(operators.map_async(ask_model, ordered=False), ops.map(lambda r: r.body)), Observable[str])
assert_type(queries.pipe(operators.of_type(Query)), Observable[Event[Query]])
assert_type(queries.pipe(operators.where(user="ada")), Observable[Event[Query]])
assert_type(queries.pipe(operators.dedupe(window=60.0)), Observable[Event[Query]])
assert_type(reports.pipe(operators.dedupe(key=lambda e: e.payload.body)), Observable[Event[Report]])

# subscriptions
subscription = bus.subscribe(queries, look_up, to=reports)
assert_type(subscription, Subscription)
bus.subscribe("user.query", print, through=reactivex.compose(operators.payload(), ops.map(str)))


@bus.on("user.query", to="report")
def decorated(query: Event[Query]) -> Report:
    return Report(query.payload.text)


assert_type(decorated(event), Report)
bus.subscribe(queries, ask_model, to=reports, concurrency=8, timeout=5.0)
bus.subscribe(queries, ask_model, to=REPLY)
assert_type(bus.request(queries, Query("a")), Request)
assert_type(bus.request("user.query", Query("a"), timeout=1.0).run(), Event[Any])
assert_type(bus.reply(event, Report("b")), bool)


async def in_a_coroutine() -> None:
    async with EventBus() as office:
        assert_type(office, EventBus)
        assert_type(await office.apublish(office.topic("user.query", Query), Query("a")), Event[Query])
        assert_type(await office.apublish_many("user.query", [Query("a")]), list[Event[Any]])
        assert_type(await office.adeliver("user.query", Query("a")), Receipt)
        assert_type(await office.request("user.query", Query("a")), Event[Any])
        async for found in office.events("user.*"):
            assert_type(found, Event[Any])
        async for typed in office.events(office.topic("user.query", Query)):
            assert_type(typed, Event[Query])
        assert_type(await office.apublish_many(office.topic("user.query", Query), [Query("a")]), list[Event[Query]])
        await office.adrain(1.0)
        assert_type(await office.aclose(), CloseReport)


assert_type(bus.subscriptions["x"], Subscription)
assert_type(bus.topics["x"], Topic[Any])
assert_type(bus.statistics(), BusStatistics)
assert_type(bus.close(), CloseReport)
assert_type(rxbus.current(), Delivery | None)
bus.dead_letters.subscribe(lambda letter: print(letter.event, letter.reason))
assert_type(list(bus.dead_letters), list[DeadLetter])
assert_type(MailboxSubject[int]().pipe(ops.map(str)), Observable[str])

queries.emit("a string")  # pyright: ignore[reportArgumentType] - a payload of another type is seen while typing
EventBus(capacity="a")  # pyright: ignore[reportArgumentType]

# testing
virtual = VirtualBus(capacity=10)
assert_type(virtual.topic("user.query", Query), Topic[Query])
assert_type(virtual.advance(1.5), None)
assert_type(virtual.scheduler.clock, float)
assert_type(virtual.feed(queries, "-a--b|", {"a": Query("x")}), Recording)
recording = virtual.record("report.*")
assert_type(recording, Recording)
assert_type(record(queries.pipe(operators.payload()), "queries"), Recording)
assert_type(recording.events, list[Event[Any]])
assert_type(recording.payloads, list[Any])
assert_type(recording.notifications, tuple[Notification, ...])
assert_type(recording.notifications[0].time, float)
assert_type(recording.wait_for(2, timeout=1), Recording)
assert_type(recording.marbles({"q": Query("x")}), Marbles)
assert_type(recording.error, Exception | None)
assert_type(from_marbles("-a|"), Observable[Any])
assert_type(virtual.request("user.query", Query("a")).run(), Event[Any])


async def body() -> int:
    await virtual.adrain()
    await order.areach("a")
    return 5


assert_type(virtual.run(body()), int)
order = Interleaving("a", "b", timeout=1)
assert_no_dead_letters(virtual)
with faults(virtual).fail("x", nth=2, error=ValueError("no")) as fault, order, recording as same:
    assert_type(fault, Fault)
    assert_type(fault.hits, int)
    assert_type(same, Recording)
virtual.advance("1")  # pyright: ignore[reportArgumentType]
faults(virtual).hang("x", nth="2")  # pyright: ignore[reportArgumentType]

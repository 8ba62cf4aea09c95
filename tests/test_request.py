"""Request and reply."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
from reactivex import operators as ops
from reactivex.scheduler import CurrentThreadScheduler, EventLoopScheduler, ImmediateScheduler, NewThreadScheduler
from reactivex.scheduler.eventloop import AsyncIOScheduler
from reactivex.testing import TestScheduler

from rxbus import (
    REPLY,
    BusClosedError,
    BusError,
    Event,
    EventBus,
    NoRespondersError,
    Overflow,
    Reason,
    RequestFailedError,
    RequestTimeoutError,
    Retry,
    Topic,
    TopicNameError,
    WorkerPool,
    current,
)
from tests.support import LIMIT, Gate, Recorder, assert_books_balance, join, run_in_thread


def double(event: Event[int]) -> int:
    """Answers."""
    return 2 * event.payload


async def adouble(event: Event[int]) -> int:
    """Answers, after a moment."""
    await asyncio.sleep(0.001)
    return 2 * event.payload


class TestAnswers:
    """Who asks gets the answer."""

    @pytest.mark.parametrize("handler", [double, adouble], ids=["function", "coroutine"])
    @pytest.mark.parametrize(
        "options", [{}, {"concurrency": 3}, {"through": ops.map(lambda e: e)}, {"group": "g"}], ids=["plain", "several", "piped", "group"]
    )
    def test_the_result_of_a_handler(self, bus: EventBus, handler: Any, options: Any) -> None:
        """`to=REPLY` answers with it; the reply is an event of the same story."""
        bus.subscribe("sum", handler, to=REPLY, **options)
        asked = Recorder()
        bus.subscribe("sum", asked)
        reply = bus.request("sum", 21, metadata={"user": "ada"}).run()
        assert (42, "ada") == (reply.payload, reply.metadata["user"])
        bus.drain(LIMIT)
        (event,) = asked.events
        assert (event.id, event.correlation_id, 1) == (reply.causation_id, reply.correlation_id, reply.hops)
        assert 0 == len(bus._requests)

    @pytest.mark.parametrize("way", ["observable", "coroutine", "by hand"])
    def test_an_answer_that_is_an_event(self, bus: EventBus, way: str) -> None:
        """Is passed on, with its metadata; what was asked on the way has another token, and the reply belongs to the question."""

        async def forwards(event: Event[int]) -> Event[int]:
            return await bus.request("inner", event.payload)

        def by_hand(event: Event[int]) -> None:
            bus.request("inner", event.payload).subscribe(lambda reply: bus.reply(event, reply))

        bus.subscribe("inner", lambda e: e.derive("result", e.payload + 1, {"by": "inner", "user": "eve"}), to=REPLY)
        if way == "by hand":
            bus.subscribe("front", by_hand)
        else:
            bus.subscribe("front", forwards if way == "coroutine" else lambda e: bus.request("inner", e.payload), to=REPLY)
        asked = Recorder()
        bus.subscribe("front", asked)
        reply = bus.request("front", 1, metadata={"user": "ada", "to": "front"}).run()
        bus.drain(LIMIT)
        (event,) = asked.events
        facts = {**event.metadata, "by": "inner", "user": "eve"}
        assert (2, facts) == (reply.payload, dict(reply.metadata))
        assert (event.id, event.correlation_id, 1) == (reply.causation_id, reply.correlation_id, reply.hops)
        assert (0, 0) == (len(bus._requests), bus.statistics().late_replies)

    def test_by_hand(self, bus: EventBus) -> None:
        """`reply` answers the event, now or later, from anywhere; only the first answer is heard."""
        answered: list[bool] = []

        def later(event: Event[int]) -> None:
            run_in_thread(lambda: [answered.append(bus.reply(event, n)) for n in (1, 2)])

        bus.subscribe("a", later)
        assert 1 == bus.request("a", "x").run().payload
        deadline = time.monotonic() + LIMIT
        while len(answered) < 2 and time.monotonic() < deadline:
            time.sleep(0.001)
        assert [True, False] == answered
        assert 1 == bus.statistics().late_replies

    def test_from_further_down_the_story(self, bus: EventBus) -> None:
        """A chain of agents: the last one answers the first question."""
        bus.subscribe("a", lambda event: event.payload + 1, to="b")
        bus.subscribe("b", lambda event: event.payload * 10, to=REPLY)
        assert 20 == bus.request("a", 1).run().payload

    def test_none_is_an_answer(self, bus: EventBus) -> None:
        """With `REPLY` it is a value."""
        bus.subscribe("a", lambda _: None, to=REPLY)
        assert bus.request("a", 1).run().payload is None

        def generator(event: Event[int]) -> Any:
            yield None

        bus.subscribe("b", generator, to=REPLY)
        assert bus.request("b", 1).run().payload is None

    def test_an_event_that_asked_nothing(self, bus: EventBus) -> None:
        """Is handled, and its result is nobody's; answering it by hand is an error."""
        bus.subscribe("a", double, to=REPLY)
        event = bus.publish("a", 1)
        bus.drain(LIMIT)
        assert 0 == len(bus.dead_letters)
        with pytest.raises(BusError, match="asked nothing"):
            bus.reply(event, 1)
        with pytest.raises(TypeError, match="event must be the Event that asked, got 5"):
            bus.reply(5, 1)  # type: ignore[arg-type]

    def test_a_thousand_at_once(self, bus: EventBus) -> None:
        """Each gets its own answer, and nothing is left of any."""
        bus.subscribe("a", adouble, to=REPLY, concurrency=100)
        bus.subscribe("b", double, to=REPLY, concurrency=4)

        async def main() -> list[Any]:
            return await asyncio.gather(*(bus.request("ab"[n % 2], n)._wait() for n in range(1000)))

        assert [2 * n for n in range(1000)] == [reply.payload for reply in asyncio.run(main())]
        assert 0 == len(bus._requests)
        assert 0 == bus.statistics().late_replies

    def test_from_many_threads(self, bus: EventBus) -> None:
        """Several threads ask at once."""
        bus.subscribe("a", double, to=REPLY)
        wrong: list[int] = []

        def ask(start: int) -> None:
            wrong.extend(n for n in range(start, start + 50) if bus.request("a", n).run().payload != 2 * n)

        join(*(run_in_thread(ask, 100 * n) for n in range(6)))
        assert [] == wrong


class TestCold:
    """Nothing is sent before somebody wants the answer."""

    def test_each_way_sends_anew(self, bus: EventBus) -> None:
        """`run`, `await`, `subscribe`."""
        asked = Recorder()
        bus.subscribe("a", asked)
        bus.subscribe("a", double, to=REPLY)
        request = bus.request("a", 4)
        time.sleep(0.01)
        assert [] == asked.events
        seen: list[Any] = []
        done = threading.Event()

        async def main() -> Any:
            return (await request).payload

        assert 8 == request.run().payload
        assert 8 == asyncio.run(main())
        request.subscribe(lambda reply: seen.append(reply.payload), on_completed=done.set)
        assert done.wait(LIMIT)
        assert [8] == seen
        bus.drain(LIMIT)
        assert [4, 4, 4] == asked.payloads
        assert 3 == len({event.id for event in asked.events})

    def test_rxpys_retry_asks_again(self, bus: EventBus) -> None:
        """Because each subscription sends anew."""
        calls: list[int] = []

        def second_time(event: Event[int]) -> int:
            calls.append(event.payload)
            if len(calls) < 2:
                raise ValueError
            return 7

        bus.subscribe("a", second_time, to=REPLY)
        seen: list[Any] = []
        done = threading.Event()
        bus.request("a", 1).pipe(ops.retry(3), ops.map(lambda reply: reply.payload)).subscribe(seen.append, on_completed=done.set)
        assert done.wait(LIMIT)
        assert ([7], [1, 1]) == (seen, calls)

    @pytest.mark.parametrize("again", [True, False], ids=["made again", "gone"])
    def test_its_topic_is_forgotten_just_then(self, bus: EventBus, monkeypatch: pytest.MonkeyPatch, again: bool) -> None:
        """Whoever has that name now is asked; a bus that is open doesn't say that it is closed."""
        bus.subscribe("sum", double, to=REPLY)
        emit = Topic._emit_request

        def late(topic: Topic[Any], *given: Any, **named: Any) -> None:
            monkeypatch.undo()
            bus.forget("sum")
            if again:
                bus.subscribe("sum", double, to=REPLY)
            emit(topic, *given, **named)

        monkeypatch.setattr(Topic, "_emit_request", late)
        request = bus.request("sum", 21)
        if again:
            assert 42 == request.run().payload
        else:
            with pytest.raises(NoRespondersError):
                request.run()
        assert 0 == len(bus._requests)

    def test_a_disposed_subscription_is_forgotten(self, bus: EventBus) -> None:
        """Its answer is a late one."""
        gate = Gate()
        seen: list[Any] = []
        bus.subscribe("a", lambda event: gate(event), to=REPLY)
        asking = bus.request("a", 1).subscribe(seen.append)
        gate.wait_until_entered()
        asking.dispose()
        assert 0 == len(bus._requests)
        gate.open()
        bus.drain(LIMIT)
        assert [] == seen
        assert 1 == bus.statistics().late_replies

    def test_an_observer_that_raises_harms_nobody(self, bus: EventBus) -> None:
        """It runs on a thread of the pool, not in the responder's handler."""
        bus.subscribe("a", double, to=REPLY)
        raised = threading.Event()

        def observer(reply: Any) -> None:
            raised.set()
            raise ValueError

        bus.request("a", 1).subscribe(observer)
        assert raised.wait(LIMIT)
        bus.drain(LIMIT)
        assert 0 == len(bus.dead_letters)
        assert 4 == bus.request("a", 2).run().payload

    def test_an_observer_that_raises_doesnt_fail_who_answered(self, caplog: pytest.LogCaptureFixture) -> None:
        """Not even where the reply is handled inside the responder's own call."""

        def raises(_: object) -> None:
            raise ValueError("the observer's own")

        with EventBus(scheduler=ImmediateScheduler()) as bus:
            one = bus.subscribe("sum", double, to=REPLY)
            bus.request("sum", 1).subscribe(raises)
            assert (1, 0) == (one.statistics().handled, len(bus.dead_letters))
        assert "the observer's own" in caplog.text

    def test_a_closed_loop_of_the_asker_doesnt_fail_who_answered(self, bus: EventBus, caplog: pytest.LogCaptureFixture) -> None:
        """The reply can't be told any more; that is logged, and harms nobody."""
        one = bus.subscribe("sum", double, to=REPLY)
        loop = asyncio.new_event_loop()
        request = bus.request("sum", 1)
        one.pause()
        request.subscribe(lambda e: None, scheduler=AsyncIOScheduler(loop))
        loop.close()
        one.resume()
        bus.drain(LIMIT)
        assert (1, 0, 0) == (one.statistics().handled, one.statistics().failed, len(bus._requests))
        assert "Event loop is closed" in caplog.text

    def test_inside_a_pipeline(self, bus: EventBus) -> None:
        """The reply is a step of the subscription that asked, one at a time, in the story of the event that asked."""
        bus.subscribe("sum", adouble, to=REPLY, concurrency=8)
        inside: list[int] = []
        seen: list[tuple[int, int]] = []

        def handler(reply: Event[int]) -> int:
            inside.append(1)
            time.sleep(0.001)
            delivery = current()
            assert delivery is not None
            seen.append((delivery.event.payload, reply.payload))
            assert 1 == len(inside)
            inside.pop()
            if reply.payload == 8:
                raise ValueError("eight")
            return reply.payload

        asks = ops.flat_map(lambda e: bus.request("sum", e.payload))
        bus.subscribe("ask", handler, through=asks, to="out", name="asker")
        out = Recorder()
        bus.subscribe("out", out)
        asked = [bus.publish("ask", number) for number in range(20)]
        bus.drain(LIMIT)
        assert [(number, 2 * number) for number in range(20)] == sorted(seen)
        assert {(e.id, 2 * e.payload) for e in asked if e.payload != 4} == {(e.causation_id, e.payload) for e in out.events}
        (letter,) = bus.dead_letters
        assert (asked[4], "asker") == (letter.event, letter.subscription)
        assert_books_balance(bus)

    @pytest.mark.parametrize("scheduler", [NewThreadScheduler, EventLoopScheduler, CurrentThreadScheduler, lambda: WorkerPool(2)])
    def test_on_a_scheduler(self, bus: EventBus, scheduler: Any) -> None:
        """The reply comes on the one that the subscription was given."""
        bus.subscribe("sum", double, to=REPLY)
        seen: list[Any] = []
        done = threading.Event()
        bus.request("sum", 1).subscribe(seen.append, on_completed=done.set, scheduler=scheduler())
        assert done.wait(LIMIT)
        assert [2] == [reply.payload for reply in seen]
        with pytest.raises(TypeError, match="scheduler"):
            bus.request("sum", 1).subscribe(seen.append, scheduler=1)  # type: ignore[arg-type]


class TestErrors:
    """Each at the moment that it says."""

    def test_nobody_listens(self, bus: EventBus) -> None:
        """Or wildcard subscriptions only: at once, and nothing happened."""
        audit = Recorder()
        bus.subscribe(">", audit)
        bus.topic("known")
        for name in ("known", "unknown"):
            with pytest.raises(NoRespondersError, match=f"request to topic '{name}': expected a subscription of that topic") as raised:
                bus.request(name, 1).run()
            assert name == raised.value.topic
        errors: list[Exception] = []
        bus.request("known", 1).subscribe(on_error=errors.append)
        assert [NoRespondersError] == [type(error) for error in errors]
        bus.drain(LIMIT)
        assert [] == audit.events
        assert {"known"} == set(bus.topics)
        assert 0 == len(bus._requests)

    def test_no_answer_in_time(self, bus: EventBus) -> None:
        """A timeout names topic and time; the answer that comes later is counted, not misdelivered."""
        gate = Gate()
        bus.subscribe("a", lambda event: (gate(event), event.payload)[1], to=REPLY)
        with pytest.raises(RequestTimeoutError, match=r"request .* to topic 'a': expected a reply within 0\.02 s, found none") as raised:
            bus.request("a", 1, timeout=0.02).run()
        assert isinstance(raised.value, TimeoutError)
        assert ("a", 0.02) == (raised.value.topic, raised.value.timeout)
        gate.open()
        assert 2 == bus.request("a", 2).run().payload
        assert 1 == bus.statistics().late_replies

    @pytest.mark.parametrize("options", [{}, {"retry": Retry(2, backoff=0.001)}, {"concurrency": 2}], ids=["plain", "retried", "several"])
    def test_the_responder_gave_up(self, bus: EventBus, options: Any) -> None:
        """At once, with its error as the cause."""
        bus.subscribe("a", lambda event: 1 / event.payload, to=REPLY, name="ratio", **options)
        began = time.monotonic()
        with pytest.raises(RequestFailedError, match="was given up by subscription 'ratio'") as raised:
            bus.request("a", 0).run()
        assert time.monotonic() - began < LIMIT / 2
        assert isinstance(raised.value.__cause__, ZeroDivisionError)
        assert raised.value.letter is next(iter(bus.dead_letters))

    def test_one_of_two_gave_up(self, bus: EventBus) -> None:
        """Then the other one's answer counts."""
        entered = threading.Event()
        bus.subscribe("a", lambda _: 1 / 0)
        bus.subscribe("a", lambda _: (entered.wait(LIMIT), "late but well")[1], to=REPLY)
        run_in_thread(lambda: (time.sleep(0.02), entered.set()))
        assert "late but well" == bus.request("a", 0).run().payload

    def test_no_room(self, bus: EventBus) -> None:
        """A mailbox that refuses gives up at once."""
        gate = Gate()
        bus.subscribe("a", gate, capacity=1, overflow=Overflow.FAIL)
        bus.publish("a", 0)
        gate.wait_until_entered()
        bus.publish("a", 1)
        with pytest.raises(RequestFailedError) as raised:
            bus.request("a", 2).run()
        assert Reason.OVERFLOW is raised.value.letter.reason  # type: ignore[attr-defined]
        gate.open()

    @pytest.mark.parametrize("awaited", [True, False], ids=["await", "run"])
    def test_its_time_includes_the_wait_for_room(self, bus: EventBus, awaited: bool) -> None:
        """Whoever asks a full mailbox under `BLOCK` is told in time, and doesn't wait for the mailbox's own timeout."""
        gate = Gate()
        bus.subscribe("a", gate, to=REPLY, capacity=1)
        bus.publish("a", 0)
        gate.wait_until_entered()
        bus.publish("a", 1)
        began = time.monotonic()
        with pytest.raises(RequestTimeoutError):
            if awaited:
                asyncio.run(bus.request("a", 2, timeout=0.05)._wait())
            else:
                bus.request("a", 2, timeout=0.05).run()
        assert time.monotonic() - began < 5
        assert 0 == len(bus._requests)
        gate.open()
        bus.drain(LIMIT)

    @pytest.mark.parametrize("moment", ["_ask", "begin", "_send"])
    @pytest.mark.parametrize("way", ["run", "subscribe"])
    def test_interrupted_while_it_is_sent(self, bus: EventBus, way: str, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Ctrl-C when one of these has returned: nothing is kept."""
        bus.subscribe("a", lambda e: None)
        request = bus.request("a", 1, timeout=3600.0)
        owner: Any = {"_ask": bus, "begin": bus._requests, "_send": request}[moment]
        act = getattr(owner, moment)

        def interrupted(*arguments: Any, **options: Any) -> None:
            act(*arguments, **options)
            raise KeyboardInterrupt

        monkeypatch.setattr(owner, moment, interrupted)
        with pytest.raises(KeyboardInterrupt):
            request.run() if way == "run" else request.subscribe(print)
        assert 0 == len(bus._requests)

    def test_disposed_meanwhile(self, bus: EventBus) -> None:
        """Who can't answer any more has given up."""
        subscription = bus.subscribe("a", double, to=REPLY)
        subscription.pause()
        errors: list[Exception] = []
        done = threading.Event()
        bus.request("a", 2).subscribe(on_error=lambda error: (errors.append(error), done.set()))
        subscription.dispose()
        assert done.wait(LIMIT)
        assert [RequestFailedError] == [type(error) for error in errors]

    def test_a_closed_bus(self) -> None:
        """Refuses new ones, and ends those that wait."""
        bus = EventBus()
        gate = Gate()
        bus.subscribe("a", gate)
        errors: list[BaseException] = []

        def ask() -> None:
            try:
                bus.request("a", 1).run()
            except BusError as error:
                errors.append(error)

        thread = run_in_thread(ask)
        gate.wait_until_entered()
        bus.close(0.01)
        join(thread)
        gate.open()
        assert [BusClosedError] == [type(error) for error in errors]
        with pytest.raises(BusClosedError):
            bus.request("a", 1).run()

    def test_bad_arguments(self, bus: EventBus) -> None:
        """At the call, naming the argument."""
        with pytest.raises(TopicNameError):
            bus.request("a..b", 1)
        with pytest.raises(TypeError, match="timeout"):
            bus.request("a", 1, timeout="long")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="timeout"):
            bus.request("a", 1, timeout=-1)
        with pytest.raises(TypeError, match="metadata"):
            bus.request("a", 1, metadata=5)  # type: ignore[arg-type]


class TestInside:
    """Handlers that ask."""

    def test_a_handler_asks_another(self, bus: EventBus) -> None:
        """Functions and coroutines, each the other kind too; what they ask belongs to their story."""
        seen: list[Any] = []

        def asks(event: Event[int]) -> None:
            reply = bus.request("b", event.payload).run()
            seen.append((reply.payload, reply.correlation_id == event.correlation_id))

        async def awaits(event: Event[int]) -> None:
            reply = await bus.request("b", event.payload)
            seen.append((reply.payload, reply.correlation_id == event.correlation_id))

        bus.subscribe("a", asks)
        bus.subscribe("a", awaits)
        bus.subscribe("b", adouble, to=REPLY, concurrency=2)
        bus.deliver("a", 4, timeout=LIMIT)
        assert [(8, True), (8, True)] == seen
        assert_books_balance(bus)

    @pytest.mark.parametrize("awaited", [False, True], ids=["function", "coroutine"])
    def test_who_could_only_answer_himself(self, bus: EventBus, awaited: bool) -> None:
        """Is told so instead of waiting for the timeout."""
        errors: list[str] = []

        def asks(event: Event[int]) -> None:
            try:
                bus.request("a", 1).run()
            except BusError as error:
                errors.append(str(error))

        async def awaits(event: Event[int]) -> None:
            try:
                await bus.request("a", 1)
            except BusError as error:
                errors.append(str(error))

        bus.subscribe("a", awaits if awaited else asks)
        bus.deliver("a", 1, timeout=LIMIT)
        assert 1 == len(errors)
        assert "would wait for itself" in errors[0]
        assert 0 == len(bus._requests)

    def test_run_on_the_loop_of_the_responder(self) -> None:
        """It would keep the responder from running, so it raises; `await` does it."""

        async def main() -> int:
            async with EventBus() as bus:
                bus.subscribe("a", adouble, to=REPLY, loop=asyncio.get_running_loop())
                with pytest.raises(BusError, match="would wait for itself"):
                    bus.request("a", 1).run()
                return (await bus.request("a", 2)).payload

        assert 4 == asyncio.run(main())

    def test_a_cancelled_wait_is_forgotten(self, bus: EventBus) -> None:
        """No leak, and the answer is a late one."""
        gate = Gate()
        bus.subscribe("a", lambda event: gate(event), to=REPLY)

        async def main() -> None:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(bus.request("a", 1)._wait(), 0.02)

        asyncio.run(main())
        assert 0 == len(bus._requests)
        gate.open()
        bus.drain(LIMIT)
        assert 1 == bus.statistics().late_replies

    def test_on_a_virtual_clock(self) -> None:
        """`run` can't move it and says so; a subscription gets its timeout in virtual time."""
        clock = TestScheduler()
        bus = EventBus(scheduler=clock)
        bus.subscribe("a", lambda _: None)
        with pytest.raises(BusError, match="can't move the virtual clock"):
            bus.request("a", 1).run()
        errors: list[Exception] = []
        bus.request("a", 1, timeout=100.0).subscribe(on_error=errors.append)
        clock.advance_by(99)
        assert [] == errors
        clock.advance_by(2)
        assert [RequestTimeoutError] == [type(error) for error in errors]
        bus.close(drain=False)

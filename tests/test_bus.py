"""The verbs of the bus."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from typing import Any

import pytest
from reactivex.scheduler import TimeoutScheduler
from reactivex.testing import TestScheduler

from rxbus import BusClosedError, BusError, DrainTimeoutError, Event, EventBus, PayloadTypeError, TopicNameError, WorkerPool
from tests.support import LIMIT, Gate, Recorder, assert_books_balance, join, run_in_thread


class TestTopic:
    """`bus.topic`."""

    def test_made_on_first_use(self, bus: EventBus) -> None:
        """One name is one topic, an RxPY `Subject`."""
        from reactivex.subject import Subject

        topic = bus.topic("user.query")
        assert topic is bus.topic("user.query")
        assert isinstance(topic, Subject)
        assert ("user.query", None) == (topic.name, topic.type)
        assert ["user.query"] == list(bus.topics)

    def test_type_may_come_later_once(self, bus: EventBus) -> None:
        """A topic without a type takes one; a second one is an error, the same again is not."""
        bus.publish("a", "anything")
        topic = bus.topic("a", int)
        assert topic is bus.topic("a", int) is bus.topic("a")
        with pytest.raises(PayloadTypeError, match="topic 'a' takes int, asked again with str"):
            bus.topic("a", str)
        with pytest.raises(PayloadTypeError, match="topic 'a' takes int, got str"):
            bus.publish("a", "text")

    def test_repr(self, bus: EventBus) -> None:
        """It says name and type."""
        assert "Topic('a', int | str)" == repr(bus.topic("a", int | str))
        assert "EventBus('test'): open, 1 topics, 0 subscriptions" == repr(bus)


class TestPublish:
    """`publish` and `publish_many`."""

    def test_returns_the_event(self, bus: EventBus) -> None:
        """With its identity, the present, and the metadata given."""
        before = time.time()
        event = bus.publish("a", 1, metadata={"user": "ada"})
        assert ("a", 1, {"user": "ada"}, 0, None) == (event.topic, event.payload, event.metadata, event.hops, event.causation_id)
        assert event.id == event.correlation_id
        assert before <= event.time <= time.time()

    def test_complete_event_goes_as_it_is(self, bus: EventBus) -> None:
        """Through the bus, through the topic, or with its topic named."""
        seen = Recorder()
        bus.subscribe("a", seen)
        event = Event("a", 1)
        assert event is bus.publish(event)
        assert event is bus.publish("a", event)
        assert event is bus.topic("a").emit(event)
        bus.drain(LIMIT)
        assert 3 == len([e for e in seen.events if e is event])

    def test_event_of_another_topic_is_reissued(self, bus: EventBus) -> None:
        """It becomes a child on the topic that it is published to."""
        event = Event("a", 1, {"user": "ada"})
        child = bus.publish("b", event)
        assert ("b", 1, event.id, 1, {"user": "ada"}) == (child.topic, child.payload, child.causation_id, child.hops, child.metadata)

    def test_many_in_a_row(self, bus: EventBus) -> None:
        """All payloads of an iterable, with one metadata, as events of their own."""
        seen = Recorder()
        bus.subscribe("a", seen)
        events = bus.publish_many("a", (n for n in range(1000)), metadata={"user": "ada"})
        bus.drain(LIMIT)
        assert list(range(1000)) == seen.payloads
        assert events == seen.events
        assert 1000 == len({event.id for event in events})
        assert [] == bus.publish_many("a", [])

    def test_many_beyond_the_bound_wait_for_room(self, bus: EventBus) -> None:
        """A batch larger than a mailbox doesn't burst its bound."""
        most = 0

        def handler(_: Event[int]) -> None:
            nonlocal most
            most = max(most, one.statistics().pending)

        one = bus.subscribe("a", handler, capacity=10)
        bus.publish_many("a", range(500))
        bus.drain(LIMIT)
        assert most <= 12
        assert 500 == one.statistics().handled


class TestDeliver:
    """`deliver`."""

    def test_counts_every_outcome(self, bus: EventBus) -> None:
        """Handled, failed and dropped, over all subscriptions, pattern and raw ones included."""

        def failing(_: Event[int]) -> None:
            raise ValueError

        bus.subscribe("a", lambda _: time.sleep(0.01), name="slow")
        bus.subscribe("*", lambda _: None, name="pattern")
        bus.topic("a").subscribe(lambda _: None)
        bus.subscribe("a", failing)
        receipt = bus.deliver("a", 1, metadata={"user": "ada"}, timeout=LIMIT)
        assert (3, 1, 0) == (receipt.handled, receipt.failed, receipt.dropped)
        assert (1, {"user": "ada"}) == (receipt.event.payload, receipt.event.metadata)

    def test_nobody_listens(self, bus: EventBus) -> None:
        """Nothing to wait for."""
        receipt = bus.deliver("a", 1)
        assert (0, 0, 0) == (receipt.handled, receipt.failed, receipt.dropped)

    def test_times_out_by_name(self, bus: EventBus) -> None:
        """The error says who has the event still; the event stays published."""
        gate = Gate()
        bus.subscribe("a", gate, name="slow")
        with pytest.raises(DrainTimeoutError, match=r"was not settled in 0\.05 s by: slow") as caught:
            bus.deliver("a", 1, timeout=0.05)
        assert {"slow": 1} == caught.value.busy
        gate.open()
        bus.drain(LIMIT)
        assert [1] == gate.seen

    def test_dropped_by_dispose(self, bus: EventBus) -> None:
        """Who waits is told when the subscription goes."""
        gate = Gate()
        one = bus.subscribe("a", gate)
        bus.publish("a", 0)
        gate.wait_until_entered()
        receipts: list[object] = []
        waiter = run_in_thread(lambda: receipts.append(bus.deliver("a", 1, timeout=LIMIT)))
        assert one._strand.wait_until(lambda: one.statistics().offered == 2, time.monotonic() + LIMIT)
        one.dispose()
        join(waiter)
        assert [(0, 0, 1)] == [(r.handled, r.failed, r.dropped) for r in receipts]  # type: ignore[attr-defined]
        gate.open()

    def test_waiting_for_oneself_raises(self, bus: EventBus) -> None:
        """From the only handler that could settle it, and in a circle of two; nothing is published then."""
        errors: list[BaseException] = []

        def direct(event: Event[int]) -> None:
            try:
                bus.deliver("a", 2)
            except BusError as error:
                errors.append(error)

        def first(event: Event[int]) -> None:
            bus.deliver("c", 1, timeout=LIMIT)

        def second(event: Event[int]) -> None:
            try:
                bus.deliver("b", 1)
            except BusError as error:
                errors.append(error)

        bus.subscribe("a", direct)
        bus.subscribe("b", first)
        bus.subscribe("c", second)
        bus.deliver("a", 1, timeout=LIMIT)
        bus.deliver("b", 1, timeout=LIMIT)
        assert 2 == len(errors)
        assert "would wait for itself" in str(errors[0])
        assert [1, 1, 1] == [t.published for t in bus.statistics().topics.values()]

    def test_nested_inside_a_handler(self) -> None:
        """A handler may deliver to others, with a single worker too: the worker that waits doesn't count."""
        with EventBus(workers=1) as bus:
            bus.subscribe("b", lambda _: None, name="inner")
            seen: list[int] = []
            bus.subscribe("a", lambda e: seen.append(bus.deliver("b", 1, timeout=LIMIT).handled), name="outer")
            bus.deliver("a", 1, timeout=LIMIT)
            assert [1] == seen

    def test_virtual_clock_cannot_be_waited_for(self) -> None:
        """It raises before anything happened."""
        bus = EventBus(scheduler=TestScheduler())
        bus.subscribe("a", lambda _: None)
        with pytest.raises(BusError, match="virtual clock"):
            bus.deliver("a", 1)
        assert 0 == bus.statistics().topics["a"].published
        bus.close()


class TestObserve:
    """`observe`."""

    def test_each_subscribe_is_a_subscription(self, bus: EventBus) -> None:
        """It is cold in subscribing and hot in events; names are numbered."""
        got: list[int] = []
        source = bus.observe("user.*", name="view")
        bus.publish("user.a", 0)
        first = source.subscribe(lambda e: got.append(e.payload))
        second = source.subscribe(lambda e: got.append(e.payload))
        assert ["view", "view#2"] == list(bus.subscriptions)
        bus.publish("user.a", 1)
        bus.drain(LIMIT)
        assert [1, 1] == got
        first.dispose()
        second.dispose()
        assert [] == list(bus.subscriptions)

    def test_scheduler_of_subscribe_reaches_it(self, bus: EventBus) -> None:
        """RxPY's own idiom: `subscribe(..., scheduler=)`."""
        clock = TestScheduler()
        got: list[int] = []
        bus.observe("a").subscribe(lambda e: got.append(e.payload), scheduler=clock)
        bus.topic("a").subscribe(lambda e: got.append(e.payload), scheduler=clock)
        bus.publish("a", 1)
        assert [] == got
        clock.start()
        assert [1, 1] == got

    def test_chosen_scheduler_is_kept(self, bus: EventBus) -> None:
        """RxPY's timer scheduler is ignored when an operator hands it upstream, and used when the caller names it."""
        names: dict[str, str] = {}
        done = threading.Event()

        def note(key: str) -> None:
            names[key] = threading.current_thread().name
            if len(names) == 2:
                done.set()

        bus.observe("a", scheduler=TimeoutScheduler()).subscribe(lambda _: note("named"))
        bus.observe("a").subscribe(lambda _: note("handed"), scheduler=TimeoutScheduler())
        bus.publish("a", 1)
        assert done.wait(LIMIT)
        assert not names["named"].startswith("rxbus-")
        assert names["handed"].startswith("rxbus-")


class TestOn:
    """`on`."""

    def test_returns_the_function_unchanged(self, bus: EventBus) -> None:
        """The decorated function can still be called, and decorated again."""

        @bus.on("a")
        @bus.on("b", name="other")
        def handler(event: Event[int]) -> int:
            return event.payload

        assert 3 == handler(Event("x", 3))
        assert ["other", "handler"] == list(bus.subscriptions)


class TestDrain:
    """`drain`."""

    def test_chained_events_included(self, bus: EventBus) -> None:
        """A chain of slow handlers is through when it returns."""
        seen = Recorder()
        for source, target in (("a", "b"), ("b", "c"), ("c", "d")):
            bus.subscribe(source, lambda e: time.sleep(0.01) or e.payload, to=target)
        bus.subscribe("d", seen)
        bus.publish_many("a", range(3))
        bus.drain(LIMIT)
        assert [0, 1, 2] == seen.payloads

    def test_times_out_by_name(self, bus: EventBus) -> None:
        """The error names who is busy, with the events left."""
        gate = Gate()
        bus.subscribe("a", gate, name="slow")
        bus.publish_many("a", range(3))
        with pytest.raises(DrainTimeoutError, match=r"still busy: 'slow' \(3 left\)") as caught:
            bus.drain(0.05)
        assert {"slow": 3} == caught.value.busy
        gate.open()

    def test_from_a_handler_raises(self, bus: EventBus) -> None:
        """It could never end."""
        errors: list[str] = []

        def handler(_: Event[int]) -> None:
            try:
                bus.drain()
            except BusError as error:
                errors.append(str(error))

        bus.subscribe("a", handler)
        bus.publish("a", 1)
        bus.drain(LIMIT)
        assert ["drain of bus 'test' from one of its handlers or instruments would wait for itself"] == errors

    def test_paused_subscription_raises(self, bus: EventBus) -> None:
        """With events it could never end; without any it does."""
        one = bus.subscribe("a", lambda _: None, name="paused")
        one.pause()
        bus.drain(LIMIT)
        bus.publish("a", 1)
        with pytest.raises(BusError, match="subscription 'paused' is paused with 1 events: drain would wait for ever"):
            bus.drain(LIMIT)
        one.resume()
        bus.drain(LIMIT)

    def test_observers_of_dead_letters_included(self, bus: EventBus) -> None:
        """What they do with a letter has been done when it returns."""
        got: list[int] = []

        def failing(_: Event[int]) -> None:
            raise ValueError

        def late(letter: object) -> None:
            time.sleep(0.02)
            got.append(1)

        bus.subscribe("a", failing)
        bus.dead_letters.subscribe(late)
        bus.publish("a", 1)
        bus.drain(LIMIT)
        assert [1] == got


class TestForget:
    """`forget`."""

    def test_completes_and_drops(self, bus: EventBus) -> None:
        """Its own subscriptions end after what is queued; those of patterns go on with other topics."""
        gate, wide = Gate(), Recorder()
        done: list[str] = []
        bus.subscribe("a.b", gate, name="own")
        bus.subscribe("a.*", wide, name="wide")
        bus.topic("a.b").subscribe(lambda _: None, on_completed=lambda: done.append("completed"))
        topic = bus.topic("a.b")
        bus.publish_many("a.b", [1, 2])
        bus.forget("a.b")
        gate.open()
        bus.drain(LIMIT)
        assert [1, 2] == gate.seen == wide.payloads
        assert ["completed"] == done
        assert ["wide"] == list(bus.subscriptions)
        assert [] == list(bus.topics)
        with pytest.raises(BusClosedError, match=r"topic 'a\.b' is closed"):
            topic.emit(3)
        bus.publish("a.b", 4)
        bus.publish("a.c", 5)
        bus.drain(LIMIT)
        assert [1, 2, 4, 5] == wide.payloads
        assert_books_balance(bus)

    def test_names_made_per_request_do_not_pile_up(self, bus: EventBus) -> None:
        """A thousand topics come and go under a pattern: nothing of them stays but the sums."""
        wide = bus.subscribe("reply.*", lambda _: None, name="wide")
        for n in range(1000):
            bus.publish(f"reply.{n}", n)
            bus.forget(f"reply.{n}")
        bus.drain(LIMIT)
        assert 1000 == assert_books_balance(bus).subscriptions["wide"].handled
        assert len(wide._intake.inlets()) <= 2
        assert None is bus._registry._names._root.children

    def test_unknown_names_are_no_error(self, bus: EventBus) -> None:
        """Only what can't be a name is."""
        bus.forget("never.seen")
        with pytest.raises(TopicNameError):
            bus.forget("a.*")


class TestContextManager:
    """`with` and `async with`."""

    def test_drains_and_closes(self) -> None:
        """Leaving it, everything has been handled."""
        seen = Recorder()
        with EventBus() as bus:
            bus.subscribe("a", lambda e: time.sleep(0.005) or seen(e))
            bus.publish_many("a", range(5))
        assert [0, 1, 2, 3, 4] == seen.payloads
        assert repr(bus).startswith("EventBus('rxbus'): closed")

    def test_warns_with_the_report(self) -> None:
        """What could not be finished in time is said."""
        gate = Gate()
        with pytest.warns(RuntimeWarning, match="bus 'late' was closed before all was handled: 'stuck' left 2 events unhandled"):
            with EventBus("late", close_timeout=0.05) as bus:
                bus.subscribe("a", gate, name="stuck")
                bus.publish_many("a", [1, 2])
                gate.wait_until_entered()
        gate.open()

    def test_left_by_an_exception_it_does_not_drain(self) -> None:
        """What is queued is dropped; the exception goes on its way."""
        gate = Gate()
        with pytest.warns(RuntimeWarning, match="unhandled"), pytest.raises(KeyError), EventBus() as bus:
            one = bus.subscribe("a", gate)
            bus.publish_many("a", range(5))
            gate.wait_until_entered()
            raise KeyError
        gate.open()
        one.dispose(wait=LIMIT)
        assert [0] == gate.seen

    def test_async(self) -> None:
        """Leaving it, the loop isn't blocked while the bus drains."""
        seen = Recorder()
        ticks: list[int] = []

        async def main() -> None:
            async def tick() -> None:
                while True:
                    await asyncio.sleep(0.005)
                    ticks.append(1)

            ticking = asyncio.create_task(tick())
            async with EventBus() as bus:
                bus.subscribe("a", lambda e: time.sleep(0.05) or seen(e))
                bus.publish("a", 1)
            ticking.cancel()

        asyncio.run(main())
        assert [1] == seen.payloads
        assert len(ticks) >= 3


class TestClose:
    """`close`, beyond G12."""

    def test_from_a_handler(self, bus: EventBus) -> None:
        """It returns at once, and finishes elsewhere: what was queued is handled."""
        seen = Recorder()

        def handler(event: Event[int]) -> None:
            seen(event)
            if event.payload == 0:
                bus.close()

        bus.subscribe("a", handler)
        bus.publish_many("a", range(3))
        report = bus.close(LIMIT)
        assert [0, 1, 2] == seen.payloads
        assert ((), {}) == (report.stuck, dict(report.unhandled))

    def test_wakes_publishers_that_wait_for_room(self, bus: EventBus) -> None:
        """They come back, and what they had published is counted."""
        gate = Gate()
        bus.subscribe("a", gate, capacity=1, name="full")
        publisher = run_in_thread(lambda: [bus.publish("a", n) for n in range(3)])
        gate.wait_until_entered()
        time.sleep(0.05)
        assert publisher.is_alive()
        bus.close(0.05)
        join(publisher)
        gate.open()

    def test_nothing_is_left_alive(self) -> None:
        """A closed bus that nobody holds is collected, with its handlers."""

        class Handler:
            def __call__(self, event: Event[int]) -> None:
                raise ValueError

        bus = EventBus()
        handler = Handler()
        bus.subscribe("a", handler)
        bus.subscribe("a.*", handler)
        bus.publish("a", 1)
        bus.publish("a.b", 1)
        bus.close()
        gone = [weakref.ref(bus), weakref.ref(handler)]
        letters = list(bus.dead_letters)
        statistics = bus.statistics()
        del bus, handler
        deadline = time.monotonic() + LIMIT
        while any(ref() for ref in gone) and time.monotonic() < deadline:
            gc.collect()
            time.sleep(0.01)
        assert [None, None] == [ref() for ref in gone]
        assert (2, 2) == (len(letters), len(statistics.subscriptions))

    @pytest.mark.parametrize(
        "options", [{}, {"concurrency": 2, "key": lambda e: e.payload}, {"group": "g"}, {"group": "g", "concurrency": 2}], ids=str
    )
    def test_disposed_handler_is_collected(self, bus: EventBus, options: dict[str, Any]) -> None:
        """The statistics keep its counters, and nothing else of it."""

        class Handler:
            def __call__(self, event: Event[int]) -> None:
                raise ValueError

        handler = Handler()
        one = bus.subscribe("a", handler, name="gone", **options)
        bus.publish("a", 1)
        bus.drain(LIMIT)
        one.dispose(wait=LIMIT)
        ref = weakref.ref(handler)
        del handler, one
        deadline = time.monotonic() + LIMIT
        while ref() is not None and time.monotonic() < deadline:
            gc.collect()
            time.sleep(0.01)
        assert None is ref()
        assert 1 == bus.statistics().subscriptions["gone"].failed
        assert 1 == bus.statistics().topics["a"].failed

    def test_forgotten_topics_are_collected(self, bus: EventBus) -> None:
        """With their subscriptions; a subscription to a pattern that they fed keeps their counts and not them."""
        wide = bus.subscribe("job.*", lambda e: None)
        refs = []
        for n in range(20):
            one = bus.subscribe(f"job.{n}", lambda e: None, name=f"s{n}")
            bus.publish(f"job.{n}", n)
            refs += [weakref.ref(bus.topic(f"job.{n}")), weakref.ref(one)]
            del one
        bus.drain(LIMIT)
        for n in range(20):
            bus.forget(f"job.{n}")
        bus.drain(LIMIT)
        deadline = time.monotonic() + LIMIT
        while any(ref() for ref in refs) and time.monotonic() < deadline:
            gc.collect()
            time.sleep(0.01)
        assert [] == [ref() for ref in refs if ref() is not None]
        assert 20 == wide.statistics().handled
        assert 1 == len(wide._intake.inlets())

    @pytest.mark.parametrize("verb", ["publish", "deliver"])
    def test_who_publishes_by_name_beside_forget_is_not_troubled(self, bus: EventBus, verb: str) -> None:
        """The event goes to the topic that is forgotten or to the next one of that name."""
        stop, errors = threading.Event(), []

        def publish() -> None:
            try:
                while not stop.is_set():
                    getattr(bus, verb)("job", 1)
            except Exception as error:
                errors.append(error)

        publishers = [run_in_thread(publish) for _ in range(2)]
        for _ in range(1000):
            bus.forget("job")
        stop.set()
        join(*publishers)
        assert [] == errors

    def test_pools_may_be_shared(self) -> None:
        """Two buses on one pool; the end of the first doesn't end the second."""
        pool = WorkerPool(max_workers=2)
        seen = Recorder()
        with EventBus(scheduler=pool) as first, EventBus(scheduler=pool) as second:
            for one in (first, second):
                one.subscribe("a", seen)
            first.deliver("a", 1, timeout=LIMIT)
            first.close()
            second.deliver("a", 2, timeout=LIMIT)
        assert [1, 2] == seen.payloads
        assert pool.workers <= 2


class TestStatistics:
    """`statistics`, beyond the counters."""

    def test_times_and_last_error(self, bus: EventBus) -> None:
        """Handling and waiting time grow; the last error is kept without its frames."""

        def handler(event: Event[int]) -> None:
            time.sleep(0.02)
            if event.payload == 1:
                raise ValueError("last")

        bus.subscribe("a", handler)
        bus.publish_many("a", [0, 1])
        bus.drain(LIMIT)
        counted = bus.statistics().subscriptions["handler"]
        assert 0.04 <= counted.handling_time < LIMIT
        assert 0.02 <= counted.waiting_time < LIMIT
        assert isinstance(counted.last_error, ValueError)
        assert None is counted.last_error.__traceback__

    def test_past_subscriptions_are_bounded(self, bus: EventBus) -> None:
        """The counters of the last thousand disposed subscriptions stay; the topic's sums lose nothing."""
        for n in range(1100):
            one = bus.subscribe("a", lambda _: None, name=f"s{n}")
            bus.deliver("a", n, timeout=LIMIT)
            one.dispose(wait=LIMIT)
        statistics = bus.statistics()
        assert 1000 == len(statistics.subscriptions)
        assert "s1099" in statistics.subscriptions
        assert 1100 == statistics.topics["a"].handled

    def test_text_is_a_table(self, bus: EventBus) -> None:
        """`str` shows both tables."""
        bus.subscribe("a", lambda _: None, name="agent")
        bus.deliver("a", 1, timeout=LIMIT)
        assert ["a", "1", "1", "1", "0", "0"] in [line.split() for line in str(bus.statistics()).splitlines()]
        assert ["agent", "1", "1", "0", "0", "0", "0"] in [line.split() for line in str(bus.statistics()).splitlines()]


class TestInterrupt:
    """Ctrl-C."""

    def test_during_drain_leaves_a_usable_bus(self, bus: EventBus) -> None:
        """A `KeyboardInterrupt` in the main thread comes out of `drain`, and everything goes on."""
        import _thread

        gate = Gate()
        bus.subscribe("a", gate)
        bus.publish("a", 1)
        gate.wait_until_entered()
        threading.Timer(0.05, _thread.interrupt_main).start()
        with pytest.raises(KeyboardInterrupt):
            bus.drain(LIMIT)
        gate.open()
        bus.publish("a", 2)
        bus.drain(LIMIT)
        assert [1, 2] == gate.seen

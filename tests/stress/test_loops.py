"""Coroutines, requests, and results that wait without a thread, against everything that may happen meanwhile."""

from __future__ import annotations

import asyncio
import random
import threading

import pytest
import reactivex as rx
from reactivex import operators as ops

from rxbus import REPLY, BusClosedError, EventBus, MailboxFullError, NoRespondersError, Overflow, Reason, RequestTimeoutError, operators

from .racing import Overlap, check_books, eventually, play, race, rounds, spin


class OwnLoop:
    """An event loop on a thread of the test's own, which may be closed at any moment."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._ready.wait()

    def _run(self):
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            runner.run(self._main())

    async def _main(self):
        self._over = asyncio.Event()
        self._ready.set()
        await self._over.wait()

    def close(self):
        """Ends it, as `asyncio.run` does when its coroutine is over."""
        self.loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)
        assert not self._thread.is_alive()


class TestCoroutines:
    """Each event is handled once, in order, one at a time, however they come and go."""

    @pytest.mark.parametrize("options", [{}, {"concurrency": 3}, {"key": lambda e: e.payload % 2}], ids=["one", "three", "keys"])
    @rounds(6000, 1000)
    def test_several_publishers_and_two_loops(self, rounds, options):
        """The bus's own loop, and one of the user's, share the events of one topic."""
        own = OwnLoop()

        def one_round(number):
            with EventBus(capacity=random.choice([1, 8, 1000])) as bus:
                seen, overlap = {"bus": [], "own": []}, {"bus": Overlap(), "own": Overlap()}

                def make(name):
                    async def handler(event):
                        if not options:
                            overlap[name].found += overlap[name].calls
                            overlap[name].calls += 1
                        if event.payload % 3:
                            await asyncio.sleep(0)
                        seen[name].append(event.payload)
                        if not options:
                            overlap[name].calls -= 1

                    return handler

                bus.subscribe("a", make("bus"), name="bus", **options)
                bus.subscribe("a", make("own"), name="own", loop=own.loop, **options)
                race(*[lambda: [bus.publish("a", n) for n in range(20)] for _ in range(3)])
                bus.drain(20)
                assert sorted([*range(20)] * 3) == sorted(seen["bus"]) == sorted(seen["own"])
                if not options:
                    assert seen["bus"] == seen["own"]
                    assert 0 == overlap["bus"].found == overlap["own"].found
                check_books(bus)

        play(rounds, one_round)
        own.close()

    @pytest.mark.parametrize("options", [{}, {"concurrency": 2}, {"through": ops.map(lambda e: e)}], ids=["one", "two", "piped"])
    @rounds(6000, 1000)
    def test_a_loop_that_is_closed_while_events_come(self, rounds, options):
        """Publishers see no exception, and each event is either handled or a dead letter that says why."""

        def one_round(number):
            own = OwnLoop()
            with EventBus() as bus:
                handled = []

                async def handler(event):
                    if event.payload % 2:
                        await asyncio.sleep(0)
                    handled.append(event.payload)

                bus.subscribe("a", handler, loop=own.loop, **options)

                def closes():
                    for _ in range(random.randrange(4)):
                        spin()
                    own.close()

                race(lambda: [bus.publish("a", n) for n in range(30)], closes)
                bus.drain(20)
                lost = [letter.event.payload for letter in bus.dead_letters]
                assert {letter.reason for letter in bus.dead_letters} <= {Reason.UNDELIVERABLE}
                assert list(range(30)) == sorted({*handled, *lost})
                statistics = bus.statistics().topics["a"]
                assert 30 == statistics.handled + statistics.failed
                check_books(bus)

        play(rounds, one_round)

    @rounds(4000, 1000)
    def test_dispose_and_close(self, rounds):
        """A subscription that is disposed of, then a bus that is closed, in the middle of coroutines: the books balance."""

        def one_round(number):
            bus = EventBus(close_timeout=10)

            async def handler(event):
                await asyncio.sleep(0)

            one = bus.subscribe("a", handler)
            bus.subscribe("a", handler, concurrency=2, name="two")

            def publishes():
                try:
                    for n in range(40):
                        bus.publish("a", n)
                except BusClosedError:
                    pass

            race(publishes, one.dispose, lambda: (spin(), bus.close(10)))
            check_books(bus)

        play(rounds, one_round)


class TestRequests:
    """Each gets its own answer, an error, or nothing that anybody else would have got."""

    @pytest.mark.parametrize("awaited", [True, False], ids=["await", "run"])
    @rounds(3000, 1000)
    def test_replies_race_with_timeouts(self, rounds, awaited):
        """Answered and late replies together are all that were made; the table is empty at the end."""

        def one_round(number):
            with EventBus() as bus:
                made, answered, timed_out = [], [], []

                async def slowly(event):
                    await asyncio.sleep(random.random() * 0.002)
                    made.append(event.payload)
                    return -event.payload

                bus.subscribe("ask", slowly, to=REPLY, concurrency=8)

                async def asks(n):
                    try:
                        answered.append((n, (await bus.request("ask", n, timeout=0.001)).payload))
                    except RequestTimeoutError:
                        timed_out.append(n)

                async def all_of(numbers):
                    await asyncio.gather(*map(asks, numbers))

                def runs(numbers):
                    for n in numbers:
                        try:
                            answered.append((n, bus.request("ask", n, timeout=0.001).run().payload))
                        except RequestTimeoutError:
                            timed_out.append(n)

                parts = [range(start, 30, 3) for start in range(3)]
                if awaited:
                    race(*[lambda numbers=numbers: asyncio.run(all_of(numbers)) for numbers in parts])
                else:
                    race(*[lambda numbers=numbers: runs(numbers) for numbers in parts])
                bus.drain(20)
                assert all(reply == -n for n, reply in answered)
                assert list(range(30)) == sorted([n for n, _ in answered] + timed_out)
                assert len(made) == 30 == len(answered) + bus.statistics().late_replies
                assert 0 == len(bus._requests)
                check_books(bus)

        play(rounds, one_round)

    @rounds(6000, 1000)
    def test_the_responder_comes_and_goes(self, rounds):
        """Who asks gets an answer or a clear error, and never waits for one who is gone."""

        def one_round(number):
            with EventBus() as bus:
                found = []

                def asks():
                    for n in range(5):
                        try:
                            found.append(bus.request("ask", n, timeout=10).run().payload == n)
                        except Exception as error:
                            found.append(type(error).__name__)

                def comes_and_goes():
                    for n in range(5):
                        one = bus.subscribe("ask", lambda e: e.payload, to=REPLY, name=f"one{n}")
                        spin()
                        one.dispose()

                race(asks, asks, comes_and_goes)
                bus.drain(20)  # an answer is there before its handler has ended
                assert set(found) <= {True, NoRespondersError.__name__, "RequestFailedError"}
                assert 0 == len(bus._requests)
                check_books(bus)

        play(rounds, one_round)


class TestResults:
    """Of handlers, in small mailboxes."""

    @pytest.mark.parametrize(
        "options",
        [{}, {"concurrency": 3}, {"through": ops.flat_map(lambda e: rx.of(e.payload, e.payload + 100))}],
        ids=["one", "lanes", "piped"],
    )
    @pytest.mark.parametrize("shape", ["function", "generator", "coroutine", "observable"])
    @rounds(3000, 1000)
    def test_nothing_is_lost_however_small_the_mailbox(self, rounds, shape, options):
        """Each result arrives once, and nobody is left waiting."""

        def one_round(number):
            with EventBus(block_timeout=15) as bus:

                def value_of(item):
                    return getattr(item, "payload", item)

                async def coroutine(item):
                    return value_of(item)

                def generator(item):
                    yield value_of(item)
                    yield value_of(item) + 1000

                handlers = {
                    "function": value_of,
                    "generator": generator,
                    "coroutine": coroutine,
                    "observable": lambda item: rx.of(value_of(item), value_of(item) + 1000),
                }
                seen = []
                bus.subscribe("b", lambda e: seen.append(e.payload), capacity=1)
                agent = bus.subscribe("a", handlers[shape], to="b", name="agent", **options)
                race(*[lambda start=start: [bus.publish("a", n) for n in range(start, 12, 2)] for start in (0, 1)])
                bus.drain(20)
                expected = [*range(12)]
                if "through" in options:
                    expected += [n + 100 for n in expected]
                if shape in {"generator", "observable"}:
                    expected += [n + 1000 for n in expected]
                assert sorted(expected) == sorted(seen)
                assert () == agent._strand.waiting_for
                assert all(() == lane._strand.waiting_for for lane in agent._lanes)
                assert not bus.dead_letters
                check_books(bus)

        play(rounds, one_round)

    @pytest.mark.parametrize("options", [{}, {"concurrency": 2}, {"through": ops.map(lambda e: e)}], ids=["one", "lanes", "piped"])
    @pytest.mark.parametrize("event", ["dispose", "close", "stall"])
    @rounds(3000, 1000)
    def test_while_somebody_waits(self, rounds, event, options):
        """The agent or its reader goes, or the reader hangs: each event has one outcome, and nobody is left waiting."""

        def one_round(number):
            bus = EventBus(block_timeout=0.002 if event == "stall" else 15, close_timeout=10)
            agent = bus.subscribe("a", lambda e: e.payload, to="b", name="agent", **options)
            reader = bus.subscribe("b", lambda e: spin(), capacity=1, name="reader")

            def publishes():
                try:
                    for n in range(15):
                        bus.publish("a", n)
                except BusClosedError:
                    pass

            goes = {"dispose": random.choice([agent, reader]).dispose, "close": lambda: bus.close(10), "stall": spin}[event]
            race(publishes, lambda: (spin(), goes()))
            if event != "close":
                bus.drain(20)
            check_books(bus)
            for one in (agent, *agent._lanes):
                assert eventually(lambda one=one: one._strand.waiting_for == ())
            assert all(isinstance(letter.error, MailboxFullError | BusClosedError) for letter in bus.dead_letters)
            bus.close(10)

        play(rounds, one_round)

    @rounds(3000, 1000)
    def test_two_that_fill_each_other(self, rounds):
        """Circles of full mailboxes end at once, with dead letters."""

        def one_round(number):
            with EventBus(block_timeout=15) as bus:

                def fork(event):
                    if event.payload:
                        yield from (event.payload - 1, event.payload - 1)

                for source, target in (("a", "b"), ("b", "c"), ("c", "a")):
                    bus.subscribe(source, fork, to=target, capacity=2, name=source)
                race(*[lambda topic=topic: bus.publish(topic, 5) for topic in "abc"])
                bus.drain(10)
                assert all(isinstance(letter.error, MailboxFullError) for letter in bus.dead_letters)
                check_books(bus)

        play(rounds, one_round)


class TestMapAsync:
    """In chains and pipelines."""

    @pytest.mark.parametrize("ordered", [True, False])
    @rounds(3000, 1000)
    def test_each_item_once(self, rounds, ordered):
        """Through several hands, behind a topic, from two publishers: all come, in one order if asked for."""

        def one_round(number):
            with EventBus() as bus:
                published, got = [], []

                async def work(event):
                    if event.payload % 2:
                        await asyncio.sleep(0)
                    return event.id

                bus.topic("a").subscribe(lambda e: published.append(e.id))
                bus.topic("a").pipe(operators.map_async(work, concurrency=4, ordered=ordered)).subscribe(got.append)
                race(*[lambda: [bus.publish("a", n) for n in range(15)] for _ in range(2)])
                bus.drain(20)
                assert (published if ordered else sorted(published)) == (got if ordered else sorted(got))
                check_books(bus, topics=False)

        play(rounds, one_round)

    @pytest.mark.parametrize("raw", [True, False])
    @rounds(3000, 1000)
    def test_disposed_in_the_middle(self, rounds, raw):
        """Nothing hangs, and the books balance."""

        def one_round(number):
            with EventBus(overflow=random.choice(list(Overflow)), capacity=3, block_timeout=15) as bus:

                async def work(event):
                    await asyncio.sleep(0)
                    return event.payload

                operator = operators.map_async(work, concurrency=2)
                if raw:
                    one = bus.topic("a").pipe(operator).subscribe(lambda _: None)
                else:
                    one = bus.subscribe("a", lambda _: None, through=operator)
                race(lambda: [bus.publish("a", n) for n in range(20)], lambda: (spin(), one.dispose()))
                bus.drain(20)
                check_books(bus, topics=False)

        play(rounds, one_round)

"""Races whose windows are held open: what must be right however long it takes from one step to the next.

Between two neighbouring steps a thread switch is so rare that the other race tests may miss it in thousands of rounds. Here
single steps take up to a millisecond, so that what others do falls between them in nearly every round.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
import reactivex as rx
from reactivex.scheduler import ThreadPoolScheduler

from rxbus import BusClosedError, DrainTimeoutError, EventBus, MailboxSubject, Overflow, Reason, WorkerPool, operators, shutdown, workers
from rxbus.group import Group, MemberStrand
from rxbus.inlet import Inlet
from rxbus.loops import LoopExecutor
from rxbus.mailbox import Mailbox, Ticket
from rxbus.pattern import Trie
from rxbus.strand import Strand
from rxbus.subscription import Subscription

from .racing import Overlap, Racers, balance, check_books, chunks, doze, eventually, play, race, rounds, spin

PAUSE = 100e-6
"""Seconds that a slow step takes at most, before and after."""
Slow = Callable[..., None]


def paused(function: Callable[..., Any], pause: float) -> Callable[..., Any]:
    """The function with a pause of random length, at most so many seconds, before and after it."""

    def slow(*args: Any) -> Any:
        time.sleep(random.random() * pause)
        result = function(*args)
        time.sleep(random.random() * pause)
        return result

    return slow if pause else function


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    """Makes a method of a class, or the reading and writing of an attribute, take its time."""

    def attribute(owner: type, name: str, reads: float, writes: float) -> property:
        slot = owner.__dict__.get(name)
        if slot is None:  # it lies in the dictionary of each instance
            read, write = lambda self: self.__dict__[name], lambda self, value: self.__dict__.update({name: value})
        else:
            read, write = slot.__get__, slot.__set__
        return property(paused(read, reads), paused(write, writes))

    def make_slow(owner: type, name: str, reads: float = PAUSE, writes: float = PAUSE) -> None:
        method = owner.__dict__.get(name)
        changed = paused(method, reads) if callable(method) else attribute(owner, name, reads, writes)
        monkeypatch.setattr(owner, name, changed, raising=False)

    return make_slow


class _SlowList(list[Any]):
    """A list that takes its time to append."""

    append = paused(list.append, PAUSE)


class _VerySlowList(list[Any]):
    """A list that takes a lot of time to append."""

    append = paused(list.append, 20 * PAUSE)


class TestStrand:
    """Publishers, and the run that ends."""

    @pytest.mark.parametrize("steps", ["flag and token", "flag going down", "return of the token"])
    @rounds(2000, share=20)
    def test_no_item_waits_for_another(self, rounds, steps, slow, monkeypatch):
        """An item that arrives while a run ends is handled without another's help, and never beside another."""
        if steps == "flag and token":
            slow(Strand, "scheduled")
            slow(Strand, "_token")
        elif steps == "flag going down":
            slow(Strand, "scheduled", reads=0.0, writes=5 * PAUSE)
        else:
            slow(Strand, "scheduled", writes=0.0)
            token = Strand.__dict__["_token"]
            monkeypatch.setattr(Strand, "_token", property(token.__get__, lambda self, value: token.__set__(self, _VerySlowList(value))))
        subject, overlap = MailboxSubject(), Overlap()

        def observer(item):
            with overlap:
                pass

        subject.subscribe(observer)

        def publish():
            time.sleep(random.random() * 10 * PAUSE)
            subject.on_next("item")

        def one_round(number):
            for count in (1, 3, 2):
                until = overlap.calls + count
                race(*[publish] * count)
                assert eventually(lambda until=until: overlap.calls == until, 2.0), f"{overlap.calls} of {until}"
            assert 0 == overlap.found

        play(rounds, one_round)

    @rounds(2000, share=20)
    def test_a_submission_too_many_is_harmless(self, rounds):
        """However often a strand is submitted, on whatever threads, it runs once at a time and handles each event once, in order."""

        def one_round(number):
            with EventBus() as bus:
                overlap, seen = Overlap(), []

                def handler(event):
                    with overlap:
                        seen.append(event.payload)
                        doze()

                one = bus.subscribe("t", handler)
                bus.publish_many("t", range(10))
                race(*[one._strand.run] * 3)
                bus.drain()
                assert list(range(10)) == seen
                assert 0 == overlap.found

        play(rounds, one_round)

    @rounds(2000, share=20)
    def test_an_event_on_its_way_to_the_handler_is_not_overlooked(self, rounds, slow):
        """Drain isn't early when an event has left the mailbox, and isn't known to be in progress yet."""
        slow(Strand, "in_flight", reads=0.0, writes=10 * PAUSE)
        bus, seen = EventBus(), []
        bus.subscribe("t", lambda e: seen.append(e.payload))

        def one_round(number):
            bus.publish("t", number)
            for _ in range(number % 5):
                doze()
            bus.drain()
            assert number == seen[-1]

        play(rounds, one_round)
        bus.close()

    @rounds(1000, share=20)
    def test_a_refusal_that_goes_on_is_not_overlooked(self, rounds, slow):
        """Drain isn't early when what a scheduler refused has left the mailbox, and isn't counted yet or has no letter yet."""
        slow(Subscription, "_count")
        slow(Subscription, "_refuse")
        rxpy = ThreadPoolScheduler(1)
        rxpy.executor.shutdown()

        def one_round(number):
            with EventBus() as bus:
                one = bus.subscribe("t", lambda e: None, scheduler=rxpy, name="one")
                racers = Racers(lambda: bus.publish_many("t", range(3)))
                assert eventually(lambda: one.statistics().offered == 3)
                bus.drain()
                assert (3, 3) == (one.statistics().failed, len(bus.dead_letters))
                racers.join()

        play(rounds, one_round)


class TestOffers:
    """One publish, and what others do meanwhile."""

    @pytest.mark.parametrize("overflow", [Overflow.DROP_LATEST, Overflow.FAIL])
    @rounds(1000, share=20)
    def test_the_bound_holds_for_several_topics(self, rounds, overflow, slow):
        """Topics that feed one mailbox at once don't fill it beyond its capacity."""
        slow(Mailbox, "limit")

        def one_round(number):
            with EventBus() as bus:
                one = bus.subscribe("*", lambda e: None, capacity=3, overflow=overflow, name="one")
                one.pause()
                race(*(partial(lambda t: [bus.publish(t, n) for n in range(3)], t) for t in ("a", "b", "c")))
                assert (9, 9, 3) == balance(one)
                one.resume()
                bus.drain()
                check_books(bus)

        play(rounds, one_round)

    @pytest.mark.parametrize("pattern", ["t", "*"])
    @rounds(1000, share=20)
    def test_subscriptions_come_and_go_amid_offers(self, rounds, pattern, slow):
        """A publish reaches those who stay, and wholly or not at all those who come or go while it is being offered."""
        slow(Inlet, "offered")

        def one_round(number):
            with EventBus() as bus:
                seen, gone, done = [[], []], [], threading.Event()
                for index in range(2):
                    bus.subscribe("t", lambda e, one=seen[index]: one.append(e.payload), name=f"stays{index}")

                def churn(kind):
                    while not done.is_set():
                        one = bus.subscribe(pattern, lambda e: None, name=f"{kind}{len(gone)}")
                        doze()
                        one.dispose()
                        gone.append((one, one.statistics().offered))

                def publish():
                    try:
                        race(*(partial(lambda r: [bus.publish("t", p) for p in r], r) for r in chunks(6, 2)))
                    finally:
                        done.set()

                race(publish, partial(churn, "a"), partial(churn, "b"))
                bus.drain()
                assert list(range(12)) == sorted(seen[0])
                assert seen[0] == seen[1]
                assert [offered for _, offered in gone] == [one.statistics().offered for one, _ in gone]
                check_books(bus)

        play(rounds, one_round)

    @rounds(1000, share=20)
    def test_a_close_amid_an_offer(self, rounds, slow):
        """What was being offered when a close began passes through all topics, as what was offered before."""
        slow(MailboxSubject, "_published", reads=10 * PAUSE)

        def one_round(number):
            bus = EventBus()
            accepted, ends = [], []
            bus.subscribe("c", lambda e: ends.append(e.payload), name="c")
            bus.subscribe("b", lambda e: e.payload, to="c", name="b")
            bus.subscribe("a", lambda e: e.payload, to="b", name="a")

            def publisher(numbers):
                for payload in numbers:
                    try:
                        bus.publish("a", payload)
                    except BusClosedError:
                        return
                    accepted.append(payload)

            racers = Racers(*(partial(publisher, r) for r in chunks(3, 2)))
            for _ in range(number % 9):
                doze()
            report = bus.close()
            racers.join()
            assert {} == dict(report.unhandled)
            assert [] == [str(letter.error) for letter in bus.dead_letters]
            assert sorted(accepted) == sorted(ends)

        play(rounds, one_round)

    @rounds(1000, share=5)
    def test_a_pattern_and_a_topic_that_are_made_at_once(self, rounds, slow):
        """A pattern that is subscribed to while topics are made gets each of them once, from one side or the other."""
        slow(Trie, "matching")
        slow(Trie, "covered")

        def one_round(number):
            with EventBus() as bus:
                seen = []

                def publisher(name):
                    for _ in range(number % 4):
                        doze()
                    bus.topic(name)

                race(partial(publisher, "t.a"), partial(publisher, "t.b"), lambda: bus.subscribe("t.*", lambda e: seen.append(e.payload)))
                bus.publish("t.a", "a")
                bus.publish("t.b", "b")
                bus.drain()
                assert ["a", "b"] == seen

        play(rounds, one_round)


class TestForced:
    """Two steps that must not come apart, held apart on purpose: the outcome doesn't depend on luck."""

    def test_a_pattern_comes_while_a_topic_is_made(self, monkeypatch):
        """A pattern that is subscribed to between the look for patterns and the entry of a new topic is fed by that topic."""
        subscribed, looked = threading.Event(), threading.Event()
        matching = Trie.matching

        def slow_matching(trie, name):
            found = matching(trie, name)
            looked.set()
            subscribed.wait(0.1)  # with the registry locked, the pattern can't come before the topic is entered
            return found

        with EventBus() as bus:
            monkeypatch.setattr(Trie, "matching", slow_matching)
            maker = threading.Thread(target=bus.topic, args=("t.a",))
            maker.start()
            assert looked.wait(5)
            seen = []
            bus.subscribe("t.*", lambda e: seen.append(e.payload))
            subscribed.set()
            maker.join(5)
            monkeypatch.undo()
            bus.publish("t.a", "a")
            bus.drain(5)
            assert ["a"] == seen

    def test_a_submission_comes_while_the_watcher_goes_idle(self, monkeypatch):
        """What is submitted after the watcher's last look and before its flag goes down, with no worker left, is run."""
        monkeypatch.setattr(workers, "IDLE_SECONDS", 0.001)
        done = threading.Event()

        class Hooked(WorkerPool):
            _flag, _hooked = False, False

            @property
            def _watched(self):
                return self._flag

            @_watched.setter
            def _watched(self, value):
                if not value and not self._hooked and threading.current_thread().name == "rxbus-watcher":
                    self._hooked = True
                    assert eventually(lambda: not self._workers, 3.0)
                    self.call(done.set)
                self._flag = value

        pool = Hooked(2)
        pool.call(lambda: None)
        assert done.wait(5)
        pool.close()


class TestDrain:
    """Looks, and what happens between two of them."""

    def test_whatever_happens_between_two_looks(self, monkeypatch):
        """At whichever looks an event moves on from A to B, and on to C, drain doesn't return before C has handled it."""
        looks: dict[int, list[Callable[[], object]]] = {}
        count = [0]

        def observed(function):
            def look(*args):
                for act in looks.pop(count[0], ()):
                    act()
                count[0] += 1
                return function(*args)

            return look

        quiet = Strand.is_quiet
        monkeypatch.setattr(shutdown, "offered", observed(shutdown.offered))
        monkeypatch.setattr(Strand, "is_quiet", observed(quiet))

        def one_way(first, second):
            with EventBus() as bus:
                gates = [threading.Event() for _ in range(3)]
                ends = []

                def handler(index, event):
                    gates[index].wait(5)
                    if index < 2:
                        bus.publish(f"t{index + 1}", event.payload)
                    else:
                        ends.append(event.payload)

                def move_on_from(index):
                    gates[index].set()
                    assert eventually(lambda: quiet(ones[index]._strand))

                # against the flow, so that what is looked at first is fed by what is looked at later
                ones = {index: bus.subscribe(f"t{index}", partial(handler, index), name=f"s{index}") for index in (2, 1, 0)}
                bus.publish("t0", "event")
                count[0] = 0
                looks.clear()
                for index, look in enumerate((first, second)):
                    looks.setdefault(look, []).append(partial(move_on_from, index))
                opener = threading.Timer(0.01, lambda: [gate.set() for gate in gates])
                opener.start()
                bus.drain(5)
                assert ["event"] == ends, (first, second)
                looks.clear()
                opener.join()

        for first in range(16):
            for second in range(first, 16):
                one_way(first, second)


class TestRoom:
    """Publishers that stand in line, and the run that makes room."""

    @pytest.mark.parametrize("pattern", ["t", "*"])
    @rounds(1000, share=20)
    def test_nobody_is_left_in_line(self, rounds, pattern, slow):
        """A publisher that stands in line while the last event is taken doesn't wait for another."""
        slow(Mailbox, "watched", reads=0.0, writes=5 * PAUSE)

        def one_round(number):
            with EventBus(capacity=1, block_timeout=60) as bus:
                one = bus.subscribe(pattern, lambda e: None, name="one")
                race(*(partial(lambda r: [bus.publish("t", p) for p in r], r) for r in chunks(6, 2)), limit=5)
                bus.drain()
                assert 12 == one.statistics().handled

        play(rounds, one_round)

    @rounds(1000, share=20)
    def test_who_waits_is_not_taken_for_who_gave_up(self, rounds, slow):
        """As long as fewer give up than there is capacity nobody is refused, however late the others come to stand in line."""
        slow(Mailbox, "add_waiter")
        slow(Mailbox, "end_waiting")

        def gives_up(bus):
            for n in range(2):
                with suppress(DrainTimeoutError):
                    bus.deliver("t", n, timeout=0.0)

        def one_round(number):
            with EventBus(block_timeout=60) as bus:
                one = bus.subscribe("t", lambda e: doze(), capacity=3, name="one")
                race(partial(gives_up, bus), *(partial(lambda r: [bus.publish("t", p) for p in r], r) for r in chunks(8, 4)), limit=5)
                bus.drain()
                assert (34, 0) == (one.statistics().handled, one.statistics().failed)

        play(rounds, one_round)


class TestLoops:
    """Those who wait for a loop of the user's."""

    @pytest.mark.parametrize("options", [{}, {"concurrency": 2}, {"group": "g"}], ids=["one", "two", "group"])
    @rounds(1000, share=20)
    def test_several_find_out_that_a_loop_was_closed(self, rounds, options, slow, monkeypatch):
        """Each event is a dead letter, once; those who wait go on long before `block_timeout`."""
        slow(LoopExecutor, "_buried")
        slow(Strand, "in_flight")
        monkeypatch.setattr("rxbus.mailbox.RECHECK", 0.001)
        monkeypatch.setattr("rxbus.publishing.RECHECK", 0.001)

        async def hangs(event):
            await asyncio.sleep(1000)

        def one_round(number):
            loop = asyncio.new_event_loop()
            with EventBus(block_timeout=60) as bus:

                async def main():
                    bus.subscribe("a", hangs, loop=loop, capacity=1, name="one", **options)
                    for n in range(2):
                        bus.publish("a", n)
                        await asyncio.sleep(0.0001)

                loop.run_until_complete(main())
                delivers = [lambda n=n: bus.deliver("a", n) for n in range(10, 13)]
                race(*(lambda n=n: bus.publish("a", n) for n in range(20, 23)), *delivers, lambda: (spin(), loop.close()), limit=10)
                bus.drain(10)
                assert [0, 1, 10, 11, 12, 20, 21, 22] == sorted(letter.event.payload for letter in bus.dead_letters)
                assert {Reason.UNDELIVERABLE} == {letter.reason for letter in bus.dead_letters}
                check_books(bus)

        play(rounds, one_round)


class TestTickets:
    """A receipt, and the outcomes that it is made of."""

    @rounds(1000, share=20)
    def test_a_receipt_counts_everybody(self, rounds, slow):
        """However slowly the subscriptions settle an event, its receipt has all of them, and nobody waits for ever."""
        slow(Ticket, "_counts")
        slow(Ticket, "expect")

        def one_round(number):
            with EventBus() as bus:
                for index in range(4):
                    bus.subscribe("t", lambda e: None, name=f"s{index}")

                def delivers():
                    for n in range(3):
                        assert 4 == bus.deliver("t", n, timeout=5).handled

                race(delivers, delivers)

        play(rounds, one_round)

    @rounds(1000, share=20)
    def test_what_a_receipt_says_is_booked(self, rounds, slow):
        """When a receipt tells of a failure, that has its letter and is counted already."""
        slow(Subscription, "_report")

        def fails(event):
            raise ValueError(event.payload)

        def one_round(number):
            with EventBus() as bus:
                one = bus.subscribe("t", fails, name="one")
                for n in range(1, 4):
                    assert 1 == bus.deliver("t", n, timeout=5).failed
                    assert (n, n) == (one.statistics().failed, len(bus.dead_letters))

        play(rounds, one_round)


class TestPool:
    """Workers and the watcher, and who submits while they fall asleep."""

    @rounds(5000, share=20)
    def test_submissions_while_a_worker_falls_asleep(self, rounds):
        """What is submitted after a worker found nothing, and before it can be woken, doesn't wait until it wakes up by itself."""
        pool, done = WorkerPool(1), []
        pool._idle = _SlowList()

        def one_round(number):
            pool.call(partial(done.append, number))
            assert eventually(lambda: done[-1:] == [number], 3.0)
            for _ in range(number % 5):
                spin()

        play(rounds, one_round)
        pool.close()

    @rounds(10_000, share=20)
    def test_submissions_while_the_watcher_falls_asleep(self, rounds, monkeypatch, slow):
        """What is submitted when all workers have left, and the watcher found nothing, isn't lost."""
        monkeypatch.setattr(workers, "IDLE_SECONDS", 0.0002)
        slow(WorkerPool, "_watched")
        pool, done = WorkerPool(2), []

        def one_round(number):
            pool.call(partial(done.append, number))
            assert eventually(lambda: done[-1:] == [number], 3.0)
            time.sleep(random.random() * 0.003)

        play(rounds, one_round)
        pool.close()

    @rounds(200, share=20)
    def test_a_worker_that_stood_in_leaves_no_work_behind(self, rounds):
        """A worker that stood in for a waiting one, and leaves in the middle of a queue, has another go on with it."""

        def one_round(number):
            pool, seen = WorkerPool(2), []
            busy, free, delivered, end = (threading.Event() for _ in range(4))
            with EventBus(scheduler=pool) as bus:

                def delivers(event):
                    bus.deliver("b", "first", timeout=5)
                    delivered.set()
                    end.wait(5)

                def handler(event):
                    seen.append(event.payload)
                    if event.payload == "first":
                        bus.publish_many("b", range(10))
                        free.set()  # the other one sleeps before this one is one too many
                        assert eventually(lambda: pool._idle)
                    elif event.payload == 0:
                        delivered.wait(5)
                        time.sleep(0.003)  # so that the run ends after this event

                bus.subscribe("busy", lambda e: (busy.set(), free.wait(5)), name="busy")
                bus.subscribe("a", delivers, name="a")
                bus.subscribe("b", handler, name="b")
                bus.publish("busy", number)
                assert busy.wait(5)
                bus.publish("a", number)
                found = eventually(lambda: len(seen) == 11, 2.0)
                end.set()
                assert found, f"{len(seen)} of 11"
            pool.close()

        play(rounds, one_round)

    @rounds(200, share=20)
    def test_a_box_that_moves_while_it_is_at_work(self, rounds):
        """A mailbox operator whose pool changes during a run goes on there, though all workers of the new pool sleep."""

        def one_round(number):
            pool, seen, side = WorkerPool(1), [], rx.Subject()
            entered, go = threading.Event(), threading.Event()

            def observer(item):
                seen.append(item)
                if item == 0:
                    entered.set()
                    go.wait(5)

            bus = EventBus(scheduler=pool)
            rx.merge(side, bus.topic("t")).pipe(operators.mailbox()).subscribe(observer)
            side.on_next(0)
            assert entered.wait(5)
            for n in range(1, 4):
                side.on_next(n)
            bus.publish("t", 4)
            assert eventually(lambda: bus.statistics().topics["t"].handled and pool._idle)
            time.sleep(0.003)
            go.set()
            found = eventually(lambda: len(seen) == 5, 3.0)
            bus.close(1)
            pool.close()
            assert found, f"{len(seen)} of 5 before the close"

        play(rounds, one_round)


class TestGroups:
    """Members that rest, and publishers that look for one who does."""

    @pytest.mark.parametrize("step", ["looks_again", "run", "wake"])
    @rounds(1000, share=20)
    def test_no_event_waits_for_another(self, rounds, step, slow):
        """An event that arrives while a member goes to rest, or is paused just as it was woken, is taken without another's help."""
        slow(MemberStrand if step == "run" else Group, step, reads=5 * PAUSE)
        bus = EventBus()
        seen = []
        members = [bus.subscribe("t", lambda e: seen.append(e.payload), group="g", name=f"m{n}") for n in range(2)]

        def publish():
            time.sleep(random.random() * 10 * PAUSE)
            bus.publish("t", 1)

        def pause():
            time.sleep(random.random() * 5 * PAUSE)
            members[0].pause()
            time.sleep(50 * PAUSE)

        def one_round(number):
            for publishers in ([publish], [publish] * 2):
                until = len(seen) + len(publishers)
                race(*publishers, pause)
                assert eventually(lambda until=until: len(seen) == until, 2.0), f"{len(seen)} of {until}"
                members[0].resume()

        play(rounds, one_round)
        bus.close()

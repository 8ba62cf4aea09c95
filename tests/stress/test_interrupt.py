"""Ctrl-C: in the middle of an inline run, and at any moment of any call."""

from __future__ import annotations

import logging
import random
import signal
import threading
import time
from functools import partial

import pytest
from reactivex.scheduler import CurrentThreadScheduler, ImmediateScheduler

from rxbus import REPLY, EventBus, Overflow
from rxbus.mailbox import Mailbox

from .racing import LIMIT, balance, check_books, doze, eventually, rounds


class TestInterrupt:
    """What rxbus was doing on the calling thread is done again."""

    @pytest.mark.parametrize("scheduler", [ImmediateScheduler(), CurrentThreadScheduler()], ids=["immediate", "trampoline"])
    def test_what_was_taken_goes_back(self, scheduler, monkeypatch):
        """An event that was taken, but not handed to its handler yet, is handled with the next one, in order and once."""
        interrupts = [KeyboardInterrupt()]

        def taken(mailbox):
            if interrupts:
                raise interrupts.pop()

        monkeypatch.setattr(Mailbox, "taken", taken)
        with EventBus(scheduler=scheduler) as bus:
            seen = []
            one = bus.subscribe("t", lambda e: seen.append(e.payload))
            one._strand.mailbox.watched = True  # has the run call what is broken here
            with pytest.raises(KeyboardInterrupt):
                bus.publish("t", 1)
            bus.publish("t", 2)
            assert [1, 2] == seen
            check_books(bus)


def until_interrupted(seconds, work):
    """Does the work until Ctrl-C comes, after so many seconds, or until it is done."""
    armed = [True]

    def strike(*_):
        if armed:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, strike)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds, 0.05)  # again, if it came where a log handler is protected from all errors
        work()
        armed.clear()
    except KeyboardInterrupt:
        armed.clear()
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there are no timers here that interrupt")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it may come in a weak reference's callback
class TestAnyMoment:
    """A real signal in the main thread, which is what runs these tests."""

    @pytest.fixture(autouse=True)
    def _silence(self, monkeypatch):
        """Handlers of `logging` take their locks in Python code, out of which Ctrl-C comes with the lock held: nobody would log again."""
        monkeypatch.setattr(logging.getLogger("rxbus"), "disabled", True)

    @rounds(5000)
    def test_of_publishing_and_waiting(self, rounds):
        """Publish, publish_many, deliver, drain and subscribe, under every policy: the bus is as good as before."""
        bus = EventBus(capacity=4, block_timeout=1)
        seen = []
        bus.subscribe("t", lambda e: seen.append(e.payload), name="quick")
        bus.subscribe("t", lambda e: doze(), name="slow", overflow=Overflow.DROP_OLDEST)
        bus.subscribe("*", lambda e: 1 / (e.payload % 3), name="fails", concurrency=2)

        def use(number):
            while True:
                bus.publish("t", number)
                bus.publish_many("t", [number, number])
                bus.deliver("t", number, timeout=LIMIT)
                with bus.subscribe("t", lambda e: None):
                    bus.publish("t", number)
                bus.drain(LIMIT)

        for number in range(rounds):
            until_interrupted(random.random() * 0.002, partial(use, number))
            for name in set(bus.subscriptions) - {"quick", "slow", "fails"}:
                bus.subscriptions[name].dispose()  # the signal came between `subscribe` and `with`
            bus.drain(LIMIT)
            receipt = bus.deliver("t", -1, timeout=LIMIT)
            assert 3 == receipt.handled, receipt
            assert -1 == seen[-1]
            bus.drain(LIMIT)  # a receipt comes a moment before all is put away
            for s in bus.statistics().subscriptions.values():
                offered, accounted, pending = balance(s)
                # what DROP_OLDEST or the end of a subscription takes out of the mailbox may be lost before it is counted as dropped
                assert 0 <= offered - accounted <= (0 if s.name in ("quick", "fails") else number + 1), (number, s)
                assert 0 == pending, (number, s)
            seen.clear()
            bus.dead_letters.discard()
        assert "everything was handled" == str(bus.close())

    @rounds(5000)
    def test_the_books_of_those_who_were_published_to(self, rounds):
        """What came in is counted, and what was turned away is counted on both sides."""
        bus = EventBus(dead_letter_capacity=10)
        bus.subscribe("t", lambda e: None)
        bus.subscribe("t", lambda e: None)
        bus.subscribe("*", lambda e: None)
        bus.subscribe("t", lambda e: doze(), capacity=2, overflow=Overflow.DROP_LATEST)
        bus.subscribe("t", lambda e: doze(), capacity=100, overflow=Overflow.FAIL)
        for _ in range(2):
            bus.subscribe("t", lambda e: doze(), capacity=2, overflow=Overflow.DROP_LATEST, group="g")

        def use():
            while True:
                for _ in range(100):
                    bus.publish("t", 1)
                bus.publish_many("t", [1, 2, 3])

        for number in range(rounds):
            until_interrupted(random.random() * 0.002, use)
            bus.drain(LIMIT)
            found = bus.statistics()
            for s in found.subscriptions.values():
                offered, accounted, pending = balance(s)
                assert (offered, 0) == (accounted, pending), (number, s)
            for outcome in ("handled", "failed", "dropped"):
                of_all = sum(getattr(s, outcome) for s in found.subscriptions.values())
                assert of_all == sum(getattr(t, outcome) for t in found.topics.values()), (number, outcome)
        bus.close()

    @rounds(5000)
    def test_of_requests(self, rounds):
        """Nothing is kept of one that was interrupted while it was sent, or while somebody waited for it, once its time is over."""
        bus = EventBus(capacity=1, block_timeout=0.05)

        async def answer(event):
            return event.payload

        bus.subscribe("q", answer, to=REPLY)
        bus.subscribe("*", lambda e: None)

        def use(number):
            while True:
                bus.request("q", number, timeout=0.1).subscribe(lambda e: None, lambda e: None)
                bus.request("q", number, timeout=LIMIT).run()

        for number in range(rounds):
            until_interrupted(random.random() * 0.002, partial(use, number))
            bus.drain(LIMIT)
            assert number == bus.request("q", number, timeout=LIMIT).run().payload
        assert eventually(lambda: not len(bus._requests))
        assert "everything was handled" == str(bus.close())

    @rounds(500)
    def test_of_a_close(self, rounds):
        """It may not be told what became of it, but a second call is, and nobody hangs."""
        for number in range(rounds):
            bus = EventBus(capacity=4)
            bus.subscribe("t", lambda e: doze(), name="slow", to="u")
            bus.subscribe("u", lambda e: None, name="last", concurrency=2)
            stop = threading.Event()
            publisher = threading.Thread(target=_publish_until, args=(bus, stop), daemon=True)
            publisher.start()
            time.sleep(0.001)
            until_interrupted(random.random() * 0.003, partial(bus.close, LIMIT))
            began = time.monotonic()
            bus.close(LIMIT)
            assert time.monotonic() - began < LIMIT / 2
            stop.set()
            publisher.join(LIMIT)
            assert not publisher.is_alive()
            assert eventually(lambda bus=bus: not any(s.pending for s in bus.statistics().subscriptions.values()))  # in its handler
            for s in bus.statistics().subscriptions.values():
                offered, accounted, _ = balance(s)
                assert abs(offered - accounted) <= 1, (number, s)


def _publish_until(bus, stop):
    try:
        while not stop.is_set():
            bus.publish("t", 1)
    except RuntimeError:
        pass

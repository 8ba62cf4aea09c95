"""Topics that are forgotten while everybody is at work."""

from __future__ import annotations

import threading
from functools import partial

import pytest

from rxbus import BusClosedError, EventBus, Topic

from .racing import balance, chunks, doze, play, race, rounds, slowed, spin


class TestForget:
    """`forget` races with publish, subscribe and dispose."""

    @pytest.mark.parametrize("by", ["name", "topic", "many"])
    @rounds(1500)
    def test_wildcards_agree_on_what_was_accepted(self, rounds, by):
        """Every event whose publish returned reaches all wildcard subscriptions, none that was refused reaches any; by name none is."""

        def one_round(number):
            with EventBus() as bus:
                seen, accepted = [[], [], []], []
                for one in seen:
                    # small mailboxes: where many are published they go out in several steps
                    bus.subscribe("t.*", lambda e, one=one: one.append(e.payload), name=f"wild {id(one)}", capacity=8)
                exact = []
                done = threading.Event()

                def publisher(numbers):
                    if by == "many":
                        accepted.extend(e.payload for e in bus.publish_many("t.x", numbers))
                        return
                    for payload in numbers:
                        if by == "name":
                            bus.publish("t.x", payload)
                        else:
                            try:
                                bus.topic("t.x").emit(payload)
                            except BusClosedError:
                                continue
                        accepted.append(payload)

                def forgetter():
                    while not done.is_set():
                        bus.forget("t.x")
                        doze()

                def subscriber():
                    while not done.is_set():
                        exact.append(bus.subscribe("t.x", lambda e: None))
                        doze()

                def publishers():
                    race(*(partial(publisher, r) for r in chunks(40, 2)))
                    done.set()

                race(publishers, forgetter, subscriber)
                bus.drain()
                assert [sorted(accepted)] * 3 == [sorted(one) for one in seen]
                for s in bus.statistics().subscriptions.values():
                    offered, accounted, pending = balance(s)
                    assert (offered, 0) == (accounted, pending), s
                for one in exact:
                    offered, accounted, pending = balance(one)
                    assert (offered, 0) == (accounted, pending), one.statistics()

        play(rounds, one_round)

    @pytest.mark.parametrize("end", ["as it is", "slow"])
    @rounds(1500)
    def test_forget_and_dispose_at_once(self, rounds, end, monkeypatch):
        """An event accepted while its topic is forgotten and its subscription disposed of is handled or dropped, never left over."""
        if end == "slow":
            monkeypatch.setattr(Topic, "_finish", slowed(Topic._finish))

        def one_round(number):
            with EventBus() as bus:
                one = bus.subscribe("t", lambda e: spin(), name="one")
                topic = bus.topic("t")

                def publisher():
                    for payload in range(60):
                        try:
                            topic.emit(payload)
                        except BusClosedError:
                            return

                def at_some_time(action):
                    for _ in range(number % 7):
                        doze()
                    action()

                race(publisher, publisher, partial(at_some_time, partial(bus.forget, "t")), partial(at_some_time, one.dispose))
                one.dispose(wait=5)
                bus.drain()
                offered, accounted, pending = balance(one)
                assert (offered, 0) == (accounted, pending)
                assert one.statistics() == bus.statistics().subscriptions["one"]

        play(rounds, one_round)

    @rounds(500)
    def test_a_topic_made_again_begins_with_empty_books(self, rounds):
        """The counters of a topic that was forgotten and made again are about its own events only."""

        def one_round(number):
            with EventBus() as bus:
                wild = bus.subscribe("*", lambda e: spin(), name="wild")
                bus.subscribe("t", lambda e: spin(), name="old")
                for payload in range(20):
                    bus.publish("t", payload)
                bus.forget("t")
                bus.publish("t", 20)
                bus.drain()
                topic = bus.statistics().topics["t"]
                assert (1, 1) == (topic.published, topic.handled)
                assert 21 == wild.statistics().handled

        play(rounds, one_round)

    @rounds(300)
    def test_what_was_queued_is_handled(self, rounds):
        """The exact subscriptions of a forgotten topic handle what they have and end; the name is free for a new life."""

        def one_round(number):
            with EventBus() as bus:
                old, new = [], []
                one = bus.subscribe("t", lambda e: (old.append(e.payload), spin()), name="old")
                race(*(partial(lambda r: [bus.publish("t", p) for p in r], r) for r in chunks(20, 2)))
                bus.forget("t")
                bus.subscribe("t", lambda e: new.append(e.payload), name="new")
                bus.publish("t", "again")
                bus.drain()
                assert list(range(40)) == sorted(old)
                assert ["again"] == new
                assert one.is_disposed

        play(rounds, one_round)

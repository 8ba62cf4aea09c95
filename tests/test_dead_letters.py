"""The dead letters."""

from __future__ import annotations

import pytest

from rxbus import DeadLetter, Event, EventBus
from tests.support import LIMIT


def failing(event: Event[int]) -> None:
    """Raises."""
    raise ValueError(event.payload)


class TestCollection:
    """What a bus holds."""

    def test_in_the_order_of_their_coming(self, bus: EventBus) -> None:
        """Length and iteration."""
        bus.subscribe("a", failing)
        bus.publish_many("a", range(3))
        bus.drain(LIMIT)
        assert 3 == len(bus.dead_letters)
        assert [0, 1, 2] == [letter.event.payload for letter in bus.dead_letters]
        assert "DeadLetters(3 held, 0 evicted)" == repr(bus.dead_letters)

    def test_iteration_is_of_that_moment(self, bus: EventBus) -> None:
        """Letters may come and go meanwhile."""
        bus.subscribe("a", failing)
        bus.publish_many("a", range(3))
        bus.drain(LIMIT)
        seen = []
        for letter in bus.dead_letters:
            bus.dead_letters.discard()
            seen.append(letter.event.payload)
        assert [0, 1, 2] == seen

    def test_discard(self, bus: EventBus) -> None:
        """Some, or all; those that aren't held don't count."""
        bus.subscribe("a", failing)
        bus.publish_many("a", range(4))
        bus.drain(LIMIT)
        first, second, *_ = bus.dead_letters
        assert 2 == bus.dead_letters.discard(first, second)
        assert 0 == bus.dead_letters.discard(first)
        assert [2, 3] == [letter.event.payload for letter in bus.dead_letters]
        assert 2 == bus.dead_letters.discard()
        assert 0 == len(bus.dead_letters)


class TestObservable:
    """Letters to come."""

    def test_late_subscribers_get_no_history(self, bus: EventBus) -> None:
        """Like any topic."""
        got: list[DeadLetter] = []
        bus.subscribe("a", failing)
        bus.publish("a", 1)
        bus.drain(LIMIT)
        bus.dead_letters.subscribe(got.append)
        bus.publish("a", 2)
        bus.drain(LIMIT)
        assert [2] == [letter.event.payload for letter in got]

    def test_failing_subscriber_makes_no_loop(self, bus: EventBus, caplog: pytest.LogCaptureFixture) -> None:
        """It is logged and makes no letter."""

        def bad(letter: DeadLetter) -> None:
            raise RuntimeError("bad observer")

        bus.dead_letters.subscribe(bad)
        bus.subscribe("a", failing)
        bus.publish_many("a", range(3))
        bus.drain(LIMIT)
        assert 3 == len(bus.dead_letters)
        assert 3 == caplog.text.count("RuntimeError: bad observer")

    def test_one_error_line_each(self, bus: EventBus, caplog: pytest.LogCaptureFixture) -> None:
        """Subscription, event, topic and error on one line."""
        bus.subscribe("a", failing)
        event = bus.publish("a", 7)
        bus.drain(LIMIT)
        assert [f"subscription 'failing' gave up event {event.id} of topic 'a' (failed, attempts: 1): ValueError: 7"] == [
            record.getMessage() for record in caplog.records if record.levelname == "ERROR"
        ]

    def test_completes_with_the_bus(self, bus: EventBus) -> None:
        """After the last letter."""
        got: list[object] = []
        bus.subscribe("a", failing)
        bus.dead_letters.subscribe(lambda letter: got.append(letter.event.payload), on_completed=lambda: got.append("completed"))
        bus.publish("a", 1)
        bus.close()
        assert [1, "completed"] == got

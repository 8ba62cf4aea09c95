"""`LoggingInstrument`: one line for each outcome."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from rxbus import Event, EventBus, Overflow, Retry
from rxbus.instruments import LoggingInstrument
from tests.support import LIMIT, Gate


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Where the instrument's lines are found."""
    caplog.set_level(logging.DEBUG, "rxbus.events")
    return caplog


def of_events(lines: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Without the lines of the core."""
    return [record for record in lines.records if record.name == "rxbus.events"]


class TestLines:
    """What is written, and at which level."""

    def test_handled(self, lines: pytest.LogCaptureFixture) -> None:
        """One INFO line, readable, and with the same facts as attributes."""
        with EventBus(instruments=[LoggingInstrument()]) as bus:
            bus.subscribe("user.query", lambda _: None, name="audit")
            event = bus.publish("user.query", 1)
            bus.drain(LIMIT)
        (line,) = of_events(lines)
        record: Any = line
        about = f"topic=user.query subscription=audit event_id={event.id} correlation_id={event.id}"
        assert f"handled {about} seconds={record.seconds}" == line.getMessage()
        assert logging.INFO == line.levelno
        assert ("handled", "user.query", "audit", event.id) == (record.outcome, record.topic, record.subscription, record.event_id)
        assert 0 <= record.seconds < LIMIT

    def test_retried_and_given_up(self, lines: pytest.LogCaptureFixture) -> None:
        """A line for each attempt that is followed by another, and one for the letter."""

        def failing(_: Event[int]) -> None:
            raise ValueError('no = "good"')

        with EventBus(instruments=[LoggingInstrument()]) as bus:
            bus.subscribe("a", failing, retry=Retry(3, backoff=0.001, factor=2.0, jitter=0.0))
            event = bus.publish("a", 1)
            bus.drain(LIMIT)
        about = f"topic=a subscription=failing event_id={event.id} correlation_id={event.id}"
        error = r'error="ValueError: no = \"good\""'
        assert [
            (logging.WARNING, f"retried {about} delay=0.001 {error}"),
            (logging.WARNING, f"retried {about} delay=0.002 {error}"),
            (logging.ERROR, f"dead_lettered {about} reason=failed attempts=3 {error}"),
        ] == [(line.levelno, line.getMessage()) for line in of_events(lines)]

    def test_dropped(self, lines: pytest.LogCaptureFixture) -> None:
        """One WARNING line with the reason."""
        with EventBus(instruments=[LoggingInstrument()], capacity=1, overflow=Overflow.DROP_LATEST) as bus:
            gate = Gate()
            bus.subscribe("a", gate, name="slow")
            bus.publish("a", 0)
            gate.wait_until_entered()
            bus.publish("a", 1)
            event = bus.publish("a", 2)
            (line,) = of_events(lines)
            about = f"topic=a subscription=slow event_id={event.id} correlation_id={event.id}"
            assert (logging.WARNING, f"dropped {about} reason=overflow") == (line.levelno, line.getMessage())
            gate.open()

    def test_what_a_close_has_left(self, lines: pytest.LogCaptureFixture) -> None:
        """One WARNING line; a close that finished everything writes none."""
        gate = Gate()
        bus = EventBus(instruments=[LoggingInstrument()])
        stuck = bus.subscribe("a", gate, name="stuck")
        bus.publish("a", 0)
        gate.wait_until_entered()
        bus.close(timeout=0.01)
        gate.open()
        stuck.dispose(wait=LIMIT)
        assert ["closed report=\"'stuck' left 1 event unhandled; 'stuck' is stuck in its handler\""] == [
            line.getMessage() for line in of_events(lines) if "closed" in line.getMessage()
        ]

    def test_on_one_line(self, lines: pytest.LogCaptureFixture) -> None:
        """A hostile error text can't begin a line of its own."""

        def failing(_: Event[int]) -> None:
            raise ValueError("one\ntwo\x1b[31m")

        with EventBus(instruments=[LoggingInstrument()]) as bus:
            bus.subscribe("a", failing)
            bus.publish("a", 1)
            bus.drain(LIMIT)
        (line,) = of_events(lines)
        assert line.getMessage().endswith(r'error="ValueError: one\\ntwo\\x1b[31m"')


class TestLogger:
    """Where it writes."""

    def test_one_of_the_users(self, caplog: pytest.LogCaptureFixture) -> None:
        """With the level that it has."""
        logger = logging.getLogger("mine")
        logger.setLevel(logging.WARNING)
        try:
            with EventBus(instruments=[LoggingInstrument(logger)]) as bus:
                bus.subscribe("a", lambda event: 1 // event.payload)
                bus.publish_many("a", [1, 0])
                bus.drain(LIMIT)
            assert ["dead_lettered"] == [line.getMessage().split()[0] for line in caplog.records if line.name == "mine"]
        finally:
            logger.setLevel(logging.NOTSET)

    @pytest.mark.parametrize("given", ["mine", 5, logging], ids=["a name", "a number", "the module"])
    def test_no_logger(self, given: Any) -> None:
        """The message says what was expected."""
        with pytest.raises(TypeError, match=r"logger must be a logging\.Logger, got"):
            LoggingInstrument(given)

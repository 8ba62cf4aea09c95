"""A test's word on events that could not be handled."""

from __future__ import annotations

from typing import Any

import pytest

from rxbus import EventBus
from rxbus.testing import assert_no_dead_letters

from .support import LIMIT


class TestMessage:
    """What the assertion says."""

    def test_silent_without_letters(self, bus: EventBus) -> None:
        """Nothing is said when all went well."""
        assert_no_dead_letters(bus)

    def test_long_errors_are_cut(self, bus: EventBus) -> None:
        """Thirty errors of a megabyte make a message that can be read: twenty, each cut with a count."""

        def handler(event: Any) -> None:
            raise ValueError("bad row\n" * 125_000)

        bus.subscribe("a", handler, name="agent")
        bus.publish_many("a", range(30))
        bus.drain(LIMIT)
        with pytest.raises(AssertionError) as raised:
            assert_no_dead_letters(bus)
        message = str(raised.value)
        assert 20 == message.count("topic 'a', subscription 'agent', failed after 1 attempt: ValueError: bad row")
        assert 20 == message.count(" more characters\n")
        assert "and 10 more" in message
        assert len(message) < 50_000

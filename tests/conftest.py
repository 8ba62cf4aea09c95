"""Fixtures and helpers that many tests share."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from rxbus import EventBus


@pytest.fixture
def bus() -> Iterator[EventBus]:
    """A bus on real threads; it is closed within two seconds, whatever the test left on it."""
    made = EventBus("test", close_timeout=2.0)
    yield made
    made.close(drain=False)


@pytest.fixture(autouse=True)
def quiet_log() -> Iterator[None]:
    """What tests make fail on purpose is not printed; `caplog` sees it all the same."""
    handler = logging.NullHandler()
    logging.getLogger("rxbus").addHandler(handler)
    yield
    logging.getLogger("rxbus").removeHandler(handler)

"""Every test here runs with a thread switch after each microsecond, and fails if rxbus logged a fault of its own."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator

import pytest

OWN_FAULTS = ("a worker survived", "a timer's callback raised", "an action scheduled on a worker pool raised")


class _Faults(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message.startswith(OWN_FAULTS):
            self.found.append(f"{message}: {record.exc_info}")


@pytest.fixture(autouse=True)
def _switch_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture(autouse=True)
def _no_faults_of_its_own() -> Iterator[None]:
    logger = logging.getLogger("rxbus")
    faults = _Faults()
    propagate, logger.propagate = logger.propagate, False  # thousands of expected failures would fill the captured log
    logger.addHandler(faults)
    yield
    logger.removeHandler(faults)
    logger.propagate = propagate
    assert [] == faults.found

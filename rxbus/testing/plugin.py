"""The pytest plugin: the fixtures ``bus`` and ``virtual_bus``, and marble diagrams in failure messages.

It is imported in every test run of everybody who has rxbus installed, so it imports nothing by itself; fixtures import what they
need when they run.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ..bus import EventBus
    from .virtual import VirtualBus

MARKER = "rxbus"
LIMIT = 10.0
"""Seconds that a bus is given to be drained when its test is over, unless its ``close_timeout`` is less."""
_failed = pytest.StashKey[bool]()


def pytest_configure(config: pytest.Config) -> None:
    """Makes the marker known."""
    config.addinivalue_line("markers", f"{MARKER}(**options): arguments of the bus that the fixtures bus and virtual_bus make")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Notes whether the test itself, or what it needs, has failed, as expected or not."""
    report = yield
    if call.when != "teardown":
        item.stash[_failed] = call.excinfo is not None  # now: what a test of unittest raised is put there by the hook of another plugin
    return report


def pytest_assertrepr_compare(config: pytest.Config, op: str, left: object, right: object) -> list[str] | None:
    """Two marble diagrams that differ, one under the other."""
    marbles = sys.modules.get("rxbus.marbles")  # if nobody imported it, neither is one
    if marbles is None or op != "==" or not isinstance(left, str) or not isinstance(right, str):
        return None
    if isinstance(left, marbles.Marbles):
        return ["marble diagrams differ", *marbles.difference(right, left)]
    if isinstance(right, marbles.Marbles):
        return ["marble diagrams differ", *marbles.difference(left, right)]
    return None


def _options(request: pytest.FixtureRequest, kind: type[EventBus], name: str) -> dict[str, Any]:
    options: dict[str, Any] = {"name": name}
    for marker in reversed(list(request.node.iter_markers(MARKER))):
        if marker.args:
            raise pytest.UsageError(f"@pytest.mark.{MARKER} takes the arguments of the bus by name, got {marker.args!r}")
        options.update(marker.kwargs)
    known = inspect.signature(kind).parameters
    unknown = [option for option in options if option not in known]
    if unknown:
        raise pytest.UsageError(
            f"@pytest.mark.{MARKER}: the fixture {request.fixturename} makes {kind.__name__}(...), which takes no {unknown[0]!r}"
        )
    return options


@pytest.fixture
def bus(request: pytest.FixtureRequest) -> Generator[EventBus, None, None]:
    """A bus on real threads; ``@pytest.mark.rxbus(workers=4)`` gives it arguments.

    In the end it is drained and closed, and dead letters that the test didn't discard are an error.
    """
    from ..bus import EventBus

    made = EventBus(**_options(request, EventBus, "bus"))
    yield made
    failed = request.node.stash.get(_failed, False)
    problem = None if failed or made._closing else _undrained(made)
    report = made.close(min(LIMIT, made._close_timeout), drain=False)
    if failed:
        return  # one failure is enough
    if problem is None and report.stuck:
        problem = f"bus {made.name!r} was closed, and {report}"
    problem = problem or _letters(made)
    if problem is not None:
        pytest.fail(problem, pytrace=False)


def _undrained(bus: EventBus) -> str | None:
    from ..errors import BusError

    try:
        bus.drain(min(LIMIT, bus._close_timeout))
    except BusError as error:
        return f"after the test: {error}"
    return None


def _letters(bus: EventBus) -> str | None:
    from .letters import assert_no_dead_letters

    try:
        assert_no_dead_letters(bus)
    except AssertionError as error:
        return f"{error}\n(what a test expects it discards: bus.dead_letters.discard())"
    return None


@pytest.fixture
def virtual_bus(request: pytest.FixtureRequest) -> Generator[VirtualBus, None, None]:
    """A `VirtualBus`: no threads, and time passes when the test says so; ``@pytest.mark.rxbus(capacity=4)`` gives it arguments.

    In the end it is closed without draining: what the test left asleep is its own affair, and so are dead letters
    (`assert_no_dead_letters`).
    """
    from .virtual import VirtualBus

    made = VirtualBus(**_options(request, VirtualBus, "virtual"))
    yield made
    made.close(drain=False)

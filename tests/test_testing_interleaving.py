"""One order out of the many that may happen."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from rxbus import BusError, EventBus
from rxbus.testing import Interleaving, InterleavingError, VirtualBus
from tests.support import LIMIT, join, run_in_thread


class TestReach:
    """Points are passed in their order."""

    def test_whoever_comes_first(self) -> None:
        """Ten threads, started in the wrong order, go in the right one."""
        names = [f"point {n}" for n in range(10)]
        order = Interleaving(*names, timeout=LIMIT)
        seen: list[str] = []

        def go(name: str) -> None:
            order.reach(name)
            seen.append(name)
            order.reach(f"{name}, done")

        order = Interleaving(*(point for name in names for point in (name, f"{name}, done")), timeout=LIMIT)
        with order:
            join(*[run_in_thread(go, name) for name in reversed(names)])
        assert names == seen
        assert 20 == len(order.passed)

    def test_handlers_of_a_bus(self, bus: EventBus) -> None:
        """A handler stops in its middle until another has done something: a lost update, every time."""
        total = 0
        order = Interleaving("slow has read", "fast has written", "slow writes", timeout=LIMIT)

        def slow(event: Any) -> None:
            nonlocal total
            read = total
            order.reach("slow has read")
            order.reach("slow writes")
            total = read + 1

        async def fast(event: Any) -> None:
            nonlocal total
            await asyncio.sleep(0)
            total += 1
            await order.areach("fast has written")

        bus.subscribe("a", slow)
        bus.subscribe("b", fast)
        with order:
            bus.publish("a", 1)
            while "slow has read" not in order.passed:
                threading.Event().wait(0.001)
            bus.publish("b", 1)
            bus.drain(LIMIT)
        assert 1 == total

    def test_coroutines_on_virtual_time(self) -> None:
        """They wait in virtual time, and its timeout is virtual."""
        order = Interleaving("first", "second", timeout=60)
        seen: list[Any] = []

        async def late(event: Any) -> None:
            await asyncio.sleep(50)
            await order.areach("first")

        async def early(event: Any) -> None:
            await order.areach("second")
            seen.append(bus.scheduler.clock)
            with pytest.raises(InterleavingError, match="point 'b' waited for 'a': nobody reached it within 60 s"):
                await Interleaving("a", "b", timeout=60).areach("b")
            seen.append(bus.scheduler.clock)

        with VirtualBus(close_timeout=100) as bus:
            bus.subscribe("a", early)
            bus.subscribe("a", late)
            bus.publish("a", 1)
            bus.drain()
            assert [50.0, 110.0] == seen
            assert 0 == len(bus.dead_letters)

    def test_plain_handlers_on_virtual_time(self) -> None:
        """There nobody else could run meanwhile, so it raises at once."""
        order = Interleaving("a", "b")
        errors: list[BaseException] = []

        def handler(event: Any) -> None:
            with pytest.raises(InterleavingError, match="under virtual time nobody can reach it") as raised:
                order.reach("b")
            errors.append(raised.value)

        with VirtualBus() as bus:
            bus.subscribe("a", handler)
            bus.publish("a", 1)
            bus.drain()
        assert 1 == len(errors)


class TestTimeout:
    """Nothing hangs."""

    def test_says_who_waited_for_what(self) -> None:
        """The point, the one before it, who else waits; and everybody who waits is let go."""
        order = Interleaving("a", "b", "c", "d", timeout=0.5)
        order.reach("a")
        errors: list[BaseException] = []

        def wait() -> None:
            with pytest.raises(InterleavingError) as raised:
                order.reach("d")
            errors.append(raised.value)

        thread = threading.Thread(target=wait, name="other", daemon=True)
        thread.start()
        while "d" not in order._waiting:
            threading.Event().wait(0.001)
        with pytest.raises(InterleavingError) as raised:
            order.reach("c")
        join(thread)
        message = str(raised.value)
        assert "waited for 'b': nobody reached it within 0.5 s; passed so far: 'a'; waiting: " in message
        assert "other at 'd'" in message
        assert "MainThread at 'c'" in message or "'d' waited" in message
        assert str(errors[0]) == message
        assert isinstance(raised.value, BusError)
        assert isinstance(raised.value, TimeoutError)

    def test_those_who_come_later(self) -> None:
        """An order that was broken stays so."""
        order = Interleaving("a", "b", "c", timeout=0.01)
        with pytest.raises(InterleavingError):
            order.reach("c")
        with pytest.raises(InterleavingError, match="point 'c' waited for 'a'"):
            order.reach("b")

    def test_points_that_nobody_reached(self) -> None:
        """The end of the block says so, unless the test failed anyhow."""
        with pytest.raises(AssertionError, match="without having reached 'b', 'c'"), Interleaving("a", "b", "c") as order:
            order.reach("a")
        with pytest.raises(KeyError), Interleaving("a"):
            raise KeyError


class TestBadInput:
    """At the call."""

    def test_points(self) -> None:
        """Different names, and known ones."""
        for bad, kind in (((), ValueError), (("a", "a"), ValueError), (("",), ValueError), ((5,), TypeError)):
            with pytest.raises(kind, match="points must"):
                Interleaving(*bad)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="timeout must be"):
            Interleaving("a", timeout=-1)
        order = Interleaving("a", "b")
        with pytest.raises(ValueError, match="point must be one of 'a', 'b', got 'c'"):
            order.reach("c")
        with pytest.raises(TypeError, match="point must be a str"):
            order.reach(5)  # type: ignore[arg-type]
        order.reach("a")
        with pytest.raises(ValueError, match="point 'a' was passed already"):
            order.reach("a")

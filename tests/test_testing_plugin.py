"""The pytest plugin, in test runs of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rxbus.testing import plugin

STRICT = """
[pytest]
addopts = --strict-markers --strict-config
filterwarnings = error
"""


@pytest.fixture
def run(pytester: pytest.Pytester) -> pytest.Pytester:
    """A folder for a test run as strict as ours; logs and everything else are its own."""
    pytester.makeini(STRICT)
    return pytester


class TestBus:
    """The fixture ``bus``."""

    def test_a_bus_on_real_threads(self, run: pytest.Pytester) -> None:
        """It is drained and closed when the test is over: events that are still queued are handled."""
        run.makepyfile("""
            import threading, time
            handled = []

            def test_a(bus):
                bus.subscribe("a", lambda event: time.sleep(0.02) or handled.append(threading.current_thread()))
                bus.publish_many("a", [1, 2, 3])

            def test_b(bus):
                assert 3 == len(handled)
                assert threading.main_thread() not in handled
                assert {} == dict(bus.topics)
        """)
        run.runpytest_inprocess().assert_outcomes(passed=2)

    def test_dead_letters_are_an_error(self, run: pytest.Pytester) -> None:
        """Which says what failed, where and with what; those that were discarded are none."""
        run.makepyfile("""
            def fails(event):
                raise ValueError("no luck")

            def test_a(bus):
                bus.subscribe("a", fails)
                bus.publish("a", "payload")

            def test_discards(bus):
                bus.subscribe("a", fails)
                assert 1 == bus.deliver("a", 1).failed
                bus.dead_letters.discard()
        """)
        result = run.runpytest_inprocess()
        result.assert_outcomes(passed=2, errors=1)
        result.stdout.fnmatch_lines(
            [
                "*bus 'bus' has 1 dead letter:",
                "*topic 'a', subscription 'fails', failed after 1 attempt: ValueError: no luck",
                '*File "*test_dead_letters_are_an_error.py", line 2, in fails*',
                "*Event('a', 'payload', id=*",
                "*bus.dead_letters.discard()*",
            ]
        )

    def test_a_failing_test_is_not_masked(self, run: pytest.Pytester) -> None:
        """It is one failure, and no second error, though there are dead letters and a handler hangs."""
        run.makepyfile("""
            import threading

            def fails(event):
                raise ValueError("no luck")

            def test_a(bus):
                bus.subscribe("a", fails)
                bus.subscribe("a", lambda event: threading.Event().wait(30))
                bus.publish("a", 1)
                assert 1 == 2
        """)
        result = run.runpytest_inprocess("--durations=1", "-p", "no:cacheprovider")
        result.assert_outcomes(failed=1)
        result.stdout.no_fnmatch_line("*dead letter:*")

    def test_classes_of_unittest(self, run: pytest.Pytester) -> None:
        """One failure is enough there, too: what the test itself has come to is all that is said."""
        run.makepyfile(
            """
            import unittest

            import pytest


            class TestAgent(unittest.TestCase):
                @pytest.fixture(autouse=True)
                def a_bus(self, bus):
                    bus.subscribe("a", lambda event: 1 / 0)
                    bus.publish("a", 1)
                    bus.drain()

                def test_fails(self):
                    self.fail("mine")

                def test_is_skipped(self):
                    self.skipTest("not here")

                @unittest.expectedFailure
                def test_is_expected_to_fail(self):
                    self.fail("mine")

                def test_passes(self):
                    pass
            """
        )
        run.runpytest_inprocess().assert_outcomes(failed=1, skipped=1, xfailed=1, passed=1, errors=1)

    def test_expected_failures(self, run: pytest.Pytester) -> None:
        """A test that is expected to fail, and does, is not looked at either."""
        run.makepyfile("""
            import pytest

            @pytest.mark.xfail
            def test_a(bus):
                bus.subscribe("a", lambda event: 1 / 0)
                bus.publish("a", 1)
                assert 1 == 2
        """)
        run.runpytest_inprocess().assert_outcomes(xfailed=1)

    @pytest.mark.parametrize("handler", ["lambda event: opened.wait(30)", "hangs"])
    def test_a_handler_that_hangs(self, run: pytest.Pytester, handler: str) -> None:
        """Is an error that names it, as soon as the time of the bus is over."""
        run.makepyfile(f"""
            import asyncio, threading
            import pytest
            opened = threading.Event()

            async def hangs(event):
                await asyncio.Event().wait()

            @pytest.mark.rxbus(close_timeout=0.1)
            def test_a(bus):
                bus.subscribe("a", {handler}, name="stuck")
                bus.publish("a", 1)

            def test_b():
                opened.set()
        """)
        result = run.runpytest_inprocess()
        result.assert_outcomes(passed=2, errors=1)
        result.stdout.fnmatch_lines(["*after the test: bus 'bus' was not drained in time; still busy: 'stuck' (1 left)*"])

    def test_a_paused_subscription(self, run: pytest.Pytester) -> None:
        """Waiting for it would be for ever, and that is said."""
        run.makepyfile("""
            def test_a(bus):
                bus.subscribe("a", print, name="waits").pause()
                bus.publish("a", 1)
        """)
        result = run.runpytest_inprocess()
        result.assert_outcomes(passed=1, errors=1)
        result.stdout.fnmatch_lines(["*'waits' is paused with 1 events*"])

    def test_options(self, run: pytest.Pytester) -> None:
        """By the marker, which may stand at a class or a module; the nearest wins."""
        run.makepyfile("""
            import pytest
            from rxbus import Overflow
            pytestmark = pytest.mark.rxbus(capacity=3, name="mine")

            @pytest.mark.rxbus(overflow=Overflow.DROP_LATEST, capacity=2)
            def test_a(bus, virtual_bus):
                assert "mine" == bus.name == virtual_bus.name
                for one in (bus, virtual_bus):
                    one.subscribe("a", print, name="p").pause()
                    one.publish_many("a", range(5))
                    assert 3 == one.statistics().subscriptions["p"].dropped
                bus.subscriptions["p"].dispose()

            @pytest.mark.rxbus(4)
            def test_b(bus):
                pass

            @pytest.mark.rxbus(capacity=0)
            def test_c(bus):
                pass
        """)
        result = run.runpytest_inprocess()
        result.assert_outcomes(passed=1, errors=2)
        result.stdout.fnmatch_lines(["*@pytest.mark.rxbus takes the arguments of the bus by name, got (4,)*"])
        result.stdout.fnmatch_lines(["*capacity must be at least 1, got 0*"])

    def test_one_that_the_test_closed(self, run: pytest.Pytester) -> None:
        """Nothing is left to do but to look at its letters."""
        run.makepyfile("""
            def test_a(bus):
                with bus:
                    bus.publish("a", 1)

            def test_b(bus):
                def fails(event):
                    raise ValueError
                bus.subscribe("a", fails)
                bus.publish("a", 1)
                bus.close()
        """)
        run.runpytest_inprocess().assert_outcomes(passed=2, errors=1)

    def test_a_fixture_of_that_name_wins(self, run: pytest.Pytester) -> None:
        """One's own ``bus`` is used where there is one."""
        run.makeconftest("""
            import pytest

            @pytest.fixture
            def bus():
                return "my own"
        """)
        run.makepyfile("""
            def test_a(bus):
                assert "my own" == bus
        """)
        run.runpytest_inprocess().assert_outcomes(passed=1)


class TestVirtualBus:
    """The fixture ``virtual_bus``."""

    def test_an_hour(self, run: pytest.Pytester) -> None:
        """It needs no threads; what is left asleep is no error, and nobody warns."""
        run.makepyfile("""
            import asyncio, threading

            async def sleeps(event):
                await asyncio.sleep(3600)
                return event.payload

            def test_a(virtual_bus):
                virtual_bus.subscribe("in", sleeps, to="out")
                recording = virtual_bus.record("out")
                virtual_bus.feed("in", "a")
                virtual_bus.advance(3600)
                assert ["a"] == recording.payloads
                virtual_bus.publish("in", "b")
                virtual_bus.advance(10)
                assert 1 == threading.active_count()
        """)
        run.runpytest_subprocess().assert_outcomes(passed=1)


class TestFailures:
    """Diagrams in failure messages."""

    def test_both_diagrams(self, run: pytest.Pytester) -> None:
        """One under the other, with a caret at the first difference and what the characters stand for; whichever side is which."""
        run.makepyfile("""
            def test_a(virtual_bus):
                recording = virtual_bus.record("a")
                virtual_bus.feed("a", "--x---y", {"y": "a long one"})
                virtual_bus.advance(1)
                assert recording.marbles() == "--x--y"

            def test_b(virtual_bus):
                recording = virtual_bus.record("a")
                virtual_bus.feed("a", "--x---y", {"y": "a long one"})
                virtual_bus.advance(1)
                assert "--x--y" == recording.marbles()

            def test_c():
                assert "--x" == "--y"
        """)
        result = run.runpytest_inprocess("-p", "no:logging")
        result.assert_outcomes(failed=3)
        shown = [
            "E * assert marble diagrams differ",
            "E * expected  --x--y",
            "E * found     --x---a",
            "E *                ^ at 0.5 s",
            "E * where",
            "E *   a = 'a long one'",
        ]
        result.stdout.fnmatch_lines([*shown, *shown], consecutive=False)
        lines = [line for line in result.outlines if line.startswith("E ")]
        expected, found, caret = (next(line for line in lines if word in line) for word in ("expected", "found", "^ at"))
        assert expected.index("--x--y") == found.index("--x---a")
        assert found.index("--x---a") + 5 == caret.index("^")

    def test_an_ordinary_str_is_left_alone(self) -> None:
        """And every comparison but equality."""
        from rxbus.marbles import Marbles

        config = None
        assert None is plugin.pytest_assertrepr_compare(config, "==", "a", "b")  # type: ignore[arg-type]
        assert None is plugin.pytest_assertrepr_compare(config, "in", Marbles("a"), "b")  # type: ignore[arg-type]
        assert None is plugin.pytest_assertrepr_compare(config, "==", Marbles("a"), 5)  # type: ignore[arg-type]


class TestRegistration:
    """How it comes into a test run."""

    def test_the_entry_point(self, run: pytest.Pytester) -> None:
        """It is there without being asked for; asking for it once more does no harm, and it can be left out."""
        run.makepyfile("""
            def test_a(request, bus):
                assert request.config.pluginmanager.has_plugin("rxbus.testing.plugin")
        """)
        run.runpytest_subprocess().assert_outcomes(passed=1)
        run.runpytest_subprocess("-p", "rxbus.testing.plugin").assert_outcomes(passed=1)
        run.runpytest_subprocess("-p", "no:rxbus.testing.plugin").assert_outcomes(errors=1)
        run.makeconftest("pytest_plugins = ['rxbus.testing.plugin']")
        run.runpytest_subprocess().assert_outcomes(passed=1)

    def test_arguments_that_a_fixture_does_not_take(self, run: pytest.Pytester) -> None:
        """The error names the fixture and the argument."""
        run.makepyfile("""
            import pytest

            @pytest.mark.rxbus(workers=4)
            def test_a(bus, virtual_bus):
                pass
        """)
        result = run.runpytest_inprocess()
        result.stdout.fnmatch_lines("*fixture virtual_bus makes VirtualBus(...), which takes no 'workers'*")

    def test_the_marker_is_known(self, run: pytest.Pytester) -> None:
        """``pytest --markers`` explains it."""
        result = run.runpytest_subprocess("--markers")
        result.stdout.fnmatch_lines(["@pytest.mark.rxbus(?*options): arguments of the bus*"])

    def test_it_imports_next_to_nothing(self) -> None:
        """Beyond rxbus itself, which a package's ``__init__`` can't avoid, only two small modules; fixtures import the rest."""
        code = (
            "import sys, pytest, rxbus\n"
            "before = set(sys.modules)\n"
            "import rxbus.testing.plugin\n"
            "print(sorted(name for name in set(sys.modules) - before))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, cwd=Path.home())
        assert "['rxbus.testing', 'rxbus.testing.plugin']" == done.stdout.strip()

    def test_every_public_name_is_there(self) -> None:
        """What `rxbus.testing` says that it has, it has, and documents."""
        import rxbus.testing as kit

        assert sorted(kit.__all__) == sorted(set(kit.__all__))
        assert [] == [name for name in kit.__all__ if not (getattr(kit, name).__doc__ or "").strip()]
        assert set(kit.__all__) <= set(dir(kit))
        with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
            kit.nothing  # noqa: B018

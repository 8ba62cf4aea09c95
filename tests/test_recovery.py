"""Retry: when, how often and for what; and what an error is once its frames are gone."""

from __future__ import annotations

import ast
import asyncio
import dataclasses
import gc
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reactivex.testing import TestScheduler

from rxbus import Breaker, Event, EventBus, Reason, Retry
from rxbus.recovery import check_retry, error_text, traceback_text, without_frames
from rxbus.testing import VirtualBus

ROOT = Path(__file__).parent.parent
HUGE = 10**400
attempts = st.integers(1, 5_000)
pauses = st.floats(0, 1e6)


class TestDelay:
    """The pause before the next attempt."""

    def test_defaults(self) -> None:
        """Three attempts, a tenth of a second at first, doubling up to half a minute, a tenth of jitter, for any `Exception`."""
        expected = {"max_attempts": 3, "backoff": 0.1, "factor": 2.0, "max_backoff": 30.0, "jitter": 0.1, "on": Exception}
        assert expected == {field.name: getattr(Retry(), field.name) for field in dataclasses.fields(Retry)}

    @pytest.mark.parametrize(
        ("retry", "expected"),
        [
            (Retry(jitter=0), [0.1, 0.2, 0.4, 0.8]),
            (Retry(backoff=1, factor=3, jitter=0), [1, 3, 9, 27]),
            (Retry(backoff=1, factor=10, max_backoff=50, jitter=0), [1, 10, 50, 50]),
            (Retry(backoff=2, factor=1, jitter=0), [2, 2, 2, 2]),
            (Retry(backoff=0, jitter=0), [0, 0, 0, 0]),
            (Retry(backoff=0, jitter=1), [0, 0, 0, 0]),
            (Retry(backoff=5, max_backoff=1, jitter=0), [1, 1, 1, 1]),
            (Retry(max_backoff=0), [0, 0, 0, 0]),
        ],
    )
    def test_grows_by_the_factor_up_to_the_bound(self, retry: Retry, expected: list[float]) -> None:
        """Without jitter the n-th pause is ``backoff * factor ** (n - 1)``, and never more than ``max_backoff``."""
        assert pytest.approx(expected) == [retry.delay(n) for n in (1, 2, 3, 4)]

    @given(pauses, st.floats(1, 100), pauses, attempts)
    @settings(deadline=None)
    def test_never_shrinks_and_never_exceeds_the_bound(self, backoff: float, factor: float, max_backoff: float, attempt: int) -> None:
        """Without jitter each pause is as long as the one before it or longer, and within the bound."""
        retry = Retry(backoff=backoff, factor=factor, max_backoff=max_backoff, jitter=0)
        assert 0 <= retry.delay(attempt) <= retry.delay(attempt + 1) <= max_backoff

    @given(st.floats(0.001, 1e6), st.floats(1, 100), st.floats(0.001, 1e6), st.floats(0, 1), attempts)
    @settings(deadline=None)
    def test_jitter_stays_within_its_share(self, backoff: float, factor: float, max_backoff: float, jitter: float, attempt: int) -> None:
        """With jitter a pause is longer or shorter than without by that share of it at most, and never negative."""
        plain = Retry(backoff=backoff, factor=factor, max_backoff=max_backoff, jitter=0).delay(attempt)
        pause = Retry(backoff=backoff, factor=factor, max_backoff=max_backoff, jitter=jitter).delay(attempt)
        assert 0 <= pause
        assert abs(pause - plain) <= plain * (jitter + 1e-12)

    def test_jitter_spreads_to_both_sides(self) -> None:
        """Those who failed together come back at different times, some earlier and some later than without jitter."""
        pauses = [Retry(backoff=1, jitter=0.5).delay(1) for _ in range(200)]
        assert min(pauses) < 1 < max(pauses)
        assert len(set(pauses)) > 100

    def test_exactly(self) -> None:
        """Where nothing may be left to chance there is no jitter."""
        assert [1.0, 2.0] == [Retry(backoff=1, jitter=0.5).delay(n, exactly=True) for n in (1, 2)]

    @pytest.mark.parametrize("attempt", [1_100, 100_000])
    @pytest.mark.parametrize("factor", [2, 2.0, 1e300])
    def test_a_power_beyond_all_floats_is_the_bound(self, factor: float, attempt: int) -> None:
        """After very many attempts the pause is still ``max_backoff``."""
        assert 30.0 == Retry(factor=factor, jitter=0).delay(attempt)

    @pytest.mark.parametrize("attempt", [1, 1_100, 100_000])
    @pytest.mark.parametrize("factor", [1, 2, 2.0, 1e300])
    def test_no_backoff_is_no_pause_for_ever(self, factor: float, attempt: int) -> None:
        """With a backoff of 0 there is no pause after any attempt."""
        assert 0 == Retry(backoff=0, factor=factor).delay(attempt)


class TestAllows:
    """Whether there is another attempt."""

    @pytest.mark.parametrize(("max_attempts", "expected"), [(1, []), (2, [1]), (3, [1, 2]), (5, [1, 2, 3, 4])])
    def test_counts_all_attempts(self, max_attempts: int, expected: list[int]) -> None:
        """``max_attempts`` counts the first one too."""
        retry = Retry(max_attempts=max_attempts)
        assert expected == [n for n in range(1, 10) if retry.allows(ValueError(), n)]

    @pytest.mark.parametrize(
        ("on", "error", "expected"),
        [
            (Exception, ValueError(), True),
            (Exception, KeyboardInterrupt(), False),
            (Exception, SystemExit(), False),
            (Exception, ExceptionGroup("g", [ValueError()]), True),
            (BaseException, SystemExit(), True),
            (ValueError, UnicodeError(), True),
            (ValueError, KeyError(), False),
            ((ValueError, OSError), TimeoutError(), True),
            ((ValueError, OSError), KeyError(), False),
            (lambda e: isinstance(e, KeyError), KeyError(), True),
            (lambda e: isinstance(e, KeyError), ValueError(), False),
            (lambda e: True, SystemExit(), True),
            (lambda e: "busy" in str(e), ValueError("busy now"), True),
            (lambda e: 1, ValueError(), True),
            (lambda e: None, ValueError(), False),
        ],
    )
    def test_types_and_predicates(self, on: Any, error: BaseException, expected: bool) -> None:
        """``on`` says which errors are worth another attempt: subclasses of a type, of one of several, or what a predicate accepts."""
        assert expected is Retry(on=on).allows(error, 1)

    def test_predicate_gets_the_error(self) -> None:
        """The predicate is called with the error itself, once."""
        asked: list[BaseException] = []
        error = ValueError()
        Retry(on=lambda e: asked.append(e) is None).allows(error, 1)
        assert [error] == asked

    def test_predicate_is_not_asked_after_the_last_attempt(self) -> None:
        """When no attempt is left, nobody is asked."""
        asked: list[BaseException] = []
        assert not Retry(max_attempts=2, on=lambda e: asked.append(e) is None).allows(ValueError(), 2)
        assert [] == asked

    def test_predicate_that_raises_says_no(self) -> None:
        """A predicate that fails doesn't replace the error that it was asked about."""

        def fails(error: BaseException) -> bool:
            raise RuntimeError

        assert False is Retry(on=fails).allows(ValueError(), 1)


class TestArguments:
    """Every bad value of a retry is refused when it is made, by name."""

    @pytest.mark.parametrize(
        ("value", "kind"),
        [(0, ValueError), (-1, ValueError), (True, TypeError), (1.5, TypeError), (3.0, TypeError), ("3", TypeError), (None, TypeError)],
    )
    def test_max_attempts_is_a_whole_number(self, value: Any, kind: type[Exception]) -> None:
        """At least one attempt, and a whole number of them."""
        with pytest.raises(kind, match=r"^max_attempts must"):
            Retry(max_attempts=value)

    @pytest.mark.parametrize("argument", ["backoff", "max_backoff", "factor", "jitter"])
    @pytest.mark.parametrize(
        ("value", "kind"),
        [
            (-0.1, ValueError),
            (float("nan"), ValueError),
            (float("inf"), ValueError),
            (HUGE, ValueError),
            (True, TypeError),
            ("1", TypeError),
            (None, TypeError),
            (1j, TypeError),
        ],
        ids=["negative", "nan", "inf", "huge", "bool", "str", "none", "complex"],
    )
    def test_times_and_shares_are_finite_numbers(self, argument: str, value: Any, kind: type[Exception]) -> None:
        """What is no finite number, or is below 0, is refused."""
        with pytest.raises(kind, match=rf"^{argument} must"):
            Retry(**{argument: value})

    @pytest.mark.parametrize("value", [0, 0.5, 0.999])
    def test_factor_never_shrinks(self, value: float) -> None:
        """A factor below 1 would make the pauses shorter."""
        with pytest.raises(ValueError, match=r"^factor must"):
            Retry(factor=value)

    @pytest.mark.parametrize("value", [1.001, 2, 100])
    def test_jitter_is_a_share(self, value: float) -> None:
        """A jitter above 1 would make pauses negative."""
        with pytest.raises(ValueError, match=r"^jitter must"):
            Retry(jitter=value)

    @pytest.mark.parametrize(
        "value",
        [None, 3, "ValueError", ValueError(), int, (), (ValueError, 3), (ValueError, int), [ValueError], {ValueError}, True],
        ids=repr,
    )
    def test_on_is_types_or_a_predicate(self, value: Any) -> None:
        """What neither is exception types nor can be called with an error is refused."""
        with pytest.raises(TypeError, match=r"^on must"):
            Retry(on=value)

    @pytest.mark.parametrize("value", [lambda: True, lambda a, b: True, lambda *, error: True], ids=["none", "two", "keyword"])
    def test_predicate_takes_one_argument(self, value: Any) -> None:
        """A predicate that can't be called with one error would always say no; it is refused at once."""
        with pytest.raises(TypeError, match=r"^on must"):
            Retry(on=value)

    @pytest.mark.parametrize("name", ["max_attempts", "backoff", "factor", "max_backoff", "jitter", "on"])
    def test_frozen(self, name: str) -> None:
        """A retry that several subscriptions share can't be changed by one of them."""
        retry = Retry()
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(retry, name, 1)
        assert Retry() == retry

    def test_check_lets_a_retry_and_none_through(self) -> None:
        """A retry and no retry are both good."""
        retry = Retry()
        assert retry is check_retry(retry)
        assert check_retry(None) is None

    @pytest.mark.parametrize("value", [3, "3", True, Retry, {"max_attempts": 3}, ValueError])
    def test_check_refuses_everything_else(self, value: Any) -> None:
        """What isn't a retry is named in the error."""
        with pytest.raises(TypeError, match=r"^retry must be a Retry, got "):
            check_retry(value)


def raised(error: BaseException) -> BaseException:
    """The error after it was raised, with its frames."""
    try:
        raise error
    except BaseException as caught:
        return caught


@dataclasses.dataclass(frozen=True)
class FrozenError(Exception):
    """An error whose author forbade every assignment."""

    code: int = 0


class TestWithoutFrames:
    """An error is kept, what its frames hold is not."""

    def test_is_the_same_error(self) -> None:
        """The error itself comes back, with its arguments and notes."""
        error = raised(ValueError("x", 1))
        error.add_note("hello")
        assert error.__traceback__ is not None
        assert error is without_frames(error)
        assert error.__traceback__ is None
        assert (("x", 1), ["hello"]) == (error.args, error.__notes__)

    def test_causes_and_contexts(self) -> None:
        """Every error that led to it lets go of its frames, and stays in the chain."""
        try:
            try:
                try:
                    raise KeyError("first")
                except KeyError:
                    raise TypeError("second")  # noqa: B904 - the context is what is tested
            except TypeError as second:
                raise ValueError("third") from second
        except ValueError as third:
            error = third
        without_frames(error)
        second_, first = error.__cause__, error.__cause__ and error.__cause__.__context__
        assert isinstance(second_, TypeError)
        assert isinstance(first, KeyError)
        assert [None] * 3 == [error.__traceback__, second_.__traceback__, first.__traceback__]

    def test_groups(self) -> None:
        """The members of a group, at any depth, and their causes let go too."""
        cause = raised(OSError())
        leaf = raised(ValueError())
        leaf.__cause__ = cause
        inner = raised(BaseExceptionGroup("inner", [leaf, raised(KeyboardInterrupt())]))
        outer = raised(BaseExceptionGroup("outer", [inner, raised(KeyError())]))
        assert isinstance(inner, BaseExceptionGroup)
        assert isinstance(outer, BaseExceptionGroup)
        without_frames(outer)
        assert [None] * 6 == [e.__traceback__ for e in (cause, leaf, inner, outer, inner.exceptions[1], outer.exceptions[1])]

    def test_circles(self) -> None:
        """Errors that are each other's causes are visited once."""
        one, two = raised(ValueError()), raised(KeyError())
        one.__cause__, two.__cause__ = two, one
        two.__context__ = two.__cause__
        without_frames(one)
        assert (None, None) == (one.__traceback__, two.__traceback__)

    def test_long_chains(self) -> None:
        """A chain of 10,000 errors needs no recursion."""
        first = error = raised(ValueError())
        for _ in range(10_000):
            following = raised(KeyError())
            following.__context__ = error
            error = following
        without_frames(error)
        assert first.__traceback__ is None

    def test_variables_are_let_go(self) -> None:
        """What the failing function had at hand dies, although the error lives on."""

        class Big:
            pass

        def fail() -> None:
            big = Big()
            held.append(weakref.ref(big))
            raise ValueError

        held: list[weakref.ref[Big]] = []
        try:
            fail()
        except ValueError as caught:
            error = caught
        gc.collect()
        assert held[0]() is not None
        without_frames(error)
        gc.collect()
        assert held[0]() is None

    @pytest.mark.parametrize("wrap", [lambda e: e, lambda e: ExceptionGroup("g", [e])], ids=["alone", "in a group"])
    def test_frozen_errors(self, wrap: Callable[[Exception], Exception]) -> None:
        """An error that forbids assignments lets go of its frames like any other."""
        frozen = raised(FrozenError(1))
        assert isinstance(frozen, FrozenError)
        without_frames(raised(wrap(frozen)))
        assert frozen.__traceback__ is None

    def test_frozen_error_of_a_handler_is_one_dead_letter(self) -> None:
        """A handler may raise an error that forbids assignments: its event fails like any other, and the next is handled."""
        handled: list[int] = []

        def handler(event: Any) -> None:
            if event.payload == 1:
                raise FrozenError(7)
            handled.append(event.payload)

        bus = EventBus()
        try:
            bus.subscribe("a", handler)
            assert 1 == bus.deliver("a", 1, timeout=5).failed
            assert 1 == bus.deliver("a", 2, timeout=5).handled
            assert [(Reason.FAILED, FrozenError(7))] == [(letter.reason, letter.error) for letter in bus.dead_letters]
            assert [2] == handled
        finally:
            bus.close(1, drain=False)


class Mute(Exception):
    """An error that can't say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("mute")


class Vicious(Exception):
    """An error that takes the thread with it when asked what it is."""

    def __str__(self) -> str:
        raise SystemExit

    __repr__ = __str__


class TestTexts:
    """Errors as text."""

    def test_error_in_one_line(self) -> None:
        """The type and the message."""
        assert "ValueError: no such user" == error_text(ValueError("no such user"))

    def test_traceback_has_the_frames(self) -> None:
        """The text of a traceback names the function that failed."""

        def fails_here() -> None:
            raise ValueError("no such user")

        try:
            fails_here()
        except ValueError as caught:
            text = traceback_text(caught)
        assert "in fails_here" in text
        assert text.rstrip().endswith("ValueError: no such user")

    def test_traceback_parses_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of the error, its cause, its context and its members: a parse on a worker can break one elsewhere in the process."""

        def fails(numerator: int) -> float:
            return (numerator + 1) / (numerator - numerator)

        def explains(wrap: Callable[[Exception], Exception], *, plainly: bool) -> None:
            try:
                fails(1)
            except ZeroDivisionError as error:
                if plainly:
                    raise wrap(error)  # noqa: B904
                raise wrap(error) from error

        parsed: list[Any] = []
        monkeypatch.setattr(ast, "parse", lambda *given, **_: parsed.append(given))
        for wrap in (lambda e: ValueError(), lambda e: ExceptionGroup("several", [e, e])):
            for plainly in (False, True):
                with pytest.raises(Exception) as caught:  # noqa: PT011
                    explains(wrap, plainly=plainly)
                text = traceback_text(caught.value)
                assert "    return (numerator + 1) / (numerator - numerator)\n" in text
                assert "^" not in text
        assert [] == parsed

    @pytest.mark.parametrize("kind", [Mute, Vicious])
    def test_errors_that_cannot_speak(self, kind: type[Exception]) -> None:
        """An error whose own text raises, whatever it raises, is still named."""
        error = raised(kind())
        assert kind.__name__ in error_text(error)
        assert kind.__name__ in traceback_text(error)


class TestPauses:
    """What a retry does on a bus; no thread is held, so the clock is everybody's."""

    def test_pause_of_centuries_does_not_stop_the_clock(self) -> None:
        """While one subscription backs off for longer than the system can wait at once, another one's retry comes in time."""
        script = """
from rxbus import DrainTimeoutError, EventBus, Retry

def fails(event):
    raise ValueError

def fails_once(event):
    if not seen:
        seen.append(event)
        raise ValueError

seen = []
bus = EventBus()
bus.subscribe("a", fails, retry=Retry(backoff=1e10, max_backoff=1e10, jitter=0))
bus.subscribe("b", fails_once, retry=Retry(backoff=0.01))
try:
    bus.deliver("a", 1, timeout=0.3)
except DrainTimeoutError:
    try:
        print(bus.deliver("b", 1, timeout=5).handled)
    except DrainTimeoutError as error:
        print(error)
bus.close(0, drain=False)
"""
        command = [sys.executable, "-W", "error", "-c", script]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        assert ("1\n", "") == (done.stdout, done.stderr)


class TestBreaker:
    """`breaker=`, on a virtual clock."""

    @pytest.mark.parametrize("options", [{}, {"concurrency": 3}, {"group": "g"}, {"concurrency": 2, "key": lambda e: 0}], ids=str)
    def test_pauses_and_tries_again(self, options: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
        """Three failures in a row, then a pause and one trial, until one goes well; then all that had waited is handled."""
        clock = TestScheduler()
        calls: list[tuple[float, int]] = []
        broken = [True]

        def handler(event: Event[int]) -> None:
            calls.append((clock.clock, event.payload))
            if broken[0]:
                raise ValueError(event.payload)

        with EventBus(scheduler=clock) as bus:
            one = bus.subscribe("a", handler, name="one", breaker=Breaker(failures=3, pause=10.0), **options)
            bus.publish_many("a", range(8))
            clock.advance_to(25.0)
            assert (5, 3) == (one.statistics().failed, one.statistics().pending)
            broken[0] = False
            clock.advance_to(29.0)
            assert 3 == one.statistics().pending
            clock.advance_to(31.0)
            assert [0, 1, 2, 3, 4, 5, 6, 7] == [payload for _, payload in calls]
            assert [0, 0, 0, 10, 20, 30, 30, 30] == [int(when) // 10 * 10 for when, _ in calls]
            assert (5, 3, 0) == (one.statistics().failed, one.statistics().handled, one.statistics().pending)
        assert [3, 4, 5] == [n for n in range(9) if f"'one': {n} events in a row have failed; nothing is handled for 10 s" in caplog.text]

    @pytest.mark.parametrize("group", [None, "g"])
    @pytest.mark.parametrize("concurrency", [1, 2, 4, 8])
    def test_one_trial_whatever_was_under_way(self, concurrency: int, group: str | None) -> None:
        """Coroutines that were under way when it broke have no pause of their own, nor do they decide when they end in a trial."""
        began: list[tuple[float, int]] = []

        async def handler(event: Event[int]) -> None:
            began.append((bus._now(), event.payload))
            # the last of the first ones fails while the first trial is under way
            await asyncio.sleep(11.5 if event.payload == concurrency - 1 > 0 else 1.0)
            if event.payload < 20:
                raise ValueError(event.payload)

        with VirtualBus() as bus:
            bus.subscribe("a", handler, breaker=Breaker(failures=1, pause=10.0), concurrency=concurrency, group=group)
            bus.publish_many("a", range(30))
            start = bus._now()
            bus.advance(230.0)
            times = [round(when - start) for when, _ in began]
            # one each eleven seconds: the pause, and the second that a trial takes
            trials = [11 * n for n in range(1, 21 - concurrency)]
            assert [0] * concurrency + trials == [when for when, (_, n) in zip(times, began, strict=True) if n < 20]
            assert list(range(30)) == sorted(n for _, n in began)
            bus.dead_letters.discard()

    def test_only_failures_in_a_row_count(self) -> None:
        """One that is handled in between begins the count anew, and a retry that goes well is no failure."""
        clock = TestScheduler()
        with EventBus(scheduler=clock) as bus:
            attempts: dict[int, int] = {}

            def handler(event: Event[int]) -> None:
                attempts[event.payload] = attempts.get(event.payload, 0) + 1
                if event.payload % 3 or attempts[event.payload] < 2:
                    raise ValueError

            one = bus.subscribe("a", handler, breaker=Breaker(failures=3, pause=100.0), retry=Retry(2, backoff=0.01))
            bus.publish_many("a", range(12))
            clock.advance_to(1.0)
            assert (4, 8) == (one.statistics().handled, one.statistics().failed)

    def test_a_bus_can_be_closed_meanwhile(self) -> None:
        """The timer of a pause keeps nobody waiting, and what is queued is reported."""
        bus = EventBus()
        one = bus.subscribe("a", lambda e: 1 / 0, breaker=Breaker(failures=1, pause=60.0), name="one")
        bus.publish_many("a", range(3))
        assert one._strand.wait_until(lambda: one.statistics().failed == 1, time.monotonic() + 10.0)
        report = bus.close(0.05)
        assert {"one": 2} == dict(report.unhandled)
        assert () == report.stuck

    @pytest.mark.parametrize(("arguments", "name"), [((0,), "failures"), ((1.5,), "failures"), ((3, -1.0), "pause"), ((3, "x"), "pause")])
    def test_bad_values(self, arguments: tuple[Any, ...], name: str) -> None:
        """Each is named."""
        with pytest.raises((TypeError, ValueError), match=f"{name} must be"):
            Breaker(*arguments)

    def test_no_breaker(self) -> None:
        """Is said where it is given."""
        with EventBus() as bus, pytest.raises(TypeError, match="breaker must be a Breaker, got 5"):
            bus.subscribe("a", print, breaker=5)  # type: ignore[arg-type]


class TestTraceback:
    """What a dead letter keeps of where it was raised."""

    def test_begins_with_the_users_code(self, bus: EventBus) -> None:
        """The way through rxbus, the same each time, is left out."""

        def fails(event: Event[int]) -> float:
            return 1 / event.payload

        bus.subscribe("a", fails, to="b")
        bus.publish("a", 0)
        bus.drain()
        [letter] = bus.dead_letters
        assert letter.traceback.splitlines()[1].endswith("in fails")
        assert str(ROOT / "rxbus") not in letter.traceback
        bus.dead_letters.discard()

    def test_an_error_of_rxbus_itself(self, bus: EventBus) -> None:
        """Is shown whole."""
        bus.subscribe("a", lambda event: bus.drain())
        bus.publish("a", 0)
        bus.drain()
        [letter] = bus.dead_letters
        assert "in <lambda>" in letter.traceback.splitlines()[1]
        assert "_check_may_drain" in letter.traceback
        bus.dead_letters.discard()

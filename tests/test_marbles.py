"""Marble diagrams as text."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rxbus import Event
from rxbus.marbles import Marbles, Notification, difference, draw, normal, parse
from rxbus.testing import from_marbles
from rxbus.testing.clock import VirtualScheduler


def said(diagram: str, values: Any = None) -> list[tuple[float, str, Any]]:
    """What a diagram says, as tuples."""
    return [(one.time, one.kind, one.value) for one in parse(diagram, values)]


def items(*pairs: tuple[float, Any]) -> list[Notification]:
    """Items with their times."""
    return [Notification("next", time, value) for time, value in pairs]


class TestParse:
    """From text to notifications."""

    def test_one_character_is_a_tenth_of_a_second(self) -> None:
        """Items, and completion, at their columns."""
        assert [(0.1, "next", "a"), (0.4, "next", "b"), (0.5, "completed", None)] == said("-a--b|")

    def test_times_are_what_a_reader_would_write(self) -> None:
        """0.3 is 0.3, and not three times 0.1."""
        assert [0.3, 0.6, 0.7] == [one.time for one in parse("---a--bc")]

    def test_groups_are_at_the_parenthesis_and_take_the_time_of_their_characters(self) -> None:
        """As RxPY has it; commas in a group mean nothing."""
        assert [(0.1, "next", "a"), (0.1, "next", "b"), (0.6, "next", "c")] == said("-(ab)-c")
        assert [(0.0, "next", "a"), (0.0, "next", "b"), (0.0, "completed", None)] == said("(a,b,|)")
        assert said("(ab)-c") == said("(a,b)-c")
        assert "(ab)-c" == draw(parse("(a,b)-c"), 0)

    def test_blanks_align(self) -> None:
        """They take no time."""
        assert said("-a-b") == said("  -a -b ")

    def test_values(self) -> None:
        """Mapped characters are their values, others themselves."""
        assert [(0.0, "next", [1]), (0.1, "next", "1")] == said("a1", {"a": [1]})

    def test_error(self) -> None:
        """The one that was given, or one that says where it comes from."""
        wanted = KeyError("x")
        assert wanted is parse("#", error=wanted)[0].value
        assert isinstance(parse("#")[0].value, RuntimeError)

    @pytest.mark.parametrize(
        ("diagram", "position", "why"),
        [
            ("-a)-", 2, "no group is open"),
            ("-(ab-", 4, "time can't pass"),
            ("-(ab", 1, "never closed"),
            ("(a(b))", 2, "inside a group"),
            ("a,b", 1, "comma outside"),
            ("-()", 1, "empty group"),
            ("-a|-b", 4, "nothing comes after the completion"),
            ("#a", 1, "nothing comes after the error"),
            ("-^a", 1, "subscription point"),
            ("(ab", 0, "never closed"),
        ],
    )
    def test_a_malformed_diagram_is_shown_with_a_caret(self, diagram: str, position: int, why: str) -> None:
        """The message has the diagram, and below it a caret at what is wrong."""
        with pytest.raises(ValueError, match=why) as raised:
            parse(diagram)
        _, shown, caret = str(raised.value).splitlines()
        assert f"  {diagram}" == shown
        assert "  " + " " * position + "^" == caret

    @pytest.mark.parametrize(
        ("diagram", "shown", "caret"),
        [
            ("a\x00", r"a\x00", " ^"),
            ("-\ud800-", r"-\ud800-", " ^"),
            ("\x1b^", r"\x1b^", "^"),
            ("星-星^", "星-星^", "     ^"),
            ("e\u0301^", "e\u0301^", " ^"),
        ],
    )
    def test_the_caret_stands_where_a_terminal_shows_it(self, diagram: str, shown: str, caret: str) -> None:
        """Wide characters take two columns; what would act on the terminal is escaped."""
        with pytest.raises(ValueError, match="marble diagram") as raised:
            parse(diagram)
        assert ["  " + shown, "  " + caret] == str(raised.value).splitlines()[1:]

    @pytest.mark.parametrize(
        ("values", "kind", "why"),
        [
            ([1], TypeError, "values must be a mapping"),
            ({1: 2}, TypeError, "values must have characters"),
            ({"ab": 2}, ValueError, "got 'ab'"),
            ({"-": 2}, ValueError, "got '-'"),
        ],
    )
    def test_values_that_are_none(self, values: Any, kind: type[Exception], why: str) -> None:
        """The keys are single characters that can stand for an item."""
        with pytest.raises(kind, match=why):
            parse("a", values)

    @pytest.mark.parametrize(("diagram", "kind"), [(None, TypeError), (5, TypeError), (b"a", TypeError)])
    def test_no_diagram(self, diagram: Any, kind: type[Exception]) -> None:
        """Text is expected."""
        with pytest.raises(kind, match="text must"):
            parse(diagram)

    @pytest.mark.parametrize("diagram", ["", "  ", "-", "-- --"])
    def test_silence(self, diagram: str) -> None:
        """Nothing is said in it, however long it is, and it may have no length."""
        assert [] == parse(diagram)
        assert "" == normal(diagram) == draw(parse(diagram), 0)

    def test_an_error_that_is_none(self) -> None:
        """An exception is expected."""
        with pytest.raises(TypeError, match="error must be an exception"):
            parse("#", error="x")


class TestDraw:
    """From notifications to text."""

    def test_items_at_their_times(self) -> None:
        """Each at the nearest tenth of a second, from the beginning on."""
        assert "--x---y" == draw(items((10.2, "x"), (10.61, "y")), 10.0)

    def test_end(self) -> None:
        """Completion and error have their marks."""
        assert "a|" == draw([*items((0, "a")), Notification("completed", 0.1)], 0)
        assert "-#" == draw([Notification("error", 0.1, ValueError())], 0)

    def test_group(self) -> None:
        """What is at one instant stands in parentheses, and what comes too soon after it right behind."""
        assert "-(ab)c" == draw(items((0.1, "a"), (0.1, "b"), (0.2, "c")), 0)

    def test_payloads_of_events(self) -> None:
        """An event is shown by its payload."""
        assert "5" == draw(items((0, Event("a", 5))), 0)

    def test_values_are_looked_up_by_equality(self) -> None:
        """Unhashable payloads too."""
        assert "-q" == draw(items((0.1, {"text": [1]})), 0, {"q": {"text": [1]}})

    def test_values_that_are_equal_and_of_different_types(self) -> None:
        """What was fed comes back: the type decides; if there is none of that type, equality does."""
        values = {"a": 1, "b": True, "c": 1.0, "d": 0.0, "e": False}
        assert "abcde" == draw(parse("abcde", values), 0, values)
        assert "b" == draw(items((0, 1)), 0, {"b": True})

    def test_many_different_values(self) -> None:
        """The work for each doesn't grow with their number: each is compared with a few at most."""
        compared: list[int] = []

        class Value:
            def __init__(self, n: int) -> None:
                self.n = n

            def __eq__(self, other: object) -> bool:
                compared.append(1)
                return isinstance(other, Value) and self.n == other.n

            def __hash__(self) -> int:
                return hash(self.n)

        values = [Value(n % 1000) for n in range(2000)]
        drawn = draw(items(*((n / 10, value) for n, value in enumerate(values))), 0)
        assert 62 == len(drawn.legend) - 1
        assert drawn[:62] == drawn[1000:1062]
        assert 4000 > len(compared)

    def test_what_can_not_be_hashed(self) -> None:
        """It is known again, too."""
        assert "aba" == draw(items((0, [1, 2]), (0.1, [3, 4]), (0.2, [1, 2])), 0)

    def test_other_values_get_letters_and_a_legend(self) -> None:
        """In order, equal ones the same; letters that mean something already are passed over."""
        drawn = draw(items((0, "long"), (0.1, "a"), (0.2, None), (0.3, "long"), (0.4, 7)), 0, {"b": "other"})
        assert "cadc7" == drawn
        assert {"c": "long", "d": None} == drawn.legend

    def test_special_characters_are_not_themselves(self) -> None:
        """A payload ``-`` or ``|`` would read as time or completion."""
        drawn = draw(items((0, "-"), (0.1, "|")), 0)
        assert "ab" == drawn
        assert {"a": "-", "b": "|"} == drawn.legend

    def test_a_value_that_stands_for_another_character(self) -> None:
        """A payload that is the character of another value is shown by a letter of its own."""
        drawn = draw(items((0, "a"), (0.1, 1)), 0, {"a": 1})
        assert "ba" == drawn
        assert {"a": 1, "b": "a"} == drawn.legend

    def test_payloads_that_can_not_be_compared_or_shown(self) -> None:
        """They get letters all the same."""

        class Awkward:
            def __eq__(self, other: object) -> bool:
                raise RuntimeError("no")

            def __str__(self) -> str:
                raise RuntimeError("no")

        assert "ab" == draw(items((0, Awkward()), (0.1, Awkward())), 0)

    def test_more_values_than_letters(self) -> None:
        """The rest is a question mark."""
        assert draw(items(*((n / 10, f"long {n}") for n in range(70))), 0).endswith("89????????")

    def test_it_is_a_str(self) -> None:
        """In every way, with a legend besides."""
        drawn = draw(items((0, "x")), 0)
        assert isinstance(drawn, str)
        assert isinstance(drawn, Marbles)
        assert {"x": 1} == {drawn: 1}

    @given(st.lists(st.sampled_from(["-", "a", "b", "(ab)", "(ba)-", "-"]), max_size=20), st.sampled_from(["a", "|", "#", "(a|)"]))
    def test_round_trip(self, parts: list[str], end: str) -> None:
        """What was parsed is drawn as it was."""
        diagram = "".join(parts) + end
        assert diagram == draw(parse(diagram), 0)

    @given(st.text("-ab(,) |#", max_size=16))
    def test_normal_is_what_would_be_drawn(self, diagram: str) -> None:
        """Whatever it looks like, a diagram means what is drawn of it."""
        try:
            said = parse(diagram)
        except ValueError:
            return
        assert normal(diagram) == draw(said, 0) == normal(draw(said, 0))


class TestDifference:
    """Both diagrams in a message."""

    def test_caret_at_the_first_difference(self) -> None:
        """One under the other, aligned, with the time and the legend."""
        expected, found = "--x---y", draw(items((0.2, "x"), (0.5, "yy")), 0)
        assert [
            "expected  --x---y",
            "found     --x--a",
            "               ^ at 0.5 s",
            "where",
            "  a = 'yy'",
        ] == difference(expected, found)

    def test_one_that_is_longer(self) -> None:
        """The caret stands behind the end of the other."""
        assert "            ^ at 0.2 s" == difference("-a", "-a-b")[2]

    def test_long_ones_are_cut(self) -> None:
        """What is around the difference is shown."""
        lines = difference("-" * 5000 + "a", "-" * 5000 + "b")
        assert all(len(line) < 130 for line in lines)
        assert "a" == lines[0][lines[2].index("^")]
        assert "b" == lines[1][lines[2].index("^")]
        assert lines[2].endswith("at 500 s")


class TestFromMarbles:
    """Diagrams as observables."""

    def test_cold(self) -> None:
        """Each subscriber gets all of it, timed from its subscription."""
        time = VirtualScheduler()
        seen: list[Any] = []
        source = from_marbles("-a-(bc)|", {"a": 1}, scheduler=time)
        source.subscribe(lambda value: seen.append((time.clock, value)), on_completed=lambda: seen.append((time.clock, "end")))
        time.advance_by(0.1)
        source.subscribe(lambda value: seen.append((time.clock, "second", value)))
        time.start()
        first = [(0.1, 1), (0.3, "b"), (0.3, "c"), (0.7, "end")]
        assert first == [one for one in seen if len(one) == 2]
        assert [(0.2, "second", 1), (0.4, "second", "b"), (0.4, "second", "c")] == [one for one in seen if len(one) == 3]

    def test_error_and_dispose(self) -> None:
        """The error is the one given; a disposed subscription gets nothing more."""
        time = VirtualScheduler()
        seen: list[Any] = []
        error = ValueError("no")
        source = from_marbles("a-#", error=error)
        source.subscribe(seen.append, seen.append, scheduler=time)
        disposed = source.subscribe(lambda value: seen.append(("disposed", value)), seen.append, scheduler=time)
        time.advance_by(0)
        disposed.dispose()
        time.start()
        assert ["a", ("disposed", "a"), error] == seen

    def test_real_time(self) -> None:
        """Without a scheduler it takes as long as it takes."""
        assert "b" == from_marbles("ab|").run()

    def test_malformed(self) -> None:
        """It says so at the call."""
        with pytest.raises(ValueError, match="no group is open"):
            from_marbles("a)")
        with pytest.raises(TypeError, match="scheduler must be"):
            from_marbles("a", scheduler=5)  # type: ignore[arg-type]

"""Text is made safe to show, measured, and cut without breaking a character."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rxbus.lettering import cells, clean, clusters, count, cut, duration, excerpt, fit, pad, pixels, say

ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=60)
FAMILY = "👩\u200d👩\u200d👧"


class Unspeakable:
    """Its `repr` raises."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


class TestClean:
    """One line, and nothing in it that acts."""

    @pytest.mark.parametrize(
        ("shown", "text"),
        [
            ("a b c", "a\n\tb \r\n c "),
            ("x\\u202ey", "x\u202ey"),
            ("x\\x1b[31m", "x\x1b[31m"),
            ("x\\x00", "x\x00"),
            ("x\\ud800y", "x\ud800y"),
            ("x\\ufffe", "x\ufffe"),
            ("x\\u2066y", "x\u2066y"),
            ("一 二", "一\u3000二"),
            (FAMILY, FAMILY),
            ("\\u200dx", "\u200dx"),
            ("e\u0301\u0323", "e\u0301\u0323"),
            ("क्षि", "क्षि"),
            ("\\u0301", "\u0301"),
            ("\\u0301e \\u0301", "\u0301e \u0301"),
            ("e" + "\u0301" * 4 + "\\u0301" * 296, "e" + "\u0301" * 300),
            ("e\u200d" + "\u0301\u200d" * 4 + "\\u0301", "e\u200d" + "\u0301\u200d" * 4 + "\u0301"),
            ("\\x1b\\u0301", "\x1b\u0301"),
            ("❤\ufe0f\u200d🔥", "❤\ufe0f\u200d🔥"),
        ],
        ids=ascii,
    )
    def test_examples(self, shown: str, text: str) -> None:
        """Space collapses; controls, overrides and halves of pairs become escapes; so do marks on nothing and the
        fifth of one character; joiners stay inside."""
        assert shown == clean(text)

    @given(ANY_TEXT)
    def test_can_be_written(self, text: str) -> None:
        """Whatever comes in, what goes out is one line of characters that XML and UTF-8 have."""
        shown = clean(text)
        assert len(shown.splitlines()) <= 1
        assert shown == shown.encode().decode()
        assert [] == [c for c in shown if not c.isprintable() and c not in "\u200c\u200d"]


class TestCells:
    """Columns of a terminal."""

    @pytest.mark.parametrize(
        ("width", "text"),
        [
            (0, ""),
            (3, "abc"),
            (4, "用户"),
            (1, "e\u0301"),
            (2, "😀"),
            (2, FAMILY),
            (2, "🇩🇪"),
            (2, "👍🏽"),
            (2, "❤\ufe0f"),
            (13, "\ufdfd"),
            (5, "مرحبا"),
        ],
        ids=ascii,
    )
    def test_examples(self, width: int, text: str) -> None:
        """Wide characters take two, combining ones none, a composed emoji two in all."""
        assert width == cells(text)

    @given(ANY_TEXT.map(clean), st.integers(1, 40))
    def test_cut_fits(self, text: str, width: int) -> None:
        """What is cut fits, begins as the text does, and ends with an ellipsis if anything is missing."""
        shown = cut(text, width)
        assert cells(shown) <= width
        if shown != text:
            assert cells(text) > width
            assert "…" == shown[-1]
            assert text.startswith(shown[:-1])

    @given(ANY_TEXT.map(clean), st.integers(1, 40))
    def test_cut_keeps_clusters_whole(self, text: str, width: int) -> None:
        """No character loses its accents, no emoji a part."""
        shown = cut(text, width)
        if shown != text:
            whole = list(clusters(text))
            assert shown[:-1] in {"".join(whole[:n]).rstrip(" \u200c\u200d") for n in range(len(whole) + 1)}

    def test_cut_of_a_composed_emoji(self) -> None:
        """It is there or it isn't."""
        assert "a…" == cut(f"a{FAMILY}b", 3)
        assert f"a{FAMILY}…" == cut(f"a{FAMILY}bc", 4)

    def test_pad(self) -> None:
        """To a number of cells, not of characters."""
        assert "用户  |" == pad("用户", 6) + "|"
        assert "  用户" == pad("用户", 6, right=True)


class TestPixels:
    """An estimate on the safe side."""

    @given(ANY_TEXT.map(clean), st.floats(0, 500))
    def test_fit_fits(self, text: str, width: float) -> None:
        """What is fitted is no wider than its room."""
        shown = fit(text, width, 12)
        assert pixels(shown, 12) <= width + 0.01
        assert shown == text or pixels(text, 12) > width

    @given(ANY_TEXT.map(clean))
    def test_what_was_measured_fits(self, text: str) -> None:
        """Room of its own width is enough."""
        assert text == fit(text, pixels(text, 13, bold=True), 13, bold=True)

    @given(ANY_TEXT, st.floats(20, 500))
    def test_what_is_drawn_fits(self, text: str, width: float) -> None:
        """What stands in the picture is measured: with its escapes."""
        assert pixels(clean(fit(text, width, 12)), 12) <= width + 0.01

    def test_huge_characters(self) -> None:
        """A phrase in one character, cuneiform and long dashes are as wide as they are."""
        assert pixels("\ufdfd", 10) >= 72
        assert pixels("\U0001242b", 10) >= 46
        assert pixels("\u2e3b", 10) >= 28
        assert "\ufdfd…" == fit("\ufdfd" * 20, 120, 13)

    def test_no_room_at_all(self) -> None:
        """Nothing, rather than an ellipsis that sticks out."""
        assert "" == fit("abc", 3, 12)


class TestSay:
    """Values in a few words."""

    def test_text_is_itself(self) -> None:
        """A str has no quotes, other values have their repr."""
        assert ("it's", "[1, 'a']") == (say("it's"), say([1, "a"]))

    def test_broken_repr(self) -> None:
        """Something that can't say what it is is named by its type."""
        assert "<Unspeakable>" == say(Unspeakable())

    def test_excerpt(self) -> None:
        """What is cut says how long it was; what isn't, is itself."""
        assert "xxx… (5,000 characters)" == excerpt("x" * 5000, 4)
        assert "[0,… (30 characters)" == excerpt(list(range(10)), 5)
        assert ("short…", "<Unspeakable>") == (excerpt("short…", 10), excerpt(Unspeakable(), 20))

    def test_clean_of_megabytes(self) -> None:
        """It ends somewhere, and says that it does."""
        assert (4001, "…") == (len(clean("x" * 10_000_000)), clean("x" * 10_000_000)[-1])

    def test_long(self) -> None:
        """Cut, also when it is megabytes."""
        assert "xxxxxxx…" == say("x" * 10_000_000, 8)


class TestNumbers:
    """Counts and durations."""

    def test_count(self) -> None:
        """One is singular, thousands are grouped."""
        assert ("1 event", "12,000 events", "2 stories") == (count(1, "event"), count(12_000, "event"), count(2, "story", "stories"))

    @pytest.mark.parametrize(
        ("said", "seconds"),
        [
            ("0", 0.0),
            ("1 µs", 1e-6),
            ("250 µs", 0.00025),
            ("1 s", 0.9999),
            ("1.5 s", 1.5),
            ("59.9 s", 59.9),
            ("1 min", 60),
            ("1 min 30 s", 90),
            ("59 min 59 s", 3599),
            ("2 h 5 min", 7500),
            ("1 h 59 min", 7199),
            ("3 d 1 h", 262_800),
            ("999,999 d", 86_400 * 999_999),
            ("1e+06 d", 86_400e6),
            ("1.16e+295 d", 1e300),
            ("−2 ms", -0.002),
        ],
    )
    def test_duration(self, said: str, seconds: float) -> None:
        """In its own unit, to three figures."""
        assert said == duration(seconds)

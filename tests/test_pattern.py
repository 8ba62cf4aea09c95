"""Names, patterns, and the trie against a matcher that is too simple to be wrong."""

from __future__ import annotations

import sys
import unicodedata
from collections import Counter
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rxbus import BusError, TopicNameError
from rxbus.pattern import MAX_LENGTH, Trie, check_name, check_pattern, is_wild

GOOD_NAMES = [
    "a",
    "A",
    "7",
    "user.query",
    "a.b.c.d.e.f.g.h",
    "with-dash.with_underscore.-._",
    "a" * 255,
    "a." * 127 + "a",
    "χρήστης.ερώτηση",
    "用户.查询",
    "प्रयोक्ता.प्रश्न",
    "مستخدم.استعلام",
    "ผู้ใช้.คำถาม",
    "пользователь.запрос",
    "cafe\u0301",
    "é" * 255,
    "٣.४",
]
GOOD_PATTERNS = ["*", ">", "*.*", "a.*", "*.b", "a.*.c", "a.>", "*.>", "a.*.>", "用户.*", "प्रयोक्ता.>"]

# what was given, and the token that is wrong, None when it is the whole
BAD_ALWAYS: list[tuple[Any, str | None]] = [
    (None, None),
    (5, None),
    (True, None),
    (b"a", None),
    (["a"], None),
    ({}, None),
    (object, None),
    ("", None),
    (" ", None),
    ("\t\n", None),
    ("\u3000", None),
    ("a" * 256, None),
    (" " * 256, None),
    ("$", "$"),
    ("$bus.closed", "$bus"),
    ("a..b", ""),
    (".a", ""),
    ("a.", ""),
    (".", ""),
    ("...", ""),
    ("a b", "a b"),
    ("a. b", " b"),
    ("a\n", "a\n"),
    ("a\n.b", "a\n"),
    ("a\x00", "a\x00"),
    ("a*", "a*"),
    ("a.b*.c", "b*"),
    ("**", "**"),
    ("a.>>", ">>"),
    ("a>", "a>"),
    ("a/b", "a/b"),
    ("a:b", "a:b"),
    ("a,b", "a,b"),
    ("a.b$", "b$"),
    ("a#2", "a#2"),
    ("😀", "😀"),
    ("a.\ud800", "\ud800"),
    ("\u200b", "\u200b"),
    ("a\u202eb", "a\u202eb"),
]
BAD_AS_NAMES: list[tuple[Any, str | None]] = [("*", "*"), (">", ">"), ("a.*", "*"), ("*.b", "*"), ("a.*.c", "*"), ("a.>", ">")]
BAD_AS_PATTERNS: list[tuple[Any, str | None]] = [(">.a", ">"), ("a.>.b", ">"), ("a.>.>", ">"), (">.*", ">")]


def naive(pattern: str, name: str) -> bool:
    """Whether the pattern selects the name, token by token."""
    wanted, tokens = pattern.split("."), name.split(".")
    if wanted[-1] == ">":
        wanted.pop()
        if len(tokens) <= len(wanted):
            return False
        tokens = tokens[: len(wanted)]
    return len(wanted) == len(tokens) and all(w in ("*", t) for w, t in zip(wanted, tokens, strict=True))


# few tokens and few levels, so that names and patterns meet often
tokens = st.sampled_from(["a", "b", "c"])
names = st.lists(tokens, min_size=1, max_size=4).map(".".join)
patterns = st.builds(
    lambda head, rest: ".".join([*head, *rest]) or "*",
    st.lists(st.one_of(tokens, st.just("*")), max_size=4),
    st.sampled_from([[], [], [">"]]),
)
letters = st.characters(categories=["L", "N", "M"], include_characters="-_")


class TestNames:
    """What names one topic."""

    @pytest.mark.parametrize("name", GOOD_NAMES, ids=ascii)
    def test_good_names_pass(self, name: str) -> None:
        """Letters, digits, dashes and underscores of any script are a name, 255 of them at most."""
        assert name is check_name(name)

    @pytest.mark.parametrize(("name", "token"), BAD_ALWAYS + BAD_AS_NAMES + BAD_AS_PATTERNS, ids=lambda v: ascii(v)[:40])
    def test_bad_names_are_refused(self, name: Any, token: str | None) -> None:
        """Everything else is an error that knows the name and the token."""
        with pytest.raises(TopicNameError) as raised:
            check_name(name)
        assert name is raised.value.name
        assert token == raised.value.token

    @given(st.lists(st.text(letters, min_size=1, max_size=20), min_size=1, max_size=8).map(".".join))
    @settings(deadline=None)
    def test_any_letters_make_a_name(self, name: str) -> None:
        """Whatever letters, digits and marks Unicode has, tokens of them are a name and a pattern."""
        assert name == check_name(name)
        assert name == check_pattern(name)
        assert not is_wild(name)

    @given(st.text(max_size=300))
    @example("a.b")
    @example("a\n")
    @settings(deadline=None)
    def test_any_text_is_a_name_or_a_name_error(self, text: str) -> None:
        """No text makes the check fail in another way, and what it lets through keeps to the grammar."""
        found: TopicNameError | None = None
        try:
            check_name(text)
        except TopicNameError as error:
            found = error
        tokens = text.split(".")
        fits = len(text) <= MAX_LENGTH and all(tokens) and all(c in "-_." or unicodedata.category(c)[0] in "LMN" for c in text)
        assert fits is (found is None)
        assert found is None or text is found.name

    @given(st.one_of(st.none(), st.integers(), st.floats(), st.binary(), st.lists(st.text()), st.dictionaries(st.text(), st.text())))
    @settings(deadline=None)
    def test_only_a_str_is_a_name(self, value: object) -> None:
        """A value of any other type is refused as a name and as a pattern."""
        with pytest.raises(TopicNameError, match="must be a name"):
            check_name(value)
        with pytest.raises(TopicNameError, match="must be a pattern"):
            check_pattern(value)


class TestPatterns:
    """What selects topics."""

    @pytest.mark.parametrize("pattern", GOOD_NAMES + GOOD_PATTERNS, ids=ascii)
    def test_good_patterns_pass(self, pattern: str) -> None:
        """Every name is a pattern, and so is one with stars for tokens and a bracket at its end."""
        assert pattern is check_pattern(pattern)

    @pytest.mark.parametrize(("pattern", "token"), BAD_ALWAYS + BAD_AS_PATTERNS, ids=lambda v: ascii(v)[:40])
    def test_bad_patterns_are_refused(self, pattern: Any, token: str | None) -> None:
        """Everything else is an error that knows the pattern and the token."""
        with pytest.raises(TopicNameError) as raised:
            check_pattern(pattern)
        assert pattern is raised.value.name
        assert token == raised.value.token

    @pytest.mark.parametrize("pattern", GOOD_PATTERNS, ids=ascii)
    def test_patterns_are_wild(self, pattern: str) -> None:
        """A pattern with a wildcard can select more than one topic."""
        assert is_wild(pattern)

    @pytest.mark.parametrize("name", GOOD_NAMES, ids=ascii)
    def test_names_are_not_wild(self, name: str) -> None:
        """A name selects itself alone."""
        assert not is_wild(name)

    @given(patterns)
    @settings(deadline=None)
    def test_grammar_of_patterns(self, pattern: str) -> None:
        """Any tokens and stars, with a bracket at the end or none, are a pattern, and a name just when nothing is wild."""
        assert pattern == check_pattern(pattern)
        if is_wild(pattern):
            with pytest.raises(TopicNameError, match=r"found the wildcard '[*>]'$"):
                check_name(pattern)
        else:
            assert pattern == check_name(pattern)


class TestMessages:
    """What a caller reads about a bad name."""

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            (None, "to must be a name, a str like 'user.query', got None"),
            ("", "to must be a name like 'user.query', got an empty str"),
            ("  ", "to must be a name like 'user.query', got a blank str"),
            ("a" * 256, "to may have 255 characters at most, got 256"),
            ("$x.a", "to '$x.a': names that begin with '$' are the bus's own"),
            ("a..b", "to 'a..b', token 2: expected letters or digits between the dots, found nothing"),
            ("a.b c", "to 'a.b c', token 2: expected letters, digits, '-' and '_', found 'b c'"),
            ("a.b.*", "to 'a.b.*', token 3: expected a name, found the wildcard '*'"),
        ],
    )
    def test_message_says_where_what_was_expected_and_what_was_found(self, name: Any, expected: str) -> None:
        """The argument, the token by its number, the expectation and the finding stand in one line."""
        with pytest.raises(TopicNameError) as raised:
            check_name(name, "to")
        assert expected == str(raised.value)

    def test_misplaced_bracket(self) -> None:
        """A bracket in the middle of a pattern is told apart from a bad token."""
        with pytest.raises(TopicNameError) as raised:
            check_pattern("a.>.b")
        assert "pattern 'a.>.b', token 2: '>' may only be the last token" == str(raised.value)

    @pytest.mark.parametrize("size", [256, 10_000, sys.maxunicode])
    def test_message_stays_short(self, size: int) -> None:
        """A name as long as a book doesn't make the message so."""
        with pytest.raises(TopicNameError) as raised:
            check_name("a" * size)
        assert len(str(raised.value)) < 200

    def test_is_what_a_reader_expects(self) -> None:
        """The error is a `BusError` and a `ValueError`."""
        assert issubclass(TopicNameError, BusError)
        assert issubclass(TopicNameError, ValueError)


class TestMatching:
    """From a name to the patterns that select it."""

    @pytest.mark.parametrize(
        ("pattern", "selected", "others"),
        [
            ("a.b", ["a.b"], ["a", "a.b.c", "a.c", "b.a"]),
            ("*", ["a", "b"], ["a.b"]),
            ("a.*", ["a.b", "a.c"], ["a", "a.b.c", "b.b"]),
            ("*.b", ["a.b", "b.b"], ["b", "a.c", "a.b.b"]),
            ("a.*.c", ["a.b.c", "a.c.c"], ["a.c", "a.b.b", "a.b.c.c"]),
            (">", ["a", "a.b", "a.b.c"], []),
            ("a.>", ["a.b", "a.b.c"], ["a", "b.a", "ab.c"]),
            ("*.>", ["a.b", "b.b.c"], ["a"]),
            ("a.*.>", ["a.b.c", "a.b.c.d"], ["a.b", "a"]),
        ],
    )
    def test_grammar(self, pattern: str, selected: list[str], others: list[str]) -> None:
        """A star stands for one token, a final bracket for one or more, and everything else for itself."""
        trie: Trie[str] = Trie()
        trie.add(pattern, "x")
        assert selected == [name for name in selected + others if trie.matching(name) == ["x"]]
        assert others == [name for name in selected + others if trie.matching(name) == []]
        assert selected == [name for name in selected + others if naive(pattern, name)]

    @given(st.lists(st.tuples(patterns, st.integers(0, 2)), max_size=30), names)
    @settings(deadline=None, max_examples=300)
    def test_agrees_with_the_naive_matcher(self, entries: list[tuple[str, int]], name: str) -> None:
        """The values that a name finds are those of all patterns that select it, each once per pattern."""
        trie: Trie[tuple[str, int]] = Trie()
        for pattern, value in entries:
            trie.add(pattern, (pattern, value))
        expected = {entry for entry in entries if naive(entry[0], name)}
        assert Counter(expected) == Counter(trie.matching(name))

    @given(st.lists(patterns, max_size=30), names)
    @settings(deadline=None)
    def test_one_value_under_several_patterns_counts_for_each(self, several: list[str], name: str) -> None:
        """A value that stands under two patterns that select a name is found twice."""
        trie: Trie[str] = Trie()
        for pattern in several:
            trie.add(pattern, "x")
        assert len({p for p in several if naive(p, name)}) == len(trie.matching(name))

    def test_deep_names(self) -> None:
        """A name of the greatest depth finds its patterns without recursion."""
        trie: Trie[str] = Trie()
        name = ".".join("a" * 128)
        for pattern in (name, ">", "a.>", ".".join("*" * 128), ".".join("*" * 127) + ".>"):
            trie.add(pattern, pattern)
        assert 5 == len(trie.matching(name))
        assert [name] == trie.covered(name)[:1]


class TestCovered:
    """From a pattern to the names that it selects."""

    @given(st.lists(st.tuples(names, st.integers(0, 2)), max_size=30), patterns)
    @settings(deadline=None, max_examples=300)
    def test_agrees_with_the_naive_matcher(self, entries: list[tuple[str, int]], pattern: str) -> None:
        """The values that a pattern covers are those of all names that it selects, each once."""
        trie: Trie[tuple[str, int]] = Trie()
        for name, value in entries:
            trie.add(name, (name, value))
        expected = {entry for entry in entries if naive(pattern, entry[0])}
        assert Counter(expected) == Counter(trie.covered(pattern))

    @given(st.sets(names, max_size=20), st.sets(patterns, max_size=20))
    @settings(deadline=None)
    def test_both_directions_agree(self, some_names: set[str], some_patterns: set[str]) -> None:
        """A name finds a pattern just when the pattern covers the name, whichever of the two was there first."""
        by_name: Trie[str] = Trie()
        by_pattern: Trie[str] = Trie()
        for name in some_names:
            by_name.add(name, name)
        for pattern in some_patterns:
            by_pattern.add(pattern, pattern)
        found = {(name, pattern) for name in some_names for pattern in by_pattern.matching(name)}
        covered = {(name, pattern) for pattern in some_patterns for name in by_name.covered(pattern)}
        assert found == covered

    def test_everything_in_the_order_of_arrival(self) -> None:
        """The names of one branch come in the order in which they were added."""
        trie: Trie[str] = Trie()
        for name in ("c", "a", "b"):
            trie.add(name, name)
        assert ["c", "a", "b"] == trie.covered("*")
        assert ["c", "a", "b"] == trie.covered(">")


class TestChange:
    """Adding and taking away."""

    @given(
        st.lists(st.tuples(st.booleans(), st.one_of(names, patterns), st.integers(0, 2)), max_size=60),
        names,
        st.randoms(use_true_random=False),
    )
    @settings(deadline=None, max_examples=300)
    def test_add_and_remove_leave_nothing_behind(self, steps: list[tuple[bool, str, int]], name: str, random: Any) -> None:
        """After any changes the trie has what a set would have, and once all is taken away no branch is left."""
        trie: Trie[tuple[str, int]] = Trie()
        model: set[tuple[str, int]] = set()
        for adds, key, value in steps:
            if adds:
                trie.add(key, (key, value))
                model.add((key, value))
            else:
                trie.remove(key, (key, value))
                model.discard((key, value))
            assert Counter(entry for entry in model if naive(entry[0], name)) == Counter(trie.matching(name))
        rest = sorted(model)
        random.shuffle(rest)
        for key, value in rest:
            assert trie._root.children
            trie.remove(key, (key, value))
        assert trie._root.children is None
        assert trie._root.values is None
        assert [] == trie.matching(name)
        assert [] == trie.covered(">")

    def test_adding_twice_is_adding_once(self) -> None:
        """A value stands under a key once, and one removal takes it away."""
        trie: Trie[str] = Trie()
        trie.add("a", "x")
        trie.add("a", "x")
        assert ["x"] == trie.matching("a")
        trie.remove("a", "x")
        assert [] == trie.matching("a")

    @pytest.mark.parametrize(("key", "value"), [("a.b", "y"), ("a", "x"), ("a.b.c", "x"), ("b", "x"), ("a.*", "x"), ("a.>", "x")])
    def test_removing_what_is_not_there_changes_nothing(self, key: str, value: str) -> None:
        """An unknown key or value is no error, and nothing else goes."""
        trie: Trie[str] = Trie()
        trie.add("a.b", "x")
        trie.remove(key, value)
        assert ["x"] == trie.matching("a.b")

    def test_removing_from_an_empty_trie(self) -> None:
        """There is nothing to take away, and nothing comes into being."""
        trie: Trie[str] = Trie()
        trie.remove("a.b", "x")
        assert trie._root.children is None

    @pytest.mark.parametrize("order", [("a", "a.b"), ("a.b", "a")])
    def test_a_branch_stays_while_one_value_needs_it(self, order: tuple[str, str]) -> None:
        """Taking away a key that is the beginning of another, or the other, leaves the one that stays."""
        trie: Trie[str] = Trie()
        for key in ("a", "a.b"):
            trie.add(key, key)
        gone, kept = order
        trie.remove(gone, gone)
        assert [kept] == trie.covered(">")
        assert [] == trie.matching(gone)

    def test_snapshot(self) -> None:
        """What was found stays what it was when the trie changes."""
        trie: Trie[str] = Trie()
        trie.add("a", "x")
        found, covered = trie.matching("a"), trie.covered("a")
        trie.add("a", "y")
        trie.remove("a", "x")
        assert (["x"], ["x"]) == (found, covered)
        assert ["y"] == trie.matching("a")

"""Marble diagrams as text, both ways.

One character is 0.1 s. ``-``: time passes; ``|``: completion; ``#``: an error; ``(ab)``: several things at one instant, that of
the parenthesis, which takes the time of all its characters; blanks are for alignment and take none. Every other character is an
item. This is RxPY's grammar but for one thing: there ``ab`` is one item and items of a group are parted by commas; here each
character is an item, as in other Rx libraries, and commas in a group are allowed and mean nothing.

Silence after the last item means nothing, so the diagram of nothing at all is empty.
A group drawn from a recording may be wider than the time to what comes after it; that is then drawn right behind the group.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, repeat
from typing import Any, Literal, NamedTuple, Self, cast

from .arguments import describe, visible
from .event import Event

FRAME = 0.1
"""Seconds of one character."""
WIDTH = 100
"""Characters of a diagram that a message shows, if it is long."""
SPECIAL = frozenset("-|#()^, \t\n\r")
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
NO_LETTER_LEFT = "?"

Kind = Literal["next", "error", "completed"]


@dataclass(frozen=True, slots=True)
class Notification:
    """One thing that an observable said: an item, an error or its completion, and when, in seconds of the clock used."""

    kind: Kind
    time: float
    value: Any = None
    """The item, or the error; ``None`` for a completion."""

    @property
    def payload(self) -> Any:
        """The payload of an event; any other value as it is."""
        value: Any = self.value
        return cast("Event[Any]", value)._payload if isinstance(value, Event) else value


def _wrong(diagram: str, position: int, why: str) -> ValueError:
    from .lettering import cells  # only now: `import rxbus` does without it

    before = " " * cells(visible(diagram[:position]))
    return ValueError(f"marble diagram: {why}, at character {position + 1}:\n  {visible(diagram)}\n  {before}^")


def check_values(values: object) -> Mapping[str, Any]:
    """The mapping itself, or an empty one for ``None``.

    Raises: `TypeError` or `ValueError` for what doesn't map characters that can stand for an item.
    """
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise TypeError(f"values must be a mapping from characters to payloads, got {describe(values)}")
    for key in cast("Mapping[Any, Any]", values):
        if not isinstance(key, str):
            raise TypeError(f"values must have characters as keys, got {describe(key)}")
        if len(key) != 1 or key in SPECIAL:
            raise ValueError(f"values must have single characters that stand for an item as keys, got {describe(key)}")
    return cast("Mapping[str, Any]", values)


class _Mark(NamedTuple):
    frame: int
    character: str
    position: int


def _marks(diagram: str) -> Iterator[_Mark]:
    """What stands in a diagram, with its frame; raises for what makes no sense."""
    frame, opened = 0, -1
    group = 0
    for position, character in enumerate(diagram):
        if character in " \t":
            continue
        if character == "(":
            if opened >= 0:
                raise _wrong(diagram, position, "a group inside a group")
            opened, group = position, frame
        elif character == ")":
            if opened < 0:
                raise _wrong(diagram, position, "no group is open")
            if not diagram[opened + 1 : position].strip(" \t,"):
                raise _wrong(diagram, opened, "an empty group")
            opened = -1
        elif character == ",":
            if opened < 0:
                raise _wrong(diagram, position, "a comma outside of a group")
            continue
        elif character == "-":
            if opened >= 0:
                raise _wrong(diagram, position, "time can't pass inside a group")
        elif character == "^":
            raise _wrong(diagram, position, "there is no subscription point here: a diagram begins where it is used")
        elif not character.isprintable():
            raise _wrong(diagram, position, f"expected a printable character, found {character!r}")
        else:
            yield _Mark(group if opened >= 0 else frame, character, position)
        frame += 1
    if opened >= 0:
        raise _wrong(diagram, opened, "a group that is never closed")


def _text(name: str, value: object) -> str:
    """A diagram; that of silence is empty."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, got {describe(value)}")
    return value


def normal(diagram: object) -> str:
    """The diagram as `draw` draws what it means: without blanks, commas, groups of one, and silence at its end.

    Raises: `TypeError`, or `ValueError` that shows where the diagram is wrong.
    """
    marks = _marks("".join(_text("diagram", diagram).split()))
    return _line((frame, "".join(mark.character for mark in group)) for frame, group in groupby(marks, lambda mark: mark.frame))


def parse(diagram: object, values: object = None, error: object = None) -> list[Notification]:
    """The notifications of a diagram, timed from its beginning.

    Raises: `TypeError`, or `ValueError` that shows where the diagram is wrong.
    """
    wanted, known = _text("text", diagram), check_values(values)
    if error is not None and not isinstance(error, Exception):
        raise TypeError(f"error must be an exception, got {describe(error)}")
    found: list[Notification] = []
    for frame, character, position in _marks(wanted):
        if found and found[-1].kind != "next":
            raise _wrong(wanted, position, f"nothing comes after the {'completion' if found[-1].kind == 'completed' else 'error'}")
        time = frame / 10  # exactly what a reader would write: 0.3, not 3 * 0.1
        if character == "|":
            found.append(Notification("completed", time))
        elif character == "#":
            found.append(Notification("error", time, error if error is not None else RuntimeError("the error of a marble diagram")))
        else:
            found.append(Notification("next", time, known.get(character, character)))
    return found


class Marbles(str):
    """A diagram: an ordinary str that remembers what its characters stand for."""

    __slots__ = ("legend",)

    legend: Mapping[str, Any]
    """From the characters to what they stand for, but for those that stand for themselves."""

    def __new__(cls, diagram: str, legend: Mapping[str, Any] | None = None) -> Self:
        """A diagram and what its characters stand for."""
        made = super().__new__(cls, diagram)
        made.legend = dict(legend or {})
        return made


def _same(one: object, other: object) -> bool:
    if one is other:
        return True
    try:
        return type(one) is type(other) and bool(one == other)
    except BaseException:
        return False  # an array, perhaps, that can't say whether it equals another


class _Alphabet:
    """Finds the character of a value; payloads need not be hashable."""

    def __init__(self, values: Mapping[str, Any], shown: Sequence[Any]) -> None:
        self._values = values
        self._given: dict[tuple[type, Any], str] = {}
        self._unhashable: list[tuple[Any, str]] = []
        self.legend: dict[str, Any] = {}
        taken = {*values, *(own for own in map(_own_character, shown) if own is not None)}
        self._free = chain((letter for letter in _LETTERS if letter not in taken), repeat(NO_LETTER_LEFT))

    def character(self, value: Any) -> str:
        """That of a payload."""
        for alike in (_same, _equal):  # 1 is rather 1 than True, though these are equal
            for character, known in self._values.items():
                if alike(known, value):
                    return self._note(character, value)
        own = _own_character(value)
        if own is not None and own not in self._values:
            return own
        return self._look_up(value) or self._give(value)

    def _look_up(self, value: Any) -> str | None:
        try:
            return self._given.get((value.__class__, value))
        except BaseException:
            return next((character for known, character in self._unhashable if _same(known, value)), None)

    def _give(self, value: Any) -> str:
        letter = next(self._free)
        if letter != NO_LETTER_LEFT:  # those that share it need not be known again
            try:
                self._given[value.__class__, value] = letter
            except BaseException:
                self._unhashable.append((value, letter))
        return self._note(letter, value)

    def _note(self, character: str, value: Any) -> str:
        if not (isinstance(value, str) and value == character):
            self.legend.setdefault(character, value)
        return character


def _equal(one: object, other: object) -> bool:
    try:
        return bool(one == other)
    except BaseException:
        return False


def _own_character(value: object) -> str | None:
    """The value's own text, if that is one character which can stand for an item."""
    try:
        shown = str(value)
    except BaseException:
        return None
    return shown if len(shown) == 1 and shown not in SPECIAL and shown.isprintable() else None


def _line(groups: Iterable[tuple[int, str]], width: float = math.inf) -> str:
    """What stands at each frame, in a line; it ends soon after so many characters."""
    line = ""
    for frame, characters in groups:
        line += "-" * int(min(frame, width + 1) - len(line))
        if len(line) > width:
            break
        line += characters if len(characters) == 1 else f"({characters})"
    return line


def draw(notifications: Iterable[Notification], started: float, values: object = None, *, width: float = math.inf) -> Marbles:
    """The diagram of notifications, from that moment on, each at the nearest 0.1 s.

    ``values`` maps characters to payloads. Of the others one that is shown as one character is that character; the rest get
    letters, in order, which `Marbles.legend` explains. Beyond ``width`` characters it ends with an ellipsis.
    """
    said = list(notifications)
    alphabet = _Alphabet(check_values(values), [one.payload for one in said if one.kind == "next"])

    def character(one: Notification) -> str:
        return "|" if one.kind == "completed" else "#" if one.kind == "error" else alphabet.character(one.payload)

    frames = groupby(said, lambda one: max(0, round((one.time - started) / FRAME)))
    line = _line(((frame, "".join(map(character, group))) for frame, group in frames), width)
    return Marbles(line if len(line) <= width else f"{line[: int(width)]}…", alphabet.legend)


def _crop(diagram: str, start: int) -> str:
    rest = diagram[start:]
    return rest if len(rest) <= WIDTH else f"{rest[:WIDTH]}…"


def difference(expected: str, found: str) -> list[str]:
    """Both diagrams, one under the other, with a caret under their first difference, and what the characters stand for."""
    length = next((n for n, (a, b) in enumerate(zip(expected, found, strict=False)) if a != b), min(len(expected), len(found)))
    start = max(0, length - WIDTH // 2) if max(len(expected), len(found)) > WIDTH else 0
    cut = "…" if start else ""
    caret = " " * (length - start + len(cut))
    lines = [
        f"expected  {cut}{_crop(expected, start)}",
        f"found     {cut}{_crop(found, start)}",
        f"          {caret}^ at {length / 10:g} s",
    ]
    legend = {**getattr(expected, "legend", {}), **getattr(found, "legend", {})}
    if legend:
        lines += ["where", *(f"  {character} = {describe(value)}" for character, value in legend.items())]
    return lines

"""How things show themselves in a notebook: ``_repr_mimebundle_``, with plain text and HTML.

A thing says what there is to see (`Card`); this module makes both forms of it. Looking must never fail: whatever raises on the
way, a payload's ``repr`` for one, costs the picture and not the cell. The drawing is imported when something is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .drawing import Markup, Table

__all__ = ["Card", "Shown", "bundle"]

ROWS = 40
"""Of a table; what is beyond is counted."""


class Card(NamedTuple):
    """What there is to see of a thing."""

    kind: str
    name: str
    state: str = ""
    alarm: bool = False
    """The state is a warning."""
    facts: Sequence[str] = ()
    picture: Callable[[], Markup] | None = None
    sketch: Callable[[], str] | None = None
    """The picture in plain text."""
    tables: Sequence[Table] = ()
    preformatted: str = ""
    """Text of several lines, a traceback for instance."""

    def text(self) -> str:
        """In plain text."""
        from .drawing import text_table
        from .lettering import clean

        state = f": {self.state}" if self.state else ""
        parts = [clean(" ".join(filter(None, [self.kind, self.name])) + state)]
        parts += [f"  {clean(fact)}" for fact in self.facts]
        blocks = ["\n".join(parts)]
        if self.sketch is not None:
            blocks.append(self.sketch())
        blocks += [text_table(table, widest=48) for table in self.tables if table.rows]
        if self.preformatted:
            blocks.append("\n".join(indented(clean, line) for line in self.preformatted.splitlines()))
        return "\n\n".join(blocks)

    def html(self) -> str:
        """As markup, with nothing but text from outside in it."""
        from .drawing import Markup, element, escape, html, html_table
        from .lettering import say

        head = [element("span", {"class": "n"}, self.kind), Markup(" "), element("b", None, say(self.name, 100))]
        if self.state:
            head += [Markup(" · " if self.name else ""), element("span", {"class": "w" if self.alarm else "n"}, say(self.state, 200))]
        parts = [element("p", None, *head)]
        parts += [element("p", {"class": "n"}, say(fact, 200)) for fact in self.facts]
        if self.picture is not None:
            parts.append(self.picture())
        parts += [html_table(table) for table in self.tables if table.rows]
        if self.preformatted:
            parts.append(element("pre", None, Markup("\n".join(indented(escape, line) for line in self.preformatted.splitlines()))))
        return html(*parts)


def indented(change: Callable[[str], str], line: str) -> str:
    """A changed line, with its indent as it was."""
    body = line.lstrip(" ")
    return " " * (len(line) - len(body)) + change(body)


class Shown:
    """Something that shows itself in a notebook; `_card` says what there is to see."""

    __slots__ = ()

    def _card(self) -> Card:
        raise NotImplementedError

    def _repr_mimebundle_(self, include: Collection[str] | None = None, exclude: Collection[str] | None = None) -> dict[str, str]:
        try:
            card = self._card()
            return bundle(card.text, card.html, include, exclude)
        except Exception as error:
            why = type(error).__name__
            return bundle(lambda: f"<{type(self).__name__} that can't be shown: {why}>", None, include, exclude)


def bundle(
    text: Callable[[], str], html: Callable[[], str] | None, include: Collection[str] | None = None, exclude: Collection[str] | None = None
) -> dict[str, str]:
    """What ``_repr_mimebundle_`` returns: the forms that are asked for, as far as they can be made."""
    made: dict[str, str] = {}
    for kind, make in (("text/plain", text), ("text/html", html)):
        if make is None or (include is not None and kind not in include) or (exclude is not None and kind in exclude):
            continue
        try:
            made[kind] = make()
        except Exception as error:
            made["text/plain"] = made.get("text/plain", f"<not to be shown: {type(error).__name__}>")
    return made

"""What there is to see of a thing, and its two forms: plain text and HTML."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from .drawing import Markup, Table, element, escape, html, html_table, inline, text_table
from .lettering import clean, cut, say

__all__ = ["ROWS", "Card"]

ROWS = 40
"""Of a table; what is beyond is counted."""
LINES, WIDEST = 120, 1000
"""Of a text: its first and its last ones, with a count of those between; cells of one."""


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
        state = f": {self.state}" if self.state else ""
        parts = [clean(" ".join(filter(None, [self.kind, self.name])) + state)]
        parts += [f"  {clean(fact)}" for fact in self.facts]
        blocks = ["\n".join(parts)]
        if self.sketch is not None:
            blocks.append(self.sketch())
        blocks += [text_table(table, widest=48) for table in self.tables if table.rows]
        if self.preformatted:
            blocks.append("\n".join(indented(clean, line) for line in excerpt_of(self.preformatted)))
        return "\n\n".join(blocks)

    def html(self) -> str:
        """As markup, with nothing but text from outside in it."""
        head = [element("span", {"class": "n"}, self.kind), Markup(" "), element("b", None, say(self.name, 100))]
        if self.state:
            head += [Markup(" · " if self.name else ""), element("span", {"class": "w" if self.alarm else "n"}, say(self.state, 200))]
        parts = [element("p", None, *head)]
        parts += [element("p", {"class": "n"}, say(fact, 200)) for fact in self.facts]
        if self.picture is not None:
            parts.append(inline(self.picture()))
        parts += [html_table(table) for table in self.tables if table.rows]
        if self.preformatted:
            parts.append(element("pre", None, Markup("\n".join(indented(escape, line) for line in excerpt_of(self.preformatted)))))
        return html(*parts)


def excerpt_of(text: str) -> list[str]:
    """The lines of a text: all, or the first and the last of them with the number of those between."""
    lines = text.splitlines()
    if len(lines) > LINES:
        half = LINES // 2
        lines = [*lines[:half], f"… and {len(lines) - 2 * half:,} more lines …", *lines[-half:]]
    return lines


def indented(change: Callable[[str], str], line: str) -> str:
    """A changed line, cut if it is long, with its indent as it was."""
    body = line.lstrip(" ")
    return " " * min(len(line) - len(body), WIDEST) + change(cut(clean(body), WIDEST))

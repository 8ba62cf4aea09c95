"""Tables that are redrawn in their place on a terminal to which others write too.

Who draws in place has to know where the cursor is. So while a table lives, a `Terminal` listens at the ``write`` of its stream and
of standard error: at the objects themselves, `sys.stdout` and `sys.stderr` stay what they are. Before anybody's text goes out the
tables are wiped, and they are drawn again below it as soon as its line is complete. All tables of a stream are drawn together,
in no more lines and columns than the terminal has; a table that ends is left above them as a whole.

What gets to the terminal by other ways isn't noticed, and may be overwritten: from other processes, file descriptors, or as the
prompt of `input`.

``_lock`` guards all of it. It is re-entrant, because destructors may print; what the streams do is done under it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import threading
from typing import Any, Self, cast

from ..lettering import cells, cut

__all__ = ["Terminal"]

LEAST = 3
"""Lines of a table, however many there are."""
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
"""They leave the cursor where it is."""
_lock = threading.RLock()
_terminals: list[Terminal] = []


class _Tap:
    """The ``write`` of a stream while somebody listens."""

    def __init__(self, terminal: Terminal, stream: Any) -> None:
        self._terminal = terminal
        self._stream = stream
        self._own = "write" in vars(stream)
        self.write = stream.write
        self._here = self._written
        stream.write = self._here

    def _written(self, text: Any) -> Any:
        with _lock:
            with contextlib.suppress(Exception):
                self._terminal.make_way(text)
            return self.write(text)

    def remove(self) -> None:
        """Unless somebody else stands before it now, who may go on calling it."""
        found = cast("dict[str, Any]", vars(self._stream))
        if found.get("write") is self._here:
            if self._own:
                self._stream.write = self.write
            else:
                del self._stream.write


class Terminal:
    """The tables of one stream, and what there is of them on the screen."""

    def __init__(self, out: Any) -> None:
        self._out = out
        self._tables: dict[object, str] = {}
        self._drawn: list[str] = []
        self._is_within_line = False
        """Somebody's line isn't complete."""
        self._taps: list[_Tap] = []

    @classmethod
    def on(cls, out: Any) -> Self | None:
        """That of a stream; ``None`` for one that is no terminal, or lets nobody listen."""
        with _lock:
            known: Any = next((one for one in _terminals if one._out is out), None)
            if known is not None or not out.isatty():
                return known
            made = cls(out)
            try:
                made._listen()
            except (AttributeError, TypeError):
                return None
            _terminals.append(made)
            return made

    def show(self, who: object, text: str) -> None:
        """Draws somebody's table in the place of the one before, with those of all others."""
        with _lock:
            self._tables[who] = text
            self._draw()

    def settle(self) -> None:
        """Draws them again if they had to make way."""
        with _lock:
            if not self._drawn:
                self._draw()

    def leave(self, who: object, text: str) -> None:
        """Somebody's table ends, and stays as it is now."""
        with _lock:
            self._tables.pop(who, None)
            try:
                before, after = "\n" if self._is_within_line else "", "\n" if self._tables else ""
                self._emit(f"{self._wiping()}{before}{text}\n{after}")
                self._is_within_line = False
                self._draw()
            finally:
                if not self._tables:
                    self.stop_listening()
                    _terminals.remove(self)

    def make_way(self, text: str) -> None:
        """Before somebody's text goes out."""
        shown = _COLOURS.sub("", text)
        if shown:
            wiping = self._wiping()
            self._is_within_line = not shown.endswith("\n")
            if wiping:
                self._emit(wiping)

    def _listen(self) -> None:
        self._taps.append(_Tap(self, self._out))
        errors: Any = sys.stderr
        if errors is not None and errors is not self._out and errors.isatty():
            with contextlib.suppress(AttributeError, TypeError):
                self._taps.append(_Tap(self, errors))

    def stop_listening(self) -> None:
        """The streams are as they were."""
        for tap in self._taps:
            tap.remove()

    def _draw(self) -> None:
        if self._is_within_line or not self._tables:
            return
        wiping, lines = self._wiping(), self._fitted()
        self._emit("".join([wiping, *(f"{line}\n" for line in lines)]))
        self._drawn = lines

    def _wiping(self) -> str:
        """What takes the cursor to where the tables begin, and them away. A terminal that was made narrower has broken their lines."""
        columns = max(shutil.get_terminal_size().columns, 1)
        rows = sum(max(-(-cells(line) // columns), 1) for line in self._drawn)
        self._drawn = []
        return f"\x1b[{rows}F\x1b[J" if rows else ""

    def _fitted(self) -> list[str]:
        """Their lines, as many as there is room for above the cursor: an equal share for each."""
        columns, rows = shutil.get_terminal_size()
        room = max(rows - 1, LEAST)
        share = max((room + 1) // len(self._tables) - 1, LEAST)
        lines: list[str] = []
        for text in self._tables.values():
            table = text.split("\n")
            if len(table) > share:
                table = [*table[: share - 1], f"… and {len(table) - share + 1:,} more lines"]
            lines += ["", *table] if lines else table
        return [cut(line, columns) for line in lines[:room]]

    def _emit(self, text: str) -> None:
        self._taps[0].write(text)
        self._out.flush()


def _forget_all() -> None:
    """In the child of a fork: no thread draws there, and none holds the lock."""
    global _lock
    _lock = threading.RLock()
    for terminal in _terminals:
        terminal.stop_listening()
    _terminals.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)

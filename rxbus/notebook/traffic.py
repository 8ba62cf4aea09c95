"""Recorded traffic as a marble diagram."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..arguments import describe, number
from ..diagram import NARROWEST, WIDTH, Diagram
from ..lanes import lanes_of

if TYPE_CHECKING:
    from ..lanes import Values

__all__ = ["marbles"]


def marbles(*streams: object, values: Values = None, width: float | None = None, title: str | None = None) -> Diagram:
    """A marble diagram of recorded traffic: one lane a stream, the same colour for the same story, lines from cause to effect.

    A stream is a recording, or a sequence of events (a lane for each topic in it). ``values`` says what is written on the
    marbles: a mapping from label to payload, or a function of the payload. ``width`` is in pixels. What comes back shows
    itself in a notebook; `str` is plain text, ``.svg`` a picture for a file.

    Raises: `TypeError` or `ValueError` naming the argument.
    """
    if not streams:
        raise TypeError("streams: marbles takes at least one recording or sequence of events, got none")
    lanes = [lane for place, stream in enumerate(streams, 1) for lane in lanes_of(stream, values, f"streams (number {place})")]
    pixels = WIDTH if width is None else number("width", width, least=NARROWEST)
    if title is not None and not isinstance(title, str):  # pyright: ignore[reportUnnecessaryIsInstance] - untyped callers
        raise TypeError(f"title must be a str, got {describe(title)}")
    return Diagram(tuple(lanes), title or "", pixels)

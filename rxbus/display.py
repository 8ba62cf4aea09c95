"""How things show themselves in a notebook: ``_repr_mimebundle_``, with plain text and HTML.

A thing says what there is to see (a `Card`); both forms are made of that. Looking must never fail: whatever raises on the way, a
payload's ``repr`` for one, and whatever it is, costs the picture and not the cell. What draws is imported when something is drawn,
so that it costs nobody anything who only publishes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .card import Card

__all__ = ["Shown", "bundle"]


class Shown:
    """Something that shows itself in a notebook; `_card` says what there is to see."""

    __slots__ = ()

    def _card(self) -> Card:
        raise NotImplementedError

    def _repr_mimebundle_(self, include: Collection[str] | None = None, exclude: Collection[str] | None = None) -> dict[str, str]:
        try:
            card = self._card()
            return bundle(card.text, card.html, include, exclude)
        except BaseException as error:
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
        except BaseException as error:
            made["text/plain"] = made.get("text/plain", f"<not to be shown: {type(error).__name__}>")
    return made

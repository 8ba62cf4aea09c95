"""Names of topics, the patterns that select them, and a trie that answers both questions about them.

A name is dot-separated tokens of letters, digits, ``-`` and ``_``, at most 255 characters: ``user.query``. A pattern is a
name in which ``*`` stands for one token and a final ``>`` for one or more (the grammar of NATS subjects). Names that begin
with ``$`` belong to the bus.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Generic, TypeVar, cast

from .arguments import describe
from .errors import TopicNameError

MAX_LENGTH = 255
ONE = "*"
REST = ">"

_ASCII_NAME = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
_V = TypeVar("_V")


def _is_token(token: str) -> bool:
    # letters (L), digits (N) and the marks (M) without which many scripts can't write their letters
    return all(c in "-_" or unicodedata.category(c)[0] in "LNM" for c in token)


def _check(value: object, argument: str, *, wild: bool) -> str:
    kind = "a pattern" if wild else "a name"
    if not isinstance(value, str):
        raise TopicNameError(f"{argument} must be {kind}, a str like 'user.query', got {describe(value)}", value)
    if len(value) <= MAX_LENGTH and _ASCII_NAME.fullmatch(value):
        return value
    if not value.strip():
        raise TopicNameError(f"{argument} must be {kind} like 'user.query', got {'a blank' if value else 'an empty'} str", value)
    if len(value) > MAX_LENGTH:
        raise TopicNameError(f"{argument} may have {MAX_LENGTH} characters at most, got {len(value)}", value)
    if value.startswith("$"):
        raise TopicNameError(f"{argument} {describe(value)}: names that begin with '$' are the bus's own", value, value.split(".")[0])
    tokens = value.split(".")
    for position, token in enumerate(tokens, 1):
        where = f"{argument} {describe(value)}, token {position}"
        if not token:
            raise TopicNameError(f"{where}: expected letters or digits between the dots, found nothing", value, token)
        if token in (ONE, REST):
            if not wild:
                raise TopicNameError(f"{where}: expected a name, found the wildcard {token!r}", value, token)
            if token == REST and position < len(tokens):
                raise TopicNameError(f"{where}: '>' may only be the last token", value, token)
        elif not _is_token(token):
            raise TopicNameError(f"{where}: expected letters, digits, '-' and '_', found {token!r}", value, token)
    return value


def check_name(value: object, argument: str = "topic") -> str:
    """The value if it names one topic.

    Raises: `TopicNameError` that says what is wrong with which token.
    """
    return _check(value, argument, wild=False)


def check_pattern(value: object, argument: str = "pattern") -> str:
    """The value if it is a name or a pattern.

    Raises: `TopicNameError` that says what is wrong with which token.
    """
    return _check(value, argument, wild=True)


def is_wild(pattern: str) -> bool:
    """Whether a checked pattern can select more than one topic."""
    return ONE in pattern or REST in pattern


class _Node(Generic[_V]):
    __slots__ = ("children", "values")

    def __init__(self) -> None:
        self.children: dict[str, _Node[_V]] | None = None
        self.values: dict[_V, None] | None = None


class Trie(Generic[_V]):
    """Values under names or patterns. Not thread-safe: its owner's lock guards it.

    `matching(name)` costs the depth of the name and not the number of patterns; `covered(pattern)` visits only what the
    pattern selects.
    """

    def __init__(self) -> None:
        self._root: _Node[_V] = _Node()

    def add(self, key: str, value: _V) -> None:
        """Puts the value under a name or pattern."""
        node = self._root
        for token in key.split("."):
            if node.children is None:
                node.children = {}
            child = node.children.get(token)
            if child is None:
                child = node.children[token] = cast("_Node[_V]", _Node())
            node = child
        if node.values is None:
            node.values = {}
        node.values[value] = None

    def remove(self, key: str, value: _V) -> None:
        """Takes the value away again, with the branches that it leaves empty; unknown ones are no error."""
        path: list[tuple[_Node[_V], str]] = []
        node = self._root
        for token in key.split("."):
            child = node.children.get(token) if node.children else None
            if child is None:
                return
            path.append((node, token))
            node = child
        if node.values is not None:
            node.values.pop(value, None)
            if not node.values:
                node.values = None
        for parent, token in reversed(path):
            assert parent.children is not None
            child = parent.children[token]
            if child.values is not None or child.children:
                return
            del parent.children[token]
            if not parent.children:
                parent.children = None

    def matching(self, name: str) -> list[_V]:
        """The values of all patterns that select this name."""
        found: list[_V] = []
        nodes = [self._root]
        for token in name.split("."):
            following: list[_Node[_V]] = []
            for node in nodes:
                if node.children is None:
                    continue
                rest = node.children.get(REST)
                if rest is not None and rest.values is not None:
                    found.extend(rest.values)
                for key in (token, ONE):
                    child = node.children.get(key)
                    if child is not None:
                        following.append(child)
            nodes = following
        for node in nodes:
            if node.values is not None:
                found.extend(node.values)
        return found

    def covered(self, pattern: str) -> list[_V]:
        """The values of all names that this pattern selects."""
        nodes = [self._root]
        for token in pattern.split("."):
            if token == REST:
                return [value for node in nodes for child in _children(node) for value in _values_below(child)]
            if token == ONE:
                nodes = [child for node in nodes for child in _children(node)]
            else:
                nodes = [node.children[token] for node in nodes if node.children and token in node.children]
        return [value for node in nodes for value in node.values or ()]


def _children(node: _Node[_V]) -> list[_Node[_V]]:
    return list(node.children.values()) if node.children else []


def _values_below(node: _Node[_V]) -> Iterator[_V]:
    stack = [node]
    while stack:
        node = stack.pop()
        yield from node.values or ()
        stack.extend(reversed(_children(node)))

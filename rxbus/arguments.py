"""Checks of what a caller gave, made at the call: each names the argument, what was expected and what was found."""

from __future__ import annotations

import asyncio
import enum
import functools
import inspect
import math
import re
import threading
import unicodedata
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

LONGEST = threading.TIMEOUT_MAX / 2
"""Seconds."""
MARKS = 4
"""Accents and other marks that one character may carry: more would be drawn over what stands above and below."""
_ODD = re.compile(r"[^\w\x20-\x7e]+")
NO_METADATA: Mapping[str, Any] = MappingProxyType({})


def describe(value: object, longest: int = 80) -> str:
    """What was found, in one short line, even when the value's own ``repr`` raises, whatever that is."""
    try:
        text = visible(" ".join(repr(value).split())[: longest + 1])
    except BaseException:
        text = f"<{type(value).__name__}>"
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def visible(text: str, kept: str = "") -> str:
    """The text on one line: what a terminal would act upon is shown as an escape (but for those ``kept``), and so are marks
    beyond `MARKS` on one character, or on none."""
    return _ODD.sub(lambda run: _visible(run, kept), text)


def _visible(run: re.Match[str], kept: str) -> str:
    """What is shown of a run of characters that are neither ASCII nor letters or digits of any script."""
    before = run.string[run.start() - 1] if run.start() else ""
    marks = MARKS if before in ("", " ") else 0
    shown: list[str] = []
    for char in run[0]:
        if char not in kept:
            is_mark = unicodedata.category(char)[0] == "M"
            marks = marks + 1 if is_mark else 0 if char.isprintable() else MARKS
            char = escaped(char) if marks > MARKS or not char.isprintable() else char
        shown.append(char)
    return "".join(shown)


def escaped(char: str) -> str:
    """Its number instead of the character."""
    return char.encode("unicode_escape").decode()


def positive_int(name: str, value: object) -> int:
    """A whole number of at least 1; ``True`` and ``1.0`` aren't one."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int of at least 1, got {describe(value)}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {describe(value)}")
    return value


def number(name: str, value: object, *, least: float = 0.0) -> float:
    """A finite number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number of at least {least:g}, got {describe(value)}")
    try:
        converted = float(value)
    except OverflowError:
        converted = math.inf
    if not math.isfinite(converted) or converted < least:
        raise ValueError(f"{name} must be finite and at least {least:g}, got {describe(value)}")
    return converted


def seconds(name: str, value: object) -> float:
    """A finite number of seconds, 0 or more; what no lock can wait for is as good as for ever."""
    return min(number(name, value), LONGEST)


def optional_seconds(name: str, value: object) -> float | None:
    """`seconds`, or ``None`` for no limit."""
    return None if value is None else seconds(name, value)


def flag(name: str, value: object) -> bool:
    """``True`` or ``False``; what is merely as good as true isn't one."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {describe(value)}")
    return value


def text(name: str, value: object) -> str:
    """A string with something in it."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, got {describe(value)}")
    if not value.strip():
        raise ValueError(f"{name} must not be blank")
    return value


def takes_one(name: str, function: Any, what: str) -> None:
    """Refuses a callable whose signature has no place for exactly one positional argument."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # some built-in callables have none
    try:
        signature.bind(object())
    except TypeError as error:
        raise TypeError(
            f"{name} must take one argument, {what}, got {describe(function)} with {visible(str(signature))}: {error}"
        ) from None


def metadata_copy(value: object) -> Mapping[str, Any]:
    """A read-only copy of a mapping whose keys are strings; ``None`` is the empty one."""
    if value is None:
        return NO_METADATA
    if not isinstance(value, Mapping):
        raise TypeError(f"metadata must be a mapping with str keys, got {describe(value)}")
    copy: dict[Any, Any] = {**value}
    for key in copy:
        if not isinstance(key, str):
            raise TypeError(f"metadata keys must be str, got {describe(key)}")
    return MappingProxyType(copy)


class Shape(enum.Enum):
    """What kind of function handles a value."""

    FUNCTION = "function"
    COROUTINE = "coroutine function"
    GENERATOR = "generator function"
    ASYNC_GENERATOR = "async generator function"


def shape_of(function: object) -> Shape:
    """What kind of function it is, or its ``__call__``, behind any `functools.partial`."""
    inner: Any = function
    awaited = _is_coroutine_function(inner)
    while isinstance(inner, functools.partial):
        inner = inner.func  # pyright: ignore[reportUnknownMemberType] - of whatever type
        awaited = awaited or _is_coroutine_function(inner)
    if not inspect.isroutine(inner) and not isinstance(inner, type):
        inner = getattr(inner, "__call__", inner)  # noqa: B004 - an object that is called
    if awaited or _is_coroutine_function(inner):
        return Shape.COROUTINE
    if _has_no_real_code(inner):
        return Shape.FUNCTION
    if inspect.isasyncgenfunction(inner):
        return Shape.ASYNC_GENERATOR
    return Shape.GENERATOR if inspect.isgeneratorfunction(inner) else Shape.FUNCTION


def _is_coroutine_function(function: object) -> bool:
    """Whether it is one by its code, or by the mark that `asyncio` and `unittest.mock` know."""
    mark = getattr(asyncio.coroutines, "_is_coroutine", None)
    if mark is not None and getattr(function, "_is_coroutine", None) is mark:
        return True
    return not _has_no_real_code(function) and inspect.iscoroutinefunction(function)


def _has_no_real_code(function: object) -> bool:
    """Whether `inspect` can't be asked of its kind: a mock of a function has code that is a mock, too."""
    code = getattr(function, "__code__", None)
    return code is not None and not isinstance(getattr(code, "co_flags", None), int)


def plain_function(name: str, value: object, instead: str = "") -> None:
    """Raises: `TypeError` for a coroutine or generator function, where only the result of a plain one makes sense."""
    shape = shape_of(value)
    if shape is not Shape.FUNCTION:
        raise TypeError(f"{name} must be a plain function, got the {shape.value} {describe(value)}{instead}")

"""Checks of what a caller gave, made at the call: each names the argument, what was expected and what was found."""

from __future__ import annotations

import enum
import functools
import inspect
import math
import threading
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

LONGEST = threading.TIMEOUT_MAX / 2
"""Seconds."""
NO_METADATA: Mapping[str, Any] = MappingProxyType({})


def describe(value: object) -> str:
    """What was found, in one short line, even when the value's own ``repr`` raises."""
    try:
        text = visible(" ".join(repr(value).split()))
    except Exception:
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 80 else f"{text[:77]}..."


def visible(text: str) -> str:
    """The text on one line: what a terminal would act upon is shown as an escape."""
    return text if text.isprintable() else "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


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
    while isinstance(inner, functools.partial):
        inner = inner.func  # pyright: ignore[reportUnknownMemberType] - of whatever type
    if not inspect.isroutine(inner) and not isinstance(inner, type):
        inner = getattr(inner, "__call__", inner)  # noqa: B004 - an object that is called
    if inspect.iscoroutinefunction(inner):
        return Shape.COROUTINE
    if inspect.isasyncgenfunction(inner):
        return Shape.ASYNC_GENERATOR
    return Shape.GENERATOR if inspect.isgeneratorfunction(inner) else Shape.FUNCTION


def plain_function(name: str, value: object, instead: str = "") -> None:
    """Raises: `TypeError` for a coroutine or generator function, where only the result of a plain one makes sense."""
    shape = shape_of(value)
    if shape is not Shape.FUNCTION:
        raise TypeError(f"{name} must be a plain function, got the {shape.value} {describe(value)}{instead}")

"""Checks of what a caller gave, made at the call: each names the argument, what was expected and what was found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

NO_METADATA: Mapping[str, Any] = MappingProxyType({})


def describe(value: object) -> str:
    """What was found, in one short line, even when the value's own ``repr`` raises."""
    try:
        text = repr(value)
    except Exception:
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 80 else f"{text[:77]}..."


def positive_int(name: str, value: object) -> int:
    """A whole number of at least 1; ``True`` and ``1.0`` aren't one."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int of at least 1, got {describe(value)}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return value


def number(name: str, value: object, *, least: float = 0.0) -> float:
    """A finite number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number of at least {least:g}, got {describe(value)}")
    if not math.isfinite(value) or value < least:
        raise ValueError(f"{name} must be finite and at least {least:g}, got {value}")
    return float(value)


def seconds(name: str, value: object) -> float:
    """A finite number of seconds, 0 or more."""
    return number(name, value)


def optional_seconds(name: str, value: object) -> float | None:
    """`seconds`, or ``None`` for no limit."""
    return None if value is None else number(name, value)


def text(name: str, value: object) -> str:
    """A string with something in it."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, got {describe(value)}")
    if not value.strip():
        raise ValueError(f"{name} must not be blank")
    return value


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

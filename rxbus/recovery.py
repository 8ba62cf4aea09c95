"""What becomes of a failed attempt: another one after a pause, or none."""

from __future__ import annotations

import os
import random
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from .arguments import describe, number, plain_function, positive_int, seconds, takes_one, visible

__all__ = ["Breaker", "Retry"]

_HERE = str(Path(__file__).parent) + os.sep
"""What the file names of the package begin with."""


@dataclass(frozen=True, slots=True)
class Retry:
    """When and how often a failing handler gets the same value again.

    The n-th pause is ``backoff * factor ** (n - 1)`` seconds, ``max_backoff`` at most, longer or shorter by up to the share
    ``jitter``. ``on`` is an exception type, a tuple of them, or a predicate of the error.

    Raises: `TypeError` or `ValueError` naming the argument.
    """

    max_attempts: int = 3
    backoff: float = 0.1
    factor: float = 2.0
    max_backoff: float = 30.0
    jitter: float = 0.1
    on: type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], bool] = Exception

    def __post_init__(self) -> None:
        positive_int("max_attempts", self.max_attempts)
        seconds("backoff", self.backoff)
        number("factor", self.factor, least=1.0)
        seconds("max_backoff", self.max_backoff)
        if number("jitter", self.jitter) > 1:
            raise ValueError(f"jitter must be a share of at most 1, got {self.jitter}")
        given: Any = self.on
        types = cast("tuple[Any, ...]", given if isinstance(given, tuple) else (given,))
        known = bool(types) and all(isinstance(t, type) and issubclass(t, BaseException) for t in types)
        predicate = callable(self.on) and not isinstance(self.on, type)
        if predicate:
            plain_function("on", self.on)
        if not known and not predicate:
            raise TypeError(f"on must be exception types or a predicate, got {describe(self.on)}")
        if not known:
            takes_one("on", given, "the error")

    def allows(self, error: BaseException, attempt: int) -> bool:
        """Whether the attempt after the one with this number, from 1, should be made. A predicate that raises says no."""
        if attempt >= self.max_attempts:
            return False
        on: Any = self.on
        if isinstance(on, type | tuple):
            return isinstance(error, on)
        try:
            return bool(on(error))
        except Exception:
            return False

    def delay(self, attempt: int, *, exactly: bool = False) -> float:
        """The pause in seconds after the attempt with this number, from 1; ``exactly``: without jitter."""
        try:
            pause = self.backoff * self.factor ** (attempt - 1)
        except OverflowError:
            pause = self.max_backoff if self.backoff else 0.0
        pause = min(pause, self.max_backoff)
        return pause if exactly else pause * (1 + self.jitter * random.uniform(-1, 1))


@dataclass(frozen=True, slots=True)
class Breaker:
    """After ``failures`` failed events in a row a subscription handles nothing for ``pause`` seconds, then one event as a trial.

    If that one fails too, the next pause begins; otherwise all goes on. Meanwhile events wait in the mailbox, up to its capacity.

    Raises: `TypeError` or `ValueError` naming the argument.
    """

    failures: int = 5
    pause: float = 30.0

    def __post_init__(self) -> None:
        positive_int("failures", self.failures)
        seconds("pause", self.pause)


def check_breaker(value: object) -> Breaker | None:
    """The value if it is a `Breaker` or ``None``.

    Raises: `TypeError` otherwise.
    """
    if value is None or isinstance(value, Breaker):
        return value
    raise TypeError(f"breaker must be a Breaker, got {describe(value)}")


def check_retry(value: object) -> Retry | None:
    """The value if it is a `Retry` or ``None``.

    Raises: `TypeError` otherwise.
    """
    if value is None or isinstance(value, Retry):
        return value
    raise TypeError(f"retry must be a Retry, got {describe(value)}")


def error_text(error: BaseException) -> str:
    """The error in one line, even when its ``str`` raises."""
    try:
        return visible("".join(traceback.format_exception_only(error)).strip())
    except BaseException:
        return type(error).__name__


def traceback_text(error: BaseException) -> str:
    """The traceback as text, from where the user's code begins, even when formatting it raises."""
    try:
        first = error.__traceback__
        while first is not None and first.tb_frame.f_code.co_filename.startswith(_HERE):
            first = first.tb_next
        return "".join(_without_carets(traceback.TracebackException(type(error), error, first or error.__traceback__)).format())
    except BaseException:
        return f"{type(error).__name__} (its traceback can't be formatted)"


def _without_carets(told: traceback.TracebackException) -> traceback.TracebackException:
    """The same without the columns of its frames. To place its carets `traceback` parses the source, and CPython 3.11 can't do that on
    two threads at once: a parse elsewhere in the process would fail."""
    stack: list[traceback.TracebackException | None] = [told]
    while stack:
        one = stack.pop()
        if one is None:
            continue
        for frame in one.stack:
            frame.colno = frame.end_colno = None
        stack += (one.__cause__, one.__context__, *(one.exceptions or ()))
    return told


def without_frames(error: BaseException) -> BaseException:
    """The same error without the frames that it, its causes and its members hold: they keep all their variables alive."""
    seen: set[int] = set()
    stack: list[BaseException | None] = [error]
    while stack:
        one = stack.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        BaseException.with_traceback(one, None)  # an assignment could be forbidden
        stack += (one.__cause__, one.__context__)
        if isinstance(one, BaseExceptionGroup):
            stack += cast("BaseExceptionGroup[BaseException]", one).exceptions
    return error

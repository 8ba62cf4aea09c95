"""Any handler as one uniform call with one argument, checked when it is given."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Hashable
from typing import Any, cast

from .arguments import describe, takes_one
from .errors import HandlerError


def handler_name(handler: object) -> str:
    """A name for the subscription of a handler that was given none."""
    inner: Any = handler
    while isinstance(inner, functools.partial):
        inner = inner.func  # pyright: ignore[reportUnknownMemberType] - of whatever type
    name = getattr(inner, "__name__", None) or type(inner).__name__
    return str(name).strip("<>") or "handler"


def as_call(handler: object) -> Callable[[Any], Any]:
    """The call that handles one value: the handler itself, or ``on_next`` of an observer.

    Raises: `HandlerError` that says what is wrong with it.
    """
    on_next = getattr(handler, "on_next", None)
    if callable(on_next) and not isinstance(handler, type):
        _check_takes_one(on_next, handler)
        return cast("Callable[[Any], Any]", on_next)
    if not callable(handler):
        raise HandlerError(f"handler must be callable or an observer, got {describe(handler)}", handler)
    _check_takes_one(handler, handler)
    return handler


def as_key(key: object) -> Callable[[Any], Hashable]:
    """The key function itself.

    Raises: `TypeError` for what can't be called with one value, and for a coroutine or generator function.
    """
    if not callable(key):
        raise TypeError(f"key must be a function of what the handler takes, got {describe(key)}")
    if inspect.iscoroutinefunction(key) or inspect.isgeneratorfunction(key) or inspect.isasyncgenfunction(key):
        raise TypeError(f"key must be a plain function, got {describe(key)}")
    takes_one("key", key, "what the handler takes")
    return key


def _check_takes_one(call: Any, handler: object) -> None:
    called = call
    while isinstance(called, functools.partial):
        called = called.func  # pyright: ignore[reportUnknownMemberType] - of whatever type
    if not inspect.isroutine(called) and not isinstance(called, type):
        called = called.__call__
    if inspect.iscoroutinefunction(called) or inspect.isasyncgenfunction(called):
        raise HandlerError(f"handler must be a plain function, got the coroutine function {describe(handler)}", handler)
    if inspect.isgeneratorfunction(called):
        raise HandlerError(f"handler must be a plain function, got the generator function {describe(handler)}", handler)
    try:
        takes_one(f"handler {handler_name(handler)!r}", call, "the event")
    except TypeError as error:
        raise HandlerError(str(error), handler) from None

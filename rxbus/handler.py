"""Any handler as one uniform call with one argument, checked when it is given."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, cast

from .arguments import describe
from .errors import HandlerError


def handler_name(handler: object) -> str:
    """A name for the subscription of a handler that was given none."""
    inner: Any = handler
    while hasattr(inner, "func"):  # a partial
        inner = inner.func
    name = getattr(inner, "__name__", None) or type(inner).__name__
    return str(name).strip("<>") or "handler"


def as_call(handler: object) -> Callable[[Any], Any]:
    """The call that handles one value: the handler itself, or ``on_next`` of an observer.

    Raises: `HandlerError` that says what is wrong with it.
    """
    on_next = getattr(handler, "on_next", None)
    if callable(on_next) and not isinstance(handler, type):
        return cast("Callable[[Any], Any]", on_next)
    if not callable(handler):
        raise HandlerError(f"handler must be callable or an observer, got {describe(handler)}", handler)
    _check_takes_one(handler)
    return handler


def _check_takes_one(handler: Any) -> None:
    called: Any = handler if inspect.isroutine(handler) or isinstance(handler, type) else getattr(handler, "func", None) or handler.__call__
    if inspect.iscoroutinefunction(called) or inspect.isasyncgenfunction(called):
        raise HandlerError(f"handler must be a plain function, got the coroutine function {describe(handler)}", handler)
    if inspect.isgeneratorfunction(called):
        raise HandlerError(f"handler must be a plain function, got the generator function {describe(handler)}", handler)
    try:
        signature = inspect.signature(handler)
    except (TypeError, ValueError):
        return  # some built-in callables have none
    try:
        signature.bind(object())
    except TypeError as error:
        raise HandlerError(
            f"handler {handler_name(handler)!r} must take one argument, the event, got {handler_name(handler)}{signature}: {error}", handler
        ) from None

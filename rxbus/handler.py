"""Any handler as one uniform call with one argument, checked when it is given."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, NamedTuple, cast

from .arguments import Shape, describe, plain_function, shape_of, takes_one
from .errors import HandlerError
from .event import Event


def handler_name(handler: object) -> str:
    """A name for the subscription of a handler that was given none."""
    inner: Any = handler
    while isinstance(inner, functools.partial):
        inner = inner.func  # pyright: ignore[reportUnknownMemberType] - of whatever type
    name = getattr(inner, "__name__", None) or type(inner).__name__
    return str(name).strip("<>") or "handler"


class Handler(NamedTuple):
    """Any handler as one call with one argument."""

    call: Callable[[Any], Any]
    shape: Shape
    name: str

    @property
    def is_awaited(self) -> bool:
        """Whether it runs on an event loop."""
        return self.shape in {Shape.COROUTINE, Shape.ASYNC_GENERATOR}


def as_handler(handler: object) -> Handler:
    """The handler itself, ``on_next`` of an observer, or an agent of another framework, which takes the payload.

    A callable that has attributes of any name, such as a mock, is called.

    Agents are known by their shape, nothing is imported for it: ``ainvoke`` or ``invoke`` (LangChain, LangGraph), or ``run`` and
    ``run_sync`` both (pydantic-ai), whose result's ``output`` is the result.

    Raises: `HandlerError` that says what is wrong with it.
    """
    name = handler_name(handler)
    on_next = None if isinstance(handler, type) else getattr(handler, "on_next", None)
    if callable(on_next) and not (callable(handler) and _invents_attributes(handler)):
        return _checked(on_next, handler, name)
    if callable(handler):
        return _checked(handler, handler, name)
    for awaited, plain in (("ainvoke", "invoke"), ("run", "run_sync")):
        first, second = getattr(handler, awaited, None), getattr(handler, plain, None)
        if callable(first) and (awaited == "ainvoke" or callable(second)):
            return Handler(partial(_ask, first), Shape.COROUTINE, _agent_name(handler))
        if awaited == "ainvoke" and callable(second):
            return Handler(partial(_ask_plainly, second), Shape.FUNCTION, _agent_name(handler))
    raise HandlerError(f"handler must be callable, an observer or an agent, got {describe(handler)}", handler)


def _invents_attributes(thing: object) -> bool:
    """Whether it has attributes of any name, as a mock does that was given no specification: they say nothing of what it is."""
    return inspect.getattr_static(thing, "on_next", None) is None and hasattr(thing, "rxbus_asks_whether_you_have_any_attribute")


async def _ask(agent: Callable[[Any], Any], value: Any) -> Any:
    return _output(await agent(_payload(value)))


def _ask_plainly(agent: Callable[[Any], Any], value: Any) -> Any:
    return _output(agent(_payload(value)))


def _payload(value: Any) -> Any:
    return cast("Event[Any]", value).payload if isinstance(value, Event) else value


def _output(result: Any) -> Any:
    return getattr(result, "output", result)


def _agent_name(agent: object) -> str:
    name = getattr(agent, "name", None)
    return name if isinstance(name, str) and name.strip() else type(agent).__name__


def _checked(call: Any, handler: object, name: str) -> Handler:
    try:
        takes_one(f"handler {name!r}", call, "the event")
    except TypeError as error:
        raise HandlerError(str(error), handler) from None
    return Handler(call, shape_of(call), name)


def as_key(key: object) -> Callable[[Any], Hashable]:
    """The key function itself.

    Raises: `TypeError` for what can't be called with one value, and for a coroutine or generator function.
    """
    if not callable(key):
        raise TypeError(f"key must be a function of what the handler takes, got {describe(key)}")
    plain_function("key", key)
    takes_one("key", key, "what the handler takes")
    return key

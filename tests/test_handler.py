"""What can handle an event: functions of every shape, observers, and agents of other frameworks, known by their shape."""

from __future__ import annotations

import asyncio
import functools
import gc
from collections.abc import AsyncIterator
from typing import Any
from unittest.mock import AsyncMock, MagicMock, Mock, NonCallableMock

import pytest
import reactivex as rx
from reactivex import operators as ops
from reactivex.observer import Observer

from rxbus import Event, EventBus, HandlerError
from rxbus.handler import Shape, as_handler
from tests.support import LIMIT, Recorder


class Runnable:
    """Of the shape of LangChain's and LangGraph's: both ways of being invoked."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def invoke(self, value: Any, config: Any = None) -> Any:
        self.calls.append("invoke")
        return f"<{value}>"

    async def ainvoke(self, value: Any, config: Any = None, **kwargs: Any) -> Any:
        self.calls.append("ainvoke")
        return f"<{value}>"


class OnlyInvoke:
    """One that has no coroutine."""

    def invoke(self, value: Any) -> Any:
        return f"[{value}]"


class Result:
    """Of the shape of pydantic-ai's."""

    def __init__(self, output: Any) -> None:
        self.output = output


class Agent:
    """Of the shape of pydantic-ai's: not callable, runs both ways, and its result has an output."""

    name = "oracle"

    async def run(self, value: Any) -> Result:
        return Result(f"({value})")

    def run_sync(self, value: Any) -> Result:
        raise AssertionError("the coroutine is preferred")


class OnlyRun:
    """`run` alone is too common a name to mean anything."""

    def run(self, value: Any) -> Any:
        raise AssertionError


class CallableAgent(Agent):
    """Callable comes first."""

    def __call__(self, event: Event[Any]) -> str:
        return f"called with {event.payload}"


class ObservingAgent(CallableAgent):
    """And being an observer before that."""

    def on_next(self, event: Event[Any]) -> str:
        return f"observed {event.payload}"


class TestAgents:
    """Agents get the payload, and their output is the result."""

    @pytest.mark.parametrize(
        ("agent", "expected", "name"),
        [
            (Runnable(), "<tides>", "Runnable"),
            (OnlyInvoke(), "[tides]", "OnlyInvoke"),
            (Agent(), "(tides)", "oracle"),
            (CallableAgent(), "called with tides", "CallableAgent"),
            (ObservingAgent(), "observed tides", "ObservingAgent"),
        ],
        ids=["runnable", "only invoke", "agent", "callable first", "observer before that"],
    )
    @pytest.mark.parametrize("options", [{}, {"concurrency": 2}], ids=["one", "several"])
    def test_by_shape(self, bus: EventBus, agent: Any, expected: str, name: str, options: Any) -> None:
        """In the order: observer, callable, `ainvoke` or `invoke`, `run` and `run_sync` both."""
        seen = Recorder()
        bus.subscribe("answer", seen)
        subscription = bus.subscribe("query", agent, to="answer", **options)
        event = bus.publish("query", "tides")
        bus.drain(LIMIT)
        assert [expected] == seen.payloads
        assert event.id == seen.events[0].causation_id
        assert name == subscription.name

    def test_the_coroutine_is_preferred(self, bus: EventBus) -> None:
        """It holds no thread while it waits for a model."""
        agent = Runnable()
        bus.subscribe("query", agent)
        bus.deliver("query", 1, timeout=LIMIT)
        assert ["ainvoke"] == agent.calls

    def test_behind_a_pipeline_it_gets_the_value(self, bus: EventBus) -> None:
        """Which is no event any more."""
        from rxbus import operators

        seen = Recorder()
        bus.subscribe("answer", seen)
        bus.subscribe("query", Runnable(), through=operators.payload(), to="answer")
        bus.publish("query", "tides")
        bus.drain(LIMIT)
        assert ["<tides>"] == seen.payloads

    @pytest.mark.parametrize("thing", [OnlyRun(), object(), "agent", None, 5], ids=repr)
    def test_no_known_shape(self, thing: Any) -> None:
        """The error keeps what was given."""
        with pytest.raises(HandlerError, match="handler must be callable, an observer or an agent, got") as raised:
            as_handler(thing)
        assert thing is raised.value.handler

    def test_the_real_ones(self, bus: EventBus) -> None:
        """LangChain's fake model and pydantic-ai's function model, where the extra `agents` is installed."""
        fakes = pytest.importorskip("langchain_core.language_models.fake_chat_models", reason="extra agents")
        pydantic_ai = pytest.importorskip("pydantic_ai", reason="extra agents")
        models = pytest.importorskip("pydantic_ai.models.test", reason="extra agents")
        seen = Recorder()
        bus.subscribe("answer", seen)
        bus.subscribe("a", fakes.FakeListChatModel(responses=["from langchain"]), to="answer")
        bus.subscribe("b", pydantic_ai.Agent(models.TestModel(custom_output_text="from pydantic")), to="answer")
        bus.publish("a", "tides")
        bus.publish("b", "tides")
        bus.drain(LIMIT)
        assert {"from langchain", "from pydantic"} == {getattr(payload, "content", payload) for payload in seen.payloads}


class TestShapes:
    """Functions of every kind."""

    def test_are_seen_through_partials_and_objects(self) -> None:
        """A partial of a coroutine function is one, and an object is what its `__call__` is."""

        def function(event: Any) -> None: ...

        def generator(event: Any) -> Any:
            yield

        async def coroutine(event: Any) -> None: ...

        async def async_generator(event: Any) -> Any:
            yield

        class Object:
            async def __call__(self, event: Any) -> None: ...

        expected = {
            function: Shape.FUNCTION,
            generator: Shape.GENERATOR,
            coroutine: Shape.COROUTINE,
            async_generator: Shape.ASYNC_GENERATOR,
            Object(): Shape.COROUTINE,
            print: Shape.FUNCTION,
            Object().__call__: Shape.COROUTINE,
        }
        for handler, shape in expected.items():
            assert shape is as_handler(handler).shape
            assert shape is as_handler(functools.partial(handler)).shape

    def test_marked_as_coroutine_functions(self) -> None:
        """What asyncio would take for one is one: the mark is on the function, on an object, or inside a partial."""

        def function(event: Any) -> Any:
            return nothing(event)

        async def nothing(event: Any) -> None: ...

        function._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]
        for handler in (function, functools.partial(function), AsyncMock(), AsyncMock(spec=["__call__"]), AsyncMock(spec=nothing)):
            assert Shape.COROUTINE is as_handler(handler).shape


class TestMocks:
    """Those who write unit tests give mocks as handlers."""

    @pytest.mark.parametrize("mock", [Mock, MagicMock, AsyncMock])
    @pytest.mark.parametrize("specification", [{}, {"spec": ["__call__"]}, {"spec": lambda event: None}], ids=["none", "call", "function"])
    def test_is_called_with_the_event(self, bus: EventBus, mock: Any, specification: Any) -> None:
        """Though, without a specification, it has an `on_next` as well as everything else."""
        handler, seen = mock(return_value=5, **specification), Recorder()
        bus.subscribe("b", seen)
        bus.subscribe("a", handler, to="b")
        event = bus.publish("a", 1)
        bus.drain(LIMIT)
        handler.assert_called_once_with(event)
        assert [5] == seen.payloads

    @pytest.mark.parametrize(
        "mock", [Mock(spec=["on_next"]), Mock(spec=Observer), NonCallableMock()], ids=["names", "class", "not callable"]
    )
    def test_an_observer_by_its_specification(self, bus: EventBus, mock: Any) -> None:
        """Or because it can't be called."""
        bus.subscribe("a", mock)
        event = bus.publish("a", 1)
        bus.drain(LIMIT)
        mock.on_next.assert_called_once_with(event)

    def test_a_stand_in_for_an_observer(self, bus: EventBus) -> None:
        """It passes on what the other one has, and no more, so it is one too."""

        class StandIn:
            def __init__(self, other: Any) -> None:
                self._other = other

            def __getattr__(self, name: str) -> Any:
                return getattr(self._other, name)

            def __call__(self, event: Any) -> None:
                raise AssertionError

        seen: list[Any] = []
        bus.subscribe("a", StandIn(Observer(seen.append)))
        event = bus.publish("a", 1)
        bus.drain(LIMIT)
        assert [event] == seen


async def coroutine_of(event: Event[Any]) -> int:
    """What has to be awaited."""
    return 1


async def async_generator_of(event: Event[Any]) -> AsyncIterator[int]:
    """What has to be iterated over."""
    yield 1


async def returns_a_coroutine(event: Event[Any]) -> Any:
    """Without an await before."""
    return coroutine_of(event)


async def returns_one_later(event: Event[Any]) -> Any:
    """After it has waited."""
    await asyncio.sleep(0)
    return coroutine_of(event)


def yields_a_coroutine(event: Event[Any]) -> Any:
    """A generator."""
    yield coroutine_of(event)


async def yields_a_coroutine_too(event: Event[Any]) -> Any:
    """An async generator."""
    yield coroutine_of(event)


def observable_of_coroutines(event: Event[Any]) -> Any:
    """With one value."""
    return rx.of(event).pipe(ops.map(coroutine_of))


VALUES_OF_NOBODY = (yields_a_coroutine, yields_a_coroutine_too, observable_of_coroutines)
"""Without a `to` their values go nowhere."""


class TestUnfinished:
    """What comes of a handler that nobody would await or run."""

    @pytest.mark.filterwarnings("error")
    @pytest.mark.parametrize(
        ("handler", "found"),
        [
            (lambda e: coroutine_of(e), "a coroutine, which nobody would await"),
            (lambda e: (n for n in range(3)), "a generator, which nobody would run"),
            (lambda e: async_generator_of(e), "an async generator, which nobody would run"),
            (returns_a_coroutine, "a coroutine, which nobody would await"),
            (returns_one_later, "a coroutine, which nobody would await"),
            (yields_a_coroutine, "a coroutine, which nobody would await"),
            (yields_a_coroutine_too, "a coroutine, which nobody would await"),
            (observable_of_coroutines, "a coroutine, which nobody would await"),
        ],
    )
    @pytest.mark.parametrize("options", [{}, {"concurrency": 2}, {"through": ops.map(lambda e: e)}], ids=["one", "several", "piped"])
    @pytest.mark.parametrize("to", ["b", None])
    def test_is_no_result(self, bus: EventBus, handler: Any, found: str, options: Any, to: str | None) -> None:
        """The event fails with an error that says so, once; nothing is published."""
        if to is None and handler in VALUES_OF_NOBODY:
            return  # what they yield isn't even looked at
        seen = Recorder()
        bus.subscribe("b", seen)
        bus.subscribe("a", handler, to=to, name="one", **options)
        bus.publish("a", 1)
        bus.drain(LIMIT)
        [letter] = bus.dead_letters
        assert isinstance(letter.error, HandlerError)
        assert str(letter.error).startswith(f"subscription 'one': its handler made {found}: give it a")
        assert [] == seen.payloads
        bus.dead_letters.discard()
        gc.collect()

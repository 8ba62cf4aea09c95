"""What can handle an event: functions of every shape, observers, and agents of other frameworks, known by their shape."""

from __future__ import annotations

import functools
from typing import Any

import pytest

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

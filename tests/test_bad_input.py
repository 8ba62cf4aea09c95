"""Every bad input is refused at the call that gave it: the argument, what was expected and what was found; nothing happened."""

from __future__ import annotations

import asyncio
import enum
import functools
import subprocess
import sys
import threading
import typing
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, NewType, Protocol, TypedDict, TypeVar

import pytest
from reactivex import operators as ops
from reactivex.scheduler import ImmediateScheduler, ThreadPoolScheduler
from reactivex.subject import Subject

from rxbus import (
    BusClosedError,
    BusError,
    Event,
    EventBus,
    HandlerError,
    MailboxSubject,
    Overflow,
    PayloadTypeError,
    Retry,
    Topic,
    TopicNameError,
    WorkerPool,
    operators,
)

ROOT = Path(__file__).parent.parent
NAN, INF, HUGE = float("nan"), float("inf"), 10**400


def handler(event: Any) -> None:
    """Handles anything."""


def fails(event: Any) -> None:
    """Handles nothing."""
    raise ValueError


def label(value: Any) -> str:
    """The name of a case, the same in each run."""
    plain = value is None or isinstance(value, str | bytes | int | float | list | tuple | set | dict)
    return repr(value) if plain and " at 0x" not in repr(value) else str(getattr(value, "__name__", type(value).__name__))


class Silent:
    """A value that can't be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


class Wordy:
    """A value that takes two lines to be shown."""

    def __repr__(self) -> str:
        return "first line\nsecond line"


@pytest.fixture
def bus() -> Iterator[EventBus]:
    """A bus with a past: typed and plain topics, readers, a pattern, events handled and one failed."""
    with EventBus("house") as bus:
        bus.topic("typed", int)
        bus.topic("union", int | str)
        bus.subscribe("typed", handler, name="counter")
        bus.subscribe("plain", handler, name="reader", to="out")
        bus.subscribe("user.*", handler, name="watcher")
        bus.subscribe("bad", fails, name="failing")
        assert 1 == bus.deliver("typed", 1, timeout=10).handled
        assert 1 == bus.deliver("plain", "x", timeout=10).handled
        assert 1 == bus.deliver("bad", "x", timeout=10).failed
        yield bus


@pytest.fixture
def other() -> Iterator[EventBus]:
    """Another bus, with a topic and a reader."""
    with EventBus("elsewhere") as other:
        other.subscribe("plain", handler, name="reader")
        yield other


def state(bus: EventBus) -> tuple[Any, ...]:
    """All that a refused call must leave as it was."""
    return (
        list(bus.topics),
        list(bus.subscriptions),
        bus.statistics(),
        len(bus.dead_letters),
        [topic.type for topic in bus.topics.values()],
        bus.graph(),
        repr(bus),
    )


@contextmanager
def refused(bus: EventBus, kind: type[BaseException], *words: str) -> Generator[pytest.ExceptionInfo[BaseException]]:
    """The block raises exactly that error, whose one line has all these words, and leaves the bus as it was."""
    before = state(bus)
    with pytest.raises(kind) as raised:
        yield raised
    message = str(raised.value)
    assert kind is type(raised.value), message
    assert [] == [word for word in words if word not in message], message
    assert 1 == len(message.splitlines())
    assert before == state(bus)


Call = Callable[[EventBus, Any], object]

# what takes a name: the argument as messages call it, and the call
NAMED: dict[str, tuple[str, Call]] = {
    "topic": ("topic", lambda bus, name: bus.topic(name)),
    "topic with a type": ("topic", lambda bus, name: bus.topic(name, int)),
    "publish": ("topic", lambda bus, name: bus.publish(name, 1)),
    "publish_many": ("topic", lambda bus, name: bus.publish_many(name, [1, 2])),
    "publish_many of nothing": ("topic", lambda bus, name: bus.publish_many(name, [])),
    "deliver": ("topic", lambda bus, name: bus.deliver(name, 1, timeout=10)),
    "forget": ("name", lambda bus, name: bus.forget(name)),
    "to": ("to", lambda bus, name: bus.subscribe("plain", handler, to=name)),
    "on to": ("to", lambda bus, name: bus.on("plain", to=name)(handler)),
    "Event": ("topic", lambda bus, name: Event(name, 1)),
    "derive": ("topic", lambda bus, name: Event("plain", 1).derive(name, 1)),
}
# what takes a name or a pattern
PATTERNED: dict[str, tuple[str, Call]] = {
    "observe": ("pattern", lambda bus, pattern: bus.observe(pattern)),
    "subscribe": ("pattern", lambda bus, pattern: bus.subscribe(pattern, handler)),
    "on": ("pattern", lambda bus, pattern: bus.on(pattern)(handler)),
}
# what was given, and the words that tell what is wrong with it
NO_NAMES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "none": (None, ("got None",)),
    "int": (5, ("got 5",)),
    "bool": (True, ("got True",)),
    "bytes": (b"plain", ("got b'plain'",)),
    "list": (["plain"], ("got ['plain']",)),
    "class": (Topic, ("got <class",)),
    "event": (Event("plain", 1, id="e"), ("got Event('plain', 1, id='e')",)),
    "empty": ("", ("empty",)),
    "blank": (" \t", ("blank",)),
    "overlong": ("a" * 256, ("255", "256")),
    "overlong and blank": (" " * 256, ("blank",)),
    "dollar": ("$bus.closed", ("'$bus.closed'", "'$'", "the bus's own")),
    "empty token": ("a..b", ("'a..b'", "token 2", "nothing")),
    "leading dot": (".a", ("'.a'", "token 1", "nothing")),
    "trailing dot": ("a.", ("'a.'", "token 2", "nothing")),
    "space": ("a b", ("'a b'", "token 1", "letters")),
    "newline": ("a.b\n", ("token 2", "letters")),
    "slash": ("a.b/c", ("token 2", "'b/c'")),
    "star in a token": ("a*", ("token 1", "'a*'")),
    "two stars": ("a.**", ("token 2", "'**'")),
    "bracket in a token": ("a.b>", ("token 2", "'b>'")),
    "emoji": ("a.😀", ("token 2", "'😀'")),
}
WILDCARDS = {
    "star": ("*", ("token 1", "wildcard '*'")),
    "bracket": (">", ("token 1", "wildcard '>'")),
    "last star": ("user.*", ("token 2", "wildcard '*'")),
    "first star": ("*.user", ("token 1", "wildcard '*'")),
    "last bracket": ("user.>", ("token 2", "wildcard '>'")),
    "bracket in the middle": ("a.>.b", ("token 2", "wildcard '>'")),
}
NO_PATTERNS = {
    "bracket in the middle": ("a.>.b", ("'a.>.b'", "token 2", "last")),
    "bracket at the beginning": (">.a", ("'>.a'", "token 1", "last")),
}


class TestNames:
    """Names of topics, wherever one is asked for."""

    @pytest.mark.parametrize(
        ("argument", "call", "name", "words"),
        [
            pytest.param(argument, call, name, words, id=f"{where}: {what}")
            for where, (argument, call) in NAMED.items()
            for what, (name, words) in NO_NAMES.items()
            if argument != "to" or name is not None  # no target is a good one
        ],
    )
    def test_no_name(self, bus: EventBus, argument: str, call: Call, name: Any, words: tuple[str, ...]) -> None:
        """What is no name is refused by everything that takes one; the error knows it."""
        with refused(bus, TopicNameError, argument, *words) as raised:
            call(bus, name)
        assert str(raised.value).startswith(f"{argument} ")
        assert name is getattr(raised.value, "name", "missing")

    @pytest.mark.parametrize(("name", "words"), WILDCARDS.values(), ids=WILDCARDS)
    @pytest.mark.parametrize(("argument", "call"), NAMED.values(), ids=NAMED)
    def test_no_pattern_where_a_name_is_needed(self, bus: EventBus, argument: str, call: Call, name: str, words: tuple[str, ...]) -> None:
        """A pattern selects topics and names none: nothing is published to it, made of it or forgotten by it."""
        with refused(bus, TopicNameError, argument, repr(name), *words) as raised:
            call(bus, name)
        assert getattr(raised.value, "token", "missing") in ("*", ">")

    @pytest.mark.parametrize(("pattern", "words"), [*NO_NAMES.values(), *NO_PATTERNS.values()], ids=[*NO_NAMES, *NO_PATTERNS])
    @pytest.mark.parametrize(("argument", "call"), PATTERNED.values(), ids=PATTERNED)
    def test_no_pattern(self, bus: EventBus, argument: str, call: Call, pattern: Any, words: tuple[str, ...]) -> None:
        """What is neither a name nor a pattern is refused by everything that takes one."""
        with refused(bus, TopicNameError, argument, *words) as raised:
            call(bus, pattern)
        assert str(raised.value).startswith(f"{argument} ")

    @pytest.mark.parametrize(
        "name",
        [
            "χρήστης.ερώτηση",
            "用户.查询",
            "प्रयोक्ता.प्रश्न",
            "مستخدم.استعلام",
            "пользователь.запрос_2",
            "cafe\u0301.x",
            "a" * 255,
            "A-b_c.7",
        ],
        ids=ascii,
    )
    def test_names_in_any_script_work(self, name: str) -> None:
        """A name of letters, marks and digits of any script is published to, subscribed to, selected, fed and forgotten."""
        seen: list[tuple[str, str]] = []
        with EventBus() as bus:
            bus.subscribe(name, lambda e: seen.append(("by name", e.topic)))
            bus.subscribe(".".join("*" for _ in name.split(".")), lambda e: seen.append(("by pattern", e.topic)))
            bus.subscribe("source", lambda e: e.payload, to=name, name="feeder")
            assert 2 == bus.deliver(name, 1, timeout=10).handled
            bus.deliver("source", 1, timeout=10)
            bus.drain(10)
            assert name == bus.topic(name).name
            assert 2 == bus.statistics().topics[name].published
            bus.forget(name)
            assert name not in bus.topics
        # a pattern of one token selects the source too
        assert [("by name", name)] * 2 + [("by pattern", name)] * 2 == sorted(one for one in seen if one[1] == name)

    def test_forgetting_what_is_not_there(self, bus: EventBus) -> None:
        """An unknown name is no mistake, and nothing happens."""
        before = state(bus)
        bus.forget("unknown")
        assert before == state(bus)


class TestTopicsOfOthers:
    """Topics that belong to another bus, or to none any more."""

    CALLS: dict[str, Call] = {
        "topic": lambda bus, topic: bus.topic(topic),
        "topic with a type": lambda bus, topic: bus.topic(topic, int),
        "publish": lambda bus, topic: bus.publish(topic, 1),
        "publish_many": lambda bus, topic: bus.publish_many(topic, [1]),
        "deliver": lambda bus, topic: bus.deliver(topic, 1, timeout=10),
        "observe": lambda bus, topic: bus.observe(topic),
        "subscribe": lambda bus, topic: bus.subscribe(topic, handler),
        "on": lambda bus, topic: bus.on(topic)(handler),
        "to": lambda bus, topic: bus.subscribe("plain", handler, to=topic),
        "forget": lambda bus, topic: bus.forget(topic),
    }

    @pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
    def test_topic_of_another_bus(self, bus: EventBus, other: EventBus, call: Call) -> None:
        """A topic works with the bus that made it alone, even if this one has a topic of that name."""
        elsewhere = state(other)
        with refused(bus, ValueError, "topic 'plain'", "another bus", "'house'"):
            call(bus, other.topics["plain"])
        assert elsewhere == state(other)

    @pytest.mark.parametrize(
        "call",
        [
            lambda bus, topic: bus.publish(topic, 1),
            lambda bus, topic: bus.publish_many(topic, [1]),
            lambda bus, topic: bus.deliver(topic, 1, timeout=10),
            lambda bus, topic: topic.emit(1),
            lambda bus, topic: topic.on_next(1),
            lambda bus, topic: bus.publish(topic, Event("gone", 1)),
        ],
        ids=["publish", "publish_many", "deliver", "emit", "on_next", "publish event"],
    )
    def test_topic_that_was_forgotten(self, bus: EventBus, call: Call) -> None:
        """A topic that was forgotten takes nothing more, and doesn't come back."""
        topic = bus.topic("gone")
        bus.forget("gone")
        with refused(bus, BusClosedError, "topic 'gone'", "closed") as raised:
            call(bus, topic)
        assert "gone" == getattr(raised.value, "name", "missing")


class Callable0:
    """Can be called, but not with an event."""

    def __call__(self) -> None: ...

    def method(self) -> None: ...


class Coroutines:
    """What can be called with an event, and answers with a coroutine."""

    async def __call__(self, event: Any) -> None: ...

    async def method(self, event: Any) -> None: ...


class Generators:
    """What can be called with an event, and answers with a generator."""

    def __call__(self, event: Any) -> Generator[int]:
        yield 1


class Observer:
    """The shape of an RxPY observer."""

    def on_next(self, value: Any) -> None: ...

    def on_error(self, error: Exception) -> None: ...

    def on_completed(self) -> None: ...


class ObserverOfNothing(Observer):
    """An observer that takes no value."""

    def on_next(self) -> None: ...  # type: ignore[override]


class ObserverOfTwo(Observer):
    """An observer that takes two values."""

    def on_next(self, value: Any, other: Any) -> None: ...  # type: ignore[override]


class AsyncObserver(Observer):
    """An observer whose `on_next` is a coroutine function."""

    async def on_next(self, value: Any) -> None: ...


async def coroutine(event: Any) -> None:
    """Answers with a coroutine."""


async def async_generator(event: Any) -> AsyncGenerator[int]:
    """Answers with an async generator."""
    yield 1


def generator(event: Any) -> Generator[int]:
    """Answers with a generator."""
    yield 1


class TestHandlers:
    """What can't handle an event."""

    NOT_CALLABLE: dict[str, Any] = {
        "none": None,
        "int": 3,
        "str": "print",
        "list": [handler],
        "dict": {"on_next": handler},
        "object": object(),
        "awaitable": asyncio.Event(),
    }
    WRONG_ARITY: dict[str, Any] = {
        "no argument": lambda: None,
        "two arguments": lambda a, b: None,
        "keyword": lambda *, event: None,
        "one and keyword": lambda event, *, reason: None,
        "partial full": functools.partial(lambda event: None, 1),
        "partial of three": functools.partial(lambda a, b, c: None, 1),
        "class": Callable0,
        "callable object": Callable0(),
        "method": Callable0().method,
        "observer class": Observer,
        "observer of nothing": ObserverOfNothing(),
        "observer of two": ObserverOfTwo(),
    }
    AWAITED: dict[str, Any] = {
        "coroutine": coroutine,
        "coroutine method": Coroutines().method,
        "coroutine object": Coroutines(),
        "partial of a coroutine": functools.partial(coroutine),
        "partial of a coroutine object": functools.partial(Coroutines()),
        "async generator": async_generator,
        "async observer": AsyncObserver(),
        "generator": generator,
        "generator object": Generators(),
        "partial of a generator": functools.partial(generator),
        "partial of a generator object": functools.partial(Generators()),
    }
    BAD = {**NOT_CALLABLE, **WRONG_ARITY}
    GOOD: dict[str, Callable[[list[Any]], Any]] = {
        "function": lambda seen: lambda event: seen.append(event),
        "default": lambda seen: lambda event, reason=None: seen.append(event),
        "variable": lambda seen: lambda *events: seen.extend(events),
        "keywords": lambda seen: lambda event, **options: seen.append(event),
        "partial": lambda seen: functools.partial(lambda reason, event: seen.append(event), 1),
        "built-in": lambda seen: seen.append,
        "subject": lambda seen: subject_into(seen),
    }

    @pytest.mark.parametrize("value", BAD.values(), ids=BAD)
    @pytest.mark.parametrize("through", [None, ops.map(lambda e: e)], ids=["direct", "through"])
    def test_what_cannot_handle_an_event(self, bus: EventBus, value: Any, through: Any) -> None:
        """What isn't callable, or isn't with one argument, is a `HandlerError` that knows it."""
        with refused(bus, HandlerError, "handler") as raised:
            bus.subscribe("plain", value, through=through, to="fresh")
        assert value is getattr(raised.value, "handler", "missing")
        with refused(bus, HandlerError, "handler"):
            bus.on("user.*")(value)

    @pytest.mark.parametrize("value", AWAITED.values(), ids=AWAITED)
    @pytest.mark.parametrize("through", [None, ops.map(lambda e: e)], ids=["direct", "through"])
    def test_what_is_awaited_or_iterated(self, bus: EventBus, value: Any, through: Any) -> None:
        """Coroutine functions and generators, methods, objects and partials of them, handle events too."""
        bus.subscribe("fresh", value, through=through)
        assert 1 == bus.deliver("fresh", 1, timeout=10).handled

    @pytest.mark.parametrize("value", [lambda event: None, generator, Observer()], ids=["function", "generator", "observer"])
    def test_timeout_is_for_coroutines(self, bus: EventBus, value: Any) -> None:
        """A thread can't be stopped."""
        with refused(bus, TypeError, "timeout is for coroutine handlers, got the"):
            bus.subscribe("fresh", value, timeout=1.0)

    @pytest.mark.parametrize("bad", [5, "loop", asyncio], ids=repr)
    def test_what_is_no_loop(self, bus: EventBus, bad: Any) -> None:
        """Nor one of the user's that is closed, or isn't running."""
        with refused(bus, TypeError, "loop must be an asyncio event loop, got"):
            bus.subscribe("fresh", coroutine, loop=bad)
        loop = asyncio.new_event_loop()
        with refused(bus, ValueError, "loop must be a running event loop, got one that is not running"):
            bus.subscribe("fresh", coroutine, loop=loop)
        loop.close()
        with refused(bus, ValueError, "loop must be a running event loop, got one that is closed"):
            bus.subscribe("fresh", coroutine, loop=loop)

    @pytest.mark.parametrize("bad", [coroutine, generator, async_generator], ids=["coroutine", "generator", "async generator"])
    def test_key_is_a_plain_function(self, bus: EventBus, bad: Any) -> None:
        """Its result is needed at once."""
        with refused(bus, TypeError, "key must be a plain function, got the"):
            bus.subscribe("fresh", handler, key=bad)

    @pytest.mark.parametrize("function", [coroutine, functools.partial(coroutine), async_generator], ids=["one", "part", "many"])
    @pytest.mark.parametrize(
        "call",
        [
            pytest.param(lambda bus, f: bus.subscribe("a", print, through=f), id="through"),
            pytest.param(lambda bus, f: operators.attempt(f), id="fn"),
            pytest.param(lambda bus, f: operators.dedupe(key=f), id="key of dedupe"),
            pytest.param(lambda bus, f: operators.join_by(bus.observe("a"), key=f), id="key of join_by"),
            pytest.param(lambda bus, f: operators.where(user=f), id="user"),
            pytest.param(lambda bus, f: Retry(on=f), id="on"),
        ],
    )
    def test_plain_functions(self, bus: EventBus, call: Call, function: Any, request: pytest.FixtureRequest) -> None:
        """Where nobody would await it, a coroutine function is refused, and nothing is left that was never awaited."""
        argument = request.node.callspec.id.split("-")[0].split(" ")[0]  # that of the call comes first
        before = set(bus.subscriptions)
        with pytest.raises(TypeError, match=f"^{argument} must be a plain function, got the .* function"):
            call(bus, function)
        assert before == set(bus.subscriptions)

    def test_a_pipeline_that_makes_coroutines(self, bus: EventBus) -> None:
        """`map` with a coroutine function: the event says what to use instead."""
        bus.subscribe("fresh", print, through=ops.map(coroutine))
        bus.publish("fresh", 1)
        bus.drain(20)
        assert ["use operators.map_async"] == [
            str(letter.error).rpartition(": ")[2] for letter in bus.dead_letters if letter.event.topic == "fresh"
        ]

    def test_message_tells_the_signature(self, bus: EventBus) -> None:
        """Who wrote a handler with two arguments reads its name, what was expected and what it takes."""

        def audit(event: Any, reason: str) -> None: ...

        with refused(bus, HandlerError, "handler 'audit'", "one argument", "(event: ", "reason"):
            bus.subscribe("plain", audit)

    @pytest.mark.parametrize("make", GOOD.values(), ids=GOOD)
    def test_what_can_handle_an_event(self, bus: EventBus, make: Callable[[list[Any]], Any]) -> None:
        """Whatever can be called with one argument is a handler."""
        seen: list[Any] = []
        bus.subscribe("fresh", make(seen))
        receipt = bus.deliver("fresh", 1, timeout=10)
        assert 1 == receipt.handled
        assert [receipt.event] == seen

    def test_object_that_has_every_attribute(self) -> None:
        """A mock, which answers to any attribute, is a handler with a name, and subscribing it ends."""
        script = """
from unittest.mock import MagicMock, Mock
from rxbus import EventBus
with EventBus() as bus:
    for mock in (Mock(), MagicMock(), Mock(spec=["on_next"])):
        print(bool(bus.subscribe("a", mock).name))
    print(bus.deliver("a", 1, timeout=10).handled)
"""
        try:
            done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=10, check=False)
        except subprocess.TimeoutExpired:
            pytest.fail("subscribing a mock doesn't end")
        assert ("True\nTrue\nTrue\n3\n", "") == (done.stdout, done.stderr)


def subject_into(seen: list[Any]) -> Subject[Any]:
    """An observer that is none of rxbus's."""
    subject: Subject[Any] = Subject()
    subject.subscribe(seen.append)
    return subject


class TestCounts:
    """Capacities and bounds."""

    CALLS: dict[str, tuple[str, Call]] = {
        "EventBus capacity": ("capacity", lambda bus, value: EventBus(capacity=value)),
        "EventBus workers": ("workers", lambda bus, value: EventBus(workers=value)),
        "EventBus dead_letter_capacity": ("dead_letter_capacity", lambda bus, value: EventBus(dead_letter_capacity=value)),
        "WorkerPool": ("max_workers", lambda bus, value: WorkerPool(max_workers=value)),
        "MailboxSubject": ("capacity", lambda bus, value: MailboxSubject(capacity=value)),
        "mailbox": ("capacity", lambda bus, value: operators.mailbox(capacity=value)),
        "observe": ("capacity", lambda bus, value: bus.observe("plain", capacity=value)),
        "subscribe": ("capacity", lambda bus, value: bus.subscribe("plain", handler, capacity=value, to="fresh")),
        "on": ("capacity", lambda bus, value: bus.on("plain", capacity=value)(handler)),
    }

    @pytest.mark.parametrize(
        ("value", "kind", "found"),
        [
            (0, ValueError, "got 0"),
            (-1, ValueError, "got -1"),
            (-(10**5_000), ValueError, "got "),
            (True, TypeError, "got True"),
            (False, TypeError, "got False"),
            (1.5, TypeError, "got 1.5"),
            (1.0, TypeError, "got 1.0"),
            (NAN, TypeError, "got nan"),
            (INF, TypeError, "got inf"),
            ("3", TypeError, "got '3'"),
            (b"3", TypeError, "got b'3'"),
            ([3], TypeError, "got [3]"),
        ],
        ids=["zero", "negative", "enormous", "true", "false", "fraction", "float", "nan", "inf", "str", "bytes", "list"],
    )
    @pytest.mark.parametrize(("argument", "call"), CALLS.values(), ids=CALLS)
    def test_whole_numbers_of_at_least_one(
        self, bus: EventBus, argument: str, call: Call, value: Any, kind: type[Exception], found: str
    ) -> None:
        """A bound is a whole number of at least 1; what is too small is a `ValueError`, what is none a `TypeError`."""
        with refused(bus, kind, f"{argument} must be", "at least 1", found):
            call(bus, value)

    @pytest.mark.parametrize("argument", ["capacity", "dead_letter_capacity"])
    def test_nothing_is_no_bound(self, bus: EventBus, argument: str) -> None:
        """A bus has a bound for everything."""
        options: Any = {argument: None}
        with refused(bus, TypeError, f"{argument} must be", "got None"):
            EventBus(**options)

    @pytest.mark.parametrize("scheduler", [WorkerPool(2), ImmediateScheduler(), ThreadPoolScheduler(1)], ids=["pool", "immediate", "rx"])
    def test_workers_or_a_scheduler(self, bus: EventBus, scheduler: Any) -> None:
        """A scheduler brings its own threads, so a bound for them besides is a contradiction."""
        with refused(bus, ValueError, "workers", "scheduler", "both"):
            EventBus(workers=2, scheduler=scheduler)


class TestTimes:
    """Timeouts, in seconds."""

    CALLS: dict[str, tuple[str, Call]] = {
        "EventBus block_timeout": ("block_timeout", lambda bus, value: EventBus(block_timeout=value)),
        "EventBus close_timeout": ("close_timeout", lambda bus, value: EventBus(close_timeout=value)),
        "MailboxSubject": ("block_timeout", lambda bus, value: MailboxSubject(block_timeout=value)),
        "close": ("timeout", lambda bus, value: bus.close(value)),
        "close without draining": ("timeout", lambda bus, value: bus.close(value, drain=False)),
        "drain": ("timeout", lambda bus, value: bus.drain(value)),
        "deliver": ("timeout", lambda bus, value: bus.deliver("plain", 1, timeout=value)),
        "deliver to a new topic": ("timeout", lambda bus, value: bus.deliver("fresh", 1, timeout=value)),
        "dispose": ("wait", lambda bus, value: bus.subscriptions["reader"].dispose(value)),
    }

    @pytest.mark.parametrize(
        ("value", "kind"),
        [
            (-1, ValueError),
            (-0.001, ValueError),
            (NAN, ValueError),
            (INF, ValueError),
            (-INF, ValueError),
            (HUGE, ValueError),
            (True, TypeError),
            (False, TypeError),
            ("1", TypeError),
            (b"1", TypeError),
            (1j, TypeError),
            ([1], TypeError),
        ],
        ids=["negative", "just negative", "nan", "inf", "minus inf", "huge", "true", "false", "str", "bytes", "complex", "list"],
    )
    @pytest.mark.parametrize(("argument", "call"), CALLS.values(), ids=CALLS)
    def test_finite_numbers_of_seconds(self, bus: EventBus, argument: str, call: Call, value: Any, kind: type[Exception]) -> None:
        """A time is a finite number of seconds, 0 or more; a bus is still open and nothing was published, dropped or disposed of."""
        with refused(bus, kind, f"{argument} must be", "at least 0", "got "):
            call(bus, value)

    @pytest.mark.parametrize("argument", ["block_timeout", "close_timeout"])
    def test_nothing_is_no_time(self, bus: EventBus, argument: str) -> None:
        """A bus never waits without a limit on its own account."""
        options: Any = {argument: None}
        with refused(bus, TypeError, f"{argument} must be", "got None"):
            EventBus(**options)

    @pytest.mark.parametrize(
        "wait",
        [
            lambda bus, subscription: bus.deliver("slow", 2, timeout=1e300),
            lambda bus, subscription: bus.drain(1e300),
            lambda bus, subscription: subscription.dispose(1e300),
            lambda bus, subscription: bus.close(1e300),
            lambda bus, subscription: bus.publish_many("slow", [2, 3, 4]),
        ],
        ids=["deliver", "drain", "dispose", "close", "publish under BLOCK"],
    )
    def test_finite_times_that_no_clock_can_count(self, wait: Callable[[EventBus, Any], object]) -> None:
        """A finite time beyond what the system can wait for is as good as any: the call waits, and ends when it may."""
        entered, gate = threading.Event(), threading.Event()

        def slow(event: Any) -> None:
            entered.set()
            gate.wait(10)

        bus = EventBus(capacity=1, block_timeout=1e300)
        try:
            with ThreadPoolExecutor(1) as pool:
                subscription = bus.subscribe("slow", slow)
                bus.publish("slow", 1)
                assert entered.wait(10)
                call = pool.submit(wait, bus, subscription)
                done = wait_for([call], timeout=0.1).done
                gate.set()
                call.result(10)
                assert set() == done
        finally:
            gate.set()
            bus.close(10, drain=False)


class TestMetadata:
    """Metadata that is none."""

    CALLS: dict[str, Call] = {
        "publish": lambda bus, value: bus.publish("plain", 1, metadata=value),
        "publish to a new topic": lambda bus, value: bus.publish("fresh", 1, metadata=value),
        "publish to a topic": lambda bus, value: bus.publish(bus.topics["plain"], 1, metadata=value),
        "publish event": lambda bus, value: bus.publish(Event("fresh", 1), metadata=value),
        "publish_many": lambda bus, value: bus.publish_many("plain", [1, 2], metadata=value),
        "publish_many to a new topic": lambda bus, value: bus.publish_many("fresh", [1, 2], metadata=value),
        "publish_many of nothing": lambda bus, value: bus.publish_many("fresh", [], metadata=value),
        "deliver": lambda bus, value: bus.deliver("plain", 1, metadata=value, timeout=10),
        "deliver to a new topic": lambda bus, value: bus.deliver("fresh", 1, metadata=value, timeout=10),
        "emit": lambda bus, value: bus.topics["plain"].emit(1, value),
        "Event": lambda bus, value: Event("plain", 1, value),
        "derive": lambda bus, value: Event("plain", 1, {"user": "ada"}).derive("out", 1, value),
    }

    @pytest.mark.parametrize(
        ("value", "found"),
        [
            ([], "got []"),
            ([("user", "ada")], "got [('user', 'ada')]"),
            ("user", "got 'user'"),
            ("", "got ''"),
            (3, "got 3"),
            (0, "got 0"),
            (False, "got False"),
            ({"user"}, "got {'user'}"),
            (object, "got <class 'object'>"),
            ({1: "ada"}, "got 1"),
            ({None: "ada"}, "got None"),
            ({b"user": "ada"}, "got b'user'"),
            ({"user": "ada", ("a",): 1}, "got ('a',)"),
        ],
        ids=label,
    )
    @pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
    def test_mapping_with_str_keys(self, bus: EventBus, call: Call, value: Any, found: str) -> None:
        """Metadata is a mapping whose keys are strings, also when it is empty or false."""
        with refused(bus, TypeError, "metadata", "must be", "str", found):
            call(bus, value)

    @pytest.mark.parametrize(
        "call",
        [
            lambda bus, name: bus.publish(Event(name, 1), metadata={"user": "ada"}),
            lambda bus, name: bus.publish(name, Event(name, 1), metadata={"user": "ada"}),
            lambda bus, name: bus.publish_many(name, [1, Event(name, 1)], metadata={"user": "ada"}),
            lambda bus, name: bus.deliver(name, Event(name, 1), metadata={"user": "ada"}, timeout=10),
            lambda bus, name: bus.topics["out"].emit(Event("out", 1), {"user": "ada"}),
        ],
        ids=["publish event", "publish", "publish_many", "deliver", "emit"],
    )
    @pytest.mark.parametrize("name", ["plain", "fresh"])
    def test_complete_event_has_its_own(self, bus: EventBus, call: Call, name: str) -> None:
        """Metadata given together with an event that is published as it is would be lost."""
        with refused(bus, TypeError, "metadata", "complete Event"):
            call(bus, name)


PUBLISHING: dict[str, Callable[[EventBus, str, Any], object]] = {
    "publish": lambda bus, name, payload: bus.publish(name, payload),
    "publish to a topic": lambda bus, name, payload: bus.publish(bus.topics[name], payload),
    "publish event": lambda bus, name, payload: bus.publish(Event(name, payload)),
    "publish event by name": lambda bus, name, payload: bus.publish(name, Event(name, payload)),
    "publish event of another topic": lambda bus, name, payload: bus.publish(name, Event("plain", payload)),
    "publish_many": lambda bus, name, payload: bus.publish_many(name, [payload]),
    "publish_many events": lambda bus, name, payload: bus.publish_many(name, [Event(name, payload)]),
    "deliver": lambda bus, name, payload: bus.deliver(name, payload, timeout=10),
    "deliver event": lambda bus, name, payload: bus.deliver(name, Event(name, payload), timeout=10),
    "emit": lambda bus, name, payload: bus.topics[name].emit(payload),
    "emit event": lambda bus, name, payload: bus.topics[name].emit(Event("plain", payload)),
    "on_next": lambda bus, name, payload: bus.topics[name].on_next(payload),
    "on_next event": lambda bus, name, payload: bus.topics[name].on_next(Event(name, payload)),
}


class TestPayloads:
    """Payloads that a typed topic doesn't take."""

    @pytest.mark.parametrize(
        ("name", "payload", "expected", "found"),
        [
            ("typed", "x", "int", "str"),
            ("typed", 1.0, "int", "float"),
            ("typed", None, "int", "NoneType"),
            ("typed", int, "int", "type"),
            ("typed", [1], "int", "list"),
            ("union", 1.0, "int | str", "float"),
            ("union", b"x", "int | str", "bytes"),
            ("union", None, "int | str", "NoneType"),
        ],
    )
    @pytest.mark.parametrize("call", PUBLISHING.values(), ids=PUBLISHING)
    def test_wrong_type(
        self, bus: EventBus, call: Callable[[EventBus, str, Any], object], name: str, payload: Any, expected: str, found: str
    ) -> None:
        """A payload of another type is refused by everything that publishes; the error knows topic, type and finding."""
        with refused(bus, PayloadTypeError) as raised:
            call(bus, name, payload)
        error: Any = raised.value
        assert f"topic '{name}' takes {expected}, got {found}" == str(error)
        assert (name, bus.topics[name].type, type(payload)) == (error.topic, error.expected, error.found)
        assert isinstance(error, BusError)
        assert isinstance(error, TypeError)

    @pytest.mark.parametrize("payload", [1, True, -5])
    @pytest.mark.parametrize("call", PUBLISHING.values(), ids=PUBLISHING)
    def test_right_type(self, bus: EventBus, call: Callable[[EventBus, str, Any], object], payload: Any) -> None:
        """A payload of the type, or of a subclass, is published."""
        before = bus.statistics().topics["typed"].published
        call(bus, "typed", payload)
        assert before + 1 == bus.statistics().topics["typed"].published

    @pytest.mark.parametrize(
        "wrong", ["x", None, Event("typed", "x"), Event("plain", "x")], ids=["str", "none", "event", "event of another topic"]
    )
    @pytest.mark.parametrize("position", [0, 1, 2, 999])
    @pytest.mark.parametrize("make", [list, tuple, iter], ids=["list", "tuple", "iterator"])
    def test_one_wrong_payload_of_many(self, bus: EventBus, wrong: Any, position: int, make: Callable[[list[Any]], Any]) -> None:
        """When one of a thousand has the wrong type, nothing at all is published, not even what stood before it."""
        payloads: list[Any] = list(range(1_000))
        payloads[position] = wrong
        with refused(bus, PayloadTypeError, "topic 'typed' takes int, got "):
            bus.publish_many("typed", make(payloads))

    @pytest.mark.parametrize("payloads", ["many", b"many", "", None, 3, True, handler, Event("plain", 1)], ids=label)
    @pytest.mark.parametrize("name", ["plain", "fresh"])
    def test_payloads_that_are_not_many(self, bus: EventBus, payloads: Any, name: str) -> None:
        """A string is one payload and not many letters; what can't be walked through is no collection."""
        with refused(bus, TypeError, "payloads must be", "iterable", "got "):
            bus.publish_many(name, payloads)

    @pytest.mark.parametrize("name", ["plain", "fresh"])
    def test_payloads_that_end_in_an_error(self, bus: EventBus, name: str) -> None:
        """When the caller's own iterator fails halfway, that error comes out and nothing is published."""

        def payloads() -> Iterator[int]:
            yield 1
            raise ZeroDivisionError("halfway")

        with refused(bus, ZeroDivisionError, "halfway"):
            bus.publish_many(name, payloads())

    @pytest.mark.parametrize(
        "call",
        [
            lambda bus: bus.publish("plain"),
            lambda bus: bus.publish("fresh"),
            lambda bus: bus.publish(bus.topics["plain"]),
            lambda bus: bus.publish(Event),
            lambda bus: bus.publish(None),
            lambda bus: bus.publish({"topic": "plain"}),
        ],
        ids=["name", "new name", "topic", "class", "none", "dict"],
    )
    def test_topic_without_a_payload(self, bus: EventBus, call: Callable[[Any], object]) -> None:
        """One argument alone must be a complete event."""
        with refused(bus, TypeError, "publish takes a topic and a payload", "Event", "got "):
            call(bus)

    def test_none_is_a_payload(self, bus: EventBus) -> None:
        """A given ``None`` isn't a missing payload."""
        assert bus.publish("plain", None).payload is None

    def test_event_in_the_place_of_a_topic(self, bus: EventBus) -> None:
        """An event and a payload together contradict each other."""
        publish: Any = bus.publish
        with refused(bus, TopicNameError, "topic must be a name", "got Event('plain', 1"):
            publish(Event("plain", 1), 2)


class Record(TypedDict):
    """No class that `isinstance` knows."""

    user: str


class Speaker(Protocol):
    """A protocol that can't be checked at run time."""

    def speak(self) -> str:
        """Says something."""
        ...


@typing.runtime_checkable
class Listener(Protocol):
    """A protocol that can be checked at run time."""

    def listen(self) -> str:
        """Hears something."""
        ...


class TestTypes:
    """Types of topics."""

    NO_TYPES: dict[str, Any] = {
        "str": "int",
        "int": 3,
        "zero": 0,
        "false": False,
        "tuple": (int, str),
        "list": [int],
        "function": handler,
        "instance": object(),
        "generic": list[int],
        "typing generic": typing.List[int],  # noqa: UP006 - as people write it
        "union with a generic": int | list[int],
        "optional generic": typing.Optional[list[int]],  # noqa: UP045 - as people write it
        "union with a forward reference": typing.Optional["Record"],
        "literal": Literal["a"],
        "callable": Callable[[int], int],
        "annotated": Annotated[int, "positive"],
        "new type": NewType("Id", int),
        "type variable": TypeVar("V"),
        "any": Any,
        "typed dict": Record,
        "protocol": Speaker,
        "union with a protocol": int | Speaker,
        "union with any": typing.Union[int, Any],  # noqa: UP007 - the other notation has no `Any` before 3.14
    }

    @pytest.mark.parametrize("kind", NO_TYPES.values(), ids=NO_TYPES)
    @pytest.mark.parametrize("name", ["plain", "typed", "fresh"])
    def test_no_type(self, bus: EventBus, kind: Any, name: str) -> None:
        """What `isinstance` can't check payloads with is refused when it is given, not when something is published."""
        with refused(bus, TypeError, "type must be a class", "got "):
            bus.topic(name, kind)

    @pytest.mark.parametrize(
        ("kind", "good", "bad"),
        [
            (int, [1, True], ["x", None]),
            (int | str, [1, "x"], [b"x", None]),
            (typing.Union[int, str], [1, "x"], [b"x", None]),  # noqa: UP007 - as people write it
            (int | None, [1, None], ["x"]),
            (typing.Optional[int], [1, None], ["x"]),  # noqa: UP045 - as people write it
            (int | str | bytes, [1, "x", b"x"], [None, 1.0]),
            (type(None), [None], [0, False]),
            (object, [1, None, object], []),
            (list, [[1], []], [(1,)]),
            (Event, [], [1]),
            (Overflow, [Overflow.BLOCK], ["BLOCK"]),
            (Retry, [Retry()], [Retry]),
            (Callable, [handler, int], [3]),
            (Listener, [], [3]),
        ],
        ids=label,
    )
    def test_classes_and_unions_of_classes(self, bus: EventBus, kind: Any, good: list[Any], bad: list[Any]) -> None:
        """A class takes its instances, a union those of each of its classes, and nothing else."""
        topic = bus.topic("fresh", kind)
        assert kind == topic.type
        assert good == [topic.emit(payload).payload for payload in good]
        for payload in bad:
            with refused(bus, PayloadTypeError, "topic 'fresh' takes ", f"got {type(payload).__name__}"):
                topic.emit(payload)

    @pytest.mark.parametrize(
        ("name", "kind", "words"),
        [
            ("typed", str, ("takes int", "str")),
            ("typed", object, ("takes int", "object")),
            ("typed", bool, ("takes int", "bool")),
            ("typed", int | str, ("takes int", "int | str")),
            ("union", int, ("takes int | str", "int")),
            ("union", typing.Optional[int], ("takes int | str", "int | NoneType")),  # noqa: UP045 - as people write it
        ],
    )
    def test_one_name_with_two_types(self, bus: EventBus, name: str, kind: Any, words: tuple[str, ...]) -> None:
        """A topic has one type for good; the error knows both."""
        expected = bus.topics[name].type
        with refused(bus, PayloadTypeError, f"topic '{name}'", *words) as raised:
            bus.topic(name, kind)
        error: Any = raised.value
        assert (name, expected, kind) == (error.topic, error.expected, error.found)

    @pytest.mark.parametrize(
        ("name", "kind"),
        [("typed", int), ("typed", None), ("union", int | str), ("union", str | int), ("union", typing.Union[int, str])],  # noqa: UP007
    )
    def test_one_name_with_one_type(self, bus: EventBus, name: str, kind: Any) -> None:
        """Asking again with the same type, in any notation, or with none, gives the same topic."""
        before = state(bus)
        assert bus.topics[name] is bus.topic(name, kind)
        assert before == state(bus)


class TestOptions:
    """What subscriptions are given besides a handler."""

    class Other(enum.Enum):
        """An enum with the same members as `Overflow`."""

        BLOCK = "block"

    @pytest.mark.parametrize("value", ["drop_oldest", "BLOCK", 3, True, Overflow, Other.BLOCK, [Overflow.BLOCK], Retry()], ids=label)
    @pytest.mark.parametrize(
        "call",
        [
            lambda bus, value: EventBus(overflow=value),
            lambda bus, value: MailboxSubject(overflow=value),
            lambda bus, value: operators.mailbox(overflow=value),
            lambda bus, value: bus.observe("plain", overflow=value),
            lambda bus, value: bus.subscribe("plain", handler, overflow=value, to="fresh"),
            lambda bus, value: bus.on("plain", overflow=value)(handler),
        ],
        ids=["EventBus", "MailboxSubject", "mailbox", "observe", "subscribe", "on"],
    )
    def test_overflow(self, bus: EventBus, call: Call, value: Any) -> None:
        """A policy is a member of `Overflow`, neither its name nor its value."""
        with refused(bus, TypeError, "overflow must be an Overflow", "got "):
            call(bus, value)

    @pytest.mark.parametrize("value", [3, "3", True, 0, False, Retry, {"max_attempts": 3}, ValueError, handler], ids=label)
    @pytest.mark.parametrize(
        "call",
        [
            lambda bus, value: bus.subscribe("plain", handler, retry=value, to="fresh"),
            lambda bus, value: bus.on("plain", retry=value)(handler),
            lambda bus, value: operators.attempt(handler, retry=value),
        ],
        ids=["subscribe", "on", "attempt"],
    )
    def test_retry(self, bus: EventBus, call: Call, value: Any) -> None:
        """A retry is a `Retry`, not a number of attempts."""
        with refused(bus, TypeError, "retry must be a Retry", "got "):
            call(bus, value)

    @pytest.mark.parametrize("value", ["pool", 3, True, False, ThreadPoolScheduler, WorkerPool, object(), handler], ids=label)
    @pytest.mark.parametrize(
        "call",
        [
            lambda bus, value: EventBus(scheduler=value),
            lambda bus, value: MailboxSubject(scheduler=value),
            lambda bus, value: operators.mailbox(scheduler=value),
            lambda bus, value: bus.observe("plain", scheduler=value),
            lambda bus, value: bus.subscribe("plain", handler, scheduler=value, to="fresh"),
            lambda bus, value: bus.on("plain", scheduler=value)(handler),
        ],
        ids=["EventBus", "MailboxSubject", "mailbox", "observe", "subscribe", "on"],
    )
    def test_scheduler(self, bus: EventBus, call: Call, value: Any) -> None:
        """A scheduler is an instance of one of RxPY's, or a `WorkerPool`."""
        with refused(bus, TypeError, "scheduler must be", "got "):
            call(bus, value)

    @pytest.mark.parametrize(
        ("value", "kind"),
        [("", ValueError), (" \n", ValueError), (3, TypeError), (b"x", TypeError), (True, TypeError), (["x"], TypeError), (str, TypeError)],
        ids=label,
    )
    @pytest.mark.parametrize(
        "call",
        [
            lambda bus, value: EventBus(value),
            lambda bus, value: bus.observe("plain", name=value),
            lambda bus, value: bus.subscribe("plain", handler, name=value, to="fresh"),
            lambda bus, value: bus.on("plain", name=value)(handler),
        ],
        ids=["EventBus", "observe", "subscribe", "on"],
    )
    def test_name(self, bus: EventBus, call: Call, value: Any, kind: type[Exception]) -> None:
        """A name is a string with something in it."""
        with refused(bus, kind, "name must"):
            call(bus, value)

    @pytest.mark.parametrize("pattern", ["plain", "fresh", "user.*", "fresh.*"])
    @pytest.mark.parametrize(
        "options",
        [{}, {"to": "out"}, {"to": "fresh2"}, {"through": ops.map(lambda e: e)}],
        ids=["alone", "feeding", "feeding a new topic", "through"],
    )
    def test_name_that_is_taken(self, bus: EventBus, pattern: str, options: dict[str, Any]) -> None:
        """Two living subscriptions never share a name, and the one that comes too late leaves nothing behind."""
        with refused(bus, ValueError, "name 'reader' is taken", "'house'"):
            bus.subscribe(pattern, handler, name="reader", **options)
        with refused(bus, ValueError, "name 'reader' is taken"):
            bus.on(pattern, name="reader", **options)(handler)

    def test_name_that_an_observer_has(self, bus: EventBus) -> None:
        """The observer of a composed chain is a living subscription too."""
        bus.observe("plain", name="chain").subscribe(handler)
        with refused(bus, ValueError, "name 'chain' is taken"):
            bus.subscribe("plain", handler, name="chain")

    def test_name_that_is_free_again(self, bus: EventBus) -> None:
        """The name of a disposed subscription may be used again."""
        bus.subscriptions["reader"].dispose()
        assert "reader" == bus.subscribe("plain", handler, name="reader").name

    @pytest.mark.parametrize("value", [3, "map", True, False, object(), [ops.map(handler)], Event("plain", 1), ops], ids=label)
    def test_through_that_is_not_callable(self, bus: EventBus, value: Any) -> None:
        """A pipeline is an operator, a function from observable to observable."""
        with refused(bus, TypeError, "through must be an RxPY operator", "got "):
            bus.subscribe("plain", handler, through=value, to="fresh")
        with refused(bus, TypeError, "through must be an RxPY operator", "got "):
            bus.on("plain", through=value)(handler)

    @pytest.mark.parametrize("pattern", ["plain", "fresh", "user.*"])
    @pytest.mark.parametrize("to", [None, "out", "fresh2"])
    @pytest.mark.parametrize(
        "value",
        [lambda source: None, lambda source: 3, lambda source: [source], ops.map, ops.filter, str, handler],
        ids=["none", "int", "list", "map without its call", "filter without its call", "class", "function"],
    )
    def test_through_that_returns_no_observable(self, bus: EventBus, value: Any, pattern: str, to: str | None) -> None:
        """An operator that returns something else, such as one that was not called, is seen at once, not at the first event."""
        with refused(bus, TypeError, "through must be an RxPY operator", "observable", "returned "):
            bus.subscribe(pattern, handler, through=value, to=to)

    @pytest.mark.parametrize("value", [lambda: None, lambda a, b: a, lambda *, source: source], ids=["none", "two", "keyword"])
    def test_through_that_takes_no_observable(self, bus: EventBus, value: Any) -> None:
        """A function that can't be called with one observable is no operator."""
        with refused(bus, TypeError, "through must be an RxPY operator"):
            bus.subscribe("plain", handler, through=value, to="fresh")

    @pytest.mark.parametrize("pattern", ["plain", "fresh", "user.*"])
    def test_through_that_raises(self, bus: EventBus, pattern: str) -> None:
        """An operator that raises while it is composed raises to the one who gave it, and leaves nothing behind."""

        def through(source: Any) -> Any:
            raise ZeroDivisionError("composed wrongly")

        with refused(bus, ZeroDivisionError, "composed wrongly"):
            bus.subscribe(pattern, handler, through=through, to="fresh2")

    @pytest.mark.parametrize("value", [3, True, False, 0, [], ["out"], {"out": 1}, handler, Topic, Subject(), Event("out", 1)], ids=label)
    def test_to_that_is_no_topic(self, bus: EventBus, value: Any) -> None:
        """Results go to a topic or a name, nothing else."""
        with refused(bus, TopicNameError, "to must be a name", "got "):
            bus.subscribe("plain", handler, to=value)

    @pytest.mark.parametrize(
        "options",
        [
            {"capacity": 0},
            {"overflow": "drop"},
            {"retry": 3},
            {"scheduler": "pool"},
            {"name": ""},
            {"to": "out.*"},
            {"through": 3},
            {"nonsense": 1},
        ],
        ids=str,
    )
    def test_decorator_refuses_before_it_decorates(self, bus: EventBus, options: dict[str, Any]) -> None:
        """What `on` is given is checked by `on` itself, before there is a function to decorate."""
        before = state(bus)
        with pytest.raises((TypeError, ValueError), match=next(iter(options))):
            bus.on("plain", **options)
        assert before == state(bus)

    @pytest.mark.parametrize("pattern", ["a b", "", 3, "a.>.b"])
    def test_decorator_refuses_a_bad_pattern_before_it_decorates(self, bus: EventBus, pattern: Any) -> None:
        """The pattern of `on` is checked by `on` itself too."""
        with refused(bus, TopicNameError, "pattern"):
            bus.on(pattern)

    @pytest.mark.parametrize("value", [3, "double", None, Subject()], ids=["int", "str", "none", "subject"])
    def test_attempt(self, bus: EventBus, value: Any) -> None:
        """What is attempted is a function, and its letters go to an observer."""
        with refused(bus, TypeError, "fn must be callable", "got "):
            operators.attempt(value)
        if not isinstance(value, Subject | None):
            with refused(bus, TypeError, "dead_letters must be an observer", "got "):
                operators.attempt(handler, dead_letters=value)

    @pytest.mark.parametrize("value", ["plain", None, 3, Subject(), Topic], ids=["name", "none", "int", "subject", "class"])
    def test_publish_to(self, bus: EventBus, value: Any) -> None:
        """What is published to is a topic; a name belongs to no bus."""
        with refused(bus, TypeError, "topic must be a Topic", "got "):
            operators.publish_to(value)


CLOSED: dict[str, Callable[[EventBus], object]] = {
    "publish": lambda bus: bus.publish("plain", 1),
    "publish to a new topic": lambda bus: bus.publish("fresh", 1),
    "publish to a topic": lambda bus: bus.publish(bus.topics["plain"], 1),
    "publish event": lambda bus: bus.publish(Event("plain", 1)),
    "publish new event": lambda bus: bus.publish(Event("fresh", 1)),
    "publish_many": lambda bus: bus.publish_many("plain", [1, 2]),
    "publish_many to a new topic": lambda bus: bus.publish_many("fresh", [1, 2]),
    "deliver": lambda bus: bus.deliver("plain", 1, timeout=10),
    "deliver to a new topic": lambda bus: bus.deliver("fresh", 1, timeout=10),
    "emit": lambda bus: bus.topics["plain"].emit(1),
    "on_next": lambda bus: bus.topics["plain"].on_next(1),
    "new topic": lambda bus: bus.topic("fresh"),
    "new topic with a type": lambda bus: bus.topic("fresh", int),
    "subscribe": lambda bus: bus.subscribe("plain", handler),
    "subscribe to a new topic": lambda bus: bus.subscribe("fresh", handler),
    "subscribe to a pattern": lambda bus: bus.subscribe("user.*", handler),
    "subscribe to a topic": lambda bus: bus.subscribe(bus.topics["plain"], handler),
    "subscribe and feed a new topic": lambda bus: bus.subscribe("plain", handler, to="fresh"),
    "subscribe through": lambda bus: bus.subscribe("plain", handler, through=ops.map(handler)),
    "on": lambda bus: bus.on("plain")(handler),
    "observe": lambda bus: bus.observe("plain").subscribe(handler),
    "observe a new topic": lambda bus: bus.observe("fresh").subscribe(handler),
    "observe a pattern": lambda bus: bus.observe("user.*").subscribe(handler),
}


class TestClosed:
    """A bus that takes nothing more."""

    @pytest.mark.parametrize("call", CLOSED.values(), ids=CLOSED)
    @pytest.mark.parametrize("drain", [True, False], ids=["drained", "dropped"])
    def test_closed_bus(self, bus: EventBus, call: Callable[[EventBus], object], drain: bool) -> None:
        """Whoever publishes, subscribes, observes or makes a topic after the end is told so, and nothing changes."""
        bus.close(drain=drain)
        with refused(bus, BusClosedError, "bus 'house' is closed") as raised:
            call(bus)
        error: Any = raised.value
        assert "house" == error.name
        assert isinstance(error, BusError)
        assert isinstance(error, RuntimeError)

    @pytest.mark.parametrize("call", CLOSED.values(), ids=CLOSED)
    def test_closing_bus(self, bus: EventBus, call: Callable[[EventBus], object]) -> None:
        """From the call of `close` on, those outside are refused, while a handler is still at work."""
        closing, gate = threading.Event(), threading.Event()

        def slow(event: Any) -> None:
            bus.close(10)
            closing.set()
            gate.wait(10)

        try:
            bus.subscribe("slow", slow)
            bus.publish("slow", 1)
            assert closing.wait(10)
            with refused(bus, BusClosedError, "bus 'house' is closed"):
                call(bus)
        finally:
            gate.set()
            bus.close(10)

    @pytest.mark.parametrize("name", ["", "a b", "user.*", None])
    def test_bad_name_on_a_closed_bus(self, bus: EventBus, name: Any) -> None:
        """A bad name is a bad name on a closed bus too."""
        bus.close()
        with refused(bus, TopicNameError, "topic"):
            bus.publish(name, 1)

    @pytest.mark.parametrize("drain", ["no", 0, 1, None])
    def test_closing_with_or_without_draining(self, bus: EventBus, drain: Any) -> None:
        """What is neither is refused before anything happened."""
        with refused(bus, TypeError, "drain must be True or False", "got"):
            bus.close(drain=drain)
        with refused(bus, TypeError, "drain must be True or False", "got"):
            asyncio.run(bus.aclose(drain=drain))
        bus.publish("a", 1)

    def test_closing_again(self, bus: EventBus) -> None:
        """A bad timeout is refused by a closed bus too; a good one gets the report again."""
        report = bus.close()
        with refused(bus, ValueError, "timeout must be"):
            bus.close(-1)
        with refused(bus, TypeError, "drain must be True or False, got 'no'"):
            bus.close(drain="no")  # type: ignore[arg-type]
        assert report is bus.close()


class TestMessages:
    """Findings that can't be shown, or not in one line."""

    CALLS: dict[str, tuple[str, Call]] = {
        "topic": ("topic", lambda bus, value: bus.publish(value, 1)),
        "pattern": ("pattern", lambda bus, value: bus.subscribe(value, handler)),
        "forget": ("name", lambda bus, value: bus.forget(value)),
        "handler": ("handler", lambda bus, value: bus.subscribe("plain", value)),
        "to": ("to", lambda bus, value: bus.subscribe("plain", handler, to=value)),
        "name": ("name", lambda bus, value: bus.subscribe("plain", handler, name=value)),
        "capacity": ("capacity", lambda bus, value: bus.subscribe("plain", handler, capacity=value)),
        "overflow": ("overflow", lambda bus, value: bus.subscribe("plain", handler, overflow=value)),
        "retry": ("retry", lambda bus, value: bus.subscribe("plain", handler, retry=value)),
        "scheduler": ("scheduler", lambda bus, value: bus.subscribe("plain", handler, scheduler=value)),
        "through": ("through", lambda bus, value: bus.subscribe("plain", handler, through=value)),
        "returned": ("through", lambda bus, value: bus.subscribe("plain", handler, through=lambda source: value)),
        "metadata": ("metadata", lambda bus, value: bus.publish("plain", 1, metadata=value)),
        "key": ("metadata", lambda bus, value: bus.publish("plain", 1, metadata={value: 1})),
        "payloads": ("payloads", lambda bus, value: bus.publish_many("plain", value)),
        "alone": ("publish", lambda bus, value: bus.publish(value)),
        "timeout": ("timeout", lambda bus, value: bus.drain(value)),
        "wait": ("wait", lambda bus, value: bus.subscriptions["reader"].dispose(value)),
        "type": ("type", lambda bus, value: bus.topic("plain", value)),
        "payload": ("typed", lambda bus, value: bus.publish("typed", value)),
        "bus name": ("name", lambda bus, value: EventBus(value)),
        "workers": ("workers", lambda bus, value: EventBus(workers=value)),
        "on": ("on", lambda bus, value: Retry(on=value)),
        "max_attempts": ("max_attempts", lambda bus, value: Retry(max_attempts=value)),
        "fn": ("fn", lambda bus, value: operators.attempt(value)),
        "publish_to": ("topic", lambda bus, value: operators.publish_to(value)),
        "id": ("id", lambda bus, value: Event("plain", 1, id=value)),
    }

    @pytest.mark.parametrize("value", [Silent(), Wordy()], ids=["silent", "wordy"])
    @pytest.mark.parametrize(("argument", "call"), CALLS.values(), ids=CALLS)
    def test_one_line_whatever_was_found(self, bus: EventBus, argument: str, call: Call, value: Any) -> None:
        """A value whose own text raises, or has many lines, is refused in one line by the name of its argument."""
        before = state(bus)
        with pytest.raises((TypeError, TopicNameError), match=rf"\b{argument}\b") as raised:
            call(bus, value)
        assert 1 == len(str(raised.value).splitlines())
        assert before == state(bus)

    @pytest.mark.parametrize(("argument", "call"), CALLS.values(), ids=CALLS)
    def test_short_whatever_was_found(self, bus: EventBus, argument: str, call: Call) -> None:
        """A value whose text fills a book is cut short."""
        with pytest.raises((TypeError, TopicNameError), match=rf"\b{argument}\b") as raised:
            call(bus, frozenset(range(10_000)) if argument != "payloads" else 10**1_000)
        assert len(str(raised.value)) < 300


class TestNothingHappened:
    """Refusals that come late leave nothing behind either."""

    def test_deliver_from_an_inline_handler(self) -> None:
        """`deliver` where it would wait for itself makes no topic."""
        seen: list[list[str]] = []

        def inline(event: Any) -> None:
            with pytest.raises(BusError, match=r"topic 'made\.fresh'"):
                bus.deliver("made.fresh", 1)
            seen.append(list(bus.topics))

        with EventBus(scheduler=ImmediateScheduler()) as bus:
            bus.subscribe("a", inline)
            bus.subscribe("made.*", lambda _: None)
            bus.publish("a", 1)
            assert [["a"]] == seen

    def test_refused_calls_wake_nobody(self, bus: EventBus) -> None:
        """After refusals of all kinds the readers have seen exactly what was published well."""
        seen: list[Any] = []
        bus.subscribe("typed", lambda e: seen.append(e.payload), name="witness")
        bus.deliver("typed", 1, timeout=10)
        for call in (
            lambda: bus.publish("typed", "x"),
            lambda: bus.publish("typed", 2, metadata=[]),  # type: ignore[arg-type]
            lambda: bus.publish_many("typed", [2, 3, "x"]),
            lambda: bus.deliver("typed", 2, timeout=-1),
            lambda: bus.publish("typed.*", 2),
            lambda: bus.publish(Event("typed", None)),
        ):
            with pytest.raises((TypeError, ValueError)):
                call()
        bus.deliver("typed", 4, timeout=10)
        assert [1, 4] == seen

"""The envelope: frozen, identified, and with its causes."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import threading
import time
import typing
from collections import UserDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from rxbus import Delivery, Event, EventBus, TopicNameError, current

ROOT = Path(__file__).parent.parent
PUBLIC = ("topic", "payload", "metadata", "id", "time", "correlation_id", "causation_id", "hops")


def run(*arguments: str) -> list[str]:
    """What a fresh interpreter prints, word by word; its warnings are errors."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (0, "") == (done.returncode, done.stderr)
    return done.stdout.split()


def facts(event: Event[Any]) -> dict[str, Any]:
    """All that an event tells in public."""
    return {name: getattr(event, name) for name in PUBLIC}


class TestDefaults:
    """What an event is when nothing but a topic and a payload is given."""

    def test_topic_and_payload_are_what_was_given(self) -> None:
        """The payload travels by reference."""
        payload = ["tides"]
        event = Event("user.query", payload)
        assert "user.query" == event.topic
        assert payload is event.payload

    def test_first_event_begins_a_story(self) -> None:
        """Without causes the event is its own correlation, has no cause, no hops and no metadata."""
        event = Event("a", 1)
        assert event.id == event.correlation_id
        assert event.causation_id is None
        assert 0 == event.hops
        assert {} == event.metadata

    def test_time_is_the_present(self) -> None:
        """The time is that of the making, in Unix seconds."""
        before = time.time()
        event = Event("a", 1)
        assert before <= event.time <= time.time()

    def test_everything_given_is_kept(self) -> None:
        """Each argument comes back as the attribute of its name."""
        event = Event("a.b", None, {"user": "ada"}, id="e", time=12, correlation_id="c", causation_id="p", hops=4)
        expected = {
            "topic": "a.b",
            "payload": None,
            "metadata": {"user": "ada"},
            "id": "e",
            "time": 12.0,
            "correlation_id": "c",
            "causation_id": "p",
            "hops": 4,
        }
        assert expected == facts(event)
        assert float is type(event.time)

    def test_given_id_is_the_correlation_of_a_first_event(self) -> None:
        """An event with an id of the caller's begins a story of that id."""
        assert "mine" == Event("a", 1, id="mine").correlation_id

    def test_cause_without_story_keeps_its_own(self) -> None:
        """A causation id alone doesn't make the event part of another story."""
        event = Event("a", 1, causation_id="p")
        assert event.id == event.correlation_id

    def test_generic_call(self) -> None:
        """``Event[int](...)`` is an `Event` like any other."""
        event = Event[int]("a", 1)
        assert Event is type(event)
        assert 1 == event.payload

    def test_repr_tells_topic_payload_and_id(self) -> None:
        """A reader of a log recognises the event."""
        assert "Event('a', 'tides', id='e')" == repr(Event("a", "tides", id="e"))

    def test_repr_survives_the_payload(self) -> None:
        """A payload that can't be shown, or is long, doesn't make the event so."""

        class Shy:
            def __repr__(self) -> str:
                raise RuntimeError("no")

        assert "Event('a', <Shy>, id='e')" == repr(Event("a", Shy(), id="e"))
        assert len(repr(Event("a", "x" * 10_000))) < 200


class TestArguments:
    """Every bad argument of an event is refused where it is given, by name."""

    @pytest.mark.parametrize("argument", ["id", "correlation_id", "causation_id"])
    @pytest.mark.parametrize(("value", "kind"), [(5, TypeError), (b"e", TypeError), (True, TypeError), ("", ValueError), (" ", ValueError)])
    def test_ids_are_text(self, argument: str, value: Any, kind: type[Exception]) -> None:
        """An id that is no string, or a blank one, is refused."""
        with pytest.raises(kind, match=rf"^{argument} must"):
            Event("a", 1, **{argument: value})

    @pytest.mark.parametrize(
        ("value", "kind"),
        [
            (-1, ValueError),
            (float("nan"), ValueError),
            (float("inf"), ValueError),
            (10**400, ValueError),
            (True, TypeError),
            ("1", TypeError),
        ],
        ids=["negative", "nan", "inf", "huge", "bool", "str"],
    )
    def test_time_is_a_number_of_seconds(self, value: Any, kind: type[Exception]) -> None:
        """A time that is no finite number of seconds since 1970 is refused."""
        with pytest.raises(kind, match=r"^time must"):
            Event("a", 1, time=value)

    @pytest.mark.parametrize(
        ("value", "kind"), [(-1, ValueError), (True, TypeError), (1.0, TypeError), ("1", TypeError), (None, TypeError)]
    )
    def test_hops_are_counted(self, value: Any, kind: type[Exception]) -> None:
        """Hops are a whole number of at least 0."""
        with pytest.raises(kind, match=r"^hops must"):
            Event("a", 1, hops=value)

    @pytest.mark.parametrize("topic", ["", "a.*", "a..b", None, 5])
    def test_topic_is_a_name(self, topic: Any) -> None:
        """What names no topic is refused, in a child as well."""
        with pytest.raises(TopicNameError, match=r"^topic "):
            Event(topic, 1)
        with pytest.raises(TopicNameError, match=r"^topic "):
            Event("a", 1).derive(topic, 1)

    @pytest.mark.parametrize("metadata", [[], 3, "user=ada", [("user", "ada")], {"user"}, {1: "ada"}, {None: 1}, {"user": 1, b"b": 2}])
    def test_metadata_is_a_mapping_with_str_keys(self, metadata: Any) -> None:
        """What is no such mapping is refused, in a child as well."""
        with pytest.raises(TypeError, match=r"^metadata "):
            Event("a", 1, metadata)
        with pytest.raises(TypeError, match=r"^metadata "):
            Event("a", 1).derive("b", 1, metadata)


class TestFrozen:
    """Nothing that a subscriber does to an event reaches another one."""

    @pytest.mark.parametrize("name", PUBLIC)
    def test_attributes_are_read_only(self, name: str) -> None:
        """No attribute can be set or deleted."""
        event = Event("a", 1)
        before = facts(event)
        with pytest.raises(AttributeError):
            setattr(event, name, "other")
        with pytest.raises(AttributeError):
            delattr(event, name)
        assert before == facts(event)

    def test_slotted(self) -> None:
        """An event has no room for attributes of others."""
        event: Any = Event("a", 1)
        with pytest.raises(AttributeError):
            event.note = "hello"
        assert not hasattr(event, "__dict__")

    @pytest.mark.parametrize(
        "change",
        [
            lambda m: m.__setitem__("user", "eve"),
            lambda m: m.__delitem__("user"),
            lambda m: m.clear(),
            lambda m: m.update(user="eve"),
            lambda m: m.pop("user"),
            lambda m: m.setdefault("role", "root"),
            lambda m: m.__ior__({"user": "eve"}),
        ],
        ids=["set", "delete", "clear", "update", "pop", "setdefault", "or"],
    )
    @pytest.mark.parametrize("child", [False, True], ids=["given", "inherited"])
    def test_metadata_is_read_only(self, change: Callable[[Any], object], child: bool) -> None:
        """No way of changing a dictionary works on metadata, given or inherited."""
        event = Event("a", 1, {"user": "ada"})
        if child:
            event = event.derive("b", 2)
        with pytest.raises((AttributeError, TypeError)):
            change(event.metadata)
        assert {"user": "ada"} == event.metadata

    @pytest.mark.parametrize("wrap", [lambda d: d, MappingProxyType, UserDict], ids=["dict", "proxy", "user dict"])
    def test_metadata_is_a_copy(self, wrap: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
        """Whoever gave the metadata and changes it afterwards changes his own only, even behind a proxy."""
        given = {"user": "ada"}
        mapping = wrap(given)
        event = Event("a", 1, mapping)
        child = event.derive("b", 1, mapping)
        target: Any = mapping if isinstance(mapping, UserDict) else given
        target["user"] = "eve"
        assert {"user": "ada"} == event.metadata
        assert {"user": "ada"} == child.metadata

    def test_metadata_is_a_mapping(self) -> None:
        """Metadata is looked up and walked through like any mapping."""
        metadata = Event("a", 1, {"user": "ada", "n": 1}).metadata
        assert isinstance(metadata, Mapping)
        assert [("user", "ada"), ("n", 1)] == list(metadata.items())


class TestEquality:
    """An event is its id."""

    def test_equal_and_hashed_by_id(self) -> None:
        """Two events of one id are one, whatever else they say, also with payloads that have no hash."""
        one, two = Event("a", [1], id="e"), Event("b", {2}, {"k": 1}, id="e", hops=3)
        assert one == two
        assert hash(one) == hash(two)
        assert 1 == len({one, two})

    def test_different_ids_differ(self) -> None:
        """Two events of the same content, made one after the other, are two."""
        one, two = Event("a", 1, time=5), Event("a", 1, time=5)
        assert one != two
        assert 2 == len({one, two})

    @pytest.mark.parametrize("other", ["e", 1, None, ("a", 1), object()])
    def test_differs_from_everything_else(self, other: object) -> None:
        """An event equals no value of another kind, its id included."""
        assert Event("a", 1, id="e") != other

    def test_other_types_may_have_their_say(self) -> None:
        """A comparison with what knows events is left to that."""

        class Agreeable:
            def __eq__(self, other: object) -> bool:
                return True

            __hash__ = None  # type: ignore[assignment]

        assert Event("a", 1) == Agreeable()


class TestIds:
    """An id is unique, in all threads and processes."""

    def test_threads_never_share_one(self) -> None:
        """Events made by eight threads at once have as many ids as there are events."""
        barrier = threading.Barrier(8)

        def make() -> list[str]:
            barrier.wait(10)
            return [Event("a", n).id for n in range(5_000)]

        with ThreadPoolExecutor(8) as pool:
            futures = [pool.submit(make) for _ in range(8)]
            ids = [one for future in futures for one in future.result(30)]
        assert 40_000 == len(set(ids))

    def test_every_way_of_making_one_draws_from_the_same_numbers(self) -> None:
        """Constructed, derived and published events never collide."""
        with EventBus() as bus:
            ids = []
            for _ in range(100):
                event = Event("a", 1)
                ids += [event.id, event.derive("b", 1).id, bus.publish("c", 1).id, *(e.id for e in bus.publish_many("d", [1, 2]))]
        assert 500 == len(set(ids))

    def test_id_stays(self) -> None:
        """The same event tells the same id each time."""
        event = Event("a", 1)
        assert event.id == event.id
        assert str is type(event.id)
        assert event.id

    def test_fresh_processes_never_share_one(self) -> None:
        """Two interpreters that make the same events give them different ids."""
        script = "from rxbus import Event\nfor n in range(500): print(Event('a', n).id)"
        assert 1_000 == len({*run("-c", script), *run("-c", script)})

    def test_forked_processes_never_share_one(self) -> None:
        """A process, its two children and a grandchild, forked in the middle of making events, have no id in common."""
        script = """
import os, sys
from rxbus import Event

def make():
    for n in range(300):
        print(Event("a", n).id)
    sys.stdout.flush()

def fork(child):
    pid = os.fork()
    if pid == 0:
        child()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0

make()
fork(lambda: (make(), fork(make), make()))
make()
fork(make)
make()
"""
        ids = run("-c", script)
        assert 300 * 7 == len(ids)
        assert len(ids) == len(set(ids))

    @pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
    def test_multiprocessing_never_shares_one(self, method: str, tmp_path: Path) -> None:
        """Whatever way a worker process is started, its ids are its own, and an event sent back keeps its."""
        script = tmp_path / "many.py"
        script.write_text(
            f"""
import multiprocessing
from rxbus import Event

def make(n):
    event = Event("a", n)
    return event.id, event

if __name__ == "__main__":
    for n in range(100):
        print(Event("a", n).id)
    with multiprocessing.get_context({method!r}).Pool(2) as pool:
        for id, event in pool.map(make, range(200)):
            assert id == event.id
            print(id)
    for n in range(100):
        print(Event("a", n).id)
""",
            encoding="utf-8",
        )
        ids = run(str(script))
        assert 400 == len(ids)
        assert len(ids) == len(set(ids))

    def test_event_from_before_a_fork_keeps_its_id(self) -> None:
        """Parent and child call an event by one id although neither had asked for it before the fork."""
        script = """
import os, sys
from rxbus import Event
parent = Event("a", 1)
event = parent.derive("b", 2)
pid = os.fork()
if pid:
    os.waitpid(pid, 0)  # one after the other, so that their words don't mix
Event("a", 3)
print(event.id, event.causation_id, event.correlation_id, parent.id)
sys.stdout.flush()
if not pid:
    os._exit(0)
"""
        told = run("-c", script)
        assert 8 == len(told)
        assert told[:4] == told[4:]
        assert told[1] == told[2] == told[3]


class TestCopies:
    """Pickles and copies are the same event."""

    EVENTS = [
        Event("a", 1),
        Event("a.b", {"k": [1]}, {"user": "ada"}, id="e", time=3.5, correlation_id="c", causation_id="p", hops=7),
        Event("a", "x", {"user": "ada"}).derive("b", "y").derive("c", ["z"], {"role": "admin"}),
        Event[int]("χρήστης", 1),
    ]

    @pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
    @pytest.mark.parametrize("event", EVENTS, ids=["first", "full", "grandchild", "generic"])
    def test_pickle_round_trip(self, event: Event[Any], protocol: int) -> None:
        """A pickled event comes back with everything that it told, and as read-only as before."""
        back = pickle.loads(pickle.dumps(event, protocol))
        assert event == back
        assert facts(event) == facts(back)
        with pytest.raises(TypeError):
            back.metadata["user"] = "eve"

    def test_story_goes_on_after_a_pickle(self) -> None:
        """The child of an unpickled event has the causes that the child of the original would have."""
        event = Event("a", 1, {"user": "ada"}).derive("b", 2)
        child = pickle.loads(pickle.dumps(event)).derive("c", 3)
        assert (event.correlation_id, event.id, 2) == (child.correlation_id, child.causation_id, child.hops)
        assert {"user": "ada"} == child.metadata

    def test_copy_is_the_event(self) -> None:
        """A shallow copy of what can't change is the thing itself."""
        event = Event("a", [1])
        assert event is copy.copy(event)

    @pytest.mark.parametrize("event", EVENTS, ids=["first", "full", "grandchild", "generic"])
    def test_deepcopy_has_all_facts(self, event: Event[Any]) -> None:
        """A deep copy is the same event."""
        twin = copy.deepcopy(event)
        assert event == twin
        assert facts(event) == facts(twin)

    def test_deepcopy_has_a_payload_and_metadata_of_its_own(self) -> None:
        """What is done to the payload of a deep copy doesn't reach the original."""
        event = Event("a", [1], {"tags": ["x"]})
        twin = copy.deepcopy(event)
        twin.payload.append(2)
        twin.metadata["tags"].append("y")
        assert [1] == event.payload
        assert ["x"] == event.metadata["tags"]


class TestDerive:
    """A child continues the story of its parent."""

    def test_causality(self) -> None:
        """Each generation keeps the correlation, names its parent as the cause, and is one hop further."""
        first = Event("a", 1)
        second = first.derive("b", 2)
        third = second.derive("c", 3)
        assert [first.id] * 3 == [e.correlation_id for e in (first, second, third)]
        assert [None, first.id, second.id] == [e.causation_id for e in (first, second, third)]
        assert [0, 1, 2] == [e.hops for e in (first, second, third)]
        assert 3 == len({first, second, third})

    def test_causality_of_given_ids(self) -> None:
        """The ids that a caller chose are inherited like any others."""
        child = Event("a", 1, id="e", correlation_id="c", causation_id="p", hops=5).derive("b", 2)
        assert ("c", "e", 6) == (child.correlation_id, child.causation_id, child.hops)

    def test_topic_payload_and_time_are_its_own(self) -> None:
        """A child inherits neither what happened nor where or when."""
        child = Event("a", 1, time=5.0).derive("b", "x")
        assert ("b", "x") == (child.topic, child.payload)
        assert child.time > 5.0

    @pytest.mark.parametrize(
        ("inherited", "given", "expected"),
        [
            (None, None, {}),
            ({}, {}, {}),
            ({"user": "ada"}, None, {"user": "ada"}),
            ({"user": "ada"}, {}, {"user": "ada"}),
            (None, {"role": "x"}, {"role": "x"}),
            ({"user": "ada"}, {"role": "x"}, {"user": "ada", "role": "x"}),
            ({"user": "ada", "role": "x"}, {"user": "eve"}, {"user": "eve", "role": "x"}),
            ({"user": "ada"}, {"user": None}, {"user": None}),
        ],
    )
    def test_metadata_is_inherited_and_given_keys_win(
        self, inherited: dict[str, Any] | None, given: dict[str, Any] | None, expected: dict[str, Any]
    ) -> None:
        """The child has the parent's metadata and its own, its own first; the parent's stays as it was."""
        parent = Event("a", 1, inherited)
        child = parent.derive("b", 2, given)
        assert expected == child.metadata
        assert (inherited or {}) == parent.metadata

    def test_metadata_reaches_the_grandchild(self) -> None:
        """What one generation adds, all later ones have."""
        grandchild = Event("a", 1, {"user": "ada"}).derive("b", 2, {"step": 1}).derive("c", 3, {"step": 2})
        assert {"user": "ada", "step": 2} == grandchild.metadata

    def test_the_same_name_may_be_derived_to(self) -> None:
        """A child may go to the topic of its parent."""
        assert "a" == Event("a", 1).derive("a", 2).topic


class TestCurrent:
    """Code deep inside a handler can ask what it is working on."""

    def test_nothing_outside_of_a_handler(self) -> None:
        """Where nothing is handled there is no delivery."""
        assert current() is None

    def test_tells_event_subscription_and_attempt(self) -> None:
        """Inside a handler it is the event, the subscription that it came through, and the first attempt."""
        seen: list[Delivery | None] = []
        with EventBus() as bus:
            subscription = bus.subscribe("a", lambda _: seen.append(current()))
            event = bus.deliver("a", 1, timeout=10).event
        assert [(event, subscription, 1)] == seen
        assert isinstance(seen[0], Delivery)
        assert current() is None

    def test_payload_published_by_a_handler_is_a_child(self) -> None:
        """A bare payload published while an event is handled continues its story, metadata included."""
        children: list[Event[Any]] = []
        with EventBus() as bus:
            bus.subscribe("a", lambda _: children.append(bus.publish("b", 2, metadata={"step": 1})))
            event = bus.deliver("a", 1, metadata={"user": "ada"}, timeout=10).event
        assert [(event.id, event.id, 1)] == [(c.correlation_id, c.causation_id, c.hops) for c in children]
        assert {"user": "ada", "step": 1} == children[0].metadata


class TestTypes:
    """What the annotations say about an event."""

    def test_signature_is_the_documented_one(self) -> None:
        """The first three arguments may be given by position, the others by name only."""
        with pytest.raises(TypeError):
            Event("a", 1, None, "id")  # type: ignore[misc]
        assert {"user": "ada"} == Event(topic="a", payload=1, metadata={"user": "ada"}).metadata

    def test_generic_in_its_payload(self) -> None:
        """``Event[int]`` is a type that annotations can use."""
        assert (int,) == typing.get_args(Event[int])

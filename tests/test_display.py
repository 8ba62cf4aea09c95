"""What a notebook shows of things: text and HTML, escaped, cut, and never an exception."""

from __future__ import annotations

import re
import threading
from typing import Any
from xml.etree import ElementTree

import pytest
import reactivex

from rxbus import CloseReport, DeadLetter, Event, EventBus, Overflow, Reason
from rxbus.card import ROWS, Card
from rxbus.display import Shown, bundle
from rxbus.notebook import marbles
from rxbus.testing import VirtualBus, record

from .support import LIMIT, Gate

HOSTILE = "</div><script>alert(1)</script>\x1b[31m\u202e"


class Broken:
    """Its `repr` raises."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


class BrokenError(Exception):
    """Its texts raise."""

    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


def fail(event: Any) -> None:
    raise ValueError(HOSTILE)


def shown(thing: Any) -> tuple[str, str]:
    """Both forms, after a look at whether they are sound."""
    forms = thing._repr_mimebundle_()
    assert {"text/plain", "text/html"} == set(forms)
    ElementTree.fromstring(forms["text/html"])
    assert [] == re.findall(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", forms["text/plain"] + forms["text/html"])
    assert "<script" not in forms["text/html"]
    return forms["text/plain"], forms["text/html"]


@pytest.fixture
def busy(bus: EventBus) -> EventBus:
    """A bus on which something was handled and something failed."""
    bus.subscribe("a", lambda e: e.payload, name="good", to="b")
    bus.subscribe("a", fail, name=HOSTILE)
    bus.publish("a", HOSTILE)
    bus.drain(LIMIT)
    return bus


class TestThings:
    """Each thing that shows itself."""

    def test_bus(self, busy: EventBus) -> None:
        """Its state, its topology drawn, and the books of topics and subscriptions."""
        text, html = shown(busy)
        assert "EventBus test: open" == text.splitlines()[0]
        assert "└─" in text
        assert ["good", "1", "1", "0", "0", "0", "0"] in [line.split() for line in text.splitlines()]
        root = ElementTree.fromstring(html)
        assert 1 == len(list(root.iter("{http://www.w3.org/2000/svg}svg")))
        assert 2 == len(list(root.iter("table")))
        assert 1 == html.count("<style>")

    def test_bus_by_its_own_name(self) -> None:
        """One that isn't a plain bus doesn't say that it is."""
        bus = VirtualBus("EventBus")
        assert "VirtualBus EventBus: open" == shown(bus)[0].splitlines()[0]
        assert ">VirtualBus<" in shown(bus)[1]
        assert "VirtualBus('EventBus'): open, 0 topics, 0 subscriptions, at 0 s" == repr(bus)

    def test_closed_bus(self, busy: EventBus) -> None:
        """It says that it is closed, and shows its last books."""
        busy.close()
        text, html = shown(busy)
        assert "EventBus test: closed" == text.splitlines()[0]
        assert ["good", "1", "1", "0", "0", "0", "0"] in [line.split() for line in text.splitlines()]
        assert "closed" in html

    def test_empty_bus(self, bus: EventBus) -> None:
        """It says that there is nothing yet."""
        text, html = shown(bus)
        assert ["EventBus test: open", "  no topics and no subscriptions yet"] == text.splitlines()
        assert "<table" not in html

    def test_crowded_bus(self, bus: EventBus) -> None:
        """A bus of hundreds shows the first and counts the rest; its drawing is for who asks."""
        for n in range(300):
            bus.topic(f"t.{n}")
        text, html = shown(bus)
        assert f"… and {300 - ROWS} more" in text
        assert "bus.graph() draws them" in text
        assert "<svg" not in html

    def test_topic(self, busy: EventBus) -> None:
        """What it carried, what it takes, and who listens."""
        text, _ = shown(busy.topic("a"))
        assert "Topic a: 1 published" == text.splitlines()[0]
        assert ["good", "1", "1", "0", "0"] in [line.split() for line in text.splitlines()]
        assert "takes int" in shown(busy.topic("typed", int))[0]
        assert "nobody listens" in shown(busy.topic("typed"))[0]

    def test_subscription(self, busy: EventBus) -> None:
        """Its state, its pattern, its last error and its books."""
        subscription = busy.subscriptions["good"]
        assert "Subscription good: 0 pending" == shown(subscription)[0].splitlines()[0]
        assert "on a" in shown(subscription)[0]
        subscription.pause()
        assert "Subscription good: paused" == shown(subscription)[0].splitlines()[0]
        subscription.dispose()
        assert "Subscription good: disposed" == shown(subscription)[0].splitlines()[0]
        assert "last error: ValueError(" in shown(busy.subscriptions[HOSTILE])[0]

    def test_dead_letters(self, busy: EventBus) -> None:
        """A table of those held, the newest first; one has its traceback, with its indent."""
        bus = busy
        bus.publish("a", "newest")
        bus.drain(LIMIT)
        lines = shown(bus.dead_letters)[0].splitlines()
        assert "DeadLetters: 2 letters held, the newest first" == lines[0]
        assert "newest" in lines[4]
        text, html = shown(next(iter(bus.dead_letters)))
        assert "failed after 1 attempt" in text.splitlines()[0]
        assert "\n  File " in text
        assert "\n  File " in html

    def test_letter_with_a_long_error(self, bus: EventBus) -> None:
        """Of a million lines the first and the last are shown, with a count; a long line ends."""

        def handler(event: Any) -> None:
            raise ValueError("\n".join(["first line", *["row"] * 1_000_000, "x" * 100_000, "last line"]))

        bus.subscribe("a", handler)
        bus.publish("a", 1)
        bus.drain(LIMIT)
        for form in shown(next(iter(bus.dead_letters))):
            assert "first line" in form
            assert "last line" in form
            assert re.search(r"… and 999,\d\d\d more lines …", form)
            assert len(form) < 20_000

    def test_statistics(self, busy: EventBus) -> None:
        """The whole, and each part."""
        statistics = busy.statistics()
        assert "1 dead letter: 1 failed" in shown(statistics)[0]
        assert "TopicStatistics a" == shown(statistics.topics["a"])[0].splitlines()[0]
        assert "SubscriptionStatistics good: nothing pending" == shown(statistics.subscriptions["good"])[0].splitlines()[0]

    def test_receipt_and_report(self, busy: EventBus) -> None:
        """What became of one event, and of a close."""
        receipt = busy.deliver("a", 1, timeout=LIMIT)
        assert "Receipt a: 1 handled, 1 failed, 0 dropped" == shown(receipt)[0].splitlines()[0]
        assert "CloseReport: everything was handled" == shown(CloseReport())[0]
        text, _ = shown(CloseReport(("x",), {"x": 3, "y": 1}))
        assert ["x", "3", "stuck", "in", "its", "handler"] in [line.split() for line in text.splitlines()]

    def test_graph(self, busy: EventBus) -> None:
        """The picture, and the text."""
        text, html = shown(busy.graph())
        assert str(busy.graph()) == text
        assert "<svg" in html

    def test_repr_and_str_are_what_they_were(self, busy: EventBus) -> None:
        """One line for `repr`."""
        for thing in (busy, busy.topic("a"), busy.subscriptions["good"], busy.dead_letters):
            assert 1 == len(repr(thing).splitlines())


class TestNeverFails:
    """Looking is safe."""

    def test_broken_payload_and_error(self, bus: EventBus) -> None:
        """A payload and an error that raise when asked what they are cost nothing but their names."""

        def handler(event: Any) -> None:
            raise BrokenError

        bus.subscribe("a", handler, name="agent")
        receipt = bus.deliver("a", Broken(), timeout=LIMIT)
        for thing in (bus, bus.dead_letters, next(iter(bus.dead_letters)), bus.subscriptions["agent"], receipt, bus.statistics()):
            assert "can't be shown" not in shown(thing)[0]
        assert "<Broken>" in shown(next(iter(bus.dead_letters)))[0]
        assert "<BrokenError>" in shown(bus.dead_letters)[0]

    @pytest.mark.parametrize("raised", [RuntimeError, SystemExit, KeyboardInterrupt])
    def test_repr_of_records(self, bus: EventBus, raised: type[BaseException]) -> None:
        """What a debugger and a failing assert show of letters and statistics is one line, whatever the payload's `repr` raises."""

        class Odd:
            def __repr__(self) -> str:
                raise raised

        def handler(event: Any) -> None:
            raise ValueError(event.payload)

        bus.subscribe("a", handler, name="agent")
        for payload in (Odd(), 10**5000, "x" * 1_000_000):
            bus.deliver("a", payload, timeout=LIMIT)
        books = bus.statistics()
        for thing in (*bus.dead_letters, books, books.subscriptions["agent"], books.topics["a"], bus.deliver("a", Odd(), timeout=LIMIT)):
            assert 1 == len(repr(thing).splitlines())
            assert len(repr(thing)) < 1000
            assert str(thing)
        first = repr(next(iter(bus.dead_letters)))
        assert "subscription='agent', reason=FAILED, error=<ValueError>, attempts=1)" in first
        assert "BusStatistics('test': 1 topics, 1 subscriptions, 4 dead letters)" == repr(bus.statistics())

    def test_whatever_a_payload_raises(self, bus: EventBus) -> None:
        """A `SystemExit` of a payload's `repr` costs its name too, and no cell, in every picture."""

        class Exits(Exception):  # a payload and an error
            def __repr__(self) -> str:
                raise SystemExit(1)

            __str__ = __repr__

            def __eq__(self, other: object) -> bool:
                raise SystemExit(1)

            __hash__ = __repr__  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType] - anything may raise

        def handler(event: Any) -> None:
            raise event.payload

        recorded = record(bus.topic("a"))
        bus.subscribe("a", handler, name="agent")
        receipt = bus.deliver("a", Exits(), timeout=LIMIT)
        failed = record(reactivex.throw(Exits()))
        letter = next(iter(bus.dead_letters))
        for thing in (bus, bus.dead_letters, letter, bus.subscriptions["agent"], receipt, bus.statistics(), recorded, failed):
            assert "can't be shown" not in shown(thing)[0]
            assert "not to be shown" not in shown(thing)[0]
            assert str(thing)
        for values in ({"x": 1}, str):
            assert "<Exits>" in str(marbles(recorded, values=values))
        assert "a" == recorded.marbles({"b": Exits()}).strip("-")

    def test_card_that_raises(self) -> None:
        """There is a line of text all the same."""

        class Odd(Shown):
            def _card(self) -> Card:
                raise RuntimeError("no")

        assert {"text/plain": "<Odd that can't be shown: RuntimeError>"} == Odd()._repr_mimebundle_()

    def test_form_that_raises(self) -> None:
        """One form that fails leaves the other."""

        def broken() -> str:
            raise RuntimeError("no")

        assert {"text/plain": "text"} == bundle(lambda: "text", broken)
        assert {"text/plain": "<not to be shown: RuntimeError>", "text/html": "x"} == bundle(broken, lambda: "x")

    def test_while_a_handler_hangs(self, bus: EventBus) -> None:
        """A busy bus is shown without waiting for anybody."""
        gate = Gate()
        bus.subscribe("a", gate, name="slow", capacity=1, overflow=Overflow.DROP_LATEST)
        for n in range(5):
            bus.publish("a", n)
        gate.wait_until_entered()
        text, _ = shown(bus)
        gate.open()
        assert "slow" in text

    def test_from_many_threads(self, busy: EventBus) -> None:
        """Looking while others publish, subscribe and dispose is safe."""
        stop, errors = threading.Event(), list[BaseException]()

        def look() -> None:
            try:
                while not stop.is_set():
                    shown(busy)
            except BaseException as error:
                errors.append(error)

        watchers = [threading.Thread(target=look) for _ in range(2)]
        for one in watchers:
            one.start()
        for n in range(100):
            busy.subscribe("a", lambda _: None, name=f"s{n}").dispose()
            busy.topic(f"t.{n}")
            busy.forget(f"t.{n}")
        stop.set()
        for one in watchers:
            one.join(LIMIT)
        assert [] == errors

    def test_letter_made_by_hand(self) -> None:
        """A letter without a traceback and without attempts is shown as well."""
        letter = DeadLetter(Event("a", 1), "x", Reason.OVERFLOW, ValueError("full"), "", 0, 0.0)
        assert "DeadLetter of x: overflow" == shown(letter)[0].splitlines()[0]


class TestInclude:
    """What a front end asks for."""

    @pytest.mark.parametrize(
        ("found", "include", "exclude"),
        [
            ({"text/plain", "text/html"}, None, None),
            ({"text/plain"}, ["text/plain"], None),
            ({"text/html"}, None, {"text/plain"}),
            (set(), ["image/png"], None),
        ],
    )
    def test_forms(self, bus: EventBus, found: set[str], include: Any, exclude: Any) -> None:
        """Only the forms that are wanted are made."""
        assert found == set(bus._repr_mimebundle_(include, exclude))
        assert found == set(bus.graph()._repr_mimebundle_(include=include, exclude=exclude))

"""`rxbus.notebook`: recorded traffic drawn, and a table that updates itself."""

from __future__ import annotations

import gc
import io
import re
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import nbformat
import pytest
from nbclient import NotebookClient

from rxbus import Event, EventBus, MissingExtraError
from rxbus.diagram import Diagram
from rxbus.notebook import Live, live, marbles, terminal, watch
from rxbus.notebook.watch import TerminalScreen

from .support import LIMIT, Gate


class FakeScreen:
    """Keeps what it was shown, and lets a test interrupt."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.last: list[bool] = []
        self.shown = threading.Semaphore(0)
        self.interrupt: Callable[[], None] | None = None
        self.breaks = False

    def show(self, text: str, html: str, last: bool) -> None:
        """Takes a view."""
        if self.breaks:
            raise OSError("the screen is gone")
        ElementTree.fromstring(html)
        self.texts.append(text)
        self.last.append(last)
        self.shown.release()

    def settle(self) -> None:
        """Nothing comes over it."""

    def on_interrupt(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Remembers whom to call."""
        self.interrupt = callback

        def forget() -> None:
            self.interrupt = None

        return forget

    def wait(self, views: int = 1) -> None:
        """Until so many more views were shown."""
        for _ in range(views):
            assert self.shown.acquire(timeout=LIMIT)


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeScreen]:
    """What `live` finds instead of a notebook; afterwards no thread of it is left."""
    made = FakeScreen()
    monkeypatch.setattr(watch, "screen_here", lambda: made)
    yield made
    deadline = time.monotonic() + LIMIT
    while any(thread.name.startswith("rxbus-live") for thread in threading.enumerate()):
        assert time.monotonic() < deadline, "a thread of `live` goes on"
        time.sleep(0.01)


def rows(text: str) -> dict[str, list[str]]:
    """The lines of a view by their first word."""
    return {words[0]: words[1:] for line in text.splitlines() if (words := line.split())}


class TestMarbles:
    """The call."""

    def recording(self, name: str) -> Any:
        """Something of the shape of a recording."""
        events = [Event(name, n, time=float(n)) for n in range(3)]
        return SimpleNamespace(
            name=name, started=0.0, notifications=tuple(SimpleNamespace(kind="next", time=e.time, value=e) for e in events)
        )

    def test_streams(self) -> None:
        """Recordings and sequences together, one lane each, or one for each topic."""
        diagram = marbles(self.recording("r"), [Event("a", 1), Event("b", 2)], title="what happened", width=500)
        assert isinstance(diagram, Diagram)
        assert ["r", "a", "b"] == [lane.name for lane in diagram.lanes]
        assert ("what happened", 500.0) == (diagram.title, diagram.width)
        assert {"text/plain", "text/html"} == set(diagram._repr_mimebundle_())

    def test_values(self) -> None:
        """Labels of the caller's."""
        assert ["zero", "1", "2"] == [mark.label for mark in marbles(self.recording("r"), values={"zero": 0}).lanes[0].marks]

    def test_no_streams(self) -> None:
        """Nothing to draw is a mistake."""
        with pytest.raises(TypeError, match="streams: marbles takes at least one"):
            marbles()

    @pytest.mark.parametrize(
        ("error", "message", "arguments"),
        [
            (TypeError, r"streams \(number 2\) must be recordings or sequences of Events, got 5", {"streams": ([], 5)}),
            (TypeError, "width must be a number", {"width": "wide"}),
            (ValueError, "width must be finite and at least 360, got 10", {"width": 10}),
            (ValueError, "width must be finite", {"width": float("nan")}),
            (TypeError, "title must be a str, got 5", {"title": 5}),
            (TypeError, "values must be", {"values": 5}),
        ],
    )
    def test_bad_arguments(self, error: type[Exception], message: str, arguments: dict[str, Any]) -> None:
        """Each is refused by its name."""
        streams = arguments.pop("streams", ([Event("a", 1)],))
        with pytest.raises(error, match=message):
            marbles(*streams, **arguments)

    def test_needs_no_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A picture is made without IPython too."""
        monkeypatch.setitem(sys.modules, "IPython", None)
        assert "<svg" in marbles([Event("a", 1)]).svg

    def test_ten_thousand_events(self) -> None:
        """They are counted, and quickly."""
        began = time.perf_counter()
        svg = marbles([Event("a", n, time=n * 0.001) for n in range(10_000)]).svg
        assert time.perf_counter() - began < 5.0
        assert "10,000 events" in svg


class TestLive:
    """The table."""

    def test_counts_and_rates(self, bus: EventBus, screen: FakeScreen) -> None:
        """It shows what there is at once, then again and again; the last view is exact."""
        bus.subscribe("a", lambda _: None, name="reader")
        with live(bus, every=0.02) as view:
            assert "updated every 20 ms" in screen.texts[0]
            assert ["0", "0.0"] == rows(screen.texts[0])["a"][:2]
            for n in range(100):
                bus.publish("a", n)
            bus.drain(LIMIT)
            screen.wait(4)
        assert view.closed
        assert "test · stopped" == screen.texts[-1].splitlines()[0]
        assert ["100", "100"] == [rows(screen.texts[-1])[name][0] for name in ("a", "reader")]
        assert any(float(rows(text)["a"][1].replace(",", "")) > 0 for text in screen.texts)
        assert [True] == screen.last[-1:]
        assert 1 == sum(screen.last)

    def test_failures_and_pending(self, bus: EventBus, screen: FakeScreen) -> None:
        """What failed and what waits stands beside what was handled."""
        gate = Gate()
        bus.subscribe("a", gate, name="slow")
        bus.subscribe("a", lambda e: 1 / 0, name="bad")
        bus.publish("a", 1)
        bus.publish("a", 2)
        gate.wait_until_entered()
        bus.subscriptions["bad"]._strand.wait_until(lambda: bus.subscriptions["bad"].statistics().failed == 2, time.monotonic() + LIMIT)
        live(bus).close()
        gate.open()
        assert ["0", "0.0", "0", "2"] == rows(screen.texts[-1])["slow"][:4]
        assert ["0", "0.0", "2", "0"] == rows(screen.texts[-1])["bad"][:4]

    def test_ends_with_the_bus(self, bus: EventBus, screen: FakeScreen) -> None:
        """Closing the bus makes the last view, long before the next would be due."""
        bus.topic("a")
        view = live(bus, every=1000)
        bus.publish("a", 1)
        bus.close()
        screen.wait(2)
        assert view.closed
        assert "test · closed" == screen.texts[-1].splitlines()[0]
        assert "1" == rows(screen.texts[-1])["a"][0]

    def test_of_a_closed_bus(self, bus: EventBus, screen: FakeScreen) -> None:
        """One view, and no thread."""
        bus.close()
        view = live(bus)
        assert view.closed
        assert [True] == screen.last
        assert "test · closed" == screen.texts[0].splitlines()[0]

    def test_interrupt(self, bus: EventBus, screen: FakeScreen) -> None:
        """An interrupted cell ends it, and it asks for no more of them."""
        view = live(bus, every=1000)
        assert screen.interrupt is not None
        screen.interrupt()
        assert view.closed
        assert screen.interrupt is None
        assert "test · stopped" == screen.texts[-1].splitlines()[0]

    def test_keeps_no_bus_alive(self, screen: FakeScreen) -> None:
        """A bus that nobody has any more may go; the table ends with what it last saw."""
        bus = EventBus("short-lived", scheduler=None)
        bus.topic("a")
        known = weakref.ref(bus)
        view = live(bus, every=1000)
        del bus
        deadline = time.monotonic() + LIMIT
        while known() is not None and time.monotonic() < deadline:
            gc.collect()
            time.sleep(0.01)
        assert known() is None
        screen.wait(2)
        assert view.closed
        assert "short-lived · gone" == screen.texts[-1].splitlines()[0]

    def test_broken_screen(self, bus: EventBus, screen: FakeScreen) -> None:
        """A screen that fails ends the table and harms nobody."""
        view = live(bus, every=0.02)
        screen.wait()
        screen.breaks = True
        deadline = time.monotonic() + LIMIT
        while not view.closed:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        view.close()
        assert 1 == len(screen.texts)

    def test_screen_that_never_worked(self, bus: EventBus, screen: FakeScreen) -> None:
        """The call returns a handle all the same."""
        screen.breaks = True
        with live(bus, every=0.02):
            bus.publish("a", 1)
        assert [] == screen.texts

    def test_close_is_idempotent(self, bus: EventBus, screen: FakeScreen) -> None:
        """One last view, however often it is closed, and from wherever."""
        view = live(bus, every=0.02)
        threads = [threading.Thread(target=view.close) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT)
        view.close()
        assert 1 == sum(screen.last)
        assert [True] == screen.last[-1:]

    def test_what_comes_and_goes(self, bus: EventBus, screen: FakeScreen) -> None:
        """Topics that are made and forgotten appear and disappear."""
        view = live(bus, every=0.02)
        bus.topic("fleeting")
        screen.wait(3)
        bus.forget("fleeting")
        view.close()
        assert any("fleeting" in text for text in screen.texts)
        assert "fleeting" not in screen.texts[-1]
        assert {} == view._topics

    def test_crowds_are_cut(self, bus: EventBus, screen: FakeScreen) -> None:
        """A table stays one that can be read."""
        for n in range(100):
            bus.topic(f"t.{n}")
        live(bus).close()
        assert "… and 60 more" in screen.texts[-1]

    def test_handle(self, bus: EventBus, screen: FakeScreen) -> None:
        """It says what it is, and as the last line of a cell shows nothing besides the table."""
        view = live(bus, every=2)
        assert "Live('test': every 2 s)" == repr(view)
        view.close()
        assert "Live('test': closed)" == repr(view)
        assert isinstance(view, Live)
        view._ipython_display_()
        assert 2 == len(screen.texts)

    @pytest.mark.parametrize(
        ("error", "message", "every"),
        [
            (ValueError, "every must be finite and at least 0.02, got 0", 0),
            (ValueError, "every must be finite", float("inf")),
            (ValueError, "every must be finite", -1),
            (ValueError, r"every must be at most 3600 seconds, got 1e\+300", 1e300),
            (ValueError, "every must be at most 3600 seconds, got 3601", 3601),
            (TypeError, "every must be a number", "often"),
            (TypeError, "every must be a number", None),
            (TypeError, "every must be a number", True),
        ],
    )
    def test_bad_every(self, bus: EventBus, screen: FakeScreen, error: type[Exception], message: str, every: Any) -> None:
        """A time between views that makes no sense is refused, and nothing was shown."""
        with pytest.raises(error, match=message):
            live(bus, every)
        assert [] == screen.texts

    @pytest.mark.parametrize("thing", [None, "bus", EventBus])
    def test_no_bus(self, screen: FakeScreen, thing: Any) -> None:
        """Something that is no bus."""
        with pytest.raises(TypeError, match="bus must be an EventBus, got "):
            live(thing)


class TestScreens:
    """Where it is shown."""

    def test_without_ipython(self, bus: EventBus, monkeypatch: pytest.MonkeyPatch) -> None:
        """The error says what to install."""
        monkeypatch.setitem(sys.modules, "IPython", None)
        with pytest.raises(MissingExtraError, match=r"pip install 'rxbus\[notebook\]'") as caught:
            live(bus)
        assert "notebook" == caught.value.extra

    def test_plain_output(self, bus: EventBus, capsys: pytest.CaptureFixture[str]) -> None:
        """Into a pipe go the first view and the last."""
        with live(bus, every=0.02):
            bus.publish("a", 1)
            time.sleep(0.1)
        out = capsys.readouterr().out
        assert ["test · updated every 20 ms", "test · stopped"] == [line for line in out.splitlines() if "test ·" in line]
        assert "\x1b" not in out

    def test_sparkline(self) -> None:
        """A line from left to right up to the latest; without traffic a flat one."""
        root = ElementTree.fromstring(watch.sparkline([0.0, 5.0, 2.5]))
        assert ["path", "path", "circle"] == [child.tag for child in root]
        assert ["path"] == [child.tag for child in ElementTree.fromstring(watch.sparkline([0.0, 0.0]))]
        assert ("▁█▄", "▁▁", "") == (watch._bars([0.0, 5.0, 2.2]), watch._bars([0.0, 0.0]), watch._bars([]))


class Tty(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True

    @property
    def screen(self) -> list[str]:
        """What is to be seen, with what was scrolled away, without colours."""
        lines, row = [""], 0
        for part in re.findall(r"\x1b\[\d*[A-Zm]|\n|[^\x1b\n]+", self.getvalue()):
            if part == "\n":
                row += 1
                lines += [""] * (row == len(lines))
            elif part == "\x1b[J":
                lines[row:] = [""]
            elif part.endswith("F") and part.startswith("\x1b"):
                row -= int(part[2:-1])
                assert row >= 0
            elif not part.startswith("\x1b"):
                lines[row] += part
        return lines


@pytest.fixture
def tty(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tty]:
    """Standard output, of 80 columns and 24 lines; afterwards nobody listens to it any more."""
    out = Tty()
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # a test sets it, after pytest did for its call, and here that is undone
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    yield out
    assert "write" not in vars(out)
    assert [] == terminal._terminals


class TestTerminal:
    """Tables in their place on a terminal to which others write too."""

    def test_in_its_place(self, bus: EventBus, tty: Tty) -> None:
        """Up over the lines of the view before, and on."""
        sys.stdout = tty
        bus.topic("a")
        live(bus, every=1000).close()
        first, second = tty.getvalue().split("\x1b[5F\x1b[J")
        assert (5, 5) == (first.count("\n"), second.count("\n"))

    def test_keeps_what_is_printed(self, tty: Tty) -> None:
        """It makes way, and is below it afterwards."""
        sys.stdout = tty
        screen = TerminalScreen()
        screen.show("one\ntable", "", False)
        print("printed")
        assert ["printed", ""] == tty.screen
        screen.settle()
        screen.settle()
        assert ["printed", "one", "table", ""] == tty.screen
        print("\x1b[1mmore", "of it", end="\n\x1b[0m")
        screen.show("other\ntable", "", False)
        assert ["printed", "more of it", "other", "table", ""] == tty.screen
        screen.show("last\nof\nall", "", True)
        print("printed")
        screen.settle()
        assert ["printed", "more of it", "last", "of", "all", "printed", ""] == tty.screen

    def test_below_again_before_the_next_view(self, bus: EventBus, tty: Tty) -> None:
        """One that is updated once an hour doesn't stay away for so long."""
        sys.stdout = tty
        bus.topic("a")
        with live(bus, every=1000):
            print("printed")
            deadline = time.monotonic() + LIMIT
            while tty.screen[-2].split()[:1] != ["a"]:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert "printed" == tty.screen[0]

    def test_waits_for_the_end_of_a_line(self, tty: Tty) -> None:
        """Nobody's line is torn but by the last view, which begins one of its own."""
        sys.stdout = tty
        screen = TerminalScreen()
        screen.show("table", "", False)
        print("one, ", end="")
        screen.show("table", "", False)
        print("two, ", end="")
        screen.settle()
        assert ["one, two, "] == tty.screen
        print("three")
        screen.settle()
        assert ["one, two, three", "table", ""] == tty.screen
        print("four", end="")
        screen.show("last", "", True)
        assert ["one, two, three", "four", "last", ""] == tty.screen

    def test_standard_error(self, tty: Tty, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is listened to as well, if it is a terminal."""
        sys.stdout = tty
        own = tty.write
        monkeypatch.setattr(sys, "stderr", SimpleNamespace(write=own, flush=tty.flush, isatty=lambda: True))
        screen = TerminalScreen()
        screen.show("table", "", False)
        print("printed", file=sys.stderr)
        screen.show("table", "", False)
        assert ["printed", "table", ""] == tty.screen
        screen.show("last", "", True)
        assert own is sys.stderr.write

    def test_several(self, tty: Tty) -> None:
        """They are drawn together; one that ends is left above the others."""
        sys.stdout = tty
        one, other = TerminalScreen(), TerminalScreen()
        one.show("one", "", False)
        other.show("other", "", False)
        one.show("one again", "", False)
        assert ["one again", "", "other", ""] == tty.screen
        one.show("one at last", "", True)
        assert ["one at last", "", "other", ""] == tty.screen
        other.show("other again", "", False)
        print("printed")
        other.settle()
        assert ["one at last", "", "printed", "other again", ""] == tty.screen
        other.show("other at last", "", True)

    def test_no_larger_than_the_window(self, tty: Tty) -> None:
        """What doesn't fit is counted, line ends are cut; the last view is whole."""
        sys.stdout = tty
        table = "\n".join(f"{n}{'x' * 200}" for n in range(100))
        one, other = TerminalScreen(), TerminalScreen()
        one.show(table, "", False)
        assert (24, 80) == (len(tty.screen), max(map(len, tty.screen)))
        assert "… and 78 more lines" == tty.screen[-2]
        other.show(table, "", False)
        one.show(table, "", False)
        assert (24, 2) == (len(tty.screen), sum("… and 90 more lines" == line for line in tty.screen))
        other.show("short", "", True)
        one.show(table, "", True)
        assert ["short", "", *table.split("\n"), ""] == tty.screen

    def test_a_window_that_becomes_narrower(self, tty: Tty, monkeypatch: pytest.MonkeyPatch) -> None:
        """It breaks the lines that are there, so there are more of them to wipe."""
        sys.stdout = tty
        screen = TerminalScreen()
        screen.show("x" * 60 + "\nx", "", False)
        monkeypatch.setenv("COLUMNS", "25")
        screen.show("x", "", True)
        assert "\x1b[4F\x1b[J" in tty.getvalue()

    def test_a_stream_that_lets_nobody_listen(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It gets the first view and the last."""

        class Sealed:
            __slots__ = ("written",)

            def __init__(self) -> None:
                self.written = ""

            def write(self, text: str) -> None:
                self.written += text

            def flush(self) -> None:
                pass

            def isatty(self) -> bool:
                return True

        out = Sealed()
        monkeypatch.setattr(sys, "stdout", out)
        screen = TerminalScreen()
        for text in ("first", "second", "third"):
            screen.show(text, "", text == "third")
        assert "first\nthird\n" == out.written

    def test_who_listens_later_stays(self, tty: Tty) -> None:
        """Somebody who came between is not taken away."""
        sys.stdout = tty
        screen = TerminalScreen()
        screen.show("table", "", False)
        between, seen = tty.write, list[str]()

        def write(text: str) -> int:
            seen.append(text)
            return between(text)

        vars(tty)["write"] = write
        screen.show("last", "", True)
        print("printed")
        assert ["printed", "\n"] == seen
        assert ["last", "printed", ""] == tty.screen
        del vars(tty)["write"]

    def test_the_child_of_a_fork(self, tty: Tty) -> None:
        """It isn't held up by a lock of a thread that it doesn't have, and draws nothing."""
        sys.stdout = tty
        TerminalScreen().show("table", "", False)
        held = terminal._lock
        terminal._forget_all()
        assert held is not terminal._lock
        print("printed")
        assert ["table", "printed", ""] == tty.screen


CELLS = [
    """
import time
from rxbus import EventBus
from rxbus.notebook import live, marbles
bus = EventBus("seen")
seen = []
bus.subscribe("a", lambda event: event.payload, name="reader", to="b")
bus.subscribe("b", seen.append, name="keeper")
view = live(bus, every=0.05)
for n in range(200):
    bus.publish("a", n)
    time.sleep(0.001)
bus.drain()
view.close()
""",
    "bus",
    "marbles(seen)",
    "other = live(bus, every=0.05)\nraise KeyboardInterrupt",
    "assert other.closed\nbus.close()\nlive(bus)",
]


class TestKernel:
    """In a real one."""

    @pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
    def test_notebook(self) -> None:
        """The table updates in its place, things show themselves in both forms, and an interrupted cell ends its table."""
        book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
        book.cells[3].metadata["tags"] = ["raises-exception"]
        NotebookClient(book, timeout=60, kernel_name="python3").execute()
        outputs = [[output for output in cell.outputs if "data" in output] for cell in book.cells]
        assert [1, 1, 1, 1, 1] == [len(found) for found in outputs]
        for found in outputs:
            assert {"text/plain", "text/html"} == set(found[0].data)
        texts = [found[0].data["text/plain"] for found in outputs]
        assert "seen · stopped" == texts[0].splitlines()[0]
        assert ["200", "200"] == [rows(texts[0])[name][0] for name in ("reader", "keeper")]
        assert "EventBus seen: open" == texts[1].splitlines()[0]
        assert "200 events" in outputs[2][0].data["text/html"]
        assert "seen · stopped" == texts[3].splitlines()[0]
        assert "seen · closed" == texts[4].splitlines()[0]

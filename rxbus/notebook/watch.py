"""A table of what a bus is doing, which updates itself in place.

A daemon thread takes a snapshot every so often and hands it to a screen: a display of the notebook, or a terminal. It knows
the bus by a weak reference, and holds it only while it looks. It ends when the handle or the bus is closed, when the bus is
gone, or when a cell is interrupted; whoever ends it shows one last snapshot, taken after the end. Looking never raises into
anybody's code: a screen that fails is given up.

``_lock`` guards the books of earlier snapshots and the screen: the thread and `close` may both want to draw.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

from ..arguments import describe, number
from ..bus import EventBus
from ..card import ROWS
from ..drawing import Markup, Table, element, html, html_table, paint, text_table
from ..drawing import number as coordinate
from ..errors import MissingExtraError
from ..lettering import clean, duration
from ..statistics import BusStatistics
from .terminal import Terminal

__all__ = ["Live", "live"]

KEPT = 40
"""Rates that a line shows."""
GLANCE = 0.1
"""Seconds between two looks at whether the bus was closed."""
FASTEST, SLOWEST = 0.02, 3600.0
WIDE, HIGH = 96.0, 18.0
_BARS = "▁▂▃▄▅▆▇█"
_log = logging.getLogger("rxbus.notebook")


class Screen(Protocol):
    """Where a view is shown, each in the place of the one before."""

    def show(self, text: str, html: str, last: bool, /) -> None:
        """Shows both forms of it, as far as there is use for them."""
        ...

    def settle(self) -> None:
        """Shows the last one again if something came over it."""
        ...

    def on_interrupt(self, callback: Callable[[], None], /) -> Callable[[], None]:
        """Has somebody called when the user interrupts; returns what takes that back."""
        ...


def live(bus: EventBus, every: float = 0.5) -> Live:
    """A table of topics and subscriptions with their counts and rates, updated in place every so many seconds.

    In a notebook it is the output of the cell; elsewhere it is text on standard output. In a terminal it stays below what is
    printed meanwhile, and is cut to the window; what other processes write there, or `input` asks, may be overwritten. It stops
    with ``close()`` of what it returns (also a context manager), when the bus is closed or gone, or when a cell is interrupted;
    the last view is exact, and whole.

    Raises: `MissingExtraError` without IPython, `TypeError` or `ValueError` naming the argument.
    """
    if not isinstance(bus, EventBus):  # pyright: ignore[reportUnnecessaryIsInstance] - untyped callers
        raise TypeError(f"bus must be an EventBus, got {describe(bus)}")
    period = number("every", every, least=FASTEST)
    if period > SLOWEST:
        raise ValueError(f"every must be at most {SLOWEST:g} seconds, got {describe(every)}")
    return Live(bus, period, screen_here())


def screen_here() -> Screen:
    """The notebook's, or the terminal.

    Raises: `MissingExtraError`.
    """
    try:
        from IPython import get_ipython  # pyright: ignore[reportPrivateImportUsage, reportMissingImports, reportUnknownVariableType, reportAttributeAccessIssue] - an extra
    except ImportError as error:
        raise MissingExtraError("rxbus.notebook.live", "notebook") from error
    shell: Any = get_ipython()
    return TerminalScreen() if getattr(shell, "kernel", None) is None else NotebookScreen(shell)


class NotebookScreen:
    """A display of the cell that is running."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._handle: Any = None

    def show(self, text: str, html: str, last: bool) -> None:
        """Updates the display; made at the first call."""
        from IPython.display import display  # pyright: ignore[reportMissingImports, reportUnknownVariableType] - an extra

        bundle = {"text/plain": text, "text/html": html}
        if self._handle is None:
            self._handle = display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)

    def settle(self) -> None:
        """A display has its place to itself."""

    def on_interrupt(self, callback: Callable[[], None]) -> Callable[[], None]:
        """After a cell that ended with a `KeyboardInterrupt`."""

        def after(result: Any) -> None:
            if isinstance(getattr(result, "error_in_exec", None), KeyboardInterrupt):
                callback()

        self._shell.events.register("post_run_cell", after)
        return lambda: self._shell.events.unregister("post_run_cell", after)


class TerminalScreen:
    """Standard output: redrawn in place if it is a terminal, else the first and the last view only."""

    def __init__(self) -> None:
        self._out: Any = sys.stdout  # also when it is redirected for somebody else's sake meanwhile
        self._shown = False
        self._terminal: Terminal | None = None

    def show(self, text: str, html: str, last: bool) -> None:
        """Prints the text form."""
        terminal = self._terminal = Terminal.on(self._out)
        if terminal is not None:
            (terminal.leave if last else terminal.show)(self, text)
        elif last or not self._shown:
            self._out.write(f"{text}\n")
            self._out.flush()
        self._shown = True

    def settle(self) -> None:
        """Below what was written meanwhile."""
        if self._terminal is not None:
            self._terminal.settle()

    def on_interrupt(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Ctrl-C ends the block that holds the handle, or the program."""
        return lambda: None


class _Line:
    """What is remembered of one topic or subscription: its last count, and its rates."""

    __slots__ = ("count", "rates")

    def __init__(self, count: int) -> None:
        self.count = count
        self.rates: deque[float] = deque(maxlen=KEPT)


class View(NamedTuple):
    """One snapshot with rates by name: of publishing for topics, of handling for subscriptions."""

    books: BusStatistics
    state: str
    topics: Mapping[str, Sequence[float]]
    subscriptions: Mapping[str, Sequence[float]]

    def text(self) -> str:
        """As plain text."""
        return "\n\n".join([clean(f"{self.books.name} · {self.state}"), *(text_table(t, widest=40) for t in self._tables(_bars) if t.rows)])

    def html(self) -> Markup:
        """As markup."""
        head = element("p", None, element("b", None, self.books.name), element("span", {"class": "n"}, Markup(" · "), self.state))
        return html(head, *(html_table(table) for table in self._tables(sparkline) if table.rows))

    def _tables(self, draw: Callable[[Sequence[float]], str]) -> list[Table]:
        topics = list(self.books.topics.values())[:ROWS]
        ones = list(self.books.subscriptions.values())[:ROWS]
        rows = [(t.name, t.published, _last(self.topics.get(t.name)), draw(self.topics.get(t.name, ()))) for t in topics]
        first = Table(("topic", "published", "per second", ""), rows, more=len(self.books.topics) - len(topics))
        rows_too = [
            (s.name, s.handled, _last(self.subscriptions.get(s.name)), s.failed, s.pending, draw(self.subscriptions.get(s.name, ())))
            for s in ones
        ]
        head = ("subscription", "handled", "per second", "failed", "pending", "")
        return [first, Table(head, rows_too, (3,), len(self.books.subscriptions) - len(ones))]


def _last(rates: Sequence[float] | None) -> float:
    return rates[-1] if rates else 0.0


def _bars(rates: Sequence[float]) -> str:
    top = max(rates, default=0.0)
    return "".join(_BARS[round(rate / top * 7)] if top > 0 else _BARS[0] for rate in list(rates)[-20:])


def sparkline(rates: Sequence[float]) -> Markup:
    """Rates as a line, the latest on the right, from 0 to the largest of them."""
    top = max(rates, default=0.0)
    frame: dict[str, str | float | None] = {"width": WIDE, "height": HIGH, "viewBox": f"0 0 {WIDE:g} {HIGH:g}", "aria-hidden": "true"}
    if top <= 0:
        return element("svg", frame, element("path", {"d": f"M2 {HIGH - 3:g}H{WIDE - 4:g}", "opacity": 0.3, **paint(stroke="ink")}))
    step = (WIDE - 6) / (KEPT - 1)
    points = [(WIDE - 4 - step * (len(rates) - 1 - n), HIGH - 3 - rate / top * (HIGH - 6)) for n, rate in enumerate(rates)]
    line = "".join(f"{'L' if n else 'M'}{coordinate(x)} {coordinate(y)}" for n, (x, y) in enumerate(points))
    area = f"{line}V{HIGH - 2:g}H{coordinate(points[0][0])}z"
    return element(
        "svg",
        frame,
        element("path", {"d": area, "opacity": 0.18, **paint(fill="topic")}),
        element("path", {"d": line, "stroke_width": 1.4, **paint(fill="none", stroke="topic")}),
        element("circle", {"cx": points[-1][0], "cy": points[-1][1], "r": 2, **paint(fill="topic")}),
    )


class Live:
    """The handle of a table that updates itself: `close` it, or leave its block."""

    def __init__(self, bus: EventBus, every: float, screen: Screen) -> None:
        self._bus = weakref.ref(bus)
        self._closed_bus = bus._closed
        self._name = bus.name
        self._every = every
        self._screen = screen
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._ended = False
        self._books: BusStatistics | None = None
        self._seen = 0.0
        self._topics: dict[str, _Line] = {}
        self._subscriptions: dict[str, _Line] = {}
        self._forget: Callable[[], None] = lambda: None
        if bus._closed.is_set():
            self._end("closed")
            return
        self._look(f"updated every {duration(every)}")
        with contextlib.suppress(Exception):
            self._forget = screen.on_interrupt(self.close)
        run = copy_context().run  # so that the notebook knows which cell it belongs to
        self._thread = threading.Thread(target=run, args=(self._watch,), name=f"rxbus-live-{bus.name}", daemon=True)
        self._thread.start()

    @property
    def closed(self) -> bool:
        """Whether it has shown its last view."""
        return self._ended

    def close(self) -> None:
        """Stops it, after one last exact view. Idempotent; never raises."""
        self._stop.set()
        self._end("closed" if self._closed_bus.is_set() else "stopped")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Live({self._name!r}: {'closed' if self._ended else f'every {self._every:g} s'})"

    def _ipython_display_(self) -> None:
        """The table is there already; as the last line of a cell it shows nothing more."""

    # -- the thread

    def _watch(self) -> None:
        due = time.monotonic() + self._every
        while not self._stop.wait(min(GLANCE, max(due - time.monotonic(), 0.0))):
            if self._closed_bus.is_set():
                self._end("closed")
                return
            if self._bus() is None:
                self._end("gone")
                return
            with contextlib.suppress(Exception):
                self._screen.settle()
            if time.monotonic() >= due:
                due = time.monotonic() + self._every
                if not self._look(f"updated every {duration(self._every)}"):
                    self._end("stopped")
                    return

    def _end(self, state: str) -> None:
        with self._lock:
            if self._ended:
                return
            self._ended = True
            self._stop.set()
            self._look(state, last=True)
        with contextlib.suppress(Exception):
            self._forget()

    def _look(self, state: str, *, last: bool = False) -> bool:
        """Takes a snapshot and shows it; whether that went well."""
        with self._lock:
            if self._ended and not last:
                return False
            try:
                view = self._take(state, last)
                if view is not None:
                    self._screen.show(view.text(), view.html(), last)
            except Exception:
                _log.debug("the table of bus %r can't be shown", self._name, exc_info=True)
                return False
            return True

    def _take(self, state: str, last: bool) -> View | None:
        bus = self._bus()
        if bus is not None:
            self._books = bus.statistics()
        del bus
        books, now = self._books, time.monotonic()
        if books is None:
            return None
        for lines, names in ((self._topics, books.topics), (self._subscriptions, books.subscriptions)):
            for name in lines.keys() - names.keys():
                del lines[name]
        passed = now - self._seen
        if not self._seen or not last or passed > 0.5 * self._every:  # a rate over no time at all is none
            self._note(self._topics, {one.name: one.published for one in books.topics.values()}, passed)
            self._note(self._subscriptions, {one.name: one.handled for one in books.subscriptions.values()}, passed)
            self._seen = now
        rates = ({name: list(line.rates) for name, line in lines.items()} for lines in (self._topics, self._subscriptions))
        return View(books, state, *rates)

    def _note(self, lines: dict[str, _Line], counts: Mapping[str, int], passed: float) -> None:
        for name, count in counts.items():
            line = lines.get(name)
            if line is None:
                line = lines[name] = _Line(0 if self._seen else count)  # what is new since the last look began at nothing
            if self._seen:
                line.rates.append(max(0, count - line.count) / passed)
            line.count = count

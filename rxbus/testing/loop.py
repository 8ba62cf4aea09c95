"""An event loop on virtual time: coroutine handlers sleep for an hour in no time, on the calling thread.

Every callback of the loop is a step of the scheduler. The loop counts as running for as long as such a step is made, and while
steps are made, whatever loop runs on the thread outside, a notebook's or a test's, is put aside together with its task. There is
no selector: real input and output can't take part in virtual time, and asking for it raises.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import weakref
from asyncio import events as loops
from asyncio import tasks as tasks_of_asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import contextmanager
from contextvars import Context
from typing import Any, NoReturn

from ..errors import BusError
from ..loops import LoopExecutor, LoopThread
from ..schedulers import Cancellable, PassTime
from .clock import StandsStill, Step, VirtualScheduler

FAREWELL = 1.0
"""Virtual seconds that cancelled tasks get, at the end, to clean up."""
_REAL = (
    "add_reader", "add_signal_handler", "add_writer", "connect_accepted_socket", "connect_read_pipe", "connect_write_pipe",
    "create_connection", "create_datagram_endpoint", "create_server", "create_unix_connection", "create_unix_server",
    "getaddrinfo", "getnameinfo", "remove_reader", "remove_signal_handler", "remove_writer", "sendfile", "sock_accept",
    "sock_connect", "sock_recv", "sock_recv_into", "sock_recvfrom", "sock_recvfrom_into", "sock_sendall", "sock_sendfile",
    "sock_sendto", "start_tls", "subprocess_exec", "subprocess_shell",
)  # fmt: skip


@contextmanager
def _outside_aside(firstiter: Any = None, finalizer: Any = None) -> Generator[None, None, None]:
    """Whatever loop runs on this thread is put aside with its task; asynchronous generators are those of the given hooks' loop."""
    outside = loops._get_running_loop()
    task = None if outside is None else asyncio.current_task(outside)
    hooks = sys.get_asyncgen_hooks()
    if outside is not None and task is not None:
        tasks_of_asyncio._leave_task(outside, task)
    loops._set_running_loop(None)
    sys.set_asyncgen_hooks(firstiter, finalizer)
    try:
        yield
    finally:
        sys.set_asyncgen_hooks(*hooks)
        loops._set_running_loop(outside)
        if outside is not None and task is not None:
            tasks_of_asyncio._enter_task(outside, task)


class _Timed(asyncio.TimerHandle):
    """A handle that takes its step with it when it is cancelled, so that nobody moves on to a time at which nothing happens."""

    __slots__ = ("step",)

    step: Step

    def cancel(self) -> None:
        super().cancel()
        self.step.cancel()


class VirtualLoop(asyncio.BaseEventLoop):
    """The event loop of a `VirtualBus`."""

    _over = True

    def __init__(self, time: VirtualScheduler) -> None:
        super().__init__()
        self._time = time
        self._over = False
        self._numbers: weakref.WeakKeyDictionary[asyncio.Task[Any], int] = weakref.WeakKeyDictionary()
        self._counter = itertools.count(1)
        self._executor_of_rxbus: VirtualLoopExecutor

    def __del__(self) -> None:
        """It holds nothing that would have to be closed."""

    def time(self) -> float:
        """The virtual clock."""
        return self._time.seconds()

    def is_running(self) -> bool:
        """Whether it takes work: it runs whenever somebody lets time pass."""
        return not self._over

    def close(self) -> None:
        """Takes nothing more."""
        self._over = True
        super().close()

    def _asyncgen_finalizer_hook(self, agen: AsyncGenerator[Any, Any]) -> None:
        """The one that waits for the loop's end is let go of with the loop, when nobody makes steps any more that could close it."""
        if getattr(agen, "ag_code", None) is not LoopExecutor._until_closed.__code__:
            super()._asyncgen_finalizer_hook(agen)  # type: ignore[misc]  # pyright: ignore[reportUnknownMemberType,reportAttributeAccessIssue] - asyncio's own

    # -- callbacks are steps

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> asyncio.Handle:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride] - typed with variadic generics there
        """Has it called at this instant, after what is scheduled for it already."""
        return self.call_at(self._time.seconds(), callback, *args, context=context)

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> asyncio.Handle:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride] - as above
        """`call_soon`; it may come from any thread anyhow."""
        return self.call_at(self._time.seconds(), callback, *args, context=context)

    def call_at(self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None) -> asyncio.TimerHandle:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride] - as above
        """Has it called at that virtual time."""
        if self.is_closed():
            raise RuntimeError("Event loop is closed")
        handle = _Timed(when, callback, args, self, context)
        handle.step = self._time.after(when - self._time.seconds(), lambda: self._make(handle))
        return handle

    def _make(self, handle: asyncio.Handle) -> None:
        if handle.cancelled():
            return
        outside = loops._get_running_loop()
        loops._set_running_loop(self)
        try:
            handle._run()
        finally:
            loops._set_running_loop(outside)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Its step is cancelled with it."""

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        """A task on this loop."""
        task = super().create_task(coro, **options)
        self._numbers[task] = next(self._counter)
        return task

    def number(self, task: asyncio.Task[Any]) -> int:
        """In what order the task was made."""
        return self._numbers.get(task, 0)

    def run_until_complete(self, future: Any) -> Any:
        """Lets time pass until it is done; its result.

        Raises: `BusError` if nothing is scheduled that could make it end.
        """
        is_ours = not asyncio.isfuture(future)
        task = asyncio.ensure_future(future, loop=self)
        if not self._time.run_until(task.done, None):
            if is_ours:
                task.cancel()
                self._time.run_until(task.done, self.time() + FAREWELL)
            raise BusError(f"at {self.time():g} s nothing more is scheduled: what is awaited will never end")
        return task.result()

    @contextmanager
    def aside(self) -> Generator[None, None, None]:
        """For what would be on another thread: it finds no loop running, and no task."""
        with _outside_aside():
            yield

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:  # type: ignore[override]
        """Calls the function at once, on this thread: under virtual time there are no others."""
        done = self.create_future()
        try:
            with self.aside():
                done.set_result(func(*args))
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            done.set_exception(error)
        return done


def _refuse(name: str) -> Callable[..., NoReturn]:
    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise BusError(
            f"loop.{name}() is real input and output, which can't take part in virtual time: "
            "give the handler a stand-in, or test it with a bus on real threads"
        )

    refuse.__name__ = name
    return refuse


for _name in _REAL:
    setattr(VirtualLoop, _name, _refuse(_name))


class VirtualLoopExecutor(LoopExecutor):
    """Runs strands on the virtual loop."""

    def __init__(self, loop: VirtualLoop, time: VirtualScheduler) -> None:
        super().__init__(loop)
        loop._executor_of_rxbus = self
        self._time = time

    def monotonic(self) -> float:
        """The virtual clock."""
        return self._time.seconds()

    @property
    def pass_time(self) -> PassTime:
        """Makes steps."""
        return self._time.run_until

    def later(self, seconds: float, callback: Callable[[], None]) -> Cancellable:
        """Calls back in so many virtual seconds."""
        return self._time.after(seconds, callback)


class VirtualLoopThread(LoopThread):
    """Stands where a bus has its loop on a thread of its own; there is no thread."""

    def __init__(self, name: str, time: VirtualScheduler) -> None:
        super().__init__(name)
        self._time = time
        self.loop = VirtualLoop(time)
        self._virtual = VirtualLoopExecutor(self.loop, time)
        time.surroundings = self
        self._uses = 0
        """Coroutines that somebody runs on the loop from outside."""
        self._asked_to_close = False

    @property
    def executor(self) -> LoopExecutor:
        """The executor of the loop."""
        return self._virtual

    def runs_here(self) -> bool:
        """Whether the calling code is a coroutine, or a callback, of this loop."""
        return self._virtual.is_here()

    @contextmanager
    def entered(self) -> Generator[None, None, None]:
        """No other loop runs on this thread, and no task; asynchronous generators are those of this loop."""
        loop: Any = self.loop
        with _outside_aside(loop._asyncgen_firstiter_hook, loop._asyncgen_finalizer_hook):
            yield

    @contextmanager
    def in_use(self) -> Generator[None, None, None]:
        """Somebody runs a coroutine of his own on the loop: a bus that is closed in it must not cancel that one."""
        self._uses += 1
        try:
            yield
        finally:
            self._uses -= 1
            if self._asked_to_close:
                self.close()

    def close(self) -> None:
        """Cancels what still runs on the loop, gives it a moment, and closes it; not before those who use it have come to an end."""
        loop = self.loop
        self._asked_to_close = True
        if self._uses or loop.is_closed():
            return
        tasks = sorted(asyncio.all_tasks(loop), key=loop.number)
        for task in tasks:
            task.cancel()
        self._farewell(lambda: all(task.done() for task in tasks))
        end = loop.create_task(loop.shutdown_asyncgens())
        self._farewell(end.done)
        loop.close()

    def _farewell(self, over: Callable[[], bool]) -> None:
        end = self.loop.time() + FAREWELL
        try:
            self._time.run_until(over, end)
        except StandsStill:
            self._time.give_up(end)  # one that doesn't let itself be cancelled

    def orphan(self) -> None:
        """In the child of a fork: there was no thread, so nothing is lost."""

"""A strand whose run is a task of an event loop: its handlers are coroutines.

The token, the gates and the mailbox are those of any `Strand`. While a coroutine waits, the run is in progress and its event in
flight, and the loop does other things. One task serves a whole batch of events; each coroutine is driven by hand, step by step,
in the context of its own event, and while it makes a step the strand counts as running on the loop's thread.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Generator
from contextvars import Context
from functools import partial
from typing import Any

from .group import MemberStrand
from .loops import LoopExecutor
from .strand import BATCH, SLICE, Strand
from .waits import here, let_go


class AsyncStrand(Strand):
    """The serial run of one mailbox, on a loop."""

    __slots__ = ()

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        executor = self.executor
        assert isinstance(executor, LoopExecutor)
        executor.serve(self)

    def run(self) -> None:
        """Begins a run; called on the loop."""
        executor = self.executor
        assert isinstance(executor, LoopExecutor)
        if executor.is_gone:
            self.undeliverable(RuntimeError("its event loop was closed"))
            return
        if executor.begins_later(self):
            return
        try:
            self._token.pop()
        except IndexError:
            return  # a run is in progress; it looks again when it ends
        begun: list[None] = []
        executor.start(self._run(begun), partial(self._ended, begun))

    def _ended(self, begun: list[None]) -> None:
        """The task is done; one that was cancelled before its first step did nothing, not even this."""
        if not begun:
            executor = self.executor
            assert isinstance(executor, LoopExecutor)
            executor.hesitate()
            self._end_run()

    def abandon(self) -> None:
        """The loop is closed: what was in progress there never ends, so its event is held, to be refused."""
        if self.in_flight is not None and not self._held:
            self._held = [self.consumer._broken_off(self.in_flight)]
        let_go(self)
        if not self._token:
            self._token.append(None)

    async def _run(self, begun: list[None]) -> None:
        begun.append(None)
        try:
            await self._batch_of_coroutines()
        except BaseException:
            executor = self.executor
            if isinstance(executor, LoopExecutor) and executor.is_here():
                self._end_run()
            raise  # otherwise it is destroyed, after its loop was closed and the strand abandoned: nothing is left to do
        self._end_run()

    async def _batch_of_coroutines(self) -> None:
        """Handles what there is, up to a batch, or until the task is cancelled from outside."""
        mailbox = self.mailbox
        queue = mailbox.queue
        process = self.consumer._process_coroutine
        task = asyncio.current_task()
        assert task is not None
        started = self.consumer._now()
        stop = started + SLICE
        for _ in range(BATCH):
            if self._gates or self._held or self._actions:
                if self._gates:
                    return
                started = await self._special_coroutine(started)
                if task.cancelling() and not self._is_cancelled_from_outside():
                    await take_back(task, task.cancelling())
                if self._gates or task.cancelling():
                    return
                if self._held:
                    continue
            if not queue:
                break
            try:
                entry = queue.popleft()
            except IndexError:
                break
            self.in_flight = entry
            if mailbox.watched:
                mailbox.taken()
            started = await process(entry, started)
            if task.cancelling() and not self._is_cancelled_from_outside():
                await take_back(task, task.cancelling())
            if started > stop or task.cancelling():
                return
        if self._terminal is not None and not (mailbox.queue or self._actions or self._gates or self._held):
            self._terminate()

    def _is_cancelled_from_outside(self) -> bool:
        """Whether its task was, while a handler waited; a handler that didn't wait can only have cancelled it itself."""
        executor = self.executor
        assert isinstance(executor, LoopExecutor)
        return executor.is_hesitating

    async def _special_coroutine(self, started: float) -> float:
        if self._held:
            try:
                held = self._held.pop()
            except IndexError:
                return started  # closed meanwhile
            return await self.consumer._proceed_coroutine(held, started)
        return self._special(started)


class AsyncMemberStrand(MemberStrand, AsyncStrand):
    """That of a member of a group."""

    __slots__ = ()


@types.coroutine
def drive(coroutine: Coroutine[Any, Any, Any], yielded: Any, context: Context, strand: Strand) -> Generator[Any, Any, Any]:
    """Awaits a coroutine that has begun, and yielded that, in another context than the task's; each step counts as the strand's.

    Events share a task. When a coroutine cancels the task itself, it means the handling of its own event, so that is taken back
    at the end, before another event is begun.
    """
    task = asyncio.current_task()
    assert task is not None
    own = task.cancelling()  # none before the first step
    try:
        while True:
            try:
                value = yield yielded
                call: Any = coroutine.send
            except BaseException as error:
                value, call = error, coroutine.throw
            before = task.cancelling()
            strand.outer, here.running = here.running, strand
            try:
                yielded = context.run(call, value)
            except StopIteration as stop:
                return stop.value
            finally:
                here.running, strand.outer = strand.outer, None
                own += max(0, task.cancelling() - before)
    except GeneratorExit:
        own = 0  # destroyed: there is no task any more
        raise
    finally:
        if own:
            yield from _take_back(task, own)


def _take_back(task: asyncio.Task[Any], count: int) -> Generator[None, Any, None]:
    """Takes back so many requests to cancel the running task; those of others stand."""
    for _ in range(min(count, task.cancelling())):
        task.uncancel()
    try:
        yield  # what was asked for arrives here, if it hasn't already
    except asyncio.CancelledError:
        pass


take_back = types.coroutine(_take_back)

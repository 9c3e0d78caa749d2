"""Timers that nearly never go off: one per request, cancelled when it ends.

How this works: what is to happen after the same number of seconds happens in the order it was asked for. So each length of time has one
queue and one timer of the event loop, set for whoever is first; asking and cancelling are an insertion and a deletion in a dictionary,
which keeps its order. The event loop's own timers cost ten times that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType


class Deadline:
    """One of them."""

    __slots__ = ("_queue", "callback", "due")

    def __init__(self, queue: _Queue, due: float, callback: Callable[[], None]):
        self._queue, self.due, self.callback = queue, due, callback

    def cancel(self) -> None:
        self._queue.waiting.pop(self, None)
        self.callback = _nothing  # who asked holds this, and often is what would be called


def _nothing() -> None:
    """What is cancelled."""


class Limit:
    """Cancels the task that entered it when the time is up, which then gets TimeoutError: `asyncio.timeout` with one of these timers."""

    __slots__ = ("_before", "_deadline", "_deadlines", "_seconds", "_task", "_up")

    def __init__(self, deadlines: Deadlines, seconds: float):
        self._deadlines, self._seconds, self._up = deadlines, seconds, False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task, self._before = task, task.cancelling()
        self._deadline = self._deadlines.after(self._seconds, self._end)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._deadline.cancel()
        if self._up and self._task.uncancel() <= self._before and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _end(self) -> None:
        self._up = True
        self._task.cancel()


class _Queue:
    """Those of one length."""

    __slots__ = ("_loop", "_timer", "waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop):
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self.waiting: dict[Deadline, None] = {}

    def add(self, due: float, callback: Callable[[], None]) -> Deadline:
        deadline = Deadline(self, due, callback)
        self.waiting[deadline] = None
        if self._timer is None:
            self._timer = self._loop.call_at(due, self._look)
        return deadline

    def stop(self) -> None:
        self.waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        """Do what is due, and come again for the first that is not."""
        self._timer = None
        soon = self._loop.time() + _SOON
        while self.waiting:
            first = next(iter(self.waiting))
            if first.due > soon:
                self._timer = self._timer or self._loop.call_at(first.due, self._look)
                break
            del self.waiting[first]
            first.callback()


class Deadlines:
    """All of one proxy."""

    def __init__(self, loop: asyncio.AbstractEventLoop):
        self._loop = loop
        self._queues: dict[float, _Queue] = {}

    def after(self, seconds: float, callback: Callable[[], None]) -> Deadline:
        """Call back after that time, unless it is cancelled before."""
        queue = self._queues.get(seconds)
        if queue is None:
            queue = self._queues[seconds] = _Queue(self._loop)
        return queue.add(self._loop.time() + seconds, callback)

    def limit(self, seconds: float) -> Limit:
        """A context that raises TimeoutError where what is in it takes longer."""
        return Limit(self, seconds)

    def stop(self) -> None:
        """Forget all of them."""
        for queue in self._queues.values():
            queue.stop()


_SOON = 0.001  # seconds: the event loop may be early by less than that

"""Timers in queues, on a clock that the test turns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from meshsim.proxy.deadlines import Deadlines


class Clock:
    """An event loop's timers."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        self.timers.append((when, callback))
        return Timer(self, (when, callback))

    def turn(self, to: float) -> None:
        while due := [timer for timer in self.timers if timer[0] <= to]:
            timer = min(due, key=lambda t: t[0])
            self.timers.remove(timer)
            self.now = max(self.now, timer[0])
            timer[1]()
        self.now = to


class Timer:
    def __init__(self, clock: Clock, timer: tuple[float, Callable[[], None]]):
        self._clock, self._timer = clock, timer

    def cancel(self) -> None:
        self._clock.timers.remove(self._timer)


def made() -> tuple[Clock, Deadlines, list[str]]:
    clock = Clock()
    return clock, Deadlines(cast(asyncio.AbstractEventLoop, clock)), []


def test_each_is_called_when_it_is_due_whatever_its_length() -> None:
    clock, deadlines, called = made()
    deadlines.after(10, lambda: called.append("long"))
    deadlines.after(2, lambda: called.append("short"))
    clock.turn(1)
    deadlines.after(2, lambda: called.append("later"))
    clock.turn(2)
    assert called == ["short"]
    clock.turn(3)
    assert called == ["short", "later"]
    clock.turn(10)
    assert called == ["short", "later", "long"] and not clock.timers


def test_a_cancelled_one_is_not_called_and_the_next_is_on_time() -> None:
    clock, deadlines, called = made()
    first = deadlines.after(5, lambda: called.append("first"))
    clock.turn(1)
    deadlines.after(5, lambda: called.append("second"))
    first.cancel()
    first.cancel()
    clock.turn(5.5)
    assert called == []
    clock.turn(6)
    assert called == ["second"]


def test_one_may_ask_for_the_next_or_cancel_it() -> None:
    clock, deadlines, called = made()

    def first() -> None:
        called.append("first")
        second.cancel()
        deadlines.after(1, lambda: called.append("third"))

    deadlines.after(1, first)
    second = deadlines.after(1, lambda: called.append("second"))
    clock.turn(1)
    assert called == ["first"]
    clock.turn(2)
    assert called == ["first", "third"]


def test_many_have_one_timer_and_none_after_the_end() -> None:
    clock, deadlines, called = made()
    for _ in range(100):
        deadlines.after(1, lambda: called.append("never"))
    assert len(clock.timers) == 1
    deadlines.stop()
    clock.turn(2)
    assert called == []


async def test_a_limit_ends_what_takes_longer_and_nothing_else() -> None:
    deadlines = Deadlines(asyncio.get_running_loop())

    async def limited(seconds: float, inner: float = 60.0) -> str:
        try:
            with deadlines.limit(seconds):
                await asyncio.sleep(inner)
        except TimeoutError:
            await asyncio.sleep(0)  # the task goes on: it is not cancelled any more
            return "too long"
        return "done"

    assert await limited(0.002) == "too long"
    assert await limited(60.0, 0.0) == "done"
    cancelled = asyncio.ensure_future(limited(60.0))
    await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    deadlines.stop()

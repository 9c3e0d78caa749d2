"""Running a mesh from a command: it ends in order whatever the signal."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any as Json

ENDING = (signal.SIGTERM, signal.SIGHUP)


def run(program: Coroutine[Json, Json, int]) -> int:
    """The program's status; 128 + N after signal N, once everything it started has ended."""
    received: list[int] = []

    async def guarded() -> int:
        task = asyncio.current_task()
        assert task is not None

        def end(number: signal.Signals) -> None:
            received.append(number)
            task.cancel()

        for number in ENDING:
            asyncio.get_running_loop().add_signal_handler(number, end, number)
        return await program

    try:
        return asyncio.run(guarded())
    except asyncio.CancelledError:
        return 128 + received[0] if received else 1

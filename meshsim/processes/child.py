"""A process of the mesh, from the inside: start, say so, serve until the lifeline is cut or a signal says stop."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
from collections.abc import Awaitable, Callable

from meshsim.processes import DONE, END, READY

_OBJECTS = 10_000  # more of them than there were at the last look: time for another

Handler = Callable[[str], Awaitable[None]]


class Lifeline:
    """Standard input as the socket to the parent."""

    def __init__(self) -> None:
        self.stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        self.told_to_stop = False
        """Whether a signal said so; else the lifeline was cut."""
        self.orphaned = False
        """Whether it was cut without a word: the parent did not stop us, it died."""
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)

    def _on_signal(self) -> None:
        self.told_to_stop = True
        self.stopping.set()

    async def serve(self, handle: Handler | None = None) -> None:
        """Tell the parent that everything listens, then hand its lines to `handle` until it is time to stop."""
        sock = socket.socket(fileno=0)
        sock.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=sock)
        writer.write(READY)
        reading = asyncio.ensure_future(self._read(reader, writer, handle))
        await self.stopping.wait()
        reading.cancel()
        writer.transport.abort()

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handle: Handler | None) -> None:
        try:
            while (line := await reader.readline()) != END:
                if not line:
                    self.orphaned = True
                    break
                if handle is not None:
                    await handle(line.decode().strip())
                writer.write(DONE)
        except ConnectionError:
            self.orphaned = True
        self.stopping.set()


def settle() -> None:
    """What exists by now stays, so the collector need not look at it again; and a request leaves no cycle, so it may look seldom."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_OBJECTS, 20, 100)


def run(main: Awaitable[None]) -> None:
    """Run a child's main coroutine on the fastest loop there is."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(_awaited(main))
    else:
        uvloop.run(_awaited(main))


async def _awaited(main: Awaitable[None]) -> None:
    await main

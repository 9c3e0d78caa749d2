"""The process that holds a running mesh: `python -m meshsim.kube.daemon NAME NETWORK SEED ISTIO_VERSION SOURCE...`.

It writes one line to its standard output when the mesh is up (`ready FOLDER`) or cannot come up (`failed REASON`), and then goes on
alone until it is told to end. Its run folder holds `mesh.json` (name, token, process) and the socket `control.sock`, for its user only.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import os
import secrets
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any as Json

import msgspec

from meshsim.errors import MeshsimError
from meshsim.kube.arguments import HelpAsked, WrongWords, parse
from meshsim.kube.commands import FAILED, Commands
from meshsim.kube.protocol import DOWN, LENGTH, SOCKET, STATE, Request, State
from meshsim.kube.terminal import Terminal
from meshsim.live import LiveMesh
from meshsim.mesh import load
from meshsim.network.choice import enter

LOG = "daemon.log"
MOST = 64 << 20  # bytes of a request
_REQUEST_LIMIT = 10.0  # seconds for a client to say what it wants


class Daemon:
    """Answers requests about one live mesh until it is told to end."""

    def __init__(self, live: LiveMesh, state: State):
        self._live, self._state = live, state
        self._commands = Commands(live, time.monotonic)
        self._end = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def end(self) -> None:
        self._end.set()

    async def serve(self) -> None:
        """Until the end; the clients that are there then are told so."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with listener:
            listener.bind(str(self._live.folder / SOCKET))
            listener.listen()
            listener.setblocking(False)
            write_state(self._live.folder, self._state)
            accepting = asyncio.ensure_future(self._accept(listener))
            await self._end.wait()
            for task in (accepting, *self._tasks):
                task.cancel()
            await asyncio.gather(accepting, *self._tasks, return_exceptions=True)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(listener)
            task = asyncio.ensure_future(self._answer(connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, connection: socket.socket) -> None:
        descriptors: list[int] = []
        try:
            with connection:
                data = await asyncio.to_thread(_receive, connection, descriptors)
                connection.setblocking(False)
                status = await self._status(data, descriptors, connection)
                await asyncio.get_running_loop().sock_sendall(connection, LENGTH.pack(status))
        except (OSError, EOFError, msgspec.DecodeError):
            pass  # a client that went away, or was none
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    async def _status(self, data: bytes, descriptors: list[int], connection: socket.socket) -> int:
        request = msgspec.json.decode(data, type=Request)
        if not hmac.compare_digest(request.token, self._state.token) or len(descriptors) != 3:
            return FAILED
        if request.command == DOWN:
            self._end.set()
            return 0
        stdin, stdout, stderr = descriptors
        terminal = Terminal(stdin, stdout, stderr, request.folder, request.terminal)
        try:
            asked = parse(request.command, request.words)
        except (WrongWords, HelpAsked) as e:
            await terminal.say(str(e))
            return 0 if isinstance(e, HelpAsked) else FAILED
        asked.files = request.files
        watching = asyncio.ensure_future(_listen(connection, terminal))
        try:
            return await self._commands.run(request.command, asked, terminal)
        except (MeshsimError, OSError) as e:
            await terminal.say(str(e))
            return FAILED
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await watching


async def _listen(connection: socket.socket, terminal: Terminal) -> None:
    """Until the client is gone: each byte it sends says that its window has another size."""
    with contextlib.suppress(OSError):
        while await asyncio.get_running_loop().sock_recv(connection, 1):
            terminal.resized()
    terminal.gone.set()


def _receive(connection: socket.socket, descriptors: list[int]) -> bytes:
    connection.settimeout(_REQUEST_LIMIT)
    head, received, _, _ = socket.recv_fds(connection, LENGTH.size, 3)
    descriptors += received
    length = LENGTH.unpack(head + _exactly(connection, LENGTH.size - len(head)))[0]
    if length > MOST:
        raise EOFError
    return _exactly(connection, length)


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)


def write_state(folder: Path, state: State) -> None:
    """For the user alone, and whole or not at all."""
    fresh = folder / (STATE + ".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(msgspec.json.encode(state))
    fresh.rename(folder / STATE)


async def _hold(name: str, network: str, seed: int, istio_version: str, sources: list[str]) -> None:
    mesh = load(*sources, istio_version=istio_version)
    async with mesh.run(processes=True, seed=seed, network=network) as live:
        pods = [f"{p.namespace}/{p.name}" for p in mesh.pods]
        daemon = Daemon(live, State(name, secrets.token_hex(16), os.getpid(), network, pods, time.time()))
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, daemon.end)
        serving = asyncio.ensure_future(daemon.serve())
        await asyncio.sleep(0)
        _say(f"ready {live.folder}")
        _detach(live.folder / LOG)
        await serving


def _say(line: str) -> None:
    print(line, flush=True)


def _detach(log: Path) -> None:
    """Let go of the terminal of `meshsim up`."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)


def main(arguments: list[Json]) -> None:
    """Hold a mesh until told to end."""
    name, network, seed, istio_version, *sources = arguments
    try:
        asyncio.run(_hold(name, enter(network).kind, int(seed), istio_version, sources))
    except MeshsimError as e:
        _say(f"failed {e}")


if __name__ == "__main__":
    main(sys.argv[1:])

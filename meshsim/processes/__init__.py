"""The mesh as OS processes: one per proxy and one for the outside, none of which can outlive the mesh.

How this works: a child's standard input is a socket to its parent, its lifeline. The child writes `ready` to it when it listens,
and ends when it reads the end of it; the kernel closes the parent's end however the parent ended, SIGKILL included. Children lead
sessions of their own, so that Ctrl-C in a terminal reaches the parent alone, which then stops them in order. What a child prints
goes to files in its folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from meshsim.errors import MeshsimError

READY, DONE, END = b"ready\n", b"done\n", b"end\n"
START_TIMEOUT = 30.0  # seconds; a child that needs longer is stuck
TELL_TIMEOUT = 30.0  # seconds for a child to do as it is told
STOP_TIMEOUT = 5.0  # seconds a child has to end by itself


class ProcessFailed(MeshsimError):
    """A process of the mesh did not start; the text holds its last words."""


class Process:
    """A child of this process with a lifeline. `folder` gets its `stdout` and `stderr`."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        folder: Path,
        *,
        environment: Mapping[str, str] | None = None,
        prepare: Callable[[], None] | None = None,
    ):
        self.name, self.folder = name, folder
        self._command, self._environment, self._prepare = list(command), environment, prepare
        self._process: asyncio.subprocess.Process | None = None
        self._lifeline: socket.socket | None = None
        self._telling = asyncio.Lock()

    @property
    def pid(self) -> int:
        """Raises MeshsimError before `start`."""
        if self._process is None:
            raise MeshsimError(f"{self.name} has not been started")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start it and wait until it is ready. Raises ProcessFailed."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._lifeline = ours
        with theirs, open(self.folder / "stdout", "ab") as stdout, open(self.folder / "stderr", "ab") as stderr:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stdin=theirs.fileno(), stdout=stdout, stderr=stderr, start_new_session=True,
                env=self._environment or environment(),
                preexec_fn=self._prepare,
            )
        try:
            await asyncio.wait_for(self._until(READY, ours), START_TIMEOUT)
        except TimeoutError:
            await self.stop()
            raise ProcessFailed(f"{self.name} was not ready after {START_TIMEOUT:.0f} s{self._last_words()}") from None
        except BaseException:
            await self.stop()
            raise

    async def _until(self, word: bytes, lifeline: socket.socket) -> None:
        """Until the child says it. Raises ProcessFailed where it ends instead, which a start must not."""
        loop = asyncio.get_running_loop()
        got = b""
        while word not in got:
            try:
                more = await loop.sock_recv(lifeline, 64)
            except ConnectionError:
                more = b""
            if not more:
                raise ProcessFailed(f"{self.name} did not start{self._last_words()}")
            got += more

    async def tell(self, message: str) -> None:
        """Send the child a line, and wait until it has done as it says; nothing happens where the child is gone."""
        if self._lifeline is None:
            return
        async with self._telling:
            with contextlib.suppress(OSError, ProcessFailed, TimeoutError):
                await asyncio.get_running_loop().sock_sendall(self._lifeline, message.encode() + b"\n")
                await asyncio.wait_for(self._until(DONE, self._lifeline), TELL_TIMEOUT)

    async def wait(self) -> int:
        """The exit status, negative for a signal."""
        assert self._process is not None
        return await self._process.wait()

    async def stop(self) -> None:
        """Say so, cut the lifeline and see the process end, by force after `STOP_TIMEOUT`. Stopping twice is allowed."""
        if self._lifeline is not None:
            with contextlib.suppress(OSError):  # of a child that is gone, or of a lifeline that is cut already
                self._lifeline.send(END)
            self._lifeline.close()
        if self._process is None:
            return
        try:
            await asyncio.wait_for(self._process.wait(), STOP_TIMEOUT)
        except TimeoutError:
            self.kill()
            await self._process.wait()

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send it a signal, if it still runs."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            words = (self.folder / "stderr").read_text(errors="replace").strip()
            if words:
                return ":\n" + words[-2000:]
        return ""


def environment() -> dict[str, str]:
    """This process's environment, with the package importable as it is here."""
    package = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(p for p in (package, os.environ.get("PYTHONPATH")) if p)
    return {**os.environ, "PYTHONPATH": path}


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of this program with this Python."""
    return [sys.executable, "-X", "utf8", "-m", module, *arguments]

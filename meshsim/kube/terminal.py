"""The terminal a command came from, and programs of a pod on it.

How this works: the client hands over its own three descriptors, so that a program reads and writes them itself. With `exec -it` the program
gets a pseudo-terminal instead, as the leader of a session whose controlling terminal that is, so that it has job control, a window size and
Ctrl-C; the client has put its terminal into raw mode, and what is typed and printed is carried between the two here.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import termios
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from meshsim.pod import NO_SUCH_PROGRAM, LivePod

_LAST_WORDS = 1.0  # seconds for what a program that has ended left in its terminal
_END_OF_INPUT = b"\x04"
_CHUNK = 65536


@dataclass
class Terminal:
    """The client's descriptors and folder. `kind` is its TERM where its keys come raw, else empty."""

    stdin: int
    stdout: int
    stderr: int
    folder: str
    kind: str = ""
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    resized: Callable[[], None] = lambda: None

    async def out(self, text: str, to: int | None = None) -> None:
        """Write lines; a reader that went away ends the command, quietly."""
        data = (text.replace("\n", "\r\n") if self.kind else text).encode()
        try:
            await asyncio.to_thread(_write, self.stdout if to is None else to, data)
        except OSError:
            self.gone.set()

    async def say(self, line: str) -> None:
        """One line on standard error."""
        await self.out(line + "\n", self.stderr)


async def run(pod: LivePod, words: Sequence[str], terminal: Terminal, *, stdin: bool) -> int:
    """A program on the client's terminal, with the pod's environment; its exit status. It ends with its client."""
    if terminal.kind:
        return await _on_terminal(pod, words, terminal, stdin=stdin)
    try:
        process = await asyncio.create_subprocess_exec(
            *words,
            stdin=terminal.stdin if stdin else asyncio.subprocess.DEVNULL,
            stdout=terminal.stdout,
            stderr=terminal.stderr,
            env=pod.environment(),
            cwd=_folder(terminal),
            preexec_fn=pod.enter,
        )
    except FileNotFoundError:
        return NO_SUCH_PROGRAM
    return await _ended(process, terminal)


async def _on_terminal(pod: LivePod, words: Sequence[str], terminal: Terminal, *, stdin: bool) -> int:
    ours, theirs = os.openpty()
    carried: list[asyncio.Task[None]] = []
    try:
        _fit(terminal.stdin, ours)
        try:
            process = await asyncio.create_subprocess_exec(
                *words, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
                env=pod.environment() | {"TERM": terminal.kind}, cwd=_folder(terminal), preexec_fn=_taking_the_terminal(pod.enter),
            )  # fmt: skip
        except FileNotFoundError:
            return NO_SUCH_PROGRAM
        finally:
            os.close(theirs)
        terminal.resized = lambda: _fit(terminal.stdin, ours)
        printed = asyncio.ensure_future(_carry(ours, terminal.stdout))
        carried = [printed, *([asyncio.ensure_future(_carry(terminal.stdin, ours, _END_OF_INPUT))] if stdin else [])]
        status = await _ended(process, terminal)
        await asyncio.wait({printed}, timeout=_LAST_WORDS)
        return status
    finally:
        terminal.resized = lambda: None
        for task in carried:
            task.cancel()
        await asyncio.gather(*carried, return_exceptions=True)
        os.close(ours)


async def _ended(process: asyncio.subprocess.Process, terminal: Terminal) -> int:
    """The exit status as a shell has it: 128 and the signal's number for a program that was killed."""
    ended, gone = asyncio.ensure_future(process.wait()), asyncio.ensure_future(terminal.gone.wait())
    try:
        await asyncio.wait({ended, gone}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
        if process.returncode is None and not ended.done():
            process.terminate()
    status = await ended
    return status if status >= 0 else 128 - status


async def _carry(source: int, target: int, last: bytes = b"") -> None:
    """Bytes from one descriptor to another until the first ends, which `last` tells the other."""
    with contextlib.suppress(OSError):  # EIO: the last program on a terminal is gone
        while data := await _read(source):
            await asyncio.to_thread(_write, target, data)
        await asyncio.to_thread(_write, target, last)


async def _read(descriptor: int) -> bytes:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)
    return os.read(descriptor, _CHUNK)


def _fit(source: int, target: int) -> None:
    """Give one terminal the window size of another."""
    with contextlib.suppress(OSError):
        fcntl.ioctl(target, termios.TIOCSWINSZ, fcntl.ioctl(source, termios.TIOCGWINSZ, bytes(8)))


def _taking_the_terminal(enter: Callable[[], None] | None) -> Callable[[], None]:
    """What the child does: enter its pod, and make its standard input the terminal that Ctrl-C comes from."""

    def prepare() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        if enter is not None:
            enter()

    return prepare


def _folder(terminal: Terminal) -> str | None:
    return terminal.folder if Path(terminal.folder).is_dir() else None


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]

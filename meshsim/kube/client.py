"""The running meshes of this user, and how a command reaches one."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from meshsim.errors import MeshsimError
from meshsim.kube.protocol import DOWN, LENGTH, RESIZED, SOCKET, STATE, Request, State
from meshsim.run_folder import PREFIX, base, is_abandoned

CHOSEN = "MESHSIM_MESH"  # the variable that names a mesh
_END_LIMIT = 20.0  # seconds a mesh has to end


class Running(NamedTuple):
    """A mesh that is up."""

    folder: Path
    state: State


def running() -> list[Running]:
    """The meshes of this user that are up, oldest first."""
    found = []
    for folder in base().glob(PREFIX + "*"):
        with contextlib.suppress(OSError, msgspec.DecodeError):
            if folder.stat().st_uid == os.getuid() and not is_abandoned(folder):
                found.append(Running(folder, msgspec.json.decode((folder / STATE).read_bytes(), type=State)))
    return sorted(found, key=lambda r: r.state.started)


def choose(name: str | None = None) -> Running:
    """The mesh meant: by name, by the variable MESHSIM_MESH, or the only one. Raises MeshsimError."""
    name = name or os.environ.get(CHOSEN)
    found = [r for r in running() if not name or r.state.name == name]
    if len(found) == 1:
        return found[0]
    if not found:
        raise MeshsimError(f"no mesh {name!r} is running" if name else "no mesh is running; start one with: meshsim up")
    names = ", ".join(r.state.name for r in found)
    raise MeshsimError(f"several meshes are running ({names}): choose one with --mesh NAME or {CHOSEN}")


def start(name: str, network: str, seed: int, istio_version: str, sources: Sequence[str]) -> Path:
    """Start a mesh in a process of its own; its run folder once it is up. Raises MeshsimError."""
    if any(r.state.name == name for r in running()):
        raise MeshsimError(f"a mesh {name!r} is running already; end it with: meshsim down {name}")
    process = subprocess.Popen(
        [sys.executable, "-m", "meshsim.kube.daemon", name, network, str(seed), istio_version, *sources],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    with process.stdout as said:
        word, _, rest = said.readline().partition(" ")
        if word == "ready":
            return Path(rest.strip())
        raise MeshsimError((rest + said.read()).strip() or "the mesh did not start")


def ask(mesh: Running, command: str, words: Sequence[str] = (), files: Sequence[tuple[str, str]] = (), *, raw: bool = False) -> int:
    """Let a mesh do a command on this process's own terminal; its exit status. `raw`: with every key, as `exec -it` wants them."""
    kind = os.environ.get("TERM", "dumb") if raw else ""
    request = Request(mesh.state.token, command, list(words), list(files), os.getcwd(), kind)
    data = msgspec.json.encode(request)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection, _raw(connection) if raw else contextlib.nullcontext():
        try:
            connection.connect(str(mesh.folder / SOCKET))
            socket.send_fds(connection, [LENGTH.pack(len(data))], [0, 1, 2])
            connection.sendall(data)
            answer = connection.recv(LENGTH.size, socket.MSG_WAITALL)
        except OSError as e:
            raise MeshsimError(f"mesh {mesh.state.name!r} does not answer: {e.strerror}") from None
    if len(answer) < LENGTH.size:
        raise MeshsimError(f"mesh {mesh.state.name!r} ended")
    status: int = LENGTH.unpack(answer)[0]
    return status


@contextlib.contextmanager
def _raw(connection: socket.socket) -> Iterator[None]:
    """Standard input as a terminal that passes every key on; the mesh hears of a new window size."""
    import termios
    import tty

    def end(number: int, frame: object) -> None:
        sys.exit(128 + number)

    def resized(number: int, frame: object) -> None:
        with contextlib.suppress(OSError):
            connection.send(RESIZED)

    before = termios.tcgetattr(0)
    handlers = {signal.SIGTERM: end, signal.SIGHUP: end, signal.SIGWINCH: resized}
    earlier = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    tty.setraw(0, termios.TCSADRAIN)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
        for number, handler in earlier.items():
            signal.signal(number, handler)


def stop(mesh: Running) -> None:
    """End a mesh and wait until its folder is gone. Raises MeshsimError when it does not go."""
    ask(mesh, DOWN)
    limit = time.monotonic() + _END_LIMIT
    while mesh.folder.exists():
        if time.monotonic() > limit:
            raise MeshsimError(f"mesh {mesh.state.name!r} does not end; its process is {mesh.state.pid}")
        time.sleep(0.02)

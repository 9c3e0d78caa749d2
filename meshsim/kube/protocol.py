"""What a command and a running mesh say to each other.

A request is a connection: a length, the client's three descriptors, and JSON (token, command, words, files); the answer is the exit status.
Meanwhile the client may say with a byte that its window has another size; when it closes the connection, its command ends.
"""

from __future__ import annotations

import struct

import msgspec

STATE, SOCKET = "mesh.json", "control.sock"
LENGTH = struct.Struct("!I")
DOWN = "down"
RESIZED = b"w"


class State(msgspec.Struct):
    """What a client needs to know of a running mesh."""

    name: str
    token: str
    pid: int
    network: str
    pods: list[str]
    started: float


class Request(msgspec.Struct):
    """What is asked. `terminal` is the client's TERM where its keys come raw (exec -it), else empty."""

    token: str
    command: str
    words: list[str] = []
    files: list[tuple[str, str]] = []
    folder: str = "/"
    terminal: str = ""

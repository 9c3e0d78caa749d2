"""Istio's `pilot-agent` as far as people call it by hand: `pilot-agent request GET stats` asks the pod's proxy for an admin page.

How this works: `install` writes a script of that name for one pod, which runs this module with the proxy's admin socket.
"""

from __future__ import annotations

import http.client
import socket
import sys
from pathlib import Path

from meshsim.processes import tools

USAGE = "usage: pilot-agent request METHOD PATH"
_WRONG, _FAILED = 2, 1


class _Admin(http.client.HTTPConnection):
    """A connection to a Unix socket."""

    def __init__(self, path: str):
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self._path)


def install(folder: Path, admin: Path) -> Path:
    """Put `pilot-agent` for the proxy with this admin socket into a folder; the folder."""
    return tools.script(folder, "pilot-agent", "meshsim.processes.pilot_agent", str(admin))


def main(admin: str, words: list[str]) -> int:
    """Ask, and print the answer; the exit status."""
    if len(words) != 3 or words[0] != "request":
        print(USAGE, file=sys.stderr)
        return _WRONG
    connection = _Admin(admin)
    try:
        connection.request(words[1], "/" + words[2].lstrip("/"))
        answer = connection.getresponse()
        sys.stdout.write(answer.read().decode())
    except OSError as e:
        print(f"the proxy does not answer: {e.strerror}", file=sys.stderr)
        return _FAILED
    finally:
        connection.close()
    return 0 if answer.status < http.client.BAD_REQUEST else _FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))

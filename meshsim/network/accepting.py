"""The accept loop of a listening socket on the event loop."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Any as Json

_MOST = 64  # connections per event, so that a flood leaves the loop time for those it has
_PAUSE = 0.1  # seconds without accepting when descriptors have run out


class Acceptor:
    """Gives each connection that waits at `sock`, non-blocking, to `take` with its peer's address. It owns the socket."""

    def __init__(self, sock: socket.socket, take: Callable[[socket.socket, Json], None]):
        self._sock, self._take = sock, take
        self._loop = asyncio.get_running_loop()
        self._read()

    @property
    def is_open(self) -> bool:
        return self._sock.fileno() >= 0

    def close(self) -> None:
        """Refuse from now on; closing twice is allowed."""
        if self.is_open:
            self._loop.remove_reader(self._sock)
            self._sock.close()

    def _read(self) -> None:
        if self.is_open:
            self._loop.add_reader(self._sock, self._on_readable)

    def _on_readable(self) -> None:
        for _ in range(_MOST):
            if not self.is_open:
                return
            try:
                sock, peer = self._sock.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as e:
                if e.errno not in (errno.EMFILE, errno.ENFILE):
                    raise
                self._loop.remove_reader(self._sock)  # let some connections close before the next attempt
                self._loop.call_later(_PAUSE, self._read)
                return
            sock.setblocking(False)
            self._take(sock, peer)

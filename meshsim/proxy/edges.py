"""When sockets have something new: said once for each change, for one system call per socket.

How this works: an event loop tells of a state (there is something to read) again and again, and is asked anew for each change of interest;
libuv makes six system calls of watching a socket once. Here the sockets of short-lived connections are in an epoll of their own,
edge-triggered, which the loop watches as one file. Whoever hears of a socket remembers what it was told: bytes that it leaves unread are
not told again, only more of them are. Linux alone has the call; `Edges.known` says so.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable

Heard = Callable[[int], None]
"""Gets what is new about a socket, as the bits below."""

known = hasattr(select, "epoll")
"""Whether this system can tell."""

READABLE = 0x001
WRITABLE = 0x004
ENDED = 0x008 | 0x010 | 0x2000
"""EPOLLERR, EPOLLHUP, EPOLLRDHUP: an error, or no more than what is there to read."""

_INTEREST = READABLE | 0x2000 | 0x80000000  # EPOLLIN, EPOLLRDHUP, EPOLLET
_MOST = 256  # events in one turn of the loop


class Edges:
    """Those of one proxy. The epoll is made when the first socket comes."""

    def __init__(self, loop: asyncio.AbstractEventLoop):
        self._loop = loop
        self._epoll: select.epoll | None = None
        self._heard: dict[int, Heard] = {}

    def watch(self, fd: int, heard: Heard, *, writable: bool = False) -> None:
        """Tell `heard` what is new about a socket, first what is there already; or tell it in place of who heard so far.

        writable: also when the socket, which took no more, takes some again.
        """
        if self._epoll is None:
            self._epoll = select.epoll()
            self._loop.add_reader(self._epoll.fileno(), self._tell)
        if fd not in self._heard:
            self._epoll.register(fd, _INTEREST | WRITABLE if writable else _INTEREST)
        elif writable:
            self._epoll.modify(fd, _INTEREST | WRITABLE)
        self._heard[fd] = heard

    def forget(self, fd: int) -> None:
        """Of a socket that will be closed or go elsewhere; one that is not watched is forgotten already."""
        if self._heard.pop(fd, None) is not None and self._epoll is not None:
            self._epoll.unregister(fd)

    def close(self) -> None:
        self._heard.clear()
        if self._epoll is not None:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None

    def _tell(self) -> None:
        assert self._epoll is not None
        for fd, events in self._epoll.poll(0, _MOST):
            heard = self._heard.get(fd)
            if heard is None:
                continue
            try:
                heard(events)
            except Exception as e:  # it is told once: the others' events must not go with it
                self._loop.call_exception_handler({"message": "a socket's event was not taken", "exception": e})

"""A plain socket as a transport, for relays: connections that come often, carry little, and go.

How this works: a transport that the event loop makes costs its caller two turns of the loop, and a dozen system calls to find out what is
known here: that the socket is connected, does not block and takes no delay. A `Wire` is there when its constructor returns. It hears of
its socket by `edges`, and so remembers whether there is more to read than it has read; it writes at once, and keeps what the socket does
not take. What its protocol is told, and in which order, is what asyncio's own transports tell.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any as Json

from meshsim.proxy.edges import ENDED, READABLE, WRITABLE, Edges

_PIECE = 64 * 1024  # bytes of one read
_HIGH = 64 * 1024  # bytes unsent at which the protocol is told to pause, unless it says another number; asyncio's


class Wire(asyncio.Transport):
    """Owns `sock`, which is connected and does not block. `protocol` is told of it before the constructor returns.

    told: what others may have heard of `sock`, which nobody will tell again.
    """

    __slots__ = (
        "_at_end", "_closing", "_edges", "_ending", "_fd", "_high", "_loop", "_no_more", "_paused", "_protocol", "_pushed_back", "_sock",
        "_unread", "_unsent",
    )  # fmt: skip

    def __init__(
        self, loop: asyncio.AbstractEventLoop, edges: Edges, sock: socket.socket, protocol: asyncio.Protocol, *, told: int = 0
    ):
        super().__init__()
        self._loop, self._edges, self._sock, self._protocol = loop, edges, sock, protocol
        self._fd = sock.fileno()
        self._unsent = bytearray()
        self._high = _HIGH
        self._paused = self._unread = self._ending = self._at_end = False
        self._no_more = self._closing = self._pushed_back = False
        protocol.connection_made(self)
        if told:
            self._heard(told)
        edges.watch(self._fd, self._heard)

    def get_extra_info(self, name: str, default: Json = None) -> Json:
        return self._sock if name == "socket" else default

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol)
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def _heard(self, events: int) -> None:
        if events & ENDED:
            self._ending = True
        if events & (READABLE | ENDED):
            self._unread = True
            self._read()
        if events & WRITABLE and self._unsent:
            self._flush()

    # reading

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        if self._paused:
            self._paused = False
            if self._unread:
                self._loop.call_soon(self._read)

    def is_reading(self) -> bool:
        return not (self._paused or self._at_end or self._closing)

    def _read(self) -> None:
        """Read what was told of, but no more than a piece in one turn; an end is behind what was sent before it."""
        while self._unread and not (self._paused or self._at_end or self._closing):
            try:
                data = self._sock.recv(_PIECE)
            except (BlockingIOError, InterruptedError):
                self._unread = self._ending = False
                return
            except OSError as e:
                self._break(e)
                return
            if not data:
                self._at_end = True
                if not self._protocol.eof_received():
                    self.close()
                return
            whole = len(data) == _PIECE
            self._unread = whole or self._ending
            self._protocol.data_received(data)
            if whole:
                self._loop.call_soon(self._read)
                return

    # writing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closing:
            return
        if self._no_more:
            raise RuntimeError("bytes after the end that was written")
        if not self._unsent:
            try:
                sent = self._sock.send(data)
            except (BlockingIOError, InterruptedError, BrokenPipeError):  # the last: a reset, if it is one, is told where it is read
                sent = 0
            except OSError as e:
                self._break(e)
                return
            if sent == len(data):
                return
            data = memoryview(data)[sent:]
            self._edges.watch(self._fd, self._heard, writable=True)
        self._unsent += data
        self._push_back()

    def write_eof(self) -> None:
        if not (self._closing or self._no_more):
            self._no_more = True
            if not self._unsent:
                self._shut()

    def can_write_eof(self) -> bool:
        return True

    def get_write_buffer_size(self) -> int:
        return len(self._unsent)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """low: not heard; a protocol goes on when a quarter of `high` is left, as in asyncio."""
        self._high = _HIGH if high is None else high
        self._push_back()

    def _push_back(self) -> None:
        if len(self._unsent) > self._high and not self._pushed_back:
            self._pushed_back = True
            self._protocol.pause_writing()

    def _flush(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: self._sock.send(self._unsent)]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as e:
            self._break(e)
            return
        if not self._unsent:
            if self._closing:
                self._loop.call_soon(self._lost, None)
            elif self._no_more:
                self._shut()
        if self._pushed_back and len(self._unsent) <= self._high // 4:
            self._pushed_back = False
            self._protocol.resume_writing()

    def _shut(self) -> None:
        with contextlib.suppress(OSError):  # a peer that is gone already says so where it is read
            self._sock.shutdown(socket.SHUT_WR)

    # ending

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            if not self._unsent:
                self._loop.call_soon(self._lost, None)

    def abort(self) -> None:
        self._break(None)

    def _break(self, error: OSError | None) -> None:
        """End now, with what is unsent."""
        if self._sock.fileno() < 0 or (self._closing and not self._unsent):
            return
        self._closing = True
        self._unsent.clear()
        self._loop.call_soon(self._lost, error)

    def _lost(self, error: OSError | None) -> None:
        self._edges.forget(self._fd)
        self._sock.close()
        self._protocol.connection_lost(error)

"""Bytes from socket to socket inside the kernel, for a relay with two plain ends and much to carry.

How this works: a relay begins as two transports of the event loop. When one direction has carried `AFTER` bytes and neither transport holds
any more, `take_over` copies both sockets' descriptors and lets go of the transports. From then on a pipe in each direction carries the
bytes: `splice(2)` from a socket into the pipe, and from the pipe into the other socket, so that they never come into this process. The
pipe is all that a direction can hold: its source is read only while it is empty, so that a side which takes no bytes stops the other.
What happens (bytes, an end, an error) is told to whoever relays, as its transports would have told it.

Two pipes cost more than a short connection does, which is why they come late. Linux alone has the call.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Callable
from typing import NamedTuple

AFTER = 1024 * 1024  # bytes of one direction before pipes pay for themselves
_PIPE = 1024 * 1024  # bytes a pipe should hold; the system gives less to a user who has many
_SET_SIZE = 1031  # F_SETPIPE_SZ, of which `fcntl` has no name where there is no such call


class Told(NamedTuple):
    """Who hears about one side's stream: bytes that came from it, its end (the other side knows already), its loss."""

    came: Callable[[int], None]
    ended: Callable[[], object]
    lost: Callable[[Exception | None], None]


def can_carry(transport: asyncio.Transport) -> bool:
    """Whether a transport lives and its bytes are those of its socket."""
    if sys.platform != "linux" or transport.is_closing():
        return False
    return transport.get_extra_info("socket") is not None and transport.get_extra_info("ssl_object") is None


def take_over(
    loop: asyncio.AbstractEventLoop, client: asyncio.Transport, host: asyncio.Transport, from_client: Told, from_host: Told
) -> Spliced | None:
    """Carry on for two transports that hold no bytes and read none; None where the system has no descriptors left for it."""
    with contextlib.ExitStack() as made:
        try:
            near, far = (_copy(made, transport) for transport in (client, host))
            there = _Direction(loop, near, far, _pipe(made), from_client, from_host)
            back = _Direction(loop, far, near, _pipe(made), from_host, from_client)
        except OSError:
            return None
        made.pop_all()
    for transport in (client, host):
        transport.set_protocol(asyncio.Protocol())
        transport.abort()  # closes a descriptor, not the connection, which the copy keeps
    return Spliced(there, back)


class Spliced:
    """A connection's two directions, until `close` or `abort`."""

    def __init__(self, there: _Direction, back: _Direction):
        self._directions = (there, back)

    def start(self, *, client_ended: bool, host_ended: bool) -> None:
        """A side that has ended is not read any more."""
        for direction, ended in zip(self._directions, (client_ended, host_ended), strict=True):
            if ended:
                direction.end()
            else:
                direction.start()

    def close(self) -> None:
        """Read no more; each side's connection ends when it has what came for it."""
        for direction in self._directions:
            direction.stop()
        for direction in self._directions:
            direction.finish()

    def abort(self, before: Callable[[socket.socket], None]) -> None:
        """End both connections now, after `before` has prepared each."""
        for direction in self._directions:
            direction.stop()
        for direction in self._directions:
            before(direction.sink)
            direction.drop()


class _Direction:
    """From one socket through a pipe into the other. It owns the pipe and the socket it writes to."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, source: socket.socket, sink: socket.socket, pipe: tuple[int, int], of: Told, to: Told
    ):
        self._loop, self._source, self.sink, self._pipe = loop, source, sink, pipe
        self._came, self._ended, self._source_lost, self._sink_lost = of.came, of.ended, of.lost, to.lost
        self._from, self._to = source.fileno(), sink.fileno()
        self._held = 0
        self._reading = self._writing = self._finishing = False

    def start(self) -> None:
        self._reading = True
        self._loop.add_reader(self._from, self._fill)

    def stop(self) -> None:
        """Read no more."""
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._from)

    def end(self) -> None:
        """Tell the sink that no more comes."""
        with contextlib.suppress(OSError):  # a sink that is gone already says so where it is read
            self.sink.shutdown(socket.SHUT_WR)

    def finish(self) -> None:
        """Close the sink when it has taken what the pipe holds."""
        self._finishing = True
        if not self._held:
            self.drop()

    def drop(self) -> None:
        """Close the sink and the pipe, with what it holds."""
        self._held = 0
        self._wait_no_more()
        self.sink.close()
        for end in self._pipe:
            os.close(end)

    def _fill(self) -> None:
        try:
            size = os.splice(self._from, self._pipe[1], _PIPE, flags=os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK)
        except BlockingIOError:
            return
        except OSError as e:
            self._source_lost(e)
            return
        if size:
            self._held = size
            self._came(size)
            self._empty()
        else:
            self.stop()
            self.end()
            self._ended()

    def _empty(self) -> None:
        try:
            while self._held:
                self._held -= os.splice(self._pipe[0], self._to, self._held, flags=os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK)
        except BlockingIOError:
            if not self._writing:
                self.stop()
                self._writing = True
                self._loop.add_writer(self._to, self._empty)
            return
        except OSError as e:
            self._held = 0
            if self._finishing:
                self.drop()
            else:
                self._sink_lost(e)
            return
        if self._finishing:
            self.drop()
        elif self._writing:
            self._wait_no_more()
            self.start()

    def _wait_no_more(self) -> None:
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._to)


def _copy(made: contextlib.ExitStack, transport: asyncio.Transport) -> socket.socket:
    """The transport's socket under a descriptor of its own."""
    sock = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
    made.callback(sock.close)
    sock.setblocking(False)
    return sock


def _pipe(made: contextlib.ExitStack) -> tuple[int, int]:
    """Its reading and its writing end."""
    import fcntl

    ends = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    for end in ends:
        made.callback(os.close, end)
    with contextlib.suppress(OSError):
        fcntl.fcntl(ends[1], _SET_SIZE, _PIPE)
    return ends

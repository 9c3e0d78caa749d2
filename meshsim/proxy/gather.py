"""What a codec writes in one turn of the event loop goes out in one system call.

A head, the first bytes of its body and the end of a chunked one are decided one after the other, but nearly always in the same turn.
Writing each by itself would cost a third of what a small request costs at all.
"""

from __future__ import annotations

import asyncio

_JOINED = 16 * 1024  # bytes; copying more than this into one piece costs more than handing over several


class Gathered:
    """A transport's writing side. Whoever closes the transport calls `flush` before."""

    __slots__ = ("_loop", "_pieces", "_size", "_transport")

    def __init__(self, transport: asyncio.Transport):
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._pieces: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        """Send, at the latest when the loop comes round."""
        if not self._pieces:
            self._loop.call_soon(self.flush)
        self._pieces.append(data)
        self._size += len(data)
        if self._size > _JOINED:
            self.flush()

    def write_now(self, data: bytes) -> None:
        """Send what is complete by itself."""
        if self._pieces:
            self.flush()
        if not self._transport.is_closing():
            self._transport.write(data)

    def flush(self) -> None:
        """Send what was gathered now."""
        pieces = self._pieces
        if not pieces:
            return
        self._pieces = []
        if self._transport.is_closing():
            return
        if self._size <= _JOINED or len(pieces) == 1:
            self._transport.write(b"".join(pieces))
        else:
            self._transport.writelines(pieces)
        self._size = 0

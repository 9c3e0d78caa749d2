"""The mesh's DNS on the wire: A records from the run folder's directory, over UDP and TCP (RFC 1035).

How this works: `answer` is a pure function from one query message to one reply. An unknown name is NXDOMAIN; a known one
asked for anything but an address is an empty NOERROR, as in a cluster without IPv6. Nothing is forwarded: no question
leaves the machine. `Server` gives these answers on the sockets and connections of a pod, and neither knows nor cares where that is.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable

from meshsim.network.base import Connection

TTL = 5  # seconds: short, so that a change of the running mesh shows at once
MAX_QUERY = 4096  # bytes; a query is a header and one question
_IDLE = 10.0  # seconds a TCP client may keep quiet

_A, _ANY, _IN, _OPT = 1, 255, 1, 41
_NOERROR, _FORMERR, _NXDOMAIN, _NOTIMP = 0, 1, 3, 4

Resolve = Callable[[str], list[str]]


def answer(query: bytes, resolve: Resolve) -> bytes | None:
    """The reply to one query, or None for bytes that are no query (they get no answer, as from any name server)."""
    if len(query) < 12:
        return None
    ident, flags, questions, *_ = struct.unpack_from("!HHHHHH", query)
    if flags & 0x8000:
        return None
    if flags & 0x7800:
        return _header(ident, flags, _NOTIMP, 0, 0)
    parsed = _question(query) if questions == 1 else None
    if parsed is None:
        return _header(ident, flags, _FORMERR, 0, 0)
    name, kind, end = parsed
    addresses = resolve(name)
    records = [a for a in addresses if ":" not in a] if kind in (_A, _ANY) else []
    body = b"".join(b"\xc0\x0c" + struct.pack("!HHIH", _A, _IN, TTL, 4) + socket.inet_aton(a) for a in records)
    return _header(ident, flags, _NOERROR if addresses else _NXDOMAIN, 1, len(records)) + query[12:end] + body


def _header(ident: int, flags: int, code: int, questions: int, answers: int) -> bytes:
    """Authoritative, recursion available, and whatever of recursion the client desired."""
    return struct.pack("!HHHHHH", ident, 0x8480 | (flags & 0x0100) | code, questions, answers, 0, 0)


def _question(query: bytes) -> tuple[str, int, int] | None:
    """(name, type, end of the question), or None for a malformed one. A question's name is never compressed."""
    labels, at = [], 12
    while at < len(query):
        size = query[at]
        if size == 0:
            break
        if size > 63 or at + 1 + size > len(query):
            return None
        labels.append(query[at + 1 : at + 1 + size].decode("latin-1"))
        at += 1 + size
    if at + 5 > len(query) or not labels:
        return None
    kind, _ = struct.unpack_from("!HH", query, at + 1)
    return ".".join(labels), kind, at + 5


class Server:
    """One pod that answers until it is closed. `udp`: its bound, non-blocking socket for datagrams; streams are given to `accept`."""

    def __init__(self, resolve: Resolve, udp: socket.socket | None = None):
        self._resolve, self._udp = resolve, udp
        self._asking: set[asyncio.Task[None]] = set()
        if udp is not None:
            asyncio.get_running_loop().add_reader(udp, self._on_datagram, udp)

    async def close(self) -> None:
        if self._udp is not None:
            asyncio.get_running_loop().remove_reader(self._udp)
            self._udp.close()
        for task in list(self._asking):
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)

    def accept(self, connection: Connection) -> None:
        """Answer what is asked on a connection."""
        task = asyncio.ensure_future(self._on_stream(connection.sock))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    def _on_datagram(self, udp: socket.socket) -> None:
        try:
            query, peer = udp.recvfrom(MAX_QUERY)
            reply = answer(query, self._resolve)
            if reply:
                udp.sendto(reply, peer)
        except OSError:  # the peer went away, or the reply does not fit into a full buffer: DNS clients ask again
            pass

    async def _on_stream(self, sock: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=sock)
        try:
            while True:
                size = int.from_bytes(await asyncio.wait_for(reader.readexactly(2), _IDLE), "big")
                reply = answer(await asyncio.wait_for(reader.readexactly(size), _IDLE), self._resolve)
                if reply is None:
                    break
                writer.write(len(reply).to_bytes(2, "big") + reply)
                await writer.drain()
        except (asyncio.IncompleteReadError, TimeoutError, ConnectionError):
            pass
        finally:
            writer.close()

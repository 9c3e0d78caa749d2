"""The mesh's DNS on the wire: A records from the run folder's directory, over UDP and TCP (RFC 1035).

How this works: `answer` is a pure function from one query message to one reply. An unknown name is NXDOMAIN; a known one
asked for anything but an address is an empty NOERROR, as in a cluster without IPv6. No question leaves the machine. `Server` gives answers
on the sockets and connections of a pod, and neither knows nor cares where that is.

`Agent` is the DNS proxy of a pod whose sidecar captures DNS: it answers A and AAAA for the names of its table and hands every other
question to the pod's nameserver; one that gets no answer there is SERVFAIL. Source: Istio, pkg/dns/client.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import Awaitable, Callable, Coroutine

from meshsim.network.base import Address, Connection
from meshsim.xds.name_table import Found, NameTable

TTL = 5  # seconds: short, so that a change of the running mesh shows at once
MAX_QUERY = 4096  # bytes; a query is a header and one question
DNS_PORT = 53
AGENT = Address("127.0.0.1", 15053)
"""Where a pod's agent is asked."""
AGENT_TTL = 30  # seconds
PATIENCE = 5.0  # seconds an agent waits for the pod's nameserver
_IDLE = 10.0  # seconds a TCP client may keep quiet

_A, _CNAME, _AAAA, _ANY, _IN = 1, 5, 28, 255, 1
_NOERROR, _FORMERR, _SERVFAIL, _NXDOMAIN, _NOTIMP = 0, 1, 2, 3, 4
_OWNER = b"\xc0\x0c"  # a pointer to the question's name, which follows the header

Resolve = Callable[[str], list[str]]
Reply = Callable[[bytes], Awaitable[bytes | None]]
"""One query to its reply, or None for bytes that get none."""


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
    body = b"".join(_record(_OWNER, _A, TTL, socket.inet_aton(a)) for a in records)
    return _header(ident, flags, _NOERROR if addresses else _NXDOMAIN, 1, len(records)) + query[12:end] + body


def authority(resolve: Resolve) -> Reply:
    """The replies of a server that has all the names there are."""

    async def reply(query: bytes) -> bytes | None:
        return answer(query, resolve)

    return reply


class Agent:
    """The replies of one pod's agent. `table`: what it answers itself, looked at for each question; `forward`: asks the pod's
    nameserver, None for no answer; `rng` shuffles the addresses of a name."""

    def __init__(self, table: Callable[[], NameTable | None], forward: Reply, rng: random.Random):
        self._table, self._forward, self._rng = table, forward, rng

    async def reply(self, query: bytes) -> bytes | None:
        parsed = _question(query) if len(query) >= 12 and query[4:6] == b"\0\1" else None
        if parsed is None:
            return answer(query, lambda name: [])
        name, kind, end = parsed
        table = self._table()
        found = table.find(name) if table is not None and kind in (_A, _AAAA) else None
        if found is not None:
            return self._known(query[:end], kind, found)
        ident, flags, *_ = struct.unpack_from("!HH", query)
        return await self._forward(query) or _header(ident, flags, _SERVFAIL, 1, 0) + query[12:end]

    def _known(self, question: bytes, kind: int, found: Found) -> bytes:
        """A host that has no address of the family asked for is there all the same: an empty NOERROR."""
        ident, flags, *_ = struct.unpack_from("!HH", question)
        family = socket.AF_INET6 if kind == _AAAA else socket.AF_INET
        packed = [socket.inet_pton(family, a) for a in found.addresses if (":" in a) == (kind == _AAAA)]
        self._rng.shuffle(packed)
        alias, owner = b"", _OWNER
        if found.alias_of:
            labels = b"".join(bytes((len(label),)) + label.encode("latin-1") for label in found.alias_of.split("."))
            alias = _record(_OWNER, _CNAME, AGENT_TTL, labels + b"\0")
            owner = struct.pack("!H", 0xC000 | (len(question) + len(alias) - len(labels) - 1))
        body = alias + b"".join(_record(owner, kind, AGENT_TTL, address) for address in packed)
        return _header(ident, flags, _NOERROR, 1, len(packed) + bool(alias)) + question[12:] + body


def _record(owner: bytes, kind: int, ttl: int, data: bytes) -> bytes:
    return owner + struct.pack("!HHIH", kind, _IN, ttl, len(data)) + data


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
    """One pod that gives replies until it is closed. `udp`: its bound, non-blocking socket for datagrams; streams are given to `accept`."""

    def __init__(self, reply: Reply, udp: socket.socket | None = None):
        self._reply, self._udp = reply, udp
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
        self._spawn(self._on_stream(connection.sock))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    def _on_datagram(self, udp: socket.socket) -> None:
        with contextlib.suppress(OSError):
            query, peer = udp.recvfrom(MAX_QUERY)
            self._spawn(self._answer(udp, query, peer))

    async def _answer(self, udp: socket.socket, query: bytes, peer: tuple[str, int]) -> None:
        reply = await self._reply(query)
        if reply:
            with contextlib.suppress(OSError):  # the peer went away, or the buffer is full: DNS clients ask again
                udp.sendto(reply, peer)

    async def _on_stream(self, sock: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=sock)
        try:
            while True:
                size = int.from_bytes(await asyncio.wait_for(reader.readexactly(2), _IDLE), "big")
                reply = await self._reply(await asyncio.wait_for(reader.readexactly(size), _IDLE))
                if reply is None:
                    break
                writer.write(len(reply).to_bytes(2, "big") + reply)
                await writer.drain()
        except (asyncio.IncompleteReadError, TimeoutError, ConnectionError):
            pass
        finally:
            writer.close()

"""How an application on the user's machine enters a pod: a small SOCKS5 server, one per pod, on 127.0.0.1.

How this works: `ALL_PROXY=socks5h://127.0.0.1:PORT` makes curl, git and Python's clients hand name and port over, unresolved. The name is
looked up in the mesh's DNS as the pod would (its search path included), and the connection is opened as an application of that pod
opens one: captured by its sidecar, whatever the destination. From then on bytes pass both ways unchanged, half-closes included.

RFC 1928: no authentication (the port is bound to 127.0.0.1), CONNECT only. What a client sees of failures:

    name does not resolve     reply 4, "host unreachable"        curl: exit 97 (with a hostname given to the proxy)
    connection refused        reply 5, "connection refused"      curl: exit 97
    no way there              reply 3, "network unreachable"     curl: exit 97
    anything but CONNECT      reply 7, "command not supported"

A captured connection is never refused here: the sidecar takes it, and what happens then is the sidecar's to say, as in a
cluster. Clients that ignore ALL_PROXY are not captured (and cannot reach the mesh at all on this network).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import socket
from collections.abc import Awaitable, Callable

from meshsim.network.base import Address, Connection

Dial = Callable[[Address], Awaitable[Connection]]
Resolve = Callable[[str], Awaitable[list[str]]]

_VERSION = 5
_CONNECT = 1
_IPV4, _NAME, _IPV6 = 1, 3, 4
_SUCCEEDED, _FAILED, _NO_NETWORK, _NO_HOST, _REFUSED, _NOT_SUPPORTED, _BAD_ADDRESS = 0, 1, 3, 4, 5, 7, 8
_REPLIES = {errno.ECONNREFUSED: _REFUSED, errno.ENETUNREACH: _NO_NETWORK, errno.EHOSTUNREACH: _NO_HOST}
_CHUNK = 262144


class _Refused(Exception):
    def __init__(self, reply: int):
        self.reply = reply


class SocksServer:
    """The way into one pod. `dial` opens a connection as its applications do, `resolve` asks its DNS."""

    def __init__(self, dial: Dial, resolve: Resolve):
        self._dial, self._resolve = dial, resolve
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        """Listen on 127.0.0.1; the port chosen."""
        self._server = await asyncio.start_server(self._on_client, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._clients):
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    async def _on_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client went away
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        version, methods = await reader.readexactly(2)
        await reader.readexactly(methods)
        if version != _VERSION:
            return
        writer.write(bytes((_VERSION, 0)))
        try:
            connection = await self._dial(await self._destination(reader))
        except _Refused as e:
            writer.write(_reply(e.reply))
            return
        except OSError as e:
            writer.write(_reply(_REPLIES.get(e.errno or 0, _FAILED)))
            return
        writer.write(_reply(_SUCCEEDED))
        await relay(reader, writer, connection.sock)

    async def _destination(self, reader: asyncio.StreamReader) -> Address:
        _, command, _, kind = await reader.readexactly(4)
        if kind == _NAME:
            (length,) = await reader.readexactly(1)
            host = (await reader.readexactly(length)).decode("latin-1")
        elif kind in (_IPV4, _IPV6):
            host = str(ipaddress.ip_address(await reader.readexactly(4 if kind == _IPV4 else 16)))
        else:
            raise _Refused(_BAD_ADDRESS)
        port = int.from_bytes(await reader.readexactly(2), "big")
        if command != _CONNECT:
            raise _Refused(_NOT_SUPPORTED)
        with contextlib.suppress(ValueError):
            return Address(str(ipaddress.ip_address(host)), port)
        addresses = ["127.0.0.1"] if host == "localhost" else await self._resolve(host)  # the pod's own, as in its /etc/hosts
        if not addresses:
            raise _Refused(_NO_HOST)
        return Address(addresses[0], port)


async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sock: socket.socket) -> None:
    """Pass bytes both ways until both directions ended; a broken side breaks the other."""
    there_reader, there_writer = await asyncio.open_connection(sock=sock)
    try:
        await asyncio.gather(_pump(reader, there_writer), _pump(there_reader, writer))
    except OSError:
        writer.transport.abort()
    finally:
        there_writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(_CHUNK):
        writer.write(chunk)
        await writer.drain()
    if writer.can_write_eof() and not writer.is_closing():
        writer.write_eof()


def _reply(code: int) -> bytes:
    return bytes((_VERSION, code, 0, _IPV4)) + bytes(6)

"""The way into a pod from the user's machine, byte by byte."""

from __future__ import annotations

import asyncio
import shutil
import struct
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from meshsim.network import directory, proxy_protocol
from meshsim.network.base import Address, Connection
from meshsim.network.loopback import LoopbackNetwork
from meshsim.network.socks import SocksServer

SLEEP, SITE = "10.244.1.10", "203.0.113.10"


@asynccontextmanager
async def pod(captured: bool) -> AsyncIterator[tuple[int, asyncio.Queue[Connection], Path]]:
    folder = Path(tempfile.mkdtemp(prefix="msim-", dir="/tmp"))
    capture = directory.Capture(str(folder / "out.sock") if captured else "")
    directory.write(folder, directory.Directory(names={"a.test": [SITE]}, pods={SLEEP: capture}))
    network, taken = LoopbackNetwork(folder), asyncio.Queue[Connection]()
    await network.listen(capture.outbound or Address(SITE, 80), taken.put_nowait)
    server = SocksServer(network.pod(SLEEP).capture, network.resolve)
    try:
        yield await server.start(), taken, folder
    finally:
        await server.close()
        await network.close()
        shutil.rmtree(folder)


def name(host: str, port: int, command: int = 1) -> bytes:
    return bytes((5, command, 0, 3, len(host))) + host.encode() + struct.pack("!H", port)


def ipv4(host: str, port: int) -> bytes:
    return bytes((5, 1, 0, 1)) + bytes(map(int, host.split("."))) + struct.pack("!H", port)


REQUESTS = [
    ("a name", name("a.test", 80), 0),
    ("an address", ipv4(SITE, 80), 0),
    ("an address as a name", name(SITE, 80), 0),
    ("an unknown name", name("nowhere.test", 80), 4),
    ("nobody there", name("a.test", 81), 5),
    ("BIND", name("a.test", 80, command=2), 7),
]


@pytest.mark.parametrize(("what", "request_", "reply"), REQUESTS, ids=[row[0] for row in REQUESTS])
async def test_replies(what: str, request_: bytes, reply: int) -> None:
    async with pod(captured=False) as (port, _, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for byte in b"\x05\x01\x00" + request_:
            writer.write(bytes([byte]))
            await writer.drain()
        assert await asyncio.wait_for(reader.readexactly(2), 5) == b"\x05\x00"
        assert (await asyncio.wait_for(reader.readexactly(10), 5))[:2] == bytes((5, reply))
        writer.close()


async def test_a_captured_pod_s_connection_goes_to_its_sidecar_and_half_closes_pass() -> None:
    async with pod(captured=True) as (port, taken, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\x05\x01\x00" + name("a.test", 4711) + b"hello")
        await reader.readexactly(12)
        connection = await asyncio.wait_for(taken.get(), 5)
        there_reader, there_writer = await asyncio.open_connection(sock=connection.sock)
        header = proxy_protocol.decode(await there_reader.readexactly(28))
        assert header is not None and header.destination == Address(SITE, 4711)
        writer.write_eof()
        assert await asyncio.wait_for(there_reader.read(), 5) == b"hello"
        there_writer.write(b"world")
        there_writer.close()
        assert await asyncio.wait_for(reader.read(), 5) == b"world"
        writer.close()

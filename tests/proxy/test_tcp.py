"""Bytes through a live proxy: both ends of the stream, back-pressure, and what inspectors wait for."""

from __future__ import annotations

import asyncio
import ssl
import time

import pytest

from tests.proxy.support import Bench, tcp

REFUSING = tcp()


async def test_a_client_that_has_said_all_still_hears_the_host() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"late answer to " + await reader.read())

    async with Bench(tcp()) as bench:
        await bench.host(talk)
        reader, writer = await bench.client()
        writer.write(b"hi")
        writer.write_eof()
        assert await reader.read() == b"late answer to hi"
        await bench.idle()
        assert (bench.entries[0].received, bench.entries[0].sent, bench.entries[0].flags) == (2, 17, [])


async def test_a_host_that_has_said_all_still_hears_the_client() -> None:
    heard = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"bye")
        writer.write_eof()
        heard.append(await reader.read())

    async with Bench(tcp()) as bench:
        await bench.host(talk)
        reader, writer = await bench.client()
        assert await reader.read() == b"bye"
        writer.write(b"one more thing")
        writer.write_eof()
        await bench.idle()
    assert heard == [b"one more thing"]


async def test_a_host_may_speak_first() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 ready")
        await reader.read()

    async with Bench(tcp()) as bench:
        await bench.host(talk)
        reader, _ = await bench.client()
        assert await reader.readexactly(9) == b"220 ready"


async def test_no_host_is_a_reset_for_who_has_spoken_and_an_end_for_who_has_not() -> None:
    async with Bench(REFUSING) as bench:
        reader, writer = await bench.client()
        assert await reader.read() == b""
        assert bench.entries[0].flags == ["UF", "URX"]
        writer.close()
        reader, writer = await bench.client()
        writer.write(b"hello")
        with pytest.raises(ConnectionResetError):
            await reader.read()
            await reader.read()


async def test_who_does_not_read_stops_who_writes() -> None:
    sent = 0
    stuck = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.transport.set_write_buffer_limits(high=0)
        while not stuck.is_set():
            writer.write(b"x" * 65536)
            sent += 65536
            try:
                await asyncio.wait_for(writer.drain(), 0.3)
            except TimeoutError:
                stuck.set()

    async with Bench(tcp()) as bench:
        await bench.host(talk)
        reader, writer = await bench.client()
        writer.transport.pause_reading()
        await asyncio.wait_for(stuck.wait(), 20)
        assert sent < 16 * 1024 * 1024
        writer.transport.resume_reading()
        assert await reader.readexactly(65536) == b"x" * 65536


async def test_an_idle_connection_ends() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with Bench(tcp(idle_timeout="0.05s")) as bench:
        await bench.host(talk)
        reader, _ = await bench.client()
        assert await asyncio.wait_for(reader.read(), 5) == b""
        assert dict(bench.proxy.core.stats.values("tcp.test.idle_timeout"))["tcp.test.idle_timeout"] == 1


def hello(sni: str | None) -> bytes:
    """A real ClientHello."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    tls = context.wrap_bio(incoming, outgoing, server_hostname=sni)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


@pytest.mark.parametrize("sni", ["a.example", None])
async def test_a_hello_in_crumbs_is_read_without_spinning(sni: str | None) -> None:
    data = hello(sni)
    got = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append(await reader.readexactly(len(data)))

    async with Bench(tcp(inspectors=("tls",))) as bench:
        await bench.host(talk)
        reader, writer = await bench.client()
        for at in range(0, len(data) - 1, 4):  # a Unix socket holds some 270 segments, and nothing is consumed before the end
            writer.write(data[at : min(at + 4, len(data) - 1)])
            await asyncio.sleep(0)
        began = time.process_time()
        await asyncio.sleep(0.3)  # the proxy waits for the last byte; what it costs meanwhile is the point
        spent = time.process_time() - began
        writer.write(data[-1:])
        await reader.read()
        writer.close()
        await bench.idle()
    assert got == [data]
    assert spent < 0.1
    assert (bench.entries[0].downstream.sni, bench.entries[0].downstream.alpn) == (sni or "", ("h2", "http/1.1"))

"""What a relay does by `splice` is what it does by itself: every talk of the table has the same outcome both ways, on both event loops."""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
import random
import socket
import ssl
import sys
from collections.abc import Callable, Coroutine

import pytest
import uvloop

from meshsim.proxy import splice
from meshsim.proxy.stats import Stats
from meshsim.proxy.tls import Prepared, TlsTransport
from tests.proxy.support import Bench, Talk, tcp

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux splices")

MUCH = 3 * 1024 * 1024
EARLY = 64 * 1024
DATA = random.Random(7).randbytes(MUCH)
Outcome = tuple[object, ...]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def digest(data: bytes) -> str:
    return f"{len(data)} {hashlib.sha256(data).hexdigest()[:8]}"


async def what_comes(reader: asyncio.StreamReader) -> str:
    """All of it, or how it broke off."""
    got = b""
    try:
        while piece := await reader.read(2**16):
            got += piece
    except ConnectionError as e:
        return type(e).__name__
    return digest(got)


async def in_pieces(writer: asyncio.StreamWriter, data: bytes, seed: int) -> None:
    """Sizes from a byte to a quarter of a MiB."""
    sizes = random.Random(seed)
    while data:
        size = sizes.choice((1, 1500, 4096, 65536, 262144))
        writer.write(data[:size])
        await writer.drain()
        data = data[size:]


async def logged(bench: Bench) -> Outcome:
    await bench.idle()
    entry, stats = bench.entries[0], dict(bench.proxy.core.stats.values("tcp.test."))
    counted = [stats[f"tcp.test.downstream_cx_{way}_bytes_total"] for way in ("rx", "tx")]
    assert counted == [entry.received, entry.sent]
    return entry.received, entry.sent, entry.flags, stats.get("tcp.test.idle_timeout", 0)


async def download(bench: Bench) -> Outcome:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(3)
        await in_pieces(writer, DATA, 1)

    reader, writer = await connected(bench, talk)
    writer.write(b"get")
    got = await what_comes(reader)
    writer.close()
    return got, *await logged(bench)


async def upload(bench: Bench) -> Outcome:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await what_comes(reader)).encode())

    reader, writer = await connected(bench, talk)
    await in_pieces(writer, DATA, 2)
    writer.write_eof()
    return await reader.read(), *await logged(bench)


async def both_ways(bench: Bench) -> Outcome:
    heard: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.TaskGroup() as group:
            coming = group.create_task(what_comes(reader))
            await in_pieces(writer, DATA[::-1], 3)
            writer.write_eof()
        heard.set_result(coming.result())

    reader, writer = await connected(bench, talk)
    async with asyncio.TaskGroup() as group:
        coming = group.create_task(what_comes(reader))
        await in_pieces(writer, DATA, 4)
        writer.write_eof()
    return coming.result(), *await logged(bench), await heard


async def a_client_speaks_on_after_the_end(bench: Bench) -> Outcome:
    heard: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(DATA)
        writer.write_eof()
        heard.set_result(await what_comes(reader))

    reader, writer = await connected(bench, talk)
    first = await what_comes(reader)
    await in_pieces(writer, DATA[:1000000], 5)
    writer.write_eof()
    return first, *await logged(bench), await heard


async def a_half_that_ended_before(bench: Bench) -> Outcome:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.read() == b"all I want"
        writer.write(DATA)

    reader, writer = await connected(bench, talk)
    writer.write(b"all I want")
    writer.write_eof()
    return await what_comes(reader), *await logged(bench)


async def a_client_goes_away(bench: Bench) -> Outcome:
    gone = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                writer.write(DATA)
                await writer.drain()
        except ConnectionError:
            gone.set()

    reader, writer = await connected(bench, talk)
    await reader.readexactly(MUCH)
    writer.close()
    await asyncio.wait_for(gone.wait(), 10)
    received, _, flags, _ = await logged(bench)
    return received, flags


async def a_host_breaks_off(bench: Bench) -> Outcome:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(3)
        writer.write(DATA)
        await writer.drain()
        await reader.readexactly(1)  # and with what else comes unread, which makes the end a reset
        writer.transport.pause_reading()

    reader, writer = await connected(bench, talk)
    writer.write(b"get")
    await reader.readexactly(MUCH)
    writer.write(b"x" * 2**20)
    return await what_comes(reader), (await logged(bench))[1:]


async def who_does_not_read_stops_who_writes(bench: Bench) -> Outcome:
    stuck = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.set_write_buffer_limits(high=0)
        sent, due = 0, 16 * MUCH
        while sent < due:
            writer.write(DATA[: 2**16])
            sent += 2**16
            try:
                await asyncio.wait_for(asyncio.shield(flushed := asyncio.ensure_future(writer.drain())), 0.2)
            except TimeoutError:
                due = sent
                stuck.set()
                await flushed

    reader, writer = await connected(bench, talk)
    await reader.readexactly(2 * EARLY)
    await asyncio.wait_for(stuck.wait(), 20)
    rest = 0
    while piece := await reader.read(2**16):
        rest += len(piece)
    writer.close()
    received, sent, flags, _ = await logged(bench)
    assert 2 * EARLY + rest == sent < 8 * MUCH
    return received, flags


async def an_idle_connection_ends(bench: Bench) -> Outcome:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(DATA)
        await reader.read()

    reader, _ = await connected(bench, talk)
    return await what_comes(reader), *await logged(bench)


async def what_was_held_at_the_end_arrives(bench: Bench) -> Outcome:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(DATA * 4)
        await reader.read()

    reader, writer = await connected(bench, talk)
    await reader.readexactly(2 * EARLY)
    writer.transport.pause_reading()
    received, sent, flags, idle = await logged(bench)
    writer.transport.resume_reading()
    assert len(await reader.read()) + 2 * EARLY == sent
    return received, flags, idle


async def the_proxy_ends(bench: Bench) -> Outcome:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(DATA)
        await reader.read()

    reader, _ = await connected(bench, talk)
    await reader.readexactly(MUCH)
    await bench.proxy.close()
    return await what_comes(reader), *await logged(bench)


async def connected(bench: Bench, talk: Talk) -> Streams:
    await bench.host(talk)
    return await bench.client()


TALKS: dict[Callable[[Bench], Coroutine[None, None, Outcome]], dict[str, str]] = {
    download: {},
    upload: {},
    both_ways: {},
    a_client_speaks_on_after_the_end: {},
    a_half_that_ended_before: {},
    a_client_goes_away: {},
    a_host_breaks_off: {},
    who_does_not_read_stops_who_writes: {},
    an_idle_connection_ends: {"idle_timeout": "0.2s"},
    what_was_held_at_the_end_arrives: {"idle_timeout": "0.2s"},
    the_proxy_ends: {},
}
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("talk", TALKS, ids=lambda talk: talk.__name__)
def test_spliced_or_not(
    talk: Callable[[Bench], Coroutine[None, None, Outcome]], loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    took: list[object] = []
    take_over = splice.take_over
    monkeypatch.setattr(splice, "take_over", lambda *args: took.append(made := take_over(*args)) or made)

    async def outcome() -> Outcome:
        async with Bench(tcp(**TALKS[talk])) as bench, asyncio.timeout(30):
            return await talk(bench)

    outcomes, files = [], []
    for after in (math.inf, EARLY):
        monkeypatch.setattr(splice, "AFTER", after)
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            outcomes.append(runner.run(outcome()))
        files.append(len(os.listdir("/proc/self/fd")))
        assert len(took) == (after is EARLY)
    assert None not in took
    assert outcomes[0] == outcomes[1]
    assert files[0] == files[1]


async def test_without_descriptors_a_relay_goes_on_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(flags: int) -> tuple[int, int]:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(splice, "AFTER", EARLY)
    monkeypatch.setattr(os, "pipe2", none_left)
    async with Bench(tcp()) as bench:
        assert (await download(bench))[0] == digest(DATA)


async def test_tls_is_not_for_the_kernel() -> None:
    one, other = socket.socketpair()
    plain, _ = await asyncio.get_running_loop().connect_accepted_socket(asyncio.Protocol, one)
    prepared = Prepared(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), None, ())
    tls = TlsTransport(prepared, server=False, sni="a.example", meter=Stats().meter("ssl."), on_ready=print, on_failure=print)
    tls.connection_made(plain)
    assert splice.can_carry(plain) and not splice.can_carry(tls)
    plain.abort()
    assert not splice.can_carry(plain)
    other.close()


@pytest.mark.parametrize("loop", LOOPS)
def test_an_abort_is_a_reset_on_both_sides(loop: str) -> None:
    """On TCP, whose resets Unix sockets do not have."""

    async def end_of(sock: socket.socket) -> str:
        try:
            return repr(await asyncio.get_running_loop().sock_recv(sock, 10))
        except ConnectionError as e:
            return type(e).__name__

    async def main() -> list[str]:
        running = asyncio.get_running_loop()
        sides, transports = [], []
        with socket.create_server(("127.0.0.1", 0)) as server:
            for _ in range(2):
                sides.append(socket.create_connection(server.getsockname()))
                sides[-1].setblocking(False)
                transport, _ = await running.connect_accepted_socket(asyncio.Protocol, server.accept()[0])
                transport.pause_reading()
                transports.append(transport)
        told = splice.Told(lambda size: None, lambda: None, lambda error: None)
        spliced = splice.take_over(running, *transports, told, told)
        assert spliced is not None
        spliced.start(client_ended=False, host_ended=False)
        await running.sock_sendall(sides[0], b"hello")
        assert await running.sock_recv(sides[1], 10) == b"hello"
        spliced.abort(lambda sock: sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"))
        ends = [await end_of(side) for side in sides]
        for side in sides:
            side.close()
        return ends

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        assert runner.run(main()) == ["ConnectionResetError"] * 2

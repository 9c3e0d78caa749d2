"""What a `Wire` tells its protocol is what the event loop's own transport tells: every talk of the table comes out the same over both."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from collections.abc import Awaitable, Callable
from typing import cast

import pytest
import uvloop

from meshsim.proxy import edges
from meshsim.proxy.edges import ENDED, READABLE, Edges
from meshsim.proxy.wire import Wire
from tests.proxy.support import HOST, Bench, tcp

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has edges")

MUCH = b"0123456789abcdef" * 64 * 1024  # what no socket takes at once
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


class Heard(asyncio.Protocol):
    """Writes down what it is told; bytes are counted."""

    def __init__(self, *, stays: bool) -> None:
        self.told: list[str] = []
        self.got = b""
        self._stays = stays
        self.over = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.told.append("made")

    def data_received(self, data: bytes) -> None:
        self.got += data

    def eof_received(self) -> bool:
        self.told.append(f"end after {len(self.got)}")
        return self._stays

    def connection_lost(self, error: Exception | None) -> None:
        self.told.append(f"lost after {len(self.got)}: {type(error).__name__}")
        self.over.set()

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not true():
            await asyncio.sleep(0.001)


async def some_turns() -> None:
    """What is to happen would have happened."""
    for _ in range(5):
        await asyncio.sleep(0.001)


async def all_of(peer: socket.socket) -> int:
    """How many bytes come until the end."""
    loop, size = asyncio.get_running_loop(), 0
    async with asyncio.timeout(5):
        while piece := await loop.sock_recv(peer, 2**18):
            size += len(piece)
    return size


async def bytes_and_the_end_at_once(heard: Heard, peer: socket.socket) -> object:
    peer.send(b"hello")
    peer.close()
    await heard.over.wait()
    return None


async def an_end_then_an_answer(heard: Heard, peer: socket.socket) -> object:
    peer.send(b"hello")
    peer.shutdown(socket.SHUT_WR)
    await until(lambda: "end after 5" in heard.told)
    await some_turns()
    heard.transport.write(b"answer")
    heard.transport.write_eof()
    with pytest.raises(RuntimeError):
        heard.transport.write(b"more")
    came = await all_of(peer)
    heard.transport.close()
    await heard.over.wait()
    return came


async def paused_reading(heard: Heard, peer: socket.socket) -> object:
    heard.transport.pause_reading()
    peer.send(b"1")
    await some_turns()
    before = heard.got
    peer.send(b"2")
    peer.shutdown(socket.SHUT_WR)
    await some_turns()
    heard.transport.resume_reading()
    await heard.over.wait()
    return before, heard.got


async def much_comes(heard: Heard, peer: socket.socket) -> object:
    await asyncio.get_running_loop().sock_sendall(peer, MUCH)
    peer.close()
    await heard.over.wait()
    return heard.got == MUCH


async def more_than_the_peer_takes(heard: Heard, peer: socket.socket) -> object:
    heard.transport.set_write_buffer_limits(high=1000)
    heard.transport.write(MUCH)
    heard.transport.write(MUCH)
    left = heard.transport.get_write_buffer_size() > 1000
    heard.transport.write_eof()
    came = await all_of(peer)
    peer.close()
    await heard.over.wait()
    return left, came, heard.transport.get_write_buffer_size()


async def a_close_behind_much(heard: Heard, peer: socket.socket) -> object:
    heard.transport.write(MUCH)
    heard.transport.close()
    heard.transport.close()
    return heard.transport.is_closing(), await all_of(peer), await heard.over.wait()


async def an_abort_drops_what_is_unsent(heard: Heard, peer: socket.socket) -> object:
    heard.transport.write(MUCH)
    heard.transport.abort()
    heard.transport.abort()
    heard.transport.write(b"x")
    await heard.over.wait()
    return await all_of(peer) < len(MUCH)


async def a_reset(heard: Heard, peer: socket.socket) -> object:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    await heard.over.wait()
    return heard.transport.is_closing()


async def a_limit_that_is_passed_already(heard: Heard, peer: socket.socket) -> object:
    heard.transport.set_write_buffer_limits(high=len(MUCH))
    heard.transport.write(MUCH)
    before = list(heard.told)
    heard.transport.set_write_buffer_limits(high=0)
    after = list(heard.told)
    heard.transport.write_eof()
    return before, after, await all_of(peer)


TALKS: dict[Callable[[Heard, socket.socket], Awaitable[object]], bool] = {
    bytes_and_the_end_at_once: False,
    an_end_then_an_answer: True,
    paused_reading: False,
    much_comes: False,
    more_than_the_peer_takes: False,
    a_close_behind_much: False,
    an_abort_drops_what_is_unsent: False,
    a_reset: False,
    a_limit_that_is_passed_already: False,
}
"""Whether the connection stays when its peer has no more to say."""


def pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        peer = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
    for sock in (ours, peer):
        sock.setblocking(False)
    return ours, peer


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("talk", TALKS, ids=lambda talk: talk.__name__)
def test_a_wire_is_a_transport(talk: Callable[[Heard, socket.socket], Awaitable[object]], loop: str) -> None:
    async def outcome(wired: bool) -> tuple[object, list[str]]:
        running = asyncio.get_running_loop()
        ours, peer = pair()
        heard, watched = Heard(stays=TALKS[talk]), Edges(running)
        if wired:
            Wire(running, watched, ours, heard)
        else:
            await running.connect_accepted_socket(lambda: heard, ours)
        try:
            return await talk(heard, peer), heard.told
        finally:
            heard.transport.abort()
            await until(heard.over.is_set)
            watched.close()
            peer.close()

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        expected = runner.run(outcome(False))
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        assert runner.run(outcome(True)) == expected


async def test_what_was_told_before_is_not_lost() -> None:
    """Bytes and an end that someone else heard of, and left unread."""
    running, watched = asyncio.get_running_loop(), Edges(asyncio.get_running_loop())
    ours, peer = pair()
    told: list[int] = []
    watched.watch(ours.fileno(), told.append)
    peer.send(b"hello")
    peer.close()
    await until(lambda: told and told[-1] & ENDED)
    heard = Heard(stays=False)
    Wire(running, watched, ours, heard, told=READABLE | ENDED)
    await heard.over.wait()
    watched.close()
    assert heard.told == ["made", "end after 5", "lost after 5: NoneType"]


async def test_who_fails_takes_no_other_with_it() -> None:
    running, watched = asyncio.get_running_loop(), Edges(asyncio.get_running_loop())
    failures: list[object] = []
    running.set_exception_handler(lambda _, context: failures.append(context["exception"]))
    told: list[int] = []
    socks = [*pair(), *pair()]
    watched.watch(socks[0].fileno(), lambda events: print(events / 0))
    watched.watch(socks[2].fileno(), told.append)
    for peer in (socks[1], socks[3]):
        peer.send(b"x")
    await until(lambda: told and failures)
    watched.close()
    for sock in socks:
        sock.close()
    assert [type(failure) for failure in failures] == [ZeroDivisionError] and told == [READABLE]


@pytest.mark.parametrize("known", [True, False], ids=["edges", "none"])
@pytest.mark.parametrize("pieces", [[b"ab"], [b"a", b"b"]], ids=str)
async def test_without_edges_a_relay_is_the_same(pieces: list[bytes], known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"<" + await reader.read() + b">")

    monkeypatch.setattr(edges, "known", known)
    async with Bench(tcp()) as bench:
        await bench.host(talk, HOST)
        reader, writer = await bench.client()
        for piece in pieces:
            writer.write(piece)
            await some_turns()
        writer.write_eof()
        assert await reader.read() == b"<ab>"
        writer.close()
        await bench.idle()
        assert [(entry.received, entry.sent, entry.flags) for entry in bench.entries] == [(2, 4, [])]

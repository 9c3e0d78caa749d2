"""HTTP/2 between the proxy and peers that use the `h2` library, or no library at all."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest

from meshsim.proxy.http2 import frames
from meshsim.proxy.http2.frames import Code
from meshsim.proxy.http2.hpack import Encoder
from meshsim.routing.inspection import PREFACE
from tests.proxy.support import CLIENT, PROXY, Bench, answering, cluster, http

HEAD = [(":method", "GET"), (":scheme", "http"), (":authority", "h"), (":path", "/")]
POST = [(":method", "POST"), *HEAD[1:]]
HELLO = PREFACE + frames.settings({})
Headers = list[tuple[str, str]]


class Peer:
    """An HTTP/2 end by the library. `done`: stream -> head, body, trailers; `resets` and `ended`: what the proxy gave up."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, client: bool = True):
        self.reader, self.writer = reader, writer
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=client, header_encoding="latin-1"))
        self.heads: dict[int, Headers] = {}
        self.bodies: dict[int, bytearray] = {}
        self.trailers: dict[int, Headers] = {}
        self.ended: set[int] = set()
        self.resets: dict[int, int] = {}
        self.pings: list[bytes] = []
        self.acknowledging = True

    async def start(self, **settings: int) -> None:
        values = {getattr(h2.settings.SettingCodes, name): value for name, value in settings.items()}
        if values:
            self.h2.local_settings = h2.settings.Settings(client=True, initial_values=values)
        self.h2.initiate_connection()
        await self.flush()

    async def flush(self) -> None:
        self.writer.write(self.h2.data_to_send())
        await self.writer.drain()

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not done():
                data = await self.reader.read(65536)
                assert data, "the proxy has closed the connection"
                for event in self.h2.receive_data(data):
                    self._take(event)
                await self.flush()

    def _take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived | h2.events.ResponseReceived):
            self.heads[event.stream_id] = event.headers
        elif isinstance(event, h2.events.DataReceived):
            self.bodies.setdefault(event.stream_id, bytearray()).extend(event.data)
            if self.acknowledging:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.TrailersReceived):
            self.trailers[event.stream_id] = event.headers
        elif isinstance(event, h2.events.StreamEnded):
            self.ended.add(event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            self.resets[event.stream_id] = event.error_code
        elif isinstance(event, h2.events.PingAckReceived):
            self.pings.append(event.ping_data)

    async def send(self, data: bytes, stream: int) -> None:
        """A body and its end, as the proxy's windows allow."""
        while data:
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            if not room:
                await self.until(lambda: self.h2.local_flow_control_window(stream) > 0)
                continue
            self.h2.send_data(stream, data[:room])
            data = data[room:]
            await self.flush()
        self.h2.end_stream(stream)
        await self.flush()


async def peer(bench: Bench, **settings: int) -> Peer:
    client = Peer(*await bench.client())
    await client.start(**settings)
    return client


def sized(size: int) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """A host that answers with so many bytes."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                return
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
            writer.write(bytes(size))
            await writer.drain()

    return talk


# A client of the proxy ------------------------------------------------------------------------------------------------------------


async def test_streams_side_by_side() -> None:
    async with Bench(http()) as bench:
        await bench.host(answering)
        client = await peer(bench)
        for stream in range(1, 41, 2):
            client.h2.send_headers(stream, HEAD, end_stream=True)
        client.h2.ping(b"01234567")
        await client.flush()
        await client.until(lambda: len(client.ended) == 20)
        assert all(body == b"ok" for body in client.bodies.values())
        assert all(dict(head)[":status"] == "200" for head in client.heads.values())
        assert client.pings == [b"01234567"]
        await bench.idle()
        assert {entry.protocol for entry in bench.entries} == {"HTTP/2"}


@pytest.mark.parametrize("window", [1, 1000, 65_535])
async def test_a_response_waits_for_the_client_s_window(window: int) -> None:
    """Also when the request is long over for the proxy; the window opens by SETTINGS and by WINDOW_UPDATE."""
    async with Bench(http()) as bench:
        await bench.host(sized(200_000))
        client = await peer(bench, INITIAL_WINDOW_SIZE=window)
        client.acknowledging = False
        client.h2.send_headers(1, HEAD, end_stream=True)
        await client.flush()
        await client.until(lambda: len(client.bodies.get(1, b"")) == window)
        client.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window + 5})
        if window == 65_535:
            client.h2.increment_flow_control_window(5)
        await client.flush()
        await client.until(lambda: len(client.bodies[1]) == window + 5)
        client.h2.increment_flow_control_window(300_000)
        client.h2.increment_flow_control_window(300_000, 1)
        await client.flush()
        await client.until(lambda: 1 in client.ended)
        assert len(client.bodies[1]) == 200_000


async def test_a_large_head_comes_in_continuations() -> None:
    """One of 50 KiB is under Envoy's limit of 60; one above it resets its stream, and the next request is answered."""
    async with Bench(http()) as bench:
        await bench.host(answering)
        client = await peer(bench)
        client.h2.send_headers(1, [*HEAD, *((f"x-{n}", "v" * 1000) for n in range(50))], end_stream=True)
        client.h2.send_headers(3, [*HEAD, *((f"x-{n}", "v" * 1000) for n in range(70))], end_stream=True)
        client.h2.send_headers(5, HEAD, end_stream=True)
        await client.flush()
        await client.until(lambda: client.ended == {1, 5} and 3 in client.resets)
        await bench.idle()
        assert [entry.details for entry in bench.entries if not entry.code] == ["http2.header_list_size_too_large"]


async def test_a_reset_by_the_client_is_noted() -> None:
    release = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        release.set()
        await reader.read()

    async with Bench(http()) as bench:
        await bench.host(talk)
        client = await peer(bench)
        client.h2.send_headers(1, HEAD, end_stream=True)
        await client.flush()
        await release.wait()
        client.h2.reset_stream(1, Code.CANCEL)
        await client.flush()
        await bench.idle()
        assert [(entry.code, entry.flags, entry.details) for entry in bench.entries] == [(0, ["DR"], "http2.remote_reset")]


def headers(fields: Headers, stream: int = 1, flags: int = frames.END_HEADERS | frames.END_STREAM) -> bytes:
    return frames.frame(frames.HEADERS, flags, stream, Encoder().encode(fields))


OPEN = headers(POST, flags=frames.END_HEADERS)
BROKEN = {
    "no preface": (b"GET / HTTP/2.0\r\n\r\n" + bytes(40), Code.PROTOCOL_ERROR),
    "no settings first": (PREFACE + OPEN, Code.PROTOCOL_ERROR),
    "a frame too long": (HELLO + frames.head(16_385, frames.DATA, 0, 1), Code.FRAME_SIZE_ERROR),
    "settings of a stream": (HELLO + frames.frame(frames.SETTINGS, 0, 1), Code.PROTOCOL_ERROR),
    "half a setting": (HELLO + frames.frame(frames.SETTINGS, 0, 0, b"123"), Code.FRAME_SIZE_ERROR),
    "a window too large": (PREFACE + frames.settings({frames.Setting.INITIAL_WINDOW_SIZE: 2**31}), Code.FLOW_CONTROL_ERROR),
    "frames too small": (PREFACE + frames.settings({frames.Setting.MAX_FRAME_SIZE: 100}), Code.PROTOCOL_ERROR),
    "data on no stream": (HELLO + frames.frame(frames.DATA, 0, 0, b"x"), Code.PROTOCOL_ERROR),
    "data on a stream nobody opened": (HELLO + frames.frame(frames.DATA, 0, 7, b"x"), Code.PROTOCOL_ERROR),
    "a stream of the server's": (HELLO + headers(HEAD, stream=2), Code.PROTOCOL_ERROR),
    "a promise": (HELLO + OPEN + frames.frame(frames.PUSH_PROMISE, 0, 1, bytes(8)), Code.PROTOCOL_ERROR),
    "a continuation of nothing": (HELLO + frames.frame(frames.CONTINUATION, 0, 1), Code.PROTOCOL_ERROR),
    "a head that is interrupted": (HELLO + headers(HEAD, flags=0) + frames.frame(frames.PING, 0, 0, bytes(8)), Code.PROTOCOL_ERROR),
    "a head without an end": (HELLO + headers(HEAD, flags=0) + frames.frame(frames.CONTINUATION, 0, 1), Code.ENHANCE_YOUR_CALM),
    "a ping too short": (HELLO + frames.frame(frames.PING, 0, 0, b"x"), Code.FRAME_SIZE_ERROR),
    "no window": (HELLO + frames.window_update(0, 0), Code.PROTOCOL_ERROR),
    "too much window": (HELLO + frames.window_update(0, 2**31 - 1), Code.FLOW_CONTROL_ERROR),
    "too much window of a stream": (HELLO + OPEN + frames.window_update(1, 2**31 - 1), Code.FLOW_CONTROL_ERROR),
    "more padding than frame": (HELLO + OPEN + frames.frame(frames.DATA, frames.PADDED, 1, b"\x09x"), Code.PROTOCOL_ERROR),
    "no hpack": (HELLO + frames.frame(frames.HEADERS, 5, 1, b"\xff\xff\xff"), Code.COMPRESSION_ERROR),
    "no path": (HELLO + headers(HEAD[:3]), Code.PROTOCOL_ERROR),
    "two paths": (HELLO + headers([*HEAD, HEAD[3]]), Code.PROTOCOL_ERROR),
    "a status in a request": (HELLO + headers([*HEAD, (":status", "200")]), Code.PROTOCOL_ERROR),
    "a path after a header": (HELLO + headers([*HEAD[:3], ("x", "y"), HEAD[3]]), Code.PROTOCOL_ERROR),
    "a header of HTTP/1.1": (HELLO + headers([*HEAD, ("connection", "close")]), Code.PROTOCOL_ERROR),
    "te": (HELLO + headers([*HEAD, ("te", "gzip")]), Code.PROTOCOL_ERROR),
    "two lengths": (
        HELLO + headers([*POST, ("content-length", "1"), ("content-length", "2")], flags=frames.END_HEADERS),
        Code.PROTOCOL_ERROR,
    ),
    "more than its length": (
        HELLO + headers([*POST, ("content-length", "1")], flags=4) + frames.frame(frames.DATA, 0, 1, b"12"),
        Code.PROTOCOL_ERROR,
    ),
    "less than its length": (
        HELLO + headers([*POST, ("content-length", "3")], flags=4) + frames.frame(frames.DATA, 1, 1, b"12"),
        Code.PROTOCOL_ERROR,
    ),
    "trailers without an end": (HELLO + OPEN + headers([("x", "y")], flags=frames.END_HEADERS), Code.PROTOCOL_ERROR),
    "a path in trailers": (HELLO + OPEN + headers([(":path", "/")]), Code.PROTOCOL_ERROR),
    "frames that say nothing": (HELLO + OPEN + 2 * frames.frame(frames.DATA, 0, 1), Code.ENHANCE_YOUR_CALM),
    "a credit overdrawn": (HELLO + OPEN + 200 * frames.frame(frames.DATA, 0, 1, bytes(16_384)), Code.FLOW_CONTROL_ERROR),
    "a reset of no stream": (HELLO + frames.rst_stream(9, 0), Code.PROTOCOL_ERROR),
    "pings without end": (HELLO + 1001 * frames.frame(frames.PING, 0, 0, bytes(8)), Code.ENHANCE_YOUR_CALM),
}


async def goaway(bench: Bench, pieces: list[bytes]) -> int:
    """The code with which the proxy ends a connection that sends this."""
    sock = (await bench.network.connect(CLIENT, PROXY)).sock
    loop = asyncio.get_running_loop()
    answer = b""
    with sock:
        with contextlib.suppress(BrokenPipeError):  # the proxy may have heard enough before the end
            for piece in pieces:
                await loop.sock_sendall(sock, piece)
        async with asyncio.timeout(10):
            while data := await loop.sock_recv(sock, 65536):
                answer += data
    while answer:
        size, kind = int.from_bytes(answer[:3], "big"), answer[3]
        if kind == frames.GOAWAY:
            return int.from_bytes(answer[13:17], "big")
        answer = answer[9 + size :]
    raise AssertionError("no GOAWAY")


async def test_a_peer_that_breaks_the_rules_is_told_so() -> None:
    """In one piece, and byte by byte where that is not the point. The host keeps the request open, so that windows can run out."""
    held = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await held.wait()

    async with Bench(http(codec_type="HTTP2")) as bench:
        await bench.host(talk)
        for name, (data, code) in BROKEN.items():
            assert await goaway(bench, [data]) == code, name
            if len(data) < 200:
                assert await goaway(bench, [data[at : at + 1] for at in range(len(data))]) == code, name
        held.set()


# A host of the proxy --------------------------------------------------------------------------------------------------------------


async def served(act: Callable[[Peer], Awaitable[None]], request: bytes) -> bytes:
    """What an HTTP/1.1 client gets when its host speaks HTTP/2 and does this with the first request."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host = Peer(reader, writer, client=False)
        await host.start()
        await host.until(lambda: bool(host.heads))
        await act(host)
        await host.flush()
        await reader.read()

    async with Bench(http(clusters=[cluster(http2=True)])) as bench:
        await bench.host(talk)
        return await bench.ask(request)


GET = b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n"


async def _with_trailers(host: Peer) -> None:
    host.h2.send_headers(1, [(":status", "103"), ("link", "x")])
    host.h2.send_headers(1, [(":status", "200")])
    host.h2.send_data(1, b"hi", pad_length=20)
    host.h2.send_headers(1, [("x-sum", "1")], end_stream=True)


async def _reset(host: Peer) -> None:
    host.h2.reset_stream(1, Code.INTERNAL_ERROR)


async def _refuse(host: Peer) -> None:
    host.h2.close_connection(last_stream_id=0)


async def _garbage(host: Peer) -> None:
    host.writer.write(frames.frame(frames.DATA, 0, 1, b"before any head"))


async def _short(host: Peer) -> None:
    host.h2.send_headers(1, [(":status", "200"), ("content-length", "10")])
    host.writer.write(host.h2.data_to_send() + frames.frame(frames.DATA, frames.END_STREAM, 1, b"short"))


@pytest.mark.parametrize(
    ("act", "start", "end"),
    [
        (_with_trailers, b"HTTP/1.1 200 OK", b"2\r\nhi\r\n0\r\n\r\n"),
        (_reset, b"HTTP/1.1 503", b"reset reason: remote reset"),
        (_refuse, b"HTTP/1.1 503", b"reset reason: remote refused stream reset"),
        (_garbage, b"HTTP/1.1 502", b"reset reason: protocol error"),
        (_short, b"HTTP/1.1 200 OK", b"short"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_what_a_host_does_reaches_the_client(act: Callable[[Peer], Awaitable[None]], start: bytes, end: bytes) -> None:
    answer = await served(act, GET)
    assert answer.startswith(start)
    assert answer.endswith(end)


async def test_an_answer_before_the_request_s_end() -> None:
    """The rest of the request is given up, not left open for ever."""
    gone = asyncio.Event()

    async def act(host: Peer) -> None:
        host.h2.send_headers(1, [(":status", "413")], end_stream=True)
        await host.flush()
        await host.until(lambda: 1 in host.resets)
        gone.set()

    answer = await served(act, b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 10\r\nconnection: close\r\n\r\n12345")
    assert answer.startswith(b"HTTP/1.1 413")
    assert gone.is_set()


SETTINGS = {  # as Envoy 1.40 says them, in its order; its windows are 16 MiB where we let one stream have as much as it may buffer
    frames.Setting.HEADER_TABLE_SIZE: 4096,
    frames.Setting.ENABLE_CONNECT_PROTOCOL: 0,
    frames.Setting.MAX_CONCURRENT_STREAMS: 1024,
    frames.Setting.INITIAL_WINDOW_SIZE: 2**20,
}


@pytest.mark.parametrize("allowed", [0, 1])
async def test_the_settings_a_client_is_told(allowed: int) -> None:
    told = frames.settings({**SETTINGS, frames.Setting.ENABLE_CONNECT_PROTOCOL: allowed})
    async with Bench(http(codec_type="HTTP2", http2_protocol_options={"allow_connect": bool(allowed)})) as bench:
        reader, writer = await bench.client()
        writer.write(HELLO)
        assert await asyncio.wait_for(reader.readexactly(len(told)), 5) == told
        assert await asyncio.wait_for(reader.readexactly(13), 5) == frames.window_update(0, 25100289)


async def test_the_settings_a_host_is_told() -> None:
    told = PREFACE + frames.settings({frames.Setting.ENABLE_PUSH: 0, **SETTINGS}) + frames.window_update(0, 25100289)
    heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def listening(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.set_result(await reader.readexactly(len(told)))

    async with Bench(http(clusters=[cluster(http2=True)])) as bench:
        await bench.host(listening)
        _, writer = await bench.client()
        writer.write(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
        assert await asyncio.wait_for(heard, 5) == told

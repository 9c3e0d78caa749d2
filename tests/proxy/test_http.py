"""HTTP through a live proxy, as bytes on both sides; what is expected was seen on a real Envoy."""

from __future__ import annotations

import asyncio
import gc
import re
import socket
import weakref
from typing import Any as Json

import msgspec
import pytest

from meshsim import xds
from meshsim.network.base import Address
from meshsim.proxy.http1_client import Http1Client
from meshsim.proxy.proxy import Proxy
from meshsim.routing.message import Request, Response
from tests.proxy.support import PROXY, Bench, answering, cluster, http, tcp

GET = b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"
TAIL = b"date: D\r\nserver: envoy\r\nconnection: close\r\n"
FAILED = b"upstream connect error or disconnect/reset before headers. reset reason: "


def steady(data: bytes) -> bytes:
    """Without what changes from run to run."""
    data = re.sub(rb"date: [A-Z][^\r]*", b"date: D", data)
    return re.sub(rb"x-envoy-upstream-service-time: \d+\r\n", b"", data)


# What the host answers, and what the client then gets; None: the connection ends without an answer.
ANSWERS: list[tuple[bytes | None, bytes]] = [
    (OK, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n" + TAIL + b"\r\nhi"),
    (b"HTTP/1.1 418 Tea\r\ncontent-length: 0\r\n\r\n", b"HTTP/1.1 418 Unknown\r\ncontent-length: 0\r\n" + TAIL + b"\r\n"),
    (b"HTTP/1.1 204 No\r\ncontent-length: 0\r\n\r\n", b"HTTP/1.1 204 No Content\r\n" + TAIL + b"\r\n"),
    (b"HTTP/1.1 304 No\r\ncontent-length: 7\r\n\r\n", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\n" + TAIL + b"\r\n"),
    (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n" + TAIL + b"\r\nhi"),
    (b"HTTP/1.1 200 OK\r\n\r\nend", b"HTTP/1.1 200 OK\r\n" + TAIL + b"transfer-encoding: chunked\r\n\r\n3\r\nend\r\n0\r\n\r\n"),
    (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;x\r\nhi\r\n0\r\nt: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + TAIL + b"transfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    ),
    (
        None,
        b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 95\r\ncontent-type: text/plain\r\n" + TAIL + b"\r\n" + FAILED
        + b"connection termination",
    ),
    (
        b"garbage\r\n\r\n",
        b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 87\r\ncontent-type: text/plain\r\n" + TAIL + b"\r\n" + FAILED + b"protocol error",
    ),
    (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhi", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n" + TAIL + b"\r\nhi"),
]


@pytest.mark.parametrize(("answer", "expected"), ANSWERS, ids=map(str, range(len(ANSWERS))))
async def test_what_a_client_gets(answer: bytes | None, expected: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer or b"")

    async with Bench(http()) as bench:
        await bench.host(talk)
        assert steady(await bench.ask(GET)) == expected


BODIES = [
    (b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\nconnection: close\r\n\r\nabc", b"content-length: 3", b"abc"),
    (
        b"POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n",
        b"transfer-encoding: chunked",
        b"3\r\nabc\r\n0\r\n\r\n",
    ),
    (b"POST / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n", b"content-length: 0", b""),
]


@pytest.mark.parametrize(("request_bytes", "framing", "body"), BODIES, ids=["length", "chunks", "none"])
async def test_how_a_request_goes_on(request_bytes: bytes, framing: bytes, body: bytes) -> None:
    got = bytearray()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        got.extend(head + await reader.readexactly(len(body)))
        writer.write(OK)

    async with Bench(http()) as bench:
        await bench.host(talk)
        assert (await bench.ask(request_bytes)).startswith(b"HTTP/1.1 200 OK\r\n")
    head, _, rest = bytes(got).partition(b"\r\n\r\n")
    assert framing in head.split(b"\r\n")
    assert b"connection" not in head
    assert rest == body


async def test_pipelined_requests_are_answered_in_order_on_one_upstream_connection() -> None:
    async with Bench(http()) as bench:
        await bench.host(answering)
        answer = await bench.ask(b"GET /1 HTTP/1.1\r\nhost: h\r\n\r\n" * 2 + GET)
        assert answer.count(b"200 OK") == 3
        assert dict(bench.proxy.core.stats.values("upstream_cx_total"))["cluster.up.upstream_cx_total"] == 1


async def test_a_client_that_waits_for_a_100_gets_it_from_the_proxy() -> None:
    async with Bench(http()) as bench:
        await bench.host(answering)
        reader, writer = await bench.client()
        writer.write(b"PUT / HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"


async def test_a_websocket_becomes_a_tunnel() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"\r\nconnection: Upgrade\r\nupgrade: websocket\r\n" in head
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n")
        writer.write(b"<" + await reader.readexactly(4) + b">")

    async with Bench(http(upgrade_configs=[{"upgrade_type": "websocket"}])) as bench:
        await bench.host(talk)
        reader, writer = await bench.client()
        writer.write(b"GET / HTTP/1.1\r\nhost: h\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\nping")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
        assert await reader.read() == b"<ping>"


async def test_a_retried_request_takes_its_body_along() -> None:
    bodies = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        bodies.append(await reader.readexactly(3))
        writer.write(OK if len(bodies) == 2 else b"HTTP/1.1 503 X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")

    routes = [{"match": {"prefix": "/"}, "route": {"cluster": "up", "retry_policy": {"retry_on": "5xx"}}}]
    async with Bench(http(routes)) as bench:
        await bench.host(talk)
        answer = await bench.ask(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\nconnection: close\r\n\r\nabc")
        assert answer.startswith(b"HTTP/1.1 200")
        assert bench.entries[0].attempts == 2
    assert bodies == [b"abc", b"abc"]


async def test_the_route_timeout_answers_for_a_silent_host() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with Bench(http([{"match": {"prefix": "/"}, "route": {"cluster": "up", "timeout": "0.05s"}}])) as bench:
        await bench.host(talk)
        assert (await bench.ask(GET)).endswith(b"\r\n\r\nupstream request timeout")
        assert (bench.entries[0].code, bench.entries[0].flags) == (504, ["UT"])


async def test_circuit_breakers_count_pending_requests() -> None:
    limits = {"thresholds": [{"max_connections": 1, "max_pending_requests": 1}]}
    release = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            await release.wait()
            writer.write(OK)

    async with Bench(http(clusters=[cluster(circuit_breakers=limits)])) as bench:
        await bench.host(talk)
        first = asyncio.ensure_future(bench.ask(GET))
        while not dict(bench.proxy.core.stats.values("upstream_rq_total")).get("cluster.up.upstream_rq_total"):
            await asyncio.sleep(0.001)
        second = asyncio.ensure_future(bench.ask(GET))
        while dict(bench.proxy.core.stats.values("pending_total"))["cluster.up.upstream_rq_pending_total"] < 2:
            await asyncio.sleep(0.001)
        third = await bench.ask(GET)
        assert b"x-envoy-overloaded: true" in third
        assert third.endswith(FAILED + b"overflow")
        release.set()
        assert (await first).endswith(b"hi")
        assert (await second).endswith(b"hi")


async def test_a_connection_ends_after_its_most_requests() -> None:
    async with Bench(http(clusters=[cluster(common={"max_requests_per_connection": 1})])) as bench:
        await bench.host(answering)
        await bench.ask(GET)
        await bench.ask(GET)
        assert dict(bench.proxy.core.stats.values("cx_total"))["cluster.up.upstream_cx_total"] == 2


async def test_a_connection_to_a_host_ends_after_its_time() -> None:
    async with Bench(http(clusters=[cluster(common={"max_connection_duration": "0.02s"})])) as bench:
        await bench.host(answering)
        reader, writer = await bench.client()
        writer.write(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
        await reader.readuntil(b"ok")
        async with asyncio.timeout(5):
            while not any(value for _, value in bench.proxy.core.stats.values("upstream_cx_max_duration_reached")):
                await asyncio.sleep(0.001)
        writer.write(GET)
        assert (await reader.read()).endswith(b"ok")
        assert dict(bench.proxy.core.stats.values("cx_total"))["cluster.up.upstream_cx_total"] == 2


async def test_two_proxies_speak_http2_and_bodies_flow_both_ways() -> None:
    """A sidecar of sorts before the proxy under test, which takes HTTP/2 by its preface."""
    big = bytes(range(256)) * 8192  # 2 MiB: more than a stream's window

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(len(big))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body))
        for at in range(0, len(body), 65536):
            writer.write(body[at : at + 65536])
            await writer.drain()

    async with Bench(http()) as inner:
        await inner.host(talk)
        front = http(clusters=[cluster(http2=True, host=PROXY)])
        front["listeners"][0]["address"]["socket_address"]["port_value"] = 9090
        outer = Proxy(msgspec.convert(front, xds.ProxyConfig), inner.network.pod("10.0.0.3"))
        await outer.start()
        try:
            connection = await inner.network.connect("10.0.0.4", Address("10.0.0.1", 9090))
            reader, writer = await asyncio.open_connection(sock=connection.sock, limit=2**22)
            writer.write(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(big))
            writer.write(big)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            assert await asyncio.wait_for(reader.readexactly(len(big)), 20) == big
            writer.close()
            assert inner.entries == [] or inner.entries[0].protocol == "HTTP/2"
        finally:
            await outer.close()


class Heard:
    """A stream that notes what an upstream connection tells it."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def response(self, response: Response) -> None:
        self.told.append(f"head {response.status}")

    def response_end(self) -> None:
        self.told.append("end")

    def response_data(self, data: bytes) -> None:
        self.told.append("data")


@pytest.mark.parametrize("answer", [b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 301 Moved\r\ncontent-length: 0\r\n\r\n"])
async def test_the_end_of_one_response_is_not_told_to_the_next_stream(answer: bytes) -> None:
    """A connection that becomes free goes to a stream that waits while the bytes before are still being told."""
    ours, theirs = socket.socketpair()
    first: Json = Heard()
    second: Json = Heard()
    client = Http1Client("", lambda c: c.take(second), lambda c: None)
    transport, _ = await asyncio.get_running_loop().create_connection(lambda: client, sock=ours)
    client.take(first)
    client.send_head(Request("GET", "/", "a", ends=True))
    client.data_received(answer)
    assert first.told == [f"head {int(answer[9:12])}"]
    assert second.told == []
    transport.close()
    theirs.close()


async def test_a_websocket_passes_two_proxies_with_http2_between() -> None:
    """As extended CONNECT (RFC 8441), to a second proxy that takes it."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"\r\nupgrade: WebSocket\r\nconnection: upgrade\r\n" in head
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n")
        writer.write(b"<" + await reader.readexactly(4) + b">")
        await reader.read()

    upgrades: dict[str, Json] = {"upgrade_configs": [{"upgrade_type": "websocket"}]}
    async with Bench(http(**upgrades, http2_protocol_options={"allow_connect": True})) as inner:
        await inner.host(talk)
        front = http(clusters=[cluster(http2=True, host=PROXY)], **upgrades)
        front["listeners"][0]["address"]["socket_address"]["port_value"] = 9090
        outer = Proxy(msgspec.convert(front, xds.ProxyConfig), inner.network.pod("10.0.0.3"))
        await outer.start()
        try:
            connection = await inner.network.connect("10.0.0.4", Address("10.0.0.1", 9090))
            reader, writer = await asyncio.open_connection(sock=connection.sock)
            writer.write(b"GET / HTTP/1.1\r\nhost: h\r\nconnection: Upgrade\r\nupgrade: WebSocket\r\n\r\nping")
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
            assert b"\r\nupgrade: WebSocket\r\nconnection: upgrade\r\n" in head
            assert await reader.readexactly(6) == b"<ping>"
            writer.close()
        finally:
            await outer.close()


@pytest.mark.parametrize("config", [http(), tcp()], ids=["http", "tcp"])
async def test_a_connection_leaves_no_cycle(config: dict[str, Json]) -> None:
    """Proxies let the collector look seldom: what only it can free would be there for hours."""
    async with Bench(config) as bench:
        await bench.host(answering)
        gc.collect()
        gc.disable()
        try:
            reader, writer = await bench.client()
            for _ in range(4):
                writer.write(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
                await reader.readuntil(b"ok")
            (served,) = map(weakref.ref, bench.proxy.core.connections)
            writer.close()
            async with asyncio.timeout(10):
                while served() is not None:
                    await asyncio.sleep(0.001)
        finally:
            gc.enable()

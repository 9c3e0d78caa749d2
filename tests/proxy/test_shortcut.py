"""The shortcut against the long way: the same conversation on one connection, byte for byte, line for line, counter for counter."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections.abc import Callable
from typing import Any as Json
from typing import NamedTuple

import msgspec
import pytest

from meshsim import xds
from meshsim.network.base import Address
from meshsim.proxy import shortcut
from meshsim.proxy.shortcut import Shortcut
from tests.proxy.support import HOST, Bench, cluster, http

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nX-Some: Thing\r\n\r\nhi"
UUID = "11111111-2222-4333-8444-55555555555%d"
NOW = 1_790_000_000.25  # the proxy's time of day, which stands still: what is left of a timeout, and a service time, are told in headers

def get(path: str = "/", *lines: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "host: h", *lines, "", ""]).encode()


class Talk(NamedTuple):
    """requests: what the client sends, one after the other, each when it has the answer to the one before. answers: what the host says to
    each request, in pieces; None ends the connection. taken: how many requests go the short way. config: of the proxy.
    """

    requests: list[bytes]
    taken: int
    answers: list[list[bytes | None]] = [[OK]]  # the last is repeated
    config: Callable[[], dict[str, Json]] = http
    then: str = ""


def route(*, match: Json = None, **action: Json) -> Callable[[], dict[str, Json]]:
    return lambda: http([{"match": match or {"prefix": "/"}, "route": {"cluster": "up", **action}}])


def adding(value: str) -> Callable[[], dict[str, Json]]:
    header = {"header": {"key": "x-added", "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
    more = {"request_headers_to_add": [header], "response_headers_to_add": [header]}
    return lambda: http([{"match": {"prefix": "/"}, "route": {"cluster": "up"}, **more}])


def logged() -> dict[str, Json]:
    return http(
        access_log=[
            {
                "name": "file",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                    "path": "/dev/stdout",
                    "log_format": {
                        "text_format_source": {
                            "inline_string": "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL% %RESPONSE_CODE% "
                            "%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% "
                            "%BYTES_SENT% %RESP(X-SOME)% %REQ(USER-AGENT)% %REQ(X-REQUEST-ID)% %UPSTREAM_HOST% "
                            "%UPSTREAM_CLUSTER% 100%% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %ROUTE_NAME%\n"
                        }
                    },
                },
            }
        ]
    )


def two_hosts() -> dict[str, Json]:
    places = [{"endpoint": {"address": {"socket_address": {"address": h.host, "port_value": h.port}}}} for h in (HOST, OTHER)]
    assignment = {"cluster_name": "up", "endpoints": [{"lb_endpoints": places}]}
    return http(clusters=[cluster(load_assignment=assignment, lb_policy="LEAST_REQUEST")])


OTHER = Address("10.9.9.10", 80)
BY_ID = {"name": "x-request-id", "string_match": {"prefix": "2"}}
RETRY = {"retry_policy": {"retry_on": "503,reset", "num_retries": 1, "retry_back_off": {"base_interval": "0.001s"}}}
LONG = b"HTTP/1.1 200 OK\r\ncontent-length: 70000\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
LAST = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nhi"
ERROR = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\nno"
THREE: list[list[bytes | None]] = [[OK], [OK], [OK]]

TALKS: dict[str, Talk] = {
    "the same again": Talk([get()] * 5, 3),
    "other paths of the route": Talk([get("/"), get("/"), get("/a?b=c"), get("/%41/b"), get("/%2e/x"), get("//a/../b")], 4),
    "two routes": Talk(
        [get("/a/1"), get("/a/2"), get("/b/1"), get("/b/2"), get("/b/3"), get("/a/3")],
        3,
        config=lambda: http([{"match": {"prefix": "/a"}, "route": {"cluster": "up", "timeout": "9s"}, "name": "a"}]),
    ),
    "ids of the client's": Talk([get("/", f"x-request-id: {UUID % n}", "user-agent: u") for n in range(5)], 3),
    "an id that is none": Talk([get("/", "x-request-id: 7")] * 5, 0),
    "a constant id in capitals": Talk([get("/", f"X-Request-Id: {UUID % 1}")] * 4, 0),
    "two ids": Talk([get("/", f"x-request-id: {UUID % n}", f"x-request-id: {UUID % 9}") for n in range(4)], 0),
    "a header where an id was": Talk(
        [*[get("/", f"x-request-id: {UUID % n}") for n in range(3)], get("/", "x-request-id: 11\r\nevil: 4-8888-4888-8888-8888888")], 1
    ),
    "a route by the id": Talk(
        [get("/", f"x-request-id: {UUID % n}") for n in (1, 2, 3)] + [get("/", "x-request-id: 2" + (UUID % 1)[1:])],
        0,
        config=lambda: http([{"match": {"prefix": "/", "headers": [BY_ID]}, "direct_response": {"status": 418}}]),
    ),
    "expecting a 100": Talk([get("/", "expect: 100-continue")] * 4, 0),
    "too long a path": Talk([*[get()] * 3, get("/" + "a" * 1100)], 1, config=lambda: http(max_request_headers_kb=1)),
    "long headers": Talk([get("/", f"cookie: {'c' * 5000}")] * 4, 0),
    "a long answer's head": Talk([get()] * 4, 2, [[OK.replace(b"Thing", b"T" * 5000)]]),
    "other headers": Talk([get("/", f"a: {n % 2}") for n in (0, 0, 0, 1, 1, 1, 0)], 3),
    "at the edge": Talk([get("/", f"x-request-id: {UUID % n}") for n in range(4)], 2, config=lambda: http(use_remote_address=True)),
    "no ids": Talk([get()] * 4, 2, config=lambda: http(generate_request_id=False)),
    "constant headers": Talk([get()] * 4, 2, config=adding("v")),
    "headers of the request's": Talk([get("/1"), get("/2"), get("/3"), get("/4")], 0, config=adding("%REQ(:PATH)%")),
    "a rewritten path": Talk([get("/1")] * 4, 0, config=route(prefix_rewrite="/x")),
    "a rewritten host": Talk([get("/1")] * 4, 2, config=route(host_rewrite_literal="other")),
    "weights": Talk([get()] * 6, 0, config=route(cluster=None, weighted_clusters={"clusters": [{"name": "up", "weight": 1}]})),
    "logged": Talk([get(f"/{n}", "user-agent: 100%s") for n in range(5)], 3, config=logged),
    "a head in two pieces": Talk([get()] * 4, 2, [*THREE, [OK[:9], OK[9:]]]),
    "a body in pieces": Talk([get()] * 4, 2, [*THREE, [LONG + b"." * 9, b"." * 60000, b"." * 9991]]),
    "chunks": Talk([get()] * 5, 3, [*THREE, [CHUNKED], [OK]]),
    "no body": Talk([get()] * 4, 2, [*THREE, [b"HTTP/1.1 304 No\r\ncontent-length: 2\r\n\r\n"]]),
    "an interim response": Talk([get()] * 4, 2, [*THREE, [b"HTTP/1.1 100 Continue\r\n\r\n" + OK]]),
    "an error": Talk([get()] * 5, 3, [*THREE, [ERROR], [OK]]),
    "an error that is tried again": Talk([get()] * 5, 3, [*THREE, [ERROR], [OK], [OK]], config=route(**RETRY)),
    "a host that goes, tried again": Talk([get()] * 4, 2, [*THREE, [None], [OK]], config=route(**RETRY)),
    "a host that goes": Talk([get()] * 4, 2, [*THREE, [None]]),
    "a host that goes in the body": Talk([get()] * 4, 2, [*THREE, [LONG, None]]),
    "a host that will close": Talk([get()] * 5, 2, [*THREE, [LAST], [OK]]),
    "more than was asked for": Talk([get()] * 5, 2, [*THREE, [OK + b"more"], [OK]]),
    "bare line feeds": Talk([get()] * 4, 2, [*THREE, [b"HTTP/1.1 200 OK\ncontent-length: 9\n\na\r\n\r\nbcde"]]),
    "garbage": Talk([get()] * 4, 2, [*THREE, [b"nothing\r\n\r\n"]]),
    "two at once": Talk([get(), get(), get() + get("/2"), get()], 1),
    "a body in between": Talk([get(), get(), b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\nhi", get(), get()], 2),
    "the last one": Talk([get(), get(), get(), get("/", "connection: close")], 1),
    "connections of two requests": Talk(
        [get()] * 7, 2, config=lambda: http(clusters=[cluster(common={"max_requests_per_connection": 2})])
    ),
    "two hosts": Talk([get(f"/{n}") for n in range(9)], 6, config=two_hosts),
    "too slow": Talk([get()] * 4, 2, [*THREE, []], config=route(timeout="0.05s")),
    "idle": Talk([get()] * 4, 2, [*THREE, []], config=route(idle_timeout="0.05s")),
    "idle in the body": Talk([get()] * 4, 2, [*THREE, [LONG]], config=route(idle_timeout="0.05s")),
    "another configuration": Talk([get()] * 6, 3, then="update"),
    "asked to go": Talk([get()] * 5, 3, then="retire"),
    "gone before the answer": Talk([get()] * 4, 2, [*THREE, []], then="leave"),
}  # fmt: skip


class Outcome(NamedTuple):
    """What both ways must have in common."""

    client: list[bytes]
    host: list[bytes]
    entries: list[Json]
    lines: list[str]
    stats: str


@pytest.mark.parametrize("talk", TALKS.values(), ids=TALKS)
async def test_both_ways_are_one(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = 0
    take = Shortcut.take

    def counted(self: Shortcut, data: bytes) -> bool:
        nonlocal taken
        took = take(self, data)
        taken += took
        return took

    monkeypatch.setattr(Shortcut, "take", counted)
    monkeypatch.setenv(shortcut.PATH, "long")
    long = await carried_out(talk)
    assert taken == 0
    monkeypatch.delenv(shortcut.PATH)
    short = await carried_out(talk)
    for one, other in zip(short, long, strict=True):
        assert one == other
    assert taken == talk.taken


async def carried_out(talk: Talk) -> Outcome:
    said: list[bytes] = []
    replies = list(talk.answers)

    async def host(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                return
            if b"content-length: 2" in head:
                head += await reader.readexactly(2)
            said.append(head)
            for piece in replies.pop(0) if len(replies) > 1 else replies[0]:
                if piece is None:
                    return
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.005)  # so that it arrives as a piece

    config = talk.config()
    async with Bench(config, seed=7, clock=lambda: NOW) as bench:
        await bench.host(host)
        await bench.host(host, OTHER)
        reader, writer = await bench.client()
        got = []
        for number, request in enumerate(talk.requests):
            if talk.then == "update" and number == 3:
                await bench.proxy.update(msgspec.convert(config, xds.ProxyConfig))
            if talk.then == "retire" and number == 4:
                for connection in bench.proxy.core.connections:
                    connection.retire()
            writer.write(request)
            if talk.then == "leave" and number == len(talk.requests) - 1:
                while len(said) < len(talk.requests):
                    await asyncio.sleep(0.001)
                writer.close()
                break
            got.append(b"".join([await response(reader) for _ in range(request.count(b"GET ") or 1)]))
            await bench.idle()
        await bench.idle()
        changing = dict.fromkeys(("upstream_local", "connection_id"))
        entries = [dataclasses.asdict(e) | changing for e in bench.entries]
        for entry in entries:
            entry["downstream"]["source"] = None
        return Outcome(got, said, entries, bench.lines, bench.proxy.admin("/stats?type=Counters"))


async def response(reader: asyncio.StreamReader) -> bytes:
    """The next response; what there is of it where the connection ends."""
    async with asyncio.timeout(5):
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"HTTP/1.1 100 "):
                return head + await response(reader)
            if b"chunked" in head:
                body = await reader.readuntil(b"0\r\n\r\n")
            else:
                length = re.search(rb"content-length: (\d+)", head)
                body = await reader.readexactly(int(length[1]) if length and b" 304 " not in head else 0)
        except asyncio.IncompleteReadError as e:
            return e.partial
    return head + body

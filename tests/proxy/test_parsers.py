"""HTTP/1 parsing: both readers agree, in every segmentation, and refuse what Envoy refuses by the names Envoy's table has."""

from __future__ import annotations

from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshsim.errors import MeshsimError
from meshsim.proxy import with_h11, with_httptools
from meshsim.proxy.parsers import (
    CODEC,
    BadMessage,
    Body,
    Continue,
    End,
    RequestHead,
    RequestParser,
    ResponseHead,
    ResponseParser,
    Tunnel,
    chosen,
)
from meshsim.routing.http1 import Rules
from meshsim.routing.message import Headers, Request
from meshsim.routing.replies import BAD_REQUESTS

Event = object
READERS = [with_h11, with_httptools]
RULES = Rules()


def segments(data: bytes) -> list[list[bytes]]:
    return [[data], [data[i : i + 1] for i in range(len(data))], [data[:-1], data[-1:]], [data[i : i + 7] for i in range(0, len(data), 7)]]


def merged(events: list[Event]) -> list[Event]:
    """Neighbouring pieces of a body as one."""
    out: list[Event] = []
    for event in events:
        if isinstance(event, Body) and out and isinstance(out[-1], Body):
            out[-1] = Body(out[-1].data + event.data)
        elif isinstance(event, Tunnel) and out and isinstance(out[-1], Tunnel):
            out[-1] = Tunnel(out[-1].data + event.data)
        else:
            out.append(event)
    return out


def requests(data: bytes) -> list[Event]:
    """The events of `data`, which must be the same for every reader and segmentation."""
    seen = []
    for reader in READERS:
        for pieces in segments(data):
            parser = RequestParser(RULES, reader=reader)
            seen.append(merged([event for piece in pieces for event in parser.feed(piece)]))
    assert all(events == seen[0] for events in seen), seen
    return seen[0]


def head(
    method: str, path: str, authority: str, headers: Headers, ends: bool, *, upgrade: str = "", continues: bool = False
) -> RequestHead:
    return RequestHead(Request(method, path, authority, "http", headers, "HTTP/1.1", ends, upgrade), continues)


ACCEPTED = [
    (b"GET /a?b HTTP/1.1\r\nHost: Foo.Test\r\nX-A: 1\r\nx-a: 2\r\n\r\n",
     [head("GET", "/a?b", "Foo.Test", [("x-a", "1"), ("x-a", "2")], True), End()]),
    (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello",
     [head("POST", "/", "h", [("content-length", "5")], False), Body(b"hello"), End()]),
    (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: 1\r\n\r\n",
     [head("POST", "/", "h", [], False), Body(b"abcde"), End()]),
    (b"\r\n\r\nGET  /  HTTP/1.1\nhost:h\nempty:\n\n", [head("GET", "/", "h", [("empty", "")], True), End()]),
    (b"GET / HTTP/1.1\r\nhost: h\r\nFoo: 1\r\n  bar\r\n\r\n", [head("GET", "/", "h", [("foo", "1  bar")], True), End()]),
    (b"GET / HTTP/1.1\r\nhost: h\r\nFoo: a\rb\r\n\r\n", [head("GET", "/", "h", [("foo", "ab")], True), End()]),
    (b"GET / HTTP/1.1\r\nhost: h\r\nFoo: \xe9\r\n\r\n", [head("GET", "/", "h", [("foo", "\xe9")], True), End()]),
    (b"GET http://user@h:81?q HTTP/1.1\r\n\r\n", [head("GET", "/?q", "h:81", [], True), End()]),
    (b"GET https://h HTTP/1.1\r\nHost: other\r\n\r\n", [head("GET", "/", "h", [], True), End()]),
    (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", [head("GET", "/", "a,b", [], True), End()]),
    (b"GET / HTTP/1.1\r\n\r\n", [head("GET", "/", "", [], True), End()]),
    (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", [head("GET", "/", "", [("host", "")], True), End()]),
    (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", [head("OPTIONS", "*", "a", [], True), End()]),
    (b"PROPFIND / HTTP/1.1\r\nHost: a\r\n\r\n", [head("PROPFIND", "/", "a", [], True), End()]),
    (b"CONNECT a:443 HTTP/1.1\r\nHost: b\r\n\r\nxyz", [head("CONNECT", "", "a:443", [], False), Tunnel(b"xyz")]),
    (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\r\n\x81",
     [head("GET", "/", "a", [("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")], False, upgrade="websocket"),
      Tunnel(b"\x81")]),
    (b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\nx",
     [head("PUT", "/", "a", [("content-length", "1"), ("expect", "100-continue")], False, continues=True), Body(b"x"), End()]),
    (b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
     [head("GET", "/1", "a", [], True), End(), head("GET", "/2", "a", [], True), End()]),
    (b"POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
     [head("POST", "/1", "a", [], False), Body(b"x"), End(),
      head("GET", "/2", "a", [], True), End()]),
]


@pytest.mark.parametrize(("data", "expected"), ACCEPTED, ids=map(str, range(len(ACCEPTED))))
def test_accepted(data: bytes, expected: list[Event]) -> None:
    assert requests(data) == expected


GET = b"GET / HTTP/1.1\r\nHost: h\r\n"
REFUSED = {
    "syntax": [
        GET + b"Content-Length: x\r\n\r\n", GET + b"Content-Length: -1\r\n\r\n", GET + b"Content-Length: +3\r\n\r\n",
        GET + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\n", GET + b"Content-Length: 3, 3\r\n\r\n", GET + b"a : b\r\n\r\n",
        GET + b"nocolon\r\n\r\n", GET + b": v\r\n\r\n", GET + b"b(d: v\r\n\r\n", b"FOO / HTTP/1.1\r\nHost: h\r\n\r\n",
        b"get / HTTP/1.1\r\nHost: h\r\n\r\n", b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", b"GET /\xe9 HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET a HTTP/1.1\r\nHost: h\r\n\r\n", b"GET / HTTP/1.1\r\n x: y\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"HELLO you\n",
    ],
    "characters": [GET + b"a: \x00\r\n\r\n", GET + b"a: x\x01\r\n\r\n", b"GET /\x01 HTTP/1.1\r\nHost: h\r\n\r\n"],
    "length and chunked": [GET + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"],
    "transfer-encoding": [
        GET + b"Transfer-Encoding: gzip, chunked\r\n\r\n", GET + b"Transfer-Encoding: identity\r\n\r\n",
        GET + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
    "scheme": [b"GET ftp://h/ HTTP/1.1\r\nHost: h\r\n\r\n"],
    "target": [b"CONNECT h HTTP/1.1\r\nHost: h\r\n\r\n"],
    "authority": [b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n"],
    "too large": [GET + b"a: " + b"x" * 61500 + b"\r\n\r\n"],
    "too many": [GET + b"a: b\r\n" * 100 + b"\r\n"],
    "version": [b"GET / HTTP/1.0\r\nHost: h\r\n\r\n", b"GET / HTTP/2.0\r\nHost: h\r\n\r\n", b"GET /\r\n\r\n"],
}


@pytest.mark.parametrize(("kind", "data"), [(kind, data) for kind, rows in REFUSED.items() for data in rows])
@pytest.mark.parametrize("reader", READERS)
def test_refused_by_the_name_of_the_defect(kind: str, data: bytes, reader: ModuleType) -> None:
    assert kind in BAD_REQUESTS
    for pieces in (segments(data) if len(data) < 5000 else [[data]]):
        parser = RequestParser(RULES, reader=reader)
        events = [event for piece in pieces for event in parser.feed(piece)]
        assert [e.kind for e in events if isinstance(e, BadMessage)] == [kind]
        assert parser.feed(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n") == []


@pytest.mark.parametrize("reader", READERS)
def test_a_wrong_chunk_size_ends_the_parser(reader: ModuleType) -> None:
    events = RequestParser(RULES, reader=reader).feed(GET.replace(b"GET", b"POST") + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n")
    assert isinstance(events[0], RequestHead)
    assert events[-1] == BadMessage("syntax")


RESPONSES = [
    ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", [200, b"hi", "end", True]),
    ("GET", b"HTTP/1.1 200\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi", [200, b"hi", "end", False]),
    ("GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", [200, b"hi", "end", True]),
    ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", [200, b"", "end", True]),
    ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", [204, b"", "end", True]),
    ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", [304, b"", "end", True]),
    ("GET", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", [200, b"", "end", True]),
    ("GET", b"HTTP/1.0 200 OK\r\n\r\nhello", [200, b"hello", "open", False]),
    ("CONNECT", b"HTTP/1.1 200 OK\r\n\r\nraw", [200, b"raw", "tunnel", False]),
    ("GET", b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ws\r\n\r\nraw", [101, b"raw", "tunnel", False]),
    ("GET", b"SSH-2.0-x\r\n\r\n", ["bad"]),
    ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", ["bad"]),
    ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", ["bad"]),
    ("GET", b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 101 + b"\r\n", ["bad"]),
]


@pytest.mark.parametrize(("method", "data", "expected"), RESPONSES)
@pytest.mark.parametrize("reader", READERS)
def test_responses(method: str, data: bytes, expected: list[object], reader: ModuleType) -> None:
    for pieces in segments(data):
        parser = ResponseParser(reader=reader)
        parser.expect(method)
        events = merged([event for piece in pieces for event in parser.feed(piece)])
        if any(isinstance(e, BadMessage) for e in events):
            assert expected == ["bad"]
            continue
        head = next(e for e in events if not isinstance(e, Continue))
        assert isinstance(head, ResponseHead)
        content = b"".join(e.data for e in events if isinstance(e, Body | Tunnel))
        how = "tunnel" if any(isinstance(e, Tunnel) for e in events) else "end" if End() in events else "open"
        assert [head.status, content, how, head.keep_alive] == expected
        assert parser.finish() == (how == "open")


PIECES = [
    b"GET / HTTP/1.1\r\n", b"POST /x HTTP/1.1\n", b"Host: h\r\n", b"Host:\r\n", b"a:b\n", b" folded\r\n", b"Content-Length: 4\r\n", b"\r\n",
    b"\n", b"\r", b"Transfer-Encoding: chunked\r\n", b"4\r\nabcd\r\n", b"0\r\n\r\n", b"abcd", b"\x00", b"\xff", b"Connection: upgrade\r\n",
    b"Upgrade: x\r\n",
]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join))
def test_readers_agree_on_anything(data: bytes) -> None:
    seen = []
    for reader in READERS:
        parser = RequestParser(RULES, reader=reader)
        seen.append(merged(parser.feed(data + b"\r\n\r\n")))  # one reader judges a chunk's size when its line is complete
    assert seen[0] == seen[1]


def test_the_reader_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    for name in ("h11", "httptools", "other"):
        chosen.cache_clear()
        monkeypatch.setenv(CODEC, name)
        try:
            found[name] = chosen()
        except MeshsimError as e:
            assert str(e) == "MESHSIM_CODEC is 'other'; it can be httptools or h11"
    chosen.cache_clear()
    assert found == {"h11": with_h11, "httptools": with_httptools}

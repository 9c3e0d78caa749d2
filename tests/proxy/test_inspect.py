"""What first bytes say: any ClientHello in any segmentation, and HTTP's first line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsim.proxy import inspect
from meshsim.routing import inspection
from meshsim.routing.facts import H2C, HTTP10, HTTP11


def extension(kind: int, body: bytes) -> bytes:
    return kind.to_bytes(2, "big") + len(body).to_bytes(2, "big") + body


def client_hello(sni: str | None, alpn: list[str], *, extra: bytes = b"", fragment: int = 2**14) -> bytes:
    """A ClientHello (RFC 8446 4.1.2), its handshake message cut into records of `fragment` bytes."""
    extensions = extra
    if sni is not None:
        name = b"\x00" + len(sni).to_bytes(2, "big") + sni.encode()
        extensions += extension(0, len(name).to_bytes(2, "big") + name)
    if alpn:
        names = b"".join(bytes((len(p),)) + p.encode() for p in alpn)
        extensions += extension(16, len(names).to_bytes(2, "big") + names)
    body = b"\x03\x03" + bytes(32) + b"\x00" + b"\x00\x02\x13\x01" + b"\x01\x00" + len(extensions).to_bytes(2, "big") + extensions
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    pieces = [message[i : i + fragment] for i in range(0, len(message), fragment)]
    return b"".join(b"\x16\x03\x01" + len(p).to_bytes(2, "big") + p for p in pieces)


GREASE = extension(0x0A0A, b"") + extension(0xFE0D, b"\x00" * 40)  # RFC 8701, and an encrypted ClientHello beside the outer one
ROWS = [
    (client_hello("A.Example", ["h2"]), "a.example", ("h2",)),
    (client_hello(None, []), "", ()),
    (client_hello("203.0.113.9", ["h2"]), "203.0.113.9", ("h2",)),  # no name by RFC 6066 3, and taken for one by BoringSSL
    (client_hello("x", ["h2", "http/1.1"], extra=GREASE), "x", ("h2", "http/1.1")),
    (client_hello("x.example", ["istio"], fragment=7), "x.example", ("istio",)),
    (client_hello("x" * 200, [], extra=extension(21, bytes(3000))), "x" * 200, ()),
]


@pytest.mark.parametrize(("data", "sni", "alpn"), ROWS, ids=map(str, range(len(ROWS))))
def test_a_hello_is_found_when_it_is_complete_and_not_before(data: bytes, sni: str, alpn: tuple[str, ...]) -> None:
    for size in range(len(data)):
        with pytest.raises(inspect.Incomplete):
            inspect.client_hello(data[:size])
    for tail in (b"", b"more", data):
        assert inspect.client_hello(data + tail) == inspect.Hello(sni, alpn)


@given(st.binary(max_size=300))
def test_no_bytes_break_the_inspectors(data: bytes) -> None:
    for look in (inspect.client_hello, inspection.http_protocol):
        for start in (b"", ROWS[0][0][:40]):
            try:
                look(start + data)
            except inspect.Incomplete:
                pass


LINES = [
    (b"GET / HTTP/1.1\r\n", HTTP11), (b"get / HTTP/1.1\r\n", HTTP11), (b"FOO / HTTP/1.1\r\n", HTTP11), (b"GET / HTTP/1.0\r\n", HTTP10),
    (b"GET /\r\n", HTTP10), (b"GET / HTTP/2.0\r\n", HTTP10), (inspection.PREFACE, H2C), (b"\x00\x01", ""), (b"SSH-2.0-x\r\n", ""),
    (b"GET * HTTP/1.1\r\n", HTTP11), (b"GET x://h/ HTTP/1.1\r\n", HTTP11), (b"CONNECT h:1 HTTP/1.1\r\n", HTTP11),
    (b"GET h:1 HTTP/1.1\r\n", ""),
    (b"GET\t/\t HTTP/1.1 \r\n", HTTP11), (b"GET /\xc3\xbc HTTP/1.1\r\n", ""), (b"GET /a b HTTP/1.1\r\n", ""), (b"GET a HTTP/1.1\r\n", ""),
    (b"GET / http/1.1\r\n", ""), (b"GET / HTTP/11\r\n", ""), (b"GET  HTTP/1.1\r\n", ""), (b"\r\nGET / HTTP/1.1\r\n", ""),
]  # fmt: skip


@pytest.mark.parametrize(("data", "version"), LINES, ids=[repr(line[:18]) for line, _ in LINES])
def test_the_version_of_a_first_line(data: bytes, version: str | None) -> None:
    """The rows are what the HTTP inspector of Envoy 1.40 finds."""
    assert inspection.http_protocol(data) == version


@pytest.mark.parametrize("data", [b"", b"GET / HTTP/1.1", b"PRI * HTTP/2.0\r\n", b"hello"])
def test_part_of_a_line_waits_for_the_rest(data: bytes) -> None:
    assert inspection.http_protocol(data) is None

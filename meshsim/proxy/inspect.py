"""What the first bytes of a connection say about it: a TLS ClientHello's server name and protocols, or the version of an HTTP request line.

Pure functions on the bytes peeked so far; each says what it found, or that more bytes are needed.

Envoy: the TLS inspector wants the whole ClientHello and lowers the server name; the HTTP inspector wants the whole request line,
and calls everything that is not HTTP/1.1 or the HTTP/2 preface `http/1.0`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from meshsim.routing.facts import H2C, HTTP10, HTTP11

MAX_HELLO = 16 * 1024
MAX_LINE = 64 * 1024
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


class Incomplete(Exception):
    """More bytes are needed to tell."""


class Hello(NamedTuple):
    """A ClientHello: the server name ("" without one) and the protocols offered."""

    sni: str
    alpn: tuple[str, ...]


def client_hello(data: bytes) -> Hello | None:
    """The ClientHello at the start of `data`, which may span several records; None for what is not TLS. Raises Incomplete."""
    if not data:
        raise Incomplete
    if data[0] != 0x16 or (len(data) > 1 and data[1] != 3):
        return None
    message, at = bytearray(), 0
    while True:
        if len(data) < at + 5:
            if len(message) >= 4 or at:
                break
            raise Incomplete
        if data[at] != 0x16:
            return None
        size = int.from_bytes(data[at + 3 : at + 5], "big")
        message += data[at + 5 : at + 5 + size]
        if message and message[0] != 1:
            return None
        at += 5 + size
        if len(message) >= 4 and len(message) >= 4 + int.from_bytes(message[1:4], "big"):
            return _parse(bytes(message[4 : 4 + int.from_bytes(message[1:4], "big")]))
        if at >= len(data):
            break
    if len(data) >= MAX_HELLO:
        return None
    raise Incomplete


def _parse(body: bytes) -> Hello | None:
    try:
        at = 34  # version, random
        at += 1 + body[at]  # session id
        at += 2 + int.from_bytes(body[at : at + 2], "big")  # cipher suites
        at += 1 + body[at]  # compression methods
        sni, alpn = "", tuple[str, ...]()
        end = min(len(body), at + 2 + int.from_bytes(body[at : at + 2], "big"))
        at += 2
        while at + 4 <= end:
            kind, size = int.from_bytes(body[at : at + 2], "big"), int.from_bytes(body[at + 2 : at + 4], "big")
            content = body[at + 4 : at + 4 + size]
            if kind == 0 and len(content) >= 5 and content[2] == 0:
                length = int.from_bytes(content[3:5], "big")
                sni = content[5 : 5 + length].decode("latin-1").lower()
            elif kind == 16:
                alpn = tuple(_protocols(content[2:]))
            at += 4 + size
        return Hello(sni, alpn)
    except IndexError:
        return None


def _protocols(content: bytes) -> list[str]:
    found, at = [], 0
    while at < len(content):
        size = content[at]
        found.append(content[at + 1 : at + 1 + size].decode("latin-1"))
        at += 1 + size
    return found


def http_version(data: bytes) -> str | None:
    """`http/1.1`, `http/1.0` or `h2c` by the first line; None for what is no HTTP. Raises Incomplete."""
    if PREFACE.startswith(data[: len(PREFACE)]):
        if len(data) < len(PREFACE):
            raise Incomplete
        return H2C
    start = len(data) - len(data.lstrip(b"\r\n"))
    end = data.find(b"\n", start)
    line = data[start:end] if end >= 0 else data[start:]
    method, space, rest = line.partition(b" ")
    if method and not _TOKEN.fullmatch(method):
        return None
    if end < 0:
        if len(data) >= MAX_LINE:
            return None
        raise Incomplete
    if not space:
        return None
    return HTTP11 if rest.rstrip(b"\r").endswith(b" HTTP/1.1") else HTTP10

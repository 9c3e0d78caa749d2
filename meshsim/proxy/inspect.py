"""What a TLS ClientHello at the start of a connection says: server name and protocols.

A pure function on the bytes peeked so far: it says what it found, or that more bytes are needed. Envoy's TLS inspector wants the whole
ClientHello and lowers the server name. What plain bytes are is `routing.inspection`'s to say.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

MAX_HELLO = 16 * 1024

_ALPN = 16
_EXTENSION = struct.Struct("!HH").unpack_from  # kind, size
_TOLD = (0, _ALPN)  # the extensions that say something here: server_name, and the protocols offered


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
    if len(data) > 9 and data[5] == 1 and (whole := 9 + int.from_bytes(data[6:9], "big")) <= min(len(data), 5 + (data[3] << 8 | data[4])):
        return _parse(data[9:whole])  # in one record, as nearly always
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
        at += 2 + (body[at] << 8 | body[at + 1])  # cipher suites
        at += 1 + body[at]  # compression methods
        sni, alpn = "", tuple[str, ...]()
        end = len(body)
        if at + 1 < end:  # a client may have no extensions at all
            end = min(end, at + 2 + (body[at] << 8 | body[at + 1]))
        at += 2
        while at + 4 <= end:
            kind, size = _EXTENSION(body, at)
            if kind in _TOLD:
                content = body[at + 4 : at + 4 + size]
                if kind == _ALPN:
                    alpn = tuple(_protocols(content[2:]))
                elif len(content) >= 5 and content[2] == 0:
                    sni = content[5 : 5 + (content[3] << 8 | content[4])].decode("latin-1").lower()
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

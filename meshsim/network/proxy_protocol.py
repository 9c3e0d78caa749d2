"""The PROXY protocol: the few bytes before a connection's first that say who opened it and where to.

Version 2 is how a redirected connection keeps its addresses on a network of Unix sockets; version 1 is read too, because a
listener's `proxy_protocol` filter takes both. The format is haproxy's proxy-protocol.txt; Envoy: TLVs are skipped, `LOCAL` (v2) and
`UNKNOWN` (v1) leave the addresses as they were.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from typing import NamedTuple

from meshsim.network.base import Address

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
MAX_V1 = 107  # bytes of the longest version 1 line, CRLF included

_PROXY = 0x21  # version 2, command PROXY
_LOCAL = 0x20
_TCP4, _TCP6 = 0x11, 0x21


class Header(NamedTuple):
    """A header: how many bytes it took, and the two addresses unless it says that they are the socket's own."""

    size: int
    source: Address | None
    destination: Address | None
    version: int


class Malformed(ValueError):
    """The bytes are not, and cannot become, a PROXY header."""


def encode(source: Address, destination: Address) -> bytes:
    """A version 2 header for one TCP connection; both addresses of one family."""
    if ":" in destination.host or ":" in source.host:
        body = socket.inet_pton(socket.AF_INET6, _v6(source.host)) + socket.inet_pton(socket.AF_INET6, _v6(destination.host))
        family = _TCP6
    else:
        body = socket.inet_aton(source.host) + socket.inet_aton(destination.host)
        family = _TCP4
    body += struct.pack("!HH", source.port, destination.port)
    return SIGNATURE + bytes((_PROXY, family)) + struct.pack("!H", len(body)) + body


def encode_v1(source: Address, destination: Address) -> bytes:
    """A version 1 header: one line of text."""
    family = "TCP6" if ":" in destination.host else "TCP4"
    return f"PROXY {family} {source.host} {destination.host} {source.port} {destination.port}\r\n".encode("ascii")


def decode(data: bytes) -> Header | None:
    """The header that `data` begins with; None when more bytes are needed to tell. Raises Malformed."""
    if data.startswith(SIGNATURE):
        return _decode_v2(data)
    if data.startswith(b"PROXY "):
        return _decode_v1(data)
    if SIGNATURE.startswith(data) or b"PROXY ".startswith(data):
        return None
    raise Malformed("not a PROXY header")


def _decode_v2(data: bytes) -> Header | None:
    if len(data) < 16:
        return None
    command, family = data[12], data[13]
    (length,) = struct.unpack_from("!H", data, 14)
    size = 16 + length
    if len(data) < size:
        return None
    if command == _LOCAL:
        return Header(size, None, None, 2)
    if command != _PROXY:
        raise Malformed(f"version and command {command:#04x}")
    if family == _TCP4 and length >= 12:
        hosts = [socket.inet_ntoa(data[16:20]), socket.inet_ntoa(data[20:24])]
        ports = struct.unpack_from("!HH", data, 24)
    elif family == _TCP6 and length >= 36:
        hosts = [socket.inet_ntop(socket.AF_INET6, data[16:32]), socket.inet_ntop(socket.AF_INET6, data[32:48])]
        ports = struct.unpack_from("!HH", data, 48)
    else:
        raise Malformed(f"family {family:#04x} with {length} bytes of addresses")
    return Header(size, Address(hosts[0], ports[0]), Address(hosts[1], ports[1]), 2)


def _decode_v1(data: bytes) -> Header | None:
    end = data.find(b"\r\n", 0, MAX_V1)
    if end < 0:
        if len(data) >= MAX_V1:
            raise Malformed("version 1 line without an end")
        return None
    words = data[:end].decode("latin-1").split(" ")
    if words[1] == "UNKNOWN":
        return Header(end + 2, None, None, 1)
    if len(words) != 6 or words[1] not in ("TCP4", "TCP6"):
        raise Malformed("version 1 line of another shape")
    version = 4 if words[1] == "TCP4" else 6
    try:
        hosts = [ipaddress.ip_address(w) for w in words[2:4]]
        ports = [int(w) for w in words[4:6] if w.isascii() and w.isdigit()]
    except ValueError as e:
        raise Malformed(str(e)) from None
    if len(ports) != 2 or max(ports) > 65535 or any(h.version != version for h in hosts):
        raise Malformed("version 1 line with wrong addresses or ports")
    return Header(end + 2, Address(str(hosts[0]), ports[0]), Address(str(hosts[1]), ports[1]), 1)


def _v6(host: str) -> str:
    return host if ":" in host else f"::ffff:{host}"

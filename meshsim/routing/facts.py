"""What a proxy knows about a connection, in the words that decisions are made from.

These are plain values: the live proxy fills them from sockets and handshakes, the evaluator from a call. Nothing here holds a key
or a socket.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

RAW, TLS = "raw_buffer", "tls"
HTTP10, HTTP11, H2C = "http/1.0", "http/1.1", "h2c"


class Endpoint(NamedTuple):
    """An IP address and a port."""

    host: str
    port: int = 0

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(slots=True)
class Peer:
    """The certificate the other end of a TLS connection showed, as far as anyone asks about it.

    sha256: hex of the certificate. subject: as RFC 2253 text. pem: the leaf, for headers that carry it.
    """

    uris: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    subject: str = ""
    sha256: str = ""
    pem: str = ""


@dataclass(slots=True)
class Downstream:
    """A connection that a proxy accepted.

    source: who opened it; destination: where it was going (restored where it was redirected); sni, alpn: what an inspector saw.
    transport: `raw_buffer` or `tls` as an inspector saw it. peer: after a handshake with a client certificate. local_uris: of the
    proxy's own certificate on this connection. secure: whether the proxy terminated TLS here. chain: the filter chain's name.
    restored: whether the destination is the original one of a redirected connection.
    """

    source: Endpoint
    destination: Endpoint
    transport: str = RAW
    sni: str = ""
    alpn: tuple[str, ...] = ()
    secure: bool = False
    peer: Peer | None = None
    local_uris: tuple[str, ...] = ()
    chain: str = ""
    restored: bool = False


@lru_cache(maxsize=65536)
def address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The parsed address, or None for what is none."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


class Network(NamedTuple):
    """A CIDR range, ready to compare; `length` -1 holds everything."""

    version: int
    bits: int
    length: int

    def holds(self, host: str) -> bool:
        if self.length < 0:
            return True
        found = address(host)
        if found is None or found.version != self.version:
            return False
        return self.length == 0 or int(found) >> (found.max_prefixlen - self.length) == self.bits


ANYWHERE = Network(0, 0, -1)


def network(prefix: str, length: int | None) -> Network:
    """A range from its prefix; without a length a single address (as Envoy's u32? `prefix_len` of 0 holds the whole family)."""
    found = ipaddress.ip_address(prefix)
    size = 0 if length is None else length
    return Network(found.version, int(found) >> (found.max_prefixlen - size) if size else 0, size)


def most_specific(ranges: Iterable[Network], host: str) -> Network | None:
    """The longest of the ranges that hold the address."""
    return max((r for r in ranges if r.holds(host)), key=lambda r: r.length, default=None)

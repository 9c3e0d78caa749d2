"""What travels on a simulated connection, and what comes back.

A conversation is what the opener of a connection means to say: bytes, a request, or TLS with another conversation inside. A proxy that
relays passes it on as it is; one that terminates looks inside. `Got` is what the opener sees in the end, layer by layer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any as Json

from meshsim.routing.message import Request, Response
from meshsim.simulate.handshake import Handshake, Offer

CONNECTION_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@dataclass
class Raw:
    """Bytes, all at once; none: the opener waits for the other side."""

    data: bytes = b""


@dataclass
class Http:
    """One request. `http2` None: whatever a handshake around it agrees on. `spelled`: the head as its sender spells it, if that matters."""

    request: Request
    body: bytes = b""
    http2: bool | None = False
    spelled: bytes = b""

    def head(self) -> bytes:
        """The first bytes on the wire, for a receiver that does not speak HTTP."""
        if self.http2:
            return CONNECTION_PREFACE
        if self.spelled:
            return self.spelled + self.body
        request = self.request
        lines = [f"{request.method} {request.path or request.authority} HTTP/1.1", f"host: {request.authority}"]
        lines += [f"{name}: {value}" for name, value in request.headers]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + self.body


@dataclass
class Tls:
    """A TLS client, and what it says inside; None inside: it keeps quiet after the handshake."""

    offer: Offer
    inner: Conversation | None = None


Conversation = Raw | Http | Tls


@dataclass
class Got:
    """What the opener of a connection gets.

    error: how the connection failed, if it did: refused, timeout, reset, eof, not http, gave up. data, end: bytes that came back, and
    how it ended. echo: the JSON a server echoed. handshake: of this layer's TLS, with `inner` for what happened inside it.
    """

    error: str = ""
    response: Response | None = None
    body: bytes = b""
    echo: dict[str, Json] | None = None
    data: bytes = b""
    end: str = ""
    handshake: Handshake | None = None
    inner: Got | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def closed(self) -> bool:
        """Whether the connection ended without a word."""
        return self.error in ("eof", "reset", "refused")

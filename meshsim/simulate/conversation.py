"""What travels on a simulated connection, and what comes back.

A conversation is what the opener of a connection means to say: bytes, a request, or TLS with another conversation inside. A proxy that
relays passes it on as it is; one that terminates looks inside. `Got` is what the opener sees in the end, layer by layer.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any as Json

from meshsim.routing import http1, http2_fields, tls_words
from meshsim.routing.facts import Downstream
from meshsim.routing.message import Request, Response
from meshsim.routing.transport import Transport
from meshsim.simulate.call import Call
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


def opened(call: Call) -> Conversation:
    """What a caller means to say."""
    inner: Conversation | None = None
    if call.http is not None:
        given = [(n, v) for n, v in call.http.headers]
        authority = next((v for n, v in given if n.lower() == "host"), call.sni or call.host)
        rest = [(n.lower(), v) for n, v in given if n.lower() != "host"]
        others = [(n, v) for n, v in given if n.lower() != "host"]
        spelled = "".join(f"{n}: {v}\r\n" for n, v in [("Host", authority), *others])
        head = f"{call.http.method} {call.http.path} HTTP/1.1\r\n{spelled}\r\n".encode("latin-1")
        upgrade = next((v.lower() for n, v in rest if n == "upgrade"), "")
        scheme = "https" if call.tls else "http"
        request = Request(call.http.method, call.http.path, authority, scheme, rest, ends=not call.http.body, upgrade=upgrade)
        inner = Http(request, call.http.body, None if call.tls else False, head)
    elif not call.tls or call.data:
        inner = Raw(call.data)
    if not call.tls:
        assert inner is not None
        return inner
    return Tls(Offer(call.sni, call.alpn), inner)


def understood(talk: Http) -> http1.Incoming:
    """The request as an HTTP/1.1 codec reads its head, byte for byte. Raises http1.Refused."""
    framed, request = http1.request(talk.spelled), talk.request
    hosts = [("host", request.authority)] if b"\nhost:" in framed.raw.lower() else []
    return http1.incoming(request.method, request.path, "1.1", [*hosts, *request.headers], framed.length or 0)


def closing(got: Got) -> Got:
    """The same answer on a connection that ends with it, as an HTTP/1.1 client is told."""
    if got.response is None or ("connection", "close") in got.response.headers:
        return got
    told = Response(got.response.status, [*got.response.headers, ("connection", "close")], got.response.ends, got.response.version)
    return replace(got, response=told)


def protocol(talk: Conversation) -> str:
    """What is spoken, as a leg shows it."""
    if isinstance(talk, Http):
        return "HTTP/2" if talk.http2 else "HTTP/1.1"
    return "TCP"


def copied(request: Request) -> Request:
    """A request whose headers may be changed."""
    r = request
    return Request(r.method, r.path, r.authority, r.scheme, list(r.headers), r.version, r.ends, r.upgrade)


def as_received(response: Response, http2: bool) -> Response:
    """A response as the proxy that asked for it reads it."""
    return Response(response.status, list(response.headers), response.ends, http2_fields.VERSION if http2 else "HTTP/1.1")


def dropped(talk: Conversation) -> Got:
    """A connection that is closed without an answer: with bytes unread the kernel resets it, else it ends."""
    word = "eof" if isinstance(talk, Raw) and not talk.data else "reset"
    if isinstance(talk, Tls):
        return Got(error=word, handshake=Handshake(False, client_words=tls_words.RESET, told=word))
    return Got(error=word, end=word)


def tls_failure(got: Got) -> str:
    """What a TLS client says of a handshake that failed, or of an answer that was no TLS."""
    if got.handshake is not None and got.handshake.client_words:
        return got.handshake.client_words
    return tls_words.NOT_TLS if got.data or got.response is not None else tls_words.RESET


def with_proxy_header(talk: Conversation, downstream: Downstream, way: Transport) -> Raw:
    """The PROXY header goes before everything, TLS included, and turns what follows into bytes for a receiver that does not expect it."""
    source, destination = downstream.source, downstream.destination
    if way.proxy_protocol == "V1":
        header = f"PROXY TCP4 {source.host} {destination.host} {source.port} {destination.port}\r\n".encode()
    else:
        packed = bytes(int(p) for p in f"{source.host}.{destination.host}".split("."))
        header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + packed + source.port.to_bytes(2, "big") + destination.port.to_bytes(2, "big")
    rest = talk.data if isinstance(talk, Raw) else talk.head() if isinstance(talk, Http) else b""
    return Raw(header + rest)


def bad_request(response: Response, body: bytes) -> bytes:
    """An answer to bytes that are no HTTP, as they come back."""
    fields = "".join(f"{n}: {v}\r\n" for n, v in response.headers)
    return f"HTTP/1.1 {response.status} Bad Request\r\n{fields}\r\n".encode() + body

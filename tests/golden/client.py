"""The application in a pod of a golden case: one call, as curl, openssl or nc would make it, and what it saw.

How this works: a call is a new connection from its pod, captured by the pod's sidecar. `Stream` is that connection with a time
limit on every read, with or without TLS on top; `http1`, `http2` and `raw` talk over it. Whatever goes wrong becomes a word:
`timeout`, `refused`, `reset`, `eof`, `not http`, `stream reset`, `tls: REASON`.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Any as Json

import h2.config
import h2.connection
import h2.events
import h11
from cryptography import x509
from cryptography.x509 import verification

from meshsim.network.base import Address, Connection

LIMIT = 15.0  # seconds for any read
IDLE = 0.5  # seconds an established TLS connection is watched
FIRST_BYTE, NEXT_BYTE = 4.0, 2.0  # seconds a raw call waits
_CHUNK = 65536

Dial = Callable[[Address], Awaitable[Connection]]
Resolve = Callable[[str], Awaitable[list[str]]]


async def make_call(call: Mapping[str, Json], dial: Dial, resolve: Resolve, roots: Mapping[str, x509.Certificate]) -> dict[str, Json]:
    """Make `call` and say what the caller saw, in the recorded form."""
    try:
        if "http" in call:
            return await _plain_http(call["http"], dial, resolve)
        spec = call.get("tls") or call["tcp"]
        async with await _connect(spec["address"], spec["port"], dial, resolve) as stream:
            if "tls" in call:
                return await _over_tls(stream, spec, roots)
            return await raw(stream, spec["send"].encode("latin-1"))
    except _Unknown:
        return {"error": "name does not resolve"}
    except Exception as e:  # what happened is the result
        return {"error": ending(e)}


def ending(error: Exception) -> str:
    """The word for how a call ended."""
    for kinds, word in _ENDINGS:
        if isinstance(error, kinds):
            return word
    if isinstance(error, ssl.SSLError):
        return f"tls: {error.reason or error}"
    return type(error).__name__


_ENDINGS: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    ((TimeoutError,), "timeout"),
    ((ConnectionResetError, BrokenPipeError), "reset"),
    ((ssl.SSLEOFError,), "eof"),
    ((ConnectionRefusedError,), "refused"),
    ((h11.RemoteProtocolError,), "not http"),
)


class _Unknown(Exception):
    """The name has no address."""


class Stream:
    """A connection with blocking-socket manners on the event loop."""

    def __init__(self, sock: socket.socket):
        self.timeout = LIMIT
        self._sock, self._loop = sock, asyncio.get_running_loop()
        self._tls: ssl.SSLObject | None = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._sock.close()

    async def send(self, data: bytes) -> None:
        if self._tls is not None:
            self._tls.write(data)
            data = self._outgoing.read()
        await asyncio.wait_for(self._loop.sock_sendall(self._sock, data), self.timeout)

    async def receive(self) -> bytes:
        """Some bytes; none at the end of the stream (with TLS also where the peer ended it without saying so)."""
        if self._tls is None:
            return await asyncio.wait_for(self._loop.sock_recv(self._sock, _CHUNK), self.timeout)
        while True:
            try:
                return self._tls.read(_CHUNK)
            except ssl.SSLWantReadError:
                if not await self._feed():
                    return b""
            except ssl.SSLZeroReturnError:
                return b""

    async def start_tls(self, context: ssl.SSLContext, sni: str | None) -> ssl.SSLObject:
        tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=sni)
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self._flush()
                if not await self._feed():
                    self._incoming.write_eof()
            except ssl.SSLError:
                await self._flush()  # the alert
                raise
        await self._flush()
        self._tls = tls
        return tls

    async def _flush(self) -> None:
        data = self._outgoing.read()
        if data:
            await asyncio.wait_for(self._loop.sock_sendall(self._sock, data), self.timeout)

    async def _feed(self) -> bool:
        data = await asyncio.wait_for(self._loop.sock_recv(self._sock, _CHUNK), self.timeout)
        if data:
            self._incoming.write(data)
        return bool(data)


async def _connect(host: str, port: int, dial: Dial, resolve: Resolve) -> Stream:
    addresses = await resolve(host)
    if not addresses:
        raise _Unknown(host)
    connection = await asyncio.wait_for(dial(Address(addresses[0], port)), LIMIT)
    return Stream(connection.sock)


async def _plain_http(spec: Mapping[str, Json], dial: Dial, resolve: Resolve) -> dict[str, Json]:
    authority, slash, path = spec["url"].removeprefix("http://").partition("/")
    host, _, port = authority.partition(":")
    async with await _connect(host, int(port or 80), dial, resolve) as stream:
        return await http1(stream, authority, slash + path or "/", spec)


def _response(status: int, headers: list[tuple[str, str]], body: bytes) -> dict[str, Json]:
    out: dict[str, Json] = {"status": status, "headers": [[name, value] for name, value in headers]}
    try:
        echo = json.loads(body)
        out["served_by"] = f"{echo['server']}:{echo['port']}"
    except (ValueError, KeyError, TypeError):
        out["body"] = body.decode("latin-1")[:300]
    return out


async def http1(stream: Stream, authority: str, path: str, spec: Mapping[str, Json]) -> dict[str, Json]:
    """One HTTP/1.1 request as golden calls make it, and its final response."""
    method = spec.get("method", "GET")
    await stream.send(_request1(method, authority, path, spec))
    parser = h11.Connection(h11.CLIENT)
    parser.send(h11.Request(method=method if method != "CONNECT" else "GET", target="/", headers=[("host", "x")]))
    parser.send(h11.EndOfMessage())
    status, head, data = None, [], b""
    while True:
        event = parser.next_event()
        if event is h11.NEED_DATA:
            more = await stream.receive()
            if not more and status is None:
                return {"error": "eof"}
            parser.receive_data(more)
        elif isinstance(event, h11.Response):
            status = event.status_code
            head = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers]
        elif isinstance(event, h11.Data):
            data += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
            assert status is not None
            return _response(status, head, data)


def _request1(method: str, authority: str, path: str, spec: Mapping[str, Json]) -> bytes:
    own = {name.lower(): (name, str(value)) for name, value in (spec.get("headers") or {}).items()}
    lines = [f"{method} {path} HTTP/1.1"]
    for name, value in (("Host", authority), ("User-Agent", "golden"), ("Accept", "*/*")):
        lines.append(f"{name}: {own.pop(name.lower(), (name, value))[1]}")
    body = (spec.get("body") or "").encode()
    if body or method in ("POST", "PUT", "PATCH"):
        lines.append(f"Content-Length: {len(body)}")
    lines += [f"{name}: {value}" for name, value in own.values()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8") + body


async def http2(stream: Stream, authority: str, path: str, spec: Mapping[str, Json]) -> dict[str, Json]:
    """The same over HTTP/2, without a body."""
    parser = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
    parser.initiate_connection()
    headers = [(":method", spec.get("method", "GET")), (":scheme", "https"), (":authority", authority), (":path", path)]
    headers += [("user-agent", "golden"), ("accept", "*/*")]
    headers += [(name.lower(), str(value)) for name, value in (spec.get("headers") or {}).items() if name.lower() != "host"]
    parser.send_headers(1, headers, end_stream=True)
    await stream.send(parser.data_to_send())
    status, head, data = 0, [], b""
    while more := await stream.receive():
        for event in parser.receive_data(more):
            if isinstance(event, h2.events.ResponseReceived):
                head = [(str(name), str(value)) for name, value in event.headers if not str(name).startswith(":")]
                status = int({str(name): str(value) for name, value in event.headers}[":status"])
            elif isinstance(event, h2.events.DataReceived):
                data += event.data
                parser.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                return _response(status, head, data)
            elif isinstance(event, h2.events.StreamReset):
                return {"error": "stream reset"}
        await stream.send(parser.data_to_send())
    return {"error": "eof"}


async def _over_tls(stream: Stream, spec: Mapping[str, Json], roots: Mapping[str, x509.Certificate]) -> dict[str, Json]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if spec.get("alpn"):
        context.set_alpn_protocols(spec["alpn"])
    sni = spec.get("sni")
    try:
        tls = await stream.start_tls(context, sni or None)
    except Exception as e:
        return {"tls": {"error": ending(e)}}
    out: dict[str, Json] = {"tls": {"alpn": tls.selected_alpn_protocol(), **_shown(tls.getpeercert(True) or b"", sni, roots)}}
    http = spec.get("http")
    try:
        if http:
            headers = {name.lower(): value for name, value in (http.get("headers") or {}).items()}
            authority = headers.get("host") or sni or spec["address"]
            talk = http2 if tls.selected_alpn_protocol() == "h2" else http1
            out.update(await talk(stream, authority, http.get("path", "/"), http))
        else:
            out["after"] = await _watch(stream)
    except Exception as e:
        out["error"] = ending(e)
    return out


async def _watch(stream: Stream) -> str:
    """What an idle connection does; with TLS 1.3 a refused client certificate shows only here."""
    stream.timeout = IDLE
    try:
        return "data" if await stream.receive() else "eof"
    except TimeoutError:
        return "open"
    except Exception as e:
        return ending(e)


def _shown(der: bytes, sni: str | None, roots: Mapping[str, x509.Certificate]) -> dict[str, Json]:
    """Names and issuer of the server's certificate, and whether a client that trusts "public" would have gone on."""
    certificate = x509.load_der_x509_certificate(der)
    try:
        san = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = san.get_values_for_type(x509.DNSName) + san.get_values_for_type(x509.UniformResourceIdentifier)
    except x509.ExtensionNotFound:
        names = [certificate.subject.rfc4514_string()]
    issuer = next((label for label, root in roots.items() if _issued(certificate, root)), "other")
    trusted = issuer == "public" and bool(sni) and _covers(certificate, str(sni), roots["public"])
    return {"names": sorted(names), "issuer": issuer, "trusted": trusted}


def _issued(certificate: x509.Certificate, root: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(root)
    except Exception:
        return False
    return True


def _covers(certificate: x509.Certificate, name: str, root: x509.Certificate) -> bool:
    try:
        verifier = verification.PolicyBuilder().store(verification.Store([root])).build_server_verifier(x509.DNSName(name))
        verifier.verify(certificate, [])
    except Exception:
        return False
    return True


async def raw(stream: Stream, data: bytes) -> dict[str, Json]:
    """Send bytes; what came back, and how it ended."""
    received, end = b"", "open"
    stream.timeout = FIRST_BYTE
    try:
        await stream.send(data)
        while True:
            more = await stream.receive()
            if not more:
                end = "eof"
                break
            received += more
            stream.timeout = NEXT_BYTE
    except TimeoutError:
        end = "open" if received else "timeout"
    except Exception as e:
        end = ending(e)
    return {"received": received.decode("latin-1")[:400], "end": end}

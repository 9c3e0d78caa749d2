"""One connection to an external server: TLS, bytes, HTTP/1.1 and HTTP/2, until it ends.

How this works: `Visit` reads what comes, asks the pure functions beside `ExternalServer` what to say, and says it. It tells its
observer what arrived in the moment it is complete: a request when its last byte is there, bytes that are no HTTP, or that
nothing came.
`busy` is true while something is under way; an idle kept-alive connection is not.

The bytes of HTTP/1.1 are h11's business and those of HTTP/2 are h2's; a connection preface or ALPN decides between them.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Mapping
from email.utils import formatdate
from typing import Any as Json

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h11

from meshsim.network.base import Connection
from meshsim.resources.external_server import (
    BAD_REQUEST,
    ECHO,
    GARBAGE,
    HTTP2,
    ClientTls,
    ExternalServerSpec,
    Request,
    Response,
    ServerPort,
    answer,
    answer_bytes,
    received,
    record,
)
from meshsim.world.certificates import ServerContexts, asked_name

Observer = Callable[[dict[str, Json]], None]
Dial = Callable[[str], Awaitable[Connection]]
"""Open a connection to `host:port` from the server's own address. Raises OSError, also for a name that does not resolve."""

_CHUNK = 65536
_MORE_BYTES = 0.05  # seconds in which a port that speaks no HTTP waits for what follows the first bytes
_NO_CERTIFICATE = "PEER_DID_NOT_RETURN_A_CERTIFICATE"
_HANDSHAKE_FAILURE = bytes((21, 3, 3, 0, 2, 2, 40))
"""What OpenSSL says then (RFC 5246 7.2.2), and event loops drop as they close the connection: a fatal alert of TLS 1.2."""
_PREFACE = b"PRI * HTTP/2"


class Visit:
    """One accepted connection."""

    def __init__(self, server: ExternalServerSpec, port: ServerPort, contexts: ServerContexts | None, dial: Dial, observe: Observer):
        self._server, self._port, self._contexts, self._dial, self._observe = server, port, contexts, dial, observe
        self.busy = True
        self._note: dict[str, Json] = {}
        self._tls: ClientTls | None = None
        self._peer = ""

    async def run(self, connection: Connection) -> None:
        """Serve until the connection ends; whatever the peer does, this returns."""
        loop = asyncio.get_running_loop()
        self._peer = connection.source.host if connection.source else ""
        reader = asyncio.StreamReader(limit=_CHUNK)
        protocol = asyncio.StreamReaderProtocol(reader)
        if self._port.handshake:
            await self._refuse_handshake(connection)
            return
        context = self._contexts.default() if self._contexts else None
        spare = connection.sock.dup() if context is not None and self._port.max_tls == "1.2" else None
        try:
            transport, _ = await loop.connect_accepted_socket(lambda: protocol, connection.sock, ssl=context)
        except (OSError, ssl.SSLError) as e:
            if spare is not None and getattr(e, "reason", "") == _NO_CERTIFICATE:
                with contextlib.suppress(OSError):
                    spare.send(_HANDSHAKE_FAILURE)
            return  # a failed handshake; nothing arrived
        finally:
            if spare is not None:
                spare.close()
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        try:
            await self._talk(reader, writer)
        except (OSError, asyncio.IncompleteReadError, h11.ProtocolError, h2.exceptions.ProtocolError) as e:
            self._observe({**self._note, "error": type(e).__name__})
        except asyncio.CancelledError:
            transport.abort()
            raise
        finally:
            writer.close()

    async def _refuse_handshake(self, connection: Connection) -> None:
        """Let the client's first message arrive, and then never answer it, or break the connection with it unread."""
        loop, sock = asyncio.get_running_loop(), connection.sock
        self.busy = False
        try:
            if self._port.handshake == "reset":
                arrived = asyncio.Event()
                loop.add_reader(sock, arrived.set)
                try:
                    await arrived.wait()
                finally:
                    loop.remove_reader(sock)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                while await loop.sock_recv(sock, _CHUNK):
                    pass
        except OSError:
            pass  # the client went away
        finally:
            sock.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tls: ssl.SSLObject | None = writer.get_extra_info("ssl_object")
        if tls is not None:
            self._tls = ClientTls(asked_name(tls), tls.selected_alpn_protocol(), _names(tls.getpeercert() or {}))
        self._note = received(self._server, self._port, self._peer, self._tls)
        if not self._port.is_http:
            await self._bytes(reader, writer)
            return
        self.busy = False
        first = await reader.read(_CHUNK)
        self.busy = True
        if not first:
            self._observe({**self._note, "bytes": ""})
        elif HTTP2 in self._port.alpn and first.startswith(_PREFACE[: len(first)]):
            await self._http2(reader, writer, first)
        else:
            await self._http1(reader, writer, first)

    async def _bytes(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.read(_CHUNK)
        if data:
            try:
                data += await asyncio.wait_for(reader.read(_CHUNK), _MORE_BYTES)
            except TimeoutError:
                pass
        self._observe({**self._note, "bytes": data.decode("latin-1")})
        writer.write(answer_bytes(self._server, self._port, data))
        await writer.drain()

    # HTTP/1.1 ------------------------------------------------------------------------------------------------------------------------

    async def _http1(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, first: bytes) -> None:
        parser = h11.Connection(h11.SERVER)
        parser.receive_data(first)
        while True:
            head, body = None, b""
            while True:
                try:
                    event = parser.next_event()
                except h11.RemoteProtocolError:
                    self._observe({**self._note, "bytes": first.decode("latin-1")})
                    writer.write(BAD_REQUEST)
                    return
                if event is h11.NEED_DATA:
                    self.busy = head is not None or bool(parser.trailing_data[0])
                    more = await reader.read(_CHUNK)
                    self.busy = True
                    parser.receive_data(more)
                    if parser.they_are_waiting_for_100_continue:
                        writer.write(parser.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
                elif isinstance(event, h11.Request):
                    head = event
                    if event.method == b"CONNECT":
                        break
                elif isinstance(event, h11.Data):
                    body += bytes(event.data)
                elif isinstance(event, h11.EndOfMessage):
                    break
                else:  # ConnectionClosed, PAUSED
                    return
            assert head is not None
            request = self._request1(head, body)
            response = self._respond(request)
            if response.connect:
                await self._splice(reader, writer, response.connect, parser.trailing_data[0])
                return
            if not await self._write1(parser, writer, response, request.method):
                return
            if parser.our_state is h11.MUST_CLOSE or parser.their_state is not h11.DONE:
                return
            parser.start_next_cycle()

    def _request1(self, head: h11.Request, body: bytes) -> Request:
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers]
        authority = next((value for name, value in headers if name == "host"), "")
        return Request(
            "HTTP/" + head.http_version.decode(), head.method.decode(), head.target.decode("latin-1"), authority, headers, body,
            self._peer, self._tls,
        )

    async def _write1(self, parser: h11.Connection, writer: asyncio.StreamWriter, response: Response, method: str) -> bool:
        """Write the response; whether the connection may go on."""
        if response.delay:
            await asyncio.sleep(response.delay)
        if await self._misbehave(writer, response):
            return False
        writer.write(parser.send(h11.Response(status_code=response.status, headers=_dated(response))) or b"")
        left = response.size // 2 if response.fault == "truncate" else response.size
        if method != "HEAD":
            for chunk in response.chunks(_CHUNK):
                if left <= 0:
                    break
                writer.write(parser.send(h11.Data(data=chunk[:left])) or b"")
                left -= len(chunk)
                await writer.drain()
        if response.fault == "truncate":
            return False
        writer.write(parser.send(h11.EndOfMessage()) or b"")
        await writer.drain()
        return True

    async def _splice(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: str, early: bytes) -> None:
        """Grant a CONNECT: from here on, and with what was sent `early`, the connection is the target's."""
        try:
            connection = await self._dial(target)
        except (OSError, ValueError):
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n")
            return
        there_reader, there_writer = await asyncio.open_connection(sock=connection.sock)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        there_writer.write(early)
        self.busy = False  # the ends of the tunnel say when it is over
        try:
            await asyncio.gather(_pump(reader, there_writer), _pump(there_reader, writer))
        finally:
            there_writer.close()

    # HTTP/2 --------------------------------------------------------------------------------------------------------------------------

    async def _http2(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes) -> None:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        connection.initiate_connection()
        streams = _Streams(connection, writer)
        open_requests: dict[int, tuple[list[tuple[str, str]], bytearray]] = {}
        tasks: set[asyncio.Task[None]] = set()
        try:
            while data:
                for event in connection.receive_data(data):
                    if isinstance(event, h2.events.RequestReceived):
                        open_requests[event.stream_id] = ([(str(name), str(value)) for name, value in event.headers], bytearray())
                    elif isinstance(event, h2.events.DataReceived):
                        open_requests[event.stream_id][1].extend(event.data)
                        connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    elif isinstance(event, h2.events.StreamEnded):
                        headers, body = open_requests.pop(event.stream_id)
                        task = asyncio.ensure_future(self._answer2(streams, event.stream_id, headers, bytes(body)))
                        tasks.add(task)
                        task.add_done_callback(tasks.discard)
                        task.add_done_callback(lambda _: self._settle(bool(tasks or open_requests)))
                    elif isinstance(event, h2.events.WindowUpdated | h2.events.RemoteSettingsChanged):
                        streams.room.set()
                    elif isinstance(event, h2.events.StreamReset):
                        open_requests.pop(event.stream_id, None)
                        streams.room.set()
                    elif isinstance(event, h2.events.ConnectionTerminated):
                        return
                streams.flush()
                await writer.drain()
                self._settle(bool(tasks or open_requests))
                data = await reader.read(_CHUNK)
        finally:
            for task in tasks:
                task.cancel()

    def _settle(self, busy: bool) -> None:
        self.busy = busy

    async def _answer2(self, streams: _Streams, stream: int, headers: list[tuple[str, str]], body: bytes) -> None:
        head = dict(headers)
        plain = [(name, value) for name, value in headers if not name.startswith(":")]
        request = Request(
            "HTTP/2", head.get(":method", ""), head.get(":path"), head.get(":authority", ""), plain, body, self._peer, self._tls
        )
        response = self._respond(request)
        if response.delay:
            await asyncio.sleep(response.delay)
        if await self._misbehave(streams.writer, response):
            streams.writer.close()
            return
        try:
            await streams.send(stream, response, request.method)
        except (h2.exceptions.ProtocolError, OSError):
            return  # the peer gave the stream or the connection up

    # Both ----------------------------------------------------------------------------------------------------------------------------

    def _respond(self, request: Request) -> Response:
        self._observe(record(self._server, self._port, request))
        return answer(self._server, self._port, request)

    async def _misbehave(self, writer: asyncio.StreamWriter, response: Response) -> bool:
        """Do what `fault` says instead of answering; whether it said so."""
        if response.fault == "stall":
            await asyncio.get_running_loop().create_future()
        elif response.fault == "garbage":
            writer.write(GARBAGE)
        elif response.fault == "reset":
            writer.transport.abort()
        return response.fault in ("stall", "garbage", "reset", "close")


class _Streams:
    """Writes HTTP/2 responses side by side, each as far as its window allows."""

    def __init__(self, connection: h2.connection.H2Connection, writer: asyncio.StreamWriter):
        self.connection, self.writer = connection, writer
        self.room = asyncio.Event()

    def flush(self) -> None:
        data = self.connection.data_to_send()
        if data and not self.writer.is_closing():
            self.writer.write(data)

    async def send(self, stream: int, response: Response, method: str) -> None:
        body = method != "HEAD" and response.size > 0
        self.connection.send_headers(stream, [(":status", str(response.status)), *_dated(response)], end_stream=not body)
        for number, chunk in enumerate(response.chunks() if body else ()):
            if number:  # what is written last goes out together with the stream's end
                self.flush()
                await self.writer.drain()
            view = memoryview(chunk)
            while view:
                size = min(len(view), self.connection.local_flow_control_window(stream), self.connection.max_outbound_frame_size)
                if size:
                    self.connection.send_data(stream, view[:size].tobytes())
                    view = view[size:]
                    continue
                self.flush()
                self.room.clear()
                await self.room.wait()
        if body:
            if response.fault == "truncate":
                self.connection.reset_stream(stream)
            else:
                self.connection.end_stream(stream)
        self.flush()


def _dated(response: Response) -> list[tuple[str, str]]:
    """The headers as sent: a page carries the date (RFC 9110 6.6.1); an echo does not, so that two of them compare equal."""
    if ("server", ECHO) in response.headers:
        return response.headers
    return [*response.headers, ("date", formatdate(usegmt=True))]


def _names(certificate: Mapping[str, Json]) -> tuple[str, ...]:
    return tuple(value for _, value in certificate.get("subjectAltName", ()))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(_CHUNK):
            writer.write(chunk)
            await writer.drain()
        writer.write_eof()
    except (OSError, RuntimeError, NotImplementedError):
        writer.close()

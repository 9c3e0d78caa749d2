"""HTTP/2 on both sides of a proxy: many streams on one connection, framed by `h2`.

How this works: an endpoint holds the h2 state of a connection and a `_Half` for each open stream, which is the `Sink` of a request that
came in or the `Upstream` of one that goes out. What a half wants to send waits in it until the next flush, which fills as many frames
as both flow-control windows and the frame size allow, the last one with the end of the stream, and writes everything of that turn of
the event loop at once. A half that holds too much unsent tells its stream, and one that is paused leaves its window shut.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, cast

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import hyperframe.frame

from meshsim.proxy.expiry import Expiry
from meshsim.proxy.stream import Asker, Stream
from meshsim.routing import http2_fields
from meshsim.routing.exchange import Exchange
from meshsim.routing.facts import Downstream
from meshsim.routing.lifetime import MAX_REQUESTS, Lifetime
from meshsim.routing.manager import Manager
from meshsim.routing.message import Headers, Request, Response
from meshsim.routing.retries import Reset

if TYPE_CHECKING:
    from meshsim.proxy.core import Core

STREAM_WINDOW = 1024 * 1024  # bytes of one stream on their way to us: as many as Envoy buffers for a stream
CONNECTION_WINDOW = 24 * 1024 * 1024
MAX_STREAMS = 1024
MAX_HEADERS = 256 * 1024  # bytes that HPACK may unpack to, whatever a manager allows
HIGH_WATER, LOW_WATER = 1024 * 1024, 256 * 1024  # bytes a half may hold unsent
_LAST_STREAM = 2**31 - 1
_Codes = h2.errors.ErrorCodes


_FRAME_HEADER = 9  # bytes: length, type, flags, stream (RFC 9113 4.1)
_SETTINGS = 4
_LONGEST_SETTINGS = 16_384


class _Half:
    """One stream on a connection, as far as sending goes. `blocked` and `writable` tell its user about back-pressure."""

    def __init__(self, endpoint: _Endpoint):
        self._endpoint = endpoint
        self.id = 0
        self.out = bytearray()
        self.ending = self.ended = self.over = False
        self.held = False
        self.trailers: Headers | None = None  # to send
        self.received: Headers | None = None  # trailers of the other side
        self._paused = False
        self._unread = 0

    # its user's side

    def send_data(self, data: bytes) -> None:
        if self.over or self.ending or not data:
            return
        self.out += data
        self._endpoint.dirty(self)
        if len(self.out) > HIGH_WATER and not self.held:
            self.held = True
            self.blocked()

    def send_end(self, trailers: Headers | None = None) -> None:
        if not self.ended and not self.over:
            self.ending, self.trailers = True, trailers
            self._endpoint.dirty(self)

    def pause(self) -> None:
        """Leave the window shut."""
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        if self._unread and not self.over:
            self._endpoint.acknowledge(self, self._unread)
        self._unread = 0

    # the endpoint's side

    def arrived(self, size: int) -> None:
        """`size` bytes of window are used up."""
        if self._paused:
            self._unread += size
        else:
            self._endpoint.acknowledge(self, size)

    def eased(self) -> None:
        """Bytes have left."""
        if self.held and len(self.out) <= LOW_WATER:
            self.held = False
            self.writable()

    def blocked(self) -> None:
        raise NotImplementedError

    def writable(self) -> None:
        raise NotImplementedError


class _Endpoint(asyncio.Protocol):
    """A connection's frames in and out."""

    def __init__(self, *, client: bool):
        self._h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(
                client_side=client, header_encoding=None, validate_outbound_headers=False, normalize_outbound_headers=False
            )
        )
        self._h2.local_settings = h2.settings.Settings(
            client=client,
            initial_values={
                h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
                h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
                h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEADERS,
                h2.settings.SettingCodes.ENABLE_PUSH: 0,
            },
        )
        if not client:
            del self._h2.local_settings[h2.settings.SettingCodes.ENABLE_PUSH]
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._dirty: dict[int, _Half] = {}
        self._scheduled = self._going = False

    # the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(CONNECTION_WINDOW - 65535)
        self._schedule()

    def data_received(self, data: bytes) -> None:
        try:
            events = self._h2.receive_data(data)
        except h2.exceptions.ProtocolError:
            self._flush()
            self._broken()
            return
        for event in events:
            handle = self._handlers.get(type(event))
            if handle is not None:
                handle(self, event)
        self._flush()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        for half in self._halves():
            half.blocked()

    def resume_writing(self) -> None:
        for half in self._halves():
            half.writable()

    # sending

    def dirty(self, half: _Half) -> None:
        """The half has something to send."""
        self._dirty[half.id] = half
        self._schedule()

    def acknowledge(self, half: _Half, size: int) -> None:
        try:
            self._h2.acknowledge_received_data(size, half.id)
        except (h2.exceptions.ProtocolError, ValueError):
            return  # the stream is closed; its window is of no use
        self._schedule()

    def send_headers(self, half: _Half, fields: Iterable[tuple[bytes, bytes]], *, end: bool) -> None:
        try:
            self._h2.send_headers(half.id, fields, end_stream=end)
        except h2.exceptions.ProtocolError:
            half.over = True
            return
        half.ended = end
        self._schedule()

    def reset(self, half: _Half, code: int) -> None:
        """Give the stream up."""
        half.over = True
        self._dirty.pop(half.id, None)
        try:
            self._h2.reset_stream(half.id, code)
        except h2.exceptions.ProtocolError:
            return  # it has ended already
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        if self._dirty:
            waiting, self._dirty = self._dirty, {}
            for half in waiting.values():
                self._pump(half)
        if self._transport is not None and not self._transport.is_closing():
            data = self._h2.data_to_send()
            if data:
                self._transport.write(data)

    def _pump(self, half: _Half) -> None:
        """Put what the windows allow into frames."""
        if half.over or half.ended:
            return
        try:
            while half.out:
                room = min(self._h2.local_flow_control_window(half.id), self._h2.max_outbound_frame_size)
                if room <= 0:
                    break
                piece = bytes(half.out[:room])
                del half.out[:room]
                half.ended = half.ending and not half.out and not half.trailers
                self._h2.send_data(half.id, piece, end_stream=half.ended)
            if half.ending and not half.out and not half.ended:
                half.ended = True
                if half.trailers:
                    self._h2.send_headers(half.id, http2_fields.encoded(half.trailers), end_stream=True)
                else:
                    self._h2.end_stream(half.id)
        except h2.exceptions.ProtocolError:
            half.over = True
        half.eased()

    # receiving

    def _on_window(self, event: h2.events.WindowUpdated | h2.events.RemoteSettingsChanged) -> None:
        stream = getattr(event, "stream_id", 0)
        for half in self._halves():
            if half.out and (not stream or half.id == stream):
                self.dirty(half)

    def _on_trailers(self, event: h2.events.TrailersReceived) -> None:
        for half in self._halves():
            if half.id == event.stream_id:
                half.received = http2_fields.decoded(event.headers)

    def _halves(self) -> list[_Half]:
        raise NotImplementedError

    def _broken(self) -> None:
        """The peer does not speak HTTP/2 as it should."""
        raise NotImplementedError

    _handlers: dict[type, Callable[..., None]] = {}


# The client's connection to the proxy --------------------------------------------------------------------------------------------


class Http2Server(_Endpoint):
    """A downstream connection."""

    def __init__(self, core: Core, manager: Manager, downstream: Downstream, lifetime: Lifetime | None = None):
        super().__init__(client=False)
        self.core, self.manager, self._downstream = core, manager, downstream
        self._lifetime = lifetime or Lifetime(manager.limits, core.loop.time())
        self._asked = False
        self._streams: dict[int, _Incoming] = {}

    @property
    def idle(self) -> bool:
        return not self._streams

    @property
    def spoken(self) -> bool:
        return True  # at least its preface

    def ask_to_go(self) -> None:
        """The client shall open no more streams (RFC 9113 6.8)."""
        if not self._asked and self._transport is not None:
            self._asked = True
            self._flush()
            self._transport.write(hyperframe.frame.GoAwayFrame(0, last_stream_id=_LAST_STREAM).serialize())

    def retire(self) -> None:
        self._expiry.retire()

    def drain(self) -> None:
        """Ask the client to open no more streams; end with the last one."""
        self._lifetime.close()
        self.ask_to_go()
        self._going = True
        self._leave()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.core.connections.add(self)
        super().connection_made(transport)
        self._expiry = Expiry(self.core, self.manager, self._lifetime, self)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._expiry.stop()
        self.core.connections.discard(self)
        for half in list(self._streams.values()):
            half.over = True
            half.stream.client_gone()

    def closed(self, half: _Incoming) -> None:
        """The stream is over for the proxy."""
        self._streams.pop(half.id, None)
        if not self._streams:
            self._lifetime.free(self._loop.time())
        if not half.complete and not half.over:  # the rest of the request is of no interest (RFC 9113 8.1)
            self._flush()
            self.reset(half, _Codes.NO_ERROR)
        self._leave()

    def _leave(self) -> None:
        if self._going and not self._streams:
            self._loop.call_soon(self._close)

    def _close(self) -> None:
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def _halves(self) -> list[_Half]:
        return list(self._streams.values())

    def _broken(self) -> None:
        for half in list(self._streams.values()):
            half.over = True
            half.stream.client_gone()
        if self._transport is not None:
            self._transport.close()

    def _on_request(self, event: h2.events.RequestReceived) -> None:
        request = http2_fields.request(event.headers, ends=event.stream_ended is not None)
        half = self._streams[event.stream_id] = _Incoming(self, event.stream_id, complete=request.ends)
        exchange = Exchange(self.manager, self._downstream, request, self.core.runtime.clock())
        half.stream = Stream(self.core, half, exchange)
        self.core.count_request(self.manager, "2")
        if self._lifetime.busy():
            self.core.count(self.manager, MAX_REQUESTS)
            self._expiry.retire()
        size = sum(len(name) + len(value) + 32 for name, value in event.headers)  # as RFC 7541 4.1 counts
        refused = http2_fields.refused(request, size, self.manager.rules)
        if refused:
            half.cut()
            half.stream.cut_off(refused)
        else:
            half.stream.start()

    def _on_data(self, event: h2.events.DataReceived) -> None:
        half = self._streams.get(event.stream_id)
        if half is None:
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            return
        half.stream.request_data(event.data)
        half.arrived(event.flow_controlled_length)

    def _on_end(self, event: h2.events.StreamEnded) -> None:
        half = self._streams.get(event.stream_id)
        if half is not None and not half.complete:
            half.complete = True
            half.stream.request_end(half.received)

    def _on_reset(self, event: h2.events.StreamReset) -> None:
        half = self._streams.get(event.stream_id)
        if half is not None:
            half.over = True
            half.stream.client_gone(reset=True)

    _handlers = {
        h2.events.RequestReceived: _on_request,
        h2.events.DataReceived: _on_data,
        h2.events.TrailersReceived: _Endpoint._on_trailers,
        h2.events.StreamEnded: _on_end,
        h2.events.StreamReset: _on_reset,
        h2.events.WindowUpdated: _Endpoint._on_window,
        h2.events.RemoteSettingsChanged: _Endpoint._on_window,
    }


class _Incoming(_Half):
    """The `Sink` of a request that came in. complete: whether all of it has."""

    stream: Stream

    def __init__(self, server: Http2Server, number: int, *, complete: bool):
        super().__init__(server)
        self._server, self.id, self.complete = server, number, complete

    def send_head(self, response: Response, *, close: bool = False) -> None:
        if not self.over:
            self._server.send_headers(self, http2_fields.of_response(response), end=response.ends)

    def cut(self) -> None:
        self._server.reset(self, _Codes.INTERNAL_ERROR)

    def closed(self) -> None:
        self._server.closed(self)

    def blocked(self) -> None:
        self.stream.client_blocked()

    def writable(self) -> None:
        self.stream.client_writable()


# The proxy's connection to a host -------------------------------------------------------------------------------------------------


class Http2Client(_Endpoint):
    """An upstream connection. local: its address on our side. `lost` is called when it is gone. most: requests it may carry, 0 for any."""

    def __init__(self, local: str, lost: Callable[[Http2Client], None], *, most: int = 0):
        super().__init__(client=True)
        self.local = local
        self.requests = 0
        self.free_since: float | None = None
        self.idle_timer: asyncio.TimerHandle | None = None
        self._lost, self._most = lost, most
        self._streams: dict[int, _Outgoing] = {}
        self._taken = 0
        self._greeting: bytes | None = b""

    def data_received(self, data: bytes) -> None:
        if self._greeting is not None:
            data = self._greeting = self._greeting + data
            if len(data) < _FRAME_HEADER:
                return
            self._greeting = None
            if not _is_settings(data):
                self._broken()
                return
        super().data_received(data)

    @property
    def usable(self) -> bool:
        """Whether one more stream can be opened."""
        if self._going or self._transport is None or self._transport.is_closing():
            return False
        return self._taken < int(self._h2.remote_settings.max_concurrent_streams)

    def take(self, stream: Asker) -> _Outgoing:
        """The stream's side of a new request on this connection."""
        self._taken += 1
        self.requests += 1
        self.free_since = None
        if self.requests == self._most:
            self._going = True
        return _Outgoing(self, stream)

    def leave(self) -> None:
        """Open no more streams, and end with the last one."""
        self._going = True
        if not self._taken:
            self.close()

    def open(self, half: _Outgoing, request: Request) -> None:
        try:
            half.id = self._h2.get_next_available_stream_id()
        except h2.exceptions.NoAvailableStreamIDError:
            self._going = True
            self._loop.call_soon(half.fail, Reset.REFUSED)
            return
        self._streams[half.id] = half
        self.send_headers(half, http2_fields.of_request(request), end=request.ends)
        if half.over:  # the connection has ended in the meantime
            self._loop.call_soon(half.fail, Reset.TERMINATION)

    def forget(self, half: _Outgoing) -> None:
        """The stream is over on this side."""
        half.over = True
        self._taken -= 1
        self._streams.pop(half.id, None)
        self._dirty.pop(half.id, None)
        if not self._taken:
            self.free_since = self._loop.time()
            if self._going:
                self._loop.call_soon(self.close)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self.idle_timer is not None:
            self.idle_timer.cancel()
        self._lost(self)
        for half in list(self._streams.values()):
            half.fail(Reset.TERMINATION)

    def _halves(self) -> list[_Half]:
        return list(self._streams.values())

    def _broken(self) -> None:
        self._going = True
        for half in list(self._streams.values()):
            half.fail(Reset.PROTOCOL)
        self.close()

    def _on_response(self, event: h2.events.ResponseReceived) -> None:
        half = self._streams.get(event.stream_id)
        if half is not None:
            half.answer(http2_fields.response(event.headers, ends=event.stream_ended is not None))

    def _on_data(self, event: h2.events.DataReceived) -> None:
        half = self._streams.get(event.stream_id)
        if half is None:
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            return
        half.stream.response_data(event.data)
        half.arrived(event.flow_controlled_length)

    def _on_end(self, event: h2.events.StreamEnded) -> None:
        half = self._streams.get(event.stream_id)
        if half is not None:
            half.finish()

    def _on_reset(self, event: h2.events.StreamReset) -> None:
        half = self._streams.get(event.stream_id)
        if half is not None:
            half.fail(Reset.REFUSED if event.error_code == _Codes.REFUSED_STREAM else Reset.REMOTE)

    def _on_goaway(self, event: h2.events.ConnectionTerminated) -> None:
        self._going = True
        last = event.last_stream_id if event.last_stream_id is not None else _LAST_STREAM
        for half in list(self._streams.values()):
            if half.id > last:
                half.fail(Reset.REFUSED)
        if not self._taken:
            self.close()

    _handlers = {
        h2.events.ResponseReceived: _on_response,
        h2.events.DataReceived: _on_data,
        h2.events.TrailersReceived: _Endpoint._on_trailers,
        h2.events.StreamEnded: _on_end,
        h2.events.StreamReset: _on_reset,
        h2.events.ConnectionTerminated: _on_goaway,
        h2.events.WindowUpdated: _Endpoint._on_window,
        h2.events.RemoteSettingsChanged: _Endpoint._on_window,
    }


def _is_settings(data: bytes) -> bool:
    """Whether a peer's first frame is HTTP/2 (RFC 9113 3.4); other bytes would be waited for as a very long frame."""
    return data[3] == _SETTINGS and int.from_bytes(data[:3], "big") <= _LONGEST_SETTINGS


class _Outgoing(_Half):
    """The `Upstream` of a request that goes out."""

    def __init__(self, client: Http2Client, stream: Asker):
        super().__init__(client)
        self._client, self.stream = client, stream
        self._answered = False

    @property
    def local(self) -> str:
        return self._client.local

    def send_head(self, request: Request) -> None:
        self._client.open(self, request)

    def cancel(self) -> None:
        if not self.over:
            self._client.forget(self)
            if self.id:
                self._client.reset(self, _Codes.CANCEL)

    def blocked(self) -> None:
        self.stream.host_blocked()

    def writable(self) -> None:
        self.stream.host_writable()

    # what comes back

    def answer(self, response: Response) -> None:
        if response.ends:
            self._client.forget(self)
        self._answered = True
        self.stream.response(response)

    def finish(self) -> None:
        """The response is complete; a request that is not is given up."""
        if self.over:
            return
        self._client.forget(self)
        if not self.ended:
            self._client.reset(self, _Codes.NO_ERROR)
        self.stream.response_end(self.received)

    def fail(self, reset: Reset) -> None:
        if not self.over:
            self._client.forget(self)
            self.stream.failed(reset)

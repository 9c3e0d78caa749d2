"""A client's HTTP/2 connection to the proxy."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from meshsim.proxy.expiry import Expiry
from meshsim.proxy.http2 import frames
from meshsim.proxy.http2.connection import MAX_STREAMS, Half, Http2Connection
from meshsim.proxy.http2.frames import Broken, Code
from meshsim.proxy.stream import Stream
from meshsim.routing import http2_fields
from meshsim.routing.exchange import Exchange
from meshsim.routing.facts import Downstream
from meshsim.routing.lifetime import MAX_REQUESTS, Lifetime
from meshsim.routing.manager import Manager
from meshsim.routing.message import Headers, Request, Response

if TYPE_CHECKING:
    from meshsim.proxy.core import Core


class Http2Server(Http2Connection):
    """A downstream connection."""

    def __init__(self, core: Core, manager: Manager, downstream: Downstream, lifetime: Lifetime | None = None):
        super().__init__(client=False, connects=manager.allows_connect)
        self.core, self.manager, self._downstream = core, manager, downstream
        self._lifetime = lifetime or Lifetime(manager.limits, core.loop.time())
        self._asked = False
        self._streams: dict[int, _Incoming] = {}

    @property
    def listener(self) -> str:
        return self.manager.listener

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
            self._out.append(frames.goaway(frames.LAST_STREAM))
            self._flush()

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
        self._since = self.core.loop.time()
        self.core.opened(self.manager, "2")

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._expiry.stop()
        self.core.closed(self.manager, self._since, by_us=self._going or self._ended)
        self.core.connections.discard(self)
        self._lose_streams()

    def closed(self, half: _Incoming) -> None:
        """The stream is over for the proxy, but what it has said may still wait for a window."""
        half.settled = True
        if half.ended or half.over:
            self._drop(half)

    def _drop(self, half: _Incoming) -> None:
        if self._streams.pop(half.id, None) is not None and not half.complete:
            self.reset(half, Code.NO_ERROR)  # the rest of the request is of no interest (RFC 9113 8.1)
        if not self._streams:
            self._lifetime.free(self._loop.time())
        self._leave()

    def _leave(self) -> None:
        if self._going and not self._streams:
            self._loop.call_soon(self._close)

    def _close(self) -> None:
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def _lose_streams(self) -> None:
        for half in list(self._streams.values()):
            half.release()
            half.stream.client_gone()
            self._streams.pop(half.id, None)

    def _broken(self) -> None:
        self._lose_streams()
        if self._transport is not None:
            self._transport.close()

    def _halves(self) -> list[Half]:
        return list(self._streams.values())

    def _find(self, stream: int) -> Half | None:
        return self._streams.get(stream)

    # what comes in

    def _on_headers(self, stream: int, fields: Headers, ends: bool) -> None:
        known = self._streams.get(stream)
        if known is not None:
            self._trailers(known, fields, ends)
            return
        if stream % 2 == 0:
            raise Broken(Code.PROTOCOL_ERROR)
        if stream <= self._last:
            return  # a stream that was reset while this was on its way
        self._last = stream
        if len(self._streams) >= MAX_STREAMS:
            self._out.append(frames.rst_stream(stream, Code.REFUSED_STREAM))
            return
        try:
            request = http2_fields.request(fields, ends=ends)
        except http2_fields.Unreadable:
            self._begun(stream, http2_fields.unread()).stream.cut_off(http2_fields.VIOLATION, broken=True)
            raise
        expected = None if ends else http2_fields.length(request.headers)
        half = self._begun(stream, request)
        half.complete, half.expected = ends, expected
        if self._lifetime.busy():
            self.core.count(self.manager, MAX_REQUESTS)
            self._expiry.retire()
        size = sum(len(name) + len(value) + 32 for name, value in fields)  # as RFC 7541 4.1 counts
        refused = http2_fields.refused(request, size, self.manager.rules)
        if request.upgrade and not self.manager.allows_connect:
            half.stream.cut_off(http2_fields.UNKNOWN_FIELD, broken=True)
            raise Broken(Code.PROTOCOL_ERROR)
        if refused:
            half.cut()
            half.stream.cut_off(refused)
        else:
            half.stream.start()

    def _begun(self, stream: int, request: Request) -> _Incoming:
        half = self._streams[stream] = _Incoming(self, stream)
        half.stream = Stream(self.core, half, Exchange(self.manager, self._downstream, request, self.core.runtime.clock()))
        self.core.count_request(self.manager, "2")
        return half

    def _on_data(self, half: Half, data: bytes) -> None:
        assert isinstance(half, _Incoming)
        half.stream.request_data(data)

    def _on_end(self, half: Half) -> None:
        assert isinstance(half, _Incoming)
        half.stream.request_end(half.received)

    def _on_sent(self, half: Half) -> None:
        assert isinstance(half, _Incoming)
        if half.settled:
            self._drop(half)

    def _on_reset(self, half: Half, code: int) -> None:
        assert isinstance(half, _Incoming)
        half.release()
        half.stream.client_gone(reset=True)

    def _on_goaway(self, last: int) -> None:
        """The client opens no more streams; those that are under way go on."""


class _Incoming(Half):
    """The `Sink` of a request that came in. settled: its stream is over."""

    stream: Stream
    settled = False

    def __init__(self, server: Http2Server, number: int):
        super().__init__(server, number)
        self._server = server

    def send_continue(self) -> None:
        if not self.over:
            self._server.send_headers(self, http2_fields.CONTINUE, end=False)

    def send_head(self, response: Response, *, close: bool = False) -> None:
        if not self.over:
            self._server.send_headers(self, http2_fields.of_response(response), end=response.ends)

    def cut(self) -> None:
        self._server.reset(self, Code.INTERNAL_ERROR)

    def closed(self) -> None:
        self._server.closed(self)

    def blocked(self) -> None:
        self.stream.client_blocked()

    def writable(self) -> None:
        self.stream.client_writable()

"""The proxy's HTTP/2 connection to a host."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from meshsim.proxy.http2 import frames
from meshsim.proxy.http2.connection import MAX_STREAMS, Half, Http2Connection
from meshsim.proxy.http2.frames import Broken, Code
from meshsim.proxy.stream import Asker
from meshsim.routing import http2_fields
from meshsim.routing.message import Headers, Request, Response
from meshsim.routing.retries import Reset

_RESETS: dict[int, Reset] = {Code.REFUSED_STREAM: Reset.REFUSED, Code.PROTOCOL_ERROR: Reset.PROTOCOL}


class Http2Client(Http2Connection):
    """An upstream connection. local: its address on our side. `lost` is called when it is gone. most: requests it may carry, 0 for any.

    streams: how many of them at the same time, 0 for Envoy's default.
    """

    def __init__(self, local: str, lost: Callable[[Http2Client], None], *, most: int = 0, streams: int = 0):
        super().__init__(client=True)
        self.since = self._loop.time()
        self._most_streams = streams or MAX_STREAMS
        self.local = local
        self.requests = 0
        self.free_since: float | None = None
        self.idle_timer: asyncio.TimerHandle | None = None
        self._lost, self._most = lost, most
        self._streams: dict[int, _Outgoing] = {}
        self._taken = 0
        self._next = 1

    @property
    def usable(self) -> bool:
        """Whether one more stream can be opened."""
        if self._going or self._transport is None or self._transport.is_closing():
            return False
        return self._taken < min(self._peer_streams, self._most_streams)

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
        if self._next > frames.LAST_STREAM:
            self._going = True
            self._loop.call_soon(half.fail, Reset.REFUSED)
            return
        half.id = self._last = self._next
        self._next += 2
        self._streams[half.id] = half
        half.headless = request.method == "HEAD"
        half.upgrade = http2_fields.protocol(request)
        if not self.send_headers(half, http2_fields.of_request(request), end=request.ends):
            self._loop.call_soon(half.fail, Reset.TERMINATION)

    def forget(self, half: _Outgoing) -> None:
        """The stream is over on this side."""
        half.release()
        self._taken -= 1
        self._streams.pop(half.id, None)
        self._forget(half)
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

    def _halves(self) -> list[Half]:
        return list(self._streams.values())

    def _find(self, stream: int) -> Half | None:
        return self._streams.get(stream)

    def _broken(self) -> None:
        self._going = True
        for half in list(self._streams.values()):
            half.fail(Reset.PROTOCOL)
        self.close()

    # what comes back

    def _on_headers(self, stream: int, fields: Headers, ends: bool) -> None:
        half = self._half(stream)
        if half is None:
            return
        assert isinstance(half, _Outgoing)
        if half.answered:
            self._trailers(half, fields, ends)
            return
        response = http2_fields.response(fields, ends=ends, upgrade=half.upgrade)
        if response.status >= 200 or (half.upgrade and response.status == 101):
            half.answer(response)
        elif ends:  # an interim answer is not the last word (RFC 9113 8.1)
            raise Broken(Code.PROTOCOL_ERROR)
        elif response.status == 100:
            half.stream.may_continue()

    def _on_data(self, half: Half, data: bytes) -> None:
        assert isinstance(half, _Outgoing)
        if not half.answered:
            raise Broken(Code.PROTOCOL_ERROR)
        half.stream.response_data(data)

    def _on_end(self, half: Half) -> None:
        assert isinstance(half, _Outgoing)
        half.finish()

    def _on_reset(self, half: Half, code: int) -> None:
        assert isinstance(half, _Outgoing)
        half.fail(_RESETS.get(code, Reset.REMOTE))

    def _on_goaway(self, last: int) -> None:
        self._going = True
        for half in list(self._streams.values()):
            if half.id > last:
                half.fail(Reset.REFUSED)
        if not self._taken:
            self.close()


class _Outgoing(Half):
    """The `Upstream` of a request that goes out. headless: its answer has no body, whatever it says of one. upgrade: what it asks for."""

    answered = headless = False
    upgrade = ""

    def __init__(self, client: Http2Client, stream: Asker):
        super().__init__(client, 0)
        self._client, self.stream = client, stream

    @property
    def local(self) -> str:
        return self._client.local

    def send_head(self, request: Request) -> None:
        self._client.open(self, request)

    def cancel(self) -> None:
        if not self.over:
            self._client.forget(self)
            if self.id:
                self._client.reset(self, Code.CANCEL)

    def blocked(self) -> None:
        self.stream.host_blocked()

    def writable(self) -> None:
        self.stream.host_writable()

    # what comes back

    def answer(self, response: Response) -> None:
        self.answered = True
        if response.ends:
            self.complete = True
            self._end()
        elif not self.headless:
            self.expected = http2_fields.body_size(response)
        self.stream.response(response)

    def finish(self) -> None:
        if not self.over:
            self._end()
            self.stream.response_end(self.received)

    def _end(self) -> None:
        """The response is complete; a request that is not is given up."""
        self._client.forget(self)
        if not self.ended:
            self._client.reset(self, Code.NO_ERROR)

    def fail(self, reset: Reset) -> None:
        if not self.over:
            self._client.forget(self)
            self.stream.failed(reset)

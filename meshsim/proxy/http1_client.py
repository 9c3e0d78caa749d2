"""HTTP/1.1 as a proxy speaks it to a host: one request at a time on a connection, which goes back to its pool in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from meshsim.proxy.gather import Gathered
from meshsim.proxy.parsers import BadMessage, Body, Continue, End, ResponseHead, ResponseParser, Tunnel
from meshsim.routing import http1
from meshsim.routing.message import Headers, Request, Response
from meshsim.routing.retries import Reset

if TYPE_CHECKING:
    from meshsim.proxy.shortcut import Shortcut
    from meshsim.proxy.stream import Asker


class Http1Client(asyncio.Protocol):
    """One upstream connection; the `Upstream` of the stream that has it. `released` is called when it is free, `lost` when it is gone."""

    def __init__(self, local: str, released: Callable[[Http1Client], None], lost: Callable[[Http1Client], None]):
        self.local = local
        self._released, self._lost = released, lost
        self.requests = 0
        self.free_since: float | None = None
        self.since = asyncio.get_running_loop().time()
        self.idle_timer: asyncio.TimerHandle | None = None
        self._parser = ResponseParser()
        self._transport: asyncio.Transport | None = None
        self._stream: Asker | None = None
        self._shortcut: Shortcut | None = None
        self._chunked = self._answered = self._reusable = self._raw = self._sent_all = False
        self._bodiless = False  # the response's head was all of it

    @property
    def usable(self) -> bool:
        return self._stream is None and self._transport is not None and not self._transport.is_closing()

    def take(self, stream: Asker) -> None:
        """The connection is this stream's until its response is complete."""
        self._stream = stream
        self.requests += 1
        self.free_since = None
        self._answered = self._raw = self._sent_all = False
        self._reusable = True

    def lend(self, shortcut: Shortcut, head: bytes) -> None:
        """The same for a request without a body, which is sent at once; `shortcut` sees the first bytes of the answer before all others."""
        self.take(shortcut)
        self._shortcut, self._sent_all, self._chunked = shortcut, True, False
        self._parser.expect("GET")
        self._out.write_now(head)

    def hand_over(self, stream: Asker) -> None:
        """From now on another stream has what `lend` lent."""
        self._stream, self._shortcut = stream, None

    def head(self, raw: bytes) -> tuple[ResponseHead, int] | None:
        """A whole head of a response by itself, and the length of its body; None where that takes a parser that goes on."""
        return self._parser.head(raw)

    def returned(self, left: int) -> None:
        """The head of the response has been read; `left`: how much of its body is still to come."""
        if left:
            self._answered, self._bodiless = True, False
            self._parser.rest(left)
        else:
            self._release()

    def close(self) -> None:
        if self._transport is not None:
            self._out.flush()
            self._transport.close()

    def leave(self) -> None:
        """End the connection as soon as it is free."""
        if self._stream is None:
            self.close()
        self._reusable = False

    # the stream's side

    def send_head(self, request: Request) -> None:
        assert self._transport is not None
        head, self._chunked = http1.request_head(request)
        self._sent_all = request.ends
        self._raw = request.method == "CONNECT"
        self._parser.expect(request.method)
        self._out.write(head)

    def send_data(self, data: bytes) -> None:
        if self._transport is not None and data:
            self._out.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def send_end(self, trailers: Headers | None = None) -> None:
        """Trailers are dropped, as Envoy does where nothing asks for them."""
        self._sent_all = True
        if self._transport is not None and self._chunked:
            self._out.write(b"0\r\n\r\n")

    def cancel(self) -> None:
        self._stream = self._shortcut = None
        self.close()

    def pause(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    # the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._out = Gathered(self._transport)

    def data_received(self, data: bytes) -> None:
        if self._stream is None:
            self.close()  # nobody asked
            return
        if self._shortcut is not None:
            shortcut, self._shortcut = self._shortcut, None
            if shortcut.respond(data):
                return
        if self._answered and self._raw:
            self._stream.response_data(data)
            return
        for event in self._parser.feed(data):
            self._event(event)

    def _event(self, event: Continue | ResponseHead | Body | End | Tunnel | BadMessage) -> None:
        stream = self._stream
        if stream is None:
            return
        if isinstance(event, ResponseHead):
            self._answered = True
            self._reusable = self._reusable and event.keep_alive
            self._raw = event.status == 101 or (self._raw and event.status == 200)
            self._bodiless = event.ends and not self._raw
            stream.response(Response(event.status, event.headers, self._bodiless, event.version))
        elif isinstance(event, Body):
            stream.response_data(event.data)
        elif isinstance(event, Tunnel):
            if event.data:
                stream.response_data(event.data)
        elif isinstance(event, End):
            if not self._raw:
                if not self._bodiless:
                    stream.response_end()
                self._release()  # maybe to a stream that waits, to which nothing before this belongs
        elif isinstance(event, Continue):
            stream.may_continue()
        else:
            self._stream = None
            stream.failed(Reset.PROTOCOL)
            self.close()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        stream, self._stream = self._stream, None
        if self.idle_timer is not None:
            self.idle_timer.cancel()
        self._lost(self)
        if stream is None:
            return
        if self._answered and self._parser.finish():
            stream.response_end()
        elif self._answered and self._raw:
            stream.tunnel_ended()
        elif self._answered:
            stream.failed(Reset.PROTOCOL)
        else:
            stream.failed(Reset.TERMINATION)

    def pause_writing(self) -> None:
        if self._stream is not None:
            self._stream.host_blocked()

    def resume_writing(self) -> None:
        if self._stream is not None:
            self._stream.host_writable()

    def _release(self) -> None:
        """The response is complete: back to the pool, unless one side said that this was the last."""
        self._stream = None
        unasked = self._parser.in_message or self._parser.dead  # the host has said more than it was asked for
        if self._reusable and self._sent_all and not unasked:
            self._released(self)
        else:
            self.close()

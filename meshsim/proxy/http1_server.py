"""HTTP/1.1 as a proxy receives it: requests in, responses out, one after the other on a connection.

How this works: the parser (parsers.py) turns bytes into events; they wait in order until the response before them is written, so
pipelined requests are answered in order. A request the parser refuses becomes the local reply its defect has (routing/replies.py),
and ends the connection.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, cast

from meshsim.proxy.expiry import Expiry
from meshsim.proxy.gather import Gathered
from meshsim.proxy.parsers import BadMessage, Body, End, RequestHead, RequestParser, Tunnel
from meshsim.proxy.shortcut import Shortcut
from meshsim.proxy.stream import Stream
from meshsim.routing import http1
from meshsim.routing.exchange import Exchange
from meshsim.routing.facts import Downstream
from meshsim.routing.lifetime import MAX_REQUESTS, Lifetime, Stage
from meshsim.routing.manager import Manager
from meshsim.routing.message import Headers, Request, Response
from meshsim.routing.replies import Local

if TYPE_CHECKING:
    from meshsim.proxy.core import Core


class Http1Server(asyncio.Protocol):
    """One downstream connection; also the sink of its current stream."""

    def __init__(self, core: Core, manager: Manager, downstream: Downstream, lifetime: Lifetime | None = None):
        self._core, self.manager, self._downstream = core, manager, downstream
        self._lifetime = lifetime or Lifetime(manager.limits, core.loop.time())
        self._parser = RequestParser(manager.rules)
        self._events: deque[RequestHead | Body | End | Tunnel | BadMessage] = deque()
        self._transport: asyncio.Transport | None = None
        self._stream: Stream | Shortcut | None = None
        self._shortcut: Shortcut | None = None
        self._closing = self._chunked = self._head_only = self._raw = False
        self._request_open = False
        self._paused_for_body = False
        self._reading = True
        self._linger: asyncio.TimerHandle | None = None
        self._head_limit: asyncio.TimerHandle | None = None
        self._old = False
        """Whether the request under way is of HTTP/1.0."""

    @property
    def spoken(self) -> bool:
        return self._lifetime.requests > 0 or self._parser.in_message

    @property
    def listener(self) -> str:
        return self.manager.listener

    @property
    def idle(self) -> bool:
        return self._stream is None and not self._parser.in_message

    # the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._out = Gathered(self._transport)
        self._core.connections.add(self)
        self._expiry = Expiry(self._core, self.manager, self._lifetime, self)
        self._since = self._core.loop.time()
        self._core.opened(self.manager, "1")
        if self._core.shortcuts:
            self._shortcut = Shortcut(self._core, self, self.manager, self._downstream)

    def data_received(self, data: bytes) -> None:
        if self._shortcut is not None and self.idle and not self._events and not self._closing and self._shortcut.take(data):
            return
        if self._raw:
            if isinstance(self._stream, Stream):
                self._stream.request_data(data)
            return
        if not self._closing:
            self._events.extend(self._parser.feed(data))
            self._take()
            if self._parser.collecting and self._head_limit is None:
                self._limit_head()

    def eof_received(self) -> bool:
        if self._raw and self._stream is not None:
            self._stream.client_gone()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._core.connections.discard(self)
        answered, self._closing = self._closing, True
        self._core.closed(self.manager, self._since, by_us=answered)
        self._expiry.stop()
        for timer in (self._linger, self._head_limit):
            if timer is not None:
                timer.cancel()
        if self._shortcut is not None:
            self._shortcut.stop()
            self._shortcut = None
        if self._stream is not None:
            self._stream.client_gone()
        elif self._parser.collecting and not answered:  # a request that never became one is logged all the same
            self._stream = Stream(self._core, self, self._exchange(Request("", "", "")))
            self._stream.client_gone()

    def pause_writing(self) -> None:
        if self._stream is not None:
            self._stream.client_blocked()

    def resume_writing(self) -> None:
        if self._stream is not None:
            self._stream.client_writable()

    def ask_to_go(self) -> None:
        """HTTP/1.1 can say so only with a response (RFC 9112 9.6)."""

    def retire(self) -> None:
        self._expiry.retire()

    def drain(self) -> None:
        """End the connection after the response under way."""
        self._lifetime.close()
        self._closing = True
        if self._stream is None:
            self._close()

    def abort(self) -> None:
        """End the connection now."""
        if self._transport is not None:
            self._transport.abort()

    # requests

    def _take(self) -> None:
        """Act on what was parsed, up to the next request whose turn has not come."""
        while self._events and not self._closing:
            event = self._events[0]
            if self._stream is not None and (isinstance(event, RequestHead) or (isinstance(event, BadMessage) and not self._request_open)):
                break
            self._events.popleft()
            if isinstance(event, RequestHead):
                self._begin(event)
            elif isinstance(event, Body):
                if isinstance(self._stream, Stream):
                    self._stream.request_data(event.data)
            elif isinstance(event, End):
                self._request_open = False
                if isinstance(self._stream, Stream):
                    self._stream.request_end()
            elif isinstance(event, Tunnel):
                self._raw = True
                if isinstance(self._stream, Stream) and event.data:
                    self._stream.request_data(event.data)
            else:
                self._refuse(event)
        self._flow()

    def _begin(self, head: RequestHead) -> None:
        request = head.request
        if self._head_limit is not None:
            self._head_limit.cancel()
            self._head_limit = None
        self._keep_alive = head.keeps_alive
        if self._lifetime.busy():
            self._keep_alive = False
            self._core.count(self.manager, MAX_REQUESTS)
        self._old = request.version == http1.OLD
        self._head_only = request.method == "HEAD"
        self._request_open = not request.ends
        if head.expects_continue and not self.manager.config.proxy_100_continue:
            self.send_continue()
        self._stream = stream = Stream(self._core, self, self._exchange(request))
        self._core.count_request(self.manager, "1")
        stream.start()

    def _refuse(self, defect: BadMessage) -> None:
        if isinstance(self._stream, Stream):  # its body went wrong
            self._keep_alive = False
            self._stream.refuse(defect.kind)
            return
        exchange = self._exchange(Request("", "", ""))
        self._keep_alive = self._head_only = False
        self._stream = stream = Stream(self._core, self, exchange)
        stream.refuse(defect.kind)

    def _limit_head(self) -> None:
        """The head of a request has begun: it may take so long, and no longer."""
        limit = self.manager.limits.head()
        if limit is not None:
            self._head_limit = self._core.loop.call_later(limit[0], self._head_too_slow, limit[1])

    def _head_too_slow(self, reply: Local) -> None:
        if self._stream is None and not self._closing:  # else it waits for its turn
            self._keep_alive = self._head_only = False
            self._stream = stream = Stream(self._core, self, self._exchange(Request("", "", "")))
            stream.answer(reply)

    def _exchange(self, request: Request) -> Exchange:
        return Exchange(self.manager, self._downstream, request, self._core.runtime.clock())

    def _flow(self) -> None:
        """Read on unless requests already wait for their turn."""
        if self._transport is None or self._transport.is_closing():
            return
        reading = not self._paused_for_body and (not self._events or self._stream is None)
        if reading != self._reading:
            self._reading = reading
            (self._transport.resume_reading if reading else self._transport.pause_reading)()

    # the shortcut's side

    def carry(self, shortcut: Shortcut) -> None:
        """A request of a known kind is under way."""
        self._stream, self._keep_alive = shortcut, True
        self._head_only = self._old = self._chunked = False
        self._lifetime.busy()

    @property
    def stays(self) -> bool:
        """Whether the connection goes on after the response, as far as is known."""
        return not self._closing and self._lifetime.stage is Stage.OPEN

    def hand_over(self, stream: Stream) -> None:
        """The request is not of a known kind after all."""
        self._stream = stream

    def write_now(self, data: bytes) -> None:
        self._out.write_now(data)

    # the stream's side

    def send_continue(self) -> None:
        if self._transport is not None:
            self._out.write(http1.CONTINUE)

    def send_head(self, response: Response, *, close: bool = False) -> None:
        if self._transport is None:
            return
        self._closing = self._closing or close or not self._keep_alive
        if self._old:
            self._chunked = False
            head, self._closing = http1.response_head_10(response, to_head=self._head_only, close=self._closing)
        else:
            self._raw = response.status == 101 and not response.ends
            goes = self._closing or self._lifetime.stage is not Stage.OPEN
            head, self._chunked = http1.response_head(response, to_head=self._head_only, close=goes)
        self._out.write(head)

    def send_data(self, data: bytes) -> None:
        if self._transport is None or not data or self._head_only:
            return
        self._out.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def send_end(self, trailers: Headers | None = None) -> None:
        """Trailers are dropped, as Envoy does where nothing asks for them."""
        if self._transport is not None and self._chunked and not self._head_only:
            self._out.write(b"0\r\n\r\n")

    def cut(self) -> None:
        self._closing = True  # what was promised and does not come is what the client notices

    def pause(self) -> None:
        self._paused_for_body = True
        self._flow()

    def resume(self) -> None:
        if self._paused_for_body:
            self._paused_for_body = False
            self._flow()

    def closed(self) -> None:
        if self._shortcut is not None and isinstance(self._stream, Stream):
            self._shortcut.learn(self._stream)
        self._stream = None
        self._lifetime.free(self._core.loop.time())
        was_paused, self._paused_for_body = self._paused_for_body, False
        if self._closing or self._request_open or self._raw:
            complete = not (self._request_open or self._parser.dead or self._parser.collecting)
            self._closing = True
            self._close(linger=not complete and not self._raw)
        elif self._events or was_paused:
            self._core.loop.call_soon(self._take)

    def _close(self, *, linger: bool = False) -> None:
        """End the connection. linger: the client is still sending, and closing now could take the response away from it again."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        self._out.flush()
        if linger and transport.can_write_eof():
            transport.write_eof()
            transport.resume_reading()
            self._linger = self._core.loop.call_later(self.manager.limits.delayed_close, transport.close)
        else:
            transport.close()

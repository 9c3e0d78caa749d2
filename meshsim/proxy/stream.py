"""One HTTP stream: carries out what its Exchange decides, between a client's codec and a host's.

How this works: the codec that accepted the request is the `Sink`, the connection to the host gives an `Upstream`. The stream feeds the
exchange with what happens and does the step that comes out; it decides nothing itself. A request's body goes out as it comes; while it
may have to be sent again it is kept, up to a limit. Either side that cannot write makes the other stop reading.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from meshsim.proxy.deadlines import Deadline
from meshsim.routing.exchange import Exchange
from meshsim.routing.manager import Manager
from meshsim.routing.message import Headers, Request, Response
from meshsim.routing.replies import BAD_REQUESTS, REQUEST_TIMEOUT, Local
from meshsim.routing.retries import Reset
from meshsim.routing.steps import Attempt, Cut, Forward, Lookup, Reply, Step, Wait

if TYPE_CHECKING:
    from meshsim.proxy.core import Core
    from meshsim.proxy.mirror import MirrorStream

REPLAY_LIMIT = 1024 * 1024  # bytes of a request body kept for another attempt; Envoy's per-connection buffer limit


class Sink(Protocol):
    """The client's side of a stream, as its codec offers it."""

    def send_continue(self) -> None:
        """Tell the client to send the body of its request."""

    def send_head(self, response: Response, *, close: bool = False) -> None: ...
    def send_data(self, data: bytes) -> None: ...
    def send_end(self, trailers: Headers | None = None) -> None: ...
    def cut(self) -> None:
        """End the stream in the middle, so that the client notices."""

    def pause(self) -> None:
        """Take no more of the request's body for now."""

    def resume(self) -> None: ...
    def closed(self) -> None:
        """The stream is over for the proxy."""


class Upstream(Protocol):
    """The host's side: one request on a connection."""

    def send_head(self, request: Request) -> None: ...
    def send_data(self, data: bytes) -> None: ...
    def send_end(self, trailers: Headers | None = None) -> None: ...
    def cancel(self) -> None:
        """Give the request up; nothing more is wanted from it."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...
    @property
    def local(self) -> str:
        """The address this side has on the connection."""


class Asker(Protocol):
    """Whoever sends a request to a host: told of its connection, then of what comes back."""

    def ready(self, upstream: Upstream) -> None: ...
    def not_ready(self, reset: Reset, reason: str = "") -> None: ...
    def may_continue(self) -> None:
        """The host wants the body."""

    def response(self, head: Response) -> None: ...
    def response_data(self, data: bytes) -> None: ...
    def response_end(self, trailers: Headers | None = None) -> None: ...
    def tunnel_ended(self) -> None:
        """The host ended the connection that had become a tunnel."""

    def failed(self, reset: Reset, reason: str = "") -> None: ...
    def host_blocked(self) -> None: ...
    def host_writable(self) -> None: ...


class Stream:
    """One request and its response."""

    def __init__(self, core: Core, sink: Sink, exchange: Exchange):
        self.core, self.sink, self.exchange = core, sink, exchange
        self.over = False
        self._loop = core.loop
        self._upstream: Upstream | None = None
        self._attempt: Attempt | None = None
        self._held: Attempt | None = None
        self._waiting: object | None = None
        self._body: list[bytes] = []
        self._kept = 0
        self._complete = exchange.request.ends
        self._trailers: Headers | None = None
        self._tunnel = False
        self._asks = bool(exchange.request.upgrade)
        """Whether an upgrade has not been granted yet: what the client sends has to wait."""
        self._received = self._sent = 0
        self._responding = False
        self._copies: list[MirrorStream] = []
        self._timers: dict[str, asyncio.TimerHandle | Deadline] = {}
        core.streams.add(self)

    @property
    def manager(self) -> Manager:
        """The connection manager that serves it."""
        return self.exchange.manager

    @property
    def answered(self) -> bool:
        """Whether its client has a response, at least the head of it."""
        return self._responding or self.over

    def start(self) -> None:
        step = self.exchange.begin()
        self._moved = self._loop.time()
        self._idle_limit = self.exchange.idle_timeout
        if self._idle_limit:
            self._timers["idle"] = self.core.deadlines.after(self._idle_limit, self._idle)
        if not self._complete and self.exchange.manager.limits.request:
            self._timers["request"] = self.core.deadlines.after(self.exchange.manager.limits.request, self._request_timeout)
        if self.exchange.longest:
            self._timers["longest"] = self.core.deadlines.after(self.exchange.longest, self._too_long)
        self._do(step)

    def take_over(self, attempt: Attempt, upstream: Upstream, *, moved: float, sent: int | None) -> None:
        """Go on with a request that shortcut.py sent. sent: how much of the response's body went out, None before its head."""
        self._attempt = self._held = attempt
        self._upstream = upstream
        self.exchange.entry.upstream_local = upstream.local
        self._responding, self._sent = sent is not None, sent or 0
        self._moved, self._idle_limit = moved, self.exchange.idle_timeout
        now = self._loop.time()
        if self._idle_limit:
            self._timers["idle"] = self._loop.call_later(max(moved + self._idle_limit - now, 0.0), self._idle)
        if self.exchange.timeout:
            left = self.exchange.entry.start + self.exchange.timeout - self.core.runtime.clock()
            self._timers["route"] = self._loop.call_later(max(left, 0.0), self._route_timeout)

    @property
    def attempt(self) -> Attempt | None:
        """The last one that was made."""
        return self._attempt

    def refuse(self, kind: str) -> None:
        """Answer a request that its codec could not read, or not to the end; kind: of `replies.BAD_REQUESTS`."""
        if self._responding:
            self.sink.cut()
            self.client_gone()
            return
        self._complete = True
        self._do(self.exchange.local(BAD_REQUESTS[kind]))

    def cut_off(self, details: str, *, broken: bool = False) -> None:
        """End a request for its HTTP/2 headers; its codec has reset the stream, or ends the connection (broken)."""
        self.exchange.refused(details, broken=broken)
        self._end()

    def answer(self, reply: Local) -> None:
        """Answer a request that did not come in time."""
        self._do(self.exchange.local(reply))

    # From the client -----------------------------------------------------------------------------------------------------------------

    def request_data(self, data: bytes) -> None:
        self._received += len(data)
        self._touch()
        for copy in self._copies:
            copy.request_data(data)
        if self._upstream is not None and not self._asks:
            self._upstream.send_data(data)
        if self._body is not None and not self._tunnel:
            self._kept += len(data)
            if self._kept <= REPLAY_LIMIT:
                self._body.append(data)
            elif self._upstream is None or self._asks:
                self._body.append(data)
                self.sink.pause()
            elif self._body:
                self._body.clear()
                self.exchange.give_up_retries()

    def request_end(self, trailers: Headers | None = None) -> None:
        if self._complete:
            return
        self._complete = True
        self.exchange.completed()
        self._stop("request")
        self._trailers = trailers
        for copy in self._copies:
            copy.request_end()
        if self._upstream is not None:
            self._upstream.send_end(trailers)
            self._limit_try()
        if self._attempt is not None:
            self._limit_wait()

    def client_gone(self, *, reset: bool = False) -> None:
        """The client's connection or stream is no more."""
        if self.over:
            return
        self.exchange.downstream_gone(reset=reset)
        self._end()

    def client_blocked(self) -> None:
        if self._upstream is not None:
            self._upstream.pause()

    def client_writable(self) -> None:
        if self._upstream is not None:
            self._upstream.resume()

    # From the host -------------------------------------------------------------------------------------------------------------------

    def ready(self, upstream: Upstream) -> None:
        """A connection for the attempt: send the request, and what there is of its body."""
        if self.over:
            upstream.cancel()
            return
        assert self._attempt is not None
        self._waiting = None
        self._upstream = upstream
        self._held = self._attempt
        self._held.host.active += 1
        self._held.cluster.limits.requests += 1
        self.exchange.entry.upstream_local = upstream.local
        request = self._attempt.request
        request.ends = self._complete and not self._body and not self._trailers
        self.sink.resume()  # before the body goes out, which may block the host
        upstream.send_head(request)
        if not self._asks:
            self._send_body(upstream)
        if self._complete:
            if not request.ends:
                upstream.send_end(self._trailers)
            self._limit_try()

    def not_ready(self, reset: Reset, reason: str = "") -> None:
        """There is no connection to be had."""
        if not self.over:
            self._waiting = None
            self._do(self.exchange.failed(reset, reason, sent=False))

    def _send_body(self, upstream: Upstream) -> None:
        for piece in self._body:
            upstream.send_data(piece)

    def may_continue(self) -> None:
        if not self._responding and self.exchange.manager.config.proxy_100_continue:
            self.sink.send_continue()

    def response(self, head: Response) -> None:
        self._touch()
        self._stop("try")
        step = self.exchange.responded(head)
        if isinstance(step, Forward):
            if head.status == 101 and self._asks and self._upstream is not None:
                self._tunnel, self._asks = True, False
                self._send_body(self._upstream)
                self._body.clear()
                self.sink.resume()
            self._do(step)
            if head.ends and not self._tunnel:
                if head.status == 101:
                    self._drop_upstream()
                self.response_end()
        else:
            self._drop_upstream()
            self._do(step)

    def response_data(self, data: bytes) -> None:
        self._sent += len(data)
        self._touch()
        self.sink.send_data(data)

    def response_end(self, trailers: Headers | None = None) -> None:
        if self.over:
            return
        if trailers:
            self.exchange.entry.response_trailers = trailers
        self._let_go()
        self.sink.send_end(trailers)
        self._end()

    def tunnel_ended(self) -> None:
        self.failed(Reset.TERMINATION)

    def failed(self, reset: Reset, reason: str = "") -> None:
        """The request on the host's connection ended early."""
        if not self.over:
            self._let_go()
            self._stop("try")
            self._do(self.exchange.failed(reset, reason))

    def host_blocked(self) -> None:
        self.sink.pause()

    def host_writable(self) -> None:
        self.sink.resume()

    # Steps ---------------------------------------------------------------------------------------------------------------------------

    def _do(self, step: Step) -> None:
        if self.over:
            return
        if isinstance(step, Attempt):
            self._attempt = step
            if self._complete:
                self._limit_wait()
            if self.exchange.mirrors:
                self._copy()
            self._waiting = self.core.pools.request(step, self.exchange.downstream, self)
        elif isinstance(step, Forward):
            self._responding = True
            self.sink.send_head(step.response, close=not self._complete and not self._tunnel)
        elif isinstance(step, Reply):
            self._drop_upstream()
            self.sink.send_head(step.response, close=step.close or not self._complete)
            if step.body and self.exchange.request.method != "HEAD":
                self._sent += len(step.body)
                self.sink.send_data(step.body)
            self.sink.send_end()
            self._end()
        elif isinstance(step, Wait):
            self._timers["wait"] = self._loop.call_later(step.seconds, self._resume)
        elif isinstance(step, Lookup):
            task = self._loop.create_task(self._look_up(step))
            self.core.tasks.add(task)
            task.add_done_callback(self.core.tasks.discard)
        elif isinstance(step, Cut):
            self._drop_upstream()
            self.sink.cut()
            self._end()

    def _copy(self) -> None:
        """Start the copies of the request, with what there is of its body."""
        for mirror in self.exchange.mirrors:
            copy = self.core.mirror(mirror, self.exchange)
            for data in self._body:
                copy.request_data(data)
            if self._complete:
                copy.request_end()
            self._copies.append(copy)
        self.exchange.mirrors = []

    def _resume(self) -> None:
        self._timers.pop("wait", None)
        if not self.over:
            self._do(self.exchange.resume())

    async def _look_up(self, step: Lookup) -> None:
        addresses = await self.core.resolve(step.name)
        if not self.over:
            self._do(self.exchange.looked_up(step.name, step.port, addresses))

    def _limit_wait(self) -> None:
        """The request is complete and routed: the time of its route runs."""
        if self.exchange.timeout and "route" not in self._timers:
            self._timers["route"] = self.core.deadlines.after(self.exchange.timeout, self._route_timeout)

    def _limit_try(self) -> None:
        """The request is complete and on its way: the time of this attempt runs."""
        if self._attempt is not None and self._attempt.per_try_timeout:
            self._stop("try")
            self._timers["try"] = self.core.deadlines.after(self._attempt.per_try_timeout, self._try_timeout)

    def _route_timeout(self) -> None:
        if not self.over:
            self._drop_upstream()
            self._stop("wait")
            self._do(self.exchange.timed_out())

    def _try_timeout(self) -> None:
        if not self.over:
            self._drop_upstream()
            self._do(self.exchange.try_timed_out())

    def _request_timeout(self) -> None:
        if not self.over and not self._responding:
            self._drop_upstream()
            self._do(self.exchange.local(REQUEST_TIMEOUT))

    def _too_long(self) -> None:
        if not self.over:
            self._drop_upstream()
            self._stop("wait")
            self._do(self.exchange.lasted_too_long())

    def _touch(self) -> None:
        """Something moved: the idle time starts again."""
        self._moved = self._loop.time()

    def _idle(self) -> None:
        del self._timers["idle"]
        if self.over:
            return
        left = self._moved + self._idle_limit - self._loop.time()
        if left > 0.001:
            self._timers["idle"] = self._loop.call_later(left, self._idle)
        else:
            self._drop_upstream()
            self._do(self.exchange.idle(request_complete=self._complete))

    def _stop(self, timer: str) -> None:
        handle = self._timers.pop(timer, None)
        if handle is not None:
            handle.cancel()

    def _drop_upstream(self) -> None:
        if self._waiting is not None:
            self.core.pools.forget(self._waiting)
            self._waiting = None
        if self._upstream is not None:
            self._upstream.cancel()
            self._let_go()

    def _let_go(self) -> None:
        """The host has one request less."""
        self._upstream = None
        held, self._held = self._held, None
        if held is not None:
            held.host.active -= 1
            held.cluster.limits.requests -= 1

    def _end(self) -> None:
        if self.over:
            return
        self.over = True
        self._drop_upstream()
        for handle in self._timers.values():
            handle.cancel()
        self._timers.clear()
        self.core.streams.discard(self)
        entry = self.exchange.finish(self.core.runtime.clock(), self._received, self._sent)
        self.core.count_response(self.exchange.manager, entry)
        self.core.log(entry, self.exchange.manager.loggers)
        self.sink.closed()

"""Bytes from a client to a host and back: a filter chain that ends in a TCP proxy.

How this works: the routing `Session` says where the connection goes; the relay makes the connection before it reads a byte of the
client's, then passes on what comes. Each direction ends by itself: the end of one side's stream is told to the other, which may go on
sending. A side that does not take its bytes makes the other stop being read. Where the chain tunnels, the other side is a stream of an
HTTP connection on which CONNECT was granted, which looks the same from here. Where both sides are plain and there is much to carry, the
relay hands its two transports to `splice` and only counts.
"""

from __future__ import annotations

import asyncio
import math
import socket
import struct
from typing import TYPE_CHECKING, Protocol, cast

from meshsim.proxy import edges, splice
from meshsim.proxy.deadlines import Deadline
from meshsim.proxy.pool import ConnectFailed, Opened
from meshsim.routing.facts import Downstream
from meshsim.routing.message import Headers, Request, Response
from meshsim.routing.retries import Reset
from meshsim.routing.runtime import Chain
from meshsim.routing.steps import Attempt
from meshsim.routing.tcp import Close, Connect, Lookup, Session

if TYPE_CHECKING:
    from meshsim.proxy.core import Core
    from meshsim.proxy.stream import Upstream

_BUFFER = 1024 * 1024  # bytes a side may hold unsent before the other is no longer read; Envoy's per-connection limit
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with a RST


class Far(Protocol):
    """The host's side of a relay."""

    def write(self, data: bytes) -> None: ...
    def write_eof(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...


class Relay(asyncio.Protocol):
    """The client's side. `begin` may come before the client's transport does (behind a TLS handshake)."""

    def __init__(self, core: Core, chain: Chain, downstream: Downstream):
        assert chain.tcp is not None
        self._core, self._chain = core, chain.tcp
        self._session = Session(chain.tcp, downstream, core.runtime.clock())
        self._transport: asyncio.Transport | None = None
        self._far: Far | None = None
        self._early: list[bytes] = []
        self._begun = self._reached = self._over = self._checked = False
        self._client_ended = self._host_ended = False
        self._received = self._sent = 0
        self._refusing = self._handshaking = False
        self._for_client: list[bytes] = []
        self._timers: list[asyncio.TimerHandle | Deadline] = []
        self._moved = 0.0
        self._much: float = splice.AFTER  # bytes of a direction after which the relay tries to be spliced
        self._changing = False
        self._spliced: splice.Spliced | None = None
        self._meter = core.stats.meter(self._chain.stats)

    # for the proxy

    @property
    def idle(self) -> bool:
        return False

    @property
    def manager(self) -> None:
        return None

    @property
    def listener(self) -> str:
        return self._chain.listener

    def retire(self) -> None:
        """A relay goes on as it began."""

    def drain(self) -> None:
        """Bytes have no message boundaries to end at: they go on until the time is up."""

    @property
    def downstream(self) -> Downstream:
        return self._session.downstream

    def abort(self) -> None:
        self._end(abort=True)

    # the chain is chosen

    def begin(self, *, handshaking: bool = False) -> None:
        """Connect to the host. handshaking: while the client's TLS handshake goes on."""
        if not self._begun:
            self._handshaking = handshaking
            self._begin()
            self._core.spawn(self._connect())

    async def reached(self) -> bool:
        """Connect to the host; whether there is one."""
        self._begin()
        await self._connect()
        return self._reached

    def _begin(self) -> None:
        self._begun = True
        self._since = self._core.loop.time()
        self._core.connections.add(self)
        self._meter.inc("downstream_cx_total")
        if self._chain.longest:
            self._timers.append(self._core.deadlines.after(self._chain.longest, self._too_long))

    def handshake_failed(self, reason: str, *, at_hello: bool) -> None:
        """The client's TLS came to nothing."""
        self._session.client_failed(reason, at_hello=at_hello)
        self._end()

    # the client's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)
        if self._over:
            transport.close()
            return
        transport.set_write_buffer_limits(high=_BUFFER)
        if self._far is None:
            transport.pause_reading()
        else:
            self._far.resume()
        self.begin()
        if self._for_client:
            transport.write(b"".join(self._for_client))
            self._for_client.clear()
        if self._host_ended:
            transport.write_eof()
        if self._refusing:
            self._end()

    def data_received(self, data: bytes) -> None:
        if not self._checked:
            self._checked = True
            if self._session.first_bytes() is not None:
                self._end()
                return
        self._from_client(len(data))
        if self._far is not None:
            self._far.write(data)
            if self._received > self._much:
                self._change_over()
        else:  # uvloop and TLS deliver what came before reading could be paused
            self._early.append(data)

    def eof_received(self) -> bool:
        self._client_ended = True
        if self._far is not None:
            self._far.write_eof()
        if self._host_ended:
            self._end()
        return not self._over

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._end(abort=isinstance(error, ConnectionResetError))

    def pause_writing(self) -> None:
        if self._far is not None:
            self._far.pause()

    def resume_writing(self) -> None:
        if self._changing:
            self._emptied()
        elif self._far is not None:
            self._far.resume()

    # the host's side

    def connected(self, far: Far, local: str) -> None:
        """Bytes may flow."""
        if self._over:
            far.abort()
            return
        self._session.entry.upstream_local = local
        self._reached = True
        self._far = far
        for data in self._early:
            far.write(data)
        self._early.clear()
        if self._client_ended:
            far.write_eof()
        self._moved = self._core.loop.time()
        if self._chain.idle_timeout:
            self._timers.append(self._core.deadlines.after(self._chain.idle_timeout, self._idle))
        if self._transport is not None:
            self._transport.resume_reading()
        else:
            far.pause()

    def host_data(self, data: bytes) -> None:
        self._from_host(len(data))
        if self._transport is not None:
            self._transport.write(data)
            if self._sent > self._much:
                self._change_over()
        else:
            self._for_client.append(data)

    def host_eof(self) -> bool:
        """The host sends no more; whether its connection shall stay for what the client still sends."""
        self._host_ended = True
        if self._client_ended:
            self._end()
            return False
        if self._transport is not None:
            self._transport.write_eof()
        return True

    def host_lost(self, error: Exception | None) -> None:
        self._far = None
        broken = isinstance(error, ConnectionResetError)
        if broken and not self._over:
            self._session.upstream_reset()
        self._end(abort=broken)

    def host_blocked(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def host_writable(self) -> None:
        if self._changing:
            self._emptied()
        elif self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    # the kernel's turn

    def _change_over(self) -> None:
        """Have the kernel carry the rest, if both sides are plain: stop reading, and wait until both have what came for them."""
        self._much = math.inf
        sides = self._plain_sides()
        if sides is None:
            return
        self._changing = True
        for transport in sides:
            transport.pause_reading()
            transport.set_write_buffer_limits(high=0)  # so that we hear when there is nothing left
        self._core.loop.call_soon(self._emptied)

    def _plain_sides(self) -> tuple[asyncio.Transport, asyncio.Transport] | None:
        near = self._transport
        far = self._far.transport if isinstance(self._far, HostSide) else None
        return (near, far) if near and far and splice.can_carry(near) and splice.can_carry(far) else None

    def _emptied(self) -> None:
        """A side may have taken everything."""
        sides = self._plain_sides() if self._changing and not self._over else None
        if sides is None or any(transport.get_write_buffer_size() for transport in sides):
            return
        self._changing = False
        near, far = sides
        self._spliced = splice.take_over(
            self._core.loop,
            near,
            far,
            splice.Told(self._from_client, self.eof_received, self.connection_lost),
            splice.Told(self._from_host, self.host_eof, self.host_lost),
        )
        if self._spliced is None:
            for transport in sides:
                transport.set_write_buffer_limits(high=_BUFFER)
                transport.resume_reading()
            return
        self._transport = self._far = None
        self._spliced.start(client_ended=self._client_ended, host_ended=self._host_ended)

    def _from_client(self, size: int) -> None:
        self._received += size
        self._moved = self._core.loop.time()

    def _from_host(self, size: int) -> None:
        self._sent += size
        self._moved = self._core.loop.time()

    # steps

    async def _connect(self) -> None:
        step: Connect | Lookup | Close = self._session.begin()
        while not self._over:
            if isinstance(step, Lookup):
                step = self._session.looked_up(step, await self._core.resolve(step.name))
                continue
            if isinstance(step, Close):
                self._refuse()
                return
            try:
                await self._reach(step)
                return
            except ConnectFailed as e:
                if self._over:
                    return
                step = self._session.failed(e.reset, e.reason)

    async def _reach(self, step: Connect) -> None:
        """Connect to what a step says. Raises ConnectFailed."""
        downstream = self._session.downstream
        step.host.active += 1
        try:
            if step.tunnel is not None:
                await Tunnel(self._core, self).open(step, step.tunnel)
                return
            side = HostSide(self)
            wired = edges.known and step.transport.tls is None
            protocol = side if wired else Opened()
            local = await self._core.pools.connect(step.cluster, step.host, step.transport, downstream, protocol, wired=wired)
        finally:
            step.host.active -= 1
        if isinstance(protocol, Opened):
            protocol.hand_over(side)
        self.connected(side, local)

    def _refuse(self) -> None:
        """The client gets nothing: behind a handshake that is not done yet, it is told afterwards."""
        if self._handshaking and self._transport is None:
            self._refusing = True
        else:
            self._end()

    def _idle(self) -> None:
        left = self._moved + self._chain.idle_timeout - self._core.loop.time()
        if left > 0.001:
            self._timers.append(self._core.loop.call_later(left, self._idle))
        else:
            self._meter.inc("idle_timeout")
            self._end()

    def _too_long(self) -> None:
        self._session.too_long()
        self._meter.inc("max_downstream_connection_duration")
        self._end()

    def _end(self, *, abort: bool = False) -> None:
        """Close both sides, once; abort: with a reset, since one side did."""
        if self._over:
            return
        self._over = True
        for timer in self._timers:
            timer.cancel()
        self._core.connections.discard(self)
        entry = self._session.finish(self._core.runtime.clock(), self._received, self._sent)
        if self._begun:
            self._core.left(self.listener, self._since)
        self._meter.inc("downstream_cx_rx_bytes_total", self._received)
        self._meter.inc("downstream_cx_tx_bytes_total", self._sent)
        self._core.log(entry, self._chain.loggers)
        if self._spliced is not None:
            if abort:
                self._spliced.abort(_prepare_reset)
            else:
                self._spliced.close()
        if self._far is not None:
            if abort:
                self._far.abort()
            else:
                self._far.close()
        if self._transport is not None:
            if abort:
                reset(self._transport)
            else:
                self._transport.close()


class HostSide(asyncio.Protocol):
    """A plain or TLS connection to the host."""

    def __init__(self, relay: Relay):
        self._relay = relay
        self._transport: asyncio.Transport | None = None

    @property
    def transport(self) -> asyncio.Transport | None:
        """None when it is gone."""
        return self._transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_BUFFER)

    def data_received(self, data: bytes) -> None:
        self._relay.host_data(data)

    def eof_received(self) -> bool:
        return self._relay.host_eof()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._relay.host_lost(error)

    def pause_writing(self) -> None:
        self._relay.host_blocked()

    def resume_writing(self) -> None:
        self._relay.host_writable()

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def write_eof(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write_eof()

    def pause(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            reset(self._transport)


class Tunnel:
    """A CONNECT request to the host, as the far side of a relay. For the pool it is a stream, for the relay a connection."""

    def __init__(self, core: Core, relay: Relay):
        self._core, self._relay = core, relay
        self._upstream: Upstream | None = None
        self._granted: asyncio.Future[None] = core.loop.create_future()
        self._request: Request | None = None
        self._handle: object | None = None

    async def open(self, step: Connect, request: Request) -> None:
        """Have the tunnel granted. Raises ConnectFailed."""
        self._request = request
        attempt = Attempt(step.cluster, step.host, request, step.http2, step.transport)
        self._handle = self._core.pools.request(attempt, self._relay.downstream, self)
        try:
            with self._core.deadlines.limit(step.cluster.connect_timeout):
                await self._granted
        except TimeoutError:
            self.close()
            raise ConnectFailed(Reset.TIMEOUT) from None
        except BaseException:
            self.close()
            raise

    # as a stream

    def ready(self, upstream: Upstream) -> None:
        assert self._request is not None
        self._handle = None
        self._upstream = upstream
        upstream.send_head(self._request)

    def not_ready(self, reset: Reset, reason: str = "") -> None:
        self._fail(ConnectFailed(reset, reason))

    def may_continue(self) -> None:
        """CONNECT has no body."""

    def response(self, head: Response) -> None:
        if 200 <= head.status < 300 and self._upstream is not None:
            self._relay.connected(self, self._upstream.local)
            if not self._granted.done():
                self._granted.set_result(None)
        else:
            self._fail(ConnectFailed(Reset.REMOTE))

    def response_data(self, data: bytes) -> None:
        self._relay.host_data(data)

    def response_end(self, trailers: Headers | None = None) -> None:
        self._upstream = None
        if self._granted.done():
            if not self._relay.host_eof():
                return
            self._relay.host_lost(None)
        else:
            self._fail(ConnectFailed(Reset.TERMINATION))

    def tunnel_ended(self) -> None:
        self.response_end()

    def failed(self, reset: Reset, reason: str = "") -> None:
        self._upstream = None
        if self._granted.done():
            self._relay.host_lost(ConnectionResetError())
        else:
            self._fail(ConnectFailed(reset, reason))

    def host_blocked(self) -> None:
        self._relay.host_blocked()

    def host_writable(self) -> None:
        self._relay.host_writable()

    # as a connection

    def write(self, data: bytes) -> None:
        if self._upstream is not None:
            self._upstream.send_data(data)

    def write_eof(self) -> None:
        if self._upstream is not None:
            self._upstream.send_end()

    def pause(self) -> None:
        if self._upstream is not None:
            self._upstream.pause()

    def resume(self) -> None:
        if self._upstream is not None:
            self._upstream.resume()

    def close(self) -> None:
        if self._handle is not None:
            self._core.pools.forget(self._handle)
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.cancel()

    abort = close

    def _fail(self, error: ConnectFailed) -> None:
        if not self._granted.done():
            self._granted.set_exception(error)


def reset(transport: asyncio.Transport) -> None:
    """End a connection so that the peer sees a reset (on a Unix socket it sees one where bytes were left unread)."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        _prepare_reset(sock)
    transport.abort()


def _prepare_reset(sock: socket.socket) -> None:
    """Have the socket's close be a reset, where its family knows one."""
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

"""Connections to hosts: made when needed, kept for the next request, limited by the cluster's circuit breakers.

How this works: a pool is found by everything that makes two connections different: host, protocol, TLS with its server name, PROXY
header. An HTTP/1.1 connection serves one stream at a time and comes back; an HTTP/2 connection takes many. A stream that finds none
free waits for a new one; it is told `ready` or `not_ready` by call-back. Failures carry the transport's words, as logs print them.
"""

from __future__ import annotations

import asyncio
import errno
import math
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from meshsim.network import proxy_protocol
from meshsim.network.base import Address
from meshsim.proxy.http1_client import Http1Client
from meshsim.proxy.http2 import Http2Client
from meshsim.proxy.stats import Meter
from meshsim.proxy.tls import HandshakeFailed, NoSecret, TlsTransport
from meshsim.proxy.wire import Wire
from meshsim.routing import tls_words
from meshsim.routing.clusters import Cluster, Host
from meshsim.routing.facts import Downstream
from meshsim.routing.retries import Reset
from meshsim.routing.steps import Attempt
from meshsim.routing.transport import Transport
from meshsim.xds.message import seconds

if TYPE_CHECKING:
    from meshsim.proxy.core import Core
    from meshsim.proxy.stream import Asker

IDLE_TIMEOUT = 3600.0  # seconds a free connection is kept; Envoy's default

_REFUSED = {
    errno.ECONNREFUSED: "delayed connect error: Connection refused",
    errno.EHOSTUNREACH: "delayed connect error: No route to host",
    errno.ENETUNREACH: "immediate connect error: Network is unreachable",
}

Key = tuple[object, ...]


class ConnectFailed(Exception):
    """There is no connection; why, in the words of logs."""

    def __init__(self, reset: Reset, reason: str = ""):
        self.reset, self.reason = reset, reason
        super().__init__(reason or reset.value)


class Waiting:
    """A stream that waits for a connection."""

    __slots__ = ("attempt", "cancelled", "downstream", "stream")

    def __init__(self, attempt: Attempt, downstream: Downstream, stream: Asker):
        self.attempt, self.downstream, self.stream, self.cancelled = attempt, downstream, stream, False


class Pool:
    """The connections of one key. open: how many there are; connecting: how many more are on their way."""

    def __init__(self, key: Key, cluster: Cluster):
        self.key, self.cluster = key, cluster
        self.free: list[Http1Client] = []
        self.multiplexed: list[Http2Client] = []
        self.waiting: deque[Waiting] = deque()
        self.open = self.connecting = 0
        options = cluster.options.common_http_protocol_options if cluster.options else None
        self.idle_timeout = seconds(options.idle_timeout if options else None, IDLE_TIMEOUT)
        self.most_requests = (options.max_requests_per_connection if options else None) or 0
        self.longest = seconds(options.max_connection_duration if options else None)
        self.drained = False
        """Whether the cluster is no more: connections end with what is under way."""

    def has_free(self) -> bool:
        """Whether there is a connection that could carry an HTTP/1 request now."""
        while self.free and not self.free[-1].usable:
            self.free.pop()
        return bool(self.free)

    @property
    def gone(self) -> bool:
        """Whether it has no connection left; a new request would get a new pool."""
        return not (self.open or self.connecting)


class Pools:
    """All upstream connections of one proxy."""

    def __init__(self, core: Core):
        self._core = core
        self._pools: dict[Key, Pool] = {}
        self._all: set[Http1Client | Http2Client] = set()

    def request(self, attempt: Attempt, downstream: Downstream, stream: Asker) -> Waiting | None:
        """A connection for an attempt: `stream.ready` or `stream.not_ready` follows, maybe at once. The result is for `forget`."""
        limits = attempt.cluster.limits
        meter = self._core.stats.meter(f"cluster.{attempt.cluster.stat_name}.")
        if limits.requests >= limits.max_requests:
            meter.inc("upstream_rq_active_overflow")
            stream.not_ready(Reset.OVERFLOW)
            return None
        key = self._key(attempt, downstream)
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = Pool(key, attempt.cluster)
        while pool.free:
            client = pool.free.pop()
            if client.usable:
                meter.inc("upstream_rq_total")
                client.take(stream)
                stream.ready(client)
                return None
        for multiplexed in pool.multiplexed:
            if multiplexed.usable:
                meter.inc("upstream_rq_total")
                stream.ready(multiplexed.take(stream))
                return None
        if limits.pending >= limits.max_pending:
            meter.inc("upstream_rq_pending_overflow")
            stream.not_ready(Reset.OVERFLOW)
            return None
        waiting = Waiting(attempt, downstream, stream)
        pool.waiting.append(waiting)
        limits.pending += 1
        meter.inc("upstream_rq_pending_total")
        self._grow(pool)
        return waiting

    def find(self, attempt: Attempt, downstream: Downstream) -> Pool | None:
        """Where connections for such an attempt are, if there are any."""
        return self._pools.get(self._key(attempt, downstream))

    def forget(self, handle: object) -> None:
        """The stream does not wait any more."""
        if isinstance(handle, Waiting):
            handle.cancelled = True

    def retain(self, clusters: Iterable[Cluster]) -> None:
        """Let connections of all other clusters end with what is under way on them."""
        kept = set(map(id, clusters))
        for key, pool in list(self._pools.items()):
            if id(pool.cluster) not in kept:
                pool.drained = True
                del self._pools[key]
                for client in list(pool.free):
                    client.leave()
                for multiplexed in list(pool.multiplexed):
                    multiplexed.leave()

    async def connect(
        self, cluster: Cluster, host: Host, way: Transport, downstream: Downstream, protocol: asyncio.Protocol, *, wired: bool = False
    ) -> str:
        """Connect `protocol` to a host, TLS included; the address it has on our side. Raises ConnectFailed.

        wired: by a `Wire`, plainly, as relays can be. Other connections may have something to say before their user knows of them.
        """
        meter = self._core.stats.meter(f"cluster.{cluster.stat_name}.")
        meter.inc("upstream_cx_total")
        began = self._core.loop.time()
        try:
            with self._core.deadlines.limit(cluster.connect_timeout):
                local = await self._open(_place(cluster, host), way, downstream, meter, protocol, wired=wired)
            meter.took("upstream_cx_connect_ms", self._core.loop.time() - began)
            return local
        except TimeoutError:
            meter.inc("upstream_cx_connect_timeout")
            meter.inc("upstream_cx_connect_fail")
            raise ConnectFailed(Reset.TIMEOUT) from None
        except HandshakeFailed as e:
            meter.inc("upstream_cx_connect_fail")
            raise ConnectFailed(Reset.CONNECT, e.reason) from None
        except NoSecret:
            meter.inc("upstream_cx_connect_fail")
            raise ConnectFailed(Reset.CONNECT, tls_words.NO_SECRET) from None
        except OSError as e:
            meter.inc("upstream_cx_connect_fail")
            raise ConnectFailed(Reset.CONNECT, _REFUSED.get(e.errno or 0, f"delayed connect error: {e.strerror or e}")) from None

    def close(self) -> None:
        for client in list(self._all):
            client.close()

    async def _open(
        self, place: Address, way: Transport, downstream: Downstream, meter: Meter, protocol: asyncio.Protocol, *, wired: bool
    ) -> str:
        prepared = self._core.tls.upstream(way.tls, way.alpn) if way.tls is not None else None
        connection = await self._core.pod.connect(place)
        loop = self._core.loop
        if prepared is None:
            if way.proxy_protocol:
                connection.sock.send(_header(way, downstream))  # fits into the empty buffer of a new socket
            if wired:
                Wire(loop, self._core.edges, connection.sock, protocol)
            else:
                await loop.create_connection(lambda: protocol, sock=connection.sock)
        else:
            done: asyncio.Future[None] = loop.create_future()

            def ready(_: TlsTransport) -> None:
                if not done.done():
                    done.set_result(None)

            def failed(error: HandshakeFailed) -> None:
                if not done.done():
                    done.set_exception(error)

            ssl = self._core.stats.meter(meter.name("ssl."))
            tls = TlsTransport(prepared, server=False, sni=way.sni, name=way.name, meter=ssl, on_ready=ready, on_failure=failed)
            if way.proxy_protocol:
                connection.sock.send(_header(way, downstream))
            try:
                await loop.create_connection(lambda: tls, sock=connection.sock)
                await done
            except BaseException:
                tls.abort()
                raise
            tls.start(protocol)
        return str(connection.source) if connection.source else ""

    def _grow(self, pool: Pool) -> None:
        """Open one more connection for the streams that wait, unless there are enough.

        Envoy: a pool without any connection gets one whatever the limit, since nobody else would serve its streams.
        """
        while pool.waiting and pool.waiting[0].cancelled:
            self._next(pool)
        if not pool.waiting:
            return
        limits, first = pool.cluster.limits, pool.waiting[0]
        if pool.connecting >= (1 if first.attempt.http2 else len(pool.waiting)):
            return
        if limits.connections >= limits.max_connections and pool.open + pool.connecting:
            self._core.stats.inc(f"cluster.{pool.cluster.stat_name}.upstream_cx_overflow")
            return
        pool.connecting += 1
        limits.connections += 1
        self._core.spawn(self._connect_for(pool, first))

    async def _connect_for(self, pool: Pool, first: Waiting) -> None:
        attempt, cluster, opened = first.attempt, pool.cluster, Opened()
        try:
            local = await self.connect(cluster, attempt.host, attempt.transport, first.downstream, opened)
        except ConnectFailed as e:
            cluster.limits.connections -= 1
            pool.connecting -= 1
            for _ in range(len(pool.waiting) if attempt.http2 else min(1, len(pool.waiting))):
                waiting = self._next(pool)
                if not waiting.cancelled:
                    self._core.stats.inc(f"cluster.{cluster.stat_name}.upstream_rq_pending_failure_eject")
                    waiting.stream.not_ready(e.reset, e.reason)
            self._grow(pool)
            return
        pool.connecting -= 1
        pool.open += 1
        self._core.stats.inc(f"cluster.{cluster.stat_name}.upstream_cx_http{2 if attempt.http2 else 1}_total")
        if attempt.http2:
            self._serve_http2(pool, opened, local)
        else:
            self._serve_http1(pool, opened, local)

    def _next(self, pool: Pool) -> Waiting:
        """The stream that has waited longest."""
        pool.cluster.limits.pending -= 1
        return pool.waiting.popleft()

    def _lost(self, pool: Pool, client: Http1Client | Http2Client) -> None:
        """A connection is gone."""
        pool.open -= 1
        pool.cluster.limits.connections -= 1
        meter = self._core.stats.meter(f"cluster.{pool.cluster.stat_name}.")
        meter.inc("upstream_cx_destroy")
        meter.took("upstream_cx_length_ms", self._core.loop.time() - client.since)
        self._all.discard(client)
        if client in pool.free:
            pool.free.remove(client)
        if client in pool.multiplexed:
            pool.multiplexed.remove(client)
        self._grow(pool)
        if not pool.open and not pool.connecting and self._pools.get(pool.key) is pool:
            del self._pools[pool.key]

    def _serve_http1(self, pool: Pool, opened: Opened, local: str) -> None:
        client = Http1Client(local, lambda c: self._free(pool, c), lambda c: self._lost(pool, c))
        self._all.add(client)
        opened.hand_over(client)
        self._free(pool, client)
        self._watch(pool, client)

    def _free(self, pool: Pool, client: Http1Client) -> None:
        """The connection is free: for the next stream that waits, or for later."""
        if pool.drained or (pool.most_requests and client.requests >= pool.most_requests):
            client.close()
            return
        while pool.waiting and client.usable:
            waiting = self._next(pool)
            if not waiting.cancelled:
                self._core.stats.inc(f"cluster.{pool.cluster.stat_name}.upstream_rq_total")
                client.take(waiting.stream)
                waiting.stream.ready(client)
                return
        if client.usable:
            client.free_since = self._core.loop.time()
            pool.free.append(client)

    def _serve_http2(self, pool: Pool, opened: Opened, local: str) -> None:
        client = Http2Client(local, lambda c: self._lost(pool, c), most=pool.most_requests, streams=pool.cluster.most_streams)
        self._all.add(client)
        pool.multiplexed.append(client)
        opened.hand_over(client)
        while pool.waiting:
            if not client.usable:
                self._grow(pool)
                break
            waiting = self._next(pool)
            if not waiting.cancelled:
                self._core.stats.inc(f"cluster.{pool.cluster.stat_name}.upstream_rq_total")
                waiting.stream.ready(client.take(waiting.stream))
        if pool.drained:
            client.leave()
        self._watch(pool, client)

    def _watch(self, pool: Pool, client: Http1Client | Http2Client) -> None:
        """Close the connection when it has been free for the cluster's idle timeout; let it end when it has lasted its time."""
        if client not in self._all:
            return
        now = self._core.loop.time()
        idle = (now if client.free_since is None else client.free_since) + pool.idle_timeout - now if pool.idle_timeout else math.inf
        left = client.since + pool.longest - now if pool.longest else math.inf
        if left <= 0:
            self._core.stats.inc(f"cluster.{pool.cluster.stat_name}.upstream_cx_max_duration_reached")
            client.leave()
        elif idle <= 0:
            self._core.stats.inc(f"cluster.{pool.cluster.stat_name}.upstream_cx_idle_timeout")
            client.close()
        elif (soonest := min(idle, left)) < math.inf:
            client.idle_timer = self._core.loop.call_later(max(soonest, 0.001), self._watch, pool, client)

    def _key(self, attempt: Attempt, downstream: Downstream) -> Key:
        way = attempt.transport
        who: object = (downstream.source, downstream.destination) if way.proxy_protocol else None
        return (attempt.cluster, attempt.host.address, attempt.http2, id(way.tls), way.sni, way.name, way.alpn, who)


class Opened(asyncio.Protocol):
    """A connection between its opening and its use: what arrives is kept for whoever takes it over."""

    def __init__(self) -> None:
        self._early = b""
        self._ended: tuple[Exception | None] | None = None
        self._user: asyncio.Protocol | None = None
        self._transport: asyncio.Transport | None = None

    @property
    def transport(self) -> asyncio.Transport:
        assert self._transport is not None
        return self._transport

    def hand_over(self, user: asyncio.Protocol) -> None:
        """From now on everything goes to `user`."""
        self._user = user
        self.transport.set_protocol(user)
        user.connection_made(self.transport)
        if self._early:
            user.data_received(self._early)
        if self._ended is not None:
            user.connection_lost(self._ended[0])

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._user is not None:
            self._user.data_received(data)
        else:
            self._early += data

    def eof_received(self) -> bool | None:
        return self._user.eof_received() if self._user is not None else False

    def connection_lost(self, error: Exception | None) -> None:
        if self._user is not None:
            self._user.connection_lost(error)
        else:
            self._ended = (error,)

    def pause_writing(self) -> None:
        if self._user is not None:
            self._user.pause_writing()

    def resume_writing(self) -> None:
        if self._user is not None:
            self._user.resume_writing()


def _place(cluster: Cluster, host: Host) -> Address:
    """Where a host is: inside the pod for a cluster that binds to a loopback address (Istio's inbound ones, to 127.0.0.6)."""
    bind = cluster.config.upstream_bind_config
    own = bind.source_address.address if bind and bind.source_address else ""
    inside = Address(own).is_loopback if own else False
    return Address("127.0.0.1", host.address.port) if inside else Address(*host.address)


def _header(way: Transport, downstream: Downstream) -> bytes:
    source, destination = Address(*downstream.source), Address(*downstream.destination)
    return (proxy_protocol.encode_v1 if way.proxy_protocol == "V1" else proxy_protocol.encode)(source, destination)

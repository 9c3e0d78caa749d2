"""Connections to hosts: made when needed, kept for the next request, limited by the cluster's circuit breakers.

How this works: a pool is found by everything that makes two connections different: host, protocol, TLS with its server name, PROXY
header. An HTTP/1.1 connection serves one stream at a time and comes back; an HTTP/2 connection takes many. A stream that finds none
free waits for a new one; it is told `ready` or `not_ready` by call-back. Failures carry the transport's words, as logs print them.
"""

from __future__ import annotations

import asyncio
import errno
from collections import defaultdict, deque
from typing import TYPE_CHECKING, cast

from meshsim.network import proxy_protocol
from meshsim.network.base import Address
from meshsim.proxy.http1_client import Http1Client
from meshsim.proxy.http2 import Http2Client
from meshsim.proxy.tls import HandshakeFailed, NoSecret, TlsTransport
from meshsim.routing.clusters import Cluster, Host
from meshsim.routing.exchange import Attempt
from meshsim.routing.facts import Downstream
from meshsim.routing.retries import Reset
from meshsim.routing.transport import Transport

if TYPE_CHECKING:
    from meshsim.proxy.core import Core
    from meshsim.proxy.stream import Asker

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

    __slots__ = ("cancelled", "stream")

    def __init__(self, stream: Asker):
        self.stream, self.cancelled = stream, False


class _Pool:
    """The connections of one key."""

    __slots__ = ("connecting", "free", "multiplexed", "waiting")

    def __init__(self) -> None:
        self.free: list[Http1Client] = []
        self.multiplexed: list[Http2Client] = []
        self.waiting: deque[Waiting] = deque()
        self.connecting = 0


class Pools:
    """All upstream connections of one proxy."""

    def __init__(self, core: Core):
        self._core = core
        self._pools: dict[Key, _Pool] = defaultdict(_Pool)
        self._all: set[Http1Client | Http2Client] = set()

    def request(self, attempt: Attempt, downstream: Downstream, stream: Asker) -> Waiting | None:
        """A connection for an attempt: `stream.ready` or `stream.not_ready` follows, maybe at once. The result is for `forget`."""
        limits = attempt.cluster.limits
        if limits.requests >= limits.max_requests:
            stream.not_ready(Reset.OVERFLOW)
            return None
        pool = self._pools[self._key(attempt, downstream)]
        while pool.free:
            client = pool.free.pop()
            if client.usable:
                client.take(stream)
                stream.ready(client)
                return None
        for multiplexed in pool.multiplexed:
            if multiplexed.usable:
                stream.ready(multiplexed.take(stream))
                return None
        if len(pool.waiting) >= limits.max_pending or (limits.connections >= limits.max_connections and not pool.connecting):
            stream.not_ready(Reset.OVERFLOW)
            return None
        waiting = Waiting(stream)
        pool.waiting.append(waiting)
        if not attempt.http2 or not pool.connecting:
            pool.connecting += 1
            self._core.spawn(self._grow(pool, attempt, downstream))
        return waiting

    def forget(self, handle: object) -> None:
        """The stream does not wait any more."""
        if isinstance(handle, Waiting):
            handle.cancelled = True

    async def connect(
        self, cluster: Cluster, host: Host, way: Transport, downstream: Downstream
    ) -> tuple[Opened, str]:
        """A new connection to a host, TLS included; and the address it has on our side. Raises ConnectFailed."""
        prefix = f"cluster.{cluster.name}."
        stats = self._core.stats
        stats.inc(prefix + "upstream_cx_total")
        try:
            async with asyncio.timeout(cluster.connect_timeout):
                return await self._open(_place(cluster, host), way, downstream)
        except TimeoutError:
            stats.inc(prefix + "upstream_cx_connect_timeout")
            stats.inc(prefix + "upstream_cx_connect_fail")
            raise ConnectFailed(Reset.TIMEOUT) from None
        except HandshakeFailed as e:
            stats.inc(prefix + "upstream_cx_connect_fail")
            raise ConnectFailed(Reset.CONNECT, e.reason) from None
        except NoSecret:
            stats.inc(prefix + "upstream_cx_connect_fail")
            raise ConnectFailed(Reset.CONNECT, "TLS_error:Secret is not supplied by SDS") from None
        except OSError as e:
            stats.inc(prefix + "upstream_cx_connect_fail")
            raise ConnectFailed(Reset.CONNECT, _REFUSED.get(e.errno or 0, f"delayed connect error: {e.strerror or e}")) from None

    def close(self) -> None:
        for client in list(self._all):
            client.close()

    async def _open(self, place: Address, way: Transport, downstream: Downstream) -> tuple[Opened, str]:
        prepared = self._core.tls.upstream(way.tls, way.alpn) if way.tls is not None else None
        connection = await self._core.pod.connect(place)
        loop = self._core.loop
        opened = Opened()
        if prepared is None:
            await loop.create_connection(lambda: opened, sock=connection.sock)
            self._introduce(opened.transport, way, downstream)
        else:
            done: asyncio.Future[None] = loop.create_future()

            def ready(_: TlsTransport) -> None:
                if not done.done():
                    done.set_result(None)

            def failed(error: HandshakeFailed) -> None:
                if not done.done():
                    done.set_exception(error)

            tls = TlsTransport(prepared, server=False, sni=way.sni, name=way.name, on_ready=ready, on_failure=failed)
            if way.proxy_protocol:
                connection.sock.send(_header(way, downstream))
            try:
                await loop.create_connection(lambda: tls, sock=connection.sock)
                await done
            except BaseException:
                tls.abort()
                raise
            tls.start(opened)
        return opened, str(connection.source) if connection.source else ""

    def _introduce(self, transport: asyncio.Transport, way: Transport, downstream: Downstream) -> None:
        if way.proxy_protocol:
            transport.write(_header(way, downstream))

    async def _grow(self, pool: _Pool, attempt: Attempt, downstream: Downstream) -> None:
        """Open one more connection for the streams that wait."""
        cluster = attempt.cluster
        cluster.limits.connections += 1
        try:
            opened, local = await self.connect(cluster, attempt.host, attempt.transport, downstream)
        except ConnectFailed as e:
            cluster.limits.connections -= 1
            pool.connecting -= 1
            failed = list(pool.waiting) if attempt.http2 else [pool.waiting[0]] if pool.waiting else []
            for waiting in failed:
                pool.waiting.remove(waiting)
                if not waiting.cancelled:
                    waiting.stream.not_ready(e.reset, e.reason)
            return
        pool.connecting -= 1
        prefix = f"cluster.{cluster.name}."
        self._core.stats.inc(prefix + f"upstream_cx_http{2 if attempt.http2 else 1}_total")
        if attempt.http2:
            self._serve_http2(pool, opened, local, cluster)
        else:
            self._serve_http1(pool, opened, local, cluster)

    def _serve_http1(self, pool: _Pool, opened: Opened, local: str, cluster: Cluster) -> None:
        def lost(client: Http1Client) -> None:
            cluster.limits.connections -= 1
            self._all.discard(client)
            if client in pool.free:
                pool.free.remove(client)

        client = Http1Client(local, lambda c: self._free(pool, c), lost)
        self._all.add(client)
        opened.hand_over(client)
        self._free(pool, client)

    def _free(self, pool: _Pool, client: Http1Client) -> None:
        """The connection is free: for the next stream that waits, or for later."""
        while pool.waiting and client.usable:
            waiting = pool.waiting.popleft()
            if not waiting.cancelled:
                client.take(waiting.stream)
                waiting.stream.ready(client)
                return
        if client.usable:
            pool.free.append(client)

    def _serve_http2(self, pool: _Pool, opened: Opened, local: str, cluster: Cluster) -> None:
        def lost(client: Http2Client) -> None:
            cluster.limits.connections -= 1
            self._all.discard(client)
            if client in pool.multiplexed:
                pool.multiplexed.remove(client)

        client = Http2Client(local, lost)
        self._all.add(client)
        pool.multiplexed.append(client)
        opened.hand_over(client)
        while pool.waiting:
            waiting = pool.waiting.popleft()
            if not waiting.cancelled:
                waiting.stream.ready(client.take(waiting.stream))

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
        user.connection_made(self.transport)
        if self._early:
            user.data_received(self._early)
        if self._ended is not None:
            user.connection_lost(self._ended[0])

    def pass_to(self, user: asyncio.Protocol) -> None:
        """Everything goes to `user` instead, who knows the transport already."""
        self._user = user

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

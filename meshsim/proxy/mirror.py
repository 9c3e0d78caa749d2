"""A copy of a request, sent beside the real one: nobody waits for it, nothing logs it, its failures are invisible."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshsim.routing import transport
from meshsim.routing.exchange import Exchange
from meshsim.routing.message import Headers, Response
from meshsim.routing.retries import Reset
from meshsim.routing.steps import Attempt, Mirror

if TYPE_CHECKING:
    from meshsim.proxy.core import Core
    from meshsim.proxy.stream import Upstream

LIMIT = 15.0  # seconds
BODY_LIMIT = 1024 * 1024  # bytes kept until there is a connection


class MirrorStream:
    """What a pool needs of a stream, for a request whose response is thrown away."""

    def __init__(self, core: Core, mirror: Mirror, exchange: Exchange):
        self._core, self._mirror, self._exchange = core, mirror, exchange
        self._upstream: Upstream | None = None
        self._body: list[bytes] = []
        self._kept = 0
        self._complete = mirror.request.ends
        self._over = False
        self._timer = core.loop.call_later(LIMIT, self._end)

    def start(self) -> None:
        downstream = self._exchange.downstream
        host = self._mirror.cluster.pick()  # a copy has no client, so no original destination either
        if host is None:
            self._end()
            return
        self._core.mirrors.add(self)
        request = self._mirror.request
        http2 = self._mirror.cluster.speaks_http2(request.version == "HTTP/2")
        way = transport.transport(self._mirror.cluster, host, request.authority, http2)
        self._core.pools.request(Attempt(self._mirror.cluster, host, request, http2, way), downstream, self)

    def request_data(self, data: bytes) -> None:
        """The same bytes that the real request carries; a host that is too slow for them loses its copy."""
        if self._over:
            return
        if self._upstream is not None:
            self._upstream.send_data(data)
            return
        self._body.append(data)
        self._kept += len(data)
        if self._kept > BODY_LIMIT:
            self._end()

    def request_end(self) -> None:
        if not self._complete:
            self._complete = True
            if self._upstream is not None and not self._over:
                self._upstream.send_end()

    def ready(self, upstream: Upstream) -> None:
        if self._over:
            upstream.cancel()
            return
        self._upstream = upstream
        request = self._mirror.request
        request.ends = self._complete and not self._body
        upstream.send_head(request)
        for data in self._body:
            upstream.send_data(data)
        self._body.clear()
        if self._complete and not request.ends:
            upstream.send_end()

    def not_ready(self, reset: Reset, reason: str = "") -> None:
        self._end()

    def may_continue(self) -> None:
        """A copy waits for nobody."""

    def response(self, head: Response) -> None:
        if head.ends:
            self.response_end()

    def response_data(self, data: bytes) -> None:
        """Thrown away."""

    def response_end(self, trailers: Headers | None = None) -> None:
        self._upstream = None
        self._end()

    def tunnel_ended(self) -> None:
        self.response_end()

    def failed(self, reset: Reset, reason: str = "") -> None:
        self._upstream = None
        self._end()

    def host_blocked(self) -> None:
        """The real request does not wait for its copy."""
        self._end()

    def host_writable(self) -> None:
        """See host_blocked."""

    def _end(self) -> None:
        self._over = True
        self._timer.cancel()
        self._body.clear()
        self._core.mirrors.discard(self)
        if self._upstream is not None:
            self._upstream.cancel()
            self._upstream = None

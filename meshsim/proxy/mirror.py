"""A copy of a request, sent beside the real one: nobody waits for it, nothing logs it, its failures are invisible."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshsim.routing import transport
from meshsim.routing.exchange import Attempt, Exchange, Mirror
from meshsim.routing.message import Headers, Response
from meshsim.routing.retries import Reset

if TYPE_CHECKING:
    from meshsim.proxy.core import Core
    from meshsim.proxy.stream import Upstream

LIMIT = 15.0  # seconds


class MirrorStream:
    """What a pool needs of a stream, for a request whose response is thrown away."""

    def __init__(self, core: Core, mirror: Mirror, exchange: Exchange):
        self._core, self._mirror, self._exchange = core, mirror, exchange
        self._upstream: Upstream | None = None
        self._timer = core.loop.call_later(LIMIT, self._end)

    def start(self) -> None:
        downstream = self._exchange.downstream
        destination = downstream.destination if downstream.restored else None
        host = self._mirror.cluster.pick(destination=destination)
        if host is None:
            self._timer.cancel()
            return
        self._core.mirrors.add(self)
        request = self._mirror.request
        request.ends = True
        http2 = self._mirror.cluster.speaks_http2(request.version == "HTTP/2")
        way = transport.transport(self._mirror.cluster, host, request.authority, http2)
        self._core.pools.request(Attempt(self._mirror.cluster, host, request, http2, way), downstream, self)

    def ready(self, upstream: Upstream) -> None:
        self._upstream = upstream
        upstream.send_head(self._mirror.request)

    def not_ready(self, reset: Reset, reason: str = "") -> None:
        self._end()

    def response(self, head: Response) -> None:
        if head.ends:
            self.response_end()

    def response_data(self, data: bytes) -> None:
        """Thrown away."""

    def response_end(self, trailers: Headers | None = None) -> None:
        self._upstream = None
        self._end()

    def failed(self, reset: Reset, reason: str = "") -> None:
        self._upstream = None
        self._end()

    def host_blocked(self) -> None:
        """A head alone does not fill a buffer."""

    def host_writable(self) -> None:
        """See host_blocked."""

    def _end(self) -> None:
        self._timer.cancel()
        self._core.mirrors.discard(self)
        if self._upstream is not None:
            self._upstream.cancel()
            self._upstream = None

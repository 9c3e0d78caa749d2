"""The addresses behind DNS clusters: looked up before the proxy listens, and again at each cluster's refresh rate."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from meshsim.xds.message import seconds

if TYPE_CHECKING:
    from meshsim.proxy.core import Core
    from meshsim.routing.clusters import Cluster

REFRESH = 5.0  # seconds; Envoy's default `dns_refresh_rate`


class Names:
    """Keeps the DNS clusters of a runtime resolved."""

    def __init__(self, core: Core):
        self._core = core
        self._timer: asyncio.TimerHandle | None = None

    async def resolve_all(self) -> None:
        """Look every name of every cluster up."""
        asking: dict[str, list[Cluster]] = {}
        for cluster in self._core.runtime.clusters.values():
            for name in cluster.dns_names:
                asking.setdefault(name, []).append(cluster)
        for name, clusters in asking.items():
            addresses = await self._core.resolve(name)
            for cluster in clusters:
                cluster.resolved(name, addresses)
        self.stop()
        if asking:
            rate = min(seconds(c.config.dns_refresh_rate, REFRESH) for clusters in asking.values() for c in clusters)
            self._timer = self._core.loop.call_later(rate, lambda: self._core.spawn(self.resolve_all()))

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

"""A proxy: given a configuration and a pod's network, it listens, forwards, and changes when it is told something new."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from functools import partial

from meshsim import xds
from meshsim.network.base import Address, Listening, Pod
from meshsim.proxy.admin import Admin, AdminServer
from meshsim.proxy.core import Core
from meshsim.proxy.listener import acceptor
from meshsim.proxy.names import Names
from meshsim.routing import tallies
from meshsim.routing.clusters import Cluster
from meshsim.routing.entry import Entry
from meshsim.routing.runtime import ListenerRules, Runtime

DRAIN_TIME = 5.0  # seconds that connections have to end by themselves
ANSWER_TIME = 1.0  # seconds an update waits for answers to requests that began before it


class Proxy:
    """One proxy on this event loop.

    config: placed for this machine (network/place.py). pod: where it runs. seed: of every random choice.
    on_log: hears of every access-log entry, whatever loggers are configured. stdout: gets the lines logged to standard output.
    local_address: how it names itself to others; its pod's address by default.
    make_files: called before it reads the files of certificates, which may be made only then.
    """

    def __init__(
        self,
        config: xds.ProxyConfig,
        pod: Pod,
        *,
        seed: int = 0,
        on_log: Callable[[Entry], None] | None = None,
        stdout: Callable[[str], object] | None = None,
        local_address: str = "",
        clock: Callable[[], float] = time.time,
        make_files: Callable[[], object] = lambda: None,
    ):
        self.pod = pod
        self.runtime = Runtime(random.Random(f"{seed} {pod.address}"), clock, local_address or pod.address)
        self.core = Core(self.runtime, pod, on_log=on_log, stdout=stdout, make_files=make_files)
        self.config = config
        self._names = Names(self.core)
        self._listening: dict[str, tuple[Address | str, Listening]] = {}
        self.draining = False
        self.updated = time.time()
        self._admin = Admin(self)
        self._admin_server: AdminServer | None = None

    @property
    def busy(self) -> int:
        """How many requests, connections and handshakes are under way; idle kept-alive connections are not."""
        return self.core.busy

    def admin(self, path: str, method: str = "GET") -> str:
        """A page of the admin interface, such as `/stats?filter=upstream_cx_total`."""
        return self._admin.page(path, method).text

    async def serve_admin(self, path: str) -> None:
        """Give the admin interface out on a Unix socket at `path`. Raises OSError."""
        self._admin_server = AdminServer(self._admin, path)
        await self._admin_server.start()

    async def told_to_quit(self) -> None:
        """Return when someone asked the admin interface to end this proxy."""
        await self._admin.quit.wait()

    async def start(self) -> None:
        """Listen. Raises OSError where another listens already."""
        self._use(self.config)
        await self._names.resolve_all()
        await self._listen()

    async def update(self, config: xds.ProxyConfig) -> None:
        """Work by another configuration from now on; what is under way ends as it began.

        Clients of a listener that changed are asked to go, and their connections end at the latest after their drain time.
        When this returns, the requests that began before are answered, or slow: whoever they were sent to may change now.
        """
        self.config, self.updated = config, time.time()
        older = set(self.core.streams)
        self._use(config)
        for connection in list(self.core.connections):
            if connection.manager is not None and not self.runtime.is_current(connection.manager):
                connection.retire()
        await self._names.resolve_all()
        await self._listen()
        limit = self.core.loop.time() + ANSWER_TIME
        while not all(stream.answered for stream in older) and self.core.loop.time() < limit:
            await asyncio.sleep(0.002)

    async def drain(self, seconds: float = DRAIN_TIME) -> None:
        """Take no more connections, and give those that are open some time to end."""
        self.draining = True
        self._stop_listening()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.core.connections:
                    self.drain_connections()
                    await asyncio.sleep(0.02)

    def drain_connections(self) -> None:
        """End each open connection as soon as nothing is under way on it."""
        for connection in list(self.core.connections):
            connection.drain()

    async def close(self) -> None:
        """End everything now. Closing twice is allowed."""
        self._stop_listening()
        if self._admin_server is not None:
            await self._admin_server.close()
        self._names.stop()
        for arrival in list(self.core.arriving):
            close = getattr(arrival, "close", None)
            if close is not None:
                close()
        for connection in list(self.core.connections):
            connection.abort()
        self.core.pools.close()
        self.core.deadlines.stop()
        tasks = list(self.core.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.core.edges.close()

    def _use(self, config: xds.ProxyConfig) -> None:
        self.core.tls.update({secret.name: secret for secret in config.secrets})
        before = {cluster.stat_name for cluster in self.runtime.clusters.values()}
        self.runtime.update(config)
        self.core.pools.retain(self.runtime.clusters.values())
        gone = before - {cluster.stat_name for cluster in self.runtime.clusters.values()}
        self.core.stats.forget(*(f"cluster.{name}." for name in gone))
        self._register_gauges()

    def _register_gauges(self) -> None:
        """What goes up and down, under Envoy's names."""
        stats, runtime = self.core.stats, self.runtime
        stats.forget_gauges()
        self.core.forget_places()
        stats.gauge("server.live", lambda: int(not self.draining))
        stats.gauge("server.uptime", lambda: int(time.time() - self._admin.started))
        stats.gauge("listener_manager.total_listeners_active", lambda: len(runtime.listeners))
        stats.gauge("cluster_manager.active_clusters", lambda: len(runtime.clusters))
        for name, rules in runtime.listeners.items():
            stats.gauge(self.core.place(name) + "downstream_cx_active", partial(self._connections, listener=name))
            stats.expect(self.core.place(name), tallies.OF_LISTENERS)
            for prefix in rules.stat_prefixes:
                stats.expect(f"http.{prefix}.", tallies.OF_MANAGERS)
                stats.gauge(f"http.{prefix}.downstream_cx_active", partial(self._connections, manager=prefix))
                stats.gauge(f"http.{prefix}.downstream_rq_active", partial(self._requests, prefix))
        for cluster in runtime.clusters.values():
            prefix, limits = f"cluster.{cluster.stat_name}.", cluster.limits
            stats.expect(prefix, tallies.OF_CLUSTERS)
            stats.gauge(prefix + "upstream_cx_active", partial(getattr, limits, "connections"))
            stats.gauge(prefix + "upstream_rq_active", partial(getattr, limits, "requests"))
            stats.gauge(prefix + "upstream_rq_pending_active", partial(getattr, limits, "pending"))
            stats.gauge(prefix + "membership_total", partial(_count, cluster, healthy=False))
            stats.gauge(prefix + "membership_healthy", partial(_count, cluster, healthy=True))

    def _connections(self, *, listener: str = "", manager: str = "") -> int:
        """How many connections are open at a listener, or at the connection managers of a statistics prefix."""
        if listener:
            return sum(c.listener == listener for c in self.core.connections)
        return sum(c.manager is not None and c.manager.config.stat_prefix == manager for c in self.core.connections)

    def _requests(self, manager: str) -> int:
        """How many requests are under way at the connection managers of a statistics prefix."""
        return sum(s.manager.config.stat_prefix == manager for s in self.core.streams)

    async def _listen(self) -> None:
        """Listen where the configuration says, and nowhere else; a place that stays keeps its socket."""
        wanted: dict[str, tuple[Address | str, ListenerRules]] = {}
        for name, rules in self.runtime.listeners.items():
            address = rules.config.address
            if address.pipe is not None:
                wanted[name] = (address.pipe.path, rules)
            elif address.socket_address is not None and rules.config.bind_to_port is not False:
                wanted[name] = (Address(address.socket_address.address, address.socket_address.port_value), rules)
        for name in list(self._listening):
            if name not in wanted or wanted[name][0] != self._listening[name][0]:
                self._listening.pop(name)[1].close()
        for name, (place, rules) in wanted.items():
            accept = acceptor(self.core, rules)
            if name in self._listening:
                self._listening[name][1].accept = accept
            else:
                self._listening[name] = (place, await self.pod.listen(place, accept))

    def _stop_listening(self) -> None:
        for _, listening in self._listening.values():
            listening.close()
        self._listening.clear()


def _count(cluster: Cluster, *, healthy: bool) -> int:
    return sum(cluster.usable(host) for host in cluster.hosts) if healthy else len(cluster.hosts)

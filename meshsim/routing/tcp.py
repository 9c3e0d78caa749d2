"""One connection of bytes through one proxy, without a socket: where it goes, whether it may, what to log.

How this works: `TcpChain` is a filter chain that ends in a TCP proxy. Each connection gets a `Session`:

    begin()                 -> Connect | Lookup | Close     the chain is chosen; the proxy connects before it reads a byte
    looked_up(addresses)    -> Connect | Close
    failed(reset, reason)   -> Connect | Close              the attempt to connect came to nothing
    connected()                                             bytes may flow
    first_bytes()           -> Close | None                 what network RBAC says, which looks when the client first sends

Where the chain tunnels, `Connect.tunnel` is the CONNECT request that must be granted first. `entry` is the access-log entry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from meshsim.routing import access_log, hashing, rbac, transport
from meshsim.routing.clusters import Cluster, Host
from meshsim.routing.entry import Entry
from meshsim.routing.facts import Downstream
from meshsim.routing.message import Request
from meshsim.routing.retries import Reset
from meshsim.routing.transport import Transport
from meshsim.xds.listener import FilterChain, SniCluster, SniDynamicForwardProxy
from meshsim.xds.message import seconds
from meshsim.xds.rbac import NetworkRbac
from meshsim.xds.tcp_proxy import TcpProxy

if TYPE_CHECKING:
    from meshsim.routing.runtime import Runtime

IDLE_TIMEOUT = 3600.0  # seconds; Envoy's default


@dataclass(slots=True)
class Connect:
    """Connect to a host. tunnel: the request that asks it for the real connection; http2: how that is sent."""

    cluster: Cluster
    host: Host
    transport: Transport
    tunnel: Request | None = None
    http2: bool = False


@dataclass(slots=True)
class Lookup:
    """Resolve a name, then `looked_up`."""

    name: str
    port: int


@dataclass(slots=True)
class Close:
    """End the client's connection; nothing was or will be sent to it."""


class TcpChain:
    """A chain whose last filter is a TCP proxy, compiled; other chains close their connections."""

    def __init__(self, config: FilterChain, runtime: Runtime, listener: str):
        self.runtime, self.listener = runtime, listener
        kinds = [f.typed_config for f in config.filters]
        self.proxy = next((k for k in kinds if isinstance(k, TcpProxy)), None)
        self.stats = f"tcp.{self.proxy.stat_prefix if self.proxy else ''}."
        """What the names of its counters begin with."""
        self.engines = [rbac.compiled(k) for k in kinds if isinstance(k, NetworkRbac)]
        self.by_sni = any(isinstance(k, SniCluster) for k in kinds)
        self.resolves_sni = next((k for k in kinds if isinstance(k, SniDynamicForwardProxy)), None)
        self.loggers = [logger.of_bytes() for logger in access_log.loggers(self.proxy.access_log)] if self.proxy else []
        self.idle_timeout = seconds(self.proxy.idle_timeout, IDLE_TIMEOUT) if self.proxy else IDLE_TIMEOUT
        self.longest = seconds(self.proxy.max_downstream_connection_duration) if self.proxy else 0.0
        self.attempts = (self.proxy.max_connect_attempts if self.proxy else None) or 1


class Session:
    """One connection on a `TcpChain`."""

    def __init__(self, chain: TcpChain, downstream: Downstream, now: float):
        self.chain, self.downstream = chain, downstream
        self.entry = Entry(downstream, start=now, listener=chain.listener)
        self.entry.remote = downstream.source
        self.cluster: Cluster | None = None
        self._name = ""

    def begin(self) -> Connect | Lookup | Close:
        """Where it goes."""
        proxy, runtime = self.chain.proxy, self.chain.runtime
        if proxy is None:
            return Close()
        if proxy.weighted_clusters is not None:
            legs = proxy.weighted_clusters.clusters
            self._name = runtime.rng.choices([leg.name for leg in legs], [leg.weight for leg in legs])[0]
        else:
            self._name = proxy.cluster or ""
        if self.chain.by_sni and self.downstream.sni:
            self._name = self.downstream.sni
        self.cluster = runtime.clusters.get(self._name)
        if self.cluster is None:
            self.entry.flag("NC")
            return Close()
        self.entry.cluster, self.entry.alt_cluster = self._name, self.cluster.config.alt_stat_name
        if self.chain.resolves_sni is not None:
            return Lookup(self.downstream.sni, self.chain.resolves_sni.port_value or self.downstream.destination.port)
        return self._connect()

    def looked_up(self, lookup: Lookup, addresses: list[str]) -> Connect | Close:
        assert self.cluster is not None
        if not addresses:
            self.entry.flag("UH")
            return Close()
        return self._connect_to(self.cluster.dynamic_host(lookup.name, lookup.port, addresses[0]))

    def failed(self, reset: Reset, reason: str) -> Connect | Close:
        """The connection could not be made; reason: the transport's words."""
        entry = self.entry
        entry.upstream_failure = reason.replace(" ", "_")
        entry.flag("UF")
        if entry.attempts < self.chain.attempts:
            return self._connect()
        entry.flag("URX")
        return Close()

    def first_bytes(self) -> Close | None:
        """The client has sent something: whether it may go on."""
        for engine in self.chain.engines:
            verdict = engine(rbac.Caller(self.downstream, None, self.downstream.source.host))
            if not verdict.allowed:
                self.entry.connection_details = verdict.details
                return Close()
        return None

    def upstream_reset(self) -> None:
        """The host broke the connection off."""
        self.entry.flag("UR")

    def too_long(self) -> None:
        """The connection has lasted as long as it may."""
        self.entry.flag("DT")

    def client_failed(self, reason: str, *, at_hello: bool) -> None:
        """The client's TLS came to nothing; at its first message there was no time yet to connect."""
        self.entry.downstream_failure = reason.replace(" ", "_")
        if at_hello:
            self.entry.upstream = ""

    def finish(self, now: float, received: int, sent: int) -> Entry:
        self.entry.end, self.entry.received, self.entry.sent = now, received, sent
        return self.entry

    def _connect(self) -> Connect | Close:
        assert self.cluster is not None
        proxy = self.chain.proxy
        key = hashing.xxh64(self.downstream.source.host.encode()) if proxy and proxy.hash_policy else None
        destination = self.downstream.destination if self.downstream.restored else None
        host = self.cluster.pick(key=key, destination=destination)
        if host is None:
            self.entry.flag("UH")
            self.entry.upstream_failure = self.cluster.loop.replace(" ", "_")
            return Close()
        return self._connect_to(host)

    def _connect_to(self, host: Host) -> Connect:
        assert self.cluster is not None
        self.entry.attempts += 1
        self.entry.upstream, self.entry.upstream_name = host.name, host.hostname or host.name
        tunnel = self._tunnel()
        http2 = tunnel is not None and self.cluster.speaks_http2(False)
        way = transport.transport(self.cluster, host, tunnel.authority, http2) if tunnel else transport.plain(self.cluster, host)
        return Connect(self.cluster, host, way, tunnel, http2)

    def _tunnel(self) -> Request | None:
        config = self.chain.proxy.tunneling_config if self.chain.proxy else None
        if config is None:
            return None
        runtime, entry = self.chain.runtime, self.entry
        target = runtime.substitute(config.hostname, entry) if "%" in config.hostname else config.hostname
        extra = [(option.header.key.lower(), runtime.substitute(option.header.value, entry)) for option in config.headers_to_add]
        return Request("POST" if config.use_post else "CONNECT", "/" if config.use_post else "", target, "http", extra, ends=False)

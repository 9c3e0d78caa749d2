"""Everything one proxy was told, compiled once into what decisions look up.

How this works: `Runtime` is what a proxy's connections share. `update` compiles a new configuration beside the old and then
switches: listeners, clusters and routes that did not change keep their compiled form (and clusters their hosts' history); what
changed is new for the next connection or request, while those under way finish with what they hold.
"""

from __future__ import annotations

import email.utils
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

from meshsim import xds
from meshsim.routing import access_log
from meshsim.routing.chains import Chains, Rejected
from meshsim.routing.clusters import Cluster
from meshsim.routing.entry import Entry
from meshsim.routing.facts import Downstream, Endpoint
from meshsim.routing.manager import Manager
from meshsim.routing.routes import RouteTable
from meshsim.routing.tcp import TcpChain
from meshsim.xds.access_log import SubstitutionFormatString, TextFormat
from meshsim.xds.http_connection_manager import HttpConnectionManager
from meshsim.xds.listener import FilterChain, HttpInspector, Listener, OriginalDst, ProxyProtocol, TlsInspector
from meshsim.xds.message import seconds
from meshsim.xds.tls import DownstreamTlsContext

INSPECTION_TIMEOUT = 15.0  # seconds; Envoy's default


@dataclass(eq=False)
class Chain:
    """A filter chain ready for connections: HTTP or bytes, and the TLS to terminate first."""

    config: FilterChain
    tls: DownstreamTlsContext | None
    http: Manager | None = None
    tcp: TcpChain | None = None

    @property
    def name(self) -> str:
        return self.config.name


class ListenerRules:
    """A listener, compiled. Raises chains.Rejected for one that Envoy refuses."""

    def __init__(self, config: Listener, runtime: Runtime):
        self.config, self.name = config, config.name
        self._chains = Chains(config)
        self._runtime = runtime
        self._compiled: dict[int, Chain] = {}
        kinds = [f.typed_config for f in config.listener_filters]
        self.inspects_tls = any(isinstance(k, TlsInspector) for k in kinds)
        self.inspects_http = any(isinstance(k, HttpInspector) for k in kinds)
        self.takes_proxy_header = any(isinstance(k, ProxyProtocol) for k in kinds)
        self.restores_destination = config.use_original_dst or any(isinstance(k, OriginalDst) for k in kinds)
        self.timeout = seconds(config.listener_filters_timeout, INSPECTION_TIMEOUT)
        self.goes_on_after_timeout = config.continue_on_listener_filters_timeout
        self.loggers = access_log.loggers(config.access_log)

    @property
    def is_egress(self) -> bool:
        return self.config.traffic_direction == "OUTBOUND"

    @property
    def stat_prefixes(self) -> set[str]:
        """What the statistics of its connection managers begin with."""
        chains = [*self.config.filter_chains, *([self.config.default_filter_chain] if self.config.default_filter_chain else [])]
        filters = [each.typed_config for chain in chains for each in chain.filters]
        return {config.stat_prefix for config in filters if isinstance(config, HttpConnectionManager)}

    def chain(self, downstream: Downstream, why: list[str] | None = None) -> Chain | None:
        """The chain for a connection, or None; its name goes into the connection's facts."""
        found = self._chains.match(downstream, why)
        if found is None:
            return None
        downstream.chain = found.name
        key = id(found)
        if key not in self._compiled:
            self._compiled[key] = self._compile(found)
        return self._compiled[key]

    def has(self, manager: Manager) -> bool:
        """Whether a connection manager is of one of its chains."""
        return any(chain.http is manager for chain in self._compiled.values())

    def no_chain(self, downstream: Downstream, now: float) -> Entry:
        """The entry of a connection that no chain takes."""
        entry = Entry(downstream, start=now, listener=self.name, details="filter_chain_not_found", end=now)
        entry.remote = downstream.source
        entry.flag("NR")
        return entry

    def _compile(self, config: FilterChain) -> Chain:
        socket = config.transport_socket.typed_config if config.transport_socket else None
        chain = Chain(config, socket if isinstance(socket, DownstreamTlsContext) else None)
        for network_filter in config.filters:
            if isinstance(network_filter.typed_config, HttpConnectionManager):
                chain.http = Manager(network_filter.typed_config, self._runtime, self.name, is_egress=self.is_egress)
        if chain.http is None:
            chain.tcp = TcpChain(config, self._runtime, self.name)
        return chain


@dataclass(eq=False)
class Runtime:
    """One proxy at work.

    rng makes every random choice; clock tells the time of day. local_address: the proxy's own, as it tells others.
    """

    rng: random.Random
    clock: Callable[[], float] = time.time
    local_address: str = "127.0.0.1"
    listeners: dict[str, ListenerRules] = field(default_factory=dict)
    clusters: dict[str, Cluster] = field(default_factory=dict)
    tables: dict[str, RouteTable] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)
    """Listeners that were refused, and why."""
    version: int = 0
    """How often the configuration was replaced."""
    _places: dict[tuple[str, int], ListenerRules] = field(default_factory=dict)

    def update(self, config: xds.ProxyConfig) -> None:
        """Work by this configuration from now on."""
        self.version += 1
        assignments = {e.cluster_name: e for e in config.endpoints}
        clusters = {}
        for cluster in config.clusters:
            eds = cluster.eds_cluster_config
            assignment = assignments.get((eds.service_name if eds else "") or cluster.name)
            old = self.clusters.get(cluster.name)
            if old is not None and old.config == cluster:
                if eds is not None and assignment is not None:
                    old.assign(assignment)
                clusters[cluster.name] = old
            else:
                clusters[cluster.name] = Cluster(cluster, assignment, self.rng, self.clock)
        tables = {}
        for routes in config.routes:
            table = self.tables.get(routes.name)
            tables[routes.name] = table if table is not None and table.config == routes else RouteTable(routes)
        self.clusters, self.tables = clusters, tables
        listeners: dict[str, ListenerRules] = {}
        self.rejected = {}
        for listener in config.listeners:
            old_rules = self.listeners.get(listener.name)
            try:
                listeners[listener.name] = (
                    old_rules if old_rules is not None and old_rules.config == listener else ListenerRules(listener, self)
                )
            except Rejected as e:
                self.rejected[listener.name] = str(e)
                if old_rules is not None:
                    listeners[listener.name] = old_rules
        self.listeners = listeners
        self._places = {}
        for rules in listeners.values():
            at = rules.config.address.socket_address
            if at is not None:
                self._places.setdefault((at.address, at.port_value), rules)

    def handed_to(self, destination: Endpoint) -> ListenerRules | None:
        """The listener that a redirected connection is handed to: at its exact address, else at its port; None for neither."""
        any_address = "::" if ":" in destination.host else "0.0.0.0"
        return self._places.get((destination.host, destination.port)) or self._places.get((any_address, destination.port))

    def is_current(self, manager: Manager) -> bool:
        """Whether new connections are still served by this connection manager."""
        return any(rules.has(manager) for rules in self.listeners.values())

    def http_date(self) -> str:
        return _http_date(int(self.clock()))

    def substitute(self, value: str, entry: Entry) -> str:
        """A header value with its `%OPERATORS%` replaced."""
        return header_format(value)(entry)


@lru_cache(maxsize=4096)
def header_format(value: str) -> Callable[[Entry], str]:
    """A header value as a text about a request. Raises NotSimulated for an operator that is not known."""
    return access_log.compile_format(
        SubstitutionFormatString(text_format_source=TextFormat(inline_string=value), omit_empty_values=True)
    )


@lru_cache(maxsize=2)
def _http_date(second: int) -> str:
    return email.utils.formatdate(second, usegmt=True)

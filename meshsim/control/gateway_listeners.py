"""The listeners of a gateway: one for each port and bind address, with a filter chain for every way in.

| server | filter chain |
|---|---|
| HTTP | one for all servers of the port, without criteria |
| HTTPS that terminates | one per server, by its hosts as SNI; its own route configuration |
| TLS that terminates | the same by SNI, but relayed as bytes: VirtualService `tcp` decides |
| TCP | one, without criteria: VirtualService `tcp` |
| PASSTHROUGH | one per VirtualService `tls` match, by its `sniHosts` |
| AUTO_PASSTHROUGH | one per internal service, port and subset, by the cluster's name as SNI |

A server for which no VirtualService has a route of the right kind has no chain; without any chain there is no listener,
and connections are refused. There is never a default chain: other connections are closed, with flag NR in the log.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from meshsim import hosts
from meshsim.control import downstream_tls
from meshsim.control.connection_manager import HCM_FILTER, Direction, connection_manager
from meshsim.control.gateways import ListenKey, Merged, PlacedServer, bare, taken_hosts
from meshsim.control.http_routes import cluster_name
from meshsim.control.mesh_index import VirtualService, gateway_name
from meshsim.control.protocols import Protocol
from meshsim.control.tcp_filters import Surroundings, Weighted, relay
from meshsim.control.view import View
from meshsim.resources.virtual_service import L4MatchAttributes, RouteDestination, TlsMatchAttributes
from meshsim.xds.listener import FilterChain, FilterChainMatch, Listener, ListenerFilter, NetworkFilter, TlsInspector
from meshsim.xds.message import Address, Metadata, SocketAddress
from meshsim.xds.tls import TransportSocket

WILDCARD = "0.0.0.0"
CONNECT_TIMEOUT = "15s"  # for a TLS handshake
MESH_ALPN = ["istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"]
TLS_INSPECTOR = ListenerFilter("envoy.filters.listener.tls_inspector", TlsInspector())
PRIVILEGED = 1024


@dataclass(slots=True)
class _Chain:
    """A filter chain before its criteria are Envoy's: `sni` with `*`, or empty, asks nothing of the name."""

    filters: list[NetworkFilter]
    source: str
    sni: list[str] = field(default_factory=list)
    alpn: list[str] = field(default_factory=list)
    tls: TransportSocket | None = None

    def build(self) -> FilterChain:
        names = [] if "*" in self.sni else sorted(self.sni)
        match = FilterChainMatch(server_names=names, application_protocols=self.alpn) if names or self.alpn else None
        return FilterChain(
            filter_chain_match=match,
            filters=self.filters,
            transport_socket=self.tls,
            transport_socket_connect_timeout=CONNECT_TIMEOUT,
            metadata=Metadata({"meshsim": {"source": self.source}}),
        )


def gateway_listeners(view: View, merged: Merged) -> list[Listener]:
    """In the order in which the ports came up."""
    builder = _Builder(view)
    chains: dict[tuple[str, int], list[_Chain]] = {}
    for key, servers in merged.by_port.items():
        if view.proxy.unprivileged and key.number < PRIVILEGED:
            continue
        chains.setdefault((key.bind or WILDCARD, key.number), []).extend(builder.chains(key, servers))
    return [_listener(view, bind, port, found) for (bind, port), found in chains.items() if found]


def _listener(view: View, bind: str, port: int, chains: list[_Chain]) -> Listener:
    inspected = any(chain.sni or chain.tls for chain in chains)
    return Listener(
        f"{bind}_{port}",
        Address(SocketAddress(bind, port)),
        [chain.build() for chain in chains],
        listener_filters=[TLS_INSPECTOR] if inspected else [],
        traffic_direction="OUTBOUND",
        max_connections_to_accept_per_socket_event=1,
        access_log=list(view.access_logs.listener),
        metadata=Metadata({"meshsim": {"source": chains[0].source}}),
    )


class _Builder:
    """Makes the chains of a proxy's servers. SNI names are given away once per port and bind address, oldest first."""

    def __init__(self, view: View):
        self.view = view
        self.around = Surroundings(view.access_logs.stream, view.authorization.network_filters())
        self.sni: dict[int, dict[str, str]] = {}

    def chains(self, key: ListenKey, servers: list[PlacedServer]) -> list[_Chain]:
        if Protocol.parse(key.protocol).is_http:
            return [self._http(servers[0], key)]
        return [chain for server in servers for chain in self._of(server, key)]

    def _of(self, server: PlacedServer, key: ListenKey) -> Iterable[_Chain]:
        if server.terminates_https:
            return [self._http(server, key)]
        if not server.passthrough:
            return self._tcp(server)
        if server.server.tls and server.server.tls.mode == "AUTO_PASSTHROUGH":
            return self._auto_passthrough(server)
        return self._passthrough(server)

    def _http(self, server: PlacedServer, key: ListenKey) -> _Chain:
        terminating = server.terminates_https
        manager = connection_manager(
            Direction.GATEWAY,
            self.view.mesh,
            (server.server.name if terminating else "") or f"outbound_{key.bind or WILDCARD}_{key.number};",
            server.route_name,
            self.view.access_logs.stream,
            self.view.authorization.http_filters(),
        )
        filters = [NetworkFilter(HCM_FILTER, manager)]
        if not terminating:
            return _Chain(filters, server.source)
        return _Chain(filters, server.source, server.sni_hosts, tls=self._socket(server))

    def _socket(self, server: PlacedServer) -> TransportSocket | None:
        tls = server.server.tls
        if tls is None:
            return None
        return downstream_tls.transport_socket(tls, self.view.mesh.tls_defaults, tcp=server.protocol is not Protocol.HTTPS)

    def _tcp(self, server: PlacedServer) -> Iterable[_Chain]:
        """The first `tcp` route whose match fits, of the first VirtualService that has one."""
        for virtual_service in self._bound(server):
            for index, route in enumerate(virtual_service.spec.tcp):
                if route.route and (not route.match or any(self._fits(m, server, virtual_service) for m in route.match)):
                    filters = self._relay(route.route, server, virtual_service)
                    source = virtual_service.at("tcp", index)
                    return [_Chain(filters, source, server.sni_hosts if server.server.tls else [], tls=self._socket(server))]
        return []

    def _passthrough(self, server: PlacedServer) -> Iterable[_Chain]:
        """A chain for each fitting `tls` match, unless one of its names is taken."""
        for virtual_service in self._bound(server):
            for index, route in enumerate(virtual_service.spec.tls):
                for position, match in enumerate(route.match if route.route else []):
                    if not self._fits(match, server, virtual_service):
                        continue
                    if taken_hosts(match.sni_hosts, server.server.bind, self.sni.setdefault(server.listen_port, {})):
                        continue
                    source = virtual_service.at("tls", index, "match", position)
                    yield _Chain(self._relay(route.route, server, virtual_service), source, list(match.sni_hosts))

    def _auto_passthrough(self, server: PlacedServer) -> Iterable[_Chain]:
        """Straight to the service the SNI names, mesh TLS untouched and unchecked: no authorization here."""
        around = Surroundings(self.view.access_logs.stream)
        for service in self.view.services:
            if service.mesh_external or not any(hosts.subset_of(service.hostname, host) for host in server.sni_hosts):
                continue
            rule = self.view.destination_rule(service)
            subsets = ["", *(subset.name for subset, _ in rule.subsets)] if rule else [""]
            for port in service.ports:
                for subset in subsets if port.protocol is not Protocol.UDP else []:
                    cluster = f"outbound_.{port.number}_.{subset}_.{service.hostname}"
                    filters = relay(Weighted([(cluster, 1)], cluster, subset), port.protocol, rule, around, tunnel=False)
                    yield _Chain(filters, server.source, [cluster], list(MESH_ALPN))

    def _bound(self, server: PlacedServer) -> Iterable[VirtualService]:
        """The VirtualServices of the server's Gateway that share a host with it."""
        for virtual_service in self.view.gateway_virtual_services(server.gateway_name):
            mine = [bare(h) for h in server.hosts if "/" not in h or h.partition("/")[0] == virtual_service.namespace]
            if any(hosts.matches(a, b) for a in mine for b in self.view.index.hosts_of(virtual_service)):
                yield virtual_service

    def _fits(self, match: L4MatchAttributes | TlsMatchAttributes, server: PlacedServer, virtual_service: VirtualService) -> bool:
        """A gateway asks for the server's port and its own name only: not for subnets, labels or namespaces."""
        names = [gateway_name(g, virtual_service.namespace, self.view.index.domain) for g in match.gateways]
        return match.port in (0, server.number) and (not names or server.gateway_name in names)

    def _relay(self, legs: list[RouteDestination], server: PlacedServer, virtual_service: VirtualService) -> list[NetworkFilter]:
        view, namespace = self.view, virtual_service.namespace

        def cluster(leg: RouteDestination) -> str:
            return cluster_name(leg.destination, namespace, view.index.domain, server.number, view.service)

        first = legs[0].destination
        service = view.service(hosts.expand_short(first.host, namespace, view.index.domain)) if first else None
        rule = view.destination_rule(service) if service else None
        if len(legs) == 1:
            to = Weighted([(cluster(legs[0]), 1)], cluster(legs[0]), first.subset if first else "")
        else:
            weighted = [(cluster(leg), leg.weight) for leg in legs if leg.weight]
            to = Weighted(weighted, f"{virtual_service.name}.{namespace}", split=True)
        return relay(to, server.protocol, rule, self.around)

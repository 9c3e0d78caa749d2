"""A sidecar's outbound listeners: where redirected connections go by their original destination.

How this works: every service port claims a listener. HTTP ports share `0.0.0.0_<port>`; a TCP or TLS port takes its service's own
address, or
shares the wildcard when there is none. Claims come in creation order and are merged into one entry per (address, port): HTTP and
bytes together make a sniffed listener; equal chains of two services cannot both stand, and the first keeps its place. The catch-all
`virtualOutbound` takes what is left.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any as Json

from meshsim.control import byte_chains, sidecar_routes
from meshsim.control.byte_chains import Chain
from meshsim.control.clusters import ANY_HOST_CACHE, ANY_HOST_ROUTES, BLACK_HOLE_CLUSTER, PASSTHROUGH_CLUSTER, forward_proxy_cache
from meshsim.control.connection_manager import Direction, connection_manager
from meshsim.control.memory import Memory
from meshsim.control.protocols import Protocol
from meshsim.control.services import DYNAMIC_DNS, KUBERNETES, PASSTHROUGH, UNSPECIFIED, Port, Service, is_ip
from meshsim.control.tcp_filters import Surroundings, Weighted, relay
from meshsim.control.view import EgressListener, View
from meshsim.resources.message import seconds
from meshsim.xds.http_connection_manager import Http1ProtocolOptions, HttpConnectionManager, HttpFilter
from meshsim.xds.http_filters import DynamicForwardProxyFilter
from meshsim.xds.listener import (
    FilterChain,
    FilterChainMatch,
    HttpInspector,
    Listener,
    ListenerFilter,
    NetworkFilter,
    SniDynamicForwardProxy,
    TlsInspector,
)
from meshsim.xds.message import Address, CidrRange, Metadata, Pipe, SocketAddress, duration
from meshsim.xds.route import RouteConfiguration

VIRTUAL_OUTBOUND = "virtualOutbound"
PASSTHROUGH_CHAIN = "PassthroughFilterChain"
HCM_FILTER = "envoy.filters.network.http_connection_manager"
TLS_INSPECTOR = ListenerFilter("envoy.filters.listener.tls_inspector", TlsInspector())
HTTP_INSPECTOR = ListenerFilter("envoy.filters.listener.http_inspector", HttpInspector())
SNIFFED = ["http/1.1", "h2c"]
PRIVILEGED = 1024
OWN_PORTS = frozenset((15001, 15006, 15021, 15090))
_SPOKEN_FIRST = frozenset((Protocol.MONGO, Protocol.MYSQL))


@dataclass
class _Http:
    """The HTTP side of a listener: the name of its routes, and what they are made from."""

    route_name: str
    port: int
    listener: EgressListener
    service: Service | None = None
    service_port: Port | None = None
    source: str = ""
    on_demand: str = ""  # the wildcard host, if the service that claimed it first resolves what requests ask for
    sniffed: bool = False  # taken only by connections whose first bytes are HTTP


@dataclass
class _Entry:
    """What is claimed for one address and port so far. `kind` HTTP, TCP, or AUTO (both are told apart by the first bytes)."""

    bind: str
    port: int
    kind: str
    http: _Http | None = None
    chains: list[Chain] = field(default_factory=list)
    http_position: int = 0  # how many chains were there before HTTP was claimed
    locked: bool = False
    bind_to_port: bool = False
    protocol: Protocol = Protocol.AUTO
    taken: set[tuple[frozenset[str], frozenset[str]]] = field(default_factory=set)

    def keeps_out(self, protocol: Protocol) -> bool:
        """Whether a port of that protocol has no place here: to look at first bytes breaks a protocol whose server speaks first."""
        here = self.protocol if self.kind == "TCP" else Protocol.AUTO
        return here is not protocol and not _SPOKEN_FIRST.isdisjoint((here, protocol))

    def add(self, chains: list[Chain]) -> None:
        """Further chains, bar those that match exactly what one here matches already."""
        for chain in chains:
            if chain.key not in self.taken:
                self.taken.add(chain.key)
                self.chains.append(chain)


def _proxies(listener: EgressListener) -> bool:
    """Whether it is a forward proxy, whose one route configuration is for every port."""
    return listener.port is not None and Protocol.parse(listener.port.protocol) is Protocol.HTTP_PROXY


def _reads_sni(chain: FilterChain) -> bool:
    named = chain.filter_chain_match is not None and bool(chain.filter_chain_match.server_names)
    return named or any(isinstance(f.typed_config, SniDynamicForwardProxy) for f in chain.filters)


def _address(listener: EgressListener) -> tuple[str, bool]:
    """The address a Sidecar's listener asks for, if it does, and whether the proxy opens the port itself."""
    bind_to_port = listener.capture_mode == "NONE" or listener.bind.startswith("unix://")
    return listener.bind or ("127.0.0.1" if bind_to_port else ""), bind_to_port


def sidecar_listeners(view: View) -> tuple[list[Listener], list[RouteConfiguration]]:
    """A sidecar's outbound listeners, and the route configurations they ask for."""
    index = view.index
    reasons = (*view.scope, index.rules, index.same("Telemetry"))
    return view.stage("listeners", reasons, lambda memory: _SidecarListeners(view, memory).build())


class _SidecarListeners:
    def __init__(self, view: View, memory: Memory):
        self._view, self._memory = view, memory
        self._around = Surroundings(view.access_logs.stream)
        self._entries: dict[tuple[str, int], _Entry] = {}
        self._routes: dict[str, RouteConfiguration] = {}

    def build(self) -> tuple[list[Listener], list[RouteConfiguration]]:
        view = self._view
        for listener in view.egress_listeners:
            if listener.port is not None:
                self._declared(listener)
            else:
                self._catch_all(listener)
        out = [self._listener(entry) for entry in self._entries.values()]
        if view.mesh.proxy_http_port:
            out.append(self._http_proxy(view.egress_listeners[-1], view.mesh.proxy_http_port))
        return [*out, self._virtual_outbound()], list(self._routes.values())

    # claims

    def _declared(self, listener: EgressListener) -> None:
        """A Sidecar's own egress listener: its port and protocol hold for every service it imports, and nobody adds to it later."""
        assert listener.port is not None
        port = Port(listener.port.number, listener.port.name, Protocol.parse(listener.port.protocol))
        bind, bind_to_port = _address(listener)
        if self._barred(bind, bind_to_port, port):
            return
        made: list[_Entry] = []
        for service in listener.services:
            for service_port in service.ports:
                entry = self._claim(listener, service, Port(port.number, service_port.name, port.protocol, service_port.target), bind)
                if entry is not None:
                    entry.bind_to_port = bind_to_port
                    made.append(entry)
        for entry in made:
            entry.locked = True

    def _catch_all(self, listener: EgressListener) -> None:
        given, bind_to_port = _address(listener)
        for service in listener.services:
            for port in service.ports:
                if port.protocol is Protocol.UDP or self._barred(given, bind_to_port, port):
                    continue
                for bind in [given] if given else self._binds(service, port):
                    entry = self._claim(listener, service, port, bind)
                    if entry is not None and not entry.locked:
                        entry.bind_to_port = bind_to_port

    def _barred(self, bind: str, bind_to_port: bool, port: Port) -> bool:
        """Whether the proxy's own listeners have the place, or it may not open the port."""
        if bind_to_port and port.number < PRIVILEGED and self._view.proxy.unprivileged:
            return True
        shared = bind == UNSPECIFIED if bind else port.protocol.is_http
        return shared and port.number in OWN_PORTS

    def _binds(self, service: Service, port: Port) -> list[str]:
        """Usually one claim at the default place; a headless service's byte ports claim each endpoint's address."""
        view = self._view
        plain = view.address(service) == UNSPECIFIED and service.resolution == PASSTHROUGH
        if not plain or port.protocol.is_http:
            return [""]
        endpoints = view.index.registry.of(service, port)
        if service.registry != KUBERNETES and not endpoints and not service.has_endpoint_list:
            return [""]
        return [a for a in dict.fromkeys(e.address for e in endpoints if is_ip(e.address)) if a != view.proxy.ip]

    def _claim(self, listener: EgressListener, service: Service, port: Port, bind: str) -> _Entry | None:
        """Adds one service port to the entry of its address and port; None where it has no place there."""
        if port.protocol is Protocol.UDP or service.external_name:
            return None
        address = self._view.address(service)
        if port.protocol.is_http:
            key = (bind or UNSPECIFIED, port.number)
            found = self._entries.get(key)
            if found is None or (port.protocol is Protocol.HTTP_PROXY and not found.locked):  # a forward proxy replaces what was there
                return self._http_entry(listener, service, port, bind)
            if found.locked or found.kind != "TCP":
                return found
            if found.keeps_out(port.protocol):
                return None
            found.kind = "AUTO"
            found.http, found.http_position = self._http(listener, service, port, found.bind), len(found.chains)
            return found
        cidr = address if not bind and byte_chains.is_range(address) else ""
        where = bind or (address if byte_chains.has_address(address) else UNSPECIFIED)
        made = self._chains(listener, service, port, cidr, vip=where != UNSPECIFIED)
        auto = port.protocol is Protocol.AUTO
        key = (where, port.number)
        found = self._entries.get(key)
        if found is None:
            found = self._entries[key] = _Entry(where, port.number, "AUTO" if auto else "TCP", protocol=port.protocol)
            found.chains, found.taken = list(made), {c.key for c in made}
            if auto:
                found.http, found.http_position = self._http(listener, service, port, where), len(made)
            return found
        if found.locked:
            return found if bind or listener.port is not None else None
        if found.keeps_out(port.protocol):
            return None
        if found.kind == "HTTP" or (auto and found.kind == "TCP"):
            found.kind = "AUTO"
        found.add(made)
        if found.http is None and auto:
            found.http, found.http_position = self._http(listener, service, port, where), len(found.chains)
        return found

    def _chains(self, listener: EgressListener, service: Service, port: Port, cidr: str, *, vip: bool) -> list[Chain]:
        place = byte_chains.Place(cidr, vip, port.number)
        relevant = listener.by_host.matching(service.hostname)
        reasons = byte_chains.reasons(self._view, service, relevant)
        key = (port, place, self._view.index.same("Telemetry"), *reasons)
        return self._memory.recall(key, lambda: byte_chains.chains(self._view, service, port, relevant, place, self._around))

    def _http_entry(self, listener: EgressListener, service: Service, port: Port, bind: str) -> _Entry:
        where = bind or UNSPECIFIED
        entry = _Entry(where, port.number, "HTTP", protocol=port.protocol)
        entry.http = self._http(listener, service, port, where)
        self._entries[where, port.number] = entry
        return entry

    def _http(self, listener: EgressListener, service: Service, port: Port, bind: str) -> _Http:
        """Route names: the port, the Unix path, or `<host>:<port>` at a service's own address where the protocol is found out."""
        source = service.resource.at()
        on_demand = service.hostname if service.resolution == DYNAMIC_DNS else ""
        auto = port.protocol is Protocol.AUTO
        if bind.startswith("unix://"):
            return _Http(bind.removeprefix("unix://"), 0, listener, source=source, on_demand=on_demand, sniffed=auto)
        if auto and bind != UNSPECIFIED:
            return _Http(f"{service.hostname}:{port.number}", port.number, listener, service, port, source, sniffed=True)
        sniffed = bind == UNSPECIFIED and port.protocol is not Protocol.HTTP_PROXY
        number = 0 if _proxies(listener) else port.number
        return _Http(str(port.number), number, listener, source=source, on_demand=on_demand, sniffed=sniffed)

    # writing down

    def _listener(self, entry: _Entry) -> Listener:
        view = self._view
        unix = entry.bind.startswith("unix://")
        chains: list[FilterChain] = []
        default: FilterChain | None = None
        for chain in entry.chains:
            made = FilterChain(filters=chain.filters, metadata=chain.metadata)
            if chain.sni or chain.subnets:
                made.filter_chain_match = FilterChainMatch(server_names=chain.sni, prefix_ranges=[_cidr(s) for s in chain.subnets])
            chains.append(made)
        if entry.http is not None:
            chains.insert(entry.http_position, self._http_chain(entry, entry.http))
        everything = [c for c in chains if c.filter_chain_match is None]
        if everything and len(chains) > 1:
            default = everything[0]
            chains = [c for c in chains if c.filter_chain_match is not None]
        elif not everything:
            default = self._passthrough_chain()
        inspectors = []
        if any(_reads_sni(c) for c in [*chains, *everything]):
            inspectors.append(TLS_INSPECTOR)
        sniffs = any(c.filter_chain_match and c.filter_chain_match.application_protocols for c in chains)
        if sniffs:
            inspectors.append(HTTP_INSPECTOR)
        path = entry.bind.removeprefix("unix://")
        return Listener(
            path if unix else f"{entry.bind}_{entry.port}",
            Address(pipe=Pipe(path)) if unix else Address(SocketAddress(entry.bind, entry.port)),
            chains,
            default_filter_chain=default,
            listener_filters=inspectors,
            listener_filters_timeout=duration(seconds(view.mesh.protocol_detection_timeout)) if sniffs else "0s",
            continue_on_listener_filters_timeout=True,
            bind_to_port=None if entry.bind_to_port else False,
            traffic_direction="OUTBOUND",
            max_connections_to_accept_per_socket_event=1,
            metadata=_place(entry),
        )

    def _http_chain(self, entry: _Entry, http: _Http) -> FilterChain:
        self._route(http)
        stat_prefix = f"outbound_{http.route_name if http.port == 0 and '/' in http.route_name else f'{entry.bind}_{entry.port}'};"
        before = [self._resolving(forward_proxy_cache(http.on_demand))] if http.on_demand else []
        chain = FilterChain(filters=[self._manager(stat_prefix, http.route_name, before)])
        if http.sniffed and (entry.kind == "AUTO" or self._view.index.era.sniffs):
            chain.filter_chain_match = FilterChainMatch(transport_protocol="raw_buffer", application_protocols=SNIFFED)
        return chain

    def _manager(self, stat_prefix: str, routes: str | RouteConfiguration, before: list[HttpFilter] | None = None) -> NetworkFilter:
        view = self._view
        before = before or []
        if view.outbound_mode == "ALLOW_ANY_DYNAMIC_DNS":  # the catch-all virtual host resolves what the Host names
            before.append(self._resolving(dict(ANY_HOST_CACHE)))
        manager = connection_manager(Direction.OUTBOUND, view.mesh, stat_prefix, routes, view.access_logs.stream, before_router=before)
        return NetworkFilter(HCM_FILTER, manager)

    def _resolving(self, cache: dict[str, Json]) -> HttpFilter:
        return HttpFilter("envoy.filters.http.dynamic_forward_proxy", DynamicForwardProxyFilter(cache))

    def _route(self, http: _Http) -> None:
        if http.route_name in self._routes:
            return
        declared = (each for each in self._view.egress_listeners if http.port and each.port and each.port.number == http.port)
        listener = next(declared, http.listener)  # the Sidecar's own listener decides about a port, also where it imports nothing
        if http.service is not None and http.service_port is not None:
            made = sidecar_routes.service_configuration(self._view, self._memory, listener, http.service, http.service_port)
        else:
            port = 0 if _proxies(listener) else http.port
            made = sidecar_routes.port_configuration(self._view, self._memory, listener, http.route_name, port)
        self._routes[http.route_name] = made

    def _fallback(self) -> list[NetworkFilter]:
        """Where connections go that nobody declared."""
        cluster = BLACK_HOLE_CLUSTER
        if self._view.outbound_mode != "REGISTRY_ONLY":
            cluster = sidecar_routes.egress_proxy_cluster(self._view.egress_proxy) or PASSTHROUGH_CLUSTER
        return relay(Weighted([(cluster, 1)], cluster), Protocol.TCP, None, self._around)

    def _passthrough_chain(self) -> FilterChain:
        return FilterChain(PASSTHROUGH_CHAIN, FilterChainMatch(), self._fallback())

    def _http_proxy(self, listener: EgressListener, port: int) -> Listener:
        """`proxyHttpPort`: a forward proxy for applications that are told of it."""
        http = _Http("http_proxy", 0, listener)
        self._route(http)
        manager = self._manager("http_proxy", "http_proxy")
        assert isinstance(manager.typed_config, HttpConnectionManager)
        manager.typed_config.http_protocol_options = Http1ProtocolOptions(allow_absolute_url=True)
        return Listener(
            f"127.0.0.1_{port}",
            Address(SocketAddress("127.0.0.1", port)),
            [FilterChain(filters=[manager])],
            traffic_direction="OUTBOUND",
            listener_filters_timeout="0s",
            continue_on_listener_filters_timeout=True,
        )

    def _virtual_outbound(self) -> Listener:
        view = self._view
        port = view.mesh.proxy_listen_port
        loop = relay(Weighted([(BLACK_HOLE_CLUSTER, 1)], BLACK_HOLE_CLUSTER), Protocol.TCP, None, Surroundings())
        chains = [FilterChain("virtualOutbound-blackhole", FilterChainMatch(destination_port=port), loop)]
        dynamic = view.outbound_mode == "ALLOW_ANY_DYNAMIC_DNS"
        if dynamic:
            name = "virtualOutbound-catchall-tcp-http"
            routes = RouteConfiguration(ANY_HOST_ROUTES, [sidecar_routes._catch_all(view)], validate_clusters=False)
            match = FilterChainMatch(application_protocols=SNIFFED)
            chains.append(FilterChain(name, match, [self._manager(f"outbound_{VIRTUAL_OUTBOUND}_{ANY_HOST_ROUTES};", routes)]))
        chains.append(FilterChain("virtualOutbound-catchall-tcp", None, self._fallback()))
        return Listener(
            VIRTUAL_OUTBOUND,
            Address(SocketAddress(UNSPECIFIED, port)),
            chains,
            listener_filters=[HTTP_INSPECTOR] if dynamic else [],
            use_original_dst=True,
            traffic_direction="OUTBOUND",
            max_connections_to_accept_per_socket_event=1,
            access_log=list(view.access_logs.listener),
        )


def _place(entry: _Entry) -> Metadata | None:
    """The service that came first; the listener is there because of it."""
    if entry.http is not None and entry.http.source:
        return Metadata({"meshsim": {"source": entry.http.source}})
    if entry.chains and entry.chains[0].metadata:
        return Metadata({"meshsim": entry.chains[0].metadata.filter_metadata.get("meshsim", {})})
    return None


def _cidr(text: str) -> CidrRange:
    address, _, length = text.partition("/")
    return CidrRange(address, int(length) if length else 32)

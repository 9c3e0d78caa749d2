"""What a sidecar does with connections to its own pod: the `virtualInbound` listener and the clusters behind it.

How this works: every port on which a Service reaches the pod (or, with a Sidecar that has `ingress`, every port listed
there) gets filter chains by what the client may speak: mesh TLS, plaintext, HTTP or not. The table `CHAINS` has them by
PeerAuthentication mode and by how the port is declared. Ports nobody declared share the passthrough chains, which go to
where the connection was going anyway.

Clients of the mesh say who they are by ALPN, so that PERMISSIVE can tell mesh TLS from an application's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from meshsim.control import connection_pool, retries, sds
from meshsim.control.connection_manager import HCM_FILTER, Direction, connection_manager
from meshsim.control.downstream_tls import ALPN_HTTP, ALPN_TCP_MESH, VERSIONS
from meshsim.control.protocols import Protocol
from meshsim.control.tcp_filters import TCP_PROXY, Surroundings, Weighted, relay
from meshsim.control.view import View
from meshsim.resources import message
from meshsim.resources.destination_rule import ConnectionPoolSettings
from meshsim.resources.mesh_config import MeshConfig
from meshsim.resources.sidecar import IstioIngressListener
from meshsim.xds.cluster import (
    BindConfig,
    Cluster,
)
from meshsim.xds.endpoint import ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints
from meshsim.xds.http_connection_manager import Http2ProtocolOptions
from meshsim.xds.listener import (
    FilterChain,
    FilterChainMatch,
    HttpInspector,
    Listener,
    ListenerFilter,
    NetworkFilter,
    OriginalDst,
    TlsInspector,
)
from meshsim.xds.message import Address, Metadata, Pipe, SocketAddress, StringMatcher, duration
from meshsim.xds.route import (
    Decorator,
    MaxStreamDuration,
    Route,
    RouteAction,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
)
from meshsim.xds.tcp_proxy import TcpProxy
from meshsim.xds.tls import (
    CertificateValidationContext,
    CombinedValidationContext,
    CommonTlsContext,
    DownstreamTlsContext,
    TlsParameters,
    TransportSocket,
)

VIRTUAL_INBOUND = "virtualInbound"
CATCH_ALL_HTTP = "virtualInbound-catchall-http"
BLACKHOLE_CHAIN = "virtualInbound-blackhole"
PASSTHROUGH_CLUSTER = "InboundPassthroughCluster"
BLACK_HOLE_CLUSTER = "BlackHoleCluster"
WILDCARD = "0.0.0.0"
LOCALHOST = "127.0.0.1"
OWN_SOURCE = "127.0.0.6"  # iptables lets connections from here through to the application
FOREVER = "9223372035s"

MESH_HTTP = ["istio-http/1.0", "istio-http/1.1", "istio-h2"]
MESH_TCP = ["istio-peer-exchange", "istio"]
MESH_ALL = ["istio", "istio-peer-exchange", *MESH_HTTP]
PLAIN_HTTP = ["http/1.1", "h2c"]
CIPHERS = [
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-GCM-SHA256",
]


@dataclass(frozen=True, slots=True)
class Kind:
    """One filter chain of a port: which connections it takes, and what it takes them for."""

    http: bool
    transport: str = "raw_buffer"
    alpn: tuple[str, ...] = ()
    terminate: bool = False


_PLAIN = {"http": [Kind(True)], "tcp": [Kind(False)], "auto": [Kind(True, alpn=tuple(PLAIN_HTTP)), Kind(False)]}
CHAINS: dict[str, dict[str, list[Kind]]] = {
    "STRICT": {
        "http": [Kind(True, "tls", terminate=True)],
        "tcp": [Kind(False, "tls", terminate=True)],
        "auto": [Kind(True, "tls", tuple(MESH_HTTP), terminate=True), Kind(False, "tls", terminate=True)],
    },
    "PERMISSIVE": {
        "http": [Kind(True, "tls", tuple(MESH_ALL), terminate=True), Kind(True)],
        "tcp": [Kind(False, "tls", tuple(MESH_ALL), terminate=True), Kind(False, "tls"), Kind(False)],
        "auto": [
            Kind(True, "tls", tuple(MESH_HTTP), terminate=True),
            Kind(True, alpn=tuple(PLAIN_HTTP)),
            Kind(False, "tls", tuple(MESH_TCP), terminate=True),
            Kind(False),
            Kind(False, "tls"),
        ],
    },
    "DISABLE": _PLAIN,
}


@dataclass(frozen=True, slots=True)
class InboundPort:
    """A port of the pod as its sidecar serves it. `number` is the service's, `target` the pod's own (0: passthrough)."""

    number: int
    target: int
    protocol: Protocol
    hostname: str = ""
    bind: str = WILDCARD
    binds: bool = False
    endpoint: tuple[str, int] | None = None
    config: str = ""
    source: str = ""

    @property
    def cluster(self) -> str:
        return f"inbound|{self.target}||" if self.target or self.hostname else PASSTHROUGH_CLUSTER

    @property
    def passthrough(self) -> bool:
        return self.cluster == PASSTHROUGH_CLUSTER

    @property
    def chain_name(self) -> str:
        return f"{self.bind}_{self.target}"

    @property
    def declared(self) -> str:
        """The column of `CHAINS`."""
        return "http" if self.protocol.is_http else "auto" if self.protocol is Protocol.AUTO else "tcp"


def inbound_listeners(view: View) -> list[Listener]:
    """`virtualInbound`, then the listeners that a Sidecar's `captureMode: NONE` makes of their own."""
    ports = inbound_ports(view)
    own = [_listener(view, f"{p.bind}_{p.target}", p.bind, p.target, _chains(view, p), binds=True) for p in ports if p.binds]
    chains = [_blackhole(view), *_passthrough_chains(view, ports)]
    chains += [chain for p in ports if not p.binds for chain in _chains(view, p)]
    return [_listener(view, VIRTUAL_INBOUND, WILDCARD, view.mesh.proxy_inbound_listen_port, chains, binds=False), *own]


def inbound_clusters(view: View) -> list[Cluster]:
    """The application itself, port by port, and the passthrough to ports nobody declared."""
    localhost = view.mesh.inbound_traffic_policy.mode == "LOCALHOST"
    out = []
    for port in inbound_ports(view):
        endpoint = port.endpoint or ((LOCALHOST, port.target) if localhost and not port.config else None)
        cluster = _cluster(view, port.cluster, port.protocol, endpoint)
        policy = view.inbound_policy(port.target, port.number)
        connection_pool.apply(cluster, view.mesh, _own_pool(view, port.target) or policy.connection_pool, policy.retry_budget)
        connection_pool.complete(cluster)
        out.append(cluster)
    passthrough = _cluster(view, PASSTHROUGH_CLUSTER, Protocol.AUTO, None)
    connection_pool.as_it_comes(passthrough)
    unset = view.mesh.default_traffic_policy
    connection_pool.apply(passthrough, view.mesh, unset.connection_pool if unset else None)
    return [*out, passthrough]


def _own_pool(view: View, port: int) -> ConnectionPoolSettings | None:
    """What the workload's Sidecar says of connections to its application: for the port, else for all."""
    if view.sidecar is None:
        return None
    spec = view.sidecar.spec
    own = (each.connection_pool for each in spec.ingress if each.port is not None and each.port.number == port)
    return next((pool for pool in own if pool is not None), spec.inbound_connection_pool)


def inbound_ports(view: View) -> list[InboundPort]:
    """By target port; the oldest Service decides about a port that several reach."""
    found: dict[int, InboundPort] = {}
    if view.sidecar is not None and view.sidecar.spec.ingress:
        for index, listener in enumerate(view.sidecar.spec.ingress):
            if listener.port is not None:
                found.setdefault(listener.port.number, _declared(view, index, listener, listener.port.number))
    else:
        for target in view.targets:
            found.setdefault(target.target_port, InboundPort(target.port, target.target_port, target.protocol, target.hostname))
    return [found[number] for number in sorted(found)]


def _declared(view: View, index: int, listener: IstioIngressListener, number: int) -> InboundPort:
    assert view.sidecar is not None and listener.port is not None
    name, namespace = view.sidecar.name, view.sidecar.namespace
    host, _, port = listener.default_endpoint.rpartition(":")
    endpoint = None
    if port.isdigit():
        endpoint = (view.proxy.ip if host == WILDCARD else host, int(port))
    elif listener.default_endpoint:
        endpoint = (listener.default_endpoint, 0)  # unix://
    return InboundPort(
        number,
        number,
        Protocol.parse(listener.port.protocol),
        f"{name}.{namespace}",
        listener.bind or view.proxy.ip,
        listener.capture_mode == "NONE",
        endpoint,
        f"/apis/networking.istio.io/v1/namespaces/{namespace}/sidecar/{name}",
        view.sidecar.at("ingress", index),
    )


def _mode(view: View, port: int) -> str:
    return view.index.peer_authentication(view.namespace, dict(view.proxy.labels), port)


def _passthrough_chains(view: View, ports: list[InboundPort]) -> list[FilterChain]:
    """For every undeclared port, and apart from them each one that a PeerAuthentication names."""
    declared = {p.target for p in ports}
    named = sorted(port for port in _ports_named_by_policies(view) if port not in declared)
    chains = _chains(view, InboundPort(0, 0, Protocol.AUTO))
    for port in named:
        chains += _chains(view, InboundPort(0, 0, Protocol.AUTO), match_port=port)
    return chains


def _ports_named_by_policies(view: View) -> Iterable[int]:
    """The ports of the policy that selects this workload: the oldest one."""
    for policy in view.index.of("PeerAuthentication"):
        selector: Mapping[str, str] = policy.spec.selector.match_labels if policy.spec.selector else {}
        if policy.namespace == view.namespace != view.index.root and selector and selector.items() <= view.proxy.labels.items():
            return [int(port) for port in policy.spec.port_level_mtls]
    return []


def _blackhole(view: View) -> FilterChain:
    """A connection to the listener's own port would come back to it for ever."""
    proxy = TcpProxy(stat_prefix=BLACK_HOLE_CLUSTER, cluster=BLACK_HOLE_CLUSTER)
    match = FilterChainMatch(destination_port=view.mesh.proxy_inbound_listen_port)
    return FilterChain(BLACKHOLE_CHAIN, match, [NetworkFilter(TCP_PROXY, proxy)])


def _chains(view: View, port: InboundPort, match_port: int = 0) -> list[FilterChain]:
    match_port = match_port or port.target
    mode = _mode(view, match_port)
    out = []
    for kind in CHAINS[mode][port.declared]:
        name = port.chain_name
        if port.passthrough:
            name = CATCH_ALL_HTTP if kind.http else VIRTUAL_INBOUND
        match = FilterChainMatch(
            destination_port=match_port or None, transport_protocol=kind.transport, application_protocols=list(kind.alpn)
        )
        socket = TransportSocket("envoy.transport_sockets.tls", _tls(view.mesh, kind.http)) if kind.terminate else None
        filters = [_manager(view, port)] if kind.http else _relay(view, port)
        out.append(FilterChain(name, match, filters, socket, metadata=_metadata(port)))
    return out


def _metadata(port: InboundPort) -> Metadata | None:
    return Metadata({"istio": {"config": port.config}, "meshsim": {"source": port.source}}) if port.config else None


def _manager(view: View, port: InboundPort) -> NetworkFilter:
    prefix = PASSTHROUGH_CLUSTER if port.passthrough else f"inbound_{port.chain_name}"
    manager = connection_manager(
        Direction.INBOUND,
        view.mesh,
        f"{prefix};",
        _routes(port),
        view.inbound_access_logs.stream,
        view.authorization.http_filters(),
    )
    if port.protocol.is_http2:
        manager.http2_protocol_options = Http2ProtocolOptions()
    return NetworkFilter(HCM_FILTER, manager)


def _routes(port: InboundPort) -> RouteConfiguration:
    grpc = port.protocol in (Protocol.GRPC, Protocol.GRPC_WEB)
    action = RouteAction(
        cluster=port.cluster,
        timeout="0s",
        max_stream_duration=MaxStreamDuration(max_stream_duration="0s", grpc_timeout_header_max="0s"),
        retry_policy=retries.inbound(grpc),
    )
    route = Route(RouteMatch(prefix="/"), "default", route=action, decorator=Decorator(f"{port.hostname}:{port.number}/*"))
    return RouteConfiguration(port.cluster, [VirtualHost(f"inbound|http|{port.number}", ["*"], [route])], validate_clusters=False)


def _relay(view: View, port: InboundPort) -> list[NetworkFilter]:
    around = Surroundings(view.inbound_access_logs.stream, view.authorization.network_filters())
    return relay(Weighted([(port.cluster, 1)], port.cluster), port.protocol, None, around)


def _tls(mesh: MeshConfig, http: bool) -> DownstreamTlsContext:
    """Mesh TLS: the client must show a certificate of the mesh's own trust domain or one of its aliases."""
    domains = [mesh.trust_domain, *mesh.trust_domain_aliases]
    for authority in mesh.ca_certificates:
        domains += authority.get("trustDomains", [])
    settings = mesh.mesh_m_tls
    minimum = "TLSv1_3" if settings and VERSIONS.get(settings.min_protocol_version) == "TLSv1_3" else "TLSv1_2"
    peers = [StringMatcher(prefix=f"spiffe://{domain}/") for domain in dict.fromkeys(domains) if domain]
    return DownstreamTlsContext(
        CommonTlsContext(
            tls_params=TlsParameters(minimum, "TLSv1_3", list((settings and settings.cipher_suites) or CIPHERS)),
            tls_certificate_sds_secret_configs=[sds.agent_secret(sds.WORKLOAD)],
            combined_validation_context=CombinedValidationContext(
                CertificateValidationContext(match_subject_alt_names=peers), sds.agent_secret(sds.ROOT)
            ),
            alpn_protocols=list(ALPN_HTTP if http else ALPN_TCP_MESH),
        ),
        require_client_certificate=True,
    )


def _listener(view: View, name: str, bind: str, port: int, chains: list[FilterChain], binds: bool) -> Listener:
    filters = [] if binds else [ListenerFilter("envoy.filters.listener.original_dst", OriginalDst())]
    tls, http = _inspected(chains)
    if any(tls.values()):
        filters.append(ListenerFilter("envoy.filters.listener.tls_inspector", TlsInspector(), _tls_predicate(tls)))
    if any(http.values()):
        disabled = _ports([p for p, needed in sorted(http.items()) if not needed])
        filters.append(ListenerFilter("envoy.filters.listener.http_inspector", HttpInspector(), disabled))
    return Listener(
        name,
        Address(SocketAddress(bind, port)),
        chains,
        listener_filters=filters,
        listener_filters_timeout=duration(message.seconds(view.mesh.protocol_detection_timeout)),
        continue_on_listener_filters_timeout=True,
        traffic_direction="INBOUND",
        max_connections_to_accept_per_socket_event=1,
        access_log=list(view.inbound_access_logs.listener),
    )


def _inspected(chains: list[FilterChain]) -> tuple[dict[int, bool], dict[int, bool]]:
    """By destination port (0: any other) whether TLS and HTTP must be looked for."""
    tls: dict[int, bool] = {}
    http: dict[int, bool] = {}
    for chain in chains:
        match = chain.filter_chain_match or FilterChainMatch()
        port = match.destination_port or 0
        tls[port] = tls.get(port, False) or match.transport_protocol == "tls"
        http[port] = http.get(port, False) or not set(PLAIN_HTTP).isdisjoint(match.application_protocols)
    return tls, http


def _tls_predicate(needed: dict[int, bool]) -> dict[str, object] | None:
    """Where the inspector is off: ports that do not need it, or, if undeclared ones do not, all but those that do."""
    if needed.get(0):
        return _ports([p for p, yes in sorted(needed.items()) if p and not yes])
    wanted = _ports([p for p, yes in sorted(needed.items()) if p and yes])
    return {"not_match": wanted} if wanted else None


def _ports(ports: list[int]) -> dict[str, object] | None:
    ranges: list[dict[str, object]] = [{"destination_port_range": {"start": p, "end": p + 1}} for p in ports]
    if not ranges:
        return None
    return ranges[0] if len(ranges) == 1 else {"or_match": {"rules": ranges}}


def _cluster(view: View, name: str, protocol: Protocol, endpoint: tuple[str, int] | None) -> Cluster:
    """Where no endpoint is named, the connection goes where it was going, from an address that is not captured again."""
    cluster = Cluster(name, connect_timeout=duration(message.seconds(view.mesh.connect_timeout)))
    connection_pool.speak(cluster, protocol, sniffs=True)
    if endpoint is None:
        cluster.type, cluster.lb_policy = "ORIGINAL_DST", "CLUSTER_PROVIDED"
        cluster.cleanup_interval = None if name == PASSTHROUGH_CLUSTER else FOREVER
    else:
        host, port = endpoint
        unix = host.startswith("unix://")
        address = Address(pipe=Pipe(host.removeprefix("unix://"))) if unix else Address(SocketAddress(host, port))
        cluster.type = "STATIC"
        cluster.load_assignment = ClusterLoadAssignment(name, [LocalityLbEndpoints(lb_endpoints=[LbEndpoint(Endpoint(address))])])
    if endpoint is None or endpoint[0] != LOCALHOST:
        cluster.upstream_bind_config = BindConfig(SocketAddress(OWN_SOURCE, 0))
    return cluster

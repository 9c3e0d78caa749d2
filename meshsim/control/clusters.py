"""Clusters: for every service a proxy sees one per port, and one per port and subset.

How this works: `clusters(view)` walks the services; `_Builder` makes one cluster from a service, a port, a subset and the policy
in force there, in the order istiod applies it: type and endpoints, HTTP options, pools and outliers, load balancer, TLS. Names
and the `istio` metadata are Istio's own, since people search for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any as Json

from meshsim.control import connection_pool, upstream_tls
from meshsim.control import endpoints as control_endpoints
from meshsim.control.destination_rules import Policy
from meshsim.control.endpoints import known, load_assignment, select
from meshsim.control.load_balancing import apply_load_balancer
from meshsim.control.memory import Memory
from meshsim.control.protocols import Protocol
from meshsim.control.services import (
    ALIAS,
    CLIENT_SIDE_LB,
    DNS_LB,
    DNS_ROUND_ROBIN_LB,
    DYNAMIC_DNS,
    PASSTHROUGH,
    Port,
    Service,
)
from meshsim.control.view import View
from meshsim.resources.destination_rule import OutlierDetection as OutlierSettings
from meshsim.resources.message import seconds
from meshsim.xds.cluster import (
    Cluster,
    ClusterType,
    CommonLbConfig,
    DynamicForwardProxyCluster,
    EdsClusterConfig,
    ErrorMatching,
    OriginalDstLbConfig,
    OutlierDetection,
    UpstreamHttpProtocolOptions,
)
from meshsim.xds.endpoint import ClusterLoadAssignment, LocalityLbEndpoints
from meshsim.xds.message import ConfigSource, Empty, Metadata, Percent, duration
from meshsim.xds.tls import (
    InnerTransportSocket,
    ProxyProtocolConfig,
    ProxyProtocolUpstreamTransport,
    RawBuffer,
    TransportSocket,
    UpstreamTlsContext,
)

PASSTHROUGH_CLUSTER, BLACK_HOLE_CLUSTER = "PassthroughCluster", "BlackHoleCluster"
ANY_HOST_ROUTES, DYNAMIC_DNS_CLUSTER = "allow_any_dynamic_dns", "AllowAnyDynamicDNSCluster"
LOOP = "resolution NONE leads a gateway to the address that the connection came for, which is the gateway's own: a loop"
_ON_DEMAND = (Protocol.HTTP, Protocol.HTTP2, Protocol.GRPC, Protocol.TLS)  # which say a name that can be resolved
_TYPES = {CLIENT_SIDE_LB: "EDS", DNS_LB: "STRICT_DNS", DNS_ROUND_ROBIN_LB: "LOGICAL_DNS", PASSTHROUGH: "ORIGINAL_DST"}


def name(service: Service | str, port: int, subset: str = "") -> str:
    """`outbound|443||edition.cnn.com`, the name that routes and statistics use."""
    return f"outbound|{port}|{subset}|{service if isinstance(service, str) else service.hostname}"


def sni_name(service: Service | str, port: int, subset: str = "") -> str:
    """The same as a server name: `outbound_.443_._.edition.cnn.com`."""
    return f"outbound_.{port}_.{subset}_.{service if isinstance(service, str) else service.hostname}"


Made = tuple[Cluster, ClusterLoadAssignment | None]


def clusters(view: View) -> tuple[list[Cluster], list[ClusterLoadAssignment]]:
    """A proxy's outbound clusters in istiod's order, and the endpoints of those that take them from EDS."""
    index = view.index
    services = index.memory.token(("services", view.proxy.namespace, view.proxy.name), view.services)
    reasons = (services, index.registry, index.rules, index.same("PeerAuthentication"), index.same("Gateway"), view.sidecar)
    return view.stage("clusters", reasons, lambda memory: _clusters(view, memory))


def _clusters(view: View, memory: Memory) -> tuple[list[Cluster], list[ClusterLoadAssignment]]:
    made: dict[str, Cluster] = {}
    assignments: dict[str, ClusterLoadAssignment] = {}
    for cluster, assignment in _of_services(view, memory):
        if cluster.name not in made:
            made[cluster.name] = cluster
            if assignment is not None:
                assignments[cluster.name] = assignment
    if view.servers.relays_by_sni:
        for cluster, assignment in _sni_clusters(view):
            made.setdefault(cluster.name, cluster)
            if assignment is not None:
                assignments.setdefault(cluster.name, assignment)
    made[BLACK_HOLE_CLUSTER] = _black_hole(view)
    if view.proxy.is_sidecar:
        made[PASSTHROUGH_CLUSTER] = _passthrough(view)
        if view.outbound_mode == "ALLOW_ANY_DYNAMIC_DNS":
            made[DYNAMIC_DNS_CLUSTER] = _dynamic_dns(view)
    return list(made.values()), list(assignments.values())


def _of_services(view: View, memory: Memory) -> Iterator[Made]:
    """Those of a service depend on who defines its host, on its rule, and on who answers with mTLS."""
    index, authentication = view.index, view.index.same("PeerAuthentication")
    for service in view.services:
        if service.resolution != ALIAS:
            definitions = index.registry.definitions[service.key]
            reasons = (service.origin, view.destination_rule(service), authentication, *definitions, *service.ports)
            yield from memory.recall(reasons, partial(_of_service, view, service))


def _of_service(view: View, service: Service) -> list[Made]:
    on_demand = service.resolution == DYNAMIC_DNS
    able = [p for p in service.ports if p.protocol is not Protocol.UDP and (not on_demand or p.protocol in _ON_DEMAND)]
    return [made for port in able for made in _Builder(view, service, port).build()]


class _Builder:
    """The clusters of one service port."""

    def __init__(self, view: View, service: Service, port: Port):
        self._view, self._service, self._port = view, service, port
        self._rule = view.destination_rule(service)

    def build(self) -> Iterator[Made]:
        made = self._cluster("", None)
        if made is not None:
            yield made
        if self._rule is None or self._service.resolution == DYNAMIC_DNS:
            return  # what is resolved on demand has no subsets
        for subset, _ in self._rule.subsets:
            made = self._cluster(subset.name, subset.labels)
            if made is not None:
                yield made

    def _cluster(self, subset: str, labels: dict[str, str] | None) -> Made | None:
        view, service, port = self._view, self._service, self._port
        policy = view.policy(service, port.number, subset)
        kind = self._type(policy, subset)
        chosen = known(service, select(view, service, port, labels, by_name=kind == "EDS"), policy)
        cluster_name = name(service, port.number, subset)
        cluster = Cluster(
            name=cluster_name, alt_stat_name=cluster_name + ";", type=kind, connect_timeout=duration(seconds(view.mesh.connect_timeout))
        )
        cluster.metadata = self._metadata(subset)
        assignment = None
        if kind in ("STRICT_DNS", "LOGICAL_DNS"):
            if not chosen:
                return None
            _dns(cluster, view)
            if service.race_first_connect:
                cluster.dns_lookup_family = "ALL"
            cluster.load_assignment = load_assignment(view, cluster_name, chosen, policy)
        elif kind == "EDS":
            source = ConfigSource(ads=Empty(), initial_fetch_timeout="0s", resource_api_version="V3")
            cluster.eds_cluster_config = EdsClusterConfig(source, cluster_name)
            assignment = load_assignment(view, cluster_name, chosen, policy)
        elif kind == "ORIGINAL_DST":
            cluster.lb_policy = "CLUSTER_PROVIDED"
            if service.resolution in (DNS_LB, DNS_ROUND_ROBIN_LB):
                _dns(cluster, view)  # left over from before a rule asked for PASSTHROUGH
            if service.resolution == PASSTHROUGH and isinstance(port.target, int) and port.target and not service.is_kubernetes:
                cluster.original_dst_lb_config = OriginalDstLbConfig(upstream_port_override=port.target)
        elif kind == "":
            cluster.lb_policy = "CLUSTER_PROVIDED"
            cluster.cluster_type = _forward_proxy(service.hostname)
        self._http(cluster, policy)
        _outlier(cluster, policy.outlier_detection)
        if kind:
            cluster.common_lb_config = cluster.common_lb_config or CommonLbConfig()
            health = policy.outlier_detection.min_health_percent if policy.outlier_detection and not service.distribution else 0
            cluster.common_lb_config.healthy_panic_threshold = Percent(health)
        apply_load_balancer(view, service, cluster, assignment, policy, chosen)
        self._tls(cluster, policy, subset)
        connection_pool.complete(cluster)
        if policy.proxy_protocol is not None:
            _proxy_protocol(cluster, policy.proxy_protocol.version)
        return cluster, assignment

    def for_sni(self) -> Iterator[Made]:
        """The clusters an AUTO_PASSTHROUGH server relays to, named as the SNI is."""
        view, service, port = self._view, self._service, self._port
        wanted = [("", None), *((s.name, s.labels) for s, _ in self._rule.subsets)] if self._rule else [("", None)]
        for subset, labels in wanted:
            policy = view.policy(service, port.number, subset)
            cluster_name = sni_name(service, port.number, subset)
            cluster = Cluster(
                name=cluster_name,
                alt_stat_name=cluster_name + ";",
                type="EDS",
                connect_timeout=duration(seconds(view.mesh.connect_timeout)),
                metadata=self._metadata(subset),
            )
            by_dns = service.resolution in (DNS_LB, DNS_ROUND_ROBIN_LB)
            chosen = known(service, select(view, service, port, labels, by_name=not by_dns), policy)
            passes = self._type(policy, subset) == "ORIGINAL_DST"
            if by_dns and not chosen and not passes:
                continue
            able = [e for e in chosen if control_endpoints.speaks_mesh_tls(view, e, policy)]
            assignment = load_assignment(view, cluster_name, able, policy)
            if chosen and not able:
                assignment.endpoints = [LocalityLbEndpoints()]
            if by_dns:
                _dns(cluster, view)
            if passes:
                cluster.type, cluster.lb_policy = "ORIGINAL_DST", "CLUSTER_PROVIDED"
            elif by_dns:
                cluster.type, cluster.load_assignment = _TYPES[service.resolution], assignment
            else:
                source = ConfigSource(ads=Empty(), initial_fetch_timeout="0s", resource_api_version="V3")
                cluster.eds_cluster_config = EdsClusterConfig(source, cluster_name)
            self._http(cluster, policy)
            _outlier(cluster, policy.outlier_detection)
            apply_load_balancer(view, service, cluster, assignment, policy, able)
            if policy.tls is not None and policy.tls.mode in ("SIMPLE", "MUTUAL"):
                _alpn_override(cluster)
            connection_pool.complete(cluster)
            yield cluster, None if by_dns or passes else assignment

    def _type(self, policy: Policy, subset: str) -> str:
        """How the cluster finds its hosts; "" for the dynamic forward proxy."""
        service = self._service
        if service.resolution == DYNAMIC_DNS:
            return ""
        own = self._rule.subset(subset) if self._rule and subset else None
        base = self._view.policy(service, self._port.number)
        # Neither can a subset take this back for itself, nor its port for the subset.
        said = (policy, base, own.traffic_policy if own else None)
        if any(each and each.load_balancer and each.load_balancer.simple == "PASSTHROUGH" for each in said):
            return "ORIGINAL_DST"
        kind = _TYPES[service.resolution]
        if kind == "ORIGINAL_DST" and not self._view.proxy.is_sidecar and self._view.index.era.gateways_resolve:
            return "EDS"
        if kind == "STRICT_DNS" and service.race_first_connect:
            return "LOGICAL_DNS"
        return kind

    def _metadata(self, subset: str) -> Metadata:
        service, rule = self._service, self._rule
        istio: dict[str, Json] = {}
        if rule is not None:
            istio["config"] = rule.config_path
        if subset:
            istio["subset"] = subset
        elif service.mesh_external:
            istio["external"] = True
        istio["services"] = [{"host": service.hostname, "name": service.name, "namespace": service.namespace}]
        source = {"source": service.resource.at()}
        if subset and rule is not None:
            brought = next(r for s, r in rule.subsets if s.name == subset)
            source["source"] = brought.at("subsets", next(i for i, s in enumerate(brought.spec.subsets) if s.name == subset))
        if rule is not None:
            source["rule"] = rule.rule.at()
        if service.resolution == PASSTHROUGH and not self._view.proxy.is_sidecar:
            source["loop"] = LOOP
        return Metadata({"istio": istio, "meshsim": source})

    # HTTP

    def _http(self, cluster: Cluster, policy: Policy) -> None:
        mesh, protocol = self._view.mesh, self._port.protocol
        connection_pool.speak(cluster, protocol, sniffs=self._view.proxy.is_sidecar)
        connection_pool.upgrade(cluster, protocol, policy.connection_pool, mesh)
        connection_pool.apply(cluster, mesh, policy.connection_pool, policy.retry_budget)

    # TLS

    def _tls(self, cluster: Cluster, policy: Policy, subset: str) -> None:
        view, service = self._view, self._service
        tls, http2 = policy.tls, connection_pool.speaks_http2(cluster)
        on_demand = service.resolution == DYNAMIC_DNS
        if tls is None:
            self._automatic_tls(cluster, policy, subset, http2)
        elif tls.mode == "ISTIO_MUTUAL":
            names = tls.subject_alt_names or ([] if on_demand else self._identities())
            sni = tls.sni or ("" if on_demand else sni_name(service, self._port.number, subset))
            cluster.transport_socket = upstream_tls.socket(upstream_tls.mutual(sni, names, http2=http2))
            if on_demand:
                _follow_requests(cluster, upstream_tls.automatic_names(sni, names, bool(tls.insecure_skip_verify), on_demand=True))
        elif tls.mode in ("SIMPLE", "MUTUAL"):
            _alpn_override(cluster)
            credentials = not view.proxy.is_sidecar or (self._rule is not None and self._rule.selector is not None)
            names = [] if service.is_kubernetes or on_demand else self._identities()
            made = upstream_tls.originate(
                tls,
                names,
                view.mesh.tls_defaults,
                http2=http2,
                credentials=credentials,
                verify=view.index.era.verifies_servers,
                on_demand=on_demand,
            )
            if made is not None:
                cluster.transport_socket = upstream_tls.socket(made.context)
                _follow_requests(cluster, made.names)

    def _automatic_tls(self, cluster: Cluster, policy: Policy, subset: str, http2: bool) -> None:
        view, service, port = self._view, self._service, self._port
        if not view.mesh.enable_auto_mtls or service.mesh_external:
            return
        if view.index.peer_authentication(service.namespace) == "DISABLE":
            return
        on_demand = service.resolution == DYNAMIC_DNS
        sni, names = ("", []) if on_demand else (sni_name(service, port.number, subset), self._identities())
        context = upstream_tls.mutual(sni, names, http2=http2)
        if on_demand:
            _follow_requests(cluster, upstream_tls.automatic_names("", [], False, on_demand=True))
        if service.resolution == PASSTHROUGH or policy.passes:
            every = view.index.registry.of(service, port)
            if not every or any(e.tls_mode == "disabled" for e in every):
                return  # nobody can tell which endpoint a connection will reach
        if cluster.type == "ORIGINAL_DST":
            cluster.transport_socket = upstream_tls.socket(context)
        else:
            cluster.transport_socket_matches = upstream_tls.automatic(context)

    def _identities(self) -> list[str]:
        """Who may answer for the service: its endpoints' service accounts and the names its ServiceEntry lists."""
        return self._view.index.registry.identities(self._service)


def _sni_clusters(view: View) -> Iterator[Made]:
    """For AUTO_PASSTHROUGH servers: every service of the mesh under its SNI name, with the endpoints that speak mesh TLS, bytes
    untouched."""
    for service in view.services:
        if service.mesh_external:
            continue
        for port in service.ports:
            if port.protocol is not Protocol.UDP:
                yield from _Builder(view, service, port).for_sni()


def _follow_requests(cluster: Cluster, names: upstream_tls.Names) -> None:
    """Take SNI and the name to verify from each request; Envoy wants to be told where a cluster resolved on demand does not."""
    if names.sni or names.verified:
        connection_pool.options(cluster).upstream_http_protocol_options = UpstreamHttpProtocolOptions(names.sni, names.verified)
    if cluster.cluster_type is not None and not (names.sni and names.verified):
        assert cluster.cluster_type.typed_config is not None
        cluster.cluster_type.typed_config.allow_insecure_cluster_options = True


def _alpn_override(cluster: Cluster) -> None:
    """Tells Istio's ALPN filter to leave this cluster's protocols alone."""
    assert cluster.metadata is not None
    cluster.metadata.filter_metadata["istio"]["alpn_override"] = "false"


def _dns(cluster: Cluster, view: View) -> None:
    cluster.dns_refresh_rate = duration(seconds(view.mesh.dns_refresh_rate))
    cluster.respect_dns_ttl = True
    cluster.dns_lookup_family = "V4_ONLY"
    cluster.dns_jitter = "0.100s"


def _outlier(cluster: Cluster, settings: OutlierSettings | None) -> None:
    """Consecutive counts of 0 switch a check off; the success-rate check is always off."""
    if settings is None:
        return
    out = OutlierDetection(enforcing_success_rate=0)
    out.interval, out.base_ejection_time = connection_pool.span(settings.interval), connection_pool.span(settings.base_ejection_time)
    out.max_ejection_percent = settings.max_ejection_percent or None
    if settings.consecutive5xx_errors is not None:
        out.consecutive_5xx = settings.consecutive5xx_errors
        out.enforcing_consecutive_5xx = 0 if settings.consecutive5xx_errors == 0 else 100
    if settings.consecutive_gateway_errors is not None:
        out.consecutive_gateway_failure = settings.consecutive_gateway_errors
        out.enforcing_consecutive_gateway_failure = 0 if settings.consecutive_gateway_errors == 0 else 100
    if settings.split_external_local_origin_errors:
        out.split_external_local_origin_errors = True
        if settings.consecutive_local_origin_failures:
            out.consecutive_local_origin_failure = settings.consecutive_local_origin_failures
            out.enforcing_consecutive_local_origin_failure = 100
        out.enforcing_local_origin_success_rate = 0
    cluster.outlier_detection = out
    codes = settings.outlier_detection_http_error_codes
    if codes:
        rules: list[Json] = [
            {"http_response_headers_match": {"headers": [{"name": ":status", "string_match": {"exact": str(code)}}]}} for code in codes
        ]
        matcher = rules[0] if len(rules) == 1 else {"or_match": {"rules": rules}}
        connection_pool.options(cluster).outlier_detection = ErrorMatching(matcher)


def _proxy_protocol(cluster: Cluster, version: str) -> None:
    def wrap(inner: TransportSocket | None) -> TransportSocket:
        socket = inner or TransportSocket("raw_buffer", RawBuffer())
        context = socket.typed_config
        assert isinstance(context, UpstreamTlsContext | RawBuffer)
        inner_socket = InnerTransportSocket(socket.name, context)
        outer = ProxyProtocolUpstreamTransport(ProxyProtocolConfig(version), inner_socket)
        return TransportSocket("envoy.transport_sockets.upstream_proxy_protocol", outer)

    for match in cluster.transport_socket_matches:
        match.transport_socket = wrap(match.transport_socket)
    if not cluster.transport_socket_matches:
        cluster.transport_socket = wrap(cluster.transport_socket)


def forward_proxy_cache(hostname: str) -> dict[str, Json]:
    """The DNS cache that a wildcard host's cluster and its SNI filter share."""
    return {"name": f"{hostname}_dfp_dns_cache", "dns_lookup_family": "V4_ONLY"}


ANY_HOST_CACHE: dict[str, Json] = {"name": "allow_any_dfp_dns_cache", "dns_lookup_family": "V4_ONLY", "max_hosts": 1024}
"""The DNS cache that the cluster for any host and its HTTP filter share."""


def _forward_proxy(hostname: str) -> ClusterType:
    return ClusterType("envoy.clusters.dynamic_forward_proxy", DynamicForwardProxyCluster(forward_proxy_cache(hostname)))


def _black_hole(view: View) -> Cluster:
    return Cluster(name=BLACK_HOLE_CLUSTER, type="STATIC", connect_timeout=duration(seconds(view.mesh.connect_timeout)))


def _passthrough(view: View) -> Cluster:
    cluster = Cluster(name=PASSTHROUGH_CLUSTER, type="ORIGINAL_DST", lb_policy="CLUSTER_PROVIDED")
    connection_pool.as_it_comes(cluster)
    unset = view.mesh.default_traffic_policy
    connection_pool.apply(cluster, view.mesh, unset.connection_pool if unset else None)
    return cluster


def _dynamic_dns(view: View) -> Cluster:
    cluster = Cluster(name=DYNAMIC_DNS_CLUSTER, lb_policy="CLUSTER_PROVIDED")
    cluster.cluster_type = ClusterType(
        "envoy.clusters.dynamic_forward_proxy", DynamicForwardProxyCluster(dict(ANY_HOST_CACHE), allow_insecure_cluster_options=True)
    )
    connection_pool.as_it_comes(cluster)
    connection_pool.apply(cluster, view.mesh, None)
    return cluster

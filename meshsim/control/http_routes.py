"""HTTP rules as Envoy's routes: where a request goes and what is changed on the way, for sidecars and gateways alike.

How this works: the rules are taken in order, and each match of a rule that concerns this proxy and port becomes a route of
its own. Nothing is generated after a route that takes every request. A rule sends to clusters by name; whether the
cluster exists is found out per request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from meshsim import hosts
from meshsim.control import http_matches, retries
from meshsim.control.destination_rules import Merged
from meshsim.control.mesh_index import MESH_GATEWAY, VirtualService, gateway_name
from meshsim.control.proxy_headers import keeps_host
from meshsim.control.services import Service
from meshsim.control.virtual_services import HttpRule
from meshsim.errors import NotSimulated
from meshsim.resources import message
from meshsim.resources.destination_rule import ConsistentHash, TrafficPolicy
from meshsim.resources.mesh_config import MeshConfig
from meshsim.resources.message import Percent
from meshsim.resources.virtual_service import (
    CorsPolicy,
    Destination,
    HeaderOperations,
    Headers,
    HttpDirectResponse,
    HttpFaultInjection,
    HttpMatchRequest,
    HttpRedirect,
    HttpRouteDestination,
)
from meshsim.xds import http_filters, route
from meshsim.xds.message import (
    DataSource,
    FractionalPercent,
    HeaderValue,
    HeaderValueOption,
    Metadata,
    Regex,
    RegexRewrite,
    RuntimeFractionalPercent,
    StringMatcher,
    duration,
)

DEFAULT_ROUTE = "default"
FAULT_FILTER, CORS_FILTER = "envoy.filters.http.fault", "envoy.filters.http.cors"
REDIRECTS = {
    0: "MOVED_PERMANENTLY",
    301: "MOVED_PERMANENTLY",
    302: "FOUND",
    303: "SEE_OTHER",
    307: "TEMPORARY_REDIRECT",
    308: "PERMANENT_REDIRECT",
}
GRPC_STATUS = {
    name: code
    for code, name in enumerate(
        (
            "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
            "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE",
            "DATA_LOSS", "UNAUTHENTICATED",
        )
    )
}  # fmt: skip


@dataclass(frozen=True)
class Context:
    """For whom routes are made: a proxy, one of its ports (`port`, as VirtualServices say it), under these gateway names.

    `service` finds the service a destination means, if the proxy knows it; `rule` its DestinationRule.
    """

    port: int
    gateways: frozenset[str]
    labels: dict[str, str]
    namespace: str
    mesh: MeshConfig
    domain: str
    service: Callable[[str], Service | None]
    rule: Callable[[str], Merged | None]
    tls: bool = False


def translate(virtual_service: VirtualService, rules: Iterable[HttpRule], context: Context) -> list[route.Route]:
    """The routes of a VirtualService for one port of one proxy; empty if no rule concerns it."""
    out: list[route.Route] = []
    for rule in rules:
        if not rule.route.match:
            out.append(_route(virtual_service, rule, None, context))
            break
        for match in rule.route.match:
            if http_matches.applies(_resolved(match, rule, context), context.port, context.gateways, context.labels, context.namespace):
                out.append(_route(virtual_service, rule, match, context))
                if http_matches.is_catch_all(out[-1]):
                    return out
    return out


def default_route(cluster: str, operation: str, mesh: MeshConfig, hash_policy: list[route.HashPolicy] | None = None) -> route.Route:
    """The route of a service that no VirtualService speaks for."""
    action = route.RouteAction(
        cluster=cluster,
        timeout="0s",
        max_grpc_timeout="0s",
        retry_policy=retries.outbound(mesh.default_http_retry_policy),
        hash_policy=hash_policy or [],
    )
    return route.Route(route.RouteMatch(prefix="/"), DEFAULT_ROUTE, route=action, decorator=route.Decorator(operation))


def destination_cluster(destination: Destination | None, namespace: str, context: Context) -> str:
    """`outbound|<port>|<subset>|<host>`: the port named, else the service's only one, else the listener's."""
    return cluster_name(destination, namespace, context.domain, context.port, context.service)


def cluster_name(
    destination: Destination | None, namespace: str, domain: str, listen_port: int, lookup: Callable[[str], Service | None]
) -> str:
    """The cluster of a destination written in `namespace`. An ExternalName alias stands for what it points to."""
    if destination is None or not destination.host:
        return "UnknownService"
    host = hosts.expand_short(destination.host, namespace, domain)
    service = lookup(host)
    port = listen_port
    if destination.port is not None:
        port = destination.port.number
    elif service is not None and len(service.ports) == 1:
        port = service.ports[0].number
    if service is not None and service.external_name:
        host = service.external_name
    return f"outbound|{port}|{destination.subset}|{host}"


def config_metadata(resource: VirtualService, source: str = "") -> Metadata:
    """Which VirtualService a route comes from, as Istio says it, and where that stands in a file."""
    path = f"/apis/networking.istio.io/v1/namespaces/{resource.namespace}/virtual-service/{resource.name}"
    return Metadata({"istio": {"config": path}, "meshsim": {"source": source or resource.at()}})


def hash_policy(hashing: ConsistentHash | None) -> list[route.HashPolicy]:
    """The part of a request that picks the endpoint; empty without consistent hashing."""
    if hashing is None:
        return []
    if hashing.http_header_name is not None:
        return [route.HashPolicy(header=route.HashHeader(hashing.http_header_name))]
    if hashing.http_cookie is not None:
        cookie = hashing.http_cookie
        ttl = None if cookie.ttl is None else duration(message.seconds(cookie.ttl))
        attributes = [route.CookieAttribute(a.name, a.value) for a in cookie.attributes]
        return [route.HashPolicy(cookie=route.HashCookie(cookie.name, ttl, cookie.path, attributes))]
    if hashing.use_source_ip is not None:
        return [route.HashPolicy(connection_properties=route.HashConnection(hashing.use_source_ip))]
    if hashing.http_query_parameter_name is not None:
        return [route.HashPolicy(query_parameter=route.HashQueryParameter(hashing.http_query_parameter_name))]
    return []


def service_hash(rule: Merged | None, port: int) -> ConsistentHash | None:
    """The hashing of a service's own (default) route on a port."""
    if rule is None:
        return None
    return _port_hash(rule.policy, port) or _hash(rule.policy)


def _hash(policy: TrafficPolicy | None) -> ConsistentHash | None:
    return policy.load_balancer.consistent_hash if policy and policy.load_balancer else None


def _port_hash(policy: TrafficPolicy | None, port: int | None) -> ConsistentHash | None:
    for setting in policy.port_level_settings if policy and port is not None else []:
        if setting.port and setting.port.number == port:
            return setting.load_balancer.consistent_hash if setting.load_balancer else None
    return None


def _destination_hash(destination: Destination, namespace: str, context: Context) -> ConsistentHash | None:
    """The most particular word on hashing: the subset's for the port, the subset's, the rule's for the port, the rule's.

    The port is the one the destination names; without a name no port's settings apply.
    """
    rule = context.rule(hosts.expand_short(destination.host, namespace, context.domain))
    if rule is None:
        return None
    port = destination.port.number if destination.port else None
    found = rule.subset(destination.subset) if destination.subset else None
    subset = found.traffic_policy if found else None
    return _port_hash(subset, port) or _hash(subset) or _port_hash(rule.policy, port) or _hash(rule.policy)


def _resolved(match: HttpMatchRequest, rule: HttpRule, context: Context) -> HttpMatchRequest:
    if all(g == MESH_GATEWAY or ("/" in g and not g.startswith("./")) for g in match.gateways):
        return match
    full = [gateway_name(g, rule.origin.namespace, context.domain) for g in match.gateways]
    return HttpMatchRequest(
        port=match.port, gateways=full, source_labels=match.source_labels, source_namespace=match.source_namespace
    )


def _route(virtual_service: VirtualService, rule: HttpRule, match: HttpMatchRequest | None, context: Context) -> route.Route:
    spec = rule.route
    out = route.Route(
        http_matches.route_match(match),
        name=f"{spec.name}.{match.name}" if match and match.name else spec.name,
        metadata=config_metadata(virtual_service, rule.source),
        stat_prefix=match.stat_prefix if match else "",
    )
    authority = _apply_headers(out, spec.headers)
    if spec.redirect is not None:
        out.redirect = _redirect(spec.redirect, context)
    elif spec.direct_response is not None:
        out.direct_response = _direct_response(spec.direct_response)
    else:
        out.route = _action(out, rule, authority, context)
    out.decorator = route.Decorator(_operation(out, virtual_service.name, context.port))
    if spec.fault is not None:
        out.typed_per_filter_config[FAULT_FILTER] = _fault(spec.fault)
    if spec.cors_policy is not None:
        out.typed_per_filter_config[CORS_FILTER] = _cors(spec.cors_policy)
    return out


def _action(out: route.Route, rule: HttpRule, authority: str, context: Context) -> route.RouteAction:
    spec, namespace = rule.route, rule.origin.namespace
    timeout = duration(message.seconds(spec.timeout)) if spec.timeout is not None else "0s"
    action = route.RouteAction(timeout=timeout, max_grpc_timeout=timeout)
    if spec.rewrite is not None:
        if spec.rewrite.uri_regex_rewrite is not None:
            pattern = spec.rewrite.uri_regex_rewrite
            action.regex_rewrite = RegexRewrite(Regex(pattern.match), pattern.rewrite)
        else:
            action.prefix_rewrite = spec.rewrite.uri
        authority = spec.rewrite.authority or authority
        action.append_x_forwarded_host = keeps_host(context.mesh)
    action.host_rewrite_literal = authority
    action.request_mirror_policies = _mirrors(rule, context)
    hashed = False
    if len(spec.route) == 1:
        hashed = _single(out, action, spec.route[0], namespace, context)
    else:
        legs = [leg for leg in spec.route if leg.weight]
        action.weighted_clusters = route.WeightedCluster([_leg(leg, namespace, context) for leg in legs])
        for leg in legs:
            if leg.destination is not None:
                action.hash_policy += hash_policy(_destination_hash(leg.destination, namespace, context))
    action.retry_policy = retries.outbound(spec.retries or context.mesh.default_http_retry_policy, hashed=hashed)
    return action


def _single(out: route.Route, action: route.RouteAction, leg: HttpRouteDestination, namespace: str, context: Context) -> bool:
    """A single destination's headers go on the route, after its own; says whether it balances by hash."""
    action.cluster = destination_cluster(leg.destination, namespace, context)
    authority = _apply_headers(out, leg.headers)
    action.host_rewrite_literal = action.host_rewrite_literal or authority
    hashing = _destination_hash(leg.destination, namespace, context) if leg.destination else None
    action.hash_policy = hash_policy(hashing)
    return hashing is not None


def _leg(leg: HttpRouteDestination, namespace: str, context: Context) -> route.ClusterWeight:
    out = route.ClusterWeight(destination_cluster(leg.destination, namespace, context), leg.weight)
    out.host_rewrite_literal = _apply_headers(out, leg.headers)
    return out


def _apply_headers(out: route.Route | route.ClusterWeight, headers: Headers | None) -> str:
    """Adds header operations; returns the authority they ask for, which is no header to Envoy."""
    if headers is None:
        return ""
    request, response = headers.request or HeaderOperations(), headers.response or HeaderOperations()
    out.request_headers_to_add = [*out.request_headers_to_add, *_additions(request)]
    out.request_headers_to_remove = [*out.request_headers_to_remove, *(h for h in request.remove if not _is_internal(h))]
    out.response_headers_to_add = [*out.response_headers_to_add, *_additions(response)]
    out.response_headers_to_remove = [*out.response_headers_to_remove, *(h for h in response.remove if not _is_internal(h))]
    return _authority(request.set) or _authority(request.add)


def _additions(operations: HeaderOperations) -> list[HeaderValueOption]:
    """`set` before `add`, each by name."""
    return [
        HeaderValueOption(HeaderValue(name, value), action)
        for values, action in ((operations.set, "OVERWRITE_IF_EXISTS_OR_ADD"), (operations.add, "APPEND_IF_EXISTS_OR_ADD"))
        for name, value in sorted(values.items())
        if not _is_internal(name)
    ]


def _is_internal(name: str) -> bool:
    return name.startswith(":") or name.lower() == "host"


def _authority(values: dict[str, str]) -> str:
    return next((value for name, value in values.items() if name.lower() in (":authority", "host")), "")


def _mirrors(rule: HttpRule, context: Context) -> list[route.RequestMirrorPolicy]:
    """`mirror` (100% unless told otherwise), then `mirrors`; zero percent is none."""
    spec = rule.route
    wanted: list[tuple[Destination, FractionalPercent]] = []
    if spec.mirror is not None:
        share = FractionalPercent(100 if spec.mirror_percent is None else spec.mirror_percent)
        wanted.append((spec.mirror, _million(spec.mirror_percentage) if spec.mirror_percentage else share))
    wanted += [(m.destination, _million(m.percentage) if m.percentage else FractionalPercent(100)) for m in spec.mirrors if m.destination]
    return [
        route.RequestMirrorPolicy(
            destination_cluster(destination, rule.origin.namespace, context),
            RuntimeFractionalPercent(share),
            trace_sampled=False,
            disable_shadow_host_suffix_append=True,
        )
        for destination, share in wanted
        if share.numerator > 0
    ]


def _million(percent: Percent) -> FractionalPercent:
    return FractionalPercent(int(percent.value * 10000), "MILLION")


def _redirect(redirect: HttpRedirect, context: Context) -> route.RedirectAction | None:
    """None for a code Envoy has no name for: the route then does nothing. The scheme's own port is left out."""
    if redirect.redirect_code not in REDIRECTS:
        return None
    port = redirect.port or (context.port if redirect.derive_port == "FROM_REQUEST_PORT" else None)
    scheme = redirect.scheme or ("https" if context.tls else "http")
    if (port, scheme) in ((80, "http"), (443, "https")):
        port = None
    return route.RedirectAction(
        host_redirect=redirect.authority,
        path_redirect=None if redirect.prefix_rewrite else redirect.uri,
        prefix_rewrite=redirect.prefix_rewrite or None,
        scheme_redirect=redirect.scheme or None,
        port_redirect=port,
        response_code=REDIRECTS[redirect.redirect_code],
    )


def _direct_response(response: HttpDirectResponse) -> route.DirectResponseAction:
    body = response.body
    source = None
    if body is not None and (body.string is not None or body.bytes is not None):
        source = DataSource(inline_string=body.string, inline_bytes=body.bytes if body.string is None else None)
    return route.DirectResponseAction(response.status, source)


def _fault(fault: HttpFaultInjection) -> http_filters.HttpFault:
    out = http_filters.HttpFault()
    if fault.delay is not None:
        if fault.delay.fixed_delay is None:
            raise NotSimulated("http.fault.delay.exponentialDelay")
        share = _million(fault.delay.percentage) if fault.delay.percentage else FractionalPercent(fault.delay.percent)
        out.delay = http_filters.FaultDelay(duration(message.seconds(fault.delay.fixed_delay)), percentage=share)
    if fault.abort is not None:
        out.abort = http_filters.FaultAbort(percentage=_million(fault.abort.percentage) if fault.abort.percentage else None)
        if fault.abort.http_status is not None:
            out.abort.http_status = fault.abort.http_status
        elif fault.abort.grpc_status is not None:
            out.abort.grpc_status = GRPC_STATUS.get(fault.abort.grpc_status, 0)
        else:
            out.abort = None
    return out


def _cors(policy: CorsPolicy) -> http_filters.CorsPolicy:
    if policy.allow_origins:
        origins = [m for m in map(http_matches.string_matcher, policy.allow_origins) if m is not None]
    else:
        origins = [StringMatcher(exact=o) for o in policy.allow_origin]
    return http_filters.CorsPolicy(
        allow_origin_string_match=origins,
        allow_methods=",".join(policy.allow_methods),
        allow_headers=",".join(policy.allow_headers),
        expose_headers=",".join(policy.expose_headers),
        max_age="" if policy.max_age is None else str(int(message.seconds(policy.max_age))),
        allow_credentials=policy.allow_credentials,
        filter_enabled=RuntimeFractionalPercent(FractionalPercent(100)),
        forward_not_matching_preflights=policy.unmatched_preflights != "IGNORE",
    )


def _operation(out: route.Route, name: str, port: int) -> str:
    """What traces and `x-envoy-decorator-operation` call the route: the destination if it is one, else the VirtualService."""
    match = out.match
    path = "/*"
    if match.prefix is not None:
        path = f"{match.prefix}*"
    elif match.path is not None:
        path = match.path
    elif match.safe_regex is not None:
        path = match.safe_regex.regex
    cluster = out.route.cluster if out.route else None
    if cluster and cluster.count("|") == 3:
        _, cluster_port, _, host = cluster.split("|")
        return f"{host}:{cluster_port}{path}"
    return f"{name}:{port}{path}"

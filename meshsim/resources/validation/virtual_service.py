"""VirtualService: hosts, gateways, TLS and TCP routes (Istio: ValidateVirtualService)."""

from __future__ import annotations

from meshsim import hosts
from meshsim.resources.resource import ObjectMeta
from meshsim.resources.validation import headers, names
from meshsim.resources.validation.addresses import is_ip
from meshsim.resources.validation.golang import listing, quote
from meshsim.resources.validation.report import Report
from meshsim.resources.virtual_service import Destination, RouteDestination, TcpRoute, TlsRoute, VirtualServiceSpec

At = tuple[str | int, ...]


def virtual_service(spec: VirtualServiceSpec, meta: ObjectMeta, report: Report) -> None:
    from meshsim.resources.validation import http_route, reachability

    if not spec.hosts:
        for field, what in (("gateways", "gateways"), ("tls", "tls route"), ("tcp", "tcp route")):
            if getattr(spec, field):
                report.error(f"delegate virtual service must have no {what} specified", field)
    gateway_names(spec.gateways, report, ("gateways",))
    to_gateway = bool(spec.gateways) and "mesh" not in spec.gateways
    if not to_gateway:
        _no_claims(spec, report)
    _hosts(spec, to_gateway, report)
    if not spec.http and not spec.tcp and not spec.tls:
        report.error("http, tcp or tls must be provided in virtual service")
    for i, http in enumerate(spec.http):
        http_route.http_route(http, report, i, delegate=not spec.hosts)
    for i, tls in enumerate(spec.tls):
        _tls_route(tls, spec, report, i)
    for i, tcp in enumerate(spec.tcp):
        _tcp_route(tcp, report, i)
    names.export_to(report, meta.namespace, spec.export_to)
    reachability.http(spec.http, report)
    reachability.bytes_routes("tcp", spec.tcp, report)
    reachability.bytes_routes("tls", spec.tls, report)


def gateway_names(given: list[str], report: Report, at: At) -> None:
    """`namespace/name`, or a bare name, after which Istio looks no further."""
    for i, name in enumerate(given):
        namespace, slash, own = name.partition("/")
        if not slash:
            parts = name.split(".")
            if len(parts) > 1:
                report.warn(f"using legacy gatewayName format {quote(name)}; prefer the <namespace>/<name> format: "
                            f"{quote(f'{parts[1]}/{parts[0]}')}", *at, i)
            report.check(names.fqdn(name), *at, i)
            return
        if not namespace or not own:
            report.error("config namespace and gateway name cannot be empty", *at, i)
        if not names.is_label(namespace):
            report.error(f"invalid value for namespace: {quote(namespace)}", *at, i)
        if not names.is_label(own):
            report.error(f"invalid value for gateway name: {quote(own)}", *at, i)


def _no_claims(spec: VirtualServiceSpec, report: Report) -> None:
    for i, http in enumerate(spec.http):
        for j, match in enumerate(http.match):
            for field, given in (("headers", match.headers), ("withoutHeaders", match.without_headers)):
                for key in filter(headers.is_claim, given):
                    report.error(f"JWT claim based routing (key: {key}) is only supported for gateway, found no gateways: "
                                 f"{listing(spec.gateways)}", "http", i, "match", j, field, key)


def _hosts(spec: VirtualServiceSpec, to_gateway: bool, report: Report) -> None:
    sni = any(match.sni_hosts for tls in spec.tls for match in tls.match)
    valid = True
    for i, host in enumerate(spec.hosts):
        said = names.gateway_domain(host, sni) if to_gateway else names.wildcard_domain(host)
        if said is None and host == "*" and not to_gateway:
            said = "wildcard host * is not allowed for virtual services bound to the mesh gateway"
        elif said is not None and is_ip(host):
            said = None
        if said is not None:
            report.error(said, "hosts", i)
            valid = False
    if not valid:
        return
    for i, one in enumerate(spec.hosts):
        for j in range(i + 1, len(spec.hosts)):
            if hosts.matches(one, spec.hosts[j]):
                report.error(f"duplicate hosts in virtual service: {one} & {spec.hosts[j]}", "hosts", j)


def _tls_route(route: TlsRoute, spec: VirtualServiceSpec, report: Report, i: int) -> None:
    if not route.match:
        report.error("TLS route must have at least one match condition", "tls", i)
    for j, match in enumerate(route.match):
        at = ("tls", i, "match", j)
        if not match.sni_hosts:
            report.error("TLS match must have at least one SNI host", *at)
        for k, host in enumerate(match.sni_hosts):
            _sni_host(host, spec, report, (*at, "sniHosts", k))
        _byte_match(match.destination_subnets, match.port, match.source_labels, match.gateways, report, at)
    if not route.route:
        report.error("TLS route is required", "tls", i)
    _destinations(route.route, report, ("tls", i, "route"))


def _sni_host(host: str, spec: VirtualServiceSpec, report: Report, at: At) -> None:
    bound_to_mesh = "mesh" in spec.gateways
    said = names.wildcard_domain(host) if bound_to_mesh else names.gateway_domain(host, sni=True)
    if said is not None and is_ip(host):
        report.warn(f"using an IP address ({quote(host)}) goes against SNI spec and most clients do not support this", *at)
    elif said is not None:
        report.error(said, *at)
    elif not any(hosts.subset_of(host, allowed) for allowed in spec.hosts):
        allowed_hosts = ", ".join(spec.hosts)
        report.error(f"SNI host {quote(host)} is not a compatible subset of any of the virtual service hosts: [{allowed_hosts}]", *at)


def _tcp_route(route: TcpRoute, report: Report, i: int) -> None:
    for j, match in enumerate(route.match):
        _byte_match(match.destination_subnets, match.port, match.source_labels, match.gateways, report, ("tcp", i, "match", j), quiet=True)
    if not route.route:
        report.error("TCP route is required", "tcp", i)
    _destinations(route.route, report, ("tcp", i, "route"))


def _byte_match(
    subnets: list[str], port: int, labels: dict[str, str], gateways: list[str], report: Report, at: At, *, quiet: bool = False
) -> None:
    for i, subnet in enumerate(subnets):
        report.check(names.subnet(subnet), *at, "destinationSubnets", i)
    if port:
        report.check(names.port(port), *at, "port")
    for said, key in names.labels(labels):
        report.error(said, *at, "sourceLabels", key)
    with report.without_warnings(quiet):
        gateway_names(gateways, report, (*at, "gateways"))


def _destinations(routes: list[RouteDestination], report: Report, at: At) -> None:
    for i, route in enumerate(routes):
        if route.destination is None:
            report.error("destination is required", *at, i)
        else:
            destination(route.destination, report, (*at, i, "destination"))
        if route.weight < 0:
            report.error(f"weight {route.weight} < 0", *at, i, "weight")
    total_weight([route.weight for route in routes], report, at)


def total_weight(weights: list[int], report: Report, at: At) -> None:
    if len(weights) > 1 and sum(weights) == 0:
        report.error("total destination weight = 0", *at)


def destination(to: Destination, report: Report, at: At) -> None:
    report.check("invalid destination host *" if to.host == "*" else names.wildcard_domain(to.host), *at, "host")
    if to.subset:
        report.check(names.subset(to.subset), *at, "subset")
    if to.port is not None:
        report.check(names.port(to.port.number), *at, "port", "number")

"""The calls that a configuration promises to serve: one for each way into each declared host, as an application would make it.

How this works: every ServiceEntry names hosts and ports, every VirtualService bound to the mesh says which requests to them it
treats. A probe is a request that fits one rule (its path, headers and method), or a TLS connection asking for the host.
Whether the rule means it to pass an egress gateway is read off its destinations. Only names that resolve are tried, and only
from workloads that can see the host.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any as Json

from meshsim import hosts
from meshsim.control.clusters import BLACK_HOLE_CLUSTER, PASSTHROUGH_CLUSTER
from meshsim.control.mesh_index import MESH_GATEWAY, VirtualService, gateway_name
from meshsim.control.protocols import Protocol
from meshsim.control.services import Port, Service
from meshsim.control.view import View
from meshsim.mesh import Mesh
from meshsim.resources.message import StringMatch
from meshsim.resources.resource import Resource
from meshsim.resources.virtual_service import HttpMatchRequest, HttpRoute, RouteDestination, TlsMatchAttributes
from meshsim.simulate import Call, Trace
from meshsim.simulate.trace import Hop
from meshsim.topology import Proxy

HTTP_PORT = 80


@dataclass(frozen=True)
class Probe:
    """One call and who promises it: a rule of a VirtualService, or the port of a ServiceEntry. `gateway`: meant to pass one."""

    call: Call
    client: Proxy
    service: Service
    port: Port
    promised_by: Resource[Json]
    at: tuple[str | int, ...]
    gateway: bool = False

    @property
    def text(self) -> str:
        """The call as one would type it."""
        call = self.call
        if call.http is None:
            return f"tcp://{call.host}:{call.port} from {self.client.namespace}/{self.client.name}"
        scheme, usual = ("https", 443) if call.tls else ("http", 80)
        place = call.host if call.port == usual else f"{call.host}:{call.port}"
        method = "" if call.http.method == "GET" else f"{call.http.method} "
        headers = "".join(f" -H '{name}: {value}'" for name, value in call.http.headers if name != "Host")
        return f"{method}{scheme}://{place}{call.http.path}{headers} from {self.client.namespace}/{self.client.name}"


def full_name(proxy: Proxy) -> str:
    return f"{proxy.name}.{proxy.namespace}"


def answered(trace: Trace) -> bool:
    """Whether the server, or somebody on purpose, answered."""
    if trace.error or trace.status is None:
        return False
    last = next((h for h in trace.hops if h.entry.flags), None)
    return trace.status < 500 and last is None and not refused_plaintext(trace)


def refused_plaintext(trace: Trace) -> bool:
    """Whether a server got plain HTTP on its TLS port, and says so."""
    return trace.status == 400 and any(a.get("tls") is None and str(a.get("port", "")) == "443" for a in trace.arrivals)


def is_unknown(hop: Hop) -> bool:
    """Whether a sidecar took what it was sent for something nobody declared."""
    cluster, virtual_host = hop.cluster.name if hop.cluster else "", hop.virtual_host.name if hop.virtual_host else ""
    return cluster in (PASSTHROUGH_CLUSTER, BLACK_HOLE_CLUSTER) or virtual_host in ("allow_any", "block_all")


def outcome(trace: Trace, hop: Hop) -> str:
    """How a call ended, and what the proxy that decided it logs."""
    said = trace.error or f"{trace.status}"
    flags = ",".join(hop.entry.flags)
    details = f" {hop.entry.details}" if hop.entry.details not in ("", "via_upstream") else ""
    return f"{said}; {hop.proxy} logs {flags or '-'}{details}"


def probes(mesh: Mesh, views: Mapping[str, View]) -> Iterator[Probe]:
    """Every probe, from one workload of each namespace that has a sidecar."""
    for client in {p.namespace: p for p in reversed(clients(mesh))}.values():
        view = views[full_name(client)]
        seen: set[tuple[str, int]] = set()
        for service in view.services:
            name = None if service.is_kubernetes else name_of(mesh, view, service.hostname)
            for port in service.ports:
                if name and (service.hostname, port.number) not in seen:
                    seen.add((service.hostname, port.number))
                    yield from of_port(view, service, port, name)


def name_of(mesh: Mesh, view: View, host: str) -> str | None:
    """A name that resolves and is the host's alone: the host itself, or a site that a wildcard means."""
    if not hosts.is_wildcard(host):
        return host if host in mesh.names else None
    sites = (name for server in mesh.external_servers for name in server.hosts if not hosts.is_wildcard(name))
    return next((name for name in sites if hosts.subset_of(name, host) and name not in view.index.services_by_host), None)


def clients(mesh: Mesh) -> list[Proxy]:
    """The workloads that are known to call out: those of namespaces that have rules, and those that serve nobody themselves.

    A service somewhere in the cluster is no witness: nobody says that it calls the host. Without any such workload all are tried.
    """
    ruled = {r.namespace for r in mesh.told if r.api_version.startswith("networking.istio.io/")}
    services = [(s.namespace, s.spec.selector.items()) for s in mesh.told if s.kind == "Service" and s.spec.selector]
    sidecars = [p for p in mesh.proxies if p.is_sidecar]
    callers = [p for p in sidecars if p.namespace in ruled or not any(ns == p.namespace and s <= p.labels.items() for ns, s in services)]
    return callers or sidecars


def of_port(view: View, service: Service, port: Port, name: str) -> Iterator[Probe]:
    """What an application on the view's workload would ask of a port of `name`; bytes of unknown kinds are not made up."""
    bound = [v for v in _bound(view) if any(hosts.matches(h, service.hostname) for h in view.index.hosts_of(v))]
    if port.protocol.is_http:
        yield from _requests(view, service, port, name, bound)
    elif port.protocol.is_tls:
        call = Call.url(full_name(view.proxy), f"https://{name}:{port.number}/")
        owner, at, gateway = _tls_rule(view, service, port, bound)
        yield Probe(call, view.proxy, service, port, owner or service.resource, at, gateway)
    elif port.protocol is Protocol.AUTO:
        return


def _bound(view: View) -> list[VirtualService]:
    return [v for listener in view.egress_listeners for v in listener.virtual_services]


def _requests(view: View, service: Service, port: Port, name: str, bound: list[VirtualService]) -> Iterator[Probe]:
    """One request for each match of the VirtualService in force, else one for `/`."""
    for virtual_service in bound:
        if service.hostname not in view.index.hosts_of(virtual_service):
            continue
        made = False
        for index, rule in enumerate(virtual_service.spec.http):
            if rule.redirect or rule.direct_response or rule.fault or rule.delegate:
                made = True  # answered, or failing, on purpose
                continue
            matches: list[HttpMatchRequest | None] = [*rule.match] or [None]
            for position, match in enumerate(matches):
                if not _concerns(view, virtual_service, match, port.number):
                    continue
                made = True
                request = _example(match)
                if request is None:
                    continue
                path, method, headers = request
                at: tuple[str | int, ...] = ("http", index, "match", position) if match else ("http", index)
                call = Call.url(full_name(view.proxy), f"http://{authority(name, port.number)}{path}", method, headers)
                yield Probe(call, view.proxy, service, port, virtual_service, at, _to_gateway(view, virtual_service, rule))
        if made:
            return
    if _is_for_gateways(view, service, port):
        return
    call = Call.url(full_name(view.proxy), f"http://{authority(name, port.number)}/")
    yield Probe(call, view.proxy, service, port, service.resource, ("ports",))


def _is_for_gateways(view: View, service: Service, port: Port) -> bool:
    """Whether applications call another port of the service, whose requests gateways take to this one."""
    bound = [v for v in view.index.roots if service.hostname in view.index.hosts_of(v)]
    if port.number == HTTP_PORT or not any(leads_to_gateway(view, v, service) for v in bound if MESH_GATEWAY in view.index.gateways_of(v)):
        return False
    return port.number in led_ports(bound, service.hostname)


def led_ports(virtual_services: Iterable[VirtualService], host: str) -> set[int]:
    """The ports of a host that HTTP rules name as destinations."""
    return {
        leg.destination.port.number
        for v in virtual_services
        for rule in v.spec.http
        for leg in rule.route
        if leg.destination and leg.destination.port and hosts.expand_short(leg.destination.host, v.namespace) == host
    }


def _concerns(view: View, virtual_service: VirtualService, match: HttpMatchRequest | None, port: int) -> bool:
    if match is None:
        return True
    names = [gateway_name(g, virtual_service.namespace, view.index.domain) for g in match.gateways]
    if match.port not in (0, port) or (names and MESH_GATEWAY not in names):
        return False
    return bool(names) or (match.source_labels.items() <= view.proxy.labels.items() and match.source_namespace in ("", view.namespace))


def _example(match: HttpMatchRequest | None) -> tuple[str, str, tuple[tuple[str, str], ...]] | None:
    """(path, method, headers) of a request that fits; None where that takes more than reading texts."""
    if match is None:
        return "/", "GET", ()
    if match.query_params or match.without_headers or match.authority or match.scheme:
        return None
    path, method = _text(match.uri, "/"), _text(match.method, "GET")
    headers = {name: _text(wanted, "x") for name, wanted in match.headers.items()}
    if path is None or method is None or not path.startswith("/") or None in headers.values():
        return None
    return path, method, tuple((name, value) for name, value in headers.items() if value is not None)


def _text(match: StringMatch | None, default: str) -> str | None:
    if match is None:
        return default
    if match.regex is not None:
        return default if match.regex == ".*" else None
    return match.exact if match.exact is not None else match.prefix or default


def _tls_rule(
    view: View, service: Service, port: Port, bound: list[VirtualService]
) -> tuple[VirtualService | None, tuple[str | int, ...], bool]:
    for virtual_service in bound:
        for index, rule in enumerate(virtual_service.spec.tls):
            for position, match in enumerate(rule.match):
                names = [gateway_name(g, virtual_service.namespace, view.index.domain) for g in match.gateways]
                named = any(hosts.subset_of(service.hostname, sni) for sni in match.sni_hosts)
                if named and match.port in (0, port.number) and (not names or MESH_GATEWAY in names):
                    return virtual_service, ("tls", index, "match", position), _legs_to_gateway(view, virtual_service, rule.route)
    return None, ("ports",), False


def authority(host: str, number: int) -> str:
    """What a client calls the host on that port."""
    return host if number == HTTP_PORT else f"{host}:{number}"


def mesh_bound(view: View) -> list[VirtualService]:
    """The VirtualServices that sidecars heed."""
    return [v for v in view.index.roots if MESH_GATEWAY in view.index.gateways_of(v)]


def sends_to_gateway(view: View, virtual_service: VirtualService) -> bool:
    """Whether any rule of it sends to a gateway."""
    spec = virtual_service.spec
    return (
        any(_to_gateway(view, virtual_service, rule) for rule in spec.http)
        or any(_legs_to_gateway(view, virtual_service, rule.route) for rule in spec.tls)
        or any(_legs_to_gateway(view, virtual_service, rule.route) for rule in spec.tcp)
    )


def leads_to_gateway(view: View, virtual_service: VirtualService, service: Service) -> bool:
    """Whether a rule of it for the mesh sends a gateway what comes for a port that the service has, of a kind that the rule routes."""
    spec = virtual_service.spec
    http = {p.number for p in service.ports if not p.protocol.is_tls}
    tls = {p.number for p in service.ports if not p.protocol.is_http}

    def applies(matches: Sequence[HttpMatchRequest | TlsMatchAttributes], ports: set[int]) -> bool:
        return bool(ports) and (not matches or any(m.port in (0, *ports) and _for_mesh(view, virtual_service, m) for m in matches))

    return (
        any(applies(rule.match, http) and _to_gateway(view, virtual_service, rule) for rule in spec.http)
        or any(applies(rule.match, tls) and _legs_to_gateway(view, virtual_service, rule.route) for rule in spec.tls)
        or any(_legs_to_gateway(view, virtual_service, rule.route) for rule in spec.tcp)
    )


def _for_mesh(view: View, virtual_service: VirtualService, match: HttpMatchRequest | TlsMatchAttributes) -> bool:
    names = [gateway_name(g, virtual_service.namespace, view.index.domain) for g in match.gateways]
    return not names or MESH_GATEWAY in names


def _to_gateway(view: View, virtual_service: VirtualService, rule: HttpRoute) -> bool:
    return any(is_gateway(view, hosts.expand_short(r.destination.host, virtual_service.namespace)) for r in rule.route if r.destination)


def _legs_to_gateway(view: View, virtual_service: VirtualService, legs: list[RouteDestination]) -> bool:
    return any(is_gateway(view, hosts.expand_short(r.destination.host, virtual_service.namespace)) for r in legs if r.destination)


def is_gateway(view: View, host: str) -> bool:
    """Whether a host is the Service of pods that some Gateway selects."""
    for service in view.index.services_by_host.get(host, {}).values():
        selects = service.selector.items()
        for gateway in view.index.of("Gateway") if service.is_kubernetes and selects else []:
            if gateway.spec.selector.items() <= selects or selects <= gateway.spec.selector.items():
                return True
    return False

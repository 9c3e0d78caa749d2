"""A sidecar's outbound route configurations: which host on a port goes where.

How this works: the configuration of port 80 holds a virtual host for every service with an HTTP (or undeclared) port 80. A
VirtualService bound
to `mesh` replaces the default route of the services its hosts name, oldest first, one per host: they are never merged here. What no
virtual host claims goes to the catch-all, which says what the mesh does with destinations nobody declared.
A port that a service of undeclared protocol has at its own address gets a configuration of its own, `<host>:<port>`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial

import msgspec

from meshsim import hosts
from meshsim.control import http_routes
from meshsim.control.clusters import ANY_HOST_ROUTES, DYNAMIC_DNS_CLUSTER, PASSTHROUGH_CLUSTER, name
from meshsim.control.destination_rules import Merged
from meshsim.control.memory import Memory
from meshsim.control.mesh_index import MESH_GATEWAY, VirtualService
from meshsim.control.protocols import Protocol
from meshsim.control.proxy_headers import counts_attempts, keeps_host
from meshsim.control.services import UNSPECIFIED, Port, Service
from meshsim.control.view import EgressListener, View
from meshsim.control.virtual_services import http_rules
from meshsim.resources.virtual_service import Destination
from meshsim.xds.message import Metadata
from meshsim.xds.route import (
    DirectResponseAction,
    Route,
    RouteAction,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
)

MAX_DIRECT_RESPONSE_BYTES = 1_048_576


@dataclass(eq=False)
class _Entry:
    """Routes for some hosts on one port: services the mesh knows, and hosts it knows from a VirtualService alone."""

    port: int
    routes: list[Route]
    services: list[Service] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    source: str = ""


def port_configuration(view: View, memory: Memory, listener: EgressListener, route_name: str, port: int) -> RouteConfiguration:
    """The shared configuration of a port; port 0 (an HTTP proxy port or a Unix socket): of every port at once."""
    known = _services(memory, listener, port)
    hosts_made = _virtual_hosts(view, memory, listener, known, port)
    made = sorted(hosts_made, key=lambda h: h.name)
    return _configuration(route_name, [*made, _catch_all(view)])


def service_configuration(view: View, memory: Memory, listener: EgressListener, service: Service, port: Port) -> RouteConfiguration:
    """The configuration of one service's port at its own address: whatever the Host says, it is that service."""
    only = _at_port(memory, service, port)
    made = [h for h in _virtual_hosts(view, memory, listener, {only.hostname: only}, port.number) if service.hostname in h.domains]
    return _configuration(f"{service.hostname}:{port.number}", [msgspec.structs.replace(h, domains=["*"]) for h in made])


def _configuration(route_name: str, virtual_hosts: list[VirtualHost]) -> RouteConfiguration:
    return RouteConfiguration(
        route_name,
        virtual_hosts,
        validate_clusters=False,
        max_direct_response_body_size_bytes=MAX_DIRECT_RESPONSE_BYTES,
        ignore_port_in_host_matching=True,
    )


def _at_port(memory: Memory, service: Service, port: Port) -> Service:
    """The service with one port alone, its host in lower case."""

    def trimmed() -> Service:
        made = service.trimmed([port])
        made.hostname = service.hostname.lower()
        return made

    return memory.recall((service, port), trimmed)


def _services(memory: Memory, listener: EgressListener, port: int) -> dict[str, Service]:
    """The services with that port, the last definition of a host counting; on a port of its own a host is spelled in lower case."""
    found: dict[str, Service] = {}
    for service in listener.services:
        if port == 0:
            found[service.hostname] = service
            continue
        here = service.port(port)
        if here is not None:
            trimmed = _at_port(memory, service, here)
            found[trimmed.hostname] = trimmed
    return found


def _virtual_hosts(view: View, memory: Memory, listener: EgressListener, known: dict[str, Service], port: int) -> list[VirtualHost]:
    entries, spoken_for = _from_virtual_services(view, memory, listener, known, port)
    for hostname, service in known.items():
        if hostname not in spoken_for and not service.external_name:  # an alias alone is a name of what it points to
            entries += [_default(view, memory, service, p) for p in service.ports if _routes_http(p)]
    names: set[str] = set()
    domains: set[str] = set()
    known_names = ((service.hostname, entry.port) for entry in entries for service in entry.services)
    full = {each for hostname, number in known_names for each in (hostname, f"{hostname}:{number}")}
    out: list[VirtualHost] = []
    for whole, short in _candidates(view, memory, entries, port):
        if whole.name in names:
            continue
        names.add(whole.name)
        lower = [d.lower() for d in whole.domains]
        if domains.isdisjoint(lower) and full.isdisjoint(short):
            free = whole.domains
        else:
            free = [d for d in whole.domains if d.lower() not in domains and not (d in short and d in full)]
        domains.update(d.lower() for d in free)
        if port == 0 and not whole.name.endswith(":80"):  # the name alone means port 80, and is not given to another port's host for that
            free = [d for d in free if ":" in d]
        if free:
            out.append(whole if free is whole.domains else msgspec.structs.replace(whole, domains=free))
    return out


def _candidates(view: View, memory: Memory, entries: list[_Entry], port: int) -> Iterator[tuple[VirtualHost, set[str]]]:
    """A virtual host for each host of each entry, with every domain it could have, and which of those are short names."""
    counted = counts_attempts(view.mesh)

    def made(host: str, entry: _Entry, domains: list[str]) -> VirtualHost:
        source = Metadata({"meshsim": {"source": entry.source}}) if entry.source else None
        name = f"{host.lower()}:{entry.port}"
        return VirtualHost(name, domains, entry.routes, include_request_attempt_count=counted, metadata=source)

    def of_service(service: Service, entry: _Entry, aliases: tuple[Service, ...]) -> tuple[VirtualHost, set[str]]:
        domains, short = _domains(view, service, aliases, entry.port, port)
        return made(service.hostname, entry, domains), short

    for entry in entries:
        for host in entry.unknown:
            yield made(host, entry, [host]), set()
        for service in entry.services:
            aliases = view.index.registry.aliases.get(service.origin, ())
            reasons = (entry, service, view.address(service), port, *aliases)
            yield memory.recall(reasons, partial(of_service, service, entry, aliases))


def _routes_http(port: Port) -> bool:
    return port.protocol.is_http or port.protocol is Protocol.AUTO


def _default(view: View, memory: Memory, service: Service, port: Port) -> _Entry:
    rule = view.destination_rule(service)

    def made() -> _Entry:
        hashing = http_routes.hash_policy(http_routes.service_hash(rule, port.number))
        operation = f"{service.hostname}:{port.number}/*"
        route = http_routes.default_route(name(service, port.number), operation, view.mesh, hashing)
        source = service.resource.at()
        route.metadata = Metadata({"meshsim": {"source": source}})
        return _Entry(port.number, [route], [service], source=source)

    return memory.recall((_default, service, port, rule), made)


def _from_virtual_services(
    view: View, memory: Memory, listener: EgressListener, known: dict[str, Service], port: int
) -> tuple[list[_Entry], set[str]]:
    """The entries that VirtualServices make on this port, oldest first, and the hosts they speak for."""
    candidates = listener.virtual_services
    if port != 80:
        candidates = [v for v in candidates if _concerns(view.index.hosts_of(v), known)]
    owners = _Owners(view, listener)
    entries: list[_Entry] = []
    spoken_for: set[str] = set()
    context = _context(view, known, port)
    for virtual_service in candidates:
        found, unknown = _split(view, virtual_service, known, owners)
        if not found and not (unknown and port == 80):
            continue
        reasons = (virtual_service, port, *found, *unknown, *view.destination_reasons(virtual_service, known.get))
        made = memory.recall(reasons, partial(_spoken, view, virtual_service, found, unknown, context))
        entries += made
        spoken_for.update(s.hostname for entry in made for s in entry.services)
    return entries, spoken_for


def _spoken(
    view: View, virtual_service: VirtualService, found: list[Service], unknown: list[str], context: http_routes.Context
) -> list[_Entry]:
    """What a VirtualService says for its services, port by port, and for hosts that are none."""
    routes = http_routes.translate(virtual_service, http_rules(virtual_service, view.index), context)
    if not routes:
        return []
    by_port: dict[int, list[Service]] = {}
    for service in found:
        for port in service.ports:
            if _routes_http(port):
                by_port.setdefault(port.number, []).append(service)
    if not by_port and context.port == 80:
        by_port[80] = []
    return [_Entry(number, routes, services, unknown, virtual_service.at()) for number, services in by_port.items()]


def _concerns(patterns: list[str], known: dict[str, Service]) -> bool:
    for pattern in map(str.lower, patterns):
        if pattern in known:
            return True
        if hosts.is_wildcard(pattern) and any(hosts.matches(pattern, h) for h in known):
            return True
    return False


class _Owners:
    """For each service of a listener the VirtualService whose host fits it best; of equal ones the first. Names are taken as spelled."""

    def __init__(self, view: View, listener: EgressListener):
        self._view, self._listener = view, listener

    @cached_property
    def _spelled(self) -> set[str]:
        return {service.hostname for service in self._listener.services}

    @cached_property
    def _first(self) -> dict[str, VirtualService]:
        """Of every host the first VirtualService that names it."""
        first: dict[str, VirtualService] = {}
        for virtual_service in self._listener.virtual_services:
            for pattern in self._view.index.hosts_of(virtual_service):
                first.setdefault(pattern, virtual_service)
        return first

    @cached_property
    def _wildcards(self) -> list[str]:
        return [pattern for pattern in self._first if hosts.is_wildcard(pattern)]

    def of(self, hostname: str) -> VirtualService | None:
        if hostname not in self._spelled:
            return None
        best = hostname if hostname in self._first else hosts.most_specific(hostname, self._wildcards)
        return self._first[best] if best else None


def _split(
    view: View, virtual_service: VirtualService, known: dict[str, Service], owners: _Owners
) -> tuple[list[Service], list[str]]:
    """The services its hosts name, and the hosts that name none."""
    found: dict[str, Service] = {}
    unknown: list[str] = []
    patterns = [h.lower() for h in view.index.hosts_of(virtual_service)]
    for pattern in patterns:
        if hosts.is_wildcard(pattern):
            continue
        if pattern in known:
            found[pattern] = known[pattern]
        else:
            unknown.append(pattern)
    for pattern in patterns:
        if not hosts.is_wildcard(pattern):
            continue
        fits = [h for h in known if hosts.matches(pattern, h)]
        for hostname in fits:
            if owners.of(hostname) is virtual_service:
                found[hostname] = known[hostname]
        if not fits:
            unknown.append(pattern)
    return list(found.values()), unknown


def _context(view: View, known: dict[str, Service], port: int) -> http_routes.Context:
    def rule(host: str) -> Merged | None:
        service = view.service(host)
        return view.destination_rule(service) if service else None

    return http_routes.Context(
        port, frozenset({MESH_GATEWAY}), dict(view.proxy.labels), view.namespace, view.mesh, view.index.domain, known.get, rule
    )


def _domains(view: View, service: Service, aliases: tuple[Service, ...], port: int, listen_port: int) -> tuple[list[str], set[str]]:
    """Every Host that means the service, in istiod's order, and which of them are short names."""
    host = service.hostname
    out = [host] if _is_address(host) else [host, f"{host}."]
    short = _short_names(view, host)
    for alias in aliases:
        out += [alias.hostname, f"{alias.hostname}."]
        short += _short_names(view, alias.hostname)
        out += _short_names(view, alias.hostname)
    own = _short_names(view, host)
    out = [*out[:2], *own, *out[2:]] if not _is_address(host) else out
    if service.is_kubernetes and service.headless:
        out += [f"*.{d}" for d in list(out)]
    address = view.address(service)
    if address != UNSPECIFIED:
        out.append(f"[{address}]" if ":" in address else address)
    if listen_port == 0:
        out = [each for d in out for each in (d, f"{d}:{port}")]
        short += [f"{d}:{port}" for d in short]
    return list(dict.fromkeys(out)), set(short)


def _short_names(view: View, host: str) -> list[str]:
    """What a pod of the proxy's namespace may leave off a Kubernetes name."""
    suffix = f".svc.{view.index.domain}"
    if not host.endswith(suffix):
        return []
    rest = host.removesuffix(suffix)
    service, _, namespace = rest.partition(".")
    if not namespace:
        return []
    if namespace == view.namespace:
        return [service, f"{rest}.svc", rest]
    return [rest, f"{rest}.svc"]


def _is_address(host: str) -> bool:
    return host.replace(".", "").isdigit() or ":" in host


def _catch_all(view: View) -> VirtualHost:
    """The last virtual host: what becomes of a Host that nobody declared."""
    mode, counted = view.outbound_mode, counts_attempts(view.mesh)
    if mode == "REGISTRY_ONLY":
        route = Route(RouteMatch(prefix="/"), "block_all", direct_response=DirectResponseAction(502))
        return VirtualHost("block_all", ["*"], [route], include_request_attempt_count=counted)
    if mode == "ALLOW_ANY_DYNAMIC_DNS":
        vhost, cluster = ANY_HOST_ROUTES, DYNAMIC_DNS_CLUSTER
    else:
        vhost, cluster = "allow_any", egress_proxy_cluster(view.egress_proxy) or PASSTHROUGH_CLUSTER
    action = RouteAction(cluster=cluster, timeout="0s", max_grpc_timeout="0s", append_x_forwarded_host=keeps_host(view.mesh))
    route = Route(RouteMatch(prefix="/"), vhost, route=action)
    return VirtualHost(vhost, ["*"], [route], include_request_attempt_count=counted)


def egress_proxy_cluster(destination: Destination | None) -> str:
    """The cluster a Sidecar's `egressProxy` names, as it stands: its host is not looked up."""
    if destination is None:
        return ""
    return name(destination.host, destination.port.number if destination.port else 0, destination.subset)

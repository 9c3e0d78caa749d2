"""The route configurations of a gateway: which hosts its HTTP servers know, and where their requests go.

How this works: each server meets each VirtualService bound to its Gateway. The hosts both name (the narrower name of every
overlapping pair) become virtual hosts, and the VirtualService's routes are added to them; several VirtualServices of one
host simply follow one another. Routes that take everything go last. Virtual hosts that would hold the very same routes
become one with several domains. Nothing at all leaves one virtual host without routes: every request is a 404.

Routes are made once for a (Gateway, VirtualService) and shared by its servers on the port, whatever their own numbers:
that is Istio's, and the reason why identity, not equality, decides what collapses.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from meshsim import hosts
from meshsim.control import destination_rules, http_matches, http_routes
from meshsim.control.gateways import Merged, PlacedServer, hosts_for_namespace
from meshsim.control.mesh_index import VirtualService, visible
from meshsim.control.proxy_headers import counts_attempts
from meshsim.control.services import Service
from meshsim.control.view import View
from meshsim.control.virtual_services import http_rules
from meshsim.xds.message import Metadata
from meshsim.xds.route import Route, RouteConfiguration, VirtualHost

MAX_DIRECT_RESPONSE_BYTES = 1_048_576


def gateway_routes(view: View, merged: Merged) -> list[RouteConfiguration]:
    """One route configuration for each name the gateway's connection managers ask for."""
    return [_configuration(view, name, servers) for name, servers in merged.by_route.items()]


@dataclass(eq=False, slots=True)
class _Host:
    """A virtual host that grows. `number` is the first server's port, which stays in its name."""

    name: str
    number: int
    source: str
    routes: list[Route] = field(default_factory=list)
    require_tls: bool = False
    domains: list[str] = field(default_factory=list)

    @property
    def key(self) -> tuple[tuple[int, ...], bool]:
        return tuple(map(id, self.routes)), self.require_tls


def _configuration(view: View, name: str, servers: list[PlacedServer]) -> RouteConfiguration:
    found: dict[str, _Host] = {}
    made: dict[tuple[str, str, str], list[Route]] = {}
    for server in servers:
        for virtual_service in view.gateway_virtual_services(server.gateway_name):
            shared = _shared_hosts(view, server, virtual_service)
            if not shared:
                continue
            key = (server.gateway_name, virtual_service.namespace, virtual_service.name)
            if key not in made:
                routes = _translate(view, server, virtual_service)
                if not routes:
                    continue  # a later server of this Gateway may still find some
                made[key] = routes
            for host in shared:
                entry = found.setdefault(host.lower(), _Host(host.lower(), server.number, server.source))
                entry.routes += made[key]
                entry.require_tls |= _redirects(server)
        for host in server.hosts if _redirects(server) else []:
            found.setdefault(host.lower(), _Host(host.lower(), server.number, server.source)).require_tls = True
    return RouteConfiguration(
        name,
        _virtual_hosts(found, counted=counts_attempts(view.mesh)) or [VirtualHost(f"blackhole:{servers[0].number}", ["*"])],
        validate_clusters=False,
        max_direct_response_body_size_bytes=MAX_DIRECT_RESPONSE_BYTES,
        ignore_port_in_host_matching=True,
    )


def _redirects(server: PlacedServer) -> bool:
    return server.server.tls is not None and server.server.tls.https_redirect


def _shared_hosts(view: View, server: PlacedServer, virtual_service: VirtualService) -> list[str]:
    """The hosts a server and a VirtualService have in common; spelling counts, so capitals meet only capitals."""
    return hosts.intersection(hosts_for_namespace(server.hosts, virtual_service.namespace), view.index.hosts_of(virtual_service))


def _translate(view: View, server: PlacedServer, virtual_service: VirtualService) -> list[Route]:
    def service(host: str) -> Service | None:
        """A service of the VirtualService's own namespace comes before others of the same name."""
        own = view.index.services_by_host.get(host, {}).get(virtual_service.namespace)
        return own if own is not None and visible(own.export_to, view.namespace) else view.service(host)

    def rule(host: str) -> destination_rules.Merged | None:
        found = view.service(host)
        return view.destination_rule(found) if found else None

    context = http_routes.Context(
        server.number,
        frozenset({server.gateway_name}),
        dict(view.proxy.labels),
        view.namespace,
        view.mesh,
        view.index.domain,
        service,
        rule,
        tls=server.server.tls is not None,
    )
    return http_routes.translate(virtual_service, http_rules(virtual_service, view.index), context)


def _virtual_hosts(found: dict[str, _Host], *, counted: bool) -> list[VirtualHost]:
    """Sorted by name; `counted` says how often a request was tried. Equal ones are joined under the most specific host's name."""
    kept: dict[tuple[tuple[int, ...], bool], _Host] = {}
    out: list[_Host] = []
    for name in sorted(found, key=hosts.specificity):
        host = found[name]
        first = kept.get(host.key)
        if first is None:
            first = kept[host.key] = host
            out.append(host)
        first.domains.append(name)
    return [
        VirtualHost(
            f"{host.name}:{host.number}",
            host.domains,
            http_matches.catch_all_last(host.routes),
            require_tls="ALL" if host.require_tls else "NONE",
            include_request_attempt_count=counted,
            metadata=Metadata({"meshsim": {"source": host.source}}),
        )
        for host in sorted(out, key=lambda h: f"{h.name}:{h.number}")
    ]

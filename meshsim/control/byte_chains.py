"""Filter chains of a sidecar's TLS and TCP ports: which connections go to which service, by SNI and destination address.

VirtualServices choose with `tls` blocks on TLS ports and with `tcp` blocks on the others. Once a `tls` match applies to a service, the
service's own default chain is gone: an SNI nobody listed is a destination nobody declared.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from meshsim import hosts
from meshsim.control import http_routes
from meshsim.control.clusters import forward_proxy_cache, name
from meshsim.control.memory import Key
from meshsim.control.mesh_index import MESH_GATEWAY, VirtualService, gateway_name
from meshsim.control.services import DYNAMIC_DNS, UNSPECIFIED, Port, Service
from meshsim.control.sidecar_routes import _short_names
from meshsim.control.tcp_filters import Surroundings, Weighted, relay
from meshsim.control.view import View
from meshsim.resources.virtual_service import L4MatchAttributes, RouteDestination, TlsMatchAttributes
from meshsim.xds.listener import NetworkFilter, SniDynamicForwardProxy
from meshsim.xds.message import Metadata


@dataclass
class Chain:
    """A relaying chain before it is written down. `sni` and `subnets` are sorted; both empty: it takes everything."""

    filters: list[NetworkFilter]
    sni: list[str] = field(default_factory=list)
    subnets: list[str] = field(default_factory=list)
    metadata: Metadata | None = None

    @cached_property
    def key(self) -> tuple[frozenset[str], frozenset[str]]:
        return frozenset(self.sni) - {"*"}, frozenset(self.subnets)


class Place(NamedTuple):
    """Where a port is listened for. `cidr`: the service's own range, if that is its address; `vip`: the listener is the service's own."""

    cidr: str
    vip: bool
    port: int


def reasons(view: View, service: Service, relevant: list[VirtualService]) -> Key:
    """What the chains of a service come from: itself, its rule, its aliases, and VirtualServices with what they lead to."""
    out: list[Hashable] = [service.origin, view.destination_rule(service), *view.index.registry.aliases.get(service.origin, ())]
    for virtual_service in relevant:
        if virtual_service.spec.tls or virtual_service.spec.tcp:
            out += virtual_service, *view.destination_reasons(virtual_service, view.service)
    return tuple(out)


def chains(
    view: View, service: Service, port: Port, relevant: list[VirtualService], place: Place, around: Surroundings
) -> list[Chain]:
    """The chains of one port; of the VirtualServices the `relevant` ones name its host."""
    if port.protocol.is_tls:
        return _tls(view, service, port, relevant, place, around)
    return _tcp(view, service, port, relevant, place, around)


def _tls(view: View, service: Service, port: Port, relevant: list[VirtualService], place: Place, around: Surroundings) -> list[Chain]:
    cidr, vip, listen_port = place
    out: list[Chain] = []
    seen: set[tuple[tuple[str, ...], tuple[str, ...]]] = set()
    inherited: list[str] = [cidr] if cidr else []
    for virtual_service in relevant:
        for index, route in enumerate(virtual_service.spec.tls):
            for position, match in enumerate(route.match):
                if not _applies(view, virtual_service, match, listen_port):
                    continue
                if match.destination_subnets:  # a quirk of istiod: what one match sets, later ones of the service inherit
                    inherited = list(match.destination_subnets)
                key = (tuple(match.sni_hosts), tuple(inherited))
                if key in seen:
                    continue
                seen.add(key)
                names = [] if "*" in match.sni_hosts else sorted(match.sni_hosts)
                metadata = http_routes.config_metadata(virtual_service, virtual_service.at("tls", index, "match", position))
                out.append(Chain(_relay(view, route.route, port, virtual_service, listen_port, around), names, sorted(inherited), metadata))
    if out:
        return out
    names = []
    if service.resolution == DYNAMIC_DNS:
        names = [service.hostname]
    elif not vip or cidr:
        names = sorted(_every_name(view, service))
    return [Chain(_own(view, service, port, around), names, [cidr] if cidr else [], _source(service))]


def _every_name(view: View, service: Service) -> set[str]:
    """The host, and the names of the aliases that stand for it."""
    names = {service.hostname}
    for alias in view.index.registry.aliases.get(service.origin, ()):
        names.update((alias.hostname, f"{alias.hostname}.", *_short_names(view, alias.hostname)))
    return names


def _tcp(view: View, service: Service, port: Port, relevant: list[VirtualService], place: Place, around: Surroundings) -> list[Chain]:
    cidr, _, listen_port = place
    out: list[Chain] = []
    own = [cidr] if cidr else []
    for virtual_service in relevant:
        for index, route in enumerate(virtual_service.spec.tcp):
            at = virtual_service.at("tcp", index)
            metadata = http_routes.config_metadata(virtual_service, at)
            filters = _relay(view, route.route, port, virtual_service, listen_port, around)
            if not route.match:
                return [*out, Chain(filters, [], own, metadata)]
            applying = [m for m in route.match if _applies(view, virtual_service, m, listen_port)]
            if any(not m.destination_subnets for m in applying):
                return [*out, Chain(filters, [], own, metadata)]
            subnets = [s for m in applying for s in m.destination_subnets]
            if subnets:
                out.append(Chain(filters, [], sorted(subnets), Metadata({"meshsim": {"source": at}})))
    if not any(c.subnets == own for c in out):
        out.append(Chain(_own(view, service, port, around), [], own, _source(service)))
    return out


def _source(service: Service) -> Metadata:
    return Metadata({"meshsim": {"source": service.resource.at()}})


def _applies(view: View, virtual_service: VirtualService, match: L4MatchAttributes | TlsMatchAttributes, listen_port: int) -> bool:
    """All static conditions count together here, unlike in HTTP matches."""
    names = [gateway_name(g, virtual_service.namespace, view.index.domain) for g in match.gateways]
    if names and MESH_GATEWAY not in names:
        return False
    if match.port not in (0, listen_port) or match.source_namespace not in ("", view.namespace):
        return False
    return match.source_labels.items() <= view.proxy.labels.items()


def _own(view: View, service: Service, port: Port, around: Surroundings) -> list[NetworkFilter]:
    cluster = name(service, port.number)
    before = []
    if service.resolution == DYNAMIC_DNS:  # the name to resolve is the one the client asks for
        resolve = SniDynamicForwardProxy(forward_proxy_cache(service.hostname), port.number)
        before.append(NetworkFilter("envoy.extensions.filters.network.sni_dynamic_forward_proxy", resolve))
    return relay(Weighted([(cluster, 1)], cluster), port.protocol, view.destination_rule(service), around, before)


def _relay(
    view: View, legs: list[RouteDestination], port: Port, virtual_service: VirtualService, listen_port: int, around: Surroundings
) -> list[NetworkFilter]:
    namespace, domain = virtual_service.namespace, view.index.domain

    def cluster(leg: RouteDestination) -> str:
        return http_routes.cluster_name(leg.destination, namespace, domain, listen_port, view.service)

    first = legs[0].destination if legs else None
    service = view.service(hosts.expand_short(first.host, namespace, domain)) if first else None
    rule = view.destination_rule(service) if service else None
    if len(legs) == 1:
        to = Weighted([(cluster(legs[0]), 1)], cluster(legs[0]), first.subset if first else "")
    else:
        to = Weighted([(cluster(leg), leg.weight) for leg in legs if leg.weight], f"{virtual_service.name}.{namespace}", split=True)
    return relay(to, port.protocol, rule, around)


def is_range(address: str) -> bool:
    """Whether a service's address is a CIDR range rather than one address."""
    return "/" in address and ipaddress.ip_network(address, strict=False).num_addresses > 1


def has_address(address: str) -> bool:
    return address not in ("", UNSPECIFIED) and not is_range(address)

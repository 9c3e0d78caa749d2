"""The analyzers' common ground: the mesh's resources by kind, and the lookups istioctl makes in them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any as Json
from typing import NamedTuple

from meshsim import hosts
from meshsim.resources.gateway import GatewaySpec
from meshsim.resources.mesh_config import MeshConfig
from meshsim.resources.resource import Resource
from meshsim.resources.virtual_service import Destination, HttpRouteDestination, RouteDestination, VirtualServiceSpec

EVERYWHERE = "*"
_SERVICE_NAME = re.compile(r"^(.+)\.(.+)\.svc\.cluster\.local$")

Path = tuple[str | int, ...]


class Sent(NamedTuple):
    """A destination of a VirtualService, and where it stands in its spec."""

    destination: Destination
    at: Path


class Known(NamedTuple):
    """A host somebody defines: the port numbers it has."""

    ports: list[int]


class Documents:
    """What is analyzed. `mesh` is MeshConfig as far as it was given."""

    def __init__(self, resources: Iterable[Resource[Json]], mesh: MeshConfig | None = None):
        self.mesh = mesh or MeshConfig()
        self.by_kind: dict[str, list[Resource[Json]]] = {}
        for resource in resources:
            self.by_kind.setdefault(resource.kind, []).append(resource)

    def of(self, kind: str) -> list[Resource[Json]]:
        return self.by_kind.get(kind, [])

    def find(self, kind: str, namespace: str, name: str) -> Resource[Json] | None:
        return next((r for r in self.of(kind) if (r.namespace, r.name) == (namespace, name)), None)

    @cached_property
    def known_hosts(self) -> dict[tuple[str, str], Known]:
        """(scope, host) of every ServiceEntry and Service; the scope is a namespace or `*`."""
        out: dict[tuple[str, str], Known] = {}
        for entry in self.of("ServiceEntry"):
            ports = [p.number for p in entry.spec.ports]
            for scope in scopes(entry.spec.export_to, entry.namespace):
                for host in entry.spec.hosts:
                    out[scope, host] = Known(ports)
        for service in self.of("Service"):
            exported = service.metadata.annotations.get("networking.istio.io/exportTo", "")
            host = f"{service.name}.{service.namespace}.svc.cluster.local"
            for scope in scopes([e.strip() for e in exported.split(",") if e.strip()], service.namespace):
                out[scope, host] = Known([p.port for p in service.spec.ports])
        return out

    def host(self, namespace: str, export_to: list[str], host: str) -> Known | None:
        """What a resource of `namespace` means by a host, as far as those it is exported to could know it."""
        full = hosts.expand_short(host, namespace)
        for scope in (EVERYWHERE, *(scopes(export_to, namespace) if export_to else [namespace])):
            if (scope, full) in self.known_hosts:
                return self.known_hosts[scope, full]
        for (scope, known), found in self.known_hosts.items():
            if hosts.is_wildcard(known) and scope in (EVERYWHERE, namespace) and host.removeprefix("*").endswith(known.removeprefix("*")):
                return found
        return None

    def pods(self, selector: Mapping[str, str], namespace: str | None = None) -> list[Resource[Json]]:
        """The pods with these labels."""
        found = (p for p in self.of("Pod") if namespace is None or p.namespace == namespace)
        return [p for p in found if selector.items() <= p.metadata.labels.items()]


def scopes(export_to: list[str], namespace: str) -> list[str]:
    """The namespaces something is exported to: `*` alone if to all."""
    if not export_to or EVERYWHERE in export_to:
        return [EVERYWHERE]
    return list(dict.fromkeys(namespace if e == "." else e for e in export_to))


def selector_text(labels: Mapping[str, str]) -> str:
    """As Kubernetes prints a selector: `a=b,c=d`."""
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def resource_of_host(namespace: str, host: str) -> tuple[str, str]:
    """(namespace, name) of the Service a full name means; another host is taken for a name of `namespace`."""
    found = _SERVICE_NAME.match(host)
    return (found[2], found[1]) if found else (namespace, host)


def destinations(spec: VirtualServiceSpec) -> list[Sent]:
    """Every destination of its routes: tcp, tls, http."""
    legs: list[tuple[str, list[Sequence[RouteDestination | HttpRouteDestination]]]] = [
        ("tcp", [rule.route for rule in spec.tcp]),
        ("tls", [rule.route for rule in spec.tls]),
        ("http", [rule.route for rule in spec.http]),
    ]
    return [
        Sent(leg.destination, (kind, i, "route", j, "destination", "host"))
        for kind, rules in legs
        for i, rule in enumerate(rules)
        for j, leg in enumerate(rule)
        if leg.destination is not None
    ]


def mirrors(spec: VirtualServiceSpec) -> list[Sent]:
    out = []
    for i, rule in enumerate(spec.http):
        if rule.mirror is not None:
            out.append(Sent(rule.mirror, ("http", i, "mirror", "host")))
        found = ((j, m.destination) for j, m in enumerate(rule.mirrors))
        out += [Sent(destination, ("http", i, "mirrors", j, "destination", "host")) for j, destination in found if destination is not None]
    return out


def gateway_reference(name: str, namespace: str) -> tuple[str, str]:
    """(namespace, name) of a gateway a VirtualService is bound to."""
    owner, slash, short = name.partition("/")
    return (owner, short) if slash else (namespace, name)


def server_hosts(spec: GatewaySpec, namespace: str) -> list[str]:
    """The hosts of all servers, `./` made real and `*/` left out."""
    out = []
    for server in spec.servers:
        for host in ["*"] if "*/*" in server.hosts else server.hosts:
            owner, slash, name = host.partition("/")
            if not slash or owner not in (".", "*"):
                out.append(host)
            else:
                out.append(f"{namespace}/{name}" if owner == "." else name)
    return out

"""Everything the control plane knows, indexed once for all proxies (istiod's push context)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any as Json

import msgspec

from meshsim import era, hosts
from meshsim.control import destination_rules, services
from meshsim.control.memory import Memory, Token
from meshsim.control.services import Service
from meshsim.resources.mesh_config import MeshConfig
from meshsim.resources.resource import Resource
from meshsim.resources.virtual_service import Destination, VirtualServiceSpec

MESH_GATEWAY = "mesh"
REGISTERED = ("Service", "ServiceEntry", "WorkloadEntry", "Pod", "EndpointSlice", "Endpoints", "Namespace")  # what services come from

VirtualService = Resource[VirtualServiceSpec]


@dataclass(eq=False)
class _Routing:
    """The VirtualServices, as far as it does not matter what else there is: those with hosts, by the gateway they are bound to, and
    delegates by namespace and name. What is asked about one is kept."""

    roots: list[VirtualService]
    delegates: dict[tuple[str, str], VirtualService]
    memory: tuple[Memory, Token]
    bound: dict[str, list[VirtualService]] = field(default_factory=dict)
    hosts: dict[VirtualService, list[str]] = field(default_factory=dict)
    gateways: dict[VirtualService, list[str]] = field(default_factory=dict)
    bound_for: dict[tuple[str, str], list[VirtualService]] = field(default_factory=dict)
    destinations: dict[str, dict[VirtualService, dict[str, set[int]]]] = field(default_factory=dict)


class MeshIndex:
    """The mesh's resources by kind in creation order, its services, and its lookups. `domain` is the cluster's DNS domain.

    before: the index that this one comes after, whose parts are taken over where they are the same; the result does not depend on it.
    """

    def __init__(
        self,
        resources: Iterable[Resource[Json]],
        mesh: MeshConfig | None = None,
        domain: str = "cluster.local",
        before: Memory | None = None,
    ):
        ordered = sorted(resources, key=lambda r: (r.order, r.name, r.namespace))
        self.era = era.of(ordered)
        self.mesh = _of_era(mesh or MeshConfig(), self.era)
        self.domain = domain
        self.root = self.mesh.root_namespace
        self.by_kind: dict[str, list[Resource[Json]]] = {}
        for resource in ordered:
            self.by_kind.setdefault(resource.kind, []).append(resource)
        self.memory = Memory(before)
        self.around = self.memory.token("mesh", (self.mesh, self.era, domain))
        self.registry = self.memory.stage(
            "services", (self.around, *map(self.same, REGISTERED)), lambda memory: services.build(ordered, self.mesh, domain, memory)
        )
        self.rules = self.memory.stage(
            "rules",
            (self.around, self.same("DestinationRule")),
            lambda memory: destination_rules.Index(self.of("DestinationRule"), self.mesh, domain, memory),
        )
        self._routing = self.memory.stage("routing", (self.around, self.same("VirtualService")), self._bind)
        self.roots, self.delegates = self._routing.roots, self._routing.delegates

    def of(self, kind: str) -> list[Resource[Json]]:
        return self.by_kind.get(kind, [])

    def same(self, kind: str) -> Token:
        """Stands in keys of the memory for all resources of a kind."""
        return self.memory.token(kind, self.of(kind))

    @property
    def services_by_host(self) -> dict[str, dict[str, Service]]:
        """By host and namespace; a Service hides a ServiceEntry."""
        return self.registry.by_host

    def _bind(self, memory: Memory) -> _Routing:
        roots = [v for v in self.of("VirtualService") if v.spec.hosts]
        delegates = {(v.namespace, v.name): v for v in self.of("VirtualService") if not v.spec.hosts}
        made = self._routing = _Routing(roots, delegates, (memory, self.around))
        for root in roots:
            for name in self.gateways_of(root):
                made.bound.setdefault(name, []).append(root)
        return made

    def hosts_of(self, virtual_service: VirtualService) -> list[str]:
        """Its hosts, short names made whole."""
        known = self._routing.hosts
        if virtual_service not in known:
            known[virtual_service] = [hosts.expand_short(h, virtual_service.namespace, self.domain) for h in virtual_service.spec.hosts]
        return known[virtual_service]

    def gateways_of(self, virtual_service: VirtualService) -> list[str]:
        """`mesh`, or `namespace/name` of each gateway it is bound to."""
        known = self._routing.gateways
        if virtual_service not in known:
            given = virtual_service.spec.gateways
            known[virtual_service] = [gateway_name(g, virtual_service.namespace, self.domain) for g in given] or [MESH_GATEWAY]
        return known[virtual_service]

    def bound_for(self, gateway: str, namespace: str) -> list[VirtualService]:
        """The VirtualServices bound to `mesh` or to a `namespace/name` that proxies of `namespace` may see.

        First those private to that namespace, then those exported to it by name, then the public ones; each group oldest first.
        """
        known, key = self._routing.bound_for, (gateway, namespace)
        if key not in known:
            groups: dict[int, list[VirtualService]] = {0: [], 1: [], 2: []}
            for service in self._routing.bound.get(gateway, ()):
                exports = self.exports_of(service)
                if visible(exports, namespace):
                    groups[audience(exports, service.namespace)].append(service)
            known[key] = [*groups[0], *groups[1], *groups[2]]
        return known[key]

    def exported(self, virtual_service: VirtualService, namespace: str) -> bool:
        """Whether resources of that namespace may see it."""
        return visible(self.exports_of(virtual_service), namespace)

    def exports_of(self, virtual_service: VirtualService) -> list[str]:
        given = virtual_service.spec.export_to or self.mesh.default_virtual_service_export_to
        return [virtual_service.namespace if g == "." else g for g in given]

    def delegates_of(self, virtual_service: VirtualService) -> list[VirtualService]:
        """The VirtualServices that its rules hand over to, as far as they are there."""
        if not self.delegates:
            return []
        named = [r.delegate for r in virtual_service.spec.http if r.delegate]
        found = (self.delegates.get((d.namespace or virtual_service.namespace, d.name)) for d in named)
        return [each for each in found if each is not None]

    def destinations(self, virtual_service: VirtualService, namespace: str) -> dict[str, set[int]]:
        """Every host its rules (and its delegates') send clients of that namespace to, with the ports they name; no ports: all."""
        known = self._routing.destinations.setdefault(namespace, {})
        found = known.get(virtual_service)
        if found is None:
            memory, around = self._routing.memory
            key = (namespace, around, virtual_service, *self.delegates_of(virtual_service))
            found = known[virtual_service] = memory.recall(key, lambda: _destinations(virtual_service, namespace, self))
        return found

    def peer_authentication(self, namespace: str, labels: Mapping[str, str] | None = None, port: int = 0) -> str:
        """The mode for a workload (or, without labels, for a namespace): its own, the namespace's, the mesh's, PERMISSIVE.

        In the root namespace a policy for some workloads counts nowhere.
        """
        mode = "UNSET"
        own: Resource[Json] | None = None
        namespace_wide: Resource[Json] | None = None
        mesh_wide: Resource[Json] | None = None
        for policy in self.of("PeerAuthentication"):
            selector = policy.spec.selector.match_labels if policy.spec.selector else {}
            if selector:
                here = labels is not None and policy.namespace == namespace != self.root
                if here and labels is not None and own is None and selector.items() <= labels.items():
                    own = policy
            elif policy.namespace == namespace and namespace != self.root:
                namespace_wide = namespace_wide or policy
            elif policy.namespace == self.root:
                mesh_wide = mesh_wide or policy
        for level in (mesh_wide, namespace_wide, own):
            if level is None:
                continue
            if level.spec.mtls and level.spec.mtls.mode != "UNSET":
                mode = level.spec.mtls.mode
            if level is own and port in level.spec.port_level_mtls:
                at_port = level.spec.port_level_mtls[port].mode
                mode = at_port if at_port != "UNSET" else mode
        return "PERMISSIVE" if mode == "UNSET" else mode


def _destinations(virtual_service: VirtualService, client: str, index: MeshIndex) -> dict[str, set[int]]:
    out: dict[str, set[int]] = {}
    every: set[str] = set()

    def add(destination: Destination | None, namespace: str) -> None:
        if destination is None:
            return
        host = hosts.expand_short(destination.host, namespace, index.domain)
        ports = out.setdefault(host, set())
        if destination.port and destination.port.number:
            ports.add(destination.port.number)
        else:
            every.add(host)

    def walk(resource: VirtualService, handed_over: bool) -> None:
        for http in resource.spec.http:
            sources = {match.source_namespace for match in http.match} - {""}
            if sources and client not in sources:
                continue
            for choice in http.route:
                add(choice.destination, resource.namespace)
            add(http.mirror, resource.namespace)
            for mirror in http.mirrors:
                add(mirror.destination, resource.namespace)
            if http.delegate and not handed_over:
                delegate = index.delegates.get((http.delegate.namespace or resource.namespace, http.delegate.name))
                if delegate is not None:
                    walk(delegate, True)
        for relayed in [r.route for r in resource.spec.tls] + [r.route for r in resource.spec.tcp]:
            for leg in relayed:
                add(leg.destination, resource.namespace)

    walk(virtual_service, False)
    for host in every:
        out[host] = set()
    return out


def gateway_name(name: str, namespace: str, domain: str) -> str:
    """`mesh` is literal; `ns/name` as it is; `./name` and a bare name mean the resource's own namespace; `name.ns[.svc...]` is the
    legacy form."""
    if name == MESH_GATEWAY:
        return name
    if "/" in name:
        owner, _, short = name.partition("/")
        return f"{namespace if owner == '.' else owner}/{short}"
    if "." in name:
        short, _, rest = name.partition(".")
        return f"{rest.removesuffix(f'.svc.{domain}').partition('.')[0]}/{short}"
    return f"{namespace}/{name}"


def visible(exports: Iterable[str], namespace: str) -> bool:
    """Whether a list of export namespaces lets that one see."""
    exports = list(exports)
    return "*" in exports or namespace in exports


def audience(exports: Iterable[str], namespace: str) -> int:
    """0: kept to its own namespace; 1: exported to namespaces by name; 2: public."""
    exports = set(exports)
    return 2 if "*" in exports else 0 if exports == {namespace} else 1


def _of_era(mesh: MeshConfig, of: era.Era) -> MeshConfig:
    """With the era's defaults for what is not set."""
    return msgspec.structs.replace(mesh, access_log_format=mesh.access_log_format or of.access_log_format)

"""The mesh as one proxy may see it: its services, rules and policies, within exportTo and Sidecar scope.

How this works: a gateway sees every service exported to its namespace. A sidecar sees what its effective Sidecar's egress listeners import
(without a Sidecar: everything exported to it), one namespace per host. Two lists come out of that and both matter: a listener's
own `services`, where every definition of a host counts (they make listeners and virtual hosts), and `View.services`, one
entry per host (they make clusters).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

from meshsim import hosts
from meshsim.control import telemetry
from meshsim.control.authorization import Authorization
from meshsim.control.destination_rules import Merged, Policy, effective
from meshsim.control.gateways import Merged as MergedGateways
from meshsim.control.gateways import Target, merge
from meshsim.control.memory import Key, Memory
from meshsim.control.mesh_index import MESH_GATEWAY, MeshIndex, VirtualService, visible
from meshsim.control.protocols import Protocol
from meshsim.control.services import ALIAS, KUBERNETES, Port, Service
from meshsim.control.trust_domains import TrustDomains
from meshsim.resources.gateway import GatewaySpec
from meshsim.resources.mesh_config import MeshConfig
from meshsim.resources.resource import Resource
from meshsim.resources.sidecar import IstioEgressListener, SidecarPort, SidecarSpec
from meshsim.resources.virtual_service import Destination
from meshsim.topology import Proxy

T = TypeVar("T")
NOTHING = "~/*"  # a Sidecar host that empties its whole listener


@dataclass(eq=False)
class EgressListener:
    """One egress listener of a sidecar: the catch-all (no port), or one that a Sidecar declares."""

    services: list[Service]
    virtual_services: list[VirtualService]
    by_host: hosts.Table[VirtualService]
    port: SidecarPort | None = None
    bind: str = ""
    capture_mode: str = "DEFAULT"
    index: int = 0


@dataclass
class _Imports:
    """A Sidecar's hosts of one namespace ("*": any)."""

    exact: set[str] = field(default_factory=set)
    every: list[str] = field(default_factory=list)

    def add(self, host: str) -> None:
        self.every.append(host)
        if not hosts.is_wildcard(host):
            self.exact.add(host)

    def service(self, hostname: str) -> bool:
        if hostname in self.exact:
            return True
        wild = hosts.is_wildcard(hostname)
        return any((wild or hosts.is_wildcard(h)) and hosts.subset_of(hostname, h) for h in self.every)

    def virtual_service(self, hostname: str) -> bool:
        if hostname in self.exact:
            return True
        wild = hosts.is_wildcard(hostname)
        return any((wild or hosts.is_wildcard(h)) and hosts.matches(hostname, h) for h in self.every)


class View:
    """What one proxy is compiled from."""

    def __init__(self, index: MeshIndex, proxy: Proxy):
        self.index, self.proxy, self.namespace = index, proxy, proxy.namespace
        self._rules: dict[Service, Merged | None] = {}
        self._answers_dns = proxy.dns_capture
        self._self = index.memory.token(("proxy", proxy.namespace, proxy.name), (proxy, index.mesh, index.era, index.domain))

    def stage(self, name: str, key: Key, make: Callable[[Memory], T]) -> T:
        """A part of what this proxy is told, made of parts: it depends on the proxy, the mesh's configuration, and `key`."""
        return self.index.memory.stage((name, self._self), key, make)

    @property
    def mesh(self) -> MeshConfig:
        return self.index.mesh


    # services

    @cached_property
    def _exported(self) -> list[Service]:
        """What is exported to the proxy's namespace: first what that namespace keeps to itself or what names it, then what is public."""
        able = [s for s in self.index.registry.services if "~" not in s.export_to and visible(s.export_to, self.namespace)]
        return [*(s for s in able if "*" not in s.export_to), *(s for s in able if "*" in s.export_to)]

    @cached_property
    def sidecar(self) -> Resource[SidecarSpec] | None:
        """The effective Sidecar: one that selects the workload, the namespace's, or the root namespace's."""
        if not self.proxy.is_sidecar:
            return None
        by_namespace: dict[str, list[Resource[SidecarSpec]]] = {}
        for resource in self.index.of("Sidecar"):
            by_namespace.setdefault(resource.namespace, []).append(resource)
        own = by_namespace.get(self.namespace, [])
        for resource in own:
            selector = resource.spec.workload_selector
            if selector is not None and selector.labels and selector.labels.items() <= self.proxy.labels.items():
                return resource
        for resource in (*own, *by_namespace.get(self.index.root, [])):
            if resource.spec.workload_selector is None or not resource.spec.workload_selector.labels:
                return resource
        return None

    @cached_property
    def egress_listeners(self) -> list[EgressListener]:
        """A sidecar's egress listeners in order; a gateway has none."""
        return self.stage("scope", self.scope, lambda _: self._listeners()) if self.proxy.is_sidecar else []

    @cached_property
    def scope(self) -> Key:
        """What decides about what the proxy sees."""
        return self.index.registry, self.index.same("VirtualService"), self.sidecar

    def _listeners(self) -> list[EgressListener]:
        bound = self.index.bound_for(MESH_GATEWAY, self.namespace)
        if self.sidecar is None or not self.sidecar.spec.egress:
            return [EgressListener(_one_namespace_each(self._exported, self.namespace), bound, self._by_host_of(bound))]
        return [self._declared(listener, i, bound) for i, listener in enumerate(self.sidecar.spec.egress)]

    def _declared(self, listener: IstioEgressListener, index: int, bound: list[VirtualService]) -> EgressListener:
        imports, excludes = self._imports(listener.hosts if NOTHING not in listener.hosts else [])
        port = listener.port if listener.port and listener.port.number else None
        chosen: list[Service] = []
        for service in self._candidates(imports):
            if any(_lets(excludes, ns, service.hostname) for ns in (service.namespace, "*")):
                continue
            if any(_lets(imports, ns, service.hostname) for ns in (service.namespace, "*")):
                trimmed = _on_port(service, port)
                if trimmed is not None:
                    chosen.append(trimmed)
        services = [
            v
            for v in bound
            if any(
                any(ns in imports and imports[ns].virtual_service(h) for ns in (v.namespace, "*"))
                and not any(_lets(excludes, ns, h) for ns in (v.namespace, "*"))
                for h in self.index.hosts_of(v)
            )
        ]
        return EgressListener(
            _one_namespace_each(chosen, self.namespace),
            services,
            self._by_host_of(services),
            port,
            listener.bind,
            listener.capture_mode,
            index,
        )

    def _candidates(self, imports: dict[str, _Imports]) -> list[Service]:
        """Where every host is spelled out with its namespace, Istio looks it up, and finds one definition of each only."""
        if "*" in imports or any(map(hosts.is_wildcard, (host for of in imports.values() for host in of.every))):
            return self._exported
        named = [self.index.services_by_host.get(host, {}).get(owner) for owner, of in imports.items() for host in of.exact]
        found = {id(s): s for s in named if s and "~" not in s.export_to and visible(s.export_to, self.namespace)}
        return sorted(found.values(), key=lambda s: (s.created, s.name, s.namespace))

    def _by_host_of(self, virtual_services: list[VirtualService]) -> hosts.Table[VirtualService]:
        return hosts.Table((v, self.index.hosts_of(v)) for v in virtual_services)

    def _imports(self, entries: Iterable[str]) -> tuple[dict[str, _Imports], dict[str, _Imports]]:
        imports: dict[str, _Imports] = {}
        excludes: dict[str, _Imports] = {}
        for entry in entries:
            owner, _, host = entry.partition("/")
            into = excludes if owner.startswith("~") else imports
            owner = owner.removeprefix("~") or "*"
            into.setdefault(self._owner(owner), _Imports()).add(host)
        return imports, excludes

    def _owner(self, owner: str) -> str:
        return self.namespace if owner == "." else owner

    @cached_property
    def services(self) -> list[Service]:
        """One entry per host: what clusters are made for."""
        return self.stage("services", self.scope, lambda _: self._services())

    def _services(self) -> list[Service]:
        found: dict[str, Service] = {}
        if not self.proxy.is_sidecar:
            for service in self._exported:
                _unite(found, service)
        for listener in self.egress_listeners:
            for service in listener.services:
                _unite(found, service)
            for virtual_service in listener.virtual_services:
                for host, ports in self.index.destinations(virtual_service, self.namespace).items():
                    meant = self._destination(host)
                    if meant is None or found.get(host) is meant:
                        continue
                    trimmed = _on_port(meant, listener.port) if _is_picky(listener.port) else _on_ports(meant, ports)
                    if trimmed:
                        _unite(found, trimmed)
        return list(found.values())

    def _destination(self, host: str) -> Service | None:
        """The service a VirtualService means by a host that no Sidecar listener imports."""
        known = self.index.services_by_host.get(host, {})
        if self.namespace in known:
            return known[self.namespace]
        able = [s for s in known.values() if "~" not in s.export_to and visible(s.export_to, self.namespace)]
        return min(able, key=lambda s: (not s.is_kubernetes, s.created), default=None)

    @cached_property
    def _by_host(self) -> dict[str, Service]:
        out: dict[str, Service] = {}
        for service in self.services:
            known = out.get(service.hostname)
            if known is None:
                out[service.hostname] = service
        return out

    def service(self, host: str) -> Service | None:
        """The service this proxy knows under that host."""
        return self._by_host.get(host)

    def address(self, service: Service) -> str:
        """What this proxy takes for the service's address."""
        return self.index.registry.address(service) if self._answers_dns else service.address

    # rules

    def destination_rule(self, service: Service) -> Merged | None:
        try:
            return self._rules[service]
        except KeyError:
            found = self.index.rules.lookup(self.namespace, self.proxy.labels, service.hostname, service.namespace)
            self._rules[service] = found
            return found

    def destination_reasons(self, virtual_service: VirtualService, lookup: Callable[[str], Service | None]) -> Iterator[Hashable]:
        """What a VirtualService's routes depend on beside itself: its delegates, and of its destinations what is known and their rules."""
        yield from self.index.delegates_of(virtual_service)
        for host in self.index.destinations(virtual_service, self.namespace):
            ruled = self._by_host.get(host)
            yield lookup(host)
            yield self.destination_rule(ruled) if ruled else None

    def policy(self, service: Service, port: int, subset: str = "") -> Policy:
        """What the DestinationRule says for one cluster of the service."""
        return effective(self.destination_rule(service), port, subset, self.mesh)

    def inbound_policy(self, target: int, port: int) -> Policy:
        """What the DestinationRule of the Service behind a port of the pod says; rules for some workloads only do not count here."""
        hostname = next((t.hostname for t in self.targets if t.target_port == target), "")
        rule = self.index.rules.lookup(self.namespace, {}, hostname, self.namespace) if hostname else None
        return effective(rule, port, "", self.mesh)

    # gateways

    @cached_property
    def gateways(self) -> list[Resource[GatewaySpec]]:
        """The Gateways that select this proxy, oldest first."""
        if self.proxy.is_sidecar:
            return []
        return [g for g in self.index.of("Gateway") if g.spec.selector.items() <= self.proxy.labels.items()]

    @cached_property
    def servers(self) -> MergedGateways:
        """The servers of those Gateways, merged."""
        return merge(self.gateways, self.targets)

    def gateway_virtual_services(self, gateway: str) -> list[VirtualService]:
        """Those bound to `namespace/name` that this proxy may see, oldest first."""
        return self.index.bound_for(gateway, self.namespace)

    @cached_property
    def targets(self) -> list[Target]:
        """The ports of the Services that have this proxy behind them."""
        out: list[Target] = []
        for service in self.index.registry.services:
            if not service.is_kubernetes or service.namespace != self.namespace or service.resolution == ALIAS:
                continue
            if not service.selector or not service.selector.items() <= self.proxy.labels.items():
                continue
            for port in service.ports:
                mine = [e.port for e in self.index.registry.of(service, port) if e.address == self.proxy.ip]
                target = mine[0] if mine else port.target if isinstance(port.target, int) else port.number
                out.append(Target(port.number, target, dict(service.labels), service.hostname, port.protocol))
        return out

    # policies

    @cached_property
    def authorization(self) -> Authorization:
        trust = TrustDomains((self.mesh.trust_domain, *self.mesh.trust_domain_aliases))
        able = frozenset(p.name for p in self.mesh.extension_providers if p.envoy_ext_authz_http or p.envoy_ext_authz_grpc)
        return Authorization.of(self.index.of("AuthorizationPolicy"), self.namespace, dict(self.proxy.labels), self.index.root, trust, able)

    @cached_property
    def access_logs(self) -> telemetry.AccessLogs:
        """What this proxy logs of the connections it makes for others (CLIENT side)."""
        return telemetry.access_logs(self.index.of("Telemetry"), self.mesh, self.namespace, dict(self.proxy.labels), "CLIENT")

    @cached_property
    def inbound_access_logs(self) -> telemetry.AccessLogs:
        return telemetry.access_logs(self.index.of("Telemetry"), self.mesh, self.namespace, dict(self.proxy.labels), "SERVER")

    @property
    def outbound_mode(self) -> str:
        """What becomes of destinations nobody declared: the Sidecar's word, else the mesh's."""
        own = self.sidecar.spec.outbound_traffic_policy if self.sidecar else None
        return own.mode if own is not None else self.mesh.outbound_traffic_policy.mode

    @property
    def egress_proxy(self) -> Destination | None:
        own = self.sidecar.spec.outbound_traffic_policy if self.sidecar else None
        return own.egress_proxy if own else None


def _lets(imports: dict[str, _Imports], namespace: str, hostname: str) -> bool:
    return namespace in imports and imports[namespace].service(hostname)


def _is_picky(port: SidecarPort | None) -> bool:
    """Whether a listener imports only services that have its port; a forward proxy's port is none of theirs."""
    return port is not None and Protocol.parse(port.protocol) is not Protocol.HTTP_PROXY


def _on_ports(service: Service, wanted: set[int]) -> Service | None:
    """The service with the ports a VirtualService sends to (none named: all); not at all where it has none of them."""
    found = [p for p in service.ports if not wanted or p.number in wanted]
    return service.trimmed(found) if 0 < len(found) < len(service.ports) else service if found else None


def _on_port(service: Service, port: SidecarPort | None) -> Service | None:
    """The service as a listener with that port imports it: trimmed to the port, or not at all."""
    if port is None or not _is_picky(port):
        return service
    found = service.port(port.number)
    if found is None:
        return None
    return service if len(service.ports) == 1 else service.trimmed([found])


def _one_namespace_each(services: list[Service], own: str) -> list[Service]:
    """For each host the definitions of one namespace: the proxy's own, else a Kubernetes Service's, else the oldest's."""
    chosen: dict[str, Service] = {}
    for service in services:
        known = chosen.get(service.hostname)
        if (
            known is None
            or (known.namespace != own and service.namespace == own)
            or (known.namespace != own and service.registry == KUBERNETES and known.registry != KUBERNETES)
        ):
            chosen[service.hostname] = service
    return [s for s in services if s.namespace == chosen[s.hostname].namespace]


def _unite(found: dict[str, Service], service: Service) -> None:
    """One entry per host: a Service takes a ServiceEntry's place, ports of like definitions are joined, unlike later ones left out."""
    known = found.get(service.hostname)
    if known is None or (service.is_kubernetes and not known.is_kubernetes):
        found[service.hostname] = service
        return
    if known.ports == service.ports or not _alike(known, service):
        return
    numbers = {p.number for p in known.ports}
    more: list[Port] = [p for p in service.ports if p.number not in numbers]
    if more:
        found[service.hostname] = known.trimmed([*known.ports, *more])


def _alike(a: Service, b: Service) -> bool:
    return (
        a.namespace == b.namespace
        and a.resolution == b.resolution
        and a.registry == b.registry
        and a.labels == b.labels
        and a.selector == b.selector
        and set(a.declared_exports) == set(b.declared_exports)
    )

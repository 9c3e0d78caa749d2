"""The registry: Kubernetes Services and ServiceEntries as services with endpoints, the way Istio sees both.

How this works: every (host, address) pair of a ServiceEntry and every Kubernetes Service becomes one `Service`. Endpoints are kept
per (host, namespace), as in Istio's endpoint index, so that two ServiceEntries of one host share theirs. Services are in
creation order, which decides most conflicts.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any as Json
from typing import NamedTuple

from meshsim.control.memory import Memory, Token
from meshsim.control.protocols import Protocol, of_service_port
from meshsim.resources.kubernetes import ServiceSpec
from meshsim.resources.mesh_config import MeshConfig
from meshsim.resources.resource import Resource
from meshsim.resources.service_entry import ServiceEntrySpec
from meshsim.resources.workload_entry import WorkloadEntrySpec
from meshsim.topology import TLS_MODE_LABEL

UNSPECIFIED = "0.0.0.0"
KUBERNETES, EXTERNAL = "Kubernetes", "External"
CLIENT_SIDE_LB, DNS_LB, DNS_ROUND_ROBIN_LB, PASSTHROUGH, ALIAS, DYNAMIC_DNS = (
    "ClientSideLB",
    "DNSLB",
    "DNSRoundRobinLB",
    "Passthrough",
    "Alias",
    "DynamicDNS",
)
RESOLUTIONS = {
    "NONE": PASSTHROUGH,
    "STATIC": CLIENT_SIDE_LB,
    "DNS": DNS_LB,
    "DNS_ROUND_ROBIN": DNS_ROUND_ROBIN_LB,
    "DYNAMIC_DNS": DYNAMIC_DNS,
}
_BEHIND = frozenset({"Pod", "WorkloadEntry", "EndpointSlice", "Endpoints"})  # kinds that endpoints come from
EXPORT_ANNOTATION = "networking.istio.io/exportTo"
CANONICAL_ACCOUNTS, KUBERNETES_ACCOUNTS = "alpha.istio.io/canonical-serviceaccounts", "alpha.istio.io/kubernetes-serviceaccounts"
AUTO_ALLOCATE_LABEL = "networking.istio.io/enable-autoallocate-ip"
CONNECT_STRATEGY = "istio.io/connect-strategy"
DISTRIBUTION = "networking.istio.io/traffic-distribution"
_SAME_ZONE = ("topology.istio.io/network", "topology.kubernetes.io/region", "topology.kubernetes.io/zone")
_SAME_NODE = (*_SAME_ZONE, "topology.istio.io/subzone", "kubernetes.io/hostname")
_DISTRIBUTIONS = {"PreferClose": _SAME_ZONE, "PreferSameZone": _SAME_ZONE, "PreferSameNode": _SAME_NODE}
_SPIFFE = "spiffe://"
AUTO_RANGE = ipaddress.ip_network("240.240.0.0/16")
_DNS_BASED = (DNS_LB, DNS_ROUND_ROBIN_LB)


class Port(NamedTuple):
    number: int
    name: str
    protocol: Protocol
    target: int | str | None = None


class Endpoint(NamedTuple):
    """One address of a service on one of its ports."""

    address: str
    port: int
    port_name: str
    labels: Mapping[str, str]
    service_port: int = 0  # the ServiceEntry's port number; Kubernetes endpoints know only the name
    tls_mode: str = "disabled"
    identity: str = ""  # SPIFFE id, if its service account is known
    locality: str = ""
    network: str = ""
    weight: int = 0
    workload: str = ""
    namespace: str = ""
    hostname: str = ""
    ready: bool = True


Origin = tuple[Resource[Json], str]


@dataclass(slots=True, eq=False)
class Service:
    """One host at one address (0.0.0.0: none of its own)."""

    hostname: str
    namespace: str
    name: str
    ports: list[Port]
    address: str
    resolution: str
    registry: str
    mesh_external: bool
    export_to: tuple[str, ...]
    created: float
    resource: Resource[Json]
    selector: Mapping[str, str] = field(default_factory=dict)
    service_accounts: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    external_name: str = ""
    headless: bool = False
    has_endpoint_list: bool = False
    race_first_connect: bool = False
    distribution: tuple[str, ...] = ()  # labels by which near endpoints are preferred
    declared_exports: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        return self.hostname, self.namespace

    @property
    def origin(self) -> Origin:
        """Where it is defined; the same however its host is spelled."""
        return self.resource, self.name

    @property
    def is_kubernetes(self) -> bool:
        return self.registry == KUBERNETES

    def port(self, number: int) -> Port | None:
        return next((p for p in self.ports if p.number == number and p.protocol is not Protocol.UDP), None)

    def trimmed(self, ports: list[Port]) -> Service:
        """The same service with only these ports."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return Service(**{**values, "ports": ports})


@dataclass(slots=True, eq=False)
class Definition:
    """What one resource defines: its services, each with what is behind it."""

    services: list[tuple[Service, list[Endpoint]]]


@dataclass(eq=False)
class Registry:
    """Every service in creation order; by (host, namespace) its endpoints, and the definitions they come from; by host and namespace the
    one that counts, where a Service hides a ServiceEntry.

    Beside them the addresses allocated for want of others, and the ExternalName Services that lead to a service.
    """

    services: list[Service] = field(default_factory=list)
    trust_aliases: tuple[str, ...] = ()
    listed_names: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    endpoints: dict[tuple[str, str], list[Endpoint]] = field(default_factory=dict)
    definitions: dict[tuple[str, str], tuple[Definition, ...]] = field(default_factory=dict)
    auto_addresses: dict[Origin, str] = field(default_factory=dict)
    aliases: dict[Origin, tuple[Service, ...]] = field(default_factory=dict)
    by_host: dict[str, dict[str, Service]] = field(default_factory=dict)

    def address(self, service: Service) -> str:
        """What a proxy that answers DNS itself takes for its address: for want of another the auto-allocated one."""
        return self.auto_addresses.get(service.origin, service.address) if service.address == UNSPECIFIED else service.address

    def of(self, service: Service, port: Port) -> list[Endpoint]:
        """The endpoints behind one port."""
        if service.is_kubernetes:
            return [e for e in self.endpoints.get(service.key, ()) if e.port_name == port.name]
        return [e for e in self.endpoints.get(service.key, ()) if e.service_port == port.number]

    def named(self, service: Service, port: Port) -> list[Endpoint]:
        """Those that can be handed out as addresses: EDS goes by the port's name, and knows no host names."""
        found = self.endpoints.get(service.key, ())
        return [e for e in found if e.port_name == port.name and (not e.port or not e.address or is_ip(e.address))]

    def identities(self, service: Service) -> list[str]:
        """Who may answer for the service: its endpoints' service accounts and what its (newest) ServiceEntry lists, in every domain."""
        found = {e.identity for e in self.endpoints.get(service.key, ()) if e.identity}
        own = {*found, *self.listed_names.get(service.key, ())}
        workloads = [name for name in own if name.startswith(_SPIFFE) and name.count("/") > _SPIFFE.count("/")]
        aliased = {f"{_SPIFFE}{alias}/{name.removeprefix(_SPIFFE).partition('/')[2]}" for name in workloads for alias in self.trust_aliases}
        return sorted(own | aliased)

    def add(self, definition: Definition) -> None:
        """Adds what a resource defines; round robin over DNS knows one name a port, the first."""
        for service, endpoints in definition.services:
            self.services.append(service)
            key = service.key
            self.definitions[key] = (*self.definitions.get(key, ()), definition)
            known = self.endpoints.setdefault(key, [])
            for endpoint in endpoints:
                if service.resolution != DNS_ROUND_ROBIN_LB or all(e.service_port != endpoint.service_port for e in known):
                    known.append(endpoint)


def build(resources: list[Resource[Json]], mesh: MeshConfig, domain: str = "cluster.local", memory: Memory | None = None) -> Registry:
    """The registry of these resources, which come in creation order."""
    builder = _Builder(resources, mesh, domain, memory or Memory())
    registry = Registry(trust_aliases=tuple(mesh.trust_domain_aliases))
    for resource in resources:
        if resource.kind in ("Service", "ServiceEntry"):
            registry.add(builder.definition(resource))
    registry.services.sort(key=lambda s: (s.created, s.name, s.namespace))
    registry.listed_names = {s.key: s.service_accounts for s in registry.services}  # of several, the newest counts
    registry.auto_addresses = _auto_allocated(registry.services)
    registry.aliases = _aliases(registry.services)
    for service in registry.services:
        known = registry.by_host.setdefault(service.hostname, {})
        displaced = known.get(service.namespace)
        if displaced is None or (service.is_kubernetes and not displaced.is_kubernetes):
            known[service.namespace] = service
    return registry


class _Builder:
    """Reads the definitions; those made before from the same resources are taken over."""

    def __init__(self, resources: list[Resource[Json]], mesh: MeshConfig, domain: str, memory: Memory):
        self._mesh, self._domain, self._memory = mesh, domain, memory
        self._pods: dict[str, list[Resource[Json]]] = {}
        self._pod_names: dict[tuple[str, str], Resource[Json]] = {}
        self._pod_ips: dict[tuple[str, str], Resource[Json]] = {}
        self._workloads: dict[str, list[Resource[WorkloadEntrySpec]]] = {}
        self._slices: dict[tuple[str, str], list[Resource[Json]]] = {}
        self._namespace_annotations: dict[str, Mapping[str, str]] = {}
        namespaces: list[Resource[Json]] = []
        behind: list[Resource[Json]] = []
        for r in resources:
            if r.kind in _BEHIND:
                behind.append(r)
            if r.kind == "Pod" and r.spec.status and r.spec.status.pod_ip:
                self._pods.setdefault(r.namespace, []).append(r)
                self._pod_names[r.namespace, r.name] = r
                self._pod_ips[r.namespace, r.spec.status.pod_ip] = r
            elif r.kind == "WorkloadEntry":
                self._workloads.setdefault(r.namespace, []).append(r)
            elif r.kind == "EndpointSlice":
                service = r.metadata.labels.get("kubernetes.io/service-name", "")
                self._slices.setdefault((r.namespace, service), []).append(r)
            elif r.kind == "Endpoints":
                self._slices.setdefault((r.namespace, r.name), []).append(r)
            elif r.kind == "Namespace":
                namespaces.append(r)
                self._namespace_annotations[r.name] = r.metadata.annotations
        self._around = memory.token("around services", (mesh, domain, namespaces))
        self._behind = memory.token("behind services", behind)

    def definition(self, resource: Resource[Json]) -> Definition:
        """What a Service or ServiceEntry defines."""
        key: tuple[Resource[Json] | Token, ...] = (resource, self._around)
        if resource.kind == "Service":
            return self._memory.recall((*key, self._behind), lambda: self._kubernetes(resource))
        if resource.spec.workload_selector is not None:
            key = (*key, self._behind)
        return self._memory.recall(key, lambda: Definition(list(self._service_entry(resource))))

    def _distribution(self, said: str, resource: Resource[Json]) -> tuple[str, ...]:
        """By which labels endpoints near the client are preferred: the Service's own field, its annotation, its namespace's."""
        if said in _DISTRIBUTIONS:
            return _DISTRIBUTIONS[said]
        for marks in (resource.metadata.annotations, self._namespace_annotations.get(resource.namespace, {})):
            wanted = marks.get(DISTRIBUTION, "").lower()
            if wanted:
                return next((labels for name, labels in _DISTRIBUTIONS.items() if name.lower() == wanted), ())
        return ()

    # Kubernetes

    def _kubernetes(self, resource: Resource[ServiceSpec]) -> Definition:
        spec = resource.spec
        hostname = f"{resource.name}.{resource.namespace}.svc.{self._domain}"
        ports = [
            Port(p.port, p.name, of_service_port(p.port, p.protocol, p.name, p.app_protocol), p.target_port or p.port) for p in spec.ports
        ]
        exported = resource.metadata.annotations.get(EXPORT_ANNOTATION, "")
        headless = spec.cluster_ip == "None"
        resolution, address = CLIENT_SIDE_LB, spec.cluster_ip or UNSPECIFIED
        if spec.type == "ExternalName" and spec.external_name:
            resolution, address = ALIAS, UNSPECIFIED
        elif headless:
            resolution, address = PASSTHROUGH, UNSPECIFIED
        service = Service(
            hostname,
            resource.namespace,
            resource.name,
            ports,
            address,
            resolution,
            KUBERNETES,
            resolution == ALIAS,
            _exports(exported.split(",") if exported else [], resource.namespace, self._mesh.default_service_export_to),
            resource.order,
            resource,
            selector=spec.selector,
            distribution=self._distribution(spec.traffic_distribution, resource),
            labels=resource.metadata.labels,
            external_name=spec.external_name if resolution == ALIAS else "",
            headless=resolution == PASSTHROUGH,
            service_accounts=tuple(self._annotated(resource)),
        )
        slices = self._slices.get((resource.namespace, resource.name), [])
        once: dict[tuple[str, str], Endpoint] = {}  # slices overlap while Kubernetes moves endpoints from one to another
        for endpoint in (e for s in slices for e in self._slice(s, service)):
            once.setdefault((endpoint.address, endpoint.port_name), endpoint)
        return Definition([(service, list(once.values()))])

    def _annotated(self, resource: Resource[ServiceSpec]) -> Iterator[str]:
        """Who else may answer for a Service: names as they stand, and service accounts of its namespace."""
        marks = resource.metadata.annotations
        yield from filter(None, marks.get(CANONICAL_ACCOUNTS, "").split(","))
        yield from (self._identity(resource.namespace, account) for account in filter(None, marks.get(KUBERNETES_ACCOUNTS, "").split(",")))

    def _slice(self, resource: Resource[Json], service: Service) -> Iterable[Endpoint]:
        if resource.kind == "Endpoints":
            for subset in resource.spec.subsets:
                for port in subset.ports:
                    for found in subset.addresses:
                        yield self._pod_endpoint(found.ip, port.port or 0, port.name, found.target_ref, service, found.hostname)
            return
        if resource.spec.address_type == "FQDN":
            return
        for port in resource.spec.ports:
            for found in resource.spec.endpoints:
                ready = found.conditions is None or found.conditions.ready is not False
                if not ready and found.conditions.terminating is not False:
                    continue  # one that is going is not even counted as unhealthy
                to = found.target_ref
                if to and to.kind == "Pod" and (to.namespace or service.namespace, to.name) not in self._pod_names:
                    continue  # until its pod is known
                for address in found.addresses:
                    endpoint = self._pod_endpoint(address, port.port or 0, port.name, to, service, found.hostname)
                    yield endpoint._replace(ready=ready)

    def _pod_endpoint(self, address: str, port: int, port_name: str, reference: Json, service: Service, hostname: str) -> Endpoint:
        if reference and reference.kind == "Pod":
            pod = self._pod_names.get((reference.namespace or service.namespace, reference.name))
        else:  # written by hand: a pod of another namespace that has this address is not looked for
            pod = self._pod_ips.get((service.namespace, address))
        if pod is None:
            return Endpoint(address, port, port_name, {}, namespace=service.namespace, hostname=hostname)
        return self._of_pod(pod, address, port, port_name)._replace(hostname=hostname)

    def _of_pod(self, pod: Resource[Json], address: str, port: int, port_name: str) -> Endpoint:
        account = pod.spec.spec.service_account_name if pod.spec.spec else ""
        return Endpoint(
            address,
            port,
            port_name,
            pod.metadata.labels,
            0,
            pod.metadata.labels.get(TLS_MODE_LABEL, "disabled"),
            self._identity(pod.namespace, account or "default"),
            workload=pod.name,
            namespace=pod.namespace,
            locality=pod.metadata.labels.get("istio-locality", "").replace(".", "/"),
        )

    def _identity(self, namespace: str, account: str) -> str:
        return f"spiffe://{self._mesh.trust_domain.replace('@', '.')}/ns/{namespace}/sa/{account}"

    # ServiceEntry

    def _service_entry(self, resource: Resource[ServiceEntrySpec]) -> Iterator[tuple[Service, list[Endpoint]]]:
        spec = resource.spec
        ports = [Port(p.number, p.name, Protocol.parse(p.protocol), p.target_port or None) for p in spec.ports]
        resolution = RESOLUTIONS[spec.resolution]
        addresses = list(dict.fromkeys(map(_single, spec.addresses))) or [UNSPECIFIED]
        for host in dict.fromkeys(spec.hosts):
            for address in addresses:
                service = Service(
                    host,
                    resource.namespace,
                    host,
                    ports,
                    address,
                    resolution,
                    EXTERNAL,
                    spec.location == "MESH_EXTERNAL",
                    _exports(spec.export_to, resource.namespace, self._mesh.default_service_export_to),
                    resource.order,
                    resource,
                    selector=spec.workload_selector.labels if spec.workload_selector else {},
                    service_accounts=tuple(spec.subject_alt_names),
                    labels=resource.metadata.labels,
                    has_endpoint_list=bool(spec.endpoints or spec.workload_selector),
                    declared_exports=tuple(spec.export_to),
                    distribution=self._distribution("", resource),
                    race_first_connect=resource.metadata.annotations.get(CONNECT_STRATEGY) == "RACE_FIRST_TCP_CONNECT",
                )
                yield service, list(self._entry_endpoints(service, spec, resource))

    def _entry_endpoints(self, service: Service, spec: ServiceEntrySpec, resource: Resource[Json]) -> Iterable[Endpoint]:
        if spec.workload_selector is not None:
            yield from self._selected(service, spec, resource)
        elif spec.endpoints:
            for workload in spec.endpoints:
                yield from self._workload(workload, service, spec, resource.namespace)
        elif service.resolution in _DNS_BASED:
            for port in spec.ports:
                yield Endpoint(service.hostname, port.target_port or port.number, port.name, {}, port.number, namespace=resource.namespace)

    def _selected(self, service: Service, spec: ServiceEntrySpec, resource: Resource[Json]) -> Iterable[Endpoint]:
        wanted = spec.workload_selector.labels.items() if spec.workload_selector else {}.items()
        for pod in self._pods.get(resource.namespace, ()):
            if wanted <= pod.metadata.labels.items():
                for port in spec.ports:
                    yield self._of_pod(pod, pod.spec.status.pod_ip, port.target_port or port.number, port.name)._replace(
                        service_port=port.number
                    )
        for workload in self._workloads.get(resource.namespace, ()):
            if wanted <= workload.spec.labels.items() and (service.resolution in _DNS_BASED or is_ip(workload.spec.address)):
                for endpoint in self._workload(workload.spec, service, spec, resource.namespace):
                    yield endpoint._replace(workload=workload.name)

    def _workload(self, workload: WorkloadEntrySpec, service: Service, spec: ServiceEntrySpec, namespace: str) -> Iterable[Endpoint]:
        mode = workload.labels.get(TLS_MODE_LABEL) or ("istio" if workload.service_account else "disabled")
        identity = self._identity(namespace, workload.service_account) if workload.service_account else ""
        for port in spec.ports:
            number = workload.ports.get(port.name) or port.target_port or port.number
            if workload.address.startswith("unix://"):
                number = 0
            yield Endpoint(
                workload.address,
                number,
                port.name,
                workload.labels,
                port.number,
                mode,
                identity,
                workload.locality,
                workload.network,
                workload.weight,
                namespace=namespace,
            )


def _exports(given: Iterable[str], namespace: str, default: Iterable[str]) -> tuple[str, ...]:
    """The namespaces, with "." made real; "*" everyone, "~" nobody."""
    names = [g.strip() for g in given if g.strip()] or list(default)
    return tuple(namespace if n == "." else n for n in names)


def _single(address: str) -> str:
    return address.removesuffix("/128" if ":" in address else "/32")


def is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _auto_allocated(services: list[Service]) -> dict[Origin, str]:
    """One address per host of every ServiceEntry without any: as its status says, else the next free one in creation order."""
    able = [s for s in services if s.registry == EXTERNAL and not s.resource.spec.addresses and s.resolution != PASSTHROUGH]
    able = [s for s in able if s.resource.metadata.labels.get(AUTO_ALLOCATE_LABEL) != "false"]
    given: dict[Origin, str] = {}
    for service in able:
        status = service.resource.raw.get("status") or {}
        for entry in status.get("addresses") or []:
            if entry.get("host", service.hostname) == service.hostname and ":" not in entry["value"]:
                given.setdefault(service.origin, entry["value"])
    taken = set(given.values())
    free = (str(a) for a in AUTO_RANGE.hosts() if str(a) not in taken)
    for service in able:
        if service.origin not in given:
            given[service.origin] = next(free)
    return given


def _aliases(services: list[Service]) -> dict[Origin, tuple[Service, ...]]:
    """An ExternalName Service is another name of what it points to, through other aliases too, if that is a service."""
    aliases = [s for s in services if s.resolution == ALIAS]
    if not aliases:
        return {}
    by_host: dict[str, list[Service]] = {}
    for service in services:
        by_host.setdefault(service.hostname, []).append(service)
    out: dict[Origin, list[Service]] = {}
    for alias in aliases:
        host, seen = alias.external_name, {alias.hostname}
        while host not in seen and (further := next((s for s in by_host.get(host, ()) if s.resolution == ALIAS), None)):
            seen.add(host)
            host = further.external_name
        for target in by_host.get(host, ()):
            if target.resolution != ALIAS:
                out.setdefault(target.origin, []).append(alias)
    return {origin: tuple(sorted(found, key=lambda each: (each.namespace, each.hostname))) for origin, found in out.items()}

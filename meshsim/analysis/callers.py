"""What a caller meets in place of what was declared for it: another service's port, no service at all, a policy that looks the other way.

How this works: seen from one workload of each namespace that calls out. A port that two services claim belongs to the older one, which a
connection to the other shows; a host that the namespace speaks of and its Sidecar leaves out is unknown traffic; rules of a third namespace
may take the host's calls; an `authority` without the port that clients add fits no request; and a policy on a workload says
what it may be sent, not what it may send.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any as Json

from meshsim.analysis.findings import Finding, finding, full_name
from meshsim.analysis.probes import (
    HTTP_PORT,
    answered,
    authority,
    clients,
    is_unknown,
    mesh_bound,
    name_of,
    of_port,
    outcome,
    sends_to_gateway,
)
from meshsim.analysis.probes import full_name as caller_name
from meshsim.control.mesh_index import visible
from meshsim.control.services import UNSPECIFIED, Port, Service
from meshsim.control.view import View
from meshsim.mesh import Mesh
from meshsim.resources.authorization_policy import AuthorizationPolicySpec
from meshsim.resources.resource import Resource
from meshsim.simulate import Call


def callers(mesh: Mesh, views: Mapping[str, View]) -> Iterator[Finding]:
    """Every family; `views` by the proxies' full names."""
    for client in {p.namespace: p for p in reversed(clients(mesh))}.values():
        view = views[caller_name(client)]
        yield from _taken_ports(mesh, view)
        yield from _left_out(mesh, view)
        yield from _other_namespaces(view)
    if views:
        view = next(iter(views.values()))
        yield from _authorities(view)
        yield from _policies(mesh, view)


def _taken_ports(mesh: Mesh, view: View) -> Iterator[Finding]:
    """Byte ports without an address of their own: a sidecar tells them apart by the port alone, and the first to claim it has it."""
    first: dict[int, Service] = {}
    for service in (s for listener in view.egress_listeners for s in listener.services):
        for port in service.ports:
            if not port.protocol.is_tcp or view.address(service) != UNSPECIFIED:
                continue
            owner = first.setdefault(port.number, service)
            if owner.hostname != service.hostname and service.hostname in mesh.names and not service.is_kubernetes:
                yield from _lost(mesh, view, service, port, owner)


def _lost(mesh: Mesh, view: View, service: Service, port: Port, owner: Service) -> Iterator[Finding]:
    trace = mesh.simulation().call(Call(caller_name(view.proxy), service.hostname, port.number, http=None))
    reached = trace.hops[0].cluster.name if trace.hops and trace.hops[0].cluster else ""
    if reached.endswith(f"|{owner.hostname}"):
        index = next(i for i, p in enumerate(service.resource.spec.ports) if p.number == port.number)
        caller = f"{view.namespace}/{view.proxy.name}"
        witness = f"tcp://{service.hostname}:{port.number} from {caller}: {caller_name(view.proxy)} sends it to {reached}"
        said = (service.hostname, port.number, owner.hostname, full_name(owner.resource))
        yield finding("MSIM0113", service.resource, *said, at=("ports", index), witness=witness)


def _left_out(mesh: Mesh, view: View) -> Iterator[Finding]:
    """Hosts that a namespace declares or has rules for, and that the Sidecar of its own workload does not import."""
    sidecar = view.sidecar
    if sidecar is None or not sidecar.spec.egress or sidecar.namespace != view.namespace:
        return
    imported = {s.hostname for listener in view.egress_listeners for s in listener.services}
    for owner, host in _spoken_of(view):
        name = name_of(mesh, view, host)
        service = next((s for s in view.index.services_by_host.get(host, {}).values() if visible(s.export_to, view.namespace)), None)
        if host in imported or name is None or service is None:
            continue
        imported.add(host)
        for probe in (p for port in service.ports for p in of_port(view, service, port, name)):
            trace = mesh.simulation().call(probe.call)
            if not trace.hops or not is_unknown(trace.hops[0]):
                continue
            code = "MSIM0209" if answered(trace) else "MSIM0116"
            said = (host, full_name(owner), caller_name(view.proxy))
            yield finding(code, sidecar, *said, at=("egress", 0, "hosts"), witness=f"{probe.text}: {outcome(trace, trace.hops[0])}")
            break


def _spoken_of(view: View) -> Iterator[tuple[Resource[Json], str]]:
    """The hosts of the namespace's own ServiceEntries, and of its VirtualServices for the mesh."""
    for entry in view.index.of("ServiceEntry"):
        yield from ((entry, host) for host in entry.spec.hosts if entry.namespace == view.namespace)
    for virtual_service in mesh_bound(view):
        if virtual_service.namespace == view.namespace:
            yield from ((virtual_service, host) for host in view.index.hosts_of(virtual_service))


def _other_namespaces(view: View) -> Iterator[Finding]:
    """Rules that stand neither with the caller nor with the host, lead to no gateway, and are exported to all for want of an exportTo."""
    for virtual_service in (v for listener in view.egress_listeners for v in listener.virtual_services):
        meant = virtual_service.spec.export_to or sends_to_gateway(view, virtual_service)
        if meant or virtual_service.namespace in (view.namespace, view.index.root):
            continue
        for host in view.index.hosts_of(virtual_service):
            declared = [s for s in view.index.services_by_host.get(host, {}).values() if not s.is_kubernetes]
            if declared and all(s.namespace != virtual_service.namespace for s in declared):
                said = (caller_name(view.proxy), host, full_name(declared[0].resource))
                yield finding("MSIM0212", virtual_service, *said, at=("hosts",))


def _authorities(view: View) -> Iterator[Finding]:
    """Rules for the mesh whose exact `authority` is a host without the port that requests for it name."""
    for virtual_service in mesh_bound(view):
        for host in view.index.hosts_of(virtual_service):
            ports = {p.number for s in view.index.services_by_host.get(host, {}).values() for p in s.ports if p.protocol.is_http}
            for index, rule in enumerate(virtual_service.spec.http):
                for position, match in enumerate(rule.match):
                    wanted = match.authority.exact if match.authority else None
                    meant = {match.port} & ports if match.port else ports
                    if wanted == host and meant and HTTP_PORT not in meant:
                        asked = authority(host, min(meant))
                        at: tuple[str | int, ...] = ("http", index, "match", position, "authority")
                        yield finding("MSIM0211", virtual_service, host, min(meant), asked, at=at)


def _policies(mesh: Mesh, view: View) -> Iterator[Finding]:
    """Policies about hosts outside that select workloads with a sidecar only: who receives is asked, and that is somebody else."""
    outside = {s.hostname for s in view.index.registry.services if s.mesh_external}
    for policy in view.index.of("AuthorizationPolicy"):
        named = {h.partition(":")[0] for rule in policy.spec.rules for to in rule.to if to.operation for h in to.operation.hosts}
        gateways = (p for p in mesh.proxies if not p.is_sidecar)
        if named and named <= outside and not any(_selects(policy, p.namespace, p.labels, view.index.root) for p in gateways):
            yield finding("MSIM0210", policy, ", ".join(sorted(named)), at=("rules",))


def _selects(policy: Resource[AuthorizationPolicySpec], namespace: str, labels: Mapping[str, str], root: str) -> bool:
    selector = policy.spec.selector
    return policy.namespace in (namespace, root) and (selector is None or selector.match_labels.items() <= labels.items())

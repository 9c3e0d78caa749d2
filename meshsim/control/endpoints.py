"""A service's endpoints as a load assignment: by locality, with the mark that tells a client which of them speak mesh TLS."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from meshsim.control.destination_rules import Policy
from meshsim.control.services import Endpoint, Port, Service
from meshsim.control.view import View
from meshsim.xds.endpoint import ClusterLoadAssignment, LbEndpoint, Locality, LocalityLbEndpoints
from meshsim.xds.endpoint import Endpoint as XdsEndpoint
from meshsim.xds.message import Address, Metadata, Pipe, SocketAddress

_TOPOLOGY = ("topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone")
TLS_MARK = "envoy.transport_socket_match"


def select(view: View, service: Service, port: Port, labels: Mapping[str, str] | None, *, by_name: bool) -> list[Endpoint]:
    """The endpoints of one port, or of one subset of it. `by_name`: as EDS chooses them."""
    registry = view.index.registry
    found = registry.named(service, port) if by_name else registry.of(service, port)
    return [e for e in found if labels.items() <= located(e.labels, e.locality).items()] if labels else found


def located(labels: Mapping[str, str], locality: str) -> Mapping[str, str]:
    """A workload's labels and those that its locality brings."""
    return {**labels, **{name: part for name, part in zip(_TOPOLOGY, locality.split("/"), strict=False) if part}} if locality else labels


def known(service: Service, endpoints: list[Endpoint], policy: Policy) -> list[Endpoint]:
    """Those a client is told of: unready ones too, so that it can count them, unless it may fall back on the unhealthy."""
    falls_back = policy.outlier_detection is not None and policy.outlier_detection.min_health_percent > 0
    return [e for e in endpoints if e.ready] if falls_back and not service.distribution else endpoints


def load_assignment(view: View, name: str, endpoints: Iterable[Endpoint], policy: Policy, *, marks: bool = True) -> ClusterLoadAssignment:
    """The endpoints grouped by locality in the order of the localities' names, each group weighing what its members weigh."""
    groups: dict[str, list[Endpoint]] = {}
    for endpoint in endpoints:
        groups.setdefault(endpoint.locality, []).append(endpoint)
    localities = [
        LocalityLbEndpoints(
            locality=split_locality(where) if where else None,
            lb_endpoints=[_lb_endpoint(view, e, policy, marks) for e in groups[where]],
            load_balancing_weight=sum(e.weight or 1 for e in groups[where]),
        )
        for where in sorted(groups)
    ]
    return ClusterLoadAssignment(cluster_name=name, endpoints=localities)


def split_locality(text: str) -> Locality:
    """`region/zone/sub-zone`, later parts may be missing."""
    region, _, rest = text.partition("/")
    zone, _, sub_zone = rest.partition("/")
    return Locality(region, zone, sub_zone)


def _lb_endpoint(view: View, endpoint: Endpoint, policy: Policy, marks: bool) -> LbEndpoint:
    if endpoint.address.startswith("unix://"):
        address = Address(pipe=Pipe(endpoint.address.removeprefix("unix://")))
    else:
        address = Address(socket_address=SocketAddress(endpoint.address, endpoint.port))
    mark = marks and speaks_mesh_tls(view, endpoint, policy)
    return LbEndpoint(
        endpoint=XdsEndpoint(address),
        health_status="UNKNOWN" if endpoint.ready else "UNHEALTHY",
        metadata=Metadata({TLS_MARK: {"tlsMode": "istio"}}) if mark else None,
        load_balancing_weight=endpoint.weight or 1,
    )


def speaks_mesh_tls(view: View, endpoint: Endpoint, policy: Policy) -> bool:
    """Whether clients use mTLS to it: its pod says so, and neither rule nor the workload's own policy takes it back."""
    if endpoint.tls_mode != "istio":
        return False
    if policy.marks is not None:
        return policy.marks.mode == "ISTIO_MUTUAL"
    return view.index.peer_authentication(endpoint.namespace, endpoint.labels, endpoint.port) != "DISABLE"

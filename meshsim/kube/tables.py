"""What `kubectl get` prints: its columns for the kinds it knows, NAME and AGE for the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any as Json

from meshsim.kube.names import named
from meshsim.resources import Resource

Row = tuple[str, ...]
NONE = "<none>"


def table(
    kind: str,
    resources: Sequence[Resource[Json]],
    age: Callable[[Resource[Json]], str],
    *,
    wide: bool = False,
    namespaces: bool = False,
    labels: bool = False,
    full: bool = False,
) -> str:
    """The table of resources of one kind; `full` names carry their kind."""
    columns, cells = _COLUMNS.get(kind, _PLAIN)
    more, of_more = _WIDE.get(kind, _PLAIN) if wide else _PLAIN
    head: Row = (*(("NAMESPACE",) if namespaces else ()), "NAME", *columns, "AGE", *more)
    rows = [(*head, "LABELS") if labels else head]
    prefix = named(kind).qualified + "/" if full else ""
    for r in resources:
        row = (*((r.namespace,) if namespaces else ()), prefix + r.name, *cells(r), age(r), *of_more(r))
        rows.append((*row, _pairs(r.metadata.labels)) if labels else row)
    return aligned(rows)


def aligned(rows: Sequence[Row]) -> str:
    """Columns with three spaces between, as kubectl aligns them."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def containers(pod: Resource[Json]) -> list[str]:
    """The names of a pod's containers."""
    return [c.name for c in pod.spec.spec.containers] if pod.spec.spec else []


def _nothing(resource: Resource[Json]) -> Row:
    return ()


def _pod(pod: Resource[Json]) -> Row:
    count = max(len(containers(pod)), 1)
    return f"{count}/{count}", "Running", "0"


def _service(service: Resource[Json]) -> Row:
    spec = service.spec
    ports = ",".join(f"{p.port}{f':{p.node_port}' if p.node_port else ''}/{p.protocol}" for p in spec.ports)
    outside = spec.external_name or ",".join(spec.external_ips) or NONE
    return spec.type, spec.cluster_ip or NONE, outside, ports or NONE


def _deployment(deployment: Resource[Json]) -> Row:
    count = 1 if deployment.spec.replicas is None else deployment.spec.replicas
    return f"{count}/{count}", str(count), str(count)


def _addresses(node: Resource[Json]) -> Row:
    found = {a.type: a.address for a in node.spec.status.addresses} if node.spec.status else {}
    return found.get("InternalIP", NONE), found.get("ExternalIP", NONE)


def _secret(secret: Resource[Json]) -> Row:
    return secret.spec.type or "Opaque", str(len({**secret.spec.data, **secret.spec.string_data}))


def _policy(policy: Resource[Json]) -> Row:
    selector = policy.spec.pod_selector
    return (_pairs(selector.match_labels if selector else {}),)


def _listed(values: Iterable[str]) -> str:
    """As the API server prints a list."""
    values = list(values)
    return "[" + ",".join(f'"{v}"' for v in values) + "]" if values else ""


def _pairs(labels: dict[str, str]) -> str:
    return ",".join(f"{k}={v}" for k, v in labels.items()) or NONE


_PLAIN: tuple[Row, Callable[[Resource[Json]], Row]] = ((), _nothing)
_COLUMNS: dict[str, tuple[Row, Callable[[Resource[Json]], Row]]] = {
    "Pod": (("READY", "STATUS", "RESTARTS"), _pod),
    "Service": (("TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)"), _service),
    "Deployment": (("READY", "UP-TO-DATE", "AVAILABLE"), _deployment),
    "Node": (("STATUS",), lambda r: ("Ready",)),
    "Namespace": (("STATUS",), lambda r: ("Active",)),
    "Secret": (("TYPE", "DATA"), _secret),
    "NetworkPolicy": (("POD-SELECTOR",), _policy),
    "VirtualService": (("GATEWAYS", "HOSTS"), lambda r: (_listed(r.spec.gateways), _listed(r.spec.hosts))),
    "DestinationRule": (("HOST",), lambda r: (r.spec.host,)),
    "ServiceEntry": (("HOSTS", "LOCATION", "RESOLUTION"), lambda r: (_listed(r.spec.hosts), r.spec.location, r.spec.resolution)),
    "AuthorizationPolicy": (("ACTION",), lambda r: (r.spec.action,)),
    "PeerAuthentication": (("MODE",), lambda r: (r.spec.mtls.mode if r.spec.mtls else "",)),
    "WorkloadEntry": (("ADDRESS",), lambda r: (r.spec.address,)),
}
_WIDE: dict[str, tuple[Row, Callable[[Resource[Json]], Row]]] = {
    "Pod": (("IP", "NODE"), lambda r: (r.spec.status.pod_ip if r.spec.status else NONE, (r.spec.spec and r.spec.spec.node_name) or NONE)),
    "Node": (("INTERNAL-IP", "EXTERNAL-IP"), _addresses),
    "Service": (("SELECTOR",), lambda r: (_pairs(r.spec.selector),)),
}

"""What `kubectl describe` prints: a shape of its own for pods, services, namespaces, deployments and network policies, and for every other
kind its fields, indented.

How this works: a description is a list of lines, most of them a label and a value; `_aligned` puts the values of neighbouring lines into
one column, two spaces behind the longest label, as kubectl does. A line without a value ends a column.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any as Json

from meshsim.deployments import SERVICE_LABEL
from meshsim.kube.store import builtins
from meshsim.kube.tables import NONE
from meshsim.resources import Resource
from meshsim.resources.kubernetes import Container
from meshsim.resources.network_policy import NetworkPolicyPeer, NetworkPolicyPort

Line = tuple[str, str | None]
_NO_EVENTS: Line = ("Events:", NONE)
_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_INITIALS = {"api": "API", "uid": "UID", "url": "URL"}


def described(resource: Resource[Json], mesh: Sequence[Resource[Json]]) -> str:
    """One resource at length; `mesh` is what it may be related to."""
    return _aligned(_SHAPES.get(resource.kind, _fields)(resource, mesh))


def _aligned(lines: Iterable[Line]) -> str:
    out = []
    for has_value, group in groupby(lines, lambda line: line[1] is not None):
        block = list(group)
        width = max(len(label) for label, _ in block) + 2
        out += [f"{label:<{width}}{value}".rstrip() if has_value else label for label, value in block]
    return "\n".join(out)


def _head(resource: Resource[Json], *, namespaced: bool = True) -> Iterator[Line]:
    yield "Name:", resource.name
    if namespaced:
        yield "Namespace:", resource.namespace


def _labels(resource: Resource[Json]) -> Iterator[Line]:
    yield from _pairs("Labels:", resource.metadata.labels, "=")
    yield from _pairs("Annotations:", resource.metadata.annotations, ": ")


def _pairs(label: str, values: Mapping[str, str], between: str) -> Iterator[Line]:
    """Several values one below the other."""
    for n, (key, value) in enumerate(sorted(values.items())):
        yield label if n == 0 else "", f"{key}{between}{value}"
    if not values:
        yield label, NONE


def _chosen(selector: Mapping[str, str]) -> str:
    return ",".join(f"{k}={v}" for k, v in sorted(selector.items())) or NONE


def _containers(containers: Iterable[Container], indent: str, *, state: bool) -> Iterator[Line]:
    yield f"{indent}Containers:", None
    for container in containers:
        yield f"{indent or ' '} {container.name}:", None
        yield "    Image:", container.image
        yield "    Ports:", ", ".join(f"{p.container_port}/{p.protocol or 'TCP'}" for p in container.ports) or NONE
        if state:
            yield "    State:", "Running"
            yield "    Ready:", "True"


def _pod(pod: Resource[Json], mesh: Sequence[Resource[Json]]) -> Iterator[Line]:
    spec, status = pod.spec.spec, pod.spec.status
    yield from _head(pod)
    yield "Service Account:", (spec and spec.service_account_name) or "default"
    yield "Node:", (spec and spec.node_name) or NONE
    yield from _labels(pod)
    yield "Status:", (status and status.phase) or "Running"
    yield "IP:", (status and status.pod_ip) or NONE
    yield from _containers(spec.containers if spec else (), "", state=True)
    yield "Conditions:", None
    yield "  Type", "Status"
    for condition in status.conditions if status else ():
        yield f"  {condition.type}", condition.status
    yield "", None
    yield _NO_EVENTS


def _service(service: Resource[Json], mesh: Sequence[Resource[Json]]) -> Iterator[Line]:
    spec = service.spec
    slices = [r for r in mesh if r.kind == "EndpointSlice" and r.namespace == service.namespace]
    own = [s.spec for s in slices if s.metadata.labels.get(SERVICE_LABEL) == service.name]
    yield from _head(service)
    yield from _labels(service)
    yield "Selector:", _chosen(spec.selector)
    yield "Type:", spec.type
    yield "IP:", spec.cluster_ip or NONE
    for port in spec.ports:
        targets = {p.port for s in own for p in s.ports if p.name == port.name}
        addresses = [a for s in own for e in s.endpoints for a in e.addresses]
        yield "Port:", f"{port.name or '<unset>'}  {port.port}/{port.protocol}"
        yield "TargetPort:", f"{port.target_port or port.port}/{port.protocol}"
        yield "Endpoints:", ",".join(f"{a}:{t}" for a in addresses for t in sorted(targets)) or NONE
    yield "Session Affinity:", "None"
    yield _NO_EVENTS


def _namespace(namespace: Resource[Json], mesh: Sequence[Resource[Json]]) -> Iterator[Line]:
    yield from _head(namespace, namespaced=False)
    yield from _labels(namespace)
    yield "Status:", "Active"
    yield "", None
    yield "No resource quota.", None
    yield "", None
    yield "No LimitRange resource.", None


def _deployment(deployment: Resource[Json], mesh: Sequence[Resource[Json]]) -> Iterator[Line]:
    spec = deployment.spec
    count = 1 if spec.replicas is None else spec.replicas
    yield from _head(deployment)
    yield from _labels(deployment)
    yield "Selector:", _chosen(spec.selector.match_labels if spec.selector else {})
    yield "Replicas:", f"{count} desired | {count} updated | {count} total | {count} available | 0 unavailable"
    if spec.template is not None:
        yield "Pod Template:", None
        yield from _pairs("  Labels:", (spec.template.metadata or {}).get("labels") or {}, "=")
        yield from _containers(spec.template.spec.containers if spec.template.spec else (), "  ", state=False)
    yield _NO_EVENTS


def _policy(policy: Resource[Json], mesh: Sequence[Resource[Json]]) -> Iterator[Line]:
    spec = policy.spec
    selected = spec.pod_selector.match_labels if spec.pod_selector else {}
    yield from _head(policy)
    yield from _labels(policy)
    yield "Spec:", None
    everyone = f"{NONE} (Allowing the specific traffic to all pods in this namespace)"
    yield f"  PodSelector: {_chosen(selected) if selected else everyone}", None
    types = spec.policy_types or ["Ingress", *(["Egress"] if spec.egress else [])]
    directions = (
        ("Ingress", "From", [(r.ports, r.from_) for r in spec.ingress or ()]),
        ("Egress", "To", [(r.ports, r.to) for r in spec.egress or ()]),
    )
    for kind, word, rules in directions:
        if kind not in types:
            yield f"  Not affecting {kind.lower()} traffic", None
            continue
        yield f"  Allowing {kind.lower()} traffic:", None
        if not rules:
            yield f"    {NONE} (Selected pods are isolated for {kind.lower()} connectivity)", None
        for n, (ports, peers) in enumerate(rules):
            yield from [("    ----------", None)] if n else []
            yield from ((f"    To Port: {port}", None) for port in _policy_ports(ports))
            yield from _policy_peers(word, peers)
    yield f"  Policy Types: {', '.join(types)}", None


def _policy_ports(ports: Sequence[NetworkPolicyPort] | None) -> list[str]:
    shown = [f"{p.port if p.port is not None else '<any>'}{f'-{p.end_port}' if p.end_port else ''}/{p.protocol}" for p in ports or ()]
    return shown or ["<any> (traffic allowed to all ports)"]


def _policy_peers(word: str, peers: Sequence[NetworkPolicyPeer] | None) -> Iterator[Line]:
    if not peers:
        yield f"    {word}: <any> (traffic not restricted by {'source' if word == 'From' else 'destination'})", None
    for peer in peers or ():
        yield f"    {word}:", None
        if peer.ip_block is not None:
            yield "      IPBlock:", None
            yield f"        CIDR: {peer.ip_block.cidr}", None
            yield f"        Except: {', '.join(peer.ip_block.except_)}", None
        if peer.namespace_selector is not None:
            yield f"      NamespaceSelector: {_chosen(peer.namespace_selector.match_labels)}", None
        if peer.pod_selector is not None:
            yield f"      PodSelector: {_chosen(peer.pod_selector.match_labels)}", None


def _fields(resource: Resource[Json], mesh: Sequence[Resource[Json]]) -> Iterator[Line]:
    """Any other kind: its fields in the order of their names."""
    whole = builtins(resource)
    yield from _head(resource)
    yield from _labels(resource)
    yield "API Version:", resource.api_version
    yield "Kind:", resource.kind
    yield from _nested({k: v for k, v in whole.items() if k not in ("apiVersion", "kind", "metadata")}, "")
    yield _NO_EVENTS


def _nested(value: Mapping[str, Json], indent: str) -> Iterator[Line]:
    for key, inner in sorted(value.items()):
        label = f"{indent}{_label(key)}:"
        if isinstance(inner, Mapping):
            yield label, None
            yield from _nested(inner, indent + "  ")
        elif isinstance(inner, list):
            yield label, None
            for item in inner:
                yield from _nested(item, indent + "  ") if isinstance(item, Mapping) else [(f"{indent}  {_plain(item)}", None)]
        else:
            yield label, _plain(inner)


def _plain(value: Json) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _label(key: str) -> str:
    """`portLevelSettings` as kubectl writes it: `Port Level Settings`."""
    words = _WORD.sub(" ", key).split(" ")
    return " ".join(_INITIALS.get(w.lower(), w[:1].upper() + w[1:]) for w in words)


_SHAPES: dict[str, Callable[[Resource[Json], Sequence[Resource[Json]]], Iterator[Line]]] = {
    "Pod": _pod, "Service": _service, "Namespace": _namespace, "Deployment": _deployment, "NetworkPolicy": _policy,
}  # fmt: skip

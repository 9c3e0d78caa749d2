"""What Kubernetes' controllers make of Deployments and Services: Pods with addresses, ClusterIPs, EndpointSlices. Pure.

How this works: a Deployment without Pods of its own gets as many as it asks for, with names and addresses that follow from its name
and its place in the list alone, so that a mesh is the same every time it is loaded. Pods in a namespace that is labelled
`istio-injection: enabled` get a second container, `istio-proxy`, as Istio's webhook adds it; a pod or template says no with the
annotation or label `sidecar.istio.io/inject: "false"`. A Service with a selector and no EndpointSlice gets one from the Pods it
selects. Whatever is written out by hand stays as it is.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Iterator
from typing import Any as Json

import msgspec

from meshsim.resources import ObjectMeta, Resource, node
from meshsim.resources.kubernetes import (
    Container,
    EndpointConditions,
    EndpointSlice,
    ObjectReference,
    Pod,
    PodCondition,
    PodIp,
    PodSpec,
    PodStatus,
    ServicePort,
    SliceEndpoint,
    SlicePort,
)
from meshsim.topology import INJECTION_LABEL, PROXY_CONTAINER, PROXY_IMAGE, TLS_MODE_LABEL

INJECT = "sidecar.istio.io/inject"
SERVICE_LABEL = "kubernetes.io/service-name"
GATEWAY_PODS, PODS, CLUSTER_IPS = "10.244.0.20", "10.244.1.10", "10.96.20.20"  # the first address of each range


def deployed(resources: Iterable[Resource[Json]]) -> list[Resource[Json]]:
    """The resources, and after them what follows from them."""
    given = list(resources)
    taken = {r.spec.status.pod_ip for r in given if r.kind == "Pod" and r.spec.status}
    taken |= {r.spec.cluster_ip for r in given if r.kind == "Service"}
    pods = list(_pods(given, taken))
    _cluster_ips(given, taken)
    given += pods
    return given + list(_slices(given))


def _pods(given: list[Resource[Json]], taken: set[str]) -> Iterator[Resource[Json]]:
    injecting = {r.name for r in given if r.kind == "Namespace" and r.metadata.labels.get(INJECTION_LABEL) == "enabled"}
    existing = [r for r in given if r.kind == "Pod"]
    nodes = [r for r in given if r.kind == "Node"]
    for deployment in (r for r in given if r.kind == "Deployment"):
        template = deployment.spec.template
        wanted = deployment.spec.selector.match_labels if deployment.spec.selector else {}
        if template is None or any(p.namespace == deployment.namespace and _selects(wanted, p) for p in existing):
            continue
        meta = template.metadata or {}
        labels = dict(meta.get("labels") or {})
        annotations = dict(meta.get("annotations") or {})
        spec = template.spec or PodSpec()
        containers = list(spec.containers)
        is_gateway = [c.name for c in containers] == [PROXY_CONTAINER]
        refused = "false" in (labels.get(INJECT), annotations.get(INJECT))
        if deployment.namespace in injecting and not refused and PROXY_CONTAINER not in [c.name for c in containers]:
            containers.append(Container(name=PROXY_CONTAINER, image=PROXY_IMAGE))
            labels[TLS_MODE_LABEL] = "istio"
        replicas = 1 if deployment.spec.replicas is None else deployment.spec.replicas
        for number in range(replicas):
            address = _free(GATEWAY_PODS if is_gateway else PODS, taken)
            yield Resource(
                "v1",
                "Pod",
                ObjectMeta(name=_pod_name(deployment, number), namespace=deployment.namespace, labels=labels, annotations=annotations),
                Pod(spec=msgspec.structs.replace(spec, containers=containers, node_name=node.of(spec, nodes)), status=_running(address)),
                deployment.source,
                deployment.order,
            )


def _running(address: str) -> PodStatus:
    return PodStatus(pod_ip=address, pod_ips=[PodIp(ip=address)], phase="Running", conditions=[PodCondition(type="Ready", status="True")])


def _cluster_ips(given: list[Resource[Json]], taken: set[str]) -> None:
    for n, service in enumerate(given):
        if service.kind == "Service" and service.spec.type != "ExternalName" and not service.spec.cluster_ip:
            spec = msgspec.structs.replace(service.spec, cluster_ip=_free(CLUSTER_IPS, taken))
            given[n] = Resource(service.api_version, "Service", service.metadata, spec, service.source, service.order, service.raw)


def _slices(given: list[Resource[Json]]) -> Iterator[Resource[Json]]:
    written = {(r.namespace, r.metadata.labels.get(SERVICE_LABEL, "")) for r in given if r.kind == "EndpointSlice"}
    written |= {(r.namespace, r.name) for r in given if r.kind == "Endpoints"}
    pods = [r for r in given if r.kind == "Pod" and r.spec.status and r.spec.status.pod_ip]
    for service in (r for r in given if r.kind == "Service" and r.spec.selector):
        behind = [p for p in pods if p.namespace == service.namespace and _selects(service.spec.selector, p)]
        if behind and (service.namespace, service.name) not in written:
            slice_ = EndpointSlice(
                ports=[SlicePort(name=port.name, port=_target(port, behind[0]), protocol=port.protocol) for port in service.spec.ports],
                endpoints=[_endpoint(pod) for pod in behind],
            )
            meta = ObjectMeta(name=f"{service.name}-1", namespace=service.namespace, labels={SERVICE_LABEL: service.name})
            yield Resource("discovery.k8s.io/v1", "EndpointSlice", meta, slice_, service.source, service.order)


def _endpoint(pod: Resource[Json]) -> SliceEndpoint:
    return SliceEndpoint(
        addresses=[pod.spec.status.pod_ip],
        conditions=EndpointConditions(ready=True),
        target_ref=ObjectReference(kind="Pod", name=pod.name, namespace=pod.namespace),
    )


def _target(port: ServicePort, pod: Resource[Json]) -> int:
    """The number behind a Service's port; a named target is looked up among the pod's container ports."""
    if isinstance(port.target_port, int):
        return port.target_port
    for container in pod.spec.spec.containers if pod.spec.spec else ():
        for found in container.ports:
            if port.target_port and found.name == port.target_port:
                return int(found.container_port)
    return port.port


def _selects(wanted: dict[str, str], pod: Resource[Json]) -> bool:
    return bool(wanted) and wanted.items() <= pod.metadata.labels.items()


def _pod_name(deployment: Resource[Json], number: int) -> str:
    digest = hashlib.sha256(f"{deployment.namespace}/{deployment.name}".encode()).hexdigest()
    return f"{deployment.name}-{digest[:10]}-{digest[10 + 5 * number : 15 + 5 * number] or number}"


def _free(first: str, taken: set[str]) -> str:
    address = ipaddress.ip_address(first)
    while str(address) in taken:
        address += 1
    taken.add(str(address))
    return str(address)

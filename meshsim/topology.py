"""Who lives where: the proxies of a mesh, the pods, and which name has which address. Pure; the same input gives the same answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any as Json

from meshsim.resources.proxy_metadata import ProxyMetadata
from meshsim.resources.resource import Resource

SIDECAR, ROUTER = "sidecar", "router"
TLS_MODE_LABEL = "security.istio.io/tlsMode"
INJECTION_LABEL = "istio-injection"
PROXY_CONTAINER, PROXY_IMAGE = "istio-proxy", "proxyv2"


@dataclass(frozen=True)
class Proxy:
    """One proxy: a pod's sidecar, or a gateway (router). `metadata` is what its bootstrap tells the control plane (DNS_CAPTURE...)."""

    name: str
    type: str = SIDECAR
    namespace: str = "default"
    ip: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    service_account: str = "default"
    metadata: Mapping[str, str] = field(default_factory=dict)
    pod: str = ""

    @property
    def is_sidecar(self) -> bool:
        return self.type == SIDECAR

    @property
    def dns_capture(self) -> bool:
        return self.metadata.get("DNS_CAPTURE", "").lower() == "true"

    @property
    def unprivileged(self) -> bool:
        return self.metadata.get("UNPRIVILEGED_POD", "").lower() == "true"

    def identity(self, trust_domain: str = "cluster.local") -> str:
        """The SPIFFE id of its workload certificate; `@` of a trust domain becomes a dot (Istio)."""
        return f"spiffe://{trust_domain.replace('@', '.')}/ns/{self.namespace}/sa/{self.service_account or 'default'}"


def proxies(resources: Iterable[Resource[Json]]) -> list[Proxy]:
    """The proxies of a mesh that is described by Pods: each with an `istio-proxy` container has one.

    A pod whose only container is the proxy is a gateway. The proxy is named by the pod's `app` label, else by the pod.
    """
    resources = list(resources)
    said = ProxyMetadata(resources)
    out: list[Proxy] = []
    for pod in resources:
        if pod.kind != "Pod" or pod.spec.spec is None or pod.spec.status is None:
            continue
        containers = [c.name for c in pod.spec.spec.containers]
        if PROXY_CONTAINER not in containers or not pod.spec.status.pod_ip:
            continue
        kind = ROUTER if containers == [PROXY_CONTAINER] else SIDECAR
        out.append(
            Proxy(
                name=pod.metadata.labels.get("app", pod.name),
                type=kind,
                namespace=pod.namespace,
                ip=pod.spec.status.pod_ip,
                labels=pod.metadata.labels,
                service_account=pod.spec.spec.service_account_name or "default",
                metadata=said.of(pod),
                pod=pod.name,
            )
        )
    return out

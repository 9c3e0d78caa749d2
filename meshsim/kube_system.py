"""The cluster's DNS as a cluster has it: a pod of its own in `kube-system`, behind the Service `kube-dns`. Pure.

How this works: every mesh gets these resources, so that pods look names up at an address that is a pod's, and NetworkPolicies select that
pod by its labels like any other. A pod, Service or Namespace of that name that is written out takes the place of this one's. istiod is told
nothing of them, as where its `discoverySelectors` leave `kube-system` out: what proxies get is the same with them and without.
Source: what kubeadm installs (Service kube-dns 10.96.0.10, label k8s-app=kube-dns, ports dns and dns-tcp).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any as Json

from meshsim.resources import Resource, loads
from meshsim.resources.network_policy import DNS_LABELS, DNS_NAMESPACE

FILE = "<kube-system>"
NAME = "kube-dns.kube-system.svc.cluster.local"
_DNS = """
apiVersion: v1
kind: Namespace
metadata: {name: kube-system}
---
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system, labels: {k8s-app: kube-dns}}
spec:
  clusterIP: 10.96.0.10
  selector: {k8s-app: kube-dns}
  ports:
  - {name: dns, port: 53, targetPort: 53, protocol: UDP}
  - {name: dns-tcp, port: 53, targetPort: 53, protocol: TCP}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: coredns, namespace: kube-system, labels: {k8s-app: kube-dns}}
spec:
  replicas: 1
  selector: {matchLabels: {k8s-app: kube-dns}}
---
apiVersion: v1
kind: Pod
metadata: {name: coredns-674b8bbfcf-7xv2q, namespace: kube-system, labels: {k8s-app: kube-dns}}
spec:
  containers:
  - name: coredns
    image: coredns/coredns
    ports:
    - {name: dns, containerPort: 53, protocol: UDP}
    - {name: dns-tcp, containerPort: 53, protocol: TCP}
status: {podIP: 10.244.0.2, phase: Running, conditions: [{type: Ready, status: "True"}]}
"""


def lacking(given: Iterable[Resource[Json]]) -> list[Resource[Json]]:
    """What these resources lack of the cluster's DNS."""
    given = list(given)
    known = {r.id for r in given}
    own_pods = any(r.kind == "Deployment" and r.id in known for r in _dns()) or any(map(is_dns, given))
    return [r for r in _dns() if r.id not in known and not (own_pods and r.kind in ("Deployment", "Pod"))]


def is_dns(resource: Resource[Json]) -> bool:
    """Whether this is a pod of the cluster's DNS."""
    labels = resource.metadata.labels
    return resource.kind == "Pod" and resource.namespace == DNS_NAMESPACE and DNS_LABELS.items() <= labels.items()


def is_hidden(resource: Resource[Json]) -> bool:
    """Whether istiod is told nothing of it."""
    return resource.source.file == FILE


@cache
def _dns() -> tuple[Resource[Json], ...]:
    return tuple(loads(_DNS, FILE).require().resources)

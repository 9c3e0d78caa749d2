"""Deployments and Services become Pods, addresses and EndpointSlices, the same every time."""

from __future__ import annotations

import pytest

from meshsim import resources
from meshsim.deployments import deployed

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}%s}
    spec: {containers: [{name: web, ports: [{name: admin, containerPort: 9000}]}]}
"""
NAMESPACE = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: default%s}\n"
SERVICE = """---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports:
  - {name: http, port: 80}
  - {name: metrics, port: 81, targetPort: admin}
  - {name: other, port: 82, targetPort: 8082}
"""


def pods(text: str) -> list[resources.Resource]:
    return [r for r in deployed(resources.loads(text).require().resources) if r.kind == "Pod"]


@pytest.mark.parametrize(
    "namespace,annotations,containers",
    [
        (", labels: {istio-injection: enabled}", "", ["web", "istio-proxy"]),
        (", labels: {istio-injection: disabled}", "", ["web"]),
        ("", "", ["web"]),
        (", labels: {istio-injection: enabled}", ', annotations: {sidecar.istio.io/inject: "false"}', ["web"]),
    ],
)
def test_injection_follows_the_namespace_label(namespace: str, annotations: str, containers: list[str]) -> None:
    made = pods(NAMESPACE % namespace + "---" + DEPLOYMENT % annotations)
    assert [c.name for c in made[0].spec.spec.containers] == containers
    assert (made[0].metadata.labels.get("security.istio.io/tlsMode") == "istio") == (len(containers) == 2)


def test_replicas_have_names_and_addresses_of_their_own_and_keep_them() -> None:
    first, again = pods(DEPLOYMENT % ""), pods(DEPLOYMENT % "")
    assert [p.name for p in first] == [p.name for p in again]
    assert len({p.name for p in first}) == 2
    assert [p.spec.status.pod_ip for p in first] == ["10.244.1.10", "10.244.1.11"]


def test_what_is_written_out_is_left_alone() -> None:
    pod = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: web-1, labels: {app: web}}\nspec: {containers: [{name: web}]}\n"
    assert [p.name for p in pods(DEPLOYMENT % "" + pod)] == ["web-1"]


def test_services_get_an_address_and_the_pods_behind_them() -> None:
    made = deployed(resources.loads(DEPLOYMENT % "" + SERVICE).require().resources)
    service = next(r for r in made if r.kind == "Service")
    piece = next(r for r in made if r.kind == "EndpointSlice")
    assert service.spec.cluster_ip == "10.96.20.20"
    assert {p.name: p.port for p in piece.spec.ports} == {"http": 80, "metrics": 9000, "other": 8082}
    assert [e.addresses for e in piece.spec.endpoints] == [["10.244.1.10"], ["10.244.1.11"]]


def test_deploying_twice_changes_nothing() -> None:
    once = deployed(resources.loads(DEPLOYMENT % "" + SERVICE).require().resources)
    assert [r.id for r in deployed(once)] == [r.id for r in once]

"""Analyzers that need the cluster's own objects: names that lead nowhere."""

from __future__ import annotations

import pytest

from meshsim import analysis, resources

BASE = """
apiVersion: v1
kind: Service
metadata: {name: egress, namespace: istio-system}
spec: {selector: {istio: egressgateway}, ports: [{name: http2, port: 80, targetPort: 8080}, {name: https, port: 443, targetPort: 8443}]}
---
apiVersion: v1
kind: Pod
metadata: {name: egress-1, namespace: istio-system, labels: {istio: egressgateway}}
---
apiVersion: v1
kind: Namespace
metadata: {name: default}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: se, namespace: default}
spec: {hosts: [a.com], resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP}, {number: 443, name: tls, protocol: TLS}]}
---
"""


def networking(kind: str, spec: str, namespace: str = "default") -> str:
    group = "security" if kind == "AuthorizationPolicy" else "networking"
    return f"apiVersion: {group}.istio.io/v1\nkind: {kind}\nmetadata: {{name: x, namespace: {namespace}}}\nspec: {spec}\n"


def routed(host: str, port: str = ", port: {number: 80}") -> str:
    return networking("VirtualService", f"{{hosts: [a.com], http: [{{route: [{{destination: {{host: {host}{port}}}}}]}}]}}")


def served(port: int, selector: str = "{istio: egressgateway}", tls: str = "") -> str:
    more = f", tls: {tls}" if tls else ""
    server = f"{{port: {{number: {port}, name: p, protocol: {'HTTPS' if tls else 'HTTP'}}}, hosts: ['*']{more}}}"
    return networking("Gateway", f"{{selector: {selector}, servers: [{server}]}}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (routed("a.com"), []),
        (routed("b.com"), [("IST0101", 'Referenced host not found: "b.com"')]),
        (routed("a.com", ", port: {number: 81}"), [("IST0101", 'Referenced host:port not found: "a.com:81"')]),
        (routed("a.com", ""), [("IST0112", "[80 443]")]),
        (routed("egress.istio-system.svc.cluster.local"), []),
        (networking("DestinationRule", "{host: b.com}"), [("IST0174", "The host b.com defined")]),
        (networking("DestinationRule", "{host: a.com, subsets: [{name: v, labels: {no: pod}}]}"), [("IST0173", "The Subset v defined")]),
        (served(80), []),
        (served(8080), []),
        (served(81), [("IST0162", "(port 81)")]),
        (served(80, "{istio: other}"), [("IST0101", 'Referenced selector not found: "istio=other"')]),
        (served(443, tls="{mode: SIMPLE, credentialName: c}"), [("IST0101", 'Referenced credentialName not found: "c"')]),
        (networking("AuthorizationPolicy", "{selector: {matchLabels: {app: a}}}"), [("IST0127", "following labels: app=a")]),
        (networking("AuthorizationPolicy", "{rules: [{from: [{source: {namespaces: [nowhere]}}]}]}", "istio-system"),
         [("IST0101", 'Referenced namespace not found: "nowhere"')]),
        (networking("Sidecar", "{workloadSelector: {labels: {app: a}}, egress: [{hosts: ['*/*']}]}"),
         [("IST0101", 'Referenced selector not found: "app=a"')]),
    ],
)  # fmt: skip
def test_cluster_analyzers(text: str, expected: list[tuple[str, str]]) -> None:
    loaded = resources.loads(BASE + text, "x.yaml").resources
    alone = {str(f) for f in analysis.analyze(loaded)}
    found = [f for f in analysis.analyze(loaded, cluster=True) if str(f) not in alone]
    assert [f.code for f in found] == [code for code, _ in expected]
    for one, (_, words) in zip(found, expected, strict=True):
        assert words in one.message and one.location is not None and one.location.file == "x.yaml"

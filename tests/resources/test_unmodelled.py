"""What is read and not acted on is said, with its place; what is the default anyway is not."""

from __future__ import annotations

import pytest

from meshsim import resources
from meshsim.resources.unmodelled import passed_over

ISTIO = "apiVersion: networking.istio.io/v1\nkind: {}\nmetadata: {{name: x, namespace: default}}\nspec: {}\n"
MESH = "apiVersion: meshsim.dev/v1alpha1\nkind: MeshConfig\nmetadata: {{name: istio}}\nspec: {}\n"
SERVICE = "apiVersion: v1\nkind: Service\nmetadata: {{name: x, namespace: default}}\nspec: {{ports: [{{port: 80}}], {}}}\n"
LB = "{loadBalancer: {backendUtilization: {}}}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ISTIO.format("DestinationRule", "{host: a.b, trafficPolicy: {loadBalancer: {simple: RANDOM}}}"), []),
        (
            ISTIO.format("DestinationRule", "{host: a.b, subsets: [{name: v1}, {name: v2, trafficPolicy: " + LB + "}]}"),
            ["DestinationRule/default/x subsets[1].trafficPolicy.loadBalancer.backendUtilization (x.yaml:4)"],
        ),
        (
            MESH.format("{serviceSettings: [{hosts: [a.b]}], verifyCertificateAtClient: false}"),
            ["MeshConfig/default/istio serviceSettings (x.yaml:4)"],
        ),
        (
            ISTIO.format("DestinationRule", "{host: a.b, trafficPolicy: {connectionPool: {tcp: {tcpKeepalive: {probes: 3}}}}}"),
            ["DestinationRule/default/x trafficPolicy.connectionPool.tcp.tcpKeepalive (x.yaml:4)"],
        ),
        (
            ISTIO.format("Gateway", "{servers: [{port: {number: 1, name: x, protocol: TLS}, tls: {insecureSkipVerify: true}}]}"),
            [
                "heeded by trace; a running gateway lets any name in, but no certificate of a CA it does not know: "
                "Gateway/default/x servers[0].tls.insecureSkipVerify (x.yaml:4)"
            ],
        ),
        (SERVICE.format("sessionAffinity: None, internalTrafficPolicy: Cluster"), []),
        (
            MESH.format('{defaultConfig: {proxyMetadata: {ISTIO_META_DNS_CAPTURE: "true", EXIT_ON_ZERO_ACTIVE_CONNECTIONS: "true"}}}'),
            ["MeshConfig/default/istio defaultConfig.proxyMetadata.EXIT_ON_ZERO_ACTIVE_CONNECTIONS (x.yaml:4)"],
        ),
        (MESH.format("{defaultConfig: {concurrency: 2}}"), []),
        (
            ISTIO.format("ProxyConfig", '{environmentVariables: {ISTIO_META_DNS_CAPTURE: "true", A: b}}').replace("/v1\n", "/v1beta1\n"),
            ["ProxyConfig/default/x environmentVariables.A (x.yaml:4)"],
        ),
        (SERVICE.format("sessionAffinity: ClientIP"), ["Service/default/x sessionAffinity (x.yaml:4)"]),
    ],
)
def test_named(text: str, expected: list[str]) -> None:
    found = passed_over(resources.loads(text, "x.yaml").require().resources)
    assert [note.removeprefix("not simulated, and without effect here: ") for note in found] == expected

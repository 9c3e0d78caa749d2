"""Which endpoints a client is told of, in which order of preference, and what its cluster says about localities."""

from __future__ import annotations

from typing import Any as Json

import pytest

from tests.control.helpers import CLIENT, compiled, document, plain

HOST = "db.example.com"
PLACES = [("192.0.2.1", "eu/a"), ("192.0.2.2", "eu/b"), ("192.0.2.3", "us/a"), ("192.0.2.4", "")]
OUTLIERS = {"outlierDetection": {"consecutive5xxErrors": 1}}


def told(policy: Json, mesh: Json = None, **spec: Json) -> tuple[Json, dict[str, int]]:
    """What the client's cluster says of localities, and each endpoint's priority."""
    entry = {
        "hosts": [HOST],
        "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}],
        "resolution": "STATIC",
        "endpoints": [{"address": a, **({"locality": where} if where else {})} for a, where in PLACES],
        **spec,
    }
    made = compiled(
        document("ServiceEntry", entry), document("DestinationRule", {"host": HOST, "trafficPolicy": policy}), proxy=CLIENT, mesh=mesh
    )
    name = f"outbound|80||{HOST}"
    cluster = plain(next(c for c in made.clusters if c.name == name))
    assignment = next(e for e in made.endpoints if e.cluster_name == name)
    priorities = {str(m.endpoint.address).partition(":")[0]: g.priority for g in assignment.endpoints for m in g.lb_endpoints}
    return {k: v for k, v in cluster["common_lb_config"].items() if k != "healthy_panic_threshold"}, priorities


ALIKE = dict.fromkeys((a for a, _ in PLACES), 0)
NEAR_FIRST = {**dict.fromkeys(ALIKE, 1), "192.0.2.4": 0}  # the client has no locality, like the last one
WEIGHTED = {"locality_weighted_lb_config": {}}


@pytest.mark.parametrize(
    ("policy", "mesh", "says", "priorities"),
    [
        ({}, None, {}, ALIKE),
        (OUTLIERS, None, {}, NEAR_FIRST),  # the mesh fails over where health is looked at
        (OUTLIERS, {"localityLbSetting": {"enabled": False}}, {}, ALIKE),
        ({**OUTLIERS, "loadBalancer": {"localityLbSetting": {"enabled": False}}}, None, {}, ALIKE),
        ({"loadBalancer": {"localityLbSetting": {"failover": [{"from": "eu", "to": "us"}]}}}, None, {}, ALIKE),
        ({**OUTLIERS, "loadBalancer": {"localityLbSetting": {"failover": [{"from": "eu", "to": "us"}]}}}, None, WEIGHTED, NEAR_FIRST),
        ({"loadBalancer": {"zoneAwareLbSetting": {"minClusterSize": 4}}}, None,
         {"zone_aware_lb_config": {"min_cluster_size": "4"}}, NEAR_FIRST),
        ({"loadBalancer": {"zoneAwareLbSetting": {"enabled": False}}}, None,
         {"zone_aware_lb_config": {"routing_enabled": {}}}, ALIKE),
    ],
)  # fmt: skip
def test_localities(policy: Json, mesh: Json, says: Json, priorities: dict[str, int]) -> None:
    assert told(policy, mesh) == (says, priorities)


def service(name: str, conditions: Json = None, pod: str = "", **spec: Json) -> tuple[Json, Json]:
    """A Service with one endpoint."""
    endpoint = {"addresses": ["10.244.9.9"], **({"conditions": conditions} if conditions else {})}
    if pod:
        endpoint["targetRef"] = {"kind": "Pod", "name": pod, "namespace": "default"}
    ports = [{"name": "http", "port": 80}]
    return (
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
         "spec": {"clusterIP": "10.96.7.7", "ports": ports, **spec}},
        {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4", "ports": ports, "endpoints": [endpoint],
         "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": name}}},
    )  # fmt: skip


def rule(**policy: Json) -> Json:
    return document("DestinationRule", {"host": "web", "trafficPolicy": policy})


@pytest.mark.parametrize(
    ("conditions", "pod", "policy", "expected"),
    [
        (None, "", {}, ["UNKNOWN"]),
        ({"ready": True}, "", {}, ["UNKNOWN"]),
        ({"ready": False, "terminating": False}, "", {}, ["UNHEALTHY"]),
        ({"ready": False, "terminating": False}, "", {"outlierDetection": {"minHealthPercent": 50}}, []),
        ({"ready": False, "terminating": True}, "", {}, []),
        ({"ready": False}, "", {}, []),
        ({"ready": True}, "not-there-yet", {}, []),
    ],
)
def test_readiness(conditions: Json, pod: str, policy: Json, expected: list[str]) -> None:
    made = compiled(*service("web", conditions, pod), rule(**policy), proxy=CLIENT)
    found = next(e for e in made.endpoints if e.cluster_name == "outbound|80||web.default.svc.cluster.local")
    assert [member.health_status for group in found.endpoints for member in group.lb_endpoints] == expected


@pytest.mark.parametrize(
    ("spec", "says"), [({}, {}), ({"trafficDistribution": "PreferClose"}, WEIGHTED), ({"trafficDistribution": "x"}, {})]
)
def test_traffic_distribution(spec: Json, says: Json) -> None:
    made = compiled(*service("web", **spec), proxy=CLIENT)
    cluster = plain(next(c for c in made.clusters if c.name == "outbound|80||web.default.svc.cluster.local"))
    assert {k: v for k, v in cluster["common_lb_config"].items() if k != "healthy_panic_threshold"} == says

"""What a DestinationRule's traffic policy makes of a cluster, setting by setting, outbound and inbound."""

from __future__ import annotations

from typing import Any as Json

import pytest

from tests.control.helpers import CLIENT, compiled, document, plain

HOST = "db.example.com"
PORTS = [
    {"number": 80, "name": "http", "protocol": "HTTP"},
    {"number": 81, "name": "http2", "protocol": "HTTP2"},
    {"number": 82, "name": "any", "protocol": ""},
]


def cluster(policy: Json, port: int = 80, mesh: Json = None, **entry: Json) -> Json:
    """The client's cluster of an external host, as JSON, its HTTP options under `http`."""
    spec = {"hosts": [HOST], "ports": PORTS, "resolution": "DNS", **entry}
    told = compiled(
        document("ServiceEntry", spec), document("DestinationRule", {"host": spec["hosts"][0], "trafficPolicy": policy}),
        proxy=CLIENT, mesh=mesh,
    )  # fmt: skip
    return _named(told, f"outbound|{port}||{spec['hosts'][0]}")


def inbound(*documents: Json, port: int = 8000) -> Json:
    return _named(compiled(*documents, proxy=CLIENT), f"inbound|{port}||")


def _named(told: Json, name: str) -> Json:
    made = plain(next(c for c in told.clusters if c.name == name))
    made["http"] = next(iter(made.get("typed_extension_protocol_options", {}).values()), {})
    made["limits"] = made["circuit_breakers"]["thresholds"][0]
    return made


NONE = 4294967295
EITHER = {"http_protocol_options": {}, "http2_protocol_options": {}}


def pool(**settings: Json) -> Json:
    return {"connectionPool": settings}


@pytest.mark.parametrize(
    ("policy", "port", "path", "expected"),
    [
        (pool(tcp={"maxConnections": 3}), 80, "limits.max_connections", 3),
        (pool(http={"maxRetries": 3}), 80, "limits.max_retries", 3),
        # a budget does not take the number of retries away
        ({"retryBudget": {"percent": 50}}, 80, "limits.max_retries", NONE),
        ({"retryBudget": {"percent": 50}}, 80, "limits.retry_budget", {"budget_percent": {"value": 50.0}, "min_retry_concurrency": 3}),
        # HTTP/2 settings count where the cluster speaks HTTP/2 whatever its clients do
        (pool(http={"maxConcurrentStreams": 7}), 81, "http.explicit_http_config.http2_protocol_options.max_concurrent_streams", 7),
        (pool(http={"maxConcurrentStreams": 7}), 82, "http.use_downstream_protocol_config", EITHER),
        (pool(http={"maxConcurrentStreams": 7}), 80, "http.explicit_http_config", {"http_protocol_options": {}}),
        (pool(http={"maxConcurrentStreams": 7, "useClientProtocol": True}), 81, "http.use_downstream_protocol_config", EITHER),
        # an upgrade is for clusters that do not follow their clients
        (pool(http={"h2UpgradePolicy": "UPGRADE"}), 80, "http.explicit_http_config", {"http2_protocol_options": {}}),
        (pool(http={"h2UpgradePolicy": "UPGRADE"}), 82, "http.use_downstream_protocol_config", EITHER),
        (pool(tcp={"tcpKeepalive": {"time": "1.9s"}}), 80, "upstream_connection_options.tcp_keepalive", {"keepalive_time": 1}),
        # which ALPN is offered follows from that
        ({"tls": {"mode": "ISTIO_MUTUAL"}, **pool(http={"useClientProtocol": True})}, 81,
         "transport_socket.typed_config.common_tls_context.alpn_protocols", ["istio-peer-exchange", "istio"]),
        ({"tls": {"mode": "SIMPLE"}}, 81, "transport_socket.typed_config.common_tls_context.alpn_protocols", ["h2"]),
        # an enclosing PROXY header stays where a subset's or a rule's port says nothing of it
        ({"proxyProtocol": {"version": "V2"}}, 80, "transport_socket.typed_config.transport_socket.name", "raw_buffer"),
        # load balancers
        ({"loadBalancer": {"consistentHash": {"useSourceIp": True, "ringHash": {}}}}, 80, "ring_hash_lb_config", None),
        ({"loadBalancer": {"consistentHash": {"useSourceIp": True}}}, 80, "ring_hash_lb_config.minimum_ring_size", "1024"),
        ({"loadBalancer": {"consistentHash": {"useSourceIp": True}, "warmup": {"duration": "9s"}}}, 80, "least_request_lb_config", None),
        ({"loadBalancer": {"simple": "ROUND_ROBIN", "warmupDurationSecs": "9s"}}, 80, "round_robin_lb_config",
         {"slow_start_config": {"slow_start_window": "9s"}}),
        ({"outlierDetection": {"outlierDetectionHttpErrorCodes": [429]}}, 80,
         "http.outlier_detection.error_matcher.http_response_headers_match.headers",
         [{"name": ":status", "string_match": {"exact": "429"}}]),
    ],
)  # fmt: skip
def test_outbound(policy: Json, port: int, path: str, expected: Json) -> None:
    found = cluster(policy, port)
    for step in path.split("."):
        found = found.get(step) if found else None
    assert found == expected


def test_the_mesh_s_keepalive_is_completed_by_the_rule() -> None:
    mesh = {"tcpKeepalive": {"probes": 9, "time": "60s"}}
    made = cluster(pool(tcp={"tcpKeepalive": {"time": "5s"}}), mesh=mesh)
    assert made["upstream_connection_options"]["tcp_keepalive"] == {"keepalive_probes": 9, "keepalive_time": 5}


def test_names_of_endpoints_count_for_external_tls() -> None:
    endpoints = [{"address": "192.0.2.1", "serviceAccount": "db"}]
    made = cluster({"tls": {"mode": "SIMPLE", "sni": HOST}}, endpoints=endpoints, resolution="STATIC", subjectAltNames=["db.internal"])
    context = made["transport_socket"]["typed_config"]["common_tls_context"]["combined_validation_context"]["default_validation_context"]
    assert [m["exact"] for m in context["match_subject_alt_names"]] == ["db.internal", "spiffe://cluster.local/ns/default/sa/db"]


@pytest.mark.parametrize(
    ("tls", "options", "insecure"),
    [
        ({"mode": "SIMPLE"}, {"auto_sni": True, "auto_san_validation": True}, None),
        ({"mode": "SIMPLE", "sni": "x.example.com"}, {"auto_san_validation": True}, True),
        ({"mode": "SIMPLE", "insecureSkipVerify": True}, {"auto_sni": True}, True),
        ({"mode": "ISTIO_MUTUAL"}, {"auto_sni": True, "auto_san_validation": True}, None),
    ],
)
def test_what_is_resolved_on_demand_takes_its_names_from_requests(tls: Json, options: Json, insecure: bool | None) -> None:
    made = cluster({"tls": tls}, hosts=["*.example.com"], resolution="DYNAMIC_DNS")
    assert made["http"]["upstream_http_protocol_options"] == options
    assert made["cluster_type"]["typed_config"].get("allow_insecure_cluster_options") == insecure


OWN = document("DestinationRule", {"host": "sleep", "trafficPolicy": pool(tcp={"maxConnections": 2})})
FOR_SOME = document(
    "DestinationRule",
    {"host": "sleep", "workloadSelector": {"matchLabels": {"app": "sleep"}}, "trafficPolicy": pool(tcp={"maxConnections": 4})},
)
EGRESS = {"egress": [{"hosts": ["*/*"]}]}
INGRESS = [{"port": {"number": 8000, "name": "http", "protocol": "HTTP"}, "connectionPool": {"tcp": {"maxConnections": 6}}}]
SIDECAR = document("Sidecar", {**EGRESS, "inboundConnectionPool": {"tcp": {"maxConnections": 5}}})
BOTH = document("Sidecar", {**EGRESS, "inboundConnectionPool": {"tcp": {"maxConnections": 5}}, "ingress": INGRESS})


@pytest.mark.parametrize(
    ("documents", "connections"), [((), NONE), ((OWN,), 2), ((FOR_SOME,), NONE), ((OWN, SIDECAR), 5), ((OWN, BOTH), 6)]
)
def test_inbound_limits_come_from_the_sidecar_then_from_the_rule_for_everybody(documents: tuple[Json, ...], connections: int) -> None:
    assert inbound(*documents)["limits"]["max_connections"] == connections

"""Servers of several Gateways on one proxy: which ports come up, which servers share one, which are left out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any as Json

import pytest

from tests.control.helpers import GATEWAY, compiled, document, plain

ORIGIN = document("ServiceEntry", {"hosts": ["a.com", "b.com"], "resolution": "DNS", "ports": [
    {"number": 80, "name": "http", "protocol": "HTTP"}, {"number": 443, "name": "tls", "protocol": "TLS"},
    {"number": 3306, "name": "tcp", "protocol": "TCP"}]}, "se")  # fmt: skip


def server(number: int, protocol: str, *hosts: str, tls: Json = None, name: str = "", **more: Json) -> Json:
    port = {"number": number, "protocol": protocol, "name": name or f"{protocol.lower()}-{number}"}
    out: Json = {"port": port, "hosts": list(hosts), **more}
    if tls:
        out["tls"] = tls
    return out


def gateway(name: str, *servers: Json, **metadata: Json) -> Json:
    return document("Gateway", {"selector": {"istio": "egressgateway"}, "servers": list(servers)}, name, **metadata)


def route(name: str, gateways: list[str], *hosts: str, **blocks: Json) -> Json:
    return document("VirtualService", {"hosts": list(hosts), "gateways": gateways, **blocks}, name)


def to(host: str, port: int) -> Json:
    return [{"destination": {"host": host, "port": {"number": port}}}]


def http(*names: str, host: str = "a.com") -> Json:
    return [{"name": n, **({"match": [{"uri": {"prefix": f"/{n}"}}]} if n != "all" else {}), "route": to(host, 80)} for n in names]


MUTUAL, PASS = {"mode": "ISTIO_MUTUAL"}, {"mode": "PASSTHROUGH"}


@pytest.mark.parametrize(
    ("servers", "listeners", "routes"),
    [
        ([[server(80, "HTTP", "*")]], {"0.0.0.0_8080": 1}, ["http.8080"]),
        ([[server(81, "HTTP", "*")]], {"0.0.0.0_81": 1}, ["http.81"]),
        ([[server(80, "HTTP", "a.com"), server(8080, "GRPC", "b.com")]], {"0.0.0.0_8080": 1}, ["http.8080"]),
        ([[server(80, "HTTP", "a.com", bind="10.0.0.9")]], {"10.0.0.9_8080": 1}, ["http.8080.10.0.0.9"]),
        ([[server(443, "HTTPS", "a.com", tls=MUTUAL)]], {"0.0.0.0_8443": 1}, ["https.443.https-443.g0.default"]),
        ([[server(443, "HTTPS", "a.com", tls=MUTUAL, name="one"), server(443, "HTTPS", "b.com", tls=MUTUAL, name="two")]],
         {"0.0.0.0_8443": 2}, ["https.443.one.g0.default", "https.443.two.g0.default"]),
        # an older TLS server has the host: the younger one is left out
        ([[server(443, "HTTPS", "a.com", tls=MUTUAL)], [server(443, "HTTPS", "a.com", "b.com", tls=MUTUAL)]],
         {"0.0.0.0_8443": 1}, ["https.443.https-443.g0.default"]),
        # plaintext first keeps TLS off its port; TLS first shares it
        ([[server(443, "HTTP", "a.com")], [server(443, "HTTPS", "b.com", tls=MUTUAL)]], {"0.0.0.0_8443": 1}, ["http.8443"]),
        ([[server(443, "HTTPS", "b.com", tls=MUTUAL)], [server(443, "HTTP", "a.com")]],
         {"0.0.0.0_8443": 2}, ["https.443.https-443.g0.default", "http.8443"]),
        ([[server(80, "HTTP", "a.com")], [server(80, "TCP", "a.com")]], {"0.0.0.0_8080": 1}, ["http.8080"]),
        ([[server(80, "HTTP", "a.com")], [server(80, "HTTP", "b.com", bind="10.0.0.9")]],
         {"0.0.0.0_8080": 1, "10.0.0.9_8080": 1}, ["http.8080", "http.8080.10.0.0.9"]),
        # no route of the right kind: no chain, and without any chain no listener
        ([[server(3306, "TCP", "a.com")]], {}, []),
        ([[server(443, "TLS", "a.com", tls=PASS)]], {}, []),
    ],
)  # fmt: skip
def test_ports(servers: list[list[Json]], listeners: dict[str, int], routes: list[str]) -> None:
    told = compiled(ORIGIN, *(gateway(f"g{i}", *those) for i, those in enumerate(servers)))
    assert {listener.name: len(listener.filter_chains) for listener in told.listeners} == listeners
    assert [r.name for r in told.routes] == routes


def test_unprivileged_pods_open_no_low_port() -> None:
    low = replace(GATEWAY, metadata={"UNPRIVILEGED_POD": "true"})
    told = compiled(gateway("g", server(80, "HTTP", "*"), server(81, "HTTP", "*")), proxy=low)
    assert [listener.name for listener in told.listeners] == ["0.0.0.0_8080"]


@pytest.mark.parametrize(
    ("virtual_services", "expected"),
    [
        # rules of several VirtualServices follow one another, catch-all last
        ([route("v1", ["g"], "a.com", http=http("x", "all")), route("v2", ["g"], "a.com", http=http("y"))],
         {"a.com:80": (["a.com"], ["x", "y", "all"])}),
        # the narrower of two overlapping names, whichever side it is on
        ([route("v", ["g"], "*.com", http=http("all"))], {"a.com:80": (["a.com", "*.b.com"], ["all"])}),
        # virtual hosts with the very same routes become one; equal routes of another VirtualService do not
        ([route("v1", ["g"], "a.com", "x.b.com", http=http("all")), route("v2", ["g"], "y.b.com", http=http("all"))],
         {"x.b.com:80": (["x.b.com", "a.com"], ["all"]), "y.b.com:80": (["y.b.com"], ["all"])}),
        # not bound, not exported, other port, other gateway in the match: 404 for everything
        ([route("v", ["mesh"], "a.com", http=http("all"))], {"blackhole:80": (["*"], [])}),
        ([route("v", ["g"], "a.com", http=http("all"), exportTo=["."])], {"blackhole:80": (["*"], [])}),
        ([route("v", ["g"], "a.com", http=[{"match": [{"port": 8080}], "route": to("a.com", 80)}])], {"blackhole:80": (["*"], [])}),
        ([route("v", ["g"], "a.com", http=[{"match": [{"gateways": ["mesh"]}], "route": to("a.com", 80)}])], {"blackhole:80": (["*"], [])}),
        ([route("v", ["g"], "A.com", http=http("all"))], {"blackhole:80": (["*"], [])}),
        ([route("v", ["default/g"], "a.com", http=http("all"))], {"a.com:80": (["a.com"], ["all"])}),
    ],
)  # fmt: skip
def test_virtual_hosts(virtual_services: list[Json], expected: dict[str, tuple[list[str], list[str]]]) -> None:
    told = compiled(ORIGIN, gateway("g", server(80, "HTTP", "a.com", "*.b.com")), *virtual_services)
    assert {h.name: (h.domains, [r.name for r in h.routes]) for h in told.routes[0].virtual_hosts} == expected


@pytest.mark.parametrize(
    ("hosts", "bound"),
    [(["default/a.com"], True), (["./a.com"], True), (["*/a.com"], True), (["other/a.com"], False), (["*/*"], True), (["b.com"], False)],
)
def test_server_host_namespaces(hosts: list[str], bound: bool) -> None:
    told = compiled(ORIGIN, gateway("g", server(80, "HTTP", *hosts)), route("v", ["g"], "a.com", http=http("all")))
    assert [h.name for h in told.routes[0].virtual_hosts] == (["a.com:80"] if bound else ["blackhole:80"])


def test_https_redirect_asks_for_tls() -> None:
    told = compiled(gateway("g", server(80, "HTTP", "a.com", tls={"httpsRedirect": True})))
    host = told.routes[0].virtual_hosts[0]
    assert (host.name, host.require_tls, host.routes) == ("a.com:80", "ALL", [])


@pytest.mark.parametrize(
    ("tls", "blocks", "chains"),
    [
        (PASS, {"tls": [{"match": [{"sniHosts": ["a.com"]}], "route": to("a.com", 443)}]}, [(["a.com"], "outbound|443||a.com")]),
        (PASS, {"tls": [{"match": [{"sniHosts": ["b.com", "a.com"]}, {"sniHosts": ["a.com"]}], "route": to("a.com", 443)}]},
         [(["a.com", "b.com"], "outbound|443||a.com")]),
        (PASS, {"tls": [{"match": [{"sniHosts": ["a.com"], "port": 8443}], "route": to("a.com", 443)}]}, []),
        (PASS, {"tcp": [{"route": to("a.com", 443)}]}, []),
        (MUTUAL, {"tcp": [{"route": to("a.com", 443)}]}, [(["a.com"], "outbound|443||a.com")]),
        (MUTUAL, {"tls": [{"match": [{"sniHosts": ["a.com"]}], "route": to("a.com", 443)}]}, []),
        (MUTUAL, {"tcp": [{"match": [{"port": 1}], "route": to("b.com", 1)}, {"match": [{"port": 443}], "route": to("a.com", 443)}]},
         [(["a.com"], "outbound|443||a.com")]),
    ],
)  # fmt: skip
def test_tls_servers(tls: Json, blocks: Json, chains: list[tuple[list[str], str]]) -> None:
    told = compiled(ORIGIN, gateway("g", server(443, "TLS", "a.com", tls=tls)), route("v", ["g"], "a.com", **blocks))
    found = [c for listener in told.listeners for c in listener.filter_chains]
    assert [(c.filter_chain_match.server_names, c.filters[-1].typed_config.cluster) for c in found] == chains
    assert all((c.transport_socket is not None) is (tls is MUTUAL) for c in found)
    assert all(listener.listener_filters for listener in told.listeners)


def test_weighted_tcp_and_destination_rule_settings() -> None:
    rule = document("DestinationRule", {"host": "a.com", "trafficPolicy": {"connectionPool": {"tcp": {"idleTimeout": "5s"}}}}, "dr")
    legs = [{**to("a.com", 3306)[0], "weight": 3}, {**to("b.com", 3306)[0], "weight": 1}, {**to("b.com", 443)[0], "weight": 0}]
    told = compiled(ORIGIN, rule, gateway("g", server(3306, "TCP", "*")), route("v", ["g"], "a.com", tcp=[{"route": legs}]))
    proxy = plain(told.listeners[0].filter_chains[0].filters[-1].typed_config)
    assert proxy["weighted_clusters"]["clusters"] == [
        {"name": "outbound|3306||a.com", "weight": 3},
        {"name": "outbound|3306||b.com", "weight": 1},
    ]
    assert (proxy["stat_prefix"], proxy["idle_timeout"]) == ("v.default", "5s")


def test_auto_passthrough_names_internal_services_only() -> None:
    told = compiled(ORIGIN, gateway("g", server(15443, "TLS", "*.local", tls={"mode": "AUTO_PASSTHROUGH"})))
    names = [c.filter_chain_match.server_names for c in told.listeners[0].filter_chains]
    assert ["outbound_.80_._.sleep.default.svc.cluster.local"] in names
    assert not any("a.com" in str(n) for n in names)
    assert told.listeners[0].filter_chains[0].filter_chain_match.application_protocols[:2] == ["istio", "istio-peer-exchange"]


def test_connection_manager_says_who_it_is() -> None:
    manager = compiled(gateway("g", server(80, "HTTP", "*"))).listeners[0].filter_chains[0].filters[0].typed_config
    assert (manager.use_remote_address, manager.server_name, manager.forward_client_cert_details) == (True, "istio-envoy", "SANITIZE_SET")
    assert (manager.normalize_path, manager.stream_idle_timeout, manager.stat_prefix) == (True, "0s", "outbound_0.0.0.0_8080;")
    assert [f.name.rsplit(".", 1)[-1] for f in manager.http_filters] == ["alpn", "fault", "cors", "router"]


def test_everything_remembers_its_line() -> None:
    told = compiled(ORIGIN, gateway("g", server(80, "HTTP", "a.com")), route("v", ["g"], "a.com", http=http("all")))
    host = told.routes[0].virtual_hosts[0]
    for metadata in (told.listeners[0].metadata, host.metadata, host.routes[0].metadata):
        file, _, line = metadata.filter_metadata["meshsim"]["source"].rpartition(":")
        assert file == "mesh.yaml" and int(line) > 1
    assert host.routes[0].metadata.filter_metadata["istio"]["config"].endswith("/namespaces/default/virtual-service/v")

"""What a sidecar knows of hosts that several resources define or import, and what mesh-wide settings put into its clusters."""

from __future__ import annotations

from typing import Any as Json

import pytest

from tests.control.helpers import CLIENT, GATEWAY, compiled, document, plain

HOST = "db.example.com"
HTTP, TLS = {"number": 80, "name": "http", "protocol": "HTTP"}, {"number": 443, "name": "tls", "protocol": "TLS"}


def entry(name: str, *ports: Json, host: str = HOST, namespace: str = "default", **spec: Json) -> Json:
    return document("ServiceEntry", {"hosts": [host], "ports": list(ports), "resolution": "DNS", **spec}, name, namespace)


def sidecar(*hosts: str, **listener: Json) -> Json:
    return document("Sidecar", {"egress": [{"hosts": list(hosts), **listener}]})


def outbound(made: Json) -> list[str]:
    """The clusters of the hosts under test, `port host`."""
    found = [c.name.split("|") for c in made.clusters if c.name.endswith(".com")]
    return sorted(f"{port} {host}" for _, port, _, host in found)


def cluster(made: Json, port: int = 443) -> Json:
    return plain(next(c for c in made.clusters if c.name == f"outbound|{port}||{HOST}"))


TWICE = (entry("one", HTTP), entry("two", HTTP, TLS))
TO_443 = {"match": [{"sourceNamespace": "default"}], "route": [{"destination": {"host": HOST, "port": {"number": 443}}}]}
VIA_443 = document("VirtualService", {"hosts": ["web.example.com"], "http": [TO_443]})


@pytest.mark.parametrize(
    ("documents", "known"),
    [
        (TWICE, [f"443 {HOST}", f"80 {HOST}"]),
        ((*TWICE, sidecar("default/*")), [f"443 {HOST}", f"80 {HOST}"]),
        ((*TWICE, sidecar(f"default/{HOST}")), [f"80 {HOST}"]),  # looked up by name, which finds the oldest alone
        ((*TWICE, sidecar(f"*/{HOST}")), [f"443 {HOST}", f"80 {HOST}"]),
        ((*TWICE, sidecar("*/*", f"~default/{HOST}")), []),
        ((*TWICE, VIA_443, sidecar("default/web.example.com")), []),  # the oldest definition has no port 443
        ((entry("one", HTTP, TLS), VIA_443, sidecar("default/web.example.com")), [f"443 {HOST}"]),
        ((entry("one", HTTP, TLS), VIA_443, sidecar("default/web.example.com", port={"number": 80, "protocol": "HTTP", "name": "http"})),
         [f"80 {HOST}"]),  # a listener's own port decides
        ((entry("one", HTTP, TLS), VIA_443, sidecar("*/web.example.com", "~default/web.example.com")), []),
    ],
)  # fmt: skip
def test_sidecar_imports(documents: tuple[Json, ...], known: list[str]) -> None:
    assert outbound(compiled(*documents, proxy=CLIENT)) == known


def test_rules_for_other_namespaces_bring_no_destination() -> None:
    elsewhere = document(
        "VirtualService",
        {"hosts": ["web.example.com"], "http": [{"match": [{"sourceNamespace": "team-a"}], "route": [{"destination": {"host": HOST}}]}]},
    )
    assert outbound(compiled(entry("one", HTTP), elsewhere, sidecar("default/web.example.com"), proxy=CLIENT)) == []


def test_of_several_namespaces_the_oldest_definition_is_meant() -> None:
    rule = document("VirtualService", {"hosts": ["web.example.com"], "http": [{"route": [{"destination": {"host": HOST}}]}]})
    old, new = entry("old", HTTP, namespace="zoo"), entry("new", TLS, namespace="ant")
    assert outbound(compiled(old, new, rule, sidecar("default/web.example.com"), proxy=CLIENT)) == [f"80 {HOST}"]


def addresses(made: Json, port: int = 443) -> list[str]:
    name = f"outbound|{port}||{HOST}"
    found = [c.load_assignment for c in made.clusters if c.name == name and c.load_assignment]
    found += [e for e in made.endpoints if e.cluster_name == name]
    return [m.endpoint.address.socket_address.address for a in found for group in a.endpoints for m in group.lb_endpoints]


@pytest.mark.parametrize(
    ("documents", "told"),
    [
        ((entry("a", TLS), entry("b", TLS)), [HOST, HOST]),
        ((entry("a", TLS, resolution="DNS_ROUND_ROBIN"), entry("b", TLS, resolution="DNS_ROUND_ROBIN")), [HOST]),
        ((entry("a", TLS, resolution="STATIC", endpoints=[{"address": "192.0.2.1"}]), entry("b", TLS)), ["192.0.2.1"]),  # EDS: no names
        ((entry("a", TLS, resolution="STATIC", endpoints=[{"address": "192.0.2.1"}]),
          entry("b", {**TLS, "name": "other"}, resolution="STATIC", endpoints=[{"address": "192.0.2.2"}])), ["192.0.2.1"]),
    ],
)  # fmt: skip
def test_entries_of_one_host_share_their_endpoints(documents: tuple[Json, ...], told: list[str]) -> None:
    assert addresses(compiled(*documents, proxy=CLIENT)) == told


def test_identities_of_every_trust_domain_may_answer() -> None:
    own = entry("a", TLS, location="MESH_INTERNAL", subjectAltNames=["spiffe://cluster.local/ns/x/sa/y", "db"])
    made = cluster(compiled(own, proxy=CLIENT, mesh={"trustDomainAliases": ["old.example"]}))
    context = made["transport_socket_matches"][0]["transport_socket"]["typed_config"]["common_tls_context"]
    names = context["combined_validation_context"]["default_validation_context"]["match_subject_alt_names"]
    assert [n["exact"] for n in names] == ["db", "spiffe://cluster.local/ns/x/sa/y", "spiffe://old.example/ns/x/sa/y"]


@pytest.mark.parametrize(("mode", "heeded"), [("SIMPLE", True), ("ISTIO_MUTUAL", False)])
def test_tls_defaults_hold_for_origination_alone(mode: str, heeded: bool) -> None:
    rule = document("DestinationRule", {"host": HOST, "trafficPolicy": {"tls": {"mode": mode}}})
    mesh = {"tlsDefaults": {"cipherSuites": ["ECDHE-RSA-AES128-GCM-SHA256"], "ecdhCurves": ["P-256"]}}
    socket = cluster(compiled(entry("a", TLS), rule, proxy=GATEWAY, mesh=mesh))["transport_socket"]
    parameters = socket["typed_config"]["common_tls_context"]["tls_params"]
    assert ("cipher_suites" in parameters, "ecdh_curves" in parameters) == (heeded, heeded)


def test_a_host_in_capitals_is_routed_in_lower_case() -> None:
    made = compiled(entry("a", HTTP, host="API.Example.com"), proxy=CLIENT)
    hosts = [h for r in made.routes if r.name == "80" for h in r.virtual_hosts if "api" in h.name]
    assert [(h.domains, h.routes[0].route.cluster) for h in hosts] == [
        (["api.example.com", "api.example.com."], "outbound|80||api.example.com")
    ]


def test_a_bound_listener_of_unknown_protocol_has_routes_of_its_own() -> None:
    bound = sidecar("default/*", bind="192.0.2.111", port={"number": 443, "name": "any"})
    made = compiled(entry("a", TLS), bound, proxy=CLIENT)
    assert f"{HOST}:443" in [r.name for r in made.routes]


def test_a_declared_listener_without_services_is_none() -> None:
    port = {"number": 8090, "name": "http", "protocol": "HTTP"}
    made = compiled(sidecar("default/nothing.example.com", bind="192.0.2.110", port=port), proxy=CLIENT)
    assert [listener.name for listener in made.listeners if "8090" in listener.name] == []


@pytest.mark.parametrize(("hosts", "relays"), [(["*.other.example"], True), (["*.example.com"], False)])
def test_a_server_that_lost_its_hosts_brings_no_clusters_by_sni(hosts: list[str], relays: bool) -> None:
    def gateway(name: str, mode: str, protocol: str, hosts: list[str]) -> Json:
        server = {"port": {"number": 443, "name": "tls", "protocol": protocol}, "hosts": hosts, "tls": {"mode": mode}}
        return document("Gateway", {"selector": {"istio": "egressgateway"}, "servers": [server]}, name, "istio-system")

    older, newer = gateway("a", "PASSTHROUGH", "HTTPS", ["*.example.com"]), gateway("b", "AUTO_PASSTHROUGH", "TLS", hosts)
    made = compiled(older, newer)
    assert any(c.name.startswith("outbound_.") for c in made.clusters) is relays


def test_any_host_is_resolved_by_one_cache() -> None:
    made = compiled(proxy=CLIENT, mesh={"outboundTrafficPolicy": {"mode": "ALLOW_ANY_DYNAMIC_DNS"}, "connectTimeout": "3s"})
    wanted = {"name": "allow_any_dfp_dns_cache", "dns_lookup_family": "V4_ONLY", "max_hosts": 1024}
    found = {c.name: c for c in made.clusters}
    assert found["AllowAnyDynamicDNSCluster"].cluster_type.typed_config.dns_cache_config == wanted
    assert found["BlackHoleCluster"].connect_timeout == "3s"
    virtual = next(listener for listener in made.listeners if listener.name == "virtualOutbound")
    chain = next(c for c in virtual.filter_chains if c.name == "virtualOutbound-catchall-tcp-http")
    assert chain.filter_chain_match.transport_protocol == ""
    assert chain.filters[0].typed_config.route_config.name == "allow_any_dynamic_dns"


def test_a_catch_all_listener_binds_where_it_is_told() -> None:
    made = compiled(entry("a", HTTP, TLS), sidecar("default/*", bind="192.0.2.111"), proxy=CLIENT)
    names = [listener.name for listener in made.listeners if listener.name.endswith(("_80", "_443"))]
    assert sorted(names) == ["192.0.2.111_443", "192.0.2.111_80"]


@pytest.mark.parametrize(("bind", "sniffs"), [("", True), ("0.0.0.0", True), ("192.0.2.111", False)])
def test_http_is_sniffed_for_where_other_bytes_may_come(bind: str, sniffs: bool) -> None:
    made = compiled(entry("a", HTTP), sidecar("default/*", **({"bind": bind} if bind else {})), proxy=CLIENT)
    chain = next(listener for listener in made.listeners if listener.name == f"{bind or '0.0.0.0'}_80").filter_chains[0]
    assert (chain.filter_chain_match is not None) is sniffs


def test_hosts_and_addresses_listed_twice_count_once() -> None:
    twice = document(
        "ServiceEntry",
        {"hosts": [HOST, HOST], "addresses": ["192.0.2.1", "192.0.2.1"], "ports": [TLS], "resolution": "DNS"},
    )
    assert addresses(compiled(twice, proxy=CLIENT)) == [HOST]


@pytest.mark.parametrize(("resolution", "kind"), [("DNS", "STRICT_DNS"), ("DNS_ROUND_ROBIN", "LOGICAL_DNS"), ("STATIC", "EDS")])
def test_clusters_by_sni_find_hosts_as_the_service_does(resolution: str, kind: str) -> None:
    server = {"port": {"number": 443, "name": "tls", "protocol": "TLS"}, "hosts": ["*.com"], "tls": {"mode": "AUTO_PASSTHROUGH"}}
    gateway = document("Gateway", {"selector": {"istio": "egressgateway"}, "servers": [server]}, "g", "istio-system")
    endpoints = [{"address": "192.0.2.1", "labels": {"security.istio.io/tlsMode": "istio"}}]
    own = entry("a", TLS, resolution=resolution, location="MESH_INTERNAL", endpoints=endpoints)
    made = compiled(gateway, own)
    assert [c.type for c in made.clusters if c.name == f"outbound_.443_._.{HOST}"] == [kind]


def test_a_passthrough_cluster_keeps_what_its_host_said_of_dns() -> None:
    rule = document("DestinationRule", {"host": HOST, "trafficPolicy": {"loadBalancer": {"simple": "PASSTHROUGH"}}})
    made = cluster(compiled(entry("a", TLS), rule, proxy=CLIENT, mesh={"dnsRefreshRate": "30s"}))
    assert (made["type"], made["dns_refresh_rate"]) == ("ORIGINAL_DST", "30s")


@pytest.mark.parametrize(
    ("address", "listener", "domain"),
    [("2001:db8::1", "2001:db8::1_443", "[2001:db8::1]"), ("2001:db8::1/128", "2001:db8::1_443", "[2001:db8::1]"),
     ("2001:db8::/32", "0.0.0.0_443", "[2001:db8::/32]")],
)  # fmt: skip
def test_addresses_of_ipv6(address: str, listener: str, domain: str) -> None:
    made = compiled(entry("a", HTTP, TLS, addresses=[address], resolution="STATIC"), proxy=CLIENT)
    assert listener in [found.name for found in made.listeners]
    assert [h.domains[2] for r in made.routes if r.name == "80" for h in r.virtual_hosts if HOST in h.name] == [domain]


def test_a_listener_of_the_sidecar_decides_about_its_port_where_it_imports_nothing() -> None:
    """What the catch-all listener imports has a listener there, whose routes know nobody."""
    entry = document(
        "ServiceEntry", {"hosts": ["a.example.com"], "ports": [{"number": 8080, "name": "http", "protocol": "HTTP"}], "resolution": "DNS"}
    )
    own = {"port": {"number": 8080, "name": "http", "protocol": "HTTP"}, "hosts": ["./b.example.com"]}
    told = compiled(entry, document("Sidecar", {"egress": [own, {"hosts": ["./*"]}]}), proxy=CLIENT)
    (routes,) = (r for r in told.routes if r.name == "8080")
    assert [host.name for host in routes.virtual_hosts] == ["allow_any"]


PROXYING = {"number": 80, "name": "proxy", "protocol": "HTTP_PROXY"}


@pytest.mark.parametrize(
    ("ports", "sniffs"), [((HTTP, HTTP), True), ((HTTP, PROXYING), False), ((PROXYING, HTTP), False), ((PROXYING,), False)]
)
def test_a_forward_proxy_among_the_services_of_a_port_takes_every_connection_for_http(ports: tuple[Json, ...], sniffs: bool) -> None:
    made = compiled(*(entry(f"s{n}", port, host=f"s{n}.example.com") for n, port in enumerate(ports)), proxy=CLIENT)
    listener = next(each for each in made.listeners if each.name == "0.0.0.0_80")
    assert bool(listener.listener_filters) is sniffs
    routes = next(each for each in made.routes if each.name == "80")
    assert {name for host in routes.virtual_hosts for name in host.domains if name.endswith(".example.com")} == {
        f"s{n}.example.com" for n in range(len(ports))
    }

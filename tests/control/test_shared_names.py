"""Who gets a name, a port or an address that more than one resource lays claim to, as istiod settles it."""

from __future__ import annotations

from typing import Any as Json

import pytest

from meshsim import xds
from meshsim.topology import Proxy
from tests.control.helpers import CLIENT, GATEWAY, compiled, document, plain

SLEEP = "sleep.default.svc.cluster.local"
TO_SLEEP = [{"route": [{"destination": {"host": SLEEP, "port": {"number": 80}}}]}]
EVERYTHING = {"hosts": ["*/*"]}
FORWARD_PROXY = {"number": 3128, "name": "proxy", "protocol": "HTTP_PROXY"}


def entry(*hosts: str, port: int = 80, protocol: str = "HTTP", name: str = "x", namespace: str = "default", **spec: Json) -> Json:
    ports = [{"number": port, "name": "p", "protocol": protocol}]
    return document("ServiceEntry", {"hosts": list(hosts), "ports": ports, "resolution": "NONE", **spec}, name, namespace)


def service(name: str, *ports: Json, namespace: str = "default", **spec: Json) -> Json:
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace}, "spec": {"ports": ports, **spec}}


def routed(*hosts: str, namespace: str = "default") -> Json:
    return document("VirtualService", {"hosts": list(hosts), "http": TO_SLEEP}, namespace=namespace)


def sidecar(*egress: Json) -> Json:
    return document("Sidecar", {"egress": list(egress)})


def slice_of(name: str, *endpoints: Json) -> Json:
    labels = {"kubernetes.io/service-name": name}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": f"{name}-1", "namespace": "default", "labels": labels},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
        "endpoints": list(endpoints),
    }


def pod(namespace: str, address: str) -> Json:
    labels = {"security.istio.io/tlsMode": "istio"}
    spec = {"serviceAccountName": "app", "containers": [{"name": "app"}]}
    metadata = {"name": "app", "namespace": namespace, "labels": labels}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": {"podIP": address}}


def hosts_of(route: str, *documents: Json, proxy: Proxy = CLIENT) -> dict[str, list[str]]:
    """The domains of each virtual host of a route configuration."""
    made = next(r for r in compiled(*documents, proxy=proxy).routes if r.name == route)
    return {host.name: host.domains for host in made.virtual_hosts}


def clusters_of(*documents: Json, proxy: Proxy = CLIENT) -> dict[str, xds.Cluster]:
    return {cluster.name: cluster for cluster in compiled(*documents, proxy=proxy).clusters}


def endpoints_in(assignment: Json) -> list[Json]:
    return [endpoint for place in assignment["endpoints"] for endpoint in place["lb_endpoints"]]


def tls_modes(assignment: Json) -> list[str | None]:
    """Of each endpoint, what clients match their transport sockets by."""
    marks = [endpoint.get("metadata", {}).get("filter_metadata", {}) for endpoint in endpoints_in(assignment)]
    return [mark.get("envoy.transport_socket_match", {}).get("tlsMode") for mark in marks]


POD_NAME = "store-0.store.default.svc.cluster.local"


@pytest.mark.parametrize(
    ("route", "documents", "host", "names"),
    [
        # A short name of a Service belongs to the host of that name, but only where that host has an HTTP port.
        ("80", [entry("sleep")], f"{SLEEP}:80", {"sleep.default", "sleep.default.svc"}),
        ("80", [entry("sleep", protocol="TLS")], f"{SLEEP}:80", {"sleep", "sleep.default", "sleep.default.svc"}),
        ("3128", [entry("sleep"), sidecar({"port": FORWARD_PROXY, **EVERYTHING})], f"{SLEEP}:80",
         {f"{n}{p}" for n in ("sleep.default", "sleep.default.svc") for p in ("", ":80")}),
        # The namespace is what follows the first dot: the name of one pod is in none of ours.
        ("80", [entry(POD_NAME)], f"{POD_NAME}:80", {"store-0.store.default", "store-0.store.default.svc"}),
    ],
)  # fmt: skip
def test_short_names(route: str, documents: list[Json], host: str, names: set[str]) -> None:
    full = {host.partition(":")[0], host.partition(":")[0] + ".", "10.96.20.20"}
    assert {d for d in hosts_of(route, *documents)[host] if d.removesuffix(":80") not in full} == names


@pytest.mark.parametrize(
    ("documents", "route", "made"),
    [
        # An alias has a virtual host of its own only by a VirtualService.
        ([service("also", {"name": "http", "port": 80}, type="ExternalName", externalName="www.example.com")], "80", []),
        ([service("also", {"name": "http", "port": 80}, type="ExternalName", externalName="www.example.com"), routed("also")], "80",
         ["also.default.svc.cluster.local", "also.default.svc.cluster.local.", "also", "also.default.svc", "also.default"]),
        # A UDP port of the same number is no claim: the VirtualService's host is one that nobody declared.
        ([service("also", {"name": "http", "port": 80, "protocol": "UDP"}, clusterIP="10.96.9.9"), routed("also")], "80",
         ["also.default.svc.cluster.local"]),
    ],
)  # fmt: skip
def test_names_of_services_without_routes_of_their_own(documents: list[Json], route: str, made: list[str]) -> None:
    assert hosts_of(route, *documents).get("also.default.svc.cluster.local:80", []) == made


def test_a_name_without_a_port_belongs_to_the_first_port() -> None:
    """On a forward proxy it means port 80; where that is not the service's first, nothing answers to the name alone."""
    ports = [{"name": "http-b", "port": 8080}, {"name": "http-a", "port": 80}]
    made = hosts_of("3128", service("also", *ports, clusterIP="10.96.9.9"), sidecar({"port": FORWARD_PROXY, **EVERYTHING}))
    assert [{d for d in made[f"also.default.svc.cluster.local:{p}"] if not d.endswith(f":{p}")} for p in (80, 8080)] == [set(), set()]


@pytest.mark.parametrize(
    ("pattern", "of_entry"),
    [
        ("*.example.com", "default"),  # narrower than the entry's *.com: not for all of its names
        ("*.com", SLEEP),
        ("*.COM", "default"),  # as spelled, it is no pattern for the entry's host
    ],
)
def test_a_wildcard_that_is_narrower_than_the_service(pattern: str, of_entry: str) -> None:
    made = next(r for r in compiled(entry("*.com"), routed(pattern), proxy=CLIENT).routes if r.name == "80")
    host = next(h for h in made.virtual_hosts if h.name == "*.com:80")
    assert host.routes[0].route is not None
    assert (host.routes[0].route.cluster == f"outbound|80||{SLEEP}") == (of_entry == SLEEP)


@pytest.mark.parametrize("export_to", [[], ["default"]])
@pytest.mark.parametrize("first", ["entry", "service"])
def test_a_service_displaces_an_entry_of_its_name(first: str, export_to: list[str]) -> None:
    documents = [
        entry("also.default.svc.cluster.local", port=8443, protocol="TLS", exportTo=export_to),
        service("also", {"name": "http", "port": 80}, clusterIP="10.96.9.9"),
    ]
    made = clusters_of(*(documents if first == "entry" else reversed(documents)))
    assert [n for n in made if "also" in n] == ["outbound|80||also.default.svc.cluster.local"]


@pytest.mark.parametrize(
    ("protocols", "chains"),
    [
        (["MONGO", "HTTP"], ["mongo"]),
        (["HTTP", "MONGO"], ["http"]),
        (["MYSQL", "TCP"], ["tcp"]),
        (["MONGO", "MONGO"], ["mongo"]),
        (["TCP", "HTTP"], ["http", "tcp"]),
        (["TCP", "HTTP_PROXY"], ["http"]),  # replaces what was there
    ],
)
def test_protocols_that_cannot_share_a_port(protocols: list[str], chains: list[str]) -> None:
    documents = [entry(f"{n}.example.com", port=27017, protocol=p, name=f"e{n}") for n, p in enumerate(protocols)]
    listener = next(r for r in compiled(*documents, proxy=CLIENT).listeners if r.name == "0.0.0.0_27017")
    own = [c for c in (*listener.filter_chains, listener.default_filter_chain) if c and c.name != "PassthroughFilterChain"]
    kinds = [f.name.rpartition(".")[2] for c in own for f in c.filters[:1]]
    assert [{"mongo_proxy": "mongo", "tcp_proxy": "tcp", "http_connection_manager": "http"}[k] for k in kinds] == chains


def test_a_sniffed_port_of_a_range_matches_the_range_first() -> None:
    documents = [entry("a.example.com", port=7000, protocol="TCP", name="a"),
                 entry("b.example.com", port=7000, protocol="", name="b", addresses=["10.0.0.0/8"], resolution="STATIC")]  # fmt: skip
    listener = next(r for r in compiled(*documents, proxy=CLIENT).listeners if r.name == "0.0.0.0_7000")
    assert [c.filters[0].name.rpartition(".")[2] for c in listener.filter_chains] == ["tcp_proxy", "http_connection_manager"]


def test_a_forward_proxys_port_means_every_port_also_where_it_imports_nothing() -> None:
    """The route configuration of its number is then no catch-all for hosts that VirtualServices alone name."""
    port = {**FORWARD_PROXY, "number": 80}
    documents = [sidecar({"port": port, "hosts": ["~/*"]}, {"hosts": ["./*"]}), routed("www.example.com")]
    assert list(hosts_of("80", *documents)) == ["allow_any"]


@pytest.mark.parametrize(
    ("endpoints", "told"),
    [
        ([{"addresses": ["10.244.5.5"]}], [("10.244.5.5", None)]),  # a pod of another namespace is not looked for
        ([{"addresses": ["10.244.5.6"]}], [("10.244.5.6", "istio")]),
        ([{"addresses": ["10.244.5.5"], "targetRef": {"kind": "Pod", "name": "app", "namespace": "team-a"}}], [("10.244.5.5", "istio")]),
        ([{"addresses": ["203.0.113.7"]}, {"addresses": ["203.0.113.7"]}], [("203.0.113.7", None)]),
    ],
)
def test_endpoints_that_are_listed_by_hand(endpoints: list[Json], told: list[tuple[str, str | None]]) -> None:
    behind = service("also", {"name": "http", "port": 80})  # without an address of its own, its endpoints are told all the same
    made = compiled(pod("team-a", "10.244.5.5"), pod("default", "10.244.5.6"), behind, slice_of("also", *endpoints), proxy=CLIENT)
    listed = plain(next(e for e in made.endpoints if e.cluster_name == "outbound|80||also.default.svc.cluster.local"))
    addresses = [e["endpoint"]["address"]["socket_address"]["address"] for e in endpoints_in(listed)]
    assert list(zip(addresses, tls_modes(listed), strict=True)) == told


def test_who_else_may_answer_for_a_service() -> None:
    marks = {"alpha.istio.io/kubernetes-serviceaccounts": "a", "alpha.istio.io/canonical-serviceaccounts": "me@example.com"}
    behind = service("also", {"name": "http", "port": 80}, clusterIP="10.96.9.9")
    behind["metadata"]["annotations"] = marks
    made = plain(clusters_of(pod("default", "10.244.5.6"), behind, slice_of("also", {"addresses": ["10.244.5.6"]}))[
        "outbound|80||also.default.svc.cluster.local"])  # fmt: skip
    (match,) = (m for m in made["transport_socket_matches"] if m["name"] == "tlsMode-istio")
    context = match["transport_socket"]["typed_config"]["common_tls_context"]["combined_validation_context"]
    names = [n["exact"] for n in context["default_validation_context"]["match_subject_alt_names"]]
    assert names == ["me@example.com", "spiffe://cluster.local/ns/default/sa/a", "spiffe://cluster.local/ns/default/sa/app"]


RELAY = document(
    "Gateway",
    {
        "selector": {"istio": "egressgateway"},
        "servers": [{"hosts": ["*"], "port": {"number": 15443, "name": "tls", "protocol": "TLS"}, "tls": {"mode": "AUTO_PASSTHROUGH"}}],
    },
    namespace="istio-system",
)


@pytest.mark.parametrize(("resolution", "subset"), [("DNS", ""), ("DNS", "v1"), ("STATIC", ""), ("STATIC", "v1")])
def test_clusters_by_sni_that_pass_through(resolution: str, subset: str) -> None:
    endpoints = [{"address": "203.0.113.9"}] if resolution == "STATIC" else []
    rule = {"host": "a.example.com", "trafficPolicy": {"loadBalancer": {"simple": "PASSTHROUGH"}}, "subsets": [{"name": "v1"}]}
    behind = entry("a.example.com", resolution=resolution, endpoints=endpoints, location="MESH_INTERNAL")
    made = clusters_of(RELAY, behind, document("DestinationRule", rule), proxy=GATEWAY)[f"outbound_.80_.{subset}_.a.example.com"]
    assert (made.type, made.lb_policy, made.load_assignment) == ("ORIGINAL_DST", "CLUSTER_PROVIDED", None)


@pytest.mark.parametrize(("mode", "override"), [("SIMPLE", "false"), ("ISTIO_MUTUAL", None)])
def test_clusters_by_sni_leave_alpn_alone(mode: str, override: str | None) -> None:
    rule = {"host": SLEEP, "trafficPolicy": {"tls": {"mode": mode}}}
    made = clusters_of(RELAY, document("DestinationRule", rule), proxy=GATEWAY)[f"outbound_.80_._.{SLEEP}"]
    assert made.metadata is not None and made.metadata.filter_metadata["istio"].get("alpn_override") == override


@pytest.mark.parametrize(("root", "mode"), [("istio-system", None), ("default", "istio")])
def test_a_policy_for_some_workloads_counts_nowhere_in_the_root_namespace(root: str, mode: str | None) -> None:
    wanted = {"mtls": {"mode": "DISABLE"}, "selector": {"matchLabels": {"security.istio.io/tlsMode": "istio"}}}
    told = slice_of("also", {"addresses": ["10.244.5.6"], "targetRef": {"kind": "Pod", "name": "app", "namespace": "default"}})
    documents = [pod("default", "10.244.5.6"), service("also", {"name": "http", "port": 80}), told, document("PeerAuthentication", wanted)]
    made = compiled(*documents, proxy=CLIENT, mesh={"rootNamespace": root})
    listed = plain(next(e for e in made.endpoints if e.cluster_name == "outbound|80||also.default.svc.cluster.local"))
    assert tls_modes(listed) == [mode]


def test_a_name_for_somewhere_else_is_not_relayed_to_by_sni() -> None:
    documents = [RELAY, service("also", {"name": "http", "port": 80}, type="ExternalName", externalName="www.example.com")]
    made = compiled(*documents, proxy=GATEWAY)
    assert not [c for c in made.clusters if "also" in c.name]
    assert "also" not in str([c.filter_chain_match for listener in made.listeners for c in listener.filter_chains])

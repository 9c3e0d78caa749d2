"""What a sidecar takes in: chains by PeerAuthentication mode, and the clusters behind them."""

from __future__ import annotations

from typing import Any as Json

import pytest

from tests.control.helpers import CLIENT, compiled, document

HTTP, TCP, ANY = 8000, 5432, 9000  # the pod's own ports of Service sleep


def peers(mode: str, ports: dict[int, str] | None = None, **spec: Json) -> Json:
    levels = {str(port): {"mode": level} for port, level in (ports or {}).items()}
    selector = {"selector": {"matchLabels": {"app": "sleep"}}, "portLevelMtls": levels} if ports else {}
    return document("PeerAuthentication", {"mtls": {"mode": mode}, **selector, **spec})


def chains(*documents: Json, port: int) -> list[tuple[str, bool, bool, bool]]:
    """(transport, by ALPN, terminates, HTTP) of each chain of a port, in order."""
    listener = next(x for x in compiled(*documents, proxy=CLIENT).listeners if x.name == "virtualInbound")
    return [
        (m.transport_protocol, bool(m.application_protocols), c.transport_socket is not None, c.filters[-1].name.endswith("manager"))
        for c in listener.filter_chains
        if (m := c.filter_chain_match) and m.destination_port == (port or None)
    ]


PLAIN, TLS = "raw_buffer", "tls"


@pytest.mark.parametrize(
    ("mode", "port", "expected"),
    [
        ("STRICT", HTTP, [(TLS, False, True, True)]),
        ("STRICT", TCP, [(TLS, False, True, False)]),
        ("STRICT", ANY, [(TLS, True, True, True), (TLS, False, True, False)]),
        ("PERMISSIVE", HTTP, [(TLS, True, True, True), (PLAIN, False, False, True)]),
        ("PERMISSIVE", TCP, [(TLS, True, True, False), (TLS, False, False, False), (PLAIN, False, False, False)]),
        ("PERMISSIVE", 0, [(TLS, True, True, True), (PLAIN, True, False, True), (TLS, True, True, False),
                           (PLAIN, False, False, False), (TLS, False, False, False)]),
        ("DISABLE", HTTP, [(PLAIN, False, False, True)]),
        ("DISABLE", ANY, [(PLAIN, True, False, True), (PLAIN, False, False, False)]),
    ],
)  # fmt: skip
def test_chains(mode: str, port: int, expected: list[tuple[str, bool, bool, bool]]) -> None:
    assert chains(peers(mode), port=port) == expected


def test_ports_have_their_own_mode() -> None:
    policy = peers("STRICT", {HTTP: "DISABLE", 7777: "DISABLE"})
    assert chains(policy, port=HTTP) == [(PLAIN, False, False, True)]
    assert chains(policy, port=TCP) == [(TLS, False, True, False)]
    # a port no Service declares gets passthrough chains of its own
    assert chains(policy, port=7777) == [(PLAIN, True, False, True), (PLAIN, False, False, False)]


def test_a_sidecars_ingress_replaces_the_services() -> None:
    ingress = [{"port": {"number": 9080, "protocol": "HTTP", "name": "x"}, "defaultEndpoint": "127.0.0.1:8080"}]
    told = compiled(document("Sidecar", {"ingress": ingress, "egress": [{"hosts": ["*/*"]}]}), proxy=CLIENT)
    inbound = {c.name: c for c in told.clusters if c.name.startswith("inbound")}
    assert list(inbound) == ["inbound|9080||"]
    (endpoint,) = inbound["inbound|9080||"].load_assignment.endpoints[0].lb_endpoints
    assert str(endpoint.endpoint.address) == "127.0.0.1:8080"


def test_clusters_go_where_the_connection_was_going() -> None:
    told = {c.name: c for c in compiled(proxy=CLIENT).clusters}
    for name in ("inbound|8000||", "inbound|5432||", "InboundPassthroughCluster"):
        assert (told[name].type, told[name].upstream_bind_config.source_address.address) == ("ORIGINAL_DST", "127.0.0.6")


def test_inspectors_leave_out_ports_that_need_none() -> None:
    listener = next(x for x in compiled(peers("STRICT"), proxy=CLIENT).listeners if x.name == "virtualInbound")
    names = [f.name.rsplit(".", 1)[-1] for f in listener.listener_filters]
    assert names == ["original_dst", "tls_inspector"]


def test_clients_must_be_of_the_trust_domain() -> None:
    told = compiled(peers("STRICT"), proxy=CLIENT, mesh={"trustDomain": "td", "trustDomainAliases": ["old"]})
    listener = next(x for x in told.listeners if x.name == "virtualInbound")
    socket = next(c.transport_socket for c in listener.filter_chains if c.transport_socket)
    context = socket.typed_config.common_tls_context.combined_validation_context.default_validation_context
    assert [m.prefix for m in context.match_subject_alt_names] == ["spiffe://td/", "spiffe://old/"]

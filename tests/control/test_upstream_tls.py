"""Who a cluster that speaks TLS trusts: there is one field that lets everybody in."""

from __future__ import annotations

import itertools
from typing import Any as Json

import pytest

from meshsim.control.upstream_tls import RAW_SOCKET
from tests.control.helpers import CLIENT, GATEWAY, compiled, document, plain

HOST = "site.example"
SETTINGS: list[list[Json]] = [
    [{"mode": "SIMPLE"}, {"mode": "MUTUAL", "clientCertificate": "/c", "privateKey": "/k"}, {"mode": "ISTIO_MUTUAL"}],
    [{}, {"caCertificates": "/ca"}, {"caCertificates": "system"}, {"credentialName": "own"}, {"caCrl": "/crl"}],
    [{}, {"sni": HOST}],
    [{}, {"subjectAltNames": ["other.example"]}],
]


def sockets(tls: Json, resolution: str, proxy: object) -> list[Json]:
    """The transport sockets of clusters that lead to the host."""
    port = {"number": 443, "name": "tls", "protocol": "HTTPS"}
    entry = document("ServiceEntry", {"hosts": [HOST], "ports": [port], "resolution": resolution})
    rule = document("DestinationRule", {"host": HOST, "trafficPolicy": {"tls": tls}})
    clusters = [plain(c) for c in compiled(entry, rule, proxy=proxy).clusters if HOST in c.name]  # type: ignore[arg-type]
    assert clusters
    return [c.get("transport_socket", {"name": RAW_SOCKET}) for c in clusters]


def is_verified(socket: Json) -> bool:
    common = socket["typed_config"]["common_tls_context"]
    combined = common.get("combined_validation_context", {})
    trusting = combined.get("default_validation_context", {}).get("trust_chain_verification") == "ACCEPT_UNTRUSTED"
    return bool(combined.get("validation_context_sds_secret_config")) and not trusting


@pytest.mark.parametrize("proxy", [CLIENT, GATEWAY], ids=["sidecar", "gateway"])
def test_whatever_is_asked_for_the_server_is_verified(proxy: object) -> None:
    """Nor is plaintext sent, unless the setting is one that Istio drops (a credentialName on a sidecar)."""
    for settings in itertools.product(*SETTINGS):
        tls = {key: value for part in settings for key, value in part.items()}
        for socket in sockets(tls, "DNS", proxy):
            dropped = socket["name"] == RAW_SOCKET
            assert dropped or is_verified(socket), tls
            assert dropped == (tls["mode"] != "ISTIO_MUTUAL" and proxy is CLIENT and "credentialName" in tls), tls


@pytest.mark.parametrize("skip", [False, True])
def test_one_field_switches_it_off(skip: bool) -> None:
    (socket,) = sockets({"mode": "SIMPLE", "insecureSkipVerify": skip}, "DNS", GATEWAY)
    assert is_verified(socket) != skip

"""What a terminating server shows and asks of its clients."""

from __future__ import annotations

from typing import Any as Json

import msgspec
import pytest

from meshsim import xds
from meshsim.control.downstream_tls import downstream_tls_context
from meshsim.resources.gateway import ServerTlsSettings
from meshsim.resources.mesh_config import TlsDefaults


def context(settings: Json, *, tcp: bool = False, defaults: TlsDefaults | None = None) -> Json:
    made = xds.to_builtins(downstream_tls_context(msgspec.convert(settings, ServerTlsSettings), defaults, tcp=tcp))
    common = made["common_tls_context"]
    combined = common.get("combined_validation_context", {})
    return {
        "pairs": [s["name"] for s in common.get("tls_certificate_sds_secret_configs", [])],
        "ca": combined.get("validation_context_sds_secret_config", {}).get("name"),
        "check": combined.get("default_validation_context") or common.get("validation_context"),
        "alpn": common["alpn_protocols"],
        "required": made["require_client_certificate"],
        "params": common.get("tls_params"),
    }


FILES = {"serverCertificate": "/c", "privateKey": "/k", "caCertificates": "/ca"}
FILE_PAIR, HTTP = "file-cert:/c~/k", ["h2", "http/1.1"]


@pytest.mark.parametrize(
    ("settings", "pairs", "ca", "required"),
    [
        ({"mode": "SIMPLE", **FILES}, [FILE_PAIR], None, False),
        ({"mode": "MUTUAL", **FILES}, [FILE_PAIR], "file-root:/ca", True),
        ({"mode": "OPTIONAL_MUTUAL", **FILES}, [FILE_PAIR], "file-root:/ca", False),
        ({"mode": "ISTIO_MUTUAL", **FILES}, ["default"], "ROOTCA", True),
        ({"mode": "SIMPLE", "credentialName": "x"}, ["kubernetes://x"], None, False),
        ({"mode": "MUTUAL", "credentialName": "x"}, ["kubernetes://x"], "kubernetes://x-cacert", True),
        ({"mode": "MUTUAL", "credentialName": "x", "caCertCredentialName": "y"}, ["kubernetes://x"], "kubernetes://y", True),
        ({"mode": "MUTUAL", "credentialNames": ["r", "e"]}, ["kubernetes://r", "kubernetes://e"], "kubernetes://r-cacert", True),
        ({"mode": "SIMPLE", "credentialName": "kubernetes://ns/x"}, ["kubernetes://ns/x"], None, False),
        ({"mode": "SIMPLE", "credentialName": "builtin://"}, ["default"], None, False),
        ({"mode": "SIMPLE", "credentialName": "sds://x"}, ["kubernetes://x"], None, False),
        ({"mode": "SIMPLE", "tlsCertificates": [FILES, {"serverCertificate": "/d", "privateKey": "/l"}]},
         [FILE_PAIR, "file-cert:/d~/l"], None, False),
        ({"mode": "MUTUAL"}, ["default"], "ROOTCA", True),
    ],
)  # fmt: skip
def test_certificates(settings: Json, pairs: list[str], ca: str | None, required: bool) -> None:
    found = context(settings)
    assert (found["pairs"], found["ca"], found["required"], found["alpn"]) == (pairs, ca, required, HTTP)


def test_alpn_of_a_tcp_server_in_the_mesh() -> None:
    assert context({"mode": "ISTIO_MUTUAL"}, tcp=True)["alpn"] == ["istio-peer-exchange", *HTTP]
    assert context({"mode": "SIMPLE", **FILES}, tcp=True)["alpn"] == HTTP


def test_what_is_checked_of_a_client() -> None:
    for settings in ({"mode": "MUTUAL", **FILES}, {"mode": "SIMPLE", "credentialName": "x"}):
        assert context({**settings, "subjectAltNames": ["a"]})["check"] == {"match_subject_alt_names": [{"exact": "a"}]}
    skipped = context({"mode": "MUTUAL", "credentialName": "x", "insecureSkipVerify": True, "verifyCertificateHash": ["h"]})["check"]
    assert skipped == {"trust_chain_verification": "ACCEPT_UNTRUSTED", "verify_certificate_hash": ["h"]}


@pytest.mark.parametrize(
    ("settings", "params"),
    [
        ({"mode": "SIMPLE"}, None),
        ({"mode": "SIMPLE", "minProtocolVersion": "TLSV1_3"}, {"tls_minimum_protocol_version": "TLSv1_3"}),
        ({"mode": "SIMPLE", "maxProtocolVersion": "TLSV1_2"}, {"tls_maximum_protocol_version": "TLSv1_2"}),
        ({"mode": "SIMPLE", "cipherSuites": ["AES128-SHA", "NONSENSE", "AES128-SHA"]}, {"cipher_suites": ["AES128-SHA"]}),
        ({"mode": "SIMPLE", "cipherSuites": ["NONSENSE"]}, None),
        ({"mode": "ISTIO_MUTUAL", "minProtocolVersion": "TLSV1_3", "ecdhCurves": ["P-256"]}, None),
    ],
)
def test_versions_and_ciphers(settings: Json, params: Json) -> None:
    assert context(settings)["params"] == params


def test_mesh_defaults_and_what_overrides_them() -> None:
    defaults = TlsDefaults(min_protocol_version="TLSV1_3", ecdh_curves=["P-256"])
    assert context({"mode": "SIMPLE"}, defaults=defaults)["params"] == {"tls_minimum_protocol_version": "TLSv1_3", "ecdh_curves": ["P-256"]}
    own = context({"mode": "SIMPLE", "minProtocolVersion": "TLSV1_2", "ecdhCurves": ["X25519"]}, defaults=defaults)["params"]
    assert own == {"tls_minimum_protocol_version": "TLSv1_2", "ecdh_curves": ["X25519"]}
    assert context({"mode": "ISTIO_MUTUAL"}, defaults=defaults)["params"] is None

"""What a gateway server (or a sidecar's ingress listener) shows and asks of a TLS client: its DownstreamTlsContext.

Certificates come from one of three places: ISTIO_MUTUAL the workload's own, `credentialName` Kubernetes Secrets in the
proxy's namespace, otherwise files in the pod. A client certificate is demanded by MUTUAL and ISTIO_MUTUAL, and checked if
shown by OPTIONAL_MUTUAL. No mode checks who the client is unless `subjectAltNames` says so.
"""

from __future__ import annotations

import re

from meshsim.control import sds
from meshsim.resources.gateway import ServerTlsSettings
from meshsim.resources.mesh_config import TlsDefaults
from meshsim.xds.message import DataSource, StringMatcher
from meshsim.xds.tls import (
    CertificateValidationContext,
    CombinedValidationContext,
    CommonTlsContext,
    DownstreamTlsContext,
    TlsParameters,
    TransportSocket,
)

ALPN_HTTP = ["h2", "http/1.1"]
ALPN_TCP_MESH = ["istio-peer-exchange", *ALPN_HTTP]  # with Istio's metadata exchange for raw TCP
VERSIONS = {"TLSV1_0": "TLSv1_0", "TLSV1_1": "TLSv1_1", "TLSV1_2": "TLSv1_2", "TLSV1_3": "TLSv1_3"}
CIPHERS = frozenset(
    {
        *(f"ECDHE-{key}-{suite}" for key in ("ECDSA", "RSA") for suite in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")),
        *(f"ECDHE-{key}-{cipher}" for key in ("ECDSA", "RSA") for cipher in ("AES128-SHA", "AES256-SHA")),
        *("AES128-GCM-SHA256", "AES256-GCM-SHA384", "AES128-SHA", "AES256-SHA", "DES-CBC3-SHA"),
    }
)


def transport_socket(tls: ServerTlsSettings, defaults: TlsDefaults | None, *, tcp: bool = False) -> TransportSocket:
    """The socket of a server's filter chain. `tcp`: the server relays bytes after decrypting (protocol TLS or TCP)."""
    return TransportSocket("envoy.transport_sockets.tls", downstream_tls_context(tls, defaults, tcp=tcp))


def downstream_tls_context(tls: ServerTlsSettings, defaults: TlsDefaults | None, *, tcp: bool = False) -> DownstreamTlsContext:
    """The context of a terminating server; `defaults` is MeshConfig.tlsDefaults, which no mode of the mesh itself heeds."""
    demanded = tls.mode in ("MUTUAL", "ISTIO_MUTUAL")
    common = CommonTlsContext(alpn_protocols=list(ALPN_TCP_MESH if tcp and tls.mode == "ISTIO_MUTUAL" else ALPN_HTTP))
    if tls.mode != "ISTIO_MUTUAL" and (tls.credential_names or tls.credential_name):
        _from_credentials(common, tls)
    else:
        _from_files(common, tls, checked=demanded or tls.mode == "OPTIONAL_MUTUAL")
    if tls.mode in ("SIMPLE", "MUTUAL", "OPTIONAL_MUTUAL"):
        common.tls_params = _parameters(tls, defaults)
    return DownstreamTlsContext(common, require_client_certificate=demanded)


def _from_credentials(common: CommonTlsContext, tls: ServerTlsSettings) -> None:
    """With two credentials (RSA and ECDSA) the first one's CA is the CA."""
    names = tls.credential_names or [tls.credential_name]
    common.tls_certificate_sds_secret_configs = [sds.credential(name) for name in names]
    sans = [StringMatcher(exact=name) for name in tls.subject_alt_names]
    if tls.mode in ("MUTUAL", "OPTIONAL_MUTUAL"):
        context = CertificateValidationContext(
            match_subject_alt_names=sans,
            verify_certificate_spki=list(tls.verify_certificate_spki),
            verify_certificate_hash=list(tls.verify_certificate_hash),
            trust_chain_verification=_trust(tls),
        )
        ca = tls.ca_cert_credential_name or names[0] + sds.CA_SUFFIX
        common.combined_validation_context = CombinedValidationContext(context, sds.credential(ca))
    elif sans:
        common.validation_context = CertificateValidationContext(match_subject_alt_names=sans)


def _from_files(common: CommonTlsContext, tls: ServerTlsSettings, checked: bool) -> None:
    """ISTIO_MUTUAL ignores every file; elsewhere a file that is not given is the workload's own."""
    own = tls.mode == "ISTIO_MUTUAL"
    pairs = [(c.server_certificate, c.private_key) for c in tls.tls_certificates] or [(tls.server_certificate, tls.private_key)]
    common.tls_certificate_sds_secret_configs = [sds.agent_secret(sds.WORKLOAD)] if own else [sds.file_pair(*pair) for pair in pairs]
    if checked:
        context = CertificateValidationContext(
            match_subject_alt_names=[StringMatcher(exact=name) for name in tls.subject_alt_names],
            crl=DataSource(filename=tls.ca_crl) if tls.ca_crl else None,
            trust_chain_verification=_trust(tls),
        )
        root = sds.agent_secret(sds.ROOT) if own else sds.file_root(tls.ca_certificates)
        common.combined_validation_context = CombinedValidationContext(context, root)


def _trust(tls: ServerTlsSettings) -> str:
    return "ACCEPT_UNTRUSTED" if tls.insecure_skip_verify else "VERIFY_TRUST_CHAIN"


def _parameters(tls: ServerTlsSettings, defaults: TlsDefaults | None) -> TlsParameters | None:
    """MeshConfig's defaults, overridden by the server's own; None (Envoy's TLS 1.2 to 1.3) if neither says anything."""
    base = defaults or TlsDefaults()
    parameters = TlsParameters(
        tls_minimum_protocol_version=VERSIONS.get(tls.min_protocol_version) or VERSIONS.get(base.min_protocol_version, "TLS_AUTO"),
        tls_maximum_protocol_version=VERSIONS.get(tls.max_protocol_version, "TLS_AUTO"),
        cipher_suites=_ciphers(tls.cipher_suites) or list(base.cipher_suites),
        ecdh_curves=list(tls.ecdh_curves or base.ecdh_curves),
    )
    return None if parameters == TlsParameters() else parameters


def _ciphers(suites: list[str]) -> list[str]:
    """Without repetitions and without names BoringSSL does not know; lists with operators (`[A|B]`, `-C`) pass as they are."""
    return [s for s in dict.fromkeys(suites) if s in ("", "ALL") or s in CIPHERS or not re.match(r"\w", s)]

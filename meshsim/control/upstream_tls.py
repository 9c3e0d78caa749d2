"""How a cluster speaks TLS: what a DestinationRule's `tls` asks for, or mesh mTLS where both ends can.

The combinations follow Istio's: no `sni` on an HTTP cluster means the request's own host is sent and checked; `sni` without
`subjectAltNames` checks the chain alone; `credentialName` is for gateways (on a sidecar the whole setting is dropped, so that
plaintext is sent).
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from meshsim.control import sds
from meshsim.resources.destination_rule import ClientTlsSettings
from meshsim.resources.mesh_config import TlsDefaults
from meshsim.xds.cluster import TransportSocketMatch
from meshsim.xds.message import DataSource, StringMatcher
from meshsim.xds.tls import (
    CertificateValidationContext,
    CombinedValidationContext,
    CommonTlsContext,
    RawBuffer,
    TlsParameters,
    TransportSocket,
    UpstreamTlsContext,
)

TLS_SOCKET, RAW_SOCKET = "envoy.transport_sockets.tls", "envoy.transport_sockets.raw_buffer"
MESH_ALPN = ["istio-peer-exchange", "istio"]
VERSIONS = TlsParameters("TLSv1_2", "TLSv1_3")
SYSTEM_ROOTS = "system"


class Names(NamedTuple):
    """What a request's own authority decides: the SNI, and the name that the certificate is verified for."""

    sni: bool
    verified: bool


class Origination(NamedTuple):
    """A TLS context, and what the cluster's HTTP options must add to it."""

    context: UpstreamTlsContext
    names: Names


def automatic_names(sni: str, names: list[str], unverified: bool, *, on_demand: bool) -> Names:
    """on_demand: whether the cluster resolves what requests ask for, so that their name is what has to be verified in any case."""
    return Names(not sni, not unverified and (on_demand or not (sni or names)))


def mutual(sni: str, names: list[str], *, http2: bool) -> UpstreamTlsContext:
    """Mesh mTLS: the workload's certificate, the mesh's root, and who may answer (nobody named: any of the mesh)."""
    return UpstreamTlsContext(
        CommonTlsContext(
            tls_params=VERSIONS,
            tls_certificate_sds_secret_configs=[sds.agent_secret(sds.WORKLOAD)],
            combined_validation_context=CombinedValidationContext(
                CertificateValidationContext(match_subject_alt_names=[StringMatcher(exact=n) for n in names]), sds.agent_secret(sds.ROOT)
            ),
            alpn_protocols=[*MESH_ALPN, "h2"] if http2 else list(MESH_ALPN),
        ),
        sni=sni,
    )


def originate(
    tls: ClientTlsSettings, names: list[str], defaults: TlsDefaults | None, *, http2: bool, credentials: bool, verify: bool, on_demand: bool
) -> Origination | None:
    """SIMPLE and MUTUAL. `names`: the ServiceEntry's subjectAltNames; `defaults`: MeshConfig.tlsDefaults; `credentials`: whether
    credentialName counts here; `verify`: whether the server is verified where nothing says by which roots; `on_demand`: as for
    `automatic_names`.

    None where Istio drops the setting and sends plaintext.
    """
    named = tls.credential_name
    if named and not credentials and not named.startswith("configmap://"):
        return None
    certificates = []
    if tls.mode == "MUTUAL":
        if named:
            certificates = [sds.credential(named)]
        elif tls.client_certificate and tls.private_key:
            certificates = [sds.file_pair(tls.client_certificate, tls.private_key)]
        else:
            return None
    parameters = VERSIONS
    if defaults is not None:
        parameters = msgspec.structs.replace(VERSIONS, cipher_suites=defaults.cipher_suites, ecdh_curves=defaults.ecdh_curves)
    alpn = ["h2"] if http2 else []
    common = CommonTlsContext(tls_params=parameters, tls_certificate_sds_secret_configs=certificates, alpn_protocols=alpn)
    own_names = list(tls.subject_alt_names or [])
    trusting = tls.insecure_skip_verify or not (verify or named or tls.ca_certificates)
    if named and tls.insecure_skip_verify:
        pass  # nothing is asked for
    elif trusting:
        common.validation_context = CertificateValidationContext()
    else:
        root = sds.credential(named + sds.CA_SUFFIX) if named else sds.file_root(tls.ca_certificates or SYSTEM_ROOTS)
        matchers = [StringMatcher(exact=n) for n in own_names or names]
        crl = DataSource(filename=tls.ca_crl) if tls.ca_crl and not named else None  # a Secret brings its own list
        common.combined_validation_context = CombinedValidationContext(
            CertificateValidationContext(match_subject_alt_names=matchers, crl=crl), root
        )
    return Origination(UpstreamTlsContext(common, sni=tls.sni), automatic_names(tls.sni, own_names, trusting, on_demand=on_demand))


def socket(context: UpstreamTlsContext) -> TransportSocket:
    return TransportSocket(TLS_SOCKET, context)


def plaintext() -> TransportSocket:
    return TransportSocket(RAW_SOCKET, RawBuffer())


def automatic(context: UpstreamTlsContext) -> list[TransportSocketMatch]:
    """mTLS to the endpoints that are marked for it, plaintext to the others."""
    return [
        TransportSocketMatch("tlsMode-istio", socket(context), {"tlsMode": "istio"}),
        TransportSocketMatch("tlsMode-disabled", plaintext(), {}),
    ]

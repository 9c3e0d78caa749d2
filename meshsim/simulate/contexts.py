"""TLS contexts of a proxy's configuration, as the sides of a handshake decided from facts."""

from __future__ import annotations

from meshsim.routing.transport import Transport
from meshsim.simulate.handshake import Answer, Certificate, Offer, Trust, ciphers, trust, versions
from meshsim.simulate.world import Secrets
from meshsim.xds.tls import CommonTlsContext, DownstreamTlsContext, UpstreamTlsContext


def answer(context: DownstreamTlsContext, secrets: Secrets) -> Answer | None:
    """A chain's side of handshakes; None while a secret is missing."""
    common = context.common_tls_context
    certificates = [secrets.certificate(c.name) for c in common.tls_certificate_sds_secret_configs]
    if not certificates or certificates[0] is None:
        return None
    clients = _trust(common, secrets, "")
    if clients is None:
        return None
    requires = context.require_client_certificate is True
    validates = common.combined_validation_context is not None or common.validation_context is not None
    params = common.tls_params
    low, high = (params.tls_minimum_protocol_version, params.tls_maximum_protocol_version) if params else ("", "")
    return Answer(
        certificates[0],
        tuple(common.alpn_protocols),
        requires,
        clients if requires or validates else None,
        versions(low, high, (12, 13)),
        ciphers(params.cipher_suites if params else ()),
    )


def offer(way: Transport, secrets: Secrets) -> Offer | None:
    """A cluster's side of handshakes; None while a secret is missing."""
    context = way.tls
    assert isinstance(context, UpstreamTlsContext)
    common = context.common_tls_context
    certificate: Certificate | None = None
    if common.tls_certificate_sds_secret_configs:
        certificate = secrets.certificate(common.tls_certificate_sds_secret_configs[0].name)
        if certificate is None:
            return None
    verifies = _trust(common, secrets, way.name)
    if verifies is None:
        return None
    params = common.tls_params
    low, high = (params.tls_minimum_protocol_version, params.tls_maximum_protocol_version) if params else ("", "")
    suites = ciphers(params.cipher_suites if params else ())
    return Offer(way.sni, way.alpn, certificate, verifies, versions(low, high, (12, 12)), suites)


def _trust(common: CommonTlsContext, secrets: Secrets, name: str) -> Trust | None:
    """Whom a context trusts; None while its roots or its revocation list are missing."""
    combined = common.combined_validation_context
    config = combined.validation_context_sds_secret_config if combined else common.validation_context_sds_secret_config
    context = combined.default_validation_context if combined else common.validation_context
    if config is None:
        return trust(context, None, name)
    roots = secrets.roots(config.name)
    if roots is None:
        return None
    file = context.crl.filename if context is not None and context.crl is not None else None
    lists = secrets.file_lists(file) if file else secrets.lists(config.name)
    if file and lists is None:
        return None
    return trust(context, roots, name, lists)

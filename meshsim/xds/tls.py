"""TLS contexts, secrets and transport sockets."""

from __future__ import annotations

from meshsim.xds.message import TYPE, ConfigSource, DataSource, Message, StringMatcher, TypedMessage


class SdsSecretConfig(Message):
    name: str
    sds_config: ConfigSource | None = None


class TlsParameters(Message):
    tls_minimum_protocol_version: str = "TLS_AUTO"
    tls_maximum_protocol_version: str = "TLS_AUTO"
    cipher_suites: list[str] = []
    ecdh_curves: list[str] = []


class TlsCertificate(Message):
    certificate_chain: DataSource | None = None
    private_key: DataSource | None = None


class SanMatcher(Message):
    san_type: str  # DNS | URI | IP_ADDRESS | EMAIL | OTHER_NAME
    matcher: StringMatcher


class CertificateValidationContext(Message):
    trusted_ca: DataSource | None = None
    match_subject_alt_names: list[StringMatcher] = []  # any SAN type; what istiod writes
    match_typed_subject_alt_names: list[SanMatcher] = []
    verify_certificate_spki: list[str] = []
    verify_certificate_hash: list[str] = []
    crl: DataSource | None = None
    trust_chain_verification: str = "VERIFY_TRUST_CHAIN"


class CombinedValidationContext(Message):
    default_validation_context: CertificateValidationContext | None = None
    validation_context_sds_secret_config: SdsSecretConfig | None = None


class CommonTlsContext(Message):
    tls_params: TlsParameters | None = None
    tls_certificates: list[TlsCertificate] = []
    tls_certificate_sds_secret_configs: list[SdsSecretConfig] = []
    validation_context: CertificateValidationContext | None = None
    validation_context_sds_secret_config: SdsSecretConfig | None = None
    combined_validation_context: CombinedValidationContext | None = None
    alpn_protocols: list[str] = []


class UpstreamTlsContext(TypedMessage, tag=TYPE + "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"):
    common_tls_context: CommonTlsContext
    sni: str = ""
    max_session_keys: int | None = None


class DownstreamTlsContext(TypedMessage, tag=TYPE + "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"):
    common_tls_context: CommonTlsContext
    require_client_certificate: bool | None = None
    require_sni: bool | None = None
    disable_stateless_session_resumption: bool = False
    ocsp_staple_policy: str = "LENIENT_STAPLING"


class RawBuffer(TypedMessage, tag=TYPE + "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"):
    pass


class ProxyProtocolConfig(Message):
    version: str = "V1"


class InnerTransportSocket(Message):
    name: str
    typed_config: UpstreamTlsContext | RawBuffer


class ProxyProtocolUpstreamTransport(
    TypedMessage, tag=TYPE + "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport"
):
    """Sends a PROXY header before whatever `transport_socket` sends (DestinationRule `proxyProtocol`)."""

    config: ProxyProtocolConfig | None = None
    transport_socket: InnerTransportSocket | None = None


class TransportSocket(Message):
    name: str
    typed_config: UpstreamTlsContext | DownstreamTlsContext | RawBuffer | ProxyProtocolUpstreamTransport


class Secret(TypedMessage, tag=TYPE + "envoy.extensions.transport_sockets.tls.v3.Secret"):
    name: str
    tls_certificate: TlsCertificate | None = None
    validation_context: CertificateValidationContext | None = None

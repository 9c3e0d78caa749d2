"""MeshConfig: the mesh-wide settings, with Istio's defaults."""

from __future__ import annotations

from typing import Annotated, Literal
from typing import Any as Json

import msgspec

from meshsim.resources.destination_rule import ConnectionPoolSettings, LocalityLbSetting, OutlierDetection, TcpKeepalive
from meshsim.resources.message import Message, Struct
from meshsim.resources.shape import AnyDuration, enum
from meshsim.resources.virtual_service import HttpRetry

_API = "istio.mesh.v1alpha1.MeshConfig"


class MeshOutboundTrafficPolicy(Message):
    mode: Literal["REGISTRY_ONLY", "ALLOW_ANY", "ALLOW_ANY_DYNAMIC_DNS"] = "ALLOW_ANY"


class MeshInboundTrafficPolicy(Message):
    mode: Annotated[Literal["PASSTHROUGH", "LOCALHOST"], enum(f"{_API}.InboundTrafficPolicy.Mode")] = "PASSTHROUGH"


class ProxyStatsMatcher(Message):
    inclusion_prefixes: list[str] = []
    inclusion_suffixes: list[str] = []
    inclusion_regexps: list[str] = []


ForwardClientCertDetails = Annotated[
    Literal["UNDEFINED", "SANITIZE", "FORWARD_ONLY", "APPEND_FORWARD", "SANITIZE_SET", "ALWAYS_FORWARD_ONLY"],
    enum("istio.mesh.v1alpha1.ForwardClientCertDetails"),
]


class Disabling(Message):
    """A header that proxies write unless this says otherwise."""

    disabled: bool | None = None


class Enabling(Message):
    """A header that proxies write only if this says so."""

    enabled: bool | None = None


class ServerHeader(Disabling):
    value: str = ""


class SetCurrentClientCertDetails(Message):
    subject: bool | None = None
    cert: bool | None = None
    chain: bool | None = None
    dns: bool | None = None
    uri: bool | None = None


class ProxyHeaders(Message):
    forwarded_client_cert: ForwardClientCertDetails = "UNDEFINED"
    set_current_client_cert_details: SetCurrentClientCertDetails = msgspec.field(default_factory=SetCurrentClientCertDetails)
    request_id: Disabling = msgspec.field(default_factory=Disabling)
    server: ServerHeader = msgspec.field(default_factory=ServerHeader)
    attempt_count: Disabling = msgspec.field(default_factory=Disabling)
    envoy_debug_headers: Disabling = msgspec.field(default_factory=Disabling)
    metadata_exchange_headers: Struct | None = None
    preserve_http1_header_case: bool | None = None
    x_forwarded_host: Enabling = msgspec.field(default_factory=Enabling)
    x_forwarded_port: Enabling = msgspec.field(default_factory=Enabling)


class Topology(Message):
    num_trusted_proxies: int = 0
    forward_client_cert_details: ForwardClientCertDetails = "UNDEFINED"
    proxy_protocol: Struct | None = None


class DefaultConfig(Message):
    """ProxyConfig of MeshConfig; `proxy.istio.io/config` overlays it per pod."""

    proxy_stats_matcher: ProxyStatsMatcher | None = None
    proxy_metadata: dict[str, str] = {}
    proxy_headers: ProxyHeaders | None = None
    gateway_topology: Topology | None = None
    hold_application_until_proxy_starts: bool | None = None
    concurrency: int | None = None
    tracing: Struct | None = None
    drain_duration: AnyDuration | None = None
    termination_drain_duration: AnyDuration | None = None


class EnvoyFileAccessLogFormat(Message):
    text: str | None = None
    labels: dict[str, Json] | None = None


class EnvoyFileAccessLog(Message):
    path: str = ""
    log_format: EnvoyFileAccessLogFormat | None = None
    omit_empty_values: bool = False


class ExtensionProvider(Message):
    name: str = ""
    envoy_file_access_log: EnvoyFileAccessLog | None = None
    envoy_ext_authz_http: Struct | None = None
    envoy_ext_authz_grpc: Struct | None = None
    prometheus: Struct | None = None
    stackdriver: Struct | None = None
    zipkin: Struct | None = None
    opentelemetry: Struct | None = None
    envoy_otel_als: Struct | None = None


class DefaultProviders(Message):
    tracing: list[str] = []
    metrics: list[str] = []
    access_logging: list[str] = []


class TlsDefaults(Message):
    min_protocol_version: str = "TLS_AUTO"
    ecdh_curves: list[str] = []
    cipher_suites: list[str] = []


class PathNormalization(Message):
    normalization: str = "DEFAULT"


class DefaultTrafficPolicy(Message):
    connection_pool: ConnectionPoolSettings | None = None
    outlier_detection: OutlierDetection | None = None


class MeshConfig(Message):
    root_namespace: str = "istio-system"
    trust_domain: str = "cluster.local"
    trust_domain_aliases: list[str] = []
    outbound_traffic_policy: MeshOutboundTrafficPolicy = msgspec.field(default_factory=MeshOutboundTrafficPolicy)
    inbound_traffic_policy: MeshInboundTrafficPolicy = msgspec.field(default_factory=MeshInboundTrafficPolicy)
    enable_auto_mtls: bool = True
    access_log_file: str = ""
    access_log_encoding: Annotated[Literal["TEXT", "JSON"], enum(f"{_API}.AccessLogEncoding")] = "TEXT"
    access_log_format: str = ""
    disable_envoy_listener_log: bool = False
    connect_timeout: AnyDuration = "10s"
    protocol_detection_timeout: AnyDuration = "0s"
    dns_refresh_rate: AnyDuration = "60s"
    default_service_export_to: list[str] = msgspec.field(default_factory=lambda: ["*"])
    default_virtual_service_export_to: list[str] = msgspec.field(default_factory=lambda: ["*"])
    default_destination_rule_export_to: list[str] = msgspec.field(default_factory=lambda: ["*"])
    proxy_listen_port: int = 15001
    proxy_inbound_listen_port: int = 15006
    proxy_http_port: int = 0
    tcp_keepalive: TcpKeepalive | None = None
    locality_lb_setting: LocalityLbSetting | None = None
    h2_upgrade_policy: Annotated[Literal["DO_NOT_UPGRADE", "UPGRADE"], enum(f"{_API}.H2UpgradePolicy")] = "DO_NOT_UPGRADE"
    default_http_retry_policy: HttpRetry | None = None
    default_traffic_policy: DefaultTrafficPolicy | None = None
    tls_defaults: TlsDefaults | None = None
    mesh_m_tls: TlsDefaults | None = msgspec.field(default=None, name="meshMTLS")
    path_normalization: PathNormalization | None = None
    enable_prometheus_merge: bool = True
    extension_providers: list[ExtensionProvider] = []
    default_providers: DefaultProviders | None = None
    default_config: DefaultConfig | None = None
    outbound_cluster_stat_name: str = ""
    inbound_cluster_stat_name: str = ""
    service_entry_visibility: Struct | None = None
    verify_certificate_at_client: bool | None = None
    service_settings: list[Struct] = []
    discovery_selectors: list[Struct] = []
    ca_certificates: list[Struct] = []
    ingress_class: str = ""
    ingress_service: str = ""
    ingress_selector: str = ""
    enable_tracing: bool | None = None
    enable_envoy_access_log_service: bool | None = None

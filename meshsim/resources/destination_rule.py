"""DestinationRule: how clients treat a host once it has been chosen."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from meshsim.resources.message import Message, OneOfMessage, PortSelector, WorkloadLabelSelector
from meshsim.resources.shape import AnyDuration, Duration, Shape, UInt32, UInt64, bounds, enum

_API = "istio.networking.v1alpha3"
SimpleLb = Annotated[
    Literal["UNSPECIFIED", "LEAST_CONN", "RANDOM", "PASSTHROUGH", "ROUND_ROBIN", "LEAST_REQUEST"],
    enum(f"{_API}.LoadBalancerSettings.SimpleLB"),
]
H2UpgradePolicy = Annotated[
    Literal["DEFAULT", "DO_NOT_UPGRADE", "UPGRADE"], enum(f"{_API}.ConnectionPoolSettings.HTTPSettings.H2UpgradePolicy")
]
TlsMode = Annotated[Literal["DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"], enum(f"{_API}.ClientTLSSettings.TLSmode")]
ProxyProtocolVersion = Annotated[Literal["V1", "V2"], enum(f"{_API}.TrafficPolicy.ProxyProtocol.VERSION")]


class HttpCookieAttribute(Message):
    SHAPE: ClassVar[Shape] = Shape(required=("name",))

    name: str = ""
    value: str = ""


class HttpCookie(Message):
    SHAPE: ClassVar[Shape] = Shape(required=("name",))

    name: str = ""
    path: str = ""
    ttl: AnyDuration | None = None
    attributes: list[HttpCookieAttribute] = []


class RingHash(Message):
    minimum_ring_size: UInt64 = 0


class MagLev(Message):
    table_size: UInt64 = 0


class ConsistentHash(OneOfMessage):
    SHAPE: ClassVar[Shape] = Shape(
        one_of=(("httpHeaderName", "httpCookie", "useSourceIp", "httpQueryParameterName"), ("ringHash", "maglev"))
    )

    http_header_name: str | None = None
    http_cookie: HttpCookie | None = None
    use_source_ip: bool | None = None
    http_query_parameter_name: str | None = None
    ring_hash: RingHash | None = None
    maglev: MagLev | None = None
    minimum_ring_size: UInt64 = 0  # deprecated


class LocalityDistribute(Message, rename={"from_": "from"}):
    from_: str = ""
    to: dict[str, UInt32] = {}


class LocalityFailover(Message, rename={"from_": "from"}):
    from_: str = ""
    to: str = ""


class LocalityLbSetting(Message):
    distribute: list[LocalityDistribute] = []
    failover: list[LocalityFailover] = []
    failover_priority: list[str] = []
    enabled: bool | None = None


class ZoneAwareLbSetting(Message):
    enabled: bool | None = None
    failover: list[LocalityFailover] = []
    failover_priority: list[str] = []
    min_cluster_size: Annotated[int, bounds(minimum=1, maximum=4294967295)] | None = None


class BackendUtilization(Message):
    weight_stabilization_period: AnyDuration | None = None
    weight_expiration_period: AnyDuration | None = None
    weight_update_period: AnyDuration | None = None
    error_utilization_penalty_percent: UInt32 = 0
    metric_names_for_computing_utilization: list[str] = []


class Warmup(Message):
    SHAPE: ClassVar[Shape] = Shape(required=("duration",))

    duration: Duration | None = None
    minimum_percent: Annotated[float, bounds(minimum=0, maximum=100)] | None = None
    aggression: Annotated[float, bounds(minimum=0)] | None = None


class LoadBalancerSettings(OneOfMessage):
    SHAPE: ClassVar[Shape] = Shape(one_of=(("simple", "consistentHash", "backendUtilization"),))

    simple: SimpleLb | None = None
    consistent_hash: ConsistentHash | None = None
    backend_utilization: BackendUtilization | None = None
    locality_lb_setting: LocalityLbSetting | None = None
    zone_aware_lb_setting: ZoneAwareLbSetting | None = None
    warmup_duration_secs: Duration | None = None  # deprecated
    warmup: Warmup | None = None


class TcpKeepalive(Message):
    probes: UInt32 = 0
    time: Duration | None = None
    interval: Duration | None = None


class TcpSettings(Message):
    max_connections: int = 0
    connect_timeout: Duration | None = None
    tcp_keepalive: TcpKeepalive | None = None
    max_connection_duration: Duration | None = None
    idle_timeout: AnyDuration | None = None


class Http2KeepAlive(Message):
    interval: Duration | None = None
    timeout: Duration | None = None


class HttpSettings(Message):
    http1_max_pending_requests: int = 0
    http2_max_requests: int = 0
    max_requests_per_connection: int = 0
    max_retries: int = 0
    idle_timeout: Duration | None = None
    h2_upgrade_policy: H2UpgradePolicy = "DEFAULT"
    use_client_protocol: bool = False
    max_concurrent_streams: int = 0
    http2_keep_alive: Http2KeepAlive | None = None


class ConnectionPoolSettings(Message):
    tcp: TcpSettings | None = None
    http: HttpSettings | None = None


class OutlierDetection(Message):
    consecutive_errors: int = 0  # deprecated
    split_external_local_origin_errors: bool = False
    consecutive_local_origin_failures: UInt32 | None = None
    consecutive_gateway_errors: UInt32 | None = None
    consecutive5xx_errors: UInt32 | None = None
    interval: Duration | None = None
    base_ejection_time: Duration | None = None
    max_ejection_percent: int = 0
    min_health_percent: int = 0
    outlier_detection_http_error_codes: list[Annotated[int, bounds(minimum=100, maximum=599)]] = []


class ClientTlsSettings(Message):
    mode: TlsMode = "DISABLE"
    client_certificate: str = ""
    private_key: str = ""
    ca_certificates: str = ""
    credential_name: str = ""
    subject_alt_names: list[str] | None = None
    sni: str = ""
    insecure_skip_verify: bool | None = None
    ca_crl: str = ""


class PortTrafficPolicy(Message):
    port: PortSelector | None = None
    load_balancer: LoadBalancerSettings | None = None
    connection_pool: ConnectionPoolSettings | None = None
    outlier_detection: OutlierDetection | None = None
    tls: ClientTlsSettings | None = None


class TunnelSettings(Message):
    SHAPE: ClassVar[Shape] = Shape(required=("targetHost", "targetPort"))

    protocol: str = ""
    target_host: str = ""
    target_port: UInt32 = 0


class ProxyProtocol(Message):
    version: ProxyProtocolVersion = "V1"


class RetryBudget(Message):
    percent: Annotated[float, bounds(minimum=0, maximum=100)] | None = None
    min_retry_concurrency: UInt32 = 0
    budget_interval: AnyDuration | None = None


class TrafficPolicy(Message):
    load_balancer: LoadBalancerSettings | None = None
    connection_pool: ConnectionPoolSettings | None = None
    outlier_detection: OutlierDetection | None = None
    tls: ClientTlsSettings | None = None
    port_level_settings: Annotated[list[PortTrafficPolicy], bounds(maxItems=4096)] = []
    tunnel: TunnelSettings | None = None
    proxy_protocol: ProxyProtocol | None = None
    retry_budget: RetryBudget | None = None


class Subset(Message):
    SHAPE: ClassVar[Shape] = Shape(required=("name",))

    name: str = ""
    labels: dict[str, str] = {}
    traffic_policy: TrafficPolicy | None = None


class DestinationRuleSpec(Message):
    SHAPE: ClassVar[Shape] = Shape(required=("host",))

    host: str = ""
    traffic_policy: TrafficPolicy | None = None
    subsets: list[Subset] = []
    export_to: list[str] = []
    workload_selector: WorkloadLabelSelector | None = None

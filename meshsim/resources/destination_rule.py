"""DestinationRule: how clients treat a host once it has been chosen."""

from __future__ import annotations

from meshsim.resources.message import Message, Percent, PortSelector, Struct, WorkloadLabelSelector


class HttpCookieAttribute(Message):
    name: str = ""
    value: str = ""


class HttpCookie(Message):
    name: str = ""
    path: str = ""
    ttl: str | None = None
    attributes: list[HttpCookieAttribute] = []


class RingHash(Message):
    minimum_ring_size: int = 0


class MagLev(Message):
    table_size: int = 0


class ConsistentHash(Message):
    http_header_name: str | None = None
    http_cookie: HttpCookie | None = None
    use_source_ip: bool | None = None
    http_query_parameter_name: str | None = None
    ring_hash: RingHash | None = None
    maglev: MagLev | None = None
    minimum_ring_size: int = 0  # deprecated


class LocalityDistribute(Message, rename={"from_": "from"}):
    from_: str = ""
    to: dict[str, int] = {}


class LocalityFailover(Message, rename={"from_": "from"}):
    from_: str = ""
    to: str = ""


class LocalityLbSetting(Message):
    distribute: list[LocalityDistribute] = []
    failover: list[LocalityFailover] = []
    failover_priority: list[str] = []
    enabled: bool | None = None


class Warmup(Message):
    duration: str | None = None
    minimum_percent: float | None = None
    aggression: float | None = None


class LoadBalancerSettings(Message):
    simple: str | None = None
    consistent_hash: ConsistentHash | None = None
    locality_lb_setting: LocalityLbSetting | None = None
    zone_aware_lb_setting: Struct | None = None
    warmup_duration_secs: str | None = None  # deprecated
    warmup: Warmup | None = None


class TcpKeepalive(Message):
    probes: int = 0
    time: str | None = None
    interval: str | None = None


class TcpSettings(Message):
    max_connections: int = 0
    connect_timeout: str | None = None
    tcp_keepalive: TcpKeepalive | None = None
    max_connection_duration: str | None = None
    idle_timeout: str | None = None


class Http2KeepAlive(Message):
    interval: str | None = None
    timeout: str | None = None


class HttpSettings(Message):
    http1_max_pending_requests: int = 0
    http2_max_requests: int = 0
    max_requests_per_connection: int = 0
    max_retries: int = 0
    idle_timeout: str | None = None
    h2_upgrade_policy: str = "DEFAULT"
    use_client_protocol: bool = False
    max_concurrent_streams: int = 0
    http2_keep_alive: Http2KeepAlive | None = None


class ConnectionPoolSettings(Message):
    tcp: TcpSettings | None = None
    http: HttpSettings | None = None


class OutlierDetection(Message):
    consecutive_errors: int = 0  # deprecated
    split_external_local_origin_errors: bool = False
    consecutive_local_origin_failures: int | None = None
    consecutive_gateway_errors: int | None = None
    consecutive5xx_errors: int | None = None
    interval: str | None = None
    base_ejection_time: str | None = None
    max_ejection_percent: int = 0
    min_health_percent: int = 0
    outlier_detection_http_error_codes: list[Struct] = []


class ClientTlsSettings(Message):
    mode: str = "DISABLE"
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
    protocol: str = ""
    target_host: str = ""
    target_port: int = 0


class ProxyProtocol(Message):
    version: str = "V1"


class RetryBudget(Message):
    percent: Percent | float | None = None
    min_retry_concurrency: int = 0
    budget_interval: str | None = None


class TrafficPolicy(Message):
    load_balancer: LoadBalancerSettings | None = None
    connection_pool: ConnectionPoolSettings | None = None
    outlier_detection: OutlierDetection | None = None
    tls: ClientTlsSettings | None = None
    port_level_settings: list[PortTrafficPolicy] = []
    tunnel: TunnelSettings | None = None
    proxy_protocol: ProxyProtocol | None = None
    retry_budget: RetryBudget | None = None


class Subset(Message):
    name: str = ""
    labels: dict[str, str] = {}
    traffic_policy: TrafficPolicy | None = None


class DestinationRuleSpec(Message):
    host: str = ""
    traffic_policy: TrafficPolicy | None = None
    subsets: list[Subset] = []
    export_to: list[str] = []
    workload_selector: WorkloadLabelSelector | None = None

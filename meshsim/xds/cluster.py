"""Upstream clusters."""

from __future__ import annotations

from typing import Any as Json

from meshsim.xds.endpoint import ClusterLoadAssignment
from meshsim.xds.http_connection_manager import CommonHttpProtocolOptions, Http1ProtocolOptions, Http2ProtocolOptions
from meshsim.xds.message import TYPE, ConfigSource, Message, Metadata, Percent, RuntimeDouble, SocketAddress, TypedMessage
from meshsim.xds.tls import TransportSocket

HTTP_PROTOCOL_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


class UpstreamHttpProtocolOptions(Message):
    auto_sni: bool = False
    auto_san_validation: bool = False
    override_auto_sni_header: str = ""


class ExplicitHttpConfig(Message):
    http_protocol_options: Http1ProtocolOptions | None = None
    http2_protocol_options: Http2ProtocolOptions | None = None


class UseDownstreamHttpConfig(Message):
    http_protocol_options: Http1ProtocolOptions | None = None
    http2_protocol_options: Http2ProtocolOptions | None = None


class ErrorMatching(Message):
    """Which responses outlier detection takes for errors."""

    error_matcher: dict[str, Json] | None = None


class HttpProtocolOptions(TypedMessage, tag=TYPE + HTTP_PROTOCOL_OPTIONS):
    common_http_protocol_options: CommonHttpProtocolOptions | None = None
    upstream_http_protocol_options: UpstreamHttpProtocolOptions | None = None
    explicit_http_config: ExplicitHttpConfig | None = None
    use_downstream_protocol_config: UseDownstreamHttpConfig | None = None
    auto_config: dict[str, Json] | None = None
    outlier_detection: ErrorMatching | None = None


class EdsClusterConfig(Message):
    eds_config: ConfigSource | None = None
    service_name: str = ""


class RetryBudget(Message):
    budget_percent: Percent | None = None
    min_retry_concurrency: int | None = None
    budget_interval: str | None = None


class Thresholds(Message):
    priority: str = "DEFAULT"
    max_connections: int | None = None
    max_pending_requests: int | None = None
    max_requests: int | None = None
    max_retries: int | None = None
    retry_budget: RetryBudget | None = None
    track_remaining: bool = False


class CircuitBreakers(Message):
    thresholds: list[Thresholds] = []


class OutlierDetection(Message):
    consecutive_5xx: int | None = None
    interval: str | None = None
    base_ejection_time: str | None = None
    max_ejection_percent: int | None = None
    enforcing_consecutive_5xx: int | None = None
    enforcing_success_rate: int | None = None
    consecutive_gateway_failure: int | None = None
    enforcing_consecutive_gateway_failure: int | None = None
    split_external_local_origin_errors: bool = False
    consecutive_local_origin_failure: int | None = None
    enforcing_consecutive_local_origin_failure: int | None = None
    enforcing_local_origin_success_rate: int | None = None
    always_eject_one_host: bool | None = None


class SlowStartConfig(Message):
    slow_start_window: str | None = None
    aggression: RuntimeDouble | None = None
    min_weight_percent: Percent | None = None


class RoundRobinLbConfig(Message):
    slow_start_config: SlowStartConfig | None = None


class LeastRequestLbConfig(Message):
    choice_count: int | None = None
    slow_start_config: SlowStartConfig | None = None


class RingHashLbConfig(Message):
    minimum_ring_size: str | None = None  # uint64
    maximum_ring_size: str | None = None
    hash_function: str = "XX_HASH"


class MaglevLbConfig(Message):
    table_size: str | None = None  # uint64


class OriginalDstLbConfig(Message):
    use_http_header: bool = False
    http_header_name: str = ""
    upstream_port_override: int | None = None


class LocalityWeightedLbConfig(Message):
    pass


class ZoneAwareLbConfig(Message):
    routing_enabled: Percent | None = None
    min_cluster_size: str | None = None  # uint64


class CommonLbConfig(Message):
    healthy_panic_threshold: Percent | None = None
    zone_aware_lb_config: ZoneAwareLbConfig | None = None
    locality_weighted_lb_config: LocalityWeightedLbConfig | None = None
    update_merge_window: str | None = None


class TcpKeepalive(Message):
    keepalive_probes: int | None = None
    keepalive_time: int | None = None
    keepalive_interval: int | None = None


class UpstreamConnectionOptions(Message):
    tcp_keepalive: TcpKeepalive | None = None
    happy_eyeballs_config: dict[str, Json] | None = None


class BindConfig(Message):
    source_address: SocketAddress | None = None


class TransportSocketMatch(Message):
    name: str
    transport_socket: TransportSocket
    match: dict[str, Json] | None = None


class DynamicForwardProxyCluster(TypedMessage, tag=TYPE + "envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig"):
    dns_cache_config: dict[str, Json] | None = None
    sub_clusters_config: dict[str, Json] | None = None
    allow_insecure_cluster_options: bool = False


class ClusterType(Message):
    name: str
    typed_config: DynamicForwardProxyCluster | None = None


class Cluster(Message):
    """`type` STATIC | STRICT_DNS | LOGICAL_DNS | EDS | ORIGINAL_DST, or `cluster_type` for an extension."""

    name: str
    alt_stat_name: str = ""
    type: str = ""
    cluster_type: ClusterType | None = None
    eds_cluster_config: EdsClusterConfig | None = None
    connect_timeout: str | None = None
    per_connection_buffer_limit_bytes: int | None = None
    lb_policy: str = "ROUND_ROBIN"
    load_assignment: ClusterLoadAssignment | None = None
    circuit_breakers: CircuitBreakers | None = None
    dns_refresh_rate: str | None = None
    dns_jitter: str | None = None
    respect_dns_ttl: bool = False
    dns_lookup_family: str = "AUTO"
    typed_dns_resolver_config: dict[str, Json] | None = None
    wait_for_warm_on_init: bool | None = None
    outlier_detection: OutlierDetection | None = None
    cleanup_interval: str | None = None
    upstream_bind_config: BindConfig | None = None
    round_robin_lb_config: RoundRobinLbConfig | None = None
    least_request_lb_config: LeastRequestLbConfig | None = None
    ring_hash_lb_config: RingHashLbConfig | None = None
    maglev_lb_config: MaglevLbConfig | None = None
    original_dst_lb_config: OriginalDstLbConfig | None = None
    common_lb_config: CommonLbConfig | None = None
    transport_socket: TransportSocket | None = None
    transport_socket_matches: list[TransportSocketMatch] = []
    upstream_connection_options: UpstreamConnectionOptions | None = None
    typed_extension_protocol_options: dict[str, HttpProtocolOptions] = {}
    metadata: Metadata | None = None

"""What a `connectionPool` makes of a cluster, outbound and inbound: limits, time-outs, keep-alives, and which HTTP it speaks.

How this works: a cluster begins with the HTTP version of its port (`speak`), which an upgrade policy can raise; then `apply` sets the
limits. Settings for HTTP/2 reach a cluster only where it speaks HTTP/2 whatever its clients do, not where it follows them.
"""

from __future__ import annotations

from meshsim.control.protocols import Protocol
from meshsim.resources.destination_rule import ConnectionPoolSettings
from meshsim.resources.destination_rule import RetryBudget as RetryBudgetSettings
from meshsim.resources.mesh_config import MeshConfig
from meshsim.resources.message import seconds
from meshsim.xds.cluster import (
    HTTP_PROTOCOL_OPTIONS,
    CircuitBreakers,
    Cluster,
    ExplicitHttpConfig,
    HttpProtocolOptions,
    RetryBudget,
    TcpKeepalive,
    Thresholds,
    UpstreamConnectionOptions,
    UseDownstreamHttpConfig,
)
from meshsim.xds.http_connection_manager import CommonHttpProtocolOptions, Http1ProtocolOptions, Http2KeepAlive, Http2ProtocolOptions
from meshsim.xds.message import Percent, duration

UNLIMITED = 4294967295


def options(cluster: Cluster) -> HttpProtocolOptions:
    """The cluster's HTTP options, made where there are none yet."""
    return cluster.typed_extension_protocol_options.setdefault(HTTP_PROTOCOL_OPTIONS, HttpProtocolOptions())


def speak(cluster: Cluster, protocol: Protocol, *, sniffs: bool) -> None:
    """HTTP as the port declares it. sniffs: whether undeclared traffic is told apart here, so that a cluster may follow its clients."""
    if protocol.is_http2:
        options(cluster).explicit_http_config = ExplicitHttpConfig(http2_protocol_options=Http2ProtocolOptions())
    elif protocol is Protocol.AUTO and sniffs:
        follow_clients(cluster)


def upgrade(cluster: Cluster, protocol: Protocol, pool: ConnectionPoolSettings | None, mesh: MeshConfig) -> None:
    """HTTP/2 where `h2UpgradePolicy` wants it; a cluster that follows its clients keeps doing so."""
    settings = pool.http if pool else None
    if settings is not None and settings.use_client_protocol:
        return
    wanted = settings.h2_upgrade_policy if settings else "DEFAULT"
    if wanted == "DEFAULT":
        wanted = mesh.h2_upgrade_policy if protocol.is_http else "DO_NOT_UPGRADE"
    made = options(cluster) if wanted == "UPGRADE" else None
    if made is not None and made.explicit_http_config is None and made.use_downstream_protocol_config is None:
        made.explicit_http_config = ExplicitHttpConfig(http2_protocol_options=Http2ProtocolOptions())


def follow_clients(cluster: Cluster) -> None:
    """Speak to a host what the client spoke to us."""
    made = options(cluster)
    made.explicit_http_config = None
    made.use_downstream_protocol_config = UseDownstreamHttpConfig(Http1ProtocolOptions(), Http2ProtocolOptions())


def as_it_comes(cluster: Cluster) -> None:
    """For destinations nobody declared: as the client speaks, and not kept for long."""
    follow_clients(cluster)
    options(cluster).common_http_protocol_options = CommonHttpProtocolOptions(idle_timeout="300s")


def speaks_http2(cluster: Cluster) -> bool:
    """Whether the cluster speaks HTTP/2 whatever its clients speak, which is what its ALPN offers then."""
    made = cluster.typed_extension_protocol_options.get(HTTP_PROTOCOL_OPTIONS)
    return made is not None and made.explicit_http_config is not None and made.explicit_http_config.http2_protocol_options is not None


def apply(cluster: Cluster, mesh: MeshConfig, pool: ConnectionPoolSettings | None, budget: RetryBudgetSettings | None = None) -> None:
    """Limits (none where nothing is said), time-outs, keep-alives. A number of 0 says nothing."""
    limits = Thresholds(max_connections=UNLIMITED, max_pending_requests=UNLIMITED, max_requests=UNLIMITED, max_retries=UNLIMITED)
    cluster.circuit_breakers = CircuitBreakers([limits])
    cluster.connect_timeout = duration(seconds(mesh.connect_timeout))
    if budget is not None:
        percent = budget.percent
        value = percent if isinstance(percent, (int, float)) else percent.value if percent else 20.0
        limits.retry_budget = RetryBudget(Percent(value or 0), budget.min_retry_concurrency or 3, span(budget.budget_interval))
    _keep_alive(cluster, mesh, pool)
    if pool is None:
        return
    http, tcp = pool.http, pool.tcp
    if tcp is not None:
        cluster.connect_timeout = span(tcp.connect_timeout) or cluster.connect_timeout
        limits.max_connections = tcp.max_connections or UNLIMITED
    if http is not None:
        limits.max_requests = http.http2_max_requests or UNLIMITED
        limits.max_pending_requests = http.http1_max_pending_requests or UNLIMITED
        limits.max_retries = http.max_retries or UNLIMITED
    _lifetimes(cluster, pool)
    if http is not None and http.use_client_protocol:
        follow_clients(cluster)


def _lifetimes(cluster: Cluster, pool: ConnectionPoolSettings) -> None:
    """How long a connection lives, how many requests it carries, and what HTTP/2 adds to that."""
    http, tcp = pool.http, pool.tcp
    idle = http.idle_timeout if http and http.idle_timeout else tcp.idle_timeout if tcp else None
    longest = tcp.max_connection_duration if tcp else None
    requests = http.max_requests_per_connection if http else 0
    streams = http.max_concurrent_streams if http else 0
    keep_alive = http.http2_keep_alive if http else None
    if not (idle or longest or requests or streams or keep_alive):
        return
    common = options(cluster).common_http_protocol_options or CommonHttpProtocolOptions()
    options(cluster).common_http_protocol_options = common
    common.idle_timeout = span(idle) or common.idle_timeout
    common.max_connection_duration = span(longest)
    common.max_requests_per_connection = requests or None
    if speaks_http2(cluster):
        explicit = options(cluster).explicit_http_config
        assert explicit is not None and explicit.http2_protocol_options is not None
        explicit.http2_protocol_options.max_concurrent_streams = streams or None
        if keep_alive:
            explicit.http2_protocol_options.connection_keepalive = Http2KeepAlive(span(keep_alive.interval), span(keep_alive.timeout))


def _keep_alive(cluster: Cluster, mesh: MeshConfig, pool: ConnectionPoolSettings | None) -> None:
    """The mesh's, and value by value over it the rule's; whole seconds."""
    for settings in (mesh.tcp_keepalive, pool.tcp.tcp_keepalive if pool and pool.tcp else None):
        if settings is None:
            continue
        made = cluster.upstream_connection_options or UpstreamConnectionOptions(TcpKeepalive())
        cluster.upstream_connection_options = made
        assert made.tcp_keepalive is not None
        made.tcp_keepalive.keepalive_probes = settings.probes or made.tcp_keepalive.keepalive_probes
        if settings.time:
            made.tcp_keepalive.keepalive_time = int(seconds(settings.time))
        if settings.interval:
            made.tcp_keepalive.keepalive_interval = int(seconds(settings.interval))


def complete(cluster: Cluster) -> None:
    """Envoy wants a protocol named wherever there are HTTP options at all: HTTP/1.1, where nothing else was said."""
    made = cluster.typed_extension_protocol_options.get(HTTP_PROTOCOL_OPTIONS)
    if made is not None and made.explicit_http_config is None and made.use_downstream_protocol_config is None:
        made.explicit_http_config = ExplicitHttpConfig(http_protocol_options=Http1ProtocolOptions())


def span(text: str | None) -> str | None:
    """A duration as xds writes it."""
    return duration(seconds(text)) if text else None

"""The TCP proxy network filter."""

from __future__ import annotations

from meshsim.xds.access_log import AccessLog
from meshsim.xds.message import TYPE, Empty, HeaderValueOption, Message, TypedMessage


class TcpClusterWeight(Message):
    name: str
    weight: int = 0


class TcpWeightedClusters(Message):
    clusters: list[TcpClusterWeight] = []


class TunnelingConfig(Message):
    hostname: str
    use_post: bool = False
    headers_to_add: list[HeaderValueOption] = []


class TcpHashPolicy(Message):
    source_ip: Empty | None = None


class TcpProxy(TypedMessage, tag=TYPE + "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"):
    stat_prefix: str = ""
    cluster: str | None = None
    weighted_clusters: TcpWeightedClusters | None = None
    idle_timeout: str | None = None
    max_downstream_connection_duration: str | None = None
    max_connect_attempts: int | None = None
    hash_policy: list[TcpHashPolicy] = []
    tunneling_config: TunnelingConfig | None = None
    access_log: list[AccessLog] = []

"""The network filters of a chain that relays bytes: authorization, protocol sniffers, and the TCP proxy at the end.

Timeouts, source-address hashing and tunnelling come from the DestinationRule of the first destination. They are settings
of the listener, so only its top-level policy counts (Istio), except that a tunnel or hash may stand on the subset.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from meshsim.control.destination_rules import Merged
from meshsim.control.protocols import Protocol
from meshsim.resources import message
from meshsim.resources.destination_rule import TrafficPolicy
from meshsim.xds.access_log import AccessLog
from meshsim.xds.listener import MongoProxy, NetworkFilter
from meshsim.xds.message import Empty, duration
from meshsim.xds.tcp_proxy import TcpClusterWeight, TcpHashPolicy, TcpProxy, TcpWeightedClusters, TunnelingConfig

TCP_PROXY = "envoy.filters.network.tcp_proxy"
MONGO_PROXY = "envoy.filters.network.mongo_proxy"


@dataclass(frozen=True, slots=True)
class Weighted:
    """One cluster, or several with weights. `stat_prefix` is the cluster's name or `<VirtualService>.<namespace>`."""

    clusters: list[tuple[str, int]]
    stat_prefix: str
    subset: str = ""
    split: bool = False


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a proxy adds to every byte stream it relays in one direction."""

    access_log: list[AccessLog] = field(default_factory=list)
    authorization: list[NetworkFilter] = field(default_factory=list)


def relay(
    to: Weighted,
    protocol: Protocol,
    rule: Merged | None,
    around: Surroundings,
    before: list[NetworkFilter] | None = None,
    tunnel: bool = True,
) -> list[NetworkFilter]:
    """The filters of a chain that ends in `to`. `rule` is the first destination's; `before` stands right before the end."""
    proxy = TcpProxy(
        stat_prefix=to.stat_prefix,
        cluster=None if to.split else to.clusters[0][0],
        weighted_clusters=TcpWeightedClusters([TcpClusterWeight(name, weight) for name, weight in to.clusters]) if to.split else None,
        hash_policy=[TcpHashPolicy(Empty())] if _hashes_source(rule, to.subset) else [],
        tunneling_config=_tunnel(rule, to.subset) if tunnel else None,
        access_log=list(around.access_log),
    )
    tcp = _tcp_pool(rule)
    if tcp is not None:
        proxy.idle_timeout, proxy.max_downstream_connection_duration = tcp
    mongo = [NetworkFilter(MONGO_PROXY, MongoProxy(to.stat_prefix))] if protocol is Protocol.MONGO else []
    return [*around.authorization, *(before or []), *mongo, NetworkFilter(TCP_PROXY, proxy)]


def _tcp_pool(rule: Merged | None) -> tuple[str | None, str | None] | None:
    policy = rule.policy if rule else None
    tcp = policy.connection_pool.tcp if policy and policy.connection_pool else None
    return (_duration(tcp.idle_timeout), _duration(tcp.max_connection_duration)) if tcp else None


def _duration(text: str | None) -> str | None:
    return None if text is None else duration(message.seconds(text))


def _subset_policy(rule: Merged | None, subset: str) -> TrafficPolicy | None:
    found = rule.subset(subset) if rule and subset else None
    return found.traffic_policy if found else None


def _hashes_source(rule: Merged | None, subset: str) -> bool:
    """A load balancer on the subset, of any kind, replaces the rule's."""
    for policy in (_subset_policy(rule, subset), rule.policy if rule else None):
        if policy and policy.load_balancer:
            return bool(policy.load_balancer.consistent_hash and policy.load_balancer.consistent_hash.use_source_ip)
    return False


def _tunnel(rule: Merged | None, subset: str) -> TunnelingConfig | None:
    """With a subset only the subset's own tunnel counts."""
    policy = _subset_policy(rule, subset) if subset else (rule.policy if rule else None)
    tunnel = policy.tunnel if policy else None
    if tunnel is None:
        return None
    host = f"[{tunnel.target_host}]" if ":" in tunnel.target_host else tunnel.target_host
    return TunnelingConfig(f"{host}:{tunnel.target_port}", use_post=tunnel.protocol == "POST")

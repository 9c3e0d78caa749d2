"""Load balancers: which host of a cluster gets the next request."""

from __future__ import annotations

from meshsim.control.destination_rules import Policy
from meshsim.control.endpoints import locality_setting
from meshsim.control.services import Endpoint
from meshsim.control.view import View
from meshsim.resources.destination_rule import ConsistentHash, LoadBalancerSettings
from meshsim.resources.message import seconds
from meshsim.xds.cluster import (
    Cluster,
    CommonLbConfig,
    LeastRequestLbConfig,
    LocalityWeightedLbConfig,
    MaglevLbConfig,
    RingHashLbConfig,
    RoundRobinLbConfig,
    SlowStartConfig,
)
from meshsim.xds.endpoint import ClusterLoadAssignment
from meshsim.xds.message import Percent, RuntimeDouble, duration

RING_MINIMUM = 1024
_SIMPLE = {"ROUND_ROBIN": "ROUND_ROBIN", "RANDOM": "RANDOM"}


def apply_load_balancer(view: View, cluster: Cluster, assignment: ClusterLoadAssignment | None, policy: Policy, endpoints: list[Endpoint]) -> None:
    """Sets the cluster's policy; ORIGINAL_DST and the dynamic forward proxy bring their own."""
    settings = policy.load_balancer
    if cluster.lb_policy == "CLUSTER_PROVIDED":
        return
    cluster.lb_policy = _SIMPLE.get(settings.simple or "", "LEAST_REQUEST") if settings else "LEAST_REQUEST"
    if settings is None:
        return
    _warm_up(cluster, settings)
    if settings.consistent_hash is not None:
        _hash(cluster, settings.consistent_hash)
    _prioritise(view, cluster, assignment or cluster.load_assignment, policy, endpoints)


def _warm_up(cluster: Cluster, settings: LoadBalancerSettings) -> None:
    window = settings.warmup.duration if settings.warmup else settings.warmup_duration_secs
    if not window:
        return
    warm = settings.warmup
    aggression = warm.aggression if warm and warm.aggression is not None else 1.0
    least = warm.minimum_percent if warm and warm.minimum_percent is not None else 10.0
    slow = SlowStartConfig(duration(seconds(window)), RuntimeDouble(aggression, "("), Percent(least))
    if cluster.lb_policy == "ROUND_ROBIN":
        cluster.round_robin_lb_config = RoundRobinLbConfig(slow)
    elif cluster.lb_policy == "LEAST_REQUEST":
        cluster.least_request_lb_config = LeastRequestLbConfig(slow_start_config=slow)


def _hash(cluster: Cluster, settings: ConsistentHash) -> None:
    if settings.maglev is not None:
        cluster.lb_policy = "MAGLEV"
        size = settings.maglev.table_size
        cluster.maglev_lb_config = MaglevLbConfig(str(size)) if size else None
        return
    cluster.lb_policy = "RING_HASH"
    size = settings.ring_hash.minimum_ring_size if settings.ring_hash else settings.minimum_ring_size
    cluster.ring_hash_lb_config = RingHashLbConfig(str(size or RING_MINIMUM))


def _prioritise(view: View, cluster: Cluster, assignment: ClusterLoadAssignment | None, policy: Policy, endpoints: list[Endpoint]) -> None:
    """`failoverPriority`: endpoints that share more of the proxy's labels, taken in order, come first. Needs outlier detection."""
    setting = locality_setting(view, policy)
    if setting is None or assignment is None or policy.outlier_detection is None or not setting.failover_priority:
        return
    ranks: dict[int, int] = {}
    for index, endpoint in enumerate(endpoints):
        ranks[index] = _rank(setting.failover_priority, view, endpoint)
    order = {rank: i for i, rank in enumerate(sorted(set(ranks.values())))}
    by_address = {(e.address, e.port): order[ranks[i]] for i, e in enumerate(endpoints)}
    localities = []
    for locality in assignment.endpoints:
        split: dict[int, list] = {}  # type: ignore[type-arg]
        for member in locality.lb_endpoints:
            where = member.endpoint.address.socket_address
            split.setdefault(by_address.get((where.address, where.port_value), 0) if where else 0, []).append(member)
        for priority, members in sorted(split.items()):
            weight = sum(m.load_balancing_weight or 1 for m in members)
            localities.append(type(locality)(locality.locality, members, weight, priority))
    assignment.endpoints = sorted(localities, key=lambda x: x.priority)
    cluster.common_lb_config = cluster.common_lb_config or CommonLbConfig()
    cluster.common_lb_config.locality_weighted_lb_config = LocalityWeightedLbConfig()


def _rank(labels: list[str], view: View, endpoint: Endpoint) -> int:
    """How many labels remain from the first that differs; 0 is the closest."""
    for index, entry in enumerate(labels):
        key, equals, wanted = entry.partition("=")
        mine = wanted if equals else view.proxy.labels.get(key, "")
        if endpoint.labels.get(key, "") != mine:
            return len(labels) - index
    return 0

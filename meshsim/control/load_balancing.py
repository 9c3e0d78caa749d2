"""Load balancers: which host of a cluster gets the next request."""

from __future__ import annotations

import math

from meshsim.control.destination_rules import Policy
from meshsim.control.endpoints import locality_setting, split_locality
from meshsim.control.services import Endpoint
from meshsim.control.view import View
from meshsim.resources.destination_rule import ConsistentHash, LoadBalancerSettings, LocalityDistribute, LocalityFailover
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
from meshsim.xds.endpoint import ClusterLoadAssignment, LbEndpoint, Locality, LocalityLbEndpoints
from meshsim.xds.message import Percent, RuntimeDouble, duration

RING_MINIMUM = 1024
LOCALITY_LABEL = "istio-locality"  # region.zone.sub-zone of a pod
_SIMPLE = {"ROUND_ROBIN": "ROUND_ROBIN", "RANDOM": "RANDOM"}


def apply_load_balancer(
    view: View, cluster: Cluster, assignment: ClusterLoadAssignment | None, policy: Policy, endpoints: list[Endpoint]
) -> None:
    """Sets the cluster's policy; ORIGINAL_DST and the dynamic forward proxy bring their own."""
    settings = policy.load_balancer
    if cluster.lb_policy == "CLUSTER_PROVIDED":
        return
    cluster.lb_policy = _SIMPLE.get(settings.simple or "", "LEAST_REQUEST") if settings else "LEAST_REQUEST"
    if settings is not None:
        _warm_up(cluster, settings)
        if settings.consistent_hash is not None:
            _hash(cluster, settings.consistent_hash)
    _localities(view, cluster, assignment or cluster.load_assignment, policy, endpoints)


def _warm_up(cluster: Cluster, settings: LoadBalancerSettings) -> None:
    window = settings.warmup.duration if settings.warmup else settings.warmup_duration_secs
    if not window:
        return
    warm = settings.warmup
    slow = SlowStartConfig(duration(seconds(window)))
    if warm is not None:  # the older field has a duration alone
        slow.aggression = RuntimeDouble(warm.aggression if warm.aggression is not None else 1.0, "(")
        slow.min_weight_percent = Percent(warm.minimum_percent if warm.minimum_percent is not None else 10.0)
    if cluster.lb_policy == "ROUND_ROBIN":
        cluster.round_robin_lb_config = RoundRobinLbConfig(slow)
    elif cluster.lb_policy == "LEAST_REQUEST":
        cluster.least_request_lb_config = LeastRequestLbConfig(slow_start_config=slow)


def _hash(cluster: Cluster, settings: ConsistentHash) -> None:
    """A size that is not given leaves what a warm-up has configured, as istiod does; the older field for it has a default."""
    if settings.maglev is not None:
        cluster.lb_policy = "MAGLEV"
        if settings.maglev.table_size:
            cluster.least_request_lb_config = None
            cluster.maglev_lb_config = MaglevLbConfig(str(settings.maglev.table_size))
        return
    cluster.lb_policy = "RING_HASH"
    size = settings.ring_hash.minimum_ring_size if settings.ring_hash else settings.minimum_ring_size or RING_MINIMUM
    if size:
        cluster.least_request_lb_config = None
        cluster.ring_hash_lb_config = RingHashLbConfig(str(size))


def _localities(view: View, cluster: Cluster, assignment: ClusterLoadAssignment | None, policy: Policy, endpoints: list[Endpoint]) -> None:
    """`localityLbSetting`: weights by the client's locality, or priorities that health can fall through (which needs outlier detection)."""
    setting = locality_setting(view, policy)
    if setting is None:
        return
    cluster.common_lb_config = cluster.common_lb_config or CommonLbConfig()
    cluster.common_lb_config.locality_weighted_lb_config = LocalityWeightedLbConfig()
    if assignment is None:
        return
    own = split_locality(view.proxy.labels.get(LOCALITY_LABEL, "").replace(".", "/"))
    if setting.distribute:
        _distribute(assignment, own, setting.distribute)
    elif policy.outlier_detection is not None:
        if setting.failover_priority:
            _by_labels(view, assignment, setting.failover_priority, endpoints)
        if setting.failover or not setting.failover_priority:
            _by_distance(assignment, own, setting.failover)


def _distribute(assignment: ClusterLoadAssignment, own: Locality, rules: list[LocalityDistribute]) -> None:
    """The first rule for the client's locality: each destination's share is divided by what its groups weigh; the rest gets nothing."""
    rule = next((r for r in rules if _fits(own, r.from_)), None)
    if rule is None:
        return
    left = set(range(len(assignment.endpoints)))
    for pattern, share in rule.to.items():
        chosen = [i for i in sorted(left) if _fits(assignment.endpoints[i].locality or Locality(), pattern)]
        total = sum(assignment.endpoints[i].load_balancing_weight or 1 for i in chosen)
        for i in chosen:
            left.discard(i)
            weight = (assignment.endpoints[i].load_balancing_weight or 1) * share / total
            if weight > 0:
                assignment.endpoints[i].load_balancing_weight = math.ceil(weight)
    for i in left:
        assignment.endpoints[i].lb_endpoints = []


def _by_distance(assignment: ClusterLoadAssignment, own: Locality, failover: list[LocalityFailover]) -> None:
    """Same sub-zone, same zone, same region, then the region named for failover, then the others; numbered without gaps."""
    ranks = []
    for group in assignment.endpoints:
        there = group.locality or Locality()
        rank = 0 if there == own else 1 if (there.region, there.zone) == (own.region, own.zone) else 2 if there.region == own.region else 3
        rule = next((f for f in failover if f.from_ == own.region), None)
        if rank == 3 and rule is not None and rule.to != there.region:
            rank = 4
        ranks.append(group.priority * 5 + rank)
    order = {rank: i for i, rank in enumerate(sorted(set(ranks)))}
    for group, rank in zip(assignment.endpoints, ranks, strict=True):
        group.priority = order[rank]


def _by_labels(view: View, assignment: ClusterLoadAssignment, labels: list[str], endpoints: list[Endpoint]) -> None:
    """Endpoints that share more of the proxy's labels, taken in order, come first; a locality is split where its members differ."""
    ranks = {(e.address, e.port): _rank(labels, view, e) for e in endpoints}
    order = {rank: i for i, rank in enumerate(sorted(set(ranks.values())))}
    groups = []
    for locality in assignment.endpoints:
        split: dict[int, list[LbEndpoint]] = {}
        for member in locality.lb_endpoints:
            where = member.endpoint.address.socket_address
            rank = ranks.get((where.address, where.port_value), 0) if where else 0
            split.setdefault(order[rank], []).append(member)
        for priority, members in sorted(split.items()):
            weight = sum(m.load_balancing_weight or 1 for m in members)
            groups.append(LocalityLbEndpoints(locality.locality, members, weight, priority))
    assignment.endpoints = sorted(groups, key=lambda g: g.priority)


def _rank(labels: list[str], view: View, endpoint: Endpoint) -> int:
    """How many labels remain from the first that differs; 0 is the closest."""
    for index, entry in enumerate(labels):
        key, equals, wanted = entry.partition("=")
        mine = wanted if equals else view.proxy.labels.get(key, "")
        if endpoint.labels.get(key, "") != mine:
            return len(labels) - index
    return 0


def _fits(locality: Locality, pattern: str) -> bool:
    """`region/zone/sub-zone` with `*` for anything from there on."""
    wanted = split_locality(pattern)
    for mine, theirs in ((locality.region, wanted.region), (locality.zone, wanted.zone), (locality.sub_zone, wanted.sub_zone)):
        if theirs in ("*", ""):
            return theirs == "*" or mine == "" or pattern.count("/") < 2
        if mine != theirs:
            return False
    return True

"""Load balancers: which host of a cluster gets the next request."""

from __future__ import annotations

import math

from meshsim.control.destination_rules import Policy
from meshsim.control.endpoints import located, split_locality
from meshsim.control.services import Endpoint, Service
from meshsim.control.view import View
from meshsim.resources.destination_rule import (
    ConsistentHash,
    LoadBalancerSettings,
    LocalityDistribute,
    LocalityFailover,
    LocalityLbSetting,
    ZoneAwareLbSetting,
)
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
    ZoneAwareLbConfig,
)
from meshsim.xds.endpoint import ClusterLoadAssignment, LbEndpoint, Locality, LocalityLbEndpoints
from meshsim.xds.message import Percent, RuntimeDouble, duration

RING_MINIMUM = 1024
NETWORK = "topology.istio.io/network"
LOCALITY_LABEL = "istio-locality"  # region.zone.sub-zone of a pod
_SIMPLE = {"ROUND_ROBIN": "ROUND_ROBIN", "RANDOM": "RANDOM"}


def apply_load_balancer(
    view: View, service: Service, cluster: Cluster, assignment: ClusterLoadAssignment | None, policy: Policy, endpoints: list[Endpoint]
) -> None:
    """Sets the cluster's policy, and what it says of localities; the dynamic forward proxy brings its own, and ORIGINAL_DST its policy."""
    if not cluster.type:
        return
    settings = policy.load_balancer
    if cluster.lb_policy != "CLUSTER_PROVIDED":
        cluster.lb_policy = _SIMPLE.get(settings.simple or "", "LEAST_REQUEST") if settings else "LEAST_REQUEST"
        if settings is not None:
            _warm_up(cluster, settings)
            if settings.consistent_hash is not None:
                _hash(cluster, settings.consistent_hash)
    placement = _placement(view, service, policy)
    if isinstance(placement, ZoneAwareLbSetting):
        _zones(view, cluster, assignment or cluster.load_assignment, placement, endpoints)
    elif placement is not None:
        fails_over = policy.outlier_detection is not None or placement.failover_priority == list(service.distribution) != []
        _localities(view, cluster, assignment or cluster.load_assignment, placement, fails_over, endpoints)


def _warm_up(cluster: Cluster, settings: LoadBalancerSettings) -> None:
    window = settings.warmup.duration if settings.warmup else settings.warmup_duration_secs
    if not window:
        return
    warm = settings.warmup
    slow = SlowStartConfig(duration(seconds(window)))
    if warm is not None:  # the older field has a duration alone
        slow.aggression = RuntimeDouble(warm.aggression if warm.aggression is not None else 1.0, "(")
        slow.min_weight_percent = Percent(10.0 if warm.minimum_percent is None else warm.minimum_percent or 0)  # 0 is not written
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


def _placement(view: View, service: Service, policy: Policy) -> LocalityLbSetting | ZoneAwareLbSetting | None:
    """What says how localities count: the DestinationRule, the service's traffic distribution, the mesh, which fails over by default."""
    own = policy.load_balancer
    if own is not None and own.zone_aware_lb_setting is not None:
        return own.zone_aware_lb_setting
    setting = own.locality_lb_setting if own else None
    if setting is None and service.distribution:
        return LocalityLbSetting(failover_priority=list(service.distribution))
    setting = setting or view.mesh.locality_lb_setting or LocalityLbSetting()
    return None if setting.enabled is False else setting


def _localities(
    view: View,
    cluster: Cluster,
    assignment: ClusterLoadAssignment | None,
    setting: LocalityLbSetting,
    fails_over: bool,
    endpoints: list[Endpoint],
) -> None:
    """`localityLbSetting`: weights by the client's locality, or priorities that health can fall through (which needs outlier detection)."""
    if setting.distribute or (fails_over and (setting.failover or setting.failover_priority)):
        cluster.common_lb_config = cluster.common_lb_config or CommonLbConfig()
        cluster.common_lb_config.locality_weighted_lb_config = LocalityWeightedLbConfig()
    if assignment is None:
        return
    if setting.distribute:
        _distribute(assignment, _own(view), setting.distribute)
    elif fails_over:
        if setting.failover_priority:
            _by_labels(view, assignment, setting.failover_priority, endpoints)
        if setting.failover or not setting.failover_priority:
            _by_distance(assignment, _own(view), setting.failover)


def _zones(
    view: View, cluster: Cluster, assignment: ClusterLoadAssignment | None, setting: ZoneAwareLbSetting, endpoints: list[Endpoint]
) -> None:
    """`zoneAwareLbSetting`: Envoy balances the zones of the client's region, the other regions come after it."""
    cluster.common_lb_config = cluster.common_lb_config or CommonLbConfig()
    size = str(setting.min_cluster_size) if setting.min_cluster_size else None
    off = Percent() if setting.enabled is False else None
    cluster.common_lb_config.zone_aware_lb_config = ZoneAwareLbConfig(off, size)
    if off is not None or assignment is None:
        return
    if setting.failover_priority:
        _by_labels(view, assignment, setting.failover_priority, endpoints)
    own = _own(view).region
    to = next((f.to for f in setting.failover if f.from_ == own), None)
    regions = [(group.locality or Locality()).region for group in assignment.endpoints]
    _rank_groups(assignment, [0 if region == own else 1 if region == to else 2 for region in regions])


def _own(view: View) -> Locality:
    return split_locality(view.proxy.labels.get(LOCALITY_LABEL, "").replace(".", "/"))


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
        ranks.append(rank)
    _rank_groups(assignment, ranks)


def _rank_groups(assignment: ClusterLoadAssignment, ranks: list[int]) -> None:
    """Priorities from ranks of 0 to 4, under those the groups have already, numbered without gaps."""
    full = [group.priority * 5 + rank for group, rank in zip(assignment.endpoints, ranks, strict=True)]
    order = {rank: i for i, rank in enumerate(sorted(set(full)))}
    for group, rank in zip(assignment.endpoints, full, strict=True):
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
    """How many labels remain from the first that differs; 0 is the closest. Another network only puts everything else behind."""
    away = 0
    theirs = located(endpoint.labels, endpoint.locality)
    own = located(view.proxy.labels, view.proxy.labels.get(LOCALITY_LABEL, "").replace(".", "/"))
    for index, entry in enumerate(labels):
        key, equals, wanted = entry.partition("=")
        mine = wanted if equals else own.get(key, "")
        if theirs.get(key, "") != mine:
            if index == 0 and entry == NETWORK:
                away = len(labels)
                continue
            return len(labels) - index + away
    return away


def _fits(locality: Locality, pattern: str) -> bool:
    """`region/zone/sub-zone` with `*` for anything from there on."""
    wanted = split_locality(pattern)
    return (
        wanted.region in ("*", locality.region)
        and wanted.zone in ("*", "", locality.zone)
        and wanted.sub_zone in ("*", "", locality.sub_zone)
    )

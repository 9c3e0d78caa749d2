"""Clusters: which hosts there are, which of them may be used, and which one is next.

How this works: a `Cluster` keeps what the configuration says and what happened to its hosts. Static and EDS hosts come with the
configuration, DNS hosts from `resolved`, original-destination hosts from each connection. `pick` narrows in Envoy's order: priority
(by health), locality (by weight, where asked), then the load balancer. What requests report (`Host.active`, `Cluster.report`) feeds
the next pick.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any as Json

from meshsim.routing import hashing
from meshsim.routing.facts import Endpoint
from meshsim.routing.transport import Transport
from meshsim.xds import Cluster as Config
from meshsim.xds.cluster import HttpProtocolOptions, Thresholds
from meshsim.xds.endpoint import ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints
from meshsim.xds.message import seconds
from meshsim.xds.tls import TransportSocket

DNS_TYPES = ("STRICT_DNS", "LOGICAL_DNS")
ORIGINAL_DST, DYNAMIC = "ORIGINAL_DST", "DYNAMIC"
_UNUSABLE = ("UNHEALTHY", "DRAINING", "TIMEOUT")
_MATCH_KEY = "envoy.transport_socket_match"
_OVERPROVISIONING = 140  # percent
_DEFAULT_PANIC = 50.0  # percent of hosts that must be usable
_DEFAULT_LIMIT = 1024
_DEFAULT_RETRIES = 3
_DEFAULT_RETRY_SHARE = 20.0  # percent
_MAX_EJECTION_TIME = 300.0  # seconds


@dataclass(slots=True, eq=False)
class Host:
    """One place a cluster can send to; `name`: as logs name it.

    active: requests or connections under way. ejected_until: clock time, 0 for never. way: how to talk to it, once that was asked;
    way_to: the same for the authority asked for last, over HTTP/2 or not.
    """

    address: Endpoint
    hostname: str = ""
    weight: int = 1
    priority: int = 0
    locality: int = 0
    health: str = "UNKNOWN"
    metadata: Mapping[str, Json] = field(default_factory=dict)
    active: int = 0
    failures: int = 0
    gateway_failures: int = 0
    ejections: int = 0
    ejected_until: float = 0.0
    way: Transport | None = None
    way_to: tuple[str, bool, Transport] | None = None
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = str(self.address)


@dataclass(slots=True)
class Limits:
    """Circuit breakers of a cluster, and how much of each is in use.

    retry_share: where retries have a budget, how many percent of the requests under way may be retries, but never fewer than max_retries.
    """

    max_connections: int = _DEFAULT_LIMIT
    max_pending: int = _DEFAULT_LIMIT
    max_requests: int = _DEFAULT_LIMIT
    max_retries: int = _DEFAULT_RETRIES
    retry_share: float | None = None
    connections: int = 0
    pending: int = 0
    requests: int = 0
    retries: int = 0

    @property
    def most_retries(self) -> int:
        """How many retries there may be at this moment."""
        if self.retry_share is None:
            return self.max_retries
        return max(int(self.retry_share / 100 * (self.requests + self.pending)), self.max_retries)


def stat_name(name: str, alternative: str) -> str:
    """A cluster's name in statistics. Istio ends alternative names with a semicolon, to find their end again; people search without it."""
    return (alternative or name).removesuffix(";")


class Cluster:
    """A cluster at work. `rng` makes its choices, `clock` dates its ejections."""

    def __init__(self, config: Config, assignment: ClusterLoadAssignment | None, rng: random.Random, clock: Callable[[], float]):
        self.config, self.name, self._rng, self._clock = config, config.name, rng, clock
        self.stat_name = stat_name(config.name, config.alt_stat_name)
        self.type = DYNAMIC if config.cluster_type is not None else config.type or "STATIC"
        self.hosts: list[Host] = []
        self.options = next(iter(config.typed_extension_protocol_options.values()), None)
        explicit = self.options.explicit_http_config if self.options else None
        http2 = explicit.http2_protocol_options if explicit else None
        self.most_streams = (http2.max_concurrent_streams if http2 else None) or 0
        """Requests at the same time on one HTTP/2 connection, 0 for Envoy's default."""
        self.balances_by_hash = config.lb_policy in ("RING_HASH", "MAGLEV")
        self.connect_timeout = seconds(config.connect_timeout, 5.0)
        self.limits = _limits(config)
        self._errors = _error_codes(self.options)
        self._assignment = assignment if config.eds_cluster_config is not None else config.load_assignment
        self._originals: dict[Endpoint, Host] = {}
        self._balancers: dict[tuple[int, int], _Balancer] = {}
        self._addresses: dict[str, list[str]] = {}
        said = config.metadata.filter_metadata.get("meshsim", {}) if config.metadata else {}
        self.loop: str = said.get("loop", "") if self.type == ORIGINAL_DST else ""
        """Why connecting to an original destination would come back to this proxy; empty where it would not."""
        self._rebuild()

    # hosts

    @property
    def dns_names(self) -> list[str]:
        """The names whose addresses this cluster's hosts are, each once."""
        if self.type not in DNS_TYPES:
            return []
        return list(dict.fromkeys(_address(e).host for _, _, e in self._endpoints()))

    def resolved(self, name: str, addresses: Sequence[str]) -> None:
        """What a name of `dns_names` resolves to now. STRICT_DNS loses the hosts of a name that is gone, LOGICAL_DNS keeps them."""
        if self.type == "LOGICAL_DNS" and not addresses:
            return
        addresses = addresses[:1] if self.type == "LOGICAL_DNS" else addresses
        if self._addresses.get(name) != list(addresses):
            self._addresses[name] = list(addresses)
            self._rebuild()

    def assign(self, assignment: ClusterLoadAssignment) -> None:
        """The endpoints EDS says now."""
        if assignment != self._assignment:
            self._assignment = assignment
            self._rebuild()

    def _endpoints(self) -> Iterable[tuple[int, LocalityLbEndpoints, LbEndpoint]]:
        for number, group in enumerate(self._assignment.endpoints if self._assignment else ()):
            for endpoint in group.lb_endpoints:
                yield number, group, endpoint

    def _rebuild(self) -> None:
        known = {(h.address, h.locality): h for h in self.hosts}
        hosts: dict[tuple[Endpoint, int], Host] = {}
        for number, group, endpoint in self._endpoints():
            place = _address(endpoint)
            addresses = self._addresses.get(place.host, []) if self.type in DNS_TYPES else [place.host]
            for text in addresses:
                key = (Endpoint(text, place.port), number)
                host = known.get(key) or Host(key[0])
                host.hostname = endpoint.endpoint.hostname or (place.host if self.type in DNS_TYPES else "")
                host.weight = endpoint.load_balancing_weight or 1
                host.priority, host.locality, host.health = group.priority, number, endpoint.health_status
                host.metadata = (endpoint.metadata.filter_metadata if endpoint.metadata else {}).get(_MATCH_KEY, {})
                host.way = host.way_to = None
                hosts.setdefault(key, host)
        self.hosts = list(hosts.values())
        self._balancers.clear()

    # choice

    def pick(
        self, *, key: int | None = None, destination: Endpoint | None = None, avoid: Collection[Host] = (), tries: int = 1
    ) -> Host | None:
        """The host for the next request, or None.

        key: the hash of the request, if a policy gave one. destination: of the redirected connection. avoid: hosts already tried,
        passed over for up to `tries` picks.
        """
        if self.type == ORIGINAL_DST:
            return self._original(destination)
        host = self._pick(key, 0)
        if not avoid:
            return host
        avoided = set(map(id, avoid))
        before = 1
        while host is not None and id(host) in avoided and before < tries:
            host = self._pick(key, before)
            before += 1
        return host

    def dynamic_host(self, name: str, port: int, address: str) -> Host:
        """The host of a cluster that resolves what requests ask for."""
        key = Endpoint(address, port)
        return self._originals.setdefault(key, Host(key, name))

    def _original(self, destination: Endpoint | None) -> Host | None:
        if destination is None:
            return None
        override = self.config.original_dst_lb_config.upstream_port_override if self.config.original_dst_lb_config else None
        place = Endpoint(destination.host, override or destination.port)
        return self._originals.setdefault(place, Host(place))

    def _pick(self, key: int | None, before: int) -> Host | None:
        hosts = self._available(key)
        if not hosts:
            return None
        if len(hosts) == 1:
            return hosts[0]
        group = (hosts[0].priority, hosts[0].locality if self._weighs_localities else -1)
        balancer = self._balancers.get(group)
        if balancer is None or balancer.hosts != hosts:
            balancer = self._balancers[group] = _Balancer(self.config, hosts, self._rng)
        return balancer.next(key, before)

    @property
    def _weighs_localities(self) -> bool:
        return self.config.common_lb_config is not None and self.config.common_lb_config.locality_weighted_lb_config is not None

    def _available(self, key: int | None) -> list[Host]:
        """The hosts among which the balancer chooses: of one priority, and of one locality where those have weights."""
        if not self.hosts:
            return []
        if len(self.hosts) == 1 and self.usable(self.hosts[0]) and not self._weighs_localities:
            return self.hosts
        chosen = self._priority(key)
        level = [h for h in self.hosts if h.priority == chosen]
        usable = [h for h in level if self.usable(h)]
        if len(usable) * 100 < len(level) * self._panic_threshold or (not usable and self._panic_threshold):
            usable = level
        if self._weighs_localities and usable and self._assignment is not None:
            groups = self._assignment.endpoints
            weights = {h.locality: groups[h.locality].load_balancing_weight or 0 for h in usable}
            order = sorted(g for g, w in weights.items() if w)
            if not order:
                return []
            locality = self._rng.choices(order, [weights[g] for g in order])[0] if len(order) > 1 else order[0]
            usable = [h for h in usable if h.locality == locality]
        return usable

    def _priority(self, key: int | None) -> int:
        """The priority level for the next request: lower ones take over as much as the higher ones lack of health."""
        levels = sorted({h.priority for h in self.hosts})
        if len(levels) == 1:
            return levels[0]
        health = []
        for level in levels:
            hosts = [h for h in self.hosts if h.priority == level]
            health.append(min(100, _OVERPROVISIONING * sum(map(self.usable, hosts)) // len(hosts)))
        total = min(100, sum(health))
        if not total:
            return levels[0]
        spot = (key if key is not None else self._rng.randrange(100)) % 100
        left = 100
        for level, share in zip(levels, health, strict=True):
            load = min(left, share * 100 // total)
            left -= load
            if spot < load:
                return level
            spot -= load
        return levels[-1]

    @property
    def _panic_threshold(self) -> float:
        common = self.config.common_lb_config
        if common is None or common.healthy_panic_threshold is None:
            return _DEFAULT_PANIC
        return common.healthy_panic_threshold.value

    def usable(self, host: Host) -> bool:
        """Whether the host is healthy and not ejected."""
        return host.health not in _UNUSABLE and (not host.ejected_until or host.ejected_until <= self._clock())

    # results

    def report(self, host: Host, code: int | None) -> None:
        """How a request to a host ended: its status, or None where the connection failed (which counts as a 503)."""
        detection = self.config.outlier_detection
        if detection is None:
            return
        status = 503 if code is None else code
        if self._errors and code is not None:
            status = max(code, 500) if code in self._errors else 200
        host.failures = host.failures + 1 if status >= 500 else 0
        host.gateway_failures = host.gateway_failures + 1 if status in (502, 503, 504) else 0
        if (
            host.failures >= (detection.consecutive_5xx if detection.consecutive_5xx is not None else 5) > 0
            and detection.enforcing_consecutive_5xx != 0
        ):
            host.failures = 0
            self._eject(host)
        gateway = detection.consecutive_gateway_failure
        if gateway and host.gateway_failures >= gateway and detection.enforcing_consecutive_gateway_failure:
            host.gateway_failures = 0
            self._eject(host)

    def _eject(self, host: Host) -> None:
        detection = self.config.outlier_detection
        assert detection is not None
        share = detection.max_ejection_percent if detection.max_ejection_percent is not None else 10
        ejected = sum(not self.usable(h) and h.ejected_until > 0 for h in self.hosts)
        if (ejected + 1) * 100 > share * len(self.hosts) and not (detection.always_eject_one_host and ejected == 0):
            return
        host.ejections += 1
        host.ejected_until = self._clock() + min(_MAX_EJECTION_TIME, seconds(detection.base_ejection_time, 30.0) * host.ejections)

    # transport

    def transport_socket(self, host: Host) -> TransportSocket | None:
        """How to talk to a host: the first match of its metadata, else the cluster's own, else plaintext (None)."""
        for choice in self.config.transport_socket_matches:
            if all(host.metadata.get(name) == value for name, value in (choice.match or {}).items()):
                return choice.transport_socket
        return self.config.transport_socket

    def speaks_http2(self, downstream_http2: bool) -> bool:
        """Whether requests go upstream as HTTP/2."""
        options = self.options
        if options is None:
            return False
        if options.use_downstream_protocol_config is not None:
            return downstream_http2 and options.use_downstream_protocol_config.http2_protocol_options is not None
        return options.explicit_http_config is not None and options.explicit_http_config.http2_protocol_options is not None


class _Balancer:
    """Chooses among hosts of equal standing."""

    def __init__(self, config: Config, hosts: list[Host], rng: random.Random):
        self.hosts, self._rng, self._policy = hosts, rng, config.lb_policy
        self._equal = len({h.weight for h in hosts}) == 1
        self._turn = rng.randrange(len(hosts))
        self._deadlines = [1 / h.weight for h in hosts]
        self._lookup: hashing.Lookup | None = None
        weights = [(h.name, h.weight) for h in hosts]
        if self._policy == "RING_HASH":
            ring = config.ring_hash_lb_config
            self._lookup = hashing.ring(weights, int(ring.minimum_ring_size or 1024) if ring else 1024)
        elif self._policy == "MAGLEV":
            maglev = config.maglev_lb_config
            self._lookup = hashing.maglev(weights, int(maglev.table_size or 65537) if maglev else 65537)

    def next(self, key: int | None, before: int) -> Host:
        if self._lookup is not None:
            return self.hosts[self._lookup(key if key is not None else self._rng.getrandbits(64), before)]
        if self._policy == "RANDOM":
            return self._rng.choice(self.hosts)
        if not self._equal:
            return self._earliest()
        if self._policy == "LEAST_REQUEST":
            first, second = self._rng.choice(self.hosts), self._rng.choice(self.hosts)
            return second if second.active < first.active else first
        self._turn = (self._turn + 1) % len(self.hosts)
        return self.hosts[self._turn]

    def _earliest(self) -> Host:
        """Earliest deadline first: a host of weight w is next every 1/w."""
        at = min(range(len(self.hosts)), key=lambda i: self._deadlines[i])
        host = self.hosts[at]
        weight = host.weight / (host.active + 1) if self._policy == "LEAST_REQUEST" else host.weight
        self._deadlines[at] += 1 / weight
        return host


def _address(endpoint: LbEndpoint) -> Endpoint:
    at = endpoint.endpoint.address.socket_address
    return Endpoint(at.address, at.port_value) if at else Endpoint(str(endpoint.endpoint.address), 0)


def _limits(config: Config) -> Limits:
    thresholds = config.circuit_breakers.thresholds if config.circuit_breakers else []
    given = next((t for t in thresholds if t.priority == "DEFAULT"), Thresholds())
    budget = given.retry_budget
    return Limits(
        max_connections=_or(given.max_connections, _DEFAULT_LIMIT),
        max_pending=_or(given.max_pending_requests, _DEFAULT_LIMIT),
        max_requests=_or(given.max_requests, _DEFAULT_LIMIT),
        max_retries=_or(given.max_retries if budget is None else budget.min_retry_concurrency, _DEFAULT_RETRIES),
        retry_share=None if budget is None else budget.budget_percent.value if budget.budget_percent else _DEFAULT_RETRY_SHARE,
    )


def _error_codes(options: HttpProtocolOptions | None) -> frozenset[int]:
    """The statuses that outlier detection takes for errors instead of every 5xx; none where nothing is said."""
    matcher = (options.outlier_detection.error_matcher if options and options.outlier_detection else None) or {}
    rules = matcher["or_match"]["rules"] if "or_match" in matcher else [matcher] if matcher else []
    return frozenset(int(rule["http_response_headers_match"]["headers"][0]["string_match"]["exact"]) for rule in rules)


def _or(value: int | None, default: int) -> int:
    return default if value is None else value

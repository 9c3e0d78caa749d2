"""Which virtual host and which route a request gets.

How this works: a route configuration is compiled once. Virtual hosts are found by dictionary: the exact domain, then the longest suffix
wildcard, then the longest prefix wildcard, then `*`; the number of hosts does not matter. The first route of the virtual host whose path,
headers and query all fit is taken; there is no falling through to another virtual host.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from meshsim import hosts
from meshsim.routing import matchers
from meshsim.routing.matchers import Predicate
from meshsim.routing.message import Request
from meshsim.routing.retries import RetryRules
from meshsim.xds.message import RuntimeFractionalPercent, seconds
from meshsim.xds.route import Route, RouteConfiguration, RouteMatch, VirtualHost, WeightedCluster

if TYPE_CHECKING:
    from meshsim.routing.manager import Filter, Manager

_DENOMINATORS = {"HUNDRED": 100, "TEN_THOUSAND": 10_000, "MILLION": 1_000_000}


DEFAULT_TIMEOUT = 15.0  # seconds; Envoy's where a route names none


class CompiledRoute:
    """A route and the functions that say whether a request fits it.

    retries: None where nothing is tried again. timeout: seconds, 0 for none. idle, longest: seconds that a stream may do nothing and may
    last, 0 for any; None where the connection manager decides. longest_call: seconds for a gRPC call in the place of `timeout`, 0 for as
    many as its caller says; None where it is like any other request. changes_requests, changes_responses: whether the
    route, its virtual host or its table have header operations. filters: what its requests pass at a manager, the one that asked last.
    """

    __slots__ = (
        "_path", "_rest", "changes_requests", "changes_responses", "filters", "fraction", "host", "idle", "longest", "longest_call",
        "retries", "route", "timeout",
    )  # fmt: skip

    def __init__(self, route: Route, host: CompiledHost):
        self.route, self.host = route, host
        action = route.route
        policy = (action.retry_policy if action else None) or host.config.retry_policy
        self.retries = RetryRules(policy) if policy is not None and policy.retry_on else None
        duration = action.max_stream_duration if action else None
        self.longest = seconds(duration.max_stream_duration) if duration and duration.max_stream_duration else None
        self.timeout = seconds(action.timeout if action else None, DEFAULT_TIMEOUT) if self.longest is None else 0.0  # the one or the other
        most = action.max_grpc_timeout if action and self.longest is None else None
        self.longest_call = None if most is None else seconds(most)
        self.idle = seconds(action.idle_timeout) if action and action.idle_timeout else None
        levels = (route, host.config, host.table.config)
        self.changes_requests = any(level.request_headers_to_add or level.request_headers_to_remove for level in levels)
        self.changes_responses = any(level.response_headers_to_add or level.response_headers_to_remove for level in levels)
        self.filters: tuple[Manager, list[Filter]] | None = None
        self._path = _path(route.match)
        self._rest: list[Predicate] = [matchers.header(m) for m in route.match.headers]
        self._rest += [matchers.query(m) for m in route.match.query_parameters]
        self.fraction = route.match.runtime_fraction

    def fits(self, request: Request, path: str, rng: random.Random) -> bool:
        if not self._path(request, path):
            return False
        for predicate in self._rest:
            if not predicate(request):
                return False
        return self.fraction is None or chance(self.fraction, rng)


class CompiledHost:
    """A virtual host with its routes, and the table it belongs to."""

    __slots__ = ("config", "routes", "table")

    def __init__(self, config: VirtualHost, table: RouteTable):
        self.config, self.table = config, table
        self.routes = [CompiledRoute(route, self) for route in config.routes]


class RouteTable:
    """One route configuration."""

    def __init__(self, config: RouteConfiguration):
        self.config = config
        self._exact: dict[str, CompiledHost] = {}
        self._suffixes: dict[str, CompiledHost] = {}
        self._prefixes: dict[str, CompiledHost] = {}
        self._any: CompiledHost | None = None
        for virtual_host in config.virtual_hosts:
            compiled = CompiledHost(virtual_host, self)
            for domain in virtual_host.domains:
                self._add(domain.lower(), compiled)
        self._suffix_lengths = sorted({len(s) for s in self._suffixes}, reverse=True)
        self._prefix_lengths = sorted({len(p) for p in self._prefixes}, reverse=True)

    def _add(self, domain: str, compiled: CompiledHost) -> None:
        if domain == "*":
            self._any = self._any or compiled
        elif domain.startswith("*"):
            self._suffixes.setdefault(domain[1:], compiled)
        elif domain.endswith("*"):
            self._prefixes.setdefault(domain[:-1], compiled)
        else:
            self._exact.setdefault(domain, compiled)

    def virtual_host(self, authority: str, why: list[str] | None = None) -> CompiledHost | None:
        """The virtual host for an authority; the port counts unless the configuration says otherwise."""
        host = (hosts.strip_port(authority) if self.config.ignore_port_in_host_matching else authority).lower()
        found = self._exact.get(host)
        if found is None:
            found = _longest(self._suffixes, self._suffix_lengths, host, lambda size: host[-size:])
        if found is None:
            found = _longest(self._prefixes, self._prefix_lengths, host, lambda size: host[:size])
        if found is None:
            found = self._any
        if why is not None:
            why.append(f"virtual host {found.config.name}" if found else f"no virtual host for {authority!r}")
        return found

    def route(self, request: Request, rng: random.Random, why: list[str] | None = None) -> CompiledRoute | None:
        """The route for a request, or None."""
        host = self.virtual_host(request.authority, why)
        if host is None:
            return None
        path = request.bare_path
        for route in host.routes:
            if route.fits(request, path, rng):
                return route
            if why is not None:
                why.append(f"route {route.route.name or '(unnamed)'} does not match")
        return None


def weighted(clusters: WeightedCluster, rng: random.Random) -> int:
    """The position of the leg that chance picks: an interval of `random % total` for each weight, in order."""
    total = sum(c.weight or 0 for c in clusters.clusters)
    value = rng.randrange(total) if total else 0
    for position, leg in enumerate(clusters.clusters):
        value -= leg.weight or 0
        if value < 0:
            return position
    return 0


def chance(fraction: RuntimeFractionalPercent, rng: random.Random) -> bool:
    """Whether a request is among the given share."""
    share = fraction.default_value
    denominator = _DENOMINATORS[share.denominator]
    if share.numerator >= denominator:
        return True
    return share.numerator > 0 and rng.randrange(denominator) < share.numerator


def _longest(
    table: dict[str, CompiledHost], lengths: list[int], host: str, part: Callable[[int], str]
) -> CompiledHost | None:
    for size in lengths:
        if size < len(host) and (found := table.get(part(size))) is not None:
            return found
    return None


def _path(match: RouteMatch) -> Callable[[Request, str], bool]:
    """The path condition; a CONNECT request fits a `connect_matcher` only."""
    if match.connect_matcher is not None:
        return lambda request, path: request.method == "CONNECT"
    plain = _plain_path(match)
    return lambda request, path: request.method != "CONNECT" and plain(path)


def _plain_path(match: RouteMatch) -> matchers.Text:
    if match.safe_regex is not None:
        pattern = matchers.regex(match.safe_regex.regex)
        return lambda path: pattern.fullmatch(path) is not None
    fold: Callable[[str], str] = str.lower if match.case_sensitive is False else str
    if match.path is not None:
        exact = fold(match.path)
        return lambda path: fold(path) == exact
    if match.path_separated_prefix is not None:
        separated = fold(match.path_separated_prefix)
        return lambda path: fold(path) == separated or fold(path).startswith(separated + "/")
    prefix = fold(match.prefix or "")
    if not prefix or prefix == "/":
        return lambda path: path.startswith(prefix)
    return lambda path: fold(path).startswith(prefix)

"""DestinationRules: which one a client finds for a host, and what it says for one port and subset.

How this works: the lookup has three steps (the client's namespace, the service's, the root namespace), and the first step that knows a rule
for the host decides, even if it then yields nothing. Inside a step the most specific host wins. Rules of one host, namespace
and audience are merged (`_merge`): subsets united, the oldest top-level policy taken whole; those for some workloads come first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

from meshsim import hosts
from meshsim.control.memory import Memory
from meshsim.resources.destination_rule import (
    ClientTlsSettings,
    ConnectionPoolSettings,
    DestinationRuleSpec,
    LoadBalancerSettings,
    OutlierDetection,
    PortTrafficPolicy,
    ProxyProtocol,
    RetryBudget,
    Subset,
    TrafficPolicy,
    TunnelSettings,
)
from meshsim.resources.mesh_config import MeshConfig
from meshsim.resources.resource import Resource

Rule = Resource[DestinationRuleSpec]
PUBLIC, PRIVATE = "*", "."


@dataclass(eq=False)
class Merged:
    """Rules of one host and namespace with the same audience, as one. `rule` is the oldest and gives its name."""

    host: str
    rule: Rule
    export_to: frozenset[str]
    policy: TrafficPolicy | None
    subsets: list[tuple[Subset, Rule]]
    selector: Mapping[str, str] | None = None

    def subset(self, name: str) -> Subset | None:
        return next((s for s, _ in self.subsets if s.name == name), None)

    @property
    def config_path(self) -> str:
        """Istio's name of the resource in xds metadata."""
        return f"/apis/networking.istio.io/v1/namespaces/{self.rule.namespace}/destination-rule/{self.rule.name}"


@dataclass
class _Rules:
    """The rules of one namespace and one audience class, by host."""

    exact: dict[str, list[Merged]] = field(default_factory=dict)
    wildcard: dict[str, list[Merged]] = field(default_factory=dict)

    def add(self, merged: Merged) -> None:
        table = self.wildcard if hosts.is_wildcard(merged.host) else self.exact
        table.setdefault(merged.host, []).append(merged)

    def extend(self, found: Iterable[Merged]) -> None:
        for merged in found:
            self.add(merged)

    def find(self, hostname: str) -> list[Merged] | None:
        """The rules of the most specific host that fits, or None."""
        if hostname in self.exact:
            return self.exact[hostname]
        best = hosts.most_specific(hostname, self.wildcard) if self.wildcard else None
        if best is None and hostname in self.wildcard:
            best = hostname
        return self.wildcard[best] if best is not None else None


class Index:
    """Every DestinationRule, ready for lookup."""

    def __init__(self, rules: Iterable[Rule], mesh: MeshConfig, domain: str, memory: Memory | None = None):
        self._mesh, self._root, self._memory = mesh, mesh.root_namespace, memory or Memory()
        around = self._memory.token("around rules", mesh)
        self._local: dict[str, _Rules] = {}
        self._exported: dict[str, _Rules] = {}
        self._private_root = _Rules()
        grouped: dict[tuple[str, str], list[Rule]] = {}
        for rule in rules:
            host = hosts.expand_short(rule.spec.host, rule.namespace, domain)
            grouped.setdefault((rule.namespace, host), []).append(rule)
        for (namespace, host), members in grouped.items():
            local, exported, private = self._memory.recall((host, *members, around), partial(self._merged, namespace, host, members))
            for found, into in ((local, self._local), (exported, self._exported)):
                if found:
                    into.setdefault(namespace, _Rules()).extend(found)
            self._private_root.extend(private)

    def _merged(self, namespace: str, host: str, rules: list[Rule]) -> tuple[list[Merged], list[Merged], list[Merged]]:
        """Three times, each for itself: the namespace's own, what it exports, and what the root namespace keeps to itself."""
        by_default = self._mesh.default_destination_rule_export_to
        exports = [(rule, _audience(rule)) for rule in sorted(rules, key=lambda rule: rule.spec.workload_selector is None)]
        own = [(r, to) for r, to in exports if not to or to & {PUBLIC, PRIVATE, namespace}]
        private = [to in ({PRIVATE}, {namespace}) or (not to and PRIVATE in by_default) for _, to in exports]
        shared = [each for each, kept in zip(exports, private, strict=True) if not kept]
        kept = [each for each, kept in zip(exports, private, strict=True) if kept]
        return _merge(host, own), _merge(host, shared), _merge(host, kept) if namespace == self._root else []

    def lookup(
        self, client: str, labels: Mapping[str, str], hostname: str, service_namespace: str, *, explain: list[str] | None = None
    ) -> Merged | None:
        """The rule for a client in namespace `client` with these labels, and a host that is defined in `service_namespace`."""
        first = self._private_root if client == self._root else self._local.get(client)
        found = first.find(hostname) if first else None
        if found is not None:
            if explain is not None:
                explain.append(f"found in the client's namespace {client}")
            return _choose(found, labels, in_client_namespace=True)
        for namespace in dict.fromkeys((service_namespace, self._root)):
            rules = self._exported.get(namespace)
            found = rules.find(hostname) if rules else None
            if found is not None:
                visible = [m for m in found if _visible(m, client)]
                if explain is not None:
                    explain.append(f"{'found' if visible else 'hidden'} in namespace {namespace}")
                if visible or namespace == service_namespace:
                    chosen = _choose(visible, labels, in_client_namespace=namespace == client)
                    if chosen or visible:
                        return chosen
        return None

    def everything(self) -> Iterable[Merged]:
        """Every rule, for explanations of what was nearly taken."""
        for rules in self._local.values():
            for table in (rules.exact, rules.wildcard):
                for members in table.values():
                    yield from members


def _audience(rule: Rule) -> frozenset[str]:
    """Who a rule is for, as it says it; empty: it does not say. One for some workloads stays in its namespace."""
    return frozenset({PRIVATE}) if rule.spec.workload_selector is not None else frozenset(rule.spec.export_to)


def _visible(merged: Merged, client: str) -> bool:
    return not merged.export_to or PUBLIC in merged.export_to or client in merged.export_to


def _choose(found: list[Merged], labels: Mapping[str, str], *, in_client_namespace: bool) -> Merged | None:
    """A rule that selects the workload outranks one without a selector; of several without one the newest counts."""
    if in_client_namespace:
        for merged in found:
            if merged.selector is not None and merged.selector.items() <= labels.items():
                return merged
    plain = [m for m in found if m.selector is None]
    return plain[-1] if plain else None


def _merge(host: str, rules: Iterable[tuple[Rule, frozenset[str]]]) -> list[Merged]:
    """Rules that say their audience in the same words become one; one for more than an earlier one's audience adds to it.

    The last earlier rule that was looked at decides whether the new one also stands by itself, which is how istiod does it: of two without
    a selector the wider is lost to those that only it was for, and a rule kept private is lost to the workloads of the namespace for which
    no selector was written.
    """
    out: list[Merged] = []
    for rule, audience in rules:
        selector = rule.spec.workload_selector.match_labels if rule.spec.workload_selector else None
        alone = True
        for known in out:
            if audience == known.export_to:
                alone = False
            elif known.export_to and audience > known.export_to:
                alone = True
            else:
                alone = True
                continue
            if selector is not None and known.selector is not None and selector != known.selector:
                alone = True
                continue
            if (selector is None) == (known.selector is None):
                alone = False
            _absorb(known, rule)
        if alone:
            out.append(Merged(host, rule, audience, rule.spec.traffic_policy, [(s, rule) for s in rule.spec.subsets], selector))
    return out


def _absorb(known: Merged, rule: Rule) -> None:
    names = {s.name for s, _ in known.subsets}
    known.subsets = known.subsets + [(s, rule) for s in rule.spec.subsets if s.name not in names]
    if known.policy is None:
        known.policy = rule.spec.traffic_policy


@dataclass(slots=True)
class Policy:
    """The blocks in force for one cluster; None: nothing was said.

    passes: whether the rule (for a subset: the subset) says of all ports that connections go where they were going. marks: the TLS that
    decides how endpoints are marked, which a port without TLS of its own has from what encloses it.
    """

    load_balancer: LoadBalancerSettings | None = None
    connection_pool: ConnectionPoolSettings | None = None
    outlier_detection: OutlierDetection | None = None
    tls: ClientTlsSettings | None = None
    proxy_protocol: ProxyProtocol | None = None
    retry_budget: RetryBudget | None = None
    tunnel: TunnelSettings | None = None
    passes: bool = False
    marks: ClientTlsSettings | None = None


def effective(merged: Merged | None, port: int, subset: str, mesh: MeshConfig) -> Policy:
    """What the rule says for that port and subset ("" for none).

    A port's own settings replace load balancer, pool, outlier detection and TLS as a group: nothing is inherited beside them.
    """
    out = Policy()
    top = merged.policy if merged else None
    if top is not None:
        at_port = _port(top, port)
        if at_port is not None:
            out.load_balancer, out.connection_pool = at_port.load_balancer, at_port.connection_pool
            out.outlier_detection, out.tls = at_port.outlier_detection, at_port.tls
        else:
            out.load_balancer, out.connection_pool = top.load_balancer, top.connection_pool
            out.outlier_detection, out.tls = top.outlier_detection, top.tls
            out.proxy_protocol, out.retry_budget = top.proxy_protocol, top.retry_budget
        out.tunnel, out.passes, out.marks = top.tunnel, _passes(top), _marks(top, at_port)
    if mesh.default_traffic_policy is not None:
        out.connection_pool = out.connection_pool or mesh.default_traffic_policy.connection_pool
        out.outlier_detection = out.outlier_detection or mesh.default_traffic_policy.outlier_detection
    found = merged.subset(subset) if merged and subset else None
    own = found.traffic_policy if found else None
    out.passes = out.passes if found is None else own is not None and _passes(own)
    if own is not None:
        at_port = _port(own, port)
        out.marks = _marks(own, at_port) or out.marks
        if at_port is not None:
            out.load_balancer, out.connection_pool = at_port.load_balancer, at_port.connection_pool
            out.outlier_detection, out.tls = at_port.outlier_detection, at_port.tls
        else:
            out.load_balancer = own.load_balancer or out.load_balancer
            out.connection_pool = own.connection_pool or out.connection_pool
            out.outlier_detection = own.outlier_detection or out.outlier_detection
            out.tls = own.tls or out.tls
            out.proxy_protocol = own.proxy_protocol or out.proxy_protocol
            out.retry_budget = own.retry_budget or out.retry_budget
        out.tunnel = own.tunnel or out.tunnel
    return out


def _passes(policy: TrafficPolicy) -> bool:
    return policy.load_balancer is not None and policy.load_balancer.simple == "PASSTHROUGH"


def _marks(policy: TrafficPolicy, at_port: PortTrafficPolicy | None) -> ClientTlsSettings | None:
    return (at_port.tls if at_port else None) or policy.tls


def _port(policy: TrafficPolicy, port: int) -> PortTrafficPolicy | None:
    return next((p for p in policy.port_level_settings if p.port and p.port.number == port), None)

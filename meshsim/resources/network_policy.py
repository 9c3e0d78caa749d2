"""NetworkPolicy: which connections the network lets through, whatever the proxies think.

How this works: `walls` turns the policies of a mesh into plain data: for every isolated pod address what it may open (egress) and
what may be opened to it (ingress), with selectors and named ports already resolved to addresses and numbers. The networks enforce
that data, and `simulate` asks it the same question. A pod that no policy of a direction selects is free in that direction; a
selected one may do what any rule of any selecting policy allows, nothing else. There is no order and no deny rule.

A connection needs the source's egress and the destination's ingress, both asked about the pods' addresses behind a Service, as Kubernetes
network plug-ins do. What is dropped stays silent: the caller times out. An `ipBlock` is matched against any address; whether it covers
pods differs between plug-ins.

Source: kubernetes.io, networking.k8s.io/v1 NetworkPolicy.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from typing import Any as Json

import msgspec

from meshsim.resources.message import LabelSelector, Message
from meshsim.resources.resource import Resource

EGRESS, INGRESS = "Egress", "Ingress"
NAME_LABEL = "kubernetes.io/metadata.name"
"""Every namespace carries its own name under this label since Kubernetes 1.21."""
DNS_LABELS = {"k8s-app": "kube-dns"}
DNS_NAMESPACE, DNS_PORT = "kube-system", 53
"""What marks the pods of the cluster's DNS, and where they are asked."""


class IpBlock(Message, rename={"except_": "except"}):
    """Raises ValueError for what is no address range."""

    cidr: str = ""
    except_: list[str] = []

    def __post_init__(self) -> None:
        for text in (self.cidr, *self.except_):
            if "/" not in text:
                raise ValueError(f"Invalid value: {text!r}: must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")
            ipaddress.ip_network(text, strict=False)


class NetworkPolicyPeer(Message):
    pod_selector: LabelSelector | None = None
    namespace_selector: LabelSelector | None = None
    ip_block: IpBlock | None = None


class NetworkPolicyPort(Message):
    protocol: str = "TCP"
    port: int | str | None = None
    end_port: int | None = None


class NetworkPolicyEgressRule(Message):
    ports: list[NetworkPolicyPort] = []
    to: list[NetworkPolicyPeer] = []


class NetworkPolicyIngressRule(Message, rename={"from_": "from"}):
    ports: list[NetworkPolicyPort] = []
    from_: list[NetworkPolicyPeer] = []


class NetworkPolicySpec(Message):
    pod_selector: LabelSelector | None = None
    policy_types: list[str] = []
    egress: list[NetworkPolicyEgressRule] | None = None
    ingress: list[NetworkPolicyIngressRule] | None = None


class Ports(msgspec.Struct, frozen=True):
    """Consecutive ports of a protocol."""

    protocol: str
    first: int = 0
    last: int = 65535


class Opening(msgspec.Struct, frozen=True):
    """What one rule lets through: the other side's address ranges less the exceptions (None: anybody), and ports (None: all)."""

    ranges: list[str] | None = None
    exceptions: list[str] = []
    ports: list[Ports] | None = None

    def admits(self, address: str, port: int, protocol: str) -> bool:
        """Whether the rule names this other side and this port."""
        if self.ports is not None and not any(p.protocol == protocol and p.first <= port <= p.last for p in self.ports):
            return False
        return self.ranges is None or (_within(address, self.ranges) and not _within(address, self.exceptions))


class Wall(msgspec.Struct, frozen=True):
    """An isolated pod in one direction. policies: those that isolate it, as `NetworkPolicy NS/NAME FILE:LINE`."""

    policies: list[str]
    openings: list[Opening]


class Walls(msgspec.Struct, frozen=True):
    """Isolated pods by address. nodes: those whose node has no route out (resources/node.py). dns: the pods of the cluster's DNS."""

    egress: dict[str, Wall] = {}
    ingress: dict[str, Wall] = {}
    nodes: dict[str, Wall] = {}
    dns: list[str] = []

    @property
    def any(self) -> bool:
        """Whether anything at all can be dropped."""
        return bool(self.egress or self.ingress or self.nodes)

    def blocking(self, source: str, destination: str, port: int, protocol: str = "TCP") -> Wall | None:
        """The wall that drops a connection between two addresses, or None where it passes. Within a pod everything passes."""
        if source == destination:
            return None
        outward = ((side.get(source), destination) for side in (self.egress, self.nodes))
        for wall, other in (*outward, (self.ingress.get(destination), source)):
            if wall is not None and not any(opening.admits(other, port, protocol) for opening in wall.openings):
                return wall
        return None

    def blocking_dns(self, source: str) -> Wall | None:
        """The wall that drops a pod's questions to the cluster's DNS, or None where they arrive."""
        found = [self.blocking(source, address, DNS_PORT, "UDP") for address in self.dns]
        return found[0] if found and all(found) else None


class _Pod(msgspec.Struct, frozen=True):
    """A pod as selectors see it."""

    namespace: str
    labels: dict[str, str]
    address: str
    ports: dict[tuple[str, str], int]


def walls(resources: Iterable[Resource[Json]]) -> Walls:
    """What the NetworkPolicies among the resources isolate."""
    given = list(resources)
    policies = [r for r in given if r.kind == "NetworkPolicy"]
    if not policies:
        return Walls()
    namespaces = {r.name: {NAME_LABEL: r.name} | r.metadata.labels for r in given if r.kind == "Namespace"}
    pods = list(_pods(given))
    dns = [p.address for p in pods if p.namespace == DNS_NAMESPACE and DNS_LABELS.items() <= p.labels.items()]
    egress: dict[str, Wall] = {}
    ingress: dict[str, Wall] = {}
    for policy in policies:
        spec: NetworkPolicySpec = policy.spec
        types = spec.policy_types or [INGRESS, *([EGRESS] if spec.egress is not None else [])]
        label = f"NetworkPolicy {policy.namespace}/{policy.name} {policy.at()}"
        cluster = _Cluster(policy.namespace, pods, namespaces)
        for pod in (p for p in pods if p.namespace == policy.namespace and _selects(spec.pod_selector, p.labels)):
            if EGRESS in types:
                rules = [opening for rule in spec.egress or () for opening in cluster.openings(rule.to, rule.ports, None)]
                _isolate(egress, pod.address, label, rules)
            if INGRESS in types:
                rules = [opening for rule in spec.ingress or () for opening in cluster.openings(rule.from_, rule.ports, pod)]
                _isolate(ingress, pod.address, label, rules)
    return Walls(egress, ingress, dns=dns)


class _Cluster:
    """Resolves the peers and ports of one policy's rules."""

    def __init__(self, namespace: str, pods: list[_Pod], namespaces: dict[str, dict[str, str]]):
        self._namespace, self._all, self._namespaces = namespace, pods, namespaces

    def openings(self, peers: list[NetworkPolicyPeer], ports: list[NetworkPolicyPort], owner: _Pod | None) -> Iterator[Opening]:
        """`owner`: the pod whose ports are meant (ingress); None: those of the peers (egress)."""
        numbers, named = _split(ports)
        anybody: list[NetworkPolicyPeer | None] = [None]
        for peer in peers or anybody:
            ranges, exceptions = self._ranges(peer)
            if not ports or numbers:
                yield Opening(ranges, exceptions, numbers if ports else None)
            for protocol, name in named:
                places = [owner] if owner else self._named(peer)
                for pod in places:
                    number = pod.ports.get((protocol, name))
                    if number is not None:
                        exact = [Ports(protocol, number, number)]
                        yield Opening(ranges, exceptions, exact) if owner else Opening([_single(pod.address)], [], exact)

    def _ranges(self, peer: NetworkPolicyPeer | None) -> tuple[list[str] | None, list[str]]:
        if peer is None:
            return None, []
        if peer.ip_block is not None:
            return [peer.ip_block.cidr], list(peer.ip_block.except_)
        return [_single(pod.address) for pod in self._peers(peer)], []

    def _named(self, peer: NetworkPolicyPeer | None) -> list[_Pod]:
        if peer is None:
            return self._all
        if peer.ip_block is not None:
            block = peer.ip_block
            return [p for p in self._all if _within(p.address, [block.cidr]) and not _within(p.address, block.except_)]
        return self._peers(peer)

    def _peers(self, peer: NetworkPolicyPeer) -> list[_Pod]:
        """Without a namespace selector, pods of the policy's own namespace."""
        found = []
        for pod in self._all:
            if peer.namespace_selector is None:
                near = pod.namespace == self._namespace
            else:
                near = _selects(peer.namespace_selector, self._namespaces.get(pod.namespace, {NAME_LABEL: pod.namespace}))
            if near and _selects(peer.pod_selector, pod.labels):
                found.append(pod)
        return found


def _pods(resources: list[Resource[Json]]) -> Iterator[_Pod]:
    for pod in (r for r in resources if r.kind == "Pod" and r.spec.status is not None and r.spec.status.pod_ip):
        containers = pod.spec.spec.containers if pod.spec.spec else []
        ports = {(port.protocol or "TCP", port.name): port.container_port for c in containers for port in c.ports if port.name}
        yield _Pod(pod.namespace, pod.metadata.labels, pod.spec.status.pod_ip, ports)


def _isolate(side: dict[str, Wall], address: str, policy: str, openings: list[Opening]) -> None:
    before = side.get(address, Wall([], []))
    side[address] = Wall([*before.policies, policy], [*before.openings, *openings])


def _split(ports: list[NetworkPolicyPort]) -> tuple[list[Ports], list[tuple[str, str]]]:
    numbers, named = [], []
    for port in ports:
        protocol = port.protocol or "TCP"
        if isinstance(port.port, str):
            named.append((protocol, port.port))
        elif port.port is None:
            numbers.append(Ports(protocol))
        else:
            numbers.append(Ports(protocol, port.port, port.end_port or port.port))
    return numbers, named


def _selects(selector: LabelSelector | None, labels: dict[str, str]) -> bool:
    """An absent or empty selector selects everything."""
    if selector is None:
        return True
    if not selector.match_labels.items() <= labels.items():
        return False
    for wanted in selector.match_expressions:
        value = labels.get(wanted.key)
        holds = {
            "In": value in wanted.values,
            "NotIn": value not in wanted.values,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }
        if not holds.get(wanted.operator, False):
            return False
    return True


def _single(address: str) -> str:
    return f"{address}/{128 if ':' in address else 32}"


def _within(address: str, ranges: list[str]) -> bool:
    wanted = ipaddress.ip_address(address)
    return any(wanted in ipaddress.ip_network(text, strict=False) for text in ranges)

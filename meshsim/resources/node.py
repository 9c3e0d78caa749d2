"""Nodes: which of them packets can leave from, the case of a cluster whose application nodes have no public address.

How this works: in a mesh whose files have a Node with an `ExternalIP`, a pod on a node without one reaches private addresses only, those of
pods among them; what it opens to any other address is lost on the way, whatever its proxy allows. Where no Node has one, as on a laptop's
cluster, or no Node is written out, every pod has a route out. A pod is on the node of its `nodeName`; without one it is on the first node
that its `nodeSelector` fits and that no `NoSchedule` taint keeps it from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any as Json

from meshsim.resources.kubernetes import PodSpec
from meshsim.resources.message import OpenMessage
from meshsim.resources.network_policy import Opening, Wall
from meshsim.resources.resource import Resource

PRIVATE = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16"]
"""Addresses that need no public one to be reached from (RFC 1918, 6598, 3927)."""
_EXTERNAL, _KEEPS_OUT = "ExternalIP", ("NoSchedule", "NoExecute")


class Taint(OpenMessage):
    key: str = ""
    effect: str = ""


class NodeSpec(OpenMessage):
    taints: list[Taint] = []


class NodeAddress(OpenMessage):
    type: str = ""
    address: str = ""


class NodeStatus(OpenMessage):
    addresses: list[NodeAddress] = []


class Node(OpenMessage):
    spec: NodeSpec | None = None
    status: NodeStatus | None = None


def of(spec: PodSpec | None, nodes: Iterable[Resource[Json]]) -> str:
    """The name of the node that a pod is on; empty where none is known."""
    if spec is not None and spec.node_name:
        return spec.node_name
    wanted = spec.node_selector if spec is not None else {}
    return next((n.name for n in nodes if wanted.items() <= n.metadata.labels.items() and (wanted or not _keeps_out(n))), "")


def landlocked(resources: Iterable[Resource[Json]]) -> dict[str, Wall]:
    """By address, the pods without a route out, each with the Node that is the reason."""
    given = list(resources)
    inner = dict(_inner(given))
    nodes = [r for r in given if r.kind == "Node"]
    pods = [r for r in given if r.kind == "Pod" and r.spec.status is not None and r.spec.status.pod_ip] if inner else []
    return {
        pod.spec.status.pod_ip: Wall([f"Node {name} (no {_EXTERNAL}) {inner[name].at()}"], [Opening(PRIVATE)])
        for pod in pods
        if (name := of(pod.spec.spec, nodes)) in inner
    }


def notes(resources: Iterable[Resource[Json]]) -> list[str]:
    """What a reader of these files may not expect."""
    inner = ", ".join(name for name, _ in _inner(list(resources)))
    return [f"pods on nodes without {_EXTERNAL} have no route to public addresses: {inner}"] if inner else []


def _inner(resources: list[Resource[Json]]) -> Iterator[tuple[str, Resource[Json]]]:
    """The Nodes without a public address, if others have one."""
    nodes = [r for r in resources if r.kind == "Node"]
    if any(map(_is_public, nodes)):
        yield from ((r.name, r) for r in nodes if not _is_public(r))


def _is_public(node: Resource[Json]) -> bool:
    return node.spec.status is not None and any(a.type == _EXTERNAL and a.address for a in node.spec.status.addresses)


def _keeps_out(node: Resource[Json]) -> bool:
    return node.spec.spec is not None and any(taint.effect in _KEEPS_OUT for taint in node.spec.spec.taints)

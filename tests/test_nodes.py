"""Application nodes without a public address: which pods have a route out, in a trace and live."""

from __future__ import annotations

import subprocess
import sys

import pytest

import meshsim
from meshsim.mesh import Mesh
from meshsim.network import namespaces, netfilter
from meshsim.resources import node

SCENARIO = "scenarios/private-nodes"
SITE = "151.101.65.67"
NODE = """
apiVersion: v1
kind: Node
metadata: {name: %s, labels: {kind: %s}}
spec: {taints: [%s]}
status: {addresses: [%s]}
---
"""
POD = """
apiVersion: v1
kind: Pod
metadata: {name: client, labels: {app: client}}
spec: {containers: [{name: client}], %s}
status: {podIP: 10.244.1.10}
"""
PUBLIC, PRIVATE = "{type: ExternalIP, address: 198.51.100.9}", "{type: InternalIP, address: 10.0.0.1}"
TAINT = "{key: x, effect: NoSchedule}"
INNER, OUTER = NODE % ("inner", "a", "", PRIVATE), NODE % ("outer", "b", "", PUBLIC)
KEPT = NODE % ("kept", "c", TAINT, PRIVATE)


def mesh(*parts: str) -> Mesh:
    return meshsim.load("-", stdin="".join(parts))


@pytest.mark.parametrize(
    ("nodes", "pod", "has_route"),
    [
        ([], "", True),
        ([INNER], "", True),  # a laptop's cluster: no node has a public address, and all reach the world
        ([INNER, OUTER], "", False),
        ([OUTER, INNER], "", True),
        ([OUTER, INNER], "nodeSelector: {kind: a}", False),
        ([OUTER, INNER], "nodeName: inner", False),
        ([OUTER, INNER], "nodeName: elsewhere", True),
        ([KEPT, OUTER], "", True),
        ([KEPT, OUTER], "nodeSelector: {kind: c}", False),
    ],
)
def test_which_pods_have_a_route_out(nodes: list[str], pod: str, has_route: bool) -> None:
    walls = mesh(*nodes, POD % pod).walls
    tried = [walls.blocking("10.244.1.10", SITE, *way) is None for way in ((80, "TCP"), (443, "UDP"))]
    assert tried == [has_route, has_route]
    assert all(walls.blocking("10.244.1.10", inside, 80) is None for inside in ("10.244.0.20", "172.16.0.1", "192.168.9.9"))
    assert all(walls.blocking(source, "10.244.1.10", 80) is None for source in (SITE, "10.244.0.20"))


def test_a_policy_and_a_node_must_both_let_a_connection_pass() -> None:
    policy = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: %s}\nspec: {podSelector: {}, %s}\n---\n"
    opened = mesh(INNER, OUTER, policy % ("open", "policyTypes: [Egress], egress: [{}]"), POD % "").walls
    closed = mesh(INNER, OUTER, policy % ("closed", "policyTypes: [Egress]"), POD % "").walls
    assert opened.blocking("10.244.1.10", SITE, 80)
    assert [wall.policies[0].split()[1] for wall in (closed.blocking("10.244.1.10", "10.0.0.9", 80),) if wall] == ["default/closed"]
    rules = netfilter.walls(opened)
    assert rules.index("jump egress0") < rules.index("jump node0")


def test_a_trace_names_the_node_and_its_line() -> None:
    trace = meshsim.load(SCENARIO).simulate("sleep", "https://edition.cnn.com/")
    assert trace.dropped[0].startswith(f"10.244.1.10 to {SITE}:443: Node app-1 (no ExternalIP) ")
    assert trace.dropped[0].endswith("nodes.yaml:3")


def test_pods_are_shown_on_their_nodes_and_loading_says_what_follows() -> None:
    found = meshsim.load(SCENARIO)
    pods = [r for r in found.told if r.kind == "Pod"]
    assert {p.metadata.labels["app"]: p.spec.spec.node_name for p in pods} == {"sleep": "app-1", "istio-egressgateway": "egress-1"}
    assert found.notes == node.notes(found.resources) == ["pods on nodes without ExternalIP have no route to public addresses: app-1"]


REASON = namespaces.unavailable()
ONE_AFTER_THE_OTHER = """
import asyncio, sys, meshsim
from meshsim.network import choice
choice.enter("netns")
async def main():
    for name in sys.argv[1:]:
        async with meshsim.load(name).run(network="netns") as live:
            print(await live.arrives("sleep", "198.51.100.66", 443), await live.arrives("istio-egressgateway", "198.51.100.66", 443))
asyncio.run(main())
"""


@pytest.mark.netns
@pytest.mark.skipif(bool(REASON), reason=REASON)
def test_a_mesh_in_the_same_process_has_no_walls_of_the_one_before() -> None:
    command = [sys.executable, "-c", ONE_AFTER_THE_OTHER, SCENARIO, "scenarios/egress-gateway-http"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split("\n") == ["False True", "True True", ""], done.stderr

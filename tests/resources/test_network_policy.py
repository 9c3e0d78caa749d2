"""NetworkPolicy as a table: a policy, and what it lets through."""

from __future__ import annotations

import asyncio

import pytest

import meshsim
from meshsim.errors import ConfigError
from meshsim.mesh import Mesh
from meshsim.network import directory
from meshsim.network.base import Address
from meshsim.network.loopback import LoopbackNetwork
from meshsim.resources import load

CLUSTER = """
apiVersion: v1
kind: Namespace
metadata: {name: other, labels: {team: b}}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: default, labels: {app: client}}
spec: {containers: [{name: client}]}
status: {podIP: 10.244.1.10}
---
apiVersion: v1
kind: Pod
metadata: {name: server, namespace: other, labels: {app: server, tier: front}}
spec: {containers: [{name: server, ports: [{name: web, containerPort: 8080}]}]}
status: {podIP: 10.244.1.20}
---
apiVersion: meshsim.dev/v1alpha1
kind: ExternalServer
metadata: {name: site}
spec: {hosts: [site.test], addresses: [203.0.113.7], ports: [{port: 80}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: wall, namespace: %s}
spec: %s
"""
CLIENT, SERVER, SITE = "10.244.1.10", "10.244.1.20", "203.0.113.7"
OUT = "{egress: [{to: [{%s}], ports: [%s]}], podSelector: {}, policyTypes: [Egress]}"
OTHER = "namespaceSelector: {matchLabels: {team: b}}"


def mesh(namespace: str, spec: str) -> Mesh:
    return Mesh(load("-", stdin=CLUSTER % (namespace, spec)).require())


@pytest.mark.parametrize(
    ("namespace", "spec", "allowed", "blocked"),
    [
        ("default", "{podSelector: {}}", [(CLIENT, SITE, 80)], [(SERVER, CLIENT, 80)]),
        ("default", "{podSelector: {}, egress: [{}]}", [(CLIENT, SITE, 80), (CLIENT, SERVER, 1)], [(SERVER, CLIENT, 80)]),
        ("default", "{podSelector: {}, policyTypes: [Egress]}", [(SERVER, CLIENT, 80), (CLIENT, CLIENT, 9)], [(CLIENT, SITE, 80)]),
        ("default", "{podSelector: {matchLabels: {app: x}}, policyTypes: [Egress]}", [(CLIENT, SITE, 80)], []),
        ("default", OUT % (OTHER, ""), [(CLIENT, SERVER, 1)], [(CLIENT, SITE, 80)]),
        ("default", OUT % (OTHER, "{port: 8080}"), [(CLIENT, SERVER, 8080)], [(CLIENT, SERVER, 8081)]),
        ("default", OUT % (OTHER, "{port: web}"), [(CLIENT, SERVER, 8080)], [(CLIENT, SERVER, 80)]),
        ("default", OUT % (OTHER, "{port: 8000, endPort: 8080}"), [(CLIENT, SERVER, 8080)], [(CLIENT, SERVER, 8081)]),
        ("default", OUT % (OTHER, "{protocol: UDP}"), [], [(CLIENT, SERVER, 8080)]),
        ("default", OUT % (OTHER + ", podSelector: {matchLabels: {app: none}}", ""), [], [(CLIENT, SERVER, 80)]),
        ("default", OUT % (OTHER + "}, {podSelector: {}", ""), [(CLIENT, SERVER, 80)], [(CLIENT, SITE, 80)]),
        ("default", OUT % ("podSelector: {matchLabels: {app: server}}", ""), [], [(CLIENT, SERVER, 80)]),
        ("default", OUT % ("namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: other}}", ""), [(CLIENT, SERVER, 80)], []),
        (
            "default",
            OUT % ("namespaceSelector: {matchExpressions: [{key: team, operator: In, values: [b]}]}", ""),
            [(CLIENT, SERVER, 8)],
            [],
        ),
        ("default", OUT % ("namespaceSelector: {matchExpressions: [{key: team, operator: DoesNotExist}]}", ""), [], [(CLIENT, SERVER, 8)]),
        ("default", OUT % ("ipBlock: {cidr: 203.0.113.0/24}", ""), [(CLIENT, SITE, 80)], [(CLIENT, SERVER, 80)]),
        ("default", OUT % ("ipBlock: {cidr: 203.0.113.0/24, except: [203.0.113.0/28]}", ""), [], [(CLIENT, SITE, 80)]),
        ("other", "{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}", [(SERVER, SITE, 80)], [(CLIENT, SERVER, 8080)]),
        ("other", "{podSelector: {}, ingress: [{ports: [{port: web}]}]}", [(CLIENT, SERVER, 8080)], [(CLIENT, SERVER, 80)]),
    ],
)
def test_what_passes(namespace, spec, allowed, blocked):
    walls = mesh(namespace, spec).walls
    assert [c for c in allowed if walls.blocking(*c)] == []
    assert [c for c in blocked if not walls.blocking(*c)] == []


def test_policies_add_up():
    one, two = OUT % (OTHER, "{port: 1}"), OUT % (OTHER, "{port: 2}")
    text = CLUSTER % ("default", one)
    text += text[text.index("---\napiVersion: networking") :].replace("name: wall", "name: door").replace(one, two)
    walls = Mesh(load("-", stdin=text).require()).walls
    assert [port for port in (1, 2, 3) if walls.blocking(CLIENT, SERVER, port)] == [3]
    assert [p.rpartition(" ")[0] for p in walls.egress[CLIENT].policies] == ["NetworkPolicy default/wall", "NetworkPolicy default/door"]


def test_simulate_names_the_policy_and_its_line():
    trace = mesh("default", OUT % (OTHER, "")).simulate("client", "http://203.0.113.7/")
    assert trace.client == {"error": "timeout"}
    assert trace.dropped == [f"{CLIENT} to {SITE}:80: NetworkPolicy default/wall <stdin>:{_line_of_the_policy()}"]


def test_lookups_need_a_way_to_the_dns():
    assert mesh("default", OUT % (OTHER, "")).simulate("client", "http://site.test/").error == "name does not resolve"
    open_dns = OUT % ("namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}", "{protocol: UDP, port: 53}")
    trace = mesh("default", open_dns).simulate("client", "http://site.test/")
    assert (trace.address, trace.error) == (f"{SITE}:80", "timeout")


async def test_a_dropped_connection_is_never_answered(tmp_path):
    directory.write(tmp_path, directory.Directory(walls=mesh("default", OUT % (OTHER, "")).walls))
    network = LoopbackNetwork(tmp_path)
    try:
        with pytest.raises(ConnectionRefusedError):
            await network.connect(CLIENT, Address(SERVER, 80))
        attempt = asyncio.ensure_future(network.connect(CLIENT, Address(SITE, 80)))
        done, waiting = await asyncio.wait([attempt], timeout=0.05)
        assert (done, waiting) == (set(), {attempt})
        attempt.cancel()
    finally:
        await network.close()


def test_a_bad_range_is_named():
    with pytest.raises(ConfigError, match=r"300\.0\.0\.0/8"):
        mesh("default", OUT % ("ipBlock: {cidr: 300.0.0.0/8}", ""))


def _line_of_the_policy() -> int:
    return CLUSTER[: CLUSTER.index("apiVersion: networking")].count("\n") + 1


def test_the_scenario_closes_the_direct_way():
    scenario = meshsim.load("scenarios/network-policy")
    assert scenario.simulate("sleep.test-egress", "http://151.101.65.67/").error == "timeout"

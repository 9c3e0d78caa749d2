"""The cluster's DNS is a pod: it is shown like one, asked like one, and NetworkPolicies select it like one."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import meshsim
from meshsim.mesh import Mesh
from meshsim.network import namespaces
from tests.network.test_dns import query

SCENARIO = Path("scenarios/egress-gateway-https")
NO_NAMESPACES = namespaces.unavailable()
TIMEOUT = 28  # curl's exit status
POLICY = """
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: n%d, namespace: %s}
spec: %s
"""
GATEWAY = "podSelector: {matchLabels: {app: istio-egressgateway}}, namespaceSelector: {}"
DNS = "podSelector: {matchLabels: {k8s-app: kube-dns}}"
KUBE_SYSTEM = "namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}"


def leaving(*to: str) -> tuple[str, str]:
    """Pods of `default` may open to these peers, on UDP port 53 where a peer says nothing else, and to the gateway."""
    peers = "".join(f", {{to: [{{{peer}}}], ports: [{{protocol: UDP, port: 53}}]}}" for peer in to)
    return "default", f"{{policyTypes: [Egress], egress: [{{to: [{{{GATEWAY}}}]}}{peers}]}}"


def entering(*spaces: str) -> tuple[str, str]:
    """Pods of the DNS take from these namespaces only."""
    peers = ", ".join(f"{{namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {name}}}}}}}" for name in spaces)
    return "kube-system", f"{{podSelector: {{matchLabels: {{k8s-app: kube-dns}}}}, ingress: [{{from: [{peers}]}}]}}"


ROWS = {
    "no policy": ([], 0),
    "the way to the DNS is left out": ([leaving()], TIMEOUT),
    "its pods by label and namespace": ([leaving(f"{DNS}, {KUBE_SYSTEM}")], 0),
    "its namespace": ([leaving(KUBE_SYSTEM)], 0),
    "its label, in the wrong namespace": ([leaving(DNS)], TIMEOUT),
    "its Service's address, which no packet has when it gets there": ([leaving("ipBlock: {cidr: 10.96.0.10/32}")], TIMEOUT),
    "its pod's address": ([leaving("ipBlock: {cidr: 10.244.0.2/32}")], 0),
    "it takes from the gateway only": ([entering("istio-system")], TIMEOUT),
    "it takes from the pod too": ([entering("istio-system", "default")], 0),
}
COMMAND = ("curl", "-sS", "-o", "/dev/null", "--connect-timeout", "0.3", "https://edition.cnn.com/")


def policies(row: str) -> str:
    return "".join(POLICY % (number, *policy) for number, policy in enumerate(ROWS[row][0]))


def mesh(row: str) -> Mesh:
    return meshsim.load(SCENARIO, "-", stdin=policies(row)) if ROWS[row][0] else meshsim.load(SCENARIO)


@pytest.mark.parametrize("row", ROWS)
def test_in_a_trace(row: str) -> None:
    trace = mesh(row).simulate("sleep", "https://edition.cnn.com/")
    blocked = ROWS[row][1] == TIMEOUT
    assert (trace.status, trace.error) == ((None, "name does not resolve") if blocked else (200, ""))
    assert bool(trace.dropped) == blocked
    assert all("the cluster's DNS: NetworkPolicy" in drop and "<stdin>:" in drop for drop in trace.dropped)


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
async def test_on_sockets() -> None:
    first = mesh("no policy")
    async with first.run() as live:
        for row, (_, status) in ROWS.items():
            await live.apply(mesh(row))
            assert (row, (await live.pod("sleep").output(*COMMAND))[0]) == (row, status)
        question = query("edition.cnn.com")
        reader, writer = await live.pod("sleep").open("10.96.0.10", 53)  # over TCP, which pods on sockets have
        writer.write(len(question).to_bytes(2, "big") + question)
        answer = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        assert answer.endswith(socket.inet_aton("151.101.65.67"))
        writer.close()


@pytest.mark.netns
@pytest.mark.skipif(bool(NO_NAMESPACES), reason=NO_NAMESPACES)
@pytest.mark.parametrize("row", ["its pods by label and namespace", "it takes from the gateway only"])
def test_in_namespaces(row: str, tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(policies(row))
    command = [sys.executable, "-m", "meshsim", "run", str(SCENARIO), "-f", str(tmp_path), "--network", "netns", "--", *COMMAND]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == ROWS[row][1], done.stderr
    assert ("Resolving timed out" in done.stderr) == (ROWS[row][1] == TIMEOUT)


def test_one_that_is_written_out_takes_its_place() -> None:
    own = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: dns, namespace: kube-system, labels: {k8s-app: kube-dns}}\n"
    found = meshsim.load(SCENARIO, SCENARIO.parent / "_default" / "mesh.yaml", "-", stdin=own + "status: {podIP: 10.244.0.9}\n")
    assert [pod.name for pod in found.pods if pod.namespace == "kube-system"] == ["dns"]
    assert found.dns == ["10.244.0.9"]
    assert found.services["10.96.0.10:53"] == ["10.244.0.9:53"]


def test_istiod_is_told_nothing_of_it() -> None:
    found = mesh("no policy")
    assert "kube-dns" in {r.name for r in found.resources}
    assert not [c.name for c in found.config("sleep").clusters if "kube-dns" in c.name]

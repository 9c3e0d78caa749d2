"""Ways past the gateway, and what closes them: what people write about namespaces and NetworkPolicies, and what it looks like from outside.

Each row is the egress gateway of HTTP traffic with something added. The same call is made in the evaluator and on live proxies, with the
same end, the same places on its way, and the same growth of the counter that Istio's page tells people to watch on the gateway.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import NamedTuple

import pytest

import meshsim
from meshsim import analysis
from meshsim.live import LiveMesh
from meshsim.mesh import Mesh
from meshsim.network.base import Address
from meshsim.pod import NameDoesNotResolve
from meshsim.simulate import Call, Trace
from meshsim.walkthrough import counter

SCENARIO = Path(__file__).parent.parent / "scenarios" / "egress-gateway-http"
URL, BARE = "http://edition.cnn.com/politics", "http://151.101.65.67/politics"
COUNTER = "cluster.outbound|80||edition.cnn.com.upstream_cx_total"
PATIENCE = 0.3  # seconds until a client takes silence for a dropped packet
GATEWAY = "istio-egressgateway"
MESH = """
---
apiVersion: meshsim.dev/v1alpha1
kind: MeshConfig
metadata: {name: istio}
spec: {accessLogFile: /dev/stdout, connectTimeout: 0.05s, outboundTrafficPolicy: {mode: %s}}
"""
POLICY = """
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, namespace: %s}
spec: {%s}
"""
DNS = "{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}}], ports: [{protocol: UDP, port: 53}]}"
ISTIO = "{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: istio-system}}}]}"
ONLY_DNS = f"podSelector: {{}}, policyTypes: [Egress], egress: [{DNS}]"
CLOSED = POLICY % ("default", f"podSelector: {{}}, policyTypes: [Egress], egress: [{DNS}, {ISTIO}]")
UNLABELLED = CLOSED.replace("kubernetes.io/metadata.name: istio-system", "istio: system")
TO_PORT = CLOSED.replace(ISTIO, ISTIO[:-1] + ", ports: [{port: %d}]}")
SHUT = POLICY % ("istio-system", "podSelector: {}, policyTypes: [Ingress]")
POD = """
---
apiVersion: v1
kind: Namespace
metadata: {name: team, labels: {istio-injection: enabled}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: job, namespace: %s}
spec:
  selector: {matchLabels: {app: job}}
  template:
    metadata: {labels: {app: job}, annotations: {%s}}
    spec: {containers: [{name: job}]}
"""
PLAIN = POD % ("default", 'sidecar.istio.io/inject: "false"')
EXCLUDED = POD % ("default", "traffic.sidecar.istio.io/excludeOutboundIPRanges: 151.101.0.0/16")
TEAM = POD % ("team", "")
RULE = """
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: egressgateway-for-cnn, namespace: %s}
spec: {host: istio-egressgateway.istio-system.svc.cluster.local, subsets: [{name: cnn}]}
"""
TEAPOT = """
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a-first, namespace: team}
spec: {hosts: [httpbin.org], %shttp: [{directResponse: {status: 418}}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: httpbin}
spec: {hosts: [httpbin.org], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS}
"""
OTHERS = "http://httpbin.org/get"


class Row(NamedTuple):
    """more: what is added. end: a status, `timeout`, or `no name`. way: the proxies passed. grows: the gateway's counter.

    past: whether the connection is opened as the sidecar's own user does. codes: of the findings that explain it.
    """

    name: str
    more: str
    end: int | str
    way: tuple[str, ...] = ("sleep.default", f"{GATEWAY}.istio-system")
    grows: int = 0
    url: str = URL
    sender: str = "sleep"
    past: bool = False
    mode: str = "ALLOW_ANY"
    codes: tuple[str, ...] = ()


SIDECAR, DROPPED = ("sleep.default",), ("MSIM0117",)
TABLE = [
    Row("the way that is meant", "", 301, grows=1),
    # "We have an egress gateway, so nothing can bypass it"
    Row("an address in place of the name", "", 301, SIDECAR, url=BARE),
    Row("an address, registry only", "", 502, SIDECAR, url=BARE, mode="REGISTRY_ONLY"),
    Row("past the sidecar, as its own user", "", 301, (), past=True),
    Row("past the sidecar, registry only", "", 301, (), past=True, mode="REGISTRY_ONLY"),
    Row("a pod without a sidecar", PLAIN, 301, (), sender="job"),
    Row("a pod without a sidecar, registry only", PLAIN, 301, (), sender="job", mode="REGISTRY_ONLY"),
    Row("a range that the sidecar leaves out", EXCLUDED, 301, (), sender="job"),
    Row("a range that the sidecar leaves out, registry only", EXCLUDED, 301, (), sender="job", mode="REGISTRY_ONLY"),
    # ...which a policy on the pods' way out makes true
    Row("closed: the way that is meant", CLOSED, 301, grows=1),
    Row("closed: an address in place of the name", CLOSED, 503, SIDECAR, url=BARE),
    Row("closed: past the sidecar", CLOSED, "timeout", (), past=True),
    Row("closed: a pod without a sidecar", CLOSED + PLAIN, "timeout", (), sender="job"),
    Row("closed: a range that the sidecar leaves out", CLOSED + EXCLUDED, "timeout", (), sender="job"),
    # "NetworkPolicy does not work"
    Row("no way to the DNS", POLICY % ("default", f"podSelector: {{}}, egress: [{ISTIO}]"), "no name", (), codes=DROPPED),
    Row("no policyTypes, and no egress: the way out is not its business", POLICY % ("default", "podSelector: {}"), 301, grows=1),
    Row("in another namespace than the pods", CLOSED.replace("namespace: default", "namespace: team"), 301, SIDECAR, url=BARE),
    Row("a selector that fits no pod", CLOSED.replace("Selector: {}", "Selector: {matchLabels: {app: slep}}"), 301, SIDECAR, url=BARE),
    Row("a label that the namespace lacks", UNLABELLED, 503, SIDECAR, codes=DROPPED),
    Row("the Service's port instead of the pod's", TO_PORT % 80, 503, SIDECAR, codes=DROPPED),
    Row("the pod's port", TO_PORT % 8080, 301, grows=1),
    Row("the gateway closed to the mesh", SHUT, 503, SIDECAR, codes=DROPPED),
    Row("the gateway's own way out closed: three attempts", POLICY % ("istio-system", ONLY_DNS), 503, grows=3, codes=DROPPED),
    Row("the same without policyTypes: closed to the mesh too", POLICY % ("istio-system", f"egress: [{DNS}]"), 503, SIDECAR, codes=DROPPED),
    # "Works from one namespace, 503 from others"
    Row("a DestinationRule in the first client's namespace", TEAM, 503, ("job.team",), sender="job", codes=("MSIM0101",)),
    Row("one in the other's too", TEAM + RULE % "team", 301, ("job.team", f"{GATEWAY}.istio-system"), 1, sender="job"),
    Row("one in the service's", TEAM + RULE % "istio-system", 301, ("job.team", f"{GATEWAY}.istio-system"), 1, sender="job"),
    Row("one in any third namespace", TEAM + RULE % "elsewhere", 503, ("job.team",), sender="job", codes=("MSIM0101", "MSIM0206")),
    # "A config in namespace A captures traffic of B"
    Row("a VirtualService of another team", TEAM + TEAPOT % "", 418, SIDECAR, url=OTHERS, codes=("MSIM0101", "MSIM0212")),
    Row("the same, kept to its namespace", TEAM + TEAPOT % 'exportTo: ["."], ', 200, SIDECAR, url=OTHERS, codes=("MSIM0101",)),
]


def mesh_of(row: Row) -> Mesh:
    files = sorted(f for f in SCENARIO.glob("*.yaml") if f.name not in ("walkthrough.yaml", "outside.yaml"))
    outside = (SCENARIO.parent / "_default" / "outside.yaml").read_text()
    text = "\n---\n".join([*(f.read_text() for f in files), outside])
    return meshsim.load("-", stdin=text + row.more + MESH % row.mode)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
async def test_way_out(row: Row) -> None:
    mesh = mesh_of(row)
    pod = mesh.pod(row.sender)
    source = f"{pod.proxy.name if pod.proxy else pod.name}.{pod.namespace}"
    trace = mesh.simulation().call(Call.url(source, row.url), past_sidecar=row.past)
    assert (ended(trace), tuple(hop.proxy for hop in trace.hops)) == (row.end, row.way)
    assert tuple(f.code for f in analysis.analyze_mesh(mesh) if f.code.startswith("MSIM")) == row.codes
    async with mesh.run() as live:
        seen = await called(live, row)
        assert seen == row.end
        assert await counter(live, GATEWAY, COUNTER) == row.grows
        assert {proxy.name for proxy in live.proxies if proxy.log()} <= set(row.way)


def ended(trace: Trace) -> int | str:
    if trace.status is not None:
        return trace.status
    return "no name" if trace.error == "name does not resolve" else trace.error


async def called(live: LiveMesh, row: Row) -> int | str:
    """The same of a live call."""
    pod = live.pod(row.sender)
    try:
        if not row.past:
            return (await pod.get(row.url, timeout=5 if isinstance(row.end, int) else PATIENCE)).status
        async with asyncio.timeout(PATIENCE):
            connection = await pod.network.connect(Address((await pod.resolve("edition.cnn.com"))[0], 80))
        reader, writer = await asyncio.open_connection(sock=connection.sock)
        writer.write(b"GET /politics HTTP/1.1\r\nHost: edition.cnn.com\r\n\r\n")
        first = await reader.readline()
        writer.close()
        return int(first.split()[1])
    except TimeoutError:
        return "timeout"
    except NameDoesNotResolve:
        return "no name"

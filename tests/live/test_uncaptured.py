"""A pod's `traffic.sidecar.istio.io` annotations: the same connections pass the sidecar by when simulated and on both networks."""

from __future__ import annotations

import asyncio

import pytest

from meshsim.mesh import Mesh
from meshsim.resources import loads
from tests.network.inside import in_namespaces, needs_netns

MESH = """
apiVersion: meshsim.dev/v1alpha1
kind: MeshConfig
metadata: {name: istio}
spec: {accessLogFile: /dev/stdout}
---
apiVersion: v1
kind: Namespace
metadata: {name: default, labels: {istio-injection: enabled}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: sleep}
spec:
  selector: {matchLabels: {app: sleep}}
  template:
    metadata:
      labels: {app: sleep}
      annotations:
        traffic.sidecar.istio.io/excludeOutboundPorts: "8081"
        traffic.sidecar.istio.io/excludeOutboundIPRanges: 203.0.113.0/28,198.51.100.7/32
    spec: {containers: [{name: sleep}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: narrow}
spec:
  selector: {matchLabels: {app: narrow}}
  template:
    metadata:
      labels: {app: narrow}
      annotations:
        traffic.sidecar.istio.io/includeOutboundIPRanges: 203.0.113.0/28
        traffic.sidecar.istio.io/includeOutboundPorts: "8081"
    spec: {containers: [{name: narrow}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata:
      labels: {app: web}
      annotations: {traffic.sidecar.istio.io/excludeInboundPorts: "9090"}
    spec: {containers: [{name: web}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  clusterIP: 10.96.30.1
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}, {name: http-metrics, port: 9090}]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: DISABLE}}
---
apiVersion: meshsim.dev/v1alpha1
kind: ExternalServer
metadata: {name: near}
spec: {hosts: [near.example], addresses: [203.0.113.10], ports: [{port: 80}, {port: 8081}]}
---
apiVersion: meshsim.dev/v1alpha1
kind: ExternalServer
metadata: {name: far}
spec: {hosts: [far.example], addresses: [198.51.100.20], ports: [{port: 80}, {port: 8081}]}
"""

# from, URL -> whether the caller's sidecar and the callee's take part (only a proxy adds these headers)
CALLS = {
    ("sleep", "http://far.example/"): (True, False),
    ("sleep", "http://far.example:8081/"): (False, False),
    ("sleep", "http://near.example/"): (False, False),
    ("narrow", "http://near.example/"): (True, False),
    ("narrow", "http://far.example/"): (False, False),
    ("narrow", "http://far.example:8081/"): (True, False),
    ("sleep", "http://web/"): (True, True),
    ("sleep", "http://web:9090/"): (True, False),
    ("narrow", "http://web/"): (False, True),
    ("narrow", "http://web:9090/"): (False, False),
}

SERVERS = {
    "http://far.example/": "198.51.100.20:80",
    "http://far.example:8081/": "198.51.100.20:8081",
    "http://near.example/": "203.0.113.10:80",
}
"""Where a URL outside leads."""


def mesh() -> Mesh:
    return Mesh(loads(MESH, "mesh.yaml").require())


@pytest.mark.parametrize(("source", "url"), CALLS)
def test_simulated(source: str, url: str) -> None:
    trace = mesh().simulate(source, url)
    assert trace.status == 200
    out, into = CALLS[source, url]
    sidecars = [hop.proxy.partition(".")[0] for hop in trace.hops]
    assert sidecars == [source] * out + ["web"] * into
    assert len(trace.uncaptured) == (not out) + (":9090" in url)
    assert all(": annotation traffic.sidecar.istio.io/" in said and " mesh.yaml:" in said for said in trace.uncaptured)


async def taken_part(network: str) -> dict[tuple[str, str], tuple[bool, bool]]:
    """Which sidecars logged each call on a live mesh; a line tells its call by the addresses that its caller and it alone use."""
    running = mesh().run(network=network)
    web = running.mesh.pod("web").address
    async with running as live:
        logs = {name: live.proxy(name) for name in ("sleep", "narrow", "web")}
        for source, url in CALLS:
            reply = await live.pod(source).get(url)
            assert reply.status == 200, (source, url, reply.body)
    found = {}
    for source, url in CALLS:
        caller, place = running.mesh.pod(source).address, SERVERS.get(url, f"{web}:{9090 if '9090' in url else 8080}")
        out = any(f" {place} " in line or f'"{place}"' in line for line in logs[source].log())
        into = any(f" {place} {caller}:" in line for line in logs["web"].log())
        found[source, url] = (out, into)
    return found


async def test_on_sockets() -> None:
    assert await taken_part("loopback") == CALLS


@needs_netns
def test_in_namespaces() -> None:
    assert in_namespaces(lambda: asyncio.run(taken_part("netns"))) == CALLS

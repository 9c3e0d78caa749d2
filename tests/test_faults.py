"""What goes wrong in a mesh, live and simulated: the same answer, and the log line a person would search for."""

from __future__ import annotations

import asyncio
import signal
import ssl
from pathlib import Path
from typing import NamedTuple

import pytest

import meshsim
from meshsim.members import Separate
from meshsim.mesh import Mesh
from meshsim.resources import loads

SCENARIOS = Path(__file__).parent.parent / "scenarios"
REFUSED = "upstream connect error or disconnect/reset before headers. retried and the latest reset reason: remote connection failure"
REGISTRY_ONLY = """
apiVersion: meshsim.dev/v1alpha1
kind: MeshConfig
metadata: {name: istio}
spec: {accessLogFile: /dev/stdout, outboundTrafficPolicy: {mode: REGISTRY_ONLY}}
"""
UNDECLARED = """
apiVersion: meshsim.dev/v1alpha1
kind: ExternalServer
metadata: {name: other}
spec: {hosts: [other.example], addresses: [192.0.2.50], ports: [{port: 80}, {port: 443, protocol: https}]}
"""
NOBODY_HOME = """
apiVersion: meshsim.dev/v1alpha1
kind: ExternalServer
metadata: {name: cnn}
spec: {hosts: [edition.cnn.com], addresses: [151.101.65.67], ports: [{port: 8081}]}
"""
STALLING = """
apiVersion: meshsim.dev/v1alpha1
kind: ExternalServer
metadata: {name: cnn}
spec: {hosts: [edition.cnn.com], addresses: [151.101.65.67], ports: [{port: 80, answers: [{delay: 30s, body: late}]}]}
"""

LOOP = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: istio-egressgateway}
spec:
  selector: {istio: egressgateway}
  servers: [{port: {number: 443, name: tls, protocol: TLS}, hosts: [edition.cnn.com], tls: {mode: PASSTHROUGH}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: to-itself}
spec:
  hosts: [edition.cnn.com]
  gateways: [mesh, istio-egressgateway]
  tls:
  - match: [{gateways: [mesh, istio-egressgateway], port: 443, sniHosts: [edition.cnn.com]}]
    route: [{destination: {host: istio-egressgateway.istio-system.svc.cluster.local, port: {number: 443}}}]
"""


class Fault(NamedTuple):
    """changed: resources over the scenario's. log: words in one line of each proxy's log."""

    name: str
    changed: str
    url: str
    status: int
    body: str
    log: dict[str, tuple[str, ...]]


FAULTS = [
    Fault(
        "undeclared host, ALLOW_ANY",
        UNDECLARED,
        "http://other.example/x",
        200,
        "",
        {"sleep": ("PassthroughCluster", '"192.0.2.50:80"')},
    ),
    Fault(
        "undeclared host, REGISTRY_ONLY",
        f"{UNDECLARED}---{REGISTRY_ONLY}",
        "http://other.example/x",
        502,
        "",
        {"sleep": (" 502 - direct_response ", "block_all")},
    ),
    Fault(
        "server down",
        NOBODY_HOME,
        "http://edition.cnn.com/politics",
        503,
        REFUSED,
        {"sleep": (" 503 - via_upstream ",), "istio-egressgateway": (" 503 URX,UF ", "|delayed_connect_error:_Connection_refused}")},
    ),
]


def changed(text: str) -> Mesh:
    mesh = meshsim.load(SCENARIOS / "egress-gateway-http")
    over = loads(text).require().resources
    kept = {(r.kind, r.name) for r in over}
    return mesh.changed([*(r for r in mesh.documents.resources if (r.kind, r.name) not in kept), *over])


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.name)
async def test_a_fault_looks_as_envoy_shows_it(fault: Fault) -> None:
    mesh = changed(fault.changed)
    trace = mesh.simulate("sleep", fault.url)
    assert trace.status == fault.status
    if fault.body:
        assert trace.client["body"] == fault.body[:300]
    async with mesh.run() as live:
        reply = await live.pod("sleep").get(fault.url)
        assert reply.status == fault.status
        if fault.body:
            assert reply.text == fault.body
        for pod, words in fault.log.items():
            log = live.proxy(pod).log()
            assert any(all(word in line for word in words) for line in log), log


def test_bytes_that_a_gateway_sends_to_itself_end_in_a_timeout() -> None:
    trace = changed(LOOP).simulate("sleep", "https://edition.cnn.com/")
    assert trace.client == {"tls": {"error": "timeout"}}
    assert 400 < len(trace.hops) < 600


async def test_a_client_in_the_pod_verifies_the_certificates_of_the_outside() -> None:
    mesh = changed(NOBODY_HOME.replace("{port: 8081}", "{port: 443, protocol: https, certificate: {recipe: expired}}"))
    async with mesh.run() as live:
        with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
            await live.pod("sleep").get("https://edition.cnn.com/")


async def test_a_gateway_that_is_killed_in_mid_request_costs_that_request_only() -> None:
    mesh = changed(STALLING)
    async with mesh.run(processes=True) as live:
        pending = asyncio.ensure_future(live.pod("sleep").get("http://edition.cnn.com/politics"))
        while not live.arrivals():
            await asyncio.sleep(0.02)
        gateway = live.proxy("istio-egressgateway")
        assert isinstance(gateway, Separate)
        gateway.process.kill(signal.SIGKILL)
        reply = await pending
        assert reply.status == 503
        assert reply.text.startswith("upstream connect error or disconnect/reset before headers.")
        while not (log := live.proxy("sleep").log()):  # written when the stream ends, which may be after the client has its answer
            await asyncio.sleep(0.02)
        assert '"GET /politics HTTP/1.1" 503 ' in log[0]
    async with mesh.run(processes=True) as live:
        assert live.arrivals() == []

"""python -m meshsim.bench.networks: what pods of real addresses cost, beside Unix sockets in the same run.

How this works: each network is measured in a process of its own, for entering namespaces has no way back, in turns, and the median of the
rounds is printed. `pods` is the time to make the network of three pods, without a proxy; `requests` go over one connection through a
sidecar to a server outside, `connections` are made for one request each.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from meshsim.errors import MeshsimError
from meshsim.ground import ground
from meshsim.mesh import Mesh
from meshsim.network.choice import LOOPBACK, NETNS, enter
from meshsim.network.directory import Capture, Directory
from meshsim.network.namespaces import unavailable
from meshsim.pod import LivePod
from meshsim.processes import python
from meshsim.resources import loads

ROUNDS, REQUESTS, CONNECTIONS = 5, 2000, 300
FIGURES = {"pods": "three pods, ms", "requests": "requests/s", "connections": "connections/s"}
_PODS = ("10.244.1.10", "10.244.1.11", "10.244.0.20")
_HEAD = b"GET / HTTP/1.1\r\nhost: site.example\r\n\r\n"
_MESH = """
apiVersion: v1
kind: Namespace
metadata: {name: default, labels: {istio-injection: enabled}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: sleep}
spec: {selector: {matchLabels: {app: sleep}}, template: {metadata: {labels: {app: sleep}}, spec: {containers: [{name: sleep}]}}}
---
apiVersion: meshsim.dev/v1alpha1
kind: ExternalServer
metadata: {name: site}
spec: {hosts: [site.example], addresses: [203.0.113.10], ports: [{port: 80, answers: [{body: hello}]}]}
"""


async def _pods(network: str) -> float:
    """Milliseconds until three pods, two of them captured, can open connections."""
    with tempfile.TemporaryDirectory(prefix="meshsim-") as folder:
        captured = Capture("0.0.0.0:15001", "0.0.0.0:15006")
        pods = dict(zip(_PODS, (captured, captured, Capture()), strict=True))
        plan = Directory(services={"10.96.10.10:80": ["10.244.0.20:8080"]}, pods=pods)
        begun = time.perf_counter()
        made = ground(network, Path(folder), 0)
        await made.update(plan)
        took = time.perf_counter() - begun
        await made.close()
    return took * 1000


async def _requests(pod: LivePod) -> float:
    reader, writer = await pod.open("site.example", 80)
    begun = time.perf_counter()
    for _ in range(REQUESTS):
        await _exchange(reader, writer)
    took = time.perf_counter() - begun
    writer.close()
    return REQUESTS / took


async def _connections(pod: LivePod) -> float:
    begun = time.perf_counter()
    for _ in range(CONNECTIONS):
        reader, writer = await pod.open("site.example", 80)
        await _exchange(reader, writer)
        writer.close()
    return CONNECTIONS / (time.perf_counter() - begun)


async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(_HEAD)
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(int(length.partition(b":")[2]))


async def _measure(network: str) -> dict[str, float]:
    pods = await _pods(network)
    async with Mesh(loads(_MESH).require()).run(processes=True, network=network) as live:
        pod = live.pod("sleep")
        await _connections(pod)  # warm
        return {"pods": pods, "requests": await _requests(pod), "connections": await _connections(pod)}


def main(arguments: list[str]) -> int:
    """Measure one network and print it as JSON, or without an argument both, as a table."""
    if arguments:
        print(json.dumps(asyncio.run(_measure(enter(arguments[0]).kind))))
        return 0
    missing = unavailable()
    if missing:
        raise MeshsimError(f"nothing to compare: {missing}")
    found: dict[str, list[dict[str, float]]] = {LOOPBACK: [], NETNS: []}
    for _ in range(ROUNDS):
        for network, rounds in found.items():
            done = subprocess.run(python("meshsim.bench.networks", network), stdout=subprocess.PIPE, text=True, check=True)
            rounds.append(json.loads(done.stdout))
    print(f"{'':20}{LOOPBACK:>12}{NETNS:>12}{'ratio':>8}   median of {ROUNDS} interleaved rounds")
    for name, label in FIGURES.items():
        there, here = (statistics.median(r[name] for r in found[network]) for network in (LOOPBACK, NETNS))
        print(f"{label:20}{there:12.0f}{here:12.0f}{here / there if there else 0:8.2f}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except MeshsimError as e:
        sys.exit(f"meshsim: {e}")

"""What is not a ratio to Envoy: start-up, `simulate` calls a second, compile time by size, memory.

The compile curve has its own yardstick: the seconds PyYAML's C loader needs to compose the same text, which is a fixed part of any
answer on the same machine.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import msgspec
import yaml

from meshsim import control, topology, xds
from meshsim.bench.legs import HOST, leg
from meshsim.mesh import Mesh
from meshsim.mesh import load as load_mesh
from meshsim.resources import load
from meshsim.resources.mesh_config import MeshConfig
from meshsim.routing.message import Request
from meshsim.routing.routes import RouteTable
from meshsim.simulate import Call

_RUNS = 3
_MESHES = 10
_SIMULATED = 500
_UPDATES = 5
_LOOKUPS = 2000
_CHANGES = {
    "ServiceEntry": ("resolution: DNS", "resolution: STATIC"),
    "VirtualService": ("timeout: 3s", "timeout: 4s"),
    "DestinationRule": ("maxConnections: 100", "maxConnections: 7"),
}
SIZES, UPDATED = (1000, 2000, 4000, 8000), 2000


class Figure(msgspec.Struct):
    """One number, in `unit`, and how it came about."""

    name: str
    value: float
    unit: str
    note: str = ""


def startup() -> Iterator[Figure]:
    """What a person waits for: the interpreter with this package, and a trace from a shell."""
    scenario = ("trace", "egress-gateway-http", f"http://{HOST}/politics")
    yield Figure("bare interpreter", _process("-c", "pass"), "s", "the share of Python itself")
    yield Figure("import meshsim.mesh", _process("-c", "import meshsim.mesh"), "s", "a process")
    yield Figure("first response", _process("-c", _FIRST), "s", "a process: import, load, a mesh on one loop, one request through two hops")
    yield Figure("meshsim trace", _process("-m", "meshsim", *scenario), "s", "a process: load, compile, simulate, print")


def simulation() -> Figure:
    """Calls of one mesh, sidecar and gateway, a second."""
    mesh = load_mesh("-", stdin=leg("mtls").mesh)
    mesh.simulate("sleep", f"http://{HOST}/")
    best = 0.0
    for _ in range(_RUNS):
        begin = time.perf_counter()
        simulated = mesh.simulation()
        call = _call()
        for _ in range(_SIMULATED):
            simulated.call(call)
        best = max(best, _SIMULATED / (time.perf_counter() - begin))
    return Figure("simulate", best, "calls/s", "sidecar and gateway over mTLS, without reasons")


def in_process() -> Iterator[Figure]:
    """A mesh on one event loop: proxies and the outside built, a request answered, torn down."""

    async def once(mesh: Mesh) -> float:
        begin = time.perf_counter()
        async with mesh.run() as live:
            await live.pod("sleep").get(f"http://{HOST}/")
        return time.perf_counter() - begin

    for name, way in (("gateway", "plaintext"), ("mtls", "mTLS between the hops")):
        mesh = load_mesh("-", stdin=leg(name).mesh)
        asyncio.run(once(mesh))
        took = min(asyncio.run(once(mesh)) for _ in range(_MESHES))
        yield Figure(f"mesh in one process, {name}", took * 1000, "ms", f"built, one request, torn down; {way}")


def compile_curve(sizes: tuple[int, ...] = SIZES, progress: Callable[[str], None] = lambda _: None) -> Iterator[Figure]:
    """From YAML text to the xds of one sidecar, for N ServiceEntries (two ports), VirtualServices and DestinationRules."""
    for number in sizes:
        progress(f"compile: N = {number}")
        text = resources(number)
        begin = time.perf_counter()
        for _ in yaml.compose_all(text, Loader=yaml.CSafeLoader):
            pass
        composed = time.perf_counter()
        documents = load("-", stdin=text).require()
        loaded = time.perf_counter()
        proxy = topology.Proxy("sleep", ip="10.244.1.10", labels={"app": "sleep"})
        config = control.compile(control.index(documents.resources, MeshConfig()), proxy)
        made = xds.encode(config)
        done = time.perf_counter()
        yardstick = composed - begin
        note = f"{(done - composed) / yardstick:.1f} times composing the text ({yardstick:.2f} s); {len(made) >> 10} KiB of xds"
        yield Figure(f"compile N={number}, reading", loaded - composed, "s", "YAML to resources")
        yield Figure(f"compile N={number}, all", done - composed, "s", note)
        yield Figure(f"route among N={number} hosts", _lookup(config, number), "us", "the host, and the first of its two routes")


def _lookup(config: xds.ProxyConfig, number: int) -> float:
    """Microseconds to find a request's route, host after host."""
    table = RouteTable(next(r for r in config.routes if r.name == "80"))
    requests = [Request("GET", "/api", f"host-{n * 7 % number}.example.com") for n in range(_LOOKUPS)]
    rng = random.Random(0)
    begin = time.perf_counter()
    for request in requests:
        assert table.route(request, rng) is not None
    return (time.perf_counter() - begin) / _LOOKUPS * 1e6


def updates(number: int = UPDATED) -> Iterator[Figure]:
    """From a resource's new YAML to the messages of one sidecar that knows as many hosts, where all else stays (control/memory.py)."""
    mesh, proxy = MeshConfig(), topology.Proxy("sleep", ip="10.244.1.10", labels={"app": "sleep"})
    current = load("-", stdin=resources(number)).require().resources
    index = control.index(current, mesh)
    whole = time.perf_counter()
    control.compile(index, proxy)
    whole = time.perf_counter() - whole
    taken: dict[str, list[float]] = {kind: [] for kind in _CHANGES}
    for turn in range(_UPDATES):
        for kind, (before, after) in _CHANGES.items():
            text = next(t for t in _RESOURCES.format(n=turn).split("---") if f"kind: {kind}" in t).replace(before, after)
            begin = time.perf_counter()
            (changed,) = load("-", stdin=text).require().resources
            place = next(i for i, r in enumerate(current) if r.id == changed.id)
            changed.order = current[place].order
            current = [*current[:place], changed, *current[place + 1 :]]
            index = control.index(current, mesh, after=index)
            control.compile(index, proxy)
            taken[kind].append(time.perf_counter() - begin)
    for kind, times in taken.items():
        note = f"one {kind} of {number} changed; anew it takes {whole * 1000:.0f} ms from an index of everything"
        yield Figure(f"update N={number}, {kind}", statistics.median(times) * 1000, "ms", note)


def resources(number: int) -> str:
    """YAML of as many hosts."""
    return "".join(_RESOURCES.format(n=n) for n in range(number))


_FIRST = f"""
import asyncio
from meshsim.bench.legs import leg
from meshsim.mesh import load

async def main():
    async with load("-", stdin=leg("gateway").mesh).run() as live:
        await live.pod("sleep").get("http://{HOST}/")

asyncio.run(main())
"""

_RESOURCES = """---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: entry-{n}}}
spec:
  hosts: [host-{n}.example.com]
  ports:
  - {{number: 80, name: http, protocol: HTTP}}
  - {{number: 443, name: tls, protocol: TLS}}
  resolution: DNS
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: route-{n}}}
spec:
  hosts: [host-{n}.example.com]
  http:
  - match: [{{uri: {{prefix: /api}}}}]
    timeout: 3s
    route: [{{destination: {{host: host-{n}.example.com, port: {{number: 80}}}}}}]
  - route: [{{destination: {{host: host-{n}.example.com, port: {{number: 80}}}}}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: rule-{n}}}
spec:
  host: host-{n}.example.com
  trafficPolicy:
    connectionPool: {{tcp: {{maxConnections: 100}}}}
    outlierDetection: {{consecutive5xxErrors: 7}}
"""


def _call() -> Call:
    return Call.url("sleep.default", f"http://{HOST}/", "GET", (), b"", None)


def _process(*arguments: str) -> float:
    """The median time of a Python process, in seconds; with compiled modules, as an installed package has them."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    taken = []
    with tempfile.TemporaryDirectory() as folder:
        environment["PYTHONPYCACHEPREFIX"] = folder
        for _ in range(_RUNS + 1):
            begin = time.perf_counter()
            subprocess.run(
                [sys.executable, *arguments], check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            taken.append(time.perf_counter() - begin)
    return statistics.median(taken[1:])

"""What an engine costs before it has anything to do: time to a first response, memory of idle connections and of clusters.

Memory is the proportional share of the sidecar's process, before and after; what is shared with the others of its kind counts in part.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager

from meshsim.bench import engines
from meshsim.bench.figures import Figure
from meshsim.bench.legs import Leg, leg, with_hosts
from meshsim.bench.load import Load
from meshsim.bench.stage import Engine, Stage, memory

STEPS = 3  # of each engine, for a progress bar
CONNECTIONS = 500
CLUSTERS = 1000
_KIB = 1024


async def figures(names: list[str], progress: Callable[[str], None] = lambda _: None) -> list[Figure]:
    """Of each engine by name."""
    out = []
    for name in names:
        progress(f"{name}: first response")
        out.append(await _first_response(name))
        progress(f"{name}: idle connections")
        out.append(await _connections(name))
        progress(f"{name}: clusters")
        out.append(await _clusters(name))
    return out


async def _first_response(name: str) -> Figure:
    async with Stage(leg("gateway")) as stage:
        engine = engines.make(name, stage)
        begin = time.perf_counter()
        try:
            await engine.start()
            await asyncio.to_thread(_ask, engine.load(), ExitStack())
            took = time.perf_counter() - begin
        finally:
            await engine.stop()
    return Figure(f"first response, {name}", took, "s", "two processes of proxies started, one request through both")


async def _connections(name: str) -> Figure:
    async with _started(leg("sidecar"), name) as engine:
        load = engine.load()
        with ExitStack() as opened:
            await asyncio.to_thread(_ask, load, opened)
            before = memory(engine.pids[0])
            for _ in range(CONNECTIONS):
                await asyncio.to_thread(_ask, load, opened)
            grown = memory(engine.pids[0]) - before
    note = f"of {CONNECTIONS} that had one request each; the sidecar"
    return Figure(f"an idle connection, {name}", grown / CONNECTIONS / _KIB, "KiB", note)


async def _clusters(name: str) -> Figure:
    sizes = []
    for number in (0, CLUSTERS):
        async with _started(with_hosts(number), name) as engine:
            sizes.append(memory(engine.pids[0]))
    return Figure(f"{CLUSTERS} clusters, {name}", (sizes[1] - sizes[0]) / _KIB**2, "MiB", "a ServiceEntry of one port each; the sidecar")


@asynccontextmanager
async def _started(leg: Leg, name: str) -> AsyncIterator[Engine]:
    async with Stage(leg) as stage:
        engine = engines.make(name, stage)
        try:
            await engine.start()
            yield engine
        finally:
            await engine.stop()


def _ask(load: Load, opened: ExitStack) -> None:
    """One request on a connection that stays open as long as `opened`."""
    sock = opened.enter_context(socket.socket(socket.AF_UNIX))
    sock.settimeout(10)
    sock.connect(load.path)
    sock.sendall(load.opening + load.request)
    got = b""
    while b"\r\n\r\n" not in got:
        piece = sock.recv(65536)
        if not piece:
            raise ConnectionError("the connection was closed before an answer")
        got += piece

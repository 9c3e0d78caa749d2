"""What `network/base.py` promises, held on every network there is: the proxy cannot tell them apart.

How this works: a `Stage` is one network with four pods, a Service and a site outside. What it hides is what the mesh itself does for a
network (`network/place.py`, `ground.py`): where redirected connections arrive, and who makes the machine agree with the directory.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from meshsim.network import proxy_protocol
from meshsim.network.base import Address, Connection, Listening, Network
from meshsim.network.directory import Capture, Directory, write
from meshsim.network.loopback import LoopbackNetwork
from meshsim.network.netns import NetnsNetwork, Node
from meshsim.resources.interception import Interception
from meshsim.resources.network_policy import Opening, Ports, Wall, Walls
from meshsim.xds.name_table import NameTable
from tests.network.inside import in_namespaces, needs_netns

SLEEP, GATEWAY, PLAIN, WALLED, SITE = "10.244.1.10", "10.244.0.20", "10.244.9.9", "10.244.9.10", "151.101.65.67"
SERVICE, NAMESERVER = "10.96.10.10", "10.96.0.10"
PATIENCE = 5.0


class Stage:
    """One network, made up as the table of journeys has it."""

    network: Network

    def __init__(self, folder: Path):
        self.folder = folder
        self.arrived: asyncio.Queue[tuple[str, Connection]] = asyncio.Queue()
        outbound, inbound = self.entrances()
        passing = Interception(exclude_outbound_ports=[9000], exclude_inbound_ports=[9090])
        self.plan = Directory(
            names={"site.example": [SITE], "*.wild.example": [SITE]},
            services={f"{SERVICE}:80": [f"{GATEWAY}:8080"]},
            pods={
                SLEEP: Capture(str(outbound), str(inbound), passing, NAMESERVER),
                **dict.fromkeys((GATEWAY, PLAIN, WALLED), Capture()),
            },
            walls=Walls(egress={WALLED: Wall(["p"], [Opening([GATEWAY + "/32"], [], [Ports("TCP", 8000, 8080)])])}),
            nameserver=NAMESERVER,
            agents={SLEEP: NameTable({"db.example": ["240.240.0.1"]}, ".default.svc.cluster.local")},
        )
        self.arrange()

    def entrances(self) -> tuple[Address | str, Address | str]:
        """Where the sleep pod's redirected connections arrive."""
        raise NotImplementedError

    def arrange(self) -> None:
        """Make the machine agree with the plan."""
        raise NotImplementedError

    async def close(self) -> None:
        await self.network.close()

    async def open(self) -> None:
        """Everybody who listens."""
        outbound, inbound = self.entrances()
        await self.listen("outbound", outbound, SLEEP)
        await self.listen("inbound", inbound, SLEEP)
        await self.listen("app", Address("127.0.0.1", 80), SLEEP)
        await self.listen("gateway", Address(GATEWAY, 8080), GATEWAY)
        for port in (80, 9000):
            await self.listen("site", Address(SITE, port))

    async def listen(self, name: str, address: Address | str, pod: str = "") -> Listening:
        return await self.network.listen(address, lambda c: self.arrived.put_nowait((name, c)), pod=pod)

    async def next(self) -> tuple[str, Connection]:
        """Who took a connection, with what a sidecar knows of it once it has read a header, where there is one."""
        name, connection = await asyncio.wait_for(self.arrived.get(), PATIENCE)
        if connection.source is None:
            header = proxy_protocol.decode(connection.sock.recv(100))
            assert header is not None
            connection = Connection(connection.sock, header.source, header.destination)
        return name, connection

    async def journey(self, how: str, source: str, destination: str) -> str:
        try:
            there = await asyncio.wait_for(getattr(self.network, how)(source, Address.parse(destination)), 1)
        except OSError as e:
            return type(e).__name__
        name, here = await self.next()
        assert here.source is not None
        for connection in (there, here):
            connection.sock.close()
        return f"{name} {here.source.host} {here.destination}"


class OnSockets(Stage):
    def entrances(self) -> tuple[str, str]:
        return str(self.folder / "out.sock"), str(self.folder / "in.sock")

    def arrange(self) -> None:
        write(self.folder, self.plan)
        self.network = LoopbackNetwork(self.folder)


class InNamespaces(Stage):
    def entrances(self) -> tuple[Address, Address]:
        return Address("0.0.0.0", 15001), Address("0.0.0.0", 15006)

    def arrange(self) -> None:
        write(self.folder, self.plan)
        self._node = Node(self.folder)
        self._node.update(self.plan)
        self.network = NetnsNetwork(self.folder)

    async def close(self) -> None:
        await super().close()
        self._node.close()


# how, from, to -> who took it, the peer it sees, and the destination it sees
JOURNEYS = """
capture 10.244.1.10 151.101.65.67:80 -> outbound 10.244.1.10 151.101.65.67:80
capture 10.244.1.10 10.96.10.10:80 -> outbound 10.244.1.10 10.96.10.10:80
capture 10.244.1.10 203.0.113.9:80 -> outbound 10.244.1.10 203.0.113.9:80
capture 10.244.1.10 151.101.65.67:9000 -> site 10.244.1.10 151.101.65.67:9000
connect 10.244.1.10 151.101.65.67:80 -> site 10.244.1.10 151.101.65.67:80
connect 10.244.1.10 10.96.10.10:80 -> gateway 10.244.1.10 10.244.0.20:8080
connect 10.244.1.10 10.244.1.10:80 -> inbound 10.244.1.10 10.244.1.10:80
connect 10.244.1.10 127.0.0.1:80 -> app 10.244.1.10 127.0.0.1:80
capture 10.244.1.10 127.0.0.1:80 -> app 127.0.0.1 127.0.0.1:80
capture 10.244.1.10 127.0.0.1:81 -> ConnectionRefusedError
capture 10.244.9.9 151.101.65.67:80 -> site 10.244.9.9 151.101.65.67:80
capture 10.244.9.9 10.96.10.10:80 -> gateway 10.244.9.9 10.244.0.20:8080
connect 10.244.0.20 10.244.1.10:80 -> inbound 10.244.0.20 10.244.1.10:80
connect 10.244.0.20 10.244.1.10:9090 -> ConnectionRefusedError
connect 10.244.0.20 203.0.113.9:80 -> ConnectionRefusedError
connect 151.101.65.67 10.244.0.20:8080 -> gateway 151.101.65.67 10.244.0.20:8080
connect 10.244.9.10 10.96.10.10:80 -> gateway 10.244.9.10 10.244.0.20:8080
connect 10.244.9.10 151.101.65.67:80 -> TimeoutError
""".strip()


async def connections_arrive_where_a_cluster_would_take_them(stage: Stage) -> None:
    calls = [line.partition(" -> ")[0].split() for line in JOURNEYS.splitlines()]
    found = [f"{' '.join(call)} -> {await stage.journey(*call)}" for call in calls]
    assert "\n".join(found) == JOURNEYS


async def both_ends_name_each_other_alike(stage: Stage) -> None:
    there = await stage.network.pod(GATEWAY).connect(Address(SITE, 80))
    _, here = await stage.next()
    assert (there.source, there.destination) == (here.source, here.destination)
    assert there.source is not None and there.source.host == GATEWAY and there.source.port > 1024
    assert not there.sock.getblocking() and not here.sock.getblocking()
    _end(there, here)


async def bytes_pass_both_ways_and_a_half_close_is_seen(stage: Stage) -> None:
    loop = asyncio.get_running_loop()
    there = await stage.network.pod(SLEEP).capture(Address(SITE, 80))
    _, here = await stage.next()
    await loop.sock_sendall(there.sock, b"asked")
    assert await asyncio.wait_for(loop.sock_recv(here.sock, 100), PATIENCE) == b"asked"
    there.sock.shutdown(socket.SHUT_WR)
    assert await asyncio.wait_for(loop.sock_recv(here.sock, 100), PATIENCE) == b""
    await loop.sock_sendall(here.sock, b"answered")
    assert await asyncio.wait_for(loop.sock_recv(there.sock, 100), PATIENCE) == b"answered"
    _end(there, here)


async def a_place_has_one_listener_and_a_closed_one_refuses(stage: Stage) -> None:
    first = await stage.listen("first", Address(GATEWAY, 7000), GATEWAY)
    with pytest.raises(OSError, match="in use"):
        await stage.listen("second", Address(GATEWAY, 7000), GATEWAY)
    there = await stage.network.connect(PLAIN, Address(GATEWAY, 7000))
    _, here = await stage.next()
    first.close()
    first.close()
    with pytest.raises(ConnectionRefusedError):
        await stage.network.connect(PLAIN, Address(GATEWAY, 7000))
    await asyncio.get_running_loop().sock_sendall(there.sock, b"x")  # what was given out lives on
    assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(here.sock, 100), PATIENCE) == b"x"
    _end(there, here)
    (await stage.listen("third", Address(GATEWAY, 7000), GATEWAY)).close()


async def loopback_is_each_pod_s_own(stage: Stage) -> None:
    for pod in (GATEWAY, PLAIN):
        await stage.listen(pod, Address("127.0.0.1", 7001), pod)
    for pod in (PLAIN, GATEWAY):
        there = await stage.network.pod(pod).capture(Address("127.0.0.1", 7001))
        name, here = await stage.next()
        assert name == pod
        _end(there, here)
    with pytest.raises(ConnectionRefusedError):
        await stage.network.pod(SLEEP).capture(Address("127.0.0.1", 7001))


async def a_listener_hands_over_while_it_listens(stage: Stage) -> None:
    listening = await stage.listen("old", Address(SITE, 7002))
    listening.accept = lambda c: stage.arrived.put_nowait(("new", c))
    there = await stage.network.connect(PLAIN, Address(SITE, 7002))
    name, here = await stage.next()
    assert name == "new"
    _end(there, here)


async def names_are_looked_up(stage: Stage) -> None:
    network = stage.network
    assert await network.resolve("Site.Example.") == [SITE]
    assert await network.resolve("a.wild.example", source=PLAIN) == [SITE]
    assert await network.resolve("nobody.example") == []
    assert await network.pod(SLEEP).look_up("db.example.default.svc.cluster.local") == ["240.240.0.1"]
    assert await network.pod(SLEEP).look_up("site.example") == [SITE]
    assert await network.pod(SLEEP).resolve("db.example") == []  # the proxy's own question goes past the agent
    assert await network.pod(PLAIN).look_up("db.example") == []


async def questions_to_the_nameserver_reach_the_agent(stage: Stage) -> None:
    await stage.listen("agent", Address("127.0.0.1", 15053), SLEEP)
    there = await stage.network.pod(SLEEP).capture(Address(NAMESERVER, 53))
    name, here = await stage.next()
    assert name == "agent"
    _end(there, here)


def _end(*connections: Connection) -> None:
    for connection in connections:
        connection.sock.close()


Promise = Callable[[Stage], Awaitable[None]]
PROMISES: tuple[Promise, ...] = (
    connections_arrive_where_a_cluster_would_take_them,
    both_ends_name_each_other_alike,
    bytes_pass_both_ways_and_a_half_close_is_seen,
    a_place_has_one_listener_and_a_closed_one_refuses,
    loopback_is_each_pod_s_own,
    a_listener_hands_over_while_it_listens,
    names_are_looked_up,
    questions_to_the_nameserver_reach_the_agent,
)


@contextmanager
def run_folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="msim-", dir="/tmp"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


async def kept(promise: Promise, kind: type[Stage]) -> list[str]:
    """Keep one promise; the descriptors that were left open."""
    with run_folder() as folder:
        before = set(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else set()
        stage = kind(folder)
        await stage.open()
        await promise(stage)
        await stage.close()
        return sorted(set(os.listdir("/proc/self/fd")) - before) if before else []


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
async def test_on_sockets(promise: Promise) -> None:
    assert await kept(promise, OnSockets) == []


@needs_netns
@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
def test_in_namespaces(promise: Promise) -> None:
    assert in_namespaces(lambda: asyncio.run(kept(promise, InNamespaces))) == []

"""A leg's mesh, ready to be measured: its proxies on each engine, the origin behind them, and the clocks of their processes.

How this works: `Stage` loads and compiles the mesh once and starts the origin; `Engine` places the same configuration for its own
proxies (their pipes and addresses differ, nothing else does) and starts them. Everything of an engine is pinned to the first core, client
and origin to the last.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from meshsim import envoy, xds
from meshsim.bench import member, origin
from meshsim.bench.flat import Flat, Unreachable
from meshsim.bench.legs import Leg
from meshsim.bench.load import ENDLESS, NUMBER, Load
from meshsim.envoy import EnvoyProcess
from meshsim.errors import MeshsimError
from meshsim.identity import Workload
from meshsim.mesh import Mesh, PodPlace, load
from meshsim.network import place, proxy_protocol
from meshsim.network.base import Address
from meshsim.network.place import Site
from meshsim.network.secrets import Identity, SecretFiles
from meshsim.processes import Process, python
from meshsim.resources.external_server import Presented
from meshsim.run_folder import RunFolder
from meshsim.world.certificates import Authorities

ASYNCIO, ENVOY, H11, PLAIN_LOOP = "asyncio", "envoy", "asyncio-h11", "asyncio-plainloop"
ENGINES = {
    ASYNCIO: "asyncio processes: uvloop, httptools",
    H11: "asyncio processes: uvloop, h11",
    PLAIN_LOOP: "asyncio processes: asyncio's own loop, httptools",
    ENVOY: "real Envoy processes, --concurrency 1",
}
SOURCE_PORT = 40000  # of the application, as the PROXY header of a captured connection says


def cores() -> tuple[set[int], set[int]]:
    """The core of the proxies, and that of client and origin; the same one where there is only one, nothing where pinning is unknown."""
    if not hasattr(os, "sched_getaffinity"):
        return set(), set()
    usable = sorted(os.sched_getaffinity(0))
    return {usable[0]}, {usable[-1]}


def pinned(to: set[int]) -> Callable[[], None] | None:
    """For a child process to run before its program starts."""
    if not to:
        return None

    def prepare() -> None:
        os.sched_setaffinity(0, to)

    return prepare


def cpu_seconds(pid: int) -> float:
    """What a process and its threads have used so far; 0 where /proc is missing."""
    total = 0.0
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            total += int((task / "schedstat").read_text().split()[0]) / 1e9
        except OSError:
            continue
    return total


def memory(pid: int) -> int:
    """Bytes of a process' proportional share of memory; 0 where /proc is missing."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


class Stage:
    """A leg's mesh without its proxies. To be entered with `async with`."""

    def __init__(self, leg: Leg):
        self.leg = leg
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Stage:
        if sys.platform != "linux":
            raise MeshsimError("the bench needs Linux: its clocks, its epoll, and all of 127.0.0.0/8")
        run = RunFolder()
        self._stack.callback(run.remove)
        self.folder = run.path
        self.mesh: Mesh = load(*self.leg.sources) if self.leg.sources else load("-", stdin=self.leg.mesh)
        self.flat = Flat(self.mesh.names, self.mesh.services)
        self.authorities = Authorities(self.folder / "ca")
        self.origin = Process(
            "origin", python("meshsim.bench.origin", str(self.folder / "origin")), self.folder / "origin", prepare=pinned(cores()[1])
        )
        try:
            self._write_origin()
            self._stack.push_async_callback(self.origin.stop)
            await self.origin.start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def _write_origin(self) -> None:
        folder = self.folder / "origin"
        ports, names = [], []
        for server in self.mesh.external_servers:
            names += server.hosts
            for port in server.ports:
                for address in server.addresses:
                    host, number = self.flat.place(address, port.port)
                    speaks = "bytes" if self.leg.tls and port.is_tls else port.protocol
                    ports.append(origin.Port(host, number, speaks if speaks in ("http", "https") else "bytes"))
        chain, key = folder / "chain.pem", folder / "key.pem"
        folder.mkdir(mode=0o700)
        self.authorities.issue(Presented(tuple(names), "public")).write(chain, key)
        origin.write(folder, origin.Origin(ports, str(chain), str(key)))

    def direct(self) -> Load:
        """The leg's call, past all proxies."""
        host, port = self.flat.place(self._destination.host, self._destination.port)
        return self._load(host=host, port=port)

    def captured(self, pipe: str) -> Load:
        """The leg's call as the pod's application makes it, through the sidecar behind that pipe."""
        source = Address(self.mesh.pod(self.leg.caller).address, SOURCE_PORT)
        return self._load(path=pipe, opening=proxy_protocol.encode(source, self._destination))

    @property
    def _destination(self) -> Address:
        found = self.mesh.names.get(self.leg.host)
        if not found:
            raise Unreachable(f"nothing is known of {self.leg.host}; the mesh needs an ExternalServer of that name")
        return Address(found[0], self.leg.port)

    def _load(self, **place: object) -> Load:
        leg, host = self.leg, self.leg.host
        if leg.tls:
            request = client_hello(host, bulk=leg.bulk)
            answer = ENDLESS if leg.bulk else len(origin.ANSWER)
        else:
            query = f"?{NUMBER.decode()}" if leg.unlike else ""
            request, answer = f"GET /{leg.body}{query} HTTP/1.1\r\nhost: {host}\r\nuser-agent: bench\r\naccept: */*\r\n\r\n".encode(), 0
        return msgspec.structs.replace(Load(request=request, answer=answer, connections=leg.connections, fresh=leg.fresh), **place)


class Engine(ABC):
    """A leg's proxies on one engine."""

    def __init__(self, name: str, stage: Stage):
        self.name, self.stage = name, stage
        self.folder = stage.folder / name
        self.flat = stage.flat.another()
        self._sites: dict[str, Site] = {}

    def place(self) -> None:
        """Put every proxy's configuration where its process finds it."""
        for pod in self._pods():
            site = self._site(pod)
            config: xds.ProxyConfig = place.place(self.stage.mesh.config(pod.proxy), site)  # type: ignore[arg-type]  # _pods has those with a proxy
            self.flat.rehouse(config)
            place.write(config, site)
            self._sites[pod.address] = site

    @property
    def pipe(self) -> str:
        """Where the calling pod's sidecar takes its connections."""
        return self._sites[self.stage.mesh.pod(self.stage.leg.caller).address].outbound

    @abstractmethod
    async def start(self) -> None: ...

    @abstractmethod
    async def stop(self) -> None: ...

    @property
    @abstractmethod
    def pids(self) -> list[int]:
        """Its processes, the calling pod's sidecar first."""

    def _pods(self) -> Iterator[PodPlace]:
        pods = [p for p in self.stage.mesh.pods if p.proxy]
        return iter(sorted(pods, key=lambda p: p.is_gateway))

    def _site(self, pod: PodPlace) -> Site:
        assert pod.proxy is not None
        home = self.folder / str(len(self._sites))
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        mesh = self.stage.mesh
        files = Workload(self.stage.authorities["mesh"], pod.proxy.identity(mesh.mesh_config.trust_domain), home / "certs").files
        public = self.stage.authorities.root_file("public")
        identity = Identity(files.chain, files.key, files.root)
        secrets = SecretFiles(home / "secrets", pod.namespace, identity, lambda path: public if path == "system" else None, mesh.secrets)
        return Site(home, pod.address, secrets, is_gateway=pod.is_gateway)


class AsyncioEngine(Engine):
    """profile: each process leaves one in its folder."""

    def __init__(self, name: str, stage: Stage, *, loop: str = "uvloop", codec: str = "httptools", profile: bool = False):
        super().__init__(name, stage)
        self._settings = member.Settings("", loop, codec, profile)
        self._processes: list[Process] = []

    async def start(self) -> None:
        self.place()
        for address, site in self._sites.items():
            settings = msgspec.structs.replace(self._settings, address=self.flat.host(address))
            (site.folder / member.FILE).write_bytes(msgspec.json.encode(settings))
            command = python("meshsim.bench.member", str(site.folder))
            self._processes.append(Process(f"{self.name} {address}", command, site.folder, prepare=pinned(cores()[0])))
        await asyncio.gather(*(p.start() for p in self._processes))

    async def stop(self) -> None:
        await asyncio.gather(*(p.stop() for p in self._processes))

    @property
    def pids(self) -> list[int]:
        return [p.pid for p in self._processes]

    @property
    def profiles(self) -> list[Path]:
        return [site.folder / member.PROFILE for site in self._sites.values()]


class EnvoyEngine(Engine):
    def __init__(self, name: str, stage: Stage):
        super().__init__(name, stage)
        self._processes: list[EnvoyProcess] = []

    async def start(self) -> None:
        self.place()
        for address, site in self._sites.items():
            flat = Site(site.folder, self.flat.host(address), site.secrets, site.is_gateway)
            self._processes.append(EnvoyProcess(flat, self.name, "default", enter=pinned(cores()[0])))
        await asyncio.gather(*(p.start() for p in self._processes))

    async def stop(self) -> None:
        await asyncio.gather(*(p.stop() for p in self._processes))

    @property
    def pids(self) -> list[int]:
        return [p.pid for p in self._processes]


def make(name: str, stage: Stage, *, profile: bool = False) -> Engine:
    """An engine by name. Raises EnvoyUnavailable, KeyError."""
    if name == ENVOY:
        envoy.binary()
        return EnvoyEngine(name, stage)
    kinds = {ASYNCIO: ("uvloop", "httptools"), H11: ("uvloop", "h11"), PLAIN_LOOP: ("asyncio", "httptools")}
    loop, codec = kinds[name]
    return AsyncioEngine(name, stage, loop=loop, codec=codec, profile=profile)


def client_hello(name: str, *, bulk: bool = False) -> bytes:
    """The first bytes of a TLS client that asks for `name`. No handshake follows: what is passed through is not looked at.

    bulk: the session id says so, for the origin to see.
    """
    outgoing = ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    session = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    try:
        session.do_handshake()
    except ssl.SSLWantReadError:
        pass
    hello = outgoing.read()
    if bulk:
        at = 5 + 4 + 2 + 32 + 1  # record header, handshake header, version, random, length of the session id
        hello = hello[:at] + origin.BULK + hello[at + len(origin.BULK) :]
    return hello

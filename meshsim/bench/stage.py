"""A leg's mesh without its proxies, ready to be measured: compiled once, its origin started; and the clocks of processes.

How this works: everything that stands between client and origin is pinned to the first core, client and origin to the last, so that neither
side takes the other's time.
"""

from __future__ import annotations

import contextlib
import os
import ssl
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from meshsim.bench import origin
from meshsim.bench.flat import Flat, Unreachable
from meshsim.bench.legs import Leg
from meshsim.bench.load import ENDLESS, NUMBER, Load
from meshsim.errors import MeshsimError
from meshsim.mesh import Mesh, load
from meshsim.network import proxy_protocol
from meshsim.network.base import Address
from meshsim.processes import Process, python
from meshsim.resources.external_server import Presented
from meshsim.run_folder import RunFolder
from meshsim.world.certificates import Authorities

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
    return _rolled_up(pid, "Pss:")


def own_memory(pid: int) -> int:
    """Bytes of a process' memory that no file is behind: unlike its share, it does not change when others come and go."""
    return _rolled_up(pid, "Anonymous:")


def _rolled_up(pid: int, name: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def peak(pid: int) -> int:
    """Bytes of memory that a process had at most since `forget_peak`, pages shared with others among them; 0 where /proc is missing."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def forget_peak(pid: int) -> None:
    """Let the peak of a process' memory begin anew."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/clear_refs").write_text("5")


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

    def entered(self, host: str, port: int) -> Load:
        """The leg's call as someone outside the mesh makes it, over TLS to a gateway."""
        return self._load(host=host, port=port, tls=self.leg.host, sealed=self.leg.body == ENDLESS)

    @property
    def _destination(self) -> Address:
        found = self.mesh.names.get(self.leg.host)
        if not found:
            raise Unreachable(f"nothing is known of {self.leg.host}; the mesh needs an ExternalServer of that name")
        return Address(found[0], self.leg.port)

    def _load(self, **place: object) -> Load:
        leg, host = self.leg, self.leg.host
        if leg.tls:
            request, answer = client_hello(host, leg.body if leg.bulk else 0), leg.body if leg.bulk else len(origin.ANSWER)
        else:
            query = f"?{NUMBER.decode()}" if leg.unlike else ""
            request, answer = f"GET /{leg.body}{query} HTTP/1.1\r\nhost: {host}\r\nuser-agent: bench\r\naccept: */*\r\n\r\n".encode(), 0
        load = Load(request=request, answer=answer, connections=leg.connections, fresh=leg.fresh, requests=leg.requests)
        return msgspec.structs.replace(load, **place)

    def between(self) -> str:
        """What the hops of the call say to each other, by its trace: `HTTP/1.1 in TLSv1.3`. Empty where there is one hop."""
        scheme, usual = ("https", 443) if self.leg.tls else ("http", 80)
        port = "" if self.leg.port == usual else f":{self.leg.port}"
        legs = [hop.leg for hop in self.mesh.simulate(self.leg.caller, f"{scheme}://{self.leg.host}{port}/").hops if hop.leg]
        said = [f"{wire.protocol} in {wire.tls}" if wire.tls else wire.protocol for wire in legs[:-1]]
        return ", ".join(said) + (" (the client's TLS inside)" if said and self.leg.tls else "")


class Engine(ABC):
    """What stands between client and origin, in processes of its own."""

    name: str

    @abstractmethod
    def load(self) -> Load:
        """The leg's call through it."""

    @abstractmethod
    async def start(self) -> None: ...

    @abstractmethod
    async def stop(self) -> None: ...

    @property
    @abstractmethod
    def pids(self) -> list[int]:
        """Its processes, the calling pod's sidecar first."""


def client_hello(name: str, bulk: int = 0) -> bytes:
    """The first bytes of a TLS client that asks for `name`. No handshake follows: what is passed through is not looked at.

    bulk: bytes to be answered; the session id says so, for the origin to see.
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
        asked = origin.BULK + bulk.to_bytes(8, "big")
        hello = hello[:at] + asked + hello[at + len(asked) :]
    return hello

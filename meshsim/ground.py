"""What a live mesh stands on: the network it is given, kept up to date with its directory, and the way into a pod on it.

How this works: a `Ground` makes the machine agree with the directory: on Unix sockets that is the directory file and a SOCKS server
per pod; in namespaces it is the kernel's wires and redirects, and programs that are started inside a pod's
namespace with the pod's own /etc/resolv.conf and /etc/hosts.
"""

from __future__ import annotations

import asyncio
import random
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path

from meshsim.errors import MeshsimError
from meshsim.network import directory, dns, namespaces
from meshsim.network.base import Address, Listening
from meshsim.network.choice import NETNS
from meshsim.network.loopback import LoopbackNetwork
from meshsim.network.netns import NetnsNetwork, Node
from meshsim.network.socks import SocksServer
from meshsim.pod import LivePod

_DATAGRAM = b"meshsim"
LOOKUP_PATIENCE = 10.0  # seconds until glibc's resolver gives a name up: two questions of five
_NO_PACKETS = "a pod has no packets on the loopback network, where connections are Unix sockets; start the mesh with --network netns"
DATAGRAM_PATIENCE = 0.5  # seconds for a datagram to cross this machine
_OWN = ("resolv.conf", "hosts")
_MS_BIND = namespaces.MS_BIND


class Ground(ABC):
    """The network of one live mesh. Closed by `close`, also after a start that failed half way."""

    network: LoopbackNetwork | NetnsNetwork
    pipes: bool
    """Whether redirected connections arrive at pipes, with a PROXY header; else at ports, as the kernel redirects them."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._dns: dict[tuple[str, Address], tuple[Listening, dns.Server]] = {}

    async def update(self, plan: directory.Directory) -> None:
        """Make the network as the plan says, or change it to another plan. Names are looked up in its pods of the cluster's DNS; pods whose
        DNS is captured have an agent (network/dns.py), which is no part of the proxy, as Istio's is none of Envoy."""
        self._arrange(plan)
        wanted = {(pod, Address(pod, dns.DNS_PORT)): dns.authority(self._in_cluster) for pod in plan.dns}
        wanted |= {(pod, dns.AGENT): self._agent(pod).reply for pod in plan.agents}
        for place in self._dns.keys() - wanted.keys():
            await self._end_dns(place)
        for place in wanted.keys() - self._dns.keys():
            pod, address = place
            server = dns.Server(wanted[place], self._datagrams(pod, address))
            self._dns[place] = await self.network.listen(address, server.accept, pod=pod), server

    def _in_cluster(self, name: str) -> list[str]:
        return self.network.directory.resolve(name)

    def _agent(self, pod: str) -> dns.Agent:
        rng = random.Random(f"{self._seed} dns {pod}")
        return dns.Agent(lambda: self.network.directory.agents.get(pod), lambda query: self._ask(pod, query), rng)

    async def _end_dns(self, place: tuple[str, Address]) -> None:
        listening, server = self._dns.pop(place)
        listening.close()
        await server.close()

    @abstractmethod
    def _arrange(self, plan: directory.Directory) -> None:
        """Make the machine agree with the plan."""

    @abstractmethod
    def _datagrams(self, pod: str, address: Address) -> socket.socket | None:
        """Where a server in a pod takes datagrams, where pods have any."""

    @abstractmethod
    async def _ask(self, pod: str, query: bytes) -> bytes | None:
        """The reply of the cluster's DNS to a query of a pod's agent; None where there is none in time."""

    @abstractmethod
    async def open_pod(self, pod: LivePod, files: Callable[[], Mapping[str, Path]]) -> None:
        """Make a way for programs into a pod. `files`: what they find below /etc, asked for where the network can show them that."""

    @abstractmethod
    def entrance(self, address: str) -> Callable[[], None]:
        """What a child process does before it becomes a program in an open pod. Raises MeshsimError where there is no such thing."""

    @abstractmethod
    def tap(self, address: str) -> socket.socket:
        """A packet socket that hears everything in a pod. Raises MeshsimError where pods have no packets."""

    @abstractmethod
    async def arrives(self, pod: str, destination: Address) -> bool:
        """Whether a datagram that a pod sends to an address of the world gets there. Raises MeshsimError where pods have no packets."""

    async def close(self) -> None:
        for place in list(self._dns):
            await self._end_dns(place)


def ground(kind: str, folder: Path, seed: int) -> Ground:
    """The ground of that kind (network/choice.py) in a run folder."""
    return InNamespaces(folder, seed) if kind == NETNS else OnSockets(folder, seed)


class OnSockets(Ground):
    """Unix sockets in the run folder."""

    pipes = True

    def __init__(self, folder: Path, seed: int):
        super().__init__(seed)
        self._folder = folder
        self.network = LoopbackNetwork(folder, seed=seed)
        self._doors: list[SocksServer] = []

    def _arrange(self, plan: directory.Directory) -> None:
        directory.write(self._folder, plan)

    def _datagrams(self, pod: str, address: Address) -> None:
        return None

    async def _ask(self, pod: str, query: bytes) -> bytes | None:
        if self.network.directory.walls.blocking_dns(pod):
            await asyncio.sleep(dns.PATIENCE)
            return None
        return dns.answer(query, self._in_cluster)

    async def open_pod(self, pod: LivePod, files: Callable[[], Mapping[str, Path]]) -> None:
        async def look_up(host: str) -> list[str]:
            found = await pod.resolve(host)
            if not found and self.network.directory.walls.blocking_dns(pod.network.address):
                await asyncio.sleep(LOOKUP_PATIENCE)  # what is dropped is never answered
            return found

        door = SocksServer(pod.network.capture, look_up)
        self._doors.append(door)
        pod.socks = await door.start()

    def entrance(self, address: str) -> Callable[[], None]:
        raise MeshsimError("on the loopback network no program can be in a pod; start the mesh with --network netns")

    def tap(self, address: str) -> socket.socket:
        raise MeshsimError(_NO_PACKETS)

    async def arrives(self, pod: str, destination: Address) -> bool:
        raise MeshsimError(_NO_PACKETS)

    async def close(self) -> None:
        await super().close()
        for door in self._doors:
            await door.close()
        await self.network.close()


class InNamespaces(Ground):
    """A network namespace for each pod; this process is the node, and must have entered its own namespaces before."""

    pipes = False

    def __init__(self, folder: Path, seed: int):
        super().__init__(seed)
        self._folder = folder
        self._node = Node(folder)
        self._entrances: dict[str, Callable[[], None]] = {}
        self._netns = self.network = NetnsNetwork(folder)

    def _arrange(self, plan: directory.Directory) -> None:
        directory.write(self._folder, plan)
        self._node.update(plan)

    def _datagrams(self, pod: str, address: Address) -> socket.socket:
        return self._netns.datagrams(address, pod=pod)

    async def _ask(self, pod: str, query: bytes) -> bytes | None:
        loop = asyncio.get_running_loop()
        try:
            with self._netns.datagrams(Address(pod), pod=pod, mark=True) as sock:
                sock.connect((self._netns.directory.nameserver, dns.DNS_PORT))
                await loop.sock_sendall(sock, query)
                return await asyncio.wait_for(loop.sock_recv(sock, dns.MAX_QUERY), dns.PATIENCE)
        except OSError:  # no answer in time, or nobody there
            return None

    async def open_pod(self, pod: LivePod, files: Callable[[], Mapping[str, Path]]) -> None:
        etc = self._folder / "etc" / pod.network.address
        etc.mkdir(mode=0o700, parents=True, exist_ok=True)
        search = " ".join(suffix.lstrip(".") for suffix in pod.search)
        (etc / "resolv.conf").write_text(f"search {search}\nnameserver {self._netns.directory.nameserver}\noptions ndots:5\n")
        (etc / "hosts").write_text(f"127.0.0.1 localhost\n{pod.network.address} {pod.name}\n")
        shown = files()
        for name in shown:
            (etc / name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            (etc / name).touch(mode=0o600)
        pod.enter = self._entrances[pod.network.address] = entrance(self._netns.namespace(pod.network.address), etc, shown)

    def entrance(self, address: str) -> Callable[[], None]:
        return self._entrances[address]

    def tap(self, address: str) -> socket.socket:
        return self._netns.tap(address)

    async def arrives(self, pod: str, destination: Address) -> bool:
        with self._netns.datagrams(destination) as there, self._netns.datagrams(Address(pod, 0), pod=pod) as here:
            here.sendto(_DATAGRAM, destination)
            try:
                received = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(there, len(_DATAGRAM)), DATAGRAM_PATIENCE)
            except TimeoutError:
                return False
        return received == _DATAGRAM

    async def close(self) -> None:
        await super().close()
        await self.network.close()
        self._node.close()


def entrance(where: namespaces.Namespace, etc: Path, files: Mapping[str, Path]) -> Callable[[], None]:
    """What a child does before it becomes a program in a pod. files: what it finds below /etc, beside what the folder `etc` has.

    The pod's /etc lies over the machine's, which stays as it is. A kernel that does not let a user lay one folder over another
    (Linux before 5.11) shows the pod's resolv.conf and hosts only.
    """

    def enter() -> None:
        namespaces.end_with_parent()
        where.enter()
        namespaces.unshare_mounts()
        try:
            namespaces.mount("overlay", "/etc", "overlay", data=f"lowerdir={etc}:/etc")
            for name, file in files.items():
                namespaces.mount(str(file), f"/etc/{name}", flags=_MS_BIND)
        except OSError:
            for name in _OWN:
                if Path("/etc", name).exists():
                    namespaces.mount(str(etc / name), f"/etc/{name}", flags=_MS_BIND)

    return enter

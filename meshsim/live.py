"""A mesh alive on this machine: its proxies, the outside, and a way into every pod.

How this works: a run folder holds everything (run_folder.py). Each proxy gets a home in it with its certificate, its secrets
and its placed xds (network/place.py); the directory file tells every process the names, ClusterIPs and captured pods. Proxies and
the outside run on this event loop, or as a process each (members.py); the SOCKS server of every pod runs here. A change is written in
the same order as the start: names first, then the outside, then each proxy, so that what is referred to is there first.

Leaving the context ends everything and removes the folder, whatever happened inside.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any as Json

import msgspec

from meshsim import cluster, kube_system, xds
from meshsim.errors import MeshsimError
from meshsim.ground import ground
from meshsim.identity import Authority
from meshsim.members import APPLICATION_ADDRESS, Enveloped, InProcess, Member, Separate
from meshsim.mesh import ASYNCIO, ENGINES, ENVOY, Mesh, PodPlace, UnknownPod
from meshsim.network import directory
from meshsim.network.admin_door import AdminDoor
from meshsim.network.base import Address
from meshsim.network.choice import LOOPBACK, NETNS
from meshsim.pod import LivePod
from meshsim.processes import Process, pilot_agent, python, tcpdump
from meshsim.processes import world as world_process
from meshsim.processes.proxy import ADMIN
from meshsim.processes.world import Application, Outside
from meshsim.resources.external_server import ExternalServerSpec
from meshsim.resources.interception import Interception
from meshsim.rollout import in_order
from meshsim.run_folder import RunFolder
from meshsim.world import World
from meshsim.world.certificates import Authorities
from meshsim.xds.name_table import NameTable, name_table

ANY_ADDRESS = "0.0.0.0"  # where it does if the pod's annotations lead connections past the sidecar
CURL_PATIENCE = 3  # seconds for a connection, in a mesh where packets are dropped
_ROTATION_CHECK = 30.0  # seconds between looks at the age of certificates


class LiveMesh:
    """A running mesh; made by `Mesh.run`, entered with `async with`.

    processes: each proxy and the outside as an OS process of its own, else everything on this event loop.
    seed: of every random choice. cacerts: a folder with the files of Istio's `cacerts` secret, for the mesh's CA.
    network: `loopback`, or `netns` in a program that has entered namespaces (network/choice.py). engine: what its proxies are; a real
    Envoy is always a process, and needs netns.
    Raises MeshsimError when it is entered with an engine that there is not, or not on this network.
    """

    def __init__(
        self,
        mesh: Mesh,
        *,
        processes: bool = False,
        seed: int = 0,
        cacerts: Path | None = None,
        network: str = LOOPBACK,
        engine: str = ASYNCIO,
    ):
        self._engine = engine
        self.mesh, self._processes, self._seed, self._cacerts, self._network_kind = mesh, processes, seed, cacerts, network
        self._stack = AsyncExitStack()
        self._members: dict[str, Member] = {}
        self._pods: dict[str, LivePod] = {}
        self._doors: dict[str, AdminDoor] = {}
        self._world: World | Process | None = None

    async def __aenter__(self) -> LiveMesh:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._stack.aclose()

    # What a user asks ----------------------------------------------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self._run.path

    @property
    def roots(self) -> Path:
        """The certificates that clients of the outside trust, as a PEM file."""
        return self._authorities.root_file("public")

    def pod(self, name: str) -> LivePod:
        """A pod, named as for `Mesh.pod`. Raises UnknownPod."""
        return self._pods[self.mesh.pod(name).address]

    def proxy(self, name: str) -> Member:
        """The proxy of a pod, named as for `Mesh.pod`. Raises UnknownPod."""
        place = self.mesh.pod(name)
        if place.address not in self._members:
            raise UnknownPod(f"pod {place.namespace}/{place.name} has no proxy")
        return self._members[place.address]

    @property
    def proxies(self) -> list[Member]:
        return list(self._members.values())

    def tap(self, name: str) -> socket.socket:
        """A packet socket in a pod, named as for `Mesh.pod` (network/packets.py). Raises UnknownPod, MeshsimError on loopback."""
        return self._ground.tap(self.mesh.pod(name).address)

    async def arrives(self, name: str, address: str, port: int) -> bool:
        """Whether a datagram from a pod gets to an address outside. Raises UnknownPod, MeshsimError on loopback."""
        return await self._ground.arrives(self.mesh.pod(name).address, Address(address, port))

    def arrivals(self) -> list[dict[str, Json]]:
        """What external servers and applications received so far, oldest first."""
        if isinstance(self._world, World):
            return list(self._world.arrivals)
        with contextlib.suppress(FileNotFoundError), open(self.folder / world_process.ARRIVALS) as lines:
            return [msgspec.json.decode(line) for line in lines if line.endswith("\n")]
        return []

    async def apply(self, mesh: Mesh) -> None:
        """Change to another mesh while requests are in flight; pods that stay keep their connections.

        It is everywhere when this returns. New proxies are there before others hear of them, and old ones go when nobody does any more.
        Raises what loading or compiling raises, before anything has changed.
        """
        compiled = {p.proxy.ip: mesh.config(p.proxy) for p in mesh.pods if p.proxy}
        before = {p.proxy.ip: self.mesh.config(p.proxy) for p in self.mesh.pods if p.proxy}
        self.mesh = mesh
        fresh = [p for p in mesh.pods if p.proxy and p.address not in self._members]
        for place in fresh:
            self._add_member(place)
        await self._ground.update(self._plan())
        await self._update_world()
        for place in fresh:
            await self._configure(self._members[place.address], compiled[place.address])
            await self._open_pod(place)
        await asyncio.gather(*(self._members[p.address].start() for p in fresh))
        stays = compiled.keys() - {p.address for p in fresh}
        changes = {address: (before.get(address), compiled[address]) for address in compiled if address in stays}
        for address in in_order({a: self._members[a].proxy for a in changes}, changes):
            await self._configure(self._members[address], compiled[address])
        for address in self._members.keys() - compiled.keys():
            await self._members.pop(address).stop()
        for address in self._pods.keys() - {p.address for p in mesh.pods}:
            del self._pods[address]
            if address in self._doors:
                await self._doors.pop(address).close()
        for pod in mesh.pods:
            if pod.address not in self._pods:
                await self._open_pod(pod)
        self._limit_patience()

    # Start ---------------------------------------------------------------------------------------------------------------------------

    async def _start(self) -> None:
        self._check_engine()
        compiled = {p.address: self.mesh.config(p.proxy) for p in self.mesh.pods if p.proxy}
        self._run = RunFolder(brief=not self._processes and self._engine == ASYNCIO)
        self._stack.callback(self._run.remove)
        self._ground = ground(self._network_kind, self.folder, self._seed)
        self._stack.push_async_callback(self._ground.close)
        self._network = self._ground.network
        self._authorities = Authorities(self.folder / world_process.CA, shared=self._processes)
        if self._cacerts is not None:
            self._authorities.adopt("mesh", Authority.from_cacerts(self._cacerts))
        for pod in self.mesh.pods:
            if pod.proxy:
                self._add_member(pod)
        await self._ground.update(self._plan())
        self._stack.push_async_callback(self._stop_members)
        await self._start_world()
        for address, config in compiled.items():
            await self._configure(self._members[address], config)
        for pod in self.mesh.pods:
            await self._open_pod(pod)
        await asyncio.gather(*(member.start() for member in self._members.values()))
        self._limit_patience()
        rotation = asyncio.ensure_future(self._rotate())
        self._stack.callback(rotation.cancel)

    def _check_engine(self) -> None:
        if self._engine not in ENGINES:
            raise MeshsimError(f"there is no engine {self._engine!r}; there are {' and '.join(ENGINES)}")
        if self._engine == ENVOY and self._network_kind != NETNS:
            raise MeshsimError("the engine envoy needs pods with addresses of their own: --network netns (docs/pods.md)")
        if self._engine == ENVOY and self._agents():
            raise MeshsimError(
                "the engine envoy with DNS capture: an Envoy looks names up where its pod does, and would get the addresses that the"
                " pod's DNS agent made up; run it without ISTIO_META_DNS_CAPTURE, or with the engine asyncio"
            )

    def _add_member(self, pod: PodPlace) -> None:
        assert pod.proxy is not None
        home = self.folder / f"{pod.proxy.name}.{pod.namespace}"
        kind = Enveloped if self._engine == ENVOY else Separate if self._processes else InProcess
        trust_domain = self.mesh.mesh_config.trust_domain
        self._members[pod.address] = kind(pod.proxy, home, self._ground, self._authorities, trust_domain, self._seed)

    async def _configure(self, member: Member, config: xds.ProxyConfig) -> None:
        issued = {name: self._authorities.secret(spec) for name, spec in self.mesh.issued_secrets.items()}
        await member.configure(config, self.mesh.secrets | issued, self.mesh.mounts.get(member.site.address, ()))

    def _plan(self) -> directory.Directory:
        mesh = self.mesh
        nameserver = next(iter(mesh.names.get(kube_system.NAME, ())), "")
        agents = self._agents()
        pods = {p.address: directory.Capture() for p in mesh.pods}
        for address, member in self._members.items():
            if member.proxy.is_sidecar:
                taken = mesh.interceptions.get(address, Interception())
                captured = nameserver if address in agents else ""
                pods[address] = directory.Capture(member.site.outbound, member.site.inbound, taken, captured)
        return directory.Directory(
            names=mesh.names,
            services=mesh.services,
            pods=pods,
            walls=mesh.walls,
            datagrams=mesh.datagrams,
            dns=mesh.dns,
            nameserver=nameserver,
            agents=agents,
        )

    def _agents(self) -> dict[str, NameTable]:
        """By address, what the DNS agents of pods answer themselves, where their sidecars ask for one."""
        taking = [p.proxy for p in self.mesh.pods if p.proxy and p.proxy.is_sidecar and p.proxy.dns_capture]
        return {p.ip: name_table(self.mesh.config(p).name_table, p.namespace, cluster.search_order(p.namespace)[0]) for p in taking}

    async def _start_world(self) -> None:
        outside = self._outside()
        if self._processes:
            world_process.write(self.folder, outside)
            process = Process("world", python("meshsim.processes.world", str(self.folder)), self.folder / "world")
            self._stack.push_async_callback(process.stop)
            self._world = process
            await process.start()
        else:
            world = World(self._network, outside.servers, self._authorities)
            self._stack.push_async_callback(world.close)
            self._world = world
            await world.start()
            await world.update_applications(outside.places())

    async def _update_world(self) -> None:
        outside = self._outside()
        if isinstance(self._world, Process):
            world_process.write(self.folder, outside)
            await self._world.tell("update")
        elif self._world is not None:
            await self._world.update(outside.servers)
            await self._world.update_applications(outside.places())

    def _outside(self) -> Outside:
        """External servers, and the applications inside pods."""
        mesh = self.mesh
        servers = [*mesh.external_servers, *mesh.applications(with_proxy=False).values()]
        inside = [Application(pod, self._listens(pod, server), server) for pod, server in mesh.applications(with_proxy=True).items()]
        return Outside(servers, inside)

    def _listens(self, pod: str, server: ExternalServerSpec) -> str:
        """The address of an application. On sockets its port in the pod is one place, whoever comes."""
        taken = self.mesh.interceptions.get(pod)
        past = taken is not None and any(taken.passes_in(port.port) for port in server.ports)
        return ANY_ADDRESS if past and not self._ground.pipes else APPLICATION_ADDRESS

    async def _open_pod(self, pod: PodPlace) -> None:
        inside = self._network.pod(pod.address)
        member = self._members.get(pod.address)
        tools = partial(self._install, self.folder / "bin" / pod.address, member)
        live = LivePod(pod.app, pod.namespace, inside, lambda: self.roots, cluster.search_order(pod.namespace), tools)
        await self._ground.open_pod(live, lambda: member.identity_files if member else {})
        if member:
            door = AdminDoor(self._network, pod.address, member.home / ADMIN)
            self._stack.push_async_callback(door.close)
            await door.open()
            self._doors[pod.address] = door
        self._pods[pod.address] = live

    def _install(self, folder: Path, member: Member | None) -> Path:
        """The programs of a pod."""
        if member:
            pilot_agent.install(folder, member.home / ADMIN)
        return folder if self._ground.pipes else tcpdump.install(folder)

    def _limit_patience(self) -> None:
        """Where packets are dropped, a pod's curl waits seconds instead of minutes."""
        home = self.folder / "curl"
        home.mkdir(mode=0o700, exist_ok=True)
        (home / ".curlrc").write_text(f"connect-timeout = {CURL_PATIENCE}\n")
        for pod in self._pods.values():
            pod.curl_home = home if self.mesh.walls.any else None

    async def _stop_members(self) -> None:
        await asyncio.gather(*(member.stop() for member in self._members.values()))

    async def _rotate(self) -> None:
        """Renew certificates at half their life."""
        while True:
            await asyncio.sleep(_ROTATION_CHECK)
            for member in self._members.values():
                if member.is_due:
                    await member.renew()

"""What stands between client and origin: a leg's proxies on either engine, or one of each, or an anchor in their place.

How this works: `Proxies` places the stage's configuration for its own processes (their pipes and addresses differ, nothing else does) and
starts them, sidecars of one kind and gateways of the same or another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import msgspec

from meshsim import envoy, xds
from meshsim.bench import member
from meshsim.bench.anchors import ANCHORS, Anchor
from meshsim.bench.legs import Leg
from meshsim.bench.load import Load
from meshsim.bench.stage import Engine, Stage, cores, pinned
from meshsim.envoy import EnvoyProcess
from meshsim.errors import MeshsimError
from meshsim.identity import Workload
from meshsim.mesh import PodPlace
from meshsim.network import place
from meshsim.network.place import Site
from meshsim.network.secrets import Identity, SecretFiles
from meshsim.processes import Process, python
from meshsim.xds.tls import UpstreamTlsContext

ASYNCIO, ENVOY, H11, PLAIN_LOOP = "asyncio", "envoy", "asyncio-h11", "asyncio-plainloop"
MIXED = "+"  # between the kind of the sidecars and that of the gateways
ENGINES = {
    ASYNCIO: "asyncio processes: uvloop, httptools",
    H11: "asyncio processes: uvloop, h11",
    PLAIN_LOOP: "asyncio processes: asyncio's own loop, httptools",
    ENVOY: "real Envoy processes, --concurrency 1",
    **{name: anchor.words for name, anchor in ANCHORS.items()},
}


class Running(Protocol):
    """A proxy's process."""

    @property
    def pid(self) -> int: ...
    async def start(self) -> None: ...
    async def stop(self) -> None: ...


Kind = Callable[["Proxies", Site], Running]
"""Makes the process of one proxy whose placed configuration is in the site's folder."""


class Proxies(Engine):
    """A leg's proxies: each sidecar of one kind, each gateway of one, which may be another."""

    def __init__(self, name: str, stage: Stage, sidecar: Kind, gateway: Kind):
        self.name, self.stage = name, stage
        self.folder = stage.folder / name
        self.flat = stage.flat.another()
        self._kinds = {False: sidecar, True: gateway}
        self._sites: dict[str, Site] = {}
        self._processes: list[Running] = []

    def place(self) -> None:
        """Put every proxy's configuration where its process finds it."""
        for pod in self._pods():
            site = self._site(pod)
            config: xds.ProxyConfig = place.place(self.stage.mesh.config(pod.proxy), site)  # type: ignore[arg-type]  # _pods has those with a proxy
            config = self.flat.rehouse(config)
            if self.stage.leg.unresumed:
                _forget_sessions(config)
            place.write(config, site)
            self._sites[pod.address] = site

    def load(self) -> Load:
        if self.stage.leg.entry:
            gateway = next(address for address, site in self._sites.items() if site.is_gateway)
            return self.stage.entered(*self.flat.place(gateway, self.stage.leg.entry))
        return self.stage.captured(self._sites[self.stage.mesh.pod(self.stage.leg.caller).address].outbound)

    async def start(self) -> None:
        self.place()
        self._processes = [self._kinds[site.is_gateway](self, site) for site in self._sites.values()]
        await asyncio.gather(*(p.start() for p in self._processes))

    async def stop(self) -> None:
        await asyncio.gather(*(p.stop() for p in self._processes))

    @property
    def pids(self) -> list[int]:
        return [p.pid for p in self._processes]

    @property
    def profiles(self) -> list[Path]:
        """What its asyncio processes leave, if they are told to."""
        return [site.folder / member.PROFILE for site in self._sites.values()]

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
        given = {**mesh.secrets, **{name: self.stage.authorities.secret(spec) for name, spec in mesh.issued_secrets.items()}}
        secrets = SecretFiles(home / "secrets", pod.namespace, lambda: identity, lambda path: public if path == "system" else None, given)
        return Site(home, pod.address, secrets, is_gateway=pod.is_gateway)


def _forget_sessions(config: xds.ProxyConfig) -> None:
    """Have a proxy begin each connection with a full handshake, which no field of Istio's asks for."""
    for cluster in config.clusters:
        for socket in (cluster.transport_socket, *(match.transport_socket for match in cluster.transport_socket_matches)):
            if socket is not None and isinstance(socket.typed_config, UpstreamTlsContext):
                socket.typed_config.max_session_keys = 0


def _asyncio(loop: str, codec: str, *, profile: bool = False) -> Kind:
    """profile: each process leaves one in its folder."""

    def make(engine: Proxies, site: Site) -> Process:
        settings = member.Settings(engine.flat.host(site.address), loop, codec, profile)
        (site.folder / member.FILE).write_bytes(msgspec.json.encode(settings))
        command = python("meshsim.bench.member", str(site.folder))
        return Process(f"{engine.name} {site.address}", command, site.folder, prepare=pinned(cores()[0]))

    return make


def _envoy(engine: Proxies, site: Site) -> EnvoyProcess:
    flat = Site(site.folder, engine.flat.host(site.address), site.secrets, site.is_gateway)
    return EnvoyProcess(flat, engine.name, "default", enter=pinned(cores()[0]))


def make(name: str, stage: Stage, *, profile: bool = False) -> Engine:
    """An engine by name, `SIDECAR+GATEWAY` for two kinds. Raises EnvoyUnavailable, MeshsimError for a name there is none of."""
    check(name)
    if name in ANCHORS:
        return Anchor(name, stage)
    kinds: dict[str, Kind] = {
        ASYNCIO: _asyncio("uvloop", "httptools", profile=profile),
        H11: _asyncio("uvloop", "h11", profile=profile),
        PLAIN_LOOP: _asyncio("asyncio", "httptools", profile=profile),
        ENVOY: _envoy,
    }
    sidecar, _, gateway = name.partition(MIXED)
    if ENVOY in (sidecar, gateway):
        envoy.binary()
    return Proxies(name, stage, kinds[sidecar], kinds[gateway or sidecar])


def check(name: str) -> None:
    """Raises MeshsimError for a name there is no engine of."""
    parts = [name] if name in ANCHORS else name.split(MIXED, 1)
    for part in parts:
        if part not in ENGINES or (part in ANCHORS and name != part):
            raise MeshsimError(f"no engine {name!r}; there are: {', '.join(ENGINES)}, and A+B for sidecars of A and gateways of B")


def serves(name: str, leg: Leg) -> bool:
    """Whether an engine can stand in for a leg's proxies."""
    return name not in ANCHORS or leg.anchored

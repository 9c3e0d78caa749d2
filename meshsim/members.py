"""The proxies of a live mesh: an object on this event loop, a process, or an Envoy; the same folder, certificate and configuration for all.

How this works: a member's home folder holds its certificate (certs/), once something asks for it, and the Secrets it may see (secrets/).
`configure` places a compiled configuration for it: the process finds that as files in its home too, and watches them; the object is told.
`renew` does the same for a certificate.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from meshsim import topology, xds
from meshsim.cluster import SecretMount, mounted
from meshsim.envoy import EnvoyProcess
from meshsim.ground import Ground
from meshsim.identity import Workload, issue_files, write_private
from meshsim.network import place
from meshsim.network.netfilter import MARK
from meshsim.network.secrets import Identity, KubernetesSecrets, SecretFiles
from meshsim.processes import Process, python
from meshsim.processes import proxy as proxy_process
from meshsim.proxy.proxy import Proxy
from meshsim.world.certificates import Authorities

APPLICATION_ADDRESS = "127.0.0.1"  # where an application behind a sidecar listens, in its own pod
# Where Istio has put a workload's own certificate in its pod, over the years.
_IDENTITY_FOLDERS = ("/etc/certs/", "/var/run/secrets/workload-spiffe-credentials/")


class Member(ABC):
    """One proxy: start it, tell it what to do, read what it says."""

    _is_told_of_application = False
    """Whether it must be told where its pod's application listens."""

    def __init__(
        self, proxy: topology.Proxy, home: Path, ground: Ground, authorities: Authorities, trust_domain: str, seed: int
    ):
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.proxy, self.home, self.network, self.seed = proxy, home, ground.network, seed
        self._pipes, self._ground = ground.pipes, ground
        self._authorities, self._trust_domain = authorities, trust_domain
        self._workload: Workload | None = None
        self._config = xds.ProxyConfig()
        self._kubernetes: KubernetesSecrets = {}
        self._mounts: Sequence[SecretMount] = ()
        self.site = self._site()
        self.placed = xds.ProxyConfig()

    @property
    def workload(self) -> Workload:
        """Its certificate, issued when it is first asked for: nothing asks where nobody speaks TLS."""
        if self._workload is None:
            self._workload = Workload(self._authorities["mesh"], self.proxy.identity(self._trust_domain), self.home / "certs")
        return self._workload

    @property
    def is_due(self) -> bool:
        """Whether it has a certificate that should be renewed."""
        return self._workload is not None and self._workload.is_due

    @property
    def identity_files(self) -> dict[str, Path]:
        """Its certificate, key and the mesh's roots, by where older Istio has them below /etc of its pod."""
        files = self.workload.files
        return {"certs/cert-chain.pem": files.chain, "certs/key.pem": files.key, "certs/root-cert.pem": files.root}

    @property
    def name(self) -> str:
        return f"{self.proxy.name}.{self.proxy.namespace}"

    async def configure(self, config: xds.ProxyConfig, kubernetes: KubernetesSecrets, mounts: Sequence[SecretMount] = ()) -> None:
        """What it is told from now on, the Secrets of the cluster, and those of them that are files in its pod."""
        self._config, self._kubernetes, self._mounts = config, kubernetes, mounts
        self.site = self._site()
        self.placed = place.place(config, self.site)
        await self._on_placed()

    async def renew(self) -> None:
        """Issue its certificate again; connections that are open keep the old one."""
        self.workload.renew()
        await self.configure(self._config, self._kubernetes, self._mounts)

    @abstractmethod
    async def start(self) -> None: ...

    @abstractmethod
    async def stop(self) -> None: ...

    @abstractmethod
    def log(self) -> list[str]:
        """The lines of its access log on standard output so far."""

    @abstractmethod
    async def admin(self, path: str, method: str = "GET") -> str:
        """A page of its admin interface, such as `/stats?filter=upstream_cx_total`."""

    @abstractmethod
    async def _on_placed(self) -> None:
        """There is a new configuration in `placed`."""

    def _site(self) -> place.Site:
        secrets = SecretFiles(self.home / "secrets", self.proxy.namespace, self._identity, self._pod_file, self._kubernetes)
        application = APPLICATION_ADDRESS if self._is_told_of_application and self.proxy.is_sidecar else ""
        return place.Site(self.home, self.proxy.ip, secrets, not self.proxy.is_sidecar, application, self._pipes)

    def _identity(self) -> Identity:
        files = self.workload.files
        return Identity(files.chain, files.key, files.root)

    def _pod_file(self, path: str) -> Path | None:
        if path == "system":
            return self._authorities.root_file("public")
        for folder in _IDENTITY_FOLDERS:
            name = path.removeprefix(folder)
            if name != path:
                return self.identity_files.get(f"certs/{name}")
        secret, key = mounted(self._mounts, path) or (("", ""), "")
        data = self._kubernetes.get(secret, {}).get(key)
        if data is None:
            return None
        file = self.home / "mounts" / quote(path, safe="")
        file.parent.mkdir(mode=0o700, exist_ok=True)
        write_private(file, data)
        return file


class InProcess(Member):
    """A proxy on this event loop."""

    _running: Proxy | None = None

    async def start(self) -> None:
        self._lines: list[str] = []
        inside = self.network.pod(self.site.address)
        self._running = Proxy(self.placed, inside, seed=self.seed, stdout=self._lines.append, make_files=lambda: self.workload)
        await self._running.start()
        await self._running.serve_admin(str(self.home / proxy_process.ADMIN))

    async def stop(self) -> None:
        if self._running is not None:
            await self._running.close()

    def log(self) -> list[str]:
        return list(self._lines)

    async def admin(self, path: str, method: str = "GET") -> str:
        assert self._running is not None
        return self._running.admin(path, method)

    def _identity(self) -> Identity:
        """Where its certificate is, or will be when it first needs one."""
        return super()._identity() if self._workload else Identity(*issue_files(self.home / "certs"))

    async def _on_placed(self) -> None:
        if self._running is not None:
            await self._running.update(self.placed)


class _Child(Member):
    """A proxy that is a process: its home holds what it printed."""

    def log(self) -> list[str]:
        try:
            return (self.home / "stdout").read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return []


class Separate(_Child):
    """A proxy in a process of its own."""

    _process: Process | None = None

    @property
    def process(self) -> Process:
        assert self._process is not None
        return self._process

    async def _on_placed(self) -> None:
        place.write(self.placed, self.site)
        if self._process is not None:
            await self._process.tell("update")

    async def start(self) -> None:
        home = proxy_process.Home(self.name, self.site.address, str(self.network.folder), self.seed)
        proxy_process.write(self.home, home)
        self._process = Process(self.name, python("meshsim.processes.proxy", str(self.home)), self.home)
        await self._process.start()

    async def stop(self) -> None:
        if self._process is not None:
            await self._process.stop()

    async def admin(self, path: str, method: str = "GET") -> str:
        reader, writer = await asyncio.open_unix_connection(str(self.home / proxy_process.ADMIN))
        try:
            writer.write(f"{method} {path} HTTP/1.0\r\nhost: admin\r\n\r\n".encode())
            return (await reader.read()).partition(b"\r\n\r\n")[2].decode()
        finally:
            writer.close()


class Enveloped(_Child):
    """A real Envoy in its pod's namespace, on the same configuration."""

    _is_told_of_application = True
    _process: EnvoyProcess | None = None

    async def _on_placed(self) -> None:
        place.write(self.placed, self.site)

    async def start(self) -> None:
        enter = self._ground.entrance(self.site.address)
        self._process = EnvoyProcess(self.site, self.proxy.name, self.proxy.namespace, enter=enter, mark=MARK)
        await self._process.start()

    async def stop(self) -> None:
        if self._process is not None:
            await self._process.stop()

    async def admin(self, path: str, method: str = "GET") -> str:
        assert self._process is not None
        return (await self._process.admin(path, method)).decode()

"""The asyncio engine of the golden replay: a case's calls on live proxies, all on one event loop.

How this works: the proxies of a case get their placed configuration, the world of the case listens, and each call is made in
turn. A call has ended when nothing is under way any more: every proxy and the world report `busy` 0 for several turns of the loop,
in which whatever was still in a socket has been taken up. Nobody sleeps, and a result does not depend on the machine's speed.

On the network of namespaces all cases of a process share one node, whose pods are those of every case so far: what a case changes is
which of them are captured and where Services lead.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any as Json

from meshsim import xds
from meshsim.network import directory
from meshsim.network.base import Network
from meshsim.network.place import Site, place
from meshsim.proxy.proxy import Proxy
from meshsim.resources.external_server import Place
from meshsim.resources.interception import Interception
from meshsim.routing.access_log import record
from meshsim.routing.entry import Entry
from meshsim.world import World
from tests.golden import client, outcome, world
from tests.golden.machines import Machine, machine

QUIET_TURNS = 12  # of the event loop: longer than any chain of tasks that carries bytes from one socket to the next
SETTLE_LIMIT = 1.0  # seconds; what still runs then (a peer that never answers) belongs to no call
POLL = 0.002  # seconds between looks while something takes its time
SEED = 1
RECORDER_ADDRESS = "127.0.0.1"  # how every proxy of the recorder named itself


class LiveCase:
    """One case on live proxies.

    proxies: the case's, as full entries. configs: what each is sent. dns: the base's and the case's names together. kind: of the network
    (machines.py).
    """

    def __init__(
        self,
        spec: Mapping[str, Json],
        resources: list[Mapping[str, Json]],
        proxies: Sequence[Mapping[str, Json]],
        dns: Mapping[str, list[str]],
        configs: Mapping[str, xds.ProxyConfig],
        certificates: world.Certificates,
        kind: str,
    ):
        self._spec, self._resources, self._proxies, self._dns = spec, resources, proxies, dns
        self._configs, self._certificates, self._kind = configs, certificates, kind
        self._names = world.names(dns, resources)
        self._secrets = world.secret_data(resources)
        self._lines: list[tuple[float, dict[str, Json]]] = []

    async def run(self) -> list[dict[str, Json]]:
        """The outcome of every call, in order and in the recorded form."""
        async with AsyncExitStack() as stack:
            folder = Path(tempfile.mkdtemp(prefix="msim-", dir="/tmp"))
            stack.callback(shutil.rmtree, folder)
            ground = machine(self._kind, folder)
            stack.push_async_callback(ground.network.close)
            sites = {p["name"]: self._site(folder, n, p, ground.pipes) for n, p in enumerate(self._proxies)}
            ground.update(self._directory(sites))
            outside = await self._start_world(ground.network, sites, stack)
            started = [await self._start_proxy(ground.network, p, sites[p["name"]], stack) for p in self._proxies]
            self._running = [proxy for proxy in started if proxy is not None]
            return [await self._call(call, ground, outside) for call in self._spec["calls"]]

    def _site(self, folder: Path, number: int, proxy: Mapping[str, Json], pipes: bool) -> Site:
        home = folder / str(number)  # short: its pipes are Unix sockets
        home.mkdir(mode=0o700)
        return Site(
            folder=home,
            address=proxy["ip"],
            secrets=self._certificates.secrets(proxy, home / "secrets", self._secrets),
            is_gateway=proxy["type"] == "router",
            application=world.application_address(number),
            pipes=pipes,
        )

    def _directory(self, sites: Mapping[str, Site]) -> directory.Directory:
        pods = {}
        for proxy in self._proxies:
            site, ports = sites[proxy["name"]], world.inbound_ports(self._configs[proxy["name"]])
            taken = Interception(include_inbound_ports=ports)
            pods[site.address] = directory.Capture() if site.is_gateway else directory.Capture(site.outbound, site.inbound, taken)
        return directory.Directory(names=self._names, services=world.services(self._resources), pods=pods)

    async def _start_world(self, network: Network, sites: Mapping[str, Site], stack: AsyncExitStack) -> World:
        roots = [data["ca.crt"].decode() for data in self._secrets.values() if "ca.crt" in data]
        servers = world.external_servers(self._dns, self._spec.get("servers") or [], roots)
        outside = World(network, servers, self._certificates.authorities)
        stack.push_async_callback(outside.close)
        await outside.start()
        applications: list[tuple[str, Place]] = []
        for proxy in self._proxies:
            site = sites[proxy["name"]]
            if not site.is_gateway:
                server = world.application(proxy["name"], world.inbound_ports(self._configs[proxy["name"]]))
                applications += [(site.address, Place(site.application, port, server)) for port in server.ports]
        await outside.update_applications(applications)
        return outside

    async def _start_proxy(
        self, network: Network, proxy: Mapping[str, Json], site: Site, stack: AsyncExitStack
    ) -> Proxy | None:
        """Start a proxy whose entries go to `_lines`."""
        name, fields = proxy["name"], record(outcome.LOG_FORMAT)

        def on_log(entry: Entry) -> None:
            self._lines.append((entry.start, {"proxy": name, **fields(entry)}))

        placed = place(self._configs[name], site)
        running = Proxy(placed, network.pod(site.address), seed=SEED, on_log=on_log, stdout=_ignore, local_address=RECORDER_ADDRESS)
        stack.push_async_callback(running.close)
        await running.start()
        return running

    async def _call(self, call: Mapping[str, Json], ground: Machine, outside: World) -> dict[str, Json]:
        """One call, to its end."""
        caller = next(p for p in self._proxies if p["name"] == call["from"])
        captured = world.captured_names(self._configs[caller["name"]])
        resolve = world.resolver(caller["namespace"], self._names, captured)
        self._lines.clear()
        outside.take()
        began = time.time()
        seen = await client.make_call(call, partial(ground.redirect, caller["ip"]), resolve, self._certificates.roots)
        await self._settle(outside)
        own = [pair for pair in self._lines if pair[0] >= began]  # not what an earlier call (a loop) left running
        lines = [line for _, line in sorted(own, key=lambda pair: pair[0])]
        return outcome.call(call["name"], seen, lines, outside.take())


    async def _settle(self, outside: World) -> None:
        """Return when nothing is under way any more."""
        loop = asyncio.get_running_loop()
        limit = loop.time() + SETTLE_LIMIT
        quiet = 0
        while quiet < QUIET_TURNS and loop.time() < limit:
            await asyncio.sleep(0 if quiet or loop.time() < limit - SETTLE_LIMIT + 0.01 else POLL)
            quiet = 0 if outside.busy or any(proxy.busy for proxy in self._running) else quiet + 1


def _ignore(_: str) -> None:
    """Where the lines go that a case's own loggers print; every entry is heard of anyway."""

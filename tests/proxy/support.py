"""One proxy between a client and a host that both speak raw bytes, on a network of its own."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any as Json

import msgspec

from meshsim import xds
from meshsim.network import directory
from meshsim.network.base import Address, Connection
from meshsim.network.loopback import LoopbackNetwork
from meshsim.proxy.proxy import Proxy
from meshsim.routing.entry import Entry

T = "type.googleapis.com/envoy."
CLIENT, PROXY, HOST = "10.0.0.2", Address("10.0.0.1", 8080), Address("10.9.9.9", 80)
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Bench:
    """Use as an async context. entries, lines: what the proxy logged. Hosts and clients are closed with it."""

    def __init__(self, config: dict[str, Json], *, seed: int = 0, clock: Callable[[], float] = time.time):
        self.config, self._seed, self._clock = msgspec.convert(config, xds.ProxyConfig), seed, clock
        self.entries: list[Entry] = []
        self.lines: list[str] = []
        self._stack = AsyncExitStack()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Bench:
        self.folder = Path(tempfile.mkdtemp(prefix="mp-", dir="/tmp"))
        self._stack.callback(shutil.rmtree, self.folder)
        directory.write(self.folder, directory.Directory())
        self.network = LoopbackNetwork(self.folder)
        self._stack.push_async_callback(self.network.close)
        self._stack.push_async_callback(self._end_tasks)
        self.proxy = Proxy(
            self.config,
            self.network.pod(PROXY.host),
            on_log=self.entries.append,
            stdout=self.lines.append,
            seed=self._seed,
            clock=self._clock,
        )
        self._stack.push_async_callback(self.proxy.close)
        await self.proxy.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()
        await asyncio.sleep(0)

    async def host(self, talk: Talk, address: Address = HOST) -> None:
        """Serve connections at an address; `talk` has each, and its end closes it."""

        async def serve(connection: Connection) -> None:
            reader, writer = await asyncio.open_connection(sock=connection.sock)
            try:
                await talk(reader, writer)
            except ConnectionError:
                pass
            finally:
                writer.close()

        def accept(connection: Connection) -> None:
            task = asyncio.ensure_future(serve(connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        await self.network.listen(address, accept)

    async def client(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to the proxy."""
        connection = await self.network.connect(CLIENT, PROXY)
        reader, writer = await asyncio.open_connection(sock=connection.sock, limit=2**22)
        self._stack.callback(writer.close)
        return reader, writer

    async def ask(self, data: bytes) -> bytes:
        """What a new connection answers to these bytes, until it ends; the request must ask for that."""
        reader, writer = await self.client()
        writer.write(data)
        return await asyncio.wait_for(reader.read(), 10)

    async def idle(self) -> None:
        """Return when nothing is under way in the proxy."""
        async with asyncio.timeout(10):
            while self.proxy.busy:
                await asyncio.sleep(0.001)

    async def _end_tasks(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A host that answers every request without a body with "ok"."""
    while await _head(reader):
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""


def http(routes: list[dict[str, Json]] | None = None, clusters: list[dict[str, Json]] | None = None, **manager: Json) -> dict[str, Json]:
    """A proxy with one connection manager; `/` goes to cluster `up` unless `routes` say otherwise."""
    routes = [*(routes or []), {"match": {"prefix": "/"}, "route": {"cluster": "up"}}]
    config = {
        "@type": T + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "test",
        "route_config": {"name": "rc", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [{"name": "router", "typed_config": {"@type": T + "extensions.filters.http.router.v3.Router"}}],
        **manager,
    }
    return listening({"filters": [{"name": "http", "typed_config": config}]}, clusters)


def tcp(clusters: list[dict[str, Json]] | None = None, inspectors: tuple[str, ...] = (), **proxy: Json) -> dict[str, Json]:
    """A proxy that relays bytes to cluster `up`; inspectors: `tls`, `http`."""
    config = {"@type": T + "extensions.filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix": "test", "cluster": "up", **proxy}
    listener_filters = [
        {"name": i, "typed_config": {"@type": T + f"extensions.filters.listener.{i}_inspector.v3.{i.title()}Inspector"}} for i in inspectors
    ]
    return listening({"filters": [{"name": "tcp", "typed_config": config}]}, clusters, listener_filters=listener_filters)


def listening(chain: dict[str, Json], clusters: list[dict[str, Json]] | None = None, **listener: Json) -> dict[str, Json]:
    address = {"socket_address": {"address": PROXY.host, "port_value": PROXY.port}}
    return {"listeners": [{"name": "in", "address": address, "filter_chains": [chain], **listener}], "clusters": clusters or [cluster()]}


def cluster(name: str = "up", *, http2: bool = False, host: Address = HOST, **more: Json) -> dict[str, Json]:
    """A static cluster of one host."""
    endpoint = {"endpoint": {"address": {"socket_address": {"address": host.host, "port_value": host.port}}}}
    options: Json = {"explicit_http_config": {"http2_protocol_options" if http2 else "http_protocol_options": {}}}
    options["common_http_protocol_options"] = more.pop("common", None)
    kind = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    return {
        "name": name,
        "type": "STATIC",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "typed_extension_protocol_options": {kind: {"@type": "type.googleapis.com/" + kind, **options}},
        **more,
    }

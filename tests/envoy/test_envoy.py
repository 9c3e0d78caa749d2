"""The same folder on a real Envoy: it starts, takes a captured connection through a pipe, follows a renamed file, and ends."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from meshsim import envoy, xds
from meshsim.envoy import EnvoyProcess, EnvoyUnavailable
from meshsim.network import place, proxy_protocol
from meshsim.network.base import Address
from tests.envoy.needed import NEEDS_ENVOY

pytestmark = NEEDS_ENVOY

T = "type.googleapis.com/"
FILTERS = T + "envoy.extensions.filters."


def config(status: int) -> xds.ProxyConfig:
    """A sidecar as istiod would compile one for port 80: a direct answer by route, everything else passes through."""
    through = [
        {
            "name": "tcp",
            "typed_config": {"@type": FILTERS + "network.tcp_proxy.v3.TcpProxy", "stat_prefix": "p", "cluster": "PassthroughCluster"},
        }
    ]
    manager = {
        "name": "hcm",
        "typed_config": {
            "@type": FILTERS + "network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "outbound_0.0.0.0_80",
            "rds": {"route_config_name": "80", "config_source": {"ads": {}}},
            "http_filters": [
                {"name": "stats", "typed_config": {"@type": T + "udpa.type.v1.TypedStruct", "type_url": T + "stats.PluginConfig"}},
                {"name": "router", "typed_config": {"@type": FILTERS + "http.router.v3.Router"}},
            ],
        },
    }
    answer = {"match": {"prefix": "/"}, "direct_response": {"status": status, "body": {"inline_string": "said"}}}
    return xds.decode(
        json.dumps(
            {
                "listeners": [
                    {
                        "name": "virtualOutbound",
                        "address": {"socket_address": {"address": "0.0.0.0", "port_value": 15001}},
                        "use_original_dst": True,
                        "filter_chains": [{"filters": through}],
                    },
                    {
                        "name": "0.0.0.0_80",
                        "address": {"socket_address": {"address": "0.0.0.0", "port_value": 80}},
                        "bind_to_port": False,
                        "filter_chains": [{"filters": [manager]}],
                    },
                ],
                "clusters": [
                    {"name": "PassthroughCluster", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED", "connect_timeout": "1s"}
                ],
                "routes": [{"name": "80", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [answer]}]}],
            }
        )
    )


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="msim-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@asynccontextmanager
async def running(folder: Path, compiled: xds.ProxyConfig) -> AsyncIterator[tuple[EnvoyProcess, place.Site]]:
    site = place.Site(folder, "127.0.0.1", lambda name: None)
    place.write(place.place(compiled, site), site)
    process = EnvoyProcess(site, "sleep", "default")
    await process.start()
    try:
        yield process, site
    finally:
        await process.stop()
        await process.stop()


async def ask(site: place.Site, destination: Address, data: bytes) -> bytes:
    """What a captured connection gets."""
    reader, writer = await asyncio.open_unix_connection(site.outbound)
    writer.write(proxy_protocol.encode(Address("10.244.1.10", 40000), destination) + data)
    try:
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()


GET = b"GET / HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n"


async def test_a_captured_connection_is_handed_over_by_its_original_destination(folder: Path) -> None:
    server = await asyncio.start_server(_greet, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    async with running(folder, config(418)) as (process, site):
        reply = await ask(site, Address("203.0.113.9", 80), GET)
        assert reply.startswith(b"HTTP/1.1 418 ") and reply.endswith(b"said")
        assert await ask(site, Address("127.0.0.1", port), b"who is there?\n") == b"me"
        assert b"http.outbound_0.0.0.0_80.downstream_rq_4xx: 1\n" in await process.admin("/stats")
    server.close()
    await server.wait_closed()


async def test_a_renamed_file_is_taken_over(folder: Path) -> None:
    async with running(folder, config(418)) as (_, site):
        place.write(place.place(config(429), site), site)
        async with asyncio.timeout(10):
            while not (await ask(site, Address("203.0.113.9", 80), GET)).startswith(b"HTTP/1.1 429 "):
                await asyncio.sleep(0.01)


async def test_one_that_cannot_start_says_why(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(envoy.RUNTIME, "bad", {"nested": [1]})
    site = place.Site(folder, "127.0.0.1", lambda name: None)
    place.write(place.place(config(418), site), site)
    with pytest.raises(EnvoyUnavailable, match=r"Invalid runtime entry value for bad\.nested"):
        await EnvoyProcess(site, "sleep", "default").start()


async def _greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readline()
    writer.write(b"me")
    writer.close()

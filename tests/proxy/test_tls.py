"""TLS to hosts through a live proxy: sessions, names, contexts and what is counted."""

from __future__ import annotations

import asyncio
import gc
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any as Json

import pytest
import trustme

from meshsim.network.base import Connection
from meshsim.proxy.tls import TlsTransport
from tests.proxy.support import HOST, Bench, cluster, http

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"
TLS_1_2, TLS_1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server(authority: trustme.CA, version: ssl.TLSVersion = TLS_1_3, options: int = 0) -> ssl.SSLContext:
    """A host's context, valid for `a.test`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = version
    context.options |= options
    authority.issue_cert("a.test").configure_cert(context)
    return context


def originating(folder: Path, authority: trustme.CA, **tls: Json) -> dict[str, Json]:
    """A proxy that sends each request on a connection of its own, by TLS, to the name that the request asks for."""
    root = folder / "root.pem"
    authority.cert_pem.write_to_path(root)
    common = {
        "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"},
        "validation_context": {"trusted_ca": {"filename": str(root)}},
    }
    kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
    socket = {"name": "tls", "typed_config": {"@type": kind, "common_tls_context": common, **tls}}
    up = cluster(common={"max_requests_per_connection": 1}, transport_socket=socket)
    options = next(iter(up["typed_extension_protocol_options"].values()))
    options["upstream_http_protocol_options"] = {"auto_sni": True, "auto_san_validation": True}
    return http(clusters=[up])


@asynccontextmanager
async def running(config: dict[str, Json], context: ssl.SSLContext) -> AsyncIterator[Bench]:
    """The proxy, and a host that answers each connection once."""

    async def serve(connection: Connection) -> None:
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.connect_accepted_socket(lambda: protocol, connection.sock, ssl=context)
            await reader.readuntil(b"\r\n\r\n")
        except (OSError, asyncio.IncompleteReadError):
            return
        transport.write(OK)
        await reader.read()
        transport.close()

    async with Bench(config) as bench, asyncio.TaskGroup() as tasks:
        await bench.network.listen(HOST, lambda connection: tasks.create_task(serve(connection)) and None)
        yield bench
        await bench.proxy.close()


async def status(bench: Bench, host: str = "a.test") -> bytes:
    answer = await bench.ask(f"GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
    return answer[9:12]


def counted(bench: Bench) -> dict[str, int]:
    """The cluster's counters of TLS."""
    lines = bench.proxy.admin("/stats?filter=ssl").splitlines()
    pairs = [line.removeprefix("cluster.up.ssl.").rsplit(": ", 1) for line in lines if line.startswith("cluster.up.ssl.")]
    return {name: int(value) for name, value in pairs if value != "0"}


RESUMED = [
    ("tickets, TLS 1.3", TLS_1_3, 0, {}, 2),
    ("tickets, TLS 1.2", TLS_1_2, 0, {}, 2),
    ("ids, TLS 1.2", TLS_1_2, ssl.OP_NO_TICKET, {}, 2),
    ("none are kept", TLS_1_3, 0, {"max_session_keys": 0}, None),
]


@pytest.mark.parametrize(("version", "options", "tls", "reused"), [r[1:] for r in RESUMED], ids=[r[0] for r in RESUMED])
async def test_sessions_are_resumed(
    version: ssl.TLSVersion, options: int, tls: dict[str, Json], reused: int | None, authority: trustme.CA, tmp_path: Path
) -> None:
    async with running(originating(tmp_path, authority, **tls), server(authority, version, options)) as bench:
        assert [await status(bench) for _ in range(3)] == [b"200"] * 3
        assert counted(bench).get("session_reused") == reused


async def test_a_session_does_not_vouch_for_another_name(authority: trustme.CA, tmp_path: Path) -> None:
    async with running(originating(tmp_path, authority), server(authority)) as bench:
        assert [await status(bench, name) for name in ("a.test", "a.test", "b.test", "a.test")] == [b"200", b"200", b"503", b"200"]
        assert counted(bench)["fail_verify_san"] == 1


async def test_contexts_are_built_once(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty connections, one context: building one costs more than a handshake."""
    context, built = server(authority), []
    make = ssl.SSLContext.__new__

    def counting(*given: Json, **more: Json) -> ssl.SSLContext:
        built.append(given)
        return make(*given, **more)

    async with running(originating(tmp_path, authority), context) as bench:
        monkeypatch.setattr(ssl.SSLContext, "__new__", counting)
        for _ in range(20):
            assert await status(bench) == b"200"
        assert counted(bench)["handshake"] == 20
    assert len(built) == 1


async def test_what_a_connection_used_is_free_when_it_ends(authority: trustme.CA, tmp_path: Path) -> None:
    """By objects, not by bytes, which an allocator keeps: nothing of a handshake outlives its connection but a session per name."""

    def alive() -> int:
        gc.collect()
        kinds = (TlsTransport, ssl.SSLObject, ssl.MemoryBIO, ssl.SSLSession, ssl.SSLContext)
        return sum(isinstance(each, kinds) and getattr(each, "server_side", False) is not True for each in gc.get_objects())

    async with running(originating(tmp_path, authority), server(authority)) as bench:
        counts = []
        for _ in range(3):
            for _ in range(10):
                assert await status(bench) == b"200"
            await bench.idle()
            counts.append(alive())
    assert counts[2] <= counts[1], counts


async def test_what_is_counted(authority: trustme.CA, tmp_path: Path) -> None:
    async with running(originating(tmp_path, authority), server(authority, TLS_1_2)) as bench:
        await status(bench)
        found = counted(bench)
        cipher = next(name for name in found if name.startswith("ciphers."))
        assert {name: value for name, value in found.items() if name != cipher} == {"handshake": 1, "versions.TLSv1.2": 1}
    async with running(originating(tmp_path, trustme.CA()), server(authority)) as bench:
        await status(bench)
        assert counted(bench) == {"fail_verify_error": 1}

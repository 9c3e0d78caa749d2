"""The network of Unix sockets: addresses at both ends, redirection, and how a call fails."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshsim.network import directory, proxy_protocol
from meshsim.network.base import Address, Connection
from meshsim.network.loopback import MAX_PATH, LoopbackNetwork, short_path
from meshsim.resources.interception import Interception

SLEEP, GATEWAY, SITE = "10.244.1.10", "10.244.0.20", "203.0.113.10"


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="msim-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


class Taker:
    """Takes connections and lets the test await them."""

    def __init__(self) -> None:
        self.taken: asyncio.Queue[Connection] = asyncio.Queue()

    def __call__(self, connection: Connection) -> None:
        self.taken.put_nowait(connection)

    async def next(self) -> Connection:
        return await asyncio.wait_for(self.taken.get(), 5)


async def exchange(client: socket.socket, server: socket.socket, data: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(client, data)
    return await asyncio.wait_for(loop.sock_recv(server, 100), 5)


async def test_both_ends_know_the_mesh_addresses(folder: Path) -> None:
    network, taker = LoopbackNetwork(folder), Taker()
    await network.listen(Address(SITE, 80), taker)
    opened = await network.connect(SLEEP, Address(SITE, 80))
    taken = await taker.next()
    assert (taken.source, taken.destination) == (opened.source, opened.destination)
    assert taken.source is not None and taken.source.host == SLEEP and taken.source.port > 1024
    assert await exchange(opened.sock, taken.sock, b"hello") == b"hello"  # the header is not part of what is read
    opened.sock.close()
    taken.sock.close()
    await network.close()


async def test_a_header_may_come_byte_by_byte(folder: Path) -> None:
    network, taker = LoopbackNetwork(folder), Taker()
    await network.listen(Address(SITE, 80), taker)
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.setblocking(False)
        sock.connect(network.path(Address(SITE, 80)))
        for byte in proxy_protocol.encode(Address(SLEEP, 40000), Address(SITE, 80)) + b"x":
            await loop.sock_sendall(sock, bytes([byte]))
            await asyncio.sleep(0)
        taken = await taker.next()
        assert taken.source == Address(SLEEP, 40000)
        assert await loop.sock_recv(taken.sock, 10) == b"x"
        taken.sock.close()
    await network.close()


@pytest.mark.parametrize("behind", [[f"{GATEWAY}:8080"], [f"{GATEWAY}:8080", f"{GATEWAY}:8080"]])
async def test_a_virtual_address_leads_to_a_place_behind_it(folder: Path, behind: list[str]) -> None:
    directory.write(folder, directory.Directory(services={"10.96.10.10:80": behind}))
    network, taker = LoopbackNetwork(folder), Taker()
    await network.listen(Address(GATEWAY, 8080), taker)
    opened = await network.connect(SLEEP, Address("10.96.10.10", 80))
    taken = await taker.next()
    assert taken.destination == Address(GATEWAY, 8080)
    for connection in (opened, taken):
        connection.sock.close()
    await network.close()


async def test_a_captured_pod_s_traffic_goes_to_its_pipes(folder: Path) -> None:
    outbound, inbound = (str(folder / name) for name in ("out.sock", "in.sock"))
    captured_pod = directory.Capture(outbound, inbound, Interception(include_inbound_ports=[8080]))
    directory.write(folder, directory.Directory(pods={SLEEP: captured_pod}))
    network, out, into, app = LoopbackNetwork(folder), Taker(), Taker(), Taker()
    await network.listen(outbound, out)
    await network.listen(inbound, into)
    await network.listen(Address("127.0.0.1", 8080), app, pod=SLEEP)

    captured = await network.pod(SLEEP).capture(Address(SITE, 443))
    connection = await out.next()
    header = proxy_protocol.decode(connection.sock.recv(100))
    assert header is not None and header.destination == Address(SITE, 443) and header.source == captured.source

    visitor = await network.connect(GATEWAY, Address(SLEEP, 8080))
    arrived = await into.next()
    header = proxy_protocol.decode(arrived.sock.recv(100))
    assert header is not None and header.source is not None and header.source.host == GATEWAY

    own = await network.connect(SLEEP, Address("127.0.0.1", 8080))  # the sidecar, to the application behind it
    inside = await app.next()
    around = await network.connect(SLEEP, Address(SLEEP, 8080))  # the sidecar, to its own pod: back in by the front door
    back = await into.next()
    direct = await network.capture(SLEEP, Address(SLEEP, 8080))  # the application, to itself
    itself = await app.next()
    with pytest.raises(ConnectionRefusedError):
        await network.connect(GATEWAY, Address(SLEEP, 9090))  # not redirected, and nobody there
    for c in (captured, connection, visitor, arrived, own, inside, around, back, direct, itself):
        c.sock.close()
    await network.close()


async def test_nobody_there_refuses_also_after_a_process_was_killed(folder: Path) -> None:
    network = LoopbackNetwork(folder)
    with pytest.raises(ConnectionRefusedError):
        await network.connect(SLEEP, Address(SITE, 80))
    left = socket.socket(socket.AF_UNIX)
    left.bind(network.path(Address(SITE, 80)))
    left.close()  # the file stays, as after SIGKILL
    with pytest.raises(ConnectionRefusedError):
        await network.connect(SLEEP, Address(SITE, 80))
    taker = Taker()
    await network.listen(Address(SITE, 80), taker)  # the next start takes the place over
    (await network.connect(SLEEP, Address(SITE, 80))).sock.close()
    (await taker.next()).sock.close()
    await network.close()


async def test_a_place_has_one_listener_and_a_closed_one_refuses(folder: Path) -> None:
    network = LoopbackNetwork(folder)
    first = await network.listen(Address(SITE, 80), Taker())
    with pytest.raises(OSError, match="in use"):
        await network.listen(Address(SITE, 80), Taker())
    first.close()
    first.close()
    with pytest.raises(ConnectionRefusedError):
        await network.connect(SLEEP, Address(SITE, 80))
    assert os.listdir(folder / "n") == []


async def test_sockets_are_private(folder: Path) -> None:
    network = LoopbackNetwork(folder)
    await network.listen(Address(SITE, 80), Taker())
    assert stat.S_IMODE(os.stat(folder / "n").st_mode) == 0o700
    assert stat.S_IMODE(os.stat(network.path(Address(SITE, 80))).st_mode) == 0o600
    await network.close()


async def test_names_change_while_the_mesh_runs(folder: Path) -> None:
    network = LoopbackNetwork(folder)
    assert await network.resolve("edition.cnn.com") == []
    directory.write(folder, directory.Directory(names={"edition.cnn.com": ["151.101.65.67"], "*.wikipedia.org": ["208.80.154.224"]}))
    assert await network.resolve("Edition.CNN.com.") == ["151.101.65.67"]
    assert await network.resolve("en.wikipedia.org") == ["208.80.154.224"]
    assert await network.resolve("wikipedia.org") == []


def test_a_long_name_still_fits_into_a_socket_path() -> None:
    path = short_path(Path("/tmp/" + "x" * 60), "[2001:db8:1111:2222:3333:4444:5555:6666]:65535")
    assert len(path) <= MAX_PATH
    with pytest.raises(OSError, match="too long"):
        short_path(Path("/tmp/" + "x" * 100), "10.0.0.1:80")

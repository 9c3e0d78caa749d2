"""Pods and the machine they are on: nothing of a mesh is outside its namespaces, and nothing outside can be reached from within."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from meshsim.mesh import load
from meshsim.surroundings import home
from tests.live.test_in_a_pod import HOLDING
from tests.network.inside import in_namespaces, needs_netns

SCENARIO = home() / "egress-gateway-http"
SECRET = b"of the machine"
TRY = """
import socket, sys
for host in sys.argv[2:]:
    try:
        if host.startswith("@"):
            s = socket.socket(socket.AF_UNIX)
            s.connect("\\0" + host[1:])
        else:
            s = socket.create_connection((host, int(sys.argv[1])), 5)
        print(host, s.recv(100) or "closed")
    except OSError as e:
        print(host, type(e).__name__)
"""


def own_address() -> str:
    """The machine's address towards others; its loopback one where it has no other."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))  # of TEST-NET-1 (RFC 5737); nothing is sent
        except OSError:
            return "127.0.0.1"
        address: str = sock.getsockname()[0]
        return address


@needs_netns
def test_nothing_outside_is_reached_from_a_pod() -> None:
    everywhere, abstract = socket.socket(), socket.socket(socket.AF_UNIX)
    with everywhere, abstract:
        everywhere.bind(("0.0.0.0", 0))
        name = f"meshsim-test-{os.getpid()}"
        abstract.bind(f"\0{name}")
        for sock in (everywhere, abstract):
            sock.listen()
            sock.setblocking(False)
        port = everywhere.getsockname()[1]
        hosts = ["127.0.0.1", own_address(), "@" + name]
        with socket.create_connection((hosts[1], port), 5):  # it is there, for everybody else
            everywhere.accept()[0].close()

        async def main() -> dict[str, list[str]]:
            async with load(SCENARIO).run(network="netns") as live:
                found = {}
                for pod in ("sleep", "istio-egressgateway"):  # captured, and with nothing between it and the node
                    said = await live.pod(pod).output(sys.executable, "-c", TRY, str(port), *hosts)
                    links = await live.pod(pod).output("cat", "/proc/net/dev")
                    found[pod] = [*said[1].splitlines(), *sorted(line.split(":")[0].strip() for line in links[1].splitlines()[2:])]
                return found

        found = in_namespaces(lambda: asyncio.run(main()))
        for sock in (everywhere, abstract):
            with pytest.raises(BlockingIOError):
                sock.accept()
    refused = "ConnectionRefusedError"
    gateway = [f"{host} {refused}" for host in hosts]
    assert found["istio-egressgateway"] == [*gateway, "eth0", "lo"]
    towards = found["sleep"].pop(1).split()[1]  # its sidecar takes it and finds nobody: a reset, or an end
    assert towards in ("closed", "ConnectionResetError", refused)
    assert found["sleep"] == [gateway[0], gateway[2], "eth0", "lo"]


def sockets_of(namespace: str) -> set[str]:
    """The inodes of all sockets that processes of a user namespace hold."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(process / "ns" / "user") == namespace:
                found |= {os.readlink(fd) for fd in (process / "fd").iterdir()}
        except OSError:
            continue
    return {link.removeprefix("socket:[").removesuffix("]") for link in found if link.startswith("socket:")}


def sockets_here() -> set[str]:
    """The inodes of the Internet sockets of this process' own network namespace."""
    tables = [Path("/proc/self/net", name) for name in ("tcp", "tcp6", "udp", "udp6", "raw", "packet")]
    rows = [line.split() for table in tables if table.exists() for line in table.read_text().splitlines()[1:]]
    return {row[9] if len(row) > 9 else row[-1] for row in rows}


@needs_netns
def test_nothing_of_a_mesh_is_outside() -> None:
    before = os.listdir("/sys/class/net"), Path("/proc/self/net/route").read_text()
    holder = subprocess.Popen([sys.executable, "-c", HOLDING, str(SCENARIO)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        _, net, user = holder.stdout.readline().split()
        held = sockets_of(user)
        assert os.readlink("/proc/self/ns/net") != net and len(held) > 20
        assert not held & sockets_here()
        assert (os.listdir("/sys/class/net"), Path("/proc/self/net/route").read_text()) == before
    finally:
        holder.kill()
        holder.communicate()

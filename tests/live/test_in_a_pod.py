"""What unmodified programs find in a pod of real addresses: curl's own exit codes, certificates, tools, packets."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from meshsim.errors import MeshsimError
from meshsim.mesh import Mesh, load
from meshsim.network import namespaces, packets
from meshsim.surroundings import home
from tests.network.inside import in_namespaces, needs_netns

DOCUMENT = Path(__file__).parents[2] / "docs" / "pods.md"
ROWS = re.findall(r"^\| ([\d or]+) \| `(curl [^`]*)` \|", DOCUMENT.read_text(), re.MULTILINE)
CODES = [(codes.split(" or "), command) for codes, command in ROWS]
SERVERS = """
apiVersion: meshsim.dev/v1alpha1
kind: ExternalServer
metadata: {name: slow}
spec: {hosts: [slow.example], addresses: [203.0.113.40], ports: [{port: 80, answers: [{fault: stall}]}]}
---
apiVersion: meshsim.dev/v1alpha1
kind: ExternalServer
metadata: {name: wrong}
spec: {hosts: [wrong.example], addresses: [203.0.113.41], ports: [{port: 443, protocol: https, certificate: {names: [other.example]}}]}
"""
needs_programs = pytest.mark.skipif(not (shutil.which("curl") and shutil.which("openssl")), reason="curl or openssl is missing")


def mesh() -> Mesh:
    return load(home() / "egress-gateway-http", "-", stdin=SERVERS)


async def said(*commands: str) -> list[tuple[int, str]]:
    """Exit status and output of each shell command, run in the sleep pod at the same time as the others."""
    async with mesh().run(processes=True, network="netns") as live:
        pod = live.pod("sleep")
        return await asyncio.gather(*(pod.output("sh", "-c", command) for command in commands))


FINDINGS = [
    ("cat /etc/resolv.conf", "search default.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\n"),
    ("cat /etc/hosts", "10.244.1.10 sleep"),
    ("test -e /etc/passwd && echo whole", "whole"),
    ("openssl x509 -noout -ext subjectAltName -in /etc/certs/cert-chain.pem", "URI:spiffe://cluster.local/ns/default/sa/sleep"),
    ("openssl verify -CAfile /etc/certs/root-cert.pem /etc/certs/cert-chain.pem", "cert-chain.pem: OK"),
    ("test -s /etc/certs/key.pem && echo key", "key"),
    ("curl -s localhost:15000/stats", "membership_healthy: "),
    ("pilot-agent request GET stats", "membership_healthy: "),
    ("pilot-agent request", "usage: pilot-agent request METHOD PATH"),
    (
        "openssl s_client -connect edition.cnn.com:443 -servername edition.cnn.com -verify_return_error </dev/null",
        "subject=CN = edition.cnn.com|Verify return code: 0 (ok)",
    ),
]
ASKING = "while kill -0 $!; do curl -s -o /dev/null localhost:15000/ready; sleep 0.02; done 2>/dev/null; wait $!"
LISTENING = {"tcpdump": f"tcpdump -ni lo -c 2 tcp port 15000 & {ASKING}", "tshark": f"tshark -ni lo -c 2 -f 'tcp port 15000' & {ASKING}"}
FINDINGS += [(command, "127.0.0.1|15000|2 packets captured") for program, command in LISTENING.items() if shutil.which(program)]


@needs_netns
@needs_programs
def test_programs_find_what_they_find_in_a_cluster() -> None:
    assert {"6", "7", "28", "35", "56"} <= {code for codes, _ in CODES for code in codes}
    curls = [shlex.join(["curl", "-sS", "-o", "/dev/null", *shlex.split(command)[1:]]) for _, command in CODES]
    found = in_namespaces(lambda: asyncio.run(said(*(command for command, _ in FINDINGS), *curls)))
    missing = [(*row, out) for row, (_, out) in zip(FINDINGS, found, strict=False) if not all(part in out for part in row[1].split("|"))]
    assert not missing
    curled = found[len(FINDINGS) :]
    wrong = [(command, codes, got) for got, (codes, command) in zip(curled, CODES, strict=True) if str(got[0]) not in codes]
    assert not wrong


@needs_netns
def test_a_kernel_without_overlays_for_users_shows_a_pod_s_two_files_only(monkeypatch: pytest.MonkeyPatch) -> None:
    mount = namespaces.mount

    def of_linux_5_10(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
        if kind == "overlay":
            raise PermissionError(errno.EPERM, "mount: Operation not permitted")
        mount(source, target, kind, flags, data)

    async def main() -> list[tuple[int, str]]:
        async with mesh().run(network="netns") as live:
            commands = ("cat /etc/resolv.conf /etc/hosts", "test -e /etc/certs", "curl -s -o /dev/null -w %{http_code} edition.cnn.com")
            return [await live.pod("sleep").output("sh", "-c", command) for command in commands]

    monkeypatch.setattr(namespaces, "mount", of_linux_5_10)
    (_, files), (certificates, _), curl = in_namespaces(lambda: asyncio.run(main()))
    assert "nameserver 10.96.0.10\n" in files and "10.244.1.10 sleep" in files
    assert certificates == 1 and curl == (0, "301")


@needs_netns
def test_packets_of_a_pod_are_readable(tmp_path: Path) -> None:
    file = tmp_path / "sleep.pcap"

    async def capture() -> int:
        ended = asyncio.Event()
        async with mesh().run(network="netns") as live:
            with open(file, "wb") as out:
                recording = asyncio.ensure_future(packets.record(live.tap("sleep"), out, ended))
                await asyncio.sleep(0)
                await live.pod("sleep").get("http://edition.cnn.com/politics")
                ended.set()
                return await recording

    count = in_namespaces(lambda: asyncio.run(capture()))
    data = file.read_bytes()
    assert data.startswith(packets.file_header()) and count > 5
    assert data.count(b"GET /politics HTTP/1.1") == 1  # on lo, once; from the sidecar on it is HTTP/2
    if shutil.which("tcpdump"):
        read = subprocess.run(["tcpdump", "-nr", str(file)], capture_output=True, text=True, timeout=20, check=True)
        assert len(read.stdout.splitlines()) == count and "10.244.1.10" in read.stdout


async def test_there_are_no_packets_on_loopback() -> None:
    async with mesh().run() as live:
        with pytest.raises(MeshsimError, match="a pod has no packets on the loopback network"):
            live.tap("sleep")


HOLDING = """
import sys
from meshsim.network import choice
choice.enter("netns")
import asyncio, os, meshsim

async def main():
    async with meshsim.load(sys.argv[1]).run(processes=True, network="netns") as live:
        asyncio.ensure_future(live.pod("sleep").run("sleep", "1000"))
        print(live.folder, os.readlink("/proc/self/ns/net"), os.readlink("/proc/self/ns/user"), flush=True)
        await asyncio.sleep(1000)

asyncio.run(main())
"""


def inside(namespaces: set[str]) -> list[str]:
    """The processes that are in one of these namespaces."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if {os.readlink(process / "ns" / kind) for kind in ("net", "user")} & namespaces:
                found.append((process / "cmdline").read_text())
        except OSError:
            continue
    return found


@needs_netns
def test_sigkill_of_the_mesh_leaves_nothing() -> None:
    interfaces, mounts = os.listdir("/sys/class/net"), Path("/proc/self/mounts").read_text()
    holder = subprocess.Popen([sys.executable, "-c", HOLDING, str(home() / "egress-gateway-http")], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    folder, *namespaces = holder.stdout.readline().split()
    asyncio.run(asyncio.wait_for(_until(lambda: "sleep\x001000\x00" in inside(set(namespaces))), 20))
    assert len(inside(set(namespaces))) >= 5  # the mesh, the world, two proxies, the program
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    try:
        asyncio.run(asyncio.wait_for(_until(lambda: not inside(set(namespaces)) and not Path(folder).exists()), 20))
    except TimeoutError:
        pytest.fail(f"left: {inside(set(namespaces))} {folder if Path(folder).exists() else ''}")
    assert os.listdir("/sys/class/net") == interfaces
    assert Path("/proc/self/mounts").read_text() == mounts


async def _until(met: Callable[[], bool]) -> None:
    while not met():
        await asyncio.sleep(0.02)

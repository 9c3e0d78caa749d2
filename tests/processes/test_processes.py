"""Processes of a mesh: they start, tell, and never outlive it; folders of dead meshes go."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from meshsim.network.base import Address
from meshsim.network.loopback import LoopbackNetwork
from meshsim.processes import Process, ProcessFailed, python, world
from meshsim.resources.external_server import ExternalServerSpec
from meshsim.run_folder import RunFolder, is_abandoned, sweep

SITE = "203.0.113.10"


@pytest.fixture
def run() -> Iterator[RunFolder]:
    folder = RunFolder()
    yield folder
    folder.remove()


def outside(name: str) -> world.Outside:
    server = msgspec.convert({"hosts": [name], "addresses": [SITE], "ports": [{"port": 80}]}, ExternalServerSpec)
    return world.Outside(servers=[server])


async def served_by(network: LoopbackNetwork) -> str:
    connection = await network.connect("10.244.1.10", Address(SITE, 80))
    reader, writer = await asyncio.open_connection(sock=connection.sock)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    body = (await asyncio.wait_for(reader.read(), 5)).partition(b"\r\n\r\n")[2]
    writer.close()
    return str(msgspec.json.decode(body)["server"])


async def test_the_world_is_a_process_that_ends_with_its_lifeline(run: RunFolder) -> None:
    world.write(run.path, outside("a.test"))
    process = Process("world", python("meshsim.processes.world", str(run.path)), run.path / "world")
    await process.start()
    network = LoopbackNetwork(run.path)
    assert await served_by(network) == "a.test"
    world.write(run.path, outside("b.test"))
    await process.tell("update")
    while await served_by(network) != "b.test":
        await asyncio.sleep(0.01)
    await process.stop()
    await process.stop()
    assert not process.running and await process.wait() == 0
    assert len((run.path / world.ARRIVALS).read_text().splitlines()) >= 2
    assert run.path.exists()
    with pytest.raises(ConnectionRefusedError):
        await network.connect("10.244.1.10", Address(SITE, 80))


async def test_a_process_that_does_not_start_says_why(run: RunFolder) -> None:
    process = Process("broken", python("meshsim.processes.world", "/nowhere"), run.path / "broken")
    with pytest.raises(ProcessFailed, match=r"broken did not start(.|\n)*/nowhere"):
        await process.start()
    assert not process.running


async def test_a_killed_process_is_seen_and_started_again(run: RunFolder) -> None:
    world.write(run.path, outside("a.test"))
    command = python("meshsim.processes.world", str(run.path))
    first = Process("world", command, run.path / "world")
    await first.start()
    first.kill()
    assert await first.wait() == -signal.SIGKILL
    await first.stop()
    second = Process("world", command, run.path / "world")
    await second.start()
    assert await served_by(LoopbackNetwork(run.path)) == "a.test"
    await second.stop()


PARENT = """
import asyncio, sys
from pathlib import Path
from meshsim.processes import Process, python, world
from meshsim.run_folder import RunFolder
async def main():
    run = RunFolder()
    world.write(run.path, world.Outside())
    process = Process("world", python("meshsim.processes.world", str(run.path)), run.path / "world")
    await process.start()
    print(run.path, process.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


async def test_a_killed_parent_leaves_neither_process_nor_folder() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        path, pid = (await asyncio.to_thread(parent.stdout.readline)).split()
        parent.kill()
    async with asyncio.timeout(10):
        while Path(path).exists() or alive(int(pid)):
            await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z" if Path("/proc/self").exists() else True


@pytest.mark.parametrize("brief", [False, True])
def test_only_folders_without_an_owner_are_swept(run: RunFolder, brief: bool) -> None:
    dead = RunFolder(brief=brief)
    os.close(dead._lock)  # as the kernel does when the owner dies
    dead._lock = -1
    young = Path(str(run.path) + "-young")
    young.mkdir()
    try:
        assert is_abandoned(dead.path) and not is_abandoned(run.path) and not is_abandoned(young)
        sweep()
        assert run.path.exists() and young.exists() and not dead.path.exists()
    finally:
        shutil.rmtree(young)

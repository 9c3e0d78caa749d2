"""What SIGTERM does to a proxy's process while a request is under way in it."""

from __future__ import annotations

import asyncio
import signal

from meshsim.network import place
from meshsim.processes import Process, python
from meshsim.processes import proxy as proxy_process
from meshsim.processes.proxy import Home
from tests.proxy.support import CLIENT, PROXY, Bench, http

GET = b"GET / HTTP/1.1\r\nhost: h\r\n\r\n"


def no_secrets(_: str) -> None:
    """Where secrets come from: this mesh has none."""


async def test_a_request_under_way_ends_well_and_so_does_the_process() -> None:
    arrived, free = asyncio.Event(), asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        arrived.set()
        await free.wait()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        await reader.read()

    async with Bench(http()) as bench:
        await bench.host(slow)
        await bench.proxy.close()  # a process has its place
        home = bench.folder / "home"
        home.mkdir()
        proxy_process.write(home, Home("in", PROXY.host, str(bench.folder)))
        place.write(bench.config, place.Site(home, PROXY.host, no_secrets))
        process = Process("in", python("meshsim.processes.proxy", str(home)), home)
        await process.start()
        try:
            reader, writer = await bench.client()
            writer.write(GET)
            await asyncio.wait_for(arrived.wait(), 10)
            process.kill(signal.SIGTERM)
            async with asyncio.timeout(4):
                while True:
                    try:
                        (await bench.network.connect(CLIENT, PROXY)).sock.close()
                    except ConnectionRefusedError:
                        break
                    await asyncio.sleep(0.01)
            free.set()
            answer = await asyncio.wait_for(reader.read(), 4)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n") and answer.endswith(b"\r\n\r\nok")
            assert b"connection: close\r\n" in answer
            assert await asyncio.wait_for(process.wait(), 4) == 0
        finally:
            await process.stop()

"""python -m tests.proxy.one_gibibyte [MIB]: a large body up and down through two proxies, and what memory that takes at most.

Client, both proxies and host share this process, each end a stream that waits where the other does not read; so the peak is that of all of
them together. Between the proxies there is HTTP/2. It prints the peak before and after: what lies between them is what the bodies needed.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import time

import msgspec

from meshsim import xds
from meshsim.network.base import Address
from meshsim.proxy.proxy import Proxy
from tests.proxy.support import PROXY, Bench, cluster, http

MIB = 1024 * 1024
PIECE = b"\0" * (256 * 1024)


async def _send(writer: asyncio.StreamWriter, size: int) -> None:
    for _ in range(size // len(PIECE)):
        writer.write(PIECE)
        await writer.drain()


async def _receive(reader: asyncio.StreamReader, size: int) -> None:
    while size:
        data = await reader.read(min(size, len(PIECE)))
        if not data:
            raise ConnectionError(f"{size} bytes are missing")
        size -= len(data)


def peak() -> float:
    """MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def main(size: int) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await _receive(reader, size)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        await _send(writer, size)

    unlimited = [{"match": {"prefix": "/"}, "route": {"cluster": "up", "timeout": "0s"}}]
    async with Bench(http(unlimited)) as inner:
        await inner.host(talk)
        front = http(unlimited, clusters=[cluster(http2=True, host=PROXY)])
        front["listeners"][0]["address"]["socket_address"]["port_value"] = 9090
        outer = Proxy(msgspec.convert(front, xds.ProxyConfig), inner.network.pod("10.0.0.3"))
        await outer.start()
        try:
            connection = await inner.network.connect("10.0.0.4", Address("10.0.0.1", 9090))
            reader, writer = await asyncio.open_connection(sock=connection.sock)
            before = peak()
            for way in ("up", "down"):
                began = time.monotonic()
                if way == "up":
                    writer.write(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n" % size)
                    await _send(writer, size)
                    await reader.readuntil(b"\r\n\r\n")
                else:
                    await _receive(reader, size)
                took = time.monotonic() - began
                speed = f"{size // MIB} MiB in {took:.1f} s, {size / MIB / took:.0f} MiB/s"
                print(f"{way:5}{speed}; peak {peak():.0f} MiB, {before:.0f} before")
            writer.close()
        finally:
            await outer.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1] if len(sys.argv) > 1 else 1024) * MIB))

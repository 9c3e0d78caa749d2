"""Packets of a pod as a pcap file, without tcpdump.

How this works: a packet socket inside the pod's namespace hears every interface, `lo` included, and gives each packet with the facts
that a cooked link header holds (LINKTYPE_LINUX_SLL), as `tcpdump -i any` writes them. What leaves over `lo` comes in there again, so
only its arrival is kept.
Source: the pcap savefile format and LINKTYPE_LINUX_SLL of tcpdump.org; packet(7).
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from typing import BinaryIO

LONGEST = 262144  # bytes of a packet that are kept; tcpdump's own limit
_LINUX_SLL = 113
_FILE = struct.Struct("<IHHiIII")
_PACKET = struct.Struct("<IIII")
_COOKED = struct.Struct("!HHH8sH")
_OUTGOING = 4  # PACKET_OUTGOING
_MOST = 256  # packets taken before the event loop has its turn

Origin = tuple[str, int, int, int, bytes]
"""Interface, protocol, kind of packet, kind of link and sender's link address, as `recvfrom` of a packet socket gives them."""


def file_header() -> bytes:
    """What a pcap file begins with."""
    return _FILE.pack(0xA1B2C3D4, 2, 4, 0, 0, LONGEST, _LINUX_SLL)


def packet(data: bytes, origin: Origin, now: float) -> bytes:
    """One packet of the file; empty for one that is seen twice."""
    interface, protocol, kind, link, sender = origin
    if interface == "lo" and kind == _OUTGOING:
        return b""
    cooked = _COOKED.pack(kind, link, len(sender), sender[:8].ljust(8, b"\0"), protocol) + data
    seconds = int(now)
    return _PACKET.pack(seconds, int((now - seconds) * 1e6), len(cooked), len(cooked)) + cooked


async def record(tap: socket.socket, out: BinaryIO, ended: asyncio.Event, most: int = 0) -> int:
    """Write what `tap` hears until `ended`, or until there are `most` packets (0: no limit); their number.

    tap: a bound, non-blocking packet socket; it is closed.
    """
    loop, count, full = asyncio.get_running_loop(), 0, asyncio.Event()
    out.write(file_header())
    out.flush()

    def take() -> None:
        nonlocal count
        for _ in range(_MOST):
            try:
                data, origin = tap.recvfrom(LONGEST - _COOKED.size)
            except BlockingIOError:
                break
            written = packet(data, origin, time.time())
            out.write(written)
            count += bool(written)
            if most and count >= most:
                full.set()
                loop.remove_reader(tap)
                break
        out.flush()

    loop.add_reader(tap, take)
    waiting = [asyncio.ensure_future(event.wait()) for event in (ended, full)]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        loop.remove_reader(tap)
        tap.close()
        for task in waiting:
            task.cancel()
    return count

"""A proxy's admin interface where its pod's programs expect it: `localhost:15000`, as in a real pod (Istio: port 15000 on localhost).

How this works: the interface is served on a Unix socket in the proxy's home; a door is a listener on the pod's loopback address
that carries each connection there.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from meshsim.network.base import Address, Connection, Listening, Network
from meshsim.network.socks import relay

ADMIN_PORT = 15000


class AdminDoor:
    """The way from inside a pod to its proxy's admin interface at the Unix socket `path`."""

    def __init__(self, network: Network, pod: str, path: Path):
        self._network, self._pod, self._path = network, pod, path
        self._listening: Listening | None = None
        self._carried: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Raises OSError where something in the pod listens there already."""
        self._listening = await self._network.listen(Address("127.0.0.1", ADMIN_PORT), self._accept, pod=self._pod)

    async def close(self) -> None:
        if self._listening is not None:
            self._listening.close()
        for task in list(self._carried):
            task.cancel()
        await asyncio.gather(*self._carried, return_exceptions=True)

    def _accept(self, connection: Connection) -> None:
        task = asyncio.ensure_future(self._carry(connection))
        self._carried.add(task)
        task.add_done_callback(self._carried.discard)

    async def _carry(self, connection: Connection) -> None:
        try:
            reader, writer = await asyncio.open_unix_connection(str(self._path))
        except OSError:  # the proxy is not running
            connection.sock.close()
            return
        try:
            await relay(reader, writer, connection.sock)
        finally:
            writer.close()

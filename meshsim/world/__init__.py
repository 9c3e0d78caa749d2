"""The outside of a mesh, live: external servers with any host, certificate and fault, on one event loop.

How this works: `ExternalServer` resources say who answers where (`resources.external_server.places`); `World` listens there on the
network it is given and lets a `Visit` serve each connection. What arrived is kept in `arrivals`, in the order it was complete,
for whoever wants to see what a server saw; `on_arrival` hears of it at once. An application in a pod is served alike.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from typing import Any as Json

from meshsim.network.base import Address, Connection, Listening, Network
from meshsim.resources.external_server import ExternalServerSpec, Place, places
from meshsim.world.certificates import Authorities, ServerContexts
from meshsim.world.serve import Visit

_KEPT = 10_000  # arrivals remembered


class World:
    """External servers on a network.

    authorities: the CAs that sign what they show and that they trust.
    """

    def __init__(
        self,
        network: Network,
        servers: Iterable[ExternalServerSpec],
        authorities: Authorities,
        on_arrival: Callable[[dict[str, Json]], None] | None = None,
    ):
        self.arrivals: list[dict[str, Json]] = []
        self._network, self._authorities, self._on_arrival = network, authorities, on_arrival
        self._servers = list(servers)
        self._listening: dict[tuple[str, int], tuple[Place, Listening]] = {}
        self._applications: dict[tuple[str, int], Listening] = {}
        self._visits: dict[asyncio.Task[None], Visit] = {}

    async def start(self) -> None:
        """Listen everywhere. Raises OSError where another listens already."""
        await self.update(self._servers)

    async def update(self, servers: Iterable[ExternalServerSpec]) -> None:
        """Serve these from now on; connections that are open stay with the server they reached."""
        wanted = places(servers)
        for key in self._listening.keys() - wanted.keys():
            self._listening.pop(key)[1].close()
        for key, place in wanted.items():
            if key not in self._listening:
                self._listening[key] = (place, await self._network.listen(Address(*key), self._accept(place)))
            elif self._listening[key][0] != place:  # the place stays open: no connection is lost over a change
                listening = self._listening[key][1]
                listening.accept = self._accept(place)
                self._listening[key] = (place, listening)

    async def update_applications(self, applications: Iterable[tuple[str, Place]]) -> None:
        """Serve these inside pods from now on: a pod's address, and a place on a loopback address behind that pod's sidecar."""
        wanted = {(pod, place.port.port): place for pod, place in applications}
        for key in self._applications.keys() - wanted.keys():
            self._applications.pop(key).close()
        for (pod, port), place in wanted.items():
            if (pod, port) in self._applications:
                self._applications[pod, port].accept = self._accept(place)
            else:
                self._applications[pod, port] = await self._network.listen(Address(place.address, port), self._accept(place), pod=pod)

    @property
    def busy(self) -> int:
        """How many connections have something under way; idle kept-alive ones have not."""
        return sum(visit.busy for visit in self._visits.values())

    def take(self) -> list[dict[str, Json]]:
        """The arrivals since the last call."""
        taken, self.arrivals = self.arrivals, []
        return taken

    async def close(self) -> None:
        """Refuse new connections and end the open ones."""
        for listening in [*self._applications.values(), *(listening for _, listening in self._listening.values())]:
            listening.close()
        self._applications.clear()
        self._listening.clear()
        tasks = list(self._visits)
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self, place: Place) -> Callable[[Connection], None]:
        contexts = ServerContexts(self._authorities, place.server, place.port) if place.port.is_tls else None

        async def dial(target: str) -> Connection:
            return await self._dial(place.address, target)

        def accept(connection: Connection) -> None:
            visit = Visit(place.server, place.port, contexts, dial, self._observe)
            task = asyncio.ensure_future(visit.run(connection))
            self._visits[task] = visit
            task.add_done_callback(self._visits.pop)

        return accept

    async def _dial(self, source: str, target: str) -> Connection:
        host, _, port = target.rpartition(":")
        addresses = await self._network.resolve(host)
        if not addresses:
            with contextlib.suppress(ValueError):
                addresses = [Address.parse(target).host]
        if not addresses:
            raise OSError(f"{host} does not resolve")
        return await self._network.connect(source, Address(addresses[0], int(port)))

    def _observe(self, arrival: dict[str, Json]) -> None:
        self.arrivals.append(arrival)
        del self.arrivals[:-_KEPT]
        if self._on_arrival is not None:
            self._on_arrival(arrival)

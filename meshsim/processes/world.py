"""The process of the outside: `python -m meshsim.processes.world RUN_FOLDER`.

It serves the ExternalServers of `world.json` in the run folder, reads that file again when its parent says `update`, and appends
what arrives to `arrivals.jsonl`. When the parent died without a word it also takes the run folder away.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path
from typing import Any as Json

import msgspec

from meshsim.network import choice
from meshsim.processes.child import Lifeline, run
from meshsim.resources.external_server import ExternalServerSpec, Place
from meshsim.run_folder import is_abandoned
from meshsim.world import World
from meshsim.world.certificates import Authorities

FILE, ARRIVALS, CA = "world.json", "arrivals.jsonl", "ca"
_PATIENCE = 100  # looks at an abandoned run folder, 20 ms apart


class Application(msgspec.Struct):
    """What answers inside a pod, on a loopback address of it."""

    pod: str
    address: str
    server: ExternalServerSpec


class Outside(msgspec.Struct):
    """Everything the world process serves."""

    servers: list[ExternalServerSpec] = []
    applications: list[Application] = []

    def places(self) -> list[tuple[str, Place]]:
        """The applications as `World.update_applications` takes them."""
        return [(a.pod, Place(a.address, port, a.server)) for a in self.applications for port in a.server.ports]


def write(folder: Path, outside: Outside) -> None:
    temporary = folder / f".{FILE}"
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(outside), indent=1))
    temporary.replace(folder / FILE)


def read(folder: Path) -> Outside:
    return msgspec.json.decode((folder / FILE).read_bytes(), type=Outside)


async def main(folder: Path) -> None:
    lifeline = Lifeline()
    network = choice.of_folder(folder)
    with open(folder / ARRIVALS, "a", buffering=1) as arrivals:

        def note(arrival: dict[str, Json]) -> None:
            arrivals.write(msgspec.json.encode(arrival).decode() + "\n")

        outside = read(folder)
        world = World(network, outside.servers, Authorities(folder / CA), note)
        await world.start()
        await world.update_applications(outside.places())

        async def update(_: str) -> None:
            outside = read(folder)
            await world.update(outside.servers)
            await world.update_applications(outside.places())

        await lifeline.serve(update)
        await world.close()
        await network.close()
    if lifeline.orphaned:
        await _tidy(folder)


async def _tidy(folder: Path) -> None:
    """Take the run folder of a parent that died away, once its lock is free. What still writes there may take a moment to end."""
    abandoned = False
    for _ in range(_PATIENCE):
        abandoned = abandoned or is_abandoned(folder)
        if abandoned:
            shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        await asyncio.sleep(0.02)


if __name__ == "__main__":
    run(main(Path(sys.argv[1])))

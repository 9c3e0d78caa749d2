"""The process of an asyncio proxy under load: `python -m meshsim.bench.member FOLDER`.

What a mesh's own process does (processes/proxy.py), on the flat network of the bench, with a choice of loop and codec and a profile if
asked.
"""

from __future__ import annotations

import asyncio
import cProfile
import os
import sys
import time
from pathlib import Path

import msgspec

from meshsim.bench.flat import FlatNetwork
from meshsim.network import place
from meshsim.processes.child import Lifeline, settle
from meshsim.processes.proxy import Output
from meshsim.proxy import parsers
from meshsim.proxy.proxy import Proxy

FILE, PROFILE = "member.json", "profile"
PROFILED = "profiled"  # the CPU seconds that the profile is of


class Settings(msgspec.Struct):
    """address: where it connects from. loop: `uvloop` or `asyncio`. codec: `httptools` or `h11`. profile: write a cProfile at the end."""

    address: str
    loop: str = "uvloop"
    codec: str = "httptools"
    profile: bool = False


async def main(folder: Path, settings: Settings) -> None:
    os.environ[parsers.CODEC] = settings.codec
    lifeline = Lifeline()
    network = FlatNetwork()
    output = Output()
    proxy = Proxy(place.read(folder), network.pod(settings.address), stdout=output)
    await proxy.start()
    settle()
    profile = cProfile.Profile() if settings.profile else None
    begin = time.process_time()
    if profile:
        profile.enable()
    await lifeline.serve()
    if profile:
        profile.disable()
        (folder / PROFILED).write_text(str(time.process_time() - begin))
        profile.dump_stats(folder / PROFILE)
    await proxy.close()
    output.flush()
    await network.close()


def start() -> None:
    folder = Path(sys.argv[1])
    settings = msgspec.json.decode((folder / FILE).read_bytes(), type=Settings)
    if settings.loop == "uvloop":
        import uvloop

        uvloop.run(main(folder, settings))
    else:
        asyncio.run(main(folder, settings))


if __name__ == "__main__":
    start()

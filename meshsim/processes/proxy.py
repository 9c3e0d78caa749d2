"""The process of one proxy: `python -m meshsim.processes.proxy FOLDER`.

The folder is all it is given: `proxy.json` says who it is and on which network, the xDS files beside it what to do
(network/place.py). It prints its access log on standard output.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from meshsim.network import place
from meshsim.network.loopback import LoopbackNetwork
from meshsim.processes.child import Lifeline, run
from meshsim.proxy.proxy import Proxy

FILE, ADMIN = "proxy.json", "admin.sock"


class Home(msgspec.Struct, omit_defaults=True):
    """Who a proxy is: its name for people, its pod's address, the run folder of its mesh, and the seed of its randomness."""

    name: str
    address: str
    run: str
    seed: int = 0


def write(folder: Path, home: Home) -> None:
    (folder / FILE).write_bytes(msgspec.json.format(msgspec.json.encode(home), indent=1))


def _print(line: str) -> None:
    sys.stdout.write(line)
    sys.stdout.flush()


async def main(folder: Path) -> None:
    home = msgspec.json.decode((folder / FILE).read_bytes(), type=Home)
    lifeline = Lifeline()
    network = LoopbackNetwork(Path(home.run), seed=home.seed)
    proxy = Proxy(place.read(folder), network.pod(home.address), seed=home.seed, stdout=_print)
    await proxy.start()

    async def update(_: str) -> None:
        await proxy.update(place.read(folder))

    await lifeline.serve(update)
    if lifeline.told_to_stop:
        await proxy.drain()
    await proxy.close()
    await network.close()


if __name__ == "__main__":
    run(main(Path(sys.argv[1])))

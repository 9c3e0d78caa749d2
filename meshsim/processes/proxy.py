"""The process of one proxy: `python -m meshsim.processes.proxy FOLDER`.

The folder is all it is given: `proxy.json` says who it is and on which network, the xDS files beside it what to do
(network/place.py). It takes new files over as they are renamed into place, serves its admin interface on `admin.sock` there, and prints
its access log on standard output.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import msgspec

from meshsim.network import choice, place
from meshsim.processes.child import Lifeline, run, settle
from meshsim.proxy.proxy import Proxy
from meshsim.proxy.watch import Watch

FILE, ADMIN = "proxy.json", "admin.sock"
_FLUSH = 0.01  # seconds a line waits for others


class Home(msgspec.Struct, omit_defaults=True):
    """Who a proxy is: its name for people, its pod's address, the run folder of its mesh, and the seed of its randomness."""

    name: str
    address: str
    run: str
    seed: int = 0


def write(folder: Path, home: Home) -> None:
    (folder / FILE).write_bytes(msgspec.json.format(msgspec.json.encode(home), indent=1))


class Output:
    """Standard output, written a few times a second at most: one system call for many lines."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def __call__(self, line: str) -> None:
        if not self._lines:
            asyncio.get_running_loop().call_later(_FLUSH, self.flush)
        self._lines.append(line)

    def flush(self) -> None:
        data = "".join(self._lines).encode("latin-1", "replace")
        self._lines.clear()
        while data:
            data = data[os.write(1, data) :]


async def main(folder: Path) -> None:
    home = msgspec.json.decode((folder / FILE).read_bytes(), type=Home)
    lifeline = Lifeline()
    network = choice.of_folder(Path(home.run), home.seed)
    output = Output()
    proxy = Proxy(place.read(folder), network.pod(home.address), seed=home.seed, stdout=output)
    await proxy.start()
    await proxy.serve_admin(str(folder / ADMIN))
    settle()

    async def update(_: str = "") -> None:
        try:
            config = place.read(folder)
        except (OSError, msgspec.DecodeError) as e:
            print(f"{folder}: {e}; the configuration stays as it was", file=sys.stderr)
            return
        await proxy.update(config)

    watch = Watch([folder, *(folder / kind for kind in ("rds", "eds", "sds"))], lambda: proxy.core.spawn(update()))
    quitting = asyncio.ensure_future(proxy.told_to_quit())
    quitting.add_done_callback(lambda _: lifeline.stopping.set())
    await lifeline.serve(update)
    watch.close()
    quitting.cancel()
    if lifeline.told_to_stop:
        await proxy.drain()
    await proxy.close()
    await network.close()
    output.flush()


if __name__ == "__main__":
    run(main(Path(sys.argv[1])))

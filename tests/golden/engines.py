"""The engines a case can be replayed on, by name."""

from __future__ import annotations

import asyncio
import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from meshsim import xds
from tests.golden import replay
from tests.golden.case import Case
from tests.golden.world import Certificates

COMPILE_ONLY = "none"


@cache
def certificates() -> Certificates:
    """The CAs of the golden world, made once per process."""
    folder = Path(tempfile.mkdtemp(prefix="meshsim-golden-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Certificates(folder)


def simulate(case: Case, configs: dict[str, xds.ProxyConfig]) -> list[replay.Outcome]:
    """Hop by hop, without a socket."""
    from tests.golden import simulated

    return simulated.run(case, configs)


def live(case: Case, configs: dict[str, xds.ProxyConfig]) -> list[replay.Outcome]:
    """Live asyncio proxies on this event loop."""
    from tests.golden.live import LiveCase

    return asyncio.run(LiveCase(case.spec, case.manifests, case.proxies, case.dns, configs, certificates()).run())


def compile_only(case: Case, configs: dict[str, xds.ProxyConfig]) -> list[replay.Outcome]:
    """No calls: only what is compiled."""
    return []


ENGINES: dict[str, replay.Engine] = {"simulate": simulate, "asyncio": live, COMPILE_ONLY: compile_only}

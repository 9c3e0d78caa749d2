"""The engines a case can be replayed on, by name."""

from __future__ import annotations

import asyncio
import atexit
import shutil
import tempfile
from functools import cache, partial
from pathlib import Path

from meshsim import xds
from meshsim.network.choice import LOOPBACK, NETNS
from tests.golden import replay
from tests.golden.case import Case
from tests.golden.world import Certificates

ASYNCIO, ENVOY, COMPILE_ONLY = "asyncio", "envoy", "none"


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


def live(case: Case, configs: dict[str, xds.ProxyConfig], *, network: str = LOOPBACK) -> list[replay.Outcome]:
    """Live asyncio proxies on this event loop; `network` netns in a process that has entered namespaces."""
    from tests.golden.live import LiveCase

    return asyncio.run(LiveCase(case.spec, case.manifests, case.proxies, case.dns, configs, certificates(), network).run())


def envoy(case: Case, configs: dict[str, xds.ProxyConfig]) -> list[replay.Outcome]:
    """Real Envoys, in a process that has entered namespaces."""
    from tests.golden.envoys import EnvoyCase

    return asyncio.run(EnvoyCase(case.spec, case.manifests, case.proxies, case.dns, configs, certificates(), NETNS).run())


def engine(name: str, network: str = LOOPBACK) -> replay.Engine:
    """The engine of that name, on that network if it is one that opens sockets."""
    return partial(live, network=network) if name == ASYNCIO else ENGINES[name]


def compile_only(case: Case, configs: dict[str, xds.ProxyConfig]) -> list[replay.Outcome]:
    """No calls: only what is compiled."""
    return []


ENGINES: dict[str, replay.Engine] = {"simulate": simulate, ASYNCIO: live, ENVOY: envoy, COMPILE_ONLY: compile_only}

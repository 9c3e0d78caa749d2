"""The envoy engine of the golden replay: a case's calls on real Envoys, each in its pod's namespace.

How this works: as for the asyncio engine, but every connection manager, TCP proxy and listener logs to a file of its own as well, in the
recorded form. A call has ended when the files have not grown for two looks. Names are in the pods' /etc/hosts, where Envoy's resolver
looks first. What a case's own outcome is compared with was recorded the same way, so a difference here is one of this machine.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any as Json

from meshsim import xds
from meshsim.envoy import EnvoyProcess
from meshsim.ground import entrance
from meshsim.network.base import Network
from meshsim.network.netfilter import MARK
from meshsim.network.netns import NetnsNetwork
from meshsim.network.place import Site, place, write
from meshsim.world import World
from meshsim.xds.access_log import AccessLog, AccessLogFilter, FileAccessLog, ResponseFlagFilter, SubstitutionFormatString
from meshsim.xds.http_connection_manager import HttpConnectionManager
from meshsim.xds.tcp_proxy import TcpProxy
from tests.golden import outcome
from tests.golden.live import LiveCase

LINES = "lines.json"
LOOK = 0.06  # seconds between two; Envoy writes its lines every 15 ms
QUIET_LOOKS = 2
NO_CHAIN = AccessLogFilter(response_flag_filter=ResponseFlagFilter(flags=["NR"]))


class EnvoyCase(LiveCase):
    """One case on Envoys."""

    async def _start_proxy(self, network: Network, proxy: Mapping[str, Json], site: Site, stack: AsyncExitStack) -> None:
        assert isinstance(network, NetnsNetwork)
        name = proxy["name"]
        config = place(self._configs[name], site)
        _log_everything(config, site.folder / LINES)
        write(config, site)
        etc = site.folder / "etc"
        etc.mkdir(mode=0o700)
        lines = [f"{address} {host}" for host, addresses in self._names.items() for address in addresses]
        (etc / "hosts").write_text("".join(f"{line}\n" for line in ["127.0.0.1 localhost", *lines]))
        (etc / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
        enter = entrance(network.namespace(site.address), etc, {})
        process = EnvoyProcess(site, name, proxy["namespace"], enter=enter, mark=MARK)
        stack.push_async_callback(process.stop)
        await process.start()
        self._files = {**getattr(self, "_files", {}), name: (site.folder / LINES, 0)}

    async def _settle(self, outside: World) -> None:
        quiet = 0
        while quiet < QUIET_LOOKS:
            await asyncio.sleep(LOOK)
            new = list(self._new_lines())
            self._lines += new
            quiet = 0 if new or outside.busy else quiet + 1

    def _new_lines(self) -> Iterator[tuple[float, dict[str, Json]]]:
        for name, (file, seen) in self._files.items():
            data = file.read_bytes()[seen:] if file.exists() else b""
            whole = data[: data.rfind(b"\n") + 1]
            self._files[name] = file, seen + len(whole)
            for line in whole.splitlines():
                fields = json.loads(line)
                yield float(fields.pop("start")), {"proxy": name, **fields}


def _log_everything(config: xds.ProxyConfig, file: Path) -> None:
    form = SubstitutionFormatString(json_format={**outcome.LOG_FORMAT, "start": "%START_TIME(%s.%6f)%"})
    log = AccessLog("envoy.access_loggers.file", FileAccessLog(path=str(file), log_format=form))
    for listener in config.listeners:
        listener.access_log = [*listener.access_log, AccessLog(log.name, log.typed_config, NO_CHAIN)]
        chains = [*listener.filter_chains, *([listener.default_filter_chain] if listener.default_filter_chain else [])]
        for network_filter in (f.typed_config for chain in chains for f in chain.filters):
            if isinstance(network_filter, HttpConnectionManager | TcpProxy):
                network_filter.access_log = [*network_filter.access_log, log]

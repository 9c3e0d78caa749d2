"""What the connections of one proxy share: its runtime, its network, its pools, TLS contexts, statistics and logs."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Protocol

from meshsim.network.base import Pod
from meshsim.proxy import shortcut
from meshsim.proxy.deadlines import Deadlines
from meshsim.proxy.edges import Edges
from meshsim.proxy.mirror import MirrorStream
from meshsim.proxy.pool import Pools
from meshsim.proxy.stats import Meter, Stats
from meshsim.proxy.tls import Contexts
from meshsim.routing import tallies
from meshsim.routing.access_log import Logger
from meshsim.routing.clusters import stat_name
from meshsim.routing.entry import Entry
from meshsim.routing.exchange import Exchange
from meshsim.routing.manager import Manager
from meshsim.routing.runtime import Runtime
from meshsim.routing.steps import Mirror

if TYPE_CHECKING:
    from meshsim.proxy.shortcut import Shortcut
    from meshsim.proxy.stream import Stream

STDOUT, STDERR = "/dev/stdout", "/dev/stderr"

_HTTP_TOTALS = {"1": "downstream_rq_http1_total", "2": "downstream_rq_http2_total"}


class Connection(Protocol):
    """A downstream connection, as far as its proxy asks."""

    @property
    def idle(self) -> bool:
        """Whether it only waits for a next request."""

    @property
    def manager(self) -> Manager | None:
        """The connection manager that serves it; None for bytes."""

    @property
    def listener(self) -> str:
        """The name of the listener it came to."""

    def retire(self) -> None:
        """Have its client go elsewhere with its next request; what it serves has been replaced."""

    def drain(self) -> None:
        """End it as soon as nothing is under way."""

    def abort(self) -> None:
        """End it now."""


class Core:
    """on_log hears of every entry, also of those that no configured logger wants; stdout gets the lines logged to standard output.

    make_files: as for tls.Contexts.
    """

    def __init__(
        self,
        runtime: Runtime,
        pod: Pod,
        *,
        on_log: Callable[[Entry], None] | None,
        stdout: Callable[[str], object] | None,
        make_files: Callable[[], object],
    ):
        self.runtime, self.pod = runtime, pod
        self.loop = asyncio.get_running_loop()
        self.stats = Stats()
        self.deadlines = Deadlines(self.loop)
        self.edges = Edges(self.loop)
        self.tls = Contexts(make_files)
        self.pools = Pools(self)
        self.shortcuts = shortcut.open_()
        self.streams: set[Stream | Shortcut] = set()
        self.mirrors: set[MirrorStream] = set()
        self.connections: set[Connection] = set()
        self.arriving: set[object] = set()
        """Connections before their filter chain, and handshakes."""
        self.tasks: set[asyncio.Task[None]] = set()
        self._places: dict[str, str] = {}
        self.on_log = on_log
        self._stdout = stdout or sys.stdout.write

    @property
    def busy(self) -> int:
        """How much is under way: streams, connections that are not idle, connections that have no chain yet."""
        return len(self.streams) + len(self.mirrors) + len(self.arriving) + sum(not c.idle for c in self.connections)

    def log(self, entry: Entry, loggers: Iterable[Logger]) -> None:
        """Write an entry where its chain's loggers say."""
        for logger in loggers:
            if logger.wanted(entry):
                self._write(logger.path, logger.format(entry))
        if self.on_log is not None:
            self.on_log(entry)

    def _write(self, path: str, line: str) -> None:
        if path == STDOUT:
            self._stdout(line)
        elif path == STDERR:
            sys.stderr.write(line)
        else:
            with open(path, "a") as file:
                file.write(line)

    def count(self, manager: Manager, name: str) -> None:
        """Count something that happened at a connection manager."""
        self.stats.meter(f"http.{manager.config.stat_prefix}.").inc(name)

    def place(self, listener: str) -> str:
        """What a listener's statistics begin with: its address, as Envoy writes it there."""
        found = self._places.get(listener)
        if found is None:
            rules = self.runtime.listeners.get(listener)
            if rules is None:
                return f"listener.{listener}."  # a connection that outlived it
            found = self._places[listener] = f"listener.{str(rules.config.address).replace(':', '_')}."
        return found

    def forget_places(self) -> None:
        """Listeners may be elsewhere now."""
        self._places.clear()

    def left(self, listener: str, since: float) -> None:
        """Count the end of a connection that a listener had given to a filter chain at `since`, on the loop's clock."""
        meter = self.stats.meter(self.place(listener))
        meter.inc("downstream_cx_destroy")
        meter.took("downstream_cx_length_ms", self.loop.time() - since)

    def opened(self, manager: Manager, version: str) -> None:
        """Count a connection that begins to speak HTTP."""
        meter = self.stats.meter(f"http.{manager.config.stat_prefix}.")
        meter.inc("downstream_cx_total")
        meter.inc(f"downstream_cx_http{version}_total")

    def closed(self, manager: Manager, since: float, *, by_us: bool) -> None:
        """Count its end; it had begun at `since`, on the loop's clock."""
        self.left(manager.listener, since)
        meter = self.stats.meter(f"http.{manager.config.stat_prefix}.")
        meter.took("downstream_cx_length_ms", self.loop.time() - since)
        meter.inc("downstream_cx_destroy")
        meter.inc("downstream_cx_destroy_local" if by_us else "downstream_cx_destroy_remote")

    def count_request(self, manager: Manager, version: str) -> None:
        self.stats.add(self.counted_at_begin(manager, version))

    def counted_at_begin(self, manager: Manager, version: str) -> tuple[str, ...]:
        """What a request counts when it comes."""
        meter = self.stats.meter(f"http.{manager.config.stat_prefix}.")
        return meter.name("downstream_rq_total"), meter.name(_HTTP_TOTALS[version])

    def counted_when_sent(self, cluster: str) -> tuple[str, ...]:
        """What it counts when it gets a connection to a host."""
        return (self.stats.meter(f"cluster.{cluster}.").name("upstream_rq_total"),)

    def counted_at_end(self, manager: Manager, entry: Entry) -> tuple[str, ...]:
        """What it counts when its host has answered, and nothing unusual happened."""
        downstream, upstream = self.meters(manager, entry)
        listener = self._at_listener(manager)
        names = downstream.of_response("downstream", entry.code) + listener.of_response("downstream", entry.code)
        return names + upstream.of_response("upstream", entry.code)

    def _at_listener(self, manager: Manager) -> Meter:
        """Where a connection manager's responses count once more, by the listener it serves."""
        return self.stats.meter(f"{self.place(manager.listener)}http.{manager.config.stat_prefix}.")

    def meters(self, manager: Manager, entry: Entry) -> tuple[Meter, Meter]:
        """Where a request counts on its client's side, and on its host's."""
        cluster = stat_name(entry.cluster, entry.alt_cluster)
        return self.stats.meter(f"http.{manager.config.stat_prefix}."), self.stats.meter(f"cluster.{cluster}.")

    def time(self, meters: tuple[Meter, Meter], took: float) -> None:
        """Record how long a request took, in seconds, that its host has answered."""
        meters[0].took("downstream_rq_time", took)
        meters[1].took("upstream_rq_time", took)

    def count_response(self, manager: Manager, entry: Entry) -> None:
        """Count a finished request on both sides; a code of 0 is none."""
        meter = self.stats.meter(f"http.{manager.config.stat_prefix}.")
        if entry.code:
            meter.response("downstream", entry.code)
            self._at_listener(manager).response("downstream", entry.code)
        else:
            meter.inc("downstream_rq_completed")
            self._at_listener(manager).inc("downstream_rq_completed")
        took = entry.end - entry.start if entry.end is not None else 0.0
        meter.took("downstream_rq_time", took)
        unusual = entry.flags or entry.attempts != 1
        if unusual or entry.code >= 400:
            for name in tallies.downstream(entry):
                meter.inc(name)
        if entry.cluster:
            meter = self.stats.meter(f"cluster.{stat_name(entry.cluster, entry.alt_cluster)}.")
            if entry.code:
                meter.response("upstream", entry.code)
                meter.took("upstream_rq_time", took)
            if unusual:
                for name, number in tallies.upstream(entry):
                    meter.inc(name, number)

    async def resolve(self, name: str) -> list[str]:
        return await self.pod.resolve(name)

    def mirror(self, mirror: Mirror, exchange: Exchange) -> MirrorStream:
        """Send a copy of a request; its body is to be given to the result, and then it can be forgotten."""
        copy = MirrorStream(self, mirror, exchange)
        copy.start()
        return copy

    def spawn(self, coroutine: Coroutine[None, None, None]) -> None:
        """Run a coroutine that ends with the proxy."""
        task = self.loop.create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

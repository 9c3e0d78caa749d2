"""Interleaved rounds: each engine in turn, again and again, so that what disturbs the machine disturbs them all.

A ratio is taken within a round and the median of those counts, with the smallest and the largest beside it. No ratio is given
when client and origin were busy for more than nine tenths of their core: what is measured then is the client.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable, Sequence

import msgspec

from meshsim.bench import engines
from meshsim.bench.histogram import Histogram
from meshsim.bench.legs import Leg
from meshsim.bench.load import STARTED, Load, Result
from meshsim.bench.stage import Engine, Stage, cores, cpu_seconds, forget_peak, memory, peak, pinned
from meshsim.errors import MeshsimError
from meshsim.processes import python

FULL = 0.9  # of the core of client and origin
ALONE = 0.7  # of the core of the proxies, which a closed load keeps busy where nobody else wants it
DIRECT = "direct"
LIMIT = 60.0  # seconds beyond its own time that a load may take
Progress = Callable[[str], None]


class LoadFailed(MeshsimError):
    """The load could not be carried out; the text says why."""


class Sample(msgspec.Struct, kw_only=True):
    """One engine in one round. cpu: seconds by process (`client`, `origin`, then each proxy). memory, peaks: bytes of each proxy, after the
    round and at most."""

    engine: str
    requests: int
    errors: int
    received: int
    elapsed: float
    cpu: dict[str, float]
    memory: list[int] = []
    peaks: list[int] = []
    latencies: dict[int, int] = {}
    first_error: str = ""
    late: int = 0

    @property
    def rate(self) -> float:
        return self.requests / self.elapsed

    @property
    def proxies_cpu(self) -> float:
        return sum(seconds for name, seconds in self.cpu.items() if name.startswith("proxy"))

    @property
    def client_share(self) -> float:
        """How much of their core client and origin used."""
        return (self.cpu["client"] + self.cpu["origin"]) / self.elapsed

    @property
    def proxies_share(self) -> float:
        """How much of their core the proxies got."""
        return self.proxies_cpu / self.elapsed


class Measured(msgspec.Struct, kw_only=True):
    """One leg on some engines. Each list of `rounds` holds a sample of every engine. rate: of an open load, else 0. between: what hops say
    to each other."""

    leg: str
    title: str
    bulk: bool = False
    rate: float = 0.0
    connections: int = 0
    between: str = ""
    rounds: list[list[Sample]] = []

    @property
    def engines(self) -> list[str]:
        return [s.engine for s in self.rounds[0]] if self.rounds else []

    def samples(self, engine: str) -> list[Sample]:
        return [s for r in self.rounds for s in r if s.engine == engine]

    def latencies(self, engine: str) -> Histogram:
        total = Histogram()
        for sample in self.samples(engine):
            total.add(Histogram(sample.latencies))
        return total

    def work(self, sample: Sample) -> float:
        """What counts: requests a second, or bytes a second."""
        return sample.received / sample.elapsed if self.bulk else sample.rate

    def median(self, engine: str, value: Callable[[Sample], float]) -> float:
        return statistics.median(value(s) for s in self.samples(engine))

    def ratios(self, engine: str, other: str) -> list[float]:
        """`engine` over `other` in every round where both did something."""
        pairs = zip(self.samples(engine), self.samples(other), strict=True)
        return [self.work(a) / self.work(b) for a, b in pairs if self.work(b)]

    def added(self, engine: str) -> list[float]:
        """What `engine` adds to the median latency of no proxy, in nanoseconds, round by round; empty where that was not measured."""
        pairs = zip(self.samples(engine), self.samples(DIRECT), strict=False)
        return [float(Histogram(a.latencies).quantile(0.5) - Histogram(b.latencies).quantile(0.5)) for a, b in pairs]

    def is_client_bound(self, engine: str) -> bool:
        return self.median(engine, lambda s: s.client_share) > FULL

    def is_disturbed(self, engine: str) -> bool:
        """Whether neither side had its core to itself, though the proxies had always something to do: other programs were measured too."""
        return self.median(engine, lambda s: s.proxies_share) < ALONE and not self.is_client_bound(engine)


async def measure(
    leg: Leg, names: Sequence[str], *, rounds: int, seconds: float, rate: float = 0.0, progress: Progress = lambda _: None
) -> Measured:
    """Run a leg on each engine in turn, `rounds` times. rate: an open load of that many requests a second, else a closed one."""
    measured = Measured(leg=leg.name, title=leg.title, bulk=leg.bulk, rate=rate, connections=leg.connections)
    async with Stage(leg) as stage:
        measured.between = stage.between()
        if leg.only_direct:
            for number in range(rounds):
                progress(f"{leg.name}: round {number + 1} of {rounds}")
                measured.rounds.append([await _sample(DIRECT, stage, None, _shaped(stage.direct(), seconds, rate))])
            return measured
        made = [engines.make(name, stage) for name in names if engines.serves(name, leg)]
        try:
            for engine in made:
                await engine.start()
            for number in range(rounds):
                order = made if number % 2 == 0 else made[::-1]
                samples = []
                for engine in order:
                    progress(f"{leg.name}: round {number + 1} of {rounds}, {engine.name}")
                    samples.append(await _sample(engine.name, stage, engine, _shaped(engine.load(), seconds, rate)))
                measured.rounds.append(samples if order is made else samples[::-1])
                if leg.beside_direct:
                    progress(f"{leg.name}: round {number + 1} of {rounds}, {DIRECT}")
                    measured.rounds[-1].append(await _sample(DIRECT, stage, None, _shaped(stage.direct(), seconds, rate)))
        finally:
            await asyncio.gather(*(engine.stop() for engine in made))
    return measured


def _shaped(load: Load, seconds: float, rate: float) -> Load:
    return msgspec.structs.replace(load, seconds=seconds, mode="open" if rate else "closed", rate=rate)


async def _sample(name: str, stage: Stage, engine: Engine | None, load: Load) -> Sample:
    proxies = engine.pids if engine else []
    watched = {"origin": stage.origin.pid}
    watched |= {f"proxy {number}": pid for number, pid in enumerate(proxies)}
    before: dict[str, float] = {}

    def started() -> None:
        for pid in proxies:
            forget_peak(pid)
        before.update({who: cpu_seconds(pid) for who, pid in watched.items()})

    result = await run_load(load, started)
    cpu = {who: cpu_seconds(pid) - before[who] for who, pid in watched.items()}
    return Sample(
        engine=name,
        requests=result.requests,
        errors=result.errors,
        received=result.received,
        elapsed=result.elapsed,
        cpu={"client": result.cpu, **cpu},
        memory=[memory(pid) for pid in proxies],
        peaks=[peak(pid) for pid in proxies],
        latencies=result.latencies,
        first_error=result.first_error,
        late=result.late,
    )


async def run_load(load: Load, started: Callable[[], None] = lambda: None) -> Result:
    """Carry out a load in a process of its own; `started` is called when its warm-up is over. Raises LoadFailed."""
    process = await asyncio.create_subprocess_exec(
        *python("meshsim.bench.load"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=pinned(cores()[1]),
        limit=1 << 26,
    )
    assert process.stdin and process.stdout and process.stderr
    try:
        async with asyncio.timeout(load.warmup + load.seconds + LIMIT):
            process.stdin.write(msgspec.json.encode(load))
            process.stdin.close()
            first = await process.stdout.readline()
            if first.strip() == STARTED.encode():
                started()
            last = await process.stdout.readline()
            words = (await process.stderr.read()).decode(errors="replace").strip()
            await process.wait()
    except TimeoutError:
        raise LoadFailed("the load client did not end") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if not last:
        raise LoadFailed(words or "the load client ended without a word")
    return msgspec.json.decode(last, type=Result)

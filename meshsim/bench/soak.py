"""A soak: half of what an engine can do, for minutes; it must answer everything and must not grow.

How this works: a closed load says what the engine can do; an open load of half that rate runs for the whole time, cut into stretches. After
each stretch the proxies' memory and open files are looked at. The first third is for caches and pools to fill; growth is the last third
over the middle one.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from meshsim.bench import engines
from meshsim.bench.legs import Leg
from meshsim.bench.rounds import run_load
from meshsim.bench.stage import Stage, own_memory

SECONDS = 600.0  # where nobody says how long
_STRETCHES = 12
STEPS = _STRETCHES + 1  # for a progress bar
_TRIAL = 3.0  # seconds of the closed load
_SLACK = 1 << 20  # bytes by which memory may differ without having grown
_PART = 0.05  # and the part of it
_FEW = 8  # open files by which a pool's connections may differ


class Stretch(msgspec.Struct, kw_only=True):
    """requests that were answered. late: due and never sent. p50, p99: nanoseconds since they were due. memory: bytes of
    their own, files: how many are open; of all proxies."""

    requests: int
    errors: int
    late: int
    p50: int
    p99: int
    memory: int
    files: int
    first_error: str = ""


class Soak(msgspec.Struct, kw_only=True):
    """rate: requests a second. seconds: of a stretch."""

    leg: str
    engine: str
    rate: float
    seconds: float
    stretches: list[Stretch] = []

    def failures(self) -> Iterator[str]:
        """What went wrong, in words."""
        errors = sum(s.errors for s in self.stretches)
        if errors:
            yield f"{errors} errors, the first: {next(s.first_error for s in self.stretches if s.first_error)}"
        middle, last = self._third(1), self._third(2)
        before, after = _median(middle, lambda s: s.memory), _median(last, lambda s: s.memory)
        if after > before * (1 + _PART) + _SLACK:
            yield f"memory grew from {before / 2**20:.1f} to {after / 2**20:.1f} MiB"
        files = _median(middle, lambda s: s.files), _median(last, lambda s: s.files)
        if files[1] > files[0] + _FEW:
            yield f"open files grew from {files[0]:.0f} to {files[1]:.0f}"

    def _third(self, number: int) -> Sequence[Stretch]:
        size = len(self.stretches)
        return self.stretches[size * number // 3 : size * (number + 1) // 3]


async def soak(leg: Leg, name: str, seconds: float, progress: Callable[[str], None] = lambda _: None) -> Soak:
    """Raises MeshsimError as `rounds.measure` does."""
    async with Stage(leg) as stage:
        engine = engines.make(name, stage)
        try:
            await engine.start()
            progress(f"{leg.name}, {name}: what it can do")
            load = engine.load()
            able = await run_load(msgspec.structs.replace(load, seconds=min(_TRIAL, seconds)))
            made = Soak(leg=leg.name, engine=name, rate=able.rate / 2, seconds=seconds / _STRETCHES)
            load = msgspec.structs.replace(load, mode="open", rate=made.rate, seconds=made.seconds)
            for number in range(_STRETCHES):
                progress(f"{leg.name}, {name}: stretch {number + 1} of {_STRETCHES} at {made.rate:.0f} requests/s")
                result = await run_load(load)
                made.stretches.append(
                    Stretch(
                        requests=result.requests,
                        errors=result.errors,
                        late=result.late,
                        p50=result.histogram.quantile(0.5),
                        p99=result.histogram.quantile(0.99),
                        memory=sum(own_memory(pid) for pid in engine.pids),
                        files=sum(map(_open_files, engine.pids)),
                        first_error=result.first_error,
                    )
                )
        finally:
            await engine.stop()
    return made


def _median(stretches: Sequence[Stretch], value: Callable[[Stretch], float]) -> float:
    return statistics.median(map(value, stretches))


def _open_files(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())

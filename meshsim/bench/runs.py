"""A whole run: legs, figures and profiles into one report."""

from __future__ import annotations

import asyncio
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any as Json

import meshsim
from meshsim import envoy
from meshsim.bench import figures as single
from meshsim.bench import idle
from meshsim.bench import soak as soaks
from meshsim.bench.costs import costs
from meshsim.bench.engines import ASYNCIO, ENVOY, serves
from meshsim.bench.figures import Figure
from meshsim.bench.legs import Leg
from meshsim.bench.report import Report
from meshsim.bench.rounds import DIRECT, Measured, measure
from meshsim.bench.stage import Stage, cores, pinned

Progress = Callable[[float, str], None]

_LIBRARIES = ("uvloop", "httptools", "h2", "msgspec")


async def run(
    legs: Sequence[Leg],
    engines: Sequence[str],
    *,
    rounds: int,
    seconds: float,
    rate: float = 0.0,
    figures: bool = False,
    profile: bool = False,
    progress: Progress = lambda done, text: None,
) -> Report:
    """Measure. Raises MeshsimError: for an engine that is not there, a mesh that does not load, a load that fails.

    progress: is told before each step how much of all is done, 0 to 1, and what comes.
    """
    report = Report(machine=machine(engines), seconds=seconds)
    step = _Steps(progress, _count(legs, engines, rounds, figures=figures, profile=profile))
    for leg in legs:
        report.measured.append(await measure(leg, engines, rounds=rounds, seconds=seconds, rate=rate, progress=step))
        if leg.only_direct:
            step("wrk")
            report.figures += await wrk(leg, seconds, report.measured[-1])
        if profile and not leg.only_direct and ASYNCIO in engines:
            step(f"{leg.name}: profile")
            report.profiles.append(await costs(leg, seconds))
    if figures:
        step("start-up")
        report.figures += await asyncio.to_thread(lambda: [*single.startup(), single.simulation(), *single.in_process()])
        report.figures += await asyncio.to_thread(lambda: list(single.compile_curve(progress=step)))
        report.figures += await asyncio.to_thread(lambda: list(single.updates()))
        report.figures += await idle.figures([name for name in engines if name in (ASYNCIO, ENVOY)], step)
    return report


async def soak(legs: Sequence[Leg], engines: Sequence[str], seconds: float, progress: Progress = lambda done, text: None) -> Report:
    """Soak each engine on each leg, `seconds` each. Raises MeshsimError as `run` does."""
    report = Report(machine=machine(engines), seconds=seconds)
    chosen = [(leg, name) for leg in legs for name in engines if serves(name, leg)]
    step = _Steps(progress, len(chosen) * soaks.STEPS)
    for leg, name in chosen:
        report.soaks.append(await soaks.soak(leg, name, seconds, step))
    return report


class _Steps:
    """Counts what is done."""

    def __init__(self, progress: Progress, number: int):
        self._progress, self._number, self._done = progress, max(1, number), 0

    def __call__(self, text: str) -> None:
        self._progress(min(1.0, self._done / self._number), text)
        self._done += 1


def _count(legs: Sequence[Leg], engines: Sequence[str], rounds: int, *, figures: bool, profile: bool) -> int:
    """The steps of a run, each about as long."""
    number = 0
    for leg in legs:
        each = 1 if leg.only_direct else sum(serves(name, leg) for name in engines) + leg.beside_direct
        number += rounds * each + (leg.only_direct or profile)
    return number + figures * (1 + len(single.SIZES) + idle.STEPS * sum(name in (ASYNCIO, ENVOY) for name in engines))


async def wrk(leg: Leg, seconds: float, ours: Measured) -> list[Figure]:
    """What `wrk` counts where our own client counted, if it is installed."""
    program = shutil.which("wrk")
    if program is None:
        return []
    async with Stage(leg) as stage:
        load = stage.direct()
        command = (program, "-t1", f"-c{load.connections}", f"-d{max(1, round(seconds))}s", "-H", f"Host: {leg.host}")
        process = await asyncio.create_subprocess_exec(
            *command, f"http://{load.host}:{load.port}/{leg.body}", stdout=asyncio.subprocess.PIPE, preexec_fn=pinned(cores()[1])
        )
        printed, _ = await process.communicate()
    line = next((line for line in printed.decode().splitlines() if line.startswith("Requests/sec:")), "")
    if not line:
        return []
    counted, own = float(line.partition(":")[2]), ours.median(DIRECT, lambda sample: sample.rate)
    return [Figure("wrk on the same origin", counted, "requests/s", f"to check our own client by, which counted {own:.0f}")]


def machine(engines: Sequence[str]) -> dict[str, Json]:
    """Where, with what, and from which commit."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), platform.processor()
    )
    found: dict[str, Json] = {
        "meshsim": meshsim.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in _LIBRARIES if _installed(name)},
        "system": f"{platform.system()} {platform.release()}",
        "cpu": model,
        "cores": len(_usable()),
    }
    if ENVOY in engines:
        words = subprocess.run([envoy.binary(), "--version"], capture_output=True, text=True, check=False).stdout
        version = re.search(r"/(\d+\.\d+\.\d+)", words)
        found["envoy"] = version[1] if version else words.strip()
    return found


def _usable() -> set[int]:
    first, last = cores()
    return first | last


def _commit() -> str:
    """The checkout's commit, empty for an installed package."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []

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
from meshsim.bench.costs import costs
from meshsim.bench.engines import ASYNCIO, ENVOY, Stage, cores, pinned
from meshsim.bench.figures import Figure
from meshsim.bench.legs import Leg
from meshsim.bench.report import Report
from meshsim.bench.rounds import measure

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
    progress: Callable[[str], None] = lambda _: None,
) -> Report:
    """Measure. Raises MeshsimError: for an engine that is not there, a mesh that does not load, a load that fails."""
    report = Report(machine=machine(engines), seconds=seconds)
    for leg in legs:
        report.measured.append(await measure(leg, engines, rounds=rounds, seconds=seconds, rate=rate, progress=progress))
        if leg.only_direct:
            progress("wrk")
            report.figures += await wrk(leg, seconds)
        if profile and not leg.only_direct and ASYNCIO in engines:
            progress(f"{leg.name}: profile")
            report.figures += await costs(leg, seconds)
    if figures:
        progress("start-up")
        report.figures += await asyncio.to_thread(lambda: [*single.startup(), single.simulation(), *single.in_process()])
        report.figures += await asyncio.to_thread(lambda: list(single.compile_curve(progress=progress)))
    return report


async def wrk(leg: Leg, seconds: float) -> list[Figure]:
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
    return [Figure("wrk on the same origin", float(line.partition(":")[2]), "requests/s", "to check our own client by")] if line else []


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

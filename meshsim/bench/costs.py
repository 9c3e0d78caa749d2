"""Where the microseconds of a hop go: a profile of the asyncio proxies under load, by what the code is for.

A profiler makes calls dearer and leaves the kernel as it is, so the shares say where to look, not what a part costs.
"""

from __future__ import annotations

import asyncio
import pstats
from pathlib import Path
from typing import Any as Json

from meshsim.bench import engines, rounds
from meshsim.bench.engines import AsyncioEngine, Stage
from meshsim.bench.figures import Figure
from meshsim.bench.legs import Leg

# The part of a hop that a file is for; the first that fits counts.
_PARTS = (
    ("log", ("routing/access_log", "routing/cel", "routing/entry")),
    ("parse", ("proxy/parsers", "proxy/http1_syntax", "proxy/with_", "proxy/http2", "hpack", "h2/", "hyperframe", "h11")),
    ("write", ("proxy/http1_server", "proxy/http1_client")),
    ("tls", ("proxy/tls", "ssl.py")),
    ("capture", ("proxy/listener", "proxy/inspect", "network/", "bench/flat")),
    ("route", ("routing/",)),
    ("stream", ("proxy/",)),
)
REST = "interpreter's own functions"


async def costs(leg: Leg, seconds: float) -> list[Figure]:
    """The share of each part in the leg's asyncio proxies, the largest first."""
    async with Stage(leg) as stage:
        engine = engines.make(engines.ASYNCIO, stage, profile=True)
        assert isinstance(engine, AsyncioEngine)
        await engine.start()
        try:
            load = stage.captured(engine.pipe)
            load.seconds = seconds
            await rounds.run_load(load)
        finally:
            await asyncio.gather(engine.stop())
        parts = _by_part([path for path in engine.profiles if path.exists()])
    whole = sum(parts.values()) or 1.0
    return [Figure(f"{leg.name}: {part}", 100 * t / whole, "%") for part, t in sorted(parts.items(), key=lambda pair: -pair[1])]


def _by_part(profiles: list[Path]) -> dict[str, float]:
    """Seconds by part; a built-in function's are its caller's."""
    parts: dict[str, float] = {}
    for path in profiles:
        stats: Json = pstats.Stats(str(path))
        for (file, _, _), (_, _, own, _, callers) in stats.stats.items():
            if file == "~":
                for (caller, _, _), (_, _, time, _) in callers.items():
                    parts[_part(caller)] = parts.get(_part(caller), 0.0) + time
            else:
                parts[_part(file)] = parts.get(_part(file), 0.0) + own
    return parts


def _part(file: str) -> str:
    return next((part for part, places in _PARTS if any(place in file for place in places)), REST)

"""Where the microseconds of a hop go: a profile of the asyncio proxies under load, by what the code is for.

How this works: a function belongs to a part of a hop by its file, a built-in one by its name, else by who called it; what the profiler did
not see at all (the event loop in C, the kernel's reading and waiting) is the rest of the processes' CPU time. A profiler makes
calls dearer and leaves the kernel as it is, so the shares say where to look, not what a part costs.
"""

from __future__ import annotations

import asyncio
import pstats
from collections.abc import Iterable
from pathlib import Path
from typing import Any as Json

import msgspec

from meshsim.bench import engines, member, rounds
from meshsim.bench.engines import Proxies
from meshsim.bench.legs import Leg
from meshsim.bench.stage import Stage

CAPTURE, TLS, PARSE, ROUTE, REPEAT, STREAM, LOG, WRITE, LOOP = (
    "capture", "TLS", "parse", "route", "repeat", "stream", "log", "write", "loop and kernel",
)
PARTS = (CAPTURE, TLS, PARSE, ROUTE, REPEAT, STREAM, LOG, WRITE, LOOP)

# What a file is for; the first that fits counts. What no file fits is the loop's.
_FILES = (
    (LOG, ("routing/access_log", "routing/cel", "routing/entry", "processes/proxy", "proxy/stats", "proxy/histograms")),
    (REPEAT, ("proxy/shortcut", "routing/repeats")),
    (PARSE, ("proxy/parsers", "proxy/with_", "proxy/http2", "routing/http1", "routing/http2_fields", "hpack", "h11")),
    (WRITE, ("proxy/gather",)),
    (TLS, ("proxy/tls", "routing/certificates", "ssl.py")),
    (CAPTURE, ("proxy/listener", "proxy/inspect", "network/", "bench/flat")),
    (ROUTE, ("routing/",)),
    (STREAM, ("proxy/",)),
)
# What a built-in function is for, by a word of its name; others are their caller's.
_BUILT_IN = ((TLS, ("_ssl.",)), (WRITE, ("'write' of", "'writelines' of", "'send' of", "splice")))


class Profile(msgspec.Struct):
    """A leg's asyncio proxies: the share of each part, 1 in all."""

    leg: str
    parts: dict[str, float]


async def costs(leg: Leg, seconds: float) -> Profile:
    """Profile a leg under its own load."""
    async with Stage(leg) as stage:
        engine = engines.make(engines.ASYNCIO, stage, profile=True)
        assert isinstance(engine, Proxies)
        await engine.start()
        try:
            load = engine.load()
            load.seconds = seconds
            await rounds.run_load(load)
        finally:
            await asyncio.gather(engine.stop())
        parts = by_part(path for path in engine.profiles if path.exists())
    whole = sum(parts.values()) or 1.0
    return Profile(leg.name, {part: parts[part] / whole for part in PARTS if parts.get(part)})


def by_part(profiles: Iterable[Path]) -> dict[str, float]:
    """Seconds by part."""
    parts = dict.fromkeys(PARTS, 0.0)
    for path in profiles:
        stats: Json = pstats.Stats(str(path))
        seen = 0.0
        for (file, _, name), (_, _, own, _, callers) in stats.stats.items():
            seen += own
            part = _named(name) if file == "~" else _part(file)
            if part is not None:
                parts[part] += own
                continue
            for (caller, _, _), (_, _, time, _) in callers.items():
                parts[_part(caller)] += time
        parts[LOOP] += max(0.0, float(path.with_name(member.PROFILED).read_text()) - seen)
    return parts


def _part(file: str) -> str:
    return next((part for part, places in _FILES if any(place in file for place in places)), LOOP)


def _named(name: str) -> str | None:
    return next((part for part, words in _BUILT_IN if any(word in name for word in words)), None)

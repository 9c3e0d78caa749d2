"""What is known to differ from the recordings (known_differences.txt), and what differs beside that."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from tests.golden.judge import LEVELS, Verdict

FILE = Path(__file__).with_name("known_differences.txt")


@cache
def known_differences() -> dict[tuple[str, str, str], str]:
    """(engine, case, call or proxy) to the reason."""
    found = {}
    for line in FILE.read_text().splitlines():
        if line and not line.startswith("#"):
            engine, case, item, why = line.split(None, 3)
            found[engine, case, item] = why
    return found


def differing(engine: str, verdict: Verdict) -> dict[str, str]:
    """What is not equal, by call (or by proxy, for `xds`)."""
    if engine == "xds":
        return {proxy: text for proxy, text in verdict.files.items() if text}
    return {call: "\n".join(found) for call, (level, found) in verdict.calls.items() if level < LEVELS[-1]}


def known_items(engine: str, case: str) -> set[str]:
    """The calls (or proxies) of a case that are known to differ."""
    return {item for e, c, item in known_differences() if (e, c) == (engine, case)}


def surprises(engine: str, verdict: Verdict) -> dict[str, str]:
    """What differs and is not known to."""
    known = known_items(engine, verdict.name)
    return {item: text for item, text in differing(engine, verdict).items() if item not in known}

"""Golden cases as tests: what is compiled equals what istiod compiled, and calls go as they went on real Envoys.

One test per case and engine. What is known to differ stands in known_differences.txt, and a line there that is equal after all fails.
The generated cases are run where the folder they are kept in lies beside the checkout.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from tests.golden.engines import COMPILE_ONLY, ENGINES
from tests.golden.judge import LEVELS, Verdict, judge
from tests.golden.replay import replay

HERE = Path(__file__).parent
OUTSIDE = HERE.parent.parent.parent / "shared" / "golden"
AUTHORED = sorted((HERE / "cases").iterdir())
GENERATED = sorted((OUTSIDE / "cases-random").iterdir()) if (OUTSIDE / "cases-random").is_dir() else []


@cache
def known_differences() -> dict[tuple[str, str, str], str]:
    """(engine, case, call or proxy) to the reason."""
    found = {}
    for line in (HERE / "known_differences.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            engine, case, item, why = line.split(None, 3)
            found[engine, case, item] = why
    return found


def differing(engine: str, verdict: Verdict) -> dict[str, str]:
    """What is not equal, by call (or by proxy, for `xds`)."""
    if engine == "xds":
        return {proxy: text for proxy, text in verdict.files.items() if text}
    return {call: "\n".join(found) for call, (level, found) in verdict.calls.items() if level < LEVELS[-1]}


def check(engine: str, folder: Path) -> None:
    answer = replay(folder, ENGINES[COMPILE_ONLY if engine == "xds" else engine])
    assert not answer.failed, answer.failed
    verdict = judge(answer, folder, calls=engine != "xds")
    known = {item for e, case, item in known_differences() if (e, case) == (engine, folder.name)}
    found = differing(engine, verdict)
    surprising = {item: text for item, text in found.items() if item not in known}
    assert not surprising, "\n".join(f"{folder.name} / {item}:\n{text}" for item, text in surprising.items())
    assert not known - found.keys(), f"equal now, remove from known_differences.txt: {known - found.keys()}"


def named(folders: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("folder", folders, ids=lambda f: f.name)


@named(AUTHORED + GENERATED)
def test_compiled_as_istiod_does(folder: Path) -> None:
    check("xds", folder)


@named(AUTHORED + GENERATED)
def test_simulated_as_envoy_does(folder: Path) -> None:
    check("simulate", folder)


@named(AUTHORED)
def test_served_as_envoy_does(folder: Path) -> None:
    check("asyncio", folder)

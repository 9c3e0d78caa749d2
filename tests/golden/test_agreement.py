"""The evaluator and the live proxies do the same with configurations that nobody wrote and nobody recorded: three cases mixed into one.

What collides in a mixture (hosts, ports, gateways, policies) is for the control plane to settle; here both engines get what it made of
it, and every call of the three has to end the same way on both, log line for log line. What is left to chance is not called.
"""

from __future__ import annotations

import json
import random
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from tests.golden import case as golden
from tests.golden.compare import differences
from tests.golden.engines import live, simulate

CASES = sorted((Path(__file__).parent / "cases").iterdir())
PROXIES = ["sleep", "billing", "egress"]
MIXTURES, PARTS, CALLS = 16, 3, 8


@cache
def read(folder: Path) -> golden.Case:
    return golden.read(folder)


def ordinary() -> list[Path]:
    """Those that stand on the base with its pods."""
    return [f for f in CASES if read(f).spec.get("base") is not False and [p["name"] for p in read(f).proxies] == PROXIES]


def mixture(seed: int) -> golden.Case:
    rng = random.Random(seed)
    parts = [read(folder) for folder in rng.sample(ordinary(), PARTS)]
    resources = {r.id: r for part in reversed(parts) for r in part.resources}
    calls = {f"{part.name}/{call['name']}": call for part in parts for call in part.calls if call["name"] not in by_chance(part)}
    chosen = [{**calls[name], "name": name} for name in rng.sample(sorted(calls), min(len(calls), CALLS))]
    dns = {name: addresses for part in parts for name, addresses in part.dns.items()}
    return replace(parts[0], name=f"mixture-{seed}", spec={**parts[0].spec, "calls": chosen}, resources=list(resources.values()), dns=dns)


def by_chance(case: golden.Case) -> set[str]:
    recorded = case.folder / "outcomes.json"
    return {c["call"] for c in json.loads(recorded.read_text())["calls"] if c.get("varies")} if recorded.exists() else set()


@pytest.mark.parametrize("seed", range(MIXTURES))
def test_both_engines_agree(seed: int) -> None:
    case = mixture(seed)
    configs = case.compile()
    served = {outcome["call"]: outcome for outcome in live(case, configs)}
    assert {o["call"]: found for o in simulate(case, configs) if (found := differences(o, served[o["call"]]))} == {}

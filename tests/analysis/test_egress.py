"""The mistakes of the field: each is found where it is made, with a call that shows it, and nothing is found where none is."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshsim import analysis, resources
from meshsim.mesh import Mesh
from meshsim.surroundings import surrounded

CASES = Path(__file__).parent.parent / "golden"

PITFALLS = {
    "pit-client-sni-not-listed": {"MSIM0103"},
    "pit-double-tls": {"MSIM0108"},
    "pit-gateway-loop": {"MSIM0109"},
    "pit-http-https-conflict": {"MSIM0112"},
    "pit-match-target-port": {"MSIM0102", "MSIM0104"},
    "pit-mutual-into-plain-gateway": {"MSIM0106"},
    "pit-no-catch-all": {"MSIM0201"},
    "pit-selector-matches-nothing": {"MSIM0102", "MSIM0104"},
    "pit-vs-missing-mesh": {"MSIM0110"},
    "seed-test-egress-without-dr": {"MSIM0101"},
}
SOUND = sorted(p.name for p in (CASES / "cases").glob("seed-*") if p.name not in PITFALLS)


def found(case: str) -> list[analysis.Finding]:
    documents, notes = surrounded(resources.load(str(CASES / "base.yaml"), str(CASES / "cases" / case / "case.yaml")))
    return [f for f in analysis.analyze_mesh(Mesh(documents, notes)) if f.code.startswith("MSIM")]


@pytest.mark.parametrize("case", PITFALLS)
def test_pitfall(case: str) -> None:
    findings = found(case)
    assert {f.code for f in findings} >= PITFALLS[case]
    assert all(f.location is not None and f.location.file.endswith(".yaml") for f in findings)
    assert all(f.witness for f in findings if f.code.startswith("MSIM01"))


@pytest.mark.parametrize("case", SOUND)
def test_nothing_to_find(case: str) -> None:
    assert found(case) == []


MEANT_TO_FAIL = {"tls-origination-gateway-revoked": ["MSIM0111"]}
"""Scenarios that show a failure, and what explains it."""


@pytest.mark.parametrize("name", sorted(p.name for p in (CASES.parent.parent / "scenarios").iterdir() if p.is_dir()))
def test_scenarios_are_sound(name: str) -> None:
    documents, notes = surrounded(resources.load(str(CASES.parent.parent / "scenarios" / name)))
    findings = analysis.analyze_mesh(Mesh(documents, notes))
    codes = {f.code for f in findings if f.code.startswith("MSIM") and f.level != analysis.INFO}
    assert sorted(codes) == MEANT_TO_FAIL.get(name, [])

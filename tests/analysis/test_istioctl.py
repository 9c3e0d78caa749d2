"""The same findings as a real `istioctl analyze`, on every recorded case."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from meshsim import analysis, resources

CASES = Path(__file__).parent.parent / "golden"


def recorded() -> list[Path]:
    return sorted(p.parent for p in (CASES / "cases").glob("*/outcomes.json"))


@pytest.mark.parametrize("case", recorded(), ids=lambda p: p.name)
def test_same_findings(case: Path) -> None:
    documents = resources.load(str(CASES / "base.yaml"), str(case / "case.yaml"))
    said = json.loads((case / "outcomes.json").read_text()).get("istioctl_analyze", [])
    found = analysis.analyze(documents.resources)
    expected = Counter((f["code"], f["level"], f["resource"], f["message"]) for f in said)
    assert Counter((f.code, f.level, f.resource, f.message) for f in found) == expected
    assert all(f.location is not None for f in found)

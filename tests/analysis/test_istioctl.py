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


TWICE = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a, namespace: default}
spec:
  hosts: [a.com]
  http:
  - route: [{destination: {host: a.com}}]
  - match: [{uri: {prefix: /a}}, {uri: {prefix: /b}}]
    route: [{destination: {host: a.com}}]
"""
TELEMETRY = """
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: %s, namespace: %s}
spec: {accessLogging: [{providers: [{name: envoy}]}]}
"""


def test_one_finding_is_said_once() -> None:
    found = analysis.analyze(resources.loads(TWICE).resources)
    assert [(f.code, f.message) for f in found] == [("IST0130", "VirtualService rule #1 not used (route without matches defined before).")]


def test_several_telemetries_for_a_whole_namespace() -> None:
    documents = "---".join(TELEMETRY % pair for pair in (("b", "default"), ("a", "default"), ("c", "team-a")))
    found = analysis.analyze(resources.loads(documents).resources)
    said = 'The Telemetries [a b] in namespace "default" have no workload selector, which can lead to undefined behavior.'
    assert [(f.code, f.resource, f.message) for f in found] == [
        ("IST0160", "Telemetry default/a", said), ("IST0160", "Telemetry default/b", said)
    ]  # fmt: skip

"""The `traffic.sidecar.istio.io` annotations as data, and what is said about wrong ones."""

from __future__ import annotations

import pytest

from meshsim.resources import loads
from meshsim.resources.interception import Interception, interception

POD = """
apiVersion: v1
kind: Pod
metadata:
  name: web
  annotations:
    {}: {}
"""
DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  annotations: {{{}: {}}}
spec:
  template:
    metadata:
      annotations:
        {}: {}
"""


def of(annotation: str, text: str) -> Interception:
    return interception(loads(POD.format(f"traffic.sidecar.istio.io/{annotation}", f'"{text}"')).require().resources[0])


# annotation, its text, and how a connection to a destination goes: (host, port) -> taken
@pytest.mark.parametrize(
    ("annotation", "text", "taken", "passing"),
    [
        ("excludeOutboundPorts", "3306, 5432", [("1.2.3.4", 80)], [("1.2.3.4", 5432)]),
        ("excludeOutboundIPRanges", "10.0.0.0/8,fd00::/8", [("1.2.3.4", 80), ("fe80::1", 80)], [("10.1.2.3", 80), ("fd00::1", 80)]),
        ("includeOutboundIPRanges", "10.0.0.0/8", [("10.1.2.3", 80)], [("1.2.3.4", 80)]),
        ("includeOutboundIPRanges", "*", [("1.2.3.4", 80)], []),
        ("includeOutboundIPRanges", "", [], [("1.2.3.4", 80)]),
        ("includeOutboundPorts", "80", [("1.2.3.4", 80), ("1.2.3.4", 81)], []),
        ("excludeInterfaces", "eth0", [], [("1.2.3.4", 80)]),
        ("excludeInterfaces", "net1", [("1.2.3.4", 80)], []),
        ("excludeInboundPorts", "80", [("1.2.3.4", 80)], []),
    ],
)
def test_what_leaves(annotation: str, text: str, taken: list[tuple[str, int]], passing: list[tuple[str, int]]) -> None:
    found = of(annotation, text)
    assert [found.passes_out(*place) for place in taken] == [""] * len(taken)
    assert [found.passes_out(*place) for place in passing] == [f"annotation traffic.sidecar.istio.io/{annotation} <text>:7"] * len(passing)


@pytest.mark.parametrize(
    ("annotation", "text", "taken", "passing"),
    [
        ("excludeInboundPorts", "9090", [80], [9090]),
        ("includeInboundPorts", "80,81", [80, 81], [9090]),
        ("includeInboundPorts", "*", [80], []),
        ("includeInboundPorts", "", [], [80]),
        ("excludeOutboundPorts", "80", [80], []),
    ],
)
def test_what_arrives(annotation: str, text: str, taken: list[int], passing: list[int]) -> None:
    found = of(annotation, text)
    assert [bool(found.passes_in(port)) for port in (*taken, *passing)] == [False] * len(taken) + [True] * len(passing)


def test_ports_to_include_come_before_ranges_and_after_exclusions() -> None:
    found = Interception(include_outbound_ranges=[], include_outbound_ports=[80], exclude_outbound_ranges=["10.0.0.0/8"])
    assert [bool(found.passes_out(host, 80)) for host in ("1.2.3.4", "10.0.0.1")] == [False, True]


@pytest.mark.parametrize(
    ("annotation", "text", "said"),
    [
        ("excludeOutboundPorts", '"80,http"', 'annotation {}: "http" is not a port; allowed: numbers from 0 to 65535,'),
        ("includeInboundPorts", '"70000"', 'annotation {}: "70000" is not a port; allowed: numbers from 0 to 65535,'),
        ("excludeOutboundIPRanges", "10.0.0.1", 'annotation {}: "10.0.0.1" is not an address range; allowed: ranges'),
        ("excludeOutboundIPRanges", '"*"', 'annotation {}: "*" is not an address range; allowed: ranges'),
        ("excludeOutboundPort", '"80"', 'unknown annotation {}, passed over, as Istio does; did you mean'),
    ],
)
def test_a_wrong_annotation_is_refused_at_its_place(annotation: str, text: str, said: str) -> None:
    name = f"traffic.sidecar.istio.io/{annotation}"
    (problem,) = loads(POD.format(name, text)).problems
    kind = "warning" if said.startswith("unknown") else "error"
    assert str(problem).startswith(f"<text>:7:5: {kind}: Pod/default/web: {said.format(name)}")


def test_a_template_is_looked_at_and_the_deployment_s_own_annotation_warned_of() -> None:
    name = "traffic.sidecar.istio.io/excludeInboundPorts"
    found = loads(DEPLOYMENT.format(name, '"80"', name, '"x"')).problems
    assert [(p.severity, p.location.line) for p in found if p.location] == [("warning", 6), ("error", 11)]


def test_another_way_of_interception_is_refused() -> None:
    (problem,) = loads(POD.format("sidecar.istio.io/interceptionMode", "TPROXY")).problems
    assert "not simulated yet: annotation sidecar.istio.io/interceptionMode" in str(problem)

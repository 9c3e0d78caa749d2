"""Who is told first of a change: what others rely on is there before them and goes after them."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshsim import load
from meshsim.rollout import in_order

SCENARIO = Path(__file__).parent.parent.parent / "scenarios" / "egress-gateway-http"
WITHOUT = [SCENARIO / f"{name}.yaml" for name in ("mesh", "outside", "service-entry")]
WITH = [*WITHOUT, *(SCENARIO / f"{name}.yaml" for name in ("gateway", "destination-rule", "virtual-service"))]


@pytest.mark.parametrize(
    ("before", "after", "first"),
    [
        (WITHOUT, WITH, "istio-egressgateway"),
        (WITH, WITHOUT, "sleep"),
        (WITH, WITH[:-1], "sleep"),
        (WITH[:-1], WITH, "istio-egressgateway"),
    ],
    ids=["everything comes", "everything goes", "the route goes", "the route comes"],
)
def test_order(before: list[Path], after: list[Path], first: str) -> None:
    meshes = load(*before), load(*after)
    proxies = {p.name: p for p in meshes[1].proxies}
    changes = {name: (meshes[0].config(name), meshes[1].config(name)) for name in proxies}
    assert in_order(proxies, changes)[0] == first

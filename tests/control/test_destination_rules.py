"""DestinationRules of one host: which are merged, and whom the result reaches, by what each says of its audience."""

from __future__ import annotations

from typing import Any as Json

import pytest

from meshsim.topology import Proxy
from tests.control.helpers import CLIENT, compiled, document

HOST = "api.example.com"
OWN, OTHER = "default", "team-b"
ENTRY = document("ServiceEntry", {"hosts": [HOST], "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}], "resolution": "DNS"})
UNSET = 4294967295


def rule(limit: int, export: list[str] | None = None, selector: dict[str, str] | None = None) -> Json:
    """A rule known by its limit, with a subset of its own."""
    spec: Json = {"host": HOST, "trafficPolicy": {"connectionPool": {"tcp": {"maxConnections": limit}}}, "subsets": [{"name": f"s{limit}"}]}
    if export is not None:
        spec["exportTo"] = export
    if selector is not None:
        spec["workloadSelector"] = {"matchLabels": selector}
    return document("DestinationRule", spec, name=f"rule{limit}")


def seen(namespace: str, *rules: Json) -> tuple[int, list[str]]:
    """The limit and the subsets that a client of that namespace is told of."""
    client = CLIENT if namespace == OWN else Proxy("other", namespace=namespace, ip="10.244.3.3", labels={"app": "other"})
    found = {c.name: c for c in compiled(ENTRY, *rules, proxy=client).clusters if c.name.endswith("|" + HOST)}
    base = found.pop(f"outbound|80||{HOST}")
    return base.circuit_breakers.thresholds[0].max_connections, [name.split("|")[2] for name in found]


SLEEP, ANOTHER = {"app": "sleep"}, {"app": "another"}


@pytest.mark.parametrize(
    ("rules", "own", "other"),
    [
        # the same words: one rule, the older policy
        ([rule(1), rule(2)], (1, ["s1", "s2"]), (1, ["s1", "s2"])),
        ([rule(1, ["*"]), rule(2, ["*"])], (1, ["s1", "s2"]), (1, ["s1", "s2"])),
        # other words for the same audience: two rules, of which the newer counts
        ([rule(1), rule(2, ["*"])], (2, ["s2"]), (2, ["s2"])),
        ([rule(1, ["*"]), rule(2)], (2, ["s2"]), (2, ["s2"])),
        # kept private, and public
        ([rule(1, ["*"]), rule(2, ["."])], (2, ["s2"]), (1, ["s1"])),
        ([rule(1, ["."]), rule(2, ["*"])], (2, ["s2"]), (2, ["s2"])),
        # a wider audience adds to the narrower rule and does not stand by itself
        ([rule(1, ["."]), rule(2, [".", OTHER])], (1, ["s1", "s2"]), (2, ["s2"])),
        ([rule(1, ["team-c"]), rule(2, ["team-c", OTHER])], (UNSET, []), (UNSET, [])),
        # for some workloads: never elsewhere
        ([rule(1), rule(2, None, SLEEP)], (2, ["s2"]), (1, ["s1"])),
        ([rule(1), rule(2, None, ANOTHER)], (1, ["s1"]), (1, ["s1"])),
        # ... and a private rule for everybody is lost in it
        ([rule(1, ["."]), rule(2, None, SLEEP)], (2, ["s2", "s1"]), (UNSET, [])),
        ([rule(1, ["."]), rule(2, None, ANOTHER)], (UNSET, []), (UNSET, [])),
        ([rule(1, [".", OTHER]), rule(2, None, SLEEP)], (2, ["s2", "s1"]), (1, ["s1"])),
    ],
)
def test_merge(rules: list[Json], own: tuple[int, list[str]], other: tuple[int, list[str]]) -> None:
    assert (seen(OWN, *rules), seen(OTHER, *rules)) == (own, other)

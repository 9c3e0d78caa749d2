"""JSON Schema for editors says what validation says."""

from __future__ import annotations

import json
from typing import Any as Json

import pytest

from meshsim.resources import KINDS
from meshsim.resources.schema import schema


def at(node: dict[str, Json], *path: str) -> dict[str, Json]:
    for name in path:
        node = node["items"] if name == "[]" else node["additionalProperties"] if name == "{}" else node["properties"][name]
    return node


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_has_one(kind: str) -> None:
    made = schema(kind)
    json.dumps(made)
    assert made["properties"]["kind"] == {"const": kind}
    assert made["properties"]["apiVersion"]["enum"]


@pytest.mark.parametrize(
    ("kind", "path", "expected"),
    [
        ("ServiceEntry", ("spec",), {"required": ["hosts"], "additionalProperties": False}),
        ("ServiceEntry", ("spec", "hosts"), {"type": "array", "minItems": 1, "maxItems": 256}),
        ("ServiceEntry", ("spec", "resolution"), {"enum": ["NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS"]}),
        ("VirtualService", ("spec", "http", "[]", "match", "[]", "uri"), {"allOf": [
            {"not": {"required": ["exact", "prefix"]}}, {"not": {"required": ["exact", "regex"]}},
            {"not": {"required": ["prefix", "regex"]}}]}),
        ("VirtualService", ("spec", "http", "[]", "match", "[]", "headers", "{}", "exact"), {"type": "string"}),
        ("VirtualService", ("spec", "http", "[]", "route", "[]", "destination"), {"required": ["host"]}),
        ("DestinationRule", ("spec", "trafficPolicy", "tls", "insecureSkipVerify"), {"type": ["boolean", "null"]}),
        ("AuthorizationPolicy", ("spec", "rules", "[]", "from"), {"type": "array", "maxItems": 512}),
        ("Secret", ("stringData", "{}"), {"type": "string"}),
    ],
)  # fmt: skip
def test_field(kind: str, path: tuple[str, ...], expected: dict[str, Json]) -> None:
    node = at(schema(kind), *path)
    assert {name: node.get(name) for name in expected} == expected


def test_unknown_kind_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        schema("Servic")

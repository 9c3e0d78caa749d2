"""JSON Schema for editors says what validation says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any as Json

import pytest
import yaml

from meshsim import resources
from meshsim.resources import KINDS
from meshsim.resources.schema import schema

GOLDEN = Path(__file__).parent.parent / "golden"
SCENARIOS = Path(__file__).parent.parent.parent / "scenarios"


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


def fits(value: Json, node: dict[str, Json]) -> bool:
    """As much of a JSON Schema validator as the schemas here need."""
    kinds = node.get("type", [])
    if kinds and not any(is_a(value, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds)):
        return False
    if ("enum" in node and value not in node["enum"]) or ("const" in node and value != node["const"]):
        return False
    if not all(not fits(value, part["not"]) for part in node.get("allOf", [])):
        return False
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return node.get("minimum", value) <= value <= node.get("maximum", value)
    if isinstance(value, str):
        long_enough = node.get("minLength", 0) <= len(value) <= node.get("maxLength", len(value))
        return long_enough and re.search(node.get("pattern", ""), value) is not None
    if isinstance(value, list):
        sized = node.get("minItems", 0) <= len(value) <= node.get("maxItems", len(value))
        return sized and all(fits(item, node.get("items", {})) for item in value)
    if isinstance(value, dict):
        known, rest = node.get("properties", {}), node.get("additionalProperties", True)
        if not all(name in value for name in node.get("required", [])):
            return False
        beside = [item for name, item in value.items() if name not in known]
        if not (all(fits(item, rest) for item in beside) if isinstance(rest, dict) else rest or not beside):
            return False
        return all(fits(item, known[name]) for name, item in value.items() if name in known)
    return True


def is_a(value: Json, kind: str) -> bool:
    if kind == "null":
        return value is None
    types = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float)}
    return isinstance(value, types[kind]) and (kind == "boolean" or not isinstance(value, bool))


def recorded() -> list[Json]:
    return [
        pytest.param(entry, id=f"{file.stem}-{entry['name']}")
        for file in sorted((GOLDEN / "validation").glob("*.yaml"))
        for entry in yaml.safe_load(file.read_text())
    ]


OF_THE_SCHEMA = ("Required value", "must be of type", "Unsupported value", "unknown fields", "should", "oneOf", "Too many")


@pytest.mark.parametrize("entry", recorded())
def test_it_takes_what_the_recorded_schema_takes(entry: dict[str, Json]) -> None:
    """CEL rules and webhook checks are beyond JSON Schema; durations are stricter in it."""
    document = resources.loads(entry["document"]).documents[0].source.raw()
    verdict = fits(document, schema(document["kind"]))
    if "schema" in entry:
        assert verdict is False or not any(word in message for message in entry["schema"] for word in OF_THE_SCHEMA)
    else:
        assert verdict is True


@pytest.mark.parametrize("file", sorted(SCENARIOS.glob("*/*.yaml")), ids=lambda f: f"{f.parent.name}-{f.stem}")
def test_it_takes_every_scenario(file: Path) -> None:
    for document in resources.load(file).documents:
        of_istio_1_0 = any("proto name" in p.message for p in document.problems)
        assert fits(document.source.raw(), schema(document.kind)) is not of_istio_1_0, document.id

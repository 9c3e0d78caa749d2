"""Recorded truth: what Istio's CRD schema, decoder and webhook said of single documents, and of the resources of the golden cases."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any as Json

import pytest
import yaml

from meshsim import resources
from meshsim.resources.validation import rejected, validate

GOLDEN = Path(__file__).parent.parent / "golden"
RECORDED = [
    (f"{file.stem}-{entry['name']}", entry)
    for file in sorted((GOLDEN / "validation").glob("*.yaml"))
    for entry in yaml.safe_load(file.read_text())
]
APPLIED_ALL_THE_SAME = {"seed-tls-in-mtls-files"}
"""Holds a VirtualService of Istio 1.0, which was applied although the schema rejects it."""


def single(message: str) -> list[str]:
    """The messages of an aggregate, which the API server joins into one."""
    if message.startswith("[") and message.endswith("]"):
        return re.split(r", (?=<nil>:|spec[.:\[])", message[1:-1])
    if message.startswith("unknown fields ["):
        return [f"unknown fields [{name}]" for name in message[16:-1].split()]
    return [message]


@pytest.mark.parametrize("entry", [entry for _, entry in RECORDED], ids=[name for name, _ in RECORDED])
def test_document_gets_istios_verdict_in_istios_words(entry: dict[str, Json]) -> None:
    problems = validate(resources.loads(entry["document"], entry["name"]))
    errors = [p.message for p in problems if p.severity == "error"]
    assert ("rejected" if errors else "accepted") == entry["verdict"]
    expected = [one for message in entry.get("schema", []) for one in single(message)] + entry.get("webhook", [])
    expected += [entry["convert"]] if "convert" in entry else []
    assert sorted(errors) == sorted(expected)
    assert sorted(p.message for p in problems if p.severity == "warning") == sorted(entry.get("warnings", []))
    assert all(p.location is not None and p.location.line >= 1 and p.location.column >= 1 for p in problems)


@pytest.mark.parametrize("folder", sorted(p.parent for p in GOLDEN.glob("cases/*/outcomes.json")), ids=lambda p: p.name)
def test_resources_of_a_case_get_the_recorded_warnings(folder: Path) -> None:
    recorded: dict[str, list[str]] = {}
    for said in json.loads((folder / "outcomes.json").read_text()).get("validation") or []:
        recorded.setdefault(said["resource"], []).extend(said.get("warnings", []))
    documents = resources.load(folder / "case.yaml")
    found: dict[str, list[str]] = {name: [] for name in APPLIED_ALL_THE_SAME & {folder.name} and recorded}
    for problem in validate(documents):
        if folder.name not in APPLIED_ALL_THE_SAME:
            found.setdefault(problem.resource, []).append(problem.message)
    assert {name: sorted(said) for name, said in found.items()} == {name: sorted(said) for name, said in recorded.items()}
    assert [r.id for r in documents.resources if rejected(r)] == []

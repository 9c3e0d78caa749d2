"""Findings as text: istioctl's lines, JSON, YAML, SARIF 2.1.0, GitHub annotations, JUnit XML."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any as Json
from xml.sax.saxutils import escape, quoteattr

from meshsim.analysis.findings import CATALOG, ERROR, INFO, WARNING, Finding

DOCUMENTATION = "https://istio.io/v1.32/docs/reference/config/analysis/{}/"
_SARIF_LEVELS = {ERROR: "error", WARNING: "warning", INFO: "note"}
_GITHUB_LEVELS = {ERROR: "error", WARNING: "warning", INFO: "notice"}


def log(findings: list[Finding]) -> str:
    """A line each, as istioctl prints them, the witness below."""
    return "\n".join(line for f in findings for line in (str(f), *_witness(f)))


def _witness(found: Finding) -> list[str]:
    return [f"    {line}" for line in found.witness.splitlines()]


def entries(findings: list[Finding]) -> list[dict[str, Json]]:
    """The objects of istioctl's JSON output; `witness` and `line` are ours."""
    out = []
    for found in findings:
        entry: dict[str, Json] = {
            "code": found.code,
            "documentationUrl": DOCUMENTATION.format(found.code.lower()) if found.code.startswith("IST") else "",
            "level": found.level,
            "message": found.message,
            "origin": found.resource,
            "reference": f"{found.location.file}:{found.location.line}" if found.location else "",
        }
        out.append(entry | ({"witness": found.witness} if found.witness else {}))
    return out


def as_json(findings: list[Finding]) -> str:
    return json.dumps(entries(findings), indent=2, ensure_ascii=False)


def as_yaml(findings: list[Finding]) -> str:
    import yaml

    return str(yaml.safe_dump(entries(findings), sort_keys=False, allow_unicode=True)).rstrip("\n")


def sarif(findings: list[Finding]) -> str:
    """One run of one tool; rules are the codes that occur."""
    codes = sorted({f.code for f in findings})
    rules = [{"id": code, "name": CATALOG[code][1], "shortDescription": {"text": CATALOG[code][1]}} for code in codes]
    results = []
    for found in findings:
        result: dict[str, Json] = {
            "ruleId": found.code,
            "ruleIndex": codes.index(found.code),
            "level": _SARIF_LEVELS[found.level],
            "message": {"text": f"{found.resource}: {found.message}"},
        }
        if found.location:
            region = {"startLine": found.location.line, "startColumn": max(1, found.location.column)}
            artifact = {"uri": found.location.file}
            result["locations"] = [{"physicalLocation": {"artifactLocation": artifact, "region": region}}]
        results.append(result)
    run = {"tool": {"driver": {"name": "meshsim", "rules": rules}}, "results": results}
    return json.dumps({"version": "2.1.0", "$schema": "https://json.schemastore.org/sarif-2.1.0.json", "runs": [run]}, indent=2)


def github(findings: list[Finding]) -> str:
    """Workflow commands that put each finding on its line of a pull request."""
    lines = []
    for found in findings:
        place = f" file={_property(found.location.file)},line={found.location.line}," if found.location else " "
        message = f"{found.resource}: {found.message}".replace("%", "%25").replace("\n", "%0A")
        lines.append(f"::{_GITHUB_LEVELS[found.level]}{place}title={found.code}::{message}")
    return "\n".join(lines)


def _property(text: str) -> str:
    return text.replace("%", "%25").replace(":", "%3A").replace(",", "%2C")


def junit(findings: list[Finding]) -> str:
    """A test case per finding; errors and warnings fail, notes pass."""
    failed = sum(f.level != INFO for f in findings)
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', f'<testsuite name="meshsim analyze" tests="{len(findings)}" failures="{failed}">']
    for found in findings:
        place = f"{found.location.file}:{found.location.line}" if found.location else ""
        lines.append(f"  <testcase classname={quoteattr(found.code)} name={quoteattr(f'{found.resource} {place}'.strip())}>")
        if found.level != INFO:
            text = escape("\n".join([str(found), *_witness(found)]))
            lines.append(f"    <failure type={quoteattr(found.level)} message={quoteattr(found.message)}>{text}</failure>")
        lines.append("  </testcase>")
    return "\n".join([*lines, "</testsuite>"])


FORMATS: dict[str, Callable[[list[Finding]], str]] = {
    "log": log,
    "json": as_json,
    "yaml": as_yaml,
    "sarif": sarif,
    "github": github,
    "junit": junit,
}

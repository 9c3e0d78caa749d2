"""Findings in every form, and what decides about the exit status."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from meshsim import cli
from meshsim.analysis.findings import CATALOG
from meshsim.cli.analyze import FOUND

BROKEN = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: cnn, namespace: default}
spec:
  hosts: [edition.cnn.com]
  http:
  - route: [{destination: {host: edition.cnn.com, subset: missing, port: {number: 80}}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: cnn, namespace: default}
spec:
  hosts: [edition.cnn.com]
  resolution: DNS
  ports: [{number: 80, name: http, protocol: HTTP}]
"""


@pytest.fixture
def broken(tmp_path: Path) -> str:
    file = tmp_path / "virtual service, 100%.yaml"
    file.write_text(BROKEN)
    return str(file)


Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def analyze(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(["analyze", *arguments])
        return int(ended.value.code or 0), capsys.readouterr().out

    return analyze


def test_every_form_says_the_same(run: Run, broken: str) -> None:
    status, text = run(broken, "-o", "json")
    entries = json.loads(text)
    codes = [entry["code"] for entry in entries]
    assert (status, "MSIM0101" in codes) == (FOUND, True)
    assert all(entry["reference"].startswith(broken) for entry in entries)
    assert next(entry for entry in entries if entry["code"] == "MSIM0101")["witness"].startswith("http://edition.cnn.com")

    assert yaml.safe_load(run(broken, "-o", "yaml")[1]) == entries
    assert [line.split("[")[1].split("]")[0] for line in run(broken)[1].splitlines() if not line.startswith(" ")] == codes

    sarif = json.loads(run(broken, "-o", "sarif")[1])["runs"][0]
    assert [result["ruleId"] for result in sarif["results"]] == codes
    assert {rule["id"] for rule in sarif["tool"]["driver"]["rules"]} == set(codes)
    place = sarif["results"][0]["locations"][0]["physicalLocation"]
    assert (place["artifactLocation"]["uri"], place["region"]["startLine"]) == (broken, int(entries[0]["reference"].rpartition(":")[2]))

    suite = ElementTree.fromstring(run(broken, "-o", "junit")[1])
    assert [case.get("classname") for case in suite] == codes
    assert suite.get("failures") == str(sum(case.find("failure") is not None for case in suite)) != "0"

    lines = run(broken, "-o", "github")[1].splitlines()
    assert [line.split("title=")[1].split("::")[0] for line in lines] == codes
    assert all(line.startswith(("::error file=", "::warning file=", "::notice file=")) for line in lines)
    assert all("virtual service%2C 100%25.yaml,line=" in line for line in lines)


@pytest.mark.parametrize(
    ("options", "fails", "shows"),
    [
        ((), True, True),
        (("--failure-threshold", "Info"), True, True),
        (("-S", "MSIM0101"), True, False),  # IST0101 is left
        (("-S", "MSIM0101=VirtualService default/*", "-S", "IST*"), False, False),
        (("-S", "MSIM0101=VirtualService default/other"), True, True),
    ],
)
def test_what_fails_and_what_is_left_out(run: Run, broken: str, options: tuple[str, ...], fails: bool, shows: bool) -> None:
    status, text = run(broken, *options)
    assert (status == FOUND, "MSIM0101" in text) == (fails, shows)


def test_a_threshold_of_what_is_shown_does_not_hide_a_failure(run: Run) -> None:
    """A Warning is not shown where only errors are, and fails where warnings do."""
    name = "tls-origination-gateway"
    assert run(name, "--output-threshold", "Error") == (0, "")
    assert run(name, "--output-threshold", "Error", "--failure-threshold", "Warning") == (FOUND, "")
    assert "IST0129" in run(name)[1]


def test_the_page_lists_every_code() -> None:
    page = (Path(__file__).parent.parent.parent / "docs" / "findings.md").read_text()
    rows = [line.removeprefix("| ").split(" | ")[:2] for line in page.splitlines() if line.startswith("| MSIM")]
    assert sorted(rows) == [[code, name] for code, (_, name, _) in CATALOG.items() if code.startswith("MSIM")]

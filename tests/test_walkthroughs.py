"""Every walk-through gives what its page shows: on one event loop, and the README's own with a process per proxy."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from meshsim import walkthrough
from meshsim.cli import columns, demo_text
from meshsim.cli.sources import scenarios
from meshsim.mesh import Mesh
from meshsim.walkthrough import ExpectedResponse, Played, Walkthrough, play, read
from meshsim.words import CATALOGUE, LANGUAGES, Words

FOLDERS = [folder for folder in scenarios() if (folder / "walkthrough.yaml").exists()]
WITHOUT_CURL = pytest.mark.skipif(shutil.which("curl") is None, reason="some steps call curl in a shell")


@WITHOUT_CURL
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f.name)
async def test_every_step_gives_what_the_page_shows(folder: Path) -> None:
    found = read(folder)
    assert found is not None
    async with found.initial().run() as live, aclosing(play(found, live)) as steps:
        async for played in steps:
            assert not played.failures, f"step {played.number}: {played.failures}\n{played.output}\n{played.log}"
            for language in LANGUAGES:
                shown = list(screen(found, played, live.mesh, Words(language)))
                assert [line for line in shown if columns.width(line) > columns.WIDTH] == []
                if language != "en":
                    assert [(line, text) for line in shown for text in ENGLISH if text in line] == []


FRAGMENTS = [(text.strip(), other) for said, other in CATALOGUE.values() for text in re.split(r"\{.*?\}", said)]
ENGLISH = [text for text, other in FRAGMENTS if re.search(r"\w \w", text) and text not in other]
"""The fixed words of the English screens; single ones are in YAML and logs too."""


def screen(found: Walkthrough, played: Played, mesh: Mesh, words: Words) -> Iterator[str]:
    """Every line that `meshsim demo` prints of a step."""
    step, total = played.step, len(found.spec.steps)
    blocks = [demo_text.title(played.number, total, step, words), *demo_text.commands(step, found.folder, words)]
    blocks += [*demo_text.outcome(played, words), *demo_text.verdict(played, mesh, words), *demo_text.picture(step, mesh, words)]
    return (line for block in blocks for line in block.splitlines())


def test_demo_plays_the_page_with_real_processes_and_leaves_nothing() -> None:
    command = [sys.executable, "-m", "meshsim", "demo"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all 7 steps as the page shows" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


async def test_meshsims_own_client_stands_in_for_curl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walkthrough.shutil, "which", lambda name: None)
    found = read(next(f for f in FOLDERS if f.name == "egress-gateway-http"))
    assert found is not None
    async with found.initial().run() as live, aclosing(play(found, live)) as steps:
        played = [step async for step in steps]
    assert [p.failures for p in played if p.failures] == []
    assert all(p.substitute for p in played if p.step.run)


@pytest.mark.parametrize(("language", "said"), [("en", "2 responses, expected 1"), ("zh", "有 2 个响应，应有 1 个")])
async def test_a_step_that_goes_another_way_says_how(language: str, said: str) -> None:
    found = read(next(f for f in FOLDERS if f.name == "egress-gateway-http"))
    assert found is not None
    step = next(s for s in found.spec.steps if s.run)
    step.expect.responses = [ExpectedResponse(status=200, version="HTTP/2")]
    found.spec.steps = [step]
    walkthrough.LOG_LIMIT, before = 0.2, walkthrough.LOG_LIMIT
    try:
        async with found.initial().run() as live, aclosing(play(found, live, Words(language))) as steps:
            played = [p async for p in steps]
    finally:
        walkthrough.LOG_LIMIT = before
    assert said in played[0].failures


@pytest.mark.parametrize(
    "output,expected",
    [
        ("HTTP/1.1 301 Moved\r\nLocation: https://x/\r\n\r\nHTTP/2 200 \r\n\r\n", [(301, "HTTP/1.1", "https://x/"), (200, "HTTP/2", "")]),
        ("<title>HTTP/2 200</title>\n", []),
        ("", []),
    ],
)
def test_response_heads_are_found_in_what_curl_prints(output: str, expected: list[tuple[int, str, str]]) -> None:
    assert [(r.status, r.version, r.location) for r in walkthrough.responses(output)] == expected

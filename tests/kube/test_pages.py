"""Istio's task pages, command by command, on meshes of real processes; and the table that says what each section shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from meshsim.network import namespaces
from tests.kube.cluster import ROOT, cluster
from tests.kube.transcript import Shell, fits, steps

DOCS = ROOT / "docs"
PAGES = {"egress-gateway.md": ["--network", "netns"], "egress-gateway-2018.md": ["--network", "netns", "--istio-version", "1.0"]}
ROW = re.compile(r"^\| \[([^\]]+)\]\(pages/([^)#]+)(?:#[^)]*)?\) \| (.+?) \| (.+?) \|$", re.M)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.netns,
    pytest.mark.xdist_group("pages"),
    pytest.mark.skipif(bool(namespaces.unavailable()), reason=namespaces.unavailable()),
]


def play(name: str, folder: Path) -> tuple[list[str], dict[str, list[str]]]:
    """What is not as a page's transcript shows it, and every line printed, by section."""
    wrong = []
    with cluster(name[-7:-3], *PAGES[name]) as mesh:
        shell = Shell(mesh, folder)
        for step in steps((DOCS / "pages" / name).read_text()):
            if said := shell.play(step):
                wrong.append(f"docs/pages/{name}:{step.line}: $ {step.command}\n{said}")
                break  # what follows builds on it
    return wrong, shell.seen


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[tuple[list[str], dict[str, list[str]]]]]]:
    """All pages at the same time, for they mostly wait."""
    with ThreadPoolExecutor(len(PAGES)) as pool:
        yield {name: pool.submit(play, name, tmp_path_factory.mktemp("page")) for name in PAGES}


@pytest.mark.parametrize("name", PAGES)
def test_every_command(played: dict[str, Future[tuple[list[str], dict[str, list[str]]]]], name: str) -> None:
    wrong, _ = played[name].result()
    assert not wrong, wrong[0]


def test_the_table_holds_what_was_printed(played: dict[str, Future[tuple[list[str], dict[str, list[str]]]]]) -> None:
    rows = ROW.findall((DOCS / "pages.md").read_text())
    assert {page for _, page, _, _ in rows} == set(PAGES)
    wrong = []
    for section, page, _, cell in rows:
        printed = played[page].result()[1].get(section, [])
        shown = [text.replace("\\|", "|") for text in re.findall(r"`([^`]+)`", cell)]
        wrong += [f"{page}, {section}: nothing printed is {text!r}" for text in shown if not any(fits(text, line) for line in printed)]
    assert not wrong

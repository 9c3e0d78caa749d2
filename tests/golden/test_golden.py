"""Golden cases as tests: what is compiled equals what istiod compiled, and calls go as they went on real Envoys.

One test per case and engine. What is known to differ stands in known_differences.txt, and a line there that is equal after all fails.
The generated cases are run where the folder they are kept in lies beside the checkout.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from meshsim.network.choice import NETNS
from tests.envoy.needed import NEEDS_ENVOY
from tests.golden.engines import ASYNCIO, COMPILE_ONLY, ENGINES, ENVOY, engine
from tests.golden.judge import judge
from tests.golden.known import differing, known_items, surprises
from tests.golden.replay import replay
from tests.network.inside import in_namespaces, needs_netns

HERE = Path(__file__).parent
OUTSIDE = HERE.parent.parent.parent / "shared" / "golden"
AUTHORED = sorted((HERE / "cases").iterdir())
GENERATED = sorted((OUTSIDE / "cases-random").iterdir()) if (OUTSIDE / "cases-random").is_dir() else []


def check(kind: str, folder: Path) -> None:
    answer = replay(folder, ENGINES[COMPILE_ONLY if kind == "xds" else kind])
    assert not answer.failed, answer.failed
    verdict = judge(answer, folder, calls=kind != "xds")
    known, found = known_items(kind, folder.name), differing(kind, verdict)
    surprising = surprises(kind, verdict)
    assert not surprising, "\n".join(f"{folder.name} / {item}:\n{text}" for item, text in surprising.items())
    assert not known - found.keys(), f"equal now, remove from known_differences.txt: {known - found.keys()}"


def named(folders: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("folder", folders, ids=lambda f: f.name)


@named(AUTHORED + GENERATED)
def test_compiled_as_istiod_does(folder: Path) -> None:
    check("xds", folder)


@named(AUTHORED + GENERATED)
def test_simulated_as_envoy_does(folder: Path) -> None:
    check("simulate", folder)


@named(AUTHORED)
def test_served_as_envoy_does(folder: Path) -> None:
    check("asyncio", folder)


IN_NAMESPACES = (
    "dr-short-name-host", "ks-headless-with-and-without-selector", "mix-team-authorization", "seed-https-passthrough",
    "seed-tls-origination-gateway-istio-mutual",
)  # fmt: skip
"""Cases for every kind of journey: into a pod's own application, to a pod by its address, through a gateway, past it."""


@needs_netns
@pytest.mark.parametrize("name", [ASYNCIO, pytest.param(ENVOY, marks=NEEDS_ENVOY)])
def test_served_in_namespaces_as_envoy_does(name: str) -> None:
    def differences() -> dict[str, dict[str, str]]:
        found = {}
        for folder in (HERE / "cases" / each for each in IN_NAMESPACES):
            answer = replay(folder, engine(name, NETNS))
            found[folder.name] = {"failed": answer.failed} if answer.failed else surprises(name, judge(answer, folder))
        return found

    assert in_namespaces(differences) == {each: {} for each in IN_NAMESPACES}

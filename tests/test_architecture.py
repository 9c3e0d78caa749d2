"""The architecture: which part may import which, and what no part may say. The table is the design; change it on purpose."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "meshsim"
ANYTHING = "*"

ALLOWED = {
    "errors": "",
    "hosts": "errors",
    "resources": "errors hosts texts",
    "topology": "errors resources",
    "deployments": "errors resources topology",
    "era": "errors resources",
    "cluster": "errors resources topology",
    "kube_system": "errors resources",
    "xds": "errors",
    "control": "resources xds topology era hosts errors",
    "analysis": "mesh near_misses simulate control resources xds routing topology hosts errors",
    "routing": "xds hosts errors",
    "simulate": "routing xds topology hosts resources.network_policy resources.interception resources.external_server errors cluster",
    "identity": "errors",
    "installation": "errors resources",
    "network": "topology xds resources.network_policy resources.interception errors",
    "proxy": "xds routing network.base network.proxy_protocol identity hosts errors",
    "world": "xds network.base network.proxy_protocol identity topology resources.external_server resources.issued_secret resources.recipes"
    " errors",
    "envoy": "xds network identity topology resources.external_server errors processes",
    "audit": "mesh simulate resources.external_server hosts errors",
    "near_misses": "control resources simulate topology hosts errors",
    "surroundings": "errors resources era installation",
    "mesh": ANYTHING,
    "live": ANYTHING,
    "members": ANYTHING,
    "ground": "network pod errors",
    "pod": "network.base errors",
    "rollout": "topology xds",
    "run_folder": "",
    "texts": "errors",
    "processes": "run_folder network world proxy identity resources.external_server topology xds errors",
    "walkthrough": ANYTHING,
    "words": "",
    "client": "pod errors",
    "cli": ANYTHING,
    "bench": ANYTHING,
    "pytest_plugin": ANYTHING,
    "testing": ANYTHING,
    "kube": ANYTHING,
    "dashboard": ANYTHING,
    "__init__": ANYTHING,
    "__main__": "cli",
}
"""Part -> what of meshsim it may import beside itself. A dotted name allows that module only. The composers may import anything."""

HEAVY = ("aiohttp", "cryptography", "rich", "trustme", "h2", "uvloop")
FLAGS = frozenset("UF UH UO NR UC DC LH UT LR UR URX NC DT UPE SI IH DPE UMSDR RLSE RL UAEX FI DI OM DF NFCF".split())  # noqa: SIM905 - a table reads better in one line
HEADER = re.compile(r"(?i)(x-[a-z0-9-]+|:(method|path|authority|scheme|status)|host|content-length|transfer-encoding|connection|keep-alive"
                    r"|upgrade|te|trailer|via|server|date|expect|location|user-agent|content-type|proxy-connection|forwarded|cookie|origin)")


def modules() -> Iterator[tuple[str, Path]]:
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(PACKAGE).with_suffix("").parts
        yield ".".join(parts), file


def imported(file: Path) -> Iterator[tuple[str, int]]:
    """Every module of meshsim that a file imports, wherever in it, as a dotted name without `meshsim.`."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            for name in node.names:
                if name.name.startswith("meshsim."):
                    yield name.name.removeprefix("meshsim."), node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "meshsim":
                yield from ((name.name, node.lineno) for name in node.names)
            elif node.module.startswith("meshsim."):
                base = node.module.removeprefix("meshsim.")
                yield from ((f"{base}.{name.name}", node.lineno) for name in node.names)


def permitted(part: str, target: str) -> bool:
    allowed = ALLOWED[part]
    names = [part, *allowed.split()]
    return allowed == ANYTHING or any(target == name or target.startswith(name + ".") for name in names)


@pytest.mark.parametrize("name,file", list(modules()), ids=[n for n, _ in modules()])
def test_imports_follow_the_table(name: str, file: Path) -> None:
    part = name.partition(".")[0]
    assert part in ALLOWED, f"meshsim/{part} is not in the table"
    place = file.relative_to(PACKAGE.parent)
    wrong = [f"{place}:{line} imports {target}" for target, line in imported(file) if not permitted(part, target)]
    assert not wrong, "\n".join(wrong)


def test_proxy_spells_no_header_and_no_flag() -> None:
    """What a proxy does to a message is decided in routing/, which alone knows the words."""
    wrong = []
    for file in sorted((PACKAGE / "proxy").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
                text = node.value.decode("latin-1") if isinstance(node.value, bytes) else node.value
                if text in FLAGS or HEADER.fullmatch(text):
                    wrong.append(f"{file.name}:{node.lineno}: {text!r}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("command", ["trace", "validate", "config", "schema"])
def test_light_commands_load_no_heavy_library(command: str) -> None:
    code = f"import sys, meshsim.cli.{command}; print(*(m for m in {HEAVY!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []

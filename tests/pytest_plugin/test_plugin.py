"""The plugin as a stranger's test suite meets it: a process of its own, files of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCENARIOS = ROOT / "scenarios"

# An installed meshsim brings its plugin; a checkout on the path has to name it.
PLUGIN = [] if entry_points(group="pytest11", name="meshsim") else ["-p", "meshsim.pytest_plugin"]

GOOD = """
apiVersion: meshsim.dev/v1alpha1
kind: MeshTest
metadata: {name: t}
spec:
  mesh: [%s]
  calls:
  - {name: ok, from: sleep, url: "http://edition.cnn.com/politics", expect: {status: 301, via: istio-egressgateway}}
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", *PLUGIN, "-p", "no:cacheprovider", "-q", *arguments]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False)


def meshtest(text: str) -> str:
    return text % (SCENARIOS / "egress-gateway-http")


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        (GOOD, 0, ["1 passed"]),
        (
            GOOD.replace("301", "200"),
            1,
            ["expected status 200, got 301", "istio-egressgateway.istio-system (gateway)", "virtual-service.yaml:"],
        ),
        (GOOD.replace("via: istio-egressgateway", "via: nowhere"), 1, ["expected to pass nowhere"]),
        (GOOD.replace("status: 301", "statu: 301"), 1, ["unknown expectation 'statu'", "status"]),
        (GOOD.replace("  calls:", "  engines: [telepathy]\n  calls:"), 2, ["unknown engine 'telepathy'"]),
        (GOOD.replace("from: sleep", "from: nobody"), 1, ["no pod 'nobody'"]),
        (GOOD.replace("kind: MeshTest", "kind: MeshTost"), 2, ["MeshTost"]),
    ],
    ids=["passes", "status", "via", "unknown expectation", "unknown engine", "unknown pod", "unknown kind"],
)
def test_yaml_files_are_tests(tmp_path, text, code, says):
    (tmp_path / "one.meshtest.yaml").write_text(meshtest(text))
    done = run(tmp_path)
    assert done.returncode == code, done.stdout + done.stderr
    assert [s for s in says if s not in done.stdout] == [], done.stdout
    assert "Traceback" not in done.stdout


def test_the_example_project_passes():
    done = run(SCENARIOS / "test-your-own", "--rootdir", ".")
    assert done.returncode == 0, done.stdout
    assert "[100%]" in done.stdout


def test_a_mesh_must_be_named(tmp_path):
    (tmp_path / "test_it.py").write_text("def test_it(mesh):\n    pass\n")
    done = run(tmp_path)
    assert done.returncode == 1
    assert "set mesh_paths" in done.stdout

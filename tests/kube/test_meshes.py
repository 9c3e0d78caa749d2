"""Several meshes side by side, and what is left of one that was ended: nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kube.cluster import Cluster, cluster


def processes(folder: str) -> list[str]:
    """Those of the meshes in a run folder, by their command lines."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        found += [words] if folder in words or "kube.daemon second" in words else []
    return found


def table(mesh: Cluster) -> list[str]:
    return [line.split()[0] for line in mesh.says("ls").splitlines()[1:]]


@pytest.mark.slow
def test_side_by_side() -> None:
    with cluster("two", "--name", "first") as mesh:
        mesh.says("up", "network-policy", "--name", "second")
        assert table(mesh) == ["first", "second"]
        again = mesh("up", "--name", "second")
        assert (again.returncode, "is running already" in again.stderr) == (2, True)
        which = mesh("get", "ns")
        assert (which.returncode, "several meshes are running (first, second)" in which.stderr) == (2, True)
        assert "created" in mesh.says("create", "namespace", "elsewhere", "--mesh", "first")
        assert "elsewhere" not in mesh.says("get", "ns", "--mesh", "second", "-o", "name")
        folder = next(line.split()[-1] for line in mesh.says("ls").splitlines() if line.startswith("second"))
        assert processes(folder)
        assert mesh.says("down", "second") == 'mesh "second" is down\n'
        assert table(mesh) == ["first"]
        assert not Path(folder).exists()
        assert not processes(folder)
        assert folder not in Path("/proc/net/unix").read_text()
        assert "sleep" in mesh.says("get", "pods"), "the other one goes on"

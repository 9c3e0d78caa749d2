"""`meshsim` as a person types it, on meshes of one test alone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


class Cluster:
    """Commands with a run folder of their own."""

    root = ROOT

    def __init__(self, folder: Path):
        self.folder = folder
        self.environment = os.environ | {"MESHSIM_RUN": str(folder), "PYTHONPATH": str(ROOT)}

    def __call__(self, *words: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "meshsim", *words]
        return subprocess.run(
            command, env=self.environment, input=text, text=True, capture_output=True, timeout=60, check=False, cwd=ROOT
        )

    def says(self, *words: str, text: str | None = None) -> str:
        done = self(*words, text=text)
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def cluster(name: str, *up: str) -> Iterator[Cluster]:
    """A mesh that is up, and afterwards no trace of it."""
    folder = Path("/tmp") / f"ms{os.getpid()}{name}"
    folder.mkdir(mode=0o700)
    made = Cluster(folder)
    try:
        made.says("up", *up)
        yield made
    finally:
        ended = made("down", "--all")
    assert ended.returncode == 0, ended.stderr
    assert not list(folder.iterdir()), "a mesh that was ended leaves nothing"
    folder.rmdir()

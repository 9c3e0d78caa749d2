"""meshsim apply, get, describe, delete, create, label, logs, exec: what kubectl does, on a running mesh.

How this works: the words are read here only as far as the files that they name, which this process may see and the mesh may not; the mesh
reads them again and answers on this process's own terminal. Nothing of the mesh is imported, so that a command starts at once.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from meshsim.errors import MeshsimError
from meshsim.kube import client
from meshsim.kube.arguments import HelpAsked, parse
from meshsim.texts import shipped, texts


def run(command: str, words: list[str]) -> int:
    """The exit status. Raises MeshsimError."""
    try:
        asked = parse(command, words)
    except HelpAsked as e:
        print(e, end="")
        return 0
    raw = getattr(asked, "tty", False) and os.isatty(0)
    return client.ask(client.choose(asked.mesh), command, words, _files(asked), raw=raw)


def _files(asked: argparse.Namespace) -> list[tuple[str, str]]:
    named = [shipped(name) for name in getattr(asked, "filename", [])]
    for name in named:
        if name != "-" and not Path(name).exists():
            raise MeshsimError(f'error: the path "{name}" does not exist')
    return list(texts(named, None))

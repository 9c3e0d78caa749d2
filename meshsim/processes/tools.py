"""Programs that a pod has beside the machine's: a folder of scripts for its PATH, each of which runs a module of this package."""

from __future__ import annotations

import shlex
from pathlib import Path

from meshsim.processes import environment, python


def script(folder: Path, name: str, module: str, *arguments: str) -> Path:
    """Put a program of that name into a folder, which is made if need be; the folder. What it is called with comes after `arguments`."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = folder / name
    path, command = shlex.quote(environment()["PYTHONPATH"]), shlex.join(python(module, *arguments))
    file.write_text(f'#!/bin/sh\nPYTHONPATH={path} exec {command} "$@"\n')
    file.chmod(0o700)
    return folder

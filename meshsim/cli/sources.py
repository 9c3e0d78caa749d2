"""Where a command's YAML comes from: a scenario's name, files, folders, or standard input."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any as Json

import click

from meshsim.errors import MeshsimError
from meshsim.mesh import Mesh, load
from meshsim.surroundings import home


def file_option(command: Callable[..., Json]) -> Callable[..., Json]:
    """The option `-f FILE|DIR|-`, which may be repeated."""
    text = "a file, a folder, or - for standard input; may be repeated"
    return click.option("-f", "--file", "files", multiple=True, metavar="FILE|DIR|-", help=text)(command)


def network_option(command: Callable[..., Json]) -> Callable[..., Json]:
    """The option `--network`, for commands that start a mesh."""
    text = "netns captures any program; auto takes it where Linux allows; default: auto"
    return click.option("--network", type=click.Choice(["auto", "loopback", "netns"]), default="auto", help=text)(command)


def istio_version_option(command: Callable[..., Json]) -> Callable[..., Json]:
    """The option `--istio-version`."""
    text = "behave as this Istio did, where older pages rely on it: 1.0; default: today's"
    return click.option("--istio-version", default="", metavar="VERSION", help=text)(command)


def scenarios() -> list[Path]:
    """The folders of the scenarios that came with meshsim."""
    return sorted(p for p in home().iterdir() if p.is_dir() and not p.name.startswith("_"))


def find(name: str) -> Path:
    """A path as given, or a scenario by name (`scenarios/x` and `x` both mean the one that came with meshsim).

    Raises MeshsimError.
    """
    path = Path(name)
    if name == "-" or path.exists():
        return path
    bare = name.removeprefix("scenarios/").rstrip("/")
    for folder in scenarios():
        if folder.name == bare:
            return folder
    known = ", ".join(p.name for p in scenarios())
    raise MeshsimError(f"no file, folder or scenario {name!r}; scenarios are: {known}")


def load_mesh(names: tuple[str, ...] | list[str], files: tuple[str, ...] = (), istio_version: str = "") -> Mesh:
    """The mesh of these sources. Raises MeshsimError where there are none, ConfigError for what is wrong in them."""
    sources = [find(name) for name in (*names, *files)]
    if not sources:
        raise MeshsimError("no YAML given: name a scenario, or use -f FILE")
    mesh = load(*sources, istio_version=istio_version)
    for problem in mesh.problems:
        click.echo(str(problem), err=True)
    for note in mesh.notes:
        click.echo(f"note: {note}", err=True)
    return mesh

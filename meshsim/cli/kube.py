"""meshsim up, ls, down; and apply, get, delete, create, label, logs, exec on a running mesh, as kubectl has them."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import click

from meshsim.cli.sources import file_option, find, load_mesh, network_option
from meshsim.errors import MeshsimError
from meshsim.kube import client
from meshsim.kube.arguments import HelpAsked, parse
from meshsim.kube.tables import aligned
from meshsim.resources.load import texts
from meshsim.surroundings import DEFAULT, home

LIKE_KUBECTL = ("apply", "get", "delete", "create", "label", "logs", "exec")


@click.command("up")
@click.argument("names", nargs=-1, metavar="[SCENARIO|FILE...]")
@file_option
@click.option("--name", default="", help="what to call the mesh; default: the scenario's name")
@click.option("--seed", default=0, help="of every random choice")
@network_option
def up(names: tuple[str, ...], files: tuple[str, ...], name: str, seed: int, network: str) -> int:
    """Start a mesh that stays: a process for each proxy, spoken to with apply, get, logs, exec, until `meshsim down`.

    Without a scenario it is an empty one: the sleep pod with its sidecar, the egress gateway, and the servers outside.
    """
    sources = [str(find(s).resolve()) for s in (*names, *files)] or [str(home() / DEFAULT)]
    load_mesh(sources)
    name = name or (Path(sources[0]).stem if names or files else "default")
    client.start(name, network, seed, sources)
    mesh = client.choose(name)
    click.echo(f'mesh "{name}" is up: {", ".join(mesh.state.pods)}; network {mesh.state.network}')
    return 0


@click.command("ls")
def ls() -> int:
    """List the running meshes."""
    found = client.running()
    if not found:
        click.echo("no mesh is running", err=True)
        return 0
    rows = [("NAME", "PODS", "NETWORK", "AGE", "FOLDER")]
    now = time.time()
    rows += [(r.state.name, str(len(r.state.pods)), r.state.network, f"{int(now - r.state.started)}s", str(r.folder)) for r in found]
    click.echo(aligned(rows))
    return 0


@click.command("down")
@click.argument("name", required=False)
@click.option("--all", "every", is_flag=True, help="every running mesh")
def down(name: str | None, every: bool) -> int:
    """End a running mesh; nothing of it stays."""
    for mesh in client.running() if every else [client.choose(name)]:
        client.stop(mesh)
        click.echo(f'mesh "{mesh.state.name}" is down')
    return 0


class _LikeKubectl(click.Command):
    """A command whose words the mesh reads, `--` included."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.params["words"] = args
        return []


def _like_kubectl(name: str) -> click.Command:
    return _LikeKubectl(name, callback=lambda words: _ask(name, words), add_help_option=False)


def _ask(command: str, words: list[str]) -> int:
    try:
        asked = parse(command, words)
    except HelpAsked as e:
        click.echo(str(e))
        return 0
    return client.ask(client.choose(asked.mesh), command, words, _files(asked))


def _files(asked: argparse.Namespace) -> list[tuple[str, str]]:
    named = getattr(asked, "filename", [])
    for name in named:
        if name != "-" and not Path(name).exists():
            raise MeshsimError(f'error: the path "{name}" does not exist')
    return list(texts(named, None))


commands: dict[str, click.Command] = {"up": up, "ls": ls, "down": down}
commands |= {name: _like_kubectl(name) for name in LIKE_KUBECTL}

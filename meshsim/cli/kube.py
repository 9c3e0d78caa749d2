"""meshsim up, ls, down: meshes that stay."""

from __future__ import annotations

import time
from pathlib import Path

import click

from meshsim import era
from meshsim.cli.sources import file_option, find, istio_version_option, load_mesh, network_option
from meshsim.cli.text import table
from meshsim.kube import client


@click.command("up")
@click.argument("names", nargs=-1, metavar="[SCENARIO|FILE...]")
@file_option
@click.option("--name", default="", help="what to call the mesh; default: the scenario's name")
@click.option("--seed", default=0, help="of every random choice")
@network_option
@istio_version_option
def up(names: tuple[str, ...], files: tuple[str, ...], name: str, seed: int, network: str, istio_version: str) -> int:
    """Start a mesh that stays: a process for each proxy, spoken to with apply, get, logs, exec, until `meshsim down`.

    Without a scenario it is an empty one: the sleep pod with its sidecar, the egress gateway, and the servers outside.
    """
    sources = [str(find(s).resolve()) for s in (*names, *files)]
    era.find(istio_version)
    if sources:
        load_mesh(sources, istio_version=istio_version)
    name = name or (Path(sources[0]).stem if sources else "default")
    client.start(name, network, seed, istio_version, sources)
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
    now = time.time()
    rows = [(r.state.name, str(len(r.state.pods)), r.state.network, f"{int(now - r.state.started)}s", str(r.folder)) for r in found]
    click.echo(table(("NAME", "PODS", "NETWORK", "AGE", "FOLDER"), rows, gap=3))
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


commands: dict[str, click.Command] = {"up": up, "ls": ls, "down": down}

"""meshsim run SCENARIO -- COMMAND: a mesh of real processes, and a command in one of its pods."""

from __future__ import annotations

import os

import click

from meshsim.cli import alive
from meshsim.cli.sources import file_option, istio_version_option, load_mesh, network_option
from meshsim.mesh import ASYNCIO, ENGINES, Mesh
from meshsim.network.choice import enter
from meshsim.pod import NO_SUCH_PROGRAM
from meshsim.proxy.parsers import CODEC, CODECS


@click.command("run", context_settings={"ignore_unknown_options": True})
@click.argument("scenario", nargs=1, required=False)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND...]")
@file_option
@click.option("--from", "sender", default="sleep", metavar="[NS/]POD", help="the pod to run it in; default: sleep")
@network_option
@istio_version_option
@click.option("--codec", type=click.Choice(CODECS), help="what reads HTTP/1 in the proxies; default: httptools where it is installed")
@click.option("--engine", type=click.Choice(ENGINES), default=ASYNCIO, help="what the proxies are; envoy is the real one, on netns")
@click.option("--logs", is_flag=True, help="print what each proxy logged, afterwards")
def command(
    scenario: str | None,
    words: tuple[str, ...],
    files: tuple[str, ...],
    sender: str,
    network: str,
    istio_version: str,
    codec: str | None,
    engine: str,
    logs: bool,
) -> int:
    """Start the mesh, run COMMAND as if it were in a pod, and end with its exit status.

    Without COMMAND your shell opens; exit ends the mesh. Nothing is left behind.
    """
    if codec is not None:
        os.environ[CODEC] = codec
    names = [scenario] if scenario else []
    mesh = load_mesh(names, files, istio_version)
    mesh.pod(sender)
    kind = enter(network).kind
    return alive.run(_run(mesh, sender, words, kind, engine, logs))


async def _run(mesh: Mesh, sender: str, words: tuple[str, ...], network: str, engine: str, logs: bool) -> int:
    async with mesh.run(processes=True, network=network, engine=engine) as live:
        pod = live.pod(sender)
        if not words:
            words = (os.environ.get("SHELL", "/bin/sh"),)
            click.echo(f"in {pod.namespace}/{pod.name}; exit ends the mesh", err=True)
        status = await pod.run(*words)
        if status == NO_SUCH_PROGRAM:
            click.echo(f"meshsim: {words[0]}: no such command", err=True)
        if logs:
            for member in live.proxies:
                for line in member.log():
                    click.echo(f"{member.name}  {line.rstrip()}", err=True)
        return status

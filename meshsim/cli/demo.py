"""meshsim demo: a walk-through on a terminal, with real processes, each step held against its page."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import textwrap
import time
from pathlib import Path

import click

from meshsim.cli import alive, text, wire_text
from meshsim.cli.sources import find, network_option, scenarios
from meshsim.errors import MeshsimError
from meshsim.mesh import Mesh
from meshsim.network.choice import Choice, enter
from meshsim.walkthrough import Played, Step, Walkthrough, play, read

DEFAULT = "egress-gateway-http"
WIDTH = 80
_ENTRY = textwrap.TextWrapper(WIDTH, initial_indent=" " * 5, subsequent_indent=" " * 7, break_long_words=False, break_on_hyphens=False)
_URL = re.compile(r"https?://[^\s'\"]+")
MOST_LINES = 14  # of a command's output
FAILED = 1


@click.command("demo")
@click.argument("names", nargs=-1, metavar="[SCENARIO...]")
@click.option("--all", "every", is_flag=True, help="every walk-through")
@click.option("--step", "by_hand", is_flag=True, help="wait for Enter before each step")
@click.option("--list", "listing", is_flag=True, help="list the walk-throughs")
@network_option
@click.option("--lang", type=click.Choice(["en", "zh"]), default="en", help="language of the titles")
def command(names: tuple[str, ...], every: bool, by_hand: bool, listing: bool, network: str, lang: str) -> int:
    """Play a walk-through: apply YAML, run commands in a pod, show what every proxy saw.

    Exit status: 0 when every step gave what the page shows, 1 otherwise.
    """
    if listing:
        for found in filter(None, map(read, scenarios())):
            click.echo(f"{found.name:32}{_title(found, lang)}")
        return 0
    folders = [find(name) for name in names] or (scenarios() if every else [find(DEFAULT)])
    failures = 0
    choice = enter(network)
    for folder in folders:
        walkthrough = read(folder)
        if walkthrough is None and not every:
            raise MeshsimError(f"{folder} has no walk-through")
        if walkthrough is not None:
            failures += alive.run(_play(walkthrough, choice, by_hand, lang))
    return FAILED if failures else 0


def _title(walkthrough: Walkthrough, lang: str) -> str:
    spec = walkthrough.spec
    return spec.zh.title if lang == "zh" and spec.zh and spec.zh.title else spec.title


async def _play(walkthrough: Walkthrough, choice: Choice, by_hand: bool, lang: str) -> int:
    started = time.monotonic()
    mesh = walkthrough.initial()
    steps = walkthrough.spec.steps
    click.secho(f"\n{_title(walkthrough, lang)}", bold=True)
    pods = ", ".join(f"{p.app}.{p.namespace}" for p in mesh.pods if p.proxy)
    words = f"A process for each proxy ({pods}) and one for the outside; nothing leaves this machine."
    click.echo(textwrap.fill(words, WIDTH))
    click.echo(textwrap.fill(choice.reason, WIDTH))
    if shutil.which("curl") is None:
        click.echo("curl is not installed: meshsim's own client stands in, over HTTP/1.1 only.")
    failures = 0
    async with mesh.run(processes=True, network=choice.kind) as live, contextlib.aclosing(play(walkthrough, live)) as played:
        for number, step in enumerate(steps, 1):
            _announce(number, len(steps), step, walkthrough.folder, lang)
            if by_hand:
                await asyncio.to_thread(input, "   Enter ")
            done = await anext(played)
            _report(done)
            _picture(live.mesh, step)
            failures += bool(done.failures)
    took = time.monotonic() - started
    verdict = f"all {len(steps)} steps as the page shows" if not failures else f"{failures} of {len(steps)} steps not as the page shows"
    click.secho(f"\n{verdict}; {took:.1f} s", bold=True)
    return failures


def _announce(number: int, total: int, step: Step, folder: Path, lang: str) -> None:
    title = step.zh.title if lang == "zh" and step.zh else step.title
    head = f" Step {number} of {total}   "
    click.secho("\n" + textwrap.fill(title, WIDTH, initial_indent=head, subsequent_indent=" " * len(head)), bold=True)
    words = step.zh.text if lang == "zh" and step.zh and step.zh.text else step.text
    if words:
        click.echo(textwrap.fill(words, WIDTH, initial_indent="   ", subsequent_indent="   "))
    for name in step.apply:
        click.echo(f"   $ kubectl apply -f {name}")
        click.echo(textwrap.indent((folder / name).read_text().rstrip(), "     "))
    for name in step.delete:
        click.echo(f"   $ kubectl delete {name.lower()}")
    if step.run:
        click.echo(f"   $ {step.run}")


def _report(played: Played) -> None:
    lines = played.output.replace("\r", "").splitlines()
    for line in lines[:MOST_LINES]:
        click.echo(f"   {line}"[:WIDTH])
    if len(lines) > MOST_LINES:
        click.echo(f"   ... {text.count(len(lines) - MOST_LINES, 'more line')}")
    if played.exit:
        click.echo(f"   exit status {played.exit}")
    for pod, entries in played.log.items():
        click.echo(f"   {pod} logged{'' if entries else ' nothing'}")
        for entry in entries:
            click.echo(_ENTRY.fill(entry.strip()))
    for (pod, name), (before, after) in played.counters.items():
        click.echo(f"   counter of {pod}\n     {name}: {before} -> {after}")
    for failure in played.failures:
        click.secho(f"   not ok    {failure}", fg="red")
    if played.step.run and not played.failures:
        click.secho("   ok", fg="green")


def _picture(mesh: Mesh, step: Step) -> None:
    """Who spoke what to whom: the same mesh, walked without a socket."""
    urls = _URL.findall(step.run)
    if "--connect-to" in step.run:  # which sends the request elsewhere than its URL says
        return
    if urls and (trace := mesh.simulate(step.sender, urls[0])).hops:
        for line in wire_text.short(trace):
            click.echo(f"   {line}")

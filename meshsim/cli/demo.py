"""meshsim demo: a walk-through on a terminal, with real processes, each step held against its page."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import Iterable

import click

from meshsim.cli import alive, columns, demo_text
from meshsim.cli.sources import find, network_option, scenarios
from meshsim.errors import MeshsimError
from meshsim.network.choice import Choice, enter
from meshsim.walkthrough import Walkthrough, play, read
from meshsim.words import LANGUAGES, Words

DEFAULT = "egress-gateway-http"
NAME_COLUMNS = 34
FAILED = 1


@click.command("demo")
@click.argument("names", nargs=-1, metavar="[SCENARIO...]")
@click.option("--all", "every", is_flag=True, help="every walk-through")
@click.option("--step", "by_hand", is_flag=True, help="wait for Enter before each step")
@click.option("--list", "listing", is_flag=True, help="list the walk-throughs")
@network_option
@click.option("--lang", type=click.Choice(LANGUAGES), default=LANGUAGES[0], help="language of everything but commands, YAML and logs")
def command(names: tuple[str, ...], every: bool, by_hand: bool, listing: bool, network: str, lang: str) -> int:
    """Play a walk-through: apply YAML, run commands in a pod, show what every proxy saw.

    Exit status: 0 when every step gave what the page shows, 1 otherwise.
    """
    if listing:
        for found in filter(None, map(read, scenarios())):
            click.echo(columns.fill(found.title(lang), f"{found.name:{NAME_COLUMNS}}"))
        return 0
    words = Words(lang)
    folders = [find(name) for name in names] or (scenarios() if every else [find(DEFAULT)])
    failures = 0
    choice = enter(network)
    for folder in folders:
        walkthrough = read(folder)
        if walkthrough is None and not every:
            raise MeshsimError(words("no walk-through", folder=folder))
        if walkthrough is not None:
            failures += alive.run(_play(walkthrough, choice, by_hand, words))
    return FAILED if failures else 0


async def _play(walkthrough: Walkthrough, choice: Choice, by_hand: bool, words: Words) -> int:
    started = time.monotonic()
    mesh = walkthrough.initial()
    steps = walkthrough.spec.steps
    name, *about = demo_text.heading(walkthrough, mesh, choice, words)
    click.secho(f"\n{name}", bold=True)
    _echo(about)
    if shutil.which("curl") is None:
        click.echo(columns.fill(words("no curl")))
    failures = 0
    async with mesh.run(processes=True, network=choice.kind) as live, contextlib.aclosing(play(walkthrough, live, words)) as played:
        for number, step in enumerate(steps, 1):
            click.secho("\n" + demo_text.title(number, len(steps), step, words), bold=True)
            _echo(demo_text.commands(step, walkthrough.folder, words))
            if by_hand:
                await asyncio.to_thread(input, f"   {words('wait')} ")
            done = await anext(played)
            _echo(demo_text.outcome(done, words))
            _echo(demo_text.verdict(done, live.mesh, words), "red" if done.failures else "green")
            _echo(demo_text.picture(step, live.mesh, words))
            failures += bool(done.failures)
    key = "failed" if failures else "passed"
    click.secho("\n" + words(key, failed=failures, total=len(steps), seconds=f"{time.monotonic() - started:.1f}"), bold=True)
    return failures


def _echo(lines: Iterable[str], colour: str | None = None) -> None:
    for line in lines:
        click.secho(line, fg=colour)

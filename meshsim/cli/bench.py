"""meshsim bench [SCENARIO]: what hops cost, on asyncio proxies and on real Envoys, in the same minute."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from meshsim.cli.sources import find
from meshsim.errors import MeshsimError

if TYPE_CHECKING:
    from meshsim.bench.legs import Leg
    from meshsim.bench.report import Report

_BAR = 30  # characters
_PORTS = {"http": 80, "https": 443}


@click.command("bench")
@click.argument("scenario", nargs=1, required=False)
@click.option("--leg", "legs", multiple=True, metavar="NAME", help="a leg of the fixed table, by name; may be repeated")
@click.option(
    "--engine",
    "engines",
    multiple=True,
    metavar="NAME",
    help="asyncio, asyncio-h11, asyncio-plainloop or envoy; A+B for sidecars of A and gateways of B; nginx or haproxy in place of one "
    "plain hop; default: asyncio, envoy and, where installed, nginx and haproxy",
)
@click.option("--url", default="", help="what to call in SCENARIO; default: its first external server")
@click.option("--from", "caller", default="sleep", metavar="[NS/]POD", help="the pod that calls; default: sleep")
@click.option("--connections", type=int, default=0, help="of the client; default: the leg's, 32 for a scenario")
@click.option("--rate", type=float, default=0.0, help="requests a second, sent on time whatever comes back; default: as many as go")
@click.option("--rounds", type=int, default=5, show_default=True)
@click.option("--seconds", type=float, default=3.0, show_default=True, help="of each engine in each round")
@click.option("--figures", is_flag=True, help="start-up, simulate and compile times as well")
@click.option("--profile", is_flag=True, help="where the time of the asyncio proxies goes, by part")
@click.option(
    "--soak",
    type=float,
    is_flag=False,
    flag_value=600.0,
    metavar="[SECONDS]",
    help="instead: half of what an engine can do for so long, 600 unless said; fails on errors and growth",
)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="write everything measured to this file")
@click.option("--plot", "plot_file", type=click.Path(path_type=Path), help="draw it to this SVG file")
def command(
    scenario: str | None,
    legs: tuple[str, ...],
    engines: tuple[str, ...],
    url: str,
    caller: str,
    connections: int,
    rate: float,
    rounds: int,
    seconds: float,
    figures: bool,
    profile: bool,
    soak: float | None,
    json_file: Path | None,
    plot_file: Path | None,
) -> int:
    """Measure the fixed table of legs, or the calls of one scenario.

    Proxies of an engine share a core, client and origin another; engines take turns, and the ratio within a turn is what counts.
    """
    from dataclasses import replace

    from meshsim.bench import legs as table
    from meshsim.bench.engines import check

    try:
        chosen = [table.leg(name) for name in legs] if legs else list(table.LEGS)
    except KeyError as e:
        raise MeshsimError(f"no leg {e}; there are: {', '.join(x.name for x in table.LEGS)}") from None
    if scenario is not None:
        chosen = [_scenario(scenario, url, caller)]
    if connections:
        chosen = [replace(leg, connections=connections) for leg in chosen]
    for engine in engines:
        check(engine)
    if soak is not None:
        made = asyncio.run(_soak(chosen if legs or scenario else [table.leg("gateway")], engines, soak))
    else:
        made = asyncio.run(_run(chosen, engines, rounds, seconds, rate, figures, profile))
    click.echo(made.text())
    if json_file:
        json_file.write_bytes(made.encode())
    if plot_file:
        from meshsim.bench.plot import svg

        plot_file.write_text(svg(made))
    return 1 if any(list(each.failures()) for each in made.soaks) else 0


def _scenario(name: str, url: str, caller: str) -> Leg:
    from meshsim.bench.legs import Leg
    from meshsim.mesh import load

    path = str(find(name))
    mesh = load(path)
    if not url:
        if not mesh.external_servers:
            raise MeshsimError(f"{name} has no ExternalServer; say what to call with --url")
        url = f"http://{mesh.external_servers[0].hosts[0]}/"
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise MeshsimError(f"not a URL: {url}")
    return Leg(
        Path(name).name,
        f"{Path(name).name}: {url}",
        sources=(path,),
        host=parts.hostname,
        port=parts.port or _PORTS[parts.scheme],
        caller=caller,
        tls=parts.scheme == "https",
        fresh=parts.scheme == "https",
    )


async def _run(
    chosen: list[Leg], engines: tuple[str, ...], rounds: int, seconds: float, rate: float, figures: bool, profile: bool
) -> Report:
    from meshsim import envoy
    from meshsim.bench import anchors, runs
    from meshsim.bench.engines import ASYNCIO, ENVOY

    names = list(engines) or [ASYNCIO, ENVOY]
    if not engines:
        try:
            envoy.binary()
        except envoy.EnvoyUnavailable as e:
            click.echo(f"meshsim: {e}; measuring without it", err=True)
            names.remove(ENVOY)
        names += anchors.installed()
    with _progress() as say:
        return await runs.run(chosen, names, rounds=rounds, seconds=seconds, rate=rate, figures=figures, profile=profile, progress=say)


async def _soak(chosen: list[Leg], engines: tuple[str, ...], seconds: float) -> Report:
    from meshsim.bench import runs
    from meshsim.bench.engines import ASYNCIO

    with _progress() as say:
        return await runs.soak(chosen, engines or (ASYNCIO,), seconds, say)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[float, str], None]]:
    """A bar on a terminal, and beside it what is being measured; gone at the end, and nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda done, text: None
        return
    try:
        yield lambda done, text: click.echo("\r\x1b[K" + f"{_bar(done)} {text}"[: _width()], nl=False, err=True)
    finally:
        click.echo("\r\x1b[K", nl=False, err=True)


def _bar(done: float) -> str:
    """`[=====     ]  50%`"""
    return f"[{'=' * round(done * _BAR):<{_BAR}}] {done:4.0%}"


def _width() -> int:
    """Columns that a line may take without starting another."""
    return shutil.get_terminal_size().columns - 1

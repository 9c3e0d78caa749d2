"""meshsim config SCENARIO POD: what that pod's proxy is told, as `istioctl proxy-config` shows it or as Envoy's JSON."""

from __future__ import annotations

import click
import msgspec

from meshsim import xds
from meshsim.cli import proxy_tables
from meshsim.cli.sources import file_option, istio_version_option, load_mesh
from meshsim.errors import MeshsimError

KINDS = ("listeners", "routes", "clusters", "endpoints")


@click.command("config")
@click.argument("arguments", nargs=-1, metavar="[SCENARIO|FILE...] POD")
@file_option
@istio_version_option
@click.option("--kind", type=click.Choice(KINDS), help="one kind only; without it, all four")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", help="tables, or Envoy's JSON")
def command(arguments: tuple[str, ...], files: tuple[str, ...], istio_version: str, kind: str | None, output: str) -> None:
    """Show the configuration that istiod would send to POD's proxy."""
    if not arguments:
        raise MeshsimError("name a pod: meshsim config SCENARIO POD")
    mesh = load_mesh(arguments[:-1], files, istio_version)
    config = mesh.config(arguments[-1])
    if output == "json":
        whole = xds.to_builtins(config)
        value = whole.get(kind, []) if kind else {k: whole.get(k, []) for k in KINDS}
        click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())
        return
    wanted = [kind] if kind else list(KINDS)
    click.echo("\n\n".join(proxy_tables.TABLES[k](config) for k in wanted))

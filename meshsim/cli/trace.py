"""meshsim trace SCENARIO --from POD URL: where a request goes, hop by hop, and why."""

from __future__ import annotations

import click
import msgspec

from meshsim.cli import trace_text, wire_text
from meshsim.cli.sources import file_option, istio_version_option, load_mesh
from meshsim.errors import MeshsimError

FAILED = 1


@click.command("trace")
@click.argument("arguments", nargs=-1, metavar="[SCENARIO|FILE...] URL")
@file_option
@click.option("--from", "sender", default="sleep", metavar="[NS/]POD", help="the pod that asks; default: sleep")
@click.option("-X", "--method", default="GET", help="the method")
@click.option("-H", "--header", "headers", multiple=True, metavar="NAME:VALUE", help="a request header; may be repeated")
@click.option("-d", "--data", default="", help="the body; for tcp:// what is sent")
@click.option("--port", type=int, help="connect to this port instead of the URL's")
@click.option("--wire", is_flag=True, help="also who could read what on each leg")
@istio_version_option
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", help="text, or JSON (docs/trace.md)")
def command(
    arguments: tuple[str, ...],
    files: tuple[str, ...],
    sender: str,
    method: str,
    headers: tuple[str, ...],
    data: str,
    port: int | None,
    wire: bool,
    istio_version: str,
    output: str,
) -> int:
    """Follow a request without a socket: at each hop listener, route, cluster and endpoint, each with the YAML that caused it.

    URL is http://, https:// or tcp://HOST:PORT. Exit status: 0 when a server outside was reached, 1 when not.
    """
    if not arguments:
        raise MeshsimError("name a URL: meshsim trace SCENARIO --from POD URL")
    *sources, url = arguments
    mesh = load_mesh(sources, files, istio_version)
    pairs = dict(_header(text) for text in headers)
    trace = mesh.simulate(sender, url, method=method, headers=pairs, body=data.encode(), port=port)
    if output == "json":
        missed = [{"proxy": m.proxy, "text": m.text, "source": str(m.location)} for m in mesh.near_misses(trace)]
        click.echo(msgspec.json.format(msgspec.json.encode({**trace.to_dict(), "near_misses": missed}), indent=2).decode())
    else:
        names = trace_text.Files(str(r.source.file) for r in mesh.resources)
        click.echo(trace_text.screen(trace, url, method, names, mesh.near_misses(trace)))
        if wire:
            click.echo("\n" + wire_text.screen(trace))
    return 0 if trace.arrivals else FAILED


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise click.BadParameter(f"{text!r} is not NAME:VALUE", param_hint="-H")
    return name.strip(), value.strip()



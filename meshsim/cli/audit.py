"""meshsim audit SCENARIO --from POD: every way out of a pod, and what stops it."""

from __future__ import annotations

import asyncio

import click
import msgspec

from meshsim import audit
from meshsim.cli.sources import file_option, load_mesh, network_option
from meshsim.cli.trace_text import Files
from meshsim.mesh import Mesh
from meshsim.network.choice import NETNS, enter

BYPASSED = 1
_MARKS = {audit.OPEN: "OUT", audit.GATEWAY: "gateway", audit.STOPPED: "stopped"}


@click.command("audit")
@click.argument("sources", nargs=-1, metavar="[SCENARIO|FILE...]")
@file_option
@click.option("--from", "sender", default="sleep", metavar="[NS/]POD", help="the pod; default: sleep")
@network_option
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
def command(sources: tuple[str, ...], files: tuple[str, ...], sender: str, network: str, output: str) -> int:
    """Try every way out of a pod, and say which layer stopped it: the network, the sidecar, the gateway, or nothing.

    Connections are simulated. A UDP datagram is sent for real where pods have namespaces of their own, on a mesh that runs as long as that
    takes; on the loopback network its way is computed. Exit status: 0 when every way leads through a gateway or is stopped, 1 when one
    leads past.
    """
    mesh = load_mesh(sources, files)
    choice = enter(network)
    findings = audit.audit(mesh, sender, arrived=asyncio.run(_arrived(mesh, sender)) if choice.kind == NETNS else None)
    bypasses = [f for f in findings if f.outcome == audit.OPEN]
    if output == "json":
        rows = [{"way": f.way.name, "target": f.way.target, "outcome": f.outcome, "layer": f.layer, "by": f.by} for f in findings]
        click.echo(msgspec.json.format(msgspec.json.encode(rows), indent=2).decode())
        return BYPASSED if bypasses else 0
    short = Files(str(r.source.file) for r in mesh.resources)
    for finding in findings:
        layer = f"{finding.layer}: " if finding.layer else ""
        by = " ".join(short(word) for word in finding.by.split(" "))
        click.echo(f"{_MARKS[finding.outcome]:8} {finding.way.name}: {finding.way.target}")
        click.echo(f"         {layer}{by}")
    click.echo(f"\n{len(bypasses)} of {len(findings)} ways lead past the gateway")
    return BYPASSED if bypasses else 0


async def _arrived(mesh: Mesh, sender: str) -> bool:
    async with mesh.run(network=NETNS) as live:
        return await live.arrives(sender, audit.STRANGER_ADDRESS, audit.UDP_PORT)

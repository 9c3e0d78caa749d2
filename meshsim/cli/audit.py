"""meshsim audit SCENARIO --from POD: every way out of a pod, and what stops it."""

from __future__ import annotations

import click
import msgspec

from meshsim import audit
from meshsim.cli.sources import file_option, load_mesh
from meshsim.cli.trace_text import Files

BYPASSED = 1
_MARKS = {audit.OPEN: "OUT", audit.GATEWAY: "gateway", audit.STOPPED: "stopped"}


@click.command("audit")
@click.argument("sources", nargs=-1, metavar="[SCENARIO|FILE...]")
@file_option
@click.option("--from", "sender", default="sleep", metavar="[NS/]POD", help="the pod; default: sleep")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
def command(sources: tuple[str, ...], files: tuple[str, ...], sender: str, output: str) -> int:
    """Try every way out of a pod, and say which layer stopped it: the network, the sidecar, the gateway, or nothing.

    Nothing is sent: each way is simulated. Exit status: 0 when every way leads through a gateway or is stopped, 1 when one leads past.
    """
    mesh = load_mesh(sources, files)
    findings = audit.audit(mesh, sender)
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

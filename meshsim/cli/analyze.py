"""meshsim analyze [SCENARIO|FILE...]: what istioctl analyze says, and what it does not see."""

from __future__ import annotations

from fnmatch import fnmatchcase

import click

from meshsim import analysis
from meshsim.analysis.report import FORMATS
from meshsim.cli.sources import file_option, load_mesh

FOUND = 79  # as istioctl
CLEAN = "\u2714 No validation issues found when analyzing {}."


@click.command("analyze")
@click.argument("names", nargs=-1, metavar="SCENARIO|FILE...")
@file_option
@click.option("-o", "--output", type=click.Choice(list(FORMATS)), default="log", help="the form of the findings")
@click.option("--output-threshold", type=click.Choice(analysis.LEVELS), default=analysis.INFO, help="the least severe level shown")
@click.option("--failure-threshold", type=click.Choice(analysis.LEVELS), default=analysis.ERROR, help="the least severe level that fails")
@click.option("-S", "--suppress", multiple=True, metavar="CODE=RESOURCE", help="leave out: IST0101=VirtualService default/x; * for any")
@click.option("--cluster", is_flag=True, help="the files are a whole cluster: also look for hosts, pods and namespaces that are missing")
def command(
    names: tuple[str, ...],
    files: tuple[str, ...],
    output: str,
    output_threshold: str,
    failure_threshold: str,
    suppress: tuple[str, ...],
    cluster: bool,
) -> int:
    """Find mistakes in a mesh's configuration, each with its place.

    Codes IST0xxx are istioctl's; codes MSIM0xxx are meshsim's own, with a call that fails because of them.
    Exit status: 0, 79 when something at or above the failure threshold was found, 2 when a file cannot be read.
    """
    mesh = load_mesh(names, files)
    found = [f for f in analysis.analyze_mesh(mesh, cluster=cluster) if not any(_suppressed(f, s) for s in suppress)]
    shown = [f for f in found if analysis.LEVELS.index(f.level) <= analysis.LEVELS.index(output_threshold)]
    if shown or output != "log":
        click.echo(FORMATS[output](shown))
    else:
        click.echo(CLEAN.format(", ".join((*names, *files))), err=True)
    return FOUND if any(analysis.LEVELS.index(f.level) <= analysis.LEVELS.index(failure_threshold) for f in found) else 0


def _suppressed(finding: analysis.Finding, rule: str) -> bool:
    """`CODE=Kind namespace/name`; both sides may hold `*`, and a code alone means everywhere."""
    code, _, resource = rule.partition("=")
    return fnmatchcase(finding.code, code) and fnmatchcase(finding.resource, resource or "*")

"""meshsim validate FILE...: every mistake at once, each with its place and its line."""

from __future__ import annotations

import sys

import click
import msgspec

from meshsim import era, resources
from meshsim.cli import text
from meshsim.cli.sources import file_option, istio_version_option
from meshsim.errors import ConfigError, Problem
from meshsim.resources.validation import validate

ERRORS = 1


@click.command("validate")
@click.argument("paths", nargs=-1, metavar="FILE...")
@file_option
@istio_version_option
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", help="text, or a JSON list")
def command(paths: tuple[str, ...], files: tuple[str, ...], istio_version: str, output: str) -> int:
    """Check files as Istio's schema and webhook would.

    Exit status: 0 when Istio would take everything, 1 when it would reject something, 2 when a file cannot be read.
    """
    sources = [*paths, *files]
    if not sources:
        raise click.UsageError("no files given")
    try:
        documents = resources.load(*sources)
    except ConfigError as e:
        click.echo(str(e), err=True)
        return 2
    of = era.find(istio_version) if istio_version else era.of(documents.resources)
    found = validate(documents, proto_names=of.takes_proto_names)
    problems = sorted(found, key=lambda p: (p.location is None, p.location))
    if output == "json":
        click.echo(msgspec.json.format(msgspec.json.encode([_entry(p) for p in problems]), indent=2).decode())
    else:
        _print(problems, documents)
    return ERRORS if any(p.severity == "error" for p in problems) else 0


def _print(problems: list[Problem], documents: resources.Documents) -> None:
    for problem in problems:
        click.echo(f"{problem.location or '?'}: {problem.severity}: {_subject(problem)}{problem.message}{_hint(problem)}")
        if problem.location and (lines := text.excerpt(problem.location)):
            click.echo(lines)
    errors = sum(p.severity == "error" for p in problems)
    files = len({r.source.file for r in documents.resources} | {p.location.file for p in problems if p.location})
    warnings = len(problems) - errors
    found = [text.count(errors, "error")] if errors or not warnings else []
    found += [text.count(warnings, "warning")] if warnings else []
    click.echo(f"{', '.join(found)} in {text.count(files, 'file')}", err=bool(problems) and sys.stdout.isatty())


def _subject(problem: Problem) -> str:
    """`Kind/namespace/name` as people say it: `Kind namespace/name: `."""
    return problem.resource.replace("/", " ", 1) + ": " if problem.resource else ""


def _hint(problem: Problem) -> str:
    return f"; {problem.hint}" if problem.hint else ""


def _entry(problem: Problem) -> dict[str, str | int]:
    place = problem.location
    entry: dict[str, str | int] = {
        "file": place.file if place else "",
        "line": place.line if place else 0,
        "column": place.column if place else 0,
        "severity": problem.severity,
        "resource": problem.resource,
        "message": problem.message,
    }
    return entry | ({"hint": problem.hint} if problem.hint else {})

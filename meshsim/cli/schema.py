"""meshsim schema KIND: JSON Schema for editors."""

from __future__ import annotations

import json

import click

from meshsim.errors import MeshsimError
from meshsim.resources.decode import nearest
from meshsim.resources.kinds import KINDS


@click.command("schema")
@click.argument("kind", required=False)
def command(kind: str | None) -> None:
    """Print the JSON Schema of KIND; without KIND, list the kinds."""
    if kind is None:
        for name, kinds in KINDS.items():
            versions = ", ".join(f"{k.group}/{v}".lstrip("/") for k in kinds for v in k.versions)
            click.echo(f"{name:24}{versions}")
        return
    if kind not in KINDS:
        raise MeshsimError(f"no kind {kind!r}; {nearest(kind, KINDS)}".rstrip("; "))
    from meshsim.resources.schema import schema

    click.echo(json.dumps(schema(kind), indent=2))

"""meshsim certs SCENARIO POD: the certificate a pod's proxy shows, as the page's troubleshooting step looks at it."""

from __future__ import annotations

import click

from meshsim.cli.sources import file_option, load_mesh
from meshsim.errors import MeshsimError
from meshsim.mesh import Mesh


@click.command("certs")
@click.argument("arguments", nargs=-1, metavar="[SCENARIO|FILE...] POD")
@file_option
@click.option("-o", "--output", type=click.Choice(["text", "pem"]), default="text", help="facts, or the chain as PEM for openssl")
def command(arguments: tuple[str, ...], files: tuple[str, ...], output: str) -> None:
    """Show the workload certificate that the mesh's CA issues to POD.

    Keys are made when a mesh starts, so each run has certificates of its own; what they say is the same every time.
    """
    if not arguments:
        raise MeshsimError("name a pod: meshsim certs SCENARIO POD")
    mesh = load_mesh(arguments[:-1], files)
    click.echo(_pem(mesh, arguments[-1]) if output == "pem" else _facts(mesh, arguments[-1]))


def _pem(mesh: Mesh, pod: str) -> str:
    from meshsim.identity import Authority

    authority = Authority.create(mesh.mesh_config.trust_domain)
    pair = authority.workload(mesh.proxy(pod).identity(mesh.mesh_config.trust_domain))
    return (pair.chain_pem() + authority.root_pem()).decode().rstrip()


def _facts(mesh: Mesh, pod: str) -> str:
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    found = x509.load_pem_x509_certificate(_pem(mesh, pod).encode())
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    usages = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    uris = names.value.get_values_for_type(x509.UniformResourceIdentifier)
    hours = (found.not_valid_after_utc - found.not_valid_before_utc).total_seconds() / 3600
    known = {ExtendedKeyUsageOID.SERVER_AUTH: "server", ExtendedKeyUsageOID.CLIENT_AUTH: "client"}
    rows = [
        ("Subject", found.subject.rfc4514_string() or "(empty)"),
        ("Issuer", found.issuer.rfc4514_string()),
        ("Not Before", f"{found.not_valid_before_utc:%Y-%m-%d %H:%M:%S} UTC"),
        ("Not After", f"{found.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC ({hours:.0f} h, renewed at half of that)"),
        ("Usage", ", ".join(known.get(usage, usage.dotted_string) for usage in usages)),
    ]
    place = mesh.pod(pod)
    lines = [f"{place.namespace}/{place.name}", *(f"  {name:12}{value}" for name, value in rows)]
    lines.append(f"  Subject Alternative Name{':' if not names.critical else ' (critical):'}")
    return "\n".join([*lines, *(f"    URI:{uri}" for uri in uris)])

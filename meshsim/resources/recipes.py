"""What `certs/` says: the authorities of a mesh, and how a certificate can be spoilt; and what resources ask for that is not there."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any as Json

import msgspec

from meshsim.errors import Problem
from meshsim.resources import reader
from meshsim.resources.decode import nearest, spell
from meshsim.resources.external_server import CertificateRecipe, SignedCertificate
from meshsim.resources.resource import Resource

_PACKAGE = Path(__file__).resolve().parents[1]
_HOMES = (_PACKAGE / "_certs", _PACKAGE.parent / "certs")  # in a wheel, in a checkout


class AuthorityRecipe(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """organization: its subject. intermediate: whether a certificate of its own stands between its root and what it signs."""

    organization: str
    intermediate: bool = False


@cache
def authorities() -> dict[str, AuthorityRecipe]:
    """The certificate authorities there are, by name."""
    return msgspec.convert(_read("authorities.yaml"), dict[str, AuthorityRecipe])


@cache
def certificates() -> dict[str, CertificateRecipe]:
    """The ways to spoil a certificate, by name."""
    return msgspec.convert(_read("external-servers.yaml"), dict[str, CertificateRecipe])


def problems(resource: Resource[Json]) -> Iterator[Problem]:
    """The authorities and recipes that an ExternalServer or an IssuedSecret names and `certs/` lacks."""
    for path, name in _authorities(resource):
        if name not in authorities():
            yield _unknown(resource, path, f'no certificate authority "{name}"', nearest(name, authorities()))
    for path, name in _recipes(resource):
        if name not in certificates():
            yield _unknown(resource, path, f'no recipe "{name}" for a certificate', nearest(name, certificates()))


def _certificates(resource: Resource[Json]) -> Iterator[tuple[reader.Path, SignedCertificate]]:
    if resource.kind == "ExternalServer":
        for number, port in enumerate(resource.spec.ports):
            yield ("spec", "ports", number, "certificate"), port.certificate
    elif resource.kind == "IssuedSecret" and resource.spec.certificate is not None:
        yield ("spec", "certificate"), resource.spec.certificate


def _authorities(resource: Resource[Json]) -> Iterator[tuple[reader.Path, str]]:
    for path, certificate in _certificates(resource):
        yield (*path, "ca"), certificate.ca
    if resource.kind == "ExternalServer":
        for number, port in enumerate(resource.spec.ports):
            for position, name in enumerate(port.client_certificates.trust):
                yield ("spec", "ports", number, "clientCertificates", "trust", position), name
    elif resource.kind == "IssuedSecret" and resource.spec.trust:
        yield ("spec", "trust"), resource.spec.trust


def _recipes(resource: Resource[Json]) -> Iterator[tuple[reader.Path, str]]:
    for path, certificate in _certificates(resource):
        if certificate.recipe:
            yield (*path, "recipe"), certificate.recipe


def _unknown(resource: Resource[Json], path: reader.Path, said: str, hint: str) -> Problem:
    return Problem("error", f"{spell(path)}: {said}", resource.source.locate(path, key=False), resource.id, hint=hint)


def _read(name: str) -> Json:
    folder = next(home for home in _HOMES if home.is_dir())
    return reader.values((folder / name).read_text(), name)[0]

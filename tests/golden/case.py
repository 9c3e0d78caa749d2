"""A golden case: who is configured, which resources apply, which calls are made.

How this works: the base and the case's file are read as one stream of documents, so creation follows file order. What Istio's
validation would reject is left out and the rest is applied, as a cluster would; a field in snake_case alone rejects nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any as Json

import msgspec

from meshsim import control, resources, xds
from meshsim.errors import Problem
from meshsim.resources import Resource
from meshsim.resources.mesh_config import MeshConfig
from meshsim.resources.validation import rejected
from meshsim.topology import SIDECAR, Proxy

HERE = Path(__file__).parent
BASE = HERE / "base.yaml"
DEFAULT_PROXIES = ("sleep", "egress")
CASE, CASE_BASE = "GoldenCase", "GoldenBase"
Manifest = Mapping[str, Json]


class BadCase(Exception):
    """The folder holds no golden case, or one that cannot be read."""


@dataclass
class Case:
    """One case, ready for any engine.

    spec: the header's. proxies: full entries, in the order listed. dns: the base's names and the case's over them.
    problems: what was said about the documents; those of rejected ones are errors.
    """

    name: str
    folder: Path
    spec: Manifest
    resources: list[Resource[Json]]
    proxies: list[Manifest]
    dns: Mapping[str, list[str]]
    problems: list[Problem] = field(default_factory=list)

    @property
    def calls(self) -> list[Manifest]:
        return list(self.spec.get("calls") or [])

    @property
    def manifests(self) -> list[Manifest]:
        """The resources as they were written."""
        return [r.raw for r in self.resources]

    @cached_property
    def mesh_config(self) -> MeshConfig:
        return msgspec.convert(self.spec.get("meshConfig") or {}, MeshConfig)

    def compile(self) -> dict[str, xds.ProxyConfig]:
        """What every proxy of the case is sent. Raises NotSimulated."""
        index = control.index(self.resources, self.mesh_config)
        return {entry["name"]: control.compile(index, proxy_of(entry)) for entry in self.proxies}


def proxy_of(entry: Manifest) -> Proxy:
    """A proxy from the plain form that headers use (name, type, namespace, ip, labels, serviceAccount, metadata)."""
    return Proxy(
        name=entry["name"],
        type=entry.get("type", SIDECAR),
        namespace=entry.get("namespace", "default"),
        ip=entry.get("ip", ""),
        labels={str(k): str(v) for k, v in (entry.get("labels") or {}).items()},
        service_account=entry.get("serviceAccount", "default"),
        metadata={str(k): str(v) for k, v in (entry.get("metadata") or {}).items()},
    )


def read(folder: Path, base: Path = BASE) -> Case:
    """The case in `folder`. Raises BadCase."""
    file = folder / "case.yaml"
    if not file.is_file():
        raise BadCase(f"{folder}: no case.yaml")
    own = resources.load(file)
    spec = _header(own, CASE)
    if spec is None:
        raise BadCase(f"{file}: no {CASE} document")
    under = _header(resources.load(base), CASE_BASE) or {}
    documents = own if spec.get("base") is False else resources.load(base, file)
    return Case(
        name=folder.name,
        folder=folder,
        spec=spec,
        resources=_accepted(documents),
        proxies=_proxies(spec, under),
        dns={**(under.get("dns") or {}), **(spec.get("dns") or {})},
        problems=documents.problems,
    )


def folders(places: list[Path]) -> list[Path]:
    """The case folders meant: each place itself, or all cases right below it."""
    found = []
    for place in places:
        inside = sorted(p.parent for p in place.glob("*/case.yaml")) if not (place / "case.yaml").exists() else []
        found += inside or [place]
    return found


def _header(documents: resources.Documents, kind: str) -> Manifest | None:
    return next((h.get("spec") or {} for h in documents.headers if h["kind"] == kind), None)


def _proxies(spec: Manifest, base: Manifest) -> list[Manifest]:
    known = {entry["name"]: entry for entry in base.get("proxies") or []}
    listed = spec.get("proxies") or DEFAULT_PROXIES
    try:
        return [known[entry] if isinstance(entry, str) else entry for entry in listed]
    except KeyError as e:
        raise BadCase(f"proxy {e.args[0]!r} is not in the base") from None


def _accepted(documents: resources.Documents) -> list[Resource[Json]]:
    """The resources that a cluster would take; what could not be decoded is no resource at all."""
    return [resource for resource in documents.resources if not rejected(resource)]

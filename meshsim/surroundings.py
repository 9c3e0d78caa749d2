"""What a mesh gets that does not say it itself, so that four Istio resources alone can be tried.

How this works: files without a single Pod or Deployment are taken for what a person would apply to a cluster, not for a cluster: they get
one (the scenario `_default`: the sleep pod with a sidecar in `default`, the egress gateway in `istio-system`, with the ports of its era).
A host of a ServiceEntry that no ExternalServer serves gets a server that echoes, on the ports declared. Each addition is a note for the
user. What is written out is never changed.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from pathlib import Path
from typing import Any as Json

from meshsim import era
from meshsim.errors import MeshsimError
from meshsim.installation import KIND as INSTALLER
from meshsim.installation import installed
from meshsim.resources import Documents, ObjectMeta, Resource, load, loads
from meshsim.resources.external_server import API_VERSION, KIND, ExternalServerSpec, ServerPort
from meshsim.resources.kubernetes import ServicePort
from meshsim.resources.walk import about_proto_name

_PACKAGE = Path(__file__).resolve().parent
SCENARIOS = (_PACKAGE.parent / "scenarios", _PACKAGE / "_scenarios")  # a checkout's, and a wheel's
DEFAULT = "_default"
ISTIO = "istio-system"
ECHO_ADDRESSES = "198.51.100.10"  # the first; of TEST-NET-2 (RFC 5737)
_TLS = ("HTTPS", "TLS")


def home() -> Path:
    """The folder of the scenarios that came with meshsim. Raises MeshsimError when they are missing."""
    for folder in SCENARIOS:
        if (folder / DEFAULT).is_dir():
            return folder
    raise MeshsimError(f"the scenarios are missing from this installation: {SCENARIOS[-1]}")


def surrounded(documents: Documents, istio_version: str = "", *, alone: bool = True) -> tuple[Documents, list[str]]:
    """The documents with what they lack, and a note for each addition. An `istio_version` is written into their MeshConfig.

    alone: whether documents without pods lack a mesh; those of a mesh that is up do not, where somebody deleted its pods.
    """
    notes = []
    given = documents.resources
    of = era.find(istio_version) if istio_version else era.of(given)
    if alone and not any(r.kind in ("Pod", "Deployment") for r in given):
        given = [*_default(given, of), *given]
        notes.append("no pods in these files: added sleep.default with a sidecar, and istio-egressgateway.istio-system")
    servers = list(_echoes(given))
    if servers:
        hosts = ", ".join(host for server in servers for host in server.spec.hosts)
        notes.append(f"no ExternalServer for {hosts}: added one that echoes")
    if any(r.kind == INSTALLER for r in given):
        given = installed(given, [r for r in _home(of) if r.namespace == ISTIO and r.kind != "Namespace"])
    if istio_version:
        given = _of_version(given, istio_version)
    problems = [p for p in documents.problems if not (of.takes_proto_names and about_proto_name(p))]
    return Documents([*given, *servers], documents.headers, problems), notes


def _of_version(given: list[Resource[Json]], istio_version: str) -> list[Resource[Json]]:
    """With a MeshConfig that says the version."""
    if not any(r.kind == "MeshConfig" for r in given):
        given = [*loads(f"apiVersion: {API_VERSION}\nkind: MeshConfig\nmetadata: {{name: istio}}\n", "--istio-version").resources, *given]
    for resource in (r for r in given if r.kind == "MeshConfig"):
        resource.metadata.annotations = {**resource.metadata.annotations, era.ANNOTATION: istio_version}
    return given


def _default(given: list[Resource[Json]], of: era.Era) -> Iterator[Resource[Json]]:
    """The default mesh, created before everything else, and the default servers of names that nobody serves."""
    known = {r.id for r in given}
    kinds = {r.kind for r in given}
    served = {host for r in given if r.kind == KIND for host in r.spec.hosts}
    for resource in _home(of):
        taken = resource.id in known or (resource.kind == "MeshConfig" and "MeshConfig" in kinds)
        if not taken and not (resource.kind == KIND and served & set(resource.spec.hosts)):
            resource.order -= 1_000_000
            yield resource


def _home(of: era.Era) -> Iterator[Resource[Json]]:
    """The scenario `_default`, with the gateway of its era."""
    for resource in load(home() / DEFAULT).require().resources:
        if resource.kind == "Service" and resource.namespace == ISTIO:
            resource.spec.ports = [ServicePort(name=p.name, port=p.port, target_port=p.target_port) for p in of.gateway_ports]
        yield resource


def _echoes(given: list[Resource[Json]]) -> Iterator[Resource[ExternalServerSpec]]:
    served = {host.lower() for r in given if r.kind == KIND for host in r.spec.hosts}
    address = ipaddress.ip_address(ECHO_ADDRESSES)
    for entry in (r for r in given if r.kind == "ServiceEntry" and r.spec.location != "MESH_INTERNAL" and not r.spec.endpoints):
        for host in (h for h in entry.spec.hosts if "*" not in h and h.lower() not in served):
            served.add(host.lower())
            ports = {80: "HTTP", 443: "HTTPS"} | {p.target_port or p.number: p.protocol.upper() for p in entry.spec.ports}
            listed = [ServerPort(port=number, protocol=_protocol(number, name)) for number, name in ports.items()]
            found = [a for a in entry.spec.addresses if "/" not in a] or [str(address)]
            address += 1
            spec = ExternalServerSpec(hosts=[host], addresses=found, ports=listed)
            yield Resource(API_VERSION, KIND, ObjectMeta(name=host), spec, entry.source, entry.order)


def _protocol(number: int, name: str) -> Json:
    if name in _TLS or number == 443:
        return "https"
    return "http" if name.startswith(("HTTP", "GRPC")) or number == 80 else "tcp"

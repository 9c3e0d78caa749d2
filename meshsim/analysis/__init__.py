"""Findings about a mesh's configuration, each with a code, a place and a reason.

How this works: an analyzer is a function from the documents to findings; one module per family. The IST codes are
istioctl's, word for word. istioctl runs an analyzer only where every kind of object it looks at is at hand: with the
YAML of a mesh alone the ones that ask about Services, Pods, Namespaces or Secrets stay silent. `cluster=True` says that
the documents are the whole cluster, and runs them too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING
from typing import Any as Json

from meshsim.analysis import conflicts, references, schema, settings
from meshsim.analysis.catalogue import Documents
from meshsim.analysis.findings import ERROR, INFO, LEVELS, WARNING, Finding, in_order
from meshsim.resources.mesh_config import MeshConfig
from meshsim.resources.resource import Resource

if TYPE_CHECKING:
    from meshsim.mesh import Mesh

Analyzer = Callable[[Documents], Iterator[Finding]]

CONFIGURATION: tuple[Analyzer, ...] = (
    schema.validation,
    references.subsets,
    references.gateways,
    conflicts.mesh_hosts,
    conflicts.service_entry_protocols,
    conflicts.gateway_certificates,
    settings.certificate_authorities,
    settings.service_entry_addresses,
    settings.deprecated_fields,
    settings.telemetry_providers,
    settings.default_telemetries,
)
CLUSTER: tuple[Analyzer, ...] = (
    references.destination_hosts,
    references.rule_hosts,
    references.gateway_selectors,
    references.policies,
    references.sidecar_selectors,
    settings.port_names,
)


def analyze(resources: Iterable[Resource[Json]], mesh: MeshConfig | None = None, *, cluster: bool = False) -> list[Finding]:
    """Everything istioctl would say of these resources, most severe first."""
    documents = Documents(resources, mesh)
    analyzers = (*CONFIGURATION, *CLUSTER) if cluster else CONFIGURATION
    return in_order([found for analyzer in analyzers for found in analyzer(documents)])


def analyze_mesh(mesh: Mesh, *, cluster: bool = False) -> list[Finding]:
    """The same for a loaded mesh, and what calls through it show (codes MSIM0xxx)."""
    from meshsim import control
    from meshsim.analysis.egress import egress

    found = analyze(mesh.documents.resources, mesh.mesh_config, cluster=cluster)
    return in_order([*found, *egress(mesh, control.index(mesh.told, mesh.mesh_config))])


__all__ = ["ERROR", "INFO", "LEVELS", "WARNING", "Documents", "Finding", "analyze", "analyze_mesh"]

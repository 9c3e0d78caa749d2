"""The resources of a running mesh, and what apply, delete and label make of them: pure, a new list and kubectl's lines each time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any as Json

import msgspec

from meshsim.errors import ConfigError, MeshsimError
from meshsim.kube.names import Named, named
from meshsim.resources import Documents, Resource, loads
from meshsim.resources.load import Document, read
from meshsim.resources.validation import accepted

DEFAULT = "default"
_ALWAYS = (DEFAULT, "istio-system", "kube-system", "kube-public")


class Rejected(MeshsimError):
    """The API server would not take it; the text is what it says."""


class Store:
    """`resources` are those written down: what follows from them (pods of a Deployment) is made by the mesh."""

    def __init__(self, resources: Iterable[Resource[Json]]):
        self.by_id = {r.id: r for r in resources}

    @property
    def resources(self) -> list[Resource[Json]]:
        return list(self.by_id.values())

    def copy(self) -> Store:
        """Another store with the same resources."""
        return Store(self.resources)

    @property
    def namespaces(self) -> list[str]:
        """Those that were made, those that something is in, and those of every cluster."""
        return list(dict.fromkeys([*_ALWAYS, *(r.name if r.kind == "Namespace" else r.namespace for r in self.resources)]))

    def read(self, files: Iterable[tuple[str, str]], namespace: str | None) -> list[tuple[Resource[Json], Document]]:
        """The resources of these texts, those without a namespace in `namespace`. Raises Rejected for what nobody can read."""
        found: list[tuple[Resource[Json], Document]] = []
        for name, text in files:
            documents = read(text, name, Documents())
            if documents.errors:
                raise Rejected("\n".join(f'error: error validating "{_shown(name)}": {p}' for p in documents.errors))
            found += [(_in(namespace, d.resource), d) for d in documents.documents if d.resource is not None]
        return found

    def apply(self, resource: Resource[Json], document: Document) -> str:
        """Put one resource in. Raises Rejected when Istio would refuse it."""
        document.namespace = resource.namespace
        where = f'error when creating "{_shown(resource.location.file)}"'
        if resource.namespace and resource.namespace not in self.namespaces:
            raise Rejected(f'Error from server (NotFound): {where}: namespaces "{resource.namespace}" not found')
        try:
            accepted(Documents([resource], documents=[document]))
        except ConfigError as e:
            raise Rejected(_refusal(where, e, resource)) from None
        self._refuse_by_webhook(resource, where)
        earlier = self.by_id.get(resource.id)
        if earlier is None:
            resource.order = max((r.order for r in self.by_id.values()), default=0.0) + 1
        else:
            resource.order = earlier.order
        self.by_id[resource.id] = resource
        done = "created" if earlier is None else "unchanged" if _content(earlier) == _content(resource) else "configured"
        return f"{_name(resource)} {done}"

    def create_namespace(self, name: str) -> str:
        """Raises Rejected where it is there already."""
        if name in self.namespaces:
            raise Rejected(f'Error from server (AlreadyExists): namespaces "{name}" already exists')
        self._namespace(name)
        return f"namespace/{name} created"

    def delete(self, kind: Named, namespace: str, name: str, where: str = "") -> str:
        """Take one out; a namespace with everything in it. Raises Rejected where it is not there."""
        key = f"{kind.kind}/{namespace if kind.namespaced else ''}/{name}"
        if key not in self.by_id and not (kind.kind == "Namespace" and name in self.namespaces):
            prefix = f'error when deleting "{_shown(where)}": ' if where else ""
            raise Rejected(f'Error from server (NotFound): {prefix}{kind.qualified_plural} "{name}" not found')
        self.by_id.pop(key, None)
        if kind.kind == "Namespace":
            self.by_id = {i: r for i, r in self.by_id.items() if r.namespace != name}
        return f'{kind.qualified} "{name}" deleted'

    def label(self, kind: Named, namespace: str, name: str, changes: Mapping[str, str | None], *, overwrite: bool) -> str:
        """Set labels, or take away those that are None. Raises Rejected."""
        key = f"{kind.kind}/{namespace if kind.namespaced else ''}/{name}"
        resource = self.by_id.get(key)
        if resource is None and kind.kind == "Namespace" and name in self.namespaces:
            resource = self._namespace(name)
        if resource is None:
            raise Rejected(f'Error from server (NotFound): {kind.qualified_plural} "{name}" not found')
        labels = dict(resource.metadata.labels)
        for label, value in changes.items():
            if value is not None and labels.get(label, value) != value and not overwrite:
                raise Rejected(f"error: '{label}' already has a value ({labels[label]}), and --overwrite is false")
        labels |= {label: value for label, value in changes.items() if value is not None}
        labels = {label: value for label, value in labels.items() if label not in changes or changes[label] is not None}
        if labels == resource.metadata.labels:
            return f"{_name(resource)} not labeled"
        metadata = msgspec.structs.replace(resource.metadata, labels=labels)
        self.by_id[key] = _with_metadata(resource, metadata)
        taken = all(value is None for value in changes.values())
        return f"{_name(resource)} {'unlabeled' if taken else 'labeled'}"

    def _namespace(self, name: str) -> Resource[Json]:
        made = loads(f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: '{name}', labels: {{kubernetes.io/metadata.name: '{name}'}}}}\n")
        resource = made.require().resources[0]
        self.by_id[resource.id] = resource
        return resource

    def _refuse_by_webhook(self, resource: Resource[Json], where: str) -> None:
        """A pod with another's address would make a mesh that no cluster has."""
        if resource.kind != "Pod" or resource.spec.status is None:
            return
        address = resource.spec.status.pod_ip
        for other in self.by_id.values():
            taken = other.kind == "Pod" and other.id != resource.id and other.spec.status and other.spec.status.pod_ip == address
            if address and taken:
                raise Rejected(f"error: {where}: pod {other.namespace}/{other.name} has the address {address} already")


def builtins(resource: Resource[Json]) -> dict[str, Json]:
    """A resource as JSON, with what was read anew from its metadata."""
    metadata = msgspec.to_builtins(resource.metadata)
    head: dict[str, Json] = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata}
    holds = msgspec.to_builtins(resource.spec)
    return head | (holds if named_bare(resource.kind) else {"spec": holds})


def named_bare(kind: str) -> bool:
    """Whether a kind's fields stand beside its metadata instead of in a `spec`."""
    from meshsim.resources.kinds import KINDS

    return not KINDS[kind][0].where


def _with_metadata(resource: Resource[Json], metadata: Json) -> Resource[Json]:
    return Resource(resource.api_version, resource.kind, metadata, resource.spec, resource.source, resource.order)


def _in(namespace: str | None, resource: Resource[Json]) -> Resource[Json]:
    if namespace is None or not resource.namespace:
        return resource
    given = (resource.raw.get("metadata") or {}).get("namespace")
    if given and given != namespace:
        raise Rejected(
            f'error: the namespace from the provided object "{given}" does not match the namespace "{namespace}". '
            f"You must pass '--namespace={given}' to perform this operation."
        )
    resource.metadata.namespace = namespace
    return resource


def _content(resource: Resource[Json]) -> Json:
    return resource.spec, resource.metadata.labels, resource.metadata.annotations


def _name(resource: Resource[Json]) -> str:
    return f"{named(resource.kind).qualified}/{resource.name}"


def _shown(file: str) -> str:
    return "STDIN" if file == "<stdin>" else file


def _refusal(where: str, error: ConfigError, resource: Resource[Json]) -> str:
    said = "; ".join(p.message for p in error.problems)
    lines = [f'Error from server: {where}: admission webhook "validation.istio.io" denied the request: configuration is invalid: {said}']
    return "\n".join(lines + [f"  at {p.location}: {p.message}" for p in error.problems if p.location])

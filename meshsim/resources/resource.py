"""One document a user wrote: what it says, and where each part of it stands in a file."""

from __future__ import annotations

from typing import Any as Json
from typing import Generic, TypeVar

from meshsim.errors import Location
from meshsim.resources.message import OpenMessage
from meshsim.resources.reader import Path, Source

__all__ = ["BARE", "ObjectMeta", "Path", "Resource", "Source"]

Spec = TypeVar("Spec")
BARE = frozenset({"Node", "ServiceAccount", "Pod", "Endpoints", "EndpointSlice", "Secret", "ConfigMap"})
"""Kinds that have no `spec`, or (Pod) are read whole: their message is the document."""


class ObjectMeta(OpenMessage):
    name: str = ""
    namespace: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    creation_timestamp: str | None = None
    generate_name: str = ""


class Resource(Generic[Spec]):
    """`spec` is the kind's own message, for kinds without a `spec` their top-level fields. `order` is the creation order."""

    __slots__ = ("_raw", "api_version", "is_plain", "kind", "metadata", "order", "source", "spec")

    def __init__(
        self,
        api_version: str,
        kind: str,
        metadata: ObjectMeta,
        spec: Spec,
        source: Source,
        order: float = 0.0,
        raw: dict[str, Json] | None = None,
    ):
        self.api_version, self.kind, self.metadata, self.spec = api_version, kind, metadata, spec
        self.source, self.order, self._raw = source, order, raw
        self.is_plain = False  # whether the document needed no lenience to be read

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def namespace(self) -> str:
        return self.metadata.namespace

    @property
    def id(self) -> str:
        """Kind/namespace/name, as reports name it."""
        return f"{self.kind}/{self.namespace}/{self.name}"

    @property
    def raw(self) -> dict[str, Json]:
        """The document's plain values; read anew from its text once they were released."""
        if self._raw is None:
            found = self.source.raw()
            return found if isinstance(found, dict) else {}
        return self._raw

    def release(self) -> None:
        """Let go of the plain values; they are most of what a large mesh takes up, and can be had again."""
        self._raw = None

    @property
    def location(self) -> Location:
        return self.source.locate()

    def locate(self, *path: str | int) -> Location:
        """Where a field of the spec stands: `vs.locate("http", 0, "match", 1, "port")`; a leading "spec" may be given or left out."""
        if path and self.kind not in BARE and path[0] not in ("spec", "metadata"):
            path = ("spec", *path)
        return self.source.locate(path)

    def at(self, *path: str | int) -> str:
        """`file:line` of a field, as xds metadata carries it."""
        found = self.locate(*path)
        return f"{found.file}:{found.line}"

    def __repr__(self) -> str:
        return f"<{self.id} {self.location}>"

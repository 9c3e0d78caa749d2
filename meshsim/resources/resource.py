"""One document a user wrote: what it says, and where each part of it stands in a file."""

from __future__ import annotations

from typing import Any as Json
from typing import Generic, TypeVar

import yaml

from meshsim.errors import Location
from meshsim.resources.message import Message

Spec = TypeVar("Spec")
Path = tuple[str | int, ...]


class ObjectMeta(Message):
    name: str = ""
    namespace: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    creation_timestamp: str | None = None
    generate_name: str = ""


class Source:
    """A document's place in a file. Lines are looked up only when somebody asks: the parsed nodes are kept, not their marks."""

    __slots__ = ("file", "node")

    def __init__(self, file: str, node: yaml.Node | None):
        self.file, self.node = file, node

    def locate(self, path: Path = (), *, key: bool = True) -> Location:
        """Where the field at `path` (camelCase keys and list positions) begins: its key, or with `key=False` its value.

        A path that leads further than the document does ends at the last part that exists.
        """
        mark = self.node.start_mark if self.node else None
        node = self.node
        for step in path:
            if isinstance(node, yaml.MappingNode):
                pair = next(((k, v) for k, v in node.value if k.value == step), None)
                if pair is None:
                    break
                mark, node = (pair[0] if key else pair[1]).start_mark, pair[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
                node = node.value[step]
                mark = node.start_mark
            else:
                break
        return Location(self.file, mark.line + 1, mark.column + 1) if mark else Location(self.file, 1)


class Resource(Generic[Spec]):
    """`spec` is the kind's own message, for kinds without a `spec` their top-level fields. `order` is the creation order."""

    __slots__ = ("api_version", "kind", "metadata", "order", "raw", "source", "spec")

    def __init__(
        self, api_version: str, kind: str, metadata: ObjectMeta, spec: Spec, source: Source, order: float = 0.0, raw: dict[str, Json] | None = None
    ):
        self.api_version, self.kind, self.metadata, self.spec = api_version, kind, metadata, spec
        self.source, self.order, self.raw = source, order, raw or {}

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
    def location(self) -> Location:
        return self.source.locate()

    def locate(self, *path: str | int) -> Location:
        """Where a field of the spec stands: `vs.locate("http", 0, "match", 1, "port")`."""
        inside: Path = ("spec", *path) if "spec" in self.raw else path
        return self.source.locate(inside)

    def at(self, *path: str | int) -> str:
        """`file:line` of a field, as xds metadata carries it."""
        found = self.locate(*path)
        return f"{found.file}:{found.line}"

    def __repr__(self) -> str:
        return f"<{self.id} {self.location}>"

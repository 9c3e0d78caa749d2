"""YAML text to resources: every mistake at once, each with its file, line and column.

How this works: `reader` turns one document after the other into plain values and notes what YAML lets pass but Kubernetes does not. The
values are converted to a kind's message in one fast step; only when that fails does `decode` walk message and value side by side to say
everything that is wrong. A document that cannot be converted is still among `Documents.documents`, for validation in Istio's words.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any as Json

import yaml

from meshsim.errors import ConfigError, Location, Problem
from meshsim.resources import decode, interception, kinds, proxy_metadata, recipes
from meshsim.resources.reader import MAX_BYTES, UNREADABLE, Absurd, Reader, Source, compose, unreadable
from meshsim.resources.resource import ObjectMeta, Resource
from meshsim.texts import texts

HEADERS = ("GoldenCase", "GoldenBase", "Walkthrough", "MeshTest")  # meshsim.dev documents that are no part of a mesh
TOP_LEVEL = ("apiVersion", "kind", "metadata", "spec", "status")


@dataclass(slots=True)
class Document:
    """One resource as it was written. `resource` is None where it could not be read; `problems` says why."""

    kind: str
    api_version: str
    name: str
    namespace: str
    source: Source
    problems: list[Problem]
    resource: Resource[Json] | None = None

    @property
    def id(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}"


@dataclass
class Documents:
    """What was loaded, in creation order; `headers` are documents for meshsim's own tools; `problems` stop nothing by themselves."""

    resources: list[Resource[Json]] = field(default_factory=list)
    headers: list[dict[str, Json]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    documents: list[Document] = field(default_factory=list)
    _places: dict[str, int] = field(default_factory=dict, repr=False)

    def add(self, resource: Resource[Json]) -> None:
        """Put a resource in, as `kubectl apply` does: in the place of an earlier one of its name, whose age it takes over."""
        place = self._places.setdefault(resource.id, len(self.resources)) if resource.name else len(self.resources)
        if place == len(self.resources):
            self.resources.append(resource)
            return
        earlier = self.resources[place]
        if not resource.metadata.creation_timestamp:
            resource.order = earlier.order
        self.resources[place] = resource
        said = f"takes the place of the one at {earlier.location}, which has the same name"
        self.problems.append(Problem("warning", said, resource.location, resource.id))

    @property
    def errors(self) -> list[Problem]:
        return [p for p in self.problems if p.severity == "error"]

    def of(self, kind: str) -> list[Resource[Json]]:
        return [r for r in self.resources if r.kind == kind]

    def require(self) -> Documents:
        """These documents, or ConfigError with every error."""
        if self.errors:
            raise ConfigError(self.errors)
        return self


def load(*sources: str | Path, stdin: str | None = None) -> Documents:
    """Read files, folders (their *.yaml and *.yml in name order) and "-" (standard input).

    Raises ConfigError for a source that cannot be read; everything else is in the result's `problems`.
    """
    out = Documents()
    for name, text in texts(sources, stdin):
        read(text, name, out)
    return out


def loads(text: str, name: str = "<text>") -> Documents:
    """Read one YAML text."""
    return read(text, name, Documents())


def read(text: str, name: str, out: Documents) -> Documents:
    """Add the documents of one text to `out`."""
    if len(text) > MAX_BYTES:
        out.problems.append(Problem("error", f"file is larger than {MAX_BYTES >> 20} MiB", Location(name, 1)))
        return out
    collecting = gc.isenabled()
    gc.disable()  # nothing here makes cycles, and a large file makes many objects
    try:
        _read(text.removeprefix("\ufeff"), name, out)
    finally:
        if collecting:
            gc.enable()
    return out


def _read(text: str, name: str, out: Documents) -> None:
    try:
        for node in compose(text):
            _document(node, name, out, text)
    except UNREADABLE as e:
        out.problems.append(unreadable(e, name))


def _document(node: yaml.Node | None, name: str, out: Documents, text: str | None) -> None:
    """One document; `text` is None for a member of a List, whose anchors may stand elsewhere."""
    if node is None or (isinstance(node, yaml.ScalarNode) and node.tag.endswith(":null")):
        return
    reader = Reader(name, out.problems)
    try:
        raw = reader.plain(node)
    except Absurd as e:
        reader.say(node, str(e))
        return
    if not isinstance(raw, dict):
        reader.say(node, f"a resource is a mapping; found {decode.found(raw)}")
        return
    if raw.get("kind") == "List" and isinstance(raw.get("items"), list):
        items = next(value for key, value in node.value if key.value == "items")
        for item in items.value if isinstance(items, yaml.SequenceNode) else ():
            _document(item, name, out, None)
        return
    _resource(raw, Source(name, node, text), out)


def _resource(raw: dict[str, Json], source: Source, out: Documents) -> None:
    api_version, kind_name = raw.get("apiVersion"), raw.get("kind")
    if not isinstance(api_version, str) or not isinstance(kind_name, str):
        missing = "apiVersion" if not isinstance(api_version, str) else "kind"
        out.problems.append(Problem("error", f'a resource needs a text "{missing}"', source.locate((missing,))))
        return
    if kind_name in HEADERS and api_version.startswith("meshsim.dev/"):
        out.headers.append(raw)
        return
    kind = kinds.find(api_version, kind_name)
    if kind is None:
        out.problems.append(_unknown(api_version, kind_name, raw, source))
        return
    problems: list[Problem] = []
    open_ended = kind.is_open
    metadata = decode.convert(raw.get("metadata") or {}, ObjectMeta, source, ("metadata",), problems, open_ended=True)
    holds = raw.get("spec") if kind.where else {k: v for k, v in raw.items() if k not in ("apiVersion", "kind", "metadata")}
    if kind.where and not raw.keys() <= _TOP_LEVEL:
        problems += decode.unknown_keys(raw, TOP_LEVEL, source)
    holds = {} if holds is None else holds
    spec = decode.plain(holds, kind.message)
    is_plain = spec is not None and not problems
    if spec is None:
        spec = decode.convert(holds, kind.message, source, (kind.where,) if kind.where else (), problems, open_ended=open_ended)
    if metadata is not None and kind.namespaced and not metadata.namespace:
        metadata.namespace = "default"
    if metadata is not None and not metadata.name and kind_name != "MeshConfig":
        said = "metadata.generateName is not simulated; give a name" if metadata.generate_name else "metadata.name is required"
        problems.append(Problem("error", said, source.locate(("metadata",))))
    label = _name(raw.get("metadata"))
    document = Document(kind_name, api_version, label[1], label[0] if kind.namespaced else "", source, [])
    out.documents.append(document)
    if problems:
        document.problems = [replace(p, resource=document.id) for p in problems]
        out.problems += document.problems
        if any(p.severity == "error" for p in problems):
            return
    resource = Resource(api_version, kind_name, metadata, spec, source, _created(metadata, len(out.resources)), raw)
    resource.is_plain = is_plain
    document.problems += (*interception.problems(resource), *proxy_metadata.problems(resource), *recipes.problems(resource))
    out.problems += document.problems[len(problems) :]
    if any(p.severity == "error" for p in document.problems):
        return
    document.resource = resource
    out.add(resource)


_TOP_LEVEL = frozenset(TOP_LEVEL)


def _name(metadata: Json) -> tuple[str, str]:
    """Namespace and name, as far as they can be read."""
    given = metadata if isinstance(metadata, dict) else {}
    namespace, name = given.get("namespace"), given.get("name")
    return (namespace if isinstance(namespace, str) and namespace else "default", name if isinstance(name, str) else "")


def _created(metadata: ObjectMeta, position: int) -> float:
    """Seconds since the epoch; documents without a time follow one another, a second apart, from 2024 on."""
    if metadata.creation_timestamp:
        try:
            return datetime.fromisoformat(metadata.creation_timestamp.replace("Z", "+00:00")).timestamp()
        except ValueError:
            pass
    return _EPOCH + position


_EPOCH = datetime(2024, 1, 1, tzinfo=UTC).timestamp()


def _unknown(api_version: str, kind: str, raw: dict[str, Json], source: Source) -> Problem:
    namespace, name = _name(raw.get("metadata"))
    label = f"{kind}/{namespace}/{name}"
    if kind in kinds.KINDS:
        known = ", ".join(f"{k.group}/{v}".lstrip("/") for k in kinds.KINDS[kind] for v in k.versions)
        said = f'no {kind} is served under apiVersion "{api_version}"'
        return Problem("error", said, source.locate(("apiVersion",)), label, hint=f"allowed: {known}")
    if kind in kinds.WITHOUT_EFFECT:
        return Problem("warning", f"a {kind} changes nothing in a simulated mesh; it is passed over", source.locate(("kind",)), label)
    if kind in kinds.NOT_SIMULATED:
        return Problem("error", f"not simulated yet: {kind}", source.locate(("kind",)), label)
    return Problem("error", f'unknown kind "{kind}"', source.locate(("kind",)), hint=decode.nearest(kind, kinds.KINDS))

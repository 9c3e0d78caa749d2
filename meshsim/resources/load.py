"""YAML text to resources: every mistake at once, each with its file, line and column.

How this works: PyYAML's C parser composes a tree of nodes that know their places. `plain` turns a tree into Python values
and notes what YAML lets pass but Kubernetes does not (a key twice) or reads otherwise than meant (`no` is false). The values
are converted to a kind's message in one fast step; only when that fails does `decode.problems` walk message and tree side
by side to say everything that is wrong. Aliases are resolved by reference and counted, depth and size are bounded, so that no
document costs more than its text.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any as Json

import msgspec
import yaml

from meshsim.errors import ConfigError, Location, Problem
from meshsim.resources import decode, kinds
from meshsim.resources.resource import ObjectMeta, Resource, Source

MAX_BYTES = 64 * 1024 * 1024
MAX_DEPTH = 64
MAX_NODES = 5_000_000  # counted with every alias followed, so a billion laughs ends early
HEADERS = ("GoldenCase", "GoldenBase", "Walkthrough", "MeshTest")  # meshsim.dev documents that are no part of a mesh

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass
class Documents:
    """What was loaded, in creation order; `headers` are documents for meshsim's own tools; `problems` stop nothing by themselves."""

    resources: list[Resource[Json]] = field(default_factory=list)
    headers: list[dict[str, Json]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

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
    for name, text in _texts(sources, stdin):
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
    loader = _LOADER(text)
    try:
        while loader.check_node():
            _document(loader.get_node(), name, out)
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        place = Location(name, mark.line + 1, mark.column + 1) if mark else Location(name, 1)
        out.problems.append(Problem("error", f"not YAML: {e.problem or e.context}", place))
    except (yaml.YAMLError, RecursionError, ValueError) as e:
        out.problems.append(Problem("error", f"not YAML: {str(e) or type(e).__name__}".splitlines()[0], Location(name, 1)))
    finally:
        loader.dispose()
    return out


def _texts(sources: Iterable[str | Path], stdin: str | None) -> Iterator[tuple[str, str]]:
    for source in sources:
        if str(source) == "-":
            yield "<stdin>", sys.stdin.read() if stdin is None else stdin
            continue
        path = Path(source)
        found = sorted(p for p in path.iterdir() if p.suffix in (".yaml", ".yml")) if path.is_dir() else [path]
        if not found:
            raise ConfigError([Problem("error", "no *.yaml or *.yml files in this folder", Location(str(path), 1))])
        for file in found:
            try:
                yield str(file), file.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as e:
                reason = e.strerror if isinstance(e, OSError) else "not UTF-8 text"
                raise ConfigError([Problem("error", str(reason), Location(str(file), 1))]) from None


def _document(node: yaml.Node | None, name: str, out: Documents) -> None:
    if node is None or (isinstance(node, yaml.ScalarNode) and node.tag.endswith(":null")):
        return
    reader = _Reader(name, out.problems)
    raw = reader.plain(node, 0)
    if not isinstance(raw, dict):
        out.problems.append(Problem("error", f"a resource is a mapping; found {decode.found(raw)}", reader.place(node)))
        return
    if raw.get("kind") == "List" and isinstance(raw.get("items"), list):
        items = next(v for k, v in node.value if k.value == "items")
        for item in items.value:
            _document(item, name, out)
        return
    _resource(raw, node, name, out)


def _resource(raw: dict[str, Json], node: yaml.Node, name: str, out: Documents) -> None:
    source = Source(name, node)
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
        out.problems.append(_unknown(api_version, kind_name, source))
        return
    errors_before = len(out.errors)
    metadata = decode.convert(raw.get("metadata") or {}, ObjectMeta, source, ("metadata",), out.problems, open_ended=True)
    holds = raw.get("spec") if kind.where else {k: v for k, v in raw.items() if k not in ("apiVersion", "kind", "metadata")}
    if kind.where:
        out.problems += decode.unknown_keys(raw, ("apiVersion", "kind", "metadata", "spec", "status"), source)
    spec = decode.convert({} if holds is None else holds, kind.message, source, (kind.where,) if kind.where else (), out.problems,
                          open_ended=not kind.group.endswith(("istio.io", "meshsim.dev")))
    if metadata is None or spec is None:
        return
    if kind.namespaced and not metadata.namespace:
        metadata.namespace = "default"
    label = f"{kind_name}/{metadata.namespace}/{metadata.name}"
    out.problems[errors_before:] = out.problems[errors_before:]
    if not metadata.name and kind_name != "MeshConfig":
        out.problems.append(Problem("error", "metadata.name is required", source.locate(("metadata",)), label))
        return
    order = _created(metadata, len(out.resources))
    out.resources.append(Resource(api_version, kind_name, metadata, spec, source, order, raw))


def _created(metadata: ObjectMeta, position: int) -> float:
    """Seconds since the epoch; documents without a time follow one another, a second apart, from 2024 on."""
    if metadata.creation_timestamp:
        try:
            return datetime.fromisoformat(metadata.creation_timestamp.replace("Z", "+00:00")).timestamp()
        except ValueError:
            pass
    return _EPOCH + position


_EPOCH = datetime(2024, 1, 1, tzinfo=timezone.utc).timestamp()


def _unknown(api_version: str, kind: str, source: Source) -> Problem:
    if kind in kinds.KINDS:
        known = ", ".join(f"{k.group}/{v}".lstrip("/") for k in kinds.KINDS[kind] for v in k.versions)
        return Problem("error", f'no {kind} is served under apiVersion "{api_version}"', source.locate(("apiVersion",)), hint=f"allowed: {known}")
    return Problem("error", f'unknown kind "{kind}"', source.locate(("kind",)), hint=decode.nearest(kind, kinds.KINDS))


class _Reader:
    """One document's nodes to Python values, within bounds."""

    def __init__(self, file: str, problems: list[Problem]):
        self._file, self._problems = file, problems
        self._count = 0
        self._seen: dict[int, Json] = {}

    def place(self, node: yaml.Node) -> Location:
        return Location(self._file, node.start_mark.line + 1, node.start_mark.column + 1)

    def plain(self, node: yaml.Node, depth: int) -> Json:
        self._count += 1
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
        if self._count > MAX_NODES:
            raise ValueError(f"more than {MAX_NODES} values (aliases counted)")
        if isinstance(node, yaml.ScalarNode):
            return scalar(node)
        if isinstance(node, yaml.SequenceNode):
            return [self.plain(item, depth + 1) for item in node.value]
        out: dict[str, Json] = {}
        for key, value in node.value:
            text = key.value if isinstance(key, yaml.ScalarNode) else None
            if text is None:
                self._problems.append(Problem("error", "a key must be text", self.place(key)))
                continue
            if text == "<<" and key.tag.endswith(":merge"):
                merged = self.plain(value, depth + 1)
                for part in merged if isinstance(merged, list) else [merged]:
                    if isinstance(part, dict):
                        out = {**part, **out}
                continue
            if text in out:
                self._problems.append(Problem("error", f'key "{text}" is given twice', self.place(key)))
            out[text] = self.plain(value, depth + 1)
        return out


def scalar(node: yaml.ScalarNode) -> Json:
    """The value of a scalar as Kubernetes reads it (YAML 1.1: `yes` and `off` are booleans too)."""
    tag, text = node.tag.rpartition(":")[2], node.value
    if tag == "str" or tag == "timestamp" or tag == "binary":
        return text
    if tag == "null":
        return None
    if tag == "bool":
        return text.lower() in ("true", "yes", "on")
    try:
        if tag == "int":
            return _integer(text)
        if tag == "float":
            return float(text.replace("_", "").replace(".inf", "inf").replace(".nan", "nan"))
    except ValueError:
        return text
    return text


def _integer(text: str) -> int:
    text = text.replace("_", "")
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if ":" in digits:
        raise ValueError(text)  # YAML 1.1's base 60; Kubernetes reads `1:30` as text
    if len(digits) > 1 and digits[0] == "0" and digits[1].isdigit():
        return sign * int(digits, 8)
    return sign * int(digits, 0)


def decode_json(message: type, value: Json) -> Json:
    """One message from plain values; raises msgspec.ValidationError."""
    return msgspec.convert(value, message)

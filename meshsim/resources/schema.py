"""The schema of each kind: a tree of nodes made from its message, and JSON Schema for editors.

How this works: a node holds what a CRD's OpenAPI schema says of one field. It is read off the message's type hints (`shape` says what the
annotations mean), once per message, when somebody validates or asks for a schema.
"""

from __future__ import annotations

import sys
import types
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Literal, Union, get_args, get_origin, get_type_hints
from typing import Any as Json

import msgspec

from meshsim.resources.kinds import KINDS, Kind
from meshsim.resources.resource import BARE
from meshsim.resources.shape import Rule, Shape


@dataclass(slots=True)
class Node:
    """One field. `type` is OpenAPI's, "" for anything at all; `doc` the message it came from."""

    type: str = ""
    properties: dict[str, Node] = field(default_factory=dict)
    items: Node | None = None
    additional: Node | None = None
    shape: Shape = field(default_factory=Shape)
    enum: tuple[str, ...] = ()
    bounds: dict[str, Json] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    nullable: bool = False
    is_duration: bool = False
    open: bool = False
    doc: str = ""


_SCALARS = {str: "string", int: "integer", float: "number", bool: "boolean"}


@cache
def of_message(message: type) -> Node:
    """The node of a message."""
    shape: Shape = getattr(message, "SHAPE", Shape())
    hints = get_type_hints(message, include_extras=True)
    node = Node("object", shape=shape, rules=shape.rules, open=not message.__struct_config__.forbid_unknown_fields,  # type: ignore[attr-defined]
                doc=(message.__doc__ or "").split("\n")[0])
    in_groups = {name for group in shape.one_of for name in group}
    for info in msgspec.structs.fields(message):
        child = _of_hint(hints[info.name])
        child.nullable = child.nullable and info.encode_name not in in_groups
        node.properties[info.encode_name] = child
    node.properties |= {proto: node.properties[name] for proto, name in shape.proto_names}
    return node


def _of_hint(hint: Json) -> Node:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        node = _of_hint(args[0])
        for meta in args[1:]:
            node.bounds = {**node.bounds, **(meta.extra_json_schema or {})}
            extra = meta.extra or {}
            node.rules += extra.get("rules", ())
            node.is_duration = node.is_duration or bool(extra.get("duration"))
        return node
    if origin in (Union, types.UnionType):
        options = [arg for arg in args if arg is not type(None)]
        node = _of_hint(options[0]) if len(options) == 1 else Node()
        node.nullable = node.type in ("integer", "number", "boolean") and len(options) < len(args)
        return node
    if origin is Literal:
        return Node("string", enum=args)
    if origin is list:
        return Node("array", items=_of_hint(args[0]))
    if origin is dict:
        return Node("object", additional=_of_hint(args[1]))
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        made = of_message(hint)
        return Node("object", made.properties, shape=made.shape, rules=made.rules, open=made.open, doc=made.doc)
    return Node(_SCALARS.get(hint, ""))


def of_kind(kind: Kind) -> Node:
    """The node of what a kind's `spec` holds (of the document, for kinds without one)."""
    return of_message(kind.message)


def schema(kind: str) -> dict[str, Json]:
    """JSON Schema of the documents of a kind. Raises KeyError for a kind meshsim does not know."""
    entry = KINDS[kind][0]
    versions = [f"{k.group}/{v}".lstrip("/") for k in KINDS[kind] for v in k.versions]
    spec = _json(of_kind(entry))
    spec.pop("description", None)
    properties: dict[str, Json] = {
        "apiVersion": {"enum": versions},
        "kind": {"const": kind},
        "metadata": _METADATA,
    }
    if entry.where:
        properties["spec"] = spec
        properties["status"] = {"type": "object"}
    else:
        properties |= spec.get("properties", {})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": kind,
        "description": of_kind(entry).doc or (sys.modules[entry.message.__module__].__doc__ or "").split("\n")[0],
        "type": "object",
        "required": ["apiVersion", "kind", "metadata"],
        "properties": properties,
        "additionalProperties": kind in BARE or entry.message.__struct_config__.forbid_unknown_fields is False,  # type: ignore[attr-defined]
    }


_TEXTS: dict[str, Json] = {"type": "object", "additionalProperties": {"type": "string"}}
_METADATA: dict[str, Json] = {
    "type": "object",
    "required": ["name"],
    "properties": {"name": {"type": "string"}, "namespace": {"type": "string"}, "labels": _TEXTS, "annotations": _TEXTS,
                   "creationTimestamp": {"type": ["string", "null"]}},
}  # fmt: skip
_JSON_BOUNDS = ("minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties", "pattern")


def _json(node: Node) -> dict[str, Json]:
    out: dict[str, Json] = {}
    if node.type:
        out["type"] = [node.type, "null"] if node.nullable else node.type
    if node.enum:
        out["enum"] = list(node.enum)
    out |= {name: node.bounds[name] for name in _JSON_BOUNDS if name in node.bounds}
    if node.is_duration:
        out["examples"] = ["10s"]
    if node.items is not None:
        out["items"] = _json(node.items)
    if node.additional is not None:
        out["additionalProperties"] = _json(node.additional)
    if node.properties or (node.type == "object" and node.additional is None):
        out["properties"] = {name: _json(child) for name, child in node.properties.items()}
        if not node.open:
            out["additionalProperties"] = False
    if node.shape.required:
        out["required"] = list(node.shape.required)
    groups = [group for group in node.shape.one_of if len(group) > 1]
    pairs = [{"not": {"required": [a, b]}} for group in groups for i, a in enumerate(group) for b in group[i + 1 :]]
    if pairs:
        out["allOf"] = pairs
    if node.rules:
        out["description"] = "; ".join(rule.message for rule in node.rules)
    elif node.doc:
        out["description"] = node.doc
    return out

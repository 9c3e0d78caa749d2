"""Istio's own decoding of a spec, which is more lenient than the schema, and its words where even that fails."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any as Json

from msgspec import inspect

from meshsim.errors import Problem
from meshsim.resources import walk
from meshsim.resources.decode import camel, nearest
from meshsim.resources.reader import Path, Source
from meshsim.resources.validation.golang import base64_error, json_number, quote

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_GO_TYPES = {
    "object": "map[string]json.RawMessage", "array": "[]json.RawMessage", "string": "string", "integer": "int32", "number": "float64",
    "boolean": "bool", "duration": "string", "integer or string": "string",
}  # fmt: skip


def convert(value: Json, message: type, source: Source, resource: str) -> tuple[Json, Problem | None]:
    """The message, or what the decoder says."""
    problems: list[Problem] = []
    converted = _GoWalker(source, problems, open_ended=True, quiet=True).convert({} if value is None else value, message, ("spec",))
    if converted is not None or not problems:
        return converted, None
    first = problems[0]
    return None, Problem("error", first.message, first.location, resource, first.hint)


class _GoWalker(walk.Walker):
    """Words its findings as encoding/json and golang/protobuf do; lets pass what they let pass."""

    _integer_type = "int32"

    def wrong(self, path: Path, value: Json, expected: str, hint: str = "") -> Json:
        if expected == "number" and isinstance(value, str) and _NUMBER.fullmatch(value):
            return float(value)  # numbers may be quoted
        if expected in ("integer", "number") and isinstance(value, str):
            return self.say(path, _not_a_number(value, self._integer_type if expected == "integer" else "float64"), hint)
        kind = self._integer_type if expected == "integer" else _GO_TYPES[expected]
        return self.say(path, f"json: cannot unmarshal {_json_name(value, expected)} into Go value of type {kind}", hint)

    def value(self, value: Json, kind: inspect.Type, path: Path) -> Json:
        bare, limits = (kind.type, kind.extra_json_schema or {}) if isinstance(kind, inspect.Metadata) else (kind, {})
        if limits.get("format") == "byte":
            return self._bytes(value, path)
        if not isinstance(bare, inspect.IntType):
            return super().value(value, kind, path)
        plain = not limits or limits.get("format") == "int32"
        low, high, self._integer_type = _INT32 if plain else _UINT32 if "maximum" in limits else _UINT64
        converted = super().value(value, kind, path)
        if isinstance(converted, int) and not low <= converted <= high:
            return self.say(path, f"json: cannot unmarshal number {json_number(value)} into Go value of type {self._integer_type}")
        return converted

    def _bytes(self, value: Json, path: Path) -> Json:
        if not isinstance(value, str):
            return self.say(path, f"json: cannot unmarshal {_json_name(value, 'array')} into Go value of type []uint8")
        wrong = base64_error(value)
        return value if wrong is None else self.say(path, f"illegal base64 data at input byte {wrong}")

    def unknown(self, path: Path, key: str, known: Iterable[str]) -> bool:
        return False

    def members(self, value: dict[str, Json], fields: Iterable[str]) -> Iterable[tuple[str, Json]]:
        """In the order in which the proto declares the fields: the decoder's first complaint is its only one."""
        order = {name: i for i, name in enumerate(fields)}
        return sorted(value.items(), key=lambda member: order.get(member[0], order.get(camel(member[0]), len(order))))

    def bad_key(self, path: Path, key: str) -> None:
        self.say((*path, key), _not_a_number(key, "uint32"), key=True)

    def one_of(self, path: Path, given: list[str]) -> bool:
        return False

    def bad_enum(self, path: Path, value: Json, names: tuple[str, ...], name: str) -> Json:
        if isinstance(value, str):
            return self.say(path, f"unknown value {quote(quote(value))} for enum {name}", nearest(value, names))
        if isinstance(value, int) and not isinstance(value, bool) and -(2**31) <= value < 2**31:
            return names[0]  # any number passes; what no name stands for is taken for the default
        return self.say(path, f"json: cannot unmarshal {_json_name(value, 'integer')} into Go value of type protoreflect.EnumNumber")

    def bad_duration(self, path: Path, error: str) -> walk.Bad:
        return self.say(path, f"bad Duration: {error}")

    def item(self, value: Json, kind: inspect.Type, path: Path) -> Json:
        return self.value(walk.empty(kind) if value is None else value, kind, path)


_INT32, _UINT32, _UINT64 = (-(2**31), 2**31 - 1, "int32"), (0, 2**32 - 1, "uint32"), (0, 2**64 - 1, "uint64")
"""What Go's types take; the schema's bounds tell which one a field has."""


def _not_a_number(text: str, kind: str) -> str:
    """What encoding/json says of a text, its quotes taken off, where a number is wanted."""
    if not text:
        return "unexpected end of JSON input"
    number = _NUMBER.match(text)
    if number is None:
        return f"invalid character {_character(text[0])} looking for beginning of value"
    if number.end() == len(text):
        return f"json: cannot unmarshal number {text} into Go value of type {kind}"
    return f"invalid character {_character(text[number.end()])} after top-level value"


def _character(text: str) -> str:
    return {"'": "'\\''", '"': "'\"'"}.get(text, f"'{text}'")


def _json_name(value: Json, expected: str) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, float) and expected == "integer":
        return f"number {json_number(value)}"
    return {str: "string", int: "number", float: "number", list: "array", dict: "object"}.get(type(value), "null")

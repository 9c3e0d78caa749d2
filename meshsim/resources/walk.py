"""A value and its message's type side by side: what Istio's decoder accepts, and everything that is wrong.

How this works: the walk accepts what Istio's own decoder accepts beyond the plain form (proto names in snake_case, 64-bit integers as
text, enums by number, null as unset), repairs the value, and words each finding for the person who wrote the file: what was found, what is
allowed, the nearest name. What it knows of a message it asks of msgspec, so a new field needs nothing here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any as Json
from typing import get_args, get_type_hints

import msgspec
from msgspec import inspect

from meshsim.errors import Problem
from meshsim.resources.decode import camel, found, nearest, spell
from meshsim.resources.reader import Path, Source
from meshsim.resources.shape import nanoseconds


class Bad:
    """Stands for a value that could not be converted."""


BAD = Bad()
_SHAPES: dict[type, dict[str, inspect.Field]] = {}
_ENUMS: dict[type, dict[str, tuple[str, ...]]] = {}


def fields_of(message: type) -> dict[str, inspect.Field]:
    """The fields of a message by their names in YAML."""
    if message not in _SHAPES:
        info = inspect.type_info(message)
        assert isinstance(info, inspect.StructType)
        _SHAPES[message] = {f.encode_name: f for f in info.fields}
    return _SHAPES[message]


def enum_values(message: type, field: str) -> tuple[str, ...]:
    """The names of an enum field (its name in Python) in the order of their numbers; msgspec itself sorts them."""
    if message not in _ENUMS:
        hints = get_type_hints(message)
        _ENUMS[message] = {name: _literal_values(hint) for name, hint in hints.items()}
    return _ENUMS[message][field]


def _literal_values(hint: Json) -> tuple[str, ...]:
    values: tuple[str, ...] = ()
    for arg in get_args(hint):
        values += (arg,) if isinstance(arg, str) else _literal_values(arg)
    return values


_PROTO_NAME = "is the proto name"


def about_proto_name(problem: Problem) -> bool:
    """Whether it says no more than that a field's name is in snake_case."""
    return problem.severity == "warning" and _PROTO_NAME in problem.message


class Walker:
    """One walk over one value. `quiet` passes over snake_case."""

    def __init__(self, source: Source, problems: list[Problem], *, open_ended: bool = False, quiet: bool = False):
        self._source, self._problems, self._open, self._quiet = source, problems, open_ended, quiet

    def convert(self, value: Json, message: type, path: Path) -> Json:
        """The message, or None when errors were found."""
        cleaned = self.struct(value, message, path)
        if cleaned is BAD:
            return None
        try:
            return msgspec.convert(cleaned, message)
        except msgspec.ValidationError as e:
            self.say(path, str(e))
            return None

    def say(self, path: Path, message: str, hint: str = "", severity: str = "error", *, key: bool = False) -> Bad:
        self._problems.append(Problem(severity, message, self._source.locate(path, key=key), hint=hint))
        return BAD

    def wrong(self, path: Path, value: Json, expected: str, hint: str = "") -> Json:
        """A value of the wrong type."""
        return self.say(path, f"{spell(path)}: expected {_EXPECTED[expected]}, found {found(value)}", hint)

    def unknown(self, path: Path, key: str, known: Iterable[str]) -> bool:
        """A field nobody declares; whether that is an error."""
        if not self._open:
            self.say((*path, key), f'unknown field "{key}"', nearest(key, known), key=True)
        return not self._open

    def bad_enum(self, path: Path, value: Json, names: tuple[str, ...], _name: str) -> Json:
        return self.say(path, f"{spell(path)}: unknown value {found(value)}", nearest(str(value), names))

    def bad_duration(self, path: Path, error: str) -> Bad:
        return self.say(path, f"{spell(path)}: {error}", 'a duration is a number with a unit, such as "10s" or "1.5s"')

    def struct(self, value: Json, message: type, path: Path) -> Json:
        if not isinstance(value, dict):
            return self.wrong(path, value, "object")
        fields = fields_of(message)
        out: dict[str, Json] = {}
        bad = False
        for key, item in self.members(value, fields):
            name = key
            if name not in fields and "_" in name:
                name = camel(name)
                if name in fields and not self._quiet:
                    self.say((*path, key), f'"{key}" {_PROTO_NAME}; the Kubernetes schema has "{name}"', "", "warning", key=True)
            if name not in fields:
                bad = self.unknown(path, key, fields) or bad
                continue
            if item is None or (name != key and name in value):
                continue
            converted = self.field(item, fields[name], message, (*path, key))
            if converted is BAD:
                bad = True
            else:
                out[name] = converted
        shape = getattr(message, "SHAPE", None)
        for group in shape.one_of if shape else ():
            given = [name for name in group if name in out]
            if len(given) > 1:
                bad = self.one_of(path, given) or bad
                for name in given[:-1]:
                    del out[name]
        return BAD if bad else out

    def members(self, value: dict[str, Json], _fields: Iterable[str]) -> Iterable[tuple[str, Json]]:
        """What a mapping holds, in the order in which it is looked at."""
        return value.items()

    def one_of(self, path: Path, given: list[str]) -> bool:
        """Several members of a one-of group; whether that is an error. Where it is none, the last one counts."""
        self.say((*path, given[1]), f"{spell(path)}: only one of {', '.join(given)} can be given", key=True)
        return True

    def field(self, value: Json, field: inspect.Field, message: type, path: Path) -> Json:
        kind = field.type
        literal = _literal(kind)
        if literal is None:
            return self.value(value, kind, path)
        names = enum_values(message, field.name)
        if isinstance(value, str) and value in names:
            return value
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(names):
            return names[value]
        return self.bad_enum(path, value, names, literal)

    def value(self, value: Json, kind: inspect.Type, path: Path) -> Json:
        if isinstance(kind, inspect.Metadata):
            if (kind.extra or {}).get("duration"):
                return self._duration(value, path)
            kind = kind.type
        handler = _HANDLERS.get(type(kind))
        return handler(self, value, kind, path) if handler else value

    def _struct(self, value: Json, kind: Json, path: Path) -> Json:
        return self.struct(value, kind.cls, path)

    def _union(self, value: Json, kind: Json, path: Path) -> Json:
        options = [t for t in kind.types if not isinstance(t, inspect.NoneType)]
        if len(options) == 1:
            return self.value(value, options[0], path)
        for option in options:
            bare = option.type if isinstance(option, inspect.Metadata) else option
            if isinstance(value, _PYTHON.get(type(bare), ())) and not isinstance(value, bool):
                return self.value(value, option, path)
        return self.wrong(path, value, "integer or string")

    def _list(self, value: Json, kind: Json, path: Path) -> Json:
        if not isinstance(value, list):
            return self.wrong(path, value, "array")
        items = [self.item(v, kind.item_type, (*path, i)) for i, v in enumerate(value)]
        return BAD if any(i is BAD for i in items) else items

    def item(self, value: Json, kind: inspect.Type, path: Path) -> Json:
        """A member of a list."""
        return self.value(value, kind, path) if value is not None else self.say(path, f"{spell(path)}: may not be null")

    def _dict(self, value: Json, kind: Json, path: Path) -> Json:
        if not isinstance(value, dict):
            return self.wrong(path, value, "object")
        out: dict[Json, Json] = {}
        bad = False
        for key, item in value.items():
            name: Json = key
            if isinstance(kind.key_type, inspect.IntType):
                if not key.isdecimal():
                    self.bad_key(path, key)
                    bad = True
                    continue
                name = int(key)
            optional = isinstance(kind.value_type, (inspect.UnionType, inspect.AnyType))
            out[name] = None if item is None and optional else self.value(empty(kind.value_type) if item is None else item,
                                                                         kind.value_type, (*path, key))
            bad = bad or out[name] is BAD
        return BAD if bad else out

    def bad_key(self, path: Path, key: str) -> None:
        """A key of a map from numbers that is none."""
        self.say((*path, key), f'{spell(path)}: "{key}" is not a number', key=True)

    def _duration(self, value: Json, path: Path) -> Json:
        if not isinstance(value, str):
            return self.wrong(path, value, "duration", "write the unit too, such as 10s" if isinstance(value, (int, float)) else "")
        try:
            nanoseconds(value)
        except ValueError as e:
            return self.bad_duration(path, str(e))
        return value

    def _string(self, value: Json, _kind: Json, path: Path) -> Json:
        if isinstance(value, str):
            return value
        hint = "YAML reads yes, no, on and off as booleans; quote the text" if isinstance(value, bool) else "quote it"
        return self.wrong(path, value, "string", hint if isinstance(value, (bool, int, float)) else "")

    def _integer(self, value: Json, _kind: Json, path: Path) -> Json:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if isinstance(value, str) and re.fullmatch(r"-?\d{1,20}", value, re.ASCII):
            return int(value)
        return self.wrong(path, value, "integer")

    def _float(self, value: Json, _kind: Json, path: Path) -> Json:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        return self.wrong(path, value, "number")

    def _bool(self, value: Json, _kind: Json, path: Path) -> Json:
        return value if isinstance(value, bool) else self.wrong(path, value, "boolean")

    def _choice(self, value: Json, kind: Json, path: Path) -> Json:
        return value if value in kind.values else self.bad_enum(path, value, tuple(map(str, kind.values)), "")


_HANDLERS: dict[type, Callable[[Walker, Json, Json, Path], Json]] = {
    inspect.StructType: Walker._struct,
    inspect.UnionType: Walker._union,
    inspect.ListType: Walker._list,
    inspect.DictType: Walker._dict,
    inspect.StrType: Walker._string,
    inspect.IntType: Walker._integer,
    inspect.FloatType: Walker._float,
    inspect.BoolType: Walker._bool,
    inspect.LiteralType: Walker._choice,
}
_PYTHON: dict[type, tuple[type, ...]] = {
    inspect.StructType: (dict,),
    inspect.ListType: (list,),
    inspect.DictType: (dict,),
    inspect.StrType: (str,),
    inspect.IntType: (int,),
    inspect.FloatType: (int, float),
}
_EXPECTED = {
    "object": "a mapping", "array": "a list", "string": "text", "integer": "a whole number", "number": "a number",
    "boolean": "true or false", "duration": 'a duration such as "10s"', "integer or string": "a whole number or text",
}  # fmt: skip


def _literal(kind: inspect.Type) -> str | None:
    """The protobuf name when a field is an enum ("" when it has none), else None."""
    if isinstance(kind, inspect.UnionType):
        return next((name for option in kind.types if (name := _literal(option)) is not None), None)
    if isinstance(kind, inspect.Metadata):
        return str((kind.extra or {}).get("enum", "")) if isinstance(kind.type, inspect.LiteralType) else None
    return "" if isinstance(kind, inspect.LiteralType) else None


def empty(kind: inspect.Type) -> Json:
    """What Istio's decoder makes of a null in a map: the empty value of the type."""
    bare = kind.type if isinstance(kind, inspect.Metadata) else kind
    empties: dict[type, Json] = {inspect.StrType: "", inspect.IntType: 0, inspect.BoolType: False, inspect.ListType: []}
    return empties.get(type(bare), {})

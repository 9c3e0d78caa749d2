"""Plain values to a message: one fast conversion, and a walk that says everything that is wrong when it fails.

What the walk knows of a message it asks of msgspec, so a new field needs nothing here. It accepts what Istio's own decoder
accepts (proto names in snake_case beside camelCase, 64-bit integers as text, null as unset) and words each finding for the person who
wrote the file: what was found, what is allowed, and the nearest name.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any as Json

import msgspec
from msgspec import inspect

from meshsim.errors import Problem
from meshsim.resources.resource import Path, Source

_SNAKE = re.compile(r"_([a-z0-9])")


def convert(value: Json, message: type, source: Source, path: Path, problems: list[Problem], *, open_ended: bool = False) -> Json:
    """The message, or None when there were errors, which are added to `problems` with their places.

    `open_ended` (Kubernetes' own kinds, of which only a part is modelled) lets unknown fields pass.
    """
    cleaned = _Walker(source, problems, open_ended).struct(value, message, path)
    if cleaned is _BAD:
        return None
    try:
        return msgspec.convert(cleaned, message)
    except msgspec.ValidationError as e:
        problems.append(Problem("error", str(e), source.locate(path)))
        return None


def found(value: Json) -> str:
    """How a value is named to the person who wrote it."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return f"the boolean {str(value).lower()}"
    if isinstance(value, str):
        return f'the text "{value}"' if len(value) < 60 else "a text"
    if isinstance(value, (int, float)):
        return f"the number {value}"
    return "a list" if isinstance(value, list) else "a mapping"


def nearest(name: str, names: Iterable[str]) -> str:
    """`did you mean "x"?`, or what is allowed when nothing is near; empty when that would be a long list."""
    names = sorted(names)
    close = difflib.get_close_matches(name, names, 1, 0.6)
    if close:
        return f'did you mean "{close[0]}"?'
    return "allowed: " + ", ".join(names) if len(names) <= 12 else ""


def unknown_keys(raw: dict[str, Json], known: tuple[str, ...], source: Source) -> list[Problem]:
    """What stands beside a resource's own top-level fields."""
    return [Problem("error", f'unknown field "{k}"', source.locate((k,)), hint=nearest(k, known)) for k in raw if k not in known]


class _Bad:
    pass


_BAD = _Bad()
_SHAPES: dict[type, dict[str, inspect.Field]] = {}


def _fields(message: type) -> dict[str, inspect.Field]:
    if message not in _SHAPES:
        info = inspect.type_info(message)
        assert isinstance(info, inspect.StructType)
        _SHAPES[message] = {f.encode_name: f for f in info.fields}
    return _SHAPES[message]


class _Walker:
    def __init__(self, source: Source, problems: list[Problem], open_ended: bool):
        self._source, self._problems, self._open = source, problems, open_ended

    def _say(self, path: Path, message: str, hint: str = "", severity: str = "error", *, key: bool = False) -> _Bad:
        self._problems.append(Problem(severity, message, self._source.locate(path, key=key), hint=hint))
        return _BAD

    def struct(self, value: Json, message: type, path: Path) -> Json:
        if not isinstance(value, dict):
            return self._say(path, f"{_name(path)}: expected a mapping, found {found(value)}")
        fields = _fields(message)
        out: dict[str, Json] = {}
        bad = False
        for key, item in value.items():
            name = key
            if name not in fields and "_" in name:
                name = _SNAKE.sub(lambda m: m[1].upper(), name)
                if name in fields:
                    self._say((*path, key), f'"{key}" is the proto name; the Kubernetes schema has "{name}"', "", "warning", key=True)
            if name not in fields:
                if not self._open:
                    self._say((*path, key), f'unknown field "{key}"', nearest(key, fields), key=True)
                    bad = True
                continue
            if item is None or (name != key and name in value):
                continue
            converted = self.value(item, fields[name].type, (*path, key))
            if converted is _BAD:
                bad = True
            else:
                out[name] = converted
        return _BAD if bad else out

    def value(self, value: Json, kind: inspect.Type, path: Path) -> Json:
        handler = _HANDLERS.get(type(kind))
        return handler(self, value, kind, path) if handler else value

    def _struct(self, value: Json, kind: inspect.StructType, path: Path) -> Json:
        return self.struct(value, kind.cls, path)

    def _union(self, value: Json, kind: inspect.UnionType, path: Path) -> Json:
        options = [t for t in kind.types if not isinstance(t, inspect.NoneType)]
        if len(options) == 1:
            return self.value(value, options[0], path)
        for option in options:
            if isinstance(value, _PYTHON.get(type(option), ())) and not isinstance(value, bool):
                return self.value(value, option, path)
        return self._say(path, f"{_name(path)}: expected {' or '.join(_expected(o) for o in options)}, found {found(value)}")

    def _list(self, value: Json, kind: inspect.ListType, path: Path) -> Json:
        if not isinstance(value, list):
            return self._say(path, f"{_name(path)}: expected a list, found {found(value)}")
        items = [self.value(v, kind.item_type, (*path, i)) if v is not None else self._say((*path, i), f"{_name((*path, i))}: may not be null")
                 for i, v in enumerate(value)]
        return _BAD if any(i is _BAD for i in items) else items

    def _dict(self, value: Json, kind: inspect.DictType, path: Path) -> Json:
        if not isinstance(value, dict):
            return self._say(path, f"{_name(path)}: expected a mapping, found {found(value)}")
        out: dict[Json, Json] = {}
        for key, item in value.items():
            name: Json = key
            if isinstance(kind.key_type, inspect.IntType):
                if not key.isdigit():
                    self._say((*path, key), f'{_name(path)}: "{key}" is not a number')
                    out[key] = _BAD
                    continue
                name = int(key)
            optional = isinstance(kind.value_type, (inspect.UnionType, inspect.AnyType))
            out[name] = None if item is None and optional else self.value({} if item is None else item, kind.value_type, (*path, key))
        return _BAD if any(i is _BAD for i in out.values()) else out

    def _string(self, value: Json, _kind: inspect.Type, path: Path) -> Json:
        if isinstance(value, str):
            return value
        hint = "YAML reads yes, no, on and off as booleans; quote the text" if isinstance(value, bool) else "quote it"
        return self._say(path, f"{_name(path)}: expected text, found {found(value)}", hint if isinstance(value, (bool, int, float)) else "")

    def _integer(self, value: Json, _kind: inspect.Type, path: Path) -> Json:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if isinstance(value, str) and value.lstrip("-").isdigit():
            return int(value)
        return self._say(path, f"{_name(path)}: expected a whole number, found {found(value)}")

    def _float(self, value: Json, _kind: inspect.Type, path: Path) -> Json:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        return self._say(path, f"{_name(path)}: expected a number, found {found(value)}")

    def _bool(self, value: Json, _kind: inspect.Type, path: Path) -> Json:
        if isinstance(value, bool):
            return value
        return self._say(path, f"{_name(path)}: expected true or false, found {found(value)}")

    def _literal(self, value: Json, kind: inspect.LiteralType, path: Path) -> Json:
        if value in kind.values:
            return value
        return self._say(path, f"{_name(path)}: unknown value {found(value)}", nearest(str(value), map(str, kind.values)))


_HANDLERS: dict[type, Json] = {
    inspect.StructType: _Walker._struct,
    inspect.UnionType: _Walker._union,
    inspect.ListType: _Walker._list,
    inspect.DictType: _Walker._dict,
    inspect.StrType: _Walker._string,
    inspect.IntType: _Walker._integer,
    inspect.FloatType: _Walker._float,
    inspect.BoolType: _Walker._bool,
    inspect.LiteralType: _Walker._literal,
}
_PYTHON: dict[type, tuple[type, ...]] = {
    inspect.StructType: (dict,),
    inspect.ListType: (list,),
    inspect.DictType: (dict,),
    inspect.StrType: (str,),
    inspect.IntType: (int,),
    inspect.FloatType: (int, float),
}


def _expected(kind: inspect.Type) -> str:
    names = {inspect.StructType: "a mapping", inspect.StrType: "text", inspect.IntType: "a whole number", inspect.FloatType: "a number"}
    return names.get(type(kind), "something else")


def _name(path: Path) -> str:
    text = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path)
    return text.removeprefix(".") or "the document"

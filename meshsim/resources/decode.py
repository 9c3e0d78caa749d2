"""Plain values to a message: one fast conversion, and a walk that says everything that is wrong when it fails.

How this works: msgspec converts in C and refuses whatever is not plainly right. Then the walk goes over the message's type and the value
side by side: it accepts what Istio's own decoder accepts besides (proto names in snake_case, 64-bit integers as text, enums by number,
null as unset), repairs the value, and words each finding for the person who wrote the file: what was found, what is allowed, the
nearest name. What it knows of a message it asks of msgspec, so a new field needs nothing here.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from typing import Any as Json
from typing import get_args, get_type_hints

import msgspec
from msgspec import inspect

from meshsim.errors import Problem
from meshsim.resources.resource import Path, Source
from meshsim.resources.shape import Shape, nanoseconds

_SNAKE = re.compile(r"_([a-z0-9])")


def convert(value: Json, message: type, source: Source, path: Path, problems: list[Problem], *, open_ended: bool = False) -> Json:
    """The message, or None when there were errors, which are added to `problems` with their places.

    `open_ended` (Kubernetes' own kinds, of which only a part is modelled) lets unknown fields pass.
    """
    try:
        converted: Json = msgspec.convert(value, message, str_keys=True)
    except msgspec.ValidationError:
        return Walker(source, problems, open_ended=open_ended).convert(value, message, path)
    if _too_many(message)(value):
        return Walker(source, problems, open_ended=True, quiet=True).convert(value, message, path)
    return converted


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
    if not close:
        folded = {n.casefold(): n for n in names}
        close = [folded[n] for n in difflib.get_close_matches(name.casefold(), folded, 1, 0.6)]
    if close:
        return f'did you mean "{close[0]}"?'
    return "allowed: " + ", ".join(names) if 0 < len(names) <= 12 else ""


def camel(name: str) -> str:
    """`sni_hosts` -> `sniHosts`: the JSON name of a proto field."""
    return _SNAKE.sub(lambda m: m[1].upper(), name)


def unknown_keys(raw: dict[str, Json], known: tuple[str, ...], source: Source) -> list[Problem]:
    """What stands beside a resource's own top-level fields."""
    return [Problem("error", f'unknown field "{k}"', source.locate((k,)), hint=nearest(k, known)) for k in raw if k not in known]


class Bad:
    """Stands for a value that could not be converted."""


BAD = Bad()
_SHAPES: dict[type, dict[str, inspect.Field]] = {}
_ONE_OF: dict[type, Callable[[Json], bool]] = {}
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


def _too_many(message: type) -> Callable[[Json], bool]:
    """Whether a value gives two members of a one-of group somewhere: the only rule of the decoder that msgspec does not know.

    Looks only where such a group can be.
    """
    if message not in _ONE_OF:
        _ONE_OF[message] = _one_of_check(message) or (lambda value: False)
    return _ONE_OF[message]


def _one_of_check(message: type) -> Callable[[Json], bool] | None:
    groups = getattr(message, "SHAPE", Shape()).one_of
    inner = [(name, found_in) for name, field in fields_of(message).items() if (found_in := _one_of_in(field.type))]
    groups = tuple(group for group in groups if len(group) > 1)
    if not groups and not inner:
        return None

    def check(value: Json) -> bool:
        for group in groups:
            if sum(name in value for name in group) > 1:
                return True
        return any(name in value and within(value[name]) for name, within in inner)

    return check


def _one_of_in(kind: inspect.Type) -> Callable[[Json], bool] | None:
    if isinstance(kind, inspect.Metadata):
        return _one_of_in(kind.type)
    if isinstance(kind, inspect.StructType):
        return _one_of_check(kind.cls)
    if isinstance(kind, inspect.UnionType):
        some = next((check for option in kind.types if (check := _one_of_in(option))), None)
        return None if some is None else lambda value: value is not None and some(value)
    if isinstance(kind, inspect.ListType):
        each = _one_of_in(kind.item_type)
        return None if each is None else lambda value: any(map(each, value))
    if isinstance(kind, inspect.DictType):
        every = _one_of_in(kind.value_type)
        return None if every is None else lambda value: any(map(every, value.values()))
    return None


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

    def wrong(self, path: Path, value: Json, expected: str, hint: str = "") -> Bad:
        """A value of the wrong type."""
        return self.say(path, f"{spell(path)}: expected {_EXPECTED[expected]}, found {found(value)}", hint)

    def unknown(self, path: Path, key: str, known: Iterable[str]) -> bool:
        """A field nobody declares; whether that is an error."""
        if not self._open:
            self.say((*path, key), f'unknown field "{key}"', nearest(key, known), key=True)
        return not self._open

    def bad_enum(self, path: Path, value: Json, names: tuple[str, ...], _name: str) -> Bad:
        return self.say(path, f"{spell(path)}: unknown value {found(value)}", nearest(str(value), names))

    def bad_duration(self, path: Path, error: str) -> Bad:
        return self.say(path, f"{spell(path)}: {error}", 'a duration is a number with a unit, such as "10s" or "1.5s"')

    def struct(self, value: Json, message: type, path: Path) -> Json:
        if not isinstance(value, dict):
            return self.wrong(path, value, "object")
        fields = fields_of(message)
        out: dict[str, Json] = {}
        bad = False
        for key, item in value.items():
            name = key
            if name not in fields and "_" in name:
                name = camel(name)
                if name in fields and not self._quiet:
                    self.say((*path, key), f'"{key}" is the proto name; the Kubernetes schema has "{name}"', "", "warning", key=True)
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
            bad = self.one_of(path, [name for name in group if name in out]) or bad
        return BAD if bad else out

    def one_of(self, path: Path, given: list[str]) -> bool:
        """Members of a one-of group; whether they are too many."""
        if len(given) > 1:
            self.say((*path, given[1]), f"{spell(path)}: only one of {', '.join(given)} can be given", key=True)
        return len(given) > 1

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
                    self.say((*path, key), f'{spell(path)}: "{key}" is not a number', key=True)
                    bad = True
                    continue
                name = int(key)
            optional = isinstance(kind.value_type, (inspect.UnionType, inspect.AnyType))
            out[name] = None if item is None and optional else self.value(empty(kind.value_type) if item is None else item,
                                                                         kind.value_type, (*path, key))
            bad = bad or out[name] is BAD
        return BAD if bad else out

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


def spell(path: Path) -> str:
    """A field path as Kubernetes writes it: `spec.http[0].route`."""
    text = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path)
    return text.removeprefix(".") or "the document"

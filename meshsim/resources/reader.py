"""YAML text to plain values and places: what Kubernetes would read, within bounds.

How this works: PyYAML's C parser composes one document after the other into nodes that know their places. Its slow part is Python code
that asks of every scalar whether it is text, a number or a boolean; `_Loader` answers that from the first character and remembers
what it has seen. The nodes are turned into plain values and dropped at once (kept, they are most of the memory and make every later
garbage collection slow); a `Source` remembers where its document stands in the text and composes it again when somebody asks for a place.

Kubernetes reads YAML 1.1: `yes`, `off` and `n` are booleans, `010` is eight; keys are text whatever they look like.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any as Json

import yaml

from meshsim.errors import ConfigError, Location, Problem

MAX_BYTES = 64 * 1024 * 1024
MAX_DEPTH = 64
MAX_NODES = 1_000_000  # in one document, with every alias followed, so that a billion laughs ends early

Path = tuple[str | int, ...]

_TAG = "tag:yaml.org,2002:"
_STR = _TAG + "str"
_REMEMBERED = 20_000
_BASE: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_BOOLEANS = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
}
_EXPONENT = re.compile(r"[-+]?\d+[eE][-+]?\d+")
_CANDIDATES = frozenset(_BASE.yaml_implicit_resolvers) | frozenset("yYnN")  # type: ignore[attr-defined]
_SEEN: dict[str, str] = {}


class Absurd(Exception):
    """A document deeper or larger than anyone would write."""


def _tag(value: str) -> str:
    """The tag of a plain scalar, as Kubernetes' parser sees it."""
    if value[:1] not in _CANDIDATES:
        return _STR
    known = _SEEN.get(value)
    if known is None:
        known = _resolve(value)
        if len(_SEEN) < _REMEMBERED:
            _SEEN[value] = known
    return known


def _resolve(value: str) -> str:
    if value in _BOOLEANS:
        return _TAG + "bool"
    if _EXPONENT.fullmatch(value):
        return _TAG + "float"
    for tag, regexp in _BASE.yaml_implicit_resolvers.get(value[:1], ()):  # type: ignore[attr-defined]
        if regexp.match(value):
            return str(tag)
    return _STR


class _Loader(_BASE):  # type: ignore[misc]  # the base is chosen at run time
    """PyYAML's loader with a quicker answer to "what is this scalar?"."""

    def resolve(self, kind: type, value: Json, implicit: Json) -> str:
        if kind is yaml.ScalarNode:
            return _tag(value) if implicit[0] else _STR
        return _TAG + ("seq" if kind is yaml.SequenceNode else "map")

    def descend_resolver(self, current_node: Json, current_index: Json) -> None:
        """Paths play no part in what a scalar is."""

    def ascend_resolver(self) -> None:
        """See `descend_resolver`."""


def compose(text: str) -> Iterator[yaml.Node]:
    """The documents of a text, one at a time. Raises yaml.YAMLError, and Absurd for a text that nests too deep."""
    if _may_nest_deep(text):
        _check_depth(text)
    loader = _Loader(text)
    try:
        while loader.check_node():
            yield loader.get_node()
    finally:
        loader.dispose()


_SAFE_DEPTH = 300  # PyYAML's composer recurses in C and takes the process down with it; this is far from that
_STEEP = re.compile(rf"^[ \t?-]{{{_SAFE_DEPTH},}}", re.MULTILINE)
_BRACKET = re.compile(r"[][{}]")


def _may_nest_deep(text: str) -> bool:
    """Whether a text could nest deeper than is safe to compose: by indentation, or by brackets (in comments and strings too)."""
    if text.count("[") + text.count("{") >= _SAFE_DEPTH:
        depth = 0
        for bracket in _BRACKET.finditer(text):
            depth = depth + 1 if bracket[0] in "[{" else max(0, depth - 1)
            if depth >= _SAFE_DEPTH:
                return True
    return bool(_STEEP.search(text))


def _check_depth(text: str) -> None:
    """Raise Absurd when a text really nests too deep; the parser's events come without recursion."""
    depth = 0
    for event in yaml.parse(text, Loader=_BASE):
        if isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
            depth += 1
            if depth >= _SAFE_DEPTH:
                raise Absurd(f"nested deeper than {_SAFE_DEPTH} levels")
        elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            depth -= 1


class Source:
    """A document's place in a file, and of each of its fields.

    The places of list items are kept, since every route and every chain compiled from the document names one; those of other fields are
    looked up when somebody asks, in the text.
    """

    __slots__ = ("_column", "_end", "_items", "_line", "_node", "_start", "_text", "file")

    def __init__(self, file: str, node: yaml.Node | None = None, text: str | None = None):
        """`text` holds the document; without it the node itself is kept."""
        self.file, self._text = file, text
        self._node = node if text is None else None
        self._line = node.start_mark.line if node else 0
        self._column = node.start_mark.column if node else 0
        self._start, self._end = (node.start_mark.index, node.end_mark.index) if node else (0, 0)
        self._items: dict[Path, tuple[int, int]] = {}
        if node is not None:
            _note_items(node, (), self._items)

    def node(self) -> yaml.Node | None:
        """The document's nodes; their marks count from `_line`."""
        if self._text is None:
            return self._node
        try:
            return next(compose(" " * self._column + self._text[self._start : self._end]), None)
        except yaml.YAMLError:
            return None

    def raw(self) -> Json:
        """The document's plain values."""
        node = self.node()
        return None if node is None else Reader(self.file, []).plain(node)

    def locate(self, path: Path = (), *, key: bool = True) -> Location:
        """Where the field at `path` (names in YAML and list positions) begins: its key, or with `key=False` its value.

        A path that leads further than the document does ends at the last part that exists.
        """
        if path in self._items:
            line, column = self._items[path]
            return Location(self.file, line + 1, column + 1)
        start = Location(self.file, self._line + 1, self._column + 1)
        node = self.node() if path else None
        if node is None:
            return start
        mark = node.start_mark
        for step in path:
            if isinstance(node, yaml.MappingNode):
                pair = next((pair for pair in node.value if pair[0].value == step), None)
                if pair is None:
                    break
                mark, node = (pair[0] if key else pair[1]).start_mark, pair[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
                node = node.value[step]
                mark = node.start_mark
            else:
                break
        first = 0 if self._text is None else self._line
        return Location(self.file, mark.line + first + 1, mark.column + 1)


_ITEMS_DEPTH = 5  # `spec.http[0].match[0]`


def _note_items(node: yaml.Node, path: Path, found: dict[Path, tuple[int, int]]) -> None:
    """The places of list items that are mappings, as deep as a rule and its matches are."""
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            if isinstance(item, yaml.MappingNode):
                inner = (*path, number)
                found[inner] = (item.start_mark.line, item.start_mark.column)
                if len(inner) < _ITEMS_DEPTH:
                    _note_items(item, inner, found)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if not isinstance(value, yaml.ScalarNode) and isinstance(key, yaml.ScalarNode) and len(path) < _ITEMS_DEPTH:
                _note_items(value, (*path, key.value), found)


UNREADABLE = (yaml.YAMLError, Absurd, UnicodeError, RecursionError)
"""What composing a text and reading it may raise."""


def unreadable(error: Exception, file: str) -> Problem:
    """One of `UNREADABLE` as it is told to the person who wrote the file."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        place = Location(file, mark.line + 1, mark.column + 1) if mark else Location(file, 1)
        return Problem("error", f"not YAML: {error.problem or error.context}", place)
    said = (str(error) or type(error).__name__).splitlines()[0]
    return Problem("error", f"not YAML: {said}", Location(file, 1))


def values(text: str, file: str) -> list[Json]:
    """The plain values of each document that holds anything. Raises ConfigError."""
    problems: list[Problem] = []
    found = []
    try:
        found = [Reader(file, problems).plain(node) for node in compose(text) if node is not None]
    except UNREADABLE as error:
        problems.append(unreadable(error, file))
    errors = [p for p in problems if p.severity == "error"]
    if errors:
        raise ConfigError(errors)
    return [value for value in found if value is not None]


class Reader:
    """One document's nodes to plain values. Raises Absurd."""

    def __init__(self, file: str, problems: list[Problem]):
        self._file, self._problems, self._count = file, problems, 0

    def say(self, node: yaml.Node, message: str, hint: str = "", severity: str = "error") -> None:
        place = Location(self._file, node.start_mark.line + 1, node.start_mark.column + 1)
        self._problems.append(Problem(severity, message, place, hint=hint))

    def plain(self, node: yaml.Node, depth: int = 0) -> Json:
        if node.__class__ is yaml.ScalarNode:
            return scalar(node)
        self._count += len(node.value)
        if depth > MAX_DEPTH:
            raise Absurd(f"nested deeper than {MAX_DEPTH} levels")
        if self._count > MAX_NODES:
            raise Absurd(f"more than {MAX_NODES} values (aliases counted)")
        if node.__class__ is yaml.SequenceNode:
            return [self.plain(item, depth + 1) for item in node.value]
        out: dict[str, Json] = {}
        merges: list[yaml.Node] = []
        for key, value in node.value:
            name = key.value if key.tag == _STR else self._key(key, value, merges)
            if name is None:
                continue
            if name in out:
                self.say(key, f'key "{name}" is given twice')
            if value.__class__ is yaml.ScalarNode:
                out[name] = value.value if value.tag == _STR else scalar(value)
            else:
                out[name] = self.plain(value, depth + 1)
        for merge in merges:
            merged = self.plain(merge, depth + 1)
            for part in merged if isinstance(merged, list) else [merged]:
                if isinstance(part, dict):
                    out = {**part, **out}
                else:
                    self.say(merge, "<< takes a mapping, or a list of mappings")
        return out

    def _key(self, key: yaml.Node, value: yaml.Node, merges: list[yaml.Node]) -> str | None:
        """The name of a key that is no plain text; None when there is nothing to set. What a `<<` brings is put into `merges`."""
        if not isinstance(key, yaml.ScalarNode):
            self.say(key, "a key must be text")
            return None
        if key.tag == _TAG + "merge":
            merges.append(value)
            return None
        found = scalar(key)
        if isinstance(found, bool):
            name = "true" if found else "false"
            if key.value != name:
                self.say(key, f'the key {key.value} is read as "{name}"', "quote it", "warning")
            return name
        return str(found) if isinstance(found, int) else str(key.value)


def scalar(node: yaml.ScalarNode) -> Json:
    """The value of a scalar as Kubernetes reads it."""
    tag, text = node.tag, str(node.value)
    if tag == _STR or not tag.startswith(_TAG):
        return text
    kind = tag[len(_TAG) :]
    if kind == "null":
        return None
    try:
        if kind == "bool":
            return _BOOLEANS[text]
        if kind == "int":
            return _integer(text)
        if kind == "float":
            return float(text.replace("_", "").replace(".inf", "inf").replace(".nan", "nan"))
    except (KeyError, ValueError):
        return text
    return text


def _integer(text: str) -> int:
    text = text.replace("_", "")
    if len(text) > 40:
        raise ValueError(text)  # no integer of any field; reading thousands of digits takes time
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if ":" in digits:
        raise ValueError(text)  # base 60 in YAML 1.1; Kubernetes reads `1:30` as text
    if len(digits) > 1 and digits[0] == "0" and digits[1].isdigit():
        return sign * int(digits, 8)
    return sign * int(digits, 0)

"""kubectl's JSONPath templates, the part of them that pages use: `{.items..metadata.name}`, `{.spec.containers[*].name}`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any as Json

from meshsim.errors import MeshsimError

_PIECE = re.compile(r"\{([^}]*)\}")
_STEP = re.compile(r"(\.\.|\.)?(?:([A-Za-z0-9_$-]+)|\['([^']*)'\]|\[(-?\d+|\*)\])")


def render(template: str, value: Json) -> str:
    """The template with each `{path}` replaced by what it finds, several values with a space between. Raises MeshsimError."""
    template = template if "{" in template else "{" + template + "}"
    return _PIECE.sub(lambda piece: _expression(piece[1], value), template).replace("\\n", "\n").replace("\\t", "\t")


def _expression(text: str, value: Json) -> str:
    if len(text) > 1 and text[0] == text[-1] == '"':
        return text[1:-1]
    return " ".join(_text(found) for found in _follow(text.removeprefix("$").removeprefix("@"), [value], text))


def _follow(path: str, values: list[Json], whole: str) -> list[Json]:
    place = 0
    while place < len(path):
        step = _STEP.match(path, place)
        if step is None:
            raise MeshsimError(f"error: error parsing jsonpath {{{whole}}}")
        dots, name, quoted, index = step.groups()
        values = [inner for outer in values for inner in _everything(outer)] if dots == ".." else values
        key = name or quoted
        values = [found for outer in values for found in (_member(outer, key) if key else _element(outer, index))]
        place = step.end()
    return values


def _everything(value: Json) -> Iterator[Json]:
    """A value and all inside it."""
    yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _everything(inner)


def _member(value: Json, key: str) -> list[Json]:
    return [value[key]] if isinstance(value, dict) and key in value else []


def _element(value: Json, index: str) -> list[Json]:
    if index == "*":
        return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return [value[int(index)]] if isinstance(value, list) and -len(value) <= int(index) < len(value) else []


def _text(value: Json) -> str:
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))

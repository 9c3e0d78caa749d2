"""Plain values to a message: one fast conversion, and a walk that says everything that is wrong when it fails.

How this works: msgspec converts in C and refuses whatever is not plainly right. Then `walk` goes over type and value side by side.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any as Json

import msgspec

from meshsim.errors import Problem
from meshsim.resources.reader import Path, Source

_SNAKE = re.compile(r"_([a-z0-9])")


def convert(value: Json, message: type, source: Source, path: Path, problems: list[Problem], *, open_ended: bool = False) -> Json:
    """The message, or None when there were errors, which are added to `problems` with their places.

    `open_ended` (Kubernetes' own kinds, of which only a part is modelled) lets unknown fields pass.
    """
    converted = plain(value, message)
    if converted is None:
        from meshsim.resources.walk import Walker

        converted = Walker(source, problems, open_ended=open_ended).convert(value, message, path)
    return converted


def plain(value: Json, message: type) -> Json:
    """The message where every value is plainly of its type and every field known, else None."""
    try:
        return msgspec.convert(value, message, str_keys=True)
    except msgspec.ValidationError:
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
    import difflib

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


def spell(path: Path) -> str:
    """A field path as Kubernetes writes it: `spec.http[0].route`."""
    text = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path)
    return text.removeprefix(".") or "the document"

"""What Istio's CRD schemas ask of a field beyond its type: bounds, required fields, one-of groups and CEL rules.

How this works: the kinds' messages say it where the field is declared (`Annotated` types from here, a `SHAPE` on the message), so that
the strict decoder, the validation in the API server's words and the JSON Schema for editors all read the same declaration.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, NamedTuple
from typing import Any as Json

from msgspec import Meta


class Rule(NamedTuple):
    """One `x-kubernetes-validations` entry: what is said when `holds` is false.

    A rule that cannot be evaluated raises `Unevaluated` with CEL's own words.
    """

    message: str
    holds: Callable[[Json], bool]


class Unevaluated(Exception):
    """CEL's error for a value a rule cannot be applied to."""


class Shape(NamedTuple):
    """Rules for a message as a whole. `one_of`: of each group at most one field may be given.

    `proto_names`: fields that the schema lists a second time, under their proto name.
    """

    required: tuple[str, ...] = ()
    one_of: tuple[tuple[str, ...], ...] = ()
    rules: tuple[Rule, ...] = ()
    proto_names: tuple[tuple[str, str], ...] = ()


_UNITS = {"ns": 1, "us": 1_000, "\u00b5s": 1_000, "\u03bcs": 1_000, "ms": 1_000_000, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)([^\d.]*)")
_DURATION = r"^[-+]?(0|((\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h))+)$"


def nanoseconds(text: str) -> int:
    """A duration in Go's syntax ("1h30m", "1.5s", "0"). Raises ValueError with Go's words."""
    body = text[1:] if text[:1] in ("+", "-") else text
    if body == "0":
        return 0
    at, total = 0, 0
    while at < len(body):
        part = _PART.match(body, at)
        if part is None:
            raise ValueError(f'time: invalid duration "{text}"')
        if not part[2]:
            raise ValueError(f'time: missing unit in duration "{text}"')
        if part[2] not in _UNITS:
            raise ValueError(f'time: unknown unit "{part[2]}" in duration "{text}"')
        whole, _, fraction = part[1].partition(".")
        unit = _UNITS[part[2]]
        total += int(whole or 0) * unit + (int(fraction) * unit // 10 ** len(fraction) if fraction else 0)
        at = part.end()
    if not body or total >= 2**63:
        raise ValueError(f'time: invalid duration "{text}"')
    return -total if text[0] == "-" else total


def seconds(text: str) -> float:
    """Seconds in a duration of Go's syntax. Raises ValueError with Go's words."""
    return nanoseconds(text) / 1e9


def _at_least_a_millisecond(text: Json) -> bool:
    try:
        return nanoseconds(text) >= 1_000_000
    except ValueError:
        raise Unevaluated("type conversion error from 'string' to 'google.protobuf.Duration'") from None


def rules(*pairs: tuple[str, Callable[[Json], bool]], **bounds: Json) -> Meta:
    """CEL rules and OpenAPI bounds of one field, for `Annotated`."""
    return Meta(extra_json_schema=bounds, extra={"rules": tuple(Rule(*p) for p in pairs)})


def bounds(**limits: Json) -> Meta:
    """OpenAPI bounds of one field (`maxItems`, `minLength`, ...), for `Annotated`."""
    return Meta(extra_json_schema=limits)


def enum(name: str) -> Meta:
    """The protobuf name of an enum, which Istio's decoder puts into its errors; the values' order is their numbers."""
    return Meta(extra={"enum": name})


_DURATION_RULE = Rule("must be a valid duration greater than 1ms", _at_least_a_millisecond)
_PORT_RULE = ("port must be between 1-65535", lambda port: 0 < port <= 65535)

AnyDuration = Annotated[str, Meta(pattern=_DURATION, extra={"duration": True})]
"""A duration in Go's syntax that may be zero."""
Duration = Annotated[str, Meta(pattern=_DURATION, extra={"duration": True, "rules": (_DURATION_RULE,)})]
"""A duration in Go's syntax of at least a millisecond."""
UInt32 = Annotated[int, bounds(minimum=0, maximum=4294967295)]
UInt64 = Annotated[int, bounds(minimum=0)]
Port = Annotated[int, rules(_PORT_RULE, minimum=0, maximum=4294967295)]
NonEmpty = Annotated[str, bounds(minLength=1)]
Labels = Annotated[dict[str, str], bounds(maxProperties=256)]

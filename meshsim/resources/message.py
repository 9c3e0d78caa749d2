"""The base of every message a user writes: Istio's and Kubernetes' own field names, camelCase in YAML, snake_case here."""

from __future__ import annotations

import re
from typing import Any as Json

import msgspec


class Message(msgspec.Struct, rename="camel", omit_defaults=True):
    """Compared by value; where it stood in a file is kept beside the resource, not in it."""


class StringMatch(Message):
    """One of exact, prefix, regex (RE2, whole value); none of them means present."""

    exact: str | None = None
    prefix: str | None = None
    regex: str | None = None


class PortSelector(Message):
    number: int = 0


class Percent(Message):
    value: float = 0.0


class LabelSelector(Message):
    """Kubernetes' and Istio's `matchLabels`; expressions are Kubernetes' only."""

    match_labels: dict[str, str] = {}
    match_expressions: list[LabelSelectorRequirement] = []


class LabelSelectorRequirement(Message):
    key: str
    operator: str  # In | NotIn | Exists | DoesNotExist
    values: list[str] = []


class WorkloadSelector(Message):
    """The networking kinds' selector: `labels`."""

    labels: dict[str, str] = {}


class WorkloadLabelSelector(Message):
    """The security kinds' selector: `matchLabels`."""

    match_labels: dict[str, str] = {}


class PolicyTargetReference(Message):
    group: str = ""
    kind: str = ""
    name: str = ""
    namespace: str = ""


_UNITS = {"ns": 1e-9, "us": 1e-6, "\u00b5s": 1e-6, "\u03bcs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|\u00b5s|\u03bcs|ms|s|m|h)")


def seconds(text: str) -> float:
    """Seconds in a duration of Go's syntax: "1h30m", "1.5s", "0". Raises ValueError with Go's words."""
    body = text[1:] if text[:1] in "+-" else text
    if body == "0":
        return 0.0
    at, total = 0, 0.0
    while at < len(body):
        part = _PART.match(body, at)
        if part is None:
            break
        total += float(part[1]) * _UNITS[part[2]]
        at = part.end()
    if not body or at != len(body):
        raise ValueError(f'time: invalid duration "{text}"')
    return -total if text[0] == "-" else total


Struct = dict[str, Json]

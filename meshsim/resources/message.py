"""The base of every message a user writes: Istio's and Kubernetes' own field names, camelCase in YAML, snake_case here."""

from __future__ import annotations

from typing import Annotated, ClassVar
from typing import Any as Json

import msgspec

from meshsim.resources.shape import Labels, Rule, Shape, UInt32, bounds, rules, seconds


class Message(msgspec.Struct, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """Compared by value; where it stood in a file is kept beside the resource, not in it."""

    SHAPE: ClassVar[Shape] = Shape()


class OpenMessage(Message, forbid_unknown_fields=False):
    """A message of Kubernetes' own, of which only the part that matters here is declared."""


class OneOfMessage(Message):
    """A message of whose `SHAPE.one_of` groups at most one field each may be set; ValueError otherwise."""

    def __post_init__(self) -> None:
        for group in _groups(type(self)):
            if sum(getattr(self, name) is not None for name in group) > 1:
                raise ValueError(f"only one of {', '.join(group)} can be given")


_GROUPS: dict[type, tuple[tuple[str, ...], ...]] = {}


def _groups(message: type[Message]) -> tuple[tuple[str, ...], ...]:
    """The one-of groups by the fields' names in Python."""
    if message not in _GROUPS:
        names = dict(zip(message.__struct_encode_fields__, message.__struct_fields__, strict=True))
        _GROUPS[message] = tuple(tuple(names[field] for field in group) for group in message.SHAPE.one_of)
    return _GROUPS[message]


class StringMatch(OneOfMessage):
    """One of exact, prefix, regex (RE2, whole value); none of them means present."""

    SHAPE: ClassVar[Shape] = Shape(one_of=(("exact", "prefix", "regex"),))

    exact: str | None = None
    prefix: str | None = None
    regex: str | None = None


class PortSelector(Message):
    number: UInt32 = 0


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


_LabelValue = Annotated[str, rules(("wildcard is not supported in selector", lambda text: "*" not in text), maxLength=63)]
_MatchValue = Annotated[str, rules(("wildcard not allowed in label value match", lambda text: "*" not in text), maxLength=63)]


class WorkloadSelector(Message):
    """The networking kinds' selector: `labels`."""

    labels: Annotated[dict[str, _LabelValue], bounds(maxProperties=256)] = {}


class WorkloadLabelSelector(Message):
    """The security kinds' selector: `matchLabels`."""

    match_labels: Annotated[
        dict[str, _MatchValue],
        rules(
            ("wildcard not allowed in label key match", lambda labels: not any("*" in key for key in labels)),
            ("key must not be empty", lambda labels: "" not in labels),
            maxProperties=4096,
        ),
    ] = {}


ONE_TARGET = Rule(
    "only one of targetRefs or selector can be set", lambda s: sum(field in s for field in ("selector", "targetRef", "targetRefs")) <= 1
)
"""Policies select their workloads in one way."""

_GROUP = "^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
_KIND = "^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$"


class PolicyTargetReference(Message):
    SHAPE: ClassVar[Shape] = Shape(required=("kind", "name"))

    group: Annotated[str, bounds(maxLength=253, pattern=_GROUP)] = ""
    kind: Annotated[str, bounds(minLength=1, maxLength=63, pattern=_KIND)] = ""
    name: Annotated[str, bounds(minLength=1, maxLength=253)] = ""
    namespace: Annotated[str, rules(("cross namespace referencing is not currently supported", lambda text: not text))] = ""


Struct = dict[str, Json]

__all__ = [
    "ONE_TARGET", "LabelSelector", "LabelSelectorRequirement", "Labels", "Message", "OneOfMessage", "OpenMessage", "Percent",
    "PolicyTargetReference", "PortSelector", "StringMatch", "Struct", "WorkloadLabelSelector", "WorkloadSelector", "seconds",
]

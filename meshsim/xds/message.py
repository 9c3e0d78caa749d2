"""The base of every xDS message, and the small messages that many others use.

How this works: each message is a `msgspec.Struct` with Envoy's proto field names. Its JSON is proto3 JSON as Envoy's
file sources read it: snake_case names, durations as text ("1.5s"), 64-bit integers as text, enums by name. A field at its
default is left out, so a wrapper type (`bool?`, `u32?` in Envoy's reference) is `T | None`: None is unset, `False` or `0`
is written. A field of type `google.protobuf.Any` is a union of structs told apart by their `@type`.
"""

from __future__ import annotations

from typing import Any as Json

import msgspec

TYPE = "type.googleapis.com/"


class Message(msgspec.Struct, omit_defaults=True):
    """A message; compared by value."""


class TypedMessage(Message, tag_field="@type", tag=lambda name: TYPE + name):
    """A message that travels in an `Any`. Subclasses give their full proto name as `tag=TYPE + "..."`."""


class TypedStruct(TypedMessage, tag=TYPE + "udpa.type.v1.TypedStruct"):
    """A filter this program only carries along (Istio's own telemetry filters)."""

    type_url: str
    value: dict[str, Json] = {}


class Empty(Message):
    """A message without fields of interest; present means chosen."""


class SocketAddress(Message):
    address: str
    port_value: int  # always written: Envoy insists on a port, 0 included
    protocol: str = "TCP"
    ipv4_compat: bool = False


class Pipe(Message):
    path: str
    mode: int = 0


class Address(Message):
    socket_address: SocketAddress | None = None
    pipe: Pipe | None = None

    def __str__(self) -> str:
        if self.socket_address:
            host = self.socket_address.address
            return f"[{host}]:{self.socket_address.port_value}" if ":" in host else f"{host}:{self.socket_address.port_value}"
        return self.pipe.path if self.pipe else ""


class CidrRange(Message):
    address_prefix: str
    prefix_len: int | None = None


class DataSource(Message):
    filename: str | None = None
    inline_bytes: str | None = None  # base64
    inline_string: str | None = None
    environment_variable: str | None = None


class Regex(Message):
    regex: str
    google_re2: Empty | None = None


class StringMatcher(Message):
    exact: str | None = None
    prefix: str | None = None
    suffix: str | None = None
    contains: str | None = None
    safe_regex: Regex | None = None
    ignore_case: bool = False


class RegexRewrite(Message):
    pattern: Regex
    substitution: str = ""


class Percent(Message):
    value: float = 0


class FractionalPercent(Message):
    numerator: int = 0
    denominator: str = "HUNDRED"  # HUNDRED | TEN_THOUSAND | MILLION


class RuntimeFractionalPercent(Message):
    default_value: FractionalPercent = msgspec.field(default_factory=FractionalPercent)
    runtime_key: str = ""


class RuntimeDouble(Message):
    default_value: float = 0
    runtime_key: str = ""


class HeaderValue(Message):
    key: str
    value: str = ""


class HeaderValueOption(Message):
    header: HeaderValue
    append_action: str = "APPEND_IF_EXISTS_OR_ADD"
    keep_empty_value: bool = False


class Metadata(Message):
    """`istio` names the resource a thing was compiled from; `meshsim.source` its file and line."""

    filter_metadata: dict[str, dict[str, Json]] = {}


def source_of(metadata: Metadata | None) -> str:
    """`file:line` of the YAML a message came from, or an empty string."""
    if metadata is None:
        return ""
    return str(metadata.filter_metadata.get("meshsim", {}).get("source", ""))


class PathConfigSource(Message):
    path: str
    watched_directory: dict[str, Json] | None = None


class ConfigSource(Message):
    ads: Empty | None = None
    path_config_source: PathConfigSource | None = None
    api_config_source: dict[str, Json] | None = None
    initial_fetch_timeout: str | None = None
    resource_api_version: str | None = None


def seconds(duration: str | None, default: float = 0.0) -> float:
    """Seconds in a proto3 JSON duration such as "1.5s"."""
    return float(duration.removesuffix("s")) if duration else default


def duration(value: float) -> str:
    """The proto3 JSON duration of `value` seconds: "10s", "0.250s" (3, 6 or 9 decimals)."""
    nanos = round(value * 1_000_000_000)
    whole, rest = divmod(nanos, 1_000_000_000)
    if not rest:
        return f"{whole}s"
    for digits in (3, 6, 9):
        step = 10 ** (9 - digits)
        if rest % step == 0:
            return f"{whole}.{rest // step:0{digits}d}s"
    raise AssertionError(rest)

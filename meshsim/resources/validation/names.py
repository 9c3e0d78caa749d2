"""The checks that all kinds share: host names, ports, durations, addresses, labels, visibility.

Each returns what Istio says against a value, or None. (Istio: pkg/config/validation/agent, pkg/config/labels, pkg/config/visibility.)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache

from meshsim.resources.shape import nanoseconds
from meshsim.resources.validation.addresses import is_ip, prefix_error
from meshsim.resources.validation.golang import quote
from meshsim.resources.validation.report import Report

_LABEL = re.compile(r"[a-zA-Z0-9](?:[-a-zA-Z0-9]*[a-zA-Z0-9])?")
_WILDCARD_LABEL = re.compile(r"\*|(?:\*|\*-)?[a-zA-Z0-9](?:[-a-zA-Z0-9]*[a-zA-Z0-9])?")
_QUALIFIED = r"(?:[A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_KEY = re.compile(rf"({_LABEL.pattern}(?:\.{_LABEL.pattern})*/)?({_QUALIFIED})")
_VALUE = re.compile(rf"(?:{_QUALIFIED})?")
_PROTOCOLS = {
    "tcp": "TCP", "udp": "UDP", "grpc": "GRPC", "grpc-web": "GRPC-Web", "http": "HTTP", "http_proxy": "HTTP_PROXY", "http2": "HTTP2",
    "https": "HTTPS", "tls": "TLS", "mongo": "Mongo", "redis": "Redis", "mysql": "MySQL",
}  # fmt: skip
HTTP = frozenset({"HTTP", "HTTP2", "HTTP_PROXY", "GRPC", "GRPC-Web"})
TCP = frozenset({"TCP", "HTTPS", "TLS", "Mongo", "Redis", "MySQL"})
TLS = frozenset({"HTTPS", "TLS"})
UNIX = "unix://"


def is_label(text: str) -> bool:
    """DNS-1123 label, upper case allowed."""
    return len(text) <= 63 and bool(_LABEL.fullmatch(text))


def protocol(name: str) -> str:
    """The protocol a port names, or "" for one Istio does not know."""
    return _PROTOCOLS.get(name.lower(), "")


def port(number: int) -> str | None:
    return None if 1 <= number <= 65535 else f"port number {number} must be in the range 1..65535"


def port_name(name: str) -> str | None:
    return None if is_label(name) else f"invalid port name: {name}"


def known_protocol(name: str) -> str | None:
    return None if not name or protocol(name) else f"unsupported protocol: {name}"


def duration(text: str | None) -> str | None:
    """At least a millisecond, in whole milliseconds; absent is fine."""
    if text is None:
        return None
    nanos = nanoseconds(text)
    if nanos < 1_000_000:
        return "duration must be greater than 1ms"
    return "only durations to ms precision are supported" if nanos % 1_000_000 else None


def _length(name: str) -> str | None:
    if len(name.encode()) > 255:
        return f"domain name {quote(name)} too long (max 255)"
    return None if name else "empty domain name not allowed"


def _labels(domain: str) -> str | None:
    parts = domain.split(".")
    if re.fullmatch(r"[-+]?[0-9]{1,18}", parts[-1]):
        return f"domain name {quote(domain)} invalid (top level domain {quote(parts[-1])} cannot be all-numeric)"
    for i, label in enumerate(parts):
        if i == len(parts) - 1 and not label:
            return None  # `istio.io.` is unambiguous
        if not is_label(label):
            return f"domain name {quote(domain)} invalid (label {quote(label)} invalid)"
    return None


@lru_cache(16384)
def fqdn(name: str) -> str | None:
    return _length(name) or _labels(name)


@lru_cache(16384)
def wildcard_domain(name: str) -> str | None:
    """A domain name whose first label may be, or begin with, a star."""
    if said := _length(name):
        return said
    first, dot, rest = name.partition(".")
    if len(first) > 63 or not _WILDCARD_LABEL.fullmatch(first):
        return f"domain name {quote(name)} invalid (label {quote(first)} invalid)"
    return _labels(rest) if dot else None


def gateway_domain(name: str, sni: bool) -> str | None:
    """A host of a VirtualService bound to gateways only: with SNI routes also the names of AUTO_PASSTHROUGH."""
    if said := _length(name):
        return said
    if not (sni and name.startswith("outbound_")):
        return wildcard_domain(name)
    form = "outbound_.<PORT>_._.<HOSTNAME>"
    parts = name.split("_")
    if len(parts) < 4:
        return f"domain name {name} invalid, should follow '{form}' format"
    number, host = parts[1].strip("."), parts[3].strip(".")
    if not re.search("[0-9]", number):
        return f"domain name {quote(name)} invalid (label {quote(number)} invalid). should follow {form} format"
    if not re.search("[a-zA-Z]", host):
        return f"domain name {quote(name)} invalid (label {quote(host)} invalid). should follow {form} format"
    return None


def partial_wildcard(host: str) -> str | None:
    if "*" in host and len(host) != 1 and not host.startswith("*."):
        return f"partial wildcard {quote(host)} not allowed"
    return None


def ip(address: str) -> str | None:
    return None if is_ip(address) else f"{address} is not a valid IP"


def subnet(text: str) -> str | None:
    """An address or a CIDR block."""
    if text.count("/") != 1:
        return ip(text)
    return f"{text} is not a valid CIDR block" if prefix_error(text) else None


def unix_address(path: str) -> str | None:
    if not path:
        return "unix address must not be empty"
    if path.startswith("@") or (path.startswith("/") and not path.endswith("/")):
        return None
    return f"{path} is not an absolute path to a file"


def subset(name: str) -> str | None:
    if not name:
        return "subset name cannot be empty"
    return None if is_label(name) else f"subset name is invalid: {name}"


def labels(given: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What is wrong with labels, each with its key."""
    for key, value in given.items():
        match = _KEY.fullmatch(key)
        if match is None:
            yield f"invalid tag key: {quote(key)}", key
        elif len(match[1] or "") - 1 > 253:
            yield f"invalid tag key: {quote(key)} (DNS prefix is too long)", key
        elif len(match[2]) > 63:
            yield f"invalid tag key: {quote(key)} (name is too long)", key
        if not _VALUE.fullmatch(value):
            yield f"invalid tag value: {quote(value)}", key


def selector(given: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What is wrong with the labels of a workload selector, each with its key."""
    for key, value in given.items():
        if not key:
            yield f"empty key is not supported in selector: {quote(f'{key}={value}')}", key
        if "*" in key or "*" in value:
            yield f"wildcard is not supported in selector: {quote(f'{key}={value}')}", key


def namespaced_host(host: str, *, gateway: bool) -> Iterator[str]:
    """`namespace/dnsName`, as Sidecar listeners and (with the namespace left out at will) Gateway servers have it."""
    namespace, slash, name = host.partition("/")
    if not slash:
        if gateway:
            yield from _host_part(host, gateway)
        else:
            yield "host must be of form namespace/dnsName"
        return
    if not namespace or not name:
        yield "config namespace and dnsName in host entry cannot be empty"
    if gateway:
        if namespace not in ("*", ".") and not is_label(namespace):
            yield f"invalid namespace value {quote(namespace)} in gateway"
    elif namespace.removeprefix("~") not in ("", "*", ".") and not is_label(namespace.removeprefix("~")):
        yield f"invalid namespace value {quote(namespace)} in sidecar"
    yield from _host_part(name, gateway)


def _host_part(name: str, gateway: bool) -> Iterator[str]:
    if name != "*" and "." not in name:
        yield "short names (non FQDN) are not allowed"
    if said := wildcard_domain(name):
        if not gateway:
            yield said
        if not is_ip(name):
            yield said  # a Sidecar's host is reported twice, as Istio does
    if said := partial_wildcard(name):
        yield said


def export_to(report: Report, namespace: str, values: list[str], *, service_entry: bool = False, selects: bool = False) -> None:
    """`exportTo` of any kind; `selects`: a DestinationRule with a workloadSelector."""
    seen: set[str] = set()
    for i, value in enumerate(values):
        key = namespace if value == "." else value
        if key in seen:
            what = f"for entry {value}" if key == value else f": . and current namespace {namespace}"
            report.error(f"duplicate entries in exportTo{'' if key != value else ' '}{what}", "exportTo", i)
        elif service_entry and value == "~":
            seen.add(key)
        elif said := _visibility(key):
            report.error(said, "exportTo", i)
        else:
            seen.add(key)
    if selects and seen:
        if namespace not in seen:
            report.error("destination rule with workload selector cannot have exportTo beyond current namespace", "exportTo")
        elif len(seen) > 1:
            report.error("destination rule with workload selector cannot have multiple entries in exportTo", "exportTo")
    if "*" in seen and len(values) > 1:
        report.error("cannot have both public (*) and non-public exportTo values for a resource", "exportTo")
    if "~" in seen and len(values) > 1:
        report.error("cannot export service entry to no one (~) and someone", "exportTo")


def _visibility(value: str) -> str | None:
    if value in (".", "*"):
        return None
    if value == "~":
        return "exportTo ~ (none) is not allowed for Istio configuration objects"
    return None if is_label(value) else "only .,*, or a valid DNS 1123 label is allowed as exportTo entry"

"""Which of a pod's connections its sidecar gets: Istio's `traffic.sidecar.istio.io/...` annotations of a pod.

How this works: `interception` reads a pod's annotations once into plain data. The networks make rules of it, and `simulate` asks the same
data about one connection. What is passed by goes straight to where it was sent, unseen by any proxy. The order is that of
istio-iptables: an interface that is left out, then outbound ports that are, then ranges; `includeOutboundPorts` takes a port whatever
its destination, and only then `includeOutboundIPRanges` counts. Inbound, a list in `includeInboundPorts` makes `excludeInboundPorts` void.

An annotation is read where a pod has it: on the Pod, or in a Deployment's template. On the Deployment itself it does nothing.
Source: istio.io, resource annotations; Istio's tools/istio-iptables and pkg/kube/inject.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any as Json

import msgspec

from meshsim.errors import Problem
from meshsim.resources.decode import nearest
from meshsim.resources.resource import Resource

PREFIX = "traffic.sidecar.istio.io/"
EVERYTHING = "*"
POD_INTERFACE = "eth0"
"""The one interface a pod has beside `lo`."""
_MODE, _REDIRECT = "sidecar.istio.io/interceptionMode", "REDIRECT"


class Interception(msgspec.Struct, frozen=True, omit_defaults=True):
    """Ports and CIDR ranges that go to the sidecar, and those that pass it by; an `include` of None takes everything.

    at: where each annotation stands, as `FILE:LINE`, by its name without the prefix.
    """

    include_outbound_ranges: list[str] | None = None
    exclude_outbound_ranges: list[str] = []
    include_outbound_ports: list[int] = []
    exclude_outbound_ports: list[int] = []
    include_inbound_ports: list[int] | None = None
    exclude_inbound_ports: list[int] = []
    exclude_interfaces: list[str] = []
    at: dict[str, str] = {}

    def passes_out(self, host: str, port: int) -> str:
        """The annotation for which a connection to this destination is not redirected, and where it stands; empty when it is."""
        if POD_INTERFACE in self.exclude_interfaces:
            return self._named("excludeInterfaces")
        if port in self.exclude_outbound_ports:
            return self._named("excludeOutboundPorts")
        if _within(host, self.exclude_outbound_ranges):
            return self._named("excludeOutboundIPRanges")
        if port in self.include_outbound_ports:
            return ""
        if self.include_outbound_ranges is not None and not _within(host, self.include_outbound_ranges):
            return self._named("includeOutboundIPRanges")
        return ""

    def passes_in(self, port: int) -> str:
        """The same for a connection from outside the pod to one of its ports."""
        if POD_INTERFACE in self.exclude_interfaces:
            return self._named("excludeInterfaces")
        if self.include_inbound_ports is not None:
            return "" if port in self.include_inbound_ports else self._named("includeInboundPorts")
        return self._named("excludeInboundPorts") if port in self.exclude_inbound_ports else ""

    def _named(self, name: str) -> str:
        return f"annotation {PREFIX}{name} {self.at.get(name, '')}".rstrip()


def interception(pod: Resource[Json]) -> Interception:
    """What a pod's annotations say. Those that `problems` finds wrong must have been refused before."""
    written = {name.removeprefix(PREFIX): text for name, text in pod.metadata.annotations.items() if name.startswith(PREFIX)}
    known = {name: text for name, text in written.items() if name in _ANNOTATIONS}
    if not known:
        return Interception()
    path = _TEMPLATE if pod.raw.get("kind") == "Deployment" else ()
    at = {name: _place(pod, path, PREFIX + name) for name in known}
    values = {_ANNOTATIONS[name][0]: _ANNOTATIONS[name][1](text) for name, text in known.items()}
    return Interception(**values, at=at)


def problems(resource: Resource[Json]) -> Iterator[Problem]:
    """What is wrong with the annotations of a Pod or of a Deployment's template: Istio's injector would make no pod of it."""
    if resource.kind == "Pod":
        yield from _wrong(resource, resource.metadata.annotations, ())
    elif resource.kind == "Deployment":
        for name in resource.metadata.annotations:
            if name.startswith(PREFIX):
                place = resource.source.locate(("metadata", "annotations", name))
                said = f"annotation {name} does nothing on a Deployment: a sidecar's rules come from its pod"
                yield Problem("warning", said, place, resource.id, hint="put it under spec.template.metadata.annotations")
        template = resource.spec.template
        given = (template.metadata or {}).get("annotations") if template else None
        if isinstance(given, dict):
            yield from _wrong(resource, given, _TEMPLATE)


def _wrong(resource: Resource[Json], annotations: Mapping[str, Json], path: tuple[str, ...]) -> Iterator[Problem]:
    for name, text in annotations.items():
        place = resource.source.locate((*path, "metadata", "annotations", name))
        if name == _MODE and text != _REDIRECT:
            yield Problem("error", f'not simulated yet: annotation {name} "{text}"', place, resource.id, hint=f"simulated: {_REDIRECT}")
        if not name.startswith(PREFIX):
            continue
        short = name.removeprefix(PREFIX)
        if short not in _ANNOTATIONS:
            said = f"unknown annotation {name}, passed over, as Istio does"
            yield Problem("warning", said, place, resource.id, hint=nearest(short, _ANNOTATIONS))
            continue
        try:
            if not isinstance(text, str):
                raise ValueError(f"the value of an annotation is text; found {text!r}, quote it")
            _ANNOTATIONS[short][1](text)
        except ValueError as e:
            yield Problem("error", f"annotation {name}: {e}", place, resource.id, hint=_ANNOTATIONS[short][2])


def _place(pod: Resource[Json], path: tuple[str, ...], annotation: str) -> str:
    found = pod.source.locate((*path, "metadata", "annotations", annotation))
    return f"{found.file}:{found.line}"


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",")] if text.strip() else []


def _ports(text: str) -> list[int]:
    for item in _items(text):
        if not (item.isascii() and item.isdigit() and int(item) <= 65535):
            raise ValueError(f'"{item}" is not a port')
    return [int(item) for item in _items(text)]


def _ranges(text: str) -> list[str]:
    for item in _items(text):
        try:
            if "/" not in item:
                raise ValueError
            ipaddress.ip_network(item, strict=False)
        except ValueError:
            raise ValueError(f'"{item}" is not an address range') from None
    return _items(text)


def _or_all(read: Callable[[str], list[Json]]) -> Callable[[str], list[Json] | None]:
    return lambda text: None if text.strip() == EVERYTHING else read(text)


def _within(host: str, ranges: Iterable[str]) -> bool:
    address = ipaddress.ip_address(host)
    return any(address in ipaddress.ip_network(cidr, strict=False) for cidr in ranges)


_TEMPLATE = ("spec", "template")
_RANGES = "allowed: ranges such as 10.0.0.0/8, separated by commas"
_PORTS = "allowed: numbers from 0 to 65535, separated by commas"
_ANNOTATIONS: Mapping[str, tuple[str, Callable[[str], Json], str]] = {
    "includeOutboundIPRanges": ("include_outbound_ranges", _or_all(_ranges), f'{_RANGES}, or "*"'),
    "excludeOutboundIPRanges": ("exclude_outbound_ranges", _ranges, _RANGES),
    "includeOutboundPorts": ("include_outbound_ports", _ports, _PORTS),
    "excludeOutboundPorts": ("exclude_outbound_ports", _ports, _PORTS),
    "includeInboundPorts": ("include_inbound_ports", _or_all(_ports), f'{_PORTS}, or "*"'),
    "excludeInboundPorts": ("exclude_inbound_ports", _ports, _PORTS),
    "excludeInterfaces": ("exclude_interfaces", _items, "allowed: names of interfaces, separated by commas"),
}
"""Annotation -> the field it fills, its reader (ValueError for what it does not take), and what is allowed."""

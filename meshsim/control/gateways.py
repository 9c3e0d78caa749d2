"""The Gateways that select one proxy, merged into what it listens on.

How this works: servers are taken in order (Gateways oldest first) and each finds its listening port: the target port of
the first of the proxy's Services that has the server's port, else the port itself. On one port and bind address,
plaintext HTTP servers share a route configuration, TLS servers stand side by side told apart by SNI, and the rest is a
conflict: the later server is left out, without a word (`Merged.left_out` keeps the words for our own reports).

The names given here (`http.8080`, `https.443.<port name>.<gateway>.<namespace>`) are the route configurations' names.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from meshsim.control.protocols import Protocol
from meshsim.resources.gateway import GatewaySpec, Server
from meshsim.resources.resource import Resource

NO_TRANSLATION = "experimental.istio.io/disable-gateway-port-translation"
PASSTHROUGH = ("PASSTHROUGH", "AUTO_PASSTHROUGH")


class Target(NamedTuple):
    """A port of a Service that has the proxy behind it, and the proxy's own port there."""

    port: int
    target_port: int
    service_labels: dict[str, str] = {}
    hostname: str = ""
    protocol: Protocol = Protocol.AUTO


class ListenKey(NamedTuple):
    """Servers with an equal key are compiled together; several keys of one port and bind share its listener."""

    number: int
    protocol: str
    bind: str


@dataclass(eq=False, slots=True)
class PlacedServer:
    """A server of one Gateway on the port it listens on. `hosts` are `host` or `namespace/host`, never `*/` or `./`."""

    gateway: Resource[GatewaySpec]
    index: int
    server: Server
    hosts: list[str]
    listen_port: int = 0
    route_name: str = ""

    @property
    def gateway_name(self) -> str:
        return f"{self.gateway.namespace}/{self.gateway.name}"

    @property
    def number(self) -> int:
        """The port as the Gateway, VirtualServices and virtual-host names say it."""
        return self.server.port.number if self.server.port else 0

    @property
    def protocol(self) -> Protocol:
        return Protocol.parse(self.server.port.protocol if self.server.port else "")

    @property
    def passthrough(self) -> bool:
        return self.server.tls is not None and self.server.tls.mode in PASSTHROUGH

    @property
    def opaque_tls(self) -> bool:
        """A server told apart by SNI: `tls` on anything but HTTP (where it can only mean a redirect)."""
        return self.server.tls is not None and not self.protocol.is_http

    @property
    def terminates_https(self) -> bool:
        return self.server.tls is not None and self.protocol is Protocol.HTTPS and not self.passthrough

    @property
    def routes_http(self) -> bool:
        return self.protocol.is_http or (self.protocol is Protocol.HTTPS and not self.passthrough)

    @property
    def sni_hosts(self) -> list[str]:
        return sorted({bare(host) for host in self.hosts})

    @property
    def source(self) -> str:
        """`file:line` of the server in its Gateway."""
        return self.gateway.at("servers", self.index)


@dataclass(slots=True)
class Merged:
    """`by_port` in the order the ports came up; `by_route` the servers behind each route configuration."""

    by_port: dict[ListenKey, list[PlacedServer]] = field(default_factory=dict)
    by_route: dict[str, list[PlacedServer]] = field(default_factory=dict)
    left_out: list[tuple[PlacedServer, str]] = field(default_factory=list)
    relays_by_sni: bool = False  # some AUTO_PASSTHROUGH server has hosts of its own, even if its port is taken


def bare(host: str) -> str:
    """`namespace/host` without the namespace."""
    return host.partition("/")[2] if "/" in host else host


def hosts_for_namespace(hosts: Iterable[str], namespace: str) -> list[str]:
    """The server hosts a VirtualService of `namespace` may use, without their namespace part."""
    split = [("", h) if "/" not in h else (h.partition("/")[0], bare(h)) for h in hosts]
    return [host for owner, host in split if owner in ("", namespace)]


def resolve_port(number: int, targets: Iterable[Target]) -> int:
    """The port to listen on for a server's port: the first match only, so that no two ports are merged by accident."""
    for target in targets:
        if target.port == number and NO_TRANSLATION not in target.service_labels:
            return target.target_port
    return number


def merge(gateways: Iterable[Resource[GatewaySpec]], targets: list[Target]) -> Merged:
    """Merges the Gateways of one proxy. `gateways` come oldest first, then by name, then by namespace."""
    merger = _Merger()
    for gateway in gateways:
        for index, server in enumerate(gateway.spec.servers):
            if server.port is None:
                continue
            placed = PlacedServer(gateway, index, server, _hosts(server.hosts, gateway.namespace))
            placed.listen_port = resolve_port(server.port.number, targets)
            placed.route_name = _route_name(placed)
            reason = merger.add(placed)
            if reason:
                merger.merged.left_out.append((placed, reason))
    return merger.merged


def taken_hosts(hosts: list[str], bind: str, known: dict[str, str]) -> list[str]:
    """Those of `hosts` that a filter chain of the same bind address has; if none, all become known. `known`: host to bind.

    Envoy rejects a listener with two filter chains of equal criteria.
    """
    taken = [host for host in hosts if known.get(host) == bind]
    if not taken:
        known.update(dict.fromkeys(hosts, bind))
    return taken


def _hosts(hosts: list[str], namespace: str) -> list[str]:
    """`./x` is the Gateway's own namespace, `*/x` any: plain `x`; `*/*` swallows the rest."""
    if "*/*" in hosts:
        return ["*"]
    out = []
    for host in hosts:
        owner, slash, name = host.partition("/")
        out.append(host if not slash or owner not in (".", "*") else f"{namespace}/{name}" if owner == "." else name)
    return out


def _route_name(placed: PlacedServer) -> str:
    bind = f".{placed.server.bind}" if placed.server.bind else ""
    if placed.protocol.is_http:
        return f"http.{placed.listen_port}{bind}"
    if placed.routes_http and placed.server.port:
        return f"https.{placed.number}.{placed.server.port.name}.{placed.gateway.name}.{placed.gateway.namespace}{bind}"
    return ""


@dataclass(slots=True)
class _Merger:
    merged: Merged = field(default_factory=Merged)
    ports: set[int] = field(default_factory=set)
    plaintext: dict[int, ListenKey] = field(default_factory=dict)  # the newest plaintext key of a port
    tls_hosts: dict[int, dict[str, str]] = field(default_factory=dict)

    def add(self, placed: PlacedServer) -> str:
        """Takes the server in, or says why not."""
        port, server = placed.listen_port, placed.server
        assert server.port is not None
        if server.tls is not None:
            taken = taken_hosts(placed.hosts, server.bind, self.tls_hosts.setdefault(port, {}))
            if taken:
                return f"an older TLS server on port {port} already has {', '.join(taken)}"
            self.merged.relays_by_sni |= server.tls.mode == "AUTO_PASSTHROUGH"
        key = ListenKey(port, server.port.protocol, server.bind)
        current = self.plaintext.get(port)
        if port not in self.ports or (current is None and not placed.opaque_tls):
            self.ports.add(port)
            return self._start(key, placed)
        if current is not None:
            return self._beside_plaintext(key, current, placed)
        if placed.routes_http:
            if placed.route_name in self.merged.by_route:
                return f"port name {server.port.name} is used twice"
            self.merged.by_route[placed.route_name] = [placed]
        self.merged.by_port.setdefault(key, []).append(placed)
        return ""

    def _beside_plaintext(self, key: ListenKey, current: ListenKey, placed: PlacedServer) -> str:
        if current.bind != key.bind:  # another listener
            if key not in self.merged.by_port:
                return self._start(key, placed)
            self.merged.by_port[key].append(placed)
        elif placed.protocol.is_http and Protocol.parse(current.protocol).is_http:
            self.merged.by_port[current].append(placed)
        else:
            return f"an older {current.protocol} server has port {key.number}"
        if placed.route_name:
            self.merged.by_route.setdefault(placed.route_name, []).append(placed)
        return ""

    def _start(self, key: ListenKey, placed: PlacedServer) -> str:
        if not placed.opaque_tls:
            self.plaintext[key.number] = key
        if placed.routes_http:
            self.merged.by_route[placed.route_name] = [placed]
        self.merged.by_port[key] = [placed]
        return ""

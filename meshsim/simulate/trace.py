"""What a simulated call did: the client's answer, every hop with its reasons, what was on each wire, what servers received.

`Trace.to_dict()` is the stable form that `meshsim trace -o json` prints; its keys are documented on the classes here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any as Json

from meshsim.routing.entry import Entry
from meshsim.simulate.call import Call

VERSION = 1
"""Of the dictionary form; raised when a key changes its meaning or goes."""


@dataclass
class Cause:
    """A named piece of configuration and where the YAML behind it stands: `file:line`, or empty where nothing was written."""

    name: str
    source: str = ""
    resource: str = ""

    def to_dict(self) -> dict[str, str]:
        return {k: v for k, v in (("name", self.name), ("source", self.source), ("resource", self.resource)) if v}


@dataclass
class Leg:
    """One connection, as somebody on the wire sees it.

    protocol: HTTP/1.1, HTTP/2 or TCP inside. tls: empty for plaintext, else the version; sni, alpn, server and client names as far as
    the handshake showed them. `inner`: the application's own TLS inside what this leg carries, by its SNI.
    """

    source: str
    destination: str
    protocol: str = "TCP"
    tls: str = ""
    sni: str = ""
    alpn: str = ""
    server: tuple[str, ...] = ()
    client: tuple[str, ...] = ()
    host: str = ""
    inner: str | None = None

    @property
    def readable(self) -> list[str]:
        """What the network between can read."""
        if self.tls:
            return ["SNI"] if self.sni else []
        if self.inner is not None:
            return ["SNI"] if self.inner else []
        return ["Host", "path", "headers", "body"] if self.protocol != "TCP" else ["every byte"]

    def to_dict(self) -> dict[str, Json]:
        out: dict[str, Json] = {"from": self.source, "to": self.destination, "protocol": self.protocol}
        for name in ("tls", "sni", "alpn", "host"):
            if getattr(self, name):
                out[name] = getattr(self, name)
        if self.server:
            out["server"] = list(self.server)
        if self.client:
            out["client"] = list(self.client)
        if self.inner is not None:
            out["inner_sni"] = self.inner
        out["readable"] = self.readable
        return out


@dataclass
class Hop:
    """One proxy's part. `entry` is its access-log entry; the causes say which configuration took the decision."""

    proxy: str
    kind: str
    entry: Entry
    listener: Cause | None = None
    chain: Cause | None = None
    routes: Cause | None = None
    virtual_host: Cause | None = None
    route: Cause | None = None
    match: str = ""
    cluster: Cause | None = None
    leg: Leg | None = None
    reasons: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Json]:
        entry = self.entry
        out: dict[str, Json] = {"proxy": self.proxy, "kind": self.kind}
        for name in ("listener", "chain", "routes", "virtual_host", "route", "cluster"):
            cause: Cause | None = getattr(self, name)
            if cause is not None:
                out[name] = cause.to_dict()
        if self.match:
            out["match"] = self.match
        if entry.upstream:
            out["endpoint"] = entry.upstream
        if self.leg is not None:
            out["leg"] = self.leg.to_dict()
        out["log"] = {
            "code": entry.code,
            "flags": list(entry.flags),
            "details": entry.details,
            "attempts": entry.attempts,
            **({"upstream_failure": entry.upstream_failure} if entry.upstream_failure else {}),
            **({"connection_details": entry.connection_details} if entry.connection_details else {}),
        }
        if self.reasons:
            out["reasons"] = list(self.reasons)
        return out


@dataclass
class Trace:
    """client: the answer in the recorded form (status, headers, served_by, body, error, tls, received, end). arrivals: what servers
    received, in order. hops: the proxies it went through, in order of start. dropped: connections that NetworkPolicies dropped, as
    `SOURCE to DESTINATION: the policies that isolate the one or the other`. uncaptured: connections that passed a sidecar by, as
    `SOURCE to DESTINATION: annotation NAME FILE:LINE`."""

    call: Call
    address: str = ""
    client: dict[str, Json] = field(default_factory=dict)
    hops: list[Hop] = field(default_factory=list)
    arrivals: list[dict[str, Json]] = field(default_factory=list)
    first: Leg | None = None
    dropped: list[str] = field(default_factory=list)
    uncaptured: list[str] = field(default_factory=list)

    @property
    def lines(self) -> list[tuple[str, Entry]]:
        """Every access-log entry with the name of its proxy."""
        return [(h.proxy, h.entry) for h in self.hops]

    @property
    def status(self) -> int | None:
        found = self.client.get("status")
        return int(found) if found is not None else None

    @property
    def error(self) -> str:
        """How the call failed, if it did; empty for a call that was answered."""
        return str(self.client.get("error") or (self.client.get("tls") or {}).get("error") or "")

    @property
    def path(self) -> list[str]:
        """The proxies passed, then the servers reached."""
        return [*dict.fromkeys(h.proxy for h in self.hops), *(f"{a['server']}:{a['port']}" for a in self.arrivals)]

    def hop(self, proxy: str) -> Hop | None:
        """The first hop at that proxy."""
        return next((h for h in self.hops if h.proxy == proxy), None)

    def to_dict(self) -> dict[str, Json]:
        call = self.call
        return {
            "version": VERSION,
            "call": {
                "from": call.source,
                "host": call.host,
                "port": call.port,
                "tls": call.tls,
                "address": self.address,
                **({"method": call.http.method, "path": call.http.path} if call.http else {}),
            },
            "result": {k: v for k, v in self.client.items() if k != "headers"},
            "hops": [h.to_dict() for h in self.hops],
            "arrivals": self.arrivals,
            "path": self.path,
            **({"first_leg": self.first.to_dict()} if self.first else {}),
            **({"dropped": self.dropped} if self.dropped else {}),
            **({"uncaptured": self.uncaptured} if self.uncaptured else {}),
        }

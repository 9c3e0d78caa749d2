"""What a pod's DNS agent answers itself: the name table that istiod sends, with the other names of its hosts. Pure.

How this works: `name_table` is one proxy's table, as `control` compiles it. A Service of Kubernetes also goes by `NAME.NAMESPACE.svc`,
`NAME.NAMESPACE`, and in its own namespace by `NAME`. A host with the first suffix of the pod's search path appended (what a resolver asks
first, ndots being 5) is an alias: the answer names the host and has its addresses, so that no search goes on. A name that is in no table
is for the pod's own nameserver. Source: Istio, pkg/dns/client.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any as Json
from typing import NamedTuple

import msgspec


class Found(NamedTuple):
    """alias_of: the host that the name stands for, empty where it is the host. addresses: empty for a host without one of that family."""

    alias_of: str
    addresses: list[str]


class NameTable(msgspec.Struct, omit_defaults=True):
    """hosts: absolute names (lower case, no final dot; `*.` a wildcard) to addresses. search: the suffix that is taken off,
    with its dot."""

    hosts: dict[str, list[str]] = {}
    search: str = ""

    def find(self, name: str) -> Found | None:
        """What is answered to an absolute name; None for one that is not in the table."""
        name = name.lower().rstrip(".")
        for host, alias_of in self._readings(name):
            if host in self.hosts:
                return Found(alias_of, self.hosts[host])
        above = name
        while "." in above:
            above = above.partition(".")[2]
            for host, alias_of in self._readings(above):
                if f"*.{host}" in self.hosts:
                    return Found(name.removesuffix(self.search) if alias_of else "", self.hosts[f"*.{host}"])
        return None

    def _readings(self, name: str) -> Iterable[tuple[str, str]]:
        yield name, ""
        if self.search and name.endswith(self.search):
            host = name.removesuffix(self.search)
            yield host, host


def name_table(sent: Iterable[Mapping[str, Json]], namespace: str, search: str) -> NameTable:
    """The table of a proxy in that namespace, from what it is sent. search: the first suffix of its pod's search path, with its dot."""
    hosts: dict[str, list[str]] = {}
    for table in sent:
        for host, info in table.get("table", {}).items():
            addresses = list(info.get("ips", ()))
            hosts[host.lower()] = addresses
            if info.get("shortname"):
                full = f"{info['shortname']}.{info['namespace']}"
                hosts |= {f"{full}.svc": addresses, full: addresses}
                if info["namespace"] == namespace:
                    hosts[info["shortname"]] = addresses
    return NameTable(hosts, search)

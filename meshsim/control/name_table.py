"""The DNS proxy's table: what a proxy that captures DNS answers itself, instead of asking the pod's resolvers."""

from __future__ import annotations

from typing import Any as Json

from meshsim.control.services import UNSPECIFIED
from meshsim.control.view import View


def name_table(view: View) -> list[dict[str, Json]]:
    """Every visible host that has an address of its own; hosts without one are left to the resolvers. Empty without DNS capture."""
    if not view.proxy.dns_capture:
        return []
    table: dict[str, dict[str, Json]] = {}
    for listener in view.egress_listeners:
        for service in listener.services:
            address = view.address(service)
            addresses = [address] if address != UNSPECIFIED and "/" not in address else []
            if service.is_kubernetes and service.headless:
                addresses = list(dict.fromkeys(e.address for e in view.index.registry.endpoints.get(service.key, ())))
            if not addresses:
                continue
            entry = table.setdefault(service.hostname, {"ips": [], "registry": service.registry})
            entry["ips"] += [a for a in addresses if a not in entry["ips"]]
            if service.is_kubernetes:
                entry.update(namespace=service.namespace, shortname=service.name)
    return [{"table": table}]

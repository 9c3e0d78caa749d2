"""In which order the proxies of a mesh are told of a change, so that nobody is sent to where nothing is yet, or nothing is any more.

How this works: sidecars send to gateways. A gateway that only gains (listeners, names it answers for, clusters) is told before the
sidecars, and one that loses something after them. One that does both is told after them; Istio promises no order at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from meshsim.topology import Proxy
from meshsim.xds import ProxyConfig

Change = tuple[ProxyConfig | None, ProxyConfig]


def in_order(proxies: Mapping[str, Proxy], changes: Mapping[str, Change]) -> list[str]:
    """The keys of `changes` (before, after) in the order to tell them. Pure."""
    return sorted(changes, key=lambda key: _turn(proxies[key], *changes[key]))


def _turn(proxy: Proxy, before: ProxyConfig | None, after: ProxyConfig) -> int:
    if proxy.is_sidecar:
        return 1
    loses = before is not None and set(_offers(before)) - set(_offers(after))
    return 2 if loses else 0


def _offers(config: ProxyConfig) -> Iterator[tuple[str, ...]]:
    """What others can rely on, by name."""
    yield from _names("cluster", (c.name for c in config.clusters))
    for listener in config.listeners:
        for chain in listener.filter_chains:
            match = chain.filter_chain_match
            yield from _names(listener.name, (match.server_names if match and match.server_names else [""]))
    for table in config.routes:
        for host in (h for h in table.virtual_hosts if h.routes):  # one without routes only says no
            yield from _names(table.name, host.domains)


def _names(of: str, names: Iterable[str]) -> Iterator[tuple[str, ...]]:
    return ((of, name) for name in names)

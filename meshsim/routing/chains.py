"""Which filter chain a connection gets.

How this works: Envoy's criteria have a fixed order, and at each the most specific value that fits is chosen among the chains that
are left; there is no way back. So the chains become a tree with one level per criterion, and a match walks down it once. Entering a
bucket that then has no place for the connection means no chain at all, even beside a catch-all chain.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from meshsim.routing.facts import ANYWHERE, Downstream, Network, most_specific, network
from meshsim.xds.listener import FilterChain, FilterChainMatch, Listener
from meshsim.xds.message import CidrRange

_Node = dict[Hashable, Any]


class Rejected(Exception):
    """Envoy refuses this listener; the text is Envoy's."""


class Chains:
    """The filter chains of one listener, ready to match. Raises Rejected for a listener that Envoy would refuse."""

    def __init__(self, listener: Listener):
        self.default = listener.default_filter_chain
        self._root: _Node = {}
        if not listener.filter_chains and self.default is None:
            raise Rejected(f"error adding listener '{listener.address}': no filter chains specified")
        for chain in listener.filter_chains:
            self._add(chain, listener)

    def match(self, facts: Downstream, why: list[str] | None = None) -> FilterChain | None:
        """The chain for a connection, or None. `why` is told which criterion passed which chains over."""
        node: Any = self._root
        for name, _, choose, any_ in _LEVELS:
            if len(node) == 1 and any_ in node:  # most listeners tell connections apart by one or two things
                node = node[any_]
                continue
            key = choose(node, facts)
            if key is None:
                if why is not None:
                    why.append(f"no filter chain for this {name}" if node else "no filter chains")
                    if self.default is not None:
                        why.append(f"default filter chain {self.default.name}")
                return self.default
            node = node[key]
        chain: FilterChain = node
        return chain

    def _add(self, chain: FilterChain, listener: Listener) -> None:
        match = chain.filter_chain_match or FilterChainMatch()
        nodes: list[_Node] = [self._root]
        for _, keys, _, _ in _LEVELS[:-1]:
            nodes = [node.setdefault(key, {}) for node in nodes for key in keys(match)]
        for node in nodes:
            for key in _LEVELS[-1][1](match):
                if key in node:
                    raise Rejected(
                        f"error adding listener '{listener.address}': filter chain '{chain.name}' has the same matching rules defined as "
                        f"'{node[key].name}'"
                    )
                node[key] = chain


def _ranges(ranges: list[CidrRange]) -> list[Hashable]:
    return [network(r.address_prefix, r.prefix_len) for r in ranges] or [ANYWHERE]


def _server_names(match: FilterChainMatch) -> list[Hashable]:
    return [name.lower().removeprefix("*") for name in match.server_names] or [""]


def _either(value: Hashable, unset: Hashable) -> Callable[[_Node], Hashable | None]:
    return lambda node: value if value in node else unset if unset in node else None


def _port(node: _Node, facts: Downstream) -> Hashable | None:
    return _either(facts.destination.port, 0)(node)


def _destination(node: _Node, facts: Downstream) -> Hashable | None:
    return most_specific(_networks(node), facts.destination.host)


def _sni(node: _Node, facts: Downstream) -> Hashable | None:
    name = facts.sni.lower()
    if name:
        if name in node:
            return name
        dot = name.find(".")
        while dot != -1:
            if name[dot:] in node:
                return name[dot:]
            dot = name.find(".", dot + 1)
    return "" if "" in node else None


def _transport(node: _Node, facts: Downstream) -> Hashable | None:
    return _either(facts.transport, "")(node)


def _protocols(node: _Node, facts: Downstream) -> Hashable | None:
    return next((p for p in facts.alpn if p in node), "" if "" in node else None)


def _source(node: _Node, facts: Downstream) -> Hashable | None:
    return most_specific(_networks(node), facts.source.host)


def _source_type(node: _Node, facts: Downstream) -> Hashable | None:
    local = facts.source.host == facts.destination.host or facts.source.host.startswith("127.") or facts.source.host == "::1"
    return _either("SAME_IP_OR_LOOPBACK" if local else "EXTERNAL", "ANY")(node)


def _source_port(node: _Node, facts: Downstream) -> Hashable | None:
    return _either(facts.source.port, 0)(node)


def _networks(node: _Node) -> list[Network]:
    return [key for key in node if isinstance(key, Network)]


_Keys = Callable[[FilterChainMatch], list[Hashable]]
_Choose = Callable[[_Node, Downstream], Hashable | None]

# What is told apart, the keys of a chain, how to choose among the keys of a node, and the key that every connection fits.
_LEVELS: tuple[tuple[str, _Keys, _Choose, Hashable], ...] = (
    ("destination port", lambda m: [m.destination_port or 0], _port, 0),
    ("destination address", lambda m: _ranges(m.prefix_ranges), _destination, ANYWHERE),
    ("server name", _server_names, _sni, ""),
    ("transport protocol", lambda m: [m.transport_protocol], _transport, ""),
    ("application protocol", lambda m: list(m.application_protocols) or [""], _protocols, ""),
    ("direct source address", lambda m: _ranges(m.direct_source_prefix_ranges), _source, ANYWHERE),
    ("source type", lambda m: [m.source_type], _source_type, "ANY"),
    ("source address", lambda m: _ranges(m.source_prefix_ranges), _source, ANYWHERE),
    ("source port", lambda m: list(m.source_ports) or [0], _source_port, 0),
)

"""The HTTP rules of a VirtualService, with those of its delegates merged in.

How this works: a rule that delegates is replaced by the delegate's rules, each narrowed to what both ask for. A delegate's
match must be a refinement of one of the root's; one that contradicts all of them takes its rule out. What a delegate's
rule does not say, the root's rule says for it. A delegate that does not exist, or is not exported to the root's namespace,
takes only that rule out. One level deep, as in Istio.

Each rule remembers where it was written, so that routes can name their file and line, and short names mean the namespace
they were written in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from meshsim import hosts
from meshsim.control.mesh_index import MESH_GATEWAY, MeshIndex, VirtualService, gateway_name
from meshsim.resources.message import StringMatch
from meshsim.resources.virtual_service import Destination, HttpMatchRequest, HttpRoute

INHERITED = (
    "rewrite", "direct_response", "timeout", "retries", "fault", "mirror", "mirror_percent", "mirror_percentage", "cors_policy", "headers",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class HttpRule:
    """A rule and where it stands: `origin.spec.http[index]`."""

    route: HttpRoute
    origin: VirtualService
    index: int

    @property
    def source(self) -> str:
        return self.origin.at("http", self.index)


def http_rules(root: VirtualService, index: MeshIndex) -> list[HttpRule]:
    """The rules of `root` in order."""
    out: list[HttpRule] = []
    domain = index.domain
    for number, route in enumerate(root.spec.http):
        if route.delegate is None:
            out.append(HttpRule(route, root, number))
            continue
        delegate = index.delegates.get((route.delegate.namespace or root.namespace, route.delegate.name))
        if delegate is None or not index.exported(delegate, root.namespace):
            continue
        whole = _with_full_names(route, root.namespace, domain)
        for position, part in enumerate(delegate.spec.http):
            merged = _merge(whole, _with_full_names(part, delegate.namespace, domain))
            if merged is not None:
                out.append(HttpRule(merged, delegate, position))
    return out


def _with_full_names(route: HttpRoute, namespace: str, domain: str) -> HttpRoute:
    """A copy whose destinations and gateways mean the same in any namespace."""

    def full(destination: Destination | None) -> Destination | None:
        if destination is None:
            return None
        return msgspec.structs.replace(destination, host=hosts.expand_short(destination.host, namespace, domain))

    def gateways(match: HttpMatchRequest) -> HttpMatchRequest:
        names = [g if g == MESH_GATEWAY else gateway_name(g, namespace, domain) for g in match.gateways]
        return msgspec.structs.replace(match, gateways=names)

    return msgspec.structs.replace(
        route,
        match=[gateways(m) for m in route.match],
        route=[msgspec.structs.replace(r, destination=full(r.destination)) for r in route.route],
        mirror=full(route.mirror),
        mirrors=[msgspec.structs.replace(m, destination=full(m.destination)) for m in route.mirrors],
    )


def _merge(root: HttpRoute, delegate: HttpRoute) -> HttpRoute | None:
    matches = _merged_matches(root.match, delegate.match)
    if matches is None:
        return None
    inherited = {name: getattr(root, name) for name in INHERITED if getattr(delegate, name) is None}
    return msgspec.structs.replace(
        delegate,
        match=matches,
        name=_joined(root.name, delegate.name),
        mirrors=delegate.mirrors or root.mirrors,
        **inherited,
    )


def _joined(root: str, delegate: str) -> str:
    return f"{root}-{delegate}" if root and delegate else root or delegate


def _merged_matches(root: list[HttpMatchRequest], delegate: list[HttpMatchRequest]) -> list[HttpMatchRequest] | None:
    """Every pair that agrees; None if some match of the delegate agrees with none of the root's."""
    if not root or not delegate:
        return root or delegate
    out = []
    for narrow in delegate:
        fitting = [wide for wide in root if not _contradicts(wide, narrow)]
        if not fitting:
            return None
        out += [_merged_match(wide, narrow) for wide in fitting]
    return out


def _merged_match(root: HttpMatchRequest, delegate: HttpMatchRequest) -> HttpMatchRequest:
    return msgspec.structs.replace(
        delegate,
        name=_joined(root.name, delegate.name),
        uri=delegate.uri or root.uri,
        scheme=delegate.scheme or root.scheme,
        method=delegate.method or root.method,
        authority=delegate.authority or root.authority,
        headers={**root.headers, **delegate.headers},
        without_headers={**root.without_headers, **delegate.without_headers},
        query_params={**root.query_params, **delegate.query_params},
        port=delegate.port or root.port,
        source_labels={**root.source_labels, **delegate.source_labels},
        source_namespace=delegate.source_namespace or root.source_namespace,
        gateways=delegate.gateways or root.gateways,
        stat_prefix=delegate.stat_prefix or root.stat_prefix,
    )


def _contradicts(root: HttpMatchRequest, leaf: HttpMatchRequest) -> bool:
    """Whether the delegate's match is no refinement of the root's."""
    texts = [(root.uri, leaf.uri), (root.scheme, leaf.scheme), (root.method, leaf.method), (root.authority, leaf.authority)]
    maps: list[tuple[Mapping[str, StringMatch | None], Mapping[str, StringMatch | None]]] = [
        (root.headers, leaf.headers),
        (root.without_headers, leaf.without_headers),
        (root.query_params, leaf.query_params),
    ]
    texts += [(wide.get(name), narrow) for wide, leaves in maps for name, narrow in leaves.items()]
    return (
        any(_texts_contradict(wide, narrow) for wide, narrow in texts)
        or root.ignore_uri_case != leaf.ignore_uri_case
        or bool(root.port and leaf.port and root.port != leaf.port)
        or bool(root.source_namespace and leaf.source_namespace != root.source_namespace)
        or any(root.source_labels.get(name, value) != value for name, value in leaf.source_labels.items())
        or bool(root.gateways and leaf.gateways and not _gateways_within(root.gateways, leaf.gateways))
    )


def _gateways_within(root: list[str], leaf: list[str]) -> bool:
    return len(leaf) <= len(root) and set(leaf) <= set(root)


def _texts_contradict(root: StringMatch | None, leaf: StringMatch | None) -> bool:
    """A regex beside anything cannot be compared; an exact or prefix leaf must lie within the root's."""
    if root is None or leaf is None:
        return False
    if root.regex or leaf.regex:
        return True
    if root.exact:
        return leaf.exact != root.exact
    if root.prefix and (leaf.prefix or leaf.exact):
        return not (leaf.prefix or leaf.exact or "").startswith(root.prefix)
    return True

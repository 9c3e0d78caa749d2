"""What a person would have expected to apply to a call and did not, with the line that kept it out. Pure.

How this works: for each proxy that a call passed, every VirtualService for the call's host that did not decide there is asked the questions
istiod asks, in its order: is it bound to this proxy's side, is it exported to the proxy's namespace, has it a rule for the port the
connection came to, is it the first one of its host. A cluster that does not exist is asked for the DestinationRules that define its subset.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from meshsim import hosts
from meshsim.control.mesh_index import MESH_GATEWAY, MeshIndex, VirtualService, gateway_name
from meshsim.errors import Location
from meshsim.resources.virtual_service import HttpMatchRequest, L4MatchAttributes, TlsMatchAttributes
from meshsim.simulate import Hop, Trace
from meshsim.topology import Proxy

NO_CLUSTER = "NC"
Match = HttpMatchRequest | TlsMatchAttributes | L4MatchAttributes


class NearMiss(NamedTuple):
    """Why something was passed over, and where in the YAML; `remedy` says what would change it."""

    proxy: str
    text: str
    location: Location
    remedy: str = ""


def near_misses(index: MeshIndex, trace: Trace, proxies: dict[str, Proxy]) -> list[NearMiss]:
    """For every proxy the call passed, in order. proxies: by the names that the trace's hops have."""
    found: list[NearMiss] = []
    for hop in trace.hops:
        found += _virtual_services(index, trace, hop, proxies[hop.proxy])
        if NO_CLUSTER in hop.entry.flags:
            found += _subsets(index, hop, proxies[hop.proxy])
    return list(dict.fromkeys(found))


def _virtual_services(index: MeshIndex, trace: Trace, hop: Hop, proxy: Proxy) -> Iterator[NearMiss]:
    used = {cause.resource for cause in (hop.route, hop.chain) if cause is not None}
    for service in index.of("VirtualService"):
        matching = [h for h in index.hosts_of(service) if hosts.matches(trace.call.host.lower(), h)]
        if not matching or service.id in used:
            continue
        side, selected = _side(index, proxy)
        bound = [name for name in index.gateways_of(service) if name in selected]
        if not bound:
            if proxy.is_sidecar:
                remedy = f"gateways: [{', '.join([*service.spec.gateways, MESH_GATEWAY])}]"
                yield NearMiss(hop.proxy, f"{service.id} not considered: not bound to mesh", service.locate("gateways"), remedy)
            continue
        if not index.exported(service, proxy.namespace):
            yield NearMiss(hop.proxy, f"{service.id} not considered: not exported to {proxy.namespace}", service.locate("exportTo"))
            continue
        yield from _rules(index, service, hop, proxy, side)


def _side(index: MeshIndex, proxy: Proxy) -> tuple[str, set[str]]:
    """What a match's `gateways` must name for this proxy to take the rule."""
    if proxy.is_sidecar:
        return MESH_GATEWAY, {MESH_GATEWAY}
    gateways = {f"{g.namespace}/{g.name}" for g in index.of("Gateway") if (g.spec.selector or {}).items() <= proxy.labels.items()}
    return "", gateways


def _rules(index: MeshIndex, service: VirtualService, hop: Hop, proxy: Proxy, side: str) -> Iterator[NearMiss]:
    """Each rule that was for another port, or another side of the way."""
    port = hop.entry.downstream.destination.port
    _, ours = _side(index, proxy)
    for kind in ("http", "tls", "tcp"):
        for number, rule in enumerate(getattr(service.spec, kind)):
            for at, match in enumerate(rule.match):
                where = service.locate(kind, number, "match", at)
                named = {gateway_name(g, service.namespace, index.domain) for g in match.gateways}
                if named and not named & ours:
                    continue
                if match.port and match.port != port and proxy.is_sidecar:
                    text = f"{service.id} passed over: match port {match.port}, the connection came to port {port}"
                    yield NearMiss(hop.proxy, text, service.locate(kind, number, "match", at, "port"))
                elif kind != "http" and hop.routes is not None:
                    yield NearMiss(hop.proxy, f"{service.id} passed over: a {kind} rule, and this is plaintext HTTP", where)
                elif kind == "http" and hop.routes is None and not match.port:
                    yield NearMiss(hop.proxy, f"{service.id} passed over: an http rule, and these bytes are no plaintext HTTP", where)


def _subsets(index: MeshIndex, hop: Hop, proxy: Proxy) -> Iterator[NearMiss]:
    name = hop.cluster.name if hop.cluster else hop.entry.cluster
    _, _, subset, host = ([*name.split("|"), "", "", ""])[:4]
    if not subset:
        return
    defining = False
    for rule in index.of("DestinationRule"):
        names = [s.name for s in rule.spec.subsets]
        if hosts.expand_short(rule.spec.host, rule.namespace, index.domain) == host and subset in names:
            defining = True
            owner = next(iter(index.services_by_host.get(host, {})), "the host's own namespace")
            text = (
                f'subset "{subset}" is defined in {rule.id}, but a client in {proxy.namespace} finds a DestinationRule for a host '
                f"of {owner} only in {proxy.namespace}, in {owner}, or in the root namespace {index.root}"
            )
            remedy = f"put the DestinationRule into {owner}, or one into {proxy.namespace}"
            yield NearMiss(hop.proxy, text, rule.locate("subsets", names.index(subset)), remedy)
    if not defining:
        text = f'no DestinationRule defines subset "{subset}" of {host}'
        source = hop.route.source if hop.route else ""
        file, _, line = source.rpartition(":")
        yield NearMiss(hop.proxy, text, Location(file, int(line or 0)), f"a DestinationRule with host: {host} and this subset")

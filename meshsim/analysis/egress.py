"""What istioctl does not see: calls that a configuration promises and that then fail, or go another way than meant.

How this works: every probe is walked through the compiled mesh. A call that fails is laid at the door of the configuration
that made it fail, read off the hop where it ended: its flags, its cluster, the filter chains it had to choose from. So an
error always comes with a witness, and what works is never complained about. Failing on purpose (faults, direct
responses, authorization) is no mistake.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any as Json

from meshsim import hosts
from meshsim.analysis.callers import callers
from meshsim.analysis.findings import Finding, finding, full_name
from meshsim.analysis.probes import (
    Probe,
    answered,
    is_gateway,
    is_unknown,
    leads_to_gateway,
    mesh_bound,
    outcome,
    probes,
    refused_plaintext,
)
from meshsim.analysis.unused import unused
from meshsim.control import gateways
from meshsim.control.clusters import BLACK_HOLE_CLUSTER, PASSTHROUGH_CLUSTER
from meshsim.control.gateways import Merged
from meshsim.control.mesh_index import MESH_GATEWAY, MeshIndex, VirtualService, gateway_name
from meshsim.control.view import View
from meshsim.mesh import Mesh
from meshsim.resources.external_server import places
from meshsim.resources.resource import Resource
from meshsim.routing import tls_words
from meshsim.simulate import Trace
from meshsim.simulate.trace import Hop
from meshsim.topology import Proxy

VERIFY_FAILED, WRONG_VERSION, NO_CHAIN = "CERTIFICATE_VERIFY_FAILED", "WRONG_VERSION_NUMBER", "filter_chain_not_found"


@dataclass(frozen=True)
class _Failure:
    """A probe, its trace, and the hop where it went wrong."""

    probe: Probe
    trace: Trace
    hop: Hop
    mesh: Mesh
    view: View

    @property
    def at_gateway(self) -> bool:
        return self.hop.kind != "sidecar"

    @property
    def cluster(self) -> str:
        return self.hop.cluster.name if self.hop.cluster else ""

    def gateway(self) -> Proxy | None:
        """The gateway the hop's cluster leads to, by its endpoint."""
        host = self.hop.entry.upstream.rpartition(":")[0]
        return next((p for p in self.mesh.proxies if not p.is_sidecar and p.ip == host), None)

    def finding(self, code: str, *values: object) -> Finding:
        witness = f"{self.probe.text}: {outcome(self.trace, self.hop)}"
        return finding(code, self.probe.promised_by, *values, at=self.probe.at, witness=witness)


def egress(mesh: Mesh, index: MeshIndex) -> list[Finding]:
    """One finding for each promise that is broken and the reason for it, however many workloads see it."""
    views = {_name(p): View(index, p) for p in mesh.proxies}
    found: dict[tuple[str, str, str], Finding] = {}
    for probe in probes(mesh, views):
        trace = mesh.simulation().call(probe.call)
        for one in _judge(probe, trace, mesh, views):
            found.setdefault((one.code, one.resource, str(one.location)), one)
    for one in (*unused(mesh, views), *callers(mesh, views)):
        found.setdefault((one.code, one.resource, str(one.location)), one)
    return list(found.values())


def _name(proxy: Proxy) -> str:
    return f"{proxy.name}.{proxy.namespace}"


def _judge(probe: Probe, trace: Trace, mesh: Mesh, views: dict[str, View]) -> Iterator[Finding]:
    view = views[_name(probe.client)]
    if answered(trace):
        if not any(h.kind != "sidecar" for h in trace.hops):
            yield from _bypasses(probe, trace, mesh, view)
        yield from _redirects(probe, trace, mesh, view)
        return
    if trace.dropped and probe.gateway:
        yield from _dropped(probe, trace, mesh)
        return
    hop = trace.hops[-1] if trace.hops else None
    failing = next((h for h in trace.hops if h.entry.flags and h.entry.flags != ["DC"]), hop)
    if failing is None:
        return
    failure = _Failure(probe, trace, failing, mesh, view)
    for explain in EXPLANATIONS:
        reason = explain(failure)
        if reason is not None:
            yield reason
            return


# --- explanations: each gives a finding, or None if it is not the reason ---------------------------------------------------


def _loop(failure: _Failure) -> Finding | None:
    passed = [h.proxy for h in failure.trace.hops if h.kind != "sidecar"]
    if len(passed) > 3 and len(set(passed)) == 1 and failure.trace.hops[-1].entry.code != 400:
        return failure.finding("MSIM0109", failure.probe.service.hostname, passed[0])
    return None


def _no_cluster(failure: _Failure) -> Finding | None:
    if "NC" not in failure.hop.entry.flags:
        return None
    where = failure.hop.proxy
    return failure.finding("MSIM0101", _missing_cluster(failure), where)


def _missing_cluster(failure: _Failure) -> str:
    """Why the cluster that a route names does not exist at its proxy."""
    view = failure.view
    if failure.at_gateway:
        view = View(view.index, next(p for p in failure.mesh.proxies if _name(p) == failure.hop.proxy))
    for host, number, subset in _wanted(failure):
        service = view.service(host)
        if service is None:
            return f"{host} is no service that namespace {view.namespace} can see"
        if service.port(number) is None:
            return f"{host} has no port {number}"
        known = view.destination_rule(service)
        if subset and (known is None or known.subset(subset) is None):
            owners = [full_name(r) for r in view.index.of("DestinationRule") if _defines(r, host, subset)]
            hint = f"; {', '.join(owners)} defines it, where {view.namespace} does not look" if owners else ""
            again = "; the rule for the mesh applies at the gateway too" if failure.at_gateway and is_gateway(view, host) else ""
            return f"no DestinationRule that namespace {view.namespace} sees defines subset {subset} of {host}{hint}{again}"
    return "its destination does not exist there"


def _wanted(failure: _Failure) -> Iterator[tuple[str, int, str]]:
    """(host, port, subset) of the cluster that is missing; where the hop names none, of the rule's destinations."""
    if failure.cluster.count("|") == 3:
        _, port, subset, host = failure.cluster.split("|")
        yield host, int(port), subset
        return
    probe = failure.probe
    rules = getattr(probe.promised_by.spec, str(probe.at[0])) if probe.at and probe.at[0] in ("http", "tls") else ()
    for destination in (leg.destination for leg in rules[probe.at[1]].route if leg.destination) if rules else ():
        number = destination.port.number if destination.port else probe.port.number
        yield hosts.expand_short(destination.host, probe.promised_by.namespace), number, destination.subset


def _defines(rule: Resource[Json], host: str, subset: str) -> bool:
    return hosts.expand_short(rule.spec.host, rule.namespace) == host and any(s.name == subset for s in rule.spec.subsets)


def _no_route(failure: _Failure) -> Finding | None:
    if "NR" not in failure.hop.entry.flags or failure.hop.entry.code != 404:
        return None
    if not failure.at_gateway:
        return None
    host = failure.probe.service.hostname
    return failure.finding("MSIM0102", host, failure.hop.proxy, _why_no_route(failure, host))


def _why_no_route(failure: _Failure, host: str) -> str:
    """What keeps a Gateway's VirtualServices from treating the host."""
    proxy = next(p for p in failure.mesh.proxies if _name(p) == failure.hop.proxy)
    view = View(failure.view.index, proxy)
    merged = gateways.merge(view.gateways, view.targets)
    port = failure.hop.entry.downstream.destination.port
    serving = [s for servers in merged.by_route.values() for s in servers if s.listen_port == port]
    for server in serving:
        for service in view.gateway_virtual_services(server.gateway_name):
            if host not in view.index.hosts_of(service):
                continue
            matches = [m for rule in service.spec.http for m in rule.match]
            numbers = {m.port for m in matches if m.port and _at(m.gateways, service, server.gateway_name, view)}
            if numbers and server.number not in numbers:
                asked = ", ".join(map(str, sorted(numbers)))
                return f"the rules of {full_name(service)} ask for port {asked}, the server's is {server.number}"
            if not any(hosts.matches(h.rpartition("/")[2], host) for h in server.hosts):
                return f"Gateway {server.gateway_name} does not serve it"
    bound = [v for v in failure.view.index.roots if host in failure.view.index.hosts_of(v)]
    wanted = ", ".join(sorted({g for v in bound for g in failure.view.index.gateways_of(v) if g != MESH_GATEWAY}))
    served = ", ".join(sorted({s.gateway_name for s in serving}))
    if wanted and not set(wanted.split(", ")) & set(served.split(", ")):
        return f"its VirtualService is bound to {wanted}, which opens no server there (there are: {served or 'none'})"
    return "no VirtualService rule applies to it there"


def _at(names: list[str], service: VirtualService, gateway: str, view: View) -> bool:
    return not names or gateway in (gateway_name(n, service.namespace, view.index.domain) for n in names)


def _no_chain(failure: _Failure) -> Finding | None:
    """A gateway that closes the connection; over mutual TLS it is the sidecar before it whose request fails."""
    closing = next((h for h in failure.trace.hops if h.kind != "sidecar" and h.entry.details == NO_CHAIN), None)
    if closing is None:
        return None
    failure = replace(failure, hop=closing)
    downstream = failure.hop.entry.downstream
    config = failure.mesh.config(next(p for p in failure.mesh.proxies if _name(p) == failure.hop.proxy))
    port = downstream.destination.port
    names = [
        name
        for listener in config.listeners
        if listener.address.socket_address and listener.address.socket_address.port_value == port
        for chain in listener.filter_chains
        if chain.filter_chain_match
        for name in chain.filter_chain_match.server_names
    ]
    if not downstream.sni:
        what = "arrives without TLS" if downstream.transport != "tls" else "asks for no name (SNI)"
    else:
        what = f"asks for {downstream.sni}"
    return failure.finding("MSIM0103", failure.probe.service.hostname, failure.hop.proxy, what, ", ".join(dict.fromkeys(names)) or "none")


def _not_listening(failure: _Failure) -> Finding | None:
    gateway = failure.gateway()
    if gateway is None or failure.at_gateway or "UF" not in failure.hop.entry.flags:
        return None
    port = int(failure.hop.entry.upstream.rpartition(":")[2] or 0)
    config = failure.mesh.config(gateway)
    if any(x.address.socket_address and x.address.socket_address.port_value == port for x in config.listeners):
        return None
    view = View(failure.view.index, gateway)
    merged = gateways.merge(view.gateways, view.targets)
    return failure.finding("MSIM0104", failure.probe.service.hostname, _name(gateway), port, _why_not_listening(merged, port))


def _why_not_listening(merged: Merged, port: int) -> str:
    """Servers without any chain: what block of a VirtualService each one reads."""
    for key, servers in merged.by_port.items():
        if key.number == port:
            server = servers[0]
            block = "tls" if server.passthrough else "tcp"
            mode = server.server.tls.mode if server.server.tls else "no TLS"
            return f"Gateway {server.gateway_name}'s server {server.number} ({mode}) takes its routes from `{block}` rules, and none fits"
    return "no Gateway that selects it has a server for that port"


def _no_endpoints(failure: _Failure) -> Finding | None:
    if "UH" not in failure.hop.entry.flags:
        return None
    host = failure.cluster.rpartition("|")[2] or failure.probe.service.hostname
    service = failure.view.service(host)
    resolution = service.resource.spec.resolution if service and not service.is_kubernetes else ""
    why = "it has no ready endpoint"
    if resolution in ("NONE", "DYNAMIC_DNS") and failure.at_gateway:
        why = f"resolution {resolution} leaves a gateway without an address to go to"
    elif resolution == "DNS":
        why = "its name does not resolve"
    return failure.finding("MSIM0105", host, failure.hop.proxy, why)


def _no_secret(failure: _Failure) -> Finding | None:
    """TLS that waits for a certificate or a CA that nothing supplies, at the proxy that calls or at the gateway it calls."""
    reason = failure.hop.entry.upstream_failure.replace("_", " ")
    if tls_words.NO_SECRET in reason:
        namespace = failure.hop.proxy.rpartition(".")[2]
        return failure.finding("MSIM0118", failure.cluster, failure.hop.proxy, namespace)
    gateway = failure.gateway()
    if gateway is None or "UF" not in failure.hop.entry.flags:
        return None
    view = View(failure.view.index, gateway)
    port = int(failure.hop.entry.upstream.rpartition(":")[2] or 0)
    for placed in (s for servers in gateways.merge(view.gateways, view.targets).by_route.values() for s in servers):
        key = (gateway.namespace, placed.server.tls.credential_name if placed.server.tls else "")
        if placed.listen_port == port and key[1] and key not in failure.mesh.secrets and key not in failure.mesh.issued_secrets:
            return failure.finding("MSIM0118", f"Gateway {placed.gateway_name}", _name(gateway), gateway.namespace)
    return None


def _upstream_tls(failure: _Failure) -> Finding | None:
    """A handshake that fails: TLS into a plaintext server, or a certificate that is not accepted."""
    reason = failure.hop.entry.upstream_failure or failure.hop.entry.details
    if VERIFY_FAILED in reason:
        why = reason.partition(VERIFY_FAILED)[2].removesuffix(":TLS_error_end").strip(":_}").replace("_", " ")
        return failure.finding("MSIM0111", failure.cluster, failure.hop.proxy, why or "it does not verify")
    if WRONG_VERSION in reason:
        return failure.finding("MSIM0106", failure.cluster, failure.hop.proxy)
    return None


def _client_certificate(failure: _Failure) -> Finding | None:
    """A handshake that the server gives up for want of a client certificate it accepts; over TLS 1.3 the first request ends so."""
    leg, flags = failure.hop.leg, failure.hop.entry.flags
    ended = "UC" in flags or "SSLV3_ALERT_HANDSHAKE_FAILURE" in failure.hop.entry.upstream_failure
    if leg is None or not leg.tls or not ended or not _asks_for_certificate(failure):
        return None
    shown = f"takes no certificate of {', '.join(leg.client)}" if leg.client else "wants a client certificate, and none is shown"
    return failure.finding("MSIM0115", failure.cluster, failure.hop.proxy, shown)


def _asks_for_certificate(failure: _Failure) -> bool:
    """Whether whoever the hop speaks TLS to, a gateway or a site, wants to know who calls."""
    address, _, number = failure.hop.entry.upstream.rpartition(":")
    gateway = failure.gateway()
    if gateway is None:
        site = places(failure.mesh.external_servers).get((address, int(number or 0)))
        return site is not None and site.port.client_certificates.mode == "required"
    return any(
        getattr(chain.transport_socket.typed_config, "require_client_certificate", False)
        for listener in failure.mesh.config(gateway).listeners
        if listener.address.socket_address and listener.address.socket_address.port_value == int(number)
        for chain in listener.filter_chains
        if chain.transport_socket is not None
    )


def _double_tls(failure: _Failure) -> Finding | None:
    """An application's TLS inside a DestinationRule's."""
    if not failure.probe.call.tls or failure.hop.entry.is_http or not failure.cluster:
        return None
    leg = failure.hop.leg
    if leg is not None and leg.tls and leg.inner is not None and failure.gateway() is None:
        return failure.finding("MSIM0108", failure.probe.service.hostname, failure.cluster)
    return None


def _plaintext(failure: _Failure) -> Finding | None:
    """Plain HTTP to a server that speaks TLS."""
    leg = failure.hop.leg
    refused = refused_plaintext(failure.trace) or "UC" in failure.hop.entry.flags
    if refused and failure.cluster.startswith("outbound|443|") and failure.gateway() is None and not (leg and leg.tls):
        return failure.finding("MSIM0107", failure.cluster, failure.hop.proxy)
    return None


def _not_http2(failure: _Failure) -> Finding | None:
    """HTTP/2 to a server that does not know it."""
    if "UPE" not in failure.hop.entry.flags:
        return None
    _, number, _, host = failure.cluster.split("|")
    service = failure.view.service(host)
    port = service.port(int(number)) if service else None
    if port is not None and port.protocol.is_http2:
        return failure.finding("MSIM0114", failure.cluster, failure.hop.proxy, f"its port {number} is declared {port.protocol.name}")
    return failure.finding("MSIM0114", failure.cluster, failure.hop.proxy, "h2UpgradePolicy") if service else None


def _unknown_to_sidecar(failure: _Failure) -> Finding | None:
    """A declared host that the sidecar treats as one nobody declared."""
    if failure.at_gateway or failure.cluster not in (PASSTHROUGH_CLUSTER, BLACK_HOLE_CLUSTER):
        return None
    host, number = failure.probe.service.hostname, failure.probe.port.number
    entries = failure.view.index.of("ServiceEntry")
    others = [full_name(e) for e in entries if host in e.spec.hosts and e is not failure.probe.service.resource]
    why = f"{', '.join(others)} declares it too, with another protocol" if others else "its port is declared with another protocol"
    return failure.finding("MSIM0112", host, number, failure.cluster, why)


EXPLANATIONS: tuple[Callable[[_Failure], Finding | None], ...] = (
    _loop,
    _no_cluster,
    _not_listening,
    _no_route,
    _no_chain,
    _no_endpoints,
    _no_secret,
    _upstream_tls,
    _client_certificate,
    _double_tls,
    _unknown_to_sidecar,
    _plaintext,
    _not_http2,
)


def _dropped(probe: Probe, trace: Trace, mesh: Mesh) -> Iterator[Finding]:
    """Packets that a NetworkPolicy drops though the rules lead through a gateway."""
    way, _, policies = trace.dropped[0].partition(": ")
    named = [r for r in mesh.resources if r.kind == "NetworkPolicy" and f"NetworkPolicy {full_name(r)} " in f"{policies} "]
    witness = f"{probe.text}: {trace.error or 'no answer'}; {trace.dropped[0]}"
    for policy in named[:1]:
        yield finding("MSIM0117", policy, probe.service.hostname, way, at=("egress",), witness=witness)


# --- calls that work and go another way ------------------------------------------------------------------------------------


def _bypasses(probe: Probe, trace: Trace, mesh: Mesh, view: View) -> Iterator[Finding]:
    """A gateway is prepared for the host, and the call went straight past it."""
    host = probe.service.hostname
    prepared = [
        v
        for v in view.index.roots
        if host in view.index.hosts_of(v) and any(_serves(mesh, view, g) for g in view.index.gateways_of(v)) and _treats(v, probe, view)
    ]
    bound = [v for v in mesh_bound(view) if _is_of(v, host, view)]
    missed = is_unknown(trace.hops[0]) if probe.gateway else not any(leads_to_gateway(view, v, probe.service) for v in bound)
    if prepared and missed:
        where = ", ".join(g for g in view.index.gateways_of(prepared[0]) if g != MESH_GATEWAY)
        witness = f"{probe.text}: {' -> '.join(trace.path)}"
        yield finding("MSIM0110", prepared[0], host, probe.port.number, where, at=("gateways",), witness=witness)


def _is_of(virtual_service: VirtualService, host: str, view: View) -> bool:
    return any(hosts.matches(h, host) for h in view.index.hosts_of(virtual_service))


def _serves(mesh: Mesh, view: View, name: str) -> bool:
    """Whether a Gateway of that name selects a gateway of the mesh."""
    found = next((g for g in view.index.of("Gateway") if f"{g.namespace}/{g.name}" == name), None)
    return found is not None and any(not p.is_sidecar and found.spec.selector.items() <= p.labels.items() for p in mesh.proxies)


def _treats(virtual_service: VirtualService, probe: Probe, view: View) -> bool:
    """Whether it has a rule of the probe's kind for its port at a gateway."""
    rules = virtual_service.spec.tls if probe.call.tls else virtual_service.spec.http
    for rule in rules:
        for match in rule.match or [None]:
            names = [gateway_name(g, virtual_service.namespace, view.index.domain) for g in match.gateways] if match else []
            at_gateway = not names or any(n != MESH_GATEWAY for n in names)
            if at_gateway and (match is None or match.port in (0, probe.port.number)):
                return True
    return False


def _redirects(probe: Probe, trace: Trace, mesh: Mesh, view: View) -> Iterator[Finding]:
    """A gateway's server that sends everybody back to come again with https."""
    hop = trace.hops[-1]
    gateway = next((p for p in mesh.proxies if _name(p) == hop.proxy and not p.is_sidecar), None)
    if gateway is None or trace.status != HTTPStatus.MOVED_PERMANENTLY:
        return
    at_gateway = View(view.index, gateway)
    for placed in (s for servers in gateways.merge(at_gateway.gateways, at_gateway.targets).by_route.values() for s in servers):
        tls, port = placed.server.tls, hop.entry.downstream.destination.port
        if tls is not None and tls.https_redirect and placed.listen_port == port:
            at = ("servers", placed.index, "tls", "httpsRedirect")
            witness = f"{probe.text}: {outcome(trace, hop)}"
            yield finding("MSIM0215", placed.gateway, probe.service.hostname, hop.proxy, at=at, witness=witness)

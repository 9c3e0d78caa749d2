"""Every way out of a pod, tried: the pages' "additional security considerations" made visible.

How this works: the hosts of ServiceEntries are what the mesh means to reach; a stranger's server is put outside beside them. Each way is a
call of its own on a fresh simulated mesh: as intended, by address instead of name, to the stranger, to the stranger under a name that
is allowed (forged Host, forged SNI), and all of it once more past the sidecar, as a program under the proxy's own user id would. UDP is
never captured by a sidecar, so only a NetworkPolicy can stop it. What reaches a server without passing a gateway is a bypass.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from meshsim import hosts
from meshsim.mesh import Mesh, PodPlace
from meshsim.resources.external_server import ExternalServerSpec, ServerCertificate, ServerPort
from meshsim.simulate import Call, Trace
from meshsim.simulate.call import HttpRequest

STRANGER, STRANGER_ADDRESS, STRANGER_PORT = "stranger.test", "198.51.100.66", 8080  # TEST-NET-2 (RFC 5737)
UDP_PORT = 443  # QUIC
OPEN, GATEWAY, STOPPED = "bypass", "gateway", "stopped"


@dataclass(frozen=True)
class Way:
    """A way out. call: what is simulated, None for UDP."""

    name: str
    target: str
    call: Call | None = None
    past_sidecar: bool = False


@dataclass(frozen=True)
class Finding:
    """What became of a way. outcome: `bypass`, `gateway` or `stopped`. by: the gateways it passed, or the layer that stopped it and why.
    layer: `network`, `sidecar`, `gateway`, `outside` or empty. trace: the simulated call."""

    way: Way
    outcome: str
    layer: str = ""
    by: str = ""
    trace: Trace | None = None


def audit(mesh: Mesh, pod: str, *, arrived: bool | None = None) -> list[Finding]:
    """Every way out of a pod, named as for `Mesh.pod`. Raises UnknownPod.

    arrived: what became of a datagram that was sent from the pod to STRANGER_ADDRESS and UDP_PORT; None: that is computed.
    """
    place = mesh.pod(pod)
    return [_simulated(mesh, place, way) if way.call else _datagram(mesh, place, way, arrived) for way in _ways(mesh, place)]


def _ways(mesh: Mesh, pod: PodPlace) -> Iterator[Way]:
    source = f"{pod.proxy.name if pod.proxy else pod.name}.{pod.namespace}"
    named = [host for r in mesh.resources if r.kind == "ServiceEntry" for host in r.spec.hosts]
    known = [s for s in mesh.external_servers if any(hosts.subset_of(s.name, host) for host in named)]
    ways = list(_through_the_sidecar(known or mesh.external_servers, source))
    yield from ways
    if pod.proxy is not None:
        yield from (replace(way, name=f"{way.name}, past the sidecar", past_sidecar=True) for way in ways)
    yield Way("UDP", f"udp {STRANGER_ADDRESS}:{UDP_PORT}")


def _through_the_sidecar(servers: list[ExternalServerSpec], source: str) -> Iterator[Way]:
    allowed = ""
    for server in (s for s in servers if s.addresses):
        host = server.name.replace("*", "www")
        for port in (p for p in server.ports if p.is_http):
            url = f"{'https' if port.is_tls else 'http'}://{host}{'' if port.port in (80, 443) else f':{port.port}'}/"
            call = Call.url(source, url)
            yield Way("by name", url, call)
            yield Way("by address", f"{call.host} at {server.addresses[0]}:{port.port}", replace(call, host=server.addresses[0]))
            allowed = allowed or host
    yield Way("to a stranger", f"http://{STRANGER}/", Call.url(source, f"http://{STRANGER}/"))
    yield Way("to a stranger", f"https://{STRANGER}/", Call.url(source, f"https://{STRANGER}/"))
    raw = Call(source, STRANGER, STRANGER_PORT, http=None, data=b"hello\n")
    yield Way("to a stranger", f"tcp {STRANGER}:{STRANGER_PORT}", raw)
    if allowed:
        forged = Call(source, STRANGER_ADDRESS, 80, http=HttpRequest(headers=(("Host", allowed),)))
        yield Way("forged Host", f"{STRANGER_ADDRESS}:80 as {allowed}", forged)
        secure = replace(Call.url(source, f"https://{allowed}/"), host=STRANGER_ADDRESS)
        yield Way("forged SNI", f"{STRANGER_ADDRESS}:443 as {allowed}", secure)


def _datagram(mesh: Mesh, pod: PodPlace, way: Way, arrived: bool | None) -> Finding:
    wall = mesh.walls.blocking(pod.address, STRANGER_ADDRESS, UDP_PORT, "UDP")
    if wall is None if arrived is None else arrived:
        seen = "a datagram was sent, and arrived" if arrived else "nothing stops it"
        return Finding(way, OPEN, by=f"{seen}: no sidecar captures UDP")
    sent = "" if arrived is None else "a datagram was sent, and lost: "
    return Finding(way, STOPPED, "network", sent + (", ".join(wall.policies) if wall else "nobody says why"))


def _simulated(mesh: Mesh, pod: PodPlace, way: Way) -> Finding:
    assert way.call is not None
    trace = mesh.simulation(beside=[_stranger()]).call(way.call, past_sidecar=way.past_sidecar)
    gateways = list(dict.fromkeys(h.proxy for h in trace.hops if h.kind == "router"))
    if trace.arrivals:
        server = trace.arrivals[-1]
        where = f"{server['server']}:{server['port']}"
        return Finding(way, GATEWAY if gateways else OPEN, by=f"{where} through {', '.join(gateways) or 'no gateway'}", trace=trace)
    return Finding(way, STOPPED, *_stopped(trace), trace)


def _stopped(trace: Trace) -> tuple[str, str]:
    """The layer, and its reason."""
    if trace.dropped:
        return "network", trace.dropped[-1].partition(": ")[2]
    if trace.hops:
        hop = trace.hops[-1]
        reason = hop.cluster.name if hop.cluster and "BlackHole" in hop.cluster.name else ",".join(hop.entry.flags) or hop.entry.details
        return ("gateway" if hop.kind == "router" else "sidecar"), f"{hop.proxy}: {reason or trace.error or trace.client.get('end', '')}"
    return "outside", trace.error or str(trace.client.get("end") or trace.client.get("tls") or "nobody answers")


def _stranger() -> ExternalServerSpec:
    ports = [
        ServerPort(port=80),
        ServerPort(port=443, protocol="https", certificate=ServerCertificate(any_name=True)),
        ServerPort(port=STRANGER_PORT, protocol="tcp"),
    ]
    return ExternalServerSpec(hosts=[STRANGER], addresses=[STRANGER_ADDRESS], ports=ports)

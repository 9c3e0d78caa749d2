"""Golden cases on the evaluator: the case's world as facts, its calls in order on one simulation."""

from __future__ import annotations

from typing import Any as Json

from meshsim import xds
from meshsim.errors import NotSimulated
from meshsim.identity import spiffe_id
from meshsim.network.place import portable
from meshsim.routing.access_log import record
from meshsim.simulate import Call, Secrets, Simulation, World
from meshsim.simulate.call import HttpRequest
from meshsim.simulate.handshake import Certificate
from meshsim.topology import Proxy
from tests.golden import outcome, world
from tests.golden.case import Case, Manifest

PARTNER = Certificate(dns=("client.partner.example",), ca="partner", subject="CN=client.partner.example")
_LOG = record(outcome.LOG_FORMAT)


def run(case: Case, configs: dict[str, xds.ProxyConfig]) -> list[dict[str, Json]]:
    """Every call's outcome in the recorded form."""
    simulation = _simulation(case, configs)
    return [_outcome(simulation, call) for call in case.calls]


def _outcome(simulation: Simulation, call: Manifest) -> dict[str, Json]:
    try:
        trace = simulation.call(_call(call))
    except NotSimulated as e:
        return outcome.call(call["name"], {"error": f"not simulated: {e.field}"}, [], [])
    lines = [{"proxy": proxy, **_LOG(entry)} for proxy, entry in trace.lines]
    return outcome.call(call["name"], trace.client, lines, trace.arrivals)


def _simulation(case: Case, configs: dict[str, xds.ProxyConfig]) -> Simulation:
    kubernetes = world.secret_data(case.manifests)
    roots = [data[key].decode() for data in kubernetes.values() for key in ("ca.crt", "cacert") if key in data]
    servers = world.external_servers(case.dns, case.spec.get("servers") or [], roots)
    proxies = [Proxy.of_entry(entry) for entry in case.proxies]
    applications = {}
    placed = {}
    for number, proxy in enumerate(proxies):
        address = world.application_address(number)
        placed[proxy.name] = portable(configs[proxy.name], address)
        if proxy.is_sidecar:
            applications[proxy.ip] = world.application(proxy.name, world.inbound_ports(configs[proxy.name]))
    files = {"/etc/partner/client.pem": PARTNER, "/etc/partner/client-cert.pem": PARTNER}
    file_roots = {"/etc/partner/ca.pem": frozenset(("public",))}
    secrets = {
        p.name: Secrets(Certificate(uris=(spiffe_id(p.namespace, p.service_account),), ca="mesh"), p.namespace, kubernetes, files, file_roots)
        for p in proxies
    }
    facts = World(world.names(case.dns, case.manifests), world.services(case.manifests), servers, apps=applications)
    return Simulation(placed, proxies, facts, secrets, seed=1)


def _call(call: Manifest) -> Call:
    source = call["from"]
    if "http" in call:
        spec = call["http"]
        authority, slash, path = spec["url"].removeprefix("http://").partition("/")
        host, _, port = authority.partition(":")
        return Call(source, host, int(port or 80), http=_request(spec, authority, slash + path or "/"))
    if "tls" in call:
        spec = call["tls"]
        inner = spec.get("http")
        authority = spec.get("sni") or spec["address"]
        http = _request(inner, authority, inner.get("path", "/")) if inner else None
        return Call(source, spec["address"], spec["port"], True, spec.get("sni") or "", tuple(spec.get("alpn") or ()), http)
    spec = call["tcp"]
    return Call(source, spec["address"], spec["port"], http=None, data=spec.get("send", "").encode("latin-1"))


def _request(spec: Manifest, authority: str, path: str) -> HttpRequest:
    """A request as the golden client makes it: its own headers, then the call's, which replace them."""
    method = spec.get("method", "GET")
    headers = {"Host": authority, "User-Agent": "golden", "Accept": "*/*"}
    if method in ("POST", "PUT", "PATCH"):
        headers["Content-Length"] = "0"
    for name, value in (spec.get("headers") or {}).items():
        known = next((n for n in headers if n.lower() == name.lower()), name)
        headers[known] = str(value)
    return HttpRequest(method, path, tuple(headers.items()))

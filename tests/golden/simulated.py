"""The simulate engine of the golden replay: a case's calls walked hop by hop, on a virtual clock.

How this works: the same world that the live engine meets is handed to `Simulation` as facts; each call of the case becomes what the golden
client would send, and each trace becomes the recorded form. One simulation runs all calls of a case, so that what balancing and outlier
detection learn stays.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping
from typing import Any as Json

from meshsim import xds
from meshsim.errors import NotSimulated
from meshsim.network.place import portable
from meshsim.resources import recipes
from meshsim.routing import access_log
from meshsim.simulate import Call, Secrets, Simulation, Trace, World
from meshsim.simulate.call import HttpRequest
from meshsim.simulate.handshake import Certificate
from meshsim.topology import Proxy
from tests.golden import outcome, world
from tests.golden.case import Case, Manifest, proxy_of

SEED = 1
PARTNER = Certificate(dns=("client.partner.example",), ca="partner", subject="CN=client.partner.example")
PARTNER_ROOT = "/etc/partner/ca.pem"
_CERTIFICATE_FILE = re.compile(rb'file-cert:(/etc/partner/client[^~"]*)')
_WITH_BODY = ("POST", "PUT", "PATCH")
_fields = access_log.record(outcome.LOG_FORMAT)


def run(case: Case, configs: dict[str, xds.ProxyConfig]) -> list[dict[str, Json]]:
    """The outcome of every call, in order and in the recorded form; one that raises has `traceback` beside its error."""
    simulation = _simulation(case, configs)
    return [_outcome(call, simulation) for call in case.calls]


def _outcome(call: Manifest, simulation: Simulation) -> dict[str, Json]:
    failed: dict[str, Json] = {"call": call["name"], "proxies": [], "servers": []}
    try:
        trace = simulation.call(_call(call))
    except NotSimulated as e:
        return {**failed, "client": {"error": f"not simulated: {e.field}"}}
    except Exception as e:  # one call that raises leaves the others
        return {**failed, "client": {"error": f"internal: {type(e).__name__}: {e}"}, "traceback": traceback.format_exc()}
    return outcome.call(call["name"], trace.client, _lines(trace), trace.arrivals)


def _lines(trace: Trace) -> list[dict[str, Json]]:
    return [{"proxy": proxy, **_fields(entry)} for proxy, entry in trace.lines]


def _simulation(case: Case, configs: Mapping[str, xds.ProxyConfig]) -> Simulation:
    manifests = case.manifests
    kubernetes = world.secret_data(manifests)
    roots = [data["ca.crt"].decode() for data in kubernetes.values() if "ca.crt" in data]
    sidecars = [p for p in case.proxies if p["type"] != "router"]
    meant = {}
    for number, entry in enumerate(case.proxies):
        address = "" if entry["type"] == "router" else world.application_address(number)
        meant[entry["name"]] = portable(configs[entry["name"]], address)
    outside = World(
        names=world.names(case.dns, manifests),
        services=world.services(manifests),
        servers=world.external_servers(case.dns, case.spec.get("servers") or [], roots),
        recipes=recipes.certificates(),
        apps={p["ip"]: world.application(p["name"], world.inbound_ports(configs[p["name"]])) for p in sidecars},
        trust_domain=case.mesh_config.trust_domain,
    )
    proxies = [proxy_of(entry) for entry in case.proxies]
    secrets = {proxy.name: _secrets(proxy, meant[proxy.name], kubernetes) for proxy in proxies}
    return Simulation(meant, proxies, outside, secrets, seed=SEED)


def _secrets(proxy: Proxy, config: xds.ProxyConfig, kubernetes: Mapping[tuple[str, str], Mapping[str, bytes]]) -> Secrets:
    files = {path.decode(): PARTNER for path in _CERTIFICATE_FILE.findall(xds.encode(config))}
    identity = Certificate(uris=(proxy.identity(),), ca="mesh")
    return Secrets(identity, proxy.namespace, kubernetes, files, {PARTNER_ROOT: frozenset(("public",))})


def _call(call: Manifest) -> Call:
    """What the golden client would do."""
    source = call["from"]
    if "http" in call:
        spec = call["http"]
        authority, slash, path = spec["url"].removeprefix("http://").partition("/")
        host, _, port = authority.partition(":")
        return Call(source, host, int(port or 80), http=_request(spec, authority, slash + path or "/", announce=True))
    spec = call.get("tls") or call["tcp"]
    if "tcp" in call:
        return Call(source, spec["address"], spec["port"], http=None, data=spec["send"].encode("latin-1"))
    sni, alpn, http = spec.get("sni") or "", tuple(spec.get("alpn") or ()), spec.get("http")
    request = None
    if http:
        request = _request(http, sni or spec["address"], http.get("path", "/"), announce="h2" not in alpn)
    return Call(source, spec["address"], spec["port"], True, sni, alpn, request)


def _request(spec: Manifest, authority: str, path: str, *, announce: bool) -> HttpRequest:
    """A request as the golden client spells it; `announce`: with a length where the method may have a body (HTTP/1.1)."""
    own = {name.lower(): (name, str(value)) for name, value in (spec.get("headers") or {}).items()}
    method = spec.get("method", "GET")
    headers = [(name, own.pop(name.lower(), (name, value))[1]) for name, value in _usual(authority)]
    body = (spec.get("body") or "").encode()
    if announce and (body or method in _WITH_BODY):
        headers.append(("Content-Length", str(len(body))))
    headers += own.values()
    return HttpRequest(method, _wire(path), tuple((name, _wire(value)) for name, value in headers), body)


def _usual(authority: str) -> tuple[tuple[str, str], ...]:
    return ("Host", authority), ("User-Agent", "golden"), ("Accept", "*/*")


def _wire(text: str) -> str:
    """Text as its UTF-8 bytes read as Latin-1: how headers travel through the decisions."""
    return text.encode().decode("latin-1")

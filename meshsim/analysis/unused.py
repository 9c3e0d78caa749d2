"""Configuration that has no effect, or another one than it seems to: read off what was compiled.

Nothing here fails by itself, so these are warnings: servers left out of a merge, policies that can never match, rules no
workload finds or no port uses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any as Json

from meshsim import hosts
from meshsim.analysis.findings import Finding, finding
from meshsim.analysis.probes import leads_to_gateway, led_ports, mesh_bound, sends_to_gateway
from meshsim.control import gateways, http_matches
from meshsim.control.authorization_rules import HOSTS, METHODS, PATHS
from meshsim.control.mesh_index import MESH_GATEWAY
from meshsim.control.view import View
from meshsim.mesh import Mesh
from meshsim.resources.authorization_policy import AuthorizationPolicySpec, Rule
from meshsim.resources.destination_rule import ClientTlsSettings, TrafficPolicy
from meshsim.resources.resource import Resource
from meshsim.topology import Proxy
from meshsim.xds.listener import Listener

HTTP_FIELDS = {HOSTS, METHODS, PATHS}
HTTP_KEYS = ("request.",)


def unused(mesh: Mesh, views: Mapping[str, View]) -> Iterator[Finding]:
    """Every family; `views` by the proxies' full names."""
    routers = [p for p in mesh.proxies if not p.is_sidecar]
    for router in routers:
        view = views[_name(router)]
        yield from _servers_left_out(view)
        yield from _policies(mesh, view)
    for proxy in mesh.proxies:
        yield from _no_catch_all(mesh, proxy)
    if views:
        yield from _destination_rules(views)
        view = next(iter(views.values()))
        yield from _blocks(view)
        yield from _originations(view)


def _name(proxy: Proxy) -> str:
    return f"{proxy.name}.{proxy.namespace}"


def _servers_left_out(view: View) -> Iterator[Finding]:
    for placed, reason in gateways.merge(view.gateways, view.targets).left_out:
        number = placed.number
        yield finding("MSIM0202", placed.gateway, number, _name(view.proxy), reason, at=("servers", placed.index))


def _no_catch_all(mesh: Mesh, proxy: Proxy) -> Iterator[Finding]:
    """Virtual hosts made by VirtualServices in which some request fits nothing."""
    for configuration in mesh.config(proxy).routes:
        for host in configuration.virtual_hosts:
            routes = host.routes
            if not routes or any(http_matches.is_catch_all(r) for r in routes) or routes[-1].metadata is None:
                continue
            config = str(routes[-1].metadata.filter_metadata.get("istio", {}).get("config", ""))
            parts = config.split("/")
            if len(parts) < 8:
                continue
            resource = next(
                (r for r in mesh.resources if r.kind == "VirtualService" and (r.namespace, r.name) == (parts[5], parts[7])), None
            )
            if resource is not None:
                yield finding("MSIM0201", resource, host.name, _name(proxy), at=("http",))


# --- policies at gateways ------------------------------------------------------------------------------------------------


def _policies(mesh: Mesh, view: View) -> Iterator[Finding]:
    config = mesh.config(view.proxy)
    listening = {x.address.socket_address.port_value: x for x in config.listeners if x.address.socket_address}
    translated = {t.port: t.target_port for t in view.targets if t.port != t.target_port}
    for policy in view.authorization.policies:
        provider = policy.spec.provider.name if policy.spec.provider else ""
        if policy.spec.action == "CUSTOM" and provider not in view.authorization.providers:
            yield finding("MSIM0213", policy, provider, _name(view.proxy), at=("provider", "name"))
        for index, rule in enumerate(policy.spec.rules):
            at: tuple[str | int, ...] = ("rules", index)
            for number in _ports(rule):
                if number in translated and number not in listening:
                    yield finding("MSIM0203", policy, number, _name(view.proxy), translated[number], at=at)
            for port, listener in listening.items():
                asked = _ports(rule)
                if asked and port not in asked:
                    continue
                if (identity := _identity(rule)) and not _terminates_mesh_tls(listener):
                    yield finding("MSIM0204", policy, identity, port, _name(view.proxy), at=at)
                if _http_only(rule) and _relays_only(listener):
                    yield finding("MSIM0205", policy, port, _name(view.proxy), _on_tcp(policy), at=at)


def _ports(rule: Rule) -> set[int]:
    named = [p for to in rule.to if to.operation for p in to.operation.ports]
    named += [v for c in rule.when if c.key == "destination.port" for v in c.values]
    return {int(p) for p in named if p.isdigit()}


def _identity(rule: Rule) -> str:
    """The first field that asks who the caller is."""
    for from_ in rule.from_:
        source = from_.source
        for name in ("principals", "namespaces", "service_accounts", "trust_domains") if source else ():
            if getattr(source, name):
                return name
    keys = ("source.principal", "source.namespace", "source.serviceAccount", "source.trustDomain")
    return next((c.key for c in rule.when if c.key in keys and c.values), "")


def _terminates_mesh_tls(listener: Listener) -> bool:
    return any(
        chain.transport_socket is not None and getattr(chain.transport_socket.typed_config, "require_client_certificate", False)
        for chain in listener.filter_chains
    )


def _relays_only(listener: Listener) -> bool:
    return bool(listener.filter_chains) and all(not c.filters[-1].name.endswith("http_connection_manager") for c in listener.filter_chains)


def _http_only(rule: Rule) -> bool:
    fields = [to.operation for to in rule.to if to.operation]
    if any(getattr(o, name) or getattr(o, f"not_{name}") for o in fields for name in HTTP_FIELDS):
        return True
    return any(c.key.startswith(HTTP_KEYS) for c in rule.when)


def _on_tcp(policy: Resource[AuthorizationPolicySpec]) -> str:
    return "the rule allows nothing" if policy.spec.action == "ALLOW" else "the rest of the rule applies alone"


# --- rules nobody uses ------------------------------------------------------------------------------------------------------


def _destination_rules(views: Mapping[str, View]) -> Iterator[Finding]:
    """Rules that no proxy finds for any service, and credentials that sidecars do not read."""
    used: set[int] = set()
    plaintext: dict[int, tuple[Resource[Json], str, str]] = {}
    for name, view in views.items():
        for service in view.services:
            merged = view.destination_rule(service)
            if merged is None:
                continue
            used |= {id(merged.rule), *(id(rule) for _, rule in merged.subsets)}
            used |= {id(r) for r in _of_host(view, merged.rule)}
            read_by_all = merged.selector is None and view.proxy.is_sidecar
            if read_by_all and _credential(merged.policy) and not _through_gateway_only(view, service.hostname):
                plaintext.setdefault(id(merged.rule), (merged.rule, name, service.hostname))
    index = next(iter(views.values())).index
    for rule in (r for r in index.of("DestinationRule") if id(r) not in used):
        host = hosts.expand_short(rule.spec.host, rule.namespace)
        defined = sorted({s.namespace for s in index.registry.services if hosts.subset_of(s.hostname, host)})
        if defined and rule.namespace not in defined and rule.spec.workload_selector is None:
            yield finding("MSIM0206", rule, rule.spec.host, ", ".join(defined), index.root, at=("host",))
    for rule, proxy, host in plaintext.values():
        at = _credential(rule.spec.traffic_policy)
        yield finding("MSIM0208", rule, proxy, host, at=("trafficPolicy", *at, "credentialName"))


def _credential(policy: TrafficPolicy | None) -> tuple[str | int, ...]:
    """Where in a policy the first `tls` with a credentialName stands; empty for none."""
    if policy is None:
        return ()
    blocks: list[tuple[tuple[str | int, ...], ClientTlsSettings | None]] = [(("tls",), policy.tls)]
    blocks += [(("portLevelSettings", i, "tls"), s.tls) for i, s in enumerate(policy.port_level_settings)]
    return next((at for at, tls in blocks if tls and tls.credential_name and tls.mode in ("SIMPLE", "MUTUAL")), ())


def _of_host(view: View, rule: Resource[Json]) -> list[Resource[Json]]:
    """The rules of one host and namespace, which are merged."""
    return [r for r in view.index.of("DestinationRule") if (r.namespace, r.spec.host) == (rule.namespace, rule.spec.host)]


def _through_gateway_only(view: View, host: str) -> bool:
    """Whether a sidecar's rules send the host's calls to a gateway, so that it never uses the cluster itself."""
    bound = [v for v in mesh_bound(view) if any(hosts.matches(h, host) for h in view.index.hosts_of(v))]
    return any(sends_to_gateway(view, v) for v in bound)


def _blocks(view: View) -> Iterator[Finding]:
    """`tls` rules for hosts that only have HTTP ports, `http` rules for hosts that have none."""
    by_host: dict[str, set[str]] = {}
    for service in view.index.registry.services:
        kinds = by_host.setdefault(service.hostname, set())
        for port in service.ports:
            kinds.add("tls" if port.protocol.is_tls else "tcp" if port.protocol.is_tcp else "http")
    for virtual_service in view.index.roots:
        if MESH_GATEWAY not in view.index.gateways_of(virtual_service):
            continue
        known = [(h, by_host[h]) for h in view.index.hosts_of(virtual_service) if h in by_host]
        if not known:
            continue
        spec = virtual_service.spec
        for block, fits in (("tls", {"tls"}), ("http", {"http"})):
            if getattr(spec, block) and not any(kinds & fits for _, kinds in known) and not (block == "http" and spec.tls):
                host, kinds = known[0]
                yield finding("MSIM0207", virtual_service, block, host, ", ".join(sorted(kinds)), at=(block,))


def _originations(view: View) -> Iterator[Finding]:
    """TLS for ports that no rule at a gateway leads to, where rules lead the host through one, to ports without."""
    for rule in view.index.of("DestinationRule"):
        host, policy = hosts.expand_short(rule.spec.host, rule.namespace), rule.spec.traffic_policy
        service = view.service(host)
        bound = [v for v in view.index.roots if host in view.index.hosts_of(v)]
        through = [v for v in bound if MESH_GATEWAY in view.index.gateways_of(v)]
        if service is None or policy is None or policy.tls or not any(leads_to_gateway(view, v, service) for v in through):
            continue
        http = {p.number for p in service.ports if p.protocol.is_http}
        led = led_ports(bound, host)
        settings = enumerate(policy.port_level_settings)
        originated = {s.port.number: index for index, s in settings if s.port and s.tls and s.tls.mode in ("SIMPLE", "MUTUAL")}
        if led and not led & originated.keys():
            for number in originated.keys() & http:
                at: tuple[str | int, ...] = ("trafficPolicy", "portLevelSettings", originated[number], "tls")
                yield finding("MSIM0214", rule, number, host, ", ".join(map(str, sorted(led))), at=at)

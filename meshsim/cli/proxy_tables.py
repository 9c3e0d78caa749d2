"""A proxy's configuration as the tables of `istioctl proxy-config`: the same columns and the same words.

Facts: istioctl sorts listeners by port, then address; joins match criteria by "; "; prints clusters whose names contain "Cluster" bare;
shows at most two domains of a virtual host; leaves out routes that only pass through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from meshsim import xds
from meshsim.cli.text import table
from meshsim.xds.http_connection_manager import HttpConnectionManager
from meshsim.xds.listener import FilterChain, Listener
from meshsim.xds.message import Metadata
from meshsim.xds.route import RouteMatch, VirtualHost
from meshsim.xds.tcp_proxy import TcpProxy

NAMED_PROTOCOLS = {
    ("http/1.0", "http/1.1", "h2c"): "HTTP",
    ("istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"): "TCP TLS",
    ("istio-http/1.0", "istio-http/1.1", "istio-h2"): "HTTP TLS",
}
MOST_DOMAINS = 2


def listeners(config: xds.ProxyConfig) -> str:
    """ADDRESSES, PORT, what a connection must be, and where it then goes."""
    rows = []
    for listener in sorted(config.listeners, key=_place):
        chains = [*listener.filter_chains, *([listener.default_filter_chain] if listener.default_filter_chain else [])]
        for chain in chains:
            is_default = chain is listener.default_filter_chain
            rows.append((_address(listener), str(_place(listener)[0]), "ALL" if is_default else _match(chain), _destination(chain)))
    return table(("ADDRESSES", "PORT", "MATCH", "DESTINATION"), rows, gap=1)


def routes(config: xds.ProxyConfig) -> str:
    """Every route of every route configuration, the gateways' inline ones too."""
    rows = []
    for route_config in config.routes:
        for host in route_config.virtual_hosts:
            rows += list(_routes(route_config.name, host))
    return table(("NAME", "VHOST NAME", "DOMAINS", "MATCH", "VIRTUAL SERVICE"), rows)


def clusters(config: xds.ProxyConfig) -> str:
    """Clusters by what their names say, and the DestinationRule that shaped each."""
    rows = []
    for cluster in config.clusters:
        direction, port, subset, host = ([*cluster.name.split("|"), "", "", ""][:4]) if "|" in cluster.name else ("", "", "", cluster.name)
        kind = cluster.type or (cluster.cluster_type.name if cluster.cluster_type else "STATIC")
        rows.append((host, port or "-", subset or "-", direction or "-", kind, _owner(cluster.metadata)))
    head = ("SERVICE FQDN", "PORT", "SUBSET", "DIRECTION", "TYPE", "DESTINATION RULE")
    return table(head, sorted(rows))


def endpoints(config: xds.ProxyConfig) -> str:
    """Every address that a cluster may send to."""
    assignments = [*config.endpoints, *(c.load_assignment for c in config.clusters if c.load_assignment)]
    rows = []
    for assignment in assignments:
        for locality in assignment.endpoints:
            for endpoint in locality.lb_endpoints:
                status = endpoint.health_status if endpoint.health_status != "UNKNOWN" else "HEALTHY"
                rows.append((str(endpoint.endpoint.address), status, "OK", assignment.cluster_name))
    return table(("ENDPOINT", "STATUS", "OUTLIER CHECK", "CLUSTER"), sorted(rows, key=lambda r: r[-1]))


TABLES: dict[str, Callable[[xds.ProxyConfig], str]] = {
    "listeners": listeners,
    "routes": routes,
    "clusters": clusters,
    "endpoints": endpoints,
}


def _place(listener: Listener) -> tuple[int, str]:
    found = listener.address.socket_address
    return (found.port_value, found.address) if found else (0, "")


def _address(listener: Listener) -> str:
    return _place(listener)[1]


def _match(chain: FilterChain) -> str:
    match = chain.filter_chain_match
    parts = []
    if match and match.server_names:
        parts.append("SNI: " + ",".join(match.server_names))
    if match and match.transport_protocol:
        parts.append(f"Trans: {match.transport_protocol}")
    if match and match.application_protocols:
        protocols = tuple(match.application_protocols)
        parts.append("App: " + NAMED_PROTOCOLS.get(protocols, ",".join(protocols)))
    if match and (match.prefix_ranges or match.destination_port):
        port = f":{match.destination_port}" if match.destination_port else ""
        ranges = [f"{r.address_prefix}/{r.prefix_len}" if r.prefix_len not in (None, 32) else r.address_prefix for r in match.prefix_ranges]
        parts.append("Addr: " + ",".join(r + port for r in ranges or ["*"]))
    return "; ".join(parts) or "ALL"


def _destination(chain: FilterChain) -> str:
    for typed in (f.typed_config for f in chain.filters):
        if isinstance(typed, HttpConnectionManager):
            if typed.rds:
                return f"Route: {typed.rds.route_config_name}"
            hosts = typed.route_config.virtual_hosts if typed.route_config else []
            return "Inline Route: " + ", ".join(dict.fromkeys(_path(r.match) for h in hosts for r in h.routes))
        if isinstance(typed, TcpProxy):
            if typed.cluster is None:
                weighted = typed.weighted_clusters.clusters if typed.weighted_clusters else []
                return "Weighted: " + ", ".join(f"{c.name} {c.weight}" for c in weighted)
            return typed.cluster if "Cluster" in typed.cluster and "|" not in typed.cluster else f"Cluster: {typed.cluster}"
    return "Non-HTTP/Non-TCP"


def _routes(name: str, host: VirtualHost) -> Iterator[tuple[str, ...]]:
    domains = _domains(host.domains)
    if not host.routes:
        yield name, host.name, domains, "/*", "404"
    for route in host.routes:
        if not (route.route and route.route.cluster == "PassthroughCluster"):
            yield name, host.name, domains, _path(route.match), _owner(route.metadata, "")


def _path(match: RouteMatch) -> str:
    if match.safe_regex:
        return f"regex {match.safe_regex.regex}"
    if match.path_separated_prefix:
        return f"PathPrefix:{match.path_separated_prefix}"
    return match.path if match.path is not None else f"{match.prefix or ''}*"


def _domains(domains: list[str]) -> str:
    names = [d for d in domains if d.rpartition(":")[0] not in domains]
    kept = [d for d in names if not any(d.endswith(end) and d.removesuffix(end) in names for end in (".svc.cluster.local", ".svc"))]
    more = f" + {len(kept) - MOST_DOMAINS} more..." if len(kept) > MOST_DOMAINS else ""
    return ", ".join(kept[:MOST_DOMAINS]) + more


def _owner(metadata: Metadata | None, none: str = "-") -> str:
    """`name.namespace` of the resource that `istio.config` names."""
    path = str(((metadata.filter_metadata if metadata else {}).get("istio") or {}).get("config", ""))
    parts = path.split("/")
    if "namespaces" not in parts:
        return none
    at = parts.index("namespaces")
    return f"{parts[-1]}.{parts[at + 1]}"

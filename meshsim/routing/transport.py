"""How a proxy talks to a host: TLS and as whom, and whether a PROXY header comes first."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from meshsim import hosts
from meshsim.routing.facts import address
from meshsim.xds.tls import ProxyProtocolUpstreamTransport, UpstreamTlsContext

if TYPE_CHECKING:
    from meshsim.routing.clusters import Cluster, Host


class Transport(NamedTuple):
    """tls: None for plaintext. sni: the name asked for. name: what the certificate must be valid for, beside the context's own matchers.
    alpn: offered protocols. proxy_protocol: "", "V1" or "V2".
    """

    tls: UpstreamTlsContext | None = None
    sni: str = ""
    name: str = ""
    alpn: tuple[str, ...] = ()
    proxy_protocol: str = ""


def transport(cluster: Cluster, host: Host, authority: str, http2: bool) -> Transport:
    """For an HTTP request to `authority`: SNI and the name to verify may follow it.

    ALPN follows the protocol where nothing is configured.
    """
    way = plain(cluster, host)
    if way.tls is None:
        return way
    last = host.way_to
    if last is None or last[0] != authority or last[1] is not http2:
        last = host.way_to = authority, http2, _to(way, cluster, authority, http2)
    return last[2]


def _to(way: Transport, cluster: Cluster, authority: str, http2: bool) -> Transport:
    options = cluster.options.upstream_http_protocol_options if cluster.options else None
    bare = hosts.strip_port(authority)
    if options is not None and options.auto_sni and address(bare.strip("[]")) is None:
        way = way._replace(sni=bare)
    if options is not None and options.auto_san_validation:
        way = way._replace(name=bare.strip("[]"))
    return way._replace(alpn=way.alpn or (("h2",) if http2 else ("http/1.1",)))


def plain(cluster: Cluster, host: Host) -> Transport:
    """For a connection that carries bytes; found out once for each host."""
    way = host.way
    if way is None:
        way = host.way = _configured(cluster, host)
    return way


def _configured(cluster: Cluster, host: Host) -> Transport:
    socket = cluster.transport_socket(host)
    config = socket.typed_config if socket else None
    version = ""
    if isinstance(config, ProxyProtocolUpstreamTransport):
        version = config.config.version if config.config else "V1"
        config = config.transport_socket.typed_config if config.transport_socket else None
    if not isinstance(config, UpstreamTlsContext):
        return Transport(proxy_protocol=version)
    return Transport(config, config.sni, "", tuple(config.common_tls_context.alpn_protocols), version)

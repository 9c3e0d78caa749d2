"""Where things are on this machine, put into compiled xds: the only step between what istiod would send and what a proxy loads.

How this works: `portable` makes the configuration one that any Envoy understands: Istio's own filters go, and what its ALPN
filter would do per request is fixed per cluster. `place` then fills in this machine: the virtual listeners become pipes that take
PROXY headers (the redirect of iptables), a gateway's wildcard listeners bind its pod's address, and every reference to istiod
becomes a path in the proxy's folder:

    lds.json  cds.json  rds/NAME.json  eds/NAME.json  sds/NAME.json

`write` puts those files there, each by rename, which is what Envoy watches for. The asyncio proxy and the real Envoy read the same folder.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import msgspec

from meshsim import xds
from meshsim.network.copies import own
from meshsim.xds.endpoint import ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints
from meshsim.xds.http_connection_manager import HttpConnectionManager
from meshsim.xds.http_filters import IstioAlpn
from meshsim.xds.listener import FilterChain, Listener, ListenerFilter, OriginalDst, ProxyProtocol
from meshsim.xds.message import Address, ConfigSource, PathConfigSource, Pipe, SocketAddress, TypedStruct
from meshsim.xds.route import RouteConfiguration
from meshsim.xds.tls import (
    CertificateValidationContext,
    CommonTlsContext,
    DownstreamTlsContext,
    ProxyProtocolUpstreamTransport,
    SdsSecretConfig,
    Secret,
    TransportSocket,
    UpstreamTlsContext,
)

VIRTUAL_OUTBOUND, VIRTUAL_INBOUND = "virtualOutbound", "virtualInbound"

SecretSource = Callable[[str], Secret | None]
"""The secret of an SDS name, its certificate and key as files; None when nothing supplies it."""

# Istio's own extensions, by a part of their type: telemetry and metadata exchange, which change nothing about where a request goes.
_ISTIO_ONLY = ("peer_metadata", "metadataexchange", "stats.PluginConfig")

# What Istio's ALPN filter offers upstream over its mTLS, by the HTTP version spoken there.
_ALPN_HTTP1 = ["istio-http/1.1", "istio", "http/1.1"]
_ALPN_HTTP2 = ["istio-h2", "istio", "h2"]

_NO_SECRET_TIMEOUT = "0.2s"  # how long a proxy waits for a secret that nothing supplies; istiod's is 15 s, and nobody gains by waiting
_WILDCARDS = {"0.0.0.0", "::"}
_MAX_FILE_NAME = 200

_M = TypeVar("_M")


@dataclass(frozen=True, slots=True)
class Site:
    """Where one proxy is.

    folder: its own; pipes and xds files go there. address: its pod's. application: where the pod's application listens, if not at the
    pod's own address. pipes: whether redirected connections come through pipes; else the kernel redirects them to the ports.
    """

    folder: Path
    address: str
    secrets: SecretSource
    is_gateway: bool = False
    application: str = ""
    pipes: bool = True

    @property
    def outbound(self) -> str:
        """The pipe that takes what the pod's applications open."""
        return str(self.folder / "outbound.sock")

    @property
    def inbound(self) -> str:
        """The pipe that takes what others open to the pod."""
        return str(self.folder / "inbound.sock")


def portable(config: xds.ProxyConfig, application: str = "") -> xds.ProxyConfig:
    """A copy that a plain Envoy does the same with as Istio's would.

    application: the address that inbound clusters lead to; the original destination where empty.
    """
    config = own(config)
    over_http = _clusters_of_routes(config)
    for listener in config.listeners:
        listener.listener_filters = [f for f in listener.listener_filters if not _is_istio_only(f.typed_config)]
        for chain in _chains(listener):
            chain.filters = [f for f in chain.filters if not _is_istio_only(f.typed_config)]
            for manager in _managers(chain):
                manager.http_filters = [f for f in manager.http_filters if not _is_istio_only(f.typed_config)]
    for cluster in config.clusters:
        if cluster.name in over_http:
            for context in _upstream_contexts(cluster):
                if "istio" in context.common_tls_context.alpn_protocols:
                    context.common_tls_context.alpn_protocols = list(_ALPN_HTTP2 if _speaks_http2(cluster) else _ALPN_HTTP1)
        if cluster.type == "ORIGINAL_DST":
            cluster.cleanup_interval = None  # istiod's "never" is more than Envoy 1.40 takes; what is remembered longer changes nothing
        if application and cluster.name.startswith("inbound|") and cluster.type == "ORIGINAL_DST":
            _lead_to(cluster, application)
    return config


def place(config: xds.ProxyConfig, site: Site) -> xds.ProxyConfig:
    """A copy of `config` for this machine, with the secrets it names and an empty resource for each one it names and lacks."""
    config = portable(config, site.application)
    bound = {(a.address, a.port_value) for listener in config.listeners if (a := listener.address.socket_address)}
    for listener in config.listeners:
        if listener.name in (VIRTUAL_OUTBOUND, VIRTUAL_INBOUND) and site.pipes:
            _take_redirected(listener, site.outbound if listener.name == VIRTUAL_OUTBOUND else site.inbound)
        elif site.is_gateway:
            _bind_to_pod(listener, site.address, bound)
    _point_to_routes(config, site)
    _point_to_endpoints(config, site)
    _point_to_secrets(config, site)
    return config


def write(placed: xds.ProxyConfig, site: Site) -> None:
    """Make the proxy's folder hold `placed`: what is referred to before what refers to it, unchanged files untouched."""
    files = {
        **{_file(site, "rds", r.name): [_resource("envoy.config.route.v3.RouteConfiguration", r)] for r in placed.routes},
        **{_file(site, "eds", e.cluster_name): [_resource("envoy.config.endpoint.v3.ClusterLoadAssignment", e)] for e in placed.endpoints},
        **{_file(site, "sds", s.name): [] if _is_empty(s) else [xds.encode(s)] for s in placed.secrets},
        f"{site.folder}/cds.json": [_resource("envoy.config.cluster.v3.Cluster", c) for c in placed.clusters],
        f"{site.folder}/lds.json": [_resource("envoy.config.listener.v3.Listener", x) for x in placed.listeners],
    }
    for kind in ("rds", "eds", "sds"):
        (site.folder / kind).mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, resources in files.items():
        _write_response(Path(name), resources)
    for kind in ("rds", "eds", "sds"):
        for path in (site.folder / kind).glob("*.json"):
            if str(path) not in files:
                path.unlink()


def read(folder: Path) -> xds.ProxyConfig:
    """The configuration in a proxy's folder. Raises OSError or msgspec.ValidationError for a folder that `write` did not fill."""
    return xds.ProxyConfig(
        listeners=_read(folder / "lds.json", Listener),
        clusters=_read(folder / "cds.json", xds.Cluster),
        routes=[r for path in sorted((folder / "rds").glob("*.json")) for r in _read(path, RouteConfiguration)],
        endpoints=[e for path in sorted((folder / "eds").glob("*.json")) for e in _read(path, ClusterLoadAssignment)],
        secrets=[s for path in sorted((folder / "sds").glob("*.json")) for s in _read(path, Secret)],
    )


# Portable --------------------------------------------------------------------------------------------------------------------------


def _is_istio_only(config: object) -> bool:
    if isinstance(config, IstioAlpn):
        return True
    return isinstance(config, TypedStruct) and any(part in config.type_url for part in _ISTIO_ONLY)


def _clusters_of_routes(config: xds.ProxyConfig) -> set[str]:
    """The clusters that HTTP routes lead to."""
    inline = [m.route_config for x in config.listeners for c in _chains(x) for m in _managers(c) if m.route_config]
    found: set[str] = set()
    for routes in [*config.routes, *inline]:
        for host in routes.virtual_hosts:
            for route in host.routes:
                if route.route is not None:
                    found.add(route.route.cluster or "")
                    weighted = route.route.weighted_clusters
                    found.update(w.name for w in (weighted.clusters if weighted else ()))
    return found


def _speaks_http2(cluster: xds.Cluster) -> bool:
    """Whether this cluster always speaks HTTP/2, whatever came in."""
    for options in cluster.typed_extension_protocol_options.values():
        if options.use_downstream_protocol_config is None and options.explicit_http_config is not None:
            return options.explicit_http_config.http2_protocol_options is not None
    return False


def _lead_to(cluster: xds.Cluster, application: str) -> None:
    port = int(cluster.name.split("|")[1])
    endpoint = Endpoint(address=Address(socket_address=SocketAddress(address=application, port_value=port)))
    cluster.type, cluster.lb_policy = "STATIC", "ROUND_ROBIN"
    cluster.upstream_bind_config = None
    cluster.load_assignment = ClusterLoadAssignment(
        cluster_name=cluster.name, endpoints=[LocalityLbEndpoints(lb_endpoints=[LbEndpoint(endpoint=endpoint)])]
    )


# Addresses -------------------------------------------------------------------------------------------------------------------------


def _take_redirected(listener: xds.Listener, pipe: str) -> None:
    """A virtual listener behind a pipe: the PROXY header says what the kernel's redirect table would."""
    kept = [f for f in listener.listener_filters if not isinstance(f.typed_config, OriginalDst)]
    listener.listener_filters = [ListenerFilter(name="envoy.filters.listener.proxy_protocol", typed_config=ProxyProtocol()), *kept]
    listener.address = Address(pipe=Pipe(path=pipe))


def _bind_to_pod(listener: xds.Listener, pod: str, bound: set[tuple[str, int]]) -> None:
    """Give a wildcard listener the pod's address, unless another listener is bound to exactly that."""
    at = listener.address.socket_address
    if at and at.address in _WILDCARDS and (pod, at.port_value) not in bound:
        listener.address = Address(socket_address=SocketAddress(address=pod, port_value=at.port_value))


def _chains(listener: xds.Listener) -> Iterator[FilterChain]:
    yield from listener.filter_chains
    if listener.default_filter_chain is not None:
        yield listener.default_filter_chain


def _managers(chain: FilterChain) -> Iterator[HttpConnectionManager]:
    return (f.typed_config for f in chain.filters if isinstance(f.typed_config, HttpConnectionManager))


# References to istiod --------------------------------------------------------------------------------------------------------------


def _point_to_routes(config: xds.ProxyConfig, site: Site) -> None:
    known = {r.name for r in config.routes}
    for listener in config.listeners:
        for chain in _chains(listener):
            for manager in _managers(chain):
                if manager.rds is not None:
                    name = manager.rds.route_config_name
                    manager.rds.config_source = _from_file(_file(site, "rds", name))
                    if name not in known:
                        known.add(name)
                        config.routes.append(RouteConfiguration(name=name))


def _point_to_endpoints(config: xds.ProxyConfig, site: Site) -> None:
    known = {e.cluster_name for e in config.endpoints}
    for cluster in config.clusters:
        if cluster.eds_cluster_config is not None:
            name = cluster.eds_cluster_config.service_name or cluster.name
            cluster.eds_cluster_config.eds_config = _from_file(_file(site, "eds", name))
            if name not in known:
                known.add(name)
                config.endpoints.append(ClusterLoadAssignment(cluster_name=name))


def _point_to_secrets(config: xds.ProxyConfig, site: Site) -> None:
    secrets: dict[str, Secret] = {}
    for reference in _secret_references(config):
        secret = secrets.get(reference.name)
        if secret is None:
            secret = secrets[reference.name] = site.secrets(reference.name) or Secret(name=reference.name)
        reference.sds_config = _from_file(_file(site, "sds", reference.name))
        if _is_empty(secret):
            reference.sds_config.initial_fetch_timeout = _NO_SECRET_TIMEOUT
    config.secrets = list(secrets.values())
    for context in _validations(config):
        if context.crl is not None and context.crl.filename:  # a file of the pod, which the agent gives out as any root
            file = site.secrets(f"file-root:{context.crl.filename}")
            if file is not None and file.validation_context is not None:
                context.crl = file.validation_context.trusted_ca


def _validations(config: xds.ProxyConfig) -> Iterator[CertificateValidationContext]:
    for context in _tls_contexts(config):
        combined = context.combined_validation_context
        if combined is not None and combined.default_validation_context is not None:
            yield combined.default_validation_context


def _secret_references(config: xds.ProxyConfig) -> Iterator[SdsSecretConfig]:
    for context in _tls_contexts(config):
        yield from context.tls_certificate_sds_secret_configs
        if context.validation_context_sds_secret_config is not None:
            yield context.validation_context_sds_secret_config
        combined = context.combined_validation_context
        if combined is not None and combined.validation_context_sds_secret_config is not None:
            yield combined.validation_context_sds_secret_config


def _tls_contexts(config: xds.ProxyConfig) -> Iterator[CommonTlsContext]:
    for listener in config.listeners:
        for chain in _chains(listener):
            if chain.transport_socket and isinstance(chain.transport_socket.typed_config, DownstreamTlsContext):
                yield chain.transport_socket.typed_config.common_tls_context
    for cluster in config.clusters:
        for upstream in _upstream_contexts(cluster):
            yield upstream.common_tls_context


def _upstream_contexts(cluster: xds.Cluster) -> Iterator[UpstreamTlsContext]:
    sockets: Iterable[TransportSocket | None] = (cluster.transport_socket, *(m.transport_socket for m in cluster.transport_socket_matches))
    for socket in sockets:
        config = socket.typed_config if socket else None
        if isinstance(config, ProxyProtocolUpstreamTransport) and config.transport_socket is not None:
            inner = config.transport_socket.typed_config
            if isinstance(inner, UpstreamTlsContext):
                yield inner
        elif isinstance(config, UpstreamTlsContext):
            yield config


def _from_file(path: str) -> ConfigSource:
    return ConfigSource(path_config_source=PathConfigSource(path=path), resource_api_version="V3")


# Files -----------------------------------------------------------------------------------------------------------------------------


def _file(site: Site, kind: str, name: str) -> str:
    stem = quote(name, safe="|:~@,=")
    if len(stem) > _MAX_FILE_NAME:
        stem = f"{stem[: _MAX_FILE_NAME - 17]}~{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return f"{site.folder}/{kind}/{stem}.json"


def _is_empty(secret: Secret) -> bool:
    return secret.tls_certificate is None and secret.validation_context is None


def _resource(type_name: str, message: xds.message.Message) -> bytes:
    """A resource of a DiscoveryResponse: the message with its type in front."""
    return b'{"@type":"type.googleapis.com/' + type_name.encode() + b'",' + xds.encode(message)[1:]


def _read(path: Path, kind: type[_M]) -> list[_M]:
    """The resources of a DiscoveryResponse."""
    response = msgspec.json.decode(path.read_bytes(), type=dict[str, msgspec.Raw])
    return [msgspec.json.decode(raw, type=kind) for raw in msgspec.json.decode(response["resources"], type=list[msgspec.Raw])]


def _write_response(path: Path, resources: list[bytes]) -> None:
    body = b",".join(resources)
    version = hashlib.sha256(body).hexdigest()[:12]
    content = msgspec.json.format(b'{"version_info":"%s","resources":[%s]}' % (version.encode(), body), indent=1)
    try:
        if path.read_bytes() == content:
            return
    except FileNotFoundError:
        pass
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.replace(path)

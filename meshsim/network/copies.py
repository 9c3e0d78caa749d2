"""Copies of a proxy's configuration, as deep as a place has something to write into it: addresses, pipes, and references to files.

How this works: messages on the way to such a field are copied one by one, everything else is shared with what was compiled, and that
is most: routes, endpoints, clusters without TLS. To copy all of it took a quarter of the time that a small mesh needs to start.
"""

from __future__ import annotations

from copy import copy
from typing import TypeVar

from meshsim import xds
from meshsim.xds.http_connection_manager import HttpConnectionManager
from meshsim.xds.listener import FilterChain, Listener, NetworkFilter
from meshsim.xds.tls import (
    CommonTlsContext,
    DownstreamTlsContext,
    InnerTransportSocket,
    ProxyProtocolUpstreamTransport,
    TransportSocket,
    UpstreamTlsContext,
)

S = TypeVar("S", TransportSocket, InnerTransportSocket)


def own(config: xds.ProxyConfig) -> xds.ProxyConfig:
    """A copy that a place may be written into."""
    return xds.ProxyConfig(
        listeners=[_listener(x) for x in config.listeners],
        clusters=[_cluster(c) for c in config.clusters],
        routes=list(config.routes),
        endpoints=list(config.endpoints),
        secrets=list(config.secrets),
        name_table=config.name_table,
    )


def _listener(listener: Listener) -> Listener:
    made = copy(listener)
    made.filter_chains = [_chain(c) for c in listener.filter_chains]
    if listener.default_filter_chain is not None:
        made.default_filter_chain = _chain(listener.default_filter_chain)
    return made


def _chain(chain: FilterChain) -> FilterChain:
    made = copy(chain)
    made.filters = [_filter(f) for f in chain.filters]
    made.transport_socket = _socket(chain.transport_socket)
    return made


def _filter(given: NetworkFilter) -> NetworkFilter:
    if not isinstance(given.typed_config, HttpConnectionManager):
        return given
    made, manager = copy(given), copy(given.typed_config)
    made.typed_config = manager
    if manager.rds is not None:
        manager.rds = copy(manager.rds)
    return made


def _cluster(cluster: xds.Cluster) -> xds.Cluster:
    tls = cluster.transport_socket is not None or cluster.transport_socket_matches
    if not tls and cluster.eds_cluster_config is None and cluster.type != "ORIGINAL_DST":
        return cluster
    made = copy(cluster)
    if cluster.eds_cluster_config is not None:
        made.eds_cluster_config = copy(cluster.eds_cluster_config)
    made.transport_socket = _socket(cluster.transport_socket)
    made.transport_socket_matches = [copy(m) for m in cluster.transport_socket_matches]
    for match in made.transport_socket_matches:
        match.transport_socket = _copied(match.transport_socket)
    return made


def _socket(socket: TransportSocket | None) -> TransportSocket | None:
    return None if socket is None else _copied(socket)


def _copied(socket: S) -> S:
    made, config = copy(socket), copy(socket.typed_config)
    made.typed_config = config
    if isinstance(config, ProxyProtocolUpstreamTransport) and config.transport_socket is not None:
        config.transport_socket = _copied(config.transport_socket)
    elif isinstance(config, DownstreamTlsContext | UpstreamTlsContext):
        config.common_tls_context = _tls(config.common_tls_context)
    return made


def _tls(context: CommonTlsContext) -> CommonTlsContext:
    made = copy(context)
    made.tls_certificate_sds_secret_configs = [copy(c) for c in context.tls_certificate_sds_secret_configs]
    made.validation_context_sds_secret_config = copy(context.validation_context_sds_secret_config)
    if context.combined_validation_context is not None:
        both = made.combined_validation_context = copy(context.combined_validation_context)
        both.default_validation_context = copy(both.default_validation_context)
        both.validation_context_sds_secret_config = copy(both.validation_context_sds_secret_config)
    return made

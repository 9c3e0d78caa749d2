"""Listeners and their filter chains."""

from __future__ import annotations

from typing import Any as Json

from meshsim.xds.access_log import AccessLog
from meshsim.xds.http_connection_manager import HttpConnectionManager
from meshsim.xds.message import TYPE, Address, CidrRange, Message, Metadata, TypedMessage, TypedStruct
from meshsim.xds.rbac import NetworkRbac
from meshsim.xds.tcp_proxy import TcpProxy
from meshsim.xds.tls import TransportSocket


class TlsInspector(TypedMessage, tag=TYPE + "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"):
    pass


class HttpInspector(TypedMessage, tag=TYPE + "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector"):
    pass


class OriginalDst(TypedMessage, tag=TYPE + "envoy.extensions.filters.listener.original_dst.v3.OriginalDst"):
    pass


class ProxyProtocol(TypedMessage, tag=TYPE + "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol"):
    allow_requests_without_proxy_protocol: bool = False


class ListenerFilter(Message):
    name: str
    typed_config: TlsInspector | HttpInspector | OriginalDst | ProxyProtocol | TypedStruct
    filter_disabled: dict[str, Json] | None = None


class MongoProxy(TypedMessage, tag=TYPE + "envoy.extensions.filters.network.mongo_proxy.v3.MongoProxy"):
    stat_prefix: str = ""


class SniDynamicForwardProxy(TypedMessage, tag=TYPE + "envoy.extensions.filters.network.sni_dynamic_forward_proxy.v3.FilterConfig"):
    dns_cache_config: dict[str, Json] | None = None
    port_value: int | None = None


class SniCluster(TypedMessage, tag=TYPE + "envoy.extensions.filters.network.sni_cluster.v3.SniCluster"):
    """Takes the cluster's name from the SNI (AUTO_PASSTHROUGH)."""


class NetworkFilter(Message):
    name: str
    typed_config: HttpConnectionManager | TcpProxy | NetworkRbac | MongoProxy | SniDynamicForwardProxy | SniCluster | TypedStruct


class FilterChainMatch(Message):
    """Every criterion set must hold; an unset one is the least specific value."""

    destination_port: int | None = None
    prefix_ranges: list[CidrRange] = []
    server_names: list[str] = []
    transport_protocol: str = ""
    application_protocols: list[str] = []
    direct_source_prefix_ranges: list[CidrRange] = []
    source_type: str = "ANY"
    source_prefix_ranges: list[CidrRange] = []
    source_ports: list[int] = []


class FilterChain(Message):
    name: str = ""
    filter_chain_match: FilterChainMatch | None = None
    filters: list[NetworkFilter] = []
    transport_socket: TransportSocket | None = None
    transport_socket_connect_timeout: str | None = None
    metadata: Metadata | None = None


class Listener(Message):
    name: str
    address: Address
    filter_chains: list[FilterChain] = []
    default_filter_chain: FilterChain | None = None
    listener_filters: list[ListenerFilter] = []
    listener_filters_timeout: str | None = None
    continue_on_listener_filters_timeout: bool = False
    use_original_dst: bool | None = None
    bind_to_port: bool | None = None
    traffic_direction: str = "UNSPECIFIED"
    per_connection_buffer_limit_bytes: int | None = None
    max_connections_to_accept_per_socket_event: int | None = None
    stat_prefix: str = ""
    access_log: list[AccessLog] = []
    metadata: Metadata | None = None

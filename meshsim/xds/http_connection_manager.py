"""The HTTP connection manager: what a proxy does with every request before and after routing."""

from __future__ import annotations

from typing import Any as Json

from meshsim.xds.access_log import AccessLog
from meshsim.xds.http_filters import Cors, DynamicForwardProxyFilter, HttpFault, IstioAlpn, Router
from meshsim.xds.message import TYPE, ConfigSource, Message, TypedMessage, TypedStruct
from meshsim.xds.rbac import HttpRbac
from meshsim.xds.route import RouteConfiguration, UpgradeConfig


class Rds(Message):
    route_config_name: str
    config_source: ConfigSource | None = None


class HttpFilter(Message):
    name: str
    typed_config: Router | HttpFault | Cors | HttpRbac | DynamicForwardProxyFilter | IstioAlpn | TypedStruct
    disabled: bool = False


class Http1ProtocolOptions(Message):
    allow_absolute_url: bool | None = None
    accept_http_10: bool = False
    default_host_for_http_10: str = ""
    enable_trailers: bool = False
    header_key_format: dict[str, Json] | None = None


class Http2KeepAlive(Message):
    interval: str | None = None
    timeout: str | None = None


class Http2ProtocolOptions(Message):
    max_concurrent_streams: int | None = None
    initial_stream_window_size: int | None = None
    initial_connection_window_size: int | None = None
    allow_connect: bool = False
    connection_keepalive: Http2KeepAlive | None = None


class CommonHttpProtocolOptions(Message):
    idle_timeout: str | None = None
    max_connection_duration: str | None = None
    max_headers_count: int | None = None
    max_requests_per_connection: int | None = None
    max_stream_duration: str | None = None
    headers_with_underscores_action: str = "ALLOW"


class ClientCertDetails(Message):
    subject: bool | None = None
    cert: bool = False
    chain: bool = False
    dns: bool = False
    uri: bool = False


class HttpConnectionManager(
    TypedMessage, tag=TYPE + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
):
    stat_prefix: str = ""
    codec_type: str = "AUTO"
    rds: Rds | None = None
    route_config: RouteConfiguration | None = None
    http_filters: list[HttpFilter] = []
    common_http_protocol_options: CommonHttpProtocolOptions | None = None
    http_protocol_options: Http1ProtocolOptions | None = None
    http2_protocol_options: Http2ProtocolOptions | None = None
    server_name: str = ""
    server_header_transformation: str = "OVERWRITE"
    max_request_headers_kb: int | None = None
    stream_idle_timeout: str | None = None
    request_timeout: str | None = None
    request_headers_timeout: str | None = None
    drain_timeout: str | None = None
    delayed_close_timeout: str | None = None
    access_log: list[AccessLog] = []
    use_remote_address: bool | None = None
    xff_num_trusted_hops: int = 0
    skip_xff_append: bool = False
    append_x_forwarded_port: bool = False
    generate_request_id: bool | None = None
    preserve_external_request_id: bool = False
    always_set_request_id_in_response: bool = False
    request_id_extension: dict[str, Json] | None = None
    tracing: dict[str, Json] | None = None
    forward_client_cert_details: str = "SANITIZE"
    set_current_client_cert_details: ClientCertDetails | None = None
    proxy_100_continue: bool = False
    upgrade_configs: list[UpgradeConfig] = []
    normalize_path: bool | None = None
    merge_slashes: bool = False
    path_with_escaped_slashes_action: str = "IMPLEMENTATION_SPECIFIC_DEFAULT"
    strip_any_host_port: bool = False
    strip_matching_host_port: bool = False
    internal_address_config: dict[str, Json] | None = None

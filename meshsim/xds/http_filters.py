"""HTTP filters and their per-route configuration: fault, cors, router, dynamic forward proxy."""

from __future__ import annotations

from typing import Any as Json

from meshsim.xds.message import TYPE, Empty, FractionalPercent, Message, RuntimeFractionalPercent, StringMatcher, TypedMessage


class Router(TypedMessage, tag=TYPE + "envoy.extensions.filters.http.router.v3.Router"):
    suppress_envoy_headers: bool = False


class FaultDelay(Message):
    fixed_delay: str | None = None
    header_delay: Empty | None = None
    percentage: FractionalPercent | None = None


class FaultAbort(Message):
    http_status: int | None = None
    grpc_status: int | None = None
    header_abort: Empty | None = None
    percentage: FractionalPercent | None = None


class HttpFault(TypedMessage, tag=TYPE + "envoy.extensions.filters.http.fault.v3.HTTPFault"):
    delay: FaultDelay | None = None
    abort: FaultAbort | None = None
    upstream_cluster: str = ""


class Cors(TypedMessage, tag=TYPE + "envoy.extensions.filters.http.cors.v3.Cors"):
    pass


class CorsPolicy(TypedMessage, tag=TYPE + "envoy.extensions.filters.http.cors.v3.CorsPolicy"):
    allow_origin_string_match: list[StringMatcher] = []
    allow_methods: str = ""
    allow_headers: str = ""
    expose_headers: str = ""
    max_age: str = ""
    allow_credentials: bool | None = None
    filter_enabled: RuntimeFractionalPercent | None = None
    forward_not_matching_preflights: bool | None = None


class DynamicForwardProxyFilter(TypedMessage, tag=TYPE + "envoy.extensions.filters.http.dynamic_forward_proxy.v3.FilterConfig"):
    dns_cache_config: dict[str, Json] | None = None
    sub_cluster_config: dict[str, Json] | None = None


class IstioAlpn(TypedMessage, tag=TYPE + "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig"):
    """Istio's own filter that overrides the ALPN of an upstream connection by request; a plain Envoy does not have it."""

    alpn_override: list[dict[str, Json]] = []

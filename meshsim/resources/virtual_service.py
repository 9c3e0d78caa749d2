"""VirtualService: where a request for a host goes, and what is changed on the way."""

from __future__ import annotations

from meshsim.resources.message import Message, Percent, PortSelector, StringMatch


class HttpMatchRequest(Message):
    name: str = ""
    uri: StringMatch | None = None
    scheme: StringMatch | None = None
    method: StringMatch | None = None
    authority: StringMatch | None = None
    headers: dict[str, StringMatch | None] = {}
    port: int = 0
    source_labels: dict[str, str] = {}
    gateways: list[str] = []
    query_params: dict[str, StringMatch | None] = {}
    ignore_uri_case: bool = False
    without_headers: dict[str, StringMatch | None] = {}
    source_namespace: str = ""
    stat_prefix: str = ""


class Destination(Message):
    host: str = ""
    subset: str = ""
    port: PortSelector | None = None


class HeaderOperations(Message):
    set: dict[str, str] = {}
    add: dict[str, str] = {}
    remove: list[str] = []


class Headers(Message):
    request: HeaderOperations | None = None
    response: HeaderOperations | None = None


class HttpRouteDestination(Message):
    destination: Destination | None = None
    weight: int = 0
    headers: Headers | None = None


class HttpRedirect(Message):
    uri: str = ""
    prefix_rewrite: str = ""
    authority: str = ""
    port: int | None = None
    derive_port: str | None = None
    scheme: str = ""
    redirect_code: int = 0


class HttpBody(Message):
    string: str | None = None
    bytes: str | None = None  # base64


class HttpDirectResponse(Message):
    status: int = 0
    body: HttpBody | None = None


class Delegate(Message):
    name: str = ""
    namespace: str = ""


class RegexRewrite(Message):
    match: str = ""
    rewrite: str = ""


class HttpRewrite(Message):
    uri: str = ""
    authority: str = ""
    uri_regex_rewrite: RegexRewrite | None = None


class HttpRetry(Message):
    attempts: int = 0
    per_try_timeout: str | None = None
    retry_on: str = ""
    retry_remote_localities: bool | None = None
    retry_ignore_previous_hosts: bool | None = None
    backoff: str | None = None


class FaultDelay(Message):
    percent: int = 0  # deprecated
    fixed_delay: str | None = None
    exponential_delay: str | None = None
    percentage: Percent | None = None


class FaultAbort(Message):
    http_status: int | None = None
    grpc_status: str | None = None
    http2_error: str | None = None
    percentage: Percent | None = None


class HttpFaultInjection(Message):
    delay: FaultDelay | None = None
    abort: FaultAbort | None = None


class HttpMirrorPolicy(Message):
    destination: Destination | None = None
    percentage: Percent | None = None


class CorsPolicy(Message):
    allow_origin: list[str] = []  # deprecated
    allow_origins: list[StringMatch] = []
    allow_methods: list[str] = []
    allow_headers: list[str] = []
    expose_headers: list[str] = []
    max_age: str | None = None
    allow_credentials: bool | None = None
    unmatched_preflights: str = "UNSPECIFIED"


class HttpRoute(Message):
    name: str = ""
    match: list[HttpMatchRequest] = []
    route: list[HttpRouteDestination] = []
    redirect: HttpRedirect | None = None
    direct_response: HttpDirectResponse | None = None
    delegate: Delegate | None = None
    rewrite: HttpRewrite | None = None
    timeout: str | None = None
    retries: HttpRetry | None = None
    fault: HttpFaultInjection | None = None
    mirror: Destination | None = None
    mirrors: list[HttpMirrorPolicy] = []
    mirror_percent: int | None = None  # deprecated
    mirror_percentage: Percent | None = None
    cors_policy: CorsPolicy | None = None
    headers: Headers | None = None


class RouteDestination(Message):
    destination: Destination | None = None
    weight: int = 0


class TlsMatchAttributes(Message):
    sni_hosts: list[str] = []
    destination_subnets: list[str] = []
    port: int = 0
    source_labels: dict[str, str] = {}
    gateways: list[str] = []
    source_namespace: str = ""


class TlsRoute(Message):
    match: list[TlsMatchAttributes] = []
    route: list[RouteDestination] = []


class L4MatchAttributes(Message):
    destination_subnets: list[str] = []
    port: int = 0
    source_subnet: str = ""
    source_labels: dict[str, str] = {}
    gateways: list[str] = []
    source_namespace: str = ""


class TcpRoute(Message):
    match: list[L4MatchAttributes] = []
    route: list[RouteDestination] = []


class VirtualServiceSpec(Message):
    hosts: list[str] = []
    gateways: list[str] = []
    http: list[HttpRoute] = []
    tls: list[TlsRoute] = []
    tcp: list[TcpRoute] = []
    export_to: list[str] = []



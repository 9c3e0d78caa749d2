"""VirtualService: where a request for a host goes, and what is changed on the way."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from meshsim.resources.message import Message, OneOfMessage, Percent, PortSelector, StringMatch
from meshsim.resources.shape import Duration, Shape, UInt32, bounds, enum

DerivePort = Annotated[
    Literal["FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT"], enum("istio.networking.v1alpha3.HTTPRedirect.RedirectPortSelection")
]
UnmatchedPreflights = Annotated[
    Literal["UNSPECIFIED", "FORWARD", "IGNORE"], enum("istio.networking.v1alpha3.CorsPolicy.UnmatchedPreflights")
]


class HttpMatchRequest(Message):
    name: str = ""
    uri: StringMatch | None = None
    scheme: StringMatch | None = None
    method: StringMatch | None = None
    authority: StringMatch | None = None
    headers: dict[str, StringMatch | None] = {}
    port: UInt32 = 0
    source_labels: dict[str, str] = {}
    gateways: list[str] = []
    query_params: dict[str, StringMatch | None] = {}
    ignore_uri_case: bool = False
    without_headers: dict[str, StringMatch | None] = {}
    source_namespace: str = ""
    stat_prefix: str = ""


class Destination(Message):
    SHAPE: ClassVar[Shape] = Shape(required=("host",))

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
    SHAPE: ClassVar[Shape] = Shape(required=("destination",))

    destination: Destination | None = None
    weight: int = 0
    headers: Headers | None = None


class HttpRedirect(OneOfMessage):
    SHAPE: ClassVar[Shape] = Shape(one_of=(("port", "derivePort"),))

    uri: str = ""
    authority: str = ""
    port: UInt32 | None = None
    derive_port: DerivePort | None = None
    scheme: str = ""
    redirect_code: UInt32 = 0
    prefix_rewrite: str = ""


class HttpBody(OneOfMessage):
    SHAPE: ClassVar[Shape] = Shape(one_of=(("string", "bytes"),))

    string: str | None = None
    bytes: Annotated[str, bounds(format="byte")] | None = None  # base64


class HttpDirectResponse(Message):
    SHAPE: ClassVar[Shape] = Shape(required=("status",))

    status: UInt32 = 0
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
    per_try_timeout: Duration | None = None
    retry_on: str = ""
    retry_remote_localities: bool | None = None
    retry_ignore_previous_hosts: bool | None = None
    backoff: Duration | None = None


class FaultDelay(OneOfMessage):
    SHAPE: ClassVar[Shape] = Shape(one_of=(("fixedDelay", "exponentialDelay"),))

    percent: int = 0  # deprecated
    fixed_delay: Duration | None = None
    exponential_delay: Duration | None = None
    percentage: Percent | None = None


class FaultAbort(OneOfMessage):
    SHAPE: ClassVar[Shape] = Shape(one_of=(("httpStatus", "grpcStatus", "http2Error"),))

    http_status: int | None = None
    grpc_status: str | None = None
    http2_error: str | None = None
    percentage: Percent | None = None


class HttpFaultInjection(Message):
    delay: FaultDelay | None = None
    abort: FaultAbort | None = None


class HttpMirrorPolicy(Message):
    SHAPE: ClassVar[Shape] = Shape(required=("destination",))

    destination: Destination | None = None
    percentage: Percent | None = None


class CorsPolicy(Message):
    allow_origin: list[str] = []  # deprecated
    allow_origins: list[StringMatch] = []
    allow_methods: list[str] = []
    allow_headers: list[str] = []
    expose_headers: list[str] = []
    max_age: Duration | None = None
    allow_credentials: bool | None = None
    unmatched_preflights: UnmatchedPreflights = "UNSPECIFIED"


class HttpRoute(Message):
    SHAPE: ClassVar[Shape] = Shape(proto_names=(("mirror_percent", "mirrorPercent"),))

    name: str = ""
    match: list[HttpMatchRequest] = []
    route: list[HttpRouteDestination] = []
    redirect: HttpRedirect | None = None
    direct_response: HttpDirectResponse | None = None
    delegate: Delegate | None = None
    rewrite: HttpRewrite | None = None
    timeout: Duration | None = None
    retries: HttpRetry | None = None
    fault: HttpFaultInjection | None = None
    mirror: Destination | None = None
    mirrors: list[HttpMirrorPolicy] = []
    mirror_percent: UInt32 | None = None  # deprecated
    mirror_percentage: Percent | None = None
    cors_policy: CorsPolicy | None = None
    headers: Headers | None = None


class RouteDestination(Message):
    SHAPE: ClassVar[Shape] = Shape(required=("destination",))

    destination: Destination | None = None
    weight: int = 0


class TlsMatchAttributes(Message):
    SHAPE: ClassVar[Shape] = Shape(required=("sniHosts",))

    sni_hosts: list[str] = []
    destination_subnets: list[str] = []
    port: UInt32 = 0
    source_labels: dict[str, str] = {}
    gateways: list[str] = []
    source_namespace: str = ""


class TlsRoute(Message):
    SHAPE: ClassVar[Shape] = Shape(required=("match",))

    match: list[TlsMatchAttributes] = []
    route: list[RouteDestination] = []


class L4MatchAttributes(Message):
    destination_subnets: list[str] = []
    port: UInt32 = 0
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



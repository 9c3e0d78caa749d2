"""Route configurations: which host and path goes where, and what is changed on the way."""

from __future__ import annotations

from meshsim.xds.http_filters import Cors, CorsPolicy, HttpFault
from meshsim.xds.message import (
    TYPE,
    DataSource,
    Empty,
    HeaderValueOption,
    Message,
    Metadata,
    Percent,
    Regex,
    RegexRewrite,
    RuntimeFractionalPercent,
    StringMatcher,
    TypedMessage,
)


class RangeMatch(Message):
    start: str = "0"
    end: str = "0"


class HeaderMatcher(Message):
    name: str
    string_match: StringMatcher | None = None
    present_match: bool | None = None
    range_match: RangeMatch | None = None
    invert_match: bool = False
    treat_missing_header_as_empty: bool = False


class QueryParameterMatcher(Message):
    name: str
    string_match: StringMatcher | None = None
    present_match: bool | None = None


class RouteMatch(Message):
    prefix: str | None = None
    path: str | None = None
    safe_regex: Regex | None = None
    path_separated_prefix: str | None = None
    connect_matcher: Empty | None = None
    case_sensitive: bool | None = None
    headers: list[HeaderMatcher] = []
    query_parameters: list[QueryParameterMatcher] = []
    runtime_fraction: RuntimeFractionalPercent | None = None


class ClusterWeight(Message):
    name: str
    weight: int | None = None
    request_headers_to_add: list[HeaderValueOption] = []
    request_headers_to_remove: list[str] = []
    response_headers_to_add: list[HeaderValueOption] = []
    response_headers_to_remove: list[str] = []
    host_rewrite_literal: str = ""


class WeightedCluster(Message):
    clusters: list[ClusterWeight] = []


class PreviousHostsPredicate(TypedMessage, tag=TYPE + "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"):
    pass


class RetryHostPredicate(Message):
    name: str
    typed_config: PreviousHostsPredicate | None = None


class PreviousPrioritiesConfig(TypedMessage, tag=TYPE + "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig"):
    update_frequency: int = 0


class RetryPriority(Message):
    name: str
    typed_config: PreviousPrioritiesConfig | None = None


class RetryBackOff(Message):
    base_interval: str
    max_interval: str | None = None


class RetryPolicy(Message):
    retry_on: str = ""
    num_retries: int | None = None
    per_try_timeout: str | None = None
    retry_priority: RetryPriority | None = None
    retry_host_predicate: list[RetryHostPredicate] = []
    host_selection_retry_max_attempts: str | None = None  # int64
    retriable_status_codes: list[int] = []
    retry_back_off: RetryBackOff | None = None


class RequestMirrorPolicy(Message):
    cluster: str
    runtime_fraction: RuntimeFractionalPercent | None = None
    trace_sampled: bool | None = None
    disable_shadow_host_suffix_append: bool = False


class HashHeader(Message):
    header_name: str


class CookieAttribute(Message):
    name: str
    value: str = ""


class HashCookie(Message):
    name: str
    ttl: str | None = None
    path: str = ""
    attributes: list[CookieAttribute] = []


class HashConnection(Message):
    source_ip: bool = False


class HashQueryParameter(Message):
    name: str


class HashPolicy(Message):
    header: HashHeader | None = None
    cookie: HashCookie | None = None
    connection_properties: HashConnection | None = None
    query_parameter: HashQueryParameter | None = None
    terminal: bool = False


class UpgradeConfig(Message):
    upgrade_type: str
    enabled: bool | None = None
    connect_config: Empty | None = None


class MaxStreamDuration(Message):
    max_stream_duration: str | None = None
    grpc_timeout_header_max: str | None = None


class RouteAction(Message):
    cluster: str | None = None
    cluster_header: str | None = None
    weighted_clusters: WeightedCluster | None = None
    cluster_not_found_response_code: str = "SERVICE_UNAVAILABLE"
    prefix_rewrite: str = ""
    regex_rewrite: RegexRewrite | None = None
    host_rewrite_literal: str = ""
    auto_host_rewrite: bool | None = None
    append_x_forwarded_host: bool = False
    timeout: str | None = None
    idle_timeout: str | None = None
    max_grpc_timeout: str | None = None
    max_stream_duration: MaxStreamDuration | None = None
    retry_policy: RetryPolicy | None = None
    request_mirror_policies: list[RequestMirrorPolicy] = []
    hash_policy: list[HashPolicy] = []
    upgrade_configs: list[UpgradeConfig] = []


class RedirectAction(Message):
    host_redirect: str = ""
    path_redirect: str | None = None
    prefix_rewrite: str | None = None
    regex_rewrite: RegexRewrite | None = None
    scheme_redirect: str | None = None
    https_redirect: bool | None = None
    port_redirect: int | None = None
    response_code: str = "MOVED_PERMANENTLY"
    strip_query: bool = False


class DirectResponseAction(Message):
    status: int
    body: DataSource | None = None


class Decorator(Message):
    operation: str
    propagate: bool | None = None


class Tracing(Message):
    client_sampling: Percent | None = None
    random_sampling: Percent | None = None
    overall_sampling: Percent | None = None


class Route(Message):
    match: RouteMatch
    name: str = ""
    route: RouteAction | None = None
    redirect: RedirectAction | None = None
    direct_response: DirectResponseAction | None = None
    non_forwarding_action: Empty | None = None
    metadata: Metadata | None = None
    decorator: Decorator | None = None
    typed_per_filter_config: dict[str, HttpFault | CorsPolicy | Cors] = {}
    request_headers_to_add: list[HeaderValueOption] = []
    request_headers_to_remove: list[str] = []
    response_headers_to_add: list[HeaderValueOption] = []
    response_headers_to_remove: list[str] = []
    stat_prefix: str = ""


class VirtualHost(Message):
    name: str
    domains: list[str]
    routes: list[Route] = []
    require_tls: str = "NONE"
    include_request_attempt_count: bool = False
    retry_policy: RetryPolicy | None = None
    metadata: Metadata | None = None
    request_headers_to_add: list[HeaderValueOption] = []
    request_headers_to_remove: list[str] = []
    response_headers_to_add: list[HeaderValueOption] = []
    response_headers_to_remove: list[str] = []


class RouteConfiguration(Message):
    name: str
    virtual_hosts: list[VirtualHost] = []
    validate_clusters: bool | None = None
    max_direct_response_body_size_bytes: int | None = None
    ignore_port_in_host_matching: bool = False
    request_headers_to_add: list[HeaderValueOption] = []
    request_headers_to_remove: list[str] = []
    response_headers_to_add: list[HeaderValueOption] = []
    response_headers_to_remove: list[str] = []
    metadata: Metadata | None = None

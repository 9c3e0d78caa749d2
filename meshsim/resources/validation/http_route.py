"""One HTTP rule of a VirtualService (Istio: validateHTTPRoute)."""

from __future__ import annotations

from http import HTTPStatus

from meshsim.resources.message import Percent, StringMatch
from meshsim.resources.shape import nanoseconds
from meshsim.resources.validation import headers, names
from meshsim.resources.validation.golang import integer, number, quote
from meshsim.resources.validation.regexp import regex_error
from meshsim.resources.validation.report import Report
from meshsim.resources.validation.virtual_service import At, destination, gateway_names, total_weight
from meshsim.resources.virtual_service import (
    CorsPolicy,
    HttpDirectResponse,
    HttpFaultInjection,
    HttpMatchRequest,
    HttpRedirect,
    HttpRetry,
    HttpRewrite,
    HttpRoute,
)

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "*")
_RETRY_ON = frozenset((
    "5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "retriable-4xx", "refused-stream", "retriable-status-codes",
    "retriable-headers", "envoy-ratelimited", "http3-post-connect-failure", "cancelled", "deadline-exceeded", "internal",
    "resource-exhausted", "unavailable",
))  # fmt: skip
_STATUSES = {int(status) for status in HTTPStatus} - {306, 418} | {418}
_GRPC = frozenset((
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
    "UNAUTHENTICATED",
))  # fmt: skip


def http_route(http: HttpRoute, report: Report, i: int, *, delegate: bool) -> None:
    at = ("http", i)
    _conflicts(http, report, at, delegate=delegate)
    for j, match in enumerate(http.match):
        _match(match, report, (*at, "match", j))
    for j, match in enumerate(http.match):
        _static_match(match, report, (*at, "match", j))
    for said, path in headers.operations(http.headers):
        report.error(said, *at, "headers", *path)
    _cors(http.cors_policy, report, (*at, "corsPolicy"))
    _fault(http.fault, report, (*at, "fault"))
    _mirrors(http, report, at)
    if http.redirect is not None:
        report.check(_redirect(http.redirect, http.match), *at, "redirect")
    _direct_response(http.direct_response, report, (*at, "directResponse"))
    _retries(http.retries, report, (*at, "retries"))
    if http.rewrite is not None:
        report.check(_rewrite(http.rewrite), *at, "rewrite")
    _authority_once(http, report, at)
    for j, route in enumerate(http.route):
        here = (*at, "route", j)
        if route.destination is None:
            report.error("destination is required", *here)
        for said, path in headers.operations(route.headers):
            report.error(said, *here, "headers", *path)
        if route.destination is not None:
            destination(route.destination, report, (*here, "destination"))
        if route.weight < 0:
            report.error(f"weight {route.weight} < 0", *here, "weight")
    total_weight([route.weight for route in http.route], report, (*at, "route"))
    report.check(names.duration(http.timeout), *at, "timeout")


def _conflicts(http: HttpRoute, report: Report, at: At, *, delegate: bool) -> None:
    if http.delegate is not None and not delegate:
        if http.redirect is not None:
            report.error(f"root HTTP route {http.name} must not specify redirect", *at, "redirect")
        if http.route:
            report.error(f"root HTTP route {http.name} must not specify route", *at, "route")
        return
    if http.delegate is not None:
        report.error("delegate HTTP route cannot contain delegate", *at, "delegate")
    if http.redirect is not None:
        _excludes(http, "redirect", report, at)
        if http.direct_response is not None:
            report.error("HTTP route rule cannot contain both direct_response and redirect", *at, "directResponse")
    elif http.direct_response is not None:
        _excludes(http, "direct_response", report, at)
    elif not http.route:
        report.error("HTTP route, redirect or direct_response is required", *at)
    if http.mirror is not None and http.mirrors:
        report.error("HTTP route cannot contain both mirror and mirrors", *at, "mirrors")


def _excludes(http: HttpRoute, action: str, report: Report, at: At) -> None:
    if http.route:
        report.error(f"HTTP route cannot contain both route and {action}", *at, "route")
    if http.fault is not None:
        report.error(f"HTTP route cannot contain both fault and {action}", *at, "fault")
    if http.rewrite is not None:
        report.error(f"HTTP route rule cannot contain both rewrite and {action}", *at, "rewrite")


def _string_match(match: StringMatch | None, where: str) -> str | None:
    if match is not None and match.prefix == "" and match.exact is None and match.regex is None:
        return f"{quote(where)}: prefix string match should not be empty"
    return _regex(match, where)


def _regex(match: StringMatch | None, where: str) -> str | None:
    if match is None or match.regex is None:
        return None
    return f"{quote(where)}: regex string match should not be empty" if match.regex == "" else _compiles(match.regex, where)


def _compiles(regex: str, where: str) -> str | None:
    if len(regex.encode()) > 1024:
        return f"{quote(where)}: regex is too large, max length allowed is 1024"
    said = regex_error(regex)
    return said and f"{quote(where)}: {said}; Istio uses RE2 style regex-based match (https://github.com/google/re2/wiki/Syntax)"


def _match(match: HttpMatchRequest, report: Report, at: At) -> None:
    for name, header in match.headers.items():
        report.check(headers.match_name(name), *at, "headers", name)
        report.check(_string_match(header, "headers"), *at, "headers", name)
    for name, header in match.without_headers.items():
        report.check(headers.match_name(name), *at, "withoutHeaders", name)
        if header is not None and header.regex != "*":  # here a lone star means: present
            report.check(_string_match(header, "withoutHeaders"), *at, "withoutHeaders", name)
    report.check(_regex(match.uri, "uri"), *at, "uri")
    for field, match_of in (("scheme", match.scheme), ("method", match.method), ("authority", match.authority)):
        report.check(_string_match(match_of, field), *at, field)
    for name, param in match.query_params.items():
        report.check(_string_match(param, "queryParams"), *at, "queryParams", name)


def _static_match(match: HttpMatchRequest, report: Report, at: At) -> None:
    if match.port:
        report.check(names.port(match.port), *at, "port")
    for said, key in names.labels(match.source_labels):
        report.error(said, *at, "sourceLabels", key)
    with report.without_warnings():
        gateway_names(match.gateways, report, (*at, "gateways"))
    if match.source_namespace and not names.is_label(match.source_namespace):
        report.error(f"sourceNamespace match {match.source_namespace} is invalid", *at, "sourceNamespace")


def _cors(policy: CorsPolicy | None, report: Report, at: At) -> None:
    if policy is None:
        return
    for i, origin in enumerate(policy.allow_origins):
        if not (origin.exact or origin.prefix or origin.regex):
            report.error("'' is not a valid match type for CORS allow origins", *at, "allowOrigins", i)
        else:
            report.check(_regex(origin, "corsPolicy.allowOrigins"), *at, "allowOrigins", i)
    for i, method in enumerate(policy.allow_methods):
        if method not in _METHODS:
            report.error(f"{quote(method)} is not a supported HTTP method", *at, "allowMethods", i)
    for i, name in enumerate(policy.allow_headers):
        report.check(headers.cors_name(name), *at, "allowHeaders", i)
    for i, name in enumerate(policy.expose_headers):
        report.check(headers.cors_name(name), *at, "exposeHeaders", i)
    if policy.max_age is not None:
        report.check(names.duration(policy.max_age), *at, "maxAge")
        if nanoseconds(policy.max_age) % 1_000_000_000 and nanoseconds(policy.max_age) > 0:
            report.error("max_age duration is accurate only to seconds precision", *at, "maxAge")


def _share(percentage: Percent | None) -> str | None:
    if percentage is None or percentage.value == 0.0 or 0.0001 <= percentage.value <= 100.0:
        return None
    return f"percentage {number(percentage.value)} is neither 0.0, nor in range [0.0001, 100.0]"


def _fault(fault: HttpFaultInjection | None, report: Report, at: At) -> None:
    if fault is None:
        return
    if fault.abort is None and fault.delay is None:
        report.error("HTTP fault injection must have an abort and/or a delay", *at)
    if (abort := fault.abort) is not None:
        here = (*at, "abort")
        report.check(_share(abort.percentage), *here, "percentage")
        if abort.http_status is not None:
            report.check(_status(abort.http_status), *here, "httpStatus")
        elif abort.grpc_status is not None:
            if abort.grpc_status not in _GRPC:
                report.error(f"gRPC status {quote(abort.grpc_status)} is not supported. See "
                             "https://github.com/grpc/grpc/blob/master/doc/statuscodes.md for a list of supported codes, for example "
                             "'NOT_FOUND'", *here, "grpcStatus")
        elif abort.http2_error is not None:
            report.error("HTTP/2 abort fault injection not supported yet", *here, "http2Error")
    if (delay := fault.delay) is not None:
        here = (*at, "delay")
        report.check(_share(delay.percentage), *here, "percentage")
        report.check(names.duration(delay.fixed_delay), *here, "fixedDelay")
        if delay.exponential_delay is not None:
            report.check(names.duration(delay.exponential_delay), *here, "exponentialDelay")
            report.error("exponentialDelay not supported yet", *here, "exponentialDelay")


def _status(status: int) -> str | None:
    return None if 200 <= status <= 600 else f"HTTP status {status} is not in range 200-599"


def _percent(value: float, name: str) -> str | None:
    if value > 100:
        return f"{name} must have a max value of 100 (it has {value:f})"
    return f"{name} must have a min value of 0 (it has {value:f})" if value < 0 else None


def _mirrors(http: HttpRoute, report: Report, at: At) -> None:
    if http.mirror_percent is not None:
        if http.mirror_percent > 100:
            report.error(f"mirror_percent must have a max value of 100 (it has {http.mirror_percent})", *at, "mirrorPercent")
        report.warn('using deprecated setting "mirrorPercent", use "mirrorPercentage" instead', *at, "mirrorPercent")
    if http.mirror_percentage is not None:
        report.check(_percent(http.mirror_percentage.value, "mirror_percentage"), *at, "mirrorPercentage")
    if http.mirror is not None:
        destination(http.mirror, report, (*at, "mirror"))
    for i, mirror in enumerate(http.mirrors):
        here = (*at, "mirrors", i)
        if mirror.destination is None:
            report.error("destination is required for mirrors", *here)
            continue
        destination(mirror.destination, report, (*here, "destination"))
        if mirror.percentage is not None:
            report.check(_percent(mirror.percentage.value, "mirror percentage"), *here, "percentage")


def _redirect(redirect: HttpRedirect, matches: list[HttpMatchRequest]) -> str | None:
    if redirect.uri and redirect.prefix_rewrite:
        return "redirect may only specify one of uri or prefix_rewrite"
    if redirect.prefix_rewrite and any(match.uri is not None and match.uri.prefix is None for match in matches):
        return "redirect prefix_rewrite requires all URI matches to use prefix match type"
    has_port = redirect.port is not None or redirect.derive_port is not None
    if not (redirect.uri or redirect.prefix_rewrite or redirect.authority or has_port or redirect.scheme):
        return "redirect must specify URI, authority, scheme, or port"
    if redirect.redirect_code and not 300 <= redirect.redirect_code <= 399:
        return f"{redirect.redirect_code} is not a valid redirect code, must be 3xx"
    if redirect.scheme not in ("", "http", "https"):
        return 'invalid redirect scheme, must be "http" or "https"'
    return names.port(redirect.port) if redirect.port else None


def _direct_response(response: HttpDirectResponse | None, report: Report, at: At) -> None:
    if response is None:
        return
    body = response.body
    size = len((body.string or "").encode()) or len(body.bytes or "") * 3 // 4 if body else 0
    said = "large direct_responses may impact control plane performance"
    if size > 1024 * 1024:
        report.error(f"{said}, must be less than 1MB", *at, "body")
    elif size > 100 * 1024:
        report.warn(said, *at, "body")
    report.check(_status(response.status), *at, "status")


def _retries(retries: HttpRetry | None, report: Report, at: At) -> None:
    if retries is None:
        return
    if retries.attempts < 0:
        report.error("attempts cannot be negative", *at, "attempts")
    configured = retries.per_try_timeout is not None or retries.retry_on or retries.retry_remote_localities is not None
    if retries.attempts == 0 and configured:
        report.error("http retry policy configured when attempts are set to 0 (disabled)", *at)
    report.check(names.duration(retries.per_try_timeout), *at, "perTryTimeout")
    for policy in retries.retry_on.split(",") if retries.retry_on else ():
        if policy not in _RETRY_ON and integer(policy) not in _STATUSES:
            report.error(f"{quote(policy)} is not a valid retryOn policy", *at, "retryOn")
    report.check(names.duration(retries.backoff), *at, "backoff")


def _rewrite(rewrite: HttpRewrite) -> str | None:
    regex = rewrite.uri_regex_rewrite
    if rewrite.uri and regex is not None:
        return "rewrite may only contain one of URI or UriRegexRewrite"
    if not rewrite.uri and regex is None and not rewrite.authority:
        return ("rewrite must specify at least one of URI, UriRegexRewrite, or authority. Only one of URI or UriRegexRewrite may be "
                "specified")
    if regex is None:
        return None
    if not regex.match or not regex.rewrite:
        said: str | None = "UriRegexRewrite requires both Rewrite and Match fields to be specified"
    else:
        said = _compiles(regex.match, "HTTPRewrite.UriRegexRewrite.Match")
    return said and f"UriRegexRewrite has errors\n{said}"


def _authority_once(http: HttpRoute, report: Report, at: At) -> None:
    current = http.rewrite.authority if http.rewrite else ""
    request = http.headers.request if http.headers else None
    for action in ("set", "add"):
        for name, value in (getattr(request, action) if request else {}).items():
            if not headers.is_authority(name):
                continue
            if current:
                report.error(f"authority header cannot be set multiple times: have {quote(current)}, attempting to set {quote(value)}",
                             *at, "headers", "request", action, name)
                return
            current = value

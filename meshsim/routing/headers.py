"""What a proxy does to headers: what it takes away, what it adds, and in which order the configuration's own changes apply.

Envoy's rules. The order of header operations is: weighted leg, route, virtual host, route configuration, so the outermost overwrite
wins; within one level removals come first.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from urllib.parse import quote

from meshsim.routing.facts import Downstream, Endpoint, address
from meshsim.routing.message import Headers, Request, replaced, tokens, without
from meshsim.xds.http_connection_manager import HttpConnectionManager
from meshsim.xds.message import HeaderValueOption

XFF, XFP, XFCC = "x-forwarded-for", "x-forwarded-proto", "x-forwarded-client-cert"
XF_PORT = "x-forwarded-port"
REQUEST_ID, EXTERNAL, INTERNAL = "x-request-id", "x-envoy-external-address", "x-envoy-internal"
DECORATOR, ATTEMPTS = "x-envoy-decorator-operation", "x-envoy-attempt-count"
ORIGINAL_PATH, ORIGINAL_HOST = "x-envoy-original-path", "x-envoy-original-host"
EXPECTED_TIMEOUT, SERVICE_TIME = "x-envoy-expected-rq-timeout-ms", "x-envoy-upstream-service-time"

# What an external client must not tell a proxy, whatever its position.
_UNTRUSTED = frozenset(
    f"x-envoy-{name}"
    for name in (
        "upstream-rq-timeout-ms", "upstream-rq-per-try-timeout-ms", "max-retries", "retry-on", "retry-grpc-on", "retriable-status-codes",
        "retriable-header-names", "hedge-on-per-try-timeout", "upstream-alt-stat-name", "force-trace", "ip-tags", "expected-rq-timeout-ms",
        "upstream-rq-timeout-alt-response", "upstream-stream-duration-ms",
    )
)
# ... and what one at the edge of the mesh must not.
_UNTRUSTED_AT_EDGE = frozenset((DECORATOR, ORIGINAL_PATH, ORIGINAL_HOST, "x-envoy-downstream-service-cluster"))
BODILESS = frozenset(("GET", "HEAD", "DELETE", "TRACE", "CONNECT"))
"""Methods whose requests go out over HTTP/1 without `content-length: 0` when there is no body (Envoy; RFC 9110 8.6)."""

_HOP_BY_HOP = frozenset(("host", "connection", "keep-alive", "proxy-connection", "transfer-encoding"))
_DROPPED = _HOP_BY_HOP | _UNTRUSTED | {INTERNAL}
_DROPPED_AT_EDGE = _DROPPED | _UNTRUSTED_AT_EDGE
_CONDITIONAL = frozenset(("connection", "upgrade", "te", "expect"))

# Headers of which Envoy holds one only: another value that is added goes behind a comma, where other headers come twice.
_SINGLE = ("cache-control", "content-encoding", "content-type", "via", ATTEMPTS, DECORATOR, REQUEST_ID)
SINGLE_IN_REQUESTS = frozenset((
    *_SINGLE, "accept", "accept-encoding", "access-control-request-headers", "access-control-request-method", "authorization",
    "grpc-timeout", "if-match", "if-modified-since", "if-none-match", "origin", "pragma", "referer", "te", "user-agent",
    "x-client-trace-id", "x-envoy-downstream-service-cluster", "x-envoy-downstream-service-node", EXTERNAL, ORIGINAL_PATH,
    ORIGINAL_HOST, XFF, XFP, XFCC, XF_PORT, "x-forwarded-host",
))  # fmt: skip
SINGLE_IN_RESPONSES = frozenset((
    *_SINGLE, "access-control-allow-origin", "access-control-expose-headers", "age", "date", "etag", "expires", "last-modified", "location",
    "vary", "x-envoy-degraded", "x-envoy-ratelimited", "x-envoy-upstream-canary",
))  # fmt: skip

# What tells a router how to retry. It never goes on, not even where a rule of the route itself has added it.
RETRY_ON, MAX_RETRIES = ("x-envoy-retry-on", "x-envoy-retry-grpc-on"), "x-envoy-max-retries"
RETRY_ADVICE = frozenset((
    *RETRY_ON, MAX_RETRIES, "x-envoy-hedge-on-per-try-timeout", "x-envoy-retriable-header-names", "x-envoy-retriable-status-codes",
))  # fmt: skip

Substitute = Callable[[str], str]


def incoming(
    request: Request, downstream: Downstream, manager: HttpConnectionManager, rng: random.Random
) -> Endpoint:
    """Change a request's headers as a connection manager does before routing; who the client is, as logs say it."""
    edge = manager.use_remote_address is True
    dropped = _DROPPED_AT_EDGE if edge else _DROPPED
    names = {name for name, _ in request.headers}
    if not _CONDITIONAL.isdisjoint(names):
        headers = _without_hop_by_hop(request, dropped, continues=manager.proxy_100_continue)
        names = {name for name, _ in headers}
    elif names.isdisjoint(dropped):
        headers = request.headers.copy()
    else:
        headers = [pair for pair in request.headers if pair[0] not in dropped]
    scheme = "https" if downstream.secure else "http"
    remote = downstream.source
    forwarded = next((v for n, v in headers if n == XFF), None) if XFF in names else None
    if edge:
        if not manager.skip_xff_append:
            own = downstream.source.host
            headers = replaced(headers, XFF, f"{forwarded},{own}" if forwarded else own)
        headers = replaced(headers, XFP, scheme)
        headers = replaced(headers, EXTERNAL, downstream.source.host)
        if manager.generate_request_id is not False and not manager.preserve_external_request_id:
            headers = without(headers, REQUEST_ID)
    else:
        if forwarded:
            last = forwarded.rpartition(",")[2].strip()
            if address(last) is not None:
                remote = Endpoint(last, 0)
        if XFP not in names:
            headers.append((XFP, scheme))
    request.scheme = next((v for n, v in headers if n == XFP), scheme) if XFP in names else scheme
    if manager.append_x_forwarded_port and (edge or XF_PORT not in names):
        headers = replaced(headers, XF_PORT, str(downstream.destination.port))
    if XFCC in names or downstream.peer is not None:
        headers = _client_certificate(headers, downstream, manager)
    if manager.generate_request_id is not False and (REQUEST_ID not in names or (edge and not manager.preserve_external_request_id)):
        headers.append((REQUEST_ID, request_id(rng)))
    request.headers = headers
    return remote


def milliseconds(seconds: float) -> str:
    """A time as headers tell it."""
    return str(int(seconds * 1000 + _ROUNDING))


_ROUNDING = 0.5  # ms: a time of day as a float is no exact number of them


def request_id(rng: random.Random) -> str:
    """A random UUID (RFC 9562 version 4)."""
    bits = rng.getrandbits(128) & ~(0xF000 << 64 | 0xC000 << 48) | 4 << 76 | 8 << 60
    text = f"{bits:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _without_hop_by_hop(request: Request, dropped: frozenset[str], *, continues: bool) -> Headers:
    """The headers without what is meant for this hop alone, among it what `connection` names; an upgrade goes on as it was asked for.

    continues: whether the host shall say that it wants the body, and not the proxy.
    """
    named = set() if request.upgrade else set(tokens(v for n, v in request.headers if n == "connection"))
    gone = dropped - {"connection"} if request.upgrade else dropped | named
    keep_te = "trailers" in tokens(v for n, v in request.headers if n == "te")
    conditional = ("upgrade", "te") if continues else ("upgrade", "te", "expect")
    headers = [(n, v) for n, v in request.headers if n not in gone and (n not in conditional or _kept(n, v, request))]
    if keep_te and "te" not in named:
        headers.append(("te", "trailers"))
    return headers


def _kept(name: str, value: str, request: Request) -> bool:
    """Whether an `upgrade`, `te` or `expect` header goes on: an upgrade that is under way, and expectations Envoy does not meet itself."""
    if name == "upgrade":
        return bool(request.upgrade)
    return name == "expect" and value.lower() != "100-continue"


def _client_certificate(headers: Headers, downstream: Downstream, manager: HttpConnectionManager) -> Headers:
    """x-forwarded-client-cert as `forward_client_cert_details` says."""
    mode = manager.forward_client_cert_details
    peer = downstream.peer
    if mode in ("ALWAYS_FORWARD_ONLY",) or (mode == "FORWARD_ONLY" and peer is not None):
        return headers
    if peer is None or mode in ("SANITIZE", "FORWARD_ONLY"):
        return without(headers, XFCC)
    details = manager.set_current_client_cert_details
    parts = [f"By={uri}" for uri in downstream.local_uris[:1]] + [f"Hash={peer.sha256}"]
    if details is not None:
        if details.cert and peer.pem:
            parts.append(f'Cert="{_quoted(peer.pem)}"')
        if details.chain and peer.pem:
            parts.append(f'Chain="{_quoted(peer.pem)}"')
        if details.subject:
            parts.append(f'Subject="{peer.subject}"')
        if details.uri:
            parts += [f"URI={uri}" for uri in peer.uris] or ["URI="]
        if details.dns:
            parts += [f"DNS={name}" for name in peer.dns]
    value = ";".join(parts)
    before = next((v for n, v in headers if n == XFCC), "")
    if mode == "APPEND_FORWARD" and before:
        value = f"{before},{value}"
    return replaced(headers, XFCC, value)


@lru_cache(maxsize=256)
def _quoted(pem: str) -> str:
    """Cached: every request of a connection comes with the same certificate."""
    return quote(pem, safe="")


def changed(
    headers: Headers,
    levels: Iterable[tuple[Sequence[str], Sequence[HeaderValueOption]]],
    substitute: Substitute,
    single: frozenset[str] = frozenset(),
) -> Headers:
    """Apply removals and additions level by level. single: the headers whose values are joined rather than sent twice."""
    for removed, added in levels:
        if removed:
            gone = {name.lower() for name in removed}
            headers = [pair for pair in headers if pair[0] not in gone]
        for option in added:
            headers = _added(headers, option, substitute, single)
    return headers


def _added(headers: Headers, option: HeaderValueOption, substitute: Substitute, single: frozenset[str]) -> Headers:
    name, value = option.header.key.lower(), option.header.value
    if "%" in value:
        value = substitute(value)
    if not value and not option.keep_empty_value:
        return headers
    present = any(n == name for n, _ in headers)
    if option.append_action == "ADD_IF_ABSENT":
        return headers if present else [*headers, (name, value)]
    if option.append_action == "OVERWRITE_IF_EXISTS_OR_ADD" or (option.append_action == "OVERWRITE_IF_EXISTS" and present):
        return [*without(headers, name), (name, value)]
    if option.append_action == "OVERWRITE_IF_EXISTS":
        return headers
    if present and name in single:
        before = ",".join(v for n, v in headers if n == name)
        return replaced(headers, name, f"{before},{value}")
    return [*headers, (name, value)]

"""Heads of HTTP/2 messages: the fields of a HEADERS frame, and what they say (RFC 9113 8.3)."""

from __future__ import annotations

from collections.abc import Iterable

from meshsim.routing import replies
from meshsim.routing.http1 import Refused, Rules, without_underscores
from meshsim.routing.message import Headers, Request, Response

VERSION = "HTTP/2"
Fields = Iterable[tuple[bytes, bytes]]
_NOT_ON_HTTP2 = frozenset(("connection", "upgrade", "keep-alive", "proxy-connection", "transfer-encoding", "host"))


def request(fields: Fields, *, ends: bool) -> Request:
    """A request from the fields of its HEADERS; cookies that were split are one again (RFC 9113 8.2.3)."""
    pseudo: dict[str, str] = {}
    headers: Headers = []
    cookies: list[str] = []
    for name, value in decoded(fields):
        if name.startswith(":"):
            pseudo[name] = value
        elif name == "host":
            pseudo.setdefault(":authority", value)
        elif name == "cookie":
            cookies.append(value)
        else:
            headers.append((name, value))
    if cookies:
        headers.append(("cookie", "; ".join(cookies)))
    return Request(
        method=pseudo.get(":method", ""),
        path=pseudo.get(":path", ""),
        authority=pseudo.get(":authority", ""),
        scheme=pseudo.get(":scheme", "http"),
        headers=headers,
        version=VERSION,
        ends=ends,
    )


def refused(request: Request, size: int, rules: Rules) -> str:
    """The details of a request whose stream is reset for what its head is; drops headers where `rules` want that. size: of the head."""
    if size > rules.max_headers:
        return replies.HEADERS_TOO_LARGE
    if len(request.headers) > rules.max_count:
        return replies.TOO_MANY_HEADERS
    if rules.underscores != "ALLOW":
        try:
            request.headers = without_underscores(request.headers, rules.underscores)
        except Refused:
            return replies.UNEXPECTED_UNDERSCORE
    return ""


def of_request(request: Request) -> list[tuple[bytes, bytes]]:
    """The fields of a request's HEADERS, in Envoy's order; CONNECT has neither path nor scheme (RFC 9113 8.5)."""
    pseudo = [(":authority", request.authority), (":path", request.path), (":method", request.method), (":scheme", request.scheme)]
    if request.method == "CONNECT":
        pseudo = [(":authority", request.authority), (":method", request.method)]
    return [*encoded(pseudo), *encoded(request.headers)]


def response(fields: Fields, *, ends: bool) -> Response:
    """A response from the fields of its HEADERS."""
    headers = decoded(fields)
    status = next((int(value) for name, value in headers if name == ":status"), 0)
    return Response(status, [pair for pair in headers if not pair[0].startswith(":")], ends, VERSION)


def sound(response: Response) -> bool:
    """Whether an HTTP/2 client takes the response's head: one that cannot have a body must not announce any (Envoy resets the stream)."""
    empty = response.status == 204 or response.status < 200
    return not empty or response.version != VERSION or response.first("content-length") in (None, "0")


def of_response(response: Response) -> list[tuple[bytes, bytes]]:
    """The fields of a response's HEADERS."""
    return [(b":status", b"%d" % response.status), *encoded(response.headers)]


def encoded(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Fields without what HTTP/2 has no headers for."""
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers if name not in _NOT_ON_HTTP2]


def decoded(fields: Fields) -> Headers:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields]

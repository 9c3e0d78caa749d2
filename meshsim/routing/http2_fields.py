"""Heads of HTTP/2 messages: the fields of a HEADERS frame, and what they say (RFC 9113 8.3)."""

from __future__ import annotations

from meshsim.routing import http1, replies
from meshsim.routing.http1 import Rules
from meshsim.routing.message import Headers, Request, Response, without

VERSION = "HTTP/2"
UNKNOWN_FIELD = "http2.invalid.header.field"  # the details of a request whose connection ends for its fields
VIOLATION = "http2.violation.of.messaging.rule"  # ... for what it asks for, which nobody can read
CONTINUE: Headers = [(":status", "100")]
SENSITIVE = frozenset(("authorization", "proxy-authorization", "cookie", "set-cookie"))
"""Headers that no table may keep, so that nobody can find them out by guessing (RFC 7541 7.1.3)."""
CHANGING = frozenset((
    ":path", "age", "content-length", "etag", "if-modified-since", "if-none-match", "last-modified", "location", "traceparent",
    "x-b3-spanid", "x-b3-traceid", "x-envoy-expected-rq-timeout-ms", "x-envoy-upstream-service-time", "x-request-id",
))  # fmt: skip
"""Headers that seldom come twice with the same value: not worth a place in a table."""

_NOT_ON_HTTP2 = frozenset(("connection", "upgrade", "keep-alive", "proxy-connection", "transfer-encoding", "host"))
_FORBIDDEN = _NOT_ON_HTTP2 - {"host"}
_OF_REQUESTS = frozenset((":method", ":scheme", ":path", ":authority", ":protocol"))


class Malformed(Exception):
    """Fields that are no HTTP/2 message (RFC 9113 8.1.1)."""


class Unreadable(Malformed):
    """A request that does not say what is asked for."""


def unread() -> Request:
    """What is known of a request that was Unreadable."""
    return Request("", "", "", "", version=VERSION)


def readable(method: str, path: str, scheme: str) -> bool:
    """Whether a request asks for something: `:path` begins with a slash where the scheme is HTTP's (RFC 9113 8.3.1)."""
    if method == "CONNECT":
        return True
    if not (method and path and scheme):
        return False
    return path[0] == "/" or scheme not in ("http", "https") or (method, path) == ("OPTIONS", "*")


def request(fields: Headers, *, ends: bool) -> Request:
    """A request from the fields of its HEADERS; cookies that were split are one again (RFC 9113 8.2.3). Raises Malformed."""
    pseudo: dict[str, str] = {}
    headers: Headers = []
    cookies = False
    for field in fields:
        name, value = field
        if name[0] == ":":
            if name in pseudo or name not in _OF_REQUESTS or headers:
                raise Malformed(name)
            pseudo[name] = value
        elif name == "host":
            pseudo.setdefault(":authority", value)
        elif name == "cookie":
            cookies = True
            headers.append(field)
        elif name in _FORBIDDEN or (name == "te" and value.lower() != "trailers"):
            raise Malformed(name)
        else:
            headers.append(field)
    if cookies:
        headers = with_one_cookie(headers)
    method, path, upgrade = pseudo.get(":method", ""), pseudo.get(":path", ""), pseudo.get(":protocol", "")
    if upgrade:  # extended CONNECT (RFC 8441) is to HTTP/2 what an upgrade is to HTTP/1.1
        if method != "CONNECT":
            raise Malformed(":protocol")
        method = "GET"
        headers += [("upgrade", upgrade), ("connection", "upgrade")]
    if not readable(method, path, pseudo.get(":scheme", "")):
        raise Unreadable(path)
    return Request(
        method=method,
        path=path,
        authority=pseudo.get(":authority", ""),
        scheme=pseudo.get(":scheme", "http"),
        headers=headers,
        version=VERSION,
        ends=ends,
        upgrade=upgrade.lower(),
    )


def with_one_cookie(headers: Headers) -> Headers:
    """Headers as a server reads them: cookies that came in pieces are one again (RFC 9113 8.2.3), and to Envoy an empty one is none."""
    cookie = ""
    for name, value in headers:
        if name == "cookie":
            cookie = f"{cookie}; {value}" if cookie else value
    rest = without(headers, "cookie")
    return [*rest, ("cookie", cookie)] if cookie else rest


def refused(request: Request, size: int, rules: Rules) -> str:
    """The details of a request whose stream is reset for what its head is; drops headers where `rules` want that. size: of the head."""
    try:
        http1.check(request, size, rules)
    except http1.Refused as defect:
        return replies.RESETS[defect.kind]
    return ""


def of_request(request: Request) -> Headers:
    """The fields of a request's HEADERS, in Envoy's order; CONNECT has neither path nor scheme (RFC 9113 8.5), an upgrade has both."""
    pseudo = [(":authority", request.authority), (":path", request.path), (":method", request.method), (":scheme", request.scheme)]
    if request.method == "CONNECT":
        pseudo = [(":authority", request.authority), (":method", request.method)]
    elif request.upgrade:
        pseudo[2:3] = [(":method", "CONNECT")]
        pseudo.append((":protocol", protocol(request)))
    return pseudo + sendable(request.headers)


def protocol(request: Request) -> str:
    """What an upgrade asks for, as the client spelled it; "" for any other request."""
    return (request.first("upgrade") or request.upgrade) if request.upgrade else ""


def response(fields: Headers, *, ends: bool, upgrade: str = "") -> Response:
    """A response from the fields of its HEADERS; upgrade: what it grants, if it does. Raises Malformed."""
    name, status = fields[0] if fields else ("", "")
    if name != ":status" or len(status) != 3 or not status.isdecimal():
        raise Malformed("a response without its status")
    headers = trailers(fields[1:])
    if upgrade and status == "200":
        return Response(101, [*headers, ("upgrade", upgrade), ("connection", "upgrade")], ends, VERSION)
    return Response(int(status), headers, ends, VERSION)


def trailers(fields: Headers) -> Headers:
    """Fields after a body, or beside a status. Raises Malformed."""
    for name, _ in fields:
        if name[0] == ":" or name in _FORBIDDEN:
            raise Malformed(name)
    return fields


def length(headers: Headers) -> int | None:
    """The bytes of body that a message announces. Raises Malformed."""
    values = {value for name, value in headers if name == "content-length"}
    if not values:
        return None
    if len(values) > 1 or not all(value.isdecimal() and value.isascii() for value in values):
        raise Malformed("content-length")
    return int(values.pop())


def body_size(response: Response) -> int | None:
    """The bytes of body to expect; what is not modified has none, whatever it announces. Raises Malformed."""
    return None if response.status == 304 else length(response.headers)


def sound(response: Response) -> bool:
    """Whether an HTTP/2 client takes the response's head: one that cannot have a body must not announce any (Envoy resets the stream)."""
    empty = response.status == 204 or (response.status < 200 and response.status != 101)
    return not empty or response.version != VERSION or response.first("content-length") in (None, "0")


def of_response(response: Response) -> Headers:
    """The fields of a response's HEADERS; an upgrade is granted with 200 (RFC 8441 5)."""
    status = 200 if response.status == 101 and not response.ends else response.status
    return [(":status", str(status)), *sendable(response.headers)]


def sendable(headers: Headers) -> Headers:
    """Fields without what HTTP/2 has no headers for."""
    return [field for field in headers if field[0] not in _NOT_ON_HTTP2]

"""HTTP/1.1 bytes to events, with httptools (llhttp); requests as Envoy's parser would take them, responses from hosts.

How this works: llhttp finds the parts of a message; what Envoy refuses beyond it is checked when a head is complete (`_defect_of`), and what llhttp itself
refuses is looked at once more to name the defect as Envoy does (`_defect_in`). Both run rarely or are short loops; a good request pays for neither.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import httptools

from meshsim.routing.message import Headers

_METHODS = frozenset(
    b"GET HEAD POST PUT DELETE CONNECT OPTIONS TRACE PATCH ACL BIND CHECKOUT COPY GETLASTMODIFIED LABEL LINK LOCK MERGE MKACTIVITY MKCALENDAR "
    b"MKCOL MOVE MSEARCH M-SEARCH NOTIFY PROPFIND PROPPATCH PURGE REBIND REPORT SEARCH SOURCE SUBSCRIBE UNBIND UNLINK UNLOCK UNSUBSCRIBE".split()
)
_SEPARATORS = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class RequestHead(NamedTuple):
    """A complete request head; see routing.message.Request. expects_continue: the client waits for 100."""

    method: str
    path: str
    authority: str
    headers: Headers
    version: str
    ends: bool
    upgrade: str
    expects_continue: bool


class ResponseHead(NamedTuple):
    """A complete response head. keep_alive: whether the connection may be used again."""

    status: int
    headers: Headers
    version: str
    ends: bool
    keep_alive: bool


class Body(NamedTuple):
    data: bytes


class End(NamedTuple):
    """The message is complete."""


class Tunnel(NamedTuple):
    """From here on the bytes are no HTTP; `data` are the first of them."""

    data: bytes


class BadMessage(NamedTuple):
    """The bytes are not acceptable; kind: of routing.replies.BAD_REQUESTS. What was understood of the head."""

    kind: str
    method: str = ""
    path: str = ""
    authority: str = ""
    headers: Headers = []


RequestEvent = RequestHead | Body | End | Tunnel | BadMessage
ResponseEvent = ResponseHead | Body | End | Tunnel | BadMessage


class RequestParser:
    """One direction of one connection. limit: bytes of a head; most: headers in it."""

    def __init__(self, limit: int, most: int):
        self._limit, self._most = limit, most
        self._parser = httptools.HttpRequestParser(self)
        self._events: list[RequestEvent] = []
        self._raw = bytearray()
        self._headers: Headers = []
        self._url = b""
        self._dead = False
        self.in_message = False
        self._in_head = True
        self._fresh = True

    def feed(self, data: bytes) -> list[RequestEvent]:
        """The events that these bytes complete."""
        if self._dead:
            return []
        if self._in_head:
            self._raw += data
            if self._fresh:
                stripped = self._raw.lstrip(b"\r\n")
                if not stripped:
                    return []
                self._fresh = False
                self.in_message = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as e:
            self._events.append(Tunnel(data[e.args[0] :]))
        except httptools.HttpParserError:
            self._bad(_defect_in(bytes(self._raw)))
        if self._in_head and len(self._raw) > self._limit and not self._dead:
            self._bad("too large")
        events, self._events = self._events, []
        return events

    def _bad(self, kind: str) -> None:
        if not self._dead:
            self._dead = True
            self._events.append(BadMessage(kind, *_understood(bytes(self._raw))))

    # llhttp's callbacks

    def on_message_begin(self) -> None:
        self.in_message = True
        self._headers, self._url = [], b""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.decode("latin-1").lower(), value.decode("latin-1").strip(" \t")))

    def on_headers_complete(self) -> None:
        self._in_head = False
        method = self._parser.get_method()
        version = self._parser.get_http_version()
        kind = self._defect_of(method, version)
        if kind:
            self._bad(kind)
            return
        target = self._url.decode("latin-1")
        hosts = [v for n, v in self._headers if n == "host"]
        authority = ",".join(hosts)
        path = target
        if target[:1] not in ("/", "*") and method != b"CONNECT":
            rest = target.split("://", 1)[1]
            host, slash, tail = rest.partition("/")
            if "?" in host:
                host, mark, query = host.partition("?")
                slash, tail = "/", mark + query
            authority, path = host.rpartition("@")[2], slash + tail or "/"
        elif method == b"CONNECT":
            authority, path = target, ""
        headers = [pair for pair in self._headers if pair[0] != "host"]
        upgrade = ""
        connection = ",".join(v for n, v in headers if n == "connection").lower()
        if "upgrade" in connection:
            upgrade = next((v.lower() for n, v in headers if n == "upgrade"), "")
        ends = not any(n == "transfer-encoding" or (n == "content-length" and v != "0") for n, v in headers)
        expects = any(n == "expect" and v.lower() == "100-continue" for n, v in headers)
        ends = ends and not upgrade and method != b"CONNECT"
        self._events.append(
            RequestHead(method.decode("latin-1"), path, authority, headers, f"HTTP/{version}", ends, upgrade, expects)
        )

    def on_body(self, data: bytes) -> None:
        if not self._dead:
            self._events.append(Body(data))

    def on_message_complete(self) -> None:
        self.in_message = False
        self._in_head = self._fresh = True
        self._raw.clear()
        if not self._dead:
            self._events.append(End())

    def _defect_of(self, method: bytes, version: str) -> str:
        """What Envoy refuses and llhttp takes."""
        if version != "1.1":
            return "version"
        if method not in _METHODS or len(self._headers) > self._most:
            return "syntax" if method not in _METHODS else "too many"
        lengths = encodings = 0
        for name, value in self._headers:
            if name == "content-length":
                lengths += 1
                if not value.isascii() or not value.isdigit():
                    return "syntax"
            elif name == "transfer-encoding":
                encodings += 1
                if value.lower() != "chunked":
                    return "transfer-encoding"
            elif name == "host" and " " in value:
                return "authority"
        if lengths > 1:
            return "syntax"
        if encodings > 1:
            return "transfer-encoding"
        if lengths and encodings:
            return "length and chunked"
        return _target_defect(method, self._url)


def _target_defect(method: bytes, url: bytes) -> str:
    if method == b"CONNECT":
        return "" if url.rpartition(b":")[2].isdigit() else "target"
    if url[:1] == b"/" or (url == b"*" and method == b"OPTIONS"):
        return "syntax" if any(byte > 0x7F for byte in url) else ""
    scheme, mark, _ = url.partition(b"://")
    if not mark:
        return "syntax"
    return "" if scheme.lower() in (b"http", b"https") else "scheme"


def _defect_in(raw: bytes) -> str:
    """The name of what llhttp stumbled over."""
    head = raw.partition(b"\r\n\r\n")[0]
    line, _, fields = head.lstrip(b"\r\n").partition(b"\n")
    if re.search(rb" HTTP/\d(\.\d)?\r?$", line) and not line.rstrip(b"\r").endswith(b"HTTP/1.1"):
        return "version"
    lower = fields.lower()
    if re.search(rb"(^|\n)content-length:", lower) and re.search(rb"(^|\n)transfer-encoding:[ \t]*chunked", lower):
        return "length and chunked"
    found = re.search(rb"(?:^|\n)transfer-encoding:[ \t]*([^\r\n]*)", lower)
    if found and found[1].strip() != b"chunked":
        return "transfer-encoding"
    if raw[:1] != b"\x16" and line[:1].isalpha() and _SEPARATORS.search(head.replace(b"\r\n", b"\n")):
        return "characters"
    return "syntax"


def _understood(raw: bytes) -> tuple[str, str, str, Headers]:
    """Method, path, authority and headers of a refused request, as far as logs show them: nothing of an incomplete head."""
    return "", "", "", []


class ResponseParser:
    """The responses on one upstream connection. `expect` must be called before each."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._events: list[ResponseEvent] = []
        self._headers: Headers = []
        self._head_only = self._ended = self._in_body = False
        self._skip = False

    def expect(self, method: str) -> None:
        """The next response answers a request of this method."""
        if self._head_only:
            self._parser = httptools.HttpResponseParser(self)  # llhttp still waits for the body that a HEAD response does not have
        self._head_only, self._ended, self._in_body = method == "HEAD", False, False

    def feed(self, data: bytes) -> list[ResponseEvent]:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as e:
            self._events.append(Tunnel(data[e.args[0] :]))
        except httptools.HttpParserError:
            self._events.append(BadMessage("syntax"))
        events, self._events = self._events, []
        return events

    def finish(self) -> list[ResponseEvent]:
        """The connection ended: that completes a body that has no other end."""
        if self._in_body and not self._ended and not any(n in ("content-length", "transfer-encoding") for n, _ in self._headers):
            self._ended = True
            return [End()]
        return []

    def on_message_begin(self) -> None:
        self._headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.decode("latin-1").lower(), value.decode("latin-1").strip(" \t")))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        self._skip = status < 200 and status != 101
        if self._skip:
            return
        lengths = [v for n, v in self._headers if n == "content-length"]
        chunked = any(n == "transfer-encoding" for n, _ in self._headers)
        if len(lengths) > 1 or (lengths and (chunked or not lengths[0].isdigit())):
            self._events.append(BadMessage("syntax"))
            return
        ends = self._head_only or status in (204, 304, 101) or lengths == ["0"]
        version = f"HTTP/{self._parser.get_http_version()}"
        wishes = ",".join(v for n, v in self._headers if n == "connection").lower()
        keep = self._parser.should_keep_alive() and (version != "HTTP/1.0" or "keep-alive" in wishes)
        if not ends and not lengths and not chunked:
            keep = False
        self._in_body = True
        self._events.append(ResponseHead(status, self._headers, version, ends, keep and status != 101))
        if self._head_only:
            self._ended = True
            self._events.append(End())

    def on_body(self, data: bytes) -> None:
        if not self._head_only:
            self._events.append(Body(data))

    def on_message_complete(self) -> None:
        if self._skip:
            self._skip = False
            return
        if not self._ended:
            self._ended = True
            self._events.append(End())

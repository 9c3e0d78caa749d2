"""Heads of HTTP/1 messages: what Envoy takes leniently made strict, what it refuses named, how long the body is, and how a head is
written.

How this works: before a parser sees it, a head in strict form passes one regular expression and is used as it is. Any other head is
repaired line by line where Envoy would take it (bare LF, spaces in the request line, folded lines, a lone CR), or refused with a name
that `routing.replies.BAD_REQUESTS` knows. What follows is true of both: lengths and codings that could smuggle a second message are
refused. So every parser behind this gate meets the same strict bytes, and all of them agree.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import NamedTuple

from meshsim.routing.message import Headers, Request, Response, tokens
from meshsim.xds.http_connection_manager import HttpConnectionManager

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_FIRST = re.compile(_TOKEN)
_FIELDS = rb"(?:" + _TOKEN + rb"+:[\t\x20-\x7e\x80-\xff]*\r\n)*\r\n"
_STRICT_REQUEST = re.compile(rb"([A-Z\-]+) ([\x21-\x7e]+) HTTP/1\.1\r\n" + _FIELDS)
_STRICT_RESPONSE = re.compile(rb"HTTP/1\.[01] [1-9][0-9][0-9] [\t\x20-\x7e\x80-\xff]*\r\n" + _FIELDS)
_HEAD_END = re.compile(rb"\n\r?\n")
_FRAMING = re.compile(rb"(?i)\n(content-length|transfer-encoding):[ \t]*([^\r\n]*?)[ \t]*\r")
_CONTENT_LENGTH = b"\ncontent-length:"
_REQUEST_LINE = re.compile(rb"([^ ]+) +([^ ]+)(?: +(HTTP/[0-9]\.[0-9]))? *")
_STATUS_LINE = re.compile(rb"(HTTP/1\.[01]) +([1-9][0-9][0-9])(?: (.*))?")
_FIELD = re.compile(rb"(" + _TOKEN + rb"+):(.*)", re.DOTALL)
_FOLD = re.compile(rb"\n(?=[ \t])")
_CONTROL = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")
_ABSOLUTE = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://([^/?#]*)(.*)")
_WITH_PORT = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^:\[\]]+):[0-9]+")

METHODS = frozenset(
    b"ACL BIND CHECKOUT CONNECT COPY DELETE GET HEAD LINK LOCK MERGE MKACTIVITY MKCALENDAR MKCOL MOVE M-SEARCH NOTIFY OPTIONS "
    b"PATCH POST PROPFIND PROPPATCH PURGE PUT REBIND REPORT SEARCH SOURCE SUBSCRIBE TRACE UNBIND UNLINK UNLOCK UNSUBSCRIBE".split()
)
CHUNKED = -1
OLD = "HTTP/1.0"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
REASONS = {status.value: status.phrase for status in HTTPStatus if status.value != 418} | {
    103: "Early Hints", 302: "Found", 413: "Payload Too Large", 416: "Range Not Satisfiable", 422: "Unprocessable Entity",
}
"""Envoy's reason phrases; any other status is `Unknown`."""
_CHUNKED_LINE = b"transfer-encoding: chunked\r\n"
_NO_BODY = frozenset(("GET", "HEAD", "DELETE", "TRACE", "CONNECT"))
HOST = "host"
UPGRADING: Headers = [("host", "head"), ("connection", "upgrade"), ("upgrade", "any")]
"""The headers of a request that any 101 can answer."""
_WISHES = ("connection", "proxy-connection")
_TELLING = frozenset(("host", "transfer-encoding", "upgrade", "expect", *_WISHES))
"""What says how a request is framed, where it goes, or what becomes of its connection."""


class Rules(NamedTuple):
    """What a connection manager lets its clients' requests be.

    max_headers: bytes of a head, its first line included. max_count: header lines. http10: whether HTTP/1.0 is taken. underscores: what
    becomes of headers with an underscore in their names: ALLOW, REJECT_REQUEST or DROP_HEADER.
    """

    max_headers: int = 60 * 1024
    max_count: int = 100
    http10: bool = False
    underscores: str = "ALLOW"

    @classmethod
    def of(cls, config: HttpConnectionManager) -> Rules:
        common, own, default = config.common_http_protocol_options, config.http_protocol_options, cls()
        return cls(
            max_headers=config.max_request_headers_kb * 1024 if config.max_request_headers_kb else default.max_headers,
            max_count=(common.max_headers_count if common else None) or default.max_count,
            http10=own is not None and own.accept_http_10,
            underscores=common.headers_with_underscores_action if common else default.underscores,
        )


def without_underscores(headers: Headers, action: str) -> Headers:
    """The headers that stay where names with underscores do not all. Raises Refused where such a name ends the request."""
    kept = [pair for pair in headers if "_" not in pair[0]]
    if len(kept) < len(headers) and action == "REJECT_REQUEST":
        raise Refused("underscore")
    return kept


def check(request: Request, size: int, rules: Rules) -> None:
    """Whether rules take the head of a request, of `size` bytes; drops headers where they say so. Raises Refused."""
    if size > rules.max_headers:
        raise Refused("too large")
    if len(request.headers) > rules.max_count:
        raise Refused("too many")
    if rules.underscores != "ALLOW":
        request.headers = without_underscores(request.headers, rules.underscores)


class Refused(Exception):
    """The message is not one that Envoy takes; `kind` is a key of `replies.BAD_REQUESTS`."""

    def __init__(self, kind: str):
        self.kind = kind
        super().__init__(kind)


class Framed(NamedTuple):
    """A head in strict form, and how much body follows: bytes, CHUNKED, or None where the head does not say."""

    raw: bytes
    length: int | None


def head_end(data: bytes | bytearray, start: int = 0) -> int:
    """Where the head that `data` begins with ends, or -1; nothing before `start` is looked at again."""
    found = data.find(b"\r\n\r\n", start)
    if found >= 0:
        bare = data.find(b"\n\n", start, found)
        if bare < 0:
            return found + 4
    match = _HEAD_END.search(data, start)
    return match.end() if match else -1


def check_start(data: bytes | bytearray, *, http10: bool = False) -> None:
    """Whether a request can begin like this, once its first byte or its first line is there. Raises Refused."""
    if not _FIRST.match(data):
        raise Refused("syntax")
    end = data.find(b"\n")
    if end >= 0:
        _request_line(bytes(data[:end]), http10)


def request(raw: bytes, *, http10: bool = False) -> Framed:
    """The head of a request in strict form. http10: whether HTTP/1.0 is taken. Raises Refused."""
    match = _STRICT_REQUEST.fullmatch(raw)
    if match is None:
        raw = _repaired(raw, _request_line, http10)
        method = raw[: raw.index(b" ")]
    else:
        method = match[1]
    if method not in METHODS:
        raise Refused("syntax")
    length = _length(raw)
    return Framed(raw, 0 if length is None else length)


def response(raw: bytes) -> Framed:
    """The head of a response in strict form. Raises Refused."""
    if _STRICT_RESPONSE.fullmatch(raw) is None:
        raw = _repaired(raw, _status_line, False)
    return Framed(raw, _length(raw))


def target(method: str, text: str, host: str | None) -> tuple[str, str]:
    """The path and authority that a request target and Host header ask for (RFC 9112 3.2). Raises Refused."""
    if text.startswith("/") or text == "*":
        return text, _authority(host or "")
    if method == "CONNECT":
        if not _WITH_PORT.fullmatch(text):
            raise Refused("target")
        return "", text
    match = _ABSOLUTE.fullmatch(text)
    if match is None:
        raise Refused("syntax")
    if match[1].lower() not in ("http", "https"):
        raise Refused("scheme")
    path = match[3] if match[3].startswith("/") else "/" + match[3]
    return path, _authority(match[2].rpartition("@")[2])


def _authority(text: str) -> str:
    if " " in text or "\t" in text:
        raise Refused("authority")
    return text


def _length(raw: bytes) -> int | None:
    """What the framing headers say. Raises Refused for anything that two readers could understand differently."""
    low = raw.lower()
    if b"\ntransfer-encoding:" not in low:
        at = low.find(_CONTENT_LENGTH)
        if at < 0:
            return None
        value = low[at + len(_CONTENT_LENGTH) : low.index(b"\r", at)].strip(b" \t")
        if low.find(_CONTENT_LENGTH, at + 1) >= 0 or not value.isdigit() or len(value) > 19:
            raise Refused("syntax")
        return int(value)
    found = _FRAMING.findall(raw)
    lengths = [value for name, value in found if name.lower() == b"content-length"]
    codings = [value for name, value in found if name.lower() != b"content-length"]
    if len(codings) != 1 or codings[0].lower() != b"chunked":
        raise Refused("transfer-encoding")
    if lengths:
        raise Refused("length and chunked")
    return CHUNKED


class Incoming(NamedTuple):
    """A request head as it is understood.

    ends: whether no body follows. tunnels: whether what follows is no HTTP any more. continues: whether the client waits for a 100
    before it sends the body. keeps_alive: whether it wants to go on with the connection.
    """

    request: Request
    tunnels: bool
    continues: bool
    keeps_alive: bool


def incoming(method: str, text: str, version: str, headers: Headers, length: int) -> Incoming:
    """A request from the parts of its strict head; what says how it is framed or where it goes is no header any more. Raises Refused."""
    hosts, upgrade, continues, wishes = [], "", False, []
    kept: Headers = []
    for pair in headers:
        name, value = pair
        if name in _TELLING:
            if name == "host":
                hosts.append(value)
                continue
            if name == "transfer-encoding":
                continue
            if name == "upgrade":
                upgrade = upgrade or value.lower()
            elif name == "expect":
                continues = value.lower() == "100-continue"
            else:
                wishes += tokens((value,))
        kept.append(pair)
    path, authority = target(method, text, ",".join(hosts) if hosts else None)
    if hosts == [""]:
        kept.append(("host", ""))  # which is not the same as none
    if "upgrade" not in wishes:
        upgrade = ""
    tunnels = method == "CONNECT" or (upgrade != "" and upgrade != "h2c")
    request = Request(method, path, authority, "http", kept, f"HTTP/{version}", length == 0 and not tunnels, upgrade)
    return Incoming(request, tunnels, continues, "keep-alive" in wishes if version == "1.0" else "close" not in wishes)


def answered(status: int, version: str, headers: Headers, length: int | None, method: str) -> tuple[Headers, int | None, bool]:
    """What a response to `method` has: headers, the length of its body (None: until the connection ends), and whether that goes on."""
    if method == "HEAD" or status in (204, 304):
        length = 0
    goes_on = version == "1.1" and length is not None
    kept: Headers = []
    for pair in headers:
        name, value = pair
        if name in _WISHES and "close" in tokens((value,)):
            goes_on = False
        if name != "transfer-encoding":
            kept.append(pair)
    return kept, length, goes_on


def request_head(request: Request) -> tuple[bytes, bool]:
    """The bytes of a request's head, and whether its body goes in chunks."""
    sized = False
    lines = [f"{request.method} {request.path or request.authority} HTTP/1.1", f"host: {request.authority}"]
    for name, value in request.headers:
        if name == "content-length":
            sized = True
        lines.append(f"{name}: {value}")
    chunked = not sized and not request.ends and not request.upgrade and request.method != "CONNECT"
    if chunked:
        lines.append("transfer-encoding: chunked")
    elif request.ends and not sized and request.method not in _NO_BODY:
        lines.append("content-length: 0")
    lines.append("\r\n")
    return "\r\n".join(lines).encode("latin-1"), chunked


def response_head(response: Response, *, to_head: bool, close: bool) -> tuple[bytes, bool]:
    """The bytes of a response's head, and whether its body goes in chunks. to_head: it answers HEAD. close: the connection ends with it.

    A response to HEAD says what GET would have had, which is chunks where no length is known.
    """
    status = response.status
    sized = False
    lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Unknown')}"]
    for name, value in response.headers:
        if name == "content-length":
            sized = True
            if status == 204:
                continue
        lines.append(f"{name}: {value}")
    if close:
        lines.append("connection: close")
    bodiless = sized or status in (204, 304) or status < 200
    chunked = not bodiless and (to_head or not response.ends)
    if chunked:
        lines.append("transfer-encoding: chunked")
    elif not bodiless:
        lines.append("content-length: 0")
    lines.append("\r\n")
    return "\r\n".join(lines).encode("latin-1"), chunked


def response_head_10(response: Response, *, to_head: bool, close: bool) -> tuple[bytes, bool]:
    """The bytes of a response's head for a client of HTTP/1.0, and whether the connection ends with the response.

    There are no chunks in HTTP/1.0: a body of unknown length ends with its connection. One that goes on says so.
    """
    close = close or not (to_head or response.ends or response.first("content-length") is not None)
    head, chunked = response_head(response, to_head=to_head, close=close)
    head = b"HTTP/1.0" + head[len("HTTP/1.0") : -2]
    if chunked:
        head = head.removesuffix(_CHUNKED_LINE)
    return head + (b"\r\n" if close else b"connection: keep-alive\r\n\r\n"), close


# Repair ----------------------------------------------------------------------------------------------------------------------------


def _repaired(raw: bytes, first_line: object, http10: bool) -> bytes:
    """The same head as strict bytes. Raises Refused."""
    text = raw.lstrip(b"\r\n").replace(b"\r\n", b"\n").rstrip(b"\n")
    first, _, rest = text.partition(b"\n")
    if rest[:1] in (b" ", b"\t"):
        raise Refused("syntax")
    assert callable(first_line)
    lines = [first_line(first, http10)]
    for line in _FOLD.sub(b"", rest).split(b"\n") if rest else ():
        match = _FIELD.fullmatch(line)
        if match is None:
            raise Refused("syntax")
        value = match[2].replace(b"\r", b"").strip(b" \t")
        if _CONTROL.search(value):
            raise Refused("characters")
        lines.append(match[1] + b": " + value)
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _request_line(line: bytes, http10: bool) -> bytes:
    line = line.rstrip(b"\r")
    if line.partition(b" ")[0] not in METHODS:
        raise Refused("syntax")
    if _CONTROL.search(line):
        raise Refused("characters")
    match = _REQUEST_LINE.fullmatch(line)
    if match is None or any(byte >= 0x80 for byte in line):
        raise Refused("syntax")
    method, where, version = match[1], match[2], match[3]
    if version != b"HTTP/1.1" and not (http10 and version in (b"HTTP/1.0", None)):
        raise Refused("version")
    return method + b" " + where + b" " + (version or b"HTTP/1.0")


def _status_line(line: bytes, _: bool) -> bytes:
    match = _STATUS_LINE.fullmatch(line.rstrip(b"\r"))
    if match is None or _CONTROL.search(match[3] or b""):
        raise Refused("syntax")
    return match[1] + b" " + match[2] + b" " + (match[3] or b"")

"""The head of an HTTP/1 message before a parser sees it: what Envoy takes leniently made strict, what it refuses named.

How this works: a head in strict form passes one regular expression and is used as it is. Any other head is repaired line by line where
Envoy would take it (bare LF, spaces in the request line, folded lines, a lone CR), or refused with a name that
`routing.replies.BAD_REQUESTS` knows. What follows is true of both: lengths and codings that could smuggle a second message are refused. So
every parser behind this gate meets the same strict bytes, and all of them agree.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_FIRST = re.compile(_TOKEN)
_FIELDS = rb"(?:" + _TOKEN + rb"+:[\t\x20-\x7e\x80-\xff]*\r\n)*\r\n"
_STRICT_REQUEST = re.compile(rb"([A-Z\-]+) ([\x21-\x7e]+) HTTP/1\.1\r\n" + _FIELDS)
_STRICT_RESPONSE = re.compile(rb"HTTP/1\.[01] [1-9][0-9][0-9] [\t\x20-\x7e\x80-\xff]*\r\n" + _FIELDS)
_HEAD_END = re.compile(rb"\n\r?\n")
_FRAMING = re.compile(rb"(?i)\n(content-length|transfer-encoding):[ \t]*([^\r\n]*?)[ \t]*\r")
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
    found = _FRAMING.findall(raw)
    if not found:
        return None
    lengths = [value for name, value in found if name.lower() == b"content-length"]
    codings = [value for name, value in found if name.lower() != b"content-length"]
    if codings:
        if len(codings) > 1 or codings[0].lower() != b"chunked":
            raise Refused("transfer-encoding")
        if lengths:
            raise Refused("length and chunked")
        return CHUNKED
    if len(lengths) > 1 or not lengths[0].isdigit() or len(lengths[0]) > 19:
        raise Refused("syntax")
    return int(lengths[0])


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

"""What the first bytes of a connection say: is it HTTP, and if so which; a request a person might have typed."""

from __future__ import annotations

import re

from meshsim.routing.facts import H2C, HTTP10, HTTP11
from meshsim.routing.message import Request

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_BLANK = rb"[\x00-\x09\x0b-\x20]"
_LINE = re.compile(
    rb"(?P<method>" + _TOKEN.pattern + rb")" + _BLANK + rb"+(?P<target>[^\x00-\x20]+)"
    rb"(?:" + _BLANK + rb"+(?P<version>[^\x00-\x20]+))?" + _BLANK + rb"*"
)  # fmt: skip
_TARGET = re.compile(rb"[/*][\x21-\x7e]*|[A-Za-z][A-Za-z0-9+.\-]*://[\x21-\x7e]+")
_VERSION = re.compile(rb"HTTP/[0-9]\.[0-9]")
_VERSIONS = ("HTTP/1.1", "HTTP/1.0")
_LONGEST_LINE = 64 * 1024
METHODS = frozenset((
    b"ACL", b"BIND", b"CHECKOUT", b"CONNECT", b"COPY", b"DELETE", b"GET", b"HEAD", b"LINK", b"LOCK", b"MERGE", b"MKACTIVITY", b"MKCALENDAR",
    b"MKCOL", b"MOVE", b"MSEARCH", b"NOTIFY", b"OPTIONS", b"PATCH", b"POST", b"PROPFIND", b"PROPPATCH", b"PURGE", b"PUT", b"REBIND",
    b"REPORT", b"SEARCH", b"SOURCE", b"SUBSCRIBE", b"TRACE", b"UNBIND", b"UNLINK", b"UNLOCK", b"UNSUBSCRIBE",
))  # fmt: skip


def http_protocol(data: bytes) -> str | None:
    """What http_inspector finds in peeked bytes: `http/1.1`, `http/1.0`, `h2c`, "" for no HTTP, None while it needs more."""
    if PREFACE.startswith(data[: len(PREFACE)]) and data[:1] == b"P":
        return H2C if len(data) >= len(PREFACE) else None
    line, end, _ = data.partition(b"\n")
    begun = _TOKEN.match(line)
    if begun is None:
        return "" if data else None
    if line[begun.end() : begun.end() + 1] > b" ":
        return ""
    if not end:
        return None if len(data) < _LONGEST_LINE else ""
    parts = _LINE.fullmatch(line)
    if parts is None or (parts["version"] and not _VERSION.fullmatch(parts["version"])):
        return ""
    if not _TARGET.fullmatch(parts["target"]) and parts["method"] != b"CONNECT":
        return ""
    return HTTP11 if parts["version"] == b"HTTP/1.1" else HTTP10


def may_become_request(data: bytes) -> bool:
    """Whether an HTTP/1.1 codec goes on reading: it judges a request line when it is complete."""
    return b"\n" not in data and len(data) < _LONGEST_LINE


def request(data: bytes) -> Request | None:
    """A whole HTTP/1 request head in plain bytes, or None for anything else."""
    head, end, _ = data.partition(b"\r\n\r\n")
    if not end:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3 or parts[2] not in _VERSIONS or parts[0].encode() not in METHODS:
        return None
    fields = [(n.strip().lower(), v.strip()) for n, _, v in (line.partition(":") for line in lines)]
    authority = next((v for n, v in fields if n == "host"), "")
    return Request(parts[0], parts[1], authority, headers=[(n, v) for n, v in fields if n != "host"], version=parts[2])

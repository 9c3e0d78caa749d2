"""HTTP/1 from bytes to events, for both ends of a hop.

How this works: a parser collects a head, lets the gate (routing/http1.py) make it strict or refuse it, and has a reader take it apart:
httptools, or h11 as the reference (MESHSIM_CODEC=h11). From then on the head says how much body there is, and body bytes pass through
as they came; only chunks are taken apart by the reader again. Nothing is buffered but an incomplete head, and that only up to a limit.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

from meshsim.errors import MeshsimError
from meshsim.proxy import with_h11
from meshsim.routing import http1
from meshsim.routing.http1 import CHUNKED, Refused, Rules
from meshsim.routing.message import Headers, Request

_HEAD, _LENGTH, _CHUNKS, _REST, _RAW, _DEAD = range(6)


class Chunks(Protocol):
    def feed(self, data: bytes) -> tuple[list[bytes], bool, bytes]: ...


class Reader(Protocol):
    """A library that reads strict HTTP/1."""

    def request(self, raw: bytes) -> tuple[str, str, str, Headers]: ...
    def response(self, raw: bytes) -> tuple[int, str, Headers]: ...
    def Dechunker(self) -> Chunks: ...


CODEC = "MESHSIM_CODEC"
CODECS = ("httptools", "h11")


@cache
def chosen() -> Reader:
    """The reader that $MESHSIM_CODEC names, else the fastest there is. Raises MeshsimError for a name that is none of CODECS."""
    name = os.environ.get(CODEC, "")
    if name and name not in CODECS:
        raise MeshsimError(f"{CODEC} is {name!r}; it can be {' or '.join(CODECS)}")
    if name == "h11":
        return with_h11
    try:
        from meshsim.proxy import with_httptools
    except ImportError:
        return with_h11
    return with_httptools


@dataclass(slots=True)
class RequestHead:
    """expects_continue: the client waits for a 100 before it sends the body. keeps_alive: it wants to go on with the connection."""

    request: Request
    expects_continue: bool = False
    keeps_alive: bool = True


@dataclass(slots=True)
class Body:
    data: bytes


@dataclass(slots=True)
class End:
    """The message is complete."""


@dataclass(slots=True)
class Tunnel:
    """The connection no longer carries HTTP; `data` and all that follows is the tunnel's."""

    data: bytes


@dataclass(slots=True)
class Continue:
    """The host wants the body of the request (a response of status 100, before the response itself)."""


@dataclass(slots=True)
class BadMessage:
    """Nothing more can be read. kind: a key of `replies.BAD_REQUESTS`."""

    kind: str


@dataclass(slots=True)
class ResponseHead:
    """keep_alive: whether the connection may carry another request after this response."""

    status: int
    headers: Headers
    version: str
    ends: bool
    keep_alive: bool


RequestEvent = RequestHead | Body | End | Tunnel | BadMessage
ResponseEvent = Continue | ResponseHead | Body | End | Tunnel | BadMessage
Events = list[Any]  # of the one kind or the other


class _Parser:
    """What requests and responses have in common. `in_message`: between the first byte and the last of one."""

    def __init__(self, max_head: int, max_count: int, reader: Reader | None):
        self._max_head, self._max_count = max_head, max_count
        self._reader = reader or chosen()
        self._state = _HEAD
        self._head = bytearray()
        self._left = 0
        self._chunks: Chunks | None = None

    @property
    def in_message(self) -> bool:
        return self._state in (_LENGTH, _CHUNKS, _REST) or (self._state == _HEAD and bool(self._head))

    def _feed(self, data: bytes) -> Events:
        events: Events = []
        try:
            while data:
                data = self._step(data, events)
        except Refused as e:
            self._state = _DEAD
            events.append(BadMessage(e.kind))
        except ValueError:
            self._state = _DEAD
            events.append(BadMessage("syntax"))
        return events

    @property
    def collecting(self) -> bool:
        """Whether a head has begun and is not complete."""
        return self._state == _HEAD and bool(self._head)

    @property
    def dead(self) -> bool:
        """Whether a BadMessage was told."""
        return self._state == _DEAD

    def _step(self, data: bytes, events: Events) -> bytes:
        """Take a part of `data`; what is left of it."""
        if self._state == _HEAD:
            return self._collect(data, events)
        if self._state == _LENGTH:
            piece, rest = (data, b"") if len(data) <= self._left else (data[: self._left], data[self._left :])
            self._left -= len(piece)
            events.append(Body(piece))
            if not self._left:
                self._complete(events)
            return rest
        if self._state == _CHUNKS:
            assert self._chunks is not None
            pieces, done, rest = self._chunks.feed(data)
            if pieces:
                events.append(Body(pieces[0] if len(pieces) == 1 else b"".join(pieces)))
            if done:
                self._complete(events)
            return rest
        if self._state == _REST:
            events.append(Body(data))
        elif self._state == _RAW:
            events.append(Tunnel(data))
        return b""

    def _collect(self, data: bytes, events: Events) -> bytes:
        head = self._head
        if not head:
            data = data.lstrip(b"\r\n")
            if not data:
                return b""
            end = http1.head_end(data)
            if end >= 0:
                self._begin(data[:end], events)
                return data[end:]
        before = len(head)
        head += data
        end = http1.head_end(head, max(0, before - 3))
        if end < 0:
            self._check_start(head)
            if len(head) > self._max_head:
                raise Refused("too large")
            return b""
        raw = bytes(head[:end])
        rest = bytes(head[end:])
        head.clear()
        self._begin(raw, events)
        return rest

    def _begin(self, raw: bytes, events: Events) -> None:
        if len(raw) > self._max_head:
            raise Refused("too large")
        self._read(raw, events)

    def _expect(self, length: int | None, events: Events) -> None:
        """A body of this length follows; None: until the connection ends."""
        if length is None:
            self._state = _REST
        elif length == CHUNKED:
            self._state, self._chunks = _CHUNKS, self._reader.Dechunker()
        elif length:
            self._state, self._left = _LENGTH, length
        else:
            self._complete(events)

    def _complete(self, events: Events) -> None:
        self._state, self._chunks = _HEAD, None
        events.append(End())

    def _check_start(self, head: bytearray) -> None:
        """Whether a head can begin like this. Raises Refused."""
        raise NotImplementedError

    def _read(self, raw: bytes, events: Events) -> None:
        raise NotImplementedError


class RequestParser(_Parser):
    """Requests, one after the other, as far as `rules` take them."""

    def __init__(self, rules: Rules, *, reader: Reader | None = None):
        super().__init__(rules.max_headers, rules.max_count, reader)
        self._http10 = rules.http10
        self._underscores = "" if rules.underscores == "ALLOW" else rules.underscores

    def feed(self, data: bytes) -> list[RequestEvent]:
        """What `data` completes; after a BadMessage nothing more."""
        return self._feed(data)

    def _check_start(self, head: bytearray) -> None:
        http1.check_start(head, http10=self._http10)

    def _read(self, raw: bytes, events: Events) -> None:
        strict, length = http1.request(raw, http10=self._http10)
        method, target, version, headers = self._reader.request(strict)
        if len(headers) > self._max_count:
            raise Refused("too many")
        if self._underscores:
            headers = http1.without_underscores(headers, self._underscores)
        assert length is not None
        head = http1.incoming(method, target, version, headers, length)
        events.append(RequestHead(head.request, head.continues, head.keeps_alive))
        if head.tunnels:
            self._state = _RAW
            events.append(Tunnel(b""))
        else:
            self._expect(length, events)


class ResponseParser(_Parser):
    """The responses to requests that were sent, one after the other; `expect` says what each answers."""

    def __init__(self, *, max_headers: int = 60 * 1024, max_count: int = 100, reader: Reader | None = None):
        super().__init__(max_headers, max_count, reader)
        self._method = "GET"

    def expect(self, method: str) -> None:
        """The next response answers a request of this method."""
        self._method = method

    def feed(self, data: bytes) -> list[ResponseEvent]:
        """What `data` completes; after a BadMessage nothing more."""
        return self._feed(data)

    def head(self, raw: bytes) -> tuple[ResponseHead, int] | None:
        """A whole head by itself, and how long its body is; None where more than a length says where the response ends."""
        if raw[:1] != b"H" or http1.head_end(raw) != len(raw):
            return None
        try:
            strict, length = http1.response(raw)
            status, version, headers = self._reader.response(strict)
        except (Refused, ValueError):
            return None
        headers, length, keep_alive = http1.answered(status, version, headers, length, self._method)
        if status < 200 or not length or length == CHUNKED or not keep_alive or len(headers) > self._max_count or len(raw) > self._max_head:
            return None
        return ResponseHead(status, headers, f"HTTP/{version}", False, keep_alive), length

    def rest(self, left: int) -> None:
        """What follows is that much of a response whose head and first bytes were read elsewhere."""
        self._state, self._left = _LENGTH, left

    def finish(self) -> bool:
        """The connection ended: whether that completes a response whose body ends so."""
        return self._state == _REST

    def _check_start(self, head: bytearray) -> None:
        if not head.startswith(b"H"):
            raise Refused("syntax")

    def _read(self, raw: bytes, events: Events) -> None:
        strict, length = http1.response(raw)
        status, version, headers = self._reader.response(strict)
        if len(headers) > self._max_count:
            raise Refused("too many")
        if 100 <= status < 200 and status != 101:
            if status == 100:
                events.append(Continue())
            return  # what follows is the response itself
        tunnels = status == 101 or (self._method == "CONNECT" and 200 <= status < 300)
        headers, length, keep_alive = http1.answered(status, version, headers, length, self._method)
        events.append(ResponseHead(status, headers, f"HTTP/{version}", length == 0 and not tunnels, keep_alive))
        if tunnels:
            self._state = _RAW
            events.append(Tunnel(b""))
        else:
            self._expect(length, events)

"""Strict HTTP/1 heads and chunked bodies read by h11: the reference that the fast reader must agree with.

h11 insists on exactly one Host header, which Envoy leaves to a later decision; so Host lines are set aside before h11 reads a head, and put
back after it.
"""

from __future__ import annotations

import re

import h11

from meshsim.routing.http1 import HOST, UPGRADING
from meshsim.routing.message import Headers

_HOST_LINE = re.compile(rb"(?i)\r\nhost:[ \t]*([^\r\n]*)(?=\r\n)")
_CHUNKED_HEAD = b"POST / HTTP/1.1\r\nhost: body\r\ntransfer-encoding: chunked\r\n\r\n"
_QUESTION = h11.Request(method="GET", target="/", headers=UPGRADING)
_LONGEST = 1024 * 1024


def request(raw: bytes) -> tuple[str, str, str, Headers]:
    """Method, target, version and headers of a strict head. Raises ValueError for what is none."""
    hosts = [match.decode("latin-1").rstrip(" \t") for match in _HOST_LINE.findall(raw)]
    line, _, fields = _HOST_LINE.sub(b"", raw).partition(b"\r\n")
    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=_LONGEST)
    try:
        parser.receive_data(line + b"\r\nhost: set-aside\r\n" + fields)
        event = parser.next_event()
    except h11.RemoteProtocolError as e:
        raise ValueError(str(e)) from e
    if not isinstance(event, h11.Request):
        raise ValueError("not a request")
    headers = [(HOST, host) for host in hosts] + _text(event.headers)[1:]
    return event.method.decode("ascii"), event.target.decode("latin-1"), event.http_version.decode("ascii"), headers


def response(raw: bytes) -> tuple[int, str, Headers]:
    """Status, version and headers of a strict head. Raises ValueError for what is none."""
    parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=_LONGEST)
    parser.send(_QUESTION)
    parser.send(h11.EndOfMessage())
    try:
        parser.receive_data(raw)
        event = parser.next_event()
    except h11.RemoteProtocolError as e:
        raise ValueError(str(e)) from e
    if not isinstance(event, h11.Response | h11.InformationalResponse):
        raise ValueError("not a response")
    return event.status_code, event.http_version.decode("ascii"), _text(event.headers)


def _text(headers: h11._headers.Headers) -> Headers:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]


class Dechunker:
    """A chunked body, taken apart as it comes."""

    def __init__(self) -> None:
        self._parser = h11.Connection(h11.SERVER)
        self._parser.receive_data(_CHUNKED_HEAD)
        self._parser.next_event()

    def feed(self, data: bytes) -> tuple[list[bytes], bool, bytes]:
        """The content in `data`, whether the body is complete, and what follows it. Raises ValueError for wrong chunks."""
        pieces: list[bytes] = []
        try:
            self._parser.receive_data(data)
            while True:
                event = self._parser.next_event()
                if isinstance(event, h11.Data):
                    pieces.append(bytes(event.data))
                elif isinstance(event, h11.EndOfMessage):
                    return pieces, True, self._parser.trailing_data[0]
                else:
                    return pieces, False, b""
        except h11.RemoteProtocolError as e:
            raise ValueError(str(e)) from e

"""Strict HTTP/1 heads and chunked bodies read by httptools (llhttp): the fast reader."""

from __future__ import annotations

import httptools

from meshsim.routing.message import Headers

_CHUNKED_HEAD = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"


class _Head:
    """Receives a head's parts from the parser."""

    __slots__ = ("complete", "headers", "url")

    def __init__(self) -> None:
        self.headers: Headers = []
        self.url = b""
        self.complete = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.decode("latin-1").lower(), value.decode("latin-1").rstrip(" \t")))

    def on_headers_complete(self) -> None:
        self.complete = True


def request(raw: bytes) -> tuple[str, str, str, Headers]:
    """Method, target, version and headers of a strict head. Raises ValueError for what is none."""
    head = _Head()
    parser = httptools.HttpRequestParser(head)
    try:
        parser.feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as e:
        raise ValueError(str(e)) from e
    return parser.get_method().decode("ascii"), head.url.decode("latin-1"), parser.get_http_version(), head.headers


def response(raw: bytes) -> tuple[int, str, Headers]:
    """Status, version and headers of a strict head. Raises ValueError for what is none."""
    head = _Head()
    parser = httptools.HttpResponseParser(head)
    try:
        parser.feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as e:
        if not head.complete:  # else it only stopped at a 101
            raise ValueError(str(e)) from e
    return parser.get_status_code(), parser.get_http_version(), head.headers


class Dechunker:
    """A chunked body, taken apart as it comes.

    httptools does not say where a message ended within what it was fed, so it is fed pieces that end where a message can: after an
    empty line.
    """

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._done = False
        self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(_CHUNKED_HEAD)

    def on_body(self, data: bytes) -> None:
        self._pieces.append(data)

    def on_message_complete(self) -> None:
        self._done = True

    def feed(self, data: bytes) -> tuple[list[bytes], bool, bytes]:
        """The content in `data`, whether the body is complete, and what follows it. Raises ValueError for wrong chunks."""
        self._pieces = []
        at = 0
        try:
            while at < len(data) and not self._done:
                if at < 3 and data[at] in b"\r\n":  # an empty line may have been cut in two
                    end = at + 1
                else:
                    found = data.find(b"\r\n\r\n", at)
                    end = found + 4 if found >= 0 else len(data)
                self._parser.feed_data(data[at:end])
                at = end
        except httptools.HttpParserError as e:
            raise ValueError(str(e)) from e
        return self._pieces, self._done, data[at:]

"""The fast reader: strict heads are split into their lines, chunked bodies are read by httptools (llhttp).

A strict head has passed the gate's expression (routing/http1.py), so that there is nothing left to find out about it but where its parts
are; a parser's call back for each field costs three times as much as splitting.
"""

from __future__ import annotations

import httptools

from meshsim.routing.message import Headers

_CHUNKED_HEAD = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"


def request(raw: bytes) -> tuple[str, str, str, Headers]:
    """Method, target, version and headers of a strict head."""
    first, *fields = raw[:-4].decode("latin-1").split("\r\n")
    method, target, version = first.split(" ")
    return method, target, version[5:], _headers(fields)


def response(raw: bytes) -> tuple[int, str, Headers]:
    """Status, version and headers of a strict head."""
    first, *fields = raw[:-4].decode("latin-1").split("\r\n")
    return int(first[9:12]), first[5:8], _headers(fields)


def _headers(fields: list[str]) -> Headers:
    parts = [field.partition(":") for field in fields]
    return [(name.lower(), value.strip(" \t")) for name, _, value in parts]


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

"""Requests and responses as decisions see them: heads without bodies, pseudo-headers as fields, names in lower case.

Header values are text of one character per byte (latin-1), in the order they came.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

Headers = list[tuple[str, str]]


@dataclass
class Request:
    """A request head. `path` is the target with its query; `version` as logs print it ("HTTP/1.1").

    ends: whether the head is all of it. upgrade: the protocol asked for by `connection: upgrade`, lower case.
    """

    method: str
    path: str
    authority: str
    scheme: str = "http"
    headers: Headers = field(default_factory=list)
    version: str = "HTTP/1.1"
    ends: bool = True
    upgrade: str = ""

    def values(self, name: str) -> list[str]:
        """Every value of a header; `:method` and the like, and `host`, are the fields they stand for."""
        if name in _PSEUDO:
            value: str = getattr(self, _PSEUDO[name])
            return [value] if value else []
        return [v for n, v in self.headers if n == name]

    def first(self, name: str) -> str | None:
        for n, v in self.headers:
            if n == name:
                return v
        return None

    @property
    def bare_path(self) -> str:
        """The path without its query."""
        return self.path.partition("?")[0]

    @property
    def query(self) -> dict[str, str]:
        """Query parameters, the first of each name, as they were sent."""
        found: dict[str, str] = {}
        for pair in self.path.partition("?")[2].split("&"):
            if pair:
                name, _, value = pair.partition("=")
                found.setdefault(name, value)
        return found


_PSEUDO = {":method": "method", ":authority": "authority", "host": "authority", ":path": "path", ":scheme": "scheme"}


@dataclass
class Response:
    """A response head. `ends`: there is no body."""

    status: int
    headers: Headers = field(default_factory=list)
    ends: bool = False
    version: str = "HTTP/1.1"

    def first(self, name: str) -> str | None:
        for n, v in self.headers:
            if n == name:
                return v
        return None


def without(headers: Headers, *names: str) -> Headers:
    """The headers but those of these names."""
    return [pair for pair in headers if pair[0] not in names]


def replaced(headers: Headers, name: str, value: str) -> Headers:
    """The headers with one of this name and value: in the place of the first, else at the end."""
    for at, pair in enumerate(headers):
        if pair[0] == name:
            return [*headers[:at], (name, value), *without(headers[at + 1 :], name)]
    return [*headers, (name, value)]


def tokens(values: Iterable[str]) -> list[str]:
    """The lower-case members of a comma-separated header (`connection`)."""
    return [token for value in values for part in value.split(",") if (token := part.strip().lower())]

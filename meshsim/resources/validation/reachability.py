"""Rules of a VirtualService that nothing can reach (Istio: analyzeUnreachableHTTPRules and its TCP and TLS twins)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from meshsim.resources.message import StringMatch
from meshsim.resources.validation.golang import quote
from meshsim.resources.validation.report import Report
from meshsim.resources.virtual_service import HttpMatchRequest, HttpRoute, TcpRoute, TlsRoute


def http(routes: list[HttpRoute], report: Report) -> None:
    _Analysis("http", routes, report).run()


def bytes_routes(kind: str, routes: Sequence[TcpRoute] | Sequence[TlsRoute], report: Report) -> None:
    _Analysis(kind, routes, report).run()


class _Prefixed(NamedTuple):
    """A match on a prefix of the path, with what else Istio compares when it looks for a wider match before it."""

    path: tuple[str | int, ...]
    route: str
    match: str
    prefix: str
    port: int
    method: str
    authority: str
    maps: tuple[dict[str, str], ...]


class _Analysis:
    def __init__(self, kind: str, routes: Sequence[HttpRoute | TcpRoute | TlsRoute], report: Report):
        self._kind, self._routes, self._report = kind, routes, report
        self._seen: dict[bytes, int] = {}
        self._prefixed: list[_Prefixed] = []

    def run(self) -> None:
        catch_all = False
        for i, route in enumerate(self._routes):
            if not route.match:
                if catch_all:
                    self._unused(i, "only the last rule can have no matches")
                catch_all = True
            elif catch_all:
                for _ in route.match:
                    self._unused(i, "route without matches defined before")
            else:
                self._route(i, route)
        for i, wide in enumerate(self._prefixed):
            for narrow in self._prefixed[i + 1 :]:
                if narrow.prefix != wide.prefix and _covers(wide, narrow):
                    self._ineffective(narrow.path, narrow.route, f"{narrow.match} of prefix {narrow.prefix}",
                                      f"{wide.match} of prefix {wide.prefix} on {wide.route}")

    def _route(self, i: int, route: HttpRoute | TcpRoute | TlsRoute) -> None:
        duplicates = 0
        for j, match in enumerate(route.match):
            key = _key(match)
            name = _name(match, j)
            path = (self._kind, i, "match", j)
            if key in self._seen:
                self._ineffective(path, self._name(i), name, self._name(self._seen[key]))
                duplicates += 1
                continue
            self._seen[key] = i
            if isinstance(match, HttpMatchRequest) and match.uri is not None and match.uri.prefix:
                self._prefixed.append(_prefixed(match, path, self._name(i), name))
        if duplicates == len(route.match):
            self._unused(i, "all matches used by prior rules")

    def _name(self, i: int) -> str:
        return _name(self._routes[i], i)

    def _unused(self, i: int, reason: str) -> None:
        self._report.warn(f"virtualService rule {self._name(i)} not used ({reason})", self._kind, i)

    def _ineffective(self, path: tuple[str | int, ...], rule: str, match: str, duplicate: str) -> None:
        said = f"virtualService rule {rule} match {match} is not used (duplicate/overlapping match in rule {duplicate})"
        self._report.warn(said, *path)


def _name(item: object, i: int) -> str:
    """A rule or match by its name, or its position; only HTTP has names."""
    name = getattr(item, "name", "")
    return quote(name) if name else f"#{i}"


def _key(match: object) -> bytes:
    """What a match says, its name left out."""
    if isinstance(match, HttpMatchRequest) and match.name:
        match = msgspec.structs.replace(match, name="")
    return msgspec.json.encode(match, order="deterministic")


def _text(match: StringMatch | None) -> str:
    if match is not None and match.exact:
        return f"exact:{match.exact}"
    return f"prefix:{match.prefix}" if match is not None and match.prefix else ""


def _texts(matches: Mapping[str, StringMatch | None]) -> dict[str, str]:
    return {name: _text(match) for name, match in matches.items()}


def _prefixed(match: HttpMatchRequest, path: tuple[str | int, ...], route: str, name: str) -> _Prefixed:
    assert match.uri is not None
    maps = (_texts(match.headers), _texts(match.query_params), _texts(match.without_headers))
    method = _text(match.method) or "exact:GET"
    return _Prefixed(path, route, name, match.uri.prefix or "", match.port, method, _text(match.authority), maps)


def _covers(wide: _Prefixed, narrow: _Prefixed) -> bool:
    """Whether everything the later match takes was taken by the earlier one, by Istio's rough comparison."""
    if not narrow.prefix.startswith(wide.prefix) or narrow.port != wide.port:
        return False
    if not wide.method.startswith(narrow.method) or not wide.authority.startswith(narrow.authority):
        return False
    for a, b in zip(wide.maps, narrow.maps, strict=True):
        if len(a) != len(b) or not all(name in b and value.startswith(b[name]) for name, value in a.items()):
            return False
    return True

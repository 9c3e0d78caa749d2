"""Paths: normalisation before routing, rewriting after it, and the address a redirect sends a client to.

RFC 3986 6.2.2 and 5.2.4 as Envoy's `normalize_path` does them: unreserved characters are decoded, those that no path may hold are
escaped, dot segments removed, a backslash counts as a slash; the query is never touched.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from meshsim import hosts
from meshsim.routing.matchers import regex
from meshsim.routing.message import Request
from meshsim.xds.http_connection_manager import HttpConnectionManager
from meshsim.xds.message import RegexRewrite
from meshsim.xds.route import RedirectAction, Route, RouteMatch

_ESCAPED = re.compile(r"%([0-9A-Fa-f]{2})")
_ESCAPED_SLASH = re.compile(r"%2[Ff]|%5[Cc]")
CANONICAL = re.compile(r"(?:/[A-Za-z0-9_~\-][A-Za-z0-9_~.\-]*)*/?(?:\?[^#]*)?")
"""What most targets are, and what nothing here changes: no escapes, no dot segments, no empty ones."""
_DOT_PARAMETERS = re.compile(r"(?<=[/\\])(\.{1,2});[^/]*")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")

_UNSAFE = str.maketrans({c: f"%{ord(c):02X}" for c in '"<>^`{|}'} | {"\\": "/"})

_REDIRECT_CODES = {"MOVED_PERMANENTLY": 301, "FOUND": 302, "SEE_OTHER": 303, "TEMPORARY_REDIRECT": 307, "PERMANENT_REDIRECT": 308}

Normalize = Callable[[str], "str | None"]


class RedirectTo(Exception):
    """The path was unescaped and the client is to come back with it."""

    def __init__(self, path: str):
        self.path = path


def normalizer(manager: HttpConnectionManager) -> Normalize:
    """How this manager changes a path; the function gives None for a path it refuses and raises RedirectTo."""
    normalize, merge, escaped = manager.normalize_path is True, manager.merge_slashes, manager.path_with_escaped_slashes_action

    def change(target: str) -> str | None:
        if CANONICAL.fullmatch(target):
            return target
        path, mark, query = target.partition("#")[0].partition("?")  # Istio lets Envoy drop a fragment instead of refusing it
        if escaped not in ("KEEP_UNCHANGED", "IMPLEMENTATION_SPECIFIC_DEFAULT") and _ESCAPED_SLASH.search(path):
            if escaped == "REJECT_REQUEST":
                return None
            path = _ESCAPED_SLASH.sub(lambda m: "/" if m[0].lower() == "%2f" else "\\", path)
            if escaped == "UNESCAPE_AND_REDIRECT":
                raise RedirectTo(path + mark + query)
        if normalize:
            changed = normalized(path)
            if changed is None:
                return None
            path = changed
        if merge:
            path = _merged(path)
        return path + mark + query

    return change


def _merged(path: str) -> str:
    """Each run of slashes as one. Envoy puts the first and the last slash back by themselves: a path of nothing else keeps two."""
    parts = [part for part in path.split("/") if part]
    return path if "//" not in path else f"/{'/'.join(parts)}{'/' if path.endswith('/') else ''}"


def normalized(path: str) -> str | None:
    """A path in its canonical form, or None where it holds a NUL. A dot segment is one whatever parameters follow it: `/a/..;x/b`."""
    if ";" in path:
        path = _DOT_PARAMETERS.sub(r"\1", path)
    if "%" in path:
        if "%00" in path:
            return None
        path = _ESCAPED.sub(lambda m: c if (c := chr(int(m[1], 16))) in _UNRESERVED else m[0], path)
    path = path.translate(_UNSAFE)
    if "/." not in path:
        return path
    out: list[str] = []
    segments = path.split("/")[1:]
    for at, segment in enumerate(segments):
        last = at == len(segments) - 1
        if segment in (".", ".."):
            if segment == ".." and out:
                out.pop()
            if last:
                out.append("")
        else:
            out.append(segment)
    return "/" + "/".join(out)


def rewritten(path: str, match: RouteMatch, prefix: str | None, pattern: RegexRewrite | None) -> str:
    """The path after a route's rewrite, its query kept: `prefix` takes the place of what the route matched, `pattern` of what it fits."""
    bare, mark, query = path.partition("?")
    if pattern is not None:
        return regex(pattern.pattern.regex).sub(_substitution(pattern.substitution), bare) + mark + query
    if prefix:
        matched = match.prefix if match.prefix is not None else match.path_separated_prefix
        bare = prefix + bare[len(matched):] if matched is not None else prefix
    return bare + mark + query


def _substitution(text: str) -> str:
    """RE2's `\\1` is Python's `\\g<1>`; `\\0` is the whole match."""
    return re.sub(r"\\(\d)", r"\\g<\1>", text)


def redirect(action: RedirectAction, route: Route, request: Request) -> tuple[int, str, str]:
    """The status and `location` of a redirect, and the path as logs show it afterwards: rewritten, if it is a rewrite."""
    scheme = "https" if action.https_redirect else action.scheme_redirect or request.scheme
    if action.host_redirect:
        host = action.host_redirect
        if action.port_redirect:
            host = f"{host}:{action.port_redirect}"
    else:
        host = request.authority
        bare = hosts.strip_port(host)
        port = host[len(bare) + 1:]
        if action.port_redirect:
            host = f"{bare}:{action.port_redirect}"
        elif (request.scheme, scheme, port) in (("http", "https", "80"), ("https", "http", "443")):
            host = bare
    path = logged = request.path
    if action.path_redirect:
        own = action.path_redirect
        _, mark, query = path.partition("?")
        path = ("" if own.startswith("/") else "/") + own + ("" if "?" in own else mark + query)
    elif action.prefix_rewrite or action.regex_rewrite is not None:
        path = logged = rewritten(path, route.match, action.prefix_rewrite, action.regex_rewrite)
    if action.strip_query:
        path = path.partition("?")[0]
    return _REDIRECT_CODES[action.response_code], f"{scheme}://{host}{path}", logged

"""What an HTTP rule asks of a request: VirtualService matches as Envoy's route matches.

`gateways`, `port`, `sourceLabels` and `sourceNamespace` ask about the proxy, so they are settled here and now
(`applies`); everything else is asked of each request.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from meshsim.errors import NotSimulated
from meshsim.resources.message import StringMatch
from meshsim.resources.virtual_service import HttpMatchRequest
from meshsim.xds.message import Regex, StringMatcher
from meshsim.xds.route import HeaderMatcher, QueryParameterMatcher, Route, RouteMatch

JWT_CLAIM = "@request.auth.claims"


def applies(match: HttpMatchRequest, port: int, gateways: frozenset[str], labels: Mapping[str, str], namespace: str) -> bool:
    """Whether the match concerns this proxy on this port. With `gateways` set, source labels and namespace are not asked."""
    if match.port and match.port != port:
        return False
    if match.gateways:
        return not gateways.isdisjoint(match.gateways)
    return match.source_labels.items() <= labels.items() and match.source_namespace in ("", namespace)


def route_match(match: HttpMatchRequest | None) -> RouteMatch:
    """All conditions together; a rule without a match takes every path."""
    if match is None:
        return RouteMatch(prefix="/")
    out = _path(match.uri)
    out.case_sensitive = not match.ignore_uri_case
    headers = [_header(name, wanted) for name, wanted in match.headers.items()]
    headers += [_without(name, unwanted) for name, unwanted in match.without_headers.items()]
    out.headers = sorted(headers, key=lambda h: h.name)
    for name, wanted in ((":method", match.method), (":authority", match.authority), (":scheme", match.scheme)):
        if wanted is not None:
            out.headers.append(_header(name, wanted))
    out.query_parameters = [_query(name, wanted) for name, wanted in match.query_params.items()]
    return out


def is_catch_all(route: Route) -> bool:
    """Whether every request fits, so that nothing after the route can be reached."""
    match = route.match
    whole = match.prefix == "/" or (match.safe_regex is not None and match.safe_regex.regex == ".*")
    return whole and not match.headers and not match.query_parameters


def catch_all_last(routes: Iterable[Route]) -> list[Route]:
    """The same routes with those that take everything at the end, else in their order."""
    listed = list(routes)
    return [r for r in listed if not is_catch_all(r)] + [r for r in listed if is_catch_all(r)]


def string_matcher(match: StringMatch) -> StringMatcher | None:
    if match.exact is not None:
        return StringMatcher(exact=match.exact)
    if match.prefix is not None:
        return StringMatcher(prefix=match.prefix)
    return StringMatcher(safe_regex=Regex(match.regex)) if match.regex is not None else None


def _path(uri: StringMatch | None) -> RouteMatch:
    if uri is not None:
        if uri.exact is not None:
            return RouteMatch(path=uri.exact)
        if uri.prefix is not None:
            return RouteMatch(prefix=uri.prefix)
        if uri.regex is not None:
            return RouteMatch(safe_regex=Regex(uri.regex))
    return RouteMatch(prefix="/")


def _is_presence(match: StringMatch | None) -> bool:
    """Nothing asked of the value; `*` is no RE2 expression and means the same."""
    return match is None or (match.exact is None and match.prefix is None and match.regex in (None, "*"))


def _header(name: str, wanted: StringMatch | None) -> HeaderMatcher:
    if name.startswith(JWT_CLAIM):
        raise NotSimulated(f"http.match.headers[{name}]: routing by JWT claims")
    if wanted is None or _is_presence(wanted):
        return HeaderMatcher(name, present_match=True)
    return HeaderMatcher(name, string_match=string_matcher(wanted))


def _without(name: str, unwanted: StringMatch | None) -> HeaderMatcher:
    """A header that is absent has no unwanted value: it counts as empty, unless absence itself is asked for."""
    matcher = _header(name, unwanted)
    matcher.invert_match = True
    matcher.treat_missing_header_as_empty = not _is_presence(unwanted)
    return matcher


def _query(name: str, wanted: StringMatch | None) -> QueryParameterMatcher:
    if wanted is None or _is_presence(wanted):
        return QueryParameterMatcher(name, present_match=True)
    return QueryParameterMatcher(name, string_match=string_matcher(wanted))

"""Text, header and query matchers, compiled once into functions (Envoy's StringMatcher, HeaderMatcher, QueryParameterMatcher)."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from meshsim.routing.message import Request
from meshsim.xds.message import StringMatcher
from meshsim.xds.route import HeaderMatcher, QueryParameterMatcher

Text = Callable[[str], bool]
Predicate = Callable[[Request], bool]


@lru_cache(maxsize=16384)
def regex(pattern: str) -> re.Pattern[str]:
    """A pattern in RE2's syntax, where Python has the same; ASCII classes as in RE2."""
    return re.compile(pattern, re.ASCII)


def text(matcher: StringMatcher | None) -> Text:
    """Whether a text fits; no matcher fits everything. A regex must fit the whole text."""
    if matcher is None:
        return lambda value: True
    fold: Callable[[str], str] = str.lower if matcher.ignore_case else str
    if matcher.exact is not None:
        exact = fold(matcher.exact)
        return lambda value: fold(value) == exact
    if matcher.prefix is not None:
        prefix = fold(matcher.prefix)
        return lambda value: fold(value).startswith(prefix)
    if matcher.suffix is not None:
        suffix = fold(matcher.suffix)
        return lambda value: fold(value).endswith(suffix)
    if matcher.contains is not None:
        part = fold(matcher.contains)
        return lambda value: part in fold(value)
    if matcher.safe_regex is not None:
        pattern = regex(matcher.safe_regex.regex)
        return lambda value: pattern.fullmatch(value) is not None
    return lambda value: not value


def header(matcher: HeaderMatcher) -> Predicate:
    """Whether a request's header fits.

    Repeated headers are looked at one by one; an absent one never fits a value matcher, inverted or not.
    """
    name, invert = matcher.name.lower(), matcher.invert_match
    if matcher.string_match is not None:
        fits = text(matcher.string_match)
    elif matcher.range_match is not None:
        start, end = int(matcher.range_match.start), int(matcher.range_match.end)

        def fits(value: str) -> bool:
            return (number := _integer(value)) is not None and start <= number < end
    else:
        wanted = (matcher.present_match is not False) != invert
        return lambda request: bool(request.values(name)) == wanted
    empty = matcher.treat_missing_header_as_empty

    def matches(request: Request) -> bool:
        values = request.values(name)
        if not values:
            if not empty:
                return False
            values = [""]
        return any(map(fits, values)) != invert

    return matches


def query(matcher: QueryParameterMatcher) -> Predicate:
    """Whether the first parameter of that name fits, its value as it was sent."""
    fits = text(matcher.string_match)
    present = matcher.present_match is not False

    def matches(request: Request) -> bool:
        value = request.query.get(matcher.name)
        return (value is not None and fits(value)) if present else value is None

    return matches




def _integer(value: str) -> int | None:
    try:
        return int(value) if value.lstrip("-").isascii() and value.lstrip("-").isdigit() else None
    except ValueError:
        return None

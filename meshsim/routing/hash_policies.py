"""The hash that keeps requests of one kind on one host: of a header, a cookie, a query parameter or the client's address.

Envoy: the policies are mixed in order, a terminal one ends the list if it gave a hash, and a cookie that a client does not have yet
is made for it where the policy has a `ttl`.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import NamedTuple

from meshsim.routing import hashing
from meshsim.routing.facts import Downstream
from meshsim.routing.message import Headers, Request
from meshsim.xds.message import seconds
from meshsim.xds.route import HashCookie, HashPolicy

SET_COOKIE = "set-cookie"


class Hashed(NamedTuple):
    """value: None where no policy found anything. cookies: what the response must set."""

    value: int | None
    cookies: Headers


def hashed(policies: Iterable[HashPolicy], request: Request, downstream: Downstream, rng: random.Random) -> Hashed:
    """The hash of a request."""
    found: int | None = None
    cookies: Headers = []
    for policy in policies:
        value: int | None = None
        if policy.header is not None:
            values = request.values(policy.header.header_name.lower())
            value = hashing.xxh64(",".join(values).encode("latin-1")) if values else None
        elif policy.cookie is not None:
            text = _cookie(request, policy.cookie.name)
            if text is None and policy.cookie.ttl is not None:
                text = f"{rng.getrandbits(64):016x}"
                cookies.append((SET_COOKIE, _set(policy.cookie, text)))
            value = hashing.xxh64(text.encode("latin-1")) if text is not None else None
        elif policy.query_parameter is not None:
            text = request.query.get(policy.query_parameter.name)
            value = hashing.xxh64(text.encode("latin-1")) if text is not None else None
        elif policy.connection_properties is not None and policy.connection_properties.source_ip:
            value = hashing.xxh64(downstream.source.host.encode())
        if value is not None:
            found = hashing.combined(found, value)
            if policy.terminal:
                break
    return Hashed(found, cookies)


def _cookie(request: Request, wanted: str) -> str | None:
    for line in request.values("cookie"):
        for pair in line.split(";"):
            name, _, value = pair.strip().partition("=")
            if name == wanted:
                return value.strip('"')
    return None


def _set(cookie: HashCookie, value: str) -> str:
    age = int(seconds(cookie.ttl))
    text = f'{cookie.name}="{value}"'
    text += f"; Max-Age={age}" if age else ""
    text += f"; Path={cookie.path}" if cookie.path else ""
    return text + "; HttpOnly"

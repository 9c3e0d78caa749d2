"""Cross-origin resource sharing: preflight requests answered here, other responses told who may read them.

The Fetch standard's rules, Envoy's order of headers.
"""

from __future__ import annotations

from typing import NamedTuple

from meshsim.routing import matchers
from meshsim.routing.message import Headers, Request
from meshsim.xds.http_filters import CorsPolicy


class Decision(NamedTuple):
    """preflight: answer it with these headers; else add them to the response."""

    preflight: bool
    headers: Headers


class Policy:
    """One route's policy, compiled."""

    def __init__(self, config: CorsPolicy):
        self._config = config
        self._origins = [matchers.text(m) for m in config.allow_origin_string_match]

    def decide(self, request: Request) -> Decision:
        origin = request.first("origin")
        if not origin:
            return Decision(False, [])
        config = self._config
        allowed = any(fits("*") or fits(origin) for fits in self._origins)  # a policy that names `*` means everybody
        preflight = request.method == "OPTIONS" and bool(request.first("access-control-request-method"))
        who = [("access-control-allow-origin", origin)] if allowed else []
        who += [("access-control-allow-credentials", "true")] if allowed and config.allow_credentials else []
        if not preflight:
            expose = [("access-control-expose-headers", config.expose_headers)] if allowed and config.expose_headers else []
            return Decision(False, who + expose)
        if not allowed and config.forward_not_matching_preflights is not False:
            return Decision(False, [])
        what = [
            ("access-control-allow-methods", config.allow_methods),
            ("access-control-allow-headers", config.allow_headers),
            ("access-control-max-age", config.max_age),
            ("access-control-expose-headers", config.expose_headers),
        ]
        return Decision(True, who + [(name, value) for name, value in what if value])

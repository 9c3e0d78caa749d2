"""What a proxy knows of gRPC: its requests, and the time their callers give them in `grpc-timeout`.

The header is up to eight digits and a unit (gRPC over HTTP/2, "Requests"). Where a route has `max_grpc_timeout`, it takes the place of the
route's timeout, no longer than that (0: as long as the caller says), and the host is told what is left.
"""

from __future__ import annotations

import re

from meshsim.routing.message import Request

TIMEOUT = "grpc-timeout"
CONTENT_TYPE = "application/grpc"
_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")
_SECONDS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_MOST = 99_999_999


def is_call(request: Request) -> bool:
    """Whether a request is a gRPC call, by its content type; `application/grpc-web` is none."""
    kind = request.first("content-type") or ""
    return kind == CONTENT_TYPE or kind.startswith(CONTENT_TYPE + "+")


def timeout(request: Request, longest: float) -> float:
    """Seconds that a call may take, 0 for any. longest: the route's `max_grpc_timeout`."""
    found = _TIMEOUT.fullmatch(request.first(TIMEOUT) or "")
    asked = int(found[1]) * _SECONDS[found[2]] if found else 0.0
    return min(asked or longest, longest) if longest else asked


def spelled(milliseconds: int) -> str:
    """A time as the header tells it, in the finest unit from milliseconds up that it fits into."""
    amount, unit = milliseconds, "m"
    for coarser, of_it in (("S", 1000), ("M", 60), ("H", 60)):
        if amount <= _MOST:
            break
        amount, unit = amount // of_it, coarser
    return f"{min(amount, _MOST)}{unit}"

"""How long a client's connection goes on, and how it ends.

How this works: Envoy's connection manager ends a connection in steps. One that has been free for the idle timeout, or has lasted its
time, *drains*: an HTTP/2 client is asked to open no more streams, an HTTP/1 client hears so with its next response. After the drain time
the connection *closes*, as soon as nothing is under way on it. Where the client has never said a word there is nothing to drain. Whoever
holds the connection tells `Lifetime` when requests begin and end, and asks `check` when `due` says so.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from meshsim.routing import replies
from meshsim.routing.replies import Local
from meshsim.xds.http_connection_manager import HttpConnectionManager
from meshsim.xds.message import seconds

IDLE, DRAIN, DELAYED_CLOSE, STREAM_IDLE = 3600.0, 5.0, 1.0, 300.0  # seconds; Envoy's defaults


class Limits(NamedTuple):
    """What a connection manager allows, in seconds; 0 is no limit.

    idle: of a connection without a request. longest: of a connection. requests: on one connection. drain: between asking the client to
    go and closing. delayed_close: for the client to close first where it may still be sending. headers, request: for the head of a
    request and for all of it, from its first byte. stream_idle: in which nothing of a request or its response moves. stream: for both.
    """

    idle: float = IDLE
    longest: float = 0.0
    requests: int = 0
    drain: float = DRAIN
    delayed_close: float = DELAYED_CLOSE
    headers: float = 0.0
    request: float = 0.0
    stream_idle: float = STREAM_IDLE
    stream: float = 0.0

    @classmethod
    def of(cls, config: HttpConnectionManager) -> Limits:
        common = config.common_http_protocol_options
        return cls(
            idle=seconds(common.idle_timeout if common else None, IDLE),
            longest=seconds(common.max_connection_duration if common else None),
            requests=(common.max_requests_per_connection if common else None) or 0,
            drain=seconds(config.drain_timeout, DRAIN),
            delayed_close=seconds(config.delayed_close_timeout, DELAYED_CLOSE),
            headers=seconds(config.request_headers_timeout),
            request=seconds(config.request_timeout),
            stream_idle=seconds(config.stream_idle_timeout, STREAM_IDLE),
            stream=seconds(common.max_stream_duration if common else None),
        )

    def head(self) -> tuple[float, Local] | None:
        """How long the head of a request may be on its way, and the answer to one that is longer."""
        ends = [
            (self.headers, replies.HEADERS_TIMEOUT), (self.request, replies.REQUEST_TIMEOUT), (self.stream_idle, replies.REQUEST_IDLE),
            (self.stream, replies.MAX_DURATION),
        ]  # fmt: skip
        return min((end for end in ends if end[0]), key=lambda end: end[0], default=None)


class Stage(IntEnum):
    """OPEN: requests are welcome. DRAINING: the client shall go. CLOSING: the connection ends when nothing is under way."""

    OPEN = 0
    DRAINING = 1
    CLOSING = 2


class Lifetime:
    """One connection."""

    __slots__ = ("_drained", "_ends", "_free_since", "_limits", "requests", "stage")

    def __init__(self, limits: Limits, now: float):
        self._limits = limits
        self._free_since: float | None = now
        self._ends = now + limits.longest if limits.longest else 0.0
        self._drained = 0.0
        self.requests = 0
        self.stage = Stage.OPEN

    def busy(self) -> bool:
        """A request begins: whether it is the last one that the connection may carry."""
        self._free_since = None
        self.requests += 1
        return self.requests == self._limits.requests

    def free(self, now: float) -> None:
        """Nothing is under way any more."""
        self._free_since = now

    def drain(self, now: float) -> None:
        """The client shall go, for whatever reason."""
        if self.stage is Stage.OPEN:
            self.stage, self._drained = Stage.DRAINING, now + self._limits.drain

    def close(self) -> None:
        """The connection ends with what is under way."""
        self.stage = Stage.CLOSING

    def due(self, now: float) -> float:
        """Seconds after which to `check` (at the latest; 0: never)."""
        if self.stage is Stage.CLOSING:
            return 0.0
        if self.stage is Stage.DRAINING:
            return max(self._drained - now, _SOON)
        ends = []
        if self._limits.idle:
            ends.append((now if self._free_since is None else self._free_since) + self._limits.idle)
        if self._ends:
            ends.append(self._ends)
        return max(min(ends) - now, _SOON) if ends else 0.0

    def check(self, now: float, *, spoken: bool) -> str:
        """Move on to the stage that is due; the counter of the limit that was reached, if any. spoken: whether the client sent anything."""
        reached = ""
        if self.stage is Stage.OPEN:
            if self._ends and now >= self._ends:
                reached = MAX_DURATION
            elif self._limits.idle and self._free_since is not None and now >= self._free_since + self._limits.idle:
                reached = IDLE_TIMEOUT
            if reached and spoken:
                self.drain(now)
            elif reached:
                self.close()
        elif self.stage is Stage.DRAINING and now >= self._drained:
            self.close()
        return reached


IDLE_TIMEOUT, MAX_DURATION, MAX_REQUESTS = (
    "downstream_cx_idle_timeout", "downstream_cx_max_duration_reached", "downstream_cx_max_requests_reached"
)  # fmt: skip
_SOON = 0.001  # seconds: timers may be early by less than that

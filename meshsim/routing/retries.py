"""Whether a failed attempt is made again, and when.

Envoy's retry policy: `retry_on` names what is worth another attempt; unknown words are ignored. A policy that would retry but has used its
number up is what the flag URX says; UO says that too many requests of the cluster are being retried at the same time.
"""

from __future__ import annotations

import random
from enum import Enum
from typing import Protocol

from meshsim.routing import headers
from meshsim.routing.message import Request, Response
from meshsim.xds.message import seconds
from meshsim.xds.route import RetryPolicy

BASE_INTERVAL = 0.025  # seconds; Envoy's default, and ten times it the longest
_GATEWAY_ERRORS = (502, 503, 504)
_GRPC = {"cancelled": 1, "deadline-exceeded": 4, "internal": 13, "resource-exhausted": 8, "unavailable": 14}
_ANY_RESET = frozenset(("5xx", "gateway-error", "reset"))


class Reset(Enum):
    """How an upstream request can end without a response: the reason as local replies and details spell it."""

    CONNECT = "remote connection failure"
    TIMEOUT = "connection timeout"
    TERMINATION = "connection termination"
    REMOTE = "remote reset"
    REFUSED = "remote refused stream reset"
    PROTOCOL = "protocol error"
    OVERFLOW = "overflow"
    LOCAL = "local reset"


class Verdict(Enum):
    """`EXCEEDED`: worth another attempt, but the number of retries is used up. `OVERFLOW`: ... but the cluster has too many already."""

    NO = 0
    RETRY = 1
    EXCEEDED = 2
    OVERFLOW = 3

    @property
    def flag(self) -> str:
        """The response flag that says so."""
        return _FLAGS.get(self, "")


_FLAGS = {Verdict.EXCEEDED: "URX", Verdict.OVERFLOW: "UO"}


def words(retry_on: str) -> frozenset[str]:
    """What is worth another attempt, by name."""
    return frozenset(word.strip() for word in retry_on.split(",") if word.strip())


class RetryRules:
    """A policy, read once for all requests. base, longest: seconds of back-off."""

    def __init__(self, policy: RetryPolicy):
        self.on = words(policy.retry_on)
        self.codes = frozenset(policy.retriable_status_codes)
        self.number = 1 if policy.num_retries is None else policy.num_retries
        back_off = policy.retry_back_off
        self.base = seconds(back_off.base_interval, BASE_INTERVAL) if back_off else BASE_INTERVAL
        self.longest = seconds(back_off.max_interval, self.base * 10) if back_off else self.base * 10
        self.per_try_timeout = seconds(policy.per_try_timeout)
        self.avoids_previous_hosts = bool(policy.retry_host_predicate)
        self.host_attempts = int(policy.host_selection_retry_max_attempts or 1)


class Breaker(Protocol):
    """The retry circuit breaker of a cluster. retries: how many of its requests are being tried again."""

    retries: int

    @property
    def most_retries(self) -> int: ...


class Retries:
    """The retries of one request; whoever ends the request calls `release`."""

    __slots__ = ("_breaker", "_held", "_left", "_made", "_on", "_rng", "rules")

    def __init__(self, rules: RetryRules, rng: random.Random, breaker: Breaker):
        self.rules, self._rng, self._breaker = rules, rng, breaker
        self._on, self._left, self._made = rules.on, rules.number, 0
        self._held = False

    def heed(self, request: Request) -> None:
        """Take in what the request's headers say of retries: more that is worth one, and another number."""
        for name in headers.RETRY_ON:
            self._on |= words(request.first(name) or "")
        number = request.first(headers.MAX_RETRIES) or ""
        if number.isascii() and number.isdecimal():
            self._left = int(number)

    def after_response(self, response: Response) -> Verdict:
        return self._spend(self._worth_response(response))

    def after_reset(self, reset: Reset, *, sent: bool) -> Verdict:
        """`sent`: whether any of the request had been given to the connection."""
        return self._spend(self._worth_reset(reset, sent))

    def delay(self) -> float:
        """Seconds before the next attempt: random, below a bound that doubles."""
        self._made += 1
        return float(self._rng.random() * min((2**self._made - 1) * self.rules.base, self.rules.longest))

    def release(self) -> None:
        """The last retry is over: another request of the cluster may have one."""
        if self._held:
            self._held = False
            self._breaker.retries -= 1

    def _spend(self, worth: bool) -> Verdict:
        self.release()
        if not worth:
            return Verdict.NO
        if self._left <= 0:
            return Verdict.EXCEEDED
        self._left -= 1
        if self._breaker.retries >= self._breaker.most_retries:
            return Verdict.OVERFLOW
        self._breaker.retries += 1
        self._held = True
        return Verdict.RETRY

    def _worth_reset(self, reset: Reset, sent: bool) -> bool:
        if reset is Reset.OVERFLOW:
            return False
        if self._on & _ANY_RESET:
            return True
        if "connect-failure" in self._on and reset in (Reset.CONNECT, Reset.TIMEOUT):
            return True
        if "refused-stream" in self._on and reset is Reset.REFUSED:
            return True
        return "reset-before-request" in self._on and not sent

    def _worth_response(self, response: Response) -> bool:
        status = response.status
        if "5xx" in self._on and status >= 500:
            return True
        if "gateway-error" in self._on and status in _GATEWAY_ERRORS:
            return True
        if "retriable-4xx" in self._on and status == 409:
            return True
        if "retriable-status-codes" in self._on and status in self.rules.codes:
            return True
        grpc = response.first("grpc-status")
        return grpc is not None and any(word in self._on and grpc == str(code) for word, code in _GRPC.items())

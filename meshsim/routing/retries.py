"""Whether a failed attempt is made again, and when.

Envoy's retry policy: `retry_on` names what is worth another attempt; unknown words are ignored. A policy that would retry but has used its
number up is what the flag URX says.
"""

from __future__ import annotations

import random
from enum import Enum

from meshsim.routing.message import Response
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
    """`EXCEEDED`: it would have been retried, but the number of retries is used up."""

    NO = 0
    RETRY = 1
    EXCEEDED = 2


class RetryRules:
    """A policy, read once for all requests. base, longest: seconds of back-off."""

    def __init__(self, policy: RetryPolicy):
        self.on = frozenset(word.strip() for word in policy.retry_on.split(",") if word.strip())
        self.codes = frozenset(policy.retriable_status_codes)
        self.number = 1 if policy.num_retries is None else policy.num_retries
        back_off = policy.retry_back_off
        self.base = seconds(back_off.base_interval, BASE_INTERVAL) if back_off else BASE_INTERVAL
        self.longest = seconds(back_off.max_interval, self.base * 10) if back_off else self.base * 10
        self.per_try_timeout = seconds(policy.per_try_timeout)
        self.avoids_previous_hosts = bool(policy.retry_host_predicate)
        self.host_attempts = int(policy.host_selection_retry_max_attempts or 1)


class Retries:
    """The retries of one request."""

    __slots__ = ("_left", "_made", "_on", "_rng", "rules")

    def __init__(self, rules: RetryRules, rng: random.Random):
        self.rules, self._rng = rules, rng
        self._on, self._left, self._made = rules.on, rules.number, 0

    def after_response(self, response: Response) -> Verdict:
        return self._spend(self._worth_response(response))

    def after_reset(self, reset: Reset, *, sent: bool) -> Verdict:
        """`sent`: whether any of the request had been given to the connection."""
        return self._spend(self._worth_reset(reset, sent))

    def delay(self) -> float:
        """Seconds before the next attempt: random, below a bound that doubles."""
        self._made += 1
        return float(self._rng.random() * min((2**self._made - 1) * self.rules.base, self.rules.longest))

    def _spend(self, worth: bool) -> Verdict:
        if not worth:
            return Verdict.NO
        if self._left <= 0:
            return Verdict.EXCEEDED
        self._left -= 1
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

"""How often and after what a route tries again: Istio's retry policy as Envoy's."""

from __future__ import annotations

from http import HTTPStatus

from meshsim.resources import message
from meshsim.resources.virtual_service import HttpRetry
from meshsim.xds.message import duration
from meshsim.xds.route import (
    PreviousHostsPredicate,
    PreviousPrioritiesConfig,
    RetryBackOff,
    RetryHostPredicate,
    RetryPolicy,
    RetryPriority,
)

RETRY_ON = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"
INBOUND_RETRY_ON = "reset-before-request"  # such a request has surely not been served
STATUS_CODES = "retriable-status-codes"
_STATUSES = frozenset(s.value for s in HTTPStatus) | {418, 451}


def outbound(policy: HttpRetry | None, *, hashed: bool = False) -> RetryPolicy | None:
    """The policy of an outbound or gateway route; Istio's default for None, None for `attempts: 0`.

    `hashed`: the single destination balances by hash, so another host is not looked for.
    """
    if policy is not None and policy.attempts <= 0:
        return None
    out = RetryPolicy(
        RETRY_ON,
        num_retries=2,
        retry_host_predicate=[] if hashed else _previous_hosts(),
        host_selection_retry_max_attempts="5",
    )
    if policy is None:
        return out
    _customize(out, policy)
    if policy.per_try_timeout is not None:
        out.per_try_timeout = duration(message.seconds(policy.per_try_timeout))
    if policy.retry_ignore_previous_hosts is not None:
        out.retry_host_predicate = _previous_hosts() if policy.retry_ignore_previous_hosts else []
    if policy.retry_remote_localities:
        out.retry_priority = RetryPriority("envoy.retry_priorities.previous_priorities", PreviousPrioritiesConfig(update_frequency=2))
    return out


def inbound(protocol_is_grpc: bool) -> RetryPolicy | None:
    """The policy of a sidecar's inbound route. It would break gRPC streams, which get none."""
    return None if protocol_is_grpc else RetryPolicy(INBOUND_RETRY_ON, num_retries=2)


def _customize(out: RetryPolicy, policy: HttpRetry) -> None:
    out.num_retries = policy.attempts
    if policy.retry_on:
        tokens = [t for t in (part.strip() for part in policy.retry_on.split(",")) if t]
        codes = [int(t) for t in tokens if t.isdigit() and int(t) in _STATUSES]
        words = [t for t in tokens if not (t.isdigit() and int(t) in _STATUSES)]
        out.retry_on, out.retriable_status_codes = ",".join(words), codes
        if codes and STATUS_CODES not in out.retry_on:
            out.retry_on += f",{STATUS_CODES}"
    if policy.backoff is not None:
        out.retry_back_off = RetryBackOff(duration(message.seconds(policy.backoff)))


def _previous_hosts() -> list[RetryHostPredicate]:
    return [RetryHostPredicate("envoy.retry_host_predicates.previous_hosts", PreviousHostsPredicate())]

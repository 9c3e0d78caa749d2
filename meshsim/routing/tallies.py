"""What a finished request adds to statistics beside its code: Envoy's counters for what went wrong, read off its log entry."""

from __future__ import annotations

from meshsim.routing.entry import Entry

_BY_DETAILS = {
    "request_header_timeout": "downstream_rq_header_timeout",
    "request_overall_timeout": "downstream_rq_timeout",
    "stream_idle_timeout": "downstream_rq_idle_timeout",
    "max_duration_timeout": "downstream_rq_max_duration_reached",
    "absolute_path_rejected": "downstream_rq_non_relative_path",
    "path_normalization_failed": "downstream_rq_failed_path_normalization",
    "upgrade_failed": "downstream_rq_ws_on_non_ws_route",
    "route_not_found": "no_route",
    "cluster_not_found": "no_cluster",
    "direct_response": "rq_direct_response",
    "http1.headers_too_large": "downstream_rq_too_large",
}
_BY_FLAG = {"DPE": "downstream_cx_protocol_error", "DC": "downstream_rq_rx_reset", "DR": "downstream_rq_rx_reset"}
_UPSTREAM = {
    "response_timeout": "upstream_rq_timeout",
    "upstream_per_try_timeout": "upstream_rq_per_try_timeout",
    "no_healthy_upstream": "upstream_cx_none_healthy",
    "downstream_remote_disconnect": "upstream_rq_cancelled",
}

OF_MANAGERS = (
    "downstream_cx_total", "downstream_cx_http1_total", "downstream_cx_http2_total", "downstream_cx_destroy", "downstream_cx_destroy_local",
    "downstream_cx_destroy_remote", "downstream_cx_idle_timeout", "downstream_cx_max_duration_reached",
    "downstream_cx_max_requests_reached", "downstream_rq_total", "downstream_rq_http1_total", "downstream_rq_http2_total",
    "downstream_rq_completed", *(f"downstream_rq_{kind}xx" for kind in range(1, 6)),
    *sorted({*_BY_FLAG.values(), *_BY_DETAILS.values()}),
)  # fmt: skip
"""What is counted under `http.PREFIX.`, so that a zero can be shown."""

OF_CLUSTERS = (
    "upstream_cx_total", "upstream_cx_http1_total", "upstream_cx_http2_total", "upstream_cx_connect_fail", "upstream_cx_connect_timeout",
    "upstream_cx_overflow", "upstream_cx_destroy", "upstream_cx_idle_timeout", "upstream_cx_max_duration_reached", "upstream_rq_total",
    "upstream_rq_active_overflow", "upstream_rq_pending_total", "upstream_rq_pending_overflow", "upstream_rq_pending_failure_eject",
    "upstream_rq_retry", "upstream_rq_retry_backoff_exponential", "upstream_rq_retry_success", "upstream_rq_retry_limit_exceeded",
    *sorted(_UPSTREAM.values()),
)  # fmt: skip
"""The same of `cluster.NAME.`; counters of codes exist once there was such a response, as Envoy's do."""

OF_LISTENERS = (
    "downstream_cx_total", "downstream_cx_destroy", "downstream_pre_cx_timeout", "downstream_listener_filter_remote_close",
    "no_filter_chain_match",
)  # fmt: skip
"""The same of `listener.ADDRESS.`."""


def downstream(entry: Entry) -> list[str]:
    """Counters of `http.PREFIX.`."""
    found = [_BY_FLAG[flag] for flag in entry.flags if flag in _BY_FLAG]
    if entry.details in _BY_DETAILS:
        found.append(_BY_DETAILS[entry.details])
    return found


def upstream(entry: Entry) -> list[tuple[str, int]]:
    """Counters of `cluster.NAME.`, and by how much they grow."""
    found = [(_UPSTREAM[entry.details], 1)] if entry.details in _UPSTREAM else []
    retries = entry.attempts - 1
    if retries > 0:
        found += [("upstream_rq_retry", retries), ("upstream_rq_retry_backoff_exponential", retries)]
        if 0 < entry.code < 500:
            found.append(("upstream_rq_retry_success", 1))
    if "URX" in entry.flags:
        found.append(("upstream_rq_retry_limit_exceeded", 1))
    return found

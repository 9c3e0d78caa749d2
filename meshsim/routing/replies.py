"""The answers a proxy gives of its own: status, body, response flag and details, one row each.

Everything a person greps for is in this table; Envoy's words, to the letter.
"""

from __future__ import annotations

from typing import NamedTuple

from meshsim.routing.retries import Reset


class Local(NamedTuple):
    """A local reply. `closes`: the connection ends with it, because what follows on it cannot be trusted."""

    status: int
    body: str
    details: str
    flag: str = ""
    closes: bool = False


NO_ROUTE = Local(404, "", "route_not_found", "NR")
NO_ROUTE_TABLE = Local(404, "", "route_configuration_not_found", "NR")
NO_CLUSTER = Local(503, "", "cluster_not_found", "NC")
NO_HOST = Local(503, "no healthy upstream", "no_healthy_upstream", "UH")
NO_ADDRESS = Local(503, "no healthy upstream", "dns_resolution_failure{cares_norecords:Domain_name_not_found}", "UH")
TIMEOUT = Local(504, "upstream request timeout", "response_timeout", "UT")
PER_TRY_TIMEOUT = Local(504, "upstream request timeout", "upstream_per_try_timeout", "UT")
STREAM_IDLE = Local(504, "stream timeout", "stream_idle_timeout", "SI")
REQUEST_IDLE = Local(408, "stream timeout", "stream_idle_timeout", "SI", closes=True)
REQUEST_TIMEOUT = Local(408, "request timeout", "request_overall_timeout", closes=True)
HEADERS_TIMEOUT = Local(408, "request header timeout", "request_header_timeout", closes=True)
MAX_DURATION = Local(504, "downstream duration timeout", "max_duration_timeout")
FAULT = Local(0, "fault filter abort", "fault_filter_abort", "FI")
NO_HOST_HEADER = Local(400, "", "missing_host_header", closes=True)
RELATIVE_PATH = Local(404, "", "absolute_path_rejected")
BAD_PATH = Local(400, "", "path_normalization_failed", closes=True)
NO_UPGRADE = Local(403, "", "upgrade_failed", closes=True)

# What a codec refuses, by the name of its finding.
BAD_REQUESTS: dict[str, Local] = {
    name: Local(status, body, details, "DPE", closes=True)
    for name, status, body, details in (
        ("syntax", 400, "Bad Request", "http1.codec_error"),
        ("characters", 400, "Bad Request", "http1.invalid_characters"),
        ("length and chunked", 400, "Bad Request", "http1.content_length_and_chunked_not_allowed"),
        ("transfer-encoding", 501, "Not Implemented", "http1.invalid_transfer_encoding"),
        ("scheme", 400, "Bad Request", "http1.invalid_scheme"),
        ("target", 400, "Bad Request", "http1.invalid_url"),
        ("authority", 400, "Bad Request", "http.invalid_authority"),
        ("too large", 431, "Request Header Fields Too Large", "http1.headers_too_large"),
        ("too many", 431, "Request Header Fields Too Large", "http1.too_many_headers"),
        ("underscore", 400, "Bad Request", "http1.unexpected_underscore"),
        ("version", 426, "Upgrade Required", "low_version"),
    )
}

RESETS = {
    "too large": "http2.header_list_size_too_large", "too many": "http2.too_many_headers", "underscore": "http2.unexpected_underscore",
}  # fmt: skip
"""The details of an HTTP/2 stream that is reset instead."""

_FLAGS = {
    Reset.CONNECT: "UF", Reset.TIMEOUT: "UF", Reset.TERMINATION: "UC", Reset.REMOTE: "UR", Reset.REFUSED: "UR", Reset.PROTOCOL: "UPE",
    Reset.OVERFLOW: "UO", Reset.LOCAL: "LR",
}


def no_host(reason: str = "") -> Local:
    """A cluster has nobody to ask. `reason`: what makes that so, where a person would not find it out."""
    return NO_HOST._replace(body=f"{NO_HOST.body}: {reason}") if reason else NO_HOST


def upstream_failed(reset: Reset, reason: str, *, retried: bool) -> Local:
    """No response came. `reason`: what the transport said, spaces as underscores."""
    words = "retried and the latest reset reason" if retried else "reset reason"
    body = f"upstream connect error or disconnect/reset before headers. {words}: {reset.value}"
    inner = reset.value.replace(" ", "_") + (f"|{reason}" if reason else "")
    status = 502 if reset is Reset.PROTOCOL else 503
    return Local(status, body, f"upstream_reset_before_response_started{{{inner}}}", _FLAGS[reset])


def upstream_broke_off(reset: Reset) -> tuple[str, str]:
    """The details and flag of a response that stopped in the middle."""
    return f"upstream_reset_after_response_started{{{reset.value.replace(' ', '_')}}}", _FLAGS[reset]


GRPC_STATUS = {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14}
GRPC_UNKNOWN = 2

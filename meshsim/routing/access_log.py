"""Access logs: which entries a logger takes, and the line it makes of one (Envoy's substitution formats).

How this works: a format is parsed once into a list of texts and operators; an operator is a function from an entry to a
text, a number, or None. Text formats print `-` for None; JSON formats keep numbers and `null`, and sort their keys. Nothing
is formatted for an entry that no logger wants.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any as Json
from typing import NamedTuple, Protocol

from meshsim.errors import NotSimulated
from meshsim.routing import cel
from meshsim.routing.entry import Entry
from meshsim.routing.facts import Downstream, Endpoint
from meshsim.xds.access_log import AccessLog, AccessLogFilter, StdoutAccessLog, SubstitutionFormatString

Value = str | int | None
Operator = Callable[[Entry], Value]
Wanted = Callable[[Entry], bool]
Record = Callable[[Entry], dict[str, Json]]

STDOUT = "/dev/stdout"
DEFAULT_FORMAT = (
    '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% '
    '%BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" '
    '"%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%"\n'
)
LONG_FLAGS = {
    "LH": "FailedLocalHealthCheck",
    "UH": "NoHealthyUpstream",
    "UT": "UpstreamRequestTimeout",
    "LR": "LocalReset",
    "UR": "UpstreamRemoteReset",
    "UF": "UpstreamConnectionFailure",
    "UC": "UpstreamConnectionTermination",
    "UO": "UpstreamOverflow",
    "NR": "NoRouteFound",
    "DI": "DelayInjected",
    "FI": "FaultInjected",
    "RL": "RateLimited",
    "UAEX": "UnauthorizedExternalService",
    "DC": "DownstreamConnectionTermination",
    "URX": "UpstreamRetryLimitExceeded",
    "SI": "StreamIdleTimeout",
    "DPE": "DownstreamProtocolError",
    "UMSDR": "UpstreamMaxStreamDurationReached",
    "DT": "DurationTimeout",
    "UPE": "UpstreamProtocolError",
    "NC": "NoClusterFound",
    "DF": "DnsResolutionFailed",
    "DR": "DownstreamRemoteReset",
}

_OPERATOR = re.compile(r"%(?:%|([A-Z0-9_]+)(?:\(((?:[^()]|\([^()]*\))*)\))?(?::(\d+))?%)")
_SUBSECOND = re.compile(r"%(\d?)f")


class Line(Protocol):
    """What makes an entry's line, newline included."""

    def __call__(self, entry: Entry) -> str: ...
    def after(self, entry: Entry) -> Line:
        """The same for entries of requests that repeat this entry's (routing/repeats.py): what cannot differ is written once."""

    def of_bytes(self) -> Line:
        """The same for entries that are none of HTTP: what only HTTP has is written once, as not there."""


class Logger(NamedTuple):
    """Where lines go, which entries get one, and the line."""

    path: str
    wanted: Wanted
    format: Line

    def after(self, entry: Entry) -> Logger:
        """The same for entries of requests that repeat this entry's."""
        return self._replace(format=self.format.after(entry))

    def of_bytes(self) -> Logger:
        """The same for entries that are none of HTTP."""
        return self._replace(format=self.format.of_bytes())


def loggers(logs: list[AccessLog]) -> list[Logger]:
    """The loggers of a connection manager, TCP proxy or listener.

    Raises NotSimulated for an operator or a CEL expression that is not known.
    """
    out = []
    for log in logs:
        path = STDOUT if isinstance(log.typed_config, StdoutAccessLog) else log.typed_config.path
        out.append(Logger(path, wanted(log.filter), compile_format(log.typed_config.log_format)))
    return out


def wanted(filter_: AccessLogFilter | None) -> Wanted:
    """Whether an entry passes the filter."""
    if filter_ is None:
        return lambda entry: True
    if filter_.response_flag_filter is not None:
        flags = frozenset(filter_.response_flag_filter.flags)
        return lambda entry: not flags.isdisjoint(entry.flags) if flags else bool(entry.flags)
    if filter_.extension_filter is not None:
        return cel.predicate(filter_.extension_filter.typed_config.expression)
    if filter_.and_filter is not None:
        parts = [wanted(f) for f in filter_.and_filter.filters]
        return lambda entry: all(p(entry) for p in parts)
    if filter_.or_filter is not None:
        parts = [wanted(f) for f in filter_.or_filter.filters]
        return lambda entry: any(p(entry) for p in parts)
    return lambda entry: True


def compile_format(log_format: SubstitutionFormatString | None) -> Line:
    """The line of an entry; Envoy's own text format if none is given."""
    if log_format is not None and log_format.json_format is not None:
        return _Json(record(log_format.json_format, omit_empty=log_format.omit_empty_values))
    source = log_format.text_format_source if log_format else None
    empty = "" if log_format and log_format.omit_empty_values else "-"
    return _text(source.inline_string if source else DEFAULT_FORMAT, empty)


class _Json:
    """A JSON object in one line."""

    def __init__(self, make: Record):
        self._make = make

    def __call__(self, entry: Entry) -> str:
        return json.dumps(self._make(entry), separators=(",", ":"), ensure_ascii=False) + "\n"

    def after(self, entry: Entry) -> Line:
        return self

    def of_bytes(self) -> Line:
        return self


class _Text:
    """Texts and operators in turn; `empty` is what a value that is not there prints."""

    def __init__(self, parts: list[str | _Operation], empty: str):
        self._parts, self._empty = parts, empty
        self._template = "".join(part.replace("%", "%%") if isinstance(part, str) else "%s" for part in parts)
        self._reads = [part.read for part in parts if not isinstance(part, str)]

    def __call__(self, entry: Entry) -> str:
        empty = self._empty
        return self._template % tuple([empty if (value := read(entry)) is None else value for read in self._reads])

    def after(self, entry: Entry) -> Line:
        return self._settled(entry, lambda part: not part.of_each)

    def of_bytes(self) -> Line:
        return self._settled(Entry(Downstream(Endpoint(""), Endpoint(""))), lambda part: part.of_http)

    def _settled(self, entry: Entry, is_settled: Callable[[_Operation], bool]) -> _Text:
        """The same with the values of some operators as text."""
        parts = [_Text([p], self._empty)(entry) if not isinstance(p, str) and is_settled(p) else p for p in self._parts]
        return _Text(parts, self._empty)


def record(json_format: Mapping[str, Json], *, omit_empty: bool = False) -> Record:
    """The JSON object of an entry, keys sorted; a value that is one operator alone keeps its type."""
    fields = {key: _json_value(value) for key, value in sorted(json_format.items())}

    def make(entry: Entry) -> dict[str, Json]:
        made = {key: field(entry) for key, field in fields.items()}
        return {key: value for key, value in made.items() if value is not None} if omit_empty else made

    return make


def _json_value(value: Json) -> Callable[[Entry], Json]:
    if isinstance(value, Mapping):
        return record(value)
    if isinstance(value, list):
        items = [_json_value(v) for v in value]
        return lambda entry: [item(entry) for item in items]
    if not isinstance(value, str):
        return lambda entry: value
    parts = _parse(value)
    if len(parts) == 1 and not isinstance(parts[0], str):
        return parts[0].read
    return _text(value, "-")


@lru_cache(maxsize=64)
def _text(text: str, empty: str) -> _Text:
    """Cached: every listener of every proxy writes the one format of the mesh."""
    return _Text(_parse(text), empty)


class _Operation(NamedTuple):
    """An operator in a format. of_each: whether requests that repeat one another can differ in it. of_http: whether bytes have none."""

    read: Operator
    of_each: bool
    of_http: bool


def _parse(text: str) -> list[str | _Operation]:
    parts: list[str | _Operation] = []
    at = 0
    for found in _OPERATOR.finditer(text):
        if found.start() > at:
            parts.append(text[at : found.start()])
        if found[1] is None:
            parts.append("%")
        else:
            operator = _operator(found[1], found[2], int(found[3]) if found[3] else None)
            parts.append(_Operation(operator, _of_each(found[1], found[2] or ""), found[1] in _OF_HTTP))
        at = found.end()
    if at < len(text):
        parts.append(text[at:])
    return parts


def _of_each(name: str, argument: str) -> bool:
    if name in ("REQ", "REQUEST_HEADER", "REQ_WITHOUT_QUERY"):
        return not _OF_EACH_REQUEST.isdisjoint(argument.lower().split("?"))
    return name not in _OF_ALL


def _operator(name: str, argument: str | None, longest: int | None) -> Operator:
    """One `%NAME(argument):longest%`. Raises NotSimulated for a name that is not known."""
    if argument is not None and name in _WITH_ARGUMENT:
        operator = _WITH_ARGUMENT[name](argument)
    elif name in _PLAIN:
        operator = _PLAIN[name]
    else:
        raise NotSimulated(f"access log operator %{name}%")
    if longest is None:
        return operator

    def shortened(entry: Entry) -> Value:
        value = operator(entry)
        return value[:longest] if isinstance(value, str) else value

    return shortened


# --- what operators read ------------------------------------------------------------------------------------------------

_OF_EACH_REQUEST = frozenset((":path", "x-request-id"))
_OF_ALL = frozenset(
    (
        "PROTOCOL", "UPSTREAM_PROTOCOL", "RESPONSE_FLAGS", "RESPONSE_FLAGS_LONG", "RESPONSE_CODE_DETAILS", "CONNECTION_TERMINATION_DETAILS",
        "UPSTREAM_TRANSPORT_FAILURE_REASON", "DOWNSTREAM_TRANSPORT_FAILURE_REASON", "BYTES_RECEIVED", "UPSTREAM_CLUSTER",
        "UPSTREAM_CLUSTER_RAW", "UPSTREAM_SERVER_NAME", "UPSTREAM_REQUEST_ATTEMPT_COUNT", "DOWNSTREAM_LOCAL_ADDRESS",
        "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", "DOWNSTREAM_LOCAL_PORT", "DOWNSTREAM_REMOTE_ADDRESS",
        "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", "DOWNSTREAM_REMOTE_PORT", "DOWNSTREAM_DIRECT_REMOTE_ADDRESS",
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", "DOWNSTREAM_PEER_URI_SAN", "DOWNSTREAM_PEER_SUBJECT", "DOWNSTREAM_LOCAL_URI_SAN",
        "REQUESTED_SERVER_NAME", "ROUTE_NAME", "FILTER_CHAIN_NAME", "LISTENER_NAME", "CONNECTION_ID", "ACCESS_LOG_TYPE", "FILTER_STATE",
        "DYNAMIC_METADATA", "UPSTREAM_METADATA", "METADATA", "ENVIRONMENT",
    )
)  # fmt: skip
"""What is of the connection, or of the route: the same for every request that repeats another."""
_OF_HTTP = frozenset(
    (
        "REQ", "REQUEST_HEADER", "REQ_WITHOUT_QUERY", "RESP", "TRAILER", "QUERY_PARAM", "PROTOCOL", "UPSTREAM_PROTOCOL", "RESPONSE_CODE",
        "RESPONSE_CODE_DETAILS", "RESPONSE_DURATION", "RESPONSE_TX_DURATION", "ROUTE_NAME",
    )
)  # fmt: skip

_PSEUDO: dict[str, Operator] = {
    ":method": lambda e: e.method or None,
    ":path": lambda e: e.path or None,
    ":authority": lambda e: e.authority or None,
    "host": lambda e: e.authority or None,
    ":scheme": lambda e: e.scheme or None,
}


def _request_header(argument: str) -> Operator:
    """`X?Y`: header X, else header Y."""
    names = [name.lower() for name in argument.split("?")]
    if len(names) == 1 and names[0] in _PSEUDO:
        return _PSEUDO[names[0]]
    if len(names) == 1:
        only = names[0]
        return lambda entry: _header(entry.request_headers, only)

    def find(entry: Entry) -> Value:
        for name in names:
            value = _PSEUDO[name](entry) if name in _PSEUDO else _header(entry.request_headers, name)
            if value is not None:
                return value
        return None

    return find


def _request_header_without_query(argument: str) -> Operator:
    find = _request_header(argument)

    def cut(entry: Entry) -> Value:
        value = find(entry)
        return value.partition("?")[0] if isinstance(value, str) else value

    return cut


def _response_header(argument: str) -> Operator:
    names = [name.lower() for name in argument.split("?")]

    def find(entry: Entry) -> Value:
        for name in names:
            value = (entry.code or None) if name == ":status" else _header(entry.response_headers, name)
            if value is not None:
                return str(value)
        return None

    return find


def _trailer(argument: str) -> Operator:
    return lambda entry: _header(entry.response_trailers, argument.lower())


def _query_parameter(argument: str) -> Operator:
    def find(entry: Entry) -> Value:
        for pair in entry.path.partition("?")[2].split("&"):
            name, _, value = pair.partition("=")
            if name == argument:
                return value
        return None

    return find


def _header(headers: list[tuple[str, str]], name: str) -> str | None:
    for key, value in headers:
        if key == name:
            return value
    return None


def _absent(_argument: str) -> Operator:
    """Metadata and filter state: no filter that is simulated writes any."""
    return lambda entry: None


def _environment(_argument: str) -> Operator:
    return lambda entry: None


def _time(layout: str) -> Operator:
    return lambda entry: timestamp(entry.start, layout)


def timestamp(seconds: float, layout: str = "%Y-%m-%dT%H:%M:%S.%3fZ") -> str:
    """A moment in UTC: strftime, with %f for nanoseconds, %3f and %6f for fewer digits, and %s for whole seconds."""
    whole, nanos = divmod(round(seconds * 1_000_000) * 1000, 1_000_000_000)

    def subsecond(found: re.Match[str]) -> str:
        digits = int(found[1] or 9)
        return f"{nanos:09d}"[:digits]

    text = _SUBSECOND.sub(subsecond, layout).replace("%s", str(whole))
    return time.strftime(text, time.gmtime(whole))


def _start(seconds: float) -> str:
    """`timestamp` in its usual layout: all that changes within a second is the milliseconds."""
    whole, micros = divmod(round(seconds * 1_000_000), 1_000_000)
    return f"{_second(whole)}{micros // 1000:03d}Z"


@lru_cache(maxsize=4)
def _second(whole: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(whole))


def _milliseconds(start: float, end: float | None) -> int | None:
    return None if end is None else max(0, int((end - start) * 1000 + 1e-4))  # whole milliseconds, despite binary fractions


def _remote(entry: Entry) -> Endpoint:
    return entry.remote or entry.downstream.source


def _san(uris: tuple[str, ...]) -> Value:
    return ",".join(uris) or None


_WITH_ARGUMENT: dict[str, Callable[[str], Operator]] = {
    "REQ": _request_header,
    "REQUEST_HEADER": _request_header,
    "REQ_WITHOUT_QUERY": _request_header_without_query,
    "RESP": _response_header,
    "TRAILER": _trailer,
    "QUERY_PARAM": _query_parameter,
    "START_TIME": _time,
    "FILTER_STATE": _absent,
    "DYNAMIC_METADATA": _absent,
    "UPSTREAM_METADATA": _absent,
    "METADATA": _absent,
    "ENVIRONMENT": _environment,
}
_PLAIN: dict[str, Operator] = {
    "START_TIME": lambda e: _start(e.start),
    "PROTOCOL": lambda e: e.protocol or None,
    "UPSTREAM_PROTOCOL": lambda e: e.upstream_protocol or None,
    "RESPONSE_CODE": lambda e: e.code,
    "RESPONSE_CODE_DETAILS": lambda e: e.details or None,
    "RESPONSE_FLAGS": lambda e: ",".join(e.flags) or "-",
    "RESPONSE_FLAGS_LONG": lambda e: ",".join(LONG_FLAGS.get(f, f) for f in e.flags) or "-",
    "CONNECTION_TERMINATION_DETAILS": lambda e: e.connection_details or None,
    "UPSTREAM_TRANSPORT_FAILURE_REASON": lambda e: e.upstream_failure or None,
    "DOWNSTREAM_TRANSPORT_FAILURE_REASON": lambda e: e.downstream_failure or None,
    "BYTES_RECEIVED": lambda e: e.received,
    "BYTES_SENT": lambda e: e.sent,
    "DURATION": lambda e: _milliseconds(e.start, e.end),
    "RESPONSE_DURATION": lambda e: _milliseconds(e.start, e.upstream_first_byte),
    "RESPONSE_TX_DURATION": lambda e: None if e.upstream_first_byte is None else _milliseconds(e.upstream_first_byte, e.end),
    "UPSTREAM_HOST": lambda e: e.upstream or None,
    "UPSTREAM_REMOTE_ADDRESS": lambda e: e.upstream or None,
    "UPSTREAM_HOST_NAME": lambda e: e.upstream_name or e.upstream or None,
    "UPSTREAM_CLUSTER": lambda e: e.alt_cluster or e.cluster or None,
    "UPSTREAM_CLUSTER_RAW": lambda e: e.cluster or None,
    "UPSTREAM_LOCAL_ADDRESS": lambda e: e.upstream_local or None,
    "UPSTREAM_SERVER_NAME": lambda e: e.upstream_sni or None,
    "UPSTREAM_REQUEST_ATTEMPT_COUNT": lambda e: e.attempts,
    "DOWNSTREAM_LOCAL_ADDRESS": lambda e: str(e.downstream.destination),
    "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT": lambda e: e.downstream.destination.host,
    "DOWNSTREAM_LOCAL_PORT": lambda e: e.downstream.destination.port,
    "DOWNSTREAM_REMOTE_ADDRESS": lambda e: str(_remote(e)),
    "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT": lambda e: _remote(e).host,
    "DOWNSTREAM_REMOTE_PORT": lambda e: _remote(e).port,
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS": lambda e: str(e.downstream.source),
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT": lambda e: e.downstream.source.host,
    "DOWNSTREAM_PEER_URI_SAN": lambda e: _san(e.downstream.peer.uris) if e.downstream.peer else None,
    "DOWNSTREAM_PEER_SUBJECT": lambda e: (e.downstream.peer.subject or None) if e.downstream.peer else None,
    "DOWNSTREAM_LOCAL_URI_SAN": lambda e: _san(e.downstream.local_uris),
    "REQUESTED_SERVER_NAME": lambda e: e.downstream.sni or None,
    "VIRTUAL_CLUSTER_NAME": lambda e: None,  # Istio configures none
    "ROUTE_NAME": lambda e: e.route or None,
    "FILTER_CHAIN_NAME": lambda e: e.downstream.chain or None,
    "LISTENER_NAME": lambda e: e.listener or None,
    "CONNECTION_ID": lambda e: e.connection_id,
    "ACCESS_LOG_TYPE": lambda e: "DownstreamEnd" if e.is_http else "TcpConnectionEnd",
}

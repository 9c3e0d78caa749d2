"""Which access logs a proxy writes: MeshConfig's `accessLogFile`, or Telemetry resources instead.

How this works: Telemetry resources stack up: the root namespace's, the proxy's namespace's, then those whose selector fits
the proxy. Each `accessLogging` entry names providers, or takes those of the entry before it (at first MeshConfig's
`defaultProviders`), and turns them on, off, or on with a filter, for one direction or both. The last level that names
providers for a direction decides which providers count there. Only a direction for which nothing is left, not even a
disabled provider, falls back on `accessLogFile`.

One line per request (connection manager), per relayed connection (TCP proxy), and per connection that no filter chain
takes (listener, flag NR). What a gateway does is CLIENT side.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from meshsim.errors import NotSimulated
from meshsim.resources.mesh_config import EnvoyFileAccessLog, ExtensionProvider, MeshConfig
from meshsim.resources.resource import Resource
from meshsim.resources.telemetry import AccessLogging, LogFilter, TelemetrySpec
from meshsim.xds.access_log import (
    AccessLog,
    AccessLogFilter,
    ExpressionFilter,
    ExtensionFilter,
    FileAccessLog,
    FilterList,
    ResponseFlagFilter,
    SubstitutionFormatString,
    TextFormat,
)

FILE_LOG = "envoy.access_loggers.file"
STDOUT = "/dev/stdout"
TEXT_FORMAT = (
    '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% '
    '%RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% %BYTES_SENT% '
    '%DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" '
    '"%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% '
    "%DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n"
)
JSON_FORMAT = {
    "start_time": "%START_TIME%",
    "route_name": "%ROUTE_NAME%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "protocol": "%PROTOCOL%",
    "response_code": "%RESPONSE_CODE%",
    "response_flags": "%RESPONSE_FLAGS%",
    "response_code_details": "%RESPONSE_CODE_DETAILS%",
    "connection_termination_details": "%CONNECTION_TERMINATION_DETAILS%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
    "duration": "%DURATION%",
    "upstream_service_time": "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
    "x_forwarded_for": "%REQ(X-FORWARDED-FOR)%",
    "user_agent": "%REQ(USER-AGENT)%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "authority": "%REQ(:AUTHORITY)%",
    "upstream_host": "%UPSTREAM_HOST%",
    "upstream_cluster": "%UPSTREAM_CLUSTER_RAW%",
    "upstream_local_address": "%UPSTREAM_LOCAL_ADDRESS%",
    "downstream_local_address": "%DOWNSTREAM_LOCAL_ADDRESS%",
    "downstream_remote_address": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "requested_server_name": "%REQUESTED_SERVER_NAME%",
    "upstream_transport_failure_reason": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
}
BUILTIN = ExtensionProvider(name="envoy", envoy_file_access_log=EnvoyFileAccessLog(path=STDOUT))
NO_CHAIN = AccessLogFilter(response_flag_filter=ResponseFlagFilter(["NR"]))
NOT_SIMULATED = ("envoy_otel_als", "envoy_http_als", "envoy_tcp_als")


@dataclass(frozen=True, slots=True)
class AccessLogs:
    """`stream` goes on every connection manager and TCP proxy of a direction, `listener` on its listeners."""

    stream: list[AccessLog] = field(default_factory=list)
    listener: list[AccessLog] = field(default_factory=list)


@dataclass(slots=True)
class _Choice:
    """What the resources say of one provider in one direction."""

    disabled: bool = False
    filter: LogFilter | None = None


def access_logs(
    telemetries: Iterable[Resource[TelemetrySpec]], mesh: MeshConfig, namespace: str, labels: dict[str, str], side: str
) -> AccessLogs:
    """The loggers of a proxy in `namespace` with `labels` for `side`: CLIENT (outbound, gateways) or SERVER (inbound).

    `telemetries` come oldest first. Raises NotSimulated for a provider that is no file.
    """
    levels = _levels(telemetries, mesh.root_namespace, namespace, labels)
    defaults = list(mesh.default_providers.access_logging) if mesh.default_providers else []
    logs: list[tuple[AccessLog, _Choice]] = []
    for name, choice in sorted(_merge(levels, defaults, side).items()):
        provider = _provider(mesh, name)
        log = _provider_log(provider, mesh) if provider else None
        if log is not None:
            logs.append((log, choice))
    if not logs:
        if not mesh.access_log_file:
            return AccessLogs()
        logs = [(_mesh_log(mesh.access_log_file, mesh), _Choice())]
    written = [(log, choice) for log, choice in logs if not choice.disabled]
    return AccessLogs(
        [_filtered(log, choice.filter) for log, choice in written],
        [] if mesh.disable_envoy_listener_log else [_filtered(log, choice.filter, NO_CHAIN) for log, choice in written],
    )


def _levels(telemetries: Iterable[Resource[TelemetrySpec]], root: str, namespace: str, labels: dict[str, str]) -> list[list[AccessLogging]]:
    """`accessLogging` of the root namespace, of the namespace, then of each resource that selects the proxy.

    At the first two levels the oldest resource without a selector counts, and it alone.
    """
    known = [t for t in telemetries if not t.spec.target_refs and not t.spec.target_ref]
    chosen: list[Resource[TelemetrySpec]] = []
    for level in dict.fromkeys((root, namespace)):
        chosen += [t for t in known if t.metadata.namespace == level and not _selector(t)][:1]
    chosen += [t for t in known if t.metadata.namespace == namespace and _selector(t) and _selector(t).items() <= labels.items()]
    return [t.spec.access_logging for t in chosen if t.spec.access_logging]


def _selector(telemetry: Resource[TelemetrySpec]) -> dict[str, str]:
    return telemetry.spec.selector.match_labels if telemetry.spec.selector else {}


def _merge(levels: list[list[AccessLogging]], defaults: list[str], side: str) -> dict[str, _Choice]:
    """The providers in scope for `side`, each with the last word on it."""
    if not levels:
        return {name: _Choice() for name in defaults}
    scope = defaults
    filters: dict[str, LogFilter | None] = {}
    for level in levels:
        named = [(p.name, entry.filter) for entry in level if _applies(entry, side) for p in entry.providers]
        filters.update(named)
        scope = [name for name, _ in named] or scope
    found: dict[str, _Choice] = {}
    inherited = defaults
    for entry in (entry for level in levels for entry in level):
        inherited = [p.name for p in entry.providers] or inherited  # also by entries of the other direction
        for name in inherited:
            if name in scope and _applies(entry, side):
                found[name] = _Choice(disabled=True) if entry.disabled else _Choice(filter=filters.get(name))
    return found


def _applies(entry: AccessLogging, side: str) -> bool:
    return entry.match is None or entry.match.mode in (side, "CLIENT_AND_SERVER")


def _provider(mesh: MeshConfig, name: str) -> ExtensionProvider | None:
    """MeshConfig's provider of that name in any case, or the built-in `envoy`."""
    known = [*mesh.extension_providers, BUILTIN]
    return next((p for p in known if p.name.lower() == name.lower()), None)


def _provider_log(provider: ExtensionProvider, mesh: MeshConfig) -> AccessLog | None:
    for kind in NOT_SIMULATED:
        if getattr(provider, kind, None) is not None:
            raise NotSimulated(f"meshConfig.extensionProviders[{provider.name}]: an access log service")
    spec = provider.envoy_file_access_log
    if spec is None:
        return None  # a provider of metrics, traces or decisions writes no access log
    if provider.name == BUILTIN.name and spec.log_format is None and not spec.omit_empty_values:
        return _mesh_log(spec.path, mesh)
    if spec.log_format and spec.log_format.labels is not None:
        log_format = _json(spec.log_format.labels or JSON_FORMAT)
    else:
        log_format = _text(spec.log_format.text or "" if spec.log_format else "")
    log_format.omit_empty_values = spec.omit_empty_values
    return _file(spec.path or STDOUT, log_format)


def _mesh_log(path: str, mesh: MeshConfig) -> AccessLog:
    """The file in MeshConfig's encoding and format. A JSON format that is no JSON object leaves the default."""
    if mesh.access_log_encoding != "JSON":
        return _file(path, _text(mesh.access_log_format))
    labels: Mapping[str, object] = JSON_FORMAT
    if mesh.access_log_format:
        try:
            parsed = json.loads(mesh.access_log_format)
        except ValueError:
            parsed = None
        labels = parsed if isinstance(parsed, dict) else labels
    return _file(path, _json(labels))


def _text(log_format: str) -> SubstitutionFormatString:
    """Istio adds the newline a format lacks."""
    text = (log_format if log_format.endswith("\n") else log_format + "\n") if log_format else TEXT_FORMAT
    return SubstitutionFormatString(text_format_source=TextFormat(text), formatters=_formatters(text))


def _json(labels: Mapping[str, object]) -> SubstitutionFormatString:
    texts = "".join(v for v in labels.values() if isinstance(v, str))
    return SubstitutionFormatString(json_format=dict(labels), json_format_options={}, formatters=_formatters(texts))


def _formatters(text: str) -> list[dict[str, object]]:
    if "%REQ_WITHOUT_QUERY" not in text:
        return []
    kind = "type.googleapis.com/envoy.extensions.formatter.req_without_query.v3.ReqWithoutQuery"
    return [{"name": "envoy.formatter.req_without_query", "typed_config": {"@type": kind}}]


def _file(path: str, log_format: SubstitutionFormatString) -> AccessLog:
    return AccessLog(FILE_LOG, FileAccessLog(path, log_format))


def _filtered(log: AccessLog, expression: LogFilter | None, base: AccessLogFilter | None = None) -> AccessLog:
    filters = [base] if base else []
    if expression is not None:
        cel = ExtensionFilter("envoy.access_loggers.extension_filters.cel", ExpressionFilter(expression.expression))
        filters.append(AccessLogFilter(extension_filter=cel))
    if not filters:
        return log
    return AccessLog(log.name, log.typed_config, filters[0] if len(filters) == 1 else AccessLogFilter(and_filter=FilterList(filters)))

"""Telemetry: which access logs a proxy writes, and its metrics and traces."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal
from typing import Any as Json

from meshsim.resources.message import ONE_TARGET, Message, OneOfMessage, PolicyTargetReference, WorkloadLabelSelector
from meshsim.resources.shape import Duration, NonEmpty, Rule, Shape, Unevaluated, bounds, enum

WorkloadMode = Annotated[Literal["CLIENT_AND_SERVER", "CLIENT", "SERVER"], enum("istio.telemetry.v1alpha1.WorkloadMode")]
Metric = Annotated[
    Literal[
        "ALL_METRICS", "REQUEST_COUNT", "REQUEST_DURATION", "REQUEST_SIZE", "RESPONSE_SIZE", "TCP_OPENED_CONNECTIONS",
        "TCP_CLOSED_CONNECTIONS", "TCP_SENT_BYTES", "TCP_RECEIVED_BYTES", "GRPC_REQUEST_MESSAGES", "GRPC_RESPONSE_MESSAGES",
    ],
    enum("istio.telemetry.v1alpha1.MetricSelector.IstioMetric"),
]  # fmt: skip
TagOperation = Annotated[Literal["UPSERT", "REMOVE"], enum("istio.telemetry.v1alpha1.MetricsOverrides.TagOverride.Operation")]


class ProviderRef(Message):
    SHAPE: ClassVar[Shape] = Shape(required=("name",))

    name: NonEmpty = ""


class LogMatch(Message):
    mode: WorkloadMode = "CLIENT_AND_SERVER"


class LogFilter(Message):
    expression: str = ""


class AccessLogging(Message):
    match: LogMatch | None = None
    providers: list[ProviderRef] = []
    disabled: bool | None = None
    filter: LogFilter | None = None


class LiteralTag(Message):
    SHAPE: ClassVar[Shape] = Shape(required=("value",))

    value: NonEmpty = ""


class NamedTag(Message):
    """A tag from the environment or from a request header."""

    SHAPE: ClassVar[Shape] = Shape(required=("name",))

    name: NonEmpty = ""
    default_value: str = ""


class CustomTag(OneOfMessage):
    SHAPE: ClassVar[Shape] = Shape(one_of=(("literal", "environment", "header", "formatter"),))

    literal: LiteralTag | None = None
    environment: NamedTag | None = None
    header: NamedTag | None = None
    formatter: LiteralTag | None = None


class Tracing(Message):
    match: LogMatch | None = None
    providers: list[ProviderRef] = []
    random_sampling_percentage: Annotated[float, bounds(minimum=0, maximum=100)] | None = None
    disable_span_reporting: bool | None = None
    custom_tags: dict[str, CustomTag] = {}
    use_request_id_for_trace_sampling: bool | None = None
    enable_istio_tags: bool | None = None
    disable_context_propagation: bool | None = None


class MetricSelector(OneOfMessage):
    SHAPE: ClassVar[Shape] = Shape(one_of=(("metric", "customMetric"),))

    metric: Metric | None = None
    custom_metric: NonEmpty | None = None
    mode: WorkloadMode = "CLIENT_AND_SERVER"


def _upsert_has_value(override: dict[str, Json]) -> bool:
    if override.get("operation", "") != "UPSERT":
        return True
    if "value" not in override:
        raise Unevaluated("no such key: value")
    return bool(override["value"])


class TagOverride(Message):
    SHAPE: ClassVar[Shape] = Shape(
        rules=(
            Rule("value must be set when operation is UPSERT", _upsert_has_value),
            Rule("value must not be set when operation is REMOVE", lambda s: s.get("operation", "") != "REMOVE" or "value" not in s),
        )
    )

    operation: TagOperation = "UPSERT"
    value: str = ""


class MetricOverrides(Message):
    match: MetricSelector | None = None
    disabled: bool | None = None
    tag_overrides: dict[str, TagOverride] = {}


class Metrics(Message):
    providers: list[ProviderRef] = []
    overrides: list[MetricOverrides] = []
    reporting_interval: Duration | None = None


class TelemetrySpec(Message):
    SHAPE: ClassVar[Shape] = Shape(rules=(ONE_TARGET,))

    selector: WorkloadLabelSelector | None = None
    target_ref: PolicyTargetReference | None = None
    target_refs: Annotated[list[PolicyTargetReference], bounds(maxItems=16)] = []
    tracing: list[Tracing] = []
    metrics: list[Metrics] = []
    access_logging: list[AccessLogging] = []

"""Telemetry (Istio: ValidateTelemetry)."""

from __future__ import annotations

from meshsim.resources.resource import ObjectMeta
from meshsim.resources.telemetry import CustomTag, MetricOverrides, ProviderRef, TelemetrySpec, Tracing
from meshsim.resources.validation.cel_syntax import syntax_error
from meshsim.resources.validation.peer_authentication import selects
from meshsim.resources.validation.report import Report

At = tuple[str | int, ...]


def telemetry(spec: TelemetrySpec, _meta: ObjectMeta, report: Report) -> None:
    selects(spec.selector, spec.target_ref, spec.target_refs, report)
    for i, metrics in enumerate(spec.metrics):
        _providers(metrics.providers, report, ("metrics", i))
        for j, override in enumerate(metrics.overrides):
            _override(override, report, ("metrics", i, "overrides", j))
    if len(spec.tracing) > 1:
        report.warn("multiple tracing is not currently supported", "tracing", 1)
    for i, tracing in enumerate(spec.tracing):
        _tracing(tracing, report, ("tracing", i))
    for i, logging in enumerate(spec.access_logging):
        if logging.filter is not None and (said := syntax_error(logging.filter.expression)):
            report.error(f"must be a valid CEL expression, {said}", "accessLogging", i, "filter", "expression")
        _providers(logging.providers, report, ("accessLogging", i))


def _providers(providers: list[ProviderRef], report: Report, at: At) -> None:
    for i, provider in enumerate(providers):
        if not provider.name:
            report.error("providers.name may not be empty", *at, "providers", i, "name")
            return


def _override(override: MetricOverrides, report: Report, at: At) -> None:
    for name, tag in override.tag_overrides.items():
        if not name:
            report.warn("tagOverrides.name may not be empty", *at, "tagOverrides", name)
        if tag.operation == "UPSERT" and not tag.value:
            report.error("tagOverrides.value must be set when operation is UPSERT", *at, "tagOverrides", name)
        if tag.operation == "REMOVE" and tag.value:
            report.error("tagOverrides.value may only be set when operation is UPSERT", *at, "tagOverrides", name)
    if override.match is not None and override.match.custom_metric == "":
        report.error("customMetric may not be empty", *at, "match", "customMetric")


def _tracing(tracing: Tracing, report: Report, at: At) -> None:
    if len(tracing.providers) > 1:
        report.warn("multiple providers is not currently supported", *at, "providers", 1)
    _providers(tracing.providers, report, at)
    if not 0 <= (tracing.random_sampling_percentage or 0) <= 100:
        report.error("randomSamplingPercentage must be in range [0.0, 100.0]", *at, "randomSamplingPercentage")
    for name, tag in tracing.custom_tags.items():
        here = (*at, "customTags", name)
        if not name:
            report.error("tag name may not be empty", *here)
        report.check(_tag(tag), *here)


def _tag(tag: CustomTag) -> str | None:
    if tag.literal is not None and not tag.literal.value:
        return "literal tag value may not be empty"
    if tag.header is not None and not tag.header.name:
        return "header tag name may not be empty"
    if tag.environment is not None and not tag.environment.name:
        return "environment tag name may not be empty"
    return None

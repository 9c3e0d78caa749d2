"""Telemetry: which access logs a proxy writes."""

from __future__ import annotations

from meshsim.resources.message import Message, PolicyTargetReference, Struct, WorkloadLabelSelector


class ProviderRef(Message):
    name: str = ""


class LogMatch(Message):
    mode: str = "CLIENT_AND_SERVER"


class LogFilter(Message):
    expression: str = ""


class AccessLogging(Message):
    match: LogMatch | None = None
    providers: list[ProviderRef] = []
    disabled: bool | None = None
    filter: LogFilter | None = None


class TelemetrySpec(Message):
    selector: WorkloadLabelSelector | None = None
    target_ref: PolicyTargetReference | None = None
    target_refs: list[PolicyTargetReference] = []
    tracing: list[Struct] = []
    metrics: list[Struct] = []
    access_logging: list[AccessLogging] = []

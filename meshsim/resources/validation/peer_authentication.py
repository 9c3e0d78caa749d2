"""PeerAuthentication and ProxyConfig, and the workload selection that all policies share
(Istio: ValidatePeerAuthentication, validateWorkloadSelector, validatePolicyTargetReference)."""

from __future__ import annotations

from meshsim.resources.message import PolicyTargetReference, WorkloadLabelSelector
from meshsim.resources.peer_authentication import PeerAuthenticationSpec
from meshsim.resources.proxy_config import ProxyConfigSpec
from meshsim.resources.resource import ObjectMeta
from meshsim.resources.validation import names
from meshsim.resources.validation.report import Report

_TARGETS = frozenset({("", "Service"), ("networking.istio.io", "ServiceEntry"), ("gateway.networking.k8s.io", "Gateway"),
                      ("gateway.networking.k8s.io", "GatewayClass")})  # fmt: skip
_TARGET_LIST = (
    "[core/v1/Service networking.istio.io/v1/ServiceEntry gateway.networking.k8s.io/v1/Gateway gateway.networking.k8s.io/v1/GatewayClass]"
)


def peer_authentication(spec: PeerAuthenticationSpec, _meta: ObjectMeta, report: Report) -> None:
    given = "portLevelMtls" in report.given
    if spec.port_level_mtls and not (spec.selector and spec.selector.match_labels):
        report.error("mesh/namespace peer authentication cannot have port level mTLS", "portLevelMtls")
    if given and not spec.port_level_mtls:
        report.error("port level mTLS, if defined, must have at least one element", "portLevelMtls")
    for port in spec.port_level_mtls:
        if not 0 < port <= 65535:
            report.error("port must be in range 1..65535", "portLevelMtls", str(port))
    selector(spec.selector, report)


def proxy_config(spec: ProxyConfigSpec, _meta: ObjectMeta, report: Report) -> None:
    selector(spec.selector, report)
    if (spec.concurrency or 0) < 0:
        report.error("concurrency must be greater than or equal to 0", "concurrency")


def selector(given: WorkloadLabelSelector | None, report: Report, field: str = "selector") -> None:
    if given is None:
        return
    for said, key in names.selector(given.match_labels):
        report.error(said, field, "matchLabels", key)
    if not given.match_labels:
        report.warn("workload selector specified without labels", field)


def selects(
    given: WorkloadLabelSelector | None, target: PolicyTargetReference | None, targets: list[PolicyTargetReference], report: Report
) -> None:
    """How a policy chooses its workloads: labels or references, not both."""
    if (given is not None) + (target is not None) + bool(targets) > 1:
        report.error("only one of targetRefs or workloadSelector can be set", "targetRefs" if targets else "targetRef")
    selector(given, report)
    if target is not None:
        _target(target, report, "targetRef")
    for i, reference in enumerate(targets):
        _target(reference, report, "targetRefs", i)


def _target(reference: PolicyTargetReference, report: Report, *at: str | int) -> None:
    if not reference.name:
        report.error("targetRef name must be set", *at)
    if reference.namespace:
        report.error("targetRef namespace must not be set; cross namespace referencing is not supported", *at, "namespace")
    group = "" if reference.group == "core" else reference.group
    if (group, reference.kind) not in _TARGETS:
        report.error(f"targetRef must be to one of {_TARGET_LIST} but was {reference.group}/{reference.kind}", *at, "kind")

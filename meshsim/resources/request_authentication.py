"""RequestAuthentication: which tokens a workload takes."""

from __future__ import annotations

from meshsim.resources.message import Message, PolicyTargetReference, Struct, WorkloadLabelSelector


class RequestAuthenticationSpec(Message):
    selector: WorkloadLabelSelector | None = None
    target_ref: PolicyTargetReference | None = None
    target_refs: list[PolicyTargetReference] = []
    jwt_rules: list[Struct] = []

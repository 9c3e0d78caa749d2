"""AuthorizationPolicy: who may do what at a workload."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal
from typing import Any as Json

from meshsim.resources.message import ONE_TARGET, Message, PolicyTargetReference, WorkloadLabelSelector
from meshsim.resources.shape import Rule as SchemaRule
from meshsim.resources.shape import Shape, bounds, enum

Action = Annotated[Literal["ALLOW", "DENY", "AUDIT", "CUSTOM"], enum("istio.security.v1beta1.AuthorizationPolicy.Action")]
_ServiceAccounts = Annotated[list[Annotated[str, bounds(maxLength=320)]], bounds(maxItems=16)]


def _accounts_alone(source: dict[str, Json]) -> bool:
    if "serviceAccounts" not in source and "notServiceAccounts" not in source:
        return True
    return not any(field in source for field in ("principals", "notPrincipals", "namespaces", "notNamespaces"))


class Source(Message):
    SHAPE: ClassVar[Shape] = Shape(rules=(SchemaRule("Cannot set serviceAccounts with namespaces or principals", _accounts_alone),))

    principals: list[str] = []
    not_principals: list[str] = []
    request_principals: list[str] = []
    not_request_principals: list[str] = []
    namespaces: list[str] = []
    not_namespaces: list[str] = []
    service_accounts: _ServiceAccounts = []
    not_service_accounts: _ServiceAccounts = []
    ip_blocks: list[str] = []
    not_ip_blocks: list[str] = []
    remote_ip_blocks: list[str] = []
    not_remote_ip_blocks: list[str] = []
    trust_domains: list[str] = []
    not_trust_domains: list[str] = []


class Operation(Message):
    hosts: list[str] = []
    not_hosts: list[str] = []
    ports: list[str] = []
    not_ports: list[str] = []
    methods: list[str] = []
    not_methods: list[str] = []
    paths: list[str] = []
    not_paths: list[str] = []


class From(Message):
    source: Source | None = None


class To(Message):
    operation: Operation | None = None


class Condition(Message):
    SHAPE: ClassVar[Shape] = Shape(required=("key",))

    key: str = ""
    values: list[str] = []
    not_values: list[str] = []


class Rule(Message, rename={"from_": "from"}):
    from_: Annotated[list[From], bounds(maxItems=512)] = []
    to: list[To] = []
    when: list[Condition] = []


class Provider(Message):
    name: str = ""


class AuthorizationPolicySpec(Message):
    """`rules` None (omitted) is an ALLOW policy that nothing matches."""

    SHAPE: ClassVar[Shape] = Shape(one_of=(("provider",),), rules=(ONE_TARGET,))

    selector: WorkloadLabelSelector | None = None
    target_ref: PolicyTargetReference | None = None
    target_refs: Annotated[list[PolicyTargetReference], bounds(maxItems=16)] = []
    rules: Annotated[list[Rule], bounds(maxItems=512)] = []
    action: Action = "ALLOW"
    provider: Provider | None = None

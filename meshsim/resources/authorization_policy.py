"""AuthorizationPolicy: who may do what at a workload."""

from __future__ import annotations

from meshsim.resources.message import Message, PolicyTargetReference, WorkloadLabelSelector


class Source(Message):
    principals: list[str] = []
    not_principals: list[str] = []
    request_principals: list[str] = []
    not_request_principals: list[str] = []
    namespaces: list[str] = []
    not_namespaces: list[str] = []
    service_accounts: list[str] = []
    not_service_accounts: list[str] = []
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
    key: str = ""
    values: list[str] = []
    not_values: list[str] = []


class Rule(Message, rename={"from_": "from"}):
    from_: list[From] = []
    to: list[To] = []
    when: list[Condition] = []


class Provider(Message):
    name: str = ""


class AuthorizationPolicySpec(Message):
    """`rules` None (omitted) is an ALLOW policy that nothing matches."""

    selector: WorkloadLabelSelector | None = None
    target_ref: PolicyTargetReference | None = None
    target_refs: list[PolicyTargetReference] = []
    action: str = "ALLOW"
    provider: Provider | None = None
    rules: list[Rule] = []

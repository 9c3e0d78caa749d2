"""AuthorizationPolicy (Istio: ValidateAuthorizationPolicy, pkg/config/security)."""

from __future__ import annotations

import re

from meshsim.resources.authorization_policy import AuthorizationPolicySpec, Condition, Operation, Rule, Source
from meshsim.resources.resource import ObjectMeta
from meshsim.resources.validation.addresses import is_ip, prefix_error
from meshsim.resources.validation.golang import quote, several, unsigned_error
from meshsim.resources.validation.peer_authentication import selects
from meshsim.resources.validation.report import Report

DRY_RUN = "istio.io/dry-run"
_TCP_BLIND = (
    "configured AuthorizationPolicy will deny all traffic to TCP ports under its scope due to the use of only HTTP attributes in a DENY "
    "rule; it is recommended to explicitly specify the port"
)
_LITERAL = re.compile(r"[a-zA-Z0-9-._~%!$&'()+,;:@=]+")
_NOT_CUSTOM = {
    "Namespaces": "namespaces", "NotNamespaces": "not_namespaces", "ServiceAccounts": "service_accounts",
    "NotServiceAccounts": "not_service_accounts", "TrustDomains": "trust_domains", "NotTrustDomains": "not_trust_domains",
    "Principals": "principals", "NotPrincipals": "not_principals", "RequestPrincipals": "request_principals",
    "NotRequestPrincipals": "not_request_principals",
}  # fmt: skip
_NOT_CUSTOM_KEYS = ("source.namespace", "source.serviceAccount", "source.trustDomain", "source.principal")
At = tuple[str | int, ...]


def authorization_policy(spec: AuthorizationPolicySpec, meta: ObjectMeta, outer: Report) -> None:
    report = outer.prefixed(f"invalid policy {meta.name}.{meta.namespace}: ")
    selects(spec.selector, spec.target_ref, spec.target_refs, report)
    if spec.action == "CUSTOM":
        _custom(spec, report)
    elif spec.provider is not None:
        report.error(f"`provider` must not be with non CUSTOM action, found {spec.action}", "provider")
    if spec.action == "DENY" and not spec.rules:
        report.error(_never("DENY"), "rules")
    for i, rule in enumerate(spec.rules):
        _rule(rule, spec.action, report, i)


def _never(action: str) -> str:
    return (f"{action} action without `rules` is meaningless as it will never be triggered, add an empty rule `{{}}` if you want it be "
            "triggered for every request")


def _custom(spec: AuthorizationPolicySpec, report: Report) -> None:
    if not spec.rules:
        report.error(_never("CUSTOM"), "rules")
    elif spec.provider is None or not spec.provider.name:
        report.error("`provider.name` must not be empty", "provider")
    for i, rule in enumerate(spec.rules):
        for j, from_ in enumerate(rule.from_):
            for name, attribute in _NOT_CUSTOM.items():
                if from_.source is not None and getattr(from_.source, attribute):
                    report.error(f"From.{name} is currently not supported with CUSTOM action", "rules", i, "from", j, "source")
        for j, when in enumerate(rule.when):
            if when.key in _NOT_CUSTOM_KEYS or when.key.startswith("request.auth."):
                report.error(f"{when.key} is currently not supported with CUSTOM action", "rules", i, "when", j, "key")


def _rule(rule: Rule, action: str, report: Report, i: int) -> None:
    at = ("rules", i)
    sources = [(j, f.source) for j, f in enumerate(rule.from_) if f.source is not None]
    operations = [(j, t.operation) for j, t in enumerate(rule.to) if t.operation is not None]
    for j, from_ in enumerate(rule.from_):
        if from_.source is None:
            report.error(f"`from.source` must not be nil, found at rule {i}", *at, "from", j)
        else:
            _source(from_.source, report, (*at, "from", j, "source"), i)
    for j, to in enumerate(rule.to):
        if to.operation is None:
            report.error(f"`to.operation` must not be nil, found at rule {i}", *at, "to", j)
        else:
            _operation(to.operation, report, (*at, "to", j, "operation"), i)
    for j, when in enumerate(rule.when):
        _condition(when, report, (*at, "when", j))
    tcp_from = any(_says_tcp(source) for _, source in sources)
    tcp_to = any(operation.ports or operation.not_ports for _, operation in operations)
    if action == "DENY" and ((sources and not operations and not tcp_from) or (operations and not tcp_to)):
        report.warn(_TCP_BLIND, *at)


def _says_tcp(source: Source) -> bool:
    return bool(
        source.principals or source.not_principals or source.ip_blocks or source.not_ip_blocks or source.namespaces or source.not_namespaces
        or source.remote_ip_blocks or source.not_remote_ip_blocks or source.service_accounts or source.not_service_accounts
    )  # fmt: skip


def _source(source: Source, report: Report, at: At, i: int) -> None:
    identity = source.principals or source.not_principals or source.namespaces or source.not_namespaces
    if identity and (source.service_accounts or source.not_service_accounts):
        report.error(f"cannot set serviceAccounts with namespaces or principals, found at rule {i}", *at)
    if source == Source():
        report.error(f"`from.source` must not be empty, found at rule {i}", *at)
    blocks = {
        "ipBlocks": source.ip_blocks, "notIpBlocks": source.not_ip_blocks, "remoteIpBlocks": source.remote_ip_blocks,
        "notRemoteIpBlocks": source.not_remote_ip_blocks,
    }  # fmt: skip
    for field, ips in blocks.items():
        for said in _ips(ips):
            report.error(said, *at, field)
    for field, values, check in (
        ("principals", source.principals, _not_empty),
        ("requestPrincipals", source.request_principals, _not_empty),
        ("namespaces", source.namespaces, _not_empty),
        ("serviceAccounts", source.service_accounts, _accounts),
        ("trustDomains", source.trust_domains, _trust_domains),
        ("ipBlocks", source.ip_blocks, _not_empty),
        ("remoteIpBlocks", source.remote_ip_blocks, _not_empty),
        ("notPrincipals", source.not_principals, _not_empty),
        ("notRequestPrincipals", source.not_request_principals, _not_empty),
        ("notNamespaces", source.not_namespaces, _not_empty),
        ("notServiceAccounts", source.not_service_accounts, _accounts),
        ("notTrustDomains", source.not_trust_domains, _trust_domains),
        ("notIpBlocks", source.not_ip_blocks, _not_empty),
        ("notRemoteIpBlocks", source.not_remote_ip_blocks, _not_empty),
    ):
        report.check(check(field[0].upper() + field[1:], values), *at, field)


def _operation(operation: Operation, report: Report, at: At, i: int) -> None:
    if operation == Operation():
        report.error(f"`to.operation` must not be empty, found at rule {i}", *at)
    for field, ports in (("ports", operation.ports), ("notPorts", operation.not_ports)):
        for said in _ports(ports):
            report.error(said, *at, field)
    for name, values in (
        ("Ports", operation.ports), ("Methods", operation.methods), ("Paths", operation.paths), ("Hosts", operation.hosts),
        ("NotPorts", operation.not_ports), ("NotMethods", operation.not_methods), ("NotPaths", operation.not_paths),
        ("NotHosts", operation.not_hosts),
    ):  # fmt: skip
        report.check(_not_empty(name, values), *at, name[0].lower() + name[1:])
    report.check(_path_templates("Paths", operation.paths), *at, "paths")
    report.check(_path_templates("NotPaths", operation.not_paths), *at, "notPaths")


def _condition(when: Condition, report: Report, at: At) -> None:
    if not when.key:
        report.error("`key` must not be empty", *at, "key")
    elif not when.values and not when.not_values:
        report.error(f"at least one of `values` or `notValues` must be set for key {when.key}", *at)
    else:
        for word, field, values in (("value", "values", when.values), ("notValue", "notValues", when.not_values)):
            if said := _attribute(when.key, values):
                report.error(f"invalid `{word}` for `key` {when.key}: {said}", *at, field)


def _not_empty(name: str, values: list[str]) -> str | None:
    return f"empty value not allowed, found in {name}" if "" in values else None


def _wildcards(name: str, values: list[str]) -> str | None:
    if said := _not_empty(name, values):
        return said
    for value in values:
        if value.count("*") > 1:
            return f"at most one wildcard is allowed, found in {name}: {quote(value)}"
        if "*" in value and not value.startswith("*") and not value.endswith("*"):
            return f"wildcard is only allowed at the start or end, found in {name}: {quote(value)}"
    return None


def _trust_domains(name: str, values: list[str]) -> str | None:
    if said := _wildcards(name, values):
        return said
    slash = next((value for value in values if "/" in value), None)
    return None if slash is None else f"trust domain must not contain '/', found in {name}: {quote(slash)}"


def _accounts(name: str, values: list[str]) -> str | None:
    if len(values) > 16:
        return "may not have more than 16 values"
    form = "expected format 'serviceAccount' or 'namespace/serviceAccount', found"
    for value in values:
        if not value:
            return f"empty value not allowed, found in {name}"
        if "*" in value:
            return f"wildcard not allowed, found in {name}"
        if value.count("/") > 1:
            return f"{form} {quote(value)} in {name}"
        if len(value.encode()) > 320:
            return f"value cannot exceed 320 characters, found {quote(value)} in {name}"
        namespace, slash, account = value.partition("/")
        if slash and not namespace:
            return f"{form} empty namespace {quote(value)} in {name}"
        if slash and not account:
            return f"{form} empty serviceAccount {quote(value)} in {name}"
    return None


def _path_templates(name: str, paths: list[str]) -> str | None:
    """`{*}` is one segment, `{**}` the rest; other braces are mistakes."""
    for given in paths:
        template = "{*}" in given or "{**}" in given
        path = given.strip("/")
        said = f"invalid or unsupported path {path}, found in {name}. "
        rest = False
        for segment in path.split("/"):
            if segment in ("{*}", "{**}"):
                if rest:
                    return said + "{**} is not the last operator"
                rest = segment == "{**}"
            elif "{" in segment or "}" in segment:
                return said + "Contains '{' or '}' beyond a supported path template"
            elif template and not _LITERAL.fullmatch(segment):
                return said + f"Contains segment {segment} with invalid string literal"
    return None


def _ips(values: list[str]) -> list[str]:
    found = []
    for value in values:
        if "/" in value:
            if said := prefix_error(value):
                found.append(f"bad CIDR range ({value}): {said}")
        elif not is_ip(value):
            found.append(f"bad IP address ({value})")
    return found


def _ports(values: list[str]) -> list[str]:
    found = []
    for value in values:
        said = unsigned_error(value)
        if said is not None or int(value) > 65535:
            found.append(f"bad port ({value}): {said or '<nil>'}")
    return found


_FREE = frozenset((
    "source.namespace", "source.principal", "request.auth.principal", "request.auth.audiences", "request.auth.presenter", "connection.sni",
))  # fmt: skip


def _attribute(key: str, values: list[str]) -> str | None:
    if said := _not_empty(key, values):
        return said
    if key.startswith(("request.headers", "request.auth.claims", "experimental.envoy.filters.")):
        bracket = key.find("[")
        return None if key.endswith("]") and 0 < bracket < len(key) - 2 else f"bad key ({key}): should have format a[b]"
    if key in ("source.ip", "remote.ip", "destination.ip"):
        return several(_ips(values))
    if key == "destination.port":
        return several(_ports(values))
    if key == "source.serviceAccount":
        return _accounts(key, values)
    if key == "source.trustDomain":
        return _wildcards(key, values)
    if key in _FREE:
        return None
    if key == "destination.namespace":
        return f"attribute {key} is replaced by the metadata.namespace"
    if key.startswith("destination.labels"):
        return f"attribute {key} is replaced by the workload selector"
    if key in ("destination.name", "destination.user"):
        return f"deprecated attribute {key}: only supported in v1alpha1"
    return f"unknown attribute: {key}"

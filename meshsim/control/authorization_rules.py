"""One rule of an AuthorizationPolicy as an Envoy RBAC policy: who may do what.

How this works: a rule is (any `from`) and (any `to`) and (every `when`). Envoy knows two sides only, permissions (the
request) and principals (the caller), so each field or `when` key belongs to one side: two tables, `PERMISSIONS` and
`PRINCIPALS`, say which and how a value becomes a matcher. A source or operation is the conjunction of its fields, a field
the disjunction of its values, and `notX` its negation.

On a TCP filter chain the HTTP fields cannot be matched. Under ALLOW such a rule is left out altogether (fewer connections
are allowed); under DENY and AUDIT only the field is left out (more are denied). Istio errs on the side of refusing.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any as Json
from typing import Generic, TypeVar

from meshsim.control.trust_domains import TrustDomains
from meshsim.resources.authorization_policy import Operation, Rule, Source
from meshsim.xds.message import CidrRange, Regex, StringMatcher
from meshsim.xds.rbac import (
    Authenticated,
    PathMatcher,
    Permission,
    Permissions,
    Policy,
    Principal,
    Principals,
    UriTemplate,
    UriTemplateMatchConfig,
)
from meshsim.xds.route import HeaderMatcher

N = TypeVar("N")

SPIFFE = "spiffe://"
_QUOTED = re.compile(r"([\\.+*?()|\[\]{}^$])")


class Unmatchable(Exception):
    """A value no matcher exists for: an HTTP field on a TCP chain, an unreadable address or port, an unknown key."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What a rule is compiled for. `lenient`: leave an unmatchable field out instead of the whole rule."""

    namespace: str
    tcp: bool
    lenient: bool
    trust_domains: TrustDomains


# --- string matchers, as Istio writes them -----------------------------------------------------------------------------


def quote(text: str) -> str:
    """`text` as a regular expression for itself (RE2's special characters only)."""
    return _QUOTED.sub(r"\\\1", text)


def regex(pattern: str) -> StringMatcher:
    return StringMatcher(safe_regex=Regex(pattern))


def string_matcher(value: str, prefix: str = "") -> StringMatcher:
    """`*` present, `*x` suffix, `x*` prefix, else exact; `prefix` stands before the text in every form but `*`."""
    if value == "*":
        return regex(".+")
    if value.startswith("*"):
        return regex(f"{prefix}.*{quote(value[1:])}") if prefix else StringMatcher(suffix=value[1:])
    if value.endswith("*"):
        return StringMatcher(prefix=prefix + value[:-1])
    return StringMatcher(exact=prefix + value)


def header_matcher(name: str, value: str, ignore_case: bool = False) -> HeaderMatcher:
    """Like `string_matcher`, but a bare `*` asks for the header's presence."""
    if value == "*":
        return HeaderMatcher(name, present_match=True)
    matcher = string_matcher(value)
    matcher.ignore_case = ignore_case
    return HeaderMatcher(name, string_match=matcher)


def cidr(value: str) -> CidrRange:
    """An address stands for itself alone; the host bits of a range are kept as written."""
    address, slash, length = value.partition("/")
    try:
        parsed = ipaddress.ip_address(address)
        size = int(length) if slash else parsed.max_prefixlen
    except ValueError as error:
        raise Unmatchable(str(error)) from error
    if not 0 <= size <= parsed.max_prefixlen:
        raise Unmatchable(f"prefix length out of range: {value}")
    return CidrRange(str(parsed), size)


def bracketed(key: str, start: str) -> str:
    """The name in `start[name]`."""
    name = key.removeprefix(start)
    if not (name.startswith("[") and name.endswith("]")):
        raise Unmatchable(f"expecting format [<NAME>], but found {name}")
    return name[1:-1]


# --- the two sides -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Side(Generic[N]):
    """How one side of a policy spells any, and, or, not."""

    anything: Callable[[], N]
    all_of: Callable[[list[N]], N]
    one_of: Callable[[list[N]], N]
    negate: Callable[[N], N]


PERMISSION: Side[Permission] = Side(
    lambda: Permission(any=True),
    lambda rules: Permission(and_rules=Permissions(rules)),
    lambda rules: Permission(or_rules=Permissions(rules)),
    lambda rule: Permission(not_rule=rule),
)
PRINCIPAL: Side[Principal] = Side(
    lambda: Principal(any=True),
    lambda ids: Principal(and_ids=Principals(ids)),
    lambda ids: Principal(or_ids=Principals(ids)),
    lambda id_: Principal(not_id=id_),
)


@dataclass(frozen=True, slots=True)
class Attribute(Generic[N]):
    """How the values of a field become one matcher: value by value (`each`), or all at once (`together`)."""

    each: Callable[[str, str, Scope], N] | None = None
    together: Callable[[str, list[str]], N] | None = None
    http: bool = False
    expand: Callable[[TrustDomains, list[str]], list[str]] | None = None

    def matcher(self, side: Side[N], key: str, values: list[str], scope: Scope) -> N | None:
        """None if no value of the field can be matched and `scope` tolerates that; raises Unmatchable if it does not."""
        found: list[N] = []
        if self.expand:
            values = self.expand(scope.trust_domains, values)
        for part in [values] if self.together else [[v] for v in values]:
            try:
                if self.http and scope.tcp:
                    raise Unmatchable(f"{key!r} is HTTP only")
                if self.together:
                    return self.together(key, part)
                assert self.each is not None
                found.append(self.each(key, part[0], scope))
            except Unmatchable:
                if not scope.lenient:
                    raise
        return side.one_of(found) if found else None


def _authenticated(name: StringMatcher) -> Principal:
    return Principal(authenticated=Authenticated(name))


def _port(_key: str, value: str, _scope: Scope) -> Permission:
    if not (value.isascii() and value.isdigit() and int(value) <= 65535):
        raise Unmatchable(f"invalid port {value}")
    return Permission(destination_port=int(value))


def _path(_key: str, value: str, _scope: Scope) -> Permission:
    if "{*}" in value or "{**}" in value:
        template = value.replace("{*}", "*").replace("{**}", "**")
        return Permission(uri_template=UriTemplate("uri-template", UriTemplateMatchConfig(template)))
    return Permission(url_path=PathMatcher(string_matcher(value)))


def _namespace(_key: str, value: str, _scope: Scope) -> Principal:
    pattern = ".*".join(quote(part) for part in value.split("*"))
    return _authenticated(regex(f".*/ns/{pattern}/.*"))


def _service_account(_key: str, value: str, scope: Scope) -> Principal:
    """`[namespace/]name`; further key/value pairs may stand between and after them in a SPIFFE id."""
    namespace, slash, name = value.partition("/")
    if not slash:
        namespace, name = scope.namespace, value
    return _authenticated(regex(f"spiffe://.+/ns/{quote(namespace)}/(.+/|)sa/{quote(name)}(/.+)?"))


def _trust_domain(_key: str, value: str, _scope: Scope) -> Principal:
    if value == "*":
        return _authenticated(StringMatcher(prefix=SPIFFE))
    if "*" not in value:
        return _authenticated(StringMatcher(prefix=f"{SPIFFE}{value}/"))
    before, _, after = value.partition("*")
    return _authenticated(regex(f"{SPIFFE}{quote(before)}[^/]*{quote(after)}/.*"))


def _request_header(key: str, value: str, _scope: Scope) -> Principal:
    return Principal(header=header_matcher(bracketed(key, "request.headers"), value))


# --- dynamic metadata: what other filters (a JWT filter, a custom one) found out ----------------------------------------


def _string_value(value: str) -> dict[str, Json]:
    return {"string_match": _plain(string_matcher(value))}


def _plain(matcher: StringMatcher) -> dict[str, Json]:
    if matcher.safe_regex:
        return {"safe_regex": {"regex": matcher.safe_regex.regex}}
    for form in ("exact", "prefix", "suffix"):
        text = getattr(matcher, form)
        if text is not None:
            return {form: text}
    raise AssertionError(matcher)


def _or_value(values: list[dict[str, Json]]) -> dict[str, Json]:
    return values[0] if len(values) == 1 else {"or_match": {"value_matchers": values}}


def _metadata(filter_name: str, path: Iterable[str], value: dict[str, Json]) -> dict[str, Json]:
    return {"filter": filter_name, "path": [{"key": key} for key in path], "value": value}


def _envoy_filter(key: str, values: list[str]) -> Permission:
    """`experimental.envoy.filters.a.b[c]`: key c of filter envoy.filters.a.b; a value `[v]` is an element of a list."""
    name, bracket, field = key.removeprefix("experimental.").removesuffix("]").partition("[")
    if not bracket:
        raise Unmatchable(f"invalid key: {key}")
    return Permission(metadata=_metadata(name, [field], _or_value([_element_or_text(v) for v in values])))


def _element_or_text(value: str) -> dict[str, Json]:
    if value.startswith("[") and value.endswith("]"):
        return {"list_match": {"one_of": _string_value(value.strip("[]"))}}
    return _string_value(value)


def _claim(path: list[str], value: dict[str, Json]) -> Principal:
    return Principal(metadata=_metadata("envoy.filters.http.jwt_authn", ["payload", *path], value))


def _claim_values(path: list[str], values: list[str]) -> Principal:
    """A claim may be one text or a list of them; either fits."""
    wanted = _or_value([_string_value(v) for v in values])
    return _claim(path, {"or_match": {"value_matchers": [{"list_match": {"one_of": wanted}}, wanted]}})


def _claims(key: str, values: list[str]) -> Principal:
    text = key.removeprefix("request.auth.claims")
    nested = re.fullmatch(r"(\[[^\[\]]*\])+", text)
    return _claim_values(re.findall(r"\[([^\[\]]*)\]", text) if nested else [bracketed(text, "")], values)


def _request_principal(_key: str, values: list[str]) -> Principal:
    """`issuer/subject`; the issuer may hold slashes itself, so the last one parts them."""
    found = []
    for issuer, subject in map(_issuer_subject, values):
        claims = [_claim(["iss"], {"string_match": _plain(issuer)}), _claim(["sub"], {"string_match": _plain(subject)})]
        found.append(PRINCIPAL.all_of(claims))
    return found[0] if len(found) == 1 else PRINCIPAL.one_of(found)


def _issuer_subject(value: str) -> tuple[StringMatcher, StringMatcher]:
    issuer, slash, subject = value.rpartition("/")
    whole = regex(".+")
    if value == "*":
        return whole, whole
    if value.startswith("*"):
        if not slash:
            return whole, StringMatcher(suffix=value[1:])
        return (whole if issuer == "*" else StringMatcher(suffix=issuer[1:])), StringMatcher(exact=subject)
    if value.endswith("*"):
        if not slash:
            return StringMatcher(prefix=value[:-1]), whole
        return StringMatcher(exact=issuer), (whole if subject == "*" else StringMatcher(prefix=subject[:-1]))
    return (StringMatcher(exact=issuer), StringMatcher(exact=subject)) if slash else (StringMatcher(exact=value), StringMatcher(exact=""))


# --- fields and `when` keys ---------------------------------------------------------------------------------------------

HOSTS, METHODS, PATHS = FIELDS_ONLY = "hosts", "methods", "paths"  # no `when` key exists for these

PERMISSIONS: dict[str, Attribute[Permission]] = {
    HOSTS: Attribute(lambda _k, v, _s: Permission(header=header_matcher(":authority", v, ignore_case=True)), http=True),
    METHODS: Attribute(lambda _k, v, _s: Permission(header=header_matcher(":method", v)), http=True),
    PATHS: Attribute(_path, http=True),
    "destination.ip": Attribute(lambda _k, v, _s: Permission(destination_ip=cidr(v))),
    "destination.port": Attribute(_port),
    "connection.sni": Attribute(lambda _k, v, _s: Permission(requested_server_name=string_matcher(v))),
    "experimental.envoy.filters.": Attribute(together=_envoy_filter),
}
PRINCIPALS: dict[str, Attribute[Principal]] = {
    "source.ip": Attribute(lambda _k, v, _s: Principal(direct_remote_ip=cidr(v))),
    "remote.ip": Attribute(lambda _k, v, _s: Principal(remote_ip=cidr(v))),
    "source.namespace": Attribute(_namespace),
    "source.trustDomain": Attribute(_trust_domain, expand=TrustDomains.expand),
    "source.serviceAccount": Attribute(_service_account),
    "source.principal": Attribute(lambda _k, v, _s: _authenticated(string_matcher(v, SPIFFE)), expand=TrustDomains.expand_principals),
    "request.auth.principal": Attribute(together=_request_principal, http=True),
    "request.auth.audiences": Attribute(together=lambda _k, vs: _claim_values(["aud"], vs), http=True),
    "request.auth.presenter": Attribute(together=lambda _k, vs: _claim_values(["azp"], vs), http=True),
    "request.headers": Attribute(_request_header, http=True),
    "request.auth.claims": Attribute(together=_claims, http=True),
}
OPEN_KEYS = ("experimental.envoy.filters.", "request.headers", "request.auth.claims")  # a name follows


@dataclass(frozen=True, slots=True)
class Condition:
    """A field or `when` key with what it must and must not be."""

    key: str
    values: list[str]
    not_values: list[str]


def _source(source: Source | None) -> list[Condition]:
    """The fields of a source, in the order istiod writes them."""
    if source is None:
        return []
    return [
        Condition("source.principal", source.principals, source.not_principals),
        Condition("request.auth.principal", source.request_principals, source.not_request_principals),
        Condition("source.serviceAccount", source.service_accounts, source.not_service_accounts),
        Condition("source.trustDomain", source.trust_domains, source.not_trust_domains),
        Condition("source.namespace", source.namespaces, source.not_namespaces),
        Condition("remote.ip", source.remote_ip_blocks, source.not_remote_ip_blocks),
        Condition("source.ip", source.ip_blocks, source.not_ip_blocks),
    ]


def _operation(operation: Operation | None) -> list[Condition]:
    if operation is None:
        return []
    return [
        Condition(HOSTS, operation.hosts, operation.not_hosts),
        Condition(METHODS, operation.methods, operation.not_methods),
        Condition(PATHS, operation.paths, operation.not_paths),
        Condition("destination.port", operation.ports, operation.not_ports),
    ]


def _conjunction(side: Side[N], table: dict[str, Attribute[N]], conditions: list[Condition], scope: Scope) -> N:
    found: list[N] = []
    for condition in conditions:
        attribute = table[_table_key(condition.key)]
        if condition.values and (matcher := attribute.matcher(side, condition.key, condition.values, scope)) is not None:
            found.append(matcher)
        if condition.not_values and (matcher := attribute.matcher(side, condition.key, condition.not_values, scope)) is not None:
            found.append(side.negate(matcher))
    return side.all_of(found or [side.anything()])


def _table_key(key: str) -> str:
    return next((start for start in OPEN_KEYS if key.startswith(start)), key)


def policy(rule: Rule, scope: Scope) -> Policy:
    """The RBAC policy of `rule`. Raises Unmatchable for a rule that is left out: an unknown `when` key, or see `Scope`."""
    when = [Condition(c.key, c.values, c.not_values) for c in rule.when]
    for condition in when:
        if condition.key in FIELDS_ONLY or _table_key(condition.key) not in PERMISSIONS.keys() | PRINCIPALS.keys():
            raise Unmatchable(f"unknown attribute {condition.key}")
    request = [c for c in when if _table_key(c.key) in PERMISSIONS]
    caller = [c for c in when if _table_key(c.key) in PRINCIPALS]
    operations = [_operation(to.operation) for to in rule.to] or [[]]
    sources = [_source(from_.source) for from_ in rule.from_] or [[]]
    return Policy(
        permissions=[_conjunction(PERMISSION, PERMISSIONS, o + request, scope) for o in operations],
        principals=[_conjunction(PRINCIPAL, PRINCIPALS, s + caller, scope) for s in sources],
    )

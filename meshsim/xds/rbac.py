"""Role-based access control: the same rules as an HTTP filter and as a network filter."""

from __future__ import annotations

from typing import Any as Json

import msgspec

from meshsim.xds.message import TYPE, CidrRange, Message, StringMatcher, TypedMessage
from meshsim.xds.route import HeaderMatcher


class UriTemplateMatchConfig(TypedMessage, tag=TYPE + "envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig"):
    path_template: str = ""


class UriTemplate(Message):
    name: str
    typed_config: UriTemplateMatchConfig


class PathMatcher(Message):
    path: StringMatcher | None = None


class Permissions(Message):
    rules: list[Permission] = msgspec.field(default_factory=list)


class PortRange(Message):
    start: int = 0
    end: int = 0


class Permission(Message):
    any: bool | None = None
    and_rules: Permissions | None = None
    or_rules: Permissions | None = None
    not_rule: Permission | None = None
    header: HeaderMatcher | None = None
    url_path: PathMatcher | None = None
    uri_template: UriTemplate | None = None
    destination_ip: CidrRange | None = None
    destination_port: int | None = None
    destination_port_range: PortRange | None = None
    requested_server_name: StringMatcher | None = None
    metadata: dict[str, Json] | None = None
    sourced_metadata: dict[str, Json] | None = None


class Authenticated(Message):
    principal_name: StringMatcher | None = None


class Principals(Message):
    ids: list[Principal] = msgspec.field(default_factory=list)


class FilterStateMatcher(Message):
    key: str
    string_match: StringMatcher | None = None
    address_match: dict[str, Json] | None = None


class Principal(Message):
    any: bool | None = None
    and_ids: Principals | None = None
    or_ids: Principals | None = None
    not_id: Principal | None = None
    authenticated: Authenticated | None = None
    source_ip: CidrRange | None = None
    direct_remote_ip: CidrRange | None = None
    remote_ip: CidrRange | None = None
    header: HeaderMatcher | None = None
    url_path: PathMatcher | None = None
    filter_state: FilterStateMatcher | None = None
    metadata: dict[str, Json] | None = None
    sourced_metadata: dict[str, Json] | None = None


class Policy(Message):
    permissions: list[Permission] = []
    principals: list[Principal] = []
    condition: dict[str, Json] | None = None


class Rules(Message):
    """`action` ALLOW | DENY | LOG; ALLOW with no policies denies everything, DENY with none allows everything."""

    action: str = "ALLOW"
    policies: dict[str, Policy] = {}


class HttpRbac(TypedMessage, tag=TYPE + "envoy.extensions.filters.http.rbac.v3.RBAC"):
    rules: Rules | None = None
    rules_stat_prefix: str = ""
    shadow_rules: Rules | None = None
    shadow_rules_stat_prefix: str = ""
    track_per_rule_stats: bool = False


class NetworkRbac(TypedMessage, tag=TYPE + "envoy.extensions.filters.network.rbac.v3.RBAC"):
    stat_prefix: str = ""
    rules: Rules | None = None
    shadow_rules: Rules | None = None
    shadow_rules_stat_prefix: str = ""
    enforcement_type: str = "ONE_TIME_ON_FIRST_BYTE"
    delay_deny: str | None = None

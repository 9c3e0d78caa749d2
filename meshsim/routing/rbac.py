"""Role-based access control: whether a caller may do what it asks (Envoy's RBAC filters, HTTP and network).

How this works: the rules are compiled once into one function per policy. A policy fits if one of its permissions (the
request) and one of its principals (the caller) do. Policies are tried by name, so the name reported is the first that
fits. ALLOW lets in what fits some policy, DENY keeps it out, LOG never matters. Shadow rules are for statistics only.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from meshsim.routing import matchers
from meshsim.routing.facts import Downstream, network
from meshsim.routing.message import Request
from meshsim.xds.message import CidrRange
from meshsim.xds.rbac import HttpRbac, NetworkRbac, Permission, Policy, Principal

DENIED_STATUS, DENIED_BODY = 403, "RBAC: access denied"
# one segment, and any text, of Envoy's URI templates (RFC 3986 pchar)
_SEGMENT = r"[A-Za-z0-9\-._~%!$&'()*+,;=:@]+"
_ANY = r"[A-Za-z0-9\-._~%!$&'()*+,;=:@/]*"


class Caller(NamedTuple):
    """Who asks for what. `request` is None on a TCP chain; `remote` is the client as `x-forwarded-for` has it."""

    downstream: Downstream
    request: Request | None = None
    remote: str = ""


class Verdict(NamedTuple):
    """`policy` is the one that decided, or empty."""

    allowed: bool
    policy: str = ""

    @property
    def details(self) -> str:
        """What logs say of a refusal, in an HTTP entry's code details or a TCP entry's termination details."""
        return f"rbac_access_denied_matched_policy[{self.policy.replace(' ', '_') or 'none'}]"


Check = Callable[[Caller], bool]
Engine = Callable[[Caller], Verdict]


def compiled(filter_: HttpRbac | NetworkRbac) -> Engine:
    """The filter as a function. Without rules everybody may do everything."""
    rules = filter_.rules
    if rules is None or rules.action == "LOG":
        return lambda caller: Verdict(True)
    policies = [(name, _policy(policy)) for name, policy in sorted(rules.policies.items())]
    allow = rules.action == "ALLOW"

    def decide(caller: Caller) -> Verdict:
        for name, fits in policies:
            if fits(caller):
                return Verdict(allow, name)
        return Verdict(not allow)

    return decide


def _policy(policy: Policy) -> Check:
    permissions = [_permission(p) for p in policy.permissions]
    principals = [_principal(p) for p in policy.principals]
    return lambda caller: any(p(caller) for p in permissions) and any(p(caller) for p in principals)


def _permission(permission: Permission) -> Check:
    if permission.any is not None:
        return _always(permission.any)
    if permission.and_rules is not None:
        return _all([_permission(p) for p in permission.and_rules.rules])
    if permission.or_rules is not None:
        return _any([_permission(p) for p in permission.or_rules.rules])
    if permission.not_rule is not None:
        return _not(_permission(permission.not_rule))
    if permission.header is not None:
        return _of_request(matchers.header(permission.header))
    if permission.url_path is not None:
        fits = matchers.text(permission.url_path.path)
        return _of_request(lambda request: fits(request.bare_path))
    if permission.uri_template is not None:
        template = _template(permission.uri_template.typed_config.path_template)
        return _of_request(lambda request: template.fullmatch(request.bare_path) is not None)
    if permission.destination_ip is not None:
        return _within(permission.destination_ip, lambda caller: caller.downstream.destination.host)
    if permission.destination_port is not None:
        port = permission.destination_port
        return lambda caller: caller.downstream.destination.port == port
    if permission.destination_port_range is not None:
        start, end = permission.destination_port_range.start, permission.destination_port_range.end
        return lambda caller: start <= caller.downstream.destination.port < end
    if permission.requested_server_name is not None:
        name = matchers.text(permission.requested_server_name)
        return lambda caller: name(caller.downstream.sni)
    return _always(False)  # dynamic metadata: no filter that is simulated writes any


def _principal(principal: Principal) -> Check:
    if principal.any is not None:
        return _always(principal.any)
    if principal.and_ids is not None:
        return _all([_principal(p) for p in principal.and_ids.ids])
    if principal.or_ids is not None:
        return _any([_principal(p) for p in principal.or_ids.ids])
    if principal.not_id is not None:
        return _not(_principal(principal.not_id))
    if principal.authenticated is not None:
        fits = matchers.text(principal.authenticated.principal_name) if principal.authenticated.principal_name else None
        return lambda caller: _authenticated(caller.downstream, fits)
    if principal.direct_remote_ip is not None:
        return _within(principal.direct_remote_ip, lambda caller: caller.downstream.source.host)
    range_ = principal.remote_ip or principal.source_ip
    if range_ is not None:
        return _within(range_, lambda caller: caller.remote or caller.downstream.source.host)
    if principal.header is not None:
        return _of_request(matchers.header(principal.header))
    if principal.url_path is not None:
        path = matchers.text(principal.url_path.path)
        return _of_request(lambda request: path(request.bare_path))
    return _always(False)  # dynamic metadata or filter state


def _authenticated(downstream: Downstream, fits: matchers.Text | None) -> bool:
    """By the peer certificate's URI names, then its DNS names, then its subject; never over plaintext."""
    if not downstream.secure:
        return False
    if fits is None:
        return downstream.peer is not None
    peer = downstream.peer
    names = (*peer.uris, *peer.dns, peer.subject) if peer else ("",)
    return any(map(fits, names))


def _within(range_: CidrRange, of: Callable[[Caller], str]) -> Check:
    held = network(range_.address_prefix, range_.prefix_len)
    return lambda caller: held.holds(of(caller))


def _of_request(fits: matchers.Predicate) -> Check:
    return lambda caller: caller.request is not None and fits(caller.request)


def _template(template: str) -> re.Pattern[str]:
    parts = [{"**": _ANY, "*": _SEGMENT}.get(part, re.escape(part)) for part in re.split(r"(\*\*|\*)", template)]
    return re.compile("".join(parts), re.ASCII)


def _always(value: bool) -> Check:
    return lambda caller: value


def _all(checks: list[Check]) -> Check:
    return lambda caller: all(check(caller) for check in checks)


def _any(checks: list[Check]) -> Check:
    return lambda caller: any(check(caller) for check in checks)


def _not(check: Check) -> Check:
    return lambda caller: not check(caller)

"""AuthorizationPolicies that apply to one proxy, as the RBAC filters of its chains.

How this works: `Authorization.of` picks the policies (the proxy's namespace and the root namespace, selector within the
proxy's labels; both levels count together). Each action makes one filter: AUDIT, DENY, ALLOW in that order, and CUSTOM
before them all. The same policies give HTTP filters for connection managers and network filters for TCP chains. Sidecars
enforce them on what comes in, gateways on everything they accept except AUTO_PASSTHROUGH.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from meshsim.control import authorization_rules
from meshsim.control.authorization_rules import Scope, Unmatchable
from meshsim.control.trust_domains import TrustDomains
from meshsim.errors import NotSimulated
from meshsim.resources.authorization_policy import AuthorizationPolicySpec
from meshsim.resources.request_authentication import RequestAuthenticationSpec
from meshsim.resources.resource import Resource
from meshsim.xds.http_connection_manager import HttpFilter
from meshsim.xds.listener import NetworkFilter
from meshsim.xds.rbac import HttpRbac, NetworkRbac, Permission, Policy, Principal, Rules

HTTP_FILTER = "envoy.filters.http.rbac"
NETWORK_FILTER = "envoy.filters.network.rbac"
DRY_RUN = "istio.io/dry-run"
ACTIONS = {"AUDIT": "LOG", "DENY": "DENY", "ALLOW": "ALLOW"}  # in the order of their filters
SHADOW_PREFIX = {"ALLOW": "istio_dry_run_allow_", "DENY": "istio_dry_run_deny_", "LOG": ""}
BAD_CUSTOM = "-deny-due-to-bad-CUSTOM-action"
NEVER = Policy([Permission(not_rule=Permission(any=True))], [Principal(not_id=Principal(any=True))])
_TRUE = {"1", "t", "T", "TRUE", "true", "True"}

AuthorizationPolicy = Resource[AuthorizationPolicySpec]


@dataclass(frozen=True, slots=True)
class Authorization:
    """The policies of one proxy, in the order they apply. `providers` are the external authorizers MeshConfig defines."""

    policies: list[AuthorizationPolicy] = field(default_factory=list)
    trust_domains: TrustDomains = field(default_factory=TrustDomains)
    providers: frozenset[str] = frozenset()

    @staticmethod
    def of(
        policies: Iterable[AuthorizationPolicy],
        namespace: str,
        labels: dict[str, str],
        root_namespace: str,
        trust_domains: TrustDomains,
        providers: frozenset[str] = frozenset(),
    ) -> Authorization:
        """The policies for a proxy in `namespace` with `labels`. `policies` come oldest first.

        A policy with `targetRefs` belongs to a Gateway API gateway or a waypoint, never to these proxies.
        """
        wanted = [root_namespace, *([namespace] if namespace != root_namespace else [])]
        mine = [p for p in policies if p.metadata.namespace in wanted and _selects(p.spec, labels)]
        return Authorization(sorted(mine, key=lambda p: wanted.index(p.metadata.namespace)), trust_domains, providers)

    def http_filters(self) -> list[HttpFilter]:
        """CUSTOM first, then AUDIT, DENY and ALLOW; none for an action without policies."""
        made = [HttpRbac(rules=rules) for rules in self._custom(tcp=False)]
        for enforced, shadow in self._builtin(tcp=False):
            made.append(HttpRbac(rules=enforced, shadow_rules=shadow, shadow_rules_stat_prefix=_shadow_prefix(shadow)))
        return [HttpFilter(HTTP_FILTER, rbac) for rbac in made]

    def network_filters(self) -> list[NetworkFilter]:
        """The same for a chain that relays bytes: HTTP fields cannot be matched there."""
        made = [NetworkRbac(rules=rules, stat_prefix="tcp.") for rules in self._custom(tcp=True)]
        for enforced, shadow in self._builtin(tcp=True):
            prefix = _shadow_prefix(shadow)
            made.append(NetworkRbac(rules=enforced, stat_prefix="tcp.", shadow_rules=shadow, shadow_rules_stat_prefix=prefix))
        return [NetworkFilter(NETWORK_FILTER, rbac) for rbac in made]

    def _builtin(self, tcp: bool) -> list[tuple[Rules | None, Rules | None]]:
        """(enforced, dry run) rules of each built-in action that has policies."""
        out = []
        for name, action in ACTIONS.items():
            policies = [p for p in self.policies if p.spec.action == name]
            if policies:
                dry = [p for p in policies if p.metadata.annotations.get(DRY_RUN) in _TRUE]
                real = [p for p in policies if p not in dry]
                out.append((self._rules(action, real, tcp), self._rules(action, dry, tcp)))
        return out

    def _custom(self, tcp: bool) -> list[Rules]:
        """CUSTOM policies: a provider that MeshConfig does not define denies what its rules match."""
        by_provider: dict[str, list[AuthorizationPolicy]] = {}
        for policy in self.policies:
            if policy.spec.action == "CUSTOM":
                by_provider.setdefault(policy.spec.provider.name if policy.spec.provider else "", []).append(policy)
        out = []
        for provider, policies in sorted(by_provider.items()):
            if provider in self.providers and len(by_provider) == 1:
                raise NotSimulated(f"AuthorizationPolicy CUSTOM with provider {provider}", policies[0].location)
            prefix = f"istio-ext-authz-{provider}-" if provider else "istio-ext-authz-"
            rules = self._rules("DENY", [p for p in policies if p.metadata.annotations.get(DRY_RUN) not in _TRUE], tcp, prefix)
            named = rules.policies if rules else {}
            out.append(Rules("DENY", {name + BAD_CUSTOM: rule for name, rule in named.items()}))
        return out

    def _rules(self, action: str, policies: list[AuthorizationPolicy], tcp: bool, prefix: str = "") -> Rules | None:
        """None without policies; rules without any entry deny everything (ALLOW) or nothing (DENY)."""
        if not policies:
            return None
        found: dict[str, Policy] = {}
        for policy in policies:
            scope = Scope(policy.metadata.namespace, tcp, action != "ALLOW", self.trust_domains)
            base = f"{prefix}ns[{policy.metadata.namespace}]-policy[{policy.metadata.name}]-rule"
            for index, rule in enumerate(policy.spec.rules):
                try:
                    found[f"{base}[{index}]"] = authorization_rules.policy(rule, scope)
                except Unmatchable:
                    continue
            if not policy.spec.rules:
                found[f"{base}[0]"] = NEVER
        return Rules(action, dict(sorted(found.items())))


def refuse_tokens(
    policies: Iterable[Resource[RequestAuthenticationSpec]], namespace: str, labels: dict[str, str], root_namespace: str
) -> None:
    """Raises NotSimulated where a proxy would have to check JSON Web Tokens."""
    for policy in policies:
        if policy.namespace in (namespace, root_namespace) and policy.spec.jwt_rules and _selects(policy.spec, labels):
            raise NotSimulated(f"RequestAuthentication {policy.namespace}/{policy.name}: checking tokens", policy.location)


def _selects(spec: AuthorizationPolicySpec | RequestAuthenticationSpec, labels: dict[str, str]) -> bool:
    if spec.target_refs or spec.target_ref:
        return False
    selector = spec.selector.match_labels if spec.selector else {}
    return selector.items() <= labels.items()


def _shadow_prefix(shadow: Rules | None) -> str:
    """Without dry-run rules istiod still writes the prefix of the zero action."""
    return SHADOW_PREFIX[shadow.action if shadow else "ALLOW"]

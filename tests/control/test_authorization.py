"""AuthorizationPolicies as RBAC filters: which apply, in which order, and what each field becomes."""

from __future__ import annotations

from typing import Any as Json

import pytest

from meshsim.control.authorization import refuse_tokens
from meshsim.control.trust_domains import TrustDomains
from meshsim.errors import NotSimulated
from meshsim.resources import loads
from tests.control.helpers import CLIENT, compiled, document, plain

GATEWAY = document("Gateway", {"selector": {"istio": "egressgateway"}, "servers": [
    {"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]},
    {"port": {"number": 3306, "name": "tcp", "protocol": "TCP"}, "hosts": ["*"]}]}, "g")  # fmt: skip
ROUTE = document("VirtualService", {"hosts": ["a.com"], "gateways": ["g"], "tcp": [{"route": [{"destination": {"host": "a.com"}}]}]}, "v")


def policy(name: str = "p", namespace: str = "istio-system", **spec: Json) -> Json:
    annotations = spec.pop("annotations", {})
    return document("AuthorizationPolicy", spec, name, namespace, annotations=annotations)


def filters(*policies: Json, tcp: bool = False, mesh: Json = None) -> list[Json]:
    """The RBAC filters of the HTTP or the TCP chain."""
    chains = {x.name: x.filter_chains[0] for x in compiled(GATEWAY, ROUTE, *policies, mesh=mesh).listeners}
    if tcp:
        return [plain(f.typed_config) for f in chains["0.0.0.0_3306"].filters[:-1]]
    manager = chains["0.0.0.0_8080"].filters[0].typed_config
    return [plain(f.typed_config) for f in manager.http_filters if f.name.endswith("rbac")]


def rule(spec: Json, action: str = "DENY", **more: Json) -> tuple[Json, Json]:
    """(permission, principal) of the first rule, without the layers that every rule has."""
    found = filters(policy(action=action, rules=[spec]), **more)[0]["rules"]["policies"]["ns[istio-system]-policy[p]-rule[0]"]
    return found["permissions"][0]["and_rules"]["rules"], found["principals"][0]["and_ids"]["ids"]


ANY = [{"any": True}]


def name(**matcher: Json) -> Json:
    return {"authenticated": {"principal_name": matcher}}


def one(matcher: Json) -> list[Json]:
    return [{"or_rules": {"rules": [matcher]}}]


def caller(*matchers: Json) -> list[Json]:
    return [{"or_ids": {"ids": list(matchers)}}]


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        ({"hosts": ["A.com"]}, one({"header": {"name": ":authority", "string_match": {"exact": "A.com", "ignore_case": True}}})),
        ({"hosts": ["*"]}, one({"header": {"name": ":authority", "present_match": True}})),
        ({"methods": ["GE*"]}, one({"header": {"name": ":method", "string_match": {"prefix": "GE"}}})),
        ({"paths": ["*.json"]}, one({"url_path": {"path": {"suffix": ".json"}}})),
        ({"paths": ["*"]}, one({"url_path": {"path": {"safe_regex": {"regex": ".+"}}}})),
        ({"notPaths": ["/x"]}, [{"not_rule": one({"url_path": {"path": {"exact": "/x"}}})[0]}]),
        ({"ports": ["8080"]}, one({"destination_port": 8080})),
        ({"ports": ["x", "80"]}, one({"destination_port": 80})),
    ],
)
def test_operations(operation: Json, expected: Json) -> None:
    assert rule({"to": [{"operation": operation}]}) == (expected, ANY)


def test_path_templates() -> None:
    permission, _ = rule({"to": [{"operation": {"paths": ["/a/{*}/b/{**}"]}}]})
    assert permission[0]["or_rules"]["rules"][0]["uri_template"]["typed_config"]["path_template"] == "/a/*/b/**"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"principals": ["cluster.local/ns/a/sa/b"]}, caller(name(exact="spiffe://cluster.local/ns/a/sa/b"))),
        ({"principals": ["*/sa/b.c"]}, caller(name(safe_regex={"regex": r"spiffe://.*/sa/b\.c"}))),
        ({"principals": ["cluster.local/*"]}, caller(name(prefix="spiffe://cluster.local/"))),
        ({"notPrincipals": ["*"]}, [{"not_id": caller(name(safe_regex={"regex": ".+"}))[0]}]),
        ({"namespaces": ["team-*"]}, caller(name(safe_regex={"regex": ".*/ns/team-.*/.*"}))),
        ({"serviceAccounts": ["b"]}, caller(name(safe_regex={"regex": "spiffe://.+/ns/istio-system/(.+/|)sa/b(/.+)?"}))),
        ({"serviceAccounts": ["a/b"]}, caller(name(safe_regex={"regex": "spiffe://.+/ns/a/(.+/|)sa/b(/.+)?"}))),
        ({"trustDomains": ["other"]}, caller(name(prefix="spiffe://other/"))),
        ({"trustDomains": ["*.corp"]}, caller(name(safe_regex={"regex": r"spiffe://[^/]*\.corp/.*"}))),
        ({"ipBlocks": ["10.0.0.0/8"]}, caller({"direct_remote_ip": {"address_prefix": "10.0.0.0", "prefix_len": 8}})),
        ({"remoteIpBlocks": ["10.1.2.3"]}, caller({"remote_ip": {"address_prefix": "10.1.2.3", "prefix_len": 32}})),
    ],
)
def test_sources(source: Json, expected: Json) -> None:
    assert rule({"from": [{"source": source}]}) == (ANY, expected)


@pytest.mark.parametrize(
    ("key", "values", "expected"),
    [
        ("connection.sni", ["a.com"], (one({"requested_server_name": {"exact": "a.com"}}), ANY)),
        ("destination.ip", ["10.0.0.1"], (one({"destination_ip": {"address_prefix": "10.0.0.1", "prefix_len": 32}}), ANY)),
        ("request.headers[x-team]", ["a"], (ANY, caller({"header": {"name": "x-team", "string_match": {"exact": "a"}}}))),
        ("request.headers[x-team]", ["*"], (ANY, caller({"header": {"name": "x-team", "present_match": True}}))),
        ("source.namespace", ["a"], (ANY, caller(name(safe_regex={"regex": ".*/ns/a/.*"})))),
    ],
)
def test_conditions(key: str, values: list[str], expected: tuple[Json, Json]) -> None:
    assert rule({"when": [{"key": key, "values": values}]}) == expected


def test_claims_ask_the_metadata_of_the_jwt_filter() -> None:
    _, principal = rule({"when": [{"key": "request.auth.claims[a][b]", "values": ["x", "y*"]}]})
    metadata = principal[0]["metadata"]
    assert [part["key"] for part in metadata["path"]] == ["payload", "a", "b"]
    values = metadata["value"]["or_match"]["value_matchers"]
    assert values[1]["or_match"]["value_matchers"] == [{"string_match": {"exact": "x"}}, {"string_match": {"prefix": "y"}}]


def test_fields_are_anded_in_istios_order() -> None:
    permission, principal = rule(
        {
            "from": [{"source": {"ipBlocks": ["10.0.0.1"], "namespaces": ["a"], "principals": ["p"]}}],
            "to": [{"operation": {"ports": ["80"], "paths": ["/"], "methods": ["GET"], "hosts": ["a.com"]}}],
            "when": [{"key": "connection.sni", "values": ["s"]}, {"key": "source.ip", "values": ["10.0.0.2"]}],
        }
    )
    kinds = [next(iter(p["or_rules"]["rules"][0])) for p in permission]
    assert kinds == ["header", "header", "url_path", "destination_port", "requested_server_name"]
    kinds = [next(iter(p["or_ids"]["ids"][0])) for p in principal]
    assert kinds == ["authenticated", "authenticated", "direct_remote_ip", "direct_remote_ip"]


@pytest.mark.parametrize(
    ("action", "spec", "policies"),
    [
        # under ALLOW an HTTP field takes the whole rule out of a TCP chain; under DENY only itself
        ("ALLOW", {"to": [{"operation": {"paths": ["/"]}}]}, {}),
        ("DENY", {"to": [{"operation": {"paths": ["/"]}}]}, {"permissions": ANY}),
        ("ALLOW", {"to": [{"operation": {"ports": ["3306"]}}]}, {"permissions": one({"destination_port": 3306})}),
        ("DENY", {"to": [{"operation": {"ports": ["3306"], "hosts": ["a"]}}]}, {"permissions": one({"destination_port": 3306})}),
        ("ALLOW", {"when": [{"key": "request.headers[x]", "values": ["a"]}]}, {}),
    ],
)
def test_http_fields_on_a_tcp_chain(action: str, spec: Json, policies: Json) -> None:
    found = filters(policy(action=action, rules=[spec]), tcp=True)[0]["rules"].get("policies", {})
    assert [r["permissions"][0]["and_rules"]["rules"] for r in found.values()] == list(policies.values())


def test_actions_each_make_a_filter() -> None:
    made = filters(
        policy("a", action="ALLOW", rules=[{}]), policy("d", action="DENY", rules=[{}]), policy("u", action="AUDIT", rules=[{}])
    )
    assert [f["rules"].get("action", "ALLOW") for f in made] == ["LOG", "DENY", "ALLOW"]


def test_a_policy_without_rules_matches_nothing() -> None:
    found = filters(policy())[0]["rules"]["policies"]["ns[istio-system]-policy[p]-rule[0]"]
    assert found == {"permissions": [{"not_rule": {"any": True}}], "principals": [{"not_id": {"any": True}}]}


@pytest.mark.parametrize(
    ("chosen", "applies"),
    [
        (policy(rules=[{}], selector={"matchLabels": {"istio": "egressgateway"}}), True),
        (policy(rules=[{}], selector={"matchLabels": {"istio": "other"}}), False),
        (policy(rules=[{}]), True),
        (policy(namespace="default", rules=[{}]), False),
        (policy(rules=[{}], targetRefs=[{"kind": "Gateway", "name": "g"}]), False),
    ],
)
def test_which_policies_apply(chosen: Json, applies: bool) -> None:
    assert bool(filters(chosen)) is applies


def test_dry_run_rules_are_shadows() -> None:
    dry = policy("dry", action="DENY", rules=[{}], annotations={"istio.io/dry-run": "true"})
    (only,) = filters(dry)
    assert "rules" not in only and only["shadow_rules_stat_prefix"] == "istio_dry_run_deny_"
    (both,) = filters(dry, policy("real", action="DENY", rules=[{}]))
    assert list(both["rules"]["policies"]) == ["ns[istio-system]-policy[real]-rule[0]"]
    assert list(both["shadow_rules"]["policies"]) == ["ns[istio-system]-policy[dry]-rule[0]"]


def test_custom_actions() -> None:
    custom = policy(action="CUSTOM", provider={"name": "opa"}, rules=[{"to": [{"operation": {"paths": ["/x"]}}]}])
    (made,) = filters(custom)
    suffix = "ns[istio-system]-policy[p]-rule[0]-deny-due-to-bad-CUSTOM-action"
    assert made["rules"]["action"] == "DENY" and list(made["rules"]["policies"]) == [f"istio-ext-authz-opa-{suffix}"]
    provider = {"name": "opa", "envoyExtAuthzHttp": {"service": "opa.default.svc.cluster.local", "port": 8080}}
    with pytest.raises(NotSimulated, match="CUSTOM with provider opa"):
        filters(custom, mesh={"extensionProviders": [provider]})


def test_sidecars_enforce_on_what_comes_in_only() -> None:
    told = compiled(policy(namespace="default", action="DENY", rules=[{}]), proxy=CLIENT)
    guarded = {
        listener.name
        for listener in told.listeners
        for chain in listener.filter_chains
        for f in chain.filters
        if f.name.endswith("rbac") or any(h.name.endswith("rbac") for h in getattr(f.typed_config, "http_filters", []))
    }
    assert guarded == {"virtualInbound"}


@pytest.mark.parametrize(
    ("names", "principal", "expanded"),
    [
        (("td",), "cluster.local/ns/a/sa/b", ["td/ns/a/sa/b"]),
        (("td", "old"), "td/ns/a/sa/b", ["td/ns/a/sa/b", "old/ns/a/sa/b"]),
        (("td", "old"), "old/ns/a/sa/b", ["td/ns/a/sa/b", "old/ns/a/sa/b"]),
        (("td",), "foreign/ns/a/sa/b", ["foreign/ns/a/sa/b"]),
        (("td",), "*/ns/a/sa/b", ["*/ns/a/sa/b"]),
        (("new-td", "old-td"), "*-td/ns/a/sa/b", ["*-td/ns/a/sa/b"]),
        (("td",), "sa/b", ["sa/b"]),
    ],
)
def test_trust_domains(names: tuple[str, ...], principal: str, expanded: list[str]) -> None:
    assert TrustDomains(names).expand_principals([principal]) == expanded


def test_tokens_are_refused_aloud_where_they_would_be_checked() -> None:
    text = """
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: jwt, namespace: default}
spec: {selector: {matchLabels: {app: sleep}}, jwtRules: [{issuer: me, jwks: "{}"}]}
"""
    policies = loads(text).require().resources
    refuse_tokens(policies, "default", {"app": "other"}, "istio-system")
    refuse_tokens(policies, "team-a", {"app": "sleep"}, "istio-system")
    with pytest.raises(NotSimulated, match=r"RequestAuthentication default/jwt"):
        refuse_tokens(policies, "default", {"app": "sleep"}, "istio-system")

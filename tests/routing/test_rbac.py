"""Who may do what, on the filters that AuthorizationPolicies compile to."""

from __future__ import annotations

import pytest

from meshsim import xds
from meshsim.routing.facts import Downstream, Endpoint, Peer
from meshsim.routing.message import Request
from meshsim.routing.rbac import Caller, compiled
from meshsim.xds.http_connection_manager import HttpFilter

CLIENT, GATEWAY = Endpoint("10.244.1.10", 40000), Endpoint("10.244.0.20", 8080)
SLEEP = Peer(uris=("spiffe://cluster.local/ns/default/sa/sleep",))
ANY = {"any": True}
TYPE = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"


def rbac(action: str, **policies: tuple[dict, dict]):
    import msgspec

    rules = {"action": action, "policies": {n: {"permissions": [p], "principals": [w]} for n, (p, w) in policies.items()}}
    found = msgspec.convert({"name": "rbac", "typed_config": {"@type": TYPE, "rules": rules}}, HttpFilter)
    return compiled(found.typed_config)


def caller(path: str = "/", *, peer: Peer | None = None, secure: bool = False, sni: str = "", **headers: str) -> Caller:
    request = Request("GET", path, "api.example.com", headers=[(n.replace("_", "-"), v) for n, v in headers.items()])
    return Caller(Downstream(CLIENT, GATEWAY, sni=sni, secure=secure, peer=peer), request)


def path(**matcher: str) -> dict:
    return {"url_path": {"path": matcher}}


def template(text: str) -> dict:
    kind = "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig"
    return {"uri_template": {"name": "uri-template", "typed_config": {"@type": kind, "path_template": text}}}


def principal(**matcher: object) -> dict:
    return {"authenticated": {"principal_name": matcher}}


@pytest.mark.parametrize(
    ("permission", "who", "asked", "fits"),
    [
        (path(exact="/a"), ANY, caller("/a?x=1"), True),
        (path(exact="/a"), ANY, caller("/a/"), False),
        (path(prefix="/v1/"), ANY, caller("/v1"), False),
        (path(suffix=".json"), ANY, caller("/x/y.json?q"), True),
        (template("/v1/orders/*/confirm"), ANY, caller("/v1/orders/42/confirm"), True),
        (template("/v1/orders/*/confirm"), ANY, caller("/v1/orders/42/7/confirm"), False),
        (template("/v1/**/x"), ANY, caller("/v1/a/b/x"), True),
        ({"destination_port": 8080}, ANY, caller(), True),
        ({"destination_port": 80}, ANY, caller(), False),
        ({"destination_ip": {"address_prefix": "10.244.0.0", "prefix_len": 16}}, ANY, caller(), True),
        ({"requested_server_name": {"exact": "a.com"}}, ANY, caller(sni="a.com"), True),
        ({"requested_server_name": {"safe_regex": {"regex": ".+"}}}, ANY, caller(), False),
        ({"header": {"name": ":method", "string_match": {"exact": "GET"}}}, ANY, caller(), True),
        ({"header": {"name": ":authority", "string_match": {"exact": "API.example.com", "ignore_case": True}}}, ANY, caller(), True),
        (ANY, principal(exact=SLEEP.uris[0]), caller(peer=SLEEP, secure=True), True),
        (ANY, principal(exact=SLEEP.uris[0]), caller(), False),
        (ANY, principal(safe_regex={"regex": ".*/ns/default/.*"}), caller(peer=SLEEP, secure=True), True),
        (ANY, principal(safe_regex={"regex": ".+"}), caller(secure=True), False),
        (ANY, {"not_id": principal(safe_regex={"regex": ".+"})}, caller(), True),
        (ANY, {"direct_remote_ip": {"address_prefix": "10.244.1.10", "prefix_len": 32}}, caller(), True),
        (ANY, {"remote_ip": {"address_prefix": "192.0.2.0", "prefix_len": 24}}, caller()._replace(remote="192.0.2.9"), True),
        (ANY, {"header": {"name": "x-team", "string_match": {"exact": "a"}}}, caller(x_team="a"), True),
        (ANY, {"metadata": {"filter": "envoy.filters.http.jwt_authn"}}, caller(), False),
        ({"and_rules": {"rules": [path(prefix="/a"), {"not_rule": path(exact="/a/b")}]}}, ANY, caller("/a/b"), False),
        ({"and_rules": {"rules": [path(prefix="/a"), {"not_rule": path(exact="/a/b")}]}}, ANY, caller("/a/c"), True),
    ],
)
def test_matching(permission: dict, who: dict, asked: Caller, fits: bool) -> None:
    assert rbac("ALLOW", p=(permission, who))(asked).allowed is fits
    assert rbac("DENY", p=(permission, who))(asked).allowed is not fits


@pytest.mark.parametrize(
    ("engine", "allowed", "details"),
    [
        (rbac("ALLOW"), False, "[none]"),
        (rbac("DENY"), True, "[none]"),
        (rbac("DENY", b=(ANY, ANY), a=(ANY, ANY)), False, "[a]"),
        (rbac("ALLOW", a=(path(exact="/x"), ANY)), False, "[none]"),
        (rbac("LOG", a=(ANY, ANY)), True, "[none]"),
        (compiled(xds.http_connection_manager.HttpRbac()), True, "[none]"),
    ],
)
def test_verdicts(engine, allowed: bool, details: str) -> None:
    verdict = engine(caller())
    assert (verdict.allowed, verdict.details) == (allowed, f"rbac_access_denied_matched_policy{details}")


def test_http_fields_never_fit_a_connection() -> None:
    connection = Caller(Downstream(CLIENT, GATEWAY))
    assert not rbac("ALLOW", p=(path(prefix="/"), ANY))(connection).allowed

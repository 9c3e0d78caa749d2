"""VirtualService rules as routes: which concern a proxy, what they match, what they do."""

from __future__ import annotations

from typing import Any as Json

import pytest

from tests.control.helpers import CLIENT, compiled, document, plain

ORIGIN = document("ServiceEntry", {"hosts": ["a.com", "b.com"], "resolution": "DNS", "ports": [
    {"number": 80, "name": "http", "protocol": "HTTP"}]}, "se")  # fmt: skip
DESTINATION = {"destination": {"host": "a.com", "port": {"number": 80}}}


def routes(*rules: Json, more: tuple[Json, ...] = (), **spec: Json) -> list[Json]:
    """The routes of a.com on the sidecar's port 80."""
    service = document("VirtualService", {"hosts": ["a.com"], "http": list(rules), **spec}, "v")
    told = compiled(ORIGIN, service, *more, proxy=CLIENT)
    found = next(r for r in told.routes if r.name == "80")
    return [plain(r) for r in next(h for h in found.virtual_hosts if h.name == "a.com:80").routes]


def route(**rule: Json) -> Json:
    return routes({"route": [DESTINATION], **rule})[0]


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ({"uri": {"exact": "/a"}}, {"path": "/a", "case_sensitive": True}),
        ({"uri": {"prefix": "/a"}, "ignoreUriCase": True}, {"prefix": "/a", "case_sensitive": False}),
        ({"uri": {"regex": "/a.*"}}, {"safe_regex": {"regex": "/a.*"}, "case_sensitive": True}),
        ({"headers": {"x": {"exact": "1"}}}, {"headers": [{"name": "x", "string_match": {"exact": "1"}}]}),
        ({"headers": {"x": {}}}, {"headers": [{"name": "x", "present_match": True}]}),
        ({"headers": {"x": {"regex": "*"}}}, {"headers": [{"name": "x", "present_match": True}]}),
        ({"withoutHeaders": {"x": {"exact": "1"}}},
         {"headers": [{"name": "x", "string_match": {"exact": "1"}, "invert_match": True, "treat_missing_header_as_empty": True}]}),
        ({"withoutHeaders": {"x": {}}}, {"headers": [{"name": "x", "present_match": True, "invert_match": True}]}),
        ({"method": {"exact": "GET"}, "headers": {"y": {}, "b": {}}},
         {"headers": [{"name": "b", "present_match": True}, {"name": "y", "present_match": True},
                      {"name": ":method", "string_match": {"exact": "GET"}}]}),
        ({"queryParams": {"q": {"exact": ""}}}, {"query_parameters": [{"name": "q", "string_match": {"exact": ""}}]}),
    ],
)  # fmt: skip
def test_matches(match: Json, expected: Json) -> None:
    found = route(match=[match])["match"]
    assert found == {"prefix": "/", "case_sensitive": True, **expected} if "uri" not in match else expected


@pytest.mark.parametrize(
    ("match", "concerns"),
    [
        ({"port": 80}, True),
        ({"port": 8080}, False),
        ({"gateways": ["mesh"]}, True),
        ({"gateways": ["g"]}, False),
        ({"sourceLabels": {"app": "sleep"}}, True),
        ({"sourceLabels": {"app": "other"}}, False),
        ({"sourceNamespace": "team-a"}, False),
        # with gateways, labels and namespace are not asked
        ({"gateways": ["mesh"], "sourceLabels": {"app": "other"}, "sourceNamespace": "team-a"}, True),
    ],
)
def test_static_matches(match: Json, concerns: bool) -> None:
    found = routes({"name": "r", "match": [{**match, "uri": {"prefix": "/x"}}], "route": [DESTINATION]}, gateways=["mesh", "g"])
    assert [r["name"] for r in found] == (["r"] if concerns else ["default"])


def test_names_order_and_the_end_at_a_catch_all() -> None:
    found = routes(
        {"name": "one", "match": [{"name": "m", "uri": {"prefix": "/a"}}, {"uri": {"prefix": "/b"}}], "route": [DESTINATION]},
        {"match": [{"uri": {"prefix": "/"}}], "route": [DESTINATION]},
        {"name": "never", "route": [DESTINATION]},
    )
    assert [r.get("name", "") for r in found] == ["one.m", "one", ""]


@pytest.mark.parametrize(
    ("rule", "field", "expected"),
    [
        ({"timeout": "1500ms"}, "timeout", "1.500s"),
        ({}, "timeout", "0s"),
        ({"rewrite": {"uri": "/new", "authority": "b.com"}}, "prefix_rewrite", "/new"),
        ({"rewrite": {"uri": "/new", "authority": "b.com"}}, "host_rewrite_literal", "b.com"),
        ({"headers": {"request": {"set": {"host": "c.com"}}}}, "host_rewrite_literal", "c.com"),
        ({"rewrite": {"uriRegexRewrite": {"match": "^/a", "rewrite": "/b"}}}, "regex_rewrite",
         {"pattern": {"regex": "^/a"}, "substitution": "/b"}),
        ({"retries": {"attempts": 0}}, "retry_policy", None),
    ],
)  # fmt: skip
def test_actions(rule: Json, field: str, expected: Json) -> None:
    assert route(**rule)["route"].get(field) == expected


@pytest.mark.parametrize(
    ("retries", "expected"),
    [
        (None, {"num_retries": 2, "retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"}),
        ({"attempts": 3, "retryOn": "503, reset"}, {"retry_on": "reset,retriable-status-codes", "retriable_status_codes": [503]}),
        ({"attempts": 1, "perTryTimeout": "2s"}, {"num_retries": 1, "per_try_timeout": "2s"}),
        ({"attempts": 1, "backoff": "10ms"}, {"retry_back_off": {"base_interval": "0.010s"}}),
        ({"attempts": 1, "retryIgnorePreviousHosts": False}, {"retry_host_predicate": None}),
    ],
)
def test_retries(retries: Json, expected: Json) -> None:
    found = route(**({"retries": retries} if retries else {}))["route"]["retry_policy"]
    assert {key: found.get(key) for key in expected} == expected


def test_weights_drop_zero_and_keep_their_headers() -> None:
    legs = [
        {"destination": {"host": "a.com", "port": {"number": 80}}, "weight": 9, "headers": {"request": {"set": {"x": "1"}}}},
        {"destination": {"host": "b.com"}, "weight": 1},
        {"destination": {"host": "c.com", "subset": "v1"}, "weight": 0},
    ]
    found = route(route=legs)["route"]["weighted_clusters"]["clusters"]
    assert [(c["name"], c["weight"]) for c in found] == [("outbound|80||a.com", 9), ("outbound|80||b.com", 1)]
    added = [{"header": {"key": "x", "value": "1"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}]
    assert found[0]["request_headers_to_add"] == added


def test_header_operations_are_sorted_and_spare_pseudo_headers() -> None:
    operations = {"set": {"b": "1", "a": "2", ":path": "/"}, "add": {"c": "3"}, "remove": ["z", "host", ":method"]}
    found = route(headers={"request": operations, "response": {"remove": ["y"]}})
    assert [(h["header"]["key"], h.get("append_action", "ADD")[:3]) for h in found["request_headers_to_add"]] == [
        ("a", "OVE"),
        ("b", "OVE"),
        ("c", "ADD"),
    ]
    assert (found["request_headers_to_remove"], found["response_headers_to_remove"]) == (["z"], ["y"])


@pytest.mark.parametrize(
    ("redirect", "expected"),
    [
        ({"uri": "/x"}, {"path_redirect": "/x"}),
        ({"authority": "b.com", "redirectCode": 302}, {"host_redirect": "b.com", "path_redirect": "", "response_code": "FOUND"}),
        ({"scheme": "https", "port": 443}, {"scheme_redirect": "https", "path_redirect": ""}),
        ({"scheme": "https", "port": 8443}, {"scheme_redirect": "https", "path_redirect": "", "port_redirect": 8443}),
        ({"uri": "/", "derivePort": "FROM_REQUEST_PORT"}, {"path_redirect": "/"}),
        ({"uri": "/", "redirectCode": 305}, None),
    ],
)
def test_redirects(redirect: Json, expected: Json) -> None:
    assert routes({"redirect": redirect})[0].get("redirect") == expected


def test_direct_responses_faults_cors_and_mirrors() -> None:
    assert routes({"directResponse": {"status": 418, "body": {"string": "t"}}})[0]["direct_response"] == {
        "status": 418,
        "body": {"inline_string": "t"},
    }
    fault = {"delay": {"fixedDelay": "2s", "percentage": {"value": 0.5}}, "abort": {"httpStatus": 500}}
    assert route(fault=fault)["typed_per_filter_config"]["envoy.filters.http.fault"] | {"@type": ""} == {
        "@type": "",
        "delay": {"fixed_delay": "2s", "percentage": {"numerator": 5000, "denominator": "MILLION"}},
        "abort": {"http_status": 500},
    }
    cors = route(corsPolicy={"allowOrigins": [{"exact": "o"}], "allowMethods": ["GET", "PUT"], "maxAge": "1m"})
    found = cors["typed_per_filter_config"]["envoy.filters.http.cors"]
    assert (found["allow_methods"], found["max_age"], found["forward_not_matching_preflights"]) == ("GET,PUT", "60", True)
    mirrors = [{"destination": {"host": host}, "percentage": {"value": share}} for host, share in (("b.com", 1), ("c.com", 0))]
    assert [m["cluster"] for m in route(mirrors=mirrors)["route"]["request_mirror_policies"]] == ["outbound|80||b.com"]


@pytest.mark.parametrize(
    ("rule", "operation"),
    [
        ({"route": [DESTINATION]}, "a.com:80/*"),
        ({"match": [{"uri": {"exact": "/x"}}], "route": [DESTINATION]}, "a.com:80/x"),
        ({"redirect": {"uri": "/x"}}, "v:80/*"),
    ],
)
def test_operations_named_for_traces(rule: Json, operation: str) -> None:
    assert routes(rule)[0]["decorator"]["operation"] == operation


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({"httpHeaderName": "x"}, {"header": {"header_name": "x"}}),
        ({"httpCookie": {"name": "c", "ttl": "5s", "path": "/"}}, {"cookie": {"name": "c", "ttl": "5s", "path": "/"}}),
        ({"useSourceIp": True}, {"connection_properties": {"source_ip": True}}),
        ({"httpQueryParameterName": "q"}, {"query_parameter": {"name": "q"}}),
    ],
)
def test_hashing_of_the_destination(policy: Json, expected: Json) -> None:
    rule = document("DestinationRule", {"host": "a.com", "trafficPolicy": {"loadBalancer": {"consistentHash": policy}}}, "dr")
    action = routes({"route": [DESTINATION]}, more=(rule,))[0]["route"]
    assert action["hash_policy"] == [expected] and "retry_host_predicate" not in action["retry_policy"]


def test_delegates_merge_match_names_and_settings() -> None:
    delegate = document(
        "VirtualService",
        {"http": [
            {"name": "in", "match": [{"uri": {"prefix": "/shop/cart"}}], "route": [DESTINATION]},
            {"name": "out", "match": [{"uri": {"prefix": "/elsewhere"}}], "route": [DESTINATION]},
            {"name": "own", "route": [DESTINATION], "timeout": "9s"}]},
        "d", "team-a")  # fmt: skip
    root = {"name": "shop", "match": [{"uri": {"prefix": "/shop"}}], "timeout": "3s", "delegate": {"name": "d", "namespace": "team-a"}}
    missing = {"name": "gone", "delegate": {"name": "nobody"}}
    found = routes(root, missing, more=(delegate,))
    assert [(r["name"], r["match"]["prefix"], r["route"]["timeout"]) for r in found] == [
        ("shop-in", "/shop/cart", "3s"),
        ("shop-own", "/shop", "9s"),
    ]
    hidden = {**delegate, "spec": {**delegate["spec"], "exportTo": ["."]}}
    assert [r["name"] for r in routes(root, more=(hidden,))] == ["default"]

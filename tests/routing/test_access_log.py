"""Log lines, and which entries get one."""

from __future__ import annotations

import pytest

from meshsim.control.telemetry import JSON_FORMAT, TEXT_FORMAT
from meshsim.errors import NotSimulated
from meshsim.routing import access_log, cel
from meshsim.routing.entry import Entry
from meshsim.routing.facts import Downstream, Endpoint, Peer
from meshsim.xds.access_log import AccessLogFilter, FilterList, ResponseFlagFilter, SubstitutionFormatString, TextFormat

CLIENT, GATEWAY = Endpoint("10.244.1.10", 36884), Endpoint("10.244.0.20", 8080)
PEER = Peer(uris=("spiffe://cluster.local/ns/default/sa/sleep",))


def http(**changes: object) -> Entry:
    entry = Entry(
        Downstream(CLIENT, GATEWAY, sni="edition.cnn.com", secure=True, peer=PEER, chain="c"),
        start=1795294317.557,
        end=1795294317.6,
        method="GET",
        path="/get?x=1&y=2",
        authority="httpbin.org",
        protocol="HTTP/2",
        request_headers=[("user-agent", "golden"), ("x-forwarded-for", "10.244.1.10"), ("x-request-id", "27f4")],
        response_headers=[("x-envoy-upstream-service-time", "0")],
        code=200,
        details="via_upstream",
        cluster="outbound|80||httpbin.org",
        upstream="203.0.113.10:80",
        upstream_local="10.244.0.20:38188",
        attempts=1,
        sent=511,
    )
    for name, value in changes.items():
        setattr(entry, name, value)
    return entry


def tcp(**changes: object) -> Entry:
    entry = Entry(Downstream(CLIENT, GATEWAY, sni="nope.test"), start=1795294317.0, end=1795294317.0)
    for name, value in changes.items():
        setattr(entry, name, value)
    return entry


def line(text: str, entry: Entry, **options: bool) -> str:
    return access_log.compile_format(SubstitutionFormatString(text_format_source=TextFormat(text), **options))(entry)


def test_istio_lines() -> None:
    assert line(TEXT_FORMAT, http()) == (
        '[2026-11-21T20:51:57.557Z] "GET /get?x=1&y=2 HTTP/2" 200 - via_upstream - "-" 0 511 43 0 "10.244.1.10" "golden" "27f4" '
        '"httpbin.org" "203.0.113.10:80" outbound|80||httpbin.org 10.244.0.20:38188 10.244.0.20:8080 10.244.1.10:36884 edition.cnn.com -\n'
    )
    assert line(TEXT_FORMAT, tcp(flags=["NR"], details="filter_chain_not_found")) == (
        '[2026-11-21T20:51:57.000Z] "- - -" 0 NR filter_chain_not_found - "-" 0 0 0 - "-" "-" "-" "-" "-" - - '
        "10.244.0.20:8080 10.244.1.10:36884 nope.test -\n"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("%REQ(X-NONE?:PATH)%", "/get?x=1&y=2"),
        ("%REQ(USER-AGENT):3%", "gol"),
        ("%REQ(HOST)% 100%%", "httpbin.org 100%"),
        ("%QUERY_PARAM(y)%|%QUERY_PARAM(z)%", "2|-"),
        ("%REQ_WITHOUT_QUERY(:PATH)%", "/get"),
        ("%RESP(:STATUS)%", "200"),
        ("%START_TIME(%s.%3f)% %START_TIME(%f)% %START_TIME(%Y)%", "1795294317.557 557000000 2026"),
        ("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_PEER_URI_SAN%", "10.244.1.10 spiffe://cluster.local/ns/default/sa/sleep"),
        ("%FILTER_CHAIN_NAME% %ACCESS_LOG_TYPE% %FILTER_STATE(x:PLAIN)%", "c DownstreamEnd -"),
    ],
)
def test_operators(text: str, expected: str) -> None:
    assert line(text, http()) == expected


def test_empty_values_and_long_flags() -> None:
    assert line("[%ROUTE_NAME%]", http(), omit_empty_values=True) == "[]"
    long = line("%RESPONSE_FLAGS% %RESPONSE_FLAGS_LONG%", http(flags=["URX", "UF"]))
    assert long == "URX,UF UpstreamRetryLimitExceeded,UpstreamConnectionFailure"
    with pytest.raises(NotSimulated, match="WEATHER"):
        line("%WEATHER%", http())


def test_json_keeps_types_and_sorts_keys() -> None:
    fields = {"sni": "%ROUTE_NAME%", "code": "%RESPONSE_CODE%", "a": "x %PROTOCOL%"}
    made = access_log.compile_format(SubstitutionFormatString(json_format=fields))
    assert made(http()) == '{"a":"x HTTP/2","code":200,"sni":null}\n'
    assert set(access_log.record(JSON_FORMAT)(http())) == set(JSON_FORMAT)


@pytest.mark.parametrize(
    ("flags", "given", "passes"),
    [(["NR"], ["NR"], True), (["NR"], ["UF"], False), ([], ["UF"], True), ([], [], False)],
)
def test_flag_filter(flags: list[str], given: list[str], passes: bool) -> None:
    wanted = AccessLogFilter(response_flag_filter=ResponseFlagFilter(flags))
    assert access_log.wanted(wanted)(tcp(flags=given)) is passes
    both = AccessLogFilter(and_filter=FilterList([wanted, AccessLogFilter(response_flag_filter=ResponseFlagFilter(["NR"]))]))
    assert access_log.wanted(both)(tcp(flags=given)) is (passes and "NR" in given)


@pytest.mark.parametrize(
    ("expression", "passes"),
    [
        ("response.code >= 400", False),
        ("response.code >= 200 && response.code < 300", True),
        ("response.code == 404 || request.method == 'GET'", True),
        ("!(request.url_path.startsWith('/get'))", False),
        ('request.headers["user-agent"].contains("gold")', True),
        ('request.headers["x-none"] == "a"', False),
        ('"x-none" in request.headers', False),
        ('has(request.headers["user-agent"])', True),
        ('request.headers["x-none"] == "a" || true', True),
        ("connection.mtls && request.protocol != 'HTTP/1.1'", True),
        ("response.flags != 0", False),
        ("request.duration > 40 && size(request.path) == 12", True),
        ("xds.cluster_name.matches('httpbin')", True),
        ("request.host in ['a.com', 'httpbin.org']", True),
        ("response.code + 1 == 201 ? true : false", True),
    ],
)
def test_expressions(expression: str, passes: bool) -> None:
    assert cel.predicate(expression)(http()) is passes


def test_expressions_about_requests_let_no_connection_through() -> None:
    assert not cel.predicate("response.code < 400")(tcp())
    assert cel.predicate("connection.requested_server_name == 'nope.test'")(tcp())


@pytest.mark.parametrize("expression", ["", "response.colour", "foo(1)", "response.code >", "a ~ b"])
def test_unknown_expressions_are_refused(expression: str) -> None:
    with pytest.raises(NotSimulated):
        cel.predicate(expression)


@pytest.mark.parametrize("text", [TEXT_FORMAT, "100%% %PROTOCOL% %RESP(X)% %REQ(:METHOD):2% %UPSTREAM_HOST%\n", "%ROUTE_NAME%"])
@pytest.mark.parametrize("omits", [False, True])
def test_a_line_of_bytes_is_the_same_line(text: str, omits: bool) -> None:
    line = access_log.compile_format(
        SubstitutionFormatString(text_format_source=TextFormat(inline_string=text), omit_empty_values=omits)
    )
    full = Entry(Downstream(CLIENT, GATEWAY, sni="a.example", chain="c"), start=1.5, end=2.0, cluster="c", upstream="1.2.3.4:5", sent=7)
    full.flag("UF")
    for entry in (full, Entry(Downstream(CLIENT, GATEWAY))):
        assert line.of_bytes()(entry) == line(entry)

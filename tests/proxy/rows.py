"""What bytes a proxy is sent, one row each, for the asyncio proxy and a real Envoy alike (see beside_envoy.py).

A row says what the client sends, how the host answers, and what the connection manager and the route are told; what Envoy made of it is
in envoy_bytes.json, recorded by `python -m tests.proxy.beside_envoy --record`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any as Json

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"
HEAD_END = b"\r\n\r\n"


@dataclass(frozen=True)
class Row:
    """send: pieces; each goes out when the answer to the one before has come. heard: what the host waits for before it answers.

    answers: to the first request, the second, and so on, the last one again for all others; None ends the connection unanswered.
    hangs_up: the host ends the connection after an answer. quiet: seconds of silence after which no more is awaited. manager, action,
    cluster: settings beside the plain ones.
    """

    name: str
    send: tuple[bytes, ...]
    answers: tuple[bytes | None, ...] = (OK,)
    heard: bytes = HEAD_END
    hangs_up: bool = False
    quiet: float = 0.3
    manager: dict[str, Json] = field(default_factory=dict)
    action: dict[str, Json] = field(default_factory=dict)
    cluster: dict[str, Json] = field(default_factory=dict)


def get(*lines: bytes, path: bytes = b"/", method: bytes = b"GET", body: bytes = b"") -> bytes:
    return b"\r\n".join([method + b" " + path + b" HTTP/1.1", b"Host: h", *lines, b"", body])


def chunked(body: bytes) -> bytes:
    return get(b"Transfer-Encoding: chunked", method=b"POST", body=body)


def _requests(kind: str, **rows: bytes) -> list[Row]:
    return [Row(f"{kind}: {name.replace('_', ' ')}", (data,)) for name, data in rows.items()]


BAD = _requests(
    "bad",
    length_of_letters=get(b"Content-Length: x"),
    negative_length=get(b"Content-Length: -1"),
    length_with_a_plus=get(b"Content-Length: +3"),
    two_equal_lengths=get(b"Content-Length: 3", b"Content-Length: 3", body=b"xyz"),
    a_list_of_lengths=get(b"Content-Length: 3, 3", body=b"xyz"),
    a_length_past_64_bits=get(b"Content-Length: 99999999999999999999"),
    space_before_the_colon=get(b"a : b"),
    a_line_without_a_colon=get(b"nocolon"),
    an_empty_name=get(b": v"),
    a_name_that_is_no_token=get(b"b(d: v"),
    an_unknown_method=get(method=b"FOO"),
    a_method_in_small_letters=get(method=b"get"),
    a_path_with_a_space=get(path=b"/a b"),
    a_path_with_an_8_bit_byte=get(path=b"/\xe9"),
    a_relative_path=get(path=b"a"),
    a_first_line_folded=b"GET / HTTP/1.1\r\n x: y\r\n\r\n",
    a_TLS_hello=b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    no_HTTP_at_all=b"HELLO you\r\n",
    an_SSH_banner=b"SSH-2.0-OpenSSH_9.6\r\n",
    a_NUL_in_a_value=get(b"a: \x00"),
    a_control_character_in_a_value=get(b"a: x\x01"),
    a_control_character_in_the_path=get(path=b"/\x01"),
    DEL_in_a_value=get(b"a: \x7f"),
    a_length_and_chunks=get(b"Content-Length: 3", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    gzip_then_chunked=get(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
    identity=get(b"Transfer-Encoding: identity"),
    chunked_twice=get(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    a_scheme_that_is_not_HTTP=get(path=b"ftp://h/"),
    CONNECT_without_a_port=get(method=b"CONNECT", path=b"h"),
    a_host_with_a_space=b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    headers_of_61_KiB=get(b"a: " + b"x" * 62000),
    a_line_without_an_end_of_61_KiB=b"GET /" + b"x" * 62000,
    one_hundred_and_one_headers=get(*[b"a: b"] * 100),
    HTTP_1_0=b"GET / HTTP/1.0\r\nHost: h\r\n\r\n",
    HTTP_1_2=b"GET / HTTP/1.2\r\nHost: h\r\n\r\n",
    HTTP_2_0_by_name=b"GET / HTTP/2.0\r\nHost: h\r\n\r\n",
    no_version=b"GET /\r\n\r\n",
    no_host=b"GET / HTTP/1.1\r\n\r\n",
    OPTIONS_asterisk=get(method=b"OPTIONS", path=b"*"),
    a_NUL_escaped_in_the_path=get(path=b"/a%00b"),
    an_upgrade_nobody_enabled=get(b"Connection: Upgrade", b"Upgrade: x"),
    CONNECT_nobody_enabled=get(method=b"CONNECT", path=b"h:443"),
    a_chunk_size_of_letters=chunked(b"xyz\r\n"),
    a_chunk_longer_than_it_says=chunked(b"2\r\nxyz\r\n0\r\n\r\n"),
    a_chunk_size_past_64_bits=chunked(b"fffffffffffffffff\r\n"),
    a_second_request_that_is_none=get() + b"garbage here\r\n\r\n",
)

TAKEN = _requests(
    "taken",
    plain=get(),
    empty_lines_first=b"\r\n\r\n" + get(),
    bare_line_feeds=b"GET / HTTP/1.1\nHost: h\n\n",
    two_spaces_in_the_first_line=b"GET  /  HTTP/1.1\r\nHost: h\r\n\r\n",
    a_folded_value=get(b"a: 1", b"  bar"),
    a_lone_CR_in_a_value=get(b"a: 1\r2"),
    bytes_of_8_bits_in_a_value=get(b"a: \xe9"),
    an_empty_value=get(b"a:"),
    space_around_a_value=get(b"a: \t b \t "),
    an_empty_host=b"GET / HTTP/1.1\r\nHost:\r\n\r\n",
    two_hosts=b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    an_absolute_target=get(path=b"http://User:Pw@Other.Example:81/x?y"),
    an_absolute_target_without_a_path=get(path=b"http://other"),
    an_absolute_https_target=get(path=b"https://other/x"),
    a_fragment=get(path=b"/a#b"),
    a_path_to_normalise=get(path=b"/a/../b//c/%7e%2F?q=/../x"),
    TRACE=get(method=b"TRACE"),
    PROPFIND_without_a_body=get(method=b"PROPFIND"),
    DELETE_without_a_body=get(method=b"DELETE"),
    POST_without_a_body=get(method=b"POST"),
    PUT_without_a_body=get(method=b"PUT"),
    an_upgrade_to_h2c=get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: x"),
    hop_by_hop_headers=get(b"Connection: a, keep-alive", b"a: 1", b"Keep-Alive: x", b"Proxy-Connection: keep-alive", b"TE: gzip", b"b: 2"),
    te_trailers=get(b"TE: trailers"),
    proxy_authorization_and_via=get(b"Proxy-Authorization: x", b"Via: 1.1 y", b"Trailer: t"),
    mixed_case=get(b"X-MiXed: Value", b"COOKIE: a=1", b"Cookie: b=2"),
    envoys_own_headers=get(
        b"x-envoy-upstream-rq-timeout-ms: 5", b"x-envoy-max-retries: 3", b"x-envoy-original-path: /p", b"x-envoy-internal: 1"
    ),
    forwarded_headers=get(b"X-Forwarded-For: 1.2.3.4", b"X-Forwarded-Proto: https", b"X-Request-Id: 1", b"X-Forwarded-Client-Cert: By=x"),
    closing=get(b"Connection: close"),
    closing_by_proxy_connection=get(b"Proxy-Connection: close"),
    two_at_once=get(path=b"/1") + get(path=b"/2"),
    close_then_another=get(b"Connection: close") + get(path=b"/2"),
    an_expect_of_another_kind=get(b"Expect: something"),
    expect_without_a_body=get(b"Expect: 100-continue"),
)

BODIES = [
    Row("body: by length", (get(b"Content-Length: 3", method=b"POST", body=b"xyz"),), heard=b"xyz"),
    Row("body: of GET", (get(b"Content-Length: 3", body=b"xyz"),), heard=b"xyz"),
    Row("body: in chunks", (chunked(b"1\r\nx\r\n2\r\nyz\r\n0\r\n\r\n"),), heard=b"0\r\n\r\n"),
    Row(
        "body: chunk extensions and trailers",
        (chunked(b'3;a="b";c\r\nxyz\r\n0;x\r\nt: 1\r\n\r\n'),),
        heard=b"0\r\n\r\n",
    ),
    Row("body: chunked in capitals", (chunked(b"3\r\nxyz\r\n0\r\n\r\n").replace(b": chunked", b": CHUNKED"),), heard=b"0\r\n\r\n"),
    Row(
        "body: after a 100",
        (get(b"Content-Length: 3", b"Expect: 100-continue", method=b"PUT"), b"xyz"),
        heard=b"xyz",
    ),
    Row(
        "body: the host sends the 100",
        (get(b"Content-Length: 3", b"Expect: 100-continue", method=b"PUT"), b"xyz"),
        answers=(b"HTTP/1.1 100 Continue\r\n\r\n" + OK,),
        manager={"proxy_100_continue": True},
    ),
    Row("body: an early answer", (get(b"Content-Length: 9", method=b"POST", body=b"xyz"),)),
    Row("body: an early answer to chunks", (chunked(b"3\r\nxyz\r\n"),)),
    Row("body: then another request", (get(b"Content-Length: 3", method=b"POST", body=b"xyz") + get(path=b"/2"),), heard=b"xyz",
        answers=(OK,)),
]


def _answers(**rows: bytes | None) -> list[Row]:
    return [Row(f"answer: {name.replace('_', ' ')}", (get(),), (data,)) for name, data in rows.items()]


ANSWERS = [
    *_answers(
        unknown_status=b"HTTP/1.1 418 Tea\r\ncontent-length: 0\r\n\r\n",
        status_299=b"HTTP/1.1 299 X\r\ncontent-length: 0\r\n\r\n",
        of_204_with_a_length=b"HTTP/1.1 204 No\r\ncontent-length: 0\r\n\r\n",
        of_304_with_a_length=b"HTTP/1.1 304 No\r\ncontent-length: 7\r\n\r\n",
        a_100_first=b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
        a_103_first=b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + OK,
        a_101_nobody_asked_for=b"HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
        nothing=None,
        garbage=b"garbage\r\n\r\n",
        a_length_of_letters=b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        a_length_and_chunks=b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        one_hundred_and_one_headers=b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 101 + b"\r\n",
        hop_by_hop_headers=b"HTTP/1.1 200 OK\r\nConnection: x\r\nx: 1\r\nKeep-Alive: 5\r\nTrailer: t\r\nVia: v\r\n"
        b"content-length: 0\r\n\r\n",
        envoys_own_headers=b"HTTP/1.1 200 OK\r\nServer: me\r\nDate: now\r\nx-envoy-upstream-service-time: 9\r\nx-request-id: 7\r\n"
        b"content-length: 0\r\n\r\n",
        duplicates=b"HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nSet-Cookie: b\r\ncontent-length: 0\r\n\r\n",
        chunks_with_extensions_and_trailers=b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;x\r\nhi\r\n0\r\nt: 1\r\n\r\n",
        closing=b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nhi",
        bare_line_feeds=b"HTTP/1.1 200 OK\ncontent-length: 2\n\nhi",
        no_reason=b"HTTP/1.1 200\r\ncontent-length: 2\r\n\r\nhi",
    ),
    Row("answer: until the end", (get(),), (b"HTTP/1.1 200 OK\r\n\r\nend",), hangs_up=True),
    Row("answer: of HTTP/1.0", (get(),), (b"HTTP/1.0 200 OK\r\n\r\nend",), hangs_up=True),
    Row("answer: cut short of its length", (get(),), (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhi",), hangs_up=True),
    Row("answer: cut short in chunks", (get(),), (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nhi",), hangs_up=True),
    Row("answer: to HEAD with a length", (get(method=b"HEAD"),), (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n",)),
    Row("answer: to HEAD without a length", (get(method=b"HEAD"),), (b"HTTP/1.1 200 OK\r\n\r\n",)),
    Row("answer: unasked bytes after it", (get(), get(path=b"/2")), (OK + b"more",)),
]

WEBSOCKET = get(b"Connection: keep-alive, Upgrade", b"Upgrade: WebSocket", b"Sec-WebSocket-Key: k")
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: a\r\n\r\n"
_UPGRADES = {"upgrade_configs": [{"upgrade_type": "websocket"}]}
UPGRADES = [
    Row("upgrade: granted", (WEBSOCKET, b"ping"), (SWITCHING + b"hello",), manager=_UPGRADES),
    Row("upgrade: data at once", (WEBSOCKET + b"ping",), (SWITCHING,), manager=_UPGRADES),
    Row("upgrade: the host ends it", (WEBSOCKET,), (SWITCHING + b"bye",), hangs_up=True, manager=_UPGRADES),
    Row("upgrade: refused", (WEBSOCKET,), (b"HTTP/1.1 400 Bad\r\ncontent-length: 3\r\n\r\nbad",), manager=_UPGRADES),
    *(
        Row(f"upgrade: answered with {status}", (WEBSOCKET,), (b"HTTP/1.1 %d X\r\na: b\r\ncontent-length: 2\r\n\r\nno" % status,),
            manager=_UPGRADES)
        for status in (200, 302, 426, 503)
    ),
    Row("upgrade: with a length", (get(b"Connection: upgrade", b"Upgrade: websocket", b"Content-Length: 0"),), (SWITCHING,),
        manager=_UPGRADES),
    Row("upgrade: of another kind", (get(b"Connection: upgrade", b"Upgrade: other"),), manager=_UPGRADES),
]

AGAIN = b"HTTP/1.1 503 X\r\ncontent-length: 2\r\n\r\nno"
_RETRY = {"retry_policy": {"retry_on": "5xx,reset", "retry_back_off": {"base_interval": "0.001s"}}}
_TIMED = {**_RETRY, "timeout": "5s"}
RETRIES = [
    Row("retry: after a 503", (get(),), (AGAIN, OK), action=_RETRY),
    Row("retry: after a reset", (get(),), (None, OK), action=_RETRY),
    Row("retry: in vain", (get(),), (AGAIN,), action=_RETRY),
    Row("retry: resets in vain", (get(),), (None,), action=_RETRY),
    Row("retry: with a body", (get(b"Content-Length: 3", method=b"POST", body=b"xyz"),), (AGAIN, OK), heard=b"xyz", action=_RETRY),
    Row("retry: with chunks", (chunked(b"3\r\nxyz\r\n0\r\n\r\n"),), (AGAIN, OK),
        heard=b"0\r\n\r\n", action=_RETRY),
    Row("retry: none allowed", (get(),), (AGAIN,), action={"retry_policy": {"retry_on": "5xx", "num_retries": 0}}),
    Row("retry: the breaker is open", (get(),), (AGAIN, OK), action=_RETRY,
        cluster={"circuit_breakers": {"thresholds": [{"max_retries": 0}]}}),
    Row("retry: the breaker is open to resets", (get(),), (None, OK), action=_RETRY,
        cluster={"circuit_breakers": {"thresholds": [{"max_retries": 0}]}}),
    Row("retry: no budget", (get(),), (AGAIN, OK), action=_RETRY,
        cluster={"circuit_breakers": {"thresholds": [{"retry_budget": {"budget_percent": {"value": 0}, "min_retry_concurrency": 0}}]}}),
    Row("retry: a budget of one", (get(),), (AGAIN, OK), action=_RETRY,
        cluster={"circuit_breakers": {"thresholds": [{"max_retries": 0, "retry_budget": {"min_retry_concurrency": 1}}]}}),
    Row("retry: per-try timeouts", (get(),), (AGAIN, OK), action={"timeout": "5s", "retry_policy": {
        "retry_on": "5xx", "per_try_timeout": "3s", "retry_back_off": {"base_interval": "0.001s"}}}),
    Row("retry: the time that is left", (get(),), (AGAIN, OK), action=_TIMED),
]


def _common(**settings: Json) -> dict[str, Json]:
    return {"common_http_protocol_options": settings}


_TEN = {"http_protocol_options": {"accept_http_10": True}}
_BROKEN_UP = (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n",)
LIMITS = [
    Row("limit: silence", (b"",), manager=_common(idle_timeout="0.1s")),
    Row("limit: silence after a request", (get(),), quiet=1.0, manager={**_common(idle_timeout="0.1s"), "drain_timeout": "0.1s"}),
    Row("limit: a request while draining", (get(), b"", get(path=b"/2")), manager={**_common(idle_timeout="0.1s"), "drain_timeout": "10s"}),
    Row("limit: one request", (get(),), manager=_common(max_requests_per_connection=1)),
    Row("limit: two requests of three", (get() + get(path=b"/2") + get(path=b"/3"),), manager=_common(max_requests_per_connection=2)),
    Row("limit: duration of a silent connection", (b"",), manager=_common(max_connection_duration="0.1s")),
    Row("limit: duration, then a request", (get(), b"", get(path=b"/2")), manager=_common(max_connection_duration="0.1s")),
    Row("limit: duration and drain", (get(),), quiet=1.0, manager={**_common(max_connection_duration="0.1s"), "drain_timeout": "0.1s"}),
    Row("limit: time for headers", (b"GET / HTTP/1.1\r\nHo",), manager={"request_headers_timeout": "0.1s"}),
    Row("limit: time for headers, nothing sent", (b"",), manager={"request_headers_timeout": "0.1s"}),
    Row("limit: time for headers, a first letter", (b"G",), manager={"request_headers_timeout": "0.1s"}),
    Row("limit: time for a request", _BROKEN_UP, heard=b"xyz", manager={"request_timeout": "0.1s"}),
    Row("limit: time for a request, headers only begun", (b"GET / HTTP/1.1\r\nHo",), manager={"request_timeout": "0.1s"}),
    Row("limit: time for a request, answered early", (*_BROKEN_UP, b"xyz"), manager={"request_timeout": "0.1s"}),
    Row("limit: an idle stream", (get(),), heard=b"never", manager={"stream_idle_timeout": "0.1s"}),
    Row("limit: an idle request", _BROKEN_UP, heard=b"xyz", manager={"stream_idle_timeout": "0.1s"}),
    Row("limit: idle in the headers", (b"GET / HTTP/1.1\r\nHo",), manager={"stream_idle_timeout": "0.1s"}),
    Row("limit: an idle stream by its route", (get(),), heard=b"never", action={"idle_timeout": "0.1s"}),
    Row("limit: an idle stream its route forgives", (get(),), heard=b"never", quiet=0.6,
        action={"idle_timeout": "0s", "timeout": "0.3s"}, manager={"stream_idle_timeout": "0.1s"}),
    Row("limit: duration of a stream", (get(),), heard=b"never", manager=_common(max_stream_duration="0.1s")),
    Row("limit: duration of a stream by its route", (get(),), heard=b"never",
        action={"max_stream_duration": {"max_stream_duration": "0.1s"}}),
    Row("limit: time of the route", (get(),), heard=b"never", action={"timeout": "0.1s"}),
    Row("limit: headers of 1 KiB", (get(b"a: " + b"x" * 1024),), manager={"max_request_headers_kb": 1}),
    Row("limit: five headers", (get(*[b"a: b"] * 5),), manager=_common(max_headers_count=5)),
    Row("underscores: allowed", (get(b"a_b: 1"),)),
    Row("underscores: rejected", (get(b"a_b: 1"),), manager=_common(headers_with_underscores_action="REJECT_REQUEST")),
    Row("underscores: dropped", (get(b"a_b: 1", b"c: 2"),), manager=_common(headers_with_underscores_action="DROP_HEADER")),
    Row("1.0: plain", (b"GET / HTTP/1.0\r\nHost: h\r\n\r\n",), manager=_TEN),
    Row("1.0: kept alive", (b"GET / HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n", get()), manager=_TEN),
    Row("1.0: an answer in chunks", (b"GET / HTTP/1.0\r\nHost: h\r\n\r\n",),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",), manager=_TEN),
    Row("1.0: kept alive, an answer in chunks", (b"GET / HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n",),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",), manager=_TEN),
    Row("1.0: without a host", (b"GET / HTTP/1.0\r\n\r\n",), manager=_TEN),
    Row("1.0: a default host", (b"GET / HTTP/1.0\r\n\r\n",),
        manager={"http_protocol_options": {"accept_http_10": True, "default_host_for_http_10": "d"}}),
    Row("1.0: with a body", (b"POST / HTTP/1.0\r\nHost: h\r\nContent-Length: 3\r\n\r\nxyz",), heard=b"xyz", manager=_TEN),
    Row("1.0: 0.9", (b"GET /\r\n\r\n",), manager=_TEN),
    Row("1.0: a local reply", (b"GET / HTTP/1.0\r\nHost: h\r\n\r\n",), (None,), manager=_TEN),
    Row("1.0: 1.1 as ever", (get(),), manager=_TEN),
    Row("host: any port stripped", (b"GET / HTTP/1.1\r\nHost: h:81\r\n\r\n",), manager={"strip_any_host_port": True}),
    Row("host: another port kept", (b"GET / HTTP/1.1\r\nHost: h:81\r\n\r\n",), manager={"strip_matching_host_port": True}),
]

KNOWN = {
    "bad: a chunk longer than it says": "Envoy skips what is too much; h11 and llhttp refuse it",
}
"""Rows that are known to differ, and why."""

ROWS = [*BAD, *TAKEN, *BODIES, *ANSWERS, *UPGRADES, *RETRIES, *LIMITS]

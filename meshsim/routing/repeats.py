"""What a request says again: a client's next request is nearly always its last one with another id, and often another path.

How this works: an exchange that went the whole way without anything remarkable teaches what it came to. `Repeat.of` takes it apart: what
such a request looks like before and after, with a gap for the request's id, where it goes, what is logged of it. The same is learned of
a response's head (`Answer`). Nothing is decided here: every byte but the gaps is what `Exchange` made of the same bytes before, and what
`Exchange` decides by anything else than those bytes is never learned (`_steady`). A repeat that turns out to be none after all (another
status, a reset, a timeout) becomes an exchange again, in the state it would be in.
"""

from __future__ import annotations

import re
from copy import copy
from typing import NamedTuple

from meshsim.routing import headers, http1, paths
from meshsim.routing.clusters import DYNAMIC, Cluster, Host
from meshsim.routing.exchange import Exchange
from meshsim.routing.message import Headers, Request, Response
from meshsim.routing.routes import CompiledRoute
from meshsim.routing.steps import Attempt, Forward
from meshsim.routing.transport import transport

_LINE = re.compile(rb"GET (/[\x21-\x7e]*) HTTP/1\.1")
_ID = re.compile(rb"\r\nx-request-id: ([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?=\r\n)")
_EXPECTING = re.compile(rb"(?i)\r\nexpect[ \t]*:")
_LONGEST = 4096  # bytes of a head, and more is not remembered: a connection shall not keep much
_OWN_ID = b"\r\n" + headers.REQUEST_ID.encode() + b": "
_ID_SIZE = 36  # bytes of a UUID as text
_FIRST_LEARNED, _LAST_LEARNED = 200, 399  # statuses: a server's errors count for the outlier detection, a client's seldom repeat


class Said(NamedTuple):
    """The bytes of a request's head, taken apart. rest: all behind the first line, without the id. id: empty where there is none."""

    line: bytes
    rest: bytes
    id: bytes


def said(head: bytes) -> Said:
    """What the bytes of one whole head say."""
    end = head.find(b"\r\n")
    found = _ID.search(head, end)
    if found is None:
        return Said(head[:end], head[end:], b"")
    at = found.start(1)
    return Said(head[:end], head[end:at] + head[at + _ID_SIZE :], found[1])


class Answer(NamedTuple):
    """What a response's head becomes. length: of its body, in bytes. before, after: the head as it goes out, around the time it took.

    fields: the same as headers, that time left out, which belongs at position `place` (-1 where none is told). second: in which this is
    true, where the head says the time of day; else 0.
    """

    status: int
    length: int
    before: bytes
    after: bytes
    fields: Headers
    place: int
    second: int

    def headers(self, took: str) -> Headers:
        """All headers of the response, for logs."""
        if self.place < 0:
            return self.fields
        return [*self.fields[: self.place], (headers.SERVICE_TIME, took), *self.fields[self.place :]]


class Repeat:
    """Requests that differ in path and id alone, and get the same route.

    before, after: the head as it goes out behind its first line, around the id. own_id: whether the id is the proxy's to make.
    """

    def __init__(self, exchange: Exchange, attempt: Attempt, before: bytes, after: bytes, *, own_id: bool):
        assert exchange.cluster is not None and exchange.selected is not None
        self.route: CompiledRoute = exchange.selected
        self.cluster: Cluster = exchange.cluster
        self.hosts = exchange.cluster.hosts
        self.before, self.after, self.own_id = before, after, own_id
        self.timeout, self.idle = exchange.timeout, exchange.idle_timeout
        self.detects = exchange.cluster.config.outlier_detection is not None
        self.answers: dict[bytes, Answer] = {}
        self.entry = copy(exchange.entry)
        """What is logged, but for what `Entry` and `Answer` say is each request's own."""
        self._exchange, self._attempt = exchange, attempt
        request = exchange.request
        names = [name for name, _ in request.headers]
        at = names.index(headers.REQUEST_ID) if headers.REQUEST_ID in names else len(names)
        self._before, self._after = request.headers[:at], request.headers[at + 1 :]
        self._has_id = at < len(names)

    @classmethod
    def of(cls, exchange: Exchange, attempt: Attempt, before: Said) -> Repeat | None:
        """What an exchange that is over teaches, if anything; before: what its client said."""
        if len(before.rest) > _LONGEST or http1.head_end(before.rest) != len(before.rest) or _EXPECTING.search(before.rest):
            return None  # long, or two requests to a parser, or one whose client is told to go on
        if not _steady(exchange, attempt) or _LINE.fullmatch(before.line) is None:
            return None
        head, _ = http1.request_head(exchange.request)
        line = head[: head.index(b"\r\n")]
        if line != before.line:
            return None
        rest = head[len(line) :]
        own = exchange.request.first(headers.REQUEST_ID)
        at = rest.find(_OWN_ID)
        if own is None:
            return cls(exchange, attempt, rest, b"", own_id=False) if at < 0 and not before.id else None
        if at < 0 or rest.find(_OWN_ID, at + 1) >= 0 or len(own) != _ID_SIZE or own.encode("latin-1") in before.rest:
            return None
        at += len(_OWN_ID)
        own_id = own.encode("latin-1") != before.id
        return cls(exchange, attempt, rest[:at], rest[at + _ID_SIZE :], own_id=own_id)

    def fields(self, own: str) -> Headers:
        """The request's headers as they go out."""
        return [*self._before, (headers.REQUEST_ID, own), *self._after] if self._has_id else self._before

    def request(self, path: str, own: str) -> Request:
        """The request as it goes out."""
        like = self._exchange.request
        return Request(like.method, path, like.authority, like.scheme, self.fields(own), like.version)

    def fits(self, path: str) -> bool:
        """Whether a request with another path gets the same route, and no other change."""
        manager, like = self._exchange.manager, self._exchange.request
        table = manager.table()
        try:
            if table is None or manager.normalize(path) != path:
                return False
        except paths.RedirectTo:
            return False
        request = Request(like.method, path, like.authority, like.scheme, like.headers, like.version)
        return table.route(request, manager.runtime.rng) is self.route

    def exchange(self, path: str, own: str, host: Host, start: float) -> tuple[Exchange, Attempt]:
        """The exchange that such a request is, once it has been sent."""
        like = self._exchange
        request = self.request(path, own)
        exchange = Exchange(like.manager, like.downstream, request, start)
        exchange.repeats(like, host)
        return exchange, self.sent_to(host, request)

    def sent_to(self, host: Host, request: Request | None = None) -> Attempt:
        """A request on its way to a host; by itself the one that was learned from."""
        request = request or self._exchange.request
        return Attempt(self.cluster, host, request, False, transport(self.cluster, host, request.authority, False))

    def learn(self, head: bytes, response: Response, length: int) -> Answer | None:
        """What a response's head becomes here; None where it is not only the head that says so."""
        like = self._exchange
        if not _FIRST_LEARNED <= response.status <= _LAST_LEARNED or response.ends or len(head) > _LONGEST:
            return None
        exchange, _ = self.exchange(like.request.path, like.request.first(headers.REQUEST_ID) or "", self._attempt.host, 0.0)
        step = exchange.responded(response)
        if not isinstance(step, Forward):
            return None
        raw, chunked = http1.response_head(step.response, to_head=False, close=False)
        if chunked:
            return None
        names = [name for name, _ in step.response.headers]
        second = int(like.runtime.clock()) if "date" not in (name for name, _ in response.headers) else 0
        if headers.SERVICE_TIME not in names:
            return self._keep(head, Answer(response.status, length, raw, b"", step.response.headers, -1, second))
        place = names.index(headers.SERVICE_TIME)
        mark = b"\r\n" + headers.SERVICE_TIME.encode() + b": "
        at = raw.index(mark) + len(mark)
        fields = [pair for pair in step.response.headers if pair[0] != headers.SERVICE_TIME]
        return self._keep(head, Answer(response.status, length, raw[:at], raw[raw.index(b"\r", at) :], fields, place, second))

    def _keep(self, head: bytes, answer: Answer) -> Answer:
        if len(self.answers) >= _ANSWERS:
            self.answers.clear()
        self.answers[head] = answer
        return answer


_ANSWERS = 16  # heads of responses remembered for each repeat


def path_of(line: bytes) -> str | None:
    """The path that a first line asks for, if it is one that can repeat."""
    found = _LINE.fullmatch(line)
    return found[1].decode() if found else None


def _asks_for_id(route: CompiledRoute) -> bool:
    """Whether a route is chosen by the one header in which repeats differ."""
    return any(matcher.name.lower() == headers.REQUEST_ID for matcher in route.route.match.headers)


def _steady(exchange: Exchange, attempt: Attempt) -> bool:
    """Whether nothing but the bytes of its head, and its connection, decided what became of a request."""
    entry, selected, cluster, request, manager = exchange.entry, exchange.selected, exchange.cluster, exchange.request, exchange.manager
    if selected is None or cluster is None or selected.route.route is None:
        return False
    action = selected.route.route
    told = request.first(headers.EXPECTED_TIMEOUT)
    if told is not None and told != headers.milliseconds(exchange.timeout):
        return False  # some of it was over already when it was told
    levels = (selected.route, selected.host.config, selected.host.table.config)
    operations = [o.header.value for lv in levels for o in (*lv.request_headers_to_add, *lv.response_headers_to_add)]
    return (
        entry.details == "via_upstream" and not entry.flags and entry.attempts == 1 and entry.code <= _LAST_LEARNED
        and request.method == "GET" and request.version == "HTTP/1.1" and request.ends and not request.upgrade
        and not attempt.http2 and not attempt.per_try_timeout
        and exchange.repeatable and not manager.filters(selected) and not manager.limits.requests and not exchange.longest
        and not manager.config.always_set_request_id_in_response
        and cluster.type != DYNAMIC and not action.hash_policy and not action.request_mirror_policies
        and action.weighted_clusters is None and not action.cluster_header and not action.auto_host_rewrite
        and not action.prefix_rewrite and action.regex_rewrite is None
        and all(route.fraction is None and not _asks_for_id(route) for route in selected.host.routes)
        and not any("%" in value for value in operations)
    )  # fmt: skip

"""The part of CEL that access-log filters use: Envoy's attributes, comparisons, logic, membership, text functions.

How this works: an expression is parsed once by recursive descent into nested functions of an entry. As in CEL an attribute
that is not there is an error, an error makes `&&` and `||` look at their other side, and an expression that ends in an
error lets nothing through.

    response.code >= 400 || size(request.path) > 40     request.headers["x-team"].startsWith("a")
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any as Json

from meshsim.errors import NotSimulated
from meshsim.routing.entry import Entry

Term = Callable[[Entry], Json]

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+\.\d+|\d+u?)|(?P<text>\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*')|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<sign>&&|\|\||==|!=|<=|>=|[-+*/%!<>()\[\].,?:]))"
)


class Missing(Exception):
    """An attribute that is not there, or values that do not compare."""


def predicate(expression: str) -> Callable[[Entry], bool]:
    """Whether an entry passes. Raises NotSimulated for what this part of CEL does not know."""
    parser = _Parser(expression)
    term = parser.ternary()
    parser.end()

    def passes(entry: Entry) -> bool:
        try:
            return term(entry) is True
        except Missing:
            return False

    return passes


# --- attributes ---------------------------------------------------------------------------------------------------------


def _given(value: Json) -> Json:
    """A value, or Missing where the entry has none."""
    if value in (None, ""):
        raise Missing
    return value


def _first(values: tuple[str, ...]) -> Json:
    return _given(values[0] if values else None)


def _http(read: Callable[[Entry], Json]) -> Term:
    def term(entry: Entry) -> Json:
        if not entry.is_http:
            raise Missing
        return read(entry)

    return term


def _milliseconds(entry: Entry) -> Json:
    return int(((entry.end or entry.start) - entry.start) * 1000 + 1e-4)


# Every response flag, in the order of Envoy's bits, which is the order it prints them in.
FLAGS = (
    "LH", "UH", "UT", "LR", "UR", "UF", "UC", "UO", "NR", "DI", "FI", "RL", "UAEX", "RLSE", "DC", "URX", "SI", "IH", "DPE", "UMSDR", "RFCF",
    "NFCF", "DT", "UPE", "NC", "OM", "DF", "DO", "DR", "UDO",
)  # fmt: skip

ATTRIBUTES: dict[str, Term] = {
    "request.path": _http(lambda e: _given(e.path)),
    "request.url_path": _http(lambda e: _given(e.path.partition("?")[0])),
    "request.query": _http(lambda e: e.path.partition("?")[2]),
    "request.host": _http(lambda e: _given(e.authority)),
    "request.scheme": _http(lambda e: _given(e.scheme)),
    "request.method": _http(lambda e: _given(e.method)),
    "request.protocol": _http(lambda e: _given(e.protocol)),
    "request.headers": _http(lambda e: {**dict(e.request_headers), ":method": e.method, ":path": e.path, ":authority": e.authority}),
    "request.referer": _http(lambda e: _given(dict(e.request_headers).get("referer"))),
    "request.useragent": _http(lambda e: _given(dict(e.request_headers).get("user-agent"))),
    "request.id": _http(lambda e: _given(dict(e.request_headers).get("x-request-id"))),
    "request.size": lambda e: e.received,
    "request.duration": _milliseconds,
    "response.code": _http(lambda e: _given(e.code or None)),
    "response.code_details": lambda e: _given(e.details),
    "response.flags": lambda e: sum(1 << i for i, flag in enumerate(FLAGS) if flag in e.flags),
    "response.headers": _http(lambda e: dict(e.response_headers)),
    "response.trailers": _http(lambda e: dict(e.response_trailers)),
    "response.size": lambda e: e.sent,
    "source.address": lambda e: str(e.remote or e.downstream.source),
    "source.port": lambda e: (e.remote or e.downstream.source).port,
    "destination.address": lambda e: str(e.downstream.destination),
    "destination.port": lambda e: e.downstream.destination.port,
    "connection.id": lambda e: e.connection_id,
    "connection.mtls": lambda e: e.downstream.secure and e.downstream.peer is not None,
    "connection.requested_server_name": lambda e: _given(e.downstream.sni),
    "connection.subject_peer_certificate": lambda e: _given(e.downstream.peer.subject if e.downstream.peer else None),
    "connection.uri_san_peer_certificate": lambda e: _first(e.downstream.peer.uris if e.downstream.peer else ()),
    "connection.uri_san_local_certificate": lambda e: _first(e.downstream.local_uris),
    "connection.termination_details": lambda e: _given(e.connection_details),
    "upstream.address": lambda e: _given(e.upstream),
    "upstream.transport_failure_reason": lambda e: _given(e.upstream_failure),
    "upstream.request_attempt_count": lambda e: e.attempts,
    "xds.cluster_name": lambda e: _given(e.cluster),
    "xds.route_name": lambda e: _given(e.route),
    "xds.filter_chain_name": lambda e: _given(e.downstream.chain),
}
_FAMILIES = frozenset(name.partition(".")[0] for name in ATTRIBUTES)

_COMPARE: dict[str, Callable[[Json, Json], bool]] = {
    "==": lambda a, b: bool(a == b),
    "!=": lambda a, b: bool(a != b),
    "<": lambda a, b: bool(a < b),
    "<=": lambda a, b: bool(a <= b),
    ">": lambda a, b: bool(a > b),
    ">=": lambda a, b: bool(a >= b),
    "in": lambda a, b: a in b,
}
_ARITHMETIC: dict[str, Callable[[Json, Json], Json]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a // b if isinstance(a, int) else a / b,
    "%": lambda a, b: a % b,
}
_METHODS: dict[str, Callable[[Json, Json], bool]] = {
    "contains": lambda text, part: part in text,
    "startsWith": lambda text, part: bool(text.startswith(part)),
    "endsWith": lambda text, part: bool(text.endswith(part)),
    "matches": lambda text, pattern: re.search(pattern, text) is not None,
}
_FUNCTIONS: dict[str, Callable[[Json], Json]] = {"size": len, "int": int, "string": str}


class _Parser:
    """Recursive descent over the tokens; each method returns the function of what it read."""

    def __init__(self, text: str):
        self.text = text
        self.tokens: list[tuple[str, str]] = []
        at = 0
        while text[at:].strip():
            found = _TOKEN.match(text, at)
            if found is None:
                raise self.unknown()
            self.tokens.append((found.lastgroup or "", found[found.lastgroup or 0]))
            at = found.end()
        self.at = 0

    def unknown(self) -> NotSimulated:
        return NotSimulated(f"CEL expression {self.text!r}")

    def end(self) -> None:
        if self.at != len(self.tokens):
            raise self.unknown()

    def accept(self, *signs: str) -> str:
        """The next token if it is one of these signs (or the word `in`), else an empty text."""
        if self.at < len(self.tokens) and self.tokens[self.at][0] != "text" and self.tokens[self.at][1] in signs:
            self.at += 1
            return self.tokens[self.at - 1][1]
        return ""

    def expect(self, sign: str) -> None:
        if not self.accept(sign):
            raise self.unknown()

    def ternary(self) -> Term:
        condition = self.logic("||", lambda: self.logic("&&", self.comparison))
        if not self.accept("?"):
            return condition
        yes = self.ternary()
        self.expect(":")
        no = self.ternary()
        return lambda entry: yes(entry) if condition(entry) is True else no(entry)

    def logic(self, sign: str, operand: Callable[[], Term]) -> Term:
        """A decided side decides even if the other one is an error."""
        left = operand()
        while self.accept(sign):
            left = _either(left, operand(), sign == "||")
        return left

    def comparison(self) -> Term:
        left = self.sum()
        while sign := self.accept("==", "!=", "<=", ">=", "<", ">", "in"):
            left = _binary(_COMPARE[sign], left, self.sum())
        return left

    def sum(self) -> Term:
        left = self.product()
        while sign := self.accept("+", "-"):
            left = _binary(_ARITHMETIC[sign], left, self.product())
        return left

    def product(self) -> Term:
        left = self.unary()
        while sign := self.accept("*", "/", "%"):
            left = _binary(_ARITHMETIC[sign], left, self.unary())
        return left

    def unary(self) -> Term:
        if self.accept("!"):
            inner = self.unary()
            return lambda entry: not inner(entry)
        if self.accept("-"):
            inner = self.unary()
            return lambda entry: -inner(entry)
        return self.postfix(self.primary())

    def primary(self) -> Term:
        if self.accept("("):
            inner = self.ternary()
            self.expect(")")
            return inner
        if self.accept("["):
            items = self.arguments("]")
            return lambda entry: [item(entry) for item in items]
        if self.at >= len(self.tokens):
            raise self.unknown()
        kind, text = self.tokens[self.at]
        self.at += 1
        if kind == "number":
            number = float(text) if "." in text else int(text.rstrip("u"))
            return lambda entry: number
        if kind == "text":
            value = re.sub(r"\\(.)", r"\1", text[1:-1])
            return lambda entry: value
        if text in ("true", "false", "null"):
            constant = {"true": True, "false": False, "null": None}[text]
            return lambda entry: constant
        if kind != "name":
            raise self.unknown()
        return self.named(text)

    def named(self, text: str) -> Term:
        if self.accept("("):
            if text == "has":
                inner = self.arguments(")")[0]
                return lambda entry: _has(inner, entry)
            arguments = self.arguments(")")
            if text not in _FUNCTIONS or len(arguments) != 1:
                raise self.unknown()
            return _unary(_FUNCTIONS[text], arguments[0])
        if text not in _FAMILIES or not self.accept(".") or self.at >= len(self.tokens):
            raise self.unknown()
        name = f"{text}.{self.tokens[self.at][1]}"
        self.at += 1
        if name not in ATTRIBUTES:
            raise self.unknown()
        return ATTRIBUTES[name]

    def postfix(self, term: Term) -> Term:
        while True:
            if self.accept("["):
                index = self.ternary()
                self.expect("]")
                term = _binary(_index, term, index)
            elif self.accept("."):
                name = self.tokens[self.at][1] if self.at < len(self.tokens) else ""
                self.at += 1
                if self.accept("("):
                    arguments = self.arguments(")")
                    if name not in _METHODS or len(arguments) != 1:
                        raise self.unknown()
                    term = _binary(_METHODS[name], term, arguments[0])
                else:
                    term = _binary(_index, term, _constant(name))
            else:
                return term

    def arguments(self, end: str) -> list[Term]:
        out: list[Term] = []
        while not self.accept(end):
            out.append(self.ternary())
            if not self.accept(","):
                self.expect(end)
                break
        return out


def _binary(function: Callable[[Json, Json], Json], left: Term, right: Term) -> Term:
    def term(entry: Entry) -> Json:
        try:
            return function(left(entry), right(entry))
        except (TypeError, AttributeError, KeyError, IndexError, ZeroDivisionError, re.error) as error:
            raise Missing from error

    return term


def _unary(function: Callable[[Json], Json], inner: Term) -> Term:
    def term(entry: Entry) -> Json:
        try:
            return function(inner(entry))
        except (TypeError, ValueError) as error:
            raise Missing from error

    return term


def _either(left: Term, right: Term, decisive: bool) -> Term:
    def term(entry: Entry) -> Json:
        errors = 0
        for side in (left, right):
            try:
                if side(entry) is decisive:
                    return decisive
            except Missing:
                errors += 1
        if errors:
            raise Missing
        return not decisive

    return term


def _has(inner: Term, entry: Entry) -> bool:
    try:
        inner(entry)
    except Missing:
        return False
    return True


def _index(value: Json, key: Json) -> Json:
    return value[key]


def _constant(value: Json) -> Term:
    return lambda entry: value

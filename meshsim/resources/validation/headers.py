"""Header names and values as a VirtualService may use them (Istio: ValidateHTTPHeaderName..., validateHeaderValue)."""

from __future__ import annotations

import re

from meshsim.resources.validation.golang import quote
from meshsim.resources.virtual_service import Headers

_NAME = re.compile(r"[!#$%&'*+,\-.^_`|~A-Za-z0-9]+")
"""RFC 9110 token, and the comma, which Istio's pattern lets in between `+` and `.`."""
_PSEUDO = (":method", ":scheme", ":authority", ":path", ":status")
_CLAIM = "@request.auth.claims"
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def is_claim(name: str) -> bool:
    """Whether a header match looks at a claim of a token: `@request.auth.claims.x` or `@request.auth.claims[x]`."""
    rest = name[len(_CLAIM) :]
    if not name.lower().startswith(_CLAIM):
        return False
    return (rest.startswith(".") and len(rest) > 1) or (rest.startswith("[") and rest.endswith("]") and len(rest) > 2)


def match_name(name: str) -> str | None:
    if not name:
        return "header name cannot be empty"
    if is_claim(name) or name in _PSEUDO or _NAME.fullmatch(name):
        return None
    return f"header name {name} is not a valid header name"


def cors_name(name: str) -> str | None:
    if not name:
        return "header name cannot be empty"
    return None if _NAME.fullmatch(name) else f"header name {name} is not a valid header name"


def is_authority(name: str) -> bool:
    return name.lower() in (":authority", "host")


def _request_name(name: str) -> str | None:
    """A header that is set on or added to a request; the authority is allowed."""
    if not name:
        return "header name cannot be empty"
    if name.startswith(":") and not is_authority(name):
        return f'invalid header {quote(name)}: header cannot have ":" prefix'
    return None


def _other_name(name: str) -> str | None:
    """A header that is removed, or changed on a response."""
    if not name:
        return "header name cannot be empty"
    if name.lower() == "host":
        return f"invalid header {quote(name)}: cannot set Host header"
    return f'invalid header {quote(name)}: header cannot have ":" prefix' if name.startswith(":") else None


def operations(headers: Headers | None) -> list[tuple[str, tuple[str | int, ...]]]:
    """What is wrong with `headers`, each with its path."""
    if headers is None:
        return []
    found: list[tuple[str | None, tuple[str | int, ...]]] = []
    for side, part in (("request", headers.request), ("response", headers.response)):
        if part is None:
            continue
        check = _request_name if side == "request" else _other_name
        for action, values in (("add", part.add), ("set", part.set)):
            for name, text in values.items():
                found += [(check(name), (side, action, name)), (value(text), (side, action, name))]
        found += [(_other_name(name), (side, "remove", i)) for i, name in enumerate(part.remove)]
    return [(said, path) for said, path in found if said is not None]


def value(text: str) -> str | None:
    """Whether Envoy would take a header value: its `%VARIABLE(...)%` parts must be whole."""
    if _CONTROL.search(text):
        return f"header value configuration {text} is invalid"
    said = _variables(text)
    return f"header value configuration: invalid header configuration. {said}" if said else None


def _variables(text: str) -> str | None:
    """Envoy's header parser as a machine of states, over bytes."""
    state, at = "literal", 0
    while at < len(text):
        char, last = text[at], at + 1 >= len(text)
        if state == "literal":
            if char == "%":
                if last:
                    return "Un-escaped %"
                if text[at + 1] == "%":
                    at += 1
                else:
                    state = "name"
        elif state == "name":
            state = "literal" if char == "%" else "array" if char == "(" else state
        elif state == "array":
            state = "string start" if char == "[" else state if char == " " else "string"
        elif state == "delimiter":
            if char not in ",] ":
                return "Expecting ',', ']', or whitespace"
            state = {",": "string start", "]": "args end", " ": state}[char]
        elif state == "string start":
            if char not in '" ':
                return "Expecting '\"'"
            state = "string" if char == '"' else state
        elif state == "string":
            if char == "\\":
                if last:
                    return "Un-terminated backslash in JSON string"
                at += 1
            state = {")": "variable end", '"': "delimiter"}.get(char, state)
        elif state == "args end":
            if char not in ") ":
                return "Expecting ')' or whitespace after '{}', but found '{}'"
            state = "variable end" if char == ")" else state
        else:
            if char not in "% ":
                return "Expecting '%' or whitespace after"
            state = "literal" if char == "%" else state
        at += 1
    return None if state == "literal" else f"Un-terminated variable expression '{text}'"

"""How Go prints and reads things, as far as Istio's messages depend on it."""

from __future__ import annotations

import re
from decimal import Decimal

_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\a": "\\a", "\b": "\\b", "\f": "\\f", "\v": "\\v"}


def quote(text: str) -> str:
    """`%q`: the text in double quotes, with Go's escapes."""
    return '"' + "".join(_ESCAPES.get(c) or (c if c.isprintable() else _escape(c)) for c in text) + '"'


def _escape(char: str) -> str:
    code = ord(char)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def number(value: float) -> str:
    """`%v` of an int64 or a float64: the shortest text, with an exponent below 1e-4 and from 1e6 on."""
    if isinstance(value, int):
        return str(value)
    shortest = next(text for places in range(18) if float(text := f"{value:.{places}e}") == value)
    return repr(value).removesuffix(".0") if -4 <= int(shortest.partition("e")[2]) < 6 else shortest


def json_number(value: float) -> str:
    """A number as `encoding/json` writes it, which keeps in a float64 what is too large for an int64."""
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return str(value)
    text = repr(float(value))
    return format(Decimal(text), "f").removesuffix(".0") if 1e-6 <= abs(value) < 1e21 else text


def listing(values: list[str]) -> str:
    """`%v` of a list of strings: `[a b]`."""
    return "[" + " ".join(values) + "]"


def several(found: list[str]) -> str | None:
    """Go's multierror, printed inside another message."""
    if not found:
        return None
    title = "1 error occurred:" if len(found) == 1 else f"{len(found)} errors occurred:"
    return title + "\n" + "".join(f"\t* {said}\n" for said in found) + "\n"


def base64_error(text: str) -> int | None:
    """Where `base64.StdEncoding` stops reading; None when it reads to the end. Line ends do not count."""
    places = [i for i, char in enumerate(text) if char not in "\r\n"]
    for at in range(0, len(places), 4):
        group = places[at : at + 4]
        bad = next((i for i in group if not _BASE64.match(text[i])), None)
        if bad is None and len(group) == 4:
            continue
        if bad is None:
            return len(text) - len(group)
        given = group.index(bad)
        if text[bad] != "=" or given < 2:
            return bad
        if given == 2 and len(group) < 4:
            return len(text)
        if given == 2 and text[group[3]] != "=":
            return group[3] - 1
        return places[at + 4] if len(places) > at + 4 else None
    return None


_BASE64 = re.compile(r"[A-Za-z0-9+/]")


def unsigned_error(text: str) -> str | None:
    """What `strconv.ParseUint(text, 10, 32)` says; None when it takes it."""
    said = f"strconv.ParseUint: parsing {quote(text)}: "
    if not re.fullmatch(r"[0-9]+", text):
        return said + "invalid syntax"
    return said + "value out of range" if len(text) > 20 or int(text) > 0xFFFFFFFF else None


def integer(text: str) -> int | None:
    """`strconv.Atoi`."""
    return int(text) if re.fullmatch(r"[-+]?[0-9]{1,18}", text) else None


def split_host_port(text: str) -> tuple[str, str, str | None]:
    """`net.SplitHostPort`: host, port, and its error."""

    def wrong(why: str) -> tuple[str, str, str]:
        return "", "", f"address {text}: {why}"

    last = text.rfind(":")
    if last < 0:
        return wrong("missing port in address")
    if text.startswith("["):
        end = text.find("]")
        if end < 0:
            return wrong("missing ']' in address")
        if end + 1 == len(text):
            return wrong("missing port in address")
        if end + 1 != last:
            return wrong("too many colons in address" if text[end + 1] == ":" else "missing port in address")
        return text[1:end], text[last + 1 :], None
    if ":" in text[:last]:
        return wrong("too many colons in address")
    if "[" in text:
        return wrong("unexpected '[' in address")
    return (text[:last], text[last + 1 :], None) if "]" not in text else wrong("unexpected ']' in address")

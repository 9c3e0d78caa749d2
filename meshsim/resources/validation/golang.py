"""How Go prints and reads things, as far as Istio's messages depend on it."""

from __future__ import annotations

import ipaddress
import re

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
    """`%v` of a float64: no fraction where there is none."""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e21 else repr(float(value))


def listing(values: list[str]) -> str:
    """`%v` of a list of strings: `[a b]`."""
    return "[" + " ".join(values) + "]"


def several(found: list[str]) -> str | None:
    """Go's multierror, printed inside another message."""
    if not found:
        return None
    title = "1 error occurred:" if len(found) == 1 else f"{len(found)} errors occurred:"
    return title + "\n" + "".join(f"\t* {said}\n" for said in found) + "\n"


def is_ip(text: str) -> bool:
    """Whether `netip.ParseAddr` takes it: IPv4 without leading zeros, or IPv6 with an optional zone."""
    address, percent, zone = text.partition("%")
    try:
        version = ipaddress.ip_address(address).version
    except ValueError:
        return False
    return not percent or (version == 6 and bool(zone))


def prefix_error(text: str) -> str | None:
    """What `netip.ParsePrefix` says against a CIDR block; None when it takes it."""
    address, slash, bits = text.rpartition("/")
    said = f"netip.ParsePrefix({quote(text)}): "
    if not slash:
        return said + "no '/'"
    if not is_ip(address):
        return said + _address_error(address)
    if "%" in address:
        return said + "IPv6 zones cannot be present in a prefix"
    if len(bits) > 1 and not "1" <= bits[0] <= "9":
        return f"{said}bad bits after slash: {quote(bits)}"
    if not re.fullmatch(r"[0-9]{1,9}", bits):
        return f"{said}bad bits after slash: {quote(bits)}"
    return f"{said}prefix length out of range" if int(bits) > (32 if "." in address and ":" not in address else 128) else None


def _address_error(text: str) -> str:
    """What `netip.ParseAddr` says against an address that it does not take."""
    said = f"ParseAddr({quote(text)}): "
    if ":" in text:
        return said + ("unexpected character" if re.search(r"[^0-9a-fA-F:.%]", text) else "address string too short")
    if "." not in text:
        return said + "unable to parse IP"
    strange = re.search(r"[^0-9.]", text)
    if strange is not None:
        return f"{said}unexpected character (at {quote(text[strange.start() :])})"
    fields = text.split(".")
    if "" in fields:
        gap = text.find("..") + 1 if ".." in text else 0
        return f"{said}IPv4 field must have at least one digit (at {quote(text[gap:])})"
    if any(len(field) > 1 and field[0] == "0" for field in fields):
        return said + "IPv4 field has octet with leading zero"
    if any(int(field) > 255 for field in fields):
        return said + "IPv4 field has value >255"
    return said + ("IPv4 address too short" if len(fields) < 4 else "IPv4 address too long")


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

"""IP addresses and CIDR blocks as Go's `net/netip` reads them, and what it says of those it does not take."""

from __future__ import annotations

import re

from meshsim.resources.validation.golang import quote

_HEX = re.compile(r"[0-9a-fA-F]*")
_GROUPS = 8  # of 16 bits, in an IPv6 address


def is_ip(text: str) -> bool:
    """Whether `netip.ParseAddr` takes it: IPv4 without leading zeros, or IPv6 with an optional zone."""
    return _mistake(text) is None


def prefix_error(text: str) -> str | None:
    """What `netip.ParsePrefix` says against a CIDR block; None when it takes it."""
    address, slash, bits = text.rpartition("/")
    said = f"netip.ParsePrefix({quote(text)}): "
    if not slash:
        return said + "no '/'"
    mistake = _mistake(address)
    if mistake is not None:
        why, rest = mistake
        return f"{said}ParseAddr({quote(address)}): {why}" + (f" (at {quote(rest)})" if rest else "")
    if "%" in address:
        return said + "IPv6 zones cannot be present in a prefix"
    if not re.fullmatch(r"0|[1-9][0-9]{0,18}", bits, re.ASCII):
        return f"{said}bad bits after slash: {quote(bits)}"
    return f"{said}prefix length out of range" if int(bits) > (128 if ":" in address else 32) else None


_Mistake = tuple[str, str]
"""What is wrong with an address, and the part of it from which on it is, where that is said."""


def _mistake(text: str) -> _Mistake | None:
    telling = re.search(r"[.:%]", text)
    if telling is None:
        return "unable to parse IP", ""
    if telling[0] == "%":
        return "missing IPv6 address", ""
    if telling[0] == ".":
        return _dotted(text)
    address, percent, zone = text.partition("%")
    return ("zone must be a non-empty string", "") if percent and not zone else _colons(address)


def _dotted(text: str) -> _Mistake | None:
    """IPv4, from the left: the first mistake counts."""
    octet, octets = "", 1
    for i, char in enumerate(text):
        if char == ".":
            if not octet or i == len(text) - 1:
                return "IPv4 field must have at least one digit", text[i:]
            if octets == 4:
                return "IPv4 address too long", ""
            octet, octets = "", octets + 1
        elif char not in "0123456789":
            return "unexpected character", text[i:]
        elif octet == "0":
            return "IPv4 field has octet with leading zero", ""
        else:
            octet += char
            if int(octet) > 255:
                return "IPv4 field has value >255", ""
    return ("IPv4 address too short", "") if octets < 4 else None


def _colons(address: str) -> _Mistake | None:
    """IPv6, from the left; `::` stands for at least one group of zeros."""
    shortened = address.startswith("::")
    rest = address[2:] if shortened else address
    groups = 0
    while groups < _GROUPS and (rest or not shortened):
        digits = _HEX.match(rest)[0]  # type: ignore[index]  # matches the empty text too
        if not digits:
            return "each colon-separated field must have at least one digit", rest
        if len(digits) > 4:
            return "each group must have 4 or less digits", rest
        after = rest[len(digits) :]
        if after.startswith("."):
            mistake = _embedded(rest, groups, shortened)
            if mistake is not None:
                return mistake
            groups, rest = groups + 2, ""
            break
        groups, rest = groups + 1, after
        if not rest:
            break
        if rest[0] != ":":
            return "unexpected character, want colon", rest
        if rest == ":":
            return "colon must be followed by more characters", rest
        rest = rest[1:]
        if rest[0] == ":":
            if shortened:
                return "multiple :: in address", rest
            shortened, rest = True, rest[1:]
    if rest:
        return "trailing garbage after address", rest
    if groups < _GROUPS:
        return None if shortened else ("address string too short", "")
    return ("the :: must expand to at least one field of zeros", "") if shortened else None


def _embedded(rest: str, groups: int, shortened: bool) -> _Mistake | None:
    """IPv4 at the end of IPv6."""
    if not shortened and groups != _GROUPS - 2:
        return "embedded IPv4 address must replace the final 2 fields of the address", rest
    if groups + 2 > _GROUPS:
        return "too many hex fields to fit an embedded IPv4 at the end of the address", rest
    return _dotted(rest)

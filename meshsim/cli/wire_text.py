"""The wire view: every leg of a call, and what whoever sits between could read."""

from __future__ import annotations

import re

from meshsim.cli import columns
from meshsim.simulate import Leg, Trace
from meshsim.words import ENGLISH, Words

_TRUST_DOMAIN = re.compile("^spiffe://[^/]+/")


def screen(trace: Trace) -> str:
    """A picture of the legs, then each leg's facts."""
    names, legs = _ends(trace, ENGLISH)
    lines = [picture(trace), ""]
    for number, leg in enumerate(legs):
        lines.append(f" {number + 1}  {names[number]} -> {names[number + 1]}: {_said(leg, ENGLISH)}")
        for label, value in (("SNI", leg.sni), ("ALPN", leg.alpn), ("server", ", ".join(leg.server)), ("client", ", ".join(leg.client))):
            if value:
                lines.append(f"      {label:8}{value}")
        if leg.inner is not None and leg.tls:
            lines.append(f"      inside  the client's own TLS, SNI {leg.inner or '(none)'}")
        readable = ", ".join(leg.readable) or "nothing but lengths and times"
        reader = "inside the pod; its sidecar" if number == 0 else "the network"
        lines.append(f"      {reader} reads: {readable}")
    return "\n".join(lines)


def short(trace: Trace, words: Words, margin: str = "") -> list[str]:
    """The picture, and a line for each leg."""
    names, legs = _ends(trace, words)
    lines = [picture(trace, words, margin)]
    for number, leg in enumerate(legs):
        key = "leg with SNI" if leg.sni else "leg"
        said = words("lost") if _is_lost(trace, number) else _said(leg, words)
        said = words(key, start=names[number], end=names[number + 1], said=said, sni=leg.sni)
        lines.append(columns.fill(said, f"{margin} ", f"{margin}    "))
        for end, certified in (("server", leg.server), ("client", leg.client)):
            lines += [columns.fill(words(end, name=_TRUST_DOMAIN.sub("spiffe://.../", name)), f"{margin}   ") for name in certified]
    return lines


def picture(trace: Trace, words: Words = ENGLISH, margin: str = "") -> str:
    """`app ---> sidecar ===> gateway`: plain legs thin, encrypted ones double; `---x` where nobody was reached."""
    names, legs = _ends(trace, words)
    parts = [names[0]]
    for number, (leg, name) in enumerate(zip(legs, names[1:], strict=True)):
        line = "===" if leg.tls or leg.inner is not None else "---"
        parts.append(f"{line}{'x' if _is_lost(trace, number) else '>'} {name}")
    return columns.fill(" ".join(parts), margin, f"{margin}    ")


def _is_lost(trace: Trace, number: int) -> bool:
    """Whether a leg, counted from the application's own, led beyond the last proxy and reached nobody."""
    return number >= len(trace.hops) and not trace.arrivals


def _ends(trace: Trace, words: Words) -> tuple[list[str], list[Leg]]:
    """Every place on the way, and the legs between them."""
    legs = [leg for leg in (trace.first, *(hop.leg for hop in trace.hops)) if leg is not None]
    names = [trace.call.source.partition(".")[0], *(_short(hop.proxy, hop.kind, words) for hop in trace.hops)]
    if trace.arrivals:
        names.append(str(trace.arrivals[-1]["server"]))
    names += [leg.destination for leg in legs[len(names) - 1 :]]
    return names[: len(legs) + 1], legs


def _short(proxy: str, kind: str, words: Words) -> str:
    return words("gateway") if kind == "router" else words("sidecar", pod=proxy.partition(".")[0])


def _said(leg: Leg, words: Words) -> str:
    if leg.tls:
        return words("encrypted" if leg.inner is None else "encrypted twice", tls=leg.tls, protocol=leg.protocol)
    if leg.inner is not None:
        return words("own TLS", sni=leg.inner or words("no SNI"))
    return words("plaintext", protocol=leg.protocol)

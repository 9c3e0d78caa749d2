"""The wire view: every leg of a call, and what whoever sits between could read."""

from __future__ import annotations

import re
import textwrap

from meshsim.simulate import Leg, Trace

WIDTH = 80
_TRUST_DOMAIN = re.compile("^spiffe://[^/]+/")


def screen(trace: Trace) -> str:
    """A picture of the legs, then each leg's facts."""
    names, legs = _ends(trace)
    lines = [picture(trace), ""]
    for number, leg in enumerate(legs):
        lines.append(f" {number + 1}  {names[number]} -> {names[number + 1]}: {_said(leg)}")
        for label, value in (("SNI", leg.sni), ("ALPN", leg.alpn), ("server", ", ".join(leg.server)), ("client", ", ".join(leg.client))):
            if value:
                lines.append(f"      {label:8}{value}")
        if leg.inner is not None and leg.tls:
            lines.append(f"      inside  the client's own TLS, SNI {leg.inner or '(none)'}")
        readable = ", ".join(leg.readable) or "nothing but lengths and times"
        reader = "inside the pod; its sidecar" if number == 0 else "the network"
        lines.append(f"      {reader} reads: {readable}")
    return "\n".join(lines)


def short(trace: Trace) -> list[str]:
    """The picture, and a line for each leg."""
    names, legs = _ends(trace)
    lines = [picture(trace)]
    for number, leg in enumerate(legs):
        sni = f", SNI {leg.sni}" if leg.sni else ""
        lines.append(f" {names[number]} -> {names[number + 1]}: {_said(leg)}{sni}")
        for end, certified in (("server", leg.server), ("client", leg.client)):
            lines += [f"   {end} {_TRUST_DOMAIN.sub('spiffe://.../', name)}" for name in certified]
    return lines


def picture(trace: Trace) -> str:
    """`app ---> sidecar ===> gateway`: plain legs thin, encrypted ones double."""
    names, legs = _ends(trace)
    parts = [names[0]]
    for leg, name in zip(legs, names[1:], strict=True):
        parts.append(f"{'===>' if leg.tls or leg.inner is not None else '--->'} {name}")
    return textwrap.fill(" ".join(parts), WIDTH, subsequent_indent="    ", break_on_hyphens=False)


def _ends(trace: Trace) -> tuple[list[str], list[Leg]]:
    """Every place on the way, and the legs between them."""
    legs = [leg for leg in (trace.first, *(hop.leg for hop in trace.hops)) if leg is not None]
    names = [trace.call.source.partition(".")[0], *(_short(hop.proxy, hop.kind) for hop in trace.hops)]
    if trace.arrivals:
        names.append(str(trace.arrivals[-1]["server"]))
    names += [leg.destination for leg in legs[len(names) - 1 :]]
    return names[: len(legs) + 1], legs


def _short(proxy: str, kind: str) -> str:
    return "gateway" if kind == "router" else f"sidecar of {proxy.partition('.')[0]}"


def _said(leg: Leg) -> str:
    if leg.tls:
        return f"{'TLS in ' if leg.inner is not None else ''}{leg.tls}, {leg.protocol} inside"
    return f"the client's own TLS, SNI {leg.inner or '(none)'}" if leg.inner is not None else f"{leg.protocol} in plaintext"

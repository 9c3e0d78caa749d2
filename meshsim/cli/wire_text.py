"""The wire view: every leg of a call, and what whoever sits between could read."""

from __future__ import annotations

import textwrap

from meshsim.simulate import Leg, Trace

WIDTH = 80


def screen(trace: Trace) -> str:
    """A picture of the legs, then each leg's facts."""
    names = [trace.call.source.partition(".")[0], *(_short(hop.proxy, hop.kind) for hop in trace.hops)]
    legs = [leg for leg in (trace.first, *(hop.leg for hop in trace.hops)) if leg is not None]
    if trace.arrivals:
        names.append(str(trace.arrivals[-1]["server"]))
    lines = [_picture(names, legs), ""]
    for number, leg in enumerate(legs):
        ends = f"{names[number]} -> {names[number + 1] if number + 1 < len(names) else leg.destination}"
        lines.append(f" {number + 1}  {ends}: {_said(leg)}")
        for label, value in (("SNI", leg.sni), ("ALPN", leg.alpn), ("server", ", ".join(leg.server)), ("client", ", ".join(leg.client))):
            if value:
                lines.append(f"      {label:8}{value}")
        if leg.inner is not None and leg.tls:
            lines.append(f"      inside  the client's own TLS, SNI {leg.inner or '(none)'}")
        readable = ", ".join(leg.readable) or "nothing but lengths and times"
        reader = "inside the pod; its sidecar" if number == 0 else "the network"
        lines.append(f"      {reader} reads: {readable}")
    return "\n".join(lines)


def _short(proxy: str, kind: str) -> str:
    return "gateway" if kind == "router" else f"sidecar of {proxy.partition('.')[0]}"


def _said(leg: Leg) -> str:
    if leg.tls:
        return f"{'TLS in ' if leg.inner is not None else ''}{leg.tls}, {leg.protocol} inside"
    return f"the client's own TLS, SNI {leg.inner or '(none)'}" if leg.inner is not None else f"{leg.protocol} in plaintext"


def _picture(names: list[str], legs: list[Leg]) -> str:
    """`app ---> sidecar ===> gateway`: plain legs thin, encrypted ones double."""
    parts = [names[0]]
    for number, leg in enumerate(legs):
        arrow = "===>" if leg.tls or leg.inner is not None else "--->"
        parts.append(f"{arrow} {names[number + 1] if number + 1 < len(names) else leg.destination}")
    return textwrap.fill(" ".join(parts), WIDTH, subsequent_indent="    ", break_on_hyphens=False)

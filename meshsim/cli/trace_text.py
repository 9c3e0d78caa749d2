"""A trace as one screen of text: the answer, then the way, then the reasons, each with its line of YAML."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable, Iterator

from meshsim.near_misses import NO_CLUSTER, NearMiss
from meshsim.routing.entry import Entry
from meshsim.simulate import Hop, Leg, Trace
from meshsim.simulate.trace import Cause

WIDTH = 80
LABEL, SOURCE = 13, 56  # columns where a row's text begins, and where its source does

FLAGS = {
    "DC": "the client hung up",
    "DI": "a delay was injected",
    "FI": "a fault was injected",
    "LH": "the local service failed its health check",
    "NC": "no such cluster",
    "NR": "no route",
    "UC": "the upstream connection ended",
    "UF": "could not connect upstream",
    "UH": "no healthy upstream",
    "UO": "circuit breaker open",
    "UPE": "upstream protocol error",
    "UR": "upstream reset",
    "URX": "retries used up",
    "UT": "upstream timeout",
    "DT": "request took too long",
    "UAEX": "refused by an external authorizer",
    "DPE": "malformed request",
}
"""Envoy's response flags in words."""

_PROXY_HEADERS = ("x-forwarded-for", "x-envoy-", "x-forwarded-client-cert", "x-request-id", "x-forwarded-proto")


class Files:
    """Source files by the shortest names that tell them apart: relative to the folder they share."""

    def __init__(self, files: Iterable[str]):
        folders = {os.path.dirname(os.path.abspath(file)) for file in files if not file.startswith("<")}
        shared = os.path.commonpath(folders) if folders else ""
        self._root = "" if shared == os.sep else shared

    def __call__(self, source: str) -> str:
        file, colon, line = source.rpartition(":")
        if not colon or file.startswith("<"):
            return source
        short = os.path.relpath(os.path.abspath(file), self._root) if self._root else file
        return f"{file if short.startswith('..') else short}:{line}"


def screen(trace: Trace, url: str, method: str, files: Files, missed: list[NearMiss]) -> str:
    """Everything, at most 80 columns wide where names allow."""
    lines = _headline(trace, url, method)
    if not trace.address and not trace.dropped:
        lines.append(f"    no Service and no ExternalServer is named {trace.call.host}; nothing is looked up outside the mesh")
    for number, hop in enumerate(trace.hops, 1):
        lines += ["", *_hop(number, hop, trace, files)]
        lines += _missed([m for m in missed if m.proxy == hop.proxy and _last_of(trace, hop)], files)
    for passed in trace.uncaptured:
        way, _, why = passed.partition(": ")
        annotation, _, source = why.rpartition(" ")
        lines += ["", f"    not captured   {way}", *_row("", annotation, files(source))]
    for drop in dict.fromkeys(trace.dropped):  # once, however often it was tried
        way, _, policies = drop.partition(": ")
        lines += ["", f"    dropped   {way}"]
        for policy in policies.split(", "):
            name, _, source = policy.rpartition(" ")
            lines += _row("", f"by {name}", files(source))
    for number, arrival in enumerate(trace.arrivals, len(trace.hops) + 1):
        lines += ["", *_arrival(number, arrival)]
    return "\n".join(lines)


def _headline(trace: Trace, url: str, method: str) -> list[str]:
    asked = f"{method} {url}" if trace.call.http else url
    answer = f"{trace.call.source}  ->  {result(trace)}"
    if len(asked) + len(answer) + 3 <= WIDTH:
        return [f"{asked}   {answer}"]
    return [asked, textwrap.fill(answer, WIDTH, subsequent_indent="   ")]


def result(trace: Trace) -> str:
    """What came of it, in one line."""
    gateways = [h.proxy.partition(".")[0] for h in trace.hops if h.kind == "router"]
    way = f"through {' and '.join(dict.fromkeys(gateways))}" if gateways else "directly, through no gateway"
    if trace.arrivals:
        server = trace.arrivals[-1]
        place = f"{server['server']}:{server['port']}"
        handshake = trace.client.get("tls")
        if handshake and handshake.get("error"):
            return f"{handshake['error']}, from {place}, {way}"
        return f"{_outcome(trace)} from {place}, {way}"
    if not trace.hops:
        return trace.error or "nothing"
    hop = _deciding(trace)
    where = "at its own sidecar" if hop.proxy == trace.call.source else f"at {hop.proxy}"
    why = ", ".join(f"{FLAGS.get(flag, flag)} ({flag})" for flag in hop.entry.flags)
    return f"{_outcome(trace)} {where}" + (f": {why}" if why else "")


def _outcome(trace: Trace) -> str:
    if trace.status is not None:
        return str(trace.status)
    return trace.error or str(trace.client.get("end") or trace.client.get("after") or "connected")


def _deciding(trace: Trace) -> Hop:
    """The hop where the call ended: the last with the flags of the answer."""
    local = [h for h in trace.hops if h.entry.flags and not h.entry.details.startswith("via_upstream")]
    return local[-1] if local else trace.hops[-1]


def _hop(number: int, hop: Hop, trace: Trace, files: Files) -> Iterator[str]:
    kind = "gateway" if hop.kind == "router" else hop.kind
    arrived = hop.entry.downstream
    inbound = hop.kind == "sidecar" and hop.proxy != trace.call.source
    verb = "inbound" if inbound else "captured" if hop.kind == "sidecar" else "accepted"
    text = f"{verb} {arrived.destination}, {_heard(hop)}"
    head = f" {number}  {hop.proxy} ({kind})"
    if len(head) < 34:
        yield from _row(head, text, "", 34)
    else:
        yield head
        yield from _row("", text, "", 34)
    yield from _cause("listener", hop.listener, files)
    if hop.chain and hop.routes is None:
        yield from _cause("chain", hop.chain, files)
    if hop.routes and hop.virtual_host:
        source = (hop.route and hop.route.source) or hop.virtual_host.source
        name = f" ({hop.route.name})" if hop.route and hop.route.name not in ("", "default") else ""
        yield from _row("    route", f"{hop.routes.name} / {hop.virtual_host.name} / {hop.match}{name}", files(source) if source else "")
    if hop.cluster and hop.cluster.name:
        missing = "does not exist here" if NO_CLUSTER in hop.entry.flags else ""
        yield from _row("    cluster", hop.cluster.name, missing or (files(hop.cluster.source) if hop.cluster.source else ""))
    if hop.entry.upstream:
        yield from _row("    endpoint", f"{hop.entry.upstream}   {_spoken(hop.leg)}", "")
    if hop.leg and hop.leg.tls:
        yield from _tls(hop.leg)
    yield from _answer(hop.entry)


def _heard(hop: Hop) -> str:
    entry = hop.entry
    how = "TLS" if entry.downstream.secure or entry.downstream.transport == "tls" else "plaintext"
    sni = f" for {entry.downstream.sni}" if entry.downstream.sni else ""
    return f"{how}{sni}" if not entry.is_http else f"{entry.protocol} in {how}{sni}" if how == "TLS" else f"{how} {entry.protocol}"


def _spoken(leg: Leg | None) -> str:
    if leg is None:
        return ""
    inner = f", the client's own TLS inside (SNI {leg.inner})" if leg.inner else ""
    return f"{leg.protocol}, {leg.tls or 'plaintext'}{inner}" if leg.tls or not leg.inner else f"the client's own TLS, SNI {leg.inner}"


def _tls(leg: Leg) -> Iterator[str]:
    asked = [f"SNI {leg.sni}" if leg.sni else "no SNI", f"ALPN {leg.alpn}" if leg.alpn else ""]
    yield from _row("", ", ".join(filter(None, asked)), "")
    for label, names in (("server", leg.server), ("client", leg.client)):
        if names:
            yield from _row("", f"{label} {', '.join(names)}", "")


def _answer(entry: Entry) -> Iterator[str]:
    """What this proxy made of it, when it was not simply passed on."""
    if entry.details == "via_upstream" and not entry.flags:
        return
    words = [str(entry.code) if entry.code else "", ",".join(entry.flags), entry.details or entry.connection_details]
    if any(words):
        yield from _row("    answer", " ".join(filter(None, words)), "")
    if entry.attempts > 1:
        yield from _row("", f"after {entry.attempts} attempts", "")
    failure = entry.upstream_failure or entry.downstream_failure
    if failure and failure not in entry.details:
        yield from _row("", failure, "")


def _missed(missed: list[NearMiss], files: Files) -> Iterator[str]:
    for miss in missed:
        indent = " " * LABEL
        text = f"{miss.text} ({files(f'{miss.location.file}:{miss.location.line}')})"
        for label, words in (("not used", text), ("try", miss.remedy)):
            if words:
                head = f"    {label}".ljust(LABEL)
                yield from textwrap.wrap(words, WIDTH, initial_indent=head, subsequent_indent=indent, break_on_hyphens=False)


def _last_of(trace: Trace, hop: Hop) -> bool:
    """Near misses are said once per proxy, under its last hop."""
    return [h for h in trace.hops if h.proxy == hop.proxy][-1] is hop


def _arrival(number: int, arrival: dict[str, object]) -> Iterator[str]:
    place = f" {number}  {arrival['server']}:{arrival['port']}"
    headers = [str(pair[0]) for pair in arrival.get("headers") or []]  # type: ignore[attr-defined]  # pairs, as recorded
    if not headers:
        what = "a request" if arrival.get("http") else "bytes" if arrival.get("bytes") else "a connection"
        yield from _row(place, f"receives {what} from {arrival['peer']}", "", 34)
        return
    added = [name for name in headers if name.startswith(_PROXY_HEADERS)]
    text = f"receives Host {arrival.get('authority')} from {arrival['peer']}" + (f"; also {', '.join(added)}" if added else "")
    yield from textwrap.wrap(text, WIDTH, initial_indent=f"{place:34}", subsequent_indent=" " * 34, break_on_hyphens=False)


def _cause(label: str, cause: Cause | None, files: Files) -> Iterator[str]:
    if cause is not None and cause.name:
        yield from _row(f"    {label}", cause.name, files(cause.source) if cause.source else "")


def _row(label: str, text: str, source: str, column: int = LABEL) -> Iterator[str]:
    """A label, what it says, and the source in its own column, on the next line where there is no room."""
    head = f"{label:{column}}" if len(label) < column else f"{label}  "
    if not source:
        wrapped = textwrap.wrap(text, WIDTH - len(head), break_long_words=False, break_on_hyphens=False) or [""]
        yield from (f"{head if not n else ' ' * len(head)}{line}" for n, line in enumerate(wrapped))
    else:
        column = min(SOURCE, WIDTH - len(source))
        if len(head) + len(text) < column:
            yield f"{head}{text}".ljust(column) + source
        else:
            yield head + text
            yield " " * column + source

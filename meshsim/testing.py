"""What a test says about a call, and a failure that shows the way the call took.

    mesh = meshsim.load("egress/")
    expect(mesh, "sleep", "http://edition.cnn.com/politics", status=301, via="istio-egressgateway", server="edition.cnn.com:80")

Only what is named is compared. The same words are used in MeshTest files (`expect:`) and hold for `simulate` and for live proxies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any as Json

from meshsim.cli import trace_text
from meshsim.errors import MeshsimError
from meshsim.mesh import Mesh
from meshsim.simulate import Trace

LOG_FIELDS = ("code", "flags", "details", "cluster", "upstream", "route", "sni", "protocol", "authority", "path")
"""What `log` may ask of a proxy's access-log entry."""


@dataclass
class Outcome:
    """What happened, as far as both engines can tell it.

    status: of the answer, None without one. error: how the call failed, if it did. via: the proxies passed, in order, the caller's own
    sidecar left out. server: `name:port` of the last server reached, empty for none. location: of a redirect. log: fields of each
    proxy's first access-log entry. received: the headers the last server got.
    """

    status: int | None = None
    error: str = ""
    via: tuple[str, ...] = ()
    server: str = ""
    location: str | None = None
    body: str = ""
    log: Mapping[str, Mapping[str, Json]] = field(default_factory=dict)
    received: Mapping[str, str] = field(default_factory=dict)


class Unexpected(AssertionError):
    """A call that did not do what was expected; the text says where it went instead."""


class UnknownExpectation(MeshsimError):
    """An expectation nobody can check; the text names those that exist."""


def outcome(trace: Trace) -> Outcome:
    """The outcome of a simulated call."""
    headers = dict(map(tuple, trace.client.get("headers", [])))
    logs: dict[str, dict[str, Json]] = {}
    for proxy, entry in trace.lines:
        logs.setdefault(_short(proxy), {name: _field(entry, name) for name in LOG_FIELDS})
    passed = list(dict.fromkeys(_short(h.proxy) for h in trace.hops))
    last = trace.arrivals[-1] if trace.arrivals else None
    return Outcome(
        status=trace.status,
        error=trace.error,
        via=tuple(p for p in passed if p != _short(trace.call.source)),
        server=f"{last['server']}:{last['port']}" if last else "",
        location=headers.get("location"),
        body=str(trace.client.get("body", "")),
        log=logs,
        received=dict(map(tuple, last.get("headers", []))) if last else {},
    )


def differences(expected: Mapping[str, Json], found: Outcome) -> list[str]:
    """What differs, a sentence each. Raises UnknownExpectation for a key that does not exist."""
    out: list[str] = []
    for name, wanted in expected.items():
        check = _CHECKS.get(name)
        if check is None:
            raise UnknownExpectation(f"unknown expectation {name!r}; there are: {', '.join(sorted(_CHECKS))}")
        out += check(wanted, found)
    return out


def expect(
    mesh: Mesh, source: str, url: str, *, method: str = "GET", headers: Mapping[str, str] | None = None, body: bytes = b"", **expected: Json
) -> Trace:
    """Simulate a call and hold it against what is expected. Raises Unexpected with the trace, UnknownPod, UnknownExpectation."""
    __tracebackhide__ = True
    trace = mesh.simulate(source, url, method=method, headers=headers, body=body)
    wrong = differences(expected, outcome(trace))
    if wrong:
        raise Unexpected(report(mesh, trace, f"{method} {url} from {source}", wrong))
    return trace


def report(mesh: Mesh, trace: Trace, call: str, wrong: Iterable[str]) -> str:
    """The text of a failure: what was expected, then the way the call took and why."""
    files = trace_text.Files({r.source.file for r in mesh.resources})
    shown = trace_text.screen(trace, call.split(" ")[1], call.split(" ")[0], files, mesh.near_misses(trace))
    return "\n".join([f"{call}: {'; '.join(wrong)}", *(f"  {line}" for line in shown.splitlines())])


def _short(proxy: str) -> str:
    """A proxy's name without its namespace, which stands before a slash or behind a dot."""
    return proxy.rpartition("/")[2].partition(".")[0]


def _field(entry: object, name: str) -> Json:
    value = getattr(entry, name, "")
    return ",".join(value) if isinstance(value, list) else value


def _equal(name: str, get: str) -> Json:
    def check(wanted: Json, found: Outcome) -> list[str]:
        got = getattr(found, get)
        return [] if got == wanted else [f"expected {name} {wanted!r}, got {got!r}"]

    return check


def _via(wanted: Json, found: Outcome) -> list[str]:
    names = tuple([wanted] if isinstance(wanted, str) else wanted or ())
    missing = [n for n in names if n not in found.via]
    if missing:
        return [f"expected to pass {', '.join(missing)}"]
    return [] if names or not found.via else [f"expected to pass no other proxy, passed {', '.join(found.via)}"]


def _error(wanted: Json, found: Outcome) -> list[str]:
    if wanted is True:
        return [] if found.error else ["expected the call to fail"]
    if not wanted:
        return [f"expected no error, got {found.error!r}"] if found.error else []
    return [] if str(wanted) in found.error else [f"expected the error {wanted!r}, got {found.error!r}"]


def _body(wanted: Json, found: Outcome) -> list[str]:
    return [] if str(wanted) in found.body else [f"expected {wanted!r} in the body, got {found.body!r}"]


def _log(wanted: Json, found: Outcome) -> list[str]:
    out = []
    for proxy, fields in wanted.items():
        entry = found.log.get(proxy)
        if entry is None:
            out.append(f"expected an access-log entry of {proxy}")
            continue
        for name, value in fields.items():
            if name not in LOG_FIELDS:
                raise UnknownExpectation(f"unknown log field {name!r}; there are: {', '.join(LOG_FIELDS)}")
            if entry[name] != value:
                out.append(f"expected {proxy} to log {name} {value!r}, it logged {entry[name]!r}")
    return out


def _received(wanted: Json, found: Outcome) -> list[str]:
    """Header by header; null: must not have arrived."""
    return [
        f"expected the server to receive {name}: {value}, it received {found.received.get(name.lower())!r}"
        for name, value in wanted.items()
        if found.received.get(name.lower()) != value
    ]


_CHECKS: dict[str, Json] = {
    "status": _equal("status", "status"),
    "location": _equal("location", "location"),
    "server": _equal("server", "server"),
    "error": _error,
    "via": _via,
    "body": _body,
    "log": _log,
    "received": _received,
}

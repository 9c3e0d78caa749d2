"""The recorded form of what happened: without what changes from run to run.

Every engine ends here: `call` takes what a client saw, the proxies logged and the servers received as it was, and gives the form
in which `outcomes.json` has it.
"""

from __future__ import annotations

import re
from typing import Any as Json

CLIENT_NOISE = {"date", "content-length", "x-envoy-upstream-service-time"}
MOST_LINES = 12  # log lines of one call; of more, the first ten and the last two are kept
MOST_SERVERS = 6

LOG_FORMAT = {
    "method": "%REQ(:METHOD)%", "path": "%REQ(:PATH)%", "authority": "%REQ(:AUTHORITY)%", "protocol": "%PROTOCOL%",
    "code": "%RESPONSE_CODE%", "flags": "%RESPONSE_FLAGS%", "details": "%RESPONSE_CODE_DETAILS%",
    "connection_details": "%CONNECTION_TERMINATION_DETAILS%", "tls_failure": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    "downstream_tls_failure": "%DOWNSTREAM_TRANSPORT_FAILURE_REASON%", "cluster": "%UPSTREAM_CLUSTER_RAW%", "upstream": "%UPSTREAM_HOST%",
    "route": "%ROUTE_NAME%", "sni": "%REQUESTED_SERVER_NAME%", "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "local": "%DOWNSTREAM_LOCAL_ADDRESS%", "remote": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "peer": "%DOWNSTREAM_PEER_URI_SAN%",
    "chain": "%FILTER_CHAIN_NAME%", "upstream_protocol": "%UPSTREAM_PROTOCOL%",
}
"""The access-log format, as Envoy's operators, that gives the fields of a recorded log line."""

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_DATE = re.compile(r"(?i)(date: )[A-Z][a-z]{2}, [^\r\n]*")
_PROXY_V2 = "\r\n\r\n\x00\r\nQUIT\n"


def call(name: str, client: dict[str, Json], proxies: list[dict[str, Json]], servers: list[dict[str, Json]]) -> dict[str, Json]:
    """The outcome of one call: what its client saw, the log lines of all proxies in order of start, what the servers received."""
    lines = [_proxy(line) for line in proxies]
    out: dict[str, Json] = {"call": name, "client": _client(client)}
    out["proxies"] = lines if len(lines) <= MOST_LINES else [*lines[:10], *lines[-2:]]
    out["servers"] = [_server(arrival) for arrival in servers if not arrival.get("error")][:MOST_SERVERS]
    if len(lines) > MOST_LINES:
        out["more_proxy_lines"] = "many: the first ten and the last two are here"
    return out


def _client(seen: dict[str, Json]) -> dict[str, Json]:
    seen = dict(seen)
    if "headers" in seen:
        echo = ("content-type", "application/json")
        seen["headers"] = [[k, v] for k, v in seen["headers"] if k not in CLIENT_NOISE and (k, v) != echo]
    if "received" in seen:
        seen["received"] = _plain(seen["received"])
    return seen


def _proxy(line: dict[str, Json]) -> dict[str, Json]:
    line = {key: value for key, value in line.items() if value not in (None, "-", "")}
    if line.get("attempts") == 1:
        del line["attempts"]
    if "flags" in line:
        line["flags"] = ",".join(sorted(line["flags"].split(",")))
    if line.get("remote", "").startswith("127.0.0.6"):
        del line["remote"]
    return line


def _server(arrival: dict[str, Json]) -> dict[str, Json]:
    arrival = dict(arrival)
    if "headers" in arrival:
        noise = (["user-agent", "golden"], ["accept", "*/*"])
        arrival["headers"] = [h for h in ([k, _header(k, v)] for k, v in arrival["headers"]) if h not in noise]
    if "bytes" in arrival:
        hello = client_hello(arrival["bytes"].encode("latin-1"))
        if hello:
            del arrival["bytes"]
            arrival["client_hello"] = hello
        else:
            arrival["bytes"] = _plain(arrival["bytes"])
    if arrival.get("body") == "":
        del arrival["body"]
    return arrival


def _header(name: str, value: str) -> str:
    if name == "x-request-id":
        return "<uuid>"
    if name == "x-forwarded-client-cert":
        value = re.sub(r"Hash=[0-9a-f]+", "Hash=<hash>", value)
        return re.sub(r'(Cert|Chain)="[^"]*"', r"\1=<pem>", value)
    return value


def _plain(text: str) -> str:
    text = _DATE.sub(r"\1<date>", _UUID.sub("<uuid>", text))
    at = text.find(_PROXY_V2)
    if at >= 0 and len(text) >= at + 28:  # the source port
        text = f"{text[: at + 24]}<port>{text[at + 26 :]}"
    return text


def client_hello(data: bytes) -> dict[str, Json] | None:
    """The server name and protocols that a TLS ClientHello offers; None for bytes that do not begin with one (RFC 8446 4.1.2)."""
    try:
        if data[:2] != b"\x16\x03" or data[5] != 1:
            return None
        at = 43  # record header, handshake header, version, random
        at += 1 + data[at]  # session id
        at += 2 + int.from_bytes(data[at : at + 2], "big")  # cipher suites
        at += 1 + data[at]  # compression methods
        end = at + 2 + int.from_bytes(data[at : at + 2], "big")
        at += 2
        sni: str | None = None
        alpn: list[str] = []
        while at < end:
            kind, size = int.from_bytes(data[at : at + 2], "big"), int.from_bytes(data[at + 2 : at + 4], "big")
            body = data[at + 4 : at + 4 + size]
            if kind == 0:
                sni = body[5:].decode("latin-1")
            elif kind == 16:
                alpn = _protocols(body[2:])
            at += 4 + size
        return {"sni": sni, "alpn": alpn}
    except IndexError:
        return None


def _protocols(data: bytes) -> list[str]:
    found = []
    while data:
        found.append(data[1 : 1 + data[0]].decode("latin-1"))
        data = data[1 + data[0] :]
    return found

"""One access-log entry: everything a format may ask about one request or one connection. Filled while it runs, read when it ends."""

from __future__ import annotations

from dataclasses import dataclass, field

from meshsim.routing.facts import Downstream, Endpoint

Headers = list[tuple[str, str]]


@dataclass(slots=True)
class Entry:
    """HTTP where `method` is set, else a TCP connection. Times in seconds of the proxy's clock; sizes in bytes, bodies only.

    flags: response flags in the order they were set. details: of the response code, spaces as underscores.
    cluster, upstream: as chosen; empty where none was. attempts: how often a request was sent, or a connection tried.
    request_headers: as they are at the end, rewritten ones included; pseudo-headers are the fields of their name.
    """

    downstream: Downstream
    start: float = 0.0
    method: str = ""
    path: str = ""
    authority: str = ""
    scheme: str = ""
    protocol: str = ""
    request_headers: Headers = field(default_factory=list)
    response_headers: Headers = field(default_factory=list)
    response_trailers: Headers = field(default_factory=list)
    code: int = 0
    flags: list[str] = field(default_factory=list)
    details: str = ""
    connection_details: str = ""
    upstream_failure: str = ""
    downstream_failure: str = ""
    cluster: str = ""
    alt_cluster: str = ""
    upstream: str = ""
    upstream_name: str = ""
    upstream_local: str = ""
    upstream_protocol: str = ""
    upstream_sni: str = ""
    route: str = ""
    attempts: int = 0
    remote: Endpoint | None = None  # as %DOWNSTREAM_REMOTE_ADDRESS% prints it; the source unless X-Forwarded-For says otherwise
    received: int = 0
    sent: int = 0
    end: float | None = None
    upstream_first_byte: float | None = None
    close_reason: str = ""
    listener: str = ""
    connection_id: int = 0

    def flag(self, name: str) -> None:
        """Set a response flag, once."""
        if name not in self.flags:
            self.flags.append(name)

    @property
    def is_http(self) -> bool:
        return bool(self.method or self.protocol)

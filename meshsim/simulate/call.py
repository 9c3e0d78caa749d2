"""What an application does: one call from one pod."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass(frozen=True)
class HttpRequest:
    """A request: `path` with its query; `headers` as the client spells them, a Host among them replaces the URL's."""

    method: str = "GET"
    path: str = "/"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


@dataclass(frozen=True)
class Call:
    """One call.

    source: the name of the proxy in the caller's pod. host, port: whom it connects to. tls: whether it speaks TLS, asking for
    `sni` (empty: no name) and offering `alpn`. http: the request, if it makes one; else `data` is sent as it is.
    """

    source: str
    host: str
    port: int = 80
    tls: bool = False
    sni: str = ""
    alpn: tuple[str, ...] = ()
    http: HttpRequest | None = field(default_factory=HttpRequest)
    data: bytes = b""

    @classmethod
    def url(
        cls,
        source: str,
        url: str,
        method: str = "GET",
        headers: tuple[tuple[str, str], ...] = (),
        body: bytes = b"",
        port: int | None = None,
    ) -> Call:
        """The call that curl would make for that URL. Raises ValueError for a URL that is not http or https."""
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"not an http or https URL: {url}")
        tls = parts.scheme == "https"
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        authority = parts.netloc.rpartition("@")[2]
        if not any(name.lower() == "host" for name, _ in headers):
            headers = (("Host", authority), *headers)
        numeric = parts.hostname.replace(".", "").isdigit()
        return cls(
            source,
            parts.hostname,
            port or parts.port or (443 if tls else 80),
            tls,
            "" if numeric or not tls else parts.hostname,
            ("h2", "http/1.1") if tls else (),
            HttpRequest(method, path, headers, body),
        )

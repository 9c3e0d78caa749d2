"""The admin interface: what a proxy says about itself, page by page, as Envoy's does.

How this works: a page is a function from the proxy and a query to text; `PAGES` is the table. `Admin.page` answers one request without any
I/O; `AdminServer` is the little HTTP server that gives pages out on a Unix socket.
"""

from __future__ import annotations

import asyncio
import os
import re
import stat
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple, cast
from typing import Any as Json
from urllib.parse import parse_qsl, urlsplit

import msgspec

from meshsim import xds
from meshsim.proxy.parsers import BadMessage, End, RequestHead, RequestParser
from meshsim.routing.clusters import Cluster, Host
from meshsim.routing.http1 import Rules
from meshsim.xds.tls import Secret

if TYPE_CHECKING:
    from meshsim.proxy.proxy import Proxy

Query = dict[str, str]
VERSION = "meshsim"
_DUMP = "type.googleapis.com/envoy.admin.v3."
_ROW_LIMITS = ("max_connections", "max_pending_requests", "max_requests", "max_retries")


class Page(NamedTuple):
    """An answer."""

    status: int
    text: str
    content_type: str = "text/plain; charset=UTF-8"


class Admin:
    """The pages of one proxy. failing: whether it was told to report ill health. quit: set when it was told to end."""

    def __init__(self, proxy: Proxy):
        self.proxy = proxy
        self.started = time.time()
        self.failing = False
        self.quit = asyncio.Event()

    def page(self, target: str, method: str = "GET") -> Page:
        """The page at a path with its query. What changes something wants POST (405 otherwise)."""
        parts = urlsplit(target)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        show = PAGES.get(parts.path)
        if show is not None:
            return show(self, query)
        change = CHANGES.get(parts.path)
        if change is None:
            return Page(404, "invalid path. admin commands are:\n" + _commands())
        if method != "POST":
            return Page(405, f"Method Not Allowed: {parts.path} wants POST\n")
        change(self, query)
        return Page(200, "OK\n")

    @property
    def state(self) -> str:
        return "DRAINING" if self.failing or self.proxy.draining else "LIVE"


def _home(admin: Admin, query: Query) -> Page:
    return Page(200, _commands())


def _commands() -> str:
    return "".join(f"  {path}\n" for path in sorted((*PAGES, *(f"{path} (POST)" for path in CHANGES))))


def _ready(admin: Admin, query: Query) -> Page:
    return Page(200 if admin.state == "LIVE" else 503, admin.state + "\n")


def _server_info(admin: Admin, query: Query) -> Page:
    uptime = f"{int(time.time() - admin.started)}s"
    return _json({"version": VERSION, "state": admin.state, "uptime_current_epoch": uptime, "uptime_all_epochs": uptime})


def _stats(admin: Admin, query: Query) -> Page:
    if query.get("format") == "prometheus":
        return _prometheus(admin, query)
    try:
        wanted, used_only, kind = query.get("filter", ""), "usedonly" in query, query.get("type", "")
        rows = admin.proxy.core.stats.values(wanted, used_only=used_only, kind=kind)
        histograms = admin.proxy.core.stats.histograms(wanted, used_only=used_only) if kind in ("", "Histograms") else []
    except re.error as e:
        return Page(400, f"Invalid re2 regex: {e}\n")
    if query.get("format") == "json":
        return _json({"stats": [{"name": name, "value": value} for name, value in rows]})
    lines = [*(f"{name}: {value}\n" for name, value in rows), *(f"{name}: {histogram.text()}\n" for name, histogram in histograms)]
    return Page(200, "".join(lines))


def _prometheus(admin: Admin, query: Query) -> Page:
    try:
        return Page(200, admin.proxy.core.stats.prometheus(query.get("filter", ""), used_only="usedonly" in query))
    except re.error as e:
        return Page(400, f"Invalid re2 regex: {e}\n")


def _clusters(admin: Admin, query: Query) -> Page:
    clusters = [c for c in admin.proxy.runtime.clusters.values() if re.search(query.get("filter", ""), c.name)]
    if query.get("format") == "json":
        return _json({"cluster_statuses": [_cluster_status(c) for c in clusters]})
    return Page(200, "".join(line + "\n" for cluster in clusters for line in _cluster_lines(cluster)))


def _cluster_lines(cluster: Cluster) -> list[str]:
    name, limits = cluster.name, cluster.limits
    values = (limits.max_connections, limits.max_pending, limits.max_requests, limits.most_retries)
    lines = [f"{name}::observability_name::{cluster.config.alt_stat_name or name}"]
    lines += [f"{name}::default_priority::{row}::{value}" for row, value in zip(_ROW_LIMITS, values, strict=True)]
    lines.append(f"{name}::added_via_api::true")
    for host in cluster.hosts:
        row = f"{name}::{host.name}::"
        lines += [
            f"{row}rq_active::{host.active}", f"{row}hostname::{host.hostname}", f"{row}health_flags::{_health(cluster, host)}",
            f"{row}weight::{host.weight}", f"{row}priority::{host.priority}",
        ]
    return lines


def _cluster_status(cluster: Cluster) -> Json:
    hosts = [
        {
            "address": {"socket_address": {"address": host.address.host, "port_value": host.address.port}},
            "hostname": host.hostname, "weight": host.weight, "priority": host.priority, "health_flags": _health(cluster, host),
        }
        for host in cluster.hosts
    ]
    return {"name": cluster.name, "observability_name": cluster.config.alt_stat_name or cluster.name, "host_statuses": hosts}


def _health(cluster: Cluster, host: Host) -> str:
    if cluster.usable(host):
        return "healthy"
    return "/failed_outlier_check" if host.ejected_until else "/failed_eds_health"


def _listeners(admin: Admin, query: Query) -> Page:
    rows = [(name, str(rules.config.address)) for name, rules in admin.proxy.runtime.listeners.items()]
    if query.get("format") == "json":
        return _json({"listener_statuses": [{"name": name, "local_address": address} for name, address in rows]})
    return Page(200, "".join(f"{name}::{address}\n" for name, address in rows))


def _config_dump(admin: Admin, query: Query) -> Page:
    config = admin.proxy.config
    pattern = re.compile(query.get("name_regex", ""))
    at = datetime.fromtimestamp(admin.proxy.updated, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def dynamic(key: str, messages: list[Json]) -> list[Json]:
        return [{key: message, "last_updated": at} for message in messages if pattern.search(str(message.get("name", "")))]

    listeners = [
        {"name": x.name, "active_state": {"listener": xds.to_builtins(x), "last_updated": at}}
        for x in config.listeners
        if pattern.search(x.name)
    ]
    refused = [{"name": n, "error_state": {"details": why}} for n, why in admin.proxy.runtime.rejected.items()]
    clusters = [xds.to_builtins(c) for c in config.clusters]
    routes = [xds.to_builtins(r) for r in config.routes]
    configs: list[Json] = [
        {"@type": _DUMP + "ClustersConfigDump", "dynamic_active_clusters": dynamic("cluster", clusters)},
        {"@type": _DUMP + "ListenersConfigDump", "dynamic_listeners": listeners + refused},
        {"@type": _DUMP + "RoutesConfigDump", "dynamic_route_configs": dynamic("route_config", routes)},
        {"@type": _DUMP + "SecretsConfigDump", "dynamic_active_secrets": dynamic("secret", [_public(s) for s in config.secrets])},
    ]
    if "include_eds" in query:
        endpoints = [{"endpoint_config": xds.to_builtins(e)} for e in config.endpoints]
        configs.append({"@type": _DUMP + "EndpointsConfigDump", "dynamic_endpoint_configs": endpoints})
    return _json({"configs": configs})


def _public(secret: Secret) -> Json:
    """A secret as one may show it."""
    shown = xds.to_builtins(secret)
    if "tls_certificate" in shown:
        shown["tls_certificate"]["private_key"] = {"inline_bytes": "W3JlZGFjdGVkXQ=="}  # "[redacted]", as Envoy writes it
    return shown


def _certs(admin: Admin, query: Query) -> Page:
    admin.proxy.core.tls.make_files()
    certificates = []
    for secret in admin.proxy.config.secrets:
        chain = secret.tls_certificate.certificate_chain if secret.tls_certificate else None
        root = secret.validation_context.trusted_ca if secret.validation_context else None
        certificates.append({
            "ca_cert": [_certificate(root.filename)] if root and root.filename else [],
            "cert_chain": [_certificate(chain.filename)] if chain and chain.filename else [],
        })
    return _json({"certificates": [c for c in certificates if c["ca_cert"] or c["cert_chain"]]})


def _certificate(path: str) -> Json:
    from cryptography import x509  # slow to load, and only this page needs it here

    with open(path, "rb") as file:
        certificate = x509.load_pem_x509_certificate(file.read())
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = x509.SubjectAlternativeName([])
    sans = [{"uri": u} for u in names.get_values_for_type(x509.UniformResourceIdentifier)]
    sans += [{"dns": d} for d in names.get_values_for_type(x509.DNSName)]
    ends = certificate.not_valid_after_utc
    return {
        "path": path,
        "serial_number": f"{certificate.serial_number:x}",
        "subject_alt_names": sans,
        "days_until_expiration": str(max(0, (ends - datetime.now(UTC)).days)),
        "valid_from": certificate.not_valid_before_utc.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "expiration_time": ends.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _json(value: Json) -> Page:
    return Page(200, msgspec.json.format(msgspec.json.encode(value), indent=1).decode() + "\n", "application/json")


def _fail(admin: Admin, query: Query) -> None:
    admin.failing = True


def _recover(admin: Admin, query: Query) -> None:
    admin.failing = False


def _quit(admin: Admin, query: Query) -> None:
    admin.quit.set()


def _reset(admin: Admin, query: Query) -> None:
    admin.proxy.core.stats.reset()


def _drain(admin: Admin, query: Query) -> None:
    admin.proxy.drain_connections()


PAGES: dict[str, Callable[[Admin, Query], Page]] = {
    "/": _home, "/help": _home, "/ready": _ready, "/server_info": _server_info, "/stats": _stats, "/stats/prometheus": _prometheus,
    "/clusters": _clusters, "/listeners": _listeners, "/config_dump": _config_dump, "/certs": _certs,
}
CHANGES: dict[str, Callable[[Admin, Query], None]] = {
    "/quitquitquit": _quit, "/healthcheck/fail": _fail, "/healthcheck/ok": _recover, "/reset_counters": _reset, "/drain_listeners": _drain,
}


class AdminServer:
    """Pages over HTTP on a Unix socket that only its owner may open."""

    def __init__(self, admin: Admin, path: str):
        self._admin, self._path = admin, path
        self._server: asyncio.AbstractServer | None = None
        self._open: set[asyncio.Transport] = set()

    async def start(self) -> None:
        """Raises OSError where the socket cannot be made."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: _Visit(self._admin, self._open), self._path)
        os.chmod(self._path, stat.S_IRUSR | stat.S_IWUSR)

    async def close(self) -> None:
        """Closing twice is allowed."""
        if self._server is not None:
            self._server.close()
            for transport in list(self._open):
                transport.abort()
            await self._server.wait_closed()
            self._server = None
            try:
                os.unlink(self._path)
            except FileNotFoundError:
                pass


class _Visit(asyncio.Protocol):
    """One connection: one page."""

    def __init__(self, admin: Admin, opened: set[asyncio.Transport]):
        self._admin, self._opened = admin, opened
        self._parser = RequestParser(Rules(16 * 1024, 50, http10=True))
        self._target: tuple[str, str] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._opened.add(self._transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._opened.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        for event in self._parser.feed(data):
            if isinstance(event, RequestHead):
                self._target = (event.request.path, event.request.method)
            elif isinstance(event, BadMessage):
                self._answer(Page(400, "Bad Request\n"))
            elif isinstance(event, End) and self._target is not None:
                self._answer(self._admin.page(*self._target))

    def _answer(self, page: Page) -> None:
        body = page.text.encode()
        lines = [
            f"HTTP/1.1 {page.status} {'OK' if page.status == 200 else 'Error'}", f"content-type: {page.content_type}",
            "cache-control: no-cache, max-age=0", "x-content-type-options: nosniff", f"content-length: {len(body)}", "connection: close",
        ]
        self._transport.write("\r\n".join([*lines, "", ""]).encode() + body)
        self._transport.close()

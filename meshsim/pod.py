"""A pod of a live mesh, from inside: make a request, run a command, with the environment an application in it would have.

`get` and `request` are a small HTTP/1.1 client whose connections are captured by the pod's sidecar, for tests and for machines
without curl.
`environment` is what any other client needs: the SOCKS way into the pod, and trust in the certificates of the outside.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

import h11

from meshsim.errors import MeshsimError
from meshsim.network.base import Address, Pod

TIMEOUT = 30.0  # seconds for a whole request
TRUST_VARIABLES = ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "GIT_SSL_CAINFO")
_PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "ftp_proxy")
NO_SUCH_PROGRAM = 127  # the exit status of a shell for it
_CHUNK = 65536


class NameDoesNotResolve(MeshsimError):
    """The pod's DNS has no such name."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP response as the application got it; header names are lower case."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes
    http_version: str

    def header(self, name: str) -> str | None:
        """The first header of that name."""
        return next((value for key, value in self.headers if key == name.lower()), None)

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")


class LivePod:
    """One pod. `search` is its DNS search order (suffixes with their leading dot); `socks` the port of the way in from outside. `roots` and
    `tools` are made when they are first wanted: a pod that only makes plain requests wants neither.

    `curl_home`, where set, is a folder whose `.curlrc` curl obeys: in a mesh where packets are dropped it gives up after three seconds, so
    that nobody waits two minutes for a connection that is dropped.
    """

    def __init__(
        self,
        name: str,
        namespace: str,
        network: Pod,
        roots: Callable[[], Path],
        search: Iterable[str] = (),
        tools: Callable[[], Path] | None = None,
    ):
        self.name, self.namespace, self.network = name, namespace, network
        self._roots, self._tools, self.socks = roots, tools, 0
        self.curl_home: Path | None = None
        self.search = list(search)
        self.enter: Callable[[], None] | None = None
        """What a child process does to be inside the pod; None where only the environment leads there."""

    @cached_property
    def roots(self) -> Path:
        """The certificates that its applications trust, as a PEM file."""
        return self._roots()

    @cached_property
    def tools(self) -> Path | None:
        """A folder of programs that the pod has beside the machine's."""
        return self._tools() if self._tools is not None else None

    async def resolve(self, host: str) -> list[str]:
        """The addresses of a name, as an application in this pod finds them."""
        for suffix in ["", *self.search] if not host.endswith(".") else [""]:
            addresses = await self.network.look_up(host.rstrip(".") + suffix)
            if addresses:
                return addresses
        return []

    async def get(self, url: str, headers: Mapping[str, str] | None = None, *, timeout: float = TIMEOUT) -> Reply:
        """GET a URL; see `request`."""
        return await self.request("GET", url, headers, timeout=timeout)

    async def request(
        self, method: str, url: str, headers: Mapping[str, str] | None = None, body: bytes = b"", *, timeout: float = TIMEOUT
    ) -> Reply:
        """One request on a connection of its own, redirects not followed.

        Raises NameDoesNotResolve, ssl.SSLError (certificates are verified), TimeoutError, and OSError for a refused or broken connection.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise MeshsimError(f"not an http or https URL: {url}")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        context = self._context() if parts.scheme == "https" else None
        async with asyncio.timeout(timeout):
            reader, writer = await self.open(parts.hostname, port, context)
            try:
                target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                return await _exchange(reader, writer, method, target, parts.netloc.rpartition("@")[2], headers or {}, body)
            finally:
                writer.close()

    async def open(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection as an application opens it, with TLS for `host` where a context is given. Raises as `request`."""
        try:
            destination = Address.parse(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        except ValueError:
            addresses = ["127.0.0.1"] if host == "localhost" else await self.resolve(host)
            if not addresses:
                raise NameDoesNotResolve(f"{host} does not resolve in {self.namespace}/{self.name}") from None
            destination = Address(addresses[0], port)
        connection = await self.network.capture(destination)
        try:
            return await asyncio.open_connection(sock=connection.sock, ssl=tls, server_hostname=host if tls else None)
        except BaseException:
            connection.sock.close()
            raise

    def environment(self) -> dict[str, str]:
        """The environment for a program that shall behave as if it ran in this pod."""
        environment = {name: value for name, value in os.environ.items() if name.lower() not in _PROXY_VARIABLES}
        if self.enter is None:
            proxy = f"socks5h://127.0.0.1:{self.socks}"
            environment |= {"ALL_PROXY": proxy, "all_proxy": proxy}
        if self.curl_home is not None:
            environment["CURL_HOME"] = str(self.curl_home)
        if self.tools is not None:
            environment["PATH"] = os.pathsep.join((str(self.tools), environment.get("PATH", os.defpath)))
        return environment | dict.fromkeys(TRUST_VARIABLES, str(self.roots))

    async def run(self, *command: str) -> int:
        """Run a program on this terminal with the pod's environment; its exit status, 127 where there is no such program."""
        try:
            process = await asyncio.create_subprocess_exec(*command, env=self.environment(), preexec_fn=self.enter)
        except FileNotFoundError:
            return NO_SUCH_PROGRAM
        return await process.wait()

    async def output(self, *command: str, limit: float = TIMEOUT) -> tuple[int, str]:
        """Run a program as `run` does, without a terminal: its exit status, and what it printed. It is killed after `limit` seconds."""
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                env=self.environment(),
                preexec_fn=self.enter,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=pipe,
                stderr=asyncio.subprocess.STDOUT,
            )
        except FileNotFoundError:
            return NO_SUCH_PROGRAM, f"{command[0]}: command not found\n"
        try:
            text, _ = await asyncio.wait_for(process.communicate(), limit)
        except TimeoutError:
            process.kill()
            text, _ = await process.communicate()
        return process.returncode or 0, text.decode("utf-8", "replace")

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.roots)
        context.set_alpn_protocols(["http/1.1"])
        return context


async def _exchange(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    method: str,
    target: str,
    authority: str,
    headers: Mapping[str, str],
    body: bytes,
) -> Reply:
    parser = h11.Connection(h11.CLIENT)
    sent = {"host": authority, "user-agent": "meshsim", "accept": "*/*"}
    if body:
        sent["content-length"] = str(len(body))
    sent |= {name.lower(): value for name, value in headers.items()}
    data = parser.send(h11.Request(method=method, target=target, headers=list(sent.items()))) or b""
    data += parser.send(h11.Data(data=body)) or b"" if body else b""
    writer.write(data + (parser.send(h11.EndOfMessage()) or b""))
    head: h11.Response | None = None
    content = bytearray()
    while True:
        try:
            event = parser.next_event()
        except h11.RemoteProtocolError as e:
            if head is None and not parser.trailing_data[0]:
                raise ConnectionResetError("the connection ended before a response") from e
            raise
        if event is h11.NEED_DATA:
            parser.receive_data(await reader.read(_CHUNK))
        elif isinstance(event, h11.Response):
            head = event
        elif isinstance(event, h11.Data):
            content += event.data
        elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
            assert head is not None
            pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers]
            version = "HTTP/" + head.http_version.decode()
            return Reply(head.status_code, head.reason.decode("latin-1"), pairs, bytes(content), version)

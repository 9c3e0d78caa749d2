"""ExternalServer: a server outside the mesh, declared in YAML, and what it answers.

    apiVersion: meshsim.dev/v1alpha1
    kind: ExternalServer
    metadata: {name: cnn}
    spec:
      hosts: [edition.cnn.com]
      addresses: [151.101.65.67]
      ports:
      - {port: 80, protocol: http, answers: [{redirect: "https://{host}{path}"}]}
      - {port: 443, protocol: https, answers: [{bodySize: 150000, headers: {content-type: text/html}}]}

How this works: the live world and `simulate` must not disagree about the outside, so everything a server decides is a pure function here:
`answer` for an HTTP request, `answer_bytes` for bytes, `presented` for the certificate it shows to a client that asks for a name. A port
without `answers` echoes: status 200, `server: echo`, and a JSON object that says what arrived.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any as Json
from typing import Literal, NamedTuple

import msgspec

API_VERSION = "meshsim.dev/v1alpha1"
KIND = "ExternalServer"
ECHO = "echo"
"""The `server` header of an echo."""


class AnswerMatch(msgspec.Struct, rename="camel", kw_only=True, forbid_unknown_fields=True):
    """Which requests an answer is for; every field given must hold. `path` and `path_prefix` look at the path without its query."""

    method: str = ""
    host: str = ""
    path: str = ""
    path_prefix: str = ""


class Answer(msgspec.Struct, rename="camel", kw_only=True, forbid_unknown_fields=True):
    """What is said to a request.

    status: 200, or 301 with `redirect`.
    redirect: the `location` sent; `{host}`, `{path}` stand for the request's own.
    body, body_size: the text, repeated or cut to `body_size` bytes where that is given.
    echo: a JSON object that holds the request as it arrived, instead of a body.
    delay: how long the server thinks before the first byte ("1.5s").
    fault: instead of an answer: `close` ends the connection, `reset` breaks it, `stall` says nothing for ever, `garbage` sends
      what is no HTTP, `truncate` ends the connection after half of the body.
    """

    match: AnswerMatch | None = None
    status: int = 0
    headers: dict[str, str] = {}
    redirect: str = ""
    body: str = ""
    body_size: int | None = None
    echo: bool = False
    delay: str = ""
    fault: Literal["", "close", "reset", "stall", "garbage", "truncate"] = ""


class SignedCertificate(msgspec.Struct, rename="camel", kw_only=True, forbid_unknown_fields=True):
    """A certificate of the world outside.

    names: its DNS names and IP addresses.
    ca: who signs it: `public` (which clients and `caCertificates: system` trust), `mesh`, `partner` or `unknown`.
    recipe: the name of a recipe in `certs/` (expired, self-signed, ...) that changes the certificate's validity, usage or signer.
    """

    names: list[str] = []
    ca: str = "public"
    recipe: str = ""


class ServerCertificate(SignedCertificate, kw_only=True, forbid_unknown_fields=True):
    """The certificate a TLS port shows, for the server's hosts where it names nobody.

    any_name: issue one for whatever name a client asks for; without SNI the first of `names`.
    """

    any_name: bool = False


class ClientCertificates(msgspec.Struct, rename="camel", kw_only=True, forbid_unknown_fields=True):
    """Whether the port asks its clients for a certificate, and who may have signed it. `pem` holds further roots as text."""

    mode: Literal["none", "optional", "required"] = "none"
    trust: list[str] = msgspec.field(default_factory=lambda: ["public"])
    pem: list[str] = []


class ServerPort(msgspec.Struct, rename="camel", kw_only=True, forbid_unknown_fields=True):
    """A port and what is spoken there: `http` and `https` (1.1 and 2), `tcp` and `tls` (bytes, echoed once).

    alpn: what a TLS port agrees to, the preferred first; a port without `h2` there does not know HTTP/2 at all.
    connect: whether the port grants CONNECT requests, as a forward proxy does.
    handshake: what a TLS port does instead of shaking hands: `stall` reads and says nothing for ever, `reset` breaks the connection.
    """

    port: int
    protocol: Literal["http", "https", "tcp", "tls"] = "http"
    alpn: list[str] = msgspec.field(default_factory=lambda: ["h2", "http/1.1"])
    certificate: ServerCertificate = msgspec.field(default_factory=ServerCertificate)
    client_certificates: ClientCertificates = msgspec.field(default_factory=ClientCertificates)
    min_tls: Literal["1.2", "1.3"] = "1.2"
    max_tls: Literal["1.2", "1.3"] = "1.3"
    answers: list[Answer] = []
    connect: bool = False
    handshake: Literal["", "stall", "reset"] = ""

    @property
    def is_tls(self) -> bool:
        return self.protocol in ("https", "tls")

    @property
    def is_http(self) -> bool:
        return self.protocol in ("http", "https")


class ExternalServerSpec(msgspec.Struct, rename="camel", kw_only=True, forbid_unknown_fields=True):
    """The names and addresses of a server, and its ports. Its first host is the name it goes by."""

    hosts: list[str]
    addresses: list[str] = []
    ports: list[ServerPort] = []

    @property
    def name(self) -> str:
        return self.hosts[0]


class Place(NamedTuple):
    """One address and port of the outside, and who answers there."""

    address: str
    port: ServerPort
    server: ExternalServerSpec


def places(servers: Iterable[ExternalServerSpec]) -> dict[tuple[str, int], Place]:
    """Who answers on which address and port; the first server that claims one has it."""
    found: dict[tuple[str, int], Place] = {}
    for server in servers:
        for port in server.ports:
            for address in server.addresses:
                found.setdefault((address, port.port), Place(address, port, server))
    return found


class ClientTls(NamedTuple):
    """What a TLS port learned about its client: the name asked for, the protocol agreed, the names in the client's certificate."""

    sni: str | None
    alpn: str | None
    client: tuple[str, ...] = ()


class Request(NamedTuple):
    """An HTTP request as it arrived; `peer` is the address it came from, header names are lower case.

    `path` is the target of the request line; None for an HTTP/2 request without `:path`.
    """

    http: str  # "HTTP/1.1" or "HTTP/2"
    method: str
    path: str | None
    authority: str
    headers: list[tuple[str, str]]
    body: bytes
    peer: str
    tls: ClientTls | None = None


class Response(NamedTuple):
    """What goes back. `size` bytes of `body`, which is repeated or cut to fill them; `delay` in seconds.

    fault: see `Answer`. connect: the `host:port` to splice the connection to.
    """

    status: int
    headers: list[tuple[str, str]]
    body: bytes = b""
    size: int = 0
    delay: float = 0.0
    fault: str = ""
    connect: str = ""

    def chunks(self, limit: int = 65536) -> Iterator[bytes]:
        """The body in pieces of at most `limit` bytes."""
        if not self.size:
            return
        piece = self.body * max(1, limit // len(self.body))
        left = self.size
        while left:
            yield piece if left >= len(piece) else piece[:left]
            left -= min(left, len(piece))


HTTP2 = "h2"  # as ALPN names it

BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
"""What bytes that are no HTTP are answered with, before the connection ends."""

GARBAGE = b"this is not HTTP\r\n\r\n"

_HEAD_END = re.compile(rb"\n\r?\n")


def may_become_a_request(data: bytes) -> bool:
    """Whether an HTTP/1.1 server waits for more after these bytes: no head has ended, and it begins with what a method can begin with."""
    return data[:1] > b" " and _HEAD_END.search(data) is None


def answer(server: ExternalServerSpec, port: ServerPort, request: Request) -> Response:
    """The response of that port to a request: the first answer that matches, else an echo."""
    if is_tunnel(request):
        if port.connect:
            return Response(200, [], connect=request.path or "")
        return Response(405, [("content-length", "0")])
    for choice in port.answers:
        if choice.match is None or _matches(choice.match, request):
            return _respond(server, port, choice, request)
    if port.answers:
        return _text(404, {}, b"not found\n")
    return _echo(server, port, request, Answer(echo=True))


def is_tunnel(request: Request) -> bool:
    """Whether a request asks for a spliced connection (CONNECT over HTTP/1.1; over HTTP/2 it is a request like others)."""
    return request.method == "CONNECT" and request.http != "HTTP/2"


def answer_bytes(server: ExternalServerSpec, port: ServerPort, data: bytes) -> bytes:
    """What a port that speaks no HTTP says to the first bytes it gets, before it closes."""
    return f"{server.name}:{port.port} got ".encode() + data


def received(server: ExternalServerSpec, port: ServerPort, peer: str, tls: ClientTls | None) -> dict[str, Json]:
    """The part of the record of an arrival that every connection has."""
    note: dict[str, Json] = {
        "server": server.name, "port": port.port, "protocol": {"https": "tls"}.get(port.protocol, port.protocol), "peer": peer,
    }
    if tls is not None:
        note["tls"] = {"sni": tls.sni, "alpn": tls.alpn, "client": list(tls.client)}
    return note


def record(server: ExternalServerSpec, port: ServerPort, request: Request) -> dict[str, Json]:
    """A request as the server saw it; the JSON of an echo."""
    note = received(server, port, request.peer, request.tls)
    note["http"], note["method"], note["path"] = request.http, request.method, request.path
    if not is_tunnel(request):
        note["authority"] = request.authority
    note["headers"] = [[name, value] for name, value in request.headers]
    if not is_tunnel(request):
        note["body"] = request.body.decode("latin-1")
    return note


class CertificateRecipe(msgspec.Struct, rename="camel", kw_only=True, forbid_unknown_fields=True, frozen=True):
    """How a certificate is made, as the files in `certs/` say it; what is absent is as in a good one.

    names, ca: instead of what the server asks for. starts, ends: days from the moment of signing.
    usages: what it may be used for. self_signed: it is its own issuer. revoked: it is on its issuer's revocation list.
    """

    names: tuple[str, ...] = ()
    ca: str = ""
    starts: float = -1
    ends: float = 365
    usages: tuple[Literal["server", "client"], ...] = ("server", "client")
    self_signed: bool = False
    revoked: bool = False


GOOD = CertificateRecipe()


class Presented(NamedTuple):
    """A certificate as it is shown: its names, who signed it, and how it was made."""

    names: tuple[str, ...]
    ca: str
    recipe: CertificateRecipe = GOOD


def presented(server: ExternalServerSpec, port: ServerPort, sni: str | None, recipes: Mapping[str, CertificateRecipe]) -> Presented:
    """The certificate for a client that asks for the name `sni` (None: it names none).

    Raises KeyError for a recipe that `recipes` lacks.
    """
    certificate = port.certificate
    names = certificate.names or server.hosts
    return described(certificate, [sni or names[0]] if certificate.any_name else names, recipes)


def described(certificate: SignedCertificate, names: Iterable[str], recipes: Mapping[str, CertificateRecipe]) -> Presented:
    """A certificate for these names. Raises KeyError for a recipe that `recipes` lacks."""
    recipe = recipes[certificate.recipe] if certificate.recipe else GOOD
    return Presented(recipe.names or tuple(names), recipe.ca or certificate.ca, recipe)


def _matches(match: AnswerMatch, request: Request) -> bool:
    path = (request.path or "").partition("?")[0]
    host = request.authority.rpartition(":")[0] if request.authority.rpartition(":")[2].isdigit() else request.authority
    return (
        (not match.method or match.method == request.method)
        and (not match.host or match.host.lower() == host.lower())
        and (not match.path or match.path == path)
        and path.startswith(match.path_prefix)
    )


def _respond(server: ExternalServerSpec, port: ServerPort, choice: Answer, request: Request) -> Response:
    if choice.echo:
        return _echo(server, port, request, choice)
    headers = {name.lower(): value for name, value in choice.headers.items()}
    if choice.redirect:
        headers.setdefault("location", choice.redirect.replace("{host}", request.authority).replace("{path}", request.path or ""))
    body = choice.body.encode()
    if choice.body_size and not body:
        body = f"{server.name} is a page of a simulated server.\n".encode()
    status = choice.status or (301 if choice.redirect else 200)
    response = _text(status, headers, body, choice.body_size)
    return response._replace(delay=_seconds(choice.delay), fault=choice.fault)


def _echo(server: ExternalServerSpec, port: ServerPort, request: Request, choice: Answer) -> Response:
    body = msgspec.json.encode(record(server, port, request))
    headers = [("server", ECHO), ("content-type", "application/json"), ("content-length", str(len(body)))]
    headers += [(name.lower(), value) for name, value in choice.headers.items()]
    return Response(choice.status or 200, headers, body, len(body), _seconds(choice.delay), choice.fault)


def _text(status: int, headers: dict[str, str], body: bytes, size: int | None = None) -> Response:
    length = len(body) if size is None else size
    pairs = list(headers.items())
    if length and "content-type" not in headers:
        pairs.append(("content-type", "text/plain"))
    if status >= 200 and status not in (204, 304):
        pairs.append(("content-length", str(length)))
    return Response(status, pairs, body, length if body else 0)


def _seconds(text: str) -> float:
    return float(text.removesuffix("ms")) / 1000 if text.endswith("ms") else float(text.removesuffix("s") or 0)

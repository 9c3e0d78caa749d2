"""Servers outside the proxies in a simulated call: what the world answers, decided where its resources are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any as Json
from typing import NamedTuple, Protocol

from meshsim.resources import external_server
from meshsim.resources.external_server import ClientTls, ExternalServerSpec, Presented, ServerPort
from meshsim.routing import headers, http1, inspection, tls_words
from meshsim.routing.message import Response
from meshsim.simulate.conversation import Conversation, Got, Http, Raw, Tls, closing
from meshsim.simulate.handshake import Answer, Certificate, Handshake, Trust, shake
from meshsim.simulate.world import World, pem_roots


class Clock(Protocol):
    """The virtual time a server may spend."""

    now: float


@dataclass(eq=False)
class Server:
    """Somebody outside a proxy who answers: a server of the world, or an application in a pod."""

    spec: ExternalServerSpec
    port: ServerPort
    address: str


class Visit(NamedTuple):
    """The side of a call that servers see: where arrivals are noted, and when the caller gives up."""

    arrivals: list[dict[str, Json]]
    deadline: float


class Servers:
    """Answers for every server of a world. Arrivals are noted in the recorded form."""

    def __init__(self, world: World, clock: Clock):
        self._world, self._clock = world, clock

    def serve(self, server: Server, source: str, talk: Conversation, visit: Visit) -> Got:
        if server.port.is_tls:
            return self._tls(server, source, talk, visit)
        return self._plain(server, source, talk, None, visit)

    def _tls(self, server: Server, source: str, talk: Conversation, visit: Visit) -> Got:
        if not isinstance(talk, Tls):
            return Got(error="eof", end="eof")
        if server.port.handshake == "stall":
            return Got(error="timeout", end="timeout", handshake=Handshake(False, told="timeout"))
        if server.port.handshake == "reset":
            return Got(error="reset", handshake=Handshake(False, client_words=tls_words.RESET, told="reset"))
        shown = external_server.presented(server.spec, server.port, talk.offer.sni or None, self._world.recipes)
        clients = server.port.client_certificates
        accepted = Trust(frozenset([*clients.trust, *_pem_labels(clients.pem)])) if clients.mode != "none" else None
        answer = Answer(
            certificate_of(shown),
            tuple(server.port.alpn),
            clients.mode == "required",
            accepted,
            (12 if server.port.min_tls == "1.2" else 13, 12 if server.port.max_tls == "1.2" else 13),
        )
        outcome = shake(talk.offer, answer)
        if not outcome.ok:
            return Got(handshake=outcome, inner=Got(error="eof") if outcome.late else None)
        learned = ClientTls(talk.offer.sni or None, outcome.alpn or None, outcome.client.names if outcome.client else ())
        inner = talk.inner
        if isinstance(inner, Http) and inner.http2 is None:
            inner = replace(inner, http2=outcome.alpn == "h2")
        return Got(handshake=outcome, inner=self._plain(server, source, inner or Raw(), learned, visit))

    def _plain(self, server: Server, source: str, talk: Conversation, tls: ClientTls | None, visit: Visit) -> Got:
        note = external_server.received(server.spec, server.port, source, tls)
        if isinstance(talk, Raw) and server.port.is_http and (parsed := inspection.request(talk.data)):
            talk = Http(parsed, spelled=talk.data)
        elif isinstance(talk, Http) and talk.spelled and not talk.http2 and not inspection.http_protocol(talk.spelled):
            visit.arrivals.append({**note, "bytes": talk.spelled.decode("latin-1")})
            return Got(response=Response(400, [("connection", "close")]))
        elif isinstance(talk, Http) and talk.http2 and external_server.HTTP2 not in server.port.alpn:
            visit.arrivals.append({**note, "bytes": talk.head().decode("latin-1")})
            return Got(error="not http", data=external_server.BAD_REQUEST)
        if isinstance(talk, Tls):
            visit.arrivals.append({**note, "client_hello": {"sni": talk.offer.sni or None, "alpn": list(talk.offer.alpn)}})
            return Got(handshake=not_tls())
        if isinstance(talk, Raw) or not server.port.is_http:
            data = talk.data if isinstance(talk, Raw) else talk.head()
            visit.arrivals.append({**note, "bytes": data.decode("latin-1")})
            if not data or (server.port.is_http and external_server.may_become_a_request(data)):
                return Got(end="open")
            if server.port.is_http:
                return Got(data=external_server.BAD_REQUEST, end="eof")
            said = external_server.answer_bytes(server.spec, server.port, data)
            return Got(data=said, end="eof", error="not http" if isinstance(talk, Http) else "")
        got = self._answer(server, source, talk, tls, visit)
        return replace(closing(got), end="eof") if talk.request.version == http1.OLD and got.response else got

    def _answer(self, server: Server, source: str, talk: Http, tls: ClientTls | None, visit: Visit) -> Got:
        request = talk.request
        fields = list(request.headers)
        no_length = not talk.body and request.method not in headers.BODILESS and request.first("content-length") is None
        if no_length and not talk.http2 and not talk.spelled:
            fields.append(("content-length", "0"))  # what an HTTP/1 encoder writes for a request without a body
        if not talk.http2:
            fields = [("host", request.authority), *fields]
        target = request.authority if request.method == "CONNECT" and not talk.http2 else request.path
        version = "HTTP/2" if talk.http2 else request.version if talk.spelled else "HTTP/1.1"
        arrived = external_server.Request(version, request.method, target or None, request.authority, fields, talk.body, source, tls)
        note = external_server.record(server.spec, server.port, arrived)
        visit.arrivals.append(note)
        response = external_server.answer(server.spec, server.port, arrived)
        if response.connect:
            return Got(response=Response(response.status, []), data=f"{server.address} {response.connect}".encode())
        if response.fault == "stall" or self._clock.now + response.delay > visit.deadline:
            return Got(error="timeout")
        self._clock.now += response.delay
        if response.fault in ("close", "reset"):
            return Got(error="eof" if response.fault == "close" else "reset")
        if response.fault == "garbage":
            return Got(error="not http", data=external_server.GARBAGE)
        is_echo = ("server", external_server.ECHO) in response.headers
        body = next(response.chunks(), b"") if request.method != "HEAD" else b""
        return Got(response=Response(response.status, list(response.headers), not body), body=body, echo=note if is_echo else None)


def certificate_of(shown: Presented) -> Certificate:
    """The facts of a certificate that is shown, and what is wrong with it in OpenSSL's words."""
    recipe = shown.recipe
    problems = (
        (recipe.self_signed, "self signed certificate"),
        (recipe.ends < 0, "certificate has expired"),
        (recipe.starts > 0, "certificate is not yet valid"),
        ("server" not in recipe.usages, "unsuitable certificate purpose"),
    )
    problem = next((words for wrong, words in problems if wrong), "")
    dns = tuple(n for n in shown.names if "://" not in n)
    return Certificate(dns, tuple(n for n in shown.names if "://" in n), shown.ca, problem=problem, revoked=recipe.revoked)


def not_tls() -> Handshake:
    """What a TLS client makes of an answer in plaintext."""
    return Handshake(False, client_words=tls_words.NOT_TLS, told="tls: WRONG_VERSION_NUMBER")


def _pem_labels(texts: Iterable[str]) -> list[str]:
    return [label for text in texts for label in pem_roots(text.encode())]

"""TLS handshakes decided from facts: who shows which certificate, who trusts whom, what both can speak. No key is involved.

How this works: `Offer` is a client, `Answer` a server; `shake` says what they agree on, or who gives up first and in whose words. With
TLS 1.3 a client that shows a bad certificate (or none) finishes its side before the server objects: the failure is `late`, and shows
where the client reads next (RFC 8446 4.4.2.4, 6).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from meshsim.routing import tls_words
from meshsim.routing.matchers import text as matcher
from meshsim.xds.message import StringMatcher
from meshsim.xds.tls import CertificateValidationContext

VERSIONS = {"TLSv1_0": 10, "TLSv1_1": 11, "TLSv1_2": 12, "TLSv1_3": 13}


@dataclass(frozen=True)
class Certificate:
    """A certificate as far as a verdict needs it. `ca` labels who signed it, and may have `revoked` it; `problem` is what else is wrong
    with it ("expired"...); `key` how it signs, ECDSA or RSA."""

    dns: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()
    ca: str = ""
    subject: str = ""
    problem: str = ""
    revoked: bool = False
    key: str = "ECDSA"

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.dns, *self.uris)


@dataclass(frozen=True)
class Trust:
    """Whose certificates are accepted, and which names must be in them. `roots` None: anybody's. `lists`: the CAs whose revocation lists
    are at hand; None where nobody asks for one."""

    roots: frozenset[str] | None = None
    matchers: tuple[StringMatcher, ...] = ()
    name: str = ""
    lists: frozenset[str] | None = None

    def objection(self, certificate: Certificate) -> str:
        """Why a certificate is refused, in Envoy's words; empty where it is not."""
        if self.roots is None:
            return ""
        if certificate.problem:
            return tls_words.chain_refused(certificate.problem)
        if certificate.ca not in self.roots:
            return tls_words.chain_refused("unable to get local issuer certificate")
        if self.lists is not None and certificate.ca not in self.lists:
            return tls_words.chain_refused("unable to get certificate CRL")
        if self.lists is not None and certificate.revoked:
            return tls_words.chain_refused("certificate revoked")
        if self.matchers and not any(_named(m, certificate) for m in self.matchers):
            return tls_words.name_refused(certificate.names)
        if self.name and not any(covers(pattern, self.name) for pattern in certificate.dns):
            return tls_words.host_refused(self.name, certificate.names)
        return ""


def trust(
    context: CertificateValidationContext | None, roots: frozenset[str] | None, name: str = "", lists: frozenset[str] | None = None
) -> Trust:
    """The trust a validation context asks for; without roots nothing is verified (Envoy)."""
    if roots is None or (context is not None and context.trust_chain_verification == "ACCEPT_UNTRUSTED"):
        return Trust()
    matchers: list[StringMatcher] = []
    if context is not None:
        matchers = [*context.match_subject_alt_names, *(m.matcher for m in context.match_typed_subject_alt_names)]
    return Trust(roots, tuple(matchers), name, lists)


@dataclass(frozen=True)
class Offer:
    """A TLS client. `verifies` None: it goes on whatever it is shown. ciphers: of TLS 1.2 and older, empty for the usual ones."""

    sni: str = ""
    alpn: tuple[str, ...] = ()
    certificate: Certificate | None = None
    verifies: Trust | None = None
    versions: tuple[int, int] = (12, 13)
    ciphers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """A TLS server. alpn: in its order of preference. requires: whether a client must show a certificate; `clients` None: it asks for
    none. ciphers: as for a client."""

    certificate: Certificate
    alpn: tuple[str, ...] = ()
    requires: bool = False
    clients: Trust | None = None
    versions: tuple[int, int] = (12, 13)
    ciphers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Handshake:
    """What came of it. words: Envoy's text at the side that objected; told: what the other side's TLS library says."""

    ok: bool
    server: Certificate | None = None
    client: Certificate | None = None
    alpn: str = ""
    version: int = 13
    late: bool = False
    client_words: str = ""
    server_words: str = ""
    told: str = ""


def shake(offer: Offer, answer: Answer) -> Handshake:
    """The handshake of these two."""
    version = min(offer.versions[1], answer.versions[1])
    if version < max(offer.versions[0], answer.versions[0]):
        return Handshake(
            False,
            version=version,
            client_words=tls_words.VERSION_ALERT,
            server_words=tls_words.UNSUPPORTED,
            told="TLSV1_ALERT_PROTOCOL_VERSION",
        )
    alpn = next((p for p in answer.alpn if p in offer.alpn), "")
    server = answer.certificate
    if version <= 12 and not _shared_cipher(offer.ciphers, answer.ciphers, server.key):
        return Handshake(
            False,
            version=version,
            client_words=tls_words.CIPHER_ALERT,
            server_words=tls_words.NO_SHARED_CIPHER,
            told="SSLV3_ALERT_HANDSHAKE_FAILURE",
        )
    if offer.verifies is not None:
        words = offer.verifies.objection(server)
        if words:
            return Handshake(False, server, version=version, client_words=words, server_words=tls_words.ALERT, told="alert")
    shown = offer.certificate if answer.clients is not None else None
    if shown is None and answer.requires:
        return _refused(
            server, alpn, version, tls_words.NO_CERTIFICATE, "TLSV13_ALERT_CERTIFICATE_REQUIRED", "SSLV3_ALERT_HANDSHAKE_FAILURE"
        )
    if shown is not None and answer.clients is not None:
        words = answer.clients.objection(shown)
        if words:
            return _refused(server, alpn, version, words, "TLSV1_ALERT_UNKNOWN_CA", "TLSV1_ALERT_UNKNOWN_CA")
    return Handshake(True, server, shown, alpn, version)


def _shared_cipher(offered: tuple[str, ...], taken: tuple[str, ...], key: str) -> bool:
    """Whether a suite of both fits the server's key; a suite that names no kind of key is for RSA."""
    if not offered and not taken:
        return True
    suites = set(offered) & set(taken) if offered and taken else {*offered, *taken}
    return any(("ECDSA" if "ECDSA" in suite else "RSA") == key for suite in suites)


def _refused(server: Certificate, alpn: str, version: int, words: str, told_late: str, told: str) -> Handshake:
    """The server objects to the client's certificate."""
    late = version >= 13
    reason = told_late if late else told
    return Handshake(False, server, None, alpn, version, late, tls_words.alert(reason), words, reason)


def covers(pattern: str, name: str) -> bool:
    """Whether a certificate's name stands for a host: `*` for one whole label (RFC 6125 6.4.3)."""
    pattern, name = pattern.lower(), name.lower()
    if pattern.startswith("*."):
        head, _, rest = name.partition(".")
        return bool(head) and rest == pattern[2:]
    return pattern == name


def _named(wanted: StringMatcher, certificate: Certificate) -> bool:
    if wanted.exact is not None and any(covers(p, wanted.exact) for p in certificate.dns):
        return True
    fits = matcher(wanted)
    return any(fits(name) for name in certificate.names)


def ciphers(suites: Iterable[str]) -> tuple[str, ...]:
    """The suites of a TlsParameters message, groups of equal preference (`[A|B]`) taken apart."""
    return tuple(name.strip("[]") for suite in suites for name in suite.split("|"))


def versions(low: str, high: str, default: tuple[int, int]) -> tuple[int, int]:
    """The range a TlsParameters message asks for."""
    return VERSIONS.get(low, default[0]), VERSIONS.get(high, default[1])

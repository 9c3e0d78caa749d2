"""TLS handshakes decided from facts: who shows which certificate, who trusts whom, what both can speak. No key is involved.

How this works: `Offer` is a client, `Answer` a server; `shake` says what they agree on, or who gives up first and in whose words. With
TLS 1.3 a client that shows a bad certificate (or none) finishes its side before the server objects: the failure is `late`, and shows
where the client reads next (RFC 8446 4.4.2.4, 6).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from meshsim.routing import certificates, tls_words
from meshsim.routing.certificates import Facts
from meshsim.xds.tls import CertificateValidationContext

VERSIONS = {"TLSv1_0": 10, "TLSv1_1": 11, "TLSv1_2": 12, "TLSv1_3": 13}


@dataclass(frozen=True)
class Certificate:
    """A certificate as far as a verdict needs it. `ca` labels who signed it, and may have `revoked` it; `problem` is what else is wrong
    with it ("expired"...); `key` how it signs, ECDSA or RSA. sha256, spki: as in Facts; empty for one that a run makes."""

    dns: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()
    ca: str = ""
    subject: str = ""
    problem: str = ""
    revoked: bool = False
    key: str = "ECDSA"
    sha256: str = ""
    spki: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.dns, *self.uris)

    @property
    def facts(self) -> Facts:
        return Facts(self.dns, self.uris, (), self.sha256, self.spki)


@dataclass(frozen=True)
class Trust:
    """Whose certificates are accepted, and which. `roots` None: anybody's. validation: the names and hashes that must be in them; name:
    of a host, as well. `lists`: the CAs whose revocation lists are at hand; None where nobody asks for one."""

    roots: frozenset[str] | None = None
    validation: CertificateValidationContext = field(default_factory=CertificateValidationContext)
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
        return certificates.unfit(self.validation, certificate.facts, self.name)


def trust(
    context: CertificateValidationContext | None, roots: frozenset[str] | None, name: str = "", lists: frozenset[str] | None = None
) -> Trust:
    """The trust a validation context asks for; without roots nothing is verified (Envoy)."""
    if roots is None or (context is not None and context.trust_chain_verification == "ACCEPT_UNTRUSTED"):
        return Trust()
    return Trust(roots, context or CertificateValidationContext(), name, lists)


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
    return Handshake(False, server, None, alpn, version, late, tls_words.failed(reason), words, reason)


def ciphers(suites: Iterable[str]) -> tuple[str, ...]:
    """The suites of a TlsParameters message, groups of equal preference (`[A|B]`) taken apart."""
    return tuple(name.strip("[]") for suite in suites for name in suite.split("|"))


def versions(low: str, high: str, default: tuple[int, int]) -> tuple[int, int]:
    """The range a TlsParameters message asks for."""
    return VERSIONS.get(low, default[0]), VERSIONS.get(high, default[1])

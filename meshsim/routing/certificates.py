"""Verdicts on certificates, from their facts: whether they are those that the configuration asks for."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, NamedTuple

from meshsim.routing import matchers, tls_words
from meshsim.xds.message import StringMatcher
from meshsim.xds.tls import CertificateValidationContext

if TYPE_CHECKING:
    from cryptography import x509


class Facts(NamedTuple):
    """What verdicts need of a certificate: its subject alternative names, and the SHA-256 of it (hex) and of its public key (base64),
    empty where they are not known."""

    dns: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    sha256: str = ""
    spki: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        return self.dns + self.uris + self.addresses


def unfit(validation: CertificateValidationContext, facts: Facts, expected: str = "") -> str:
    """Why a certificate does not fit, as logs say it; empty where it does.

    Any one name matcher suffices, and any one hash. expected: a name that must be there too (auto SAN validation).
    """
    typed = [(m.san_type, m.matcher) for m in validation.match_typed_subject_alt_names]
    untyped = validation.match_subject_alt_names
    if (typed or untyped) and not (any(_fits(kind, m, facts) for kind, m in typed) or any(_fits("", m, facts) for m in untyped)):
        return tls_words.name_refused(facts.names)
    if expected and not _fits("", StringMatcher(exact=expected), facts):
        return tls_words.host_refused(expected, facts.names)
    hashes, keys = validation.verify_certificate_hash, validation.verify_certificate_spki
    if (hashes or keys) and facts.spki not in keys and facts.sha256 not in (h.replace(":", "").lower() for h in hashes):
        return tls_words.hash_refused()
    return ""


def _fits(kind: str, matcher: StringMatcher, facts: Facts) -> bool:
    fits = matchers.text(matcher)
    if kind in ("", "URI") and any(map(fits, facts.uris)):
        return True
    if kind in ("", "IP_ADDRESS") and any(map(fits, facts.addresses)):
        return True
    if kind in ("", "DNS"):
        if matcher.exact is not None:
            return any(covers(name, matcher.exact) for name in facts.dns)
        return any(map(fits, facts.dns))
    return False


def covers(pattern: str, name: str) -> bool:
    """Whether a certificate's DNS name stands for `name`: a leading `*.` for one label, case ignored (RFC 6125 6.4.3)."""
    pattern, name = pattern.lower(), name.lower()
    if pattern.startswith("*."):
        return name.partition(".")[2] == pattern[2:] and not name.startswith(".")
    return pattern == name


def facts(certificate: x509.Certificate, *, hashed: bool = False) -> Facts:
    """The facts of a parsed certificate; its hashes, which cost most, only if asked for."""
    from cryptography import x509 as x

    sha256, spki = _hashes(certificate) if hashed else ("", "")
    try:
        san = certificate.extensions.get_extension_for_class(x.SubjectAlternativeName).value
    except x.ExtensionNotFound:
        return Facts(sha256=sha256, spki=spki)
    return Facts(
        tuple(san.get_values_for_type(x.DNSName)),
        tuple(san.get_values_for_type(x.UniformResourceIdentifier)),
        tuple(str(a) for a in san.get_values_for_type(x.IPAddress)),
        sha256,
        spki,
    )


def _hashes(certificate: x509.Certificate) -> tuple[str, str]:
    from cryptography.hazmat.primitives import hashes, serialization

    key = certificate.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return certificate.fingerprint(hashes.SHA256()).hex(), base64.b64encode(hashlib.sha256(key).digest()).decode()

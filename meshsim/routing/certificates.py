"""Verdicts on certificates, from their facts: whether the names fit what the configuration asks, and the words in which logs say no.

Envoy's words; the number before them is BoringSSL's packed error code (library << 24 | reason).
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, NamedTuple

from meshsim.routing import matchers
from meshsim.xds.message import StringMatcher
from meshsim.xds.tls import CertificateValidationContext

if TYPE_CHECKING:
    from cryptography import x509


class Names(NamedTuple):
    """The subject alternative names of a certificate."""

    dns: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        return self.dns + self.uris + self.addresses


_CODES = {
    "CERTIFICATE_VERIFY_FAILED": 268435581,
    "WRONG_VERSION_NUMBER": 268435703,
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": 268435648,
    "SSLV3_ALERT_HANDSHAKE_FAILURE": 268436496,
    "TLSV1_ALERT_UNKNOWN_CA": 268436504,
    "TLSV1_ALERT_PROTOCOL_VERSION": 268436526,
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": 268436502,
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": 268436501,
    "UNSUPPORTED_PROTOCOL": 268435696,
    "NO_SHARED_CIPHER": 268435640,
    "HANDSHAKE_FAILURE_ON_CLIENT_HELLO": 268435610,
    "HTTP_REQUEST": 268435612,
}
_ALIASES = {"UNSUPPORTED_PROTOCOL": "UNSUPPORTED_PROTOCOL", "NO_PROTOCOLS_AVAILABLE": "NO_SUPPORTED_VERSIONS_ENABLED"}

RESET = "TLS_error:|33554536:system library:OPENSSL_internal:Connection reset by peer:TLS_error_end"


def failure(reason: str, detail: str = "") -> str:
    """What logs print for a failed handshake."""
    return f"TLS_error:|{_numbered(reason)}:{detail + ':' if detail else ''}TLS_error_end"


def _numbered(reason: str) -> str:
    return f"{_CODES.get(reason, 268435456)}:SSL routines:OPENSSL_internal:{reason}"


def unverified(message: str, depth: int = 0) -> str:
    """The certificate chain does not lead to a trusted root, or is not valid now; message: OpenSSL's."""
    message = message.replace("self-signed", "self signed")
    return failure(
        "CERTIFICATE_VERIFY_FAILED",
        f"verify cert failed: X509_verify_cert: certificate verification error at depth {depth}: {message}",
    )


_COUNTED = (
    ("PEER_DID_NOT_RETURN_A_CERTIFICATE", "fail_verify_no_cert"),
    ("verify cert failed: X509_verify_cert", "fail_verify_error"),
    ("verify cert failed: SAN", "fail_verify_san"),
    ("verify cert failed: verify SAN", "fail_verify_san"),
    ("TLS_error", "connection_error"),
)


def counter(reason: str) -> str:
    """The `ssl.` statistic that a failed handshake counts in; empty where the peer just went away, which counts nowhere."""
    return next((name for words, name in _COUNTED if words in reason), "")


def openssl_words(error: ssl.SSLError, *, at_hello: bool = False) -> str:
    """The log's words for an error of Python's ssl. at_hello: it came of the client's first message, before anything was agreed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        message = error.verify_message
        return unverified(message, 1 if "in certificate chain" in message else 0)
    if isinstance(error, ssl.SSLEOFError):
        return ""
    reason = error.reason or "UNKNOWN"
    if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return failure(reason, "peer did not provide required client certificate")
    if reason == "SSLV3_ALERT_HANDSHAKE_FAILURE" and at_hello:
        return f"TLS_error:|{_numbered(reason)}|{_numbered('HANDSHAKE_FAILURE_ON_CLIENT_HELLO')}:TLS_error_end"
    return failure(_ALIASES.get(reason, reason))


def unfit(validation: CertificateValidationContext, names: Names, expected: str = "") -> str:
    """Why a certificate's names do not fit, as logs say it; empty where they do.

    Any one matcher suffices. expected: a name that must be there too (auto SAN validation).
    """
    typed = [(m.san_type, m.matcher) for m in validation.match_typed_subject_alt_names]
    untyped = validation.match_subject_alt_names
    found = ", ".join(names.all)
    if (typed or untyped) and not (any(_fits(kind, m, names) for kind, m in typed) or any(_fits("", m, names) for m in untyped)):
        return failure("CERTIFICATE_VERIFY_FAILED", f"verify cert failed: SAN matcher, certificate SANs are [{found}]")
    if expected and not _fits("", StringMatcher(exact=expected), names):
        return failure(
            "CERTIFICATE_VERIFY_FAILED", f"verify cert failed: verify SAN list, expected SANs: [{expected}], certificate SANs: [{found}]"
        )
    return ""


def _fits(kind: str, matcher: StringMatcher, names: Names) -> bool:
    fits = matchers.text(matcher)
    if kind in ("", "URI") and any(map(fits, names.uris)):
        return True
    if kind in ("", "IP_ADDRESS") and any(map(fits, names.addresses)):
        return True
    if kind in ("", "DNS"):
        if matcher.exact is not None:
            return any(_covers(name, matcher.exact) for name in names.dns)
        return any(map(fits, names.dns))
    return False


def _covers(pattern: str, name: str) -> bool:
    """Whether a certificate's DNS name stands for `name`: a leading `*.` for one label, case ignored (RFC 6125 6.4.3)."""
    pattern, name = pattern.lower(), name.lower()
    if pattern.startswith("*."):
        return name.partition(".")[2] == pattern[2:] and not name.startswith(".")
    return pattern == name


def names(certificate: x509.Certificate) -> Names:
    """The names of a parsed certificate."""
    from cryptography import x509 as x

    try:
        san = certificate.extensions.get_extension_for_class(x.SubjectAlternativeName).value
    except x.ExtensionNotFound:
        return Names()
    return Names(
        tuple(san.get_values_for_type(x.DNSName)),
        tuple(san.get_values_for_type(x.UniformResourceIdentifier)),
        tuple(str(a) for a in san.get_values_for_type(x.IPAddress)),
    )

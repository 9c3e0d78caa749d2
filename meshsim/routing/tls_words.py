"""What Envoy says about TLS that failed: the texts of access logs, built the way BoringSSL's error queue is printed, and their counters.

A text is `TLS_error:|<code>:<library>:OPENSSL_internal:<REASON>[:<detail>]:TLS_error_end`; spaces become underscores in logs. A code is
BoringSSL's library number << 24 | its reason number; a reason that is an alert of the peer has 1000 + the alert's number (RFC 8446 6).
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable

_SSL, _SYSTEM = 16 << 24, 2 << 24
_REASONS = {
    "CERTIFICATE_VERIFY_FAILED": 125,
    "HANDSHAKE_FAILURE_ON_CLIENT_HELLO": 154,
    "HTTP_REQUEST": 156,
    "NO_SHARED_CIPHER": 184,
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": 192,
    "UNSUPPORTED_PROTOCOL": 240,
    "WRONG_VERSION_NUMBER": 247,
    "SSLV3_ALERT_HANDSHAKE_FAILURE": 1040,
    "SSLV3_ALERT_BAD_CERTIFICATE": 1042,
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": 1043,
    "SSLV3_ALERT_CERTIFICATE_REVOKED": 1044,
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": 1045,
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": 1046,
    "TLSV1_ALERT_UNKNOWN_CA": 1048,
    "TLSV1_ALERT_ACCESS_DENIED": 1049,
    "TLSV1_ALERT_PROTOCOL_VERSION": 1070,
    "TLSV1_ALERT_INTERNAL_ERROR": 1080,
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": 1116,
}
_ALIASES = {"NO_PROTOCOLS_AVAILABLE": "NO_SUPPORTED_VERSIONS_ENABLED"}
"""OpenSSL's names for what BoringSSL calls otherwise."""


def failed(reason: str, detail: str = "") -> str:
    """A handshake that ended for one of BoringSSL's reasons."""
    return f"TLS_error:|{_numbered(reason)}:{detail + ':' if detail else ''}TLS_error_end"


def _numbered(reason: str) -> str:
    return f"{_SSL | _REASONS.get(reason, 0)}:SSL routines:OPENSSL_internal:{reason}"


RESET = f"TLS_error:|{_SYSTEM | 104}:system library:OPENSSL_internal:Connection reset by peer:TLS_error_end"
NO_SECRET = "TLS error: Secret is not supplied by SDS"
NOT_TLS = failed("WRONG_VERSION_NUMBER")
HTTP_TO_TLS = failed("HTTP_REQUEST")
NO_CERTIFICATE = failed("PEER_DID_NOT_RETURN_A_CERTIFICATE", "peer did not provide required client certificate")
UNSUPPORTED = failed("UNSUPPORTED_PROTOCOL")
NO_SHARED_CIPHER = failed("NO_SHARED_CIPHER")
CIPHER_ALERT = f"TLS_error:|{_numbered('SSLV3_ALERT_HANDSHAKE_FAILURE')}|{_numbered('HANDSHAKE_FAILURE_ON_CLIENT_HELLO')}:TLS_error_end"
VERSION_ALERT = failed("TLSV1_ALERT_PROTOCOL_VERSION")
ALERT = failed("TLSV1_ALERT_UNKNOWN_CA")


_PROBLEMS = {"unsuitable certificate purpose": "unsupported certificate purpose"}
"""OpenSSL's texts, where BoringSSL's is another one."""


def chain_refused(problem: str, depth: int = 0) -> str:
    """The chain does not lead to a trusted root, or is not valid now; `problem` is OpenSSL's text ("certificate has expired")."""
    problem = _PROBLEMS.get(problem, problem.replace("self-signed", "self signed"))
    if "CRL" in problem or "revoked" in problem:
        problem = f"certificate revocation check against provided CRLs failed: {problem}"
    return _refused(f"X509_verify_cert: certificate verification error at depth {depth}: {problem}")


def name_refused(names: Iterable[str]) -> str:
    """No SAN matcher fits."""
    return _refused(f"SAN matcher, certificate SANs are [{', '.join(names)}]")


def host_refused(wanted: str, names: Iterable[str]) -> str:
    """`auto_san_validation`: the certificate is not for the host asked for."""
    return _refused(f"verify SAN list, expected SANs: [{wanted}], certificate SANs: [{', '.join(names)}]")


def hash_refused() -> str:
    """The certificate is none of those that are named by their hashes."""
    return _refused("cert hash and spki")


def _refused(why: str) -> str:
    return failed("CERTIFICATE_VERIFY_FAILED", f"verify cert failed: {why}")


_COUNTED = (
    ("PEER_DID_NOT_RETURN_A_CERTIFICATE", "fail_verify_no_cert"),
    ("verify cert failed: X509_verify_cert", "fail_verify_error"),
    ("verify cert failed: SAN", "fail_verify_san"),
    ("verify cert failed: verify SAN", "fail_verify_san"),
    ("verify cert failed: cert hash", "fail_verify_cert_hash"),
    ("SSL routines", "connection_error"),
)


def counter(text: str) -> str:
    """The `ssl.` statistic that a failure counts in; empty where the peer just went away or broke the connection, which counts nowhere."""
    return next((name for words, name in _COUNTED if words in text), "")


def of_openssl(error: ssl.SSLError, *, at_hello: bool = False) -> str:
    """The text for an error of Python's ssl. at_hello: it came of the client's first message, before anything was agreed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        message = error.verify_message
        return chain_refused(message, 1 if "in certificate chain" in message else 0)
    if isinstance(error, ssl.SSLEOFError):
        return ""
    reason = error.reason or "UNKNOWN"
    if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return NO_CERTIFICATE
    if reason == "SSLV3_ALERT_HANDSHAKE_FAILURE" and at_hello:
        return CIPHER_ALERT
    return failed(_ALIASES.get(reason, reason))

"""What Envoy says about TLS that failed: the texts of access logs, built the way BoringSSL's error queue is printed.

A text is `TLS_error:|<code>:<library>:OPENSSL_internal:<REASON>[:<detail>]:TLS_error_end`; spaces become underscores in logs. The
codes are BoringSSL's packed library and reason numbers.
"""

from __future__ import annotations

from collections.abc import Iterable

_SSL, _SYSTEM = "SSL routines", "system library"


def _text(code: int, library: str, reason: str, detail: str = "") -> str:
    extra = f":{detail}" if detail else ""
    return f"TLS_error:|{code}:{library}:OPENSSL_internal:{reason}{extra}:TLS_error_end"


NOT_TLS = _text(268435703, _SSL, "WRONG_VERSION_NUMBER")
HTTP_TO_TLS = _text(268435612, _SSL, "HTTP_REQUEST")
RESET = _text(33554536, _SYSTEM, "Connection reset by peer")
NO_CERTIFICATE = _text(268435648, _SSL, "PEER_DID_NOT_RETURN_A_CERTIFICATE", "peer did not provide required client certificate")
UNSUPPORTED = _text(268435696, _SSL, "UNSUPPORTED_PROTOCOL")
NO_SHARED_CIPHER = _text(268435640, _SSL, "NO_SHARED_CIPHER")
CIPHER_ALERT = _text(
    268436496, _SSL, f"SSLV3_ALERT_HANDSHAKE_FAILURE|268435610:{_SSL}:OPENSSL_internal:HANDSHAKE_FAILURE_ON_CLIENT_HELLO"
)
VERSION_ALERT = _text(268436526, _SSL, "TLSV1_ALERT_PROTOCOL_VERSION")
ALERT = _text(268436504, _SSL, "TLSV1_ALERT_UNKNOWN_CA")
_ALERTS = {
    "SSLV3_ALERT_HANDSHAKE_FAILURE": 268436496,
    "TLSV1_ALERT_UNKNOWN_CA": 268436504,
    "TLSV1_ALERT_PROTOCOL_VERSION": 268436526,
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": 268436572,
}


def alert(reason: str) -> str:
    """The peer sent this alert."""
    return _text(_ALERTS.get(reason, 268436496), _SSL, reason)


def chain_refused(problem: str, depth: int = 0) -> str:
    """The chain does not verify; `problem` is OpenSSL's text ("certificate has expired")."""
    detail = f"verify cert failed: X509_verify_cert: certificate verification error at depth {depth}: {problem}"
    return _text(268435581, _SSL, "CERTIFICATE_VERIFY_FAILED", detail)


def name_refused(names: Iterable[str]) -> str:
    """No SAN matcher fits."""
    return _text(
        268435581, _SSL, "CERTIFICATE_VERIFY_FAILED", f"verify cert failed: SAN matcher, certificate SANs are [{', '.join(names)}]"
    )


def host_refused(wanted: str, names: Iterable[str]) -> str:
    """`auto_san_validation`: the certificate is not for the host asked for."""
    detail = f"verify cert failed: verify SAN list, expected SANs: [{wanted}], certificate SANs: [{', '.join(names)}]"
    return _text(268435581, _SSL, "CERTIFICATE_VERIFY_FAILED", detail)

"""TLS as a proxy does it: contexts built once from xds and secrets, handshakes that check names before they are answered.

How this works: `Contexts` turns an xds TLS context and the secrets it names into an `ssl.SSLContext`, kept until a secret changes.
`TlsTransport` sits between a socket's transport and a protocol and runs OpenSSL on memory, which lets it look at the peer's certificate
before its own last flight leaves: a peer whose names do not fit never sees a finished handshake, as with a real Envoy.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any as Json
from typing import cast

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from meshsim.proxy.stats import Meter
from meshsim.routing import certificates, tls_words
from meshsim.routing.facts import Peer
from meshsim.xds.tls import CertificateValidationContext as Validation
from meshsim.xds.tls import CommonTlsContext, DownstreamTlsContext, Secret, TlsCertificate, UpstreamTlsContext

_VERSIONS = {
    "TLSv1_0": ssl.TLSVersion.TLSv1,
    "TLSv1_1": ssl.TLSVersion.TLSv1_1,
    "TLSv1_2": ssl.TLSVersion.TLSv1_2,
    "TLSv1_3": ssl.TLSVersion.TLSv1_3,
}
_ANYBODY = "ACCEPT_UNTRUSTED"  # of `trust_chain_verification`: what does not fit is counted, and taken
_READ = 16 * 1024  # bytes a TLS record holds at most
_LATEST = "TLSv1.3"
_BY_ID = "TLSv1.2"  # the newest version in which a server can resume by a session's id alone (RFC 5246 7.4.1.2)
_LOOKS = 3  # reads after which nobody waits for a ticket any more
_SESSIONS = 64  # names whose session is kept for resumption, the newest: where the client chooses the name there is no end of them


class NoSecret(Exception):
    """A context needs a secret that nothing supplies."""


class Prepared:
    """A context ready for handshakes. `validation` is what the peer's names are checked against; `own_uris` who we are.

    names: of how many servers a session is kept (`max_session_keys`); 0 of none.
    """

    __slots__ = ("context", "names", "own_uris", "sessions", "validation")

    def __init__(self, context: ssl.SSLContext, validation: Validation | None, own_uris: tuple[str, ...], *, names: int = 0):
        self.context, self.validation, self.own_uris, self.names = context, validation, own_uris, names
        self.sessions: dict[str, ssl.SSLSession] = {}

    def keep(self, key: str, session: ssl.SSLSession) -> None:
        """The session to resume by for this name; the oldest name makes room."""
        self.sessions.pop(key, None)
        self.sessions[key] = session
        if len(self.sessions) > self.names:
            del self.sessions[next(iter(self.sessions))]


class Contexts:
    """The contexts of one proxy, by the xds message they come from.

    make_files: called before the files of certificates are read, which may be made only then.
    """

    def __init__(self, make_files: Callable[[], object]) -> None:
        self.make_files = make_files
        self._secrets: dict[str, Secret] = {}
        self._made: dict[tuple[int, tuple[str, ...]], tuple[object, Prepared]] = {}

    def update(self, secrets: Mapping[str, Secret]) -> None:
        """Use these secrets from now on; every context is built again when it is next needed."""
        if secrets != self._secrets:
            self._secrets = dict(secrets)
            self._made.clear()

    def downstream(self, config: DownstreamTlsContext) -> Prepared:
        """Raises NoSecret."""
        return self._kept(config, (), lambda: self._server(config))

    def upstream(self, config: UpstreamTlsContext, alpn: tuple[str, ...]) -> Prepared:
        """Raises NoSecret."""
        return self._kept(config, alpn, lambda: self._client(config, alpn))

    def _kept(self, config: object, alpn: tuple[str, ...], make: Callable[[], Prepared]) -> Prepared:
        key = (id(config), alpn)
        found = self._made.get(key)
        if found is None or found[0] is not config:
            self.make_files()
            found = self._made[key] = (config, make())
        return found[1]

    def _server(self, config: DownstreamTlsContext) -> Prepared:
        common = config.common_tls_context
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.num_tickets = 1  # each holds the client's certificate anew, at a third of the handshake's cost; a proxy keeps one
        self._limit(context, common, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
        own = self._own(context, common)
        if own is None:
            raise NoSecret("a server without a certificate")
        validation = self._validation(common)
        if validation is not None and validation.trusted_ca is not None:
            _trust(context, validation)
            context.verify_mode = ssl.CERT_REQUIRED if config.require_client_certificate else ssl.CERT_OPTIONAL
        if common.alpn_protocols:
            context.set_alpn_protocols(common.alpn_protocols)
        return Prepared(context, validation, own)

    def _client(self, config: UpstreamTlsContext, alpn: tuple[str, ...]) -> Prepared:
        common = config.common_tls_context
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self._limit(context, common, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2)
        own = self._own(context, common)
        validation = self._validation(common)
        if validation is not None and validation.trusted_ca is not None and validation.trust_chain_verification != _ANYBODY:
            _trust(context, validation)
            context.verify_mode = ssl.CERT_REQUIRED
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return Prepared(context, validation, own or (), names=_SESSIONS if config.max_session_keys is None else config.max_session_keys)

    def _limit(self, context: ssl.SSLContext, common: CommonTlsContext, low: ssl.TLSVersion, high: ssl.TLSVersion) -> None:
        given = common.tls_params
        low = _VERSIONS.get(given.tls_minimum_protocol_version, low) if given else low
        high = _VERSIONS.get(given.tls_maximum_protocol_version, high) if given else high
        context.minimum_version, context.maximum_version = low, max(low, high)
        if low < ssl.TLSVersion.TLSv1_2:
            context.set_ciphers("DEFAULT@SECLEVEL=0")  # below which OpenSSL speaks no such old version, and BoringSSL does
        if given and given.cipher_suites:
            names = [c.strip("[]") for suite in given.cipher_suites for c in suite.split("|")]
            context.set_ciphers(":".join(names))

    def _own(self, context: ssl.SSLContext, common: CommonTlsContext) -> tuple[str, ...] | None:
        """Load our certificate; its URIs, or None where the context has none."""
        certificates_ = list(common.tls_certificates)
        for reference in common.tls_certificate_sds_secret_configs:
            secret = self._secrets.get(reference.name)
            if secret is None or secret.tls_certificate is None:
                raise NoSecret(reference.name)
            certificates_.append(secret.tls_certificate)
        uris: tuple[str, ...] | None = None
        for certificate in certificates_:
            uris = _load(context, certificate)
        return uris

    def _validation(self, common: CommonTlsContext) -> Validation | None:
        """What the peer is checked against, with the CA of a secret put in."""
        combined = common.combined_validation_context
        base = combined.default_validation_context if combined else common.validation_context
        reference = combined.validation_context_sds_secret_config if combined else common.validation_context_sds_secret_config
        if reference is None:
            return base
        secret = self._secrets.get(reference.name)
        if secret is None or secret.validation_context is None:
            raise NoSecret(reference.name)
        found = secret.validation_context
        if base is None:
            return found
        return msgspec.structs.replace(base, trusted_ca=found.trusted_ca, crl=found.crl or base.crl)


def _load(context: ssl.SSLContext, certificate: TlsCertificate) -> tuple[str, ...]:
    chain, key = certificate.certificate_chain, certificate.private_key
    if chain is None or key is None or not chain.filename or not key.filename:
        raise NoSecret("a certificate without files")
    try:
        context.load_cert_chain(chain.filename, key.filename)
        with open(chain.filename, "rb") as file:
            return certificates.facts(x509.load_pem_x509_certificate(file.read())).uris
    except (OSError, ValueError) as e:
        raise NoSecret(f"{chain.filename}: {e}") from e


def _trust(context: ssl.SSLContext, validation: Validation) -> None:
    assert validation.trusted_ca is not None
    try:
        context.load_verify_locations(cafile=validation.trusted_ca.filename, cadata=validation.trusted_ca.inline_string)
        if validation.crl is not None and validation.crl.filename:
            context.load_verify_locations(cafile=validation.crl.filename)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
    except (OSError, ssl.SSLError) as e:
        raise NoSecret(f"{validation.trusted_ca.filename}: {e}") from e


@lru_cache(maxsize=256)
def _facts(der: bytes, hashed: bool) -> certificates.Facts:
    """Kept: the same peer shows the same certificate on every connection."""
    return certificates.facts(x509.load_der_x509_certificate(der), hashed=hashed)


@lru_cache(maxsize=256)
def peer_of(der: bytes | None) -> Peer | None:
    """The facts of a peer's certificate, kept."""
    if not der:
        return None
    certificate = x509.load_der_x509_certificate(der)
    facts = certificates.facts(certificate)
    pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
    return Peer(facts.uris, facts.dns, certificate.subject.rfc4514_string(), hashlib.sha256(der).hexdigest(), pem)


class HandshakeFailed(Exception):
    """reason: as logs print it. at_hello: it came of the client's first message, before anything was agreed."""

    def __init__(self, reason: str, *, at_hello: bool = False):
        self.reason, self.at_hello = reason, at_hello
        super().__init__(reason)


class TlsTransport(asyncio.Transport, asyncio.Protocol):
    """TLS over a plain transport. It is a protocol to the socket's transport and a transport to the protocol above.

    on_ready(self) is called once when the handshake is done, on_failure(HandshakeFailed) instead when it fails. on_ready sets `protocol`.
    What came of it is counted in `meter` under Envoy's names (`handshake`, `fail_verify_error`...).
    """

    def __init__(
        self,
        prepared: Prepared,
        *,
        server: bool,
        sni: str = "",
        name: str = "",
        meter: Meter,
        on_ready: Callable[[TlsTransport], None],
        on_failure: Callable[[HandshakeFailed], None],
    ):
        super().__init__()
        self._prepared, self._server, self._sni, self._name = prepared, server, sni, name
        self._on_ready, self._on_failure, self._meter = on_ready, on_failure, meter
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = prepared.context.wrap_bio(self._incoming, self._outgoing, server_side=server, server_hostname=sni or None)
        self._raw: asyncio.Transport | None = None
        self._ready = self._over = self._eof_told = False
        self._looks = 0 if server or not prepared.names else _LOOKS
        self.protocol: asyncio.Protocol | None = None
        self._session_key = f"{sni}|{name}"
        if not server and (session := prepared.sessions.get(self._session_key)) is not None:
            self._tls.session = session

    # the socket's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._raw = cast(asyncio.Transport, transport)
        if not self._server:
            self._shake()

    def data_received(self, data: bytes) -> None:
        self._incoming.write(data)
        if not self._ready:
            self._shake()
            if not self._ready:
                return
        self._deliver()

    def eof_received(self) -> bool:
        if not self._ready:
            self._incoming.write_eof()
            self._shake()
            return False
        self._deliver()
        return self._tell_eof()

    def connection_lost(self, error: Exception | None) -> None:
        if self._over:
            return
        self._over = True
        if not self._ready:
            self._failed(tls_words.RESET if isinstance(error, ConnectionResetError) else "")
        elif self.protocol is not None:
            self.protocol.connection_lost(error)

    def pause_writing(self) -> None:
        if self.protocol is not None:
            self.protocol.pause_writing()

    def resume_writing(self) -> None:
        if self.protocol is not None:
            self.protocol.resume_writing()

    # the handshake

    def _shake(self) -> None:
        if self._over:
            return
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            if not self._server and self._prepared.validation is not None and not self._check(_unverified(self._tls)):
                return
            self._flush()
            return
        except ssl.SSLError as e:
            self._flush()
            self._fail(tls_words.of_openssl(e, at_hello=self._tls.cipher() is None))
            return
        if self._prepared.validation is not None and not self._check(self._tls.getpeercert(True)):
            return
        self._ready = True
        self._flush()
        self._count()
        if self._tls.version() != _LATEST:
            self._keep_session()
        self._on_ready(self)

    def _keep_session(self) -> None:
        """For the next connection. TLS 1.3 sends what resumes it after the handshake (RFC 8446 4.6.1), with the first bytes that follow."""
        if not self._looks:
            return
        self._looks -= 1
        session = self._tls.session  # a copy, at a tenth of a handshake's cost
        if session is not None and (session.has_ticket or (session.id and self._tls.version() == _BY_ID)):
            self._prepared.keep(self._session_key, session)
            self._looks = 0

    def _check(self, der: bytes | None) -> bool:
        """Whether the peer's names fit, as far as its certificate is known; ends the connection if they do not."""
        if not der:
            return True
        validation = self._prepared.validation
        assert validation is not None
        hashed = bool(validation.verify_certificate_hash or validation.verify_certificate_spki)
        failure = certificates.unfit(validation, _facts(der, hashed), self._name)
        if failure and validation.trust_chain_verification == _ANYBODY:
            self._meter.inc(tls_words.counter(failure))
            return True
        if failure:
            self._fail(failure)
        return not failure

    def _fail(self, reason: str) -> None:
        self._over = True
        self._failed(reason)
        if self._raw is not None:
            self._raw.close()

    def _failed(self, reason: str) -> None:
        if name := tls_words.counter(reason):
            self._meter.inc(name)
        self._on_failure(HandshakeFailed(reason, at_hello=self._tls.cipher() is None))

    def _count(self) -> None:
        meter, cipher = self._meter, self._tls.cipher()
        meter.inc("handshake")
        meter.inc(f"versions.{self._tls.version()}")
        if cipher is not None:
            meter.inc(f"ciphers.{cipher[0]}")
        if self._tls.session_reused:
            meter.inc("session_reused")
        if self._tls.getpeercert(True) is None:
            meter.inc("no_certificate")

    # data

    def _deliver(self) -> None:
        if self._over or self.protocol is None:
            return
        pieces: list[bytes] = []  # records are joined: what follows costs as much for one as for sixteen
        ended, broken, came = False, None, self._incoming.pending
        try:
            while piece := self._tls.read(_READ):
                pieces.append(piece)
                if not self._incoming.pending and not self._tls.pending():  # asking would raise, at a third of a read's cost
                    break
            else:
                ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            ended = True
        except ssl.SSLError as e:
            if name := tls_words.counter(tls_words.of_openssl(e)):  # such as a server's alert, which in TLS 1.3 follows the handshake
                self._meter.inc(name)
            broken = e.with_traceback(None)  # whose frame would refer to this one, and keep all of `pieces`
        if came:
            self._keep_session()
        if pieces:
            self.protocol.data_received(b"".join(pieces))
        if self._over:
            return
        if ended:
            if not self._tell_eof():
                self.close()
            return
        self._flush()
        if broken is not None:
            self._broken(broken)

    def _tell_eof(self) -> bool:
        if self._eof_told or self.protocol is None:
            return False
        self._eof_told = True
        return bool(self.protocol.eof_received())

    def _broken(self, error: Exception) -> None:
        self._over = True
        if self._raw is not None:
            self._raw.abort()
        if self.protocol is not None:
            self.protocol.connection_lost(error)

    def _flush(self) -> None:
        if self._outgoing.pending and self._raw is not None:
            self._raw.write(self._outgoing.read())

    # the protocol's side

    @property
    def alpn(self) -> str | None:
        return self._tls.selected_alpn_protocol()

    @property
    def own_uris(self) -> tuple[str, ...]:
        return self._prepared.own_uris

    def peer(self) -> Peer | None:
        return peer_of(self._tls.getpeercert(True))

    def get_extra_info(self, name: str, default: Json = None) -> Json:
        if name == "ssl_object":
            return self._tls
        return self._raw.get_extra_info(name, default) if self._raw else default

    def start(self, protocol: asyncio.Protocol) -> None:
        """Give what arrives to `protocol`; what is there already at once."""
        self.protocol = protocol
        protocol.connection_made(self)
        self._deliver()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = cast(asyncio.Protocol, protocol)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._over or not data:
            return
        try:
            self._tls.write(data)
        except ssl.SSLError as e:
            self._broken(e)
            return
        self._flush()

    def writelines(self, list_of_data: Json) -> None:
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """TLS' own end of stream (close_notify), then the socket's."""
        if self._raw is None or self._over:
            return
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            pass
        self._flush()
        if self._raw.can_write_eof() and not self._raw.is_closing():
            self._raw.write_eof()

    def close(self) -> None:
        if self._raw is None or self._raw.is_closing():
            return
        if self._ready:
            try:
                self._tls.unwrap()
            except (ssl.SSLError, OSError):
                pass
            self._flush()
        self._raw.close()

    def abort(self) -> None:
        if self._raw is not None:
            self._raw.abort()

    def is_closing(self) -> bool:
        return self._over or self._raw is None or self._raw.is_closing()

    def pause_reading(self) -> None:
        if self._raw is not None and not self._raw.is_closing():
            self._raw.pause_reading()

    def resume_reading(self) -> None:
        if self._raw is not None and not self._raw.is_closing():
            self._raw.resume_reading()

    def is_reading(self) -> bool:
        return self._raw is not None and self._raw.is_reading()

    def get_write_buffer_size(self) -> int:
        return self._raw.get_write_buffer_size() if self._raw else 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if self._raw is not None:
            self._raw.set_write_buffer_limits(high, low)


def _unverified(tls: ssl.SSLObject) -> bytes | None:
    """The certificate the server sent, in the middle of the handshake (public since Python 3.13)."""
    inner = getattr(tls, "_sslobj", None)
    chain = inner.get_unverified_chain() if inner is not None else None
    if not chain:
        return None
    leaf = chain[0]
    return leaf if isinstance(leaf, bytes) else bytes(leaf.public_bytes(2))  # 2: DER

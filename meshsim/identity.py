"""Who is who in the mesh: SPIFFE ids, the mesh CA, workload certificates and their rotation.

How this works: an `Authority` is a CA (key, certificate, and the chain up to the root it is trusted by) that signs leaf
certificates. The mesh's is made anew for each run, or read from the files of Istio's `cacerts` secret. A `Workload` keeps one
proxy's certificate on disk: each issue goes into files of a new name, so that whoever holds the old paths still reads a matching
pair, and then the caller points the proxy's secret at the new ones.

Istio (istio.md 8.1): one URI SAN, critical, with an empty subject; server and client usage; valid 24 h; renewed when half of that is left.
Keys are P-256, made at run time, written with mode 0600 and never anywhere else.
"""

from __future__ import annotations

import datetime
import ipaddress
import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from meshsim.errors import MeshsimError

WORKLOAD_TTL = datetime.timedelta(hours=24)  # Istio: SECRET_TTL
ROOT_TTL = datetime.timedelta(days=3650)
GRACE_RATIO = 0.5  # Istio: SECRET_GRACE_PERIOD_RATIO, the share of its life that a certificate still has when it is renewed
CLOCK_SKEW = datetime.timedelta(minutes=2)  # Istio: certificates are valid from two minutes before they were made

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
Clock = Callable[[], datetime.datetime]

_USAGES = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}


class IdentityError(MeshsimError):
    """CA files that do not fit together or cannot be read."""


def utc_now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


@dataclass(frozen=True, slots=True)
class Leaf:
    """What a certificate shall say.

    names: DNS names and IP addresses; uris: URI SANs.
    common_name: empty for an empty subject, which makes the SANs critical (RFC 5280 4.2.1.6).
    starts, ends: relative to the moment of signing. usages: of `server` and `client`. serial: a random one where None.
    """

    names: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()
    common_name: str = ""
    starts: datetime.timedelta = -CLOCK_SKEW
    ends: datetime.timedelta = WORKLOAD_TTL
    usages: tuple[str, ...] = ("server", "client")
    serial: int | None = None


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate with its key and the intermediates that lead to (and leave out) the root."""

    certificate: x509.Certificate
    key: PrivateKey
    intermediates: tuple[x509.Certificate, ...] = ()

    def chain_pem(self) -> bytes:
        return b"".join(c.public_bytes(serialization.Encoding.PEM) for c in (self.certificate, *self.intermediates))

    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def write(self, chain: Path, key: Path) -> None:
        """Write both as PEM, the key readable by its owner only."""
        write_private(key, self.key_pem())
        write_private(chain, self.chain_pem())


class Authority:
    """A CA. `root` is what peers trust; `pair` signs, and is the root itself where there is no intermediate."""

    def __init__(self, pair: KeyPair, root: x509.Certificate, clock: Clock = utc_now):
        self.pair, self.root, self.clock = pair, root, clock

    @classmethod
    def create(cls, organization: str, *, intermediate: bool = False, clock: Clock = utc_now) -> Authority:
        """A new self-signed CA; with `intermediate`, one below it signs and the root's key is forgotten."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization)])
        root = _sign_ca(name, key, name, key, clock())
        if not intermediate:
            return cls(KeyPair(root, key), root, clock)
        below = ec.generate_private_key(ec.SECP256R1())
        below_name = x509.Name([*name, x509.NameAttribute(NameOID.COMMON_NAME, "intermediate")])
        signing = _sign_ca(below_name, below, name, key, clock())
        return cls(KeyPair(signing, below), root, clock)

    @classmethod
    def from_cacerts(cls, folder: Path, clock: Clock = utc_now) -> Authority:
        """The CA in the files of Istio's `cacerts` secret: ca-cert.pem, ca-key.pem, cert-chain.pem, root-cert.pem.

        Raises IdentityError where one is missing or they do not belong together.
        """
        try:
            certificate = x509.load_pem_x509_certificate((folder / "ca-cert.pem").read_bytes())
            key = serialization.load_pem_private_key((folder / "ca-key.pem").read_bytes(), None)
            root = x509.load_pem_x509_certificate((folder / "root-cert.pem").read_bytes())
            chain_file = folder / "cert-chain.pem"
            chain = x509.load_pem_x509_certificates(chain_file.read_bytes()) if chain_file.exists() else []
        except (OSError, ValueError) as e:
            raise IdentityError(f"{folder}: cannot read the CA: {e}") from e
        if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
            raise IdentityError(f"{folder}/ca-key.pem: neither an EC nor an RSA key")
        if _spki(key.public_key()) != _spki(certificate.public_key()):
            raise IdentityError(f"{folder}: ca-key.pem is not the key of ca-cert.pem")
        above = tuple(dict.fromkeys(c for c in chain if c not in (certificate, root)))
        for child, issuer in itertools.pairwise((certificate, *above, root)):
            try:
                child.verify_directly_issued_by(issuer)
            except Exception as e:
                raise IdentityError(f"{folder}: {child.subject.rfc4514_string()} is not issued by {issuer.subject.rfc4514_string()}") from e
        return cls(KeyPair(certificate, key, above), root, clock)

    def root_pem(self) -> bytes:
        return self.root.public_bytes(serialization.Encoding.PEM)

    def issue(self, leaf: Leaf, key: PrivateKey | None = None) -> KeyPair:
        """A certificate with a new P-256 key (or `key`), signed by this CA."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        certificate = _sign_leaf(leaf, key, self.pair.certificate.subject, self.pair.key, self.clock())
        signer = self.pair.certificate
        return KeyPair(certificate, key, (signer, *self.pair.intermediates) if signer != self.root else ())

    def workload(self, uri: str) -> KeyPair:
        """A workload's certificate: the SPIFFE id and nothing else."""
        return self.issue(Leaf(uris=(uri,)))

    def crl_pem(self, revoked: Iterable[int]) -> bytes:
        """A revocation list with these serial numbers."""
        now = self.clock()
        builder = x509.CertificateRevocationListBuilder(self.pair.certificate.subject, now, now + ROOT_TTL)
        for serial in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(self.pair.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def self_signed(leaf: Leaf, clock: Clock = utc_now) -> KeyPair:
    """A certificate that is its own issuer, for any usage: BoringSSL calls none self-signed whose key may not sign certificates."""
    key = ec.generate_private_key(ec.SECP256R1())
    return KeyPair(_sign_leaf(leaf, key, _subject(leaf), key, clock(), limited=False), key)


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """Where one issue of a certificate is on disk, and when it should be replaced."""

    chain: Path
    key: Path
    root: Path
    renew_at: datetime.datetime


class Workload:
    """One proxy's certificate in its folder, issued again before it is too old.

    The newest issue is linked as cert-chain.pem, key.pem and root-cert.pem too, the names that applications and the 2018 paths know.
    """

    def __init__(self, authority: Authority, uri: str, folder: Path):
        self.authority, self.uri, self.folder = authority, uri, folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._issue = 0
        self.files = self.renew()

    def renew(self) -> CertificateFiles:
        """Issue a certificate into new files; the previous issue's files stay, those before it go."""
        pair = self.authority.workload(self.uri)
        self._issue += 1
        files = CertificateFiles(*issue_files(self.folder, self._issue), renewal_time(pair.certificate))
        pair.write(files.chain, files.key)
        write_private(files.root, self.authority.root_pem())
        for path, name in ((files.chain, "cert-chain.pem"), (files.key, "key.pem"), (files.root, "root-cert.pem")):
            _link(self.folder / name, path.name)
        if self._issue > 2:
            for path in issue_files(self.folder, self._issue - 2):
                path.unlink(missing_ok=True)
        self.files = files
        return files

    @property
    def is_due(self) -> bool:
        return self.authority.clock() >= self.files.renew_at


def issue_files(folder: Path, issue: int = 1) -> tuple[Path, Path, Path]:
    """Where an issue of a workload's certificate is: chain, key and root."""
    return folder / f"cert-chain.{issue}.pem", folder / f"key.{issue}.pem", folder / f"root-cert.{issue}.pem"


def renewal_time(certificate: x509.Certificate) -> datetime.datetime:
    """When half of its life is left."""
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return end - (end - start) * GRACE_RATIO


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read, and that is never seen half written."""
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    temporary.replace(path)


def _link(path: Path, target: str) -> None:
    temporary = path.with_name(f".{path.name}.link")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(path)


def _spki(key: object) -> bytes:
    encoding, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(encoding, form)  # type: ignore[attr-defined,no-any-return]  # every public key has it; no common base


def _key_usage(ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=not ca, data_encipherment=False, key_agreement=False,
        key_cert_sign=ca, crl_sign=ca, encipher_only=False, decipher_only=False,
    )


def _sign_ca(
    subject: x509.Name, key: PrivateKey, issuer: x509.Name, signer: PrivateKey, now: datetime.datetime
) -> x509.Certificate:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW - datetime.timedelta(days=1))
        .not_valid_after(now + ROOT_TTL)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_key_usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )


def _subject(leaf: Leaf) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, leaf.common_name[:64])] if leaf.common_name else [])


def _sign_leaf(
    leaf: Leaf, key: PrivateKey, issuer: x509.Name, signer: PrivateKey, now: datetime.datetime, *, limited: bool = True
) -> x509.Certificate:
    """limited: whether the key's usages are listed."""
    names: Sequence[x509.GeneralName] = [*map(_general_name, leaf.names), *map(x509.UniformResourceIdentifier, leaf.uris)]
    subject = _subject(leaf)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(leaf.serial or x509.random_serial_number())
        .not_valid_before(now + leaf.starts)
        .not_valid_after(now + leaf.ends)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([_USAGES[usage] for usage in leaf.usages]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if limited:
        builder = builder.add_extension(_key_usage(ca=False), critical=True)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=not leaf.common_name)
    return builder.sign(signer, hashes.SHA256())


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)

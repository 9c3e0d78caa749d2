"""The facts of the world a simulated call meets: addresses, servers, certificates. Data in, answers out.

`Secrets` gives a proxy's certificates and roots by SDS name; `Names` looks hosts up as a pod does. What an external server answers is
decided beside its resource, as for the live world.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from meshsim.cluster import search_order
from meshsim.resources.external_server import CertificateRecipe, ExternalServerSpec, Place, places
from meshsim.resources.interception import Interception
from meshsim.resources.network_policy import Walls
from meshsim.routing import certificates
from meshsim.simulate.handshake import Certificate
from meshsim.xds.name_table import NameTable

MESH, PUBLIC = "mesh", "public"
KubernetesSecrets = Mapping[tuple[str, str], Mapping[str, bytes]]


@dataclass
class World:
    """Everything outside the proxies.

    names: absolute host to addresses. services: `ip:port` of a Service to the `ip:port`s behind it. recipes: how certificates of
    external servers may differ from good ones. apps: what answers inside a pod with a sidecar, by the pod's address. walls: what
    NetworkPolicies drop. bare: address and namespace of pods without a proxy, by name. interceptions: what sidecars get, by their
    pod's address.
    """

    names: Mapping[str, list[str]] = field(default_factory=dict)
    services: Mapping[str, list[str]] = field(default_factory=dict)
    servers: Iterable[ExternalServerSpec] = ()
    recipes: Mapping[str, CertificateRecipe] = field(default_factory=dict)
    apps: Mapping[str, ExternalServerSpec] = field(default_factory=dict)
    trust_domain: str = "cluster.local"
    walls: Walls = field(default_factory=Walls)
    bare: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    interceptions: Mapping[str, Interception] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.places: dict[tuple[str, int], Place] = places(self.servers)

    def resolve(self, name: str) -> list[str]:
        """What the cluster's DNS says to a proxy: absolute names, IPv4."""
        name = name.lower().rstrip(".")
        found = self.names.get(name)
        while found is None and "." in name:
            name = name.partition(".")[2]
            found = self.names.get(f"*.{name}")
        return [a for a in found or () if ":" not in a]

    def look_up(self, name: str, namespace: str, agent: NameTable, *, asks: bool = True) -> list[str]:
        """What an application in a pod gets: its search order, what its DNS `agent` answers itself first. `asks`: whether other
        questions reach the cluster's DNS."""
        if name.replace(".", "").isdigit():
            return [name]
        for suffix in ("", *search_order(namespace)):
            absolute = name.rstrip(".").lower() + suffix
            known = agent.find(absolute)
            found = known.addresses if known is not None else self.resolve(absolute) if asks else []
            if found:
                return list(found)
        return []


class SecretFacts(NamedTuple):
    """What a Secret holds: a certificate, the CAs it trusts, and the CAs whose revocation lists it has; None for what it lacks."""

    certificate: Certificate | None = None
    roots: frozenset[str] | None = None
    lists: frozenset[str] | None = None


SecretFile = tuple[tuple[str, str], str]
"""A Secret, by namespace and name, and a key in it."""


class Secrets:
    """The certificates and roots one proxy can be given, as facts.

    kubernetes: Secrets as they are written; issued: those that are made when a mesh starts. mounted: the Secret and key behind a path in
    the pod. files: other certificates by path, file_roots: other CAs by path (`system` for the public CAs).
    """

    def __init__(
        self,
        identity: Certificate,
        namespace: str,
        kubernetes: KubernetesSecrets,
        files: Mapping[str, Certificate] | None = None,
        file_roots: Mapping[str, frozenset[str]] | None = None,
        *,
        issued: Mapping[tuple[str, str], SecretFacts] | None = None,
        mounted: Callable[[str], SecretFile | None] = lambda path: None,
    ):
        self._identity, self._namespace, self._kubernetes = identity, namespace, kubernetes
        self._files, self._file_roots = dict(files or {}), {"system": frozenset((PUBLIC,)), **(file_roots or {})}
        self._issued, self._mounted = dict(issued or {}), mounted

    def certificate(self, name: str) -> Certificate | None:
        """The certificate of an SDS name, or None where nothing supplies it."""
        if name == "default":
            return self._identity
        scheme, _, rest = name.partition(":")
        if scheme == "file-cert":
            path = rest.partition("~")[0]
            own = self._identity if path.startswith("/etc/certs/") else None
            return self._files.get(path) or own or self._file(path).certificate
        return self._secret(rest).certificate if scheme == "kubernetes" else None

    def roots(self, name: str) -> frozenset[str] | None:
        """The CAs of an SDS name, or None where nothing supplies it."""
        if name == "ROOTCA":
            return frozenset((MESH,))
        scheme, _, rest = name.partition(":")
        if scheme == "file-root":
            if rest in self._file_roots:
                return self._file_roots[rest]
            return frozenset((MESH,)) if rest.startswith("/etc/certs/") else self._file(rest).roots
        return self._with_ca(rest).roots if scheme == "kubernetes" else None

    def lists(self, name: str) -> frozenset[str] | None:
        """The CAs whose revocation lists come with an SDS name."""
        scheme, _, rest = name.partition(":")
        return self._with_ca(rest).lists if scheme == "kubernetes" else None

    def file_lists(self, path: str) -> frozenset[str] | None:
        """The CAs whose revocation lists are in a file of the pod; None for a file that is not there."""
        return self._file(path).lists

    def _with_ca(self, rest: str) -> SecretFacts:
        found = self._secret(rest)
        return found if found != SecretFacts() else self._secret(rest.removesuffix("-cacert"))

    def _secret(self, rest: str) -> SecretFacts:
        namespace, _, name = rest.removeprefix("//").rpartition("/")
        return self._facts((namespace or self._namespace, name))

    def _facts(self, secret: tuple[str, str]) -> SecretFacts:
        if secret in self._issued:
            return self._issued[secret]
        data = self._kubernetes.get(secret) or {}
        chain, root, crl = (data.get(tls) or data.get(generic) for tls, generic in _KEYS)
        return SecretFacts(
            pem_certificate(chain) if chain else None, pem_roots(root) if root else None, pem_lists(crl) if crl else None
        )

    def _file(self, path: str) -> SecretFacts:
        """The part of a Secret that is the file at that path."""
        secret, key = self._mounted(path) or (("", ""), "")
        facts = self._facts(secret)
        chain, root, crl = (key in keys for keys in _KEYS)
        return SecretFacts(facts.certificate if chain else None, facts.roots if root else None, facts.lists if crl else None)


_KEYS = (("tls.crt", "cert"), ("ca.crt", "cacert"), ("ca.crl", "crl"))  # of a certificate, a root, a list; of `tls` and `generic` Secrets


def pem_certificate(pem: bytes) -> Certificate | None:
    """The leaf of a PEM chain as facts; None for text that holds no certificate."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    try:
        leaf = x509.load_pem_x509_certificates(pem)[0]
    except ValueError:
        return None
    facts, subject = certificates.facts(leaf, hashed=True), leaf.subject.rfc4514_string()
    key = "RSA" if isinstance(leaf.public_key(), RSAPublicKey) else "ECDSA"
    ca = _label(leaf.issuer.public_bytes())
    return Certificate(facts.dns, facts.uris, ca, subject, key=key, sha256=facts.sha256, spki=facts.spki)


def pem_roots(pem: bytes) -> frozenset[str]:
    """The CAs in a PEM bundle."""
    from cryptography import x509

    try:
        return frozenset(_label(c.subject.public_bytes()) for c in x509.load_pem_x509_certificates(pem))
    except ValueError:
        return frozenset()


def pem_lists(pem: bytes) -> frozenset[str]:
    """The CA of a revocation list."""
    from cryptography import x509

    try:
        return frozenset((_label(x509.load_pem_x509_crl(pem).issuer.public_bytes()),))
    except ValueError:
        return frozenset()


def _label(name: bytes) -> str:
    return "name:" + base64.b64encode(name).decode()

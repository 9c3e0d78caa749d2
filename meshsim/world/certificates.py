"""The certificates of the outside: the CAs everyone may know, and what each server shows.

How this works: `certs/*.yaml` say which CAs there are and how a certificate may be spoilt; `Authorities` makes the CAs when they are first
needed, in a private folder that the processes of one mesh share, and issues from them. Nothing is ever stored beside the recipes.
"""

from __future__ import annotations

import datetime
import fcntl
import ssl
import tempfile
from pathlib import Path

from meshsim.identity import Authority, KeyPair, Leaf, self_signed, write_private
from meshsim.resources import recipes
from meshsim.resources.external_server import ExternalServerSpec, Presented, ServerPort, described, presented
from meshsim.resources.issued_secret import IssuedSecretSpec

_ASKED = "_meshsim_sni"  # where a connection keeps the name its client asked for
_ROOT = "root-cert.pem"
_REVOKED = 0x4D534D52  # the serial number of every revoked certificate: its CA can list it before any process has issued it
_TLS_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


class Authorities:
    """The CAs of one mesh by name (mesh, public, partner, unknown).

    shared: whether other processes of the mesh have the same ones, from the folder. Else no CA's key is ever written.
    """

    def __init__(self, folder: Path, *, shared: bool = True):
        self.folder, self._shared = folder, shared
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._known: dict[str, Authority] = {}
        self._issued: dict[Presented, KeyPair] = {}
        self._lists: dict[str, bytes] = {}

    def __getitem__(self, name: str) -> Authority:
        """Raises KeyError for a name that `certs/authorities.yaml` lacks."""
        if name not in self._known:
            self._known[name] = self._load_or_create(name)
        return self._known[name]

    def adopt(self, name: str, authority: Authority) -> None:
        """Use a CA from elsewhere under this name, in the other processes too."""
        self._known[name] = authority
        if self._shared:
            self._store(name, authority)

    def root_file(self, name: str) -> Path:
        """The root certificate of a CA as a PEM file."""
        root = self[name].root_pem()
        file = self.folder / name / _ROOT
        if not file.exists():
            file.parent.mkdir(mode=0o700, exist_ok=True)
            write_private(file, root)
        return file

    def issue(self, wanted: Presented) -> KeyPair:
        """The certificate so described; the same one each time."""
        if wanted not in self._issued:
            self._issued[wanted] = self._sign(wanted)
        return self._issued[wanted]

    def secret(self, spec: IssuedSecretSpec) -> dict[str, bytes]:
        """The contents of a Secret, by key. Raises KeyError for a recipe or an authority that `certs/` lacks."""
        data: dict[str, bytes] = {}
        if spec.certificate is not None:
            pair = self.issue(described(spec.certificate, spec.certificate.names, recipes.certificates()))
            data |= {"tls.crt": pair.chain_pem(), "tls.key": pair.key_pem()}
        if spec.trust:
            data["ca.crt"] = self[spec.trust].root_pem()
        if spec.revocations:
            data["ca.crl"] = self.revocations(spec.trust)
        return data

    def revocations(self, name: str) -> bytes:
        """The revocation list of a CA as PEM; the same one each time."""
        if name not in self._lists:
            self._lists[name] = self[name].crl_pem([_REVOKED])
        return self._lists[name]

    def _sign(self, wanted: Presented) -> KeyPair:
        recipe = wanted.recipe
        leaf = Leaf(
            names=wanted.names,
            common_name=wanted.names[0],
            starts=datetime.timedelta(days=recipe.starts),
            ends=datetime.timedelta(days=recipe.ends),
            usages=recipe.usages,
            serial=_REVOKED if recipe.revoked else None,
        )
        return self_signed(leaf) if recipe.self_signed else self[wanted.ca].issue(leaf)

    def _load_or_create(self, name: str) -> Authority:
        recipe = recipes.authorities()[name]
        if not self._shared:
            return Authority.create(recipe.organization, intermediate=recipe.intermediate)
        with open(self.folder / ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if (self.folder / name / _ROOT).exists():
                return Authority.from_cacerts(self.folder / name)
            authority = Authority.create(recipe.organization, intermediate=recipe.intermediate)
            self._store(name, authority)
            return authority

    def _store(self, name: str, authority: Authority) -> None:
        folder = self.folder / name
        folder.mkdir(mode=0o700, exist_ok=True)
        authority.pair.write(folder / "ca-cert.pem", folder / "ca-key.pem")
        write_private(folder / "cert-chain.pem", authority.pair.chain_pem())
        write_private(folder / _ROOT, authority.root_pem())  # last: the others look for it


class ServerContexts:
    """The TLS contexts of one port: one per certificate, each built when a client first asks for it."""

    def __init__(self, authorities: Authorities, server: ExternalServerSpec, port: ServerPort):
        self._authorities, self._server, self._port = authorities, server, port
        self._contexts: dict[Presented, ssl.SSLContext] = {}
        self._default: ssl.SSLContext | None = None

    def default(self) -> ssl.SSLContext:
        """The context a handshake begins with; it changes to another one when the client names a name."""
        if self._default is None:
            self._default = self._context(self._presented(None))
            self._default.sni_callback = self._choose
        return self._default

    def _presented(self, sni: str | None) -> Presented:
        return presented(self._server, self._port, sni, recipes.certificates())

    def _choose(self, connection: ssl.SSLObject, sni: str | None, _: ssl.SSLContext) -> None:
        setattr(connection, _ASKED, sni)
        wanted = self._presented(sni)
        if wanted != self._presented(None):
            if wanted not in self._contexts:
                self._contexts[wanted] = self._context(wanted)
            connection.context = self._contexts[wanted]

    def _context(self, wanted: Presented) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version, context.maximum_version = _TLS_VERSIONS[self._port.min_tls], _TLS_VERSIONS[self._port.max_tls]
        load_pair(context, self._authorities.issue(wanted))
        if self._port.alpn:
            context.set_alpn_protocols(self._port.alpn)
        clients = self._port.client_certificates
        if clients.mode != "none":
            context.verify_mode = ssl.CERT_REQUIRED if clients.mode == "required" else ssl.CERT_OPTIONAL
            roots = [self._authorities[name].root_pem().decode() for name in clients.trust]
            for root in [*roots, *clients.pem]:
                context.load_verify_locations(cadata=root)
        return context


def asked_name(connection: ssl.SSLObject) -> str | None:
    """The name that the client of this connection asked for."""
    name: str | None = getattr(connection, _ASKED, None)
    return name


def load_pair(context: ssl.SSLContext, pair: KeyPair) -> None:
    """Give a context its certificate; Python's ssl takes it from a file only, so one is made, private and short-lived."""
    with tempfile.NamedTemporaryFile() as file:  # mode 0600
        file.write(pair.key_pem() + pair.chain_pem())
        file.flush()
        context.load_cert_chain(file.name)

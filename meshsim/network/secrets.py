"""The secrets a proxy names over SDS, as files: what istio-agent serves in a pod.

Istio's names: `default` and `ROOTCA` are the workload's own certificate and the mesh's root; `file-cert:CHAIN~KEY` and
`file-root:FILE` are files of the pod (`file-root:system` the public CAs); `kubernetes://NAME` and `kubernetes://NAMESPACE/NAME`
are Secrets, with `-cacert` at the end for the CA in one. A Secret keeps its pair under `tls.crt` and `tls.key` or `cert` and
`key`, its CA under `ca.crt` or `cacert`, its revocation list under `ca.crl` or `crl`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from meshsim.xds.message import DataSource
from meshsim.xds.tls import CertificateValidationContext, Secret, TlsCertificate

KubernetesSecrets = Mapping[tuple[str, str], Mapping[str, bytes]]
"""The data of Secrets by namespace and name."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The files of a workload's certificate."""

    chain: Path
    key: Path
    root: Path


class SecretFiles:
    """What one proxy can be given. Called with an SDS name: the secret, or None where nothing supplies it.

    folder: where Secrets' contents are written. namespace: the proxy's, where a Secret without one is looked up.
    identity: the workload's certificate, issued when one of its names is asked for.
    pod_files: the file behind a path in the pod (`system` for the public CAs), or None.
    """

    def __init__(
        self,
        folder: Path,
        namespace: str,
        identity: Callable[[], Identity],
        pod_files: Callable[[str], Path | None],
        kubernetes: KubernetesSecrets,
    ):
        self._identity = identity
        self._folder, self._namespace, self._pod_files, self._kubernetes = folder, namespace, pod_files, kubernetes

    def __call__(self, name: str) -> Secret | None:
        if name == "default":
            identity = self._identity()
            return _pair(name, identity.chain, identity.key)
        if name == "ROOTCA":
            return _root(name, self._identity().root)
        scheme, _, rest = name.partition(":")
        if scheme == "file-cert":
            chain, key = (self._pod_files(path) for path in [*rest.split("~"), ""][:2])
            return _pair(name, chain, key) if chain and key else None
        if scheme == "file-root":
            root = self._pod_files(rest)
            return _root(name, root) if root else None
        if scheme == "kubernetes":
            namespace, _, secret = rest.removeprefix("//").rpartition("/")
            return self._from_kubernetes(name, namespace or self._namespace, secret)
        return None

    def _from_kubernetes(self, name: str, namespace: str, secret: str) -> Secret | None:
        wants_ca = secret.endswith("-cacert")
        data = self._kubernetes.get((namespace, secret))
        if data is None and wants_ca:
            data = self._kubernetes.get((namespace, secret.removesuffix("-cacert")))
        if not data:
            return None
        stem = quote(f"{namespace}.{secret}", safe="")
        if wants_ca:
            pem = data.get("ca.crt") or data.get("cacert")
            crl = data.get("ca.crl") or data.get("crl")
            return _root(name, self._write(f"{stem}.ca.pem", pem), self._write(f"{stem}.crl", crl) if crl else None) if pem else None
        chain, key = data.get("tls.crt") or data.get("cert"), data.get("tls.key") or data.get("key")
        if not chain or not key:
            return None
        return _pair(name, self._write(f"{stem}.pem", chain), self._write(f"{stem}.key", key))

    def _write(self, name: str, data: bytes) -> Path:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._folder / name
        temporary = self._folder / f".{name}.new"
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(data)
        temporary.replace(path)
        return path


def _pair(name: str, chain: Path, key: Path) -> Secret:
    certificate = TlsCertificate(certificate_chain=DataSource(filename=str(chain)), private_key=DataSource(filename=str(key)))
    return Secret(name=name, tls_certificate=certificate)


def _root(name: str, root: Path, crl: Path | None = None) -> Secret:
    context = CertificateValidationContext(trusted_ca=DataSource(filename=str(root)), crl=DataSource(filename=str(crl)) if crl else None)
    return Secret(name=name, validation_context=context)

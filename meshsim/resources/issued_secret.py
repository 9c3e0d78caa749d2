"""IssuedSecret: a Secret whose contents are made when the mesh starts, because keys have no place in files.

    apiVersion: meshsim.dev/v1alpha1
    kind: IssuedSecret
    metadata: {name: client-credential, namespace: istio-system}
    spec:
      certificate: {names: [client.example.com], ca: partner}
      trust: public
      revocations: true

It stands for `kubectl create secret generic client-credential --from-file=tls.crt --from-file=tls.key --from-file=ca.crt
--from-file=ca.crl`: the Secret of that name holds a pair for `certificate`, the root of the authority `trust`, and that authority's
revocation list. A `credentialName` or a volume of a pod refers to it as to any other.
"""

from __future__ import annotations

import msgspec

from meshsim.resources.external_server import SignedCertificate


class IssuedSecretSpec(msgspec.Struct, rename="camel", kw_only=True, forbid_unknown_fields=True):
    """What the Secret holds; what is not given is not in it.

    certificate: `tls.crt` and `tls.key`. trust: `ca.crt`, the root of an authority of `certs/`. revocations: `ca.crl`, of that authority.
    """

    certificate: SignedCertificate | None = None
    trust: str = ""
    revocations: bool = False

    def __post_init__(self) -> None:
        if self.revocations and not self.trust:
            raise ValueError("revocations are those of the authority in trust, which is missing")

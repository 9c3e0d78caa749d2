"""What kubectl calls the kinds: plurals, short names, API groups."""

from __future__ import annotations

from typing import NamedTuple

from meshsim.errors import MeshsimError
from meshsim.resources.kinds import KINDS

_SHORT = {
    "po": "Pod", "svc": "Service", "ns": "Namespace", "no": "Node", "deploy": "Deployment", "ep": "Endpoints", "cm": "ConfigMap",
    "sa": "ServiceAccount", "netpol": "NetworkPolicy", "gw": "Gateway", "vs": "VirtualService", "dr": "DestinationRule",
    "se": "ServiceEntry", "we": "WorkloadEntry", "wg": "WorkloadGroup", "pa": "PeerAuthentication", "ap": "AuthorizationPolicy",
    "ra": "RequestAuthentication", "telemetry": "Telemetry",
}  # fmt: skip
_SAME_IN_PLURAL = "endpoints"


class Named(NamedTuple):
    """A kind as kubectl writes it: `gateways`, `gateway.networking.istio.io`."""

    kind: str
    plural: str
    group: str
    namespaced: bool

    @property
    def qualified(self) -> str:
        """The singular with its group, as in `gateway.networking.istio.io/x created`."""
        return f"{self.kind.lower()}.{self.group}" if self.group else self.kind.lower()

    @property
    def qualified_plural(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural


def named(kind: str) -> Named:
    """A kind of KINDS by its own name."""
    found = KINDS[kind][0]
    return Named(kind, _plural(kind.lower()), found.group, found.namespaced)


def find(word: str) -> Named:
    """A kind by what a user types: `pod`, `pods`, `po`, `gateways.networking.istio.io`. Raises MeshsimError in the server's words."""
    bare = word.lower().split(".")[0]
    for kind in KINDS:
        if bare in (kind.lower(), _plural(kind.lower())):
            return named(kind)
    if bare in _SHORT:
        return named(_SHORT[bare])
    raise MeshsimError(f'error: the server doesn\'t have a resource type "{word}"')


def _plural(word: str) -> str:
    if word == _SAME_IN_PLURAL:
        return word
    if word.endswith("y") and not word.endswith("way"):
        return word[:-1] + "ies"
    return word + "es" if word.endswith("s") else word + "s"

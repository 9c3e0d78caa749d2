"""PeerAuthentication: whether a workload takes plaintext, mutual TLS, or both."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal
from typing import Any as Json

from meshsim.resources.message import Message, WorkloadLabelSelector
from meshsim.resources.shape import Rule, Shape, Unevaluated, enum, rules

Mode = Annotated[
    Literal["UNSET", "DISABLE", "PERMISSIVE", "STRICT"], enum("istio.security.v1beta1.PeerAuthentication.MutualTLS.Mode")
]


class MutualTls(Message):
    mode: Mode = "UNSET"


def _selects(spec: dict[str, Json]) -> bool:
    return bool((spec.get("selector") or {}).get("matchLabels"))


def _ports_in_range(ports: dict[str, Json]) -> bool:
    try:
        return all(0 < int(port) <= 65535 for port in ports)
    except ValueError:
        raise Unevaluated("type conversion error from 'string' to 'int'") from None


class PeerAuthenticationSpec(Message):
    """`port_level_mtls` is keyed by the workload's own (target) port."""

    SHAPE: ClassVar[Shape] = Shape(rules=(Rule("portLevelMtls requires selector", lambda s: "portLevelMtls" not in s or _selects(s)),))

    selector: WorkloadLabelSelector | None = None
    mtls: MutualTls | None = None
    port_level_mtls: Annotated[dict[int, MutualTls], rules(("port must be between 1-65535", _ports_in_range), minProperties=1)] = {}

"""IstioOperator: what `istioctl install` puts into a cluster, as far as it is about egress gateways."""

from __future__ import annotations

from typing import Literal

import msgspec

from meshsim.resources.message import Message


class GatewayComponent(Message):
    """`label` takes the place of `istio: egressgateway` among the labels of its pods."""

    name: str = "istio-egressgateway"
    namespace: str = "istio-system"
    enabled: bool = False
    label: dict[str, str] = {}


class Components(Message):
    egress_gateways: list[GatewayComponent] = []


class IstioOperatorSpec(Message):
    profile: Literal["", "default", "demo", "minimal", "empty"] = ""
    components: Components = msgspec.field(default_factory=Components)

    @property
    def gateways(self) -> list[GatewayComponent]:
        """What it says of egress gateways; only the profile `demo` has one by itself."""
        given = self.components.egress_gateways
        return given or ([GatewayComponent(enabled=True)] if self.profile == "demo" else [])

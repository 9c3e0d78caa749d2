"""Sidecar: what a sidecar knows of the mesh, and what it does with destinations it does not know."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from meshsim.resources.destination_rule import ConnectionPoolSettings
from meshsim.resources.gateway import ServerTlsSettings
from meshsim.resources.message import Message, WorkloadSelector
from meshsim.resources.shape import Shape, UInt32, enum
from meshsim.resources.virtual_service import Destination

CaptureMode = Annotated[Literal["DEFAULT", "IPTABLES", "NONE"], enum("istio.networking.v1alpha3.CaptureMode")]
OutboundMode = Annotated[Literal["REGISTRY_ONLY", "ALLOW_ANY"], enum("istio.networking.v1alpha3.OutboundTrafficPolicy.Mode")]


class SidecarPort(Message):
    number: UInt32 = 0
    protocol: str = ""
    name: str = ""
    target_port: UInt32 = 0


class IstioIngressListener(Message):
    SHAPE: ClassVar[Shape] = Shape(required=("port",))

    port: SidecarPort | None = None
    bind: str = ""
    capture_mode: CaptureMode = "DEFAULT"
    default_endpoint: str = ""
    tls: ServerTlsSettings | None = None
    connection_pool: ConnectionPoolSettings | None = None


class IstioEgressListener(Message):
    SHAPE: ClassVar[Shape] = Shape(required=("hosts",))

    port: SidecarPort | None = None
    bind: str = ""
    capture_mode: CaptureMode = "DEFAULT"
    hosts: list[str] = []


class OutboundTrafficPolicy(Message):
    """Here an omitted mode means REGISTRY_ONLY (enum value 0); the mesh-wide default is ALLOW_ANY."""

    mode: OutboundMode = "REGISTRY_ONLY"
    egress_proxy: Destination | None = None


class SidecarSpec(Message):
    workload_selector: WorkloadSelector | None = None
    ingress: list[IstioIngressListener] = []
    egress: list[IstioEgressListener] = []
    inbound_connection_pool: ConnectionPoolSettings | None = None
    outbound_traffic_policy: OutboundTrafficPolicy | None = None

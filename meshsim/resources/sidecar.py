"""Sidecar: what a sidecar knows of the mesh, and what it does with destinations it does not know."""

from __future__ import annotations

from meshsim.resources.destination_rule import ConnectionPoolSettings
from meshsim.resources.gateway import ServerTlsSettings
from meshsim.resources.message import Message, WorkloadSelector
from meshsim.resources.virtual_service import Destination


class SidecarPort(Message):
    number: int = 0
    protocol: str = ""
    name: str = ""
    target_port: int = 0


class IstioIngressListener(Message):
    port: SidecarPort | None = None
    bind: str = ""
    capture_mode: str = "DEFAULT"
    default_endpoint: str = ""
    tls: ServerTlsSettings | None = None
    connection_pool: ConnectionPoolSettings | None = None


class IstioEgressListener(Message):
    port: SidecarPort | None = None
    bind: str = ""
    capture_mode: str = "DEFAULT"
    hosts: list[str] = []


class OutboundTrafficPolicy(Message):
    """Here an omitted mode means REGISTRY_ONLY (enum value 0); the mesh-wide default is ALLOW_ANY."""

    mode: str = "REGISTRY_ONLY"
    egress_proxy: Destination | None = None


class SidecarSpec(Message):
    workload_selector: WorkloadSelector | None = None
    ingress: list[IstioIngressListener] = []
    egress: list[IstioEgressListener] = []
    inbound_connection_pool: ConnectionPoolSettings | None = None
    outbound_traffic_policy: OutboundTrafficPolicy | None = None

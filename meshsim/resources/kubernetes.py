"""The Kubernetes kinds a mesh is made of, as far as Istio's way out depends on them."""

from __future__ import annotations

import msgspec

from meshsim.resources.message import LabelSelector, Message, Struct


class NamespaceSpec(Message):
    pass


class ServiceAccount(Message):
    pass


class ServicePort(Message):
    port: int = 0
    name: str = ""
    protocol: str = "TCP"
    target_port: int | str | None = None
    app_protocol: str | None = None
    node_port: int = 0


class ServiceSpec(Message):
    type: str = "ClusterIP"
    cluster_ip: str = msgspec.field(default="", name="clusterIP")
    cluster_ips: list[str] = msgspec.field(default_factory=list, name="clusterIPs")
    selector: dict[str, str] = {}
    ports: list[ServicePort] = []
    external_name: str = ""
    external_ips: list[str] = msgspec.field(default_factory=list, name="externalIPs")
    session_affinity: str = ""
    publish_not_ready_addresses: bool = False


class ContainerPort(Message):
    container_port: int = 0
    name: str = ""
    protocol: str = "TCP"


class Container(Message):
    name: str = ""
    image: str = ""
    ports: list[ContainerPort] = []


class PodSpec(Message):
    containers: list[Container] = []
    service_account_name: str = ""
    node_name: str = ""
    hostname: str = ""
    subdomain: str = ""


class PodIp(Message):
    ip: str = ""


class PodCondition(Message):
    type: str = ""
    status: str = ""


class PodStatus(Message, rename={"pod_ip": "podIP", "pod_ips": "podIPs"}):
    pod_ip: str = ""
    pod_ips: list[PodIp] = []
    phase: str = ""
    conditions: list[PodCondition] = []


class Pod(Message):
    spec: PodSpec | None = None
    status: PodStatus | None = None


class EndpointConditions(Message):
    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class ObjectReference(Message):
    kind: str = ""
    name: str = ""
    namespace: str = ""


class SliceEndpoint(Message):
    addresses: list[str] = []
    conditions: EndpointConditions | None = None
    target_ref: ObjectReference | None = None
    hostname: str = ""
    node_name: str = ""
    zone: str = ""


class SlicePort(Message):
    name: str = ""
    port: int | None = None
    protocol: str = "TCP"
    app_protocol: str | None = None


class EndpointSlice(Message):
    address_type: str = "IPv4"
    ports: list[SlicePort] = []
    endpoints: list[SliceEndpoint] = []


class EndpointAddress(Message):
    ip: str = ""
    hostname: str = ""
    target_ref: ObjectReference | None = None


class EndpointSubset(Message):
    addresses: list[EndpointAddress] = []
    not_ready_addresses: list[EndpointAddress] = []
    ports: list[SlicePort] = []


class Endpoints(Message):
    subsets: list[EndpointSubset] = []


class PodTemplate(Message):
    metadata: Struct | None = None
    spec: PodSpec | None = None


class DeploymentSpec(Message):
    replicas: int | None = None
    selector: LabelSelector | None = None
    template: PodTemplate | None = None


class Secret(Message):
    type: str = ""
    data: dict[str, str] = {}  # base64
    string_data: dict[str, str] = {}


class ConfigMap(Message):
    data: dict[str, str] = {}

"""The Kubernetes kinds a mesh is made of, as far as Istio's way out depends on them."""

from __future__ import annotations

import msgspec

from meshsim.resources.message import LabelSelector, OpenMessage, Struct


class NamespaceSpec(OpenMessage):
    pass


class ServiceAccount(OpenMessage):
    pass


class ServicePort(OpenMessage):
    port: int = 0
    name: str = ""
    protocol: str = "TCP"
    target_port: int | str | None = None
    app_protocol: str | None = None
    node_port: int = 0


class ServiceSpec(OpenMessage):
    type: str = "ClusterIP"
    cluster_ip: str = msgspec.field(default="", name="clusterIP")
    cluster_ips: list[str] = msgspec.field(default_factory=list, name="clusterIPs")
    selector: dict[str, str] = {}
    ports: list[ServicePort] = []
    external_name: str = ""
    external_ips: list[str] = msgspec.field(default_factory=list, name="externalIPs")
    session_affinity: str = ""
    internal_traffic_policy: str = ""
    publish_not_ready_addresses: bool = False
    traffic_distribution: str = ""


class ContainerPort(OpenMessage):
    container_port: int = 0
    name: str = ""
    protocol: str = "TCP"


class VolumeMount(OpenMessage):
    name: str = ""
    mount_path: str = ""
    sub_path: str = ""


class Container(OpenMessage):
    name: str = ""
    image: str = ""
    ports: list[ContainerPort] = []
    volume_mounts: list[VolumeMount] = []


class KeyToPath(OpenMessage):
    key: str = ""
    path: str = ""


class SecretVolume(OpenMessage):
    secret_name: str = ""
    items: list[KeyToPath] = []


class Volume(OpenMessage):
    name: str = ""
    secret: SecretVolume | None = None


class PodSpec(OpenMessage):
    containers: list[Container] = []
    volumes: list[Volume] = []
    service_account_name: str = ""
    node_name: str = ""
    node_selector: dict[str, str] = {}
    hostname: str = ""
    subdomain: str = ""


class PodIp(OpenMessage):
    ip: str = ""


class PodCondition(OpenMessage):
    type: str = ""
    status: str = ""


class PodStatus(OpenMessage, rename={"pod_ip": "podIP", "pod_ips": "podIPs"}):
    pod_ip: str = ""
    pod_ips: list[PodIp] = []
    phase: str = ""
    conditions: list[PodCondition] = []


class Pod(OpenMessage):
    spec: PodSpec | None = None
    status: PodStatus | None = None


class EndpointConditions(OpenMessage):
    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class ObjectReference(OpenMessage):
    kind: str = ""
    name: str = ""
    namespace: str = ""


class SliceEndpoint(OpenMessage):
    addresses: list[str] = []
    conditions: EndpointConditions | None = None
    target_ref: ObjectReference | None = None
    hostname: str = ""
    node_name: str = ""
    zone: str = ""


class SlicePort(OpenMessage):
    name: str = ""
    port: int | None = None
    protocol: str = "TCP"
    app_protocol: str | None = None


class EndpointSlice(OpenMessage):
    address_type: str = "IPv4"
    ports: list[SlicePort] = []
    endpoints: list[SliceEndpoint] = []


class EndpointAddress(OpenMessage):
    ip: str = ""
    hostname: str = ""
    target_ref: ObjectReference | None = None


class EndpointSubset(OpenMessage):
    addresses: list[EndpointAddress] = []
    not_ready_addresses: list[EndpointAddress] = []
    ports: list[SlicePort] = []


class Endpoints(OpenMessage):
    subsets: list[EndpointSubset] = []


class PodTemplate(OpenMessage):
    metadata: Struct | None = None
    spec: PodSpec | None = None


class DeploymentSpec(OpenMessage):
    replicas: int | None = None
    selector: LabelSelector | None = None
    template: PodTemplate | None = None


class Secret(OpenMessage):
    type: str = ""
    data: dict[str, str] = {}  # base64
    string_data: dict[str, str] = {}


class ConfigMap(OpenMessage):
    data: dict[str, str] = {}

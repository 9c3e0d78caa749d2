"""The kinds meshsim reads: group, versions served, and the message each one carries."""

from __future__ import annotations

from typing import NamedTuple

from meshsim.resources import (
    authorization_policy,
    destination_rule,
    external_server,
    gateway,
    issued_secret,
    istio_operator,
    kubernetes,
    mesh_config,
    network_policy,
    node,
    peer_authentication,
    proxy_config,
    request_authentication,
    service_entry,
    sidecar,
    telemetry,
    virtual_service,
    workload_entry,
)

_NETWORKING, _SECURITY, _TELEMETRY = "networking.istio.io", "security.istio.io", "telemetry.istio.io"


class Kind(NamedTuple):
    """`where` is the field that holds the message, or "" where the document itself does."""

    group: str
    versions: tuple[str, ...]
    message: type
    where: str = "spec"
    namespaced: bool = True

    @property
    def is_istio(self) -> bool:
        """Whether Istio's schema and webhook have a say."""
        return self.group in (_NETWORKING, _SECURITY, _TELEMETRY)

    @property
    def is_open(self) -> bool:
        """Whether it has fields that do not matter here and are not declared: Kubernetes' own kinds."""
        return not self.group.endswith((".istio.io", "meshsim.dev"))


_ISTIO = ("v1", "v1beta1", "v1alpha3")

KINDS: dict[str, list[Kind]] = {
    "ServiceEntry": [Kind(_NETWORKING, _ISTIO, service_entry.ServiceEntrySpec)],
    "Gateway": [Kind(_NETWORKING, _ISTIO, gateway.GatewaySpec)],
    "VirtualService": [Kind(_NETWORKING, _ISTIO, virtual_service.VirtualServiceSpec)],
    "DestinationRule": [Kind(_NETWORKING, _ISTIO, destination_rule.DestinationRuleSpec)],
    "Sidecar": [Kind(_NETWORKING, _ISTIO, sidecar.SidecarSpec)],
    "WorkloadEntry": [Kind(_NETWORKING, _ISTIO, workload_entry.WorkloadEntrySpec)],
    "WorkloadGroup": [Kind(_NETWORKING, _ISTIO, workload_entry.WorkloadGroupSpec)],
    "ProxyConfig": [Kind(_NETWORKING, ("v1beta1",), proxy_config.ProxyConfigSpec)],
    "PeerAuthentication": [Kind(_SECURITY, ("v1", "v1beta1"), peer_authentication.PeerAuthenticationSpec)],
    "AuthorizationPolicy": [Kind(_SECURITY, ("v1", "v1beta1"), authorization_policy.AuthorizationPolicySpec)],
    "RequestAuthentication": [Kind(_SECURITY, ("v1", "v1beta1"), request_authentication.RequestAuthenticationSpec)],
    "Telemetry": [Kind(_TELEMETRY, ("v1", "v1alpha1"), telemetry.TelemetrySpec)],
    "IstioOperator": [Kind("install.istio.io", ("v1alpha1",), istio_operator.IstioOperatorSpec)],
    "MeshConfig": [Kind("meshsim.dev", ("v1alpha1",), mesh_config.MeshConfig)],
    "ExternalServer": [Kind("meshsim.dev", ("v1alpha1",), external_server.ExternalServerSpec)],
    "IssuedSecret": [Kind("meshsim.dev", ("v1alpha1",), issued_secret.IssuedSecretSpec)],
    "Namespace": [Kind("", ("v1",), kubernetes.NamespaceSpec, namespaced=False)],
    "Node": [Kind("", ("v1",), node.Node, "", namespaced=False)],
    "ServiceAccount": [Kind("", ("v1",), kubernetes.ServiceAccount, "")],
    "Service": [Kind("", ("v1",), kubernetes.ServiceSpec)],
    "Pod": [Kind("", ("v1",), kubernetes.Pod, "")],
    "Endpoints": [Kind("", ("v1",), kubernetes.Endpoints, "")],
    "EndpointSlice": [Kind("discovery.k8s.io", ("v1", "v1beta1"), kubernetes.EndpointSlice, "")],
    "Deployment": [Kind("apps", ("v1",), kubernetes.DeploymentSpec)],
    "Secret": [Kind("", ("v1",), kubernetes.Secret, "")],
    "ConfigMap": [Kind("", ("v1",), kubernetes.ConfigMap, "")],
    "NetworkPolicy": [Kind("networking.k8s.io", ("v1",), network_policy.NetworkPolicySpec)],
}


NOT_SIMULATED = frozenset((
    "EnvoyFilter", "WasmPlugin", "TrafficExtension", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob", "Ingress",
    "GatewayClass", "HTTPRoute", "TLSRoute", "TCPRoute", "GRPCRoute", "UDPRoute", "ReferenceGrant", "BackendTLSPolicy",
))
"""Kinds that would change what a mesh does, which meshsim does not read."""

WITHOUT_EFFECT = frozenset((
    "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "HorizontalPodAutoscaler", "PodDisruptionBudget", "ResourceQuota",
    "CustomResourceDefinition", "LimitRange", "PersistentVolumeClaim", "PersistentVolume", "StorageClass", "PriorityClass",
    "Event", "ServiceMonitor", "PodMonitor", "PrometheusRule", "ValidatingWebhookConfiguration", "MutatingWebhookConfiguration",
    "Kustomization",
))
"""Kinds that often stand in the same files and do not touch traffic."""


def find(api_version: str, kind: str) -> Kind | None:
    """The kind served under that apiVersion, or None."""
    group, _, version = api_version.rpartition("/")
    return next((k for k in KINDS.get(kind, ()) if k.group == group and version in k.versions), None)

"""Secrets by name: which a proxy's own agent serves, and which the control plane reads from Kubernetes."""

from __future__ import annotations

from meshsim.xds.message import ConfigSource, Empty
from meshsim.xds.tls import SdsSecretConfig

WORKLOAD, ROOT = "default", "ROOTCA"  # the workload's own certificate and the mesh's root, from the agent
CA_SUFFIX = "-cacert"
_TYPED = ("configmap://", "kubernetes://", "kubernetes-gateway://")
_BUILTIN, _INVALID, _EXTERNAL = "builtin://", "invalid://", "sds://"


def agent_secret(name: str) -> SdsSecretConfig:
    """A secret of the proxy's agent: the workload's (never a fetch timeout: nothing works without it) or a file pair."""
    grpc = {"envoy_grpc": {"cluster_name": "sds-grpc"}}
    source = ConfigSource(
        api_config_source={
            "api_type": "GRPC",
            "transport_api_version": "V3",
            "grpc_services": [grpc],
            "set_node_on_first_message_only": True,
        },
        resource_api_version="V3",
        initial_fetch_timeout="0s" if name in (WORKLOAD, ROOT) else None,
    )
    return SdsSecretConfig(name, source)


def file_pair(certificate: str, key: str) -> SdsSecretConfig:
    """A certificate and key from files in the pod; the workload's own when either is not given."""
    return agent_secret(f"file-cert:{certificate}~{key}" if certificate and key else WORKLOAD)


def file_root(path: str) -> SdsSecretConfig:
    """A CA bundle from a file in the pod; the mesh's root when none is given."""
    return agent_secret(f"file-root:{path}" if path else ROOT)


def credential(name: str) -> SdsSecretConfig:
    """The Secret that a `credentialName` means; without a scheme one of the proxy's own namespace."""
    if name == _BUILTIN:
        return agent_secret(WORKLOAD)
    if name == _BUILTIN + CA_SUFFIX:
        return agent_secret(ROOT)
    return SdsSecretConfig(_resource_name(name.removeprefix(_EXTERNAL)), ConfigSource(ads=Empty(), resource_api_version="V3"))


def _resource_name(name: str) -> str:
    if name.startswith(_BUILTIN):
        return WORKLOAD
    if name.startswith(_INVALID):
        return _INVALID
    return name if name.startswith(_TYPED) else f"kubernetes://{name}"

"""The headers proxies write of their own accord, as MeshConfig's `defaultConfig.proxyHeaders` and `gatewayTopology` change them.

How this works: `proxyHeaders` holds for every proxy, but not for what a gateway does with client certificates: that is `gatewayTopology`'s.
"""

from __future__ import annotations

from meshsim.errors import NotSimulated
from meshsim.resources.mesh_config import MeshConfig, ProxyHeaders, Topology
from meshsim.xds.http_connection_manager import ClientCertDetails

_UNTOUCHED, _NO_TOPOLOGY = ProxyHeaders(), Topology()


def of(mesh: MeshConfig) -> ProxyHeaders:
    """What the mesh says. Raises NotSimulated for `preserveHttp1HeaderCase`: header names are lower case here."""
    said = mesh.default_config.proxy_headers if mesh.default_config else None
    if said is None:
        return _UNTOUCHED
    if said.preserve_http1_header_case:
        raise NotSimulated("meshConfig.defaultConfig.proxyHeaders.preserveHttp1HeaderCase")
    return said


def counts_attempts(mesh: MeshConfig) -> bool:
    """Whether requests go out with `x-envoy-attempt-count`."""
    return not of(mesh).attempt_count.disabled


def keeps_host(mesh: MeshConfig) -> bool:
    """Whether `x-forwarded-host` holds the host that a rewrite replaces."""
    return bool(of(mesh).x_forwarded_host.enabled)


def inbound_certificate(mesh: MeshConfig) -> tuple[str, ClientCertDetails]:
    """How a sidecar tells its application about the client's certificate, and what of it."""
    said = of(mesh)
    details = said.set_current_client_cert_details
    mode = "APPEND_FORWARD" if said.forwarded_client_cert == "UNDEFINED" else said.forwarded_client_cert
    return mode, ClientCertDetails(
        subject=details.subject is not False,
        cert=bool(details.cert),
        chain=bool(details.chain),
        dns=details.dns is not False,
        uri=details.uri is not False,
    )


def gateway_certificate(mesh: MeshConfig) -> tuple[str, ClientCertDetails | None]:
    """The same at a gateway. Raises NotSimulated for trusted proxies before it, and for the PROXY protocol."""
    topology = (mesh.default_config.gateway_topology if mesh.default_config else None) or _NO_TOPOLOGY
    if topology.num_trusted_proxies:
        raise NotSimulated("meshConfig.defaultConfig.gatewayTopology.numTrustedProxies")
    if topology.proxy_protocol is not None:
        raise NotSimulated("meshConfig.defaultConfig.gatewayTopology.proxyProtocol")
    mode = "SANITIZE_SET" if topology.forward_client_cert_details == "UNDEFINED" else topology.forward_client_cert_details
    told = ClientCertDetails(subject=True, cert=True, dns=True, uri=True) if mode in ("APPEND_FORWARD", "SANITIZE_SET") else None
    return mode, told

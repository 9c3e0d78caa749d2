"""A small mesh for compile tests: the classic egress gateway and one client, and what the gateway is told."""

from __future__ import annotations

from typing import Any as Json

import msgspec

from meshsim import control, resources, xds
from meshsim.resources.mesh_config import MeshConfig
from meshsim.topology import Proxy

GATEWAY = Proxy(
    "egress",
    type="router",
    namespace="istio-system",
    ip="10.244.0.20",
    labels={"app": "istio-egressgateway", "istio": "egressgateway"},
    service_account="istio-egressgateway-service-account",
)
CLIENT = Proxy("sleep", namespace="default", ip="10.244.1.10", labels={"app": "sleep"}, service_account="sleep")
SERVICES = """
apiVersion: v1
kind: Service
metadata: {name: istio-egressgateway, namespace: istio-system}
spec:
  clusterIP: 10.96.10.10
  selector: {istio: egressgateway}
  ports: [{name: http2, port: 80, targetPort: 8080}, {name: https, port: 443, targetPort: 8443}]
---
apiVersion: v1
kind: Service
metadata: {name: sleep, namespace: default}
spec:
  clusterIP: 10.96.20.20
  selector: {app: sleep}
  ports: [{name: http, port: 80, targetPort: 8000}, {name: tcp-db, port: 5432}, {name: any, port: 9000}]
"""


def document(kind: str, spec: Json, name: str = "x", namespace: str = "default", **metadata: Json) -> Json:
    """One document of an Istio kind."""
    group = {"AuthorizationPolicy": "security", "PeerAuthentication": "security", "Telemetry": "telemetry"}.get(kind, "networking")
    return {
        "apiVersion": f"{group}.istio.io/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace, **metadata},
        "spec": spec,
    }


def compiled(*documents: Json, proxy: Proxy = GATEWAY, mesh: Json = None) -> xds.ProxyConfig:
    """What `proxy` is told of these documents, which are as old as their order says."""
    text = SERVICES + "".join("---\n" + msgspec.json.encode(d).decode() + "\n" for d in documents)
    loaded = resources.loads(text, "mesh.yaml").require()
    return control.compile(control.index(loaded.resources, msgspec.convert(mesh or {}, MeshConfig)), proxy)


def plain(message: Json) -> Json:
    """A message as its JSON."""
    return xds.to_builtins(message)

"""The legs of the fixed table: a mesh in YAML each, and the call that is measured.

All share one cluster: the sleep pod with a sidecar, the egress gateway, one external host. The gateway's Service has a port for each
way there: plaintext HTTP/1.1 and HTTP/2, mutual TLS with either, and TLS that is passed through.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshsim.bench.load import ENDLESS

HOST = "edition.cnn.com"
ADDRESS = "151.101.65.67"
KIB = 1024

_CLUSTER = f"""
apiVersion: meshsim.dev/v1alpha1
kind: MeshConfig
metadata: {{name: istio}}
spec: {{accessLogFile: /dev/stdout}}
---
apiVersion: v1
kind: Namespace
metadata: {{name: istio-system}}
---
apiVersion: v1
kind: Namespace
metadata: {{name: default, labels: {{istio-injection: enabled}}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: sleep}}
spec:
  selector: {{matchLabels: {{app: sleep}}}}
  template:
    metadata: {{labels: {{app: sleep}}}}
    spec: {{serviceAccountName: sleep, containers: [{{name: sleep, image: curlimages/curl}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: istio-egressgateway, namespace: istio-system, labels: {{istio: egressgateway}}}}
spec:
  selector: {{istio: egressgateway}}
  ports:
  - {{name: http, port: 80, targetPort: 8080}}
  - {{name: http2, port: 81, targetPort: 8081}}
  - {{name: http-mtls, port: 82, targetPort: 8082}}
  - {{name: http2-mtls, port: 83, targetPort: 8083}}
  - {{name: tls, port: 443, targetPort: 8443}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: istio-egressgateway, namespace: istio-system}}
spec:
  selector: {{matchLabels: {{istio: egressgateway}}}}
  template:
    metadata: {{labels: {{app: istio-egressgateway, istio: egressgateway}}}}
    spec: {{containers: [{{name: istio-proxy, image: proxyv2}}]}}
---
apiVersion: meshsim.dev/v1alpha1
kind: ExternalServer
metadata: {{name: cnn}}
spec:
  hosts: [{HOST}]
  addresses: [{ADDRESS}]
  ports: [{{port: 80}}, {{port: 443, protocol: https}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: cnn}}
spec:
  hosts: [{HOST}]
  ports:
  - {{number: 80, name: http, protocol: HTTP}}
  - {{number: 443, name: tls, protocol: TLS}}
  resolution: DNS
"""

_GATEWAY = """---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: egress}}
spec:
  selector: {{istio: egressgateway}}
  servers:
  - {{port: {{number: {port}, name: server, protocol: {protocol}}}, hosts: [{host}]{tls}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: to-the-gateway}}
spec:
  host: istio-egressgateway.istio-system.svc.cluster.local
  subsets:
  - name: cnn
    trafficPolicy:
      tls: {{mode: {mode}{sni}}}
{pool}"""
_ONCE = "      connectionPool: {http: {maxRequestsPerConnection: 1}}\n"

_HTTP = """---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: cnn}}
spec:
  hosts: [{host}]
  gateways: [mesh, egress]
  http:
  - match: [{{gateways: [mesh], port: 80}}]
    route: [{{destination: {{host: istio-egressgateway.istio-system.svc.cluster.local, subset: cnn, port: {{number: {port}}}}}}}]
  - match: [{{gateways: [egress], port: {port}}}]
    route: [{{destination: {{host: {host}, port: {{number: {out}}}{subset}}}}}]
    headers: {{request: {{set: {{x-through: egress}}}}}}
"""

_PASSTHROUGH = """---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: cnn}}
spec:
  hosts: [{host}]
  gateways: [mesh, egress]
  tls:
  - match: [{{gateways: [mesh], port: 443, sniHosts: [{host}]}}]
    route: [{{destination: {{host: istio-egressgateway.istio-system.svc.cluster.local, subset: cnn, port: {{number: 443}}}}}}]
  - match: [{{gateways: [egress], port: 443, sniHosts: [{host}]}}]
    route: [{{destination: {{host: {host}, port: {{number: 443}}}}}}]
"""

_TERMINATION = """---
apiVersion: meshsim.dev/v1alpha1
kind: IssuedSecret
metadata: {{name: cnn, namespace: istio-system}}
spec: {{certificate: {{names: [{host}], ca: public}}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: cnn}}
spec:
  hosts: [{host}]
  gateways: [egress]
  http:
  - route: [{{destination: {{host: {host}, port: {{number: 80}}}}}}]
    headers: {{request: {{set: {{x-through: egress}}}}}}
"""

_ORIGINATION = f"""---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: originate}}
spec:
  host: {HOST}
  subsets:
  - name: tls
    trafficPolicy: {{tls: {{mode: SIMPLE, sni: {HOST}, caCertificates: system}}}}
"""


@dataclass(frozen=True, slots=True)
class Leg:
    """One line of the table.

    mesh: its YAML, or `sources`, files and folders of it. caller: the pod that calls `host`, an external name. port: of the external
    host, where the pod's application connects. body: bytes of an answer. connections: of the client. fresh: a new one for each request.
    tls: the bytes are a TLS client's, which nobody terminates. bulk: throughput counts, not requests. only_direct: no proxy at all.
    requests: measured until so many are answered, not for a time. unresumed: no proxy keeps TLS sessions.
    entry: the port of the gateway where a client from outside the mesh comes in over TLS, past the sidecar; 0 for the calling pod.
    unlike: each request asks for a path of its own. anchored: one plain hop, for which other proxies can stand in (anchors.py).
    beside_direct: measured without proxies as well, for what they add.
    """

    name: str
    title: str
    mesh: str = ""
    port: int = 80
    body: int = KIB
    connections: int = 32
    fresh: bool = False
    tls: bool = False
    bulk: bool = False
    only_direct: bool = False
    sources: tuple[str, ...] = ()
    caller: str = "sleep"
    host: str = HOST
    unlike: bool = False
    requests: int = 0
    unresumed: bool = False
    entry: int = 0
    anchored: bool = False
    beside_direct: bool = False


def _through(port: int, *, mtls: bool = False, originate: bool = False, once: bool = False) -> str:
    """once: a connection between the hops carries one request."""
    gateway = _GATEWAY.format(
        port=port,
        protocol="HTTPS" if mtls else "HTTP",
        host=HOST,
        tls=", tls: {mode: ISTIO_MUTUAL}" if mtls else "",
        mode="ISTIO_MUTUAL" if mtls else "DISABLE",
        sni=f", sni: {HOST}" if mtls else "",
        pool=_ONCE if once else "",
    )
    routes = _HTTP.format(host=HOST, port=port, out=443 if originate else 80, subset=", subset: tls" if originate else "")
    return _CLUSTER + gateway + routes + (_ORIGINATION if originate else "")


def _passed_through() -> str:
    gateway = _GATEWAY.format(port=443, protocol="TLS", host=HOST, tls=", tls: {mode: PASSTHROUGH}", mode="DISABLE", sni="", pool="")
    return _CLUSTER + gateway + _PASSTHROUGH.format(host=HOST)


def _terminated() -> str:
    tls = ", tls: {mode: SIMPLE, credentialName: cnn}"
    gateway = _GATEWAY.format(port=443, protocol="HTTPS", host=HOST, tls=tls, mode="DISABLE", sni="", pool="")
    return _CLUSTER + gateway + _TERMINATION.format(host=HOST)


BULK = 64 * 1024 * KIB

LEGS = (
    Leg("direct", "no proxy", _CLUSTER, only_direct=True),
    Leg("sidecar", "HTTP/1.1, one hop", _CLUSTER, anchored=True),
    Leg("sidecar-unlike", "the same, each request for a path of its own", _CLUSTER, unlike=True),
    Leg("gateway", "sidecar + gateway, plaintext HTTP/1.1", _through(80)),
    Leg("mtls", "sidecar + gateway, mTLS, HTTP/1.1", _through(82, mtls=True)),
    Leg("origination", "the same, plus TLS origination", _through(82, mtls=True, originate=True)),
    Leg("mtls-reconnects", "mTLS, a connection for each request, sessions resumed", _through(82, mtls=True, once=True)),
    Leg(
        "mtls-handshakes",
        "the same, a full handshake each time",
        _through(82, mtls=True, once=True),
        unresumed=True,
    ),
    Leg("http2", "sidecar + gateway, plaintext HTTP/2 between", _through(81)),
    Leg("http2-mtls", "sidecar + gateway, mTLS, HTTP/2 between", _through(83, mtls=True)),
    Leg("bodies", "64 KiB bodies, two hops", _through(80), body=64 * KIB),
    Leg("passthrough", "SNI passthrough, two hops, new connections", _passed_through(), port=443, tls=True, connections=16, fresh=True),
    Leg(
        "passthrough-bulk",
        "SNI passthrough, two hops, 8 streams",
        _passed_through(),
        port=443,
        tls=True,
        body=ENDLESS,
        connections=8,
        bulk=True,
    ),
    Leg(
        "passthrough-download",
        "SNI passthrough, two hops, one download of 512 MiB",
        _passed_through(),
        port=443,
        tls=True,
        body=512 * 1024 * KIB,
        connections=1,
        fresh=True,
        bulk=True,
        requests=1,
    ),
    Leg("mtls-bulk", "mTLS between, 8 streams", _through(82, mtls=True), body=BULK, connections=8, bulk=True),
    Leg("tls-bulk", "TLS ended at the gateway, one hop, 8 streams", _terminated(), entry=8443, body=ENDLESS, connections=8, bulk=True),
    Leg("latency", "two hops, 1 connection", _through(80), connections=1, beside_direct=True),
)


_HOST = """---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: host-{n}}}
spec:
  hosts: [host-{n}.example.com]
  ports: [{{number: 80, name: http, protocol: HTTP}}]
  resolution: DNS
"""
_HOSTS = """---
apiVersion: meshsim.dev/v1alpha1
kind: ExternalServer
metadata: {{name: hosts}}
spec: {{hosts: [{names}], addresses: [192.0.2.1], ports: [{{port: 80}}]}}
"""


def with_hosts(number: int) -> Leg:
    """One hop that knows as many more hosts, each a cluster."""
    names = ", ".join(f"host-{n}.example.com" for n in range(number))
    hosts = "".join(_HOST.format(n=n) for n in range(number)) + _HOSTS.format(names=names) if number else ""
    return Leg("hosts", f"one hop, {number} more hosts", _CLUSTER + hosts)


def leg(name: str) -> Leg:
    """Raises KeyError."""
    return {each.name: each for each in LEGS}[name]

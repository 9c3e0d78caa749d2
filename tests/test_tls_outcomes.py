"""What becomes of TLS origination at the gateway when a certificate is right, wrong or missing: live and simulated, the same answer.

The outcomes are those that Istio's own integration tests assert: 200 with the right CA and client certificate, 503 otherwise.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

import meshsim
from meshsim.mesh import Mesh
from meshsim.resources import loads

SCENARIO = Path(__file__).parent.parent / "scenarios" / "tls-origination-gateway"
URL = "http://edition.cnn.com/politics"
CHANGED = """
apiVersion: meshsim.dev/v1alpha1
kind: ExternalServer
metadata: {name: cnn}
spec:
  hosts: [edition.cnn.com]
  addresses: [151.101.65.67]
  ports:
  - port: 443
    protocol: https
    certificate: {%s}
    clientCertificates: {%s}
    maxTls: "%s"
    handshake: %s
    answers: [{body: hello}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: originate-tls-for-edition-cnn-com}
spec:
  host: edition.cnn.com
  trafficPolicy:
    portLevelSettings:
    - port: {number: 443}
      connectionPool: {tcp: {connectTimeout: 0.3s}}
      tls: {%s}
"""
OWN = "clientCertificate: /etc/certs/cert-chain.pem, privateKey: /etc/certs/key.pem"


class Row(NamedTuple):
    """server: its certificate; clients: whose it asks for; tls: the DestinationRule's; handshake: what the server does instead of one.

    says, details: words of the gateway's log line, in the transport's failure and in the details.
    """

    name: str
    status: int
    tls: str = "mode: SIMPLE"
    server: str = ""
    clients: str = "mode: none"
    newest: str = "1.3"
    says: str = ""
    handshake: str = '""'
    details: str = ""


REQUIRED = "mode: required, trust: [mesh]"
TABLE = [
    Row("the right CA", 200),
    Row("a CA nobody knows", 503, server="ca: unknown", says="CERTIFICATE_VERIFY_FAILED"),
    Row("the mesh's own CA outside", 503, server="recipe: mesh-ca", says="CERTIFICATE_VERIFY_FAILED"),
    Row("expired", 503, server="recipe: expired", says="CERTIFICATE_VERIFY_FAILED"),
    Row("not yet valid", 503, server="recipe: not-yet-valid", says="CERTIFICATE_VERIFY_FAILED"),
    Row("self-signed", 503, server="recipe: self-signed", says="CERTIFICATE_VERIFY_FAILED"),
    Row("another name", 503, server="recipe: wrong-name", says="CERTIFICATE_VERIFY_FAILED"),
    Row("any certificate, as the field says", 200, tls="mode: SIMPLE, insecureSkipVerify: true", server="recipe: expired"),
    Row("a name that is expected", 200, tls="mode: SIMPLE, subjectAltNames: [edition.cnn.com]"),
    Row("a name that is not there", 503, tls="mode: SIMPLE, subjectAltNames: [other.example]", says="CERTIFICATE_VERIFY_FAILED"),
    Row("a secret that is missing", 503, tls="mode: SIMPLE, credentialName: nowhere"),
    Row("the right client certificate", 200, tls=f"mode: MUTUAL, {OWN}", clients=REQUIRED),
    Row("no client certificate", 503, clients=REQUIRED),
    Row("no client certificate, TLS 1.2", 503, clients=REQUIRED, newest="1.2"),
    Row("somebody else's client certificate", 503, tls=f"mode: MUTUAL, {OWN}", clients="mode: required, trust: [partner]"),
    Row("a handshake that is never answered", 503, handshake="stall", details="{connection_timeout}"),
    Row("a connection broken in its handshake", 503, handshake="reset", details="{remote_connection_failure"),
]


def mesh_of(row: Row) -> Mesh:
    mesh = meshsim.load(SCENARIO)
    over = loads(CHANGED % (row.server, row.clients, row.newest, row.handshake, row.tls)).require().resources
    kept = {(r.kind, r.name) for r in over}
    return mesh.changed([*(r for r in mesh.documents.resources if (r.kind, r.name) not in kept), *over])


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
async def test_live_and_simulated_give_the_same(row: Row) -> None:
    mesh = mesh_of(row)
    trace = mesh.simulate("sleep", URL)
    async with mesh.run() as live:
        reply = await live.pod("sleep").get(URL)
        log = "".join(live.proxy("istio-egressgateway").log())
    assert (trace.status, reply.status) == (row.status, row.status), log
    gateway = trace.hop("istio-egressgateway.istio-system")
    assert gateway is not None
    assert row.says in log
    assert row.says in gateway.entry.upstream_failure
    assert row.details in log
    assert row.details in gateway.entry.details
    assert f" {row.status} {','.join(gateway.entry.flags) or '-'} " in log

"""Clients and certificates that are not meshsim's own: an aiohttp program in a pod, credentials of a trustme CA."""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

import meshsim
from meshsim.network import namespaces

SCENARIO = Path(__file__).parents[2] / "scenarios" / "egress-gateway-http"
REASON = namespaces.unavailable()

PROGRAM = """
import asyncio, aiohttp

async def main():
    async with aiohttp.ClientSession() as session:
        async with session.get("http://edition.cnn.com/politics", allow_redirects=False) as plain:
            print(plain.status, plain.headers["server"], plain.headers["location"])
        async with session.get("https://edition.cnn.com/politics") as secure:
            print(secure.status, len(await secure.read()))

asyncio.run(main())
"""


@pytest.mark.netns
@pytest.mark.skipif(bool(REASON), reason=REASON)
def test_an_aiohttp_program_in_a_pod_is_captured():
    command = [sys.executable, "-m", "meshsim", "run", "--network", "netns", str(SCENARIO), "--", sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines() == ["301 envoy https://edition.cnn.com/politics", "200 150000"], done.stderr


SITE = """
apiVersion: meshsim.dev/v1alpha1
kind: ExternalServer
metadata: {name: bank}
spec:
  hosts: [bank.example.com]
  addresses: [203.0.113.80]
  ports:
  - port: 443
    protocol: https
    clientCertificates:
      mode: required
      trust: []
      pem:
      - |
%s
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: bank}
spec:
  hosts: [bank.example.com]
  ports: [{number: 80, name: http, protocol: HTTP, targetPort: 443}]
  resolution: DNS
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: bank}
spec:
  host: bank.example.com
  workloadSelector: {matchLabels: {app: sleep}}
  trafficPolicy:
    tls: {mode: MUTUAL, credentialName: bank, sni: bank.example.com, insecureSkipVerify: true}
---
apiVersion: v1
kind: Secret
metadata: {name: bank}
data: {tls.crt: %s, tls.key: %s}
"""


@pytest.mark.parametrize(("trusted", "status"), [(True, 200), (False, 503)], ids=["its own clients", "somebody else's"])
async def test_credentials_of_another_ca(tmp_path, trusted, status):
    bank, other = trustme.CA(), trustme.CA()
    client = (bank if trusted else other).issue_cert("client.example.com")
    roots = bank.cert_pem.bytes().decode().replace("\n", "\n        ")
    chain = b"".join(pem.bytes() for pem in client.cert_chain_pems)
    key = client.private_key_pem.bytes()
    site = SITE % ("        " + roots, base64.b64encode(chain).decode(), base64.b64encode(key).decode())
    (tmp_path / "bank.yaml").write_text(site)
    async with meshsim.load(SCENARIO / "mesh.yaml", tmp_path).run() as live:
        reply = await live.pod("sleep").get("http://bank.example.com/")
        assert reply.status == status, reply.text
        assert len(live.arrivals()) == int(trusted)

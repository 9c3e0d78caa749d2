"""A new connection with mesh TLS takes up the session of the last one, and the peer is known all the same."""

from __future__ import annotations

from pathlib import Path

import meshsim
from meshsim import resources

SCENARIO = Path(__file__).parent.parent.parent / "scenarios" / "egress-gateway-http-mtls"
ONE_REQUEST_EACH = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: egressgateway-for-cnn}
spec:
  host: istio-egressgateway.istio-system.svc.cluster.local
  subsets:
  - name: cnn
    trafficPolicy:
      connectionPool: {http: {maxRequestsPerConnection: 1}}
      portLevelSettings:
      - port: {number: 80}
        connectionPool: {http: {maxRequestsPerConnection: 1}}
        tls: {mode: ISTIO_MUTUAL, sni: edition.cnn.com}
"""
URL = "http://edition.cnn.com/politics"


async def test_sessions_are_taken_up_and_peers_stay_known() -> None:
    mesh = meshsim.load(SCENARIO)
    rule = resources.loads(ONE_REQUEST_EACH, "rule.yaml").require().resources
    mesh = mesh.changed([*(r for r in mesh.resources if r.kind != "DestinationRule"), *rule])
    async with mesh.run() as live:
        for _ in range(3):
            assert (await live.pod("sleep").get(URL)).status == 301
        stats = await live.proxy("istio-egressgateway").admin("/stats?filter=ssl.session_reused")
        assert [line.rpartition(": ")[2] for line in stats.splitlines() if line.startswith("listener.")] == ["2"]
        told = [dict(each["headers"])["x-forwarded-client-cert"] for each in live.arrivals()]
        assert len(told) == 3
        assert all("URI=spiffe://cluster.local/ns/default/sa/sleep" in each for each in told)


async def test_a_certificate_is_renewed_under_an_open_connection() -> None:
    """The next request goes out on the connection that was there, under the certificate it began with."""
    mesh = meshsim.load(SCENARIO)
    async with mesh.run() as live:
        pod = live.pod("sleep")
        assert (await pod.get(URL)).status == 301
        for proxy in live.proxies:
            await proxy.renew()
        assert (await pod.get(URL)).status == 301
        stats = await live.proxy("sleep").admin("/stats?filter=80.cnn.*egressgateway.*upstream_cx_total")
        assert [value for line in stats.splitlines() if (value := line.rpartition(": ")[2]) != "0"] == ["1"]
        hashes = [dict(each["headers"])["x-forwarded-client-cert"].partition("Hash=")[2][:64] for each in live.arrivals()]
        assert hashes[0] == hashes[1]

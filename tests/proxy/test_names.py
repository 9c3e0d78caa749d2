"""Names behind DNS clusters: each is looked up once however many clusters it is for, and each cluster is asked for its names once."""

from __future__ import annotations

import asyncio
import random
from types import SimpleNamespace

from meshsim.proxy.names import Names
from meshsim.routing.clusters import Cluster
from meshsim.xds import decode

SIZE = 50


async def test_the_work_grows_with_the_number_of_clusters_alone(monkeypatch):
    config = decode(
        b'{"clusters":[%s]}'
        % b",".join(
            b'{"name":"%d","type":"STRICT_DNS","load_assignment":{"cluster_name":"%d","endpoints":[{"lb_endpoints":[{"endpoint":{"address":'
            b'{"socket_address":{"address":"host-%d.test","port_value":80}}}}]}]}}' % (n, n, n // 2)
            for n in range(SIZE)
        )
    )
    clusters = {c.name: Cluster(c, None, random.Random(0), lambda: 0.0) for c in config.clusters}
    asked: list[str] = []
    looked_up: list[str] = []
    plain = Cluster.dns_names.fget
    monkeypatch.setattr(Cluster, "dns_names", property(lambda self: [asked.append(self.name), plain(self)][1]))

    async def resolve(name: str) -> list[str]:
        looked_up.append(name)
        return ["192.0.2.7"]

    names = Names(SimpleNamespace(runtime=SimpleNamespace(clusters=clusters), resolve=resolve, loop=asyncio.get_running_loop()))
    await names.resolve_all()
    names.stop()
    assert asked == [str(n) for n in range(SIZE)]
    assert looked_up == [f"host-{n}.test" for n in range(SIZE // 2)]
    assert all(cluster.hosts for cluster in clusters.values())

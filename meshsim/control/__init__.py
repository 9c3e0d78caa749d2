"""Resources to xds: what istiod would tell each proxy.

`index` reads a mesh's resources once; `compile` answers for one proxy. One module per xDS concept; what a proxy may see is
decided in `view` alone. An index made after another one takes over what the same resources led to (`memory`).
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any as Json

from meshsim import xds
from meshsim.control.authorization import refuse_tokens
from meshsim.control.clusters import clusters
from meshsim.control.gateway_listeners import gateway_listeners
from meshsim.control.gateway_routes import gateway_routes
from meshsim.control.inbound import inbound_clusters, inbound_listeners
from meshsim.control.mesh_index import MeshIndex
from meshsim.control.name_table import name_table
from meshsim.control.sidecar_listeners import sidecar_listeners
from meshsim.control.view import View
from meshsim.resources.mesh_config import MeshConfig
from meshsim.resources.resource import Resource
from meshsim.topology import Proxy


def index(
    resources: Iterable[Resource[Json]], mesh: MeshConfig | None = None, domain: str = "cluster.local", after: MeshIndex | None = None
) -> MeshIndex:
    """Everything the control plane knows, ready to compile any number of proxies from.

    after: an index of mostly the same resources; what was compiled from it and has not changed is taken over, so that an update costs
    what it changes. Messages are shared with what was compiled before: they are not to be written to.
    """
    with _growing():
        return MeshIndex(resources, mesh, domain, after.memory if after else None)


def compile(mesh: MeshIndex, proxy: Proxy) -> xds.ProxyConfig:
    """What that proxy is told. Raises NotSimulated for a setting that would change the answer and is not modelled."""
    with _growing():
        return _compile(View(mesh, proxy))


def _compile(view: View) -> xds.ProxyConfig:
    refuse_tokens(view.index.of("RequestAuthentication"), view.namespace, dict(view.proxy.labels), view.index.root)
    made, assignments = clusters(view)
    if view.proxy.is_sidecar:
        outbound, routes = sidecar_listeners(view)
        listeners = [*outbound, *inbound_listeners(view)]
        made = [*made, *inbound_clusters(view)]
    else:
        merged = view.servers
        listeners, routes = gateway_listeners(view, merged), gateway_routes(view, merged)
    return xds.ProxyConfig(listeners=listeners, clusters=made, routes=routes, endpoints=assignments, name_table=name_table(view))


@contextmanager
def _growing() -> Iterator[None]:
    """Makes many objects that all stay, so that looking for garbage among them meanwhile would take most of the time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()

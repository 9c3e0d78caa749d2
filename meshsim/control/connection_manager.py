"""The HTTP connection manager: the same for every HTTP chain of a proxy but for what its direction changes.

| | sidecar outbound | sidecar inbound | gateway |
|---|---|---|---|
| `x-forwarded-for` | passed on | passed on | peer appended |
| client certificate | - | appended to XFCC | XFCC started anew |
| `server` header | Envoy's | istio-envoy | istio-envoy |
| authorization | - | yes | yes |

Filters run in this order: authorization, Istio's ALPN override, fault, CORS, the dynamic forward proxy, router.
Istio's telemetry filters (peer metadata, `istio.stats`, gRPC statistics) change nothing that is simulated and are left out.
"""

from __future__ import annotations

from enum import Enum

from meshsim.control import proxy_headers
from meshsim.resources.mesh_config import MeshConfig
from meshsim.xds.access_log import AccessLog
from meshsim.xds.http_connection_manager import (
    ClientCertDetails,
    Http1ProtocolOptions,
    HttpConnectionManager,
    HttpFilter,
    Rds,
)
from meshsim.xds.http_filters import Cors, HttpFault, IstioAlpn, Router
from meshsim.xds.message import ConfigSource, Empty
from meshsim.xds.route import RouteConfiguration, UpgradeConfig

HCM_FILTER = "envoy.filters.network.http_connection_manager"
SAMPLING_PERCENT = 1.0
_ALPN = IstioAlpn([{"upstream_protocol": f"HTTP{v.replace('.', '')}", "alpn_override": alpn} for v, alpn in (
    ("1.0", ["istio-http/1.0", "istio", "http/1.0"]),
    ("1.1", ["istio-http/1.1", "istio", "http/1.1"]),
    ("2", ["istio-h2", "istio", "h2"]),
)])  # fmt: skip


class Direction(Enum):
    """Which way the traffic of a chain goes, seen from its proxy."""

    OUTBOUND = "outbound"
    INBOUND = "inbound"
    GATEWAY = "gateway"


# (normalize_path, merge_slashes, path_with_escaped_slashes_action) of MeshConfig.pathNormalization
_NORMALIZATION = {
    "NONE": (False, False, "KEEP_UNCHANGED"),
    "BASE": (True, False, "KEEP_UNCHANGED"),
    "DEFAULT": (True, False, "KEEP_UNCHANGED"),
    "MERGE_SLASHES": (True, True, "KEEP_UNCHANGED"),
    "DECODE_AND_MERGE_SLASHES": (True, True, "UNESCAPE_AND_FORWARD"),
}


def connection_manager(
    direction: Direction,
    mesh: MeshConfig,
    stat_prefix: str,
    routes: str | RouteConfiguration,
    access_log: list[AccessLog],
    authorization: list[HttpFilter] | None = None,
    before_router: list[HttpFilter] | None = None,
) -> HttpConnectionManager:
    """`routes` is the name of a route configuration, or one in place; `before_router` e.g. a dynamic forward proxy.

    Raises NotSimulated for some of `defaultConfig.proxyHeaders` and `gatewayTopology` (proxy_headers.py).
    """
    said = proxy_headers.of(mesh)
    certificate, details = _certificate(direction, mesh)
    silent = bool(said.server.disabled)
    server = said.server.value or ("" if direction is Direction.OUTBOUND else "istio-envoy")
    normalize, merge, escaped = _NORMALIZATION[mesh.path_normalization.normalization if mesh.path_normalization else "DEFAULT"]
    ads = ConfigSource(ads=Empty(), initial_fetch_timeout="0s", resource_api_version="V3")
    alpn = [] if direction is Direction.INBOUND else [HttpFilter("istio.alpn", _ALPN)]
    return HttpConnectionManager(
        stat_prefix=stat_prefix,
        rds=Rds(routes, ads) if isinstance(routes, str) else None,
        route_config=None if isinstance(routes, str) else routes,
        http_filters=[
            *(authorization or []),
            *alpn,
            HttpFilter("envoy.filters.http.fault", HttpFault()),
            HttpFilter("envoy.filters.http.cors", Cors()),
            *(before_router or []),
            HttpFilter("envoy.filters.http.router", Router(suppress_envoy_headers=bool(said.envoy_debug_headers.disabled))),
        ],
        http_protocol_options=Http1ProtocolOptions() if direction is Direction.GATEWAY else None,
        server_name="" if silent else server,
        server_header_transformation="PASS_THROUGH" if silent else "OVERWRITE",
        stream_idle_timeout="0s",
        access_log=list(access_log),
        use_remote_address=direction is Direction.GATEWAY,
        append_x_forwarded_port=bool(said.x_forwarded_port.enabled),
        generate_request_id=False if said.request_id.disabled else None,
        request_id_extension={"typed_config": {"@type": "type.googleapis.com/envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig"}},
        tracing=_tracing(mesh),
        forward_client_cert_details=certificate,
        set_current_client_cert_details=details,
        proxy_100_continue=True,
        upgrade_configs=[UpgradeConfig("websocket")],
        normalize_path=normalize,
        merge_slashes=merge,
        path_with_escaped_slashes_action=escaped,
    )


def _certificate(direction: Direction, mesh: MeshConfig) -> tuple[str, ClientCertDetails | None]:
    if direction is Direction.OUTBOUND:
        return "SANITIZE", None
    return proxy_headers.inbound_certificate(mesh) if direction is Direction.INBOUND else proxy_headers.gateway_certificate(mesh)


def _tracing(mesh: MeshConfig) -> dict[str, object] | None:
    """Spans go nowhere without a provider, but with tracing on Envoy sends `x-envoy-decorator-operation`."""
    if mesh.enable_tracing is False:
        return None
    return {
        "client_sampling": {"value": 100.0},
        "random_sampling": {"value": SAMPLING_PERCENT},
        "overall_sampling": {"value": 100.0},
    }

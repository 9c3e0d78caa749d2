"""What MeshConfig says about headers that proxies write of their own accord."""

from __future__ import annotations

from typing import Any as Json

import pytest

from meshsim.errors import NotSimulated
from meshsim.topology import Proxy
from meshsim.xds.http_connection_manager import ClientCertDetails, HttpConnectionManager
from meshsim.xds.http_filters import Router
from tests.control.helpers import CLIENT, GATEWAY, compiled, document

SERVER = {"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}
OPEN = document("Gateway", {"selector": {"istio": "egressgateway"}, "servers": [SERVER]})
INBOUND, OUTBOUND, EDGE = "inbound", "outbound", "gateway"


def manager(where: str, **said: Json) -> HttpConnectionManager:
    """A connection manager of a sidecar or of the gateway, in a mesh whose `defaultConfig` says that."""
    proxy: Proxy = GATEWAY if where == EDGE else CLIENT
    config = compiled(OPEN, proxy=proxy, mesh={"defaultConfig": said})
    listeners = [x for x in config.listeners if (x.name == "virtualInbound") == (where == INBOUND)]
    found = (f.typed_config for x in listeners for c in x.filter_chains for f in c.filters)
    return next(m for m in found if isinstance(m, HttpConnectionManager))


@pytest.mark.parametrize(
    ("where", "said", "expected"),
    [
        (OUTBOUND, {}, {"server_name": "", "server_header_transformation": "OVERWRITE", "generate_request_id": None}),
        (INBOUND, {}, {"server_name": "istio-envoy", "forward_client_cert_details": "APPEND_FORWARD"}),
        (OUTBOUND, {"server": {"value": "acme"}}, {"server_name": "acme"}),
        (EDGE, {"server": {"disabled": True, "value": "acme"}}, {"server_name": "", "server_header_transformation": "PASS_THROUGH"}),
        (EDGE, {"requestId": {"disabled": True}}, {"generate_request_id": False}),
        (OUTBOUND, {"xForwardedPort": {"enabled": True}}, {"append_x_forwarded_port": True}),
        (INBOUND, {"forwardedClientCert": "SANITIZE"}, {"forward_client_cert_details": "SANITIZE"}),
        (EDGE, {"forwardedClientCert": "SANITIZE"}, {"forward_client_cert_details": "SANITIZE_SET"}),
        (OUTBOUND, {"forwardedClientCert": "FORWARD_ONLY"}, {"forward_client_cert_details": "SANITIZE"}),
        (INBOUND, {"setCurrentClientCertDetails": {"dns": False, "chain": True}},
         {"set_current_client_cert_details": ClientCertDetails(subject=True, chain=True, uri=True)}),
    ],
)  # fmt: skip
def test_proxy_headers(where: str, said: Json, expected: Json) -> None:
    made = manager(where, proxyHeaders=said)
    assert {name: getattr(made, name) for name in expected} == expected


def test_envoys_own_headers_can_be_left_out() -> None:
    router = manager(OUTBOUND, proxyHeaders={"envoyDebugHeaders": {"disabled": True}}).http_filters[-1].typed_config
    assert isinstance(router, Router) and router.suppress_envoy_headers


@pytest.mark.parametrize(("mode", "told"), [("APPEND_FORWARD", True), ("FORWARD_ONLY", False)])
def test_topology_says_what_a_gateway_tells_of_certificates(mode: str, told: bool) -> None:
    made = manager(EDGE, gatewayTopology={"forwardClientCertDetails": mode})
    assert (made.forward_client_cert_details, made.set_current_client_cert_details is not None) == (mode, told)


@pytest.mark.parametrize("disabled", [True, False])
def test_attempts_are_counted_in_every_virtual_host(disabled: bool) -> None:
    mesh = {"defaultConfig": {"proxyHeaders": {"attemptCount": {"disabled": disabled}}}}
    counted = {v.include_request_attempt_count for r in compiled(proxy=CLIENT, mesh=mesh).routes for v in r.virtual_hosts}
    assert counted == {not disabled}


def test_a_rewrite_can_keep_the_host_it_replaces() -> None:
    mesh = {"defaultConfig": {"proxyHeaders": {"xForwardedHost": {"enabled": True}}}}
    hosts = [v for r in compiled(proxy=CLIENT, mesh=mesh).routes for v in r.virtual_hosts if v.name == "allow_any"]
    actions = [route.route for host in hosts for route in host.routes]
    assert actions and all(action is not None and action.append_x_forwarded_host for action in actions)


@pytest.mark.parametrize(
    "said",
    [
        {"proxyHeaders": {"preserveHttp1HeaderCase": True}},
        {"gatewayTopology": {"numTrustedProxies": 1}},
        {"gatewayTopology": {"proxyProtocol": {}}},
    ],
)
def test_the_rest_is_refused(said: Json) -> None:
    with pytest.raises(NotSimulated):
        manager(EDGE, **said)

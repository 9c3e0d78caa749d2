"""How a stream that waits too long ends in a trace: by the words of a real Envoy with the same settings (tests/proxy/envoy_bytes.json)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from meshsim import load
from meshsim.xds.http_connection_manager import CommonHttpProtocolOptions, HttpConnectionManager
from meshsim.xds.route import MaxStreamDuration, RouteAction

HERE = Path(__file__).parent
SCENARIO = HERE.parent / "scenarios" / "egress-gateway-http"
STALLING = """
apiVersion: meshsim.dev/v1alpha1
kind: ExternalServer
metadata: {name: cnn}
spec: {hosts: [edition.cnn.com], addresses: [151.101.65.67], ports: [{port: 80, answers: [{delay: 30s, body: late}]}]}
"""


def idle_manager(manager: HttpConnectionManager, action: RouteAction) -> None:
    manager.stream_idle_timeout = "0.1s"


def idle_route(manager: HttpConnectionManager, action: RouteAction) -> None:
    action.idle_timeout = "0.1s"


def forgiving_route(manager: HttpConnectionManager, action: RouteAction) -> None:
    manager.stream_idle_timeout, action.idle_timeout, action.timeout = "0.1s", "0s", "0.3s"


def long_manager(manager: HttpConnectionManager, action: RouteAction) -> None:
    manager.common_http_protocol_options = CommonHttpProtocolOptions(max_stream_duration="0.1s")


def long_route(manager: HttpConnectionManager, action: RouteAction) -> None:
    action.max_stream_duration = MaxStreamDuration(max_stream_duration="0.1s")


@pytest.mark.parametrize(
    ("change", "row"),
    [
        (idle_manager, "limit: an idle stream"),
        (idle_route, "limit: an idle stream by its route"),
        (forgiving_route, "limit: an idle stream its route forgives"),
        (long_manager, "limit: duration of a stream"),
        (long_route, "limit: duration of a stream by its route"),
    ],
)
def test_a_trace_ends_as_a_stream_does(change: Callable[[HttpConnectionManager, RouteAction], None], row: str, tmp_path: Path) -> None:
    (tmp_path / "stalling.yaml").write_text(STALLING)
    mesh = load(SCENARIO / "mesh.yaml", SCENARIO / "service-entry.yaml", tmp_path / "stalling.yaml")
    config = mesh.config("sleep")
    listener = next(each for each in config.listeners if each.name == "0.0.0.0_80")
    manager = listener.filter_chains[0].filters[0].typed_config
    routes = next(each for each in config.routes if each.name == "80")
    action = next(host for host in routes.virtual_hosts if host.name.startswith("edition")).routes[0].route
    assert isinstance(manager, HttpConnectionManager) and action is not None
    change(manager, action)
    entry = mesh.simulate("sleep", "http://edition.cnn.com/").hops[0].entry
    code, flags, details, *_ = json.loads((HERE / "proxy" / "envoy_bytes.json").read_text())[row]["log"][0].split()
    assert (str(entry.code), ",".join(entry.flags) or "-", entry.details) == (code, flags, details)

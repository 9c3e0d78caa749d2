"""Access logs: who writes them, in which format, with which filter."""

from __future__ import annotations

from typing import Any as Json

import pytest

from meshsim.errors import NotSimulated
from tests.control.helpers import CLIENT, compiled, document, plain

FILE = {"accessLogFile": "/dev/stdout"}


def telemetry(*logging: Json, name: str = "t", namespace: str = "default", **spec: Json) -> Json:
    return document("Telemetry", {"accessLogging": list(logging), **spec}, name, namespace)


def logs(*resources: Json, mesh: Json = None, side: str = "CLIENT") -> list[Json]:
    """The loggers of the sidecar's TCP proxies (outbound) or of its inbound ones, the same on every chain."""
    listeners = {x.name: x for x in compiled(*resources, proxy=CLIENT, mesh=mesh).listeners}
    listener = listeners["virtualOutbound" if side == "CLIENT" else "virtualInbound"]
    last = next(c for c in listener.filter_chains if c.name in ("virtualOutbound-catchall-tcp", "virtualInbound")).filters[-1]
    return [plain(log) for log in last.typed_config.access_log]


ENVOY = {"providers": [{"name": "envoy"}]}
OFF = {"disabled": True}


@pytest.mark.parametrize(
    ("resources", "mesh", "client", "server"),
    [
        ([], {}, 0, 0),
        ([], FILE, 1, 1),
        ([telemetry(ENVOY)], {}, 1, 1),
        ([telemetry({**ENVOY, "match": {"mode": "SERVER"}})], {}, 0, 1),
        # a direction for which nothing is left falls back on MeshConfig
        ([telemetry({**ENVOY, "match": {"mode": "SERVER"}})], FILE, 1, 1),
        # turned off by name or by inheritance is not nothing
        ([telemetry({**ENVOY, **OFF})], FILE, 0, 0),
        ([telemetry(ENVOY, namespace="istio-system"), telemetry(OFF)], FILE, 0, 0),
        ([telemetry(ENVOY, namespace="istio-system"), telemetry({**OFF, "match": {"mode": "CLIENT"}})], {}, 0, 1),
        ([telemetry(OFF)], FILE, 1, 1),
        ([telemetry(OFF)], {**FILE, "defaultProviders": {"accessLogging": ["envoy"]}}, 0, 0),
        ([], {"defaultProviders": {"accessLogging": ["envoy"]}}, 1, 1),
        # another namespace, another workload
        ([telemetry(ENVOY, namespace="team-a")], {}, 0, 0),
        ([telemetry(ENVOY, selector={"matchLabels": {"app": "other"}})], {}, 0, 0),
        ([telemetry(ENVOY, selector={"matchLabels": {"app": "sleep"}})], {}, 1, 1),
        ([telemetry({"providers": [{"name": "nobody"}]})], {}, 0, 0),
        ([telemetry({"providers": [{"name": "prometheus"}]})], FILE, 1, 1),
        # of two without a selector only the older counts
        ([telemetry(ENVOY), telemetry({**ENVOY, **OFF}, name="u")], {}, 1, 1),
    ],
)
def test_who_logs(resources: list[Json], mesh: Json, client: int, server: int) -> None:
    assert (len(logs(*resources, mesh=mesh)), len(logs(*resources, mesh=mesh, side="SERVER"))) == (client, server)


def test_formats() -> None:
    def made(**mesh: Json) -> Json:
        return logs(mesh={**FILE, **mesh})[0]["typed_config"]["log_format"]

    assert made()["text_format_source"]["inline_string"].endswith("%REQUESTED_SERVER_NAME% %ROUTE_NAME%\n")
    assert made(accessLogFormat="%RESPONSE_CODE%") == {"text_format_source": {"inline_string": "%RESPONSE_CODE%\n"}}
    assert made(accessLogEncoding="JSON")["json_format"]["upstream_cluster"] == "%UPSTREAM_CLUSTER_RAW%"
    custom = made(accessLogEncoding="JSON", accessLogFormat='{"a": "%REQ_WITHOUT_QUERY(:PATH)%"}')
    assert custom["json_format"] == {"a": "%REQ_WITHOUT_QUERY(:PATH)%"} and len(custom["formatters"]) == 1
    assert "route_name" in made(accessLogEncoding="JSON", accessLogFormat="no json")["json_format"]


def test_own_providers() -> None:
    provider = {"name": "mine", "envoyFileAccessLog": {"path": "/dev/stderr", "logFormat": {"labels": {"c": "%RESPONSE_CODE%"}}}}
    (log,) = logs(telemetry({"providers": [{"name": "MINE"}]}), mesh={"extensionProviders": [provider]})
    assert log["typed_config"]["path"] == "/dev/stderr" and log["typed_config"]["log_format"]["json_format"] == {"c": "%RESPONSE_CODE%"}
    service = {"name": "otel", "envoyOtelAls": {"service": "x", "port": 1}}
    with pytest.raises(NotSimulated, match="otel"):
        logs(telemetry({"providers": [{"name": "otel"}]}), mesh={"extensionProviders": [service]})


def test_filters_and_the_listeners_own_log() -> None:
    told = compiled(telemetry({**ENVOY, "filter": {"expression": "response.code >= 400"}}), proxy=CLIENT)
    listener = next(x for x in told.listeners if x.name == "virtualOutbound")
    flags, expression = plain(listener.access_log[0].filter)["and_filter"]["filters"]
    assert flags == {"response_flag_filter": {"flags": ["NR"]}}
    assert expression["extension_filter"]["typed_config"]["expression"] == "response.code >= 400"
    quiet = compiled(proxy=CLIENT, mesh={**FILE, "disableEnvoyListenerLog": True})
    assert not any(x.access_log for x in quiet.listeners)

"""A proxy as a whole: changes while requests are in flight, its admin pages, draining, the watch on its folder."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import msgspec
import pytest

from meshsim import xds
from meshsim.proxy.admin import Admin
from meshsim.proxy.stats import Stats
from meshsim.proxy.watch import Watch
from tests.proxy.support import Bench, answering, cluster, http

GET = b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n"


def direct(status: int) -> xds.ProxyConfig:
    return msgspec.convert(http([{"match": {"prefix": "/"}, "direct_response": {"status": status}}]), xds.ProxyConfig)


async def test_an_update_changes_new_requests_and_finishes_old_ones() -> None:
    release, arrived = asyncio.Event(), asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        arrived.set()
        await release.wait()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nold")

    async with Bench(http()) as bench:
        await bench.host(talk)
        old = asyncio.ensure_future(bench.ask(GET))
        await arrived.wait()
        await bench.proxy.update(direct(299))
        assert (await bench.ask(GET)).startswith(b"HTTP/1.1 299 Unknown\r\n")
        release.set()
        assert (await old).endswith(b"old")


async def test_an_update_asks_the_clients_of_what_changed_to_go() -> None:
    async with Bench(http(drain_timeout="0.05s")) as bench:
        await bench.host(answering)
        reader, writer = await bench.client()
        ask = b"GET / HTTP/1.1\r\nhost: h\r\n\r\n"
        writer.write(ask)
        assert b"connection: close" not in await reader.readuntil(b"ok")
        await bench.proxy.update(bench.config)
        writer.write(ask)
        assert b"connection: close" not in await reader.readuntil(b"ok")
        await bench.proxy.update(direct(299))
        writer.write(ask)
        assert b"connection: close" in await reader.readuntil(b"ok")
        assert await asyncio.wait_for(reader.read(), 5) == b""


async def test_an_update_can_take_the_listener_away() -> None:
    async with Bench(http()) as bench:
        await bench.proxy.update(xds.ProxyConfig())
        with pytest.raises(ConnectionRefusedError):
            await bench.client()


async def test_draining_lets_idle_clients_go_and_takes_no_new_ones() -> None:
    async with Bench(http()) as bench:
        await bench.host(answering)
        reader, writer = await bench.client()
        writer.write(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
        await reader.readuntil(b"ok")
        await bench.proxy.drain(5)
        assert await reader.read() == b""
        assert bench.proxy.admin("/ready") == "DRAINING\n"
        with pytest.raises(ConnectionRefusedError):
            await bench.client()


PAGES = [
    ("/ready", "LIVE\n"),
    ("/listeners", "in::10.0.0.1:8080\n"),
    ("/stats?filter=downstream_rq", "downstream_rq_2xx: 1\n"),
    ("/stats?filter=upstream_cx_overflow", "cluster.up.upstream_cx_overflow: 0\n"),
    ("/stats?filter=no_filter", "listener.10.0.0.1_8080.no_filter_chain_match: 0\n"),
    ("/stats?filter=upstream_rq_200", "cluster.up.upstream_rq_200: 1\n"),
    ("/stats?type=Gauges", "cluster.up.membership_healthy: 1\n"),
    ("/stats/prometheus", 'envoy_cluster_upstream_rq_xx{envoy_response_code_class="2",envoy_cluster_name="up"} 1\n'),
    ("/clusters", "up::10.9.9.9:80::health_flags::healthy\n"),
    ("/config_dump?name_regex=^up$", '"name": "up"'),
    ("/stats?type=Histograms", "http.test.downstream_rq_time: P0(nan,"),
    ("/stats/prometheus?filter=upstream_rq_time", 'envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name="up",le="3600000"} 1\n'),
    ("/server_info", '"state": "LIVE"'),
    ("/certs", '"certificates": []'),
    ("/nowhere", "admin commands are"),
]


async def test_admin_pages() -> None:
    async with Bench(http()) as bench:
        await bench.host(answering)
        await bench.ask(GET)
        for path, text in PAGES:
            assert text in bench.proxy.admin(path), path
        assert json.loads(bench.proxy.admin("/stats?format=json&usedonly"))["stats"]
        admin = Admin(bench.proxy)
        assert admin.page("/reset_counters").status == 405
        assert admin.page("/healthcheck/fail", "POST").text == "OK\n"
        assert admin.page("/ready") == (503, "DRAINING\n", "text/plain; charset=UTF-8")
        assert admin.page("/stats?filter=(").status == 400


async def test_connections_count_where_they_come_in_and_where_they_go() -> None:
    """The names are those of Envoy's /stats with the same configuration and the same request."""
    at, manager, host = "listener.10.0.0.1_8080.", "http.test.", "cluster.up."
    async with Bench(http()) as bench:
        await bench.host(answering)
        _, writer = await bench.client()
        await bench.idle()
        writer.write(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
        stats = bench.proxy.core.stats
        async with asyncio.timeout(5):
            while not dict(stats.values()).get(f"{at}{manager}downstream_rq_completed"):
                await asyncio.sleep(0.001)
        values = dict(stats.values())
        ones = (f"{at}downstream_cx_active", f"{manager}downstream_cx_active", f"{at}{manager}downstream_rq_2xx")
        assert [values[name] for name in ones] == [1, 1, 1]
        writer.close()
        async with asyncio.timeout(5):
            while bench.proxy.core.connections:
                await asyncio.sleep(0.001)
        values = dict(stats.values())
        ends = (f"{at}downstream_cx_active", f"{at}downstream_cx_destroy", f"{manager}downstream_cx_active")
        assert [values[name] for name in ends] == [0, 1, 0]
        measured = {name for name, histogram in stats.histograms() if histogram.count == 1}
        assert {f"{at}downstream_cx_length_ms", f"{manager}downstream_cx_length_ms", f"{host}upstream_cx_connect_ms"} <= measured
        await bench.proxy.close()
        async with asyncio.timeout(5):
            while f"{host}upstream_cx_length_ms" not in dict(stats.histograms()):
                await asyncio.sleep(0.001)


async def test_admin_over_a_socket(tmp_path: Path) -> None:
    async with Bench(http(clusters=[cluster()])) as bench:
        path = str(bench.folder / "admin")
        await bench.proxy.serve_admin(path)
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"GET /ready HTTP/1.0\r\n\r\n")
        answer = await reader.read()
        writer.close()
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"\r\n\r\nLIVE\n")


async def test_a_rename_is_noticed_and_a_rewrite_is_not(tmp_path: Path) -> None:
    changed = asyncio.Event()
    watch = Watch([tmp_path], changed.set)
    try:
        (tmp_path / "new").write_text("{}")
        (tmp_path / "new").replace(tmp_path / "lds.json")
        await asyncio.wait_for(changed.wait(), 5)
    finally:
        watch.close()
    watch.close()


def test_prometheus_names_and_tags() -> None:
    stats = Stats()
    stats.meter("http.outbound_0.0.0.0_80.").response("downstream", 404)
    stats.meter("cluster.outbound|80||a.example.").response("upstream", 503)
    stats.gauge("server.live", lambda: 1)
    assert [line for line in stats.prometheus().splitlines() if "external" in line] == [
        "# TYPE envoy_cluster_external_upstream_rq counter",
        'envoy_cluster_external_upstream_rq{envoy_response_code="503",envoy_cluster_name="outbound|80||a.example"} 1',
        "# TYPE envoy_cluster_external_upstream_rq_completed counter",
        'envoy_cluster_external_upstream_rq_completed{envoy_cluster_name="outbound|80||a.example"} 1',
        "# TYPE envoy_cluster_external_upstream_rq_xx counter",
        'envoy_cluster_external_upstream_rq_xx{envoy_response_code_class="5",envoy_cluster_name="outbound|80||a.example"} 1',
    ]
    assert [line for line in stats.prometheus().splitlines() if "external" not in line] == [
        "# TYPE envoy_cluster_upstream_rq counter",
        'envoy_cluster_upstream_rq{envoy_response_code="503",envoy_cluster_name="outbound|80||a.example"} 1',
        "# TYPE envoy_cluster_upstream_rq_completed counter",
        'envoy_cluster_upstream_rq_completed{envoy_cluster_name="outbound|80||a.example"} 1',
        "# TYPE envoy_cluster_upstream_rq_xx counter",
        'envoy_cluster_upstream_rq_xx{envoy_response_code_class="5",envoy_cluster_name="outbound|80||a.example"} 1',
        "# TYPE envoy_http_downstream_rq_completed counter",
        'envoy_http_downstream_rq_completed{envoy_http_conn_manager_prefix="outbound_0.0.0.0_80"} 1',
        "# TYPE envoy_http_downstream_rq_xx counter",
        'envoy_http_downstream_rq_xx{envoy_response_code_class="4",envoy_http_conn_manager_prefix="outbound_0.0.0.0_80"} 1',
        "# TYPE envoy_server_live gauge",
        "envoy_server_live{} 1",
    ]

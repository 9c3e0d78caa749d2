"""The bench counts right, refuses what it cannot say, and its legs answer on live proxies."""

from __future__ import annotations

import asyncio
import cProfile
import dataclasses
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from meshsim import envoy, xds
from meshsim.bench import anchors, costs, engines, load, member, plot, rounds, soak
from meshsim.bench.figures import Figure, resources
from meshsim.bench.flat import Flat, Unreachable
from meshsim.bench.histogram import Histogram
from meshsim.bench.legs import LEGS, Leg, leg
from meshsim.bench.load import Client, Load
from meshsim.bench.report import Report
from meshsim.bench.rounds import Measured, Sample
from meshsim.bench.soak import Soak, Stretch
from meshsim.errors import MeshsimError
from meshsim.network import proxy_protocol
from meshsim.network.base import Address
from meshsim.resources import load as load_resources
from meshsim.resources.external_server import Presented
from meshsim.world.certificates import Authorities

SCENARIO = Path(__file__).parent.parent.parent / "scenarios" / "egress-gateway-http1"


@pytest.mark.parametrize("part,expected", [(0.0, 1), (0.5, 500), (0.99, 990), (0.999, 999), (1.0, 1000)])
def test_quantiles(part: float, expected: int) -> None:
    histogram = Histogram()
    histogram.extend(range(1, 1001))
    assert histogram.quantile(part) == expected


@pytest.mark.parametrize("value", [0, 1, 2047, 2048, 123_456, 10**9, 10**12 + 7])
def test_a_bucket_is_right_to_a_part_in_a_thousand(value: int) -> None:
    histogram = Histogram()
    histogram.record(value)
    assert value - value / 1000 <= histogram.quantile(1.0) <= value


def test_histograms_add_up() -> None:
    one, other, both = Histogram(), Histogram(), Histogram()
    one.extend(range(0, 5000, 3))
    other.extend(range(0, 900_000, 17))
    both.extend([*range(0, 5000, 3), *range(0, 900_000, 17)])
    one.add(other)
    assert one.counts == both.counts and Histogram(one.counts).quantile(0.9) == both.quantile(0.9)


class Answerer:
    """A server on a thread that sends `pieces` for each request, and counts connections."""

    def __init__(self, *pieces: bytes, tls: ssl.SSLContext | None = None):
        self.pieces, self.connections, self._tls = pieces, 0, tls
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._server.accept()
            except OSError:
                return
            self.connections += 1
            self._threads.append(threading.Thread(target=self._serve, args=(sock,), daemon=True))
            self._threads[-1].start()

    def _serve(self, sock: socket.socket) -> None:
        with self._tls.wrap_socket(sock, server_side=True) if self._tls else sock as sock:
            try:
                while sock.recv(65536):
                    for piece in self.pieces:
                        sock.sendall(piece)
            except OSError:
                pass

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for thread in self._threads:
            thread.join(5)


ANSWERS = {
    "whole": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",),
    "in pieces": (b"HTTP/1.1 200 OK\r\ncontent-le", b"ngth: 5\r\n\r", b"\nhel", b"lo"),
}


@pytest.fixture(params=ANSWERS)
def answerer(request: pytest.FixtureRequest) -> Iterator[Answerer]:
    server = Answerer(*ANSWERS[request.param])
    yield server
    server.close()


def run(settings: Load) -> load.Result:
    client = Client(settings)
    try:
        return client.run()
    finally:
        client.close()


def test_closed_load(answerer: Answerer) -> None:
    result = run(Load(host="127.0.0.1", port=answerer.port, request=b"GET / HTTP/1.1\r\n\r\n", connections=3, warmup=0.02, seconds=0.1))
    assert result.requests > 3 and result.errors == 0 and answerer.connections == 3
    assert result.histogram.count == result.requests


def test_fresh_connections(answerer: Answerer) -> None:
    settings = Load(host="127.0.0.1", port=answerer.port, request=b"x", connections=2, fresh=True, warmup=0.0, seconds=0.1)
    assert run(settings).requests <= answerer.connections


def test_so_many_requests_however_long_they_take() -> None:
    server = Answerer(b"." * (1 << 21))
    try:
        settings = Load(
            host="127.0.0.1", port=server.port, request=b"x", answer=1 << 21, fresh=True, requests=2, warmup=0.0, seconds=0.0
        )
        result = run(settings)
    finally:
        server.close()
    assert (result.requests, result.received, server.connections) == (2, 2 << 21, 2)


@pytest.mark.parametrize("sealed", [False, True])
def test_an_answer_in_records_is_counted_to_the_byte(sealed: bool, tmp_path: Path) -> None:
    """It ends where its content-length says, though nobody decrypts it."""
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    Authorities(tmp_path / "ca").issue(Presented(("a.example",), "public")).write(chain, key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    pieces = [b"." * size for size in (1, 16384, 70_000, 3, 500_000)]
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % sum(map(len, pieces))
    server = Answerer(head, *pieces, tls=context)
    settings = Load(host="127.0.0.1", port=server.port, tls="a.example", sealed=sealed, request=b"x", fresh=True, requests=2)
    try:
        result = run(settings)
    finally:
        server.close()
    assert (result.requests, result.errors) == (2, 0)
    assert result.received == 2 * (len(head) + sum(map(len, pieces)))


def test_open_load_sends_what_is_due() -> None:
    server = Answerer(*ANSWERS["whole"])
    try:
        settings = Load(host="127.0.0.1", port=server.port, request=b"x", connections=4, mode="open", rate=200, warmup=0.0, seconds=0.3)
        result = run(settings)
    finally:
        server.close()
    assert result.requests + result.late <= 61 and result.errors == 0


def test_an_answer_that_is_none_is_an_error() -> None:
    server = Answerer(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n")
    try:
        with pytest.raises(load.Refused, match="503"):
            run(Load(host="127.0.0.1", port=server.port, request=b"x", warmup=0.0, seconds=5))
    finally:
        server.close()


def sample(engine: str, requests: int, *, client: float = 0.1, cpu: float = 0.5) -> Sample:
    spent = {"client": client, "origin": client, "proxy 0": cpu}
    return Sample(engine=engine, requests=requests, errors=0, received=requests, elapsed=1.0, cpu=spent, latencies={1_000_000: requests})


def report(*pairs: list[Sample]) -> Report:
    return Report(
        machine={"cores": 2}, seconds=1.0, measured=[Measured(leg="a", title="A", rounds=list(pairs))], figures=[Figure("f", 1, "s")]
    )


def test_the_ratio_is_the_median_of_the_rounds() -> None:
    made = report(*[[sample("asyncio", n), sample("envoy", 100)] for n in (50, 400, 120)])
    assert "1.20x" in made.text() and "0.50" in made.text() and "4.00" in made.text()


def test_what_proxies_add_is_the_difference_to_none() -> None:
    def took(engine: str, nanoseconds: int) -> Sample:
        return msgspec.structs.replace(sample(engine, 100), latencies={nanoseconds: 100})

    samples = [took("asyncio", 3_000_000), took("envoy", 5_000_000), took(rounds.DIRECT, 1_000_000)]
    made = report(samples)
    assert made.measured[0].added("asyncio") == [pytest.approx(2e6, rel=0.002)]
    assert any(line.split()[-5:] == ["0.50x", "0.50", "0.50", "-", "1"] for line in made.text().splitlines())


@pytest.mark.parametrize("name", ["asyncio+envoy", "envoy+asyncio-h11", "nginx", "asyncio"])
def test_engines_by_name(name: str) -> None:
    engines.check(name)


@pytest.mark.parametrize("name", ["", "envoi", "asyncio+", "asyncio+nginx", "nginx+envoy", "a+b+c"])
def test_no_such_engine(name: str) -> None:
    with pytest.raises(MeshsimError, match="there are: asyncio, "):
        engines.check(name)


def test_an_anchor_stands_in_for_one_plain_hop_only() -> None:
    assert [each.name for each in LEGS if engines.serves("nginx", each)] == ["sidecar"]


def stretches(memory: list[float], **last: int) -> Soak:
    """A soak whose memory, in MiB, was as listed."""
    each = [Stretch(requests=9, errors=0, late=0, p50=1, p99=2, memory=int(m * 2**20), files=9) for m in memory]
    each[-1] = msgspec.structs.replace(each[-1], first_error="refused", **last)
    return Soak(leg="gateway", engine="asyncio", rate=10.0, seconds=1.0, stretches=each)


SOAKS = {
    "steady": (stretches([30, 40, 41, 41, 40, 41]), []),
    "filling at first": (stretches([10, 20, 41, 41, 41, 41]), []),
    "growing": (stretches([30, 40, 41, 50, 60, 70]), ["memory grew from 45.5 to 65.0 MiB"]),
    "failing": (stretches([30] * 6, errors=3), ["3 errors, the first: refused"]),
    "leaking": (stretches([30] * 6, files=99), ["open files grew from 9 to 54"]),
}


@pytest.mark.parametrize("name", SOAKS)
def test_what_a_soak_says(name: str) -> None:
    made, failures = SOAKS[name]
    assert list(made.failures()) == failures
    assert ("no error, no growth" in Report(machine={}, seconds=1.0, soaks=[made]).text()) == (not failures)


def test_a_profile_by_part(tmp_path: Path) -> None:
    profile = cProfile.Profile()
    profile.runcall(proxy_protocol.encode, Address("10.0.0.1", 1), Address("10.0.0.2", 2))
    profile.dump_stats(tmp_path / member.PROFILE)
    (tmp_path / member.PROFILED).write_text("60.0")
    parts = costs.by_part([tmp_path / member.PROFILE])
    assert sum(parts.values()) == pytest.approx(60.0)
    assert 0 < parts[costs.CAPTURE] < 1 and parts[costs.LOOP] > 59 and parts[costs.TLS] == 0


def test_no_ratio_of_a_full_client() -> None:
    made = report([sample("asyncio", 100, client=0.46), sample("envoy", 100)])
    assert "client and origin were full with asyncio" in made.text() and "1.00x" not in made.text()


def test_a_report_survives_json_and_draws() -> None:
    made = report([sample("asyncio", 100), sample("envoy", 90)])
    made.profiles.append(costs.Profile("a", {costs.PARSE: 0.25, costs.WRITE: 0.75}))
    assert Report.decode(made.encode()) == made
    picture = ElementTree.fromstring(plot.svg(made))
    assert [len(picture.findall(f".//{{*}}{kind}")) for kind in ("polyline", "rect")] == [2, 1 + 2 + 2 + 2 * len(costs.PARTS)]


def test_flat_addresses() -> None:
    flat = Flat({"a.example": ["203.0.113.9"]}, {"10.96.0.1:80": ["10.244.0.20:8080"]})
    named, number = flat.place("a.example", 443)
    assert named == flat.host("203.0.113.9") and named.startswith("127.") and number == 20443
    assert flat.place("10.96.0.1", 80) == (flat.host("10.244.0.20"), 8080)
    other = flat.another()
    assert other.host("203.0.113.9") == named and other.host("10.244.9.9") != flat.host("10.244.9.9")
    with pytest.raises(Unreachable, match="nothing is known"):
        flat.place("b.example", 80)


def test_two_engines_do_not_share_what_is_placed() -> None:
    at = {"socket_address": {"address": "203.0.113.9", "port_value": 443}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": at}}]}]
    placed = xds.decode(json.dumps({"endpoints": [{"cluster_name": "a", "endpoints": endpoints}]}))
    before, flat = xds.encode(placed), Flat({}, {})
    assert flat.host("203.0.113.9").encode() in xds.encode(flat.rehouse(placed))
    assert xds.encode(placed) == before


def test_the_compile_curve_is_of_valid_resources() -> None:
    assert len(load_resources("-", stdin=resources(3)).require().resources) == 9


BETWEEN = [
    ("sidecar", ""),
    ("gateway", "HTTP/1.1"),
    ("origination", "HTTP/1.1 in TLSv1.3"),
    ("http2-mtls", "HTTP/2 in TLSv1.3"),
    ("passthrough", "TCP (the client's TLS inside)"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "said"), BETWEEN)
async def test_what_hops_say_to_each_other(name: str, said: str) -> None:
    async with engines.Stage(leg(name)) as stage:
        assert stage.between() == said


@pytest.mark.slow
async def test_a_download_that_ends_and_its_peak() -> None:
    size = 64 << 20
    measured = await rounds.measure(
        dataclasses.replace(leg("passthrough-download"), body=size), [engines.ASYNCIO], rounds=1, seconds=0.1
    )
    (made,) = measured.samples(engines.ASYNCIO)
    assert (made.requests, made.received, made.errors) == (1, size, 0)
    assert len(made.peaks) == 2 and all(made.memory[n] / 2 < made.peaks[n] < size for n in (0, 1))


LIVE = [each for each in LEGS if not each.bulk and not each.only_direct]
LIVE.append(dataclasses.replace(leg("tls-bulk"), body=1024))


@pytest.mark.slow
@pytest.mark.parametrize("each", LIVE, ids=lambda each: each.name)
async def test_a_leg_answers(each: Leg) -> None:
    short = msgspec.structs.replace
    async with engines.Stage(each) as stage:
        engine = engines.make(engines.ASYNCIO, stage)
        await engine.start()
        try:
            result = await rounds.run_load(short(engine.load(), connections=2, warmup=0.05, seconds=0.1))
        finally:
            await asyncio.gather(engine.stop())
    assert result.requests > 0 and not result.first_error


@pytest.mark.envoy
@pytest.mark.slow
async def test_each_engine_has_hops_of_its_own() -> None:
    try:
        envoy.binary()
    except envoy.EnvoyUnavailable as e:
        pytest.skip(str(e))
    measured = await rounds.measure(leg("gateway"), [engines.ASYNCIO, engines.ENVOY], rounds=1, seconds=0.2)
    for made in measured.rounds[0]:
        assert made.cpu["proxy 1"] > made.cpu["proxy 0"] / 5, f"the gateway of {made.engine} had next to nothing to do: {made.cpu}"


@pytest.mark.envoy
@pytest.mark.slow
@pytest.mark.parametrize("each", [leg("mtls"), Leg("scenario", "", sources=(str(SCENARIO),))], ids=["leg", "scenario"])
async def test_on_a_real_envoy(each: Leg) -> None:
    try:
        envoy.binary()
    except envoy.EnvoyUnavailable as e:
        pytest.skip(str(e))
    measured = await rounds.measure(each, [engines.ENVOY], rounds=1, seconds=0.1)
    assert measured.samples(engines.ENVOY)[0].requests > 0


@pytest.mark.slow
async def test_a_short_soak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "_STRETCHES", 3)
    made = await soak.soak(leg("sidecar"), engines.ASYNCIO, 0.3)
    assert len(made.stretches) == 3 and not sum(s.errors for s in made.stretches)
    assert all(s.requests and s.memory and s.files for s in made.stretches)


@pytest.mark.slow
@pytest.mark.parametrize("name", anchors.ANCHORS)
async def test_on_an_anchor(name: str) -> None:
    if name not in anchors.installed():
        pytest.skip(f"no {name} here")
    measured = await rounds.measure(leg("sidecar"), [name], rounds=1, seconds=0.1)
    assert measured.samples(name)[0].requests > 0 and not measured.samples(name)[0].errors


@pytest.mark.envoy
@pytest.mark.slow
async def test_one_hop_of_each() -> None:
    try:
        envoy.binary()
    except envoy.EnvoyUnavailable as e:
        pytest.skip(str(e))
    measured = await rounds.measure(leg("mtls"), ["asyncio+envoy"], rounds=1, seconds=0.1)
    assert measured.samples("asyncio+envoy")[0].requests > 0 and not measured.samples("asyncio+envoy")[0].errors

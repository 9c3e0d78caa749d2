"""A mesh whose proxies are real Envoys: the same YAML, clients and servers, and the same answers and log lines as with our own."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

import meshsim
from meshsim.errors import MeshsimError
from meshsim.mesh import ENGINES
from tests.envoy.needed import NEEDS_ENVOY
from tests.network.inside import in_namespaces, needs_netns

SCENARIOS = Path(__file__).parent.parent.parent / "scenarios"
CALLS = {
    "egress-gateway-http-mtls": "http://edition.cnn.com/politics",
    "tls-origination-gateway": "http://edition.cnn.com/politics",
    "egress-gateway-https": "https://edition.cnn.com/politics",
    "egress-gateway-https-mtls": "https://edition.cnn.com/politics",
}
PROXIES = ("sleep", "istio-egressgateway")
CHANGING = re.compile(r"^\[[^]]*\]|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?<=10\.244\.1\.10:)\d+|(?<=10\.244\.0\.20:)(?!8)\d+")
TIMES = re.compile(r'(" \d+ \d+) \d+ (\d+|-) "')
SIGNED = re.compile(r"\b\d{5,}\b")  # bytes with a certificate among them, whose signature has no fixed size


async def answered(scenario: str, engine: str) -> tuple[int, list[list[str]]]:
    """The status of the scenario's call, and what each proxy logged of it."""
    async with meshsim.load(SCENARIOS / scenario).run(network="netns", engine=engine) as live:
        reply = await live.pod("sleep").get(CALLS[scenario])
        async with asyncio.timeout(5):
            while not all(live.proxy(name).log() for name in PROXIES):
                await asyncio.sleep(0.01)
        lines = [live.proxy(name).log() for name in PROXIES]
    return reply.status, [[SIGNED.sub("", TIMES.sub(r'\1 "', CHANGING.sub("", line.rstrip()))) for line in each] for each in lines]


@needs_netns
@pytest.mark.parametrize("scenario", [pytest.param(name, marks=NEEDS_ENVOY) for name in CALLS])
def test_every_engine_answers_and_logs_alike(scenario: str) -> None:
    async def both() -> None:
        ours, theirs = [await answered(scenario, engine) for engine in ENGINES]
        assert ours == theirs

    in_namespaces(lambda: asyncio.run(both()))


async def test_what_cannot_be_is_said() -> None:
    mesh = meshsim.load(SCENARIOS / "egress-gateway-http")
    with pytest.raises(MeshsimError, match="--network netns"):
        async with mesh.run(engine="envoy"):
            pass
    with pytest.raises(MeshsimError, match="there is no engine 'nginx'; there are asyncio and envoy"):
        async with mesh.run(engine="nginx"):
            pass

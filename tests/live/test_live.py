"""A mesh alive: the task page's story, what fails and how, changes under load, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from cryptography import x509

import meshsim
from meshsim.identity import Authority
from meshsim.members import Separate
from meshsim.mesh import Mesh, UnknownPod
from meshsim.pod import NameDoesNotResolve
from meshsim.processes import environment
from meshsim.run_folder import BASE_VARIABLE

SCENARIOS = Path(__file__).parents[2] / "scenarios"
PLAIN, MTLS = SCENARIOS / "egress-gateway-http", SCENARIOS / "egress-gateway-http-mtls"
PAGE = "http://edition.cnn.com/politics"
GATEWAY = "istio-egressgateway"
THROUGH_GATEWAY = "outbound|80|cnn|istio-egressgateway.istio-system.svc.cluster.local"
REFUSED = "upstream connect error or disconnect/reset before headers. {}reset reason: remote connection failure"


def changed(folder: Path, tmp_path: Path, file: str, **replaced: str) -> Mesh:
    """A scenario with some text replaced in one of its files."""
    copy = tmp_path / f"{folder.name}-{random.getrandbits(32):x}"
    shutil.copytree(folder, copy)
    text = (copy / file).read_text()
    for old, new in replaced.items():
        assert old in text
        text = text.replace(old, new)
    (copy / file).write_text(text)
    return meshsim.load(copy)


async def lines(live: meshsim.live.LiveMesh, pod: str, count: int) -> list[str]:
    """The access log of a pod's proxy once it has so many lines; a process writes them in its own time."""
    async with asyncio.timeout(10):
        while len(found := live.proxy(pod).log()) < count:
            await asyncio.sleep(0.01)
    return found


@pytest.mark.parametrize("processes", [False, True])
async def test_the_page_s_story(processes: bool) -> None:
    async with meshsim.load(PLAIN).run(processes=processes) as live:
        sleep = live.pod("sleep")
        redirect = await sleep.get(PAGE)
        assert (redirect.status, redirect.header("location")) == (301, "https://edition.cnn.com/politics")
        page = await sleep.get("https://edition.cnn.com/politics")
        assert (page.status, len(page.body)) == (200, 150_000)
        sidecar, gateway = await lines(live, "sleep", 2), await lines(live, GATEWAY, 1)
        assert THROUGH_GATEWAY in sidecar[0] and '"GET /politics HTTP/1.1" 301 - via_upstream' in sidecar[0]
        assert '"GET /politics HTTP/2" 301 - via_upstream' in gateway[0] and "outbound|80||edition.cnn.com" in gateway[0]
        assert len(gateway) == 1
        assert [a["peer"] for a in live.arrivals()] == [live.mesh.pod(GATEWAY).address, live.mesh.pod("sleep").address]


async def test_what_does_not_exist_says_so() -> None:
    async with meshsim.load(PLAIN).run() as live:
        with pytest.raises(UnknownPod, match="default/sleep"):
            live.pod("nobody")
        with pytest.raises(NameDoesNotResolve):
            await live.pod("sleep").get("http://nowhere.example/")
        with pytest.raises(meshsim.errors.MeshsimError, match="not an http"):
            await live.pod("sleep").get("ftp://edition.cnn.com/")
        assert await live.pod("sleep").run("no-such-program-anywhere") == 127


@pytest.mark.parametrize("processes", [False, True])
async def test_a_proxy_s_admin_interface_is_on_its_pod_s_localhost(processes: bool) -> None:
    async with meshsim.load(PLAIN).run(processes=processes) as live:
        await live.pod("sleep").get(PAGE)
        page = await live.pod("sleep").get("http://localhost:15000/stats?filter=upstream_cx_total")
        assert f"cluster.{THROUGH_GATEWAY}.upstream_cx_total: 1" in page.text
        assert page.text == await live.proxy("sleep").admin("/stats?filter=upstream_cx_total")
        assert "upstream_cx_total" in (await live.pod(GATEWAY).get("http://localhost:15000/stats")).text


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
@pytest.mark.parametrize(
    ("url", "status"), [("http://edition.cnn.com/", 0), ("https://edition.cnn.com/", 0), ("http://nowhere.example/", 97)]
)
async def test_curl_in_a_pod(url: str, status: int, capfd: pytest.CaptureFixture[str]) -> None:
    async with meshsim.load(PLAIN).run() as live:
        assert await live.pod("sleep").run("curl", "-sS", "-o", os.devnull, url) == status


async def test_an_external_server_that_is_down(tmp_path: Path) -> None:
    mesh = changed(PLAIN, tmp_path, "outside.yaml", **{"port: 80": "port: 81"})
    async with mesh.run() as live:
        reply = await live.pod("sleep").get(PAGE)
        assert reply.status == 503
        assert reply.text == REFUSED.format("retried and the latest ")
        gateway = live.proxy(GATEWAY).log()[-1]
        assert "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}" in gateway


async def test_a_killed_gateway_and_a_clean_next_start() -> None:
    mesh = meshsim.load(PLAIN)
    for _ in range(2):
        async with mesh.run(processes=True) as live:
            assert (await live.pod("sleep").get(PAGE)).status == 301
            gateway = live.proxy(GATEWAY)
            assert isinstance(gateway, Separate)
            gateway.process.kill()
            assert await gateway.process.wait() == -signal.SIGKILL
            reply = await live.pod("sleep").get(PAGE)
            assert reply.status == 503 and reply.text.startswith("upstream connect error")
            assert '" 503 ' in (await lines(live, "sleep", 2))[1]
        assert not live.folder.exists()


async def test_no_request_is_lost_over_changes(tmp_path: Path) -> None:
    through = meshsim.load(PLAIN)
    direct = changed(PLAIN, tmp_path, "virtual-service.yaml", **{"- mesh\n": "- elsewhere\n"})
    async with through.run() as live:
        stop = asyncio.Event()
        statuses: list[int] = []

        async def ask() -> None:
            while not stop.is_set():
                statuses.append((await live.pod("sleep").get(PAGE)).status)

        asking = [asyncio.create_task(ask()) for _ in range(8)]
        for mesh in (direct, through, direct, through):
            seen = len(statuses)
            await live.apply(mesh)
            while len(statuses) < seen + 40:
                await asyncio.sleep(0)
        stop.set()
        await asyncio.gather(*asking)
        assert set(statuses) == {301}
        clusters = {line.split('" ')[-1].split()[0] for line in live.proxy("sleep").log()}
        assert clusters == {THROUGH_GATEWAY, "outbound|80||edition.cnn.com"}


async def test_a_pod_that_goes_and_comes_back() -> None:
    whole = meshsim.load(PLAIN)
    without = whole.changed([r for r in whole.resources if not (r.kind in ("Deployment", "Pod") and r.name.startswith("sleep"))])
    async with whole.run() as live:
        assert (await live.pod("sleep").get(PAGE)).status == 301
        await live.apply(without)
        with pytest.raises(UnknownPod):
            live.pod("sleep")
        await live.apply(whole)
        assert (await live.pod("sleep").get(PAGE)).status == 301
        assert "upstream_cx_total" in (await live.pod("sleep").get("http://localhost:15000/stats")).text


async def test_certificates_are_renewed_without_losing_a_request() -> None:
    async with meshsim.load(MTLS).run() as live:
        assert (await live.pod("sleep").get(PAGE)).status == 301
        before = live.proxy(GATEWAY).workload.files.chain.read_bytes()
        for member in live.proxies:
            await member.renew()
        assert live.proxy(GATEWAY).workload.files.chain.read_bytes() != before
        assert (await live.pod("sleep").get(PAGE)).status == 301


async def test_clients_verify_the_outside() -> None:
    async with meshsim.load(PLAIN).run() as live:
        sleep = live.pod("sleep")
        sleep.roots = live.proxy("sleep").identity_files["certs/root-cert.pem"]  # the mesh's, not the outside's
        with pytest.raises(ssl.SSLCertVerificationError):
            await sleep.get("https://edition.cnn.com/")


PROGRAM = f"""
import asyncio, meshsim
async def main():
    async with meshsim.load({str(PLAIN)!r}).run(processes=True) as live:
        print(live.folder, flush=True)
        await live.pod("sleep").get({PAGE!r})
        await asyncio.sleep(60)
asyncio.run(main())
"""


@pytest.mark.parametrize("delay", [0.3, 0.7, None])
async def test_ctrl_c_at_any_moment_leaves_nothing(delay: float | None) -> None:
    own = Path(tempfile.mkdtemp(prefix="msim-", dir="/tmp"))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment() | {BASE_VARIABLE: str(own)}
    )
    assert process.stdout is not None
    if delay is None:
        await process.stdout.readline()
    else:
        await asyncio.sleep(delay)  # the moment is the point of the test, not a synchronisation
    process.send_signal(signal.SIGINT)
    await asyncio.wait_for(process.wait(), 15)
    async with asyncio.timeout(5):
        while list(own.iterdir()):
            await asyncio.sleep(0.02)
    await process.stdout.read()
    own.rmdir()


async def test_one_s_own_ca_signs_the_mesh(tmp_path: Path) -> None:
    ca = Authority.create("acme", intermediate=True)
    folder = tmp_path / "cacerts"
    folder.mkdir()
    ca.pair.write(folder / "ca-cert.pem", folder / "ca-key.pem")
    (folder / "cert-chain.pem").write_bytes(ca.pair.chain_pem())
    (folder / "root-cert.pem").write_bytes(ca.root_pem())
    async with meshsim.load(MTLS).run(cacerts=folder, processes=True) as live:
        assert (await live.pod("sleep").get(PAGE)).status == 301
        chain = x509.load_pem_x509_certificates(live.proxy(GATEWAY).workload.files.chain.read_bytes())
        assert [c.issuer for c in chain] == [ca.pair.certificate.subject, ca.root.subject]

"""A mesh of real processes, spoken to as the page does."""

from __future__ import annotations

import stat
from collections.abc import Iterator

import pytest

from meshsim.kube import client
from tests.kube.cluster import ROOT, Cluster, cluster

SCENARIO = ROOT / "scenarios" / "egress-gateway-http"


@pytest.fixture(scope="module")
def kubectl() -> Iterator[Cluster]:
    with cluster("run", "--network", "loopback") as made:
        yield made


def test_the_page(kubectl: Cluster) -> None:
    pod = kubectl.says("get", "pod", "-l", "app=sleep", "-o", "jsonpath={.items..metadata.name}")
    curl = ("exec", pod, "-c", "sleep", "--", "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "http://edition.cnn.com/politics")
    stats = ("exec", "istio-egressgateway", "-n", "istio-system", "-c", "istio-proxy", "--", "pilot-agent", "request", "GET", "stats")
    assert kubectl.says("apply", "-f", "-", text=(SCENARIO / "service-entry.yaml").read_text()).endswith("/cnn created\n")
    assert kubectl.says(*curl) == "301"
    assert "301" not in kubectl.says("logs", "-l", "istio=egressgateway", "-n", "istio-system")
    files = [word for name in ("gateway", "destination-rule", "virtual-service") for word in ("-f", str(SCENARIO / f"{name}.yaml"))]
    assert kubectl.says("apply", *files).count(" created\n") == 3
    assert kubectl.says(*curl) == "301"
    assert '"GET /politics HTTP/2" 301' in kubectl.says("logs", "-l", "istio=egressgateway", "-c", "istio-proxy", "-n", "istio-system")
    assert "cluster.outbound|80||edition.cnn.com.upstream_cx_total: 1\n" in kubectl.says(*stats)
    assert kubectl.says("delete", "gateway", "istio-egressgateway") == 'gateway.networking.istio.io "istio-egressgateway" deleted\n'
    assert kubectl.says("delete", "-f", str(SCENARIO), "--ignore-not-found").count("deleted") >= 3


def test_a_refused_resource_leaves_the_mesh_as_it_was(kubectl: Cluster) -> None:
    before = kubectl.says("get", "gateways,virtualservices", "-A", "-o", "name")
    done = kubectl("apply", "-f", "-", text=(SCENARIO / "gateway.yaml").read_text().replace("edition.cnn.com", "'*.a.*'"))
    assert done.returncode == 1
    assert 'admission webhook "validation.istio.io" denied the request' in done.stderr
    assert kubectl.says("get", "gateways,virtualservices", "-A", "-o", "name") == before


def test_exit_status_of_the_command(kubectl: Cluster) -> None:
    done = kubectl("exec", "sleep", "--", "sh", "-c", "exit 3")
    assert (done.returncode, done.stderr) == (3, "command terminated with exit code 3\n")


def test_standard_input_reaches_the_command(kubectl: Cluster) -> None:
    assert kubectl("exec", "-i", "sleep", "--", "cat", text="hello\n").stdout == "hello\n"
    assert kubectl("exec", "sleep", "--", "cat", text="hello\n").stdout == ""


def test_what_is_not_there(kubectl: Cluster) -> None:
    done = kubectl("exec", "nobody", "--", "true")
    assert (done.returncode, done.stderr) == (1, 'Error from server (NotFound): pods "nobody" not found\n')
    assert kubectl("get", "pods", "-n", "nowhere").stderr == "No resources found in nowhere namespace.\n"


def test_for_its_user_alone(kubectl: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHSIM_RUN", str(kubectl.folder))
    mesh = client.choose()
    assert stat.S_IMODE(mesh.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((mesh.folder / "mesh.json").stat().st_mode) == 0o600
    mesh.state.token = "another"
    assert client.ask(mesh, "get", ["pods"]) == 1
    assert "sleep" in kubectl.says("get", "pods")

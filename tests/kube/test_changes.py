"""Changes of a mesh under load: each is everywhere when `apply` returns, and no request is lost; a refused one changes nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.kube.cluster import ROOT, Cluster

SCENARIO = ROOT / "scenarios" / "egress-gateway-http"
ENTRY, GATEWAY, RULE, ROUTE = (SCENARIO / f"{name}.yaml" for name in ("service-entry", "gateway", "destination-rule", "virtual-service"))
FILES = [word for file in (ENTRY, GATEWAY, RULE, ROUTE) for word in ("-f", str(file))]
URL = "http://edition.cnn.com/politics"
GATEWAY_LOG = ("logs", "-l", "istio=egressgateway", "-n", "istio-system", "--tail=-1")
CLIENTS = {
    "one connection": f"exec curl -s -o /dev/null -w '%{{http_code}}\\n' '{URL}?[1-1000000]'",
    "a connection each": f"while :; do curl -s -o /dev/null -w '%{{http_code}}\\n' {URL}; done",
}


@pytest.fixture
def page(kubectl: Cluster) -> Iterator[Cluster]:
    kubectl.says("apply", *FILES)
    yield kubectl
    kubectl("delete", *FILES, "--ignore-not-found")


@contextmanager
def asking(kubectl: Cluster, client: str) -> Iterator[list[str]]:
    """A client in the sleep pod that asks again and again; afterwards the status of each answer."""
    command = [sys.executable, "-m", "meshsim", "exec", "sleep", "--", "sh", "-c", CLIENTS[client]]
    process = subprocess.Popen(command, env=kubectl.environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    answers: list[str] = [process.stdout.readline().strip()]
    try:
        yield answers
    finally:
        process.terminate()
        answers += [line.strip() for line in process.stdout if line.endswith("\n")]
        process.wait()
        process.stdout.close()


def through_gateway(kubectl: Cluster, mark: str) -> bool:
    """Whether a request with a mark of its own passes the gateway."""
    assert kubectl.says("exec", "sleep", "--", "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"{URL}?{mark}") == "301"
    return f"?{mark} " in kubectl.says(*GATEWAY_LOG)


@pytest.mark.parametrize("client", CLIENTS)
def test_no_request_is_lost(page: Cluster, client: str) -> None:
    with asking(page, client) as answers:
        for turn in range(2):
            page.says("delete", "virtualservice", "direct-cnn-through-egress-gateway")
            assert not through_gateway(page, f"direct-{turn}")
            page.says("apply", "-f", str(ROUTE))
            assert through_gateway(page, f"gateway-{turn}")
            page.says("apply", "-f", "-", text=GATEWAY.read_text().replace("- edition.cnn.com", f"- edition.cnn.com\n    - cnn-{turn}.com"))
    assert len(answers) > 20
    assert set(answers) == {"301"}


def test_a_refused_change_is_none(page: Cluster) -> None:
    before = page.says("get", "virtualservice", "-o", "yaml")
    broken = ROUTE.read_text().replace("weight: 100", "weight: -1")
    done = page("apply", "-f", "-", text=broken)
    assert done.returncode == 1
    assert 'admission webhook "validation.istio.io" denied the request' in done.stderr
    assert page.says("get", "virtualservice", "-o", "yaml") == before
    assert through_gateway(page, "still")


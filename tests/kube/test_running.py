"""A mesh of real processes, spoken to as the page does."""

from __future__ import annotations

import re
import stat
import subprocess
import sys

import pytest

from meshsim.kube import client
from tests.kube.cluster import ROOT, Cluster

SCENARIO = ROOT / "scenarios" / "egress-gateway-http"


def test_the_page(kubectl: Cluster) -> None:
    pod = kubectl.says("get", "pod", "-l", "app=sleep", "-o", "jsonpath={.items..metadata.name}")
    curl = ("exec", pod, "-c", "sleep", "--", "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "http://edition.cnn.com/politics")
    stats = ("exec", "istio-egressgateway", "-n", "istio-system", "-c", "istio-proxy", "--", "pilot-agent", "request", "GET", "stats")
    assert kubectl.says("apply", "-f", "-", text=(SCENARIO / "service-entry.yaml").read_text()).endswith("/cnn created\n")
    assert kubectl.says(*curl) == "301"
    logs = ("logs", "-l", "istio=egressgateway", "-n", "istio-system", "--tail=-1")
    before = kubectl.says(*logs).count("\n")
    files = [word for name in ("gateway", "destination-rule", "virtual-service") for word in ("-f", str(SCENARIO / f"{name}.yaml"))]
    assert kubectl.says("apply", *files).count(" created\n") == 3
    assert kubectl.says(*curl) == "301"
    assert [line for line in kubectl.says(*logs, "-c", "istio-proxy").splitlines()[before:] if '"GET /politics HTTP/2" 301' in line]
    assert "cluster.outbound|80||edition.cnn.com.upstream_cx_total: 1\n" in kubectl.says(*stats)
    assert kubectl.says("delete", "gateway", "istio-egressgateway") == 'gateway.networking.istio.io "istio-egressgateway" deleted\n'
    assert kubectl.says("delete", *files, "-f", str(SCENARIO / "service-entry.yaml"), "--ignore-not-found").count("deleted") == 3


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


def test_logs_follow(kubectl: Cluster) -> None:
    """The last line, then each new one as it is written; it ends with its client."""
    curl = ("exec", "sleep", "--", "curl", "-s", "-o", "/dev/null")
    kubectl.says(*curl, "http://edition.cnn.com/?before")
    words = [sys.executable, "-m", "meshsim", "logs", "-f", "sleep", "--tail=1"]
    following = subprocess.Popen(words, env=kubectl.environment, stdout=subprocess.PIPE, text=True)
    assert following.stdout is not None
    with following.stdout as lines:
        seen = [lines.readline()]  # it follows from here on
        for mark in ("?one ", "?two "):
            kubectl.says(*curl, f"http://edition.cnn.com/{mark.strip()}")
            while mark not in seen[-1]:
                seen.append(lines.readline())
        following.terminate()
        assert following.wait(10) != 0
    assert len(seen) == len(set(seen)) <= 4


DESCRIBED = [
    (
        ("pod", "sleep"),
        r"Name: +sleep-\w+-\w+\nNamespace: +default\nService Account: +sleep\nNode: +<none>\n"
        r"Labels: +app=sleep\n +security.istio.io/tlsMode=istio\n"
        r"(.*\n)*IP: +10.244.1.10\nContainers:\n  sleep:\n    Image: +curlimages/curl\n(.*\n)*  istio-proxy:\n(.*\n)*Events: +<none>\n",
    ),
    (
        ("svc", "istio-egressgateway", "-n", "istio-system"),
        r"Name: +istio-egressgateway\n(.*\n)*Selector: +app=istio-egressgateway,istio=egressgateway\nType: +ClusterIP\nIP: +10.96.10.10\n"
        r"Port: +http2  80/TCP\nTargetPort: +8080/TCP\nEndpoints: +10.244.0.20:8080\n(.*\n)*",
    ),
    (("ns", "default"), r"Name: +default\nLabels: +istio-injection=enabled\n(.*\n)*Status: +Active\n(.*\n)*No resource quota.\n(.*\n)*"),
    (("deploy", "sleep"), r"Name: +sleep\n(.*\n)*Replicas: +1 desired \| 1 updated \| 1 total \| 1 available \| 0 unavailable\n(.*\n)*"),
    (
        ("serviceentry/cnn",),
        r"Name: +cnn\nNamespace: +default\n(.*\n)*API Version:  networking.istio.io/v1alpha3\nKind: +ServiceEntry\n"
        r"Spec:\n  Hosts:\n    edition.cnn.com\n  Ports:\n    Name: +http-port\n    Number: +80\n    Protocol: +HTTP\n"
        r"(.*\n)*  Resolution:  DNS\nEvents: +<none>\n",
    ),
    (
        ("netpol", "only-dns"),
        r"Name: +only-dns\n(.*\n)*Spec:\n  PodSelector: app=nobody\n  Not affecting ingress traffic\n  Allowing egress traffic:\n"
        r"    To Port: 53/UDP\n    To:\n      NamespaceSelector: kube-system=true\n    ----------\n"
        r"    To Port: <any> \(traffic allowed to all ports\)\n    To:\n"
        r"      IPBlock:\n        CIDR: 10.0.0.0/8\n        Except: 10.1.0.0/16\n  Policy Types: Egress\n",
    ),
]
POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: only-dns}
spec:
  podSelector: {matchLabels: {app: nobody}}
  policyTypes: [Egress]
  egress:
  - {to: [{namespaceSelector: {matchLabels: {kube-system: "true"}}}], ports: [{protocol: UDP, port: 53}]}
  - {to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]}
"""


def test_describe(kubectl: Cluster) -> None:
    kubectl.says("apply", "-f", str(SCENARIO / "service-entry.yaml"), "-f", "-", text=POLICY)
    for words, pattern in DESCRIBED:
        said = kubectl.says("describe", *words)
        assert re.fullmatch(pattern, said), said
    kubectl.says("delete", "serviceentry/cnn", "networkpolicy/only-dns")
    missing = kubectl("describe", "pod", "nobody")
    assert (missing.returncode, missing.stderr) == (1, 'Error from server (NotFound): pods "nobody" not found\n')

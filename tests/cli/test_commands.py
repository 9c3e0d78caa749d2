"""The commands as a person types them: what they print, and their exit status. No traceback for a user's mistake."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from meshsim import cli

SCENARIOS = Path(__file__).parent.parent.parent / "scenarios"
GATEWAY_ID = "spiffe://cluster.local/ns/istio-system/sa/istio-egressgateway-service-account"
GATEWAY_CLUSTER = "outbound|80|cnn|istio-egressgateway.istio-system.svc.cluster.local"


class Ran:
    """What a command printed and how it ended."""

    def __init__(self, capsys: pytest.CaptureFixture[str]):
        self._capsys = capsys
        self.status, self.out, self.err = 0, "", ""

    def __call__(self, *arguments: str) -> Ran:
        with pytest.raises(SystemExit) as ended:
            cli.main(list(arguments))
        self.status = int(ended.value.code or 0)
        self.out, self.err = self._capsys.readouterr()
        return self


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Ran:
    return Ran(capsys)


def test_trace_names_every_hop_and_its_line(run: Ran) -> None:
    ran = run("trace", "egress-gateway-http", "--from", "sleep", "http://edition.cnn.com/politics")
    assert ran.status == 0
    assert "301 from edition.cnn.com:80, through istio-egressgateway" in ran.out
    assert GATEWAY_CLUSTER in ran.out
    for place in ("virtual-service.yaml:12", "destination-rule.yaml:8", "gateway.yaml:9", "service-entry.yaml:1"):
        assert place in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80


def test_trace_in_json_is_the_documented_form(run: Ran) -> None:
    found = json.loads(run("trace", "egress-gateway-http", "http://edition.cnn.com/politics", "-o", "json").out)
    assert found["version"] == 1
    assert found["result"]["status"] == 301
    assert found["path"] == ["sleep.default", "istio-egressgateway.istio-system", "edition.cnn.com:80"]
    assert found["hops"][0]["cluster"]["name"] == GATEWAY_CLUSTER
    assert found["hops"][0]["leg"]["readable"] == ["Host", "path", "headers", "body"]


def test_trace_says_what_was_nearly_taken(run: Ran) -> None:
    ran = run("trace", "egress-gateway-http", "https://edition.cnn.com/politics")
    assert "directly, through no gateway" in ran.out
    assert "match port 80, the connection came to port 443" in " ".join(ran.out.split())
    assert "virtual-service.yaml:15" in ran.out


def test_trace_explains_a_subset_that_is_out_of_sight(run: Ran, tmp_path: Path) -> None:
    text = "".join(f"---\n{p.read_text()}" for p in sorted((SCENARIOS / "egress-gateway-http").glob("*.yaml")))
    client = "".join(f"---\n{d}" for d in text.split("---\n") if "name: sleep" in d)
    (tmp_path / "mesh.yaml").write_text(
        f"{text}---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: team-a, labels: {{istio-injection: enabled}}}}\n"
        + client.replace("metadata: {name: sleep}", "metadata: {name: billing, namespace: team-a}")
        .replace("  name: sleep", "  name: billing\n  namespace: team-a")
        .replace("app: sleep", "app: billing")
    )
    ran = run("trace", str(tmp_path), "--from", "team-a/billing", "http://edition.cnn.com/politics")
    assert ran.status == 1
    words = " ".join(ran.out.split())
    assert "503 at its own sidecar: no such cluster (NC)" in words
    assert 'subset "cnn" is defined in DestinationRule/default/egressgateway-for-cnn' in words
    assert "put the DestinationRule into istio-system, or one into team-a" in words


HTTP, HTTPS = "http://edition.cnn.com/politics", "https://edition.cnn.com/politics"
PLAIN, OWN = "HTTP/1.1 in plaintext", "the client's own TLS, SNI "
SLEEP, GATEWAY = "client  spiffe://cluster.local/ns/default/sa/sleep", f"server  {GATEWAY_ID}"
WIRE: list[tuple[str, str, list[list[str]]]] = [  # what is said of each leg after the one inside the pod
    ("egress-gateway-http-mtls", HTTP, [["TLSv1.3, HTTP/2 inside", "SNI     edition.cnn.com", GATEWAY, SLEEP], [PLAIN, "headers, body"]]),
    ("egress-gateway-http-mtls-files", HTTP, [["TLSv1.3, HTTP/2 inside", GATEWAY, SLEEP], [PLAIN]]),
    ("tls-origination-gateway", HTTP, [[PLAIN, "reads: Host"], ["TLSv1.3, HTTP/1.1 inside", "server  edition.cnn.com", "reads: SNI"]]),
    ("tls-origination-gateway-mtls", HTTP, [["TLSv1.3", GATEWAY, SLEEP], ["TLSv1.3", "server  edition.cnn.com"]]),
    ("tls-origination-sidecar", HTTP, [["TLSv1.3, HTTP/1.1 inside", "server  edition.cnn.com"]]),
    ("egress-gateway-https", HTTPS, [[OWN + "edition.cnn.com", "reads: SNI"], [OWN + "edition.cnn.com"]]),
    ("egress-gateway-https-mtls", HTTPS, [["TLS in TLSv1.3, TCP inside", GATEWAY, SLEEP, "inside  " + OWN], [OWN + "edition.cnn.com"]]),
    ("wildcard-gateway", "https://en.wikipedia.org/", [[OWN + "en.wikipedia.org"], [OWN + "en.wikipedia.org"]]),
]


@pytest.mark.parametrize(("scenario", "url", "legs"), WIRE, ids=[row[0] for row in WIRE])
def test_trace_shows_the_wire(run: Ran, scenario: str, url: str, legs: list[list[str]]) -> None:
    said = re.split(r"^ \d  ", run("trace", scenario, url, "--wire").out, flags=re.MULTILINE)[-len(legs) - 1 :]
    for leg, words in zip(said, [["inside the pod; its sidecar reads"], *legs], strict=True):
        assert all(word in leg for word in words), leg


@pytest.mark.parametrize(
    "kind,expected",
    [
        ("listeners", "Route: 80"),
        ("routes", "direct-cnn-through-egress-gateway.default"),
        ("clusters", "egressgateway-for-cnn.default"),
        ("endpoints", "10.244.0.20:8080"),
    ],
)
def test_config_prints_what_istioctl_would(run: Ran, kind: str, expected: str) -> None:
    ran = run("config", "egress-gateway-http", "sleep", "--kind", kind)
    assert ran.status == 0
    assert expected in ran.out


def test_config_in_json_is_envoys(run: Ran) -> None:
    found = json.loads(run("config", "egress-gateway-http", "sleep", "--kind", "clusters", "-o", "json").out)
    assert GATEWAY_CLUSTER in [c["name"] for c in found]


def test_certs_show_the_spiffe_name(run: Ran) -> None:
    ran = run("certs", "egress-gateway-http", "istio-egressgateway")
    assert "URI:spiffe://cluster.local/ns/istio-system/sa/istio-egressgateway-service-account" in ran.out
    assert run("certs", "egress-gateway-http", "sleep", "-o", "pem").out.count("BEGIN CERTIFICATE") == 2


@pytest.mark.skipif(not shutil.which("openssl"), reason="there is no openssl here")
def test_certs_are_what_openssl_reads(run: Ran) -> None:
    pem = run("certs", "egress-gateway-http", "istio-egressgateway", "-o", "pem").out
    text = subprocess.run(["openssl", "x509", "-noout", "-text"], input=pem, capture_output=True, text=True, check=True).stdout
    assert f"X509v3 Subject Alternative Name: critical\n                URI:{GATEWAY_ID}\n" in text
    assert "Subject: \n" in text and "ASN1 OID: prime256v1" in text and "TLS Web Server Authentication, TLS Web Client" in text


MISTAKES = [
    (["trace", "nothing-here", "http://a.example"], "no file, folder or scenario 'nothing-here'"),
    (["trace", "egress-gateway-http"], "no YAML given"),
    (["trace", "egress-gateway-http", "--from", "nobody", "http://a.example"], "no pod 'nobody'; there are: default/sleep"),
    (["trace", "egress-gateway-http", "ftp://a.example"], "not an http or https URL"),
    (["trace", "egress-gateway-http", "tcp://a.example:x"], "not a URL"),
    (["trace", "egress-gateway-http", "-H", "x", "http://a.example"], "is not NAME:VALUE"),
    (["config", "egress-gateway-http", "nobody"], "no pod 'nobody'"),
    (["config"], "name a pod"),
    (["run", "nothing-here", "--", "true"], "no file, folder or scenario"),
    (["demo", "nothing-here"], "no file, folder or scenario"),
    (["unknown"], "No such command 'unknown'"),
    (["schema", "Gatway"], 'did you mean "Gateway"?'),
]


@pytest.mark.parametrize("arguments,words", MISTAKES, ids=[" ".join(a) for a, _ in MISTAKES])
def test_a_mistake_is_one_line_and_status_2(run: Ran, arguments: list[str], words: str) -> None:
    ran = run(*arguments)
    assert ran.status == 2
    assert words in ran.err
    assert "Traceback" not in ran.err


def test_wrong_yaml_names_every_place(run: Ran, tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: cnn}\n"
        "spec:\n  hosts: [a.example]\n  resoluton: DNS\n  ports: 80\n"
    )
    ran = run("trace", str(file), "http://a.example")
    assert ran.status == 2
    assert f'{file}:6:3: error: ServiceEntry/default/cnn: unknown field "resoluton"; did you mean "resolution"?' in ran.err
    assert f"{file}:7:" in ran.err


def test_help_lists_every_command() -> None:
    shown = CliRunner().invoke(cli._group(), ["--help"]).output
    assert all(name in shown for name in cli.COMMANDS)

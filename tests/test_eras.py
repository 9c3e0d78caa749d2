"""What `--istio-version 1.0` changes, each behaviour beside today's; nothing else may differ."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshsim import era, load, xds
from meshsim.errors import MeshsimError
from meshsim.mesh import Mesh
from meshsim.resources import loads
from meshsim.resources.validation import validate

SCENARIOS = Path(__file__).parent.parent / "scenarios"
PAGE = [SCENARIOS / "egress-gateway-http" / f"{name}.yaml" for name in ("gateway", "destination-rule", "virtual-service")]
ENTRY = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: cnn}}
spec:
  hosts: [edition.cnn.com]
  resolution: {resolution}
  ports: [{{number: 80, name: http, protocol: HTTP}}, {{number: 443, name: http-too, protocol: HTTP}}]
"""
EXPIRED = """
apiVersion: meshsim.dev/v1alpha1
kind: ExternalServer
metadata: {name: cnn}
spec:
  hosts: [edition.cnn.com]
  addresses: [151.101.65.67]
  ports: [{port: 443, protocol: https, certificate: {recipe: self-signed}}]
"""
ORIGINATE = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: tls}
spec: {host: edition.cnn.com, trafficPolicy: {tls: {mode: SIMPLE}}}
"""
TODAY, OLD = "", "1.0"


def mesh(version: str, text: str, *files: Path) -> Mesh:
    return load("-", *files, stdin=text, istio_version=version)


@pytest.mark.parametrize(("version", "end"), [(TODAY, "200"), (OLD, "WRONG_VERSION_NUMBER")])
def test_tls_to_an_http_port(version: str, end: str) -> None:
    trace = mesh(version, ENTRY.format(resolution="DNS")).simulate("sleep", "https://edition.cnn.com/")
    assert end in str(trace.client)


@pytest.mark.parametrize(("version", "said"), [(TODAY, "no healthy upstream"), (OLD, "no healthy upstream: resolution NONE leads")])
def test_resolution_none_behind_a_gateway(version: str, said: str) -> None:
    trace = mesh(version, ENTRY.format(resolution="NONE"), *PAGE).simulate("sleep", "http://edition.cnn.com/")
    assert trace.status == 503
    assert trace.client["body"].startswith(said)
    assert trace.hops[-1].entry.flags == ["UH"]
    assert len(trace.hops) == 2
    assert trace.hops[-1].entry.upstream_failure.endswith("a loop") is (version == OLD)


@pytest.mark.parametrize(("version", "status"), [(TODAY, 503), (OLD, 200)])
def test_the_server_of_an_originated_connection(version: str, status: int) -> None:
    text = "---".join((ENTRY.format(resolution="DNS"), EXPIRED, ORIGINATE))
    assert mesh(version, text).simulate("sleep", "http://edition.cnn.com:443/").status == status


@pytest.mark.parametrize(
    ("version", "ports"),
    [(TODAY, [("http2", 80, 8080), ("https", 443, 8443)]), (OLD, [("http", 80, 80), ("https", 443, 443)])],
)
def test_ports_of_the_default_gateway(version: str, ports: list[tuple[str, int, int]]) -> None:
    service = next(r for r in mesh(version, ENTRY.format(resolution="DNS")).resources if r.id.startswith("Service/istio-system/"))
    assert [(p.name, p.port, p.target_port) for p in service.spec.ports] == ports


@pytest.mark.parametrize(("version", "problems"), [(TODAY, 1), (OLD, 0)])
def test_proto_names(version: str, problems: int) -> None:
    folder = SCENARIOS / "egress-gateway-https-mtls-files"
    assert len(load(folder, istio_version=version).problems) == problems
    text = (folder / "virtual-service.yaml").read_text()
    assert len(validate(loads(text), proto_names=era.find(version).takes_proto_names)) == problems


def test_access_log() -> None:
    meshes = {version: mesh(version, ENTRY.format(resolution="DNS"), *PAGE) for version in (TODAY, OLD)}
    for proxy in ("sleep", "istio-egressgateway"):
        formats = {version: str(xds.to_builtins(of.config(proxy))) for version, of in meshes.items()}
        assert '%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER' in formats[TODAY]
        assert '%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%"\\n' in formats[OLD]


def test_a_mesh_says_its_era_itself() -> None:
    said = f"apiVersion: meshsim.dev/v1alpha1\nkind: MeshConfig\nmetadata: {{name: istio, annotations: {{{era.ANNOTATION}: '1.0'}}}}\n"
    assert era.of(mesh(TODAY, said).resources) is era.ERAS["1.0"]
    assert era.of(mesh(OLD, ENTRY.format(resolution="DNS")).resources) is era.ERAS["1.0"]
    assert era.of(mesh(TODAY, ENTRY.format(resolution="DNS")).resources) is era.CURRENT


def test_only_what_is_named_differs() -> None:
    """The scenario writes its gateway's ports out, so the routes and the endpoints of both eras are equal."""
    folder = SCENARIOS / "egress-gateway-http"
    for proxy in ("sleep", "istio-egressgateway"):
        today, old = (xds.to_builtins(load(folder, istio_version=version).config(proxy)) for version in (TODAY, OLD))
        assert old["routes"] == today["routes"]
        assert old["endpoints"] == today["endpoints"]
        assert old["clusters"] == today["clusters"]
        assert [listener["name"] for listener in old["listeners"]] == [listener["name"] for listener in today["listeners"]]


def test_no_such_version() -> None:
    with pytest.raises(MeshsimError, match=r"no Istio version '0.8' is simulated; known: 1.0"):
        mesh("0.8", ENTRY.format(resolution="DNS"))

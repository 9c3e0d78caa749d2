"""Files that describe no cluster get one, and say so; what they do describe stays."""

from __future__ import annotations

from pathlib import Path

import meshsim
from meshsim import resources
from meshsim.surroundings import surrounded

ENTRY = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api}
spec:
  hosts: [%s]
  ports: [{number: 8443, name: tls, protocol: TLS}, {number: 3306, name: db, protocol: TCP}]
  resolution: DNS
"""
POD = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a}]}\n"


def test_istio_resources_alone_get_a_client_and_a_gateway() -> None:
    documents, notes = surrounded(resources.loads(ENTRY % "api.example.com").require())
    assert {"sleep", "istio-egressgateway"} <= {r.name for r in documents.of("Deployment")}
    assert len(notes) == 2


def test_an_unserved_host_gets_an_echo_on_its_ports() -> None:
    documents, _ = surrounded(resources.loads(ENTRY % "api.example.com" + POD).require())
    server = next(r.spec for r in documents.of("ExternalServer"))
    assert {p.port: p.protocol for p in server.ports} == {80: "http", 443: "https", 8443: "https", 3306: "tcp"}
    assert not documents.of("Deployment")


def test_a_host_that_is_served_and_a_wildcard_get_nothing() -> None:
    served = ENTRY % "edition.cnn.com" + "---" + (ENTRY % '"*.example.com"').replace("name: api", "name: all")
    documents, notes = surrounded(resources.loads(served).require())
    assert [s.spec.hosts for s in documents.of("ExternalServer") if "example" in s.spec.hosts[0]] == []
    assert len(notes) == 1


def test_own_mesh_config_stands(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(
        "apiVersion: meshsim.dev/v1alpha1\nkind: MeshConfig\nmetadata: {name: mine}\nspec: {outboundTrafficPolicy: {mode: REGISTRY_ONLY}}\n"
    )
    mesh = meshsim.load(tmp_path)
    assert mesh.mesh_config.outbound_traffic_policy.mode == "REGISTRY_ONLY"
    assert mesh.simulate("sleep", "http://edition.cnn.com/").status == 502

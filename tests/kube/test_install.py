"""IstioOperators: as files, as words of `istioctl install`, and what they make of a mesh; and `istioctl kube-inject`."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from meshsim.cli.kube_inject import command as kube_inject
from meshsim.errors import ConfigError, MeshsimError
from meshsim.kube.install import operator
from meshsim.kube.store import Rejected, Store
from meshsim.mesh import Mesh
from meshsim.resources import Documents, loads
from meshsim.surroundings import surrounded

GATEWAY = "components.egressGateways[0]"


def mesh(*sets: str, version: str = "") -> Mesh:
    return Mesh(*surrounded(loads(operator(sets, [])), version))


def names(of: Mesh, kind: str) -> list[str]:
    return [f"{r.namespace}/{r.name}" for r in of.told if r.kind == kind]


@pytest.mark.parametrize(
    ("sets", "gateways"),
    [
        ([], ["istio-system/istio-egressgateway"]),
        ([f"{GATEWAY}.name=istio-egressgateway", f"{GATEWAY}.enabled=true"], ["istio-system/istio-egressgateway"]),
        ([f"{GATEWAY}.name=istio-egressgateway", f"{GATEWAY}.enabled=false"], []),
        (["profile=demo"], ["istio-system/istio-egressgateway"]),
        ([f"{GATEWAY}.name=out", f"{GATEWAY}.enabled=true", f"{GATEWAY}.namespace=edge"], ["istio-system/istio-egressgateway", "edge/out"]),
    ],
)
def test_gateways(sets: list[str], gateways: list[str]) -> None:
    assert [n for n in names(mesh(*sets), "Deployment") if not n.endswith("/sleep")] == gateways
    assert [f"{p.namespace}/{p.app}" for p in mesh(*sets).pods if p.is_gateway] == gateways


def test_another_gateway_has_its_own_name_everywhere() -> None:
    made = mesh(f"{GATEWAY}.name=out", f"{GATEWAY}.enabled=true", f"{GATEWAY}.label.istio=out", version="1.0")
    service = next(r.spec for r in made.resources if r.kind == "Service" and r.name == "out")
    assert service.selector == {"app": "out", "istio": "out"}
    assert [(p.name, p.target_port) for p in service.ports] == [("http", 80), ("https", 443)]
    assert made.proxy("out").identity() == "spiffe://cluster.local/ns/istio-system/sa/out-service-account"


def test_words_go_over_files() -> None:
    file = "kind: IstioOperator\nmetadata: {name: mine}\nspec: {components: {egressGateways: [{name: a, enabled: true}]}}\n"
    whole = yaml.safe_load(operator([f"{GATEWAY}.enabled=false"], [("f.yaml", file)]))
    assert whole["metadata"]["name"] == "mine"
    assert whole["spec"]["components"]["egressGateways"] == [{"name": "a", "enabled": False}]


@pytest.mark.parametrize(
    ("sets", "files", "said"),
    [
        (["profile"], [], r"--set takes PATH=VALUE, found 'profile'"),
        (["a..b=1"], [], r"'a..b' is no path"),
        (["components[0]=1", "components.x=1"], [], r"does not fit"),
        (["a[1000000]=1"], [], r"no list is that long"),
        ([], [("f.yaml", "kind: Gateway")], r"f.yaml: an IstioOperator is wanted here"),
        ([], [("f.yaml", "a: [")], r"f.yaml:2:1: error: not YAML"),
        (["a={"], [], r"--set a:2:1: error: not YAML"),
        ([], [("f.yaml", "a: " + "[" * 1000 + "]" * 1000)], r"f.yaml:1: error: not YAML: nested deeper"),
    ],
)
def test_words_that_make_none(sets: list[str], files: list[tuple[str, str]], said: str) -> None:
    with pytest.raises(MeshsimError, match=said):
        operator(sets, files)


def test_a_field_nobody_knows() -> None:
    with pytest.raises(Rejected, match=r'unknown field "nme"; did you mean "name"'):
        Store(Documents().resources).read([("--set", operator([f"{GATEWAY}.nme=x"], []))], None)


WORKLOAD = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: app}
spec:
  template:
    metadata: %s
    spec: {containers: [{name: app, image: x}]}
"""


@pytest.mark.parametrize(
    ("metadata", "containers"),
    [
        ("{labels: {app: app}}", ["app", "istio-proxy"]),
        ("null", ["app", "istio-proxy"]),
        ('{labels: {sidecar.istio.io/inject: "false"}}', ["app"]),
        ("[]", ["app", "istio-proxy"]),
        ('{annotations: {sidecar.istio.io/inject: "false"}}', ["app"]),
    ],
)
def test_kube_inject(tmp_path: Path, metadata: str, containers: list[str]) -> None:
    file = tmp_path / "app.yaml"
    file.write_text("kind: Service\n---" + WORKLOAD % metadata)
    done = CliRunner().invoke(kube_inject, ["-f", str(file)], standalone_mode=False)
    service, deployment = yaml.safe_load_all(done.output)
    template = deployment["spec"]["template"]
    assert service == {"kind": "Service"}
    assert [c["name"] for c in template["spec"]["containers"]] == containers
    assert ("security.istio.io/tlsMode" in ((template["metadata"] or {}).get("labels") or {})) == (len(containers) == 2)


def test_kube_inject_reads_yaml_as_kubernetes_does(tmp_path: Path) -> None:
    file = tmp_path / "app.yaml"
    file.write_text("kind: ConfigMap\ndata: {time: 1:30}\n")
    assert CliRunner().invoke(kube_inject, ["-f", str(file)], standalone_mode=False).output == "kind: ConfigMap\ndata:\n  time: '1:30'\n"
    file.write_text("a: " + "[" * 1000 + "]" * 1000)
    with pytest.raises(ConfigError, match=r"app.yaml:1: error: not YAML: nested deeper"):
        CliRunner().invoke(kube_inject, ["-f", str(file)], standalone_mode=False, catch_exceptions=False)

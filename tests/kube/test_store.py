"""What apply, delete and label make of a mesh's resources, in kubectl's words."""

from __future__ import annotations

import pytest

from meshsim.kube.names import find
from meshsim.kube.store import Rejected, Store
from meshsim.resources import loads

GATEWAY = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: out}
spec:
  selector: {istio: egressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [edition.cnn.com]}]
"""


@pytest.fixture
def store() -> Store:
    return Store(loads("apiVersion: v1\nkind: Namespace\nmetadata: {name: team-a}\n").resources)


def apply(store: Store, text: str, namespace: str | None = None) -> list[str]:
    return [store.apply(resource, document) for resource, document in store.read([("x.yaml", text)], namespace)]


def test_created_unchanged_configured(store: Store) -> None:
    assert apply(store, GATEWAY) == ["gateway.networking.istio.io/out created"]
    assert apply(store, GATEWAY) == ["gateway.networking.istio.io/out unchanged"]
    assert apply(store, GATEWAY.replace("edition", "www")) == ["gateway.networking.istio.io/out configured"]


def test_namespace_option_is_for_what_names_none(store: Store) -> None:
    apply(store, GATEWAY, "team-a")
    assert "Gateway/team-a/out" in store.by_id
    with pytest.raises(Rejected, match=r'the namespace from the provided object "default" does not match the namespace "team-a"'):
        apply(store, GATEWAY.replace("name: out", "name: out, namespace: default"), "team-a")


def test_namespace_must_exist(store: Store) -> None:
    with pytest.raises(Rejected, match=r'NotFound.*namespaces "team-b" not found'):
        apply(store, GATEWAY, "team-b")


def test_what_istio_refuses_changes_nothing(store: Store) -> None:
    apply(store, GATEWAY)
    before = store.resources
    said = r'admission webhook "validation.istio.io" denied the request: configuration is invalid: .*label "\*"'
    with pytest.raises(Rejected, match=said):
        apply(store, GATEWAY.replace("edition.cnn.com", '"*.a.*"'))
    assert store.resources == before


def test_an_older_resource_keeps_its_age(store: Store) -> None:
    apply(store, GATEWAY)
    apply(store, GATEWAY.replace("name: out", "name: later"))
    apply(store, GATEWAY.replace("edition", "www"))
    assert store.by_id["Gateway/default/out"].order < store.by_id["Gateway/default/later"].order


def test_delete(store: Store) -> None:
    apply(store, GATEWAY)
    assert store.delete(find("gw"), "default", "out") == 'gateway.networking.istio.io "out" deleted'
    with pytest.raises(Rejected, match=r'^Error from server \(NotFound\): gateways.networking.istio.io "out" not found$'):
        store.delete(find("gateways.networking.istio.io"), "default", "out")


def test_a_namespace_takes_everything_with_it(store: Store) -> None:
    apply(store, GATEWAY, "team-a")
    assert store.delete(find("ns"), "default", "team-a") == 'namespace "team-a" deleted'
    assert not store.resources


def test_labels(store: Store) -> None:
    assert store.label(find("ns"), "", "team-a", {"a": "b"}, overwrite=False) == "namespace/team-a labeled"
    assert store.label(find("ns"), "", "team-a", {"a": "b"}, overwrite=False) == "namespace/team-a not labeled"
    with pytest.raises(Rejected, match=r"'a' already has a value \(b\), and --overwrite is false"):
        store.label(find("ns"), "", "team-a", {"a": "c"}, overwrite=False)
    assert store.label(find("ns"), "", "team-a", {"a": "c"}, overwrite=True) == "namespace/team-a labeled"
    assert store.label(find("ns"), "", "team-a", {"a": None}, overwrite=False) == "namespace/team-a unlabeled"
    assert store.label(find("ns"), "", "kube-system", {"kube-system": "true"}, overwrite=False) == "namespace/kube-system labeled"


def test_create_namespace(store: Store) -> None:
    assert store.create_namespace("test-egress") == "namespace/test-egress created"
    with pytest.raises(Rejected, match=r'AlreadyExists.*namespaces "test-egress" already exists'):
        store.create_namespace("test-egress")

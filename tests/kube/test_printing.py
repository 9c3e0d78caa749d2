"""Tables, JSONPath and the command line, as kubectl has them."""

from __future__ import annotations

import pytest

from meshsim.errors import MeshsimError
from meshsim.kube import jsonpath, tables
from meshsim.kube.arguments import HelpAsked, WrongWords, parse
from meshsim.kube.names import find
from meshsim.resources import loads

PODS = {
    "items": [
        {"metadata": {"name": "a"}, "spec": {"containers": [{"name": "sleep"}, {"name": "istio-proxy"}]}},
        {"metadata": {"name": "b", "labels": {"app.kubernetes.io/name": "x"}}},
    ]
}


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{.items..metadata.name}", "a b"),
        ("{.items[0].metadata.name}", "a"),
        ("{.items[-1].metadata.name}", "b"),
        ("{.items[*].spec.containers[*].name}", "sleep istio-proxy"),
        ("{.items[0].nothing}", ""),
        ("{.items[1].metadata['labels']}", '{"app.kubernetes.io/name":"x"}'),
        ('{.items[0].metadata.name}{"\\n"}', "a\n"),
        ("first: {.items[0].metadata.name}", "first: a"),
    ],
)
def test_jsonpath(template: str, said: str) -> None:
    assert jsonpath.render(template, PODS) == said


def test_jsonpath_that_is_none() -> None:
    with pytest.raises(MeshsimError, match=r"error parsing jsonpath"):
        jsonpath.render("{.items[}", PODS)


@pytest.mark.parametrize(
    ("word", "plural"),
    [
        ("po", "pods"), ("pod", "pods"), ("ns", "namespaces"), ("netpol", "networkpolicies.networking.k8s.io"),
        ("gateway", "gateways.networking.istio.io"), ("se", "serviceentries.networking.istio.io"),
        ("virtualservices.networking.istio.io", "virtualservices.networking.istio.io"), ("deploy", "deployments.apps"),
        ("telemetry", "telemetries.telemetry.istio.io"), ("endpoints", "endpoints"),
    ],
)  # fmt: skip
def test_names(word: str, plural: str) -> None:
    assert find(word).qualified_plural == plural


def test_no_such_kind() -> None:
    with pytest.raises(MeshsimError, match=r'^error: the server doesn.t have a resource type "gatway"$'):
        find("gatway")


def test_table() -> None:
    text = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: cnn}
spec: {hosts: [edition.cnn.com], location: MESH_EXTERNAL, resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP}]}
"""
    assert tables.table("ServiceEntry", loads(text).resources, lambda r: "5s") == (
        "NAME   HOSTS                 LOCATION        RESOLUTION   AGE\n"
        'cnn    ["edition.cnn.com"]   MESH_EXTERNAL   DNS          5s'
    )


def test_exec_takes_the_rest_as_it_is() -> None:
    asked = parse("exec", ["-it", "sleep", "-n", "team-a", "-c", "sleep", "--", "curl", "-s", "--", "x"])
    assert (asked.pod, asked.namespace, asked.container, asked.stdin) == ("sleep", "team-a", "sleep", True)
    assert asked.after == ["curl", "-s", "--", "x"]


def test_wrong_words_and_help() -> None:
    with pytest.raises(WrongWords, match=r"error: unrecognized arguments: --nonsense"):
        parse("get", ["pods", "--nonsense"])
    with pytest.raises(HelpAsked, match=r"usage: meshsim logs"):
        parse("logs", ["-h"])

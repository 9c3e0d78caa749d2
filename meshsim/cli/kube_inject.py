"""meshsim kube-inject -f FILE: Deployments and Pods with the sidecar written into them, as `istioctl kube-inject` prints them."""

from __future__ import annotations

from typing import Any as Json

import click
import yaml

from meshsim.cli.sources import file_option
from meshsim.deployments import INJECT
from meshsim.errors import MeshsimError
from meshsim.resources import reader
from meshsim.texts import shipped, texts
from meshsim.topology import PROXY_CONTAINER, PROXY_IMAGE, TLS_MODE_LABEL

WORKLOADS = ("Deployment", "Pod")


@click.command("kube-inject")
@file_option
def command(files: tuple[str, ...]) -> None:
    """Print the YAML of FILE with a sidecar in each pod, for namespaces that do not inject one by themselves."""
    if not files:
        raise MeshsimError("name a file: meshsim kube-inject -f FILE")
    documents = []
    for name, text in texts(map(shipped, files), None):
        documents += [_injected(document) for document in reader.values(text, name)]
    click.echo(yaml.safe_dump_all(documents, sort_keys=False), nl=False)


def _injected(document: Json) -> Json:
    """A workload that does not say no gets a container and a label; everything else stays, what is no workload at all included."""
    if not isinstance(document, dict) or document.get("kind") not in WORKLOADS:
        return document
    pod = document if document["kind"] == "Pod" else _mapping(_mapping(document, "spec"), "template")
    metadata, containers = _mapping(pod, "metadata"), _mapping(pod, "spec").get("containers")
    labels = _mapping(metadata, "labels")
    refused = "false" in (labels.get(INJECT), _mapping(metadata, "annotations").get(INJECT))
    if not isinstance(containers, list) or refused:
        return document
    names = [c.get("name") for c in containers if isinstance(c, dict)]
    if names and PROXY_CONTAINER not in names:
        containers.append({"name": PROXY_CONTAINER, "image": PROXY_IMAGE})
        pod["metadata"] = {**metadata, "labels": {**labels, TLS_MODE_LABEL: "istio"}}
    return document


def _mapping(value: dict[str, Json], key: str) -> dict[str, Json]:
    """A member that should be a mapping; empty where it is none."""
    found = value.get(key)
    return found if isinstance(found, dict) else {}

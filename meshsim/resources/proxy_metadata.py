"""What a proxy's bootstrap tells the control plane: `ISTIO_META_...` of proxyMetadata, from the mesh, from ProxyConfigs, from its pod.

How this works: `proxy_metadata` lays the places over each other, key by key, the nearest to the pod on top: MeshConfig's
`defaultConfig.proxyMetadata`, ProxyConfigs of the root namespace, those of the pod's own namespace, the pod's annotation
`proxy.istio.io/config`, and a ProxyConfig that selects the pod. An environment variable `ISTIO_META_NAME` becomes the metadata `NAME`.
Source: Istio, pkg/model ProxyConfigs.EffectiveProxyConfig and pkg/bootstrap.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any as Json

import msgspec

from meshsim.errors import ConfigError, Problem
from meshsim.resources import decode
from meshsim.resources.mesh_config import DefaultConfig, MeshConfig
from meshsim.resources.reader import Source, values
from meshsim.resources.resource import Resource

ANNOTATION = "proxy.istio.io/config"
PREFIX = "ISTIO_META_"
HEEDED = ("ISTIO_META_DNS_CAPTURE", "ISTIO_META_DNS_AUTO_ALLOCATE", "ISTIO_META_UNPRIVILEGED_POD")
"""Those with an effect here. DNS_AUTO_ALLOCATE asks for what every istiod of today does unasked."""
_TEMPLATE = ("spec", "template")
_FIELDS = frozenset(field.encode_name for field in msgspec.structs.fields(DefaultConfig))


class ProxyMetadata:
    """What the resources of one mesh say, for any of its pods."""

    def __init__(self, resources: Iterable[Resource[Json]]):
        resources = list(resources)
        mesh = next((r.spec for r in reversed(resources) if r.kind == "MeshConfig"), MeshConfig())
        self._base = dict(mesh.default_config.proxy_metadata) if mesh.default_config else {}
        self._root = mesh.root_namespace
        self._configs = sorted((r for r in resources if r.kind == "ProxyConfig"), key=lambda r: (r.order, r.name))

    def of(self, pod: Resource[Json]) -> dict[str, str]:
        """By their names without the prefix. An annotation that `problems` finds wrong must have been refused before."""
        said = {**self._base, **self._of_namespace(self._root)}
        if pod.namespace != self._root:
            said |= self._of_namespace(pod.namespace)
        if ANNOTATION in pod.metadata.annotations:
            said |= _annotated(pod.metadata.annotations[ANNOTATION])
        said |= self._selecting(pod)
        return {name.removeprefix(PREFIX): text for name, text in said.items() if name.startswith(PREFIX)}

    def _of_namespace(self, namespace: str) -> Mapping[str, str]:
        """Of its oldest ProxyConfig for all pods."""
        found = (c.spec for c in self._configs if c.namespace == namespace and not _labels(c))
        return next((spec.environment_variables for spec in found), {})

    def _selecting(self, pod: Resource[Json]) -> Mapping[str, str]:
        own = (c for c in self._configs if c.namespace == pod.namespace and _labels(c))
        found = (c.spec for c in own if _labels(c).items() <= pod.metadata.labels.items())
        return next((spec.environment_variables for spec in found), {})


def problems(resource: Resource[Json]) -> Iterator[Problem]:
    """What is wrong with the annotation of a Pod or of a Deployment's template."""
    annotations, path = resource.metadata.annotations, ()  # type: Mapping[str, Json], tuple[str, ...]
    if resource.kind == "Deployment":
        template = resource.spec.template
        annotations, path = ((template.metadata or {}).get("annotations") or {}) if template else {}, _TEMPLATE
    if resource.kind not in ("Pod", "Deployment") or not isinstance(annotations, dict) or ANNOTATION not in annotations:
        return
    place = resource.source.locate((*path, "metadata", "annotations", ANNOTATION))
    text = annotations[ANNOTATION]
    try:
        if not isinstance(text, str):
            raise ValueError(f"the value of an annotation is text; found {decode.found(text)}")
        read = values(text, place.file)
        if len(read) > 1 or not all(isinstance(value, dict) for value in read):
            raise ValueError("not one mapping with fields of ProxyConfig")
    except ConfigError as e:
        yield Problem("error", f"annotation {ANNOTATION}: {e.problems[0].message}", place, resource.id)
        return
    except ValueError as e:
        yield Problem("error", f"annotation {ANNOTATION}: {e}", place, resource.id)
        return
    for value in read:
        for name in value.keys() - _FIELDS:
            said = f'annotation {ANNOTATION}: "{name}" has no effect here'
            yield Problem("warning", said, place, resource.id, hint=decode.nearest(name, _FIELDS))
        found: list[Problem] = []
        decode.convert({name: value[name] for name in value.keys() & _FIELDS}, DefaultConfig, Source(place.file), (), found)
        for problem in found:
            yield Problem(problem.severity, f"annotation {ANNOTATION}: {problem.message}", place, resource.id, hint=problem.hint)


def _annotated(text: str) -> dict[str, str]:
    return {key: value for read in values(text, ANNOTATION) for key, value in (read.get("proxyMetadata") or {}).items()}


def _labels(config: Resource[Json]) -> Mapping[str, str]:
    return config.spec.selector.match_labels if config.spec.selector else {}

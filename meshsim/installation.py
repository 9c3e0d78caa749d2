"""What IstioOperators install: an egress gateway is a ServiceAccount, a Service and a Deployment. Pure.

How this works: a component that is enabled adds those of the three that are not there; one that is not enabled takes them away. They are
made after the pattern of the default mesh's gateway, under the component's name and in its namespace.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any as Json

import msgspec

from meshsim.resources import Resource
from meshsim.resources.istio_operator import GatewayComponent

KIND = "IstioOperator"


def installed(given: Iterable[Resource[Json]], pattern: list[Resource[Json]]) -> list[Resource[Json]]:
    """The resources as the IstioOperators among them want them; `pattern` is a gateway."""
    by_id = {r.id: r for r in given}
    for operator in [r for r in by_id.values() if r.kind == KIND]:
        for component in operator.spec.gateways:
            for made in _gateway(component, pattern, operator):
                if component.enabled:
                    by_id.setdefault(made.id, made)
                else:
                    by_id.pop(made.id, None)
    return list(by_id.values())


def _gateway(component: GatewayComponent, pattern: list[Resource[Json]], operator: Resource[Json]) -> Iterator[Resource[Json]]:
    usual = next(r.name for r in pattern if r.kind == "Service")

    def own(value: Json) -> Json:
        """With the component's name and labels wherever the pattern has its own."""
        if isinstance(value, dict):
            relabelled = component.label if component.label and value.get("istio") else {}
            return {k: own(v) for k, v in value.items() if k != "clusterIP"} | relabelled
        if isinstance(value, list):
            return [own(v) for v in value]
        return component.name + value.removeprefix(usual) if isinstance(value, str) and value.startswith(usual) else value

    for r in pattern:
        metadata = msgspec.convert(own(msgspec.to_builtins(r.metadata)) | {"namespace": component.namespace}, type(r.metadata))
        spec = msgspec.convert(own(msgspec.to_builtins(r.spec)), type(r.spec))
        yield Resource(r.api_version, r.kind, metadata, spec, operator.source, operator.order)

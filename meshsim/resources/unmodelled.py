"""Settings that are read and that nothing here acts on: each is named when it is given, so that silence means it was heeded.

Not listed is what has no part in where traffic goes (metrics, tracing, health checks of workloads) and what a compile refuses aloud.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any as Json

from meshsim.resources.proxy_metadata import HEEDED
from meshsim.resources.resource import Resource

Path = tuple[str | int, ...]

_POLICY = (
    "loadBalancer.backendUtilization",
    "loadBalancer.warmup",
    "loadBalancer.warmupDurationSecs",
    "connectionPool.tcp.tcpKeepalive",
    "connectionPool.http.http2KeepAlive",
    "outlierDetection.splitExternalLocalOriginErrors",
    "outlierDetection.consecutiveLocalOriginFailures",
)
"""Of a traffic policy, which a DestinationRule has for all, for ports, for subsets, and for ports of those."""
_SETTINGS: dict[str, tuple[str, ...]] = {
    "DestinationRule": (
        *(
            f"{level}.{setting}"
            for level in ("trafficPolicy", "trafficPolicy.portLevelSettings[]", "subsets[].trafficPolicy",
                          "subsets[].trafficPolicy.portLevelSettings[]")
            for setting in _POLICY
        ),
        "trafficPolicy.retryBudget.budgetInterval",
        "subsets[].trafficPolicy.retryBudget.budgetInterval",
    ),
    "Gateway": ("servers[].tls.ecdhCurves", "servers[].tls.insecureSkipVerify"),
    "MeshConfig": (
        "defaultConfig.proxyMetadata{}",
        "discoverySelectors",
        "enableEnvoyAccessLogService",
        "inboundClusterStatName",
        "outboundClusterStatName",
        "serviceEntryVisibility",
        "serviceSettings",
        "tcpKeepalive",
        "tlsDefaults.ecdhCurves",
        "verifyCertificateAtClient",
    ),
    "ProxyConfig": ("environmentVariables{}",),
    "Service": ("internalTrafficPolicy", "sessionAffinity"),
    "Sidecar": ("ingress[].tls",),
}
"""Kind -> paths in its spec; `[]` is every item of a list, `{}` every key of a map that is not heeded (resources/proxy_metadata.py)."""
_WITHOUT_EFFECT = "not simulated, and without effect here"
_INSTEAD = {
    "servers[].tls.insecureSkipVerify": "heeded by trace; a running gateway lets any name in, but no certificate of a CA it does not know"
}
"""What is said of a setting that has some effect; Python's ssl has no way to take a certificate it could not verify."""
_SAYS_NOTHING = {"internalTrafficPolicy": "Cluster", "sessionAffinity": "None"}
"""Defaults that people write out."""
_CAPITAL = re.compile("[A-Z]")


def passed_over(resources: Iterable[Resource[Json]]) -> list[str]:
    """A sentence for each such setting, with its place."""
    return [
        f"{_INSTEAD.get(setting, _WITHOUT_EFFECT)}: {resource.id} {_dotted(path)} ({resource.at(*path)})"
        for resource in resources
        for setting in _SETTINGS.get(resource.kind, ())
        for path in _places(resource.spec, setting.split("."))
    ]


def _places(value: Json, steps: list[str]) -> Iterator[Path]:
    """Where the setting is given under a value."""
    if not steps:
        yield ()
        return
    name = steps[0].removesuffix("[]").removesuffix("{}")
    inner = getattr(value, _CAPITAL.sub(lambda found: "_" + found[0].lower(), name), None)
    if inner in (None, False, "", [], {}, _SAYS_NOTHING.get(name)):
        return
    if steps[0] == name:
        for rest in _places(inner, steps[1:]):
            yield (name, *rest)
        return
    if isinstance(inner, dict):
        yield from ((name, key) for key in inner if key not in HEEDED)
        return
    for number, item in enumerate(inner):
        for rest in _places(item, steps[1:]):
            yield (name, number, *rest)


def _dotted(path: Path) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")

"""Names that lead nowhere: subsets, gateways, hosts, selectors, namespaces, credentials."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any as Json

from meshsim import hosts
from meshsim.analysis.catalogue import (
    Documents,
    destinations,
    gateway_reference,
    mirrors,
    resource_of_host,
    selector_text,
    server_hosts,
)
from meshsim.analysis.findings import Finding, finding, full_name, listed
from meshsim.resources.resource import Resource

MESH = "mesh"


def subsets(documents: Documents) -> Iterator[Finding]:
    """A subset that no DestinationRule of the host defines (whatever namespace could see it)."""
    defined = {
        (resource_of_host(rule.namespace, rule.spec.host), subset.name)
        for rule in documents.of("DestinationRule")
        for subset in rule.spec.subsets
    }
    for service in documents.of("VirtualService"):
        for what, sent in (("host", destinations(service.spec)), ("mirror", mirrors(service.spec))):
            for destination, at in sent:
                key = (resource_of_host(service.namespace, destination.host), destination.subset)
                if destination.subset and key not in defined:
                    name = f"{destination.host}+{destination.subset}"
                    yield finding("IST0101", service, f"{what}+subset in destinationrule", name, at=at)


def gateways(documents: Documents) -> Iterator[Finding]:
    """A VirtualService bound to a Gateway that does not exist, or that serves none of its hosts."""
    for service in documents.of("VirtualService"):
        for index, name in enumerate(service.spec.gateways):
            if name == MESH:
                continue
            namespace, short = gateway_reference(name, service.namespace)
            gateway = documents.find("Gateway", namespace, short)
            at = ("gateways", index)
            if gateway is None:
                yield finding("IST0101", service, "gateway", name, at=at)
            served = server_hosts(gateway.spec, gateway.namespace) if gateway else []
            mine = [h.partition("/")[2] if "/" in h else h for h in served if "/" not in h or h.partition("/")[0] == service.namespace]
            if not any(hosts.matches(a, b) for a in mine for b in service.spec.hosts):
                values = listed(service.spec.hosts), full_name(service), f"{namespace}/{short}"
                yield finding("IST0132", service, *values, at=at)


def destination_hosts(documents: Documents) -> Iterator[Finding]:
    """A destination that is no service, lacks the port, or must name one of several."""
    for service in documents.of("VirtualService"):
        for what, sent in (("host", destinations(service.spec)), ("mirror host", mirrors(service.spec))):
            for destination, at in sent:
                known = documents.host(service.namespace, service.spec.export_to, destination.host)
                if known is None:
                    yield finding("IST0101", service, what, destination.host, at=at)
                elif destination.port is None:
                    if len(known.ports) > 1:
                        yield finding("IST0112", service, destination.host, listed(known.ports), at=at)
                elif destination.port.number not in known.ports:
                    yield finding("IST0101", service, "host:port", f"{destination.host}:{destination.port.number}", at=at)


def rule_hosts(documents: Documents) -> Iterator[Finding]:
    """A DestinationRule for no service, or with a subset that no pod is in."""
    for rule in documents.of("DestinationRule"):
        if documents.host(rule.namespace, rule.spec.export_to, rule.spec.host) is None:
            yield finding("IST0174", rule, rule.spec.host, at=("host",))
            continue
        for index, subset in enumerate(rule.spec.subsets):
            if not documents.pods(subset.labels):
                yield finding("IST0173", rule, subset.name, at=("subsets", index))


def gateway_selectors(documents: Documents) -> Iterator[Finding]:
    """A Gateway that selects no pod, a server port its Service does not have, a credential that is not there."""
    for gateway in documents.of("Gateway"):
        selected = documents.pods(gateway.spec.selector)
        text = selector_text(gateway.spec.selector)
        if not selected:
            yield finding("IST0101", gateway, "selector", text, at=("selector",))
            continue
        reachable = {number for pod in selected for number in _reachable(documents, pod)}
        for index, server in enumerate(gateway.spec.servers):
            if server.port is not None and server.port.number not in reachable:
                yield finding("IST0162", gateway, server.port.number, text, at=("servers", index, "port"))
            name = server.tls.credential_name if server.tls else ""
            if name and documents.find("Secret", selected[0].namespace, name) is None:
                yield finding("IST0101", gateway, "credentialName", name, at=("servers", index, "tls", "credentialName"))


def _reachable(documents: Documents, pod: Resource[Json]) -> Iterator[int]:
    """The ports of the Services in front of a pod, and what they lead to."""
    for service in documents.of("Service"):
        selector = service.spec.selector
        if service.namespace == pod.namespace and selector and selector.items() <= pod.metadata.labels.items():
            for port in service.spec.ports:
                yield port.port
                if isinstance(port.target_port, int):
                    yield port.target_port


def policies(documents: Documents) -> Iterator[Finding]:
    """An AuthorizationPolicy for no workload, or about a namespace that does not exist."""
    namespaces = [n.name for n in documents.of("Namespace")]
    for policy in documents.of("AuthorizationPolicy"):
        selector = policy.spec.selector.match_labels if policy.spec.selector else {}
        everywhere = policy.namespace == documents.mesh.root_namespace
        if (selector or not everywhere) and not documents.pods(selector, None if everywhere else policy.namespace):
            yield finding("IST0127", policy, selector_text(selector), at=("selector",))
        for i, rule in enumerate(policy.spec.rules):
            for j, from_ in enumerate(rule.from_):
                named = [*from_.source.namespaces, *from_.source.not_namespaces] if from_.source else []
                for name in named:
                    if not any(_namespace_fits(name, existing) for existing in namespaces):
                        yield finding("IST0101", policy, "namespace", name, at=("rules", i, "from", j, "source"))


def sidecar_selectors(documents: Documents) -> Iterator[Finding]:
    """Sidecars that select no pod, the same pod, or without a selector the same namespace."""
    by_pod: dict[tuple[str, str], list[int]] = {}
    by_namespace: dict[str, list[int]] = {}
    found = documents.of("Sidecar")
    for index, sidecar in enumerate(found):
        selector = sidecar.spec.workload_selector.labels if sidecar.spec.workload_selector else {}
        if not selector:
            by_namespace.setdefault(sidecar.namespace, []).append(index)
            continue
        selected = documents.pods(selector, sidecar.namespace)
        if not selected:
            yield finding("IST0101", sidecar, "selector", selector_text(selector), at=("workloadSelector",))
        for pod in selected:
            by_pod.setdefault((pod.namespace, pod.name), []).append(index)
    for (namespace, pod_name), together in by_pod.items():
        names = listed(sorted(found[i].name for i in together))
        for index in together if len(together) > 1 else []:
            yield finding("IST0110", found[index], names, namespace, pod_name)
    for owner, together in by_namespace.items():
        names = listed(sorted(found[i].name for i in together))
        for index in together if len(together) > 1 else []:
            yield finding("IST0111", found[index], names, owner)


def _namespace_fits(pattern: str, name: str) -> bool:
    if pattern == "*":
        return True
    if pattern.startswith("*"):
        return name.endswith(pattern[1:])
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name.lower() == pattern.lower()

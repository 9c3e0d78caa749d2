"""Resources that contradict one another: hosts claimed twice, protocols that differ, certificates shared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any as Json

from meshsim import hosts
from meshsim.analysis.catalogue import EVERYWHERE, Documents, scopes
from meshsim.analysis.findings import Finding, finding, full_name, listed
from meshsim.resources.gateway import ServerTlsSettings
from meshsim.resources.resource import Resource

MESH = "mesh"


def mesh_hosts(documents: Documents) -> Iterator[Finding]:
    """A host that several VirtualServices bound to `mesh` claim: on sidecars only the oldest is used."""
    claims: dict[tuple[str, str], list[Resource[Json]]] = {}
    for service in documents.of("VirtualService"):
        if not service.spec.gateways or MESH in service.spec.gateways:
            for scope in scopes(service.spec.export_to, service.namespace):
                for host in service.spec.hosts:
                    claims.setdefault((scope, hosts.expand_short(host, service.namespace)), []).append(service)
    reported: set[str] = set()
    for (scope, host), mine in claims.items():
        together = list(mine)
        if scope != EVERYWHERE:
            for (other, name), theirs in claims.items():
                if other == EVERYWHERE and hosts.matches(host, name):
                    together += theirs
        names = ",".join(sorted(full_name(s) for s in together))
        for service in together if len(together) > 1 else []:
            if full_name(service) not in reported:
                reported.add(full_name(service))
                yield finding("IST0109", service, names, f"{scope}/{host}", at=("hosts",))


def service_entry_protocols(documents: Documents) -> Iterator[Finding]:
    """One host and port with different protocols in several ServiceEntries."""
    claims: dict[tuple[str, str, int], list[tuple[str, Resource[Json]]]] = {}
    for entry in documents.of("ServiceEntry"):
        for scope in scopes(entry.spec.export_to, entry.namespace):
            for host in entry.spec.hosts:
                for port in entry.spec.ports:
                    claims.setdefault((scope, host, port.number), []).append((port.protocol, entry))
    reported: set[str] = set()
    for (scope, host, number), mine in claims.items():
        together = mine if scope == EVERYWHERE else [*mine, *claims.get((EVERYWHERE, host, number), [])]
        protocols = sorted({protocol.upper() for protocol, _ in together})
        if len(protocols) < 2:
            continue
        names = ", ".join(sorted({full_name(entry) for _, entry in together}))
        for _, entry in together:
            if full_name(entry) not in reported:
                reported.add(full_name(entry))
                yield finding("IST0177", entry, names, host, number, ", ".join(protocols), at=("hosts",))


def gateway_certificates(documents: Documents) -> Iterator[Finding]:
    """The same certificate in several Gateways of a pod: clients that reuse HTTP/2 connections reach the wrong one."""
    gateways = documents.of("Gateway")
    for gateway in gateways:
        for other in gateways:
            if other is gateway or not _selects_as_much(gateway.spec.selector, other.spec.selector):
                continue
            for server in gateway.spec.servers:
                for beside in other.spec.servers:
                    if server.tls and beside.tls and _same_certificate(server.tls, beside.tls):
                        yield finding("IST0138", gateway, listed([full_name(gateway), full_name(other)]))


def _selects_as_much(selector: Mapping[str, str], other: Mapping[str, str]) -> bool:
    return selector.items() <= other.items()


def _same_certificate(a: ServerTlsSettings, b: ServerTlsSettings) -> bool:
    if a.credential_name or b.credential_name:
        return a.credential_name == b.credential_name
    same = (a.server_certificate, a.private_key) == (b.server_certificate, b.private_key)
    return same and bool(a.server_certificate and a.private_key)

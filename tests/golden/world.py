"""The world a golden call meets, as the README of the golden cases describes it: servers, names, services and secrets.

How this works: everything here is made from the case's data alone, so every engine meets the same world: `external_servers` are
ordinary ExternalServer specs, `names` and `services` what DNS and kube-proxy would know, `Certificates` the CAs with the secrets
each proxy can be given.
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any as Json

from meshsim import xds
from meshsim.identity import Leaf
from meshsim.network.secrets import Identity, SecretFiles
from meshsim.resources.external_server import ClientCertificates, ExternalServerSpec, Presented, ServerCertificate, ServerPort
from meshsim.world.certificates import Authorities
from tests.golden.case import proxy_of

CAS = ("public", "mesh", "partner", "unknown")
Manifest = Mapping[str, Json]


def external_servers(dns: Mapping[str, list[str]], listed: Iterable[Manifest], roots: Iterable[str] = ()) -> list[ExternalServerSpec]:
    """Who answers outside: what the case lists, then port 80 and 443 of every address in `dns` by the first name that has it.

    roots: PEM text of further CAs whose client certificates the servers accept.
    """
    pem = list(roots)
    found = []
    for server in listed:
        host = server["host"]
        addresses = dns.get(host) or ([host] if _is_address(host) else [])
        found.append(ExternalServerSpec(hosts=[host], addresses=addresses, ports=[_port(server["port"], server["protocol"], pem, server)]))
    owners: dict[str, str] = {}
    for name, addresses in dns.items():
        for address in addresses:
            owners.setdefault(address, name)
    usual = [_port(80, "http", pem), _port(443, "tls", pem)]
    found += [ExternalServerSpec(hosts=[name], addresses=[address], ports=usual) for address, name in owners.items()]
    return found


def application(proxy: str, ports: Iterable[int]) -> ExternalServerSpec:
    """What answers inside a sidecar's pod: the same HTTP echo, by the proxy's name."""
    return ExternalServerSpec(hosts=[proxy], ports=[_port(port, "http", []) for port in ports])


def application_address(number: int) -> str:
    """Where the recorder put the application of the case's n-th proxy (from 0); logs name it as the upstream."""
    return f"127.0.1.{number + 1}"


def _port(number: int, protocol: str, pem: list[str], listed: Manifest | None = None) -> ServerPort:
    fixed = listed is not None and ("names" in listed or "ca" in listed)
    certificate = ServerCertificate(any_name=True)
    if listed is not None and fixed:
        certificate = ServerCertificate(names=(listed.get("names") or [listed["host"]])[:1], ca=listed.get("ca", "public"))
    clients = ClientCertificates(mode="optional", trust=["mesh", "public", "partner"], pem=pem)
    return ServerPort(
        port=number,
        protocol={"tls": "https", "http": "http", "tcp": "tcp"}[protocol],  # type: ignore[arg-type]
        certificate=certificate,
        client_certificates=clients,
        connect=True,
    )


def names(dns: Mapping[str, list[str]], resources: Iterable[Manifest]) -> dict[str, list[str]]:
    """What DNS knows: the case's table, and every Service with an address of its own."""
    table = {name.lower().rstrip("."): list(addresses) for name, addresses in dns.items()}
    for service in _services(resources):
        metadata = service["metadata"]
        table[f"{metadata['name']}.{metadata.get('namespace', 'default')}.svc.cluster.local"] = [service["spec"]["clusterIP"]]
    return table


def services(resources: list[Manifest]) -> dict[str, list[str]]:
    """Where a ClusterIP and port leads: the first address of the first EndpointSlice with that port's name."""
    behind: dict[tuple[str, str, str], str] = {}
    for piece in (r for r in resources if r["kind"] == "EndpointSlice"):
        metadata = piece["metadata"]
        owner = metadata["labels"]["kubernetes.io/service-name"]
        for port in piece["ports"]:
            for endpoint in piece["endpoints"]:
                key = (metadata.get("namespace", "default"), owner, port["name"])
                behind.setdefault(key, f"{endpoint['addresses'][0]}:{port['port']}")
    found: dict[str, list[str]] = {}
    for service in _services(resources):
        metadata = service["metadata"]
        for port in service["spec"]["ports"]:
            target = behind.get((metadata.get("namespace", "default"), metadata["name"], port.get("name", "")))
            if target:
                found.setdefault(f"{service['spec']['clusterIP']}:{port['port']}", [target])
    return found


def _services(resources: Iterable[Manifest]) -> Iterable[Manifest]:
    return (r for r in resources if r["kind"] == "Service" and r["spec"].get("clusterIP", "None") != "None")


def inbound_ports(config: xds.ProxyConfig) -> list[int]:
    """The ports on which a sidecar's pod answers: one for each of its inbound clusters."""
    return sorted({int(c.name.split("|")[1]) for c in config.clusters if c.name.startswith("inbound|")})


def resolver(namespace: str, table: Mapping[str, list[str]], captured: Mapping[str, list[str]]) -> Callable[[str], Awaitable[list[str]]]:
    """How a pod looks a name up: its search order, at each step the DNS proxy's table (`captured`) before the common one."""

    async def resolve(host: str) -> list[str]:
        if host.replace(".", "").isdigit():
            return [host]
        for suffix in ("", f".{namespace}.svc.cluster.local", ".svc.cluster.local", ".cluster.local"):
            for source in (captured, table):
                if host.rstrip(".") + suffix in source:
                    return source[host.rstrip(".") + suffix]
        return []

    return resolve


def captured_names(config: xds.ProxyConfig) -> dict[str, list[str]]:
    """The table of a proxy's own DNS proxy."""
    return {host: info.get("ips", []) for table in config.name_table for host, info in table.get("table", {}).items()}


def secret_data(resources: Iterable[Manifest]) -> dict[tuple[str, str], dict[str, bytes]]:
    """The contents of the case's Secrets by namespace and name."""
    found = {}
    for secret in (r for r in resources if r["kind"] == "Secret"):
        data = {key: base64.b64decode(value) for key, value in (secret.get("data") or {}).items()}
        data |= {key: value.encode() for key, value in (secret.get("stringData") or {}).items()}
        found[secret["metadata"].get("namespace", "default"), secret["metadata"]["name"]] = data
    return found


class Certificates:
    """The CAs of the golden world, made once for many cases, and what they issued."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.authorities = Authorities(folder / "ca")
        self.roots = {name: self.authorities[name].root for name in CAS}
        self._identities: dict[str, Identity] = {}

    def identity(self, proxy: Manifest) -> Identity:
        """The proxy's SPIFFE certificate from the mesh's CA."""
        uri = proxy_of(proxy).identity()
        if uri not in self._identities:
            stem = f"{proxy['namespace']}-{proxy['serviceAccount']}"
            chain, key = self.folder / f"{stem}.pem", self.folder / f"{stem}.key"
            self.authorities["mesh"].issue(Leaf(uris=(uri,))).write(chain, key)
            self._identities[uri] = Identity(chain, key, self.authorities.root_file("mesh"))
        return self._identities[uri]

    def secrets(self, proxy: Manifest, folder: Path, kubernetes: Mapping[tuple[str, str], Mapping[str, bytes]]) -> SecretFiles:
        """What this proxy can be given; `folder` for the files of one case."""
        identity = self.identity(proxy)
        client_chain, client_key = self.folder / "client.pem", self.folder / "client.key"
        if not client_chain.exists():
            self.authorities.issue(Presented(("client.partner.example",), "partner")).write(client_chain, client_key)

        def pod_files(path: str) -> Path | None:
            if path.startswith("/etc/certs/"):
                kinds = {"key": identity.key, "root": identity.root, "ca": identity.root}
                return next((file for word, file in kinds.items() if Path(path).name.startswith(word)), identity.chain)
            if path == "system" or path == "/etc/partner/ca.pem":
                return self.authorities.root_file("public")
            if path.startswith("/etc/partner/client"):
                return client_key if "key" in path else client_chain
            return None

        return SecretFiles(folder, proxy["namespace"], lambda: identity, pod_files, kubernetes)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True

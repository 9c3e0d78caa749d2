"""What Kubernetes itself provides to a mesh: the cluster's DNS, the places behind ClusterIPs, the contents of Secrets. Pure.

Kubernetes DNS: a Service answers as `NAME.NAMESPACE.svc.DOMAIN`, a headless one with its ready endpoints (each also as
`HOSTNAME.` of it), an ExternalName one with the addresses of the name it stands for. External servers answer by their hosts;
nothing else resolves.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator
from typing import Any as Json
from typing import NamedTuple

from meshsim.resources.resource import Resource
from meshsim.topology import PROXY_CONTAINER

DOMAIN = "cluster.local"
SERVICE_LABEL = "kubernetes.io/service-name"
_NO_ADDRESS = ("", "None")


class _Behind(NamedTuple):
    """An endpoint of a Service: its address, port and the port's name."""

    address: str
    port: int
    port_name: str
    hostname: str


def search_order(namespace: str) -> list[str]:
    """What a pod's resolver appends to a name, one after the other."""
    return [f".{namespace}.svc.{DOMAIN}", f".svc.{DOMAIN}", f".{DOMAIN}"]


def names(resources: Iterable[Resource[Json]]) -> dict[str, list[str]]:
    """The cluster's DNS: absolute names to addresses."""
    resources = list(resources)
    table: dict[str, list[str]] = {}
    for server in (r for r in resources if r.kind == "ExternalServer"):
        for host in server.spec.hosts:
            table.setdefault(host.lower(), []).extend(a for a in server.spec.addresses if a not in table.get(host.lower(), ()))
    behind = _endpoints(resources)
    aliases: dict[str, str] = {}
    for service in (r for r in resources if r.kind == "Service"):
        name = f"{service.name}.{service.namespace}.svc.{DOMAIN}"
        if service.spec.type == "ExternalName":
            aliases[name] = service.spec.external_name.lower().rstrip(".")
        elif service.spec.cluster_ip not in _NO_ADDRESS:
            table[name] = [service.spec.cluster_ip]
        elif found := behind.get((service.namespace, service.name)):
            table[name] = list(dict.fromkeys(e.address for e in found))
            table |= {f"{e.hostname}.{name}": [e.address] for e in found if e.hostname}
    for alias in aliases:
        target = alias
        for _ in range(len(aliases)):  # an alias may name an alias, in a circle even
            target = aliases.get(target, target)
        if target in table:
            table[alias] = table[target]
    return table


def services(resources: Iterable[Resource[Json]]) -> dict[str, list[str]]:
    """What kube-proxy knows: `ClusterIP:port` to the ready `address:port`s behind it."""
    resources = list(resources)
    behind = _endpoints(resources)
    found: dict[str, list[str]] = {}
    for service in (r for r in resources if r.kind == "Service" and r.spec.cluster_ip not in _NO_ADDRESS):
        for port in service.spec.ports:
            places = [f"{e.address}:{e.port}" for e in behind.get((service.namespace, service.name), ()) if e.port_name == port.name]
            if places:
                found[f"{service.spec.cluster_ip}:{port.port}"] = places
    return found


def datagrams(resources: Iterable[Resource[Json]]) -> list[str]:
    """The `ClusterIP:port`s of Services that are for UDP."""
    found = [r for r in resources if r.kind == "Service" and r.spec.cluster_ip not in _NO_ADDRESS]
    return [f"{service.spec.cluster_ip}:{port.port}" for service in found for port in service.spec.ports if port.protocol == "UDP"]


def secrets(resources: Iterable[Resource[Json]]) -> dict[tuple[str, str], dict[str, bytes]]:
    """The data of Secrets by namespace and name; a value that is no base64 is left out."""
    found = {}
    for secret in (r for r in resources if r.kind == "Secret"):
        data = {}
        for key, value in secret.spec.data.items():
            try:
                data[key] = base64.b64decode(value)
            except binascii.Error:
                continue
        found[secret.namespace, secret.name] = data | {key: value.encode() for key, value in secret.spec.string_data.items()}
    return found


class SecretMount(NamedTuple):
    """A Secret in the file system of a pod. path: a folder, or with `keys` of one entry named "" a file. keys: file name to the Secret's
    key; empty where every key is a file of its own name."""

    path: str
    secret: tuple[str, str]
    keys: dict[str, str]

    def key(self, path: str) -> str:
        """The key behind a path in the pod; empty for a path that is not in this mount."""
        inside = path.removeprefix(self.path)
        name = inside.lstrip("/")
        if inside == path or (name and not inside.startswith("/")):
            return ""
        return self.keys.get(name, "") if self.keys else name


def mounts(resources: Iterable[Resource[Json]]) -> dict[str, list[SecretMount]]:
    """By the pod's address, the Secrets that its proxy's container has as files."""
    found: dict[str, list[SecretMount]] = {}
    for pod in (r for r in resources if r.kind == "Pod" and r.spec.spec and r.spec.status):
        volumes = {v.name: v.secret for v in pod.spec.spec.volumes if v.secret is not None}
        for mount in (m for c in pod.spec.spec.containers if c.name == PROXY_CONTAINER for m in c.volume_mounts if m.name in volumes):
            volume = volumes[mount.name]
            keys = {item.path: item.key for item in volume.items}
            if mount.sub_path:
                keys = {"": keys.get(mount.sub_path, mount.sub_path)}
            secret = (pod.namespace, volume.secret_name)
            found.setdefault(pod.spec.status.pod_ip, []).append(SecretMount(mount.mount_path.rstrip("/"), secret, keys))
    return found


def mounted(mounts: Iterable[SecretMount], path: str) -> tuple[tuple[str, str], str] | None:
    """The Secret and the key behind a path in a pod."""
    return next(((mount.secret, key) for mount in mounts if (key := mount.key(path))), None)


def _endpoints(resources: Iterable[Resource[Json]]) -> dict[tuple[str, str], list[_Behind]]:
    found: dict[tuple[str, str], list[_Behind]] = {}
    for piece in (r for r in resources if r.kind == "EndpointSlice"):
        owner = (piece.namespace, piece.metadata.labels.get(SERVICE_LABEL, ""))
        for endpoint in piece.spec.endpoints:
            if endpoint.conditions is None or endpoint.conditions.ready is not False:
                for address in endpoint.addresses[:1]:
                    for port in piece.spec.ports:
                        found.setdefault(owner, []).append(_Behind(address, port.port or 0, port.name, endpoint.hostname))
    for legacy in (r for r in resources if r.kind == "Endpoints"):
        if (legacy.namespace, legacy.name) not in found:
            found[legacy.namespace, legacy.name] = list(_subsets(legacy))
    return found


def _subsets(endpoints: Resource[Json]) -> Iterator[_Behind]:
    for subset in endpoints.spec.subsets:
        for address in subset.addresses:
            for port in subset.ports:
                yield _Behind(address.ip, port.port or 0, port.name, address.hostname)
